//! The control flow of one function, found by following its code from the entry: blocks, edges, calls, exits.
//!
//! What lies at an address, where a function begins, which calls never return and which code is patched in at run time is
//! asked of a [`CodeMap`]; this module knows no names. A call ends a block. Main types: [`Body`], [`CodeMap`].

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use crate::addresses::AddressMap;
use crate::brief::Brief;
use crate::cut::Cut;
use crate::effects::EffectsReader;

/// No function of a kernel is longer; what is beyond it becomes a gap.
const MOST_INSTRUCTIONS: usize = 200_000;
/// A jump table longer than this is not believed.
const MOST_TABLE_ENTRIES: usize = 4096;

/// Code that may stand in the place of the instructions at an address once the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Where the replacing instructions stand; they were linked for this place.
    pub at: u64,
    /// Their length in bytes; 0 means that the place is filled with padding.
    pub len: u32,
    /// Length in bytes of what is replaced, from the address that was asked about.
    pub replaces: u32,
}

/// What the walk has to know about the code around it.
pub trait CodeMap: Sync {
    /// The bytes from `address` to the end of its executable section; empty when there is no code.
    fn code_at(&self, address: u64) -> &[u8];
    /// The bytes from `address` to the end of its read-only data; empty when there are none. Jump tables are read from here.
    fn data_at(&self, address: u64) -> &[u8];
    /// Whether nothing is known about the instruction at `address` beside its bytes: no fault exit, no replacement, no patched
    /// jump. `false` when in doubt.
    fn is_plain(&self, address: u64) -> bool;
    /// The range of the function that `address` lies in, as the symbols have it.
    fn function_range(&self, address: u64) -> Option<(u64, u64)>;
    /// Whether a function of its own begins at `address`, so that a jump to it from elsewhere is a tail call.
    fn starts_function(&self, address: u64) -> bool;
    /// What calling or jumping to `address` means.
    fn target(&self, address: u64) -> Target;
    /// Where the code at `address` goes on when it faults.
    fn fault_exits(&self, address: u64) -> &[u64];
    /// What may be patched over `address`.
    fn replacements(&self, address: u64) -> &[Replacement];
    /// Whether the code in the file at `address` never runs, because a replacement is certain.
    fn is_replaced(&self, address: u64) -> bool;
    /// Where a jump that may be patched in at `address` goes.
    fn patched_jumps(&self, address: u64) -> &[u64];
    /// Whether execution goes on behind the undefined instruction at `address`.
    fn survives_trap(&self, address: u64) -> bool;
    /// The register values are decided elsewhere for a call through this constant address of a pointer.
    fn is_slot(&self, address: u64) -> bool;
}

/// The meaning of a branch target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Ordinary code.
    Code,
    /// Code that returns to the caller and does nothing else that matters to the walk.
    Return,
    /// Code that jumps to where a register points.
    Indirect(Register),
    /// Code that never comes back.
    NoReturn,
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Callee {
    /// The function at this address.
    Direct(u64),
    /// Whoever the pointer at this constant address points to.
    Slot(u64),
    /// Whoever a register or a computed place points to.
    Unknown,
}

/// How a block ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In its successors.
    Flows,
    /// It calls and goes on in its successors when the callee returns.
    Calls(Callee),
    /// It returns to the caller. The address is that of the code which returns, when it was jumped to.
    Returns(Option<u64>),
    /// It jumps to another function which returns in its place.
    TailCalls(Callee),
    /// It goes nowhere: a trap, a halt, a return from an interrupt, a callee that never returns.
    Stops,
    /// Where it goes could not be decided.
    Lost,
}

/// A run of instructions that is entered only at its start.
#[derive(Clone, Debug)]
pub struct Block {
    /// Range in [`Body::instructions`].
    pub range: std::ops::Range<u32>,
    /// Range in [`Body::edges`].
    pub next: std::ops::Range<u32>,
    /// How it ends.
    pub ending: Ending,
}

/// The code of one function.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Instructions in order of address, those of cold parts and replacements among them.
    pub instructions: Vec<Instruction>,
    /// Their effects.
    pub effects: Vec<Brief>,
    /// Blocks; the first one is the entry.
    pub blocks: Vec<Block>,
    /// Successors of the blocks, as indices into [`Body::blocks`].
    pub edges: Vec<u32>,
    /// Addresses at which the walk lost its way.
    pub gaps: Vec<u64>,
    /// Whether a jump through a table or a register was resolved.
    pub has_table: bool,
}

