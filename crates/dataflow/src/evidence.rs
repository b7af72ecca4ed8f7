//! Why a register should survive a call: what it held before, and whether that had been used up already.
//!
//! Looks backward from a call. A value that is written and then not touched until behind the call was meant to survive it; one
//! that was read already may have been an argument or a leftover. Main type: [`Evidence`].

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::flow::{Body, Ending};
use crate::parts::Parts;
use crate::values::Callees;

/// Blocks that are looked at before a call before the search is given up.
const MOST_BLOCKS: usize = 200;

/// What a register held when a call was made, from the strongest reason to survive to the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The instruction at this address wrote it on purpose, and nobody read it before the call.
    Held(u64),
    /// It held an argument of the calling function that nobody had read.
    Parameter,
    /// It held a value that had been read already.
    Used,
    /// It held what an instruction writes besides its result, or nothing that could be found.
    Leftover,
}

/// What `register` (by encoding number) held at the call that ends the block `site`, by the strongest of the ways to the call.
///
/// Earlier calls of the same callee do not end the search: whether that callee keeps the register is the question.
#[must_use]
pub fn evidence(body: &Body, callees: &impl Callees, site: usize, register: usize) -> Evidence {
    let wanted = Parts::general(register);
    let asked = body.blocks[site].ending;
    let before = body.before();
    let mut best = Evidence::Leftover;
    let mut seen = vec![false; body.blocks.len()];
    let mut todo = vec![site];
    let mut visited = 0;
    while let Some(number) = todo.pop() {
        visited += 1;
        if visited > MOST_BLOCKS {
            break;
        }
        let block = &body.blocks[number];
        if number != site
            && block.ending != asked
            && let Ending::Calls(callee) = block.ending
            && callees.summary(callee).destroys.intersects(wanted)
        {
            continue;
        }
        match touched(body, block.range.clone(), wanted) {
            Some(found) => best = best.min(found),
            None => {
                if number == 0 {
                    best = best.min(Evidence::Parameter);
                }
                for earlier in before.of(number) {
                    if !std::mem::replace(&mut seen[*earlier as usize], true) {
                        todo.push(*earlier as usize);
                    }
                }
            }
        }
    }
    best
}

/// The last instruction of a range that touches the register.
fn touched(body: &Body, range: std::ops::Range<u32>, wanted: Parts) -> Option<Evidence> {
    for index in range.rev() {
        let instruction = &body.instructions[index as usize];
        let effects = &body.effects[index as usize];
        if effects.may_write().intersects(wanted) {
            return Some(if written_on_purpose(instruction, wanted) {
                Evidence::Held(instruction.ip())
            } else {
                Evidence::Leftover
            });
        }
        if effects.reads().intersects(wanted) {
            return Some(Evidence::Used);
        }
    }
    None
}

/// Whether the register is the named destination, and not one that the instruction writes besides.
fn written_on_purpose(instruction: &Instruction, wanted: Parts) -> bool {
    instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && Parts::of(instruction.op0_register()).intersects(wanted)
        && !matches!(
            instruction.mnemonic(),
            Mnemonic::Xchg | Mnemonic::Xadd | Mnemonic::Cmpxchg | Mnemonic::Pop
        )
}
