//! What one instruction does: which parts of which registers and which flags it reads, certainly overwrites, may overwrite,
//! leaves undefined, and whether it touches memory.
//!
//! Decides from the instruction alone, without values and without neighbours. Main types: [`Effects`], and [`EffectsReader`]
//! which computes them quickly for many instructions.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess,
    OpKind, Register, RflagsBits,
};

use crate::parts::{ARITHMETIC_FLAGS, Parts};

/// The effect of one instruction on registers, flags and memory.
///
/// Calls and returns are described as instructions only (stack pointer and memory); what the code behind a call does is not
/// part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effects {
    /// What can influence the outcome. Idioms that read nothing (`xor %eax,%eax`, `sbb %eax,%eax` but for CF,
    /// `or $-1,%eax`, `and $0,%eax`) are known. A part that is only kept (the upper half of RAX in `mov $1,%ax`) is not read.
    pub reads: Parts,
    /// What is overwritten whatever happens. A 32-bit result overwrites all 64 bits.
    pub writes: Parts,
    /// What may be overwritten: `writes`, and the results of conditional writes (`cmov`, `rep`, flags of `shl %cl,...`).
    pub may_write: Parts,
    /// Flags in `writes` that get no defined value (`RflagsBits`), such as AF after `and`. The destination of `bsf` and `bsr`
    /// counts as written although a source of zero leaves it alone.
    pub undefined: u16,
    /// Whether memory is read. Addresses that are only computed or prefetched do not count.
    pub reads_memory: bool,
    /// Whether memory is written.
    pub writes_memory: bool,
    /// Read whatever becomes of the result: addresses, stored values, branch conditions, operands of instructions that fault
    /// or talk to a device.
    pub(crate) always: Parts,
    pub(crate) rule: Rule,
}

/// How the parts of the result depend on the parts of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Every part on everything.
    Whole,
    /// Part n of the result on part n of the operands; flags on all. The second field masks parts that a constant hides.
    Bitwise { result: u8, width: u8, hidden: u8 },
    /// Part n of the result on parts 0 to n of the operands; flags on all.
    Carry { result: u8, width: u8 },
    /// `xchg`, `xadd` of two registers: what the parts of one need lies in the other.
    Exchange { first: u8, second: u8, width: u8 },
}

impl Effects {
    /// What must be right before the instruction so that `needed_after` is right behind it, by part: a dead result needs
    /// nothing, the low byte of an `or` only the low bytes.
    #[must_use]
    pub fn needed(&self, needed_after: Parts) -> Parts {
        let kept = needed_after - self.writes;
        let wanted = needed_after & self.may_write;
        if wanted.is_empty() {
            return kept | self.always;
        }
        kept | self.always | operands(self.rule, self.reads, wanted)
    }
}

/// Which of `reads` the `wanted` parts of the result are made of.
pub(crate) fn operands(rule: Rule, reads: Parts, wanted: Parts) -> Parts {
    let flags_wanted = wanted.flags != 0;
    match rule {
        Rule::Bitwise { result, width, hidden } if !flags_wanted => {
            let parts = wanted.of_general(usize::from(result)) & width & !hidden;
            only_parts(reads, parts)
        }
        Rule::Carry { result, width } if !flags_wanted => {
            let parts = wanted.of_general(usize::from(result)) & width;
            // Everything up to the highest wanted part.
            let below = 0xff_u8.checked_shr(parts.leading_zeros()).unwrap_or(0);
            only_parts(reads, below)
        }
        Rule::Exchange { first, second, width } if !flags_wanted => {
            let of = |number: u8| u64::from(wanted.of_general(usize::from(number)) & width);
            let general = of(first) << (4 * second) | of(second) << (4 * first);
            Parts { general: general & reads.general, ..Parts::EMPTY }
        }
        _ => reads,
    }
}

/// `reads` reduced to the given parts of each general register; flags stay.
fn only_parts(reads: Parts, parts: u8) -> Parts {
    let spread = u64::from(parts & 0b1111) * 0x1111_1111_1111_1111;
    Parts { general: reads.general & spread, ..reads }
}

