//! Which registers still hold what they held when the function was entered, at every exit.
//!
//! Runs forward over a [`Body`]. Knows three kinds of values: the entry value of a register, an offset from the entry stack
//! pointer, and anything else. Saved and restored registers fall out of it, however they were saved. Bias: stores through
//! pointers that are not known to point into the stack frame are taken to miss the saved registers. Main types: [`Exits`],
//! [`Summary`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::brief::Brief;
use crate::effects::EffectsReader;
use crate::flow::{Body, Callee, Ending};
use crate::parts::Parts;

const RSP: usize = 4;
/// Frames with more saved values than this are not hand-written register saves; the rest is forgotten.
const MOST_SLOTS: usize = 48;
/// A block whose entry state is still changing after so many visits is given up.
const MOST_VISITS: u32 = 40;

/// Where a destroyed value was written.
pub type Writer = u32;

/// What a register or a stack slot holds, seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// The entry value of a register (by encoding number), of which these parts are intact, as in [`Parts::of_general`].
    Entry { register: u8, parts: u8 },
    /// The stack pointer at entry plus this many bytes.
    Stack(i32),
    /// The flags as they were at entry, saved.
    Flags,
    /// Anything else, last written by the instruction with this index plus one; 0 when that is not known.
    Other(Writer),
}

/// What a register or a stack slot holds, in one word, since millions of them are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value(u64);

impl Value {
    const OTHER: u64 = 0;
    const ENTRY: u64 = 1;
    const STACK: u64 = 2;
    const FLAGS: Self = Self(3 << 32);

    const fn other(writer: Writer) -> Self {
        Self(Self::OTHER << 32 | writer as u64)
    }

    const fn stack(offset: i32) -> Self {
        Self(Self::STACK << 32 | offset as u32 as u64)
    }

    const fn entry(register: u8, parts: u8) -> Self {
        Self(Self::ENTRY << 32 | (register as u64) << 8 | parts as u64)
    }

    const fn held(self) -> Held {
        match self.0 >> 32 {
            Self::OTHER => Held::Other(self.0 as Writer),
            Self::ENTRY => Held::Entry { register: (self.0 >> 8) as u8, parts: self.0 as u8 },
            Self::STACK => Held::Stack(self.0 as u32 as i32),
            _ => Held::Flags,
        }
    }
}

/// The register file and the saved values at one point of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    /// By encoding number.
    registers: [Value; 16],
    slots: Vec<(i32, Value)>,
    /// Flags that may differ from those at entry.
    flags: u16,
    /// Index plus one of the instruction that last changed a flag.
    flags_writer: Writer,
    /// Vector state that may differ from that at entry.
    vector: u128,
}

/// How callees act on registers; the caller of this module knows the functions.
pub trait Callees {
    /// The summary of a callee.
    fn summary(&self, callee: Callee) -> Summary;
}

/// What a function does to those who call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What may differ behind the call from what it was before.
    pub destroys: Parts,
    /// What the function reads that its caller must have put there.
    pub needs: Parts,
    /// Whether control may come back.
    pub returns: Returns,
    /// Whether the stack was understood at every exit, so that `destroys` holds for registers that are saved and restored.
    pub certain: bool,
}

/// Where a call comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Behind the call.
    Behind,
    /// It drops its own return address: control comes back behind the call of the caller.
    PastCaller,
    /// Nowhere.
    Never,
}

/// One way out of a function.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The block that ends there.
    pub block: usize,
    /// What differs from entry, the callee of a tail call included.
    pub destroys: Parts,
    /// Stack pointer minus that at entry, when known.
    pub depth: Option<i32>,
    /// For each register: who wrote the value that is not the entry value.
    pub writers: [Writer; 16],
    /// The last writer of a flag.
    pub flags_writer: Writer,
}

/// Every way out.
#[derive(Clone, Debug, Default)]
pub struct Exits {
    /// The exits that return to a caller.
    pub exits: Vec<Exit>,
    /// Whether some block was given up or some jump could not be followed.
    pub incomplete: bool,
}

impl Frame {
    fn at_entry() -> Self {
        let mut registers = [Value::stack(0); 16];
        for (number, value) in registers.iter_mut().enumerate() {
            if number != RSP {
                *value = Value::entry(number as u8, 0b1111);
            }
        }
        Self { registers, slots: Vec::new(), flags: 0, flags_writer: 0, vector: 0 }
    }

