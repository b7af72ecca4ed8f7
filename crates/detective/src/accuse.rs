//! From a contradiction to a finding.
//!
//! Decides which contradictions are reported, shows the derivation step by step, and ranks the
//! suspects. The main function is [`findings`]. Bias: a contradiction without a firm footing, in user
//! mode or in a garbled dump is a doubt, never a finding.

use kolumbo_case::{Confidence, DerivationStep, Finding, FindingCode, FindingPlace, Listing};
use kolumbo_dataflow::symbolic::run::slice;
use kolumbo_dataflow::symbolic::{Bits, Flag, Gpr, Subject, Term, Verdict};
use kolumbo_dataflow::{Parts, Syntax};

use crate::consistency::{Consistency, Footing};
use crate::decode;
use crate::situation::Situation;
use crate::suspect::{self, Scene};
use crate::value;

/// What surrounds a dump and may speak for or against a suspect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Listings in the same text.
    pub listings: &'a [Listing],
    /// `Hardware name:` and the like.
    pub hardware: Option<&'a str>,
    /// What ran the machine, where that is known apart from the dump.
    pub hypervisor: Option<&'a str>,
    /// Offset of the dump in the input.
    pub input_offset: Option<u64>,
}

/// The findings about one dump.
pub fn findings(
    situation: &Situation,
    consistency: &Consistency,
    around: &Surroundings<'_>,
) -> Vec<Finding> {
    if situation.user_mode {
        return Vec::new();
    }
    let firm: Vec<(&Verdict, &Footing)> = consistency
        .verdicts
        .iter()
        .filter(|v| v.clash != 0)
        .filter_map(|v| Some((v, consistency.footing(v.subject)?)))
        .filter(|(_, f)| f.is_firm())
        .collect();
    let mut found = Vec::new();
    let flags: Vec<_> =
        firm.iter().filter(|(v, _)| matches!(v.subject, Subject::Flag(_))).copied().collect();
    // A stack pointer that is wrong leaves no dump behind: where flags may be wrong instead, they are.
    let possible = |v: &Verdict| match v.subject {
        Subject::Register(register) => register != Gpr::RSP || flags.is_empty(),
        _ => false,
    };
    let registers = firm.iter().filter(|(v, _)| possible(v));
    for &(verdict, footing) in registers {
        found.push(register_finding(situation, consistency, around, verdict, footing));
    }
    // Flags that belong to a result which is itself impossible add nothing.
    if !flags.is_empty() && found.is_empty() {
        found.push(flags_finding(situation, consistency, around, &flags));
    }
    found
}

/// Where the dump was taken.
pub fn place(situation: &Situation, around: &Surroundings<'_>) -> FindingPlace {
    FindingPlace {
        symbol: situation.place.function.clone().unwrap_or_default(),
        offset: situation.place.offset.unwrap_or(0),
        size: situation.place.size.unwrap_or(0),
        module: situation.place.module.clone(),
        address: situation.absolute_rip().map(|rip| format!("{rip:#018x}")),
        instruction: situation
            .window
            .after
            .steps
            .first()
            .map(|step| decode::text(situation, step, Syntax::Att))
            .unwrap_or_default(),
        input_offset: around.input_offset,
    }
}

fn flags_finding(
    situation: &Situation,
    consistency: &Consistency,
    around: &Surroundings<'_>,
    clashes: &[(&Verdict, &Footing)],
) -> Finding {
    let from = clashes.iter().map(|(_, f)| f.from).min().unwrap_or(0);
    let risk = clashes.iter().map(|(_, f)| f.risk).fold(0.0, f64::max);
    let wrong: Vec<Flag> = clashes
        .iter()
        .filter_map(|(v, _)| match v.subject {
            Subject::Flag(flag) => Some(flag),
            _ => None,
        })
        .collect();
    let wanted = wrong.iter().fold(Parts::EMPTY, |parts, &flag| parts | flag_parts(flag));
    let steps = derivation(situation, consistency, from, wanted);
    let observed = Flag::ARITHMETIC
        .iter()
        .filter_map(|&f| Some(format!("{}={}", f.name(), u8::from(situation.flag(f)?))))
        .collect::<Vec<_>>()
        .join(" ");
    let writer = steps.iter().rev().find(|s| !s.is_call).or(steps.last());
    let place = place(situation, around);
    let subject = wrong.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
    let scene =
        Scene { situation, consistency, around, steps: &steps, flags: &wrong, register: None };
    let summary = format!(
        "at {place} {} {} what `{}` cannot leave behind",
        subject.replace(", ", " and "),
        if wrong.len() == 1 { "is" } else { "are" },
        writer.map_or("the code before it", |s| s.shown.instruction.as_str()),
    );
    Finding {
        code: FindingCode::FlagsImpossible,
        id: FindingCode::FlagsImpossible.id().to_owned(),
        subject,
        summary,
        at: place,
        expected: flags_text(situation, consistency, &consistency.bits_by_code()),
        observed: format!("{observed} (EFLAGS {:#x})", situation.flags.unwrap_or(0)),
        observed_looks_like: suspect::flags_look_like(situation),
        suspects: suspect::rank(&scene),
        derivation: steps.into_iter().map(|s| s.shown).collect(),
        confidence: confidence(risk, false),
        assumptions: assumptions(risk),
        other_explanations: others(),
    }
}

