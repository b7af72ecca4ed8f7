//! The control flow of one function, found by following its code from the entry: blocks, edges, calls, exits.
//!
//! What lies at an address, where a function begins, which calls never return and which code is patched in at run time is
//! asked of a [`CodeMap`]; this module knows no names. A call ends a block. Main types: [`Body`], [`CodeMap`].

use std::collections::HashMap;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

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
    /// Successors, as indices into [`Body::blocks`].
    pub next: Vec<u32>,
    /// How it ends.
    pub ending: Ending,
}

/// The code of one function.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Instructions in order of address, those of cold parts and replacements among them.
    pub instructions: Vec<Instruction>,
    /// Blocks; the first one is the entry.
    pub blocks: Vec<Block>,
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

    /// The last instruction of a block.
    #[must_use]
    pub fn last_of(&self, block: &Block) -> Option<&Instruction> {
        self.instructions.get(block.range.end.checked_sub(1)? as usize)
    }
}

/// How an instruction hands on control, found while walking.
#[derive(Clone, Debug)]
struct Leave {
    targets: Vec<u64>,
    ending: Ending,
}

/// Follows the code from `entry`.
#[must_use]
pub fn walk(map: &impl CodeMap, entry: u64) -> Body {
    let range = map.function_range(entry).unwrap_or((entry, entry.saturating_add(1)));
    let mut walk = Walk {
        map,
        entry,
        range,
        found: HashMap::new(),
        leaders: Vec::new(),
        choices: HashMap::new(),
        todo: Vec::new(),
        body: Body::default(),
    };
    walk.lead(entry, None);
    while let Some((address, fence)) = walk.todo.pop() {
        walk.line(address, fence);
    }
    walk.finish()
}

/// Where the instructions of a replacement end, and where execution goes on then.
#[derive(Clone, Copy)]
struct Fence {
    end: u64,
    resume: u64,
}