    fn copy_from(&mut self, other: &Self) {
        self.registers = other.registers;
        self.slots.clone_from(&other.slots);
        (self.flags, self.flags_writer, self.vector) =
            (other.flags, other.flags_writer, other.vector);
    }

    fn depth(&self) -> Option<i32> {
        match self.registers[RSP].held() {
            Held::Stack(offset) => Some(offset),
            _ => None,
        }
    }

    fn slot(&self, offset: i32) -> Option<Value> {
        self.slots
            .binary_search_by_key(&offset, |slot| slot.0)
            .ok()
            .map(|index| self.slots[index].1)
    }

    /// Forgets what is overwritten through `base`, and remembers what is stored there.
    ///
    /// Only the stack pointer and a frame pointer in its usual place overwrite a saved register. A pointer into the frame
    /// that was computed (the head of a list on the stack, less the offset of the list in its elements) often names saved
    /// registers on paths that cannot be taken.
    fn store(&mut self, base: Register, offset: i32, size: i32, value: Option<Value>) {
        const FRAME_POINTER: Value = Value::stack(-8);
        let trusted =
            base == Register::RSP || (base == Register::RBP && self.registers[5] == FRAME_POINTER);
        let saved = |slot: &(i32, Value)| matches!(slot.1.held(), Held::Entry { .. } | Held::Flags);
        if trusted
            || !self
                .slots
                .iter()
                .any(|slot| slot.0 < offset + size && offset < slot.0 + 8 && saved(slot))
        {
            self.set_slot(offset, size, value);
        }
    }

    fn set_slot(&mut self, offset: i32, size: i32, value: Option<Value>) {
        if self.slots.iter().any(|(at, _)| *at + 8 > offset && *at < offset + size) {
            self.slots.retain(|(at, _)| *at + 8 <= offset || *at >= offset + size);
        }
        if let Some(value) = value
            && !matches!(value.held(), Held::Other(_))
            && self.slots.len() < MOST_SLOTS
        {
            let index = self.slots.partition_point(|slot| slot.0 < offset);
            self.slots.insert(index, (offset, value));
        }
    }

    fn push(&mut self, value: Option<Value>) {
        if let Some(offset) = self.depth() {
            let offset = offset.wrapping_sub(8);
            self.registers[RSP] = Value::stack(offset);
            self.set_slot(offset, 8, value);
        }
    }

    fn pop(&mut self, writer: Writer) -> Value {
        let Some(offset) = self.depth() else { return Value::other(writer) };
        self.registers[RSP] = Value::stack(offset.wrapping_add(8));
        self.slot(offset).unwrap_or(Value::other(writer))
    }

    /// What differs from entry in this frame.
    fn changed(&self) -> Parts {
        let mut changed = Parts { general: 0, vector: self.vector, flags: self.flags };
        for (number, value) in self.registers.iter().enumerate() {
            let lost = match value.held() {
                Held::Entry { register, parts } if usize::from(register) == number => {
                    !parts & 0b1111
                }
                _ if number == RSP => 0,
                _ => 0b1111,
            };
            changed.general |= u64::from(lost) << (4 * number);
        }
        changed
    }

    /// Applies what a callee destroys.
    fn destroy(&mut self, destroys: Parts, writer: Writer) {
        for number in destroys.generals() {
            if number != RSP {
                lose(&mut self.registers[number], destroys.of_general(number), writer);
            }
        }
        if destroys.flags != 0 {
            self.flags |= destroys.flags;
            self.flags_writer = writer;
        }
        self.vector |= destroys.vector;
    }

    /// Joins another path into this one; returns whether anything changed.
    fn join(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            if mine != theirs {
                let joined = join_values(*mine, *theirs);
                changed |= joined != *mine;
                *mine = joined;
            }
        }
        if self.slots != other.slots {
            let before = self.slots.len();
            let mut theirs = other.slots.iter().peekable();
            self.slots.retain(|slot| {
                while theirs.next_if(|other| other.0 < slot.0).is_some() {}
                theirs.peek() == Some(&slot)
            });
            changed |= before != self.slots.len();
        }
        changed |= other.flags & !self.flags != 0 || other.vector & !self.vector != 0;
        if self.flags_writer == 0 {
            self.flags_writer = other.flags_writer;
        }
        self.flags |= other.flags;
        self.vector |= other.vector;
        changed
    }
}

