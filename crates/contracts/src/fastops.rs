//! Stubs that deliver a result in the flags through their return: KVM's emulator calls one of a row of them by address
//! (`fastop()` in arch/x86/kvm/emulate.c, until v6.18) and reads the flags behind the call.
//!
//! Decides by the code: a few instructions, the last of which sets flags, then the return; nobody calls them by name; several
//! stand in a row. Main function: [`fastops`].

use std::collections::BTreeSet;

use kolumbo_dataflow::{ARITHMETIC_FLAGS, Callee, Ending, Parts};

use crate::program::{Function, Program, callees_of};

/// One stub: its entry, the instruction that sets the flags, and the return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fastop {
    /// First address.
    pub entry: u64,
    /// The instruction that sets the flags.
    pub sets: u64,
    /// The return.
    pub returns: u64,
    /// Whether it returns through a return thunk.
    pub by_thunk: bool,
}

/// Longest stub: an instruction or two and the return.
const MOST_INSTRUCTIONS: usize = 4;
/// Fewer in a row are no table.
const FEWEST: usize = 3;
/// `FASTOP_SIZE` in arch/x86/kvm/emulate.c is 16 with return thunks, 32 with `endbr64`.
const FARTHEST: u64 = 32;

/// All stubs, in order of address.
#[must_use]
pub fn fastops(program: &Program<'_, '_>) -> Vec<Fastop> {
    let named: BTreeSet<u64> = program
        .functions
        .iter()
        .flat_map(|function| callees_of(&function.body))
        .filter_map(|callee| match callee {
            Callee::Direct(target) => Some(target),
            Callee::Slot(_) | Callee::Unknown => None,
        })
        .collect();
    let found: Vec<Fastop> = program
        .functions
        .iter()
        .filter(|function| !named.contains(&function.entry))
        .filter_map(fastop)
        .collect();
    let near = |left: &Fastop, right: &Fastop| right.entry - left.entry <= FARTHEST;
    found.chunk_by(near).filter(|row| row.len() >= FEWEST).flatten().copied().collect()
}

fn fastop(function: &Function) -> Option<Fastop> {
    let body = &function.body;
    let [block] = &body.blocks[..] else { return None };
    let flags = Parts { flags: ARITHMETIC_FLAGS, ..Parts::EMPTY };
    if !matches!(block.ending, Ending::Returns(_)) || body.instructions.len() > MOST_INSTRUCTIONS {
        return None;
    }
    let sets = body.effects.iter().rposition(|effects| effects.may_write().intersects(flags))?;
    let returns = body.instructions.len() - 1;
    // A stub computes on the registers of its caller: nothing but the result and the flags comes out.
    let plain = body.instructions[..returns].iter().all(|instruction| {
        !kolumbo_dataflow::touches_memory(instruction) && !instruction.is_privileged()
    });
    (sets + 1 == returns && plain).then(|| Fastop {
        entry: function.entry,
        sets: body.instructions[sets].ip(),
        returns: body.instructions[returns].ip(),
        by_thunk: matches!(block.ending, Ending::Returns(Some(_))),
    })
}
