//! How likely control came in from elsewhere between two instructions.
//!
//! Decides for each boundary of a line how often compiled code has a branch target there. Nothing in
//! a `Code:` line shows who jumps into it, so what was computed before such a boundary holds only
//! with a probability. The main type is [`EntryRisks`].
//!
//! The figures are frequencies counted over every fourth function of Debian's 6.1.0-56-cloud-amd64 vmlinux
//! (gcc 12, 595,982 boundaries, 6.0% of them targets of a direct branch), rounded up.

use iced_x86::{FlowControl, Mnemonic};
use kolumbo_dataflow::symbolic::line::branch_target;
use kolumbo_dataflow::symbolic::{Gpr, Step};
use kolumbo_dataflow::{ARITHMETIC_FLAGS, Effects, EffectsReader, Parts};

/// A condition is on its way from the comparison to the branch (0 of 69,000).
const FLAGS_LIVE: f64 = 0.0005;
/// Between pushes, behind or before one: a prologue, or arguments on the stack.
const PUSH: f64 = 0.004;
/// Right before a call, whose arguments were just set up.
const BEFORE_CALL: f64 = 0.007;
/// The value that the instruction before made is changed further.
const CHANGED_FURTHER: f64 = 0.018;
/// The value that one of the two instructions before made is read.
const READ_AT_ONCE: f64 = 0.053;
/// No sign at all.
const ANYWHERE: f64 = 0.05;
/// Behind a store.
const AFTER_STORE: f64 = 0.14;
/// Behind a call: some never return, and what follows them is reached by a branch.
const AFTER_CALL: f64 = 0.10;
/// Behind a conditional branch.
const AFTER_BRANCH: f64 = 0.25;
/// Behind one that goes back a little, as at the end of a loop: whoever skips the loop lands there.
const AFTER_LOOP: f64 = 0.34;
/// What a little is, in bytes.
const LOOP: i64 = 64;
/// Behind a no-operation, which often is the padding before a branch target.
const AFTER_NOP: f64 = 0.5;
/// A branch of the line is known to land here, and where one does others may.
const KNOWN_TARGET: f64 = 0.3;

/// The risk of each boundary of a line.
#[derive(Debug, Clone)]
pub struct EntryRisks {
    /// Risk that control comes in from elsewhere right before step k; the last is that of the trap.
    before: Vec<f64>,
    /// Branches of the line that land in it: from step, to step.
    inner: Vec<(usize, usize)>,
    /// Every branch target is known, as when the whole function is at hand.
    exact: bool,
}

impl EntryRisks {
    /// The risks of `line`; `after` starts with the trapping instruction.
    pub fn of(line: &[Step], after: &[Step]) -> EntryRisks {
        let all: Vec<&Step> = line.iter().chain(after).collect();
        let mut reader = EffectsReader::default();
        let effects: Vec<Effects> = all.iter().map(|s| reader.effects(&s.instruction)).collect();
        let live = flags_live(&all, &effects);
        let mut before = vec![0.0; line.len() + 1];
        for (k, risk) in before.iter_mut().enumerate().skip(1) {
            *risk = if k < all.len() { boundary(&all, &effects, &live, k) } else { ANYWHERE };
        }
        let mut inner = Vec::new();
        for (i, step) in line.iter().enumerate() {
            let Some(target) = branch_target(&step.instruction) else { continue };
            if let Some(to) = all[..(line.len() + 1).min(all.len())]
                .iter()
                .position(|s| s.offset as i64 == target)
                && to > i
            {
                inner.push((i, to));
                before[to] = f64::max(before[to], KNOWN_TARGET);
            }
        }
        EntryRisks { before, inner, exact: false }
    }

    /// No risk anywhere: whoever made the line knows every branch target.
    pub fn none(line: &[Step]) -> EntryRisks {
        EntryRisks { before: vec![0.0; line.len() + 1], inner: Vec::new(), exact: true }
    }

    /// The risk that control came in anywhere behind step `from` up to the trap.
    pub fn since(&self, from: usize) -> f64 {
        if !self.exact && self.inner.iter().any(|&(i, to)| i < from && to > from) {
            return 1.0;
        }
        let stays_out: f64 = self.before.iter().skip(from + 1).map(|risk| 1.0 - risk).product();
        1.0 - stays_out
    }
}

/// Arithmetic flags that are read at or behind each step before anything overwrites them.
fn flags_live(all: &[&Step], effects: &[Effects]) -> Vec<bool> {
    let flags = Parts { flags: ARITHMETIC_FLAGS, ..Parts::EMPTY };
    let mut live = vec![false; all.len()];
    let mut wanted = Parts::EMPTY;
    for i in (0..all.len()).rev() {
        if !matches!(
            all[i].instruction.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch
        ) {
            wanted = Parts::EMPTY;
        }
        wanted = (wanted - effects[i].writes) | (effects[i].reads & flags);
        live[i] = !wanted.is_empty();
    }
    live
}

fn boundary(all: &[&Step], effects: &[Effects], live: &[bool], k: usize) -> f64 {
    let (last, here) = (&all[k - 1].instruction, &all[k].instruction);
    let hands = |from: &Effects, lost: Parts| {
        ((from.writes - lost) & effects[k].reads).generals().any(|g| g != Gpr::RSP.index())
    };
    if live[k] {
        return FLAGS_LIVE;
    }
    if last.mnemonic() == Mnemonic::Nop {
        return AFTER_NOP;
    }
    if last.is_jcc_short_or_near() {
        let back = branch_target(last).map_or(0, |target| last.ip() as i64 - target);
        return if (1..LOOP).contains(&back) { AFTER_LOOP } else { AFTER_BRANCH };
    }
    if last.mnemonic() == Mnemonic::Push || here.mnemonic() == Mnemonic::Push {
        return PUSH;
    }
    if last.is_call_near() || last.is_call_near_indirect() {
        return AFTER_CALL;
    }
    if effects[k - 1].writes_memory {
        return AFTER_STORE;
    }
    if here.is_call_near() || here.is_call_near_indirect() {
        return BEFORE_CALL;
    }
    if hands(&effects[k - 1], Parts::EMPTY) {
        let further = effects[k - 1].writes & effects[k].reads & effects[k].writes;
        // A constant that is changed further is often what a variable starts with.
        let computed = !effects[k - 1].reads.is_empty() || effects[k - 1].reads_memory;
        return if computed && further.generals().any(|g| g != Gpr::RSP.index()) {
            CHANGED_FURTHER
        } else {
            READ_AT_ONCE
        };
    }
    ANYWHERE
}