struct Walk<'m, M> {
    map: &'m M,
    entry: u64,
    range: (u64, u64),
    found: HashMap<u64, (u32, Option<Leave>)>,
    leaders: Vec<u64>,
    choices: HashMap<u64, Vec<u64>>,
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
        let mut previous: Option<u64> = None;
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
                if let Some((_, leave)) =
                    previous.and_then(|previous| self.found.get_mut(&previous))
                {
                    *leave = Some(Leave {
                        targets: Vec::new(),
                        ending: Ending::TailCalls(Callee::Direct(address)),
                    });
                }
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
            self.choose(address);
            let faults = self.map.fault_exits(address);
            if !faults.is_empty() && leave.is_none() {
                // The exit counts as lying behind the instruction: some handlers write its results (`ex_handler_msr()`), and
                // where they do not, the fixup code does.
                let mut targets = faults.to_vec();
                targets.push(next);
                leave = Some(Leave { targets, ending: Ending::Flows });
            }
            let jumps = self.map.patched_jumps(address);
            if !jumps.is_empty() {
                let leave = leave
                    .get_or_insert_with(|| Leave { targets: Vec::new(), ending: Ending::Flows });
                leave.ending = Ending::Flows;
                // A no-op that may become a jump, or a jump that may become a no-op.
                leave.targets.extend(jumps);
                leave.targets.push(next);
            }
            let index = self.body.instructions.len() as u32;
            self.body.instructions.push(instruction);
            let straight = leave.is_none();
            if let Some(leave) = &leave {
                for target in &leave.targets {
                    if !self.goes_elsewhere(*target) {
                        self.lead(*target, fence.filter(|_| *target == next));
                    }
                }
            }
            self.found.insert(address, (index, leave));
            if !straight {
                return;
            }
            previous = Some(address);
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
                        end: replacement.at.wrapping_add(u64::from(replacement.len)),
                        resume,
                    }),
                )
            };
            targets.push(target);
            self.lead(target, fence);
        }
        self.choices.insert(address, targets);
    }

    fn join(&mut self, previous: Option<u64>, target: u64) {
        if let Some(previous) = previous
            && let Some((_, leave)) = self.found.get_mut(&previous)
        {
            *leave = Some(Leave { targets: vec![target], ending: Ending::Flows });
        }
        self.lead(target, None);
    }

    fn lose(&mut self, previous: Option<u64>, address: u64) {
        self.body.gaps.push(address);
        if let Some(previous) = previous
            && let Some((_, leave)) = self.found.get_mut(&previous)
        {
            *leave = Some(Leave { targets: Vec::new(), ending: Ending::Lost });
        }
    }

    fn inside(&self, address: u64) -> bool {
        (self.range.0..self.range.1).contains(&address)
    }

    /// How control leaves the line at this instruction; `None` when it does not.
    fn leave(&mut self, instruction: &Instruction, fence: Option<Fence>) -> Option<Leave> {
        let next = instruction.next_ip();
        let after = match fence {
            Some(fence) if next >= fence.end => fence.resume,
            _ => next,
        };
        let behind = if self.ends_part(instruction.ip(), after) { Vec::new() } else { vec![after] };
        let stop = || Some(Leave { targets: Vec::new(), ending: Ending::Stops });
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::XbeginXabortXend => None,
            FlowControl::ConditionalBranch => Some(Leave {
                targets: vec![after, instruction.near_branch_target()],
                ending: Ending::Flows,
            }),
            FlowControl::UnconditionalBranch => Some(self.jump(instruction.near_branch_target())),
            FlowControl::IndirectBranch => Some(self.indirect_jump(instruction)),
            FlowControl::Return => Some(match instruction.mnemonic() {
                Mnemonic::Ret => Leave { targets: Vec::new(), ending: Ending::Returns(None) },
                _ => Leave { targets: Vec::new(), ending: Ending::Stops },
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
                    return match self.map.target(target) {
                        Target::NoReturn => Some(Leave {
                            targets: Vec::new(),
                            ending: Ending::Calls(Callee::Direct(target)),
                        }),
                        Target::Indirect(_) => {
                            Some(Leave { targets: behind, ending: Ending::Calls(Callee::Unknown) })
                        }
                        Target::Code | Target::Return => Some(Leave {
                            targets: behind,
                            ending: Ending::Calls(Callee::Direct(target)),
                        }),
                    };
                }
                Some(Leave { targets: behind, ending: Ending::Calls(Callee::Unknown) })
            }
            FlowControl::IndirectCall => {
                let callee = self.slot(instruction).map_or(Callee::Unknown, Callee::Slot);
                Some(Leave { targets: behind, ending: Ending::Calls(callee) })
            }
            FlowControl::Interrupt => match instruction.mnemonic() {
                Mnemonic::Int3 => stop(),
                _ => None,
            },
            FlowControl::Exception => {
                if self.map.survives_trap(instruction.ip()) {
                    Some(Leave { targets: vec![after], ending: Ending::Flows })
                } else {
                    stop()
                }
            }
        }
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
                return Leave { targets: Vec::new(), ending: Ending::Returns(Some(target)) };
            }
            Target::Indirect(_) => {
                return Leave { targets: Vec::new(), ending: Ending::TailCalls(Callee::Unknown) };
            }
            Target::NoReturn if self.goes_elsewhere(target) => {
                return Leave { targets: Vec::new(), ending: Ending::Stops };
            }
            Target::NoReturn | Target::Code => {}
        }
        if self.goes_elsewhere(target) {
            return Leave {
                targets: Vec::new(),
                ending: Ending::TailCalls(Callee::Direct(target)),
            };
        }
        Leave { targets: vec![target], ending: Ending::Flows }
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
            return Leave { targets: Vec::new(), ending: Ending::TailCalls(Callee::Slot(address)) };
        }
        let scaled = instruction.op0_kind() == OpKind::Memory
            && instruction.memory_index() != Register::None
            && instruction.memory_base() == Register::None
            && instruction.memory_index_scale() == 8;
        if scaled {
            let targets = self.absolute_table(instruction.memory_displacement64());
            if !targets.is_empty() {
                self.body.has_table = true;
                return Leave { targets, ending: Ending::Flows };
            }
        }
        if let Some(targets) = self.relative_table(instruction) {
            self.body.has_table = true;
            return Leave { targets, ending: Ending::Flows };
        }
        Leave { targets: Vec::new(), ending: Ending::TailCalls(Callee::Unknown) }
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
    fn finish(mut self) -> Body {
        let mut order: Vec<u32> = (0..self.body.instructions.len() as u32).collect();
        order.sort_unstable_by_key(|index| self.body.instructions[*index as usize].ip());
        let instructions: Vec<Instruction> =
            order.iter().map(|index| self.body.instructions[*index as usize]).collect();
        self.leaders.sort_unstable();
        self.leaders.dedup();
        let mut starts: Vec<u32> = Vec::new();
        let mut previous_left = true;
        for (index, instruction) in instructions.iter().enumerate() {
            let address = instruction.ip();
            let apart = index > 0 && instructions[index - 1].next_ip() != address;
            if previous_left || apart || self.leaders.binary_search(&address).is_ok() {
                starts.push(index as u32);
            }
            previous_left = self.found.get(&address).is_some_and(|(_, leave)| leave.is_some());
        }
        // The entry comes first; the others follow in order of address.
        let mut cut = Cut {
            by_start: starts
                .iter()
                .enumerate()
                .map(|(block, start)| (instructions[*start as usize].ip(), block as u32))
                .collect(),
            blocks: Vec::with_capacity(starts.len()),
        };
        // Blocks without instructions: the choice between variants of the code, and jumps on a condition to other functions.
        let originals = cut.by_start.clone();
        let mut extra: Vec<(Option<u32>, Vec<u64>)> = Vec::new();
        for (address, targets) in &self.choices {
            if let Some(original) = originals.get(address) {
                let original = (!self.map.is_replaced(*address)).then_some(*original);
                cut.by_start.insert(*address, (starts.len() + extra.len()) as u32);
                extra.push((original, targets.clone()));
            }
        }
        let mut leaves: Vec<Leave> = Vec::with_capacity(starts.len());
        for (number, start) in starts.iter().enumerate() {
            let end = starts.get(number + 1).copied().unwrap_or(instructions.len() as u32);
            let last = &instructions[end as usize - 1];
            let leave = self.found.get(&last.ip()).and_then(|(_, leave)| leave.clone());
            leaves.push(
                leave.unwrap_or_else(|| Leave {
                    targets: vec![last.next_ip()],
                    ending: Ending::Flows,
                }),
            );
            cut.blocks.push(Block { range: *start..end, next: Vec::new(), ending: Ending::Flows });
        }
        for _ in &extra {
            cut.blocks.push(Block { range: 0..0, next: Vec::new(), ending: Ending::Flows });
        }
        for (number, leave) in leaves.into_iter().enumerate() {
            let (next, ending) = cut.successors(self.map, leave.targets, leave.ending);
            cut.blocks[number].next = next;
            cut.blocks[number].ending = ending;
        }
        for (number, (original, targets)) in extra.into_iter().enumerate() {
            let (mut next, _) = cut.successors(self.map, targets, Ending::Flows);
            next.extend(original);
            let block = &mut cut.blocks[starts.len() + number];
            block.next = next;
        }
        let entry_block = cut.by_start.get(&self.entry).copied().unwrap_or(0);
        let mut blocks = cut.blocks;
        if entry_block != 0 && !blocks.is_empty() {
            blocks.swap(0, entry_block as usize);
            for block in &mut blocks {
                for next in &mut block.next {
                    if *next == 0 {
                        *next = entry_block;
                    } else if *next == entry_block {
                        *next = 0;
                    }
                }
            }
        }
        self.body.instructions = instructions;
        self.body.blocks = blocks;
        self.body
    }
}

