//! The symbolic machine: registers, flags and the stack as terms.
//!
//! Decides how parts of registers are read and written and what memory is remembered. Only stack
//! slots are: any other memory may be changed by another CPU or a device between two accesses. The
//! main type is [`Machine`]; what each instruction does to it stands in `effects`.

use std::collections::HashMap;

use iced_x86::{Instruction, InstructionInfoFactory, Register};

use super::bits::mask;
use super::term::{Origin, Segment, Term, Terms};

/// A general register, by its number in the instruction encoding (0 is RAX, 4 is RSP, 15 is R15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpr(u8);

impl Gpr {
    /// RAX.
    pub const RAX: Gpr = Gpr(0);
    /// RCX.
    pub const RCX: Gpr = Gpr(1);
    /// RDX.
    pub const RDX: Gpr = Gpr(2);
    /// RBX.
    pub const RBX: Gpr = Gpr(3);
    /// RSP.
    pub const RSP: Gpr = Gpr(4);
    /// RBP.
    pub const RBP: Gpr = Gpr(5);
    /// RSI.
    pub const RSI: Gpr = Gpr(6);
    /// RDI.
    pub const RDI: Gpr = Gpr(7);
    /// R8.
    pub const R8: Gpr = Gpr(8);
    /// R9.
    pub const R9: Gpr = Gpr(9);
    /// R11.
    pub const R11: Gpr = Gpr(11);

    const NAMES: [&'static str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];

    /// All sixteen.
    pub fn all() -> impl Iterator<Item = Gpr> {
        (0..16).map(Gpr)
    }

    /// Position, 0 to 15.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Name in lower case.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// The register with this name in lower case.
    pub fn from_name(name: &str) -> Option<Gpr> {
        Self::NAMES.iter().position(|n| *n == name).map(|i| Gpr(i as u8))
    }

    /// The general register that `register` is or is a part of.
    pub fn of(register: Register) -> Option<Gpr> {
        let full = register.full_register();
        full.is_gpr64().then(|| Gpr(full.number() as u8))
    }

    /// The C convention of the System V ABI lets a callee change it.
    pub fn is_caller_saved(self) -> bool {
        matches!(self.0, 0 | 1 | 2 | 6..=11)
    }
}

/// A flag that the evaluation follows, with its bit in RFLAGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// Carry.
    Cf,
    /// Parity.
    Pf,
    /// Auxiliary carry.
    Af,
    /// Zero.
    Zf,
    /// Sign.
    Sf,
    /// Overflow.
    Of,
    /// Interrupts enabled.
    If,
    /// Direction.
    Df,
}

impl Flag {
    /// Every flag that is followed.
    pub const ALL: [Flag; 8] =
        [Flag::Cf, Flag::Pf, Flag::Af, Flag::Zf, Flag::Sf, Flag::Of, Flag::If, Flag::Df];
    /// The six that arithmetic writes.
    pub const ARITHMETIC: [Flag; 6] = [Flag::Cf, Flag::Pf, Flag::Af, Flag::Zf, Flag::Sf, Flag::Of];

    /// Bit number in RFLAGS.
    pub fn bit(self) -> u32 {
        match self {
            Flag::Cf => 0,
            Flag::Pf => 2,
            Flag::Af => 4,
            Flag::Zf => 6,
            Flag::Sf => 7,
            Flag::If => 9,
            Flag::Df => 10,
            Flag::Of => 11,
        }
    }