/// Computes [`Effects`]; keep one and use it again, since it owns buffers.
pub struct EffectsReader {
    factory: InstructionInfoFactory,
}

impl Default for EffectsReader {
    fn default() -> Self {
        Self { factory: InstructionInfoFactory::new() }
    }
}

/// The effects of one instruction. For many, use an [`EffectsReader`].
#[must_use]
pub fn effects(instruction: &Instruction) -> Effects {
    EffectsReader::default().effects(instruction)
}

impl EffectsReader {
    /// The effects of one instruction.
    pub fn effects(&mut self, instruction: &Instruction) -> Effects {
        let info = self.factory.info_options(instruction, InstructionInfoOptions::NONE);
        let mut reads = Parts::EMPTY;
        let mut writes = Parts::EMPTY;
        let mut may_write = Parts::EMPTY;
        for used in info.used_registers() {
            let parts = Parts::of(used.register());
            match used.access() {
                OpAccess::Read | OpAccess::CondRead => reads |= parts,
                OpAccess::Write => {
                    writes |= parts;
                    may_write |= parts;
                }
                OpAccess::CondWrite => may_write |= parts,
                OpAccess::ReadWrite => {
                    reads |= parts;
                    writes |= parts;
                    may_write |= parts;
                }
                OpAccess::ReadCondWrite => {
                    reads |= parts;
                    may_write |= parts;
                }
                OpAccess::None | OpAccess::NoMemAccess => {}
            }
        }
        let mut addresses = Parts::EMPTY;
        let (mut reads_memory, mut writes_memory) = (false, false);
        for memory in info.used_memory() {
            let (read, written) = match memory.access() {
                OpAccess::Read | OpAccess::CondRead => (true, false),
                OpAccess::Write | OpAccess::CondWrite => (false, true),
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
                OpAccess::None | OpAccess::NoMemAccess => continue,
            };
            reads_memory |= read;
            writes_memory |= written;
            addresses |= Parts::of(memory.base()) | Parts::of(memory.index());
        }
        let modified = instruction.rflags_modified();
        let undefined = Parts::flags(instruction.rflags_undefined()).flags;
        reads |= Parts::flags(instruction.rflags_read());
        may_write |= Parts::flags(modified);
        if !keeps_flags_when_count_is_zero(instruction) {
            writes |= Parts::flags(modified);
        }
        let mut effects = Effects {
            reads,
            writes,
            may_write,
            undefined,
            reads_memory,
            writes_memory,
            always: Parts::EMPTY,
            rule: Rule::Whole,
        };
        correct(instruction, &mut effects);
        effects.always = if acts_beyond_registers(instruction, &effects) {
            effects.reads
        } else {
            addresses & effects.reads
        };
        effects.rule = rule(instruction);
        effects
    }
}

/// A shift by a register count, or a repeated string comparison, leaves every flag alone when the count is zero.
fn keeps_flags_when_count_is_zero(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Sal
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Rol
        | Mnemonic::Ror
        | Mnemonic::Rcl
        | Mnemonic::Rcr => instruction.op1_kind() == OpKind::Register,
        Mnemonic::Shld | Mnemonic::Shrd => instruction.op2_kind() == OpKind::Register,
        Mnemonic::Cmpsb
        | Mnemonic::Cmpsw
        | Mnemonic::Cmpsd
        | Mnemonic::Cmpsq
        | Mnemonic::Scasb
        | Mnemonic::Scasw
        | Mnemonic::Scasd
        | Mnemonic::Scasq => instruction.has_rep_prefix() || instruction.has_repne_prefix(),
        _ => false,
    }
}

