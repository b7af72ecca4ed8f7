//! The straight line of instructions that ends at the trap.
//!
//! Decides how the bytes of a `Code:` line cut into instructions and from where on control must have
//! run straight into the trap. It may not know what the instructions compute. The main type is
//! [`Window`]. Bias: wherever control may have come in from elsewhere, the line starts only there.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use kolumbo_dataflow::symbolic::Step;
use kolumbo_dataflow::symbolic::line::{Line, branch_target, ends_line};

/// Left cuts of the bytes that are tried, as `scripts/decodecode` users do by hand: an instruction
/// is at most 15 bytes long, but more than 7 wrong starts rarely stay out of step.
const CUTS: usize = 8;

/// Bytes around a trap, cut into instructions.
#[derive(Debug, Clone)]
pub struct Window {
    /// The bytes, in the order of memory.
    pub bytes: Vec<u8>,
    /// Offset of the trapping instruction.
    pub trap: usize,
    /// Everything that could be decoded before the trap, from the cut on.
    pub before: Line,
    /// The trapping instruction and what follows it.
    pub after: Line,
    /// Position in `before.steps` from which on control runs straight into the trap, except for
    /// the branches of the line itself. Equal to the number of steps where nothing is certain.
    pub start: usize,
    /// Why the line starts there.
    pub start_reason: StartReason,
    /// Offset of the first byte of the function, where it lies in the window.
    pub function_start: Option<usize>,
    /// Every way into the line is known, since the whole function was at hand.
    pub exact: bool,
}

/// A place where control comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Offset where it comes in.
    pub to: usize,
    /// Offset of the branch that brings it there, where it is one of the same code.
    pub from: Option<usize>,
}

/// Why nothing is said about what ran before the start of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartReason {
    /// The bytes begin here.
    Edge,
    /// The function begins here.
    FunctionStart,
    /// Left cuts disagree on how the bytes before are cut.
    Unaligned,
    /// The instruction before does not fall through.
    Unreachable,
    /// A branch lands here.
    BranchTarget,
    /// A loop of the line begins here: earlier rounds may have changed everything.
    LoopHead,
    /// Padding lies before it, as before a loop head.
    Padding,
    /// No left cut makes an instruction start at the trap.
    Undecodable,
}

impl Window {
    /// Cuts `bytes` so that an instruction starts at `trap`. `function_offset` is the distance of
    /// the trap from the start of its function, where the dump names it.
    pub fn align(bytes: &[u8], trap: usize, function_offset: Option<u64>) -> Window {
        let trap = trap.min(bytes.len());
        let function_start =
            function_offset.and_then(|o| usize::try_from(o).ok()).and_then(|o| trap.checked_sub(o));
        let after = Line::decode_on(bytes, trap);
        let mut window = Window {
            bytes: bytes.to_vec(),
            trap,
            before: Line::default(),
            after,
            start: 0,
            start_reason: StartReason::Edge,
            function_start,
            exact: false,
        };
        if let Some(line) = function_start.and_then(|s| Line::decode_until(bytes, s, trap)) {
            window.before = line;
            window.start_reason = StartReason::FunctionStart;
        } else {
            // A function start that does not decode up to the trap is data or a wrong offset.
            window.function_start = None;
            window.cut();
        }
        window.straighten(function_offset);
        window
    }

    /// The best left cut: the fewest implausible instructions; where several are equally good, only
    /// the part on which they agree is trusted.
    fn cut(&mut self) {
        let candidates: Vec<(u32, Line)> = (0..CUTS.min(self.trap))
            .filter_map(|from| Line::decode_until(&self.bytes, from, self.trap))
            .map(|line| (line.steps.iter().map(|s| implausibility(&s.instruction)).sum(), line))
            .collect();
        let Some(least) = candidates.iter().map(|(cost, _)| *cost).min() else {
            self.start_reason = StartReason::Undecodable;
            return;
        };
        let good: Vec<Line> =
            candidates.into_iter().filter(|(cost, _)| *cost == least).map(|(_, l)| l).collect();
        let Some(first) = good.first().cloned() else { return };
        let agreed = |offset: usize| good.iter().all(|line| line.at(offset).is_some());
        let start = first.steps.iter().position(|s| agreed(s.offset)).unwrap_or(first.steps.len());
        if start > 0 {
            self.start_reason = StartReason::Unaligned;
        }
        self.before = first;
        self.start = start;
    }