    /// Name in upper case.
    pub fn name(self) -> &'static str {
        match self {
            Flag::Cf => "CF",
            Flag::Pf => "PF",
            Flag::Af => "AF",
            Flag::Zf => "ZF",
            Flag::Sf => "SF",
            Flag::Of => "OF",
            Flag::If => "IF",
            Flag::Df => "DF",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// What a call leaves intact, by the convention that holds at this call.
pub trait CallModel {
    /// The registers that are the same behind the call at `step`, as a mask by [`Gpr::index`].
    fn preserved(&self, step: usize, call: &Instruction) -> u16;
}

/// The System V convention: RBX, RBP, RSP and R12 to R15 survive, flags do not.
#[derive(Debug, Clone, Copy, Default)]
pub struct CConvention;

/// The mask of [`CConvention`].
pub const CALLEE_SAVED: u16 = (1 << 3) | (1 << 4) | (1 << 5) | 0xf000;

impl CallModel for CConvention {
    fn preserved(&self, _step: usize, _call: &Instruction) -> u16 {
        CALLEE_SAVED
    }
}

/// Registers, flags and stack slots as terms.
pub struct Machine {
    /// Every term that was made.
    pub terms: Terms,
    pub(super) registers: [Term; 16],
    pub(super) flags: [Term; 8],
    /// Base that RIP-relative addresses of the decoded code are relative to.
    code_base: Term,
    /// Remembered stack slots: base unknown and offset to size in bytes and value.
    slots: HashMap<(Term, u64), (u32, Term)>,
    /// Branches that were passed by: the step, the condition term, and its value.
    pub(super) passed: Vec<(usize, Term, bool)>,
    pub(super) step: usize,
    pub(super) info: InstructionInfoFactory,
    initial_rsp: Term,
    initial_rbp: Term,
}

impl Machine {
    /// A machine about which nothing is known.
    pub fn new() -> Machine {
        let mut terms = Terms::new();
        let registers =
            std::array::from_fn(|i| terms.unknown(Origin::Initial(Gpr(i as u8)), None, 64));
        let flags =
            std::array::from_fn(|i| terms.unknown(Origin::InitialFlag(Flag::ALL[i]), None, 1));
        let code_base = terms.unknown(Origin::CodeBase, None, 64);
        Machine {
            initial_rsp: registers[Gpr::RSP.index()],
            initial_rbp: registers[Gpr::RBP.index()],
            terms,
            registers,
            flags,
            code_base,
            slots: HashMap::new(),
            passed: Vec::new(),
            step: 0,
            info: InstructionInfoFactory::new(),
        }
    }

    /// The term that `register` holds.
    pub fn register(&self, register: Gpr) -> Term {
        self.registers[register.index()]
    }

    /// The term that `flag` holds.
    pub fn flag(&self, flag: Flag) -> Term {
        self.flags[flag.index()]
    }

    /// The unknown base of the decoded code: the true address of the instruction decoded at 0.
    pub fn code_base(&self) -> Term {
        self.code_base
    }

    /// Conditional branches that were passed by, as step, condition and its value.
    pub fn passed_branches(&self) -> &[(usize, Term, bool)] {
        &self.passed
    }

    /// Forgets `register`.
    pub fn forget(&mut self, register: Gpr, origin: Origin) {
        self.registers[register.index()] = self.terms.unknown(origin, Some(self.step), 64);
    }

    pub(super) fn fresh(&mut self, width: u32) -> Term {
        self.terms.unknown(Origin::Opaque, Some(self.step), width)
    }

    pub(super) fn forget_flag(&mut self, flag: Flag) {
        self.flags[flag.index()] = self.fresh(1);
    }

    pub(super) fn set_flag(&mut self, flag: Flag, term: Term) {
        self.flags[flag.index()] = term;
    }

    /// Reads a register part as a zero-extended term.
    pub(super) fn read_register(&mut self, register: Register) -> Option<Term> {
        let full = Gpr::of(register)?;
        let term = self.register(full);
        Some(if is_high_byte(register) {
            let shifted = self.terms.shr(term, 8);
            self.terms.low(shifted, 8)
        } else {
            self.terms.low(term, register.size() as u32 * 8)
        })
    }

    /// Writes a register part: 32 bits clear the upper half, 8 and 16 keep the rest.
    pub(super) fn write_register(&mut self, register: Register, value: Term) {
        let Some(full) = Gpr::of(register) else { return };
        let width = register.size() as u32 * 8;
        let value = self.terms.low(value, width);
        let new = match width {
            64 | 32 => value,
            _ => {
                let shift = if is_high_byte(register) { 8 } else { 0 };
                let hole = self.terms.constant(!(mask(width) << shift));
                let old = self.register(full);
                let kept = self.terms.and(old, hole);
                let placed = self.terms.shl(value, shift);
                self.terms.or(kept, placed)
            }
        };
        self.registers[full.index()] = new;
    }

    /// Effective address without the segment base.
    pub fn effective_address(&mut self, instruction: &Instruction) -> (Term, Segment) {
        let segment = match instruction.memory_segment() {
            Register::FS => Segment::Fs,
            Register::GS => Segment::Gs,
            _ => Segment::Flat,
        };
        let displacement = instruction.memory_displacement64();
        let mut address = self.terms.constant(displacement);
        if instruction.is_ip_rel_memory_operand() {
            return (self.terms.add(self.code_base, address), segment);
        }
        if let Some(base) = Gpr::of(instruction.memory_base()) {
            address = self.terms.add(self.register(base), address);
        }
        if let Some(index) = Gpr::of(instruction.memory_index()) {
            let scaled = self
                .terms
                .shl(self.register(index), instruction.memory_index_scale().trailing_zeros());
            address = self.terms.add(address, scaled);
        }
        if instruction.memory_base().is_gpr32() || instruction.memory_index().is_gpr32() {
            address = self.terms.low(address, 32);
        }
        (address, segment)
    }

    /// The base and offset of a stack address, when it is one.
    fn stack_slot(&self, address: Term, segment: Segment) -> Option<(Term, u64)> {
        let (base, offset) = self.terms.as_offset(address);
        let base = base?;
        (segment == Segment::Flat && (base == self.initial_rsp || base == self.initial_rbp))
            .then_some((base, offset))
    }

    /// The value at an address: what was stored there on the stack, else a new unknown.
    pub(super) fn load(&mut self, address: Term, segment: Segment, width: u32) -> Term {
        let slot = self.stack_slot(address, segment);
        if let Some(&(size, value)) = slot.and_then(|slot| self.slots.get(&slot))
            && size * 8 == width
        {
            return value;
        }
        let origin = Origin::Load { address, segment, bytes: (width / 8) as u8 };
        let value = self.terms.unknown(origin, Some(self.step), width);
        if let Some(slot) = slot {
            self.remember(slot, width, value);
        }
        value
    }

    pub(super) fn store(&mut self, address: Term, segment: Segment, width: u32, value: Term) {
        match self.stack_slot(address, segment) {
            Some(slot) => self.remember(slot, width, value),
            // A pointer may well point into the stack.
            None => self.forget_memory(),
        }
    }

    fn remember(&mut self, (base, offset): (Term, u64), width: u32, value: Term) {
        let size = width / 8;
        self.slots.retain(|&(other, at), &mut (other_size, _)| {
            // Two bases may be any distance apart.
            other == base
                && (offset.wrapping_sub(at) >= u64::from(other_size)
                    && at.wrapping_sub(offset) >= u64::from(size))
        });
        self.slots.insert((base, offset), (size, value));
    }

    pub(super) fn forget_memory(&mut self) {
        self.slots.clear();
    }
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new()
    }
}

fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}
