//! What each instruction does to the symbolic machine.
//!
//! Decides the effect of the instructions that compilers emit for addresses, tests and moves, after
//! volume 2 of the Intel SDM. Whatever is not modelled here makes what it writes unknown, as the
//! decoder's own tables tell, so that a missing model can only lose knowledge.

use iced_x86::{
    Code, ConditionCode, FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register, RflagsBits,
};

use super::arithmetic::Shift;
use super::machine::{CallModel, Flag, Gpr, Machine};
use super::term::{Origin, Term};

impl Machine {
    /// Runs `instruction` as step `step` of the line, falling through it.
    pub fn run(&mut self, step: usize, instruction: &Instruction, calls: &dyn CallModel) {
        self.step = step;
        if instruction.is_call_near() || instruction.is_call_near_indirect() {
            let kept = calls.preserved(step, instruction);
            self.call(kept);
            return;
        }
        if instruction.flow_control() == FlowControl::Call {
            // SYSCALL, VMCALL and the like: another world runs and returns results in registers it
            // agreed on with this one. The flags come back with the return.
            for register in Gpr::all().filter(|r| r.is_caller_saved()) {
                self.forget(register, Origin::CalleeLeft(register));
            }
            self.forget_memory();
            return;
        }
        if instruction.is_jcc_short_or_near() {
            if let Some(condition) = self.condition(instruction.condition_code()) {
                self.passed.push((step, condition, false));
            }
            return;
        }
        // A breakpoint that execution went through: whoever handled it changed nothing.
        if instruction.mnemonic() == Mnemonic::Int3 {
            return;
        }
        if instruction.flow_control() == FlowControl::Next && self.modelled(instruction).is_some() {
            return;
        }
        self.opaque(instruction);
    }

    fn call(&mut self, kept: u16) {
        for register in Gpr::all().filter(|r| kept & (1 << r.index()) == 0) {
            self.forget(register, Origin::CalleeLeft(register));
        }
        for flag in Flag::ALL {
            self.forget_flag(flag);
        }
        self.forget_memory();
    }

    /// Forgets what the decoder's tables say the instruction may write.
    fn opaque(&mut self, instruction: &Instruction) {
        let info = self.info.info(instruction).clone();
        for used in info.used_registers() {
            let writes = matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            );
            if let (true, Some(register)) = (writes, Gpr::of(used.register())) {
                self.forget(register, Origin::Opaque);
            }
        }
        // Whatever a 32-bit destination becomes, the upper half is cleared.
        if instruction.op_count() > 0
            && instruction.op_kind(0) == OpKind::Register
            && instruction.op0_register().is_gpr32()
            && info.op_access(0) == OpAccess::Write
            && let Some(register) = Gpr::of(instruction.op0_register())
        {
            self.registers[register.index()] = self.fresh(32);
        }
        if let Mnemonic::Rdtsc | Mnemonic::Rdmsr | Mnemonic::Rdpmc | Mnemonic::Xgetbv =
            instruction.mnemonic()
        {
            self.registers[Gpr::RAX.index()] = self.fresh(32);
            self.registers[Gpr::RDX.index()] = self.fresh(32);
        }
        let writes_memory = info.used_memory().iter().any(|m| {
            !matches!(m.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
        });
        if writes_memory || info.used_memory().is_empty() && instruction.is_privileged() {
            self.forget_memory();
        }
        self.other_flags(instruction);
    }

    fn other_flags(&mut self, instruction: &Instruction) {
        for flag in Flag::ALL {
            let bit = iced_bit(flag);
            if instruction.rflags_cleared() & bit != 0 {
                let zero = self.terms.constant(0);
                self.set_flag(flag, zero);
            } else if instruction.rflags_set() & bit != 0 {
                let one = self.terms.constant(1);
                self.set_flag(flag, one);
            } else if (instruction.rflags_written() | instruction.rflags_undefined()) & bit != 0 {
                self.forget_flag(flag);
            }
        }
    }

    /// Width in bits of operand `index`, 0 where it has none that is followed.
    fn width(&self, instruction: &Instruction, index: u32) -> u32 {
        match instruction.op_kind(index) {
            OpKind::Register => instruction.op_register(index).size() as u32 * 8,
            OpKind::Memory => instruction.memory_size().size() as u32 * 8,
            _ => 0,
        }
    }

    /// Reads an operand, zero-extended; immediates are sign-extended to `width` first.
    fn read(&mut self, instruction: &Instruction, index: u32, width: u32) -> Option<Term> {
        match instruction.op_kind(index) {
            OpKind::Register => self.read_register(instruction.op_register(index)),
            OpKind::Memory => {
                let own = self.width(instruction, index);
                if own == 0 || own > 64 {
                    return None;
                }
                let (address, segment) = self.effective_address(instruction);
                Some(self.load(address, segment, own))
            }
            _ => {
                let value = instruction.try_immediate(index).ok()?;
                let term = self.terms.constant(value);
                Some(self.terms.low(term, width))
            }
        }
    }

