//! Who destroyed a register: from the callee of a call down to the instruction, and what put it there.
//!
//! Follows tail calls, return thunks, and calls of functions that were not allowed to destroy the register themselves. Main
//! type: [`Blame`].

use kolumbo_dataflow::iced_x86::{Instruction, Mnemonic, Register};
use kolumbo_dataflow::{Callee, Callees, Ending, Exit, Parts, Workspace, exits};

use crate::program::{CALLEE_SAVED, Function, Program, callees_of};

/// Deeper chains are cut.
const DEEPEST: usize = 32;

/// The function and the instruction that destroy a register.
#[derive(Clone, Debug)]
pub struct Blame {
    /// Entry of the function to blame.
    pub function: u64,
    /// The instruction that destroys; a call when a C function destroys what its caller should have saved.
    pub instruction: u64,
    /// Entries of the functions from the callee to the one to blame.
    pub path: Vec<u64>,
}

/// Finds who destroys `lost` when `entry` is called. `keeps` says what the stated contract of a function makes it keep.
#[must_use]
pub fn blame(
    program: &Program<'_, '_>,
    entry: u64,
    lost: Parts,
    keeps: &dyn Fn(u64) -> Parts,
) -> Option<Blame> {
    let mut path = vec![entry];
    let mut at = entry;
    let mut workspace = Workspace::default();
    loop {
        let function = program.function(at)?;
        let exits = exits(&function.body, program, &mut workspace).exits;
        let exit =
            exits.iter().filter(|exit| exit.destroys.intersects(lost)).min_by_key(|exit| {
                matches!(function.body.blocks[exit.block].ending, Ending::TailCalls(_))
            })?;
        let writer = writer(function, exit, lost);
        // The exit itself hands on to code that destroys.
        let ending = function.body.blocks[exit.block].ending;
        let handed_to = match ending {
            Ending::TailCalls(callee) | Ending::Calls(callee) => program.destroyer(callee, lost),
            Ending::Returns(Some(thunk)) => Some(thunk),
            _ => None,
        };
        let last = function.body.last_of(&function.body.blocks[exit.block]).map(Instruction::ip);
        let by_exit = writer.is_none_or(|writer| Some(writer.ip()) == last);
        if let Some(next) = handed_to.filter(|_| by_exit)
            && program.summary(Callee::Direct(next)).destroys.intersects(lost)
            && path.len() < DEEPEST
            && !path.contains(&next)
            && program.function(next).is_some()
        {
            path.push(next);
            at = next;
            continue;
        }
        let writer = writer?;
        if writer.mnemonic() == Mnemonic::Call
            && let Some(next) = called(function, writer.ip())
                .and_then(|callee| unfaithful(program, callee, lost, keeps))
            && path.len() < DEEPEST
            && !path.contains(&next)
            && program.function(next).is_some()
        {
            path.push(next);
            at = next;
            continue;
        }
        return Some(Blame { function: at, instruction: writer.ip(), path });
    }
}

/// What the code of a function writes, and what the code writes that it calls, but not what it jumps to.
#[must_use]
pub fn own_writes(program: &Program<'_, '_>, function: &Function) -> Parts {
    let own =
        function.body.effects.iter().fold(Parts::EMPTY, |set, effects| set | effects.may_write());
    let called = function.body.blocks.iter().filter_map(|block| match block.ending {
        Ending::Calls(callee) if program.target_of(callee).is_some() => {
            Some(program.summary(callee).destroys)
        }
        _ => None,
    });
    called.fold(own, |set, destroys| set | destroys) - Parts::general(4)
}

/// The instruction to blame among those that [`own_writes`] counts.
#[must_use]
pub fn own_blame(program: &Program<'_, '_>, entry: u64, lost: Parts) -> Blame {
    let called = program.function(entry).into_iter().flat_map(|function| {
        let callees = function.body.blocks.iter().filter_map(|block| match block.ending {
            Ending::Calls(callee) => program.function(program.target_of(callee)?),
            _ => None,
        });
        std::iter::once(function).chain(callees)
    });
    let instruction = called
        .filter_map(|function| last_writer(function, lost))
        .map(Instruction::ip)
        .next()
        .unwrap_or(entry);
    Blame { function: entry, instruction, path: vec![entry] }
}

/// What is destroyed at the exits at which the stack was understood.
#[must_use]
pub fn understood_destroys(program: &Program<'_, '_>, function: &Function) -> Parts {
    let exits = exits(&function.body, program, &mut Workspace::default()).exits;
    let understood = exits.iter().filter(|exit| {
        let ending = function.body.blocks[exit.block].ending;
        exit.depth == Some(0) && !matches!(ending, Ending::TailCalls(Callee::Unknown))
    });
    understood.fold(Parts::EMPTY, |set, exit| set | exit.destroys)
}

/// Whether somebody who is called destroys one of the saved registers, and not the function itself. Who calls the function in
/// turn is no excuse: it destroys them because the function does.
#[must_use]
pub fn handed_on(program: &Program<'_, '_>, function: &Function, lost: Parts) -> bool {
    function.body.blocks.iter().any(|block| match block.ending {
        Ending::Calls(callee) | Ending::TailCalls(callee) => {
            let calls_back = || {
                let callee = program.target_of(callee).and_then(|target| program.function(target));
                callee.is_some_and(|callee| {
                    callees_of(&callee.body)
                        .any(|next| program.target_of(next) == Some(function.entry))
                })
            };
            program.summary(callee).destroys.intersects(lost & CALLEE_SAVED) && !calls_back()
        }
        _ => false,
    })
}

