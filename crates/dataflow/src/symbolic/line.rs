//! A straight line of instructions and what can be told from its shape.
//!
//! Decides how bytes cut into instructions that end exactly at a given byte, where a branch lands,
//! and which registers the code behind a call expects back from it. The main type is [`Line`].

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind,
};

use super::machine::Gpr;

/// One instruction of a line.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Offset of its first byte in the decoded bytes.
    pub offset: usize,
    /// The instruction; its IP is its offset.
    pub instruction: Instruction,
}

/// Instructions decoded one behind the other.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// In the order of their addresses.
    pub steps: Vec<Step>,
}

impl Line {
    /// Decodes `bytes[from..]` until an instruction starts at `until`, which must be hit exactly.
    /// `None` where the bytes decode past it or not at all. The IP of each instruction is its
    /// offset.
    pub fn decode_until(bytes: &[u8], from: usize, until: usize) -> Option<Line> {
        let window = bytes.get(from..until)?;
        let mut decoder = Decoder::with_ip(64, window, from as u64, DecoderOptions::NONE);
        let mut steps = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return None;
            }
            steps.push(Step { offset: instruction.ip() as usize, instruction });
        }
        Some(Line { steps })
    }

    /// Decodes `bytes[from..]` as far as whole valid instructions go.
    pub fn decode_on(bytes: &[u8], from: usize) -> Line {
        let window = bytes.get(from..).unwrap_or(&[]);
        let mut decoder = Decoder::with_ip(64, window, from as u64, DecoderOptions::NONE);
        let mut steps = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                break;
            }
            steps.push(Step { offset: instruction.ip() as usize, instruction });
        }
        Line { steps }
    }

    /// Offsets that branches of this line land on, as far as they are told by the instruction.
    pub fn branch_targets(&self) -> impl Iterator<Item = i64> + '_ {
        self.steps.iter().filter_map(|s| branch_target(&s.instruction))
    }

    /// The step that starts at `offset`.
    pub fn at(&self, offset: usize) -> Option<usize> {
        self.steps.binary_search_by_key(&offset, |s| s.offset).ok()
    }
}

/// Where a near branch (not a call) lands, relative to the bytes that were decoded.
pub fn branch_target(instruction: &Instruction) -> Option<i64> {
    let near = matches!(
        instruction.op_kind(0),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    let branches = matches!(
        instruction.flow_control(),
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
    );
    (near && branches && instruction.op_count() > 0)
        .then(|| instruction.near_branch_target() as i64)
}

/// Control never falls through this instruction.
pub fn ends_line(instruction: &Instruction) -> bool {
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return => {
            true
        }
        // UD2, INT3 and their like: whoever resumes behind them was put there by somebody.
        FlowControl::Exception | FlowControl::Interrupt => true,
        _ => false,
    }
}

/// A caller-saved register that the code behind a call reads before it writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedBack {
    /// The register.
    pub register: Gpr,
    /// The step that reads it.
    pub read_at: usize,
}

/// Which caller-saved registers the steps behind the call at `call` read before anything writes
/// them: code that does so relies on a callee that keeps them. RAX and RDX carry results and are
/// left out. Bias: pushes are not counted as reads (compilers push a register of any content to
/// align the stack), nor is anything behind a further call or a jump.
pub fn expected_back(steps: &[Step], call: usize) -> Vec<ExpectedBack> {
    let mut info = InstructionInfoFactory::new();
    let mut open: Vec<Gpr> =
        Gpr::all().filter(|r| r.is_caller_saved() && *r != Gpr::RAX && *r != Gpr::RDX).collect();
    let mut found = Vec::new();
    for (read_at, step) in steps.iter().enumerate().skip(call + 1) {
        let instruction = &step.instruction;
        let settles = matches!(instruction.mnemonic(), Mnemonic::Push | Mnemonic::Pushfq);
        for used in info.info(instruction).used_registers() {
            let Some(register) = Gpr::of(used.register()) else { continue };
            let Some(position) = open.iter().position(|r| *r == register) else { continue };
            let reads = matches!(
                used.access(),
                OpAccess::Read | OpAccess::ReadWrite | OpAccess::CondRead | OpAccess::ReadCondWrite
            );
            open.remove(position);
            // Narrow reads may be of a part that the callee returns; only whole words count.
            if reads && !settles && used.register().size() >= 4 {
                found.push(ExpectedBack { register, read_at });
            }
        }
        let leaves = instruction.flow_control() != FlowControl::Next
            && instruction.flow_control() != FlowControl::ConditionalBranch;
        if leaves || open.is_empty() {
            break;
        }
    }
    found
}