    fn write(&mut self, instruction: &Instruction, index: u32, value: Term) {
        match instruction.op_kind(index) {
            OpKind::Register => self.write_register(instruction.op_register(index), value),
            OpKind::Memory => {
                let (address, segment) = self.effective_address(instruction);
                let width = self.width(instruction, index);
                let value = self.terms.low(value, width);
                self.store(address, segment, width, value);
            }
            _ => {}
        }
    }

    /// The instructions with a model; `None` sends the instruction to [`Machine::opaque`]. A model
    /// changes nothing before its last way to fail.
    fn modelled(&mut self, i: &Instruction) -> Option<()> {
        let locked_or_plain = !i.has_rep_prefix() && !i.has_repne_prefix();
        match i.mnemonic() {
            Mnemonic::Nop
            | Mnemonic::Endbr64
            | Mnemonic::Pause
            | Mnemonic::Lfence
            | Mnemonic::Mfence
            | Mnemonic::Sfence => {
                return Some(());
            }
            _ => {}
        }
        let width = self.width(i, 0);
        // Segment, control, debug, mask and vector registers are not followed.
        for index in 0..i.op_count() {
            if i.op_kind(index) == OpKind::Register && Gpr::of(i.op_register(index)).is_none() {
                return None;
            }
        }
        match i.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx => {
                let value = self.read(i, 1, width)?;
                self.write(i, 0, value);
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let from = self.width(i, 1);
                let value = self.read(i, 1, from)?;
                let value = self.terms.sext(value, from);
                self.write(i, 0, value);
            }
            Mnemonic::Lea => {
                let (address, _) = self.effective_address(i);
                self.write(i, 0, address);
            }
            Mnemonic::Add | Mnemonic::Adc | Mnemonic::Sub | Mnemonic::Sbb | Mnemonic::Cmp => {
                let (a, b) = (self.read(i, 0, width)?, self.read(i, 1, width)?);
                let carry = matches!(i.mnemonic(), Mnemonic::Adc | Mnemonic::Sbb)
                    .then(|| self.flag(Flag::Cf));
                let result = match i.mnemonic() {
                    Mnemonic::Add | Mnemonic::Adc => self.sum(a, b, carry, width, false),
                    _ => self.difference(a, b, carry, width, false),
                };
                if i.mnemonic() != Mnemonic::Cmp {
                    self.write(i, 0, result);
                }
            }
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test => {
                let (a, b) = (self.read(i, 0, width)?, self.read(i, 1, width)?);
                let result = match i.mnemonic() {
                    Mnemonic::Or => self.terms.or(a, b),
                    Mnemonic::Xor => self.terms.xor(a, b),
                    _ => self.terms.and(a, b),
                };
                self.logic_flags(result, width);
                if i.mnemonic() != Mnemonic::Test {
                    self.write(i, 0, result);
                }
            }
            Mnemonic::Inc | Mnemonic::Dec => {
                let a = self.read(i, 0, width)?;
                let one = self.terms.constant(1);
                let result = match i.mnemonic() {
                    Mnemonic::Inc => self.sum(a, one, None, width, true),
                    _ => self.difference(a, one, None, width, true),
                };
                self.write(i, 0, result);
            }
            Mnemonic::Neg => {
                let a = self.read(i, 0, width)?;
                let zero = self.terms.constant(0);
                let result = self.difference(zero, a, None, width, false);
                self.write(i, 0, result);
            }
            Mnemonic::Not => {
                let a = self.read(i, 0, width)?;
                let ones = self.terms.constant(u64::MAX);
                let result = self.terms.xor(a, ones);
                self.write(i, 0, result);
            }
            Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar => {
                let by = self.shift_count(i, width)?;
                let a = self.read(i, 0, width)?;
                let kind = match i.mnemonic() {
                    Mnemonic::Shr => Shift::Right,
                    Mnemonic::Sar => Shift::Arithmetic,
                    _ => Shift::Left,
                };
                // A count of zero leaves the flags alone, but still clears the upper half.
                let result = if by == 0 { a } else { self.shift(kind, a, by, width) };
                self.write(i, 0, result);
            }
            Mnemonic::Rol | Mnemonic::Ror => {
                let by = self.shift_count(i, width)?;
                let a = self.read(i, 0, width)?;
                let left = if i.mnemonic() == Mnemonic::Rol { by } else { (width - by) % width };
                if left != 0 {
                    let high = self.terms.shl(a, left);
                    let low = self.terms.shr(a, width - left);
                    let turned = self.terms.or(high, low);
                    let turned = self.terms.low(turned, width);
                    self.write(i, 0, turned);
                } else {
                    self.write(i, 0, a);
                }
                if by != 0 {
                    self.forget_flag(Flag::Cf);
                    self.forget_flag(Flag::Of);
                }
            }
            Mnemonic::Imul if i.op_count() >= 2 => {
                let (x, y) = if i.op_count() == 2 { (0, 1) } else { (1, 2) };
                let (a, b) = (self.read(i, x, width)?, self.read(i, y, width)?);
                let product = self.terms.mul(a, b);
                self.write(i, 0, product);
                for flag in Flag::ARITHMETIC {
                    self.forget_flag(flag);
                }
            }
            Mnemonic::Bt | Mnemonic::Btc | Mnemonic::Btr | Mnemonic::Bts
                if i.op_kind(0) == OpKind::Register =>
            {
                let index = self.read(i, 1, width)?;
                let by = (self.terms.as_const(index)? % u64::from(width)) as u32;
                let a = self.read(i, 0, width)?;
                let carry = self.terms.bit(a, by);
                let bit = self.terms.constant(1 << by);
                let rest = self.terms.constant(!(1 << by));
                let result = match i.mnemonic() {
                    Mnemonic::Bts => self.terms.or(a, bit),
                    Mnemonic::Btr => self.terms.and(a, rest),
                    Mnemonic::Btc => self.terms.xor(a, bit),
                    _ => a,
                };
                if i.mnemonic() != Mnemonic::Bt {
                    self.write(i, 0, result);
                }
                self.other_flags(i);
                self.set_flag(Flag::Cf, carry);
            }
            Mnemonic::Xchg => {
                let (a, b) = (self.read(i, 0, width)?, self.read(i, 1, width)?);
                self.write(i, 0, b);
                self.write(i, 1, a);
            }
            Mnemonic::Xadd => {
                let (a, b) = (self.read(i, 0, width)?, self.read(i, 1, width)?);
                let sum = self.sum(a, b, None, width, false);
                self.write(i, 1, a);
                self.write(i, 0, sum);
            }
            Mnemonic::Cmpxchg => {
                let accumulator = match width {
                    64 => Register::RAX,
                    32 => Register::EAX,
                    16 => Register::AX,
                    _ => Register::AL,
                };
                let (old, expected) = (self.read(i, 0, width)?, self.read_register(accumulator)?);
                self.difference(expected, old, None, width, false);
                if i.op_kind(0) == OpKind::Memory {
                    let stored = self.fresh(width);
                    self.write(i, 0, stored);
                } else {
                    self.forget(Gpr::of(i.op_register(0))?, Origin::Opaque);
                }
                if width == 64 {
                    // Either they were equal or the old value was loaded: RAX is the old value.
                    self.write_register(accumulator, old);
                } else {
                    self.forget(Gpr::RAX, Origin::Opaque);
                }
            }
            Mnemonic::Bswap if width == 64 || width == 32 => return None,
            Mnemonic::Cdqe | Mnemonic::Cwde | Mnemonic::Cdq | Mnemonic::Cqo => {
                let (from, to) = match i.mnemonic() {
                    Mnemonic::Cdqe => (Register::EAX, Register::RAX),
                    Mnemonic::Cwde => (Register::AX, Register::EAX),
                    Mnemonic::Cdq => (Register::EAX, Register::EDX),
                    _ => (Register::RAX, Register::RDX),
                };
                let value = self.read_register(from)?;
                let mut value = self.terms.sext(value, from.size() as u32 * 8);
                if matches!(i.mnemonic(), Mnemonic::Cdq | Mnemonic::Cqo) {
                    value = self.terms.sar(value, 63);
                }
                self.write_register(to, value);
            }
            Mnemonic::Push if locked_or_plain => {
                let size = if i.code() == Code::Pushw_imm8 || self.width(i, 0) == 16 {
                    return None;
                } else {
                    64
                };
                let value = self.read(i, 0, size)?;
                self.push(value);
            }
            Mnemonic::Pop => {
                if width != 64 {
                    return None;
                }
                let value = self.pop();
                self.write(i, 0, value);
            }
            Mnemonic::Leave if i.code() == Code::Leaveq => {
                self.registers[Gpr::RSP.index()] = self.register(Gpr::RBP);
                let value = self.pop();
                self.registers[Gpr::RBP.index()] = value;
            }
            Mnemonic::Pushfq => {
                let followed = Flag::ALL.into_iter().fold(0, |bits, f| bits | 1 << f.bit());
                let other = self.fresh(64);
                // Bit 1 is always set; 3, 5, 15 and those from 22 on never are (SDM volume 1, 3.4.3).
                let others = self.terms.constant(0x003f_7fd5 & !followed);
                let always = self.terms.constant(2);
                let mut value = self.terms.and(other, others);
                value = self.terms.or(value, always);
                for flag in Flag::ALL {
                    let placed = self.terms.shl(self.flag(flag), flag.bit());
                    value = self.terms.or(value, placed);
                }
                self.push(value);
            }
            // At privilege level 0 every flag that is followed is taken from the stack.
            Mnemonic::Popfq => {
                let value = self.pop();
                for flag in Flag::ALL {
                    let bit = self.terms.bit(value, flag.bit());
                    self.set_flag(flag, bit);
                }
            }
            Mnemonic::Movsb
            | Mnemonic::Movsq
            | Mnemonic::Movsd
            | Mnemonic::Movsw
            | Mnemonic::Stosb
            | Mnemonic::Stosq
            | Mnemonic::Stosd
            | Mnemonic::Stosw
                if i.has_rep_prefix() =>
            {
                self.opaque(i);
                let zero = self.terms.constant(0);
                self.registers[Gpr::RCX.index()] = zero;
            }
            _ if i.condition_code() != ConditionCode::None => return self.conditional(i, width),
            _ => return None,
        }
        Some(())
    }

    /// SETcc and CMOVcc.
    fn conditional(&mut self, i: &Instruction, width: u32) -> Option<()> {
        if i.flow_control() != FlowControl::Next || i.op_count() == 0 {
            return None;
        }
        let condition = self.condition(i.condition_code())?;
        match i.op_count() {
            1 => self.write(i, 0, condition),
            _ => {
                let (old, new) = (self.read(i, 0, width)?, self.read(i, 1, width)?);
                let value = self.terms.choose(condition, new, old);
                self.write(i, 0, value);
            }
        }
        Some(())
    }

    fn shift_count(&mut self, i: &Instruction, width: u32) -> Option<u32> {
        let count = match i.op_kind(1) {
            OpKind::Register => {
                let count = self.read(i, 1, 8)?;
                self.terms.as_const(count)?
            }
            _ => i.try_immediate(1).ok()?,
        };
        let by = (count & if width == 64 { 63 } else { 31 }) as u32;
        // Counts past a narrow width leave flags undefined; compilers do not emit them.
        (by < width).then_some(by)
    }

    fn push(&mut self, value: Term) {
        let eight = self.terms.constant(8u64.wrapping_neg());
        let top = self.terms.add(self.register(Gpr::RSP), eight);
        self.registers[Gpr::RSP.index()] = top;
        self.store(top, super::Segment::Flat, 64, value);
    }

    fn pop(&mut self) -> Term {
        let top = self.register(Gpr::RSP);
        let value = self.load(top, super::Segment::Flat, 64);
        let eight = self.terms.constant(8);
        self.registers[Gpr::RSP.index()] = self.terms.add(top, eight);
        value
    }

    /// The condition as a one-bit term over the flags.
    pub fn condition(&mut self, code: ConditionCode) -> Option<Term> {
        let (cf, zf, sf, of, pf) = (
            self.flag(Flag::Cf),
            self.flag(Flag::Zf),
            self.flag(Flag::Sf),
            self.flag(Flag::Of),
            self.flag(Flag::Pf),
        );
        let (term, negated) = match code {
            ConditionCode::o => (of, false),
            ConditionCode::no => (of, true),
            ConditionCode::b => (cf, false),
            ConditionCode::ae => (cf, true),
            ConditionCode::e => (zf, false),
            ConditionCode::ne => (zf, true),
            ConditionCode::be => (self.terms.or(cf, zf), false),
            ConditionCode::a => (self.terms.or(cf, zf), true),
            ConditionCode::s => (sf, false),
            ConditionCode::ns => (sf, true),
            ConditionCode::p => (pf, false),
            ConditionCode::np => (pf, true),
            ConditionCode::l => (self.terms.xor(sf, of), false),
            ConditionCode::ge => (self.terms.xor(sf, of), true),
            ConditionCode::le | ConditionCode::g => {
                let less = self.terms.xor(sf, of);
                (self.terms.or(less, zf), code == ConditionCode::g)
            }
            ConditionCode::None => return None,
        };
        Some(if negated { self.terms.not_bit(term) } else { term })
    }
}

fn iced_bit(flag: Flag) -> u32 {
    match flag {
        Flag::Cf => RflagsBits::CF,
        Flag::Pf => RflagsBits::PF,
        Flag::Af => RflagsBits::AF,
        Flag::Zf => RflagsBits::ZF,
        Flag::Sf => RflagsBits::SF,
        Flag::Of => RflagsBits::OF,
        Flag::If => RflagsBits::IF,
        Flag::Df => RflagsBits::DF,
    }
}