fn join_values(left: Value, right: Value) -> Value {
    match (left.held(), right.held()) {
        (Held::Entry { register: a, parts: left }, Held::Entry { register: b, parts: right })
            if a == b =>
        {
            Value::entry(a, left & right)
        }
        // The first writer stays, so that the join has an end.
        (Held::Other(writer), _) | (_, Held::Other(writer)) => Value::other(writer),
        _ => Value::other(0),
    }
}

/// Overwrites parts of a value.
fn lose(value: &mut Value, parts: u8, writer: Writer) {
    *value = match value.held() {
        Held::Entry { register, parts: intact } if intact & !parts != 0 => {
            Value::entry(register, intact & !parts)
        }
        _ => Value::other(writer),
    };
}

/// Buffers that are used for one function after another.
#[derive(Default)]
pub struct Workspace {
    /// Effects of instructions that touch vector registers.
    pub reader: EffectsReader,
    /// The frame at the start of each block.
    frames: Vec<Frame>,
    reached: Vec<bool>,
    visits: Vec<u32>,
    queued: Vec<bool>,
    todo: BinaryHeap<Reverse<usize>>,
}

/// Runs over the body once and collects the exits.
#[must_use]
pub fn exits(body: &Body, callees: &impl Callees, workspace: &mut Workspace) -> Exits {
    let mut result = Exits::default();
    if body.blocks.is_empty() {
        return result;
    }
    result.incomplete = !frames(body, callees, workspace);
    let mut frame = Frame::at_entry();
    for (number, block) in body.blocks.iter().enumerate() {
        if !workspace.reached[number] || matches!(block.ending, Ending::Flows | Ending::Stops) {
            continue;
        }
        if let Ending::Calls(callee) = block.ending
            && callees.summary(callee).returns != Returns::PastCaller
        {
            continue;
        }
        frame.copy_from(&workspace.frames[number]);
        for index in block.range.clone() {
            step(&mut frame, body, index as usize, &mut workspace.reader);
        }
        let last = block.range.end;
        let extra = match block.ending {
            Ending::Returns(None) => Some(Parts::EMPTY),
            Ending::Returns(Some(thunk)) => Some(callees.summary(Callee::Direct(thunk)).destroys),
            Ending::TailCalls(callee) => {
                let summary = callees.summary(callee);
                (summary.returns != Returns::Never).then_some(summary.destroys)
            }
            Ending::Calls(callee) => {
                let summary = callees.summary(callee);
                (summary.returns == Returns::PastCaller).then_some(summary.destroys)
            }
            Ending::Lost => {
                result.incomplete = true;
                None
            }
            Ending::Flows | Ending::Stops => None,
        };
        let Some(extra) = extra else { continue };
        let depth = match (frame.depth(), block.ending) {
            // `ret` has been applied: it took the return address away.
            (Some(depth), Ending::Returns(None)) => Some(depth.wrapping_sub(8)),
            (depth, _) => depth,
        };
        frame.destroy(extra, last);
        let mut writers = [0; 16];
        for (writer, value) in writers.iter_mut().zip(&frame.registers) {
            if let Held::Other(index) = value.held() {
                *writer = index;
            }
        }
        result.exits.push(Exit {
            block: number,
            destroys: frame.changed(),
            depth,
            writers,
            flags_writer: frame.flags_writer,
        });
    }
    result
}