/// Who of those that a call may go to destroys what C, or its stated contract, makes it keep.
fn unfaithful(
    program: &Program<'_, '_>,
    callee: Callee,
    lost: Parts,
    keeps: &dyn Fn(u64) -> Parts,
) -> Option<u64> {
    let unfaithful = |target: &u64| {
        let destroys = program.summary(Callee::Direct(*target)).destroys;
        destroys.intersects(lost & (CALLEE_SAVED | keeps(*target)))
    };
    program.targets_of(&callee).iter().copied().find(unfaithful)
}

/// Whom the call at `address` calls.
fn called(function: &Function, address: u64) -> Option<Callee> {
    let block = &function.body.blocks[function.body.block_of(address)?];
    match block.ending {
        Ending::Calls(callee) => Some(callee),
        _ => None,
    }
}

/// The instruction that wrote what should have been kept.
fn writer<'f>(function: &'f Function, exit: &Exit, lost: Parts) -> Option<&'f Instruction> {
    let destroyed = exit.destroys & lost;
    let index = if let Some(register) = destroyed.generals().next() {
        match exit.writers[register] {
            0 => None,
            index => Some(index as usize - 1),
        }
    } else if destroyed.flags != 0 {
        (exit.flags_writer as usize).checked_sub(1)
    } else {
        None
    };
    index
        .and_then(|index| function.body.instructions.get(index))
        // Parts of a register, or a value from another register: whoever writes it last in the function.
        .or_else(|| last_writer(function, destroyed))
}

fn last_writer(function: &Function, lost: Parts) -> Option<&Instruction> {
    let body = &function.body;
    let index = body.effects.iter().rposition(|effects| effects.may_write().intersects(lost))?;
    body.instructions.get(index)
}

/// What a compiler option or a debugging feature leaves behind, when the destroying instruction shows it.
#[must_use]
pub fn put_there_by(
    program: &Program<'_, '_>,
    function: &Function,
    address: u64,
) -> Option<&'static str> {
    // The canary lies at %gs:0x28 (arch/x86/include/asm/stackprotector.h, fixed by the compilers' ABI).
    const CANARY: u64 = 0x28;
    let index = function.body.instructions.binary_search_by_key(&address, Instruction::ip).ok()?;
    let instruction = &function.body.instructions[index];
    if instruction.memory_segment() == Register::GS
        && instruction.memory_base() == Register::None
        && instruction.memory_displacement64() == CANARY
    {
        return Some("stack protector (CONFIG_STACKPROTECTOR)");
    }
    // A load that ends in the check of the canary: `mov (%rsp),%rcx; cmp %gs:0x28,%rcx`.
    if function.body.instructions.iter().skip(index).take(4).any(|next| {
        next.memory_segment() == Register::GS
            && next.memory_base() == Register::None
            && next.memory_displacement64() == CANARY
            && matches!(next.mnemonic(), Mnemonic::Cmp | Mnemonic::Sub | Mnemonic::Xor)
    }) {
        return Some("stack protector (CONFIG_STACKPROTECTOR)");
    }
    if let Some(name) = called(function, address)
        .and_then(|callee| program.target_of(callee))
        .and_then(|target| program.image.name_at(target))
    {
        const INSTRUMENTS: [(&str, &str); 8] = [
            ("__sanitizer_cov_", "code coverage (CONFIG_KCOV)"),
            ("__asan_", "address sanitizer (CONFIG_KASAN)"),
            ("__kasan", "address sanitizer (CONFIG_KASAN)"),
            ("__hwasan_", "address sanitizer (CONFIG_KASAN_SW_TAGS)"),
            ("__tsan_", "thread sanitizer (CONFIG_KCSAN)"),
            ("__ubsan_", "undefined behaviour sanitizer (CONFIG_UBSAN)"),
            ("__fentry__", "function tracer (CONFIG_FUNCTION_TRACER)"),
            ("__gcov_", "coverage counters (CONFIG_GCOV_KERNEL)"),
        ];
        if let Some((_, what)) = INSTRUMENTS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            return Some(what);
        }
    }
    if clears_before_return(function, index) {
        return Some("clearing of used registers (CONFIG_ZERO_CALL_USED_REGS)");
    }
    None
}

/// A row of at least two `xor %r,%r` of caller-saved registers that ends in the return.
fn clears_before_return(function: &Function, index: usize) -> bool {
    let clears = |instruction: &Instruction| {
        instruction.mnemonic() == Mnemonic::Xor
            && instruction.op0_register() == instruction.op1_register()
            && instruction.op0_register().is_gpr()
            && !(Parts::of(instruction.op0_register())).intersects(CALLEE_SAVED)
    };
    let row = |step: fn(usize) -> Option<usize>| {
        let mut count = 0;
        let mut at = index;
        while let Some(instruction) = function.body.instructions.get(at) {
            if !clears(instruction) {
                return (count, Some(instruction));
            }
            count += 1;
            match step(at) {
                Some(next) => at = next,
                None => return (count, None),
            }
        }
        (count, None)
    };
    let (before, _) = row(|at| at.checked_sub(1));
    let (after, end) = row(|at| at.checked_add(1));
    before + after >= 3
        && end.is_some_and(|end| matches!(end.mnemonic(), Mnemonic::Ret | Mnemonic::Jmp))
}