/// What the decoder's tables say too coarsely.
fn correct(instruction: &Instruction, effects: &mut Effects) {
    use Mnemonic::{Prefetch, Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Prefetchw};
    if matches!(
        instruction.mnemonic(),
        Prefetch | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchw
    ) {
        // A hint about any address, mapped or not, changes no result.
        effects.reads = Parts::EMPTY;
    }
    if instruction.mnemonic() == Mnemonic::Encls {
        // Of the leaf functions only EDBGRD writes RBX, and none of the others RCX or RDX (SDM volume 3D, chapter 41); which
        // leaf it is stands in EAX.
        let keeps = Parts::of(Register::RBX) | Parts::of(Register::RCX) | Parts::of(Register::RDX);
        effects.may_write = effects.may_write - keeps;
        effects.writes = effects.writes - keeps;
        // RDX is an operand of few leaf functions, and none of the rest looks at it.
        effects.reads = effects.reads - Parts::of(Register::RDX);
    }
    if matches!(
        instruction.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    ) && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() != instruction.op1_register()
    {
        // Of a bit number for a register operand only the lowest five or six bits count.
        let number = instruction.op1_register();
        let low = Parts { general: 1 << (4 * number.full_register().number()), ..Parts::EMPTY };
        effects.reads = (effects.reads - Parts::of(number)) | low;
    }
    let register = (instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register)
        .then(|| instruction.op0_register());
    let Some(destination) = register else { return };
    let own = Parts::of(destination);
    let same = instruction.op_count() == 2
        && instruction.op1_kind() == OpKind::Register
        && instruction.op1_register() == destination;
    let zero_extended =
        if destination.is_gpr32() { Parts::of(destination.full_register()) } else { own };
    match instruction.mnemonic() {
        Mnemonic::Sbb if same => {
            effects.reads = Parts::flags(RflagsBits::CF);
        }
        Mnemonic::Xor | Mnemonic::Sub if same => effects.reads = Parts::EMPTY,
        Mnemonic::Cmp if same => effects.reads = Parts::EMPTY,
        Mnemonic::Or if immediate(instruction) == Some(-1) => effects.reads = effects.reads - own,
        Mnemonic::And if immediate(instruction) == Some(0) => effects.reads = effects.reads - own,
        Mnemonic::And => {
            // Parts that the constant clears are not read.
            if let Some(mask) = immediate(instruction) {
                effects.reads = effects.reads - hidden_parts(destination, mask);
            }
        }
        mnemonic if is_cmov(mnemonic) => {
            effects.reads |= own;
            effects.may_write |= zero_extended;
            effects.writes = effects.writes - own;
            // With a 32-bit operand the upper half is cleared whether the condition holds or not.
            effects.writes |= zero_extended - own;
        }
        Mnemonic::Bsf | Mnemonic::Bsr => {
            effects.reads = effects.reads
                - if instruction.op1_kind() == OpKind::Register
                    && instruction.op1_register() == destination
                {
                    Parts::EMPTY
                } else {
                    own
                };
            effects.writes |= zero_extended;
            effects.may_write |= zero_extended;
        }
        _ => {}
    }
}

/// The immediate operand, sign-extended from the operand size; `None` when there is none.
fn immediate(instruction: &Instruction) -> Option<i64> {
    if instruction.op_count() != 2 {
        return None;
    }
    match instruction.op1_kind() {
        OpKind::Immediate8 => Some(i64::from(instruction.immediate8() as i8)),
        OpKind::Immediate16 => Some(i64::from(instruction.immediate16() as i16)),
        OpKind::Immediate32 => Some(i64::from(instruction.immediate32() as i32)),
        OpKind::Immediate8to16 => Some(i64::from(instruction.immediate8to16())),
        OpKind::Immediate8to32 => Some(i64::from(instruction.immediate8to32())),
        OpKind::Immediate8to64 => Some(instruction.immediate8to64()),
        OpKind::Immediate32to64 => Some(instruction.immediate32to64()),
        OpKind::Immediate64 => Some(instruction.immediate64() as i64),
        _ => None,
    }
}