fn register_finding(
    situation: &Situation,
    consistency: &Consistency,
    around: &Surroundings<'_>,
    verdict: &Verdict,
    footing: &Footing,
) -> Finding {
    let Subject::Register(register) = verdict.subject else {
        unreachable!("only registers are passed")
    };
    let steps = derivation(situation, consistency, footing.from, Parts::general(register.index()));
    let place = place(situation, around);
    let seen = situation.register(register).unwrap_or(0);
    let name = register.name().to_uppercase();
    let expected = bits_text(verdict.forced);
    let scene = Scene {
        situation,
        consistency,
        around,
        steps: &steps,
        flags: &[],
        register: Some((register, seen)),
    };
    let suspects = suspect::rank(&scene);
    let named_culprit = suspects.first().is_some_and(|s| s.name.is_some());
    let looks = value::recognise(seen, &situation.landmarks());
    Finding {
        code: FindingCode::RegisterImpossible,
        id: FindingCode::RegisterImpossible.id().to_owned(),
        subject: name.clone(),
        summary: format!(
            "at {place} {name} is not the {expected} that the code before it computes"
        ),
        at: place,
        expected: match steps.iter().rev().find(|s| !s.is_call) {
            Some(step) if !step.value.is_empty() && step.value != expected => {
                // The number stands first already.
                let words = step.value.split(" = ").next().unwrap_or_default();
                format!("{expected} = {words}")
            }
            _ => expected,
        },
        observed: format!("{seen:#018x}"),
        observed_looks_like: looks.map(|m| m.text),
        derivation: steps.into_iter().map(|s| s.shown).collect(),
        suspects,
        confidence: confidence(footing.risk, footing.lost_address && named_culprit),
        assumptions: assumptions(if footing.lost_address { 1.0 } else { footing.risk }),
        other_explanations: others(),
    }
}

fn confidence(risk: f64, corroborated: bool) -> Confidence {
    match risk {
        0.0 => Confidence::Certain,
        r if r < 0.002 || corroborated => Confidence::High,
        _ => Confidence::Medium,
    }
}

fn assumptions(risk: f64) -> Vec<String> {
    let mut all = vec![
        "the Code: bytes are what the CPU executed".to_owned(),
        "all lines of the dump belong to the same CPU and moment".to_owned(),
    ];
    if risk > 0.0 {
        all.push("control did not come in between the first step of the derivation and the trap; the image would settle that (--vmlinux)".to_owned());
    }
    all
}

fn others() -> Vec<String> {
    vec![
        "the dump is garbled, or mixes the lines of two CPUs".to_owned(),
        "kolumbo has a wrong model of one of these instructions".to_owned(),
    ]
}

/// One step of a derivation.
pub(crate) struct ShownStep {
    pub(crate) shown: DerivationStep,
    /// Position in the line.
    pub(crate) at: usize,
    pub(crate) is_call: bool,
    /// What the subject is behind it, without the `RCX = `.
    value: String,
}

/// The steps from `from` on that `wanted` depends on at the trap.
fn derivation(
    situation: &Situation,
    consistency: &Consistency,
    from: usize,
    wanted: Parts,
) -> Vec<ShownStep> {
    let line = &consistency.steps[from..];
    let (kept, _) = slice(line, wanted);
    kept.into_iter()
        .map(|i| {
            let at = from + i;
            let step = &consistency.steps[at];
            let is_call =
                step.instruction.is_call_near() || step.instruction.is_call_near_indirect();
            let (effect, value) = if is_call {
                (call_effect(situation, consistency, at), String::new())
            } else {
                effect(consistency, at)
            };
            ShownStep {
                shown: DerivationStep {
                    address: situation.address_of(step.offset),
                    bytes: decode::hex(situation.window.bytes_of(step)),
                    instruction: decode::text(situation, step, Syntax::Att),
                    effect,
                },
                at,
                is_call,
                value,
            }
        })
        .collect()
}

fn call_effect(situation: &Situation, consistency: &Consistency, at: usize) -> String {
    let relied: Vec<String> = consistency
        .relied_on
        .iter()
        .filter(|(call, ..)| *call == at)
        .map(|&(_, register, read_at)| {
            let reader = consistency.steps.get(read_at).map_or(situation.window.trap, |s| s.offset);
            format!(
                "{} must come back: {} reads it, nothing loads it again",
                register.name().to_uppercase(),
                situation.address_of(reader)
            )
        })
        .collect();
    if relied.is_empty() {
        "keeps RBX, RBP, RSP and R12 to R15 (C convention)".to_owned()
    } else {
        relied.join("; ")
    }
}