impl Body {
    /// The index of the block that holds the instruction at `address`.
    #[must_use]
    pub fn block_of(&self, address: u64) -> Option<usize> {
        let index = self.instructions.binary_search_by_key(&address, Instruction::ip).ok()? as u32;
        self.blocks.iter().position(|block| block.range.contains(&index))
    }

    /// Where control goes on behind a block, as indices into [`Body::blocks`].
    #[must_use]
    pub fn next(&self, block: &Block) -> &[u32] {
        &self.edges[block.next.start as usize..block.next.end as usize]
    }

    /// The blocks that go on in each block.
    #[must_use]
    pub fn before(&self) -> Before {
        let mut starts = vec![0_u32; self.blocks.len() + 1];
        for next in &self.edges {
            starts[*next as usize + 1] += 1;
        }
        for number in 1..starts.len() {
            starts[number] += starts[number - 1];
        }
        let mut places = starts.clone();
        let mut edges = vec![0; self.edges.len()];
        for (number, block) in self.blocks.iter().enumerate() {
            for next in self.next(block) {
                let place = &mut places[*next as usize];
                edges[*place as usize] = number as u32;
                *place += 1;
            }
        }
        Before { starts, edges }
    }

    /// Makes the entry a choice between what stands there and a jump to another function.
    pub fn may_also_jump_to(&mut self, callee: Callee) {
        let Some(first) = self.blocks.first().cloned() else { return };
        let moved = self.blocks.len() as u32;
        for next in &mut self.edges {
            if *next == 0 {
                *next = moved;
            }
        }
        let edges = self.edges.len() as u32;
        self.edges.extend([moved, moved + 1]);
        self.blocks.push(first);
        self.blocks.push(Block { range: 0..0, next: 0..0, ending: Ending::TailCalls(callee) });
        self.blocks[0] = Block { range: 0..0, next: edges..edges + 2, ending: Ending::Flows };
    }

    /// The last instruction of a block.
    #[must_use]
    pub fn last_of(&self, block: &Block) -> Option<&Instruction> {
        self.instructions.get(block.range.end.checked_sub(1)? as usize)
    }
}

/// The edges of a [`Body`] backward.
#[derive(Clone, Debug)]
pub struct Before {
    starts: Vec<u32>,
    edges: Vec<u32>,
}

impl Before {
    /// The blocks that go on in the block `number`.
    #[must_use]
    pub fn of(&self, number: usize) -> &[u32] {
        &self.edges[self.starts[number] as usize..self.starts[number + 1] as usize]
    }
}

/// How an instruction hands on control, found while walking.
#[derive(Clone, Debug)]
struct Leave {
    targets: Targets,
    ending: Ending,
}

/// Where control goes on: nearly always nowhere, at one place, or at two.
#[derive(Clone, Debug)]
enum Targets {
    Few([u64; 2], u8),
    Many(Vec<u64>),
}

impl Targets {
    const NONE: Self = Self::Few([0; 2], 0);

    const fn one(target: u64) -> Self {
        Self::Few([target, 0], 1)
    }

    const fn two(first: u64, second: u64) -> Self {
        Self::Few([first, second], 2)
    }

    fn as_slice(&self) -> &[u64] {
        match self {
            Self::Few(targets, count) => &targets[..usize::from(*count)],
            Self::Many(targets) => targets,
        }
    }

    fn extend(&mut self, more: &[u64]) {
        let mut all = self.as_slice().to_vec();
        all.extend_from_slice(more);
        *self = Self::Many(all);
    }
}

impl Leave {
    const fn nowhere(ending: Ending) -> Self {
        Self { targets: Targets::NONE, ending }
    }
}

/// Follows the code from `entry`.
#[must_use]
pub fn walk(map: &impl CodeMap, entry: u64, reader: &mut EffectsReader) -> Body {
    let range = map.function_range(entry).unwrap_or((entry, entry.saturating_add(1)));
    let mut walk = Walk {
        map,
        entry,
        range,
        found: AddressMap::default(),
        leave_of: Vec::new(),
        leaves: Vec::new(),
        leaders: Vec::new(),
        choices: Vec::new(),
        todo: Vec::new(),
        body: Body::default(),
    };
    walk.lead(entry, None);
    while let Some((address, fence)) = walk.todo.pop() {
        walk.line(address, fence);
    }
    walk.finish(reader)
}

/// Where the instructions of a replacement end, and where execution goes on then.
#[derive(Clone, Copy)]
struct Fence {
    start: u64,
    end: u64,
    resume: u64,
}