    /// Moves the start behind everything where control may come in.
    fn straighten(&mut self, function_offset: Option<u64>) {
        let count = self.before.steps.len();
        for i in 0..count {
            if ends_line(&self.before.steps[i].instruction) && !self.is_breakpoint(i) {
                self.move_start(i + 1, StartReason::Unreachable);
            }
            if self.is_alignment(i, function_offset) {
                self.move_start(i + 1, StartReason::Padding);
            }
        }
        self.start_at_loop_heads();
        self.start_behind_foreign_branches(&[]);
    }

    /// Of a loop in the line only the last round is known, from its head on. A branch back to before
    /// the line leaves the line as it is; one into the middle of an instruction ends all that is
    /// known.
    fn start_at_loop_heads(&mut self) {
        for i in 0..self.before.steps.len() {
            let step = self.before.steps[i];
            let back = branch_target(&step.instruction).filter(|&t| t <= step.offset as i64);
            let start = self.before.steps.get(self.start).map_or(self.trap, |s| s.offset);
            let Some(target) = back.and_then(|t| usize::try_from(t).ok()).filter(|&t| t >= start)
            else {
                continue;
            };
            match self.before.at(target) {
                Some(head) => self.move_start(head, StartReason::LoopHead),
                None => self.move_start(i + 1, StartReason::LoopHead),
            }
        }
    }

    /// The breakpoint that was hit: an INT3 right before the trap, which is reported behind it. Padding
    /// stands where control does not fall into it.
    fn is_breakpoint(&self, i: usize) -> bool {
        let steps = &self.before.steps;
        let falls_into =
            i.checked_sub(1).is_some_and(|before| !ends_line(&steps[before].instruction));
        steps[i].instruction.mnemonic() == Mnemonic::Int3 && i + 1 == steps.len() && falls_into
    }

    /// The line itself contains the branch of this entry.
    fn runs_through(&self, entry: &Entry) -> bool {
        let step = entry.from.and_then(|from| self.before.at(from)).filter(|&i| i >= self.start);
        step.is_some_and(|i| {
            branch_target(&self.before.steps[i].instruction) == i64::try_from(entry.to).ok()
        })
    }

    /// Branches from behind the trap, from code that the line does not run through, and to
    /// `elsewhere` land with a state that nobody knows. Branches of the line itself are merged by the
    /// evaluation.
    fn start_behind_foreign_branches(&mut self, elsewhere: &[Entry]) {
        let count = self.before.steps.len();
        loop {
            let skipped = &self.before.steps[..self.start.min(count)];
            let latest = self
                .after
                .branch_targets()
                .chain(skipped.iter().filter_map(|s| branch_target(&s.instruction)))
                .filter_map(|target| usize::try_from(target).ok())
                .chain(elsewhere.iter().filter(|e| !self.runs_through(e)).map(|e| e.to))
                .filter_map(
                    |target| if target == self.trap { Some(count) } else { self.before.at(target) },
                )
                .max();
            // Whatever is skipped now may itself branch into the line.
            match latest {
                Some(latest) if latest > self.start => {
                    self.move_start(latest, StartReason::BranchTarget)
                }
                _ => break,
            }
        }
    }