/// What the step at `at` leaves behind, in words, and the value alone.
pub(crate) fn effect(consistency: &Consistency, at: usize) -> (String, String) {
    let Some(behind) = consistency.outcome.behind.get(at) else { return Default::default() };
    let before = match at.checked_sub(1) {
        Some(i) => &consistency.outcome.behind[i],
        None => &consistency.outcome.initial,
    };
    let mut parts = Vec::new();
    let mut value = String::new();
    for register in Gpr::all() {
        let (old, new) = (before.register(register), behind.register(register));
        if old != new {
            value = term_text(consistency, new);
            parts.push(format!("{} = {value}", register.name().to_uppercase()));
        }
    }
    // Flags are what an instruction is for only when it makes nothing else.
    if parts.is_empty() {
        let known: Vec<Bits> = consistency.bits_by_code();
        let mut decided = Vec::new();
        let mut open = Vec::new();
        for flag in [Flag::Zf, Flag::Sf, Flag::Pf, Flag::Cf, Flag::Of] {
            let (old, new) = (before.flag(flag), behind.flag(flag));
            if old == new {
                continue;
            }
            match known.get(new.index()).and_then(|b| b.exact()) {
                Some(bit) => decided.push(format!("{}={bit}", flag.name())),
                None => open.push(flag.name()),
            }
        }
        let result = consistency
            .result_of_flags(behind.flag(Flag::Zf))
            .map(|term| possible_values(&known, term));
        let mut text = decided.join(" ");
        if !open.is_empty() {
            text = format!("{text}; {} open", open.join(", "));
        }
        if let Some(result) = result.filter(|r| !r.is_empty()) {
            text = format!("the result is {result}: {text}");
        }
        parts.push(text);
    }
    (parts.join("; "), value)
}

/// Values that a term can have, where they are few.
fn possible_values(known: &[Bits], term: Term) -> String {
    let Some(bits) = known.get(term.index()) else { return String::new() };
    match bits.unknown_count() {
        0 => format!("{:#x}", bits.value),
        1 => format!("{:#x} or {:#x}", bits.min(), bits.max()),
        _ => String::new(),
    }
}

/// A term in words, with its number where that is known.
pub(crate) fn term_text(consistency: &Consistency, term: Term) -> String {
    let name = |t: Term| {
        consistency.percpu_base.filter(|&(base, _)| base == t).map(|_| "GS base".to_owned())
    };
    let words = consistency.outcome.machine.terms.describe(term, &name);
    let words = words
        .strip_prefix('(')
        .and_then(|w| w.strip_suffix(')'))
        .map_or(words.clone(), str::to_owned);
    let number =
        consistency.known.get(term.index()).and_then(|b| b.exact()).map(|n| format!("{n:#x}"));
    match number {
        Some(number) if number != words && !words.starts_with("0x") => {
            format!("{words} = {number}")
        }
        Some(number) if number == words => number,
        _ => words,
    }
}

fn bits_text(bits: Bits) -> String {
    match bits.exact() {
        Some(value) => format!("{value:#018x}"),
        None => format!("value {:#018x} under mask {:#018x}", bits.value, bits.known),
    }
}

fn flags_text(situation: &Situation, consistency: &Consistency, known: &[Bits]) -> String {
    let mut forced = Vec::new();
    let mut open = Vec::new();
    for flag in Flag::ARITHMETIC {
        let term = consistency.outcome.machine.flag(flag);
        // What the code alone leaves open may still follow from the registers of the dump.
        let verdict = consistency.verdicts.iter().find(|v| v.subject == Subject::Flag(flag));
        let by_registers = verdict.filter(|v| v.clash != 0 && v.forced.known & 1 == 1);
        let by_code = known.get(term.index()).and_then(|b| b.exact());
        match by_code.or(by_registers.map(|v| v.forced.value & 1)) {
            Some(bit) => forced.push(format!("{}={bit}", flag.name())),
            None if situation.flag(flag).is_some() => open.push(flag.name()),
            None => {}
        }
    }
    if open.is_empty() {
        forced.join(" ")
    } else {
        format!("{} ({} either)", forced.join(" "), open.join(", "))
    }
}

fn flag_parts(flag: Flag) -> Parts {
    let bit = match flag {
        Flag::Cf => iced_x86::RflagsBits::CF,
        Flag::Pf => iced_x86::RflagsBits::PF,
        Flag::Af => iced_x86::RflagsBits::AF,
        Flag::Zf => iced_x86::RflagsBits::ZF,
        Flag::Sf => iced_x86::RflagsBits::SF,
        Flag::Of => iced_x86::RflagsBits::OF,
        Flag::If => iced_x86::RflagsBits::IF,
        Flag::Df => iced_x86::RflagsBits::DF,
    };
    Parts::flags(bit)
}