impl Fence {
    fn holds(self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// Where execution goes on behind an instruction that ends before `next`.
fn behind_fence(fence: Option<Fence>, next: u64) -> u64 {
    fence.filter(|fence| next >= fence.end).map_or(next, |fence| fence.resume)
}

/// Where a branch leads: one to the end of a replacement goes on behind what is replaced (`apply_relocation()` in
/// arch/x86/kernel/alternative.c).
fn landing(fence: Option<Fence>, target: u64) -> u64 {
    fence.filter(|fence| target == fence.end).map_or(target, |fence| fence.resume)
}

struct Walk<'m, M> {
    map: &'m M,
    entry: u64,
    range: (u64, u64),
    /// Indices of the instructions found so far.
    found: AddressMap<u32>,
    /// For each instruction 0, or its place in `leaves` plus one.
    leave_of: Vec<u32>,
    leaves: Vec<Leave>,
    leaders: Vec<u64>,
    /// What may stand in the place of the instruction at an address.
    choices: Vec<(u64, Vec<u64>)>,
    todo: Vec<(u64, Option<Fence>)>,
    body: Body,
}

impl<M: CodeMap> Walk<'_, M> {
    fn lead(&mut self, address: u64, fence: Option<Fence>) {
        self.leaders.push(address);
        if !self.found.contains_key(&address) {
            self.todo.push((address, fence));
        }
    }