/// Parts of `register` in which every bit of `mask` is zero.
fn hidden_parts(register: Register, mask: i64) -> Parts {
    if !register.is_gpr()
        || matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
    {
        return Parts::EMPTY;
    }
    let mask = mask as u64;
    let bits = [0xff, 0xff00, 0xffff_0000, 0xffff_ffff_0000_0000_u64]
        .iter()
        .enumerate()
        .filter(|(_, part)| mask & **part == 0)
        .fold(0_u64, |set, (number, _)| set | 1 << number);
    Parts { general: bits << (4 * register.full_register().number()), ..Parts::EMPTY }
}

fn is_cmov(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
    )
}

/// Whether the instruction matters even when every register it writes is dead.
fn acts_beyond_registers(instruction: &Instruction, effects: &Effects) -> bool {
    effects.writes_memory
        || effects.may_write.is_empty()
        || instruction.is_privileged()
        || instruction.flow_control() != FlowControl::Next
        || matches!(
            instruction.mnemonic(),
            Mnemonic::Div
                | Mnemonic::Idiv
                | Mnemonic::Cpuid
                | Mnemonic::Xgetbv
                | Mnemonic::Rdpmc
                | Mnemonic::In
                | Mnemonic::Pushf
                | Mnemonic::Popfq
                | Mnemonic::Popf
                | Mnemonic::Syscall
        )
}

fn rule(instruction: &Instruction) -> Rule {
    use Mnemonic::*;
    if instruction.op_count() == 0 || instruction.op0_kind() != OpKind::Register {
        return Rule::Whole;
    }
    let destination = instruction.op0_register();
    let high = |register: Register| {
        matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
    };
    let mixed = (1..instruction.op_count()).any(|operand| {
        instruction.op_kind(operand) == OpKind::Register && high(instruction.op_register(operand))
    });
    if !destination.is_gpr() || high(destination) || mixed {
        return Rule::Whole;
    }
    let result = destination.full_register().number() as u8;
    let own = Parts::of(destination).of_general(usize::from(result));
    match instruction.mnemonic() {
        Mov | And | Or | Xor | Not | Andn => {
            let hidden = match instruction.mnemonic() {
                And => immediate(instruction).map_or(0, |mask| {
                    hidden_parts(destination, mask).of_general(usize::from(result))
                }),
                _ => 0,
            };
            Rule::Bitwise { result, width: own, hidden }
        }
        Movzx => {
            let source = if instruction.op1_kind() == OpKind::Register {
                instruction.op1_register().size()
            } else {
                instruction.memory_size().size()
            };
            Rule::Bitwise { result, width: if source == 1 { 0b0001 } else { 0b0011 }, hidden: 0 }
        }
        mnemonic if is_cmov(mnemonic) => Rule::Bitwise { result, width: own, hidden: 0 },
        Add | Sub | Inc | Dec | Neg | Adc | Sbb | Lea => Rule::Carry { result, width: own },
        Imul if instruction.op_count() > 1 => Rule::Carry { result, width: own },
        Shl | Sal if instruction.op1_kind() != OpKind::Register => {
            Rule::Carry { result, width: own }
        }
        Xchg if instruction.op1_kind() == OpKind::Register
            && instruction.op1_register().is_gpr() =>
        {
            Rule::Exchange {
                first: result,
                second: instruction.op1_register().full_register().number() as u8,
                width: own,
            }
        }
        _ => Rule::Whole,
    }
}

/// Whether an operand lies in memory.
#[must_use]
pub fn touches_memory(instruction: &Instruction) -> bool {
    instruction.op_kinds().any(|kind| kind == OpKind::Memory)
}