/// Finds the frame at the start of each reachable block; `false` when some block was given up.
fn frames(body: &Body, callees: &impl Callees, workspace: &mut Workspace) -> bool {
    let Workspace { reader, frames, reached, visits, queued, todo } = workspace;
    let count = body.blocks.len();
    if frames.len() < count {
        frames.resize_with(count, Frame::at_entry);
    }
    for list in [&mut *reached, &mut *queued] {
        list.clear();
        list.resize(count, false);
    }
    visits.clear();
    visits.resize(count, 0);
    todo.clear();
    let mut frame = Frame::at_entry();
    frames[0].copy_from(&frame);
    reached[0] = true;
    todo.push(Reverse(0));
    let mut complete = true;
    while let Some(Reverse(number)) = todo.pop() {
        queued[number] = false;
        visits[number] += 1;
        if visits[number] > MOST_VISITS {
            complete = false;
            continue;
        }
        let block = &body.blocks[number];
        if block.next.is_empty() {
            continue;
        }
        frame.copy_from(&frames[number]);
        for index in block.range.clone() {
            step(&mut frame, body, index as usize, reader);
        }
        if let Ending::Calls(callee) = block.ending {
            let summary = callees.summary(callee);
            if summary.returns != Returns::Behind {
                continue;
            }
            frame.destroy(summary.destroys, block.range.end);
        }
        for next in body.next(block) {
            let next = *next as usize;
            let changed = if reached[next] {
                frames[next].join(&frame)
            } else {
                frames[next].copy_from(&frame);
                reached[next] = true;
                true
            };
            if changed && !queued[next] {
                queued[next] = true;
                todo.push(Reverse(next));
            }
        }
    }
    complete
}

/// The 64-bit stack slot that a memory operand names, as an offset from the entry stack pointer.
fn slot_of(frame: &Frame, instruction: &Instruction) -> Option<i32> {
    if instruction.memory_index() != Register::None || !instruction.memory_base().is_gpr64() {
        return None;
    }
    match frame.registers[instruction.memory_base().number()].held() {
        Held::Stack(base) => Some(base.wrapping_add(instruction.memory_displacement64() as i32)),
        _ => None,
    }
}

/// The effect of the instruction with this index on the frame. Calls are not followed here.
fn step(frame: &mut Frame, body: &Body, index: usize, reader: &mut EffectsReader) {
    let writer = index as Writer + 1;
    Act {
        frame,
        instruction: &body.instructions[index],
        brief: &body.effects[index],
        writer,
        reader,
    }
    .act();
    if frame.registers[RSP] == Value::other(writer) {
        // Another stack, or this one aligned: what is pushed there can be popped there, but it is not the stack of the entry.
        frame.registers[RSP] = Value::stack(ELSEWHERE.wrapping_add((writer as i32 & 0x7fff) << 14));
    }
}

/// Offsets from here on are on stacks that are not the one of the entry.
const ELSEWHERE: i32 = 0x2000_0000;

/// One instruction that acts on a frame.
struct Act<'a> {
    frame: &'a mut Frame,
    instruction: &'a Instruction,
    brief: &'a Brief,
    writer: Writer,
    reader: &'a mut EffectsReader,
}