/// Blocks while they are being joined.
struct Cut {
    by_start: HashMap<u64, u32>,
    blocks: Vec<Block>,
}

impl Cut {
    /// Block numbers of branch targets. A target in another function gets a block of its own that tail-calls it.
    fn successors(
        &mut self,
        map: &impl CodeMap,
        targets: Vec<u64>,
        ending: Ending,
    ) -> (Vec<u32>, Ending) {
        let mut next = Vec::with_capacity(targets.len());
        let mut ending = ending;
        for target in targets {
            if let Some(block) = self.by_start.get(&target) {
                next.push(*block);
                continue;
            }
            let exit = match map.target(target) {
                Target::Return => Ending::Returns(Some(target)),
                Target::Indirect(_) => Ending::TailCalls(Callee::Unknown),
                Target::NoReturn => Ending::Stops,
                Target::Code if map.starts_function(target) => {
                    Ending::TailCalls(Callee::Direct(target))
                }
                Target::Code => {
                    if ending == Ending::Flows {
                        ending = Ending::Lost;
                    }
                    continue;
                }
            };
            let block = self.blocks.len() as u32;
            self.blocks.push(Block { range: 0..0, next: Vec::new(), ending: exit });
            self.by_start.insert(target, block);
            next.push(block);
        }
        next.sort_unstable();
        next.dedup();
        (next, ending)
    }
}