/// Whether the instruction leaves every arithmetic flag as it was.
#[must_use]
pub fn keeps_arithmetic_flags(instruction: &Instruction) -> bool {
    Parts::flags(instruction.rflags_modified()).flags & ARITHMETIC_FLAGS == 0
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// One instruction as bytes, and its effects as text.
    fn check(bytes: &[u8], expected: Expect) {
        let instruction = crate::decode(bytes, 0x1000).expect("the bytes are an instruction");
        let effects = effects(&instruction);
        let memory = match (effects.reads_memory, effects.writes_memory) {
            (false, false) => "",
            (true, false) => ", loads",
            (false, true) => ", stores",
            (true, true) => ", loads and stores",
        };
        let maybe = effects.may_write - effects.writes;
        let undefined = Parts { flags: effects.undefined, ..Parts::EMPTY };
        expected.assert_eq(&format!(
            "{}: reads [{}] writes [{}] perhaps [{maybe}] undefined [{undefined}]{memory}",
            crate::disassemble(bytes, 0x1000).expect("the bytes are an instruction"),
            effects.reads,
            effects.writes,
        ));
    }

    #[test]
    fn widths() {
        check(
            &[0x88, 0xd8],
            expect!["mov    %bl,%al: reads [bl] writes [al] perhaps [] undefined []"],
        );
        check(
            &[0x88, 0xfc],
            expect!["mov    %bh,%ah: reads [bh] writes [ah] perhaps [] undefined []"],
        );
        check(
            &[0x66, 0x89, 0xd8],
            expect!["mov    %bx,%ax: reads [bx] writes [ax] perhaps [] undefined []"],
        );
        check(
            &[0x89, 0xd8],
            expect!["mov    %ebx,%eax: reads [ebx] writes [rax] perhaps [] undefined []"],
        );
        check(
            &[0x0f, 0xb6, 0xc9],
            expect!["movzbl %cl,%ecx: reads [cl] writes [rcx] perhaps [] undefined []"],
        );
        check(
            &[0x0f, 0x94, 0xc1],
            expect!["sete   %cl: reads [ZF] writes [cl] perhaps [] undefined []"],
        );
        check(
            &[0x48, 0x63, 0xc7],
            expect!["movslq %edi,%rax: reads [edi] writes [rax] perhaps [] undefined []"],
        );
    }

    #[test]
    fn idioms_read_nothing() {
        check(
            &[0x31, 0xc0],
            expect![
                "xor    %eax,%eax: reads [] writes [rax CF PF AF ZF SF OF] perhaps [] undefined [AF]"
            ],
        );
        check(
            &[0x48, 0x29, 0xc9],
            expect![
                "sub    %rcx,%rcx: reads [] writes [rcx CF PF AF ZF SF OF] perhaps [] undefined []"
            ],
        );
        check(
            &[0x48, 0x19, 0xd2],
            expect![
                "sbb    %rdx,%rdx: reads [CF] writes [rdx CF PF AF ZF SF OF] perhaps [] undefined []"
            ],
        );
        check(
            &[0x83, 0xc8, 0xff],
            expect![
                "or     $0xffffffff,%eax: reads [] writes [rax CF PF AF ZF SF OF] perhaps [] undefined [AF]"
            ],
        );
        check(
            &[0x83, 0xe0, 0x00],
            expect![
                "and    $0x0,%eax: reads [] writes [rax CF PF AF ZF SF OF] perhaps [] undefined [AF]"
            ],
        );
        check(
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            expect!["nopl   0x0(%rax,%rax,1): reads [] writes [] perhaps [] undefined []"],
        );
        check(&[0x90], expect!["nop: reads [] writes [] perhaps [] undefined []"]);
        check(
            &[0x66, 0x0f, 0xef, 0xc0],
            expect!["pxor   %xmm0,%xmm0: reads [] writes [xmm0] perhaps [] undefined []"],
        );
    }

    #[test]
    fn conditional_writes() {
        check(
            &[0x48, 0x0f, 0x44, 0xc1],
            expect!["cmove  %rcx,%rax: reads [rax rcx ZF] writes [] perhaps [rax] undefined []"],
        );
        check(
            &[0x0f, 0x44, 0xc1],
            expect!["cmove  %ecx,%eax: reads [eax ecx ZF] writes [rax] perhaps [eax] undefined []"],
        );
        check(
            &[0xd3, 0xe0],
            expect![
                "shl    %cl,%eax: reads [eax cl] writes [rax] perhaps [CF PF AF ZF SF OF] undefined [AF OF]"
            ],
        );
        check(
            &[0xc1, 0xe0, 0x05],
            expect![
                "shl    $0x5,%eax: reads [eax] writes [rax CF PF AF ZF SF OF] perhaps [] undefined [AF OF]"
            ],
        );
        check(
            &[0xd1, 0xe0],
            expect![
                "shl    %eax: reads [eax] writes [rax CF PF AF ZF SF OF] perhaps [] undefined [AF]"
            ],
        );
        check(
            &[0xf3, 0x48, 0xab],
            expect![
                "rep stos %rax,%es:(%rdi): reads [rax rcx rdi DF] writes [] perhaps [rcx rdi] undefined [], stores"
            ],
        );
        check(
            &[0xf3, 0xa6],
            expect![
                "repz cmpsb %es:(%rdi),%ds:(%rsi): reads [rcx rsi rdi DF] writes [] perhaps [rcx rsi rdi CF PF AF ZF SF OF] undefined [], loads"
            ],
        );
        check(
            &[0x0f, 0xbc, 0xc1],
            expect![
                "bsf    %ecx,%eax: reads [ecx] writes [rax CF PF AF ZF SF OF] perhaps [] undefined [CF PF AF SF OF]"
            ],
        );
    }

    #[test]
    fn flags_apart() {
        check(
            &[0xff, 0xc0],
            expect!["inc    %eax: reads [eax] writes [rax PF AF ZF SF OF] perhaps [] undefined []"],
        );
        check(&[0xf9], expect!["stc: reads [] writes [CF] perhaps [] undefined []"]);
        check(
            &[0x9c],
            expect![
                "pushf: reads [rsp CF PF AF ZF SF OF DF IF AC] writes [rsp] perhaps [] undefined [], stores"
            ],
        );
        check(
            &[0x9d],
            expect![
                "popf: reads [rsp] writes [rsp CF PF AF ZF SF OF DF IF AC] perhaps [] undefined [], loads"
            ],
        );
        check(&[0x9e], expect!["sahf: reads [ah] writes [CF PF AF ZF SF] perhaps [] undefined []"]);
        check(
            &[0x0f, 0xa3, 0xc8],
            expect![
                "bt     %ecx,%eax: reads [eax cl] writes [CF PF AF SF OF] perhaps [] undefined [PF AF SF OF]"
            ],
        );
        check(
            &[0x48, 0x8d, 0x64, 0x24, 0x08],
            expect!["lea    0x8(%rsp),%rsp: reads [rsp] writes [rsp] perhaps [] undefined []"],
        );
        check(
            &[0x48, 0x83, 0xc4, 0x08],
            expect![
                "add    $0x8,%rsp: reads [rsp] writes [rsp CF PF AF ZF SF OF] perhaps [] undefined []"
            ],
        );
        check(
            &[0xf7, 0x04, 0x25, 0x00, 0xc3, 0x5f, 0xff, 0x00, 0x10, 0x00, 0x00],
            expect![
                "testl  $0x1000,0xffffffffff5fc300: reads [] writes [CF PF AF ZF SF OF] perhaps [] undefined [AF], loads"
            ],
        );
    }

    #[test]
    fn memory_and_implied_registers() {
        check(
            &[0x48, 0x89, 0x43, 0x08],
            expect![
                "mov    %rax,0x8(%rbx): reads [rax rbx] writes [] perhaps [] undefined [], stores"
            ],
        );
        check(
            &[0x53],
            expect!["push   %rbx: reads [rbx rsp] writes [rsp] perhaps [] undefined [], stores"],
        );
        check(
            &[0x5b],
            expect!["pop    %rbx: reads [rsp] writes [rbx rsp] perhaps [] undefined [], loads"],
        );
        check(&[0xc3], expect!["ret: reads [rsp] writes [rsp] perhaps [] undefined [], loads"]);
        check(
            &[0xe8, 0, 0, 0, 0],
            expect!["call   1005: reads [rsp] writes [rsp] perhaps [] undefined [], stores"],
        );
        check(
            &[0xf0, 0x48, 0x0f, 0xb1, 0x0b],
            expect![
                "lock cmpxchg %rcx,(%rbx): reads [rax rcx rbx] writes [CF PF AF ZF SF OF] perhaps [rax] undefined [], loads and stores"
            ],
        );
        check(
            &[0x48, 0xf7, 0xe1],
            expect![
                "mul    %rcx: reads [rax rcx] writes [rax rdx CF PF AF ZF SF OF] perhaps [] undefined [PF AF ZF SF]"
            ],
        );
        check(
            &[0x0f, 0xa2],
            expect!["cpuid: reads [eax ecx] writes [rax rcx rdx rbx] perhaps [] undefined []"],
        );
        check(
            &[0x0f, 0x05],
            expect![
                "syscall: reads [CF PF AF ZF SF OF DF IF AC] writes [rcx r11 CF PF AF ZF SF OF DF IF AC] perhaps [] undefined []"
            ],
        );
        check(
            &[0x0f, 0x0d, 0x08],
            expect!["prefetchw (%rax): reads [] writes [] perhaps [] undefined []"],
        );
        check(
            &[0x66, 0x0f, 0x6f, 0x07],
            expect![
                "movdqa (%rdi),%xmm0: reads [rdi] writes [xmm0] perhaps [] undefined [], loads"
            ],
        );
        check(
            &[0xc5, 0xfd, 0xef, 0xc1],
            expect![
                "vpxor  %ymm1,%ymm0,%ymm0: reads [ymm0 ymm1] writes [zmm0] perhaps [] undefined []"
            ],
        );
    }

    /// What `bytes` needs for `after` to be right, as text.
    fn check_needed(bytes: &[u8], after: &str, expected: &str) {
        let instruction = crate::decode(bytes, 0x1000).expect("the bytes are an instruction");
        let after = after
            .split_whitespace()
            .filter_map(Parts::by_name)
            .fold(Parts::EMPTY, |set, parts| set | parts);
        assert_eq!(effects(&instruction).needed(after).to_string(), expected);
    }

    #[test]
    fn demand_by_part() {
        // or %ecx,%eax
        check_needed(&[0x09, 0xc8], "al", "al cl");
        check_needed(&[0x09, 0xc8], "rbx", "rbx");
        check_needed(&[0x09, 0xc8], "zf", "eax ecx");
        // add %ecx,%eax: the low half needs no upper parts
        check_needed(&[0x01, 0xc8], "ax", "ax cx");
        // and $0xff,%eax
        check_needed(&[0x25, 0xff, 0, 0, 0], "rax", "al");
        // mov %ecx,%eax: the upper half of the result is zero
        check_needed(&[0x89, 0xc8], "rax", "ecx");
        // movzbl %cl,%ecx
        check_needed(&[0x0f, 0xb6, 0xc9], "rcx", "cl");
        // xchg %rax,%rcx
        check_needed(&[0x48, 0x91], "al", "cl");
        // mov (%rdi),%eax: an address is needed even when the result is dead
        check_needed(&[0x8b, 0x07], "", "rdi");
        // lea 1(%rdi),%rax with a dead result needs nothing
        check_needed(&[0x48, 0x8d, 0x47, 0x01], "", "");
        check_needed(&[0x48, 0x8d, 0x47, 0x01], "eax", "edi");
        // mov $1,%al keeps the rest
        check_needed(&[0xb0, 0x01], "rax", "rax");
        // bt %edx,%ecx looks at the lowest bits of the bit number only
        check_needed(&[0x0f, 0xa3, 0xd1], "CF", "ecx dl");
    }

    #[test]
    fn names_and_back() {
        for name in ["rax", "r10d", "cx", "sil", "dh", "xmm3", "ymm31", "CF", "OF", "DF"] {
            assert_eq!(Parts::by_name(name).expect(name).to_string(), name);
        }
        assert_eq!(Parts::by_name("rip"), None);
    }
}