    /// Walks straight on from `address` until control leaves the line.
    fn line(&mut self, start: u64, fence: Option<Fence>) {
        let bytes = self.map.code_at(start);
        let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut previous: Option<u32> = None;
        loop {
            let address = start.wrapping_add(decoder.position() as u64);
            if let Some(fence) = fence
                && address >= fence.end
            {
                self.join(previous, fence.resume);
                return;
            }
            if self.found.contains_key(&address) {
                self.leaders.push(address);
                return;
            }
            if previous.is_some()
                && address != self.entry
                && !self.inside(address)
                && self.map.starts_function(address)
            {
                // Control runs into the next function: hand-written code that shares its tail.
                let tail = Leave::nowhere(Ending::TailCalls(Callee::Direct(address)));
                self.set_leave(previous, tail);
                return;
            }
            if !decoder.can_decode() || self.body.instructions.len() >= MOST_INSTRUCTIONS {
                self.lose(previous, address);
                return;
            }
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                self.lose(previous, address);
                return;
            }
            let next = instruction.next_ip();
            let mut leave = self.leave(&instruction, fence);
            if !self.map.is_plain(address) {
                self.choose(address);
                let faults = self.map.fault_exits(address);
                if !faults.is_empty() && leave.is_none() {
                    // The exit counts as lying behind the instruction: some handlers write its results (`ex_handler_msr()`),
                    // and where they do not, the fixup code does.
                    let mut targets = Targets::one(behind_fence(fence, next));
                    targets.extend(faults);
                    leave = Some(Leave { targets, ending: Ending::Flows });
                }
                let jumps = self.map.patched_jumps(address);
                if !jumps.is_empty() {
                    let leave = leave.get_or_insert(Leave::nowhere(Ending::Flows));
                    leave.ending = Ending::Flows;
                    // A no-op that may become a jump, or a jump that may become a no-op.
                    leave.targets.extend(jumps);
                    leave.targets.extend(&[behind_fence(fence, next)]);
                }
            }
            let index = self.body.instructions.len() as u32;
            self.body.instructions.push(instruction);
            self.leave_of.push(0);
            self.found.insert(address, index);
            if let Some(leave) = leave {
                for target in leave.targets.as_slice() {
                    if !self.goes_elsewhere(*target) {
                        self.lead(*target, fence.filter(|fence| fence.holds(*target)));
                    }
                }
                self.set_leave(Some(index), leave);
                return;
            }
            previous = Some(index);
        }
    }

    /// Says how control leaves at an instruction that was found.
    fn set_leave(&mut self, index: Option<u32>, leave: Leave) {
        if let Some(place) = index.and_then(|index| self.leave_of.get_mut(index as usize)) {
            self.leaves.push(leave);
            *place = self.leaves.len() as u32;
        }
    }

    /// Records what may stand in the place of the instruction at `address`.
    fn choose(&mut self, address: u64) {
        let replacements = self.map.replacements(address);
        if replacements.is_empty() {
            return;
        }
        self.leaders.push(address);
        let mut targets = Vec::new();
        for replacement in replacements {
            let resume = address.wrapping_add(u64::from(replacement.replaces));
            let (target, fence) = if replacement.len == 0 {
                (resume, None)
            } else {
                (
                    replacement.at,
                    Some(Fence {
                        start: replacement.at,
                        end: replacement.at.wrapping_add(u64::from(replacement.len)),
                        resume,
                    }),
                )
            };
            targets.push(target);
            self.lead(target, fence);
        }
        self.choices.push((address, targets));
    }

    fn join(&mut self, previous: Option<u32>, target: u64) {
        self.set_leave(previous, Leave { targets: Targets::one(target), ending: Ending::Flows });
        self.lead(target, None);
    }

    fn lose(&mut self, previous: Option<u32>, address: u64) {
        self.body.gaps.push(address);
        self.set_leave(previous, Leave::nowhere(Ending::Lost));
    }

    fn inside(&self, address: u64) -> bool {
        (self.range.0..self.range.1).contains(&address)
    }

    /// How control leaves the line at this instruction; `None` when it does not.
    fn leave(&mut self, instruction: &Instruction, fence: Option<Fence>) -> Option<Leave> {
        let next = instruction.next_ip();
        let after = behind_fence(fence, next);
        let stop = || Some(Leave::nowhere(Ending::Stops));
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::XbeginXabortXend => None,
            FlowControl::ConditionalBranch => Some(Leave {
                targets: Targets::two(after, landing(fence, instruction.near_branch_target())),
                ending: Ending::Flows,
            }),
            FlowControl::UnconditionalBranch => {
                Some(self.jump(landing(fence, instruction.near_branch_target())))
            }
            FlowControl::IndirectBranch => Some(self.indirect_jump(instruction)),
            FlowControl::Return => Some(match instruction.mnemonic() {
                Mnemonic::Ret => Leave::nowhere(Ending::Returns(None)),
                _ => Leave::nowhere(Ending::Stops),
            }),
            // VMCALL, VMRUN, SYSCALL and their like come back to the next instruction.
            FlowControl::Call if instruction.op_count() == 0 => None,
            FlowControl::Call => {
                if matches!(instruction.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32) {
                    let target = instruction.near_branch_target();
                    if target == next {
                        // `call 1f; 1:` only pushes its address.
                        return None;
                    }
                    if self.steps_over_a_trap(next, target) {
                        return Some(Leave {
                            targets: Targets::one(target),
                            ending: Ending::Flows,
                        });
                    }
                    return match self.map.target(target) {
                        Target::NoReturn => {
                            Some(Leave::nowhere(Ending::Calls(Callee::Direct(target))))
                        }
                        Target::Indirect(_) => Some(Leave {
                            targets: self.behind(instruction.ip(), after),
                            ending: Ending::Calls(Callee::Unknown),
                        }),
                        Target::Code | Target::Return => Some(Leave {
                            targets: self.behind(instruction.ip(), after),
                            ending: Ending::Calls(Callee::Direct(target)),
                        }),
                    };
                }
                Some(Leave {
                    targets: self.behind(instruction.ip(), after),
                    ending: Ending::Calls(Callee::Unknown),
                })
            }
            FlowControl::IndirectCall => {
                let callee = self.slot(instruction).map_or(Callee::Unknown, Callee::Slot);
                Some(Leave {
                    targets: self.behind(instruction.ip(), after),
                    ending: Ending::Calls(callee),
                })
            }
            FlowControl::Interrupt => match instruction.mnemonic() {
                Mnemonic::Int3 => stop(),
                _ => None,
            },
            FlowControl::Exception => {
                if self.map.survives_trap(instruction.ip()) {
                    Some(Leave { targets: Targets::one(after), ending: Ending::Flows })
                } else {
                    stop()
                }
            }
        }
    }

    /// Whether a call leads a few bytes ahead, over code that only speculation reaches: it fills the return stack buffer, and
    /// its return address is dropped or overwritten.
    fn steps_over_a_trap(&self, next: u64, target: u64) -> bool {
        const FARTHEST: u64 = 16;
        const INT3: &[u8] = &[0xcc];
        const PAUSE: &[u8] = &[0xf3, 0x90];
        const LFENCE: &[u8] = &[0x0f, 0xae, 0xe8];
        let between = self.map.code_at(next);
        (1..=FARTHEST).contains(&target.wrapping_sub(next))
            && !self.map.starts_function(target)
            && [INT3, PAUSE, LFENCE].iter().any(|trap| between.starts_with(trap))
    }

    /// Where control goes on behind a call at `address`.
    fn behind(&self, address: u64, after: u64) -> Targets {
        if self.ends_part(address, after) { Targets::NONE } else { Targets::one(after) }
    }

    /// Whether a call at `address` is the last instruction of its symbol: nothing but a call that never returns stands there.
    fn ends_part(&self, address: u64, after: u64) -> bool {
        let other = self.map.function_range(after);
        after != self.entry
            && other.is_some_and(|range| range.0 == after)
            && self.map.function_range(address) != other
    }

    /// Whether a jump to `target` leaves the function for another one.
    fn goes_elsewhere(&self, target: u64) -> bool {
        target != self.entry
            && !self.inside(target)
            && (self.map.starts_function(target) || self.map.target(target) != Target::Code)
    }

    fn jump(&mut self, target: u64) -> Leave {
        match self.map.target(target) {
            Target::Return => {
                return Leave::nowhere(Ending::Returns(Some(target)));
            }
            Target::Indirect(_) => {
                return Leave::nowhere(Ending::TailCalls(Callee::Unknown));
            }
            Target::NoReturn if self.goes_elsewhere(target) => {
                return Leave::nowhere(Ending::Stops);
            }
            Target::NoReturn | Target::Code => {}
        }
        if self.goes_elsewhere(target) {
            return Leave::nowhere(Ending::TailCalls(Callee::Direct(target)));
        }
        Leave { targets: Targets::one(target), ending: Ending::Flows }
    }

    fn slot(&self, instruction: &Instruction) -> Option<u64> {
        if instruction.op0_kind() != OpKind::Memory
            || !matches!(instruction.memory_segment(), Register::DS | Register::None)
        {
            return None;
        }
        let address = if instruction.is_ip_rel_memory_operand() {
            instruction.ip_rel_memory_address()
        } else if instruction.memory_base() == Register::None
            && instruction.memory_index() == Register::None
        {
            instruction.memory_displacement64()
        } else {
            return None;
        };
        self.map.is_slot(address).then_some(address)
    }

    fn indirect_jump(&mut self, instruction: &Instruction) -> Leave {
        if let Some(address) = self.slot(instruction) {
            return Leave::nowhere(Ending::TailCalls(Callee::Slot(address)));
        }
        let scaled = instruction.op0_kind() == OpKind::Memory
            && instruction.memory_index() != Register::None
            && instruction.memory_base() == Register::None
            && instruction.memory_index_scale() == 8;
        if scaled {
            let targets = self.absolute_table(instruction.memory_displacement64());
            if !targets.is_empty() {
                self.body.has_table = true;
                return Leave { targets: Targets::Many(targets), ending: Ending::Flows };
            }
        }
        if let Some(targets) = self.relative_table(instruction) {
            self.body.has_table = true;
            return Leave { targets: Targets::Many(targets), ending: Ending::Flows };
        }
        Leave::nowhere(Ending::TailCalls(Callee::Unknown))
    }

    /// Entries of a table of code addresses, as long as they stay in this function.
    fn absolute_table(&self, table: u64) -> Vec<u64> {
        let data = self.map.data_at(table);
        let mut targets: Vec<u64> = data
            .chunks_exact(8)
            .take(MOST_TABLE_ENTRIES)
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap_or_default()))
            .take_while(|target| self.inside(*target))
            .collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// The table of `lea table(%rip),%a; movslq (%a,%i,4),%b; add %a,%b; jmp *%b`, the form of position-independent code.
    fn relative_table(&self, instruction: &Instruction) -> Option<Vec<u64>> {
        if instruction.code() != Code::Jmp_rm64 || instruction.op0_kind() != OpKind::Register {
            return None;
        }
        const FAR_ENOUGH: usize = 12;
        let recent = self.body.instructions.iter().rev().take(FAR_ENOUGH);
        let mut scaled_load = false;
        for earlier in recent {
            scaled_load |=
                earlier.mnemonic() == Mnemonic::Movsxd && earlier.memory_index_scale() == 4;
            if scaled_load
                && earlier.mnemonic() == Mnemonic::Lea
                && earlier.is_ip_rel_memory_operand()
            {
                let table = earlier.ip_rel_memory_address();
                let mut targets: Vec<u64> = self
                    .map
                    .data_at(table)
                    .chunks_exact(4)
                    .take(MOST_TABLE_ENTRIES)
                    .map(|entry| {
                        table.wrapping_add(i64::from(i32::from_le_bytes(
                            entry.try_into().unwrap_or_default(),
                        )) as u64)
                    })
                    .take_while(|target| self.inside(*target))
                    .collect();
                targets.sort_unstable();
                targets.dedup();
                return (!targets.is_empty()).then_some(targets);
            }
        }
        None
    }

    /// Cuts what was found into blocks.
    fn finish(mut self, reader: &mut EffectsReader) -> Body {
        self.sort();
        let instructions = std::mem::take(&mut self.body.instructions);
        self.leaders.sort_unstable();
        let mut leaders = self.leaders.iter().copied().peekable();
        let mut starts: Vec<(u64, u32)> = Vec::new();
        let mut previous_end = None;
        for (index, instruction) in instructions.iter().enumerate() {
            let address = instruction.ip();
            while leaders.next_if(|leader| *leader < address).is_some() {}
            if previous_end != Some(address) || leaders.peek() == Some(&address) {
                starts.push((address, index as u32));
            }
            previous_end = (self.leave_of[index] == 0).then(|| instruction.next_ip());
        }
        let mut cut =
            Cut { starts, others: AddressMap::default(), blocks: Vec::new(), edges: Vec::new() };
        let count = cut.starts.len();
        cut.blocks.reserve(count + self.choices.len());
        for number in 0..count {
            let start = cut.starts[number].1;
            let end = cut.starts.get(number + 1).map_or(instructions.len() as u32, |next| next.1);
            cut.blocks.push(Block { range: start..end, next: 0..0, ending: Ending::Flows });
        }
        // Blocks without instructions: the choice between variants of the code, and jumps on a condition to other functions.
        let mut choices = std::mem::take(&mut self.choices);
        choices.sort_unstable();
        choices.dedup_by_key(|choice| choice.0);
        let mut originals = Vec::new();
        for (address, _) in &choices {
            let original = cut.block_at(*address);
            originals.push(original);
            if original.is_some() {
                cut.others.insert(*address, cut.blocks.len() as u32);
                cut.blocks.push(Block { range: 0..0, next: 0..0, ending: Ending::Flows });
            }
        }
        for number in 0..count {
            let last = cut.blocks[number].range.end as usize - 1;
            let (next, ending) = match self.leave_of[last].checked_sub(1) {
                Some(leave) => {
                    let leave = &self.leaves[leave as usize];
                    cut.successors(self.map, leave.targets.as_slice(), leave.ending, None)
                }
                None => {
                    cut.successors(self.map, &[instructions[last].next_ip()], Ending::Flows, None)
                }
            };
            cut.blocks[number].next = next;
            cut.blocks[number].ending = ending;
        }
        for ((address, targets), original) in choices.iter().zip(originals) {
            if let (Some(original), Some(block)) = (original, cut.others.get(address).copied()) {
                let original = (!self.map.is_replaced(*address)).then_some(original);
                let (next, _) = cut.successors(self.map, targets, Ending::Flows, original);
                cut.blocks[block as usize].next = next;
            }
        }
        // The entry comes first; the others follow in order of address.
        let entry = cut.others.get(&self.entry).copied().or_else(|| cut.block_at(self.entry));
        if let Some(entry) = entry.filter(|entry| *entry != 0) {
            cut.blocks.swap(0, entry as usize);
            for next in &mut cut.edges {
                *next = match *next {
                    0 => entry,
                    next if next == entry => 0,
                    next => next,
                };
            }
        }
        self.body.effects = instructions
            .iter()
            .zip(&self.leave_of)
            .map(|(instruction, leave)| {
                let leave = leave.checked_sub(1).map(|leave| self.leaves[leave as usize].ending);
                let calls = leave.is_some_and(|ending| ending != Ending::Flows);
                let brief = Brief::of(instruction, reader);
                if calls { brief } else { brief.without_call(instruction) }
            })
            .collect();
        self.body.instructions = instructions;
        self.body.blocks = cut.blocks;
        self.body.edges = cut.edges;
        self.body
    }

    /// Puts what was found in order of address.
    fn sort(&mut self) {
        let found = &self.body.instructions;
        if found.is_sorted_by_key(Instruction::ip) {
            return;
        }
        let mut order: Vec<u32> = (0..found.len() as u32).collect();
        order.sort_unstable_by_key(|index| found[*index as usize].ip());
        self.leave_of = order.iter().map(|index| self.leave_of[*index as usize]).collect();
        self.body.instructions = order.iter().map(|index| found[*index as usize]).collect();
    }
}
