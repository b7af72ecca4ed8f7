//! Where did this value come from?
//!
//! Decides which register matters to the trapping instruction and follows it back through the line to
//! a load, an argument, a result or a constant. The main function is [`provenance`].

use iced_x86::{Instruction, OpKind};
use kolumbo_case::ProvenanceStep;
use kolumbo_dataflow::symbolic::run::slice;
use kolumbo_dataflow::symbolic::{Gpr, Node, Origin, Term};
use kolumbo_dataflow::{Parts, Syntax};

use crate::accuse;
use crate::consistency::Consistency;
use crate::decode;
use crate::situation::Situation;
use crate::window::StartReason;

/// The chain of the value that the trapping instruction stumbled over, oldest first; the last link
/// says where it ends.
pub fn provenance(situation: &Situation, consistency: &Consistency) -> Vec<ProvenanceStep> {
    let Some(trapping) = situation.window.trapping() else { return Vec::new() };
    let Some(register) = register_that_matters(situation, trapping) else { return Vec::new() };
    let (steps, _) = slice(&consistency.steps, Parts::general(register.index()));
    let mut chain = vec![ProvenanceStep {
        address: String::new(),
        instruction: String::new(),
        effect: origin(situation, consistency, register),
    }];
    chain.extend(steps.into_iter().map(|at| {
        let step = &consistency.steps[at];
        ProvenanceStep {
            address: situation.address_of(step.offset),
            instruction: decode::text(situation, step, Syntax::Att),
            effect: accuse::effect(consistency, at).0,
        }
    }));
    let name = register.name().to_uppercase();
    let value = situation.register(register).map(|v| format!(" = {v:#x}")).unwrap_or_default();
    chain.push(ProvenanceStep {
        address: situation.address_of(situation.window.trap),
        instruction: situation
            .window
            .after
            .steps
            .first()
            .map(|s| decode::text(situation, s, Syntax::Att))
            .unwrap_or_default(),
        effect: format!("uses {name}{value}"),
    });
    chain
}

/// The register whose value made the access: the base, or the index where the base is sound.
fn register_that_matters(situation: &Situation, instruction: &Instruction) -> Option<Gpr> {
    let memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    let (base, index) = (Gpr::of(instruction.memory_base()), Gpr::of(instruction.memory_index()));
    if memory && instruction.mnemonic() != iced_x86::Mnemonic::Nop {
        let sound = |register: Gpr| {
            situation.register(register).is_some_and(|v| v >= situation.landmarks().kernel_half())
        };
        return match (base, index) {
            (Some(base), Some(index)) if sound(base) && !sound(index) => Some(index),
            (Some(base), _) if base != Gpr::RSP => Some(base),
            (_, Some(index)) => Some(index),
            _ => None,
        };
    }
    // `call *%rax`, `jmp *%rax`
    let indirect = instruction.is_call_near_indirect() || instruction.is_jmp_near_indirect();
    (indirect && instruction.op0_kind() == OpKind::Register)
        .then(|| Gpr::of(instruction.op0_register()))
        .flatten()
}

/// The unknowns that the register was made of, in words.
fn origin(situation: &Situation, consistency: &Consistency, register: Gpr) -> String {
    let term = consistency.outcome.machine.register(register);
    let terms = &consistency.outcome.machine.terms;
    let mut origins = Vec::new();
    let mut stack = vec![term];
    let mut seen = Vec::new();
    while let Some(term) = stack.pop() {
        // A term has few parts; the bound is for lines that were made to be hostile.
        if seen.contains(&term) || seen.len() > 64 {
            continue;
        }
        seen.push(term);
        match terms.node(term) {
            Node::Unknown(_) => origins.push(unknown(situation, consistency, term)),
            node => node.operands(|t| stack.push(t)),
        }
    }
    origins.retain(|o| !o.is_empty());
    origins.dedup();
    if origins.is_empty() {
        return format!("{} is a constant of the code", register.name().to_uppercase());
    }
    format!("{} comes from {}", register.name().to_uppercase(), origins.join(" and "))
}

fn unknown(situation: &Situation, consistency: &Consistency, term: Term) -> String {
    let Some(unknown) = consistency.outcome.machine.terms.as_unknown(term) else {
        return String::new();
    };
    let at = |step: Option<usize>| {
        step.and_then(|s| consistency.steps.get(s))
            .map_or_else(|| "the start".to_owned(), |s| situation.address_of(s.offset))
    };
    match unknown.origin {
        Origin::Initial(register) => {
            let name = register.name().to_uppercase();
            let arguments = [Gpr::RDI, Gpr::RSI, Gpr::RDX, Gpr::RCX];
            let argument = arguments.iter().position(|&a| a == register);
            match (situation.window.start_reason, argument) {
                (StartReason::FunctionStart, Some(n)) => {
                    format!("argument {} ({name} at the function's start)", n + 1)
                }
                _ => format!("{name}, which was set before the code shown"),
            }
        }
        Origin::Load { .. } => {
            format!("memory: {} read at {}", accuse::term_text(consistency, term), at(unknown.step))
        }
        Origin::CalleeLeft(Gpr::RAX) => format!("the result of the call at {}", at(unknown.step)),
        Origin::CalleeLeft(register) => format!(
            "whatever the call at {} left in {}",
            at(unknown.step),
            register.name().to_uppercase()
        ),
        Origin::CodeBase => "an address in the code".to_owned(),
        Origin::InitialFlag(_) => String::new(),
        Origin::Opaque => format!("what {} leaves behind", at(unknown.step)),
    }
}
