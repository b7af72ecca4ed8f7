//! Runs a line of instructions through the symbolic machine and keeps what it held on the way.
//!
//! Decides what is known where a branch of the line joins it again further down: only what is the
//! same on both ways. The main type is [`Outcome`].

use std::collections::BTreeMap;

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::line::{Step, branch_target};
use super::machine::{CALLEE_SAVED, CallModel, Flag, Gpr, Machine};
use super::term::Term;
use crate::effects::EffectsReader;
use crate::parts::Parts;

/// The most steps that are run; more add nothing that anybody could follow.
pub const MAX_STEPS: usize = 2048;

/// Registers and flags as terms at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    registers: [Term; 16],
    flags: [Term; 8],
}

impl Snapshot {
    /// The term that `register` holds.
    pub fn register(&self, register: Gpr) -> Term {
        self.registers[register.index()]
    }

    /// The term that `flag` holds.
    pub fn flag(&self, flag: Flag) -> Term {
        self.flags[flag.index()]
    }
}

/// A line that was run.
pub struct Outcome {
    /// The machine at the end of the line.
    pub machine: Machine,
    /// What it held behind each step.
    pub behind: Vec<Snapshot>,
    /// What it held before the first step.
    pub initial: Snapshot,
    /// Steps at which a branch of the line itself joins it.
    pub joins: Vec<usize>,
}

/// Runs `steps`, which fall through up to `end` (an offset, where the line stops).
pub fn run(steps: &[Step], end: usize, calls: &dyn CallModel) -> Outcome {
    let steps = &steps[steps.len().saturating_sub(MAX_STEPS)..];
    let mut machine = Machine::new();
    let initial = machine.snapshot();
    let mut behind = Vec::with_capacity(steps.len());
    let mut pending: BTreeMap<usize, Vec<(usize, Snapshot)>> = BTreeMap::new();
    let mut joins = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        if let Some(states) = pending.remove(&step.offset) {
            machine.merge(i, &states);
            joins.push(i);
        }
        machine.run(i, &step.instruction, calls);
        let now = machine.snapshot();
        if let Some(target) = branch_target(&step.instruction).and_then(|t| usize::try_from(t).ok())
            && target > step.offset
            && target <= end
        {
            pending.entry(target).or_default().push((i, now.clone()));
        }
        behind.push(now);
    }
    if let Some(states) = pending.remove(&end) {
        machine.merge(steps.len(), &states);
        joins.push(steps.len());
    }
    Outcome { machine, behind, initial, joins }
}

impl Machine {
    /// A string instruction that moves or stores is in flight: some number of rounds, the same for
    /// every register that it advances, is done. Upwards (DF clear), with 64-bit addresses. False for
    /// any other instruction, which changes nothing here.
    pub fn enter_flight(&mut self, instruction: &Instruction) -> bool {
        let (size, moves) = match instruction.mnemonic() {
            Mnemonic::Movsb => (1, true),
            Mnemonic::Movsw => (2, true),
            Mnemonic::Movsd => (4, true),
            Mnemonic::Movsq => (8, true),
            Mnemonic::Stosb => (1, false),
            Mnemonic::Stosw => (2, false),
            Mnemonic::Stosd => (4, false),
            Mnemonic::Stosq => (8, false),
            _ => return false,
        };
        let wide = instruction.op_kind(0) == OpKind::MemoryESRDI;
        if !instruction.has_rep_prefix() || !wide {
            return false;
        }
        let rounds = self.fresh(64);
        let count = self.register(Gpr::RCX);
        self.registers[Gpr::RCX.index()] = self.terms.sub(count, rounds);
        let size = self.terms.constant(size);
        let way = self.terms.mul(rounds, size);
        let advanced: &[Gpr] = if moves { &[Gpr::RSI, Gpr::RDI] } else { &[Gpr::RDI] };
        for register in advanced {
            let from = self.register(*register);
            self.registers[register.index()] = self.terms.add(from, way);
        }
        true
    }

    /// Registers and flags as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { registers: self.registers, flags: self.flags }
    }

    /// Control may also come in with one of `states`, each left behind by the branch at its step.
    fn merge(&mut self, step: usize, states: &[(usize, Snapshot)]) {
        self.step = step;
        for register in Gpr::all() {
            if states.iter().any(|(_, s)| s.register(register) != self.register(register)) {
                self.registers[register.index()] = self.fresh(64);
            }
        }
        for flag in Flag::ALL {
            if states.iter().any(|(_, s)| s.flag(flag) != self.flag(flag)) {
                self.forget_flag(flag);
            }
        }
        self.forget_memory();
        // What the branches on the way proved holds on that way only.
        let first = states.iter().map(|(at, _)| *at).min().unwrap_or(0);
        self.passed.retain(|&(at, ..)| at < first);
    }
}

/// The steps that the parts in `wanted` depend on at the end of `steps`, oldest first, and what they
/// depend on at the start. Calls are kept when anything older is in the slice, since they are what
/// may have come between.
pub fn slice(steps: &[Step], wanted: Parts) -> (Vec<usize>, Parts) {
    let mut reader = EffectsReader::default();
    let mut wanted = wanted;
    let mut kept = Vec::new();
    let mut passed_calls = Vec::new();
    for (i, step) in steps.iter().enumerate().rev() {
        if wanted.is_empty() {
            break;
        }
        let instruction = &step.instruction;
        if instruction.is_call_near() || instruction.is_call_near_indirect() {
            passed_calls.push(i);
            continue;
        }
        if instruction.is_jcc_short_or_near() {
            continue;
        }
        let effects = reader.effects(instruction);
        if (wanted & effects.may_write).is_empty() {
            continue;
        }
        let stack = Parts::general(Gpr::RSP.index());
        // The stack pointer of a push matters to the stack pointer only.
        let needed = effects.needed(wanted);
        wanted = if (wanted & stack).is_empty() { needed - stack } else { needed };
        kept.append(&mut passed_calls);
        kept.push(i);
    }
    kept.reverse();
    (kept, wanted)
}

/// What is common to a [`CallModel`] that keeps the C convention and some registers on top.
#[derive(Debug, Clone, Default)]
pub struct Conventions {
    /// Registers that a call keeps beyond the C convention, by step.
    pub also_kept: BTreeMap<usize, u16>,
}

impl CallModel for Conventions {
    fn preserved(&self, step: usize, _call: &crate::Instruction) -> u16 {
        CALLEE_SAVED | self.also_kept.get(&step).copied().unwrap_or(0)
    }
}
