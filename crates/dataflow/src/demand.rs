//! What must be right behind each call of a function: the register parts and flags that are read before they are written.
//!
//! Runs backward over a [`Body`]. Demand counts by part; dead results ask for nothing. Registers that may be arguments or
//! results make what is computed into them count, but do not count themselves, so that garbage that merely stays in an
//! argument register is no demand. Pushing a register is no demand: it is saved, not used. Main types: [`Site`], [`Demands`].

use crate::effects::EffectsReader;
use crate::flow::{Body, Callee, Ending};
use crate::parts::Parts;
use crate::values::{Callees, Returns};

/// The lowest parts of RDI, RSI, RDX, RCX, R8, R9: where arguments may be. The upper parts of an argument are often garbage.
const ARGUMENTS: u64 = 1 << 28 | 1 << 24 | 1 << 8 | 1 << 4 | 1 << 32 | 1 << 36;
/// The lowest parts of RAX and RDX: where results may be.
const RESULTS: u64 = 1 | 1 << 8;

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Address of the call.
    pub address: u64,
    /// The block that it ends.
    pub block: usize,
    /// Who is called.
    pub callee: Callee,
    /// What is read behind the call before it is written.
    pub relies: Parts,
}

/// The calls of a function, and what it needs itself.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// Every call that can return, in order of address.
    pub sites: Vec<Site>,
    /// What is read before it is written, from the entry.
    pub at_entry: Parts,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Live {
    hard: Parts,
    soft: u64,
}

impl Live {
    fn join(&mut self, other: Self) {
        self.hard |= other.hard;
        self.soft |= other.soft;
    }
}

/// Computes the demand behind every call.
#[must_use]
pub fn demands(body: &Body, callees: &impl Callees, reader: &mut EffectsReader) -> Demands {
    let entry_of = entry_demands(body, callees, reader);
    let reachable = reachable(body, callees);
    let mut sites = Vec::new();
    for (number, block) in body.blocks.iter().enumerate() {
        if !reachable[number] {
            continue;
        }
        if let (Ending::Calls(callee), Some(last)) = (block.ending, body.last_of(block))
            && callees.summary(callee).returns == Returns::Behind
        {
            let relies = behind(body, number, &entry_of).hard;
            sites.push(Site { address: last.ip(), block: number, callee, relies });
        }
    }
    sites.sort_unstable_by_key(|site| site.address);
    Demands { sites, at_entry: entry_of.first().map_or(Parts::EMPTY, |live| live.hard) }
}

/// How the demand for `wanted` behind the block `start` comes about: the first instruction of each block on a shortest way
/// to an instruction that reads it, and that instruction last.
#[must_use]
pub fn reliance(
    body: &Body,
    callees: &impl Callees,
    start: usize,
    wanted: Parts,
    reader: &mut EffectsReader,
) -> Option<Vec<u64>> {
    let entry_of = entry_demands(body, callees, reader);
    let mut from: Vec<Option<usize>> = vec![None; body.blocks.len()];
    let mut todo: std::collections::VecDeque<usize> = std::collections::VecDeque::new();
    let mut seen = vec![false; body.blocks.len()];
    for next in body.next(&body.blocks[start]) {
        let next = *next as usize;
        if entry_of[next].hard.intersects(wanted) && !std::mem::replace(&mut seen[next], true) {
            todo.push_back(next);
        }
    }
    while let Some(number) = todo.pop_front() {
        let block = &body.blocks[number];
        let mut left = wanted;
        for index in block.range.clone() {
            let effects = &body.effects[index as usize];
            if effects.reads().intersects(left) && !effects.saves_register() {
                let mut way = vec![body.instructions[index as usize].ip()];
                let mut at = Some(number);
                while let Some(block) = at {
                    if let Some(first) =
                        body.instructions.get(body.blocks[block].range.start as usize)
                        && !body.blocks[block].range.is_empty()
                    {
                        way.push(first.ip());
                    }
                    at = from[block];
                }
                way.reverse();
                return Some(way);
            }
            left = left - effects.writes();
        }
        if let Ending::Calls(callee) = block.ending {
            left = left - callees.summary(callee).destroys;
        }
        for next in body.next(block) {
            let next = *next as usize;
            if entry_of[next].hard.intersects(left) && !std::mem::replace(&mut seen[next], true) {
                from[next] = Some(number);
                todo.push_back(next);
            }
        }
    }
    None
}

/// The demand at the start of each block.
fn entry_demands(body: &Body, callees: &impl Callees, reader: &mut EffectsReader) -> Vec<Live> {
    let count = body.blocks.len();
    let mut entry_of = vec![Live::default(); count];
    let before = body.before();
    let mut queued = vec![true; count];
    let mut todo: Vec<usize> = (0..count).collect();
    while let Some(number) = todo.pop() {
        queued[number] = false;
        let mut live = behind(body, number, &entry_of);
        live = through_ending(body.blocks[number].ending, live, callees);
        live = through_instructions(body, number, live, reader);
        if live != entry_of[number] {
            entry_of[number].join(live);
            for earlier in before.of(number) {
                if !queued[*earlier as usize] {
                    queued[*earlier as usize] = true;
                    todo.push(*earlier as usize);
                }
            }
        }
    }
    entry_of
}

/// Which blocks can be entered, given which callees come back.
#[must_use]
pub fn reachable(body: &Body, callees: &impl Callees) -> Vec<bool> {
    let mut seen = vec![false; body.blocks.len()];
    let mut todo = Vec::new();
    if !seen.is_empty() {
        seen[0] = true;
        todo.push(0_usize);
    }
    while let Some(number) = todo.pop() {
        let block = &body.blocks[number];
        if let Ending::Calls(callee) = block.ending
            && callees.summary(callee).returns != Returns::Behind
        {
            continue;
        }
        for next in body.next(block) {
            if !seen[*next as usize] {
                seen[*next as usize] = true;
                todo.push(*next as usize);
            }
        }
    }
    seen
}

fn behind(body: &Body, number: usize, entry_of: &[Live]) -> Live {
    let mut live = Live::default();
    for next in body.next(&body.blocks[number]) {
        live.join(entry_of[*next as usize]);
    }
    live
}

fn through_ending(ending: Ending, behind: Live, callees: &impl Callees) -> Live {
    match ending {
        Ending::Flows => behind,
        Ending::Calls(callee) => {
            let summary = callees.summary(callee);
            let hard = if summary.returns == Returns::Behind {
                behind.hard - summary.destroys
            } else {
                Parts::EMPTY
            };
            Live { hard, soft: ARGUMENTS }
        }
        Ending::Returns(_) => Live { hard: Parts::EMPTY, soft: RESULTS },
        Ending::TailCalls(_) => Live { hard: Parts::EMPTY, soft: ARGUMENTS },
        Ending::Stops | Ending::Lost => Live::default(),
    }
}

fn through_instructions(
    body: &Body,
    number: usize,
    mut live: Live,
    reader: &mut EffectsReader,
) -> Live {
    for index in body.blocks[number].range.clone().rev() {
        let index = index as usize;
        let effects = &body.effects[index];
        if effects.saves_register() {
            continue;
        }
        let may_write = effects.may_write().general;
        let wanted = live.hard | Parts { general: live.soft & may_write, ..Parts::EMPTY };
        live.hard = if effects.touches_vector() {
            reader.effects(&body.instructions[index]).needed(wanted)
        } else {
            effects.needed(wanted)
        };
        live.soft &= !effects.writes().general;
    }
    live
}