    /// The window of a whole function: `bytes` are its code as it ran, `entries` the offsets where
    /// control comes in other than by the branches in `bytes`. Where `exact`, nothing else can.
    pub fn of_function(
        bytes: &[u8],
        trap: usize,
        entries: &[Entry],
        exact: bool,
    ) -> Option<Window> {
        let before = Line::decode_until(bytes, 0, trap)?;
        let mut window = Window {
            bytes: bytes.to_vec(),
            trap,
            before,
            after: Line::decode_on(bytes, trap),
            start: 0,
            start_reason: StartReason::FunctionStart,
            function_start: Some(0),
            exact,
        };
        for i in 0..window.before.steps.len() {
            if ends_line(&window.before.steps[i].instruction) && !window.is_breakpoint(i) {
                window.move_start(i + 1, StartReason::Unreachable);
            }
        }
        window.start_at_loop_heads();
        window.start_behind_foreign_branches(entries);
        Some(window)
    }

    fn move_start(&mut self, to: usize, reason: StartReason) {
        if to > self.start {
            self.start = to;
            self.start_reason = reason;
        }
    }

    /// A no-operation of several bytes that ends on a multiple of 16, as compilers put before loop
    /// heads. The five-byte form is left alone: tracing and jump labels leave it in straight code.
    fn is_alignment(&self, i: usize, function_offset: Option<u64>) -> bool {
        let step = &self.before.steps[i];
        let end = step.offset + step.instruction.len();
        // Functions start on a multiple of 16 bytes (-falign-functions, CONFIG_FUNCTION_ALIGNMENT).
        let Some(offset) = function_offset.and_then(|o| o.checked_sub((self.trap - end) as u64))
        else {
            return false;
        };
        step.instruction.mnemonic() == Mnemonic::Nop
            && step.instruction.len() != 5
            && offset % 16 == 0
    }

    /// The steps from the start of the line up to, not including, the trap.
    pub fn line(&self) -> &[Step] {
        &self.before.steps[self.start.min(self.before.steps.len())..]
    }

    /// The trapping instruction, where it could be decoded.
    pub fn trapping(&self) -> Option<&Instruction> {
        self.after.steps.first().map(|s| &s.instruction)
    }

    /// The bytes of `step`.
    pub fn bytes_of(&self, step: &Step) -> &[u8] {
        self.bytes.get(step.offset..step.offset + step.instruction.len()).unwrap_or(&[])
    }
}

/// How unlikely a compiler or a kernel author wrote this; 0 for the usual.
fn implausibility(instruction: &Instruction) -> u32 {
    use Mnemonic::*;
    let odd = match instruction.mnemonic() {
        In | Out | Insb | Insd | Insw | Outsb | Outsd | Outsw | Enter | Xlatb | Loop | Loope
        | Loopne | Jrcxz | Iret | Iretd | Into | Int1 | Retf | Lss | Lfs | Lgs | Std | Cmc
        | Wait | Sahf | Lahf => 3,
        _ if instruction.flow_control() == FlowControl::Interrupt => 2,
        _ if instruction.is_jmp_far() || instruction.is_call_far() => 3,
        _ if (0..instruction.op_count()).any(|i| {
            instruction.op_kind(i) == OpKind::Register
                && (instruction.op_register(i).is_st()
                    || instruction.op_register(i).is_segment_register())
        }) =>
        {
            2
        }
        // `add %al,(%rax)` is what zeros decode to.
        Add if instruction.len() == 2
            && instruction.op_kind(0) == OpKind::Memory
            && instruction.memory_base() == Register::RAX
            && instruction.op1_register() == Register::AL =>
        {
            2
        }
        _ => 0,
    };
    let segment = match instruction.segment_prefix() {
        Register::CS | Register::SS | Register::DS | Register::ES
            if instruction.mnemonic() != Mnemonic::Nop
                && !matches!(
                    instruction.flow_control(),
                    FlowControl::ConditionalBranch
                        | FlowControl::UnconditionalBranch
                        | FlowControl::IndirectBranch
                        | FlowControl::IndirectCall
                        | FlowControl::Call
                ) =>
        {
            1
        }
        _ => 0,
    };
    odd + segment
}