impl Act<'_> {
    fn act(&mut self) {
        let (instruction, writer) = (self.instruction, self.writer);
        let frame = &mut *self.frame;
        let register_64 = |operand: u32| {
            (instruction.op_kind(operand) == OpKind::Register
                && instruction.op_register(operand).is_gpr64())
            .then(|| instruction.op_register(operand).number())
        };
        match instruction.mnemonic() {
            Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Jmp => {}
            Mnemonic::Call => {
                // Every other call is followed as a call.
                if self.brief.pushes_address() {
                    frame.push(None);
                }
            }
            Mnemonic::Push => {
                let value = register_64(0).map(|number| frame.registers[number]);
                frame.push(value);
            }
            Mnemonic::Pop => {
                let value = frame.pop(writer);
                if let Some(number) = register_64(0) {
                    frame.registers[number] = value;
                } else if let Some(offset) = slot_of(frame, instruction) {
                    frame.set_slot(offset, 8, Some(value));
                }
            }
            Mnemonic::Pushfq => {
                let saved = (frame.flags == 0).then_some(Value::FLAGS);
                frame.push(saved);
            }
            Mnemonic::Popfq => {
                if frame.pop(writer) == Value::FLAGS {
                    frame.flags = 0;
                } else {
                    frame.flags |= Parts::ALL.flags;
                    frame.flags_writer = writer;
                }
            }
            Mnemonic::Leave => {
                frame.registers[RSP] = frame.registers[5];
                frame.registers[5] = frame.pop(writer);
            }
            Mnemonic::Ret => {
                if let Some(offset) = frame.depth() {
                    frame.registers[RSP] = Value::stack(offset.wrapping_add(8));
                }
            }
            Mnemonic::Mov => self.mov(),
            Mnemonic::Lea => {
                let offset = (instruction.op0_register().is_gpr64())
                    .then(|| slot_of(frame, instruction))
                    .flatten();
                match (register_64(0), offset) {
                    (Some(number), Some(offset)) => frame.registers[number] = Value::stack(offset),
                    _ => self.by_effects(),
                }
            }
            Mnemonic::Add | Mnemonic::Sub if register_64(0).is_some() => {
                let number = register_64(0).unwrap_or(RSP);
                let before = frame.registers[number];
                self.by_effects();
                let amount = match instruction.op1_kind() {
                    OpKind::Immediate8to64 => Some(instruction.immediate8to64()),
                    OpKind::Immediate32to64 => Some(instruction.immediate32to64()),
                    _ => None,
                };
                if let (Held::Stack(base), Some(amount)) = (before.held(), amount) {
                    let amount = if instruction.mnemonic() == Mnemonic::Add {
                        amount
                    } else {
                        amount.wrapping_neg()
                    };
                    self.frame.registers[number] = Value::stack(base.wrapping_add(amount as i32));
                }
            }
            Mnemonic::Xchg => {
                if let (Some(left), Some(right)) =
                    (register_64(0), (instruction.op_count() > 1).then(|| register_64(1)).flatten())
                {
                    frame.registers.swap(left, right);
                    return;
                }
                let memory_first = instruction.op0_kind() == OpKind::Memory;
                if let (Some(number), Some(offset)) =
                    (register_64(u32::from(memory_first)), slot_of(frame, instruction))
                {
                    let loaded = frame.slot(offset).unwrap_or(Value::other(writer));
                    let stored = frame.registers[number];
                    frame.store(instruction.memory_base(), offset, 8, Some(stored));
                    frame.registers[number] = loaded;
                    return;
                }
                self.by_effects();
            }
            _ => self.by_effects(),
        }
    }

    fn mov(&mut self) {
        let (instruction, writer) = (self.instruction, self.writer);
        let frame = &mut *self.frame;
        match (instruction.op0_kind(), instruction.op1_kind()) {
            (OpKind::Register, OpKind::Register)
                if instruction.op0_register().is_gpr() && instruction.op1_register().is_gpr() =>
            {
                let (to, from) = (instruction.op0_register(), instruction.op1_register());
                if to.is_gpr64() {
                    frame.registers[to.number()] = frame.registers[from.number()];
                } else if to.is_gpr32() && from.is_gpr32() {
                    let value = frame.registers[from.number()];
                    frame.registers[to.full_register().number()] = match value.held() {
                        Held::Entry { register, parts } if parts & 0b0111 != 0 => {
                            Value::entry(register, parts & 0b0111)
                        }
                        _ => Value::other(writer),
                    };
                } else {
                    self.by_effects();
                }
            }
            (OpKind::Memory, OpKind::Register) if instruction.op1_register().is_gpr64() => {
                if let Some(offset) = slot_of(frame, instruction) {
                    let value = frame.registers[instruction.op1_register().number()];
                    frame.store(instruction.memory_base(), offset, 8, Some(value));
                }
            }
            (OpKind::Register, OpKind::Memory) if instruction.op0_register().is_gpr64() => {
                let loaded = slot_of(frame, instruction).and_then(|offset| frame.slot(offset));
                frame.registers[instruction.op0_register().number()] =
                    loaded.unwrap_or(Value::other(writer));
            }
            _ => self.by_effects(),
        }
    }

    /// Instructions that have no rule of their own: what may be written is lost.
    fn by_effects(&mut self) {
        let (instruction, writer, brief) = (self.instruction, self.writer, self.brief);
        let frame = &mut *self.frame;
        let written = brief.may_write();
        for number in written.generals() {
            lose(&mut frame.registers[number], written.of_general(number), writer);
        }
        if written.flags != 0 {
            frame.flags |= written.flags;
            frame.flags_writer = writer;
        }
        if brief.touches_vector() {
            frame.vector |= self.reader.effects(instruction).may_write.vector;
        }
        if brief.writes_memory()
            && instruction.op_count() > 0
            && instruction.op0_kind() == OpKind::Memory
            && let Some(offset) = slot_of(frame, instruction)
        {
            let size = i32::try_from(instruction.memory_size().size()).unwrap_or(8).max(1);
            frame.store(instruction.memory_base(), offset, size, None);
        }
    }
}
