//! Everything that can be said about the dumps of one input.
//!
//! Decides the order of the parts and what is left out. The main function is [`explain`]; it is pure.

use kolumbo_case::{
    ConsistencySummary, CrashReport, EXPLAIN_FORMAT_VERSION, ExplainedFrame, ExplainedState,
    ExplainedValue, Explanation, FindingPlace, Gap, MachineState, ReadResult, StateConclusion,
    StateRole,
};
use kolumbo_dataflow::Syntax;
use kolumbo_dataflow::symbolic::{Flag, Gpr, Subject, Verdict};

use crate::accuse::{self, Surroundings};
use crate::callee::name_callees;
use crate::code::Images;
use crate::consistency::{Conclusion, Consistency};
use crate::decode;
use crate::frames;
use crate::member::member_accessed;
use crate::provenance::provenance;
use crate::situation::Situation;
use crate::spin::spin_wait;
use crate::value::{recognise, recognise_address};
use crate::window::StartReason;

/// What to say and how.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// How instructions are written.
    pub syntax: Syntax,
    /// Decode the code of every frame.
    pub all_frames: bool,
    /// What is at hand of the code that ran.
    pub images: Images<'a>,
    /// What ran the machine, where that is known apart from the dump: `QEMU 7.2.22 (tcg)`.
    pub hypervisor: Option<&'a str>,
}

/// Explains every dump that `read` found.
pub fn explain(read: &ReadResult, options: &Options<'_>) -> Explanation {
    let mut explanation = Explanation {
        explain_version: EXPLAIN_FORMAT_VERSION,
        gaps: read.gaps.clone(),
        ..Default::default()
    };
    for report in &read.reports {
        let mut states: Vec<(StateRole, &MachineState)> = Vec::new();
        for (i, state) in report.states.iter().enumerate() {
            states.push((if i == 0 { StateRole::Fault } else { StateRole::Other }, state));
        }
        for boundary in report.traces.iter().flat_map(|t| &t.boundaries) {
            states.push((StateRole::Boundary, &boundary.state));
        }
        let before = explanation.states.len();
        for (role, state) in states {
            one_state(read, report, role, state, options, &mut explanation);
        }
        if explanation.states.len() == before && options.images.kernel.is_some() {
            explanation.states.extend(trace_alone(report, options));
        }
        explanation.gaps.extend(report.gaps.iter().cloned());
    }
    explanation
}

fn one_state(
    read: &ReadResult,
    report: &CrashReport,
    role: StateRole,
    state: &MachineState,
    options: &Options<'_>,
    into: &mut Explanation,
) {
    let seen = match role {
        StateRole::Fault => Situation::at_fault(report, state),
        StateRole::Other | StateRole::Boundary => Situation::of(state),
    };
    let Some(mut situation) = seen else {
        if state.code.is_some() && !state.user_mode {
            into.gaps.push(Gap {
                what: "a dump could not be judged: only 64-bit x86 dumps with a marked trapping byte can".to_owned(),
                span: Some(state.span),
            });
        }
        return;
    };
    if let Err(what) = widen(&mut situation, options)
        && !into.gaps.iter().any(|gap| gap.what == what)
    {
        into.gaps.push(Gap { what, span: Some(state.span) });
    }
    let consistency = Consistency::check(&situation);
    let around = Surroundings {
        listings: &read.listings,
        hardware: report.context.hardware.as_deref(),
        hypervisor: options.hypervisor,
        input_offset: Some(state.span.start),
    };
    let mut summary = summarise(&situation, &consistency);
    let mut findings = accuse::findings(&situation, &consistency, &around);
    if let Some((code, _)) = options.images.of(&situation.place) {
        for finding in &mut findings {
            if let Some(register) = Gpr::from_name(&finding.subject.to_ascii_lowercase()) {
                name_callees(finding, register, code.image());
            }
        }
    }
    if report.corrupted && !findings.is_empty() {
        // Lines of another CPU's dump would make any state impossible.
        summary.conclusion = StateConclusion::Doubtful;
        let reason =
            report.corrupted_reason.as_deref().unwrap_or("its parts contradict each other");
        summary.doubts.extend(
            findings.iter().map(|f| format!("{}, but the report is garbled: {reason}", f.summary)),
        );
    } else {
        for finding in findings {
            // The same state is often printed twice: once when it is met and once at the end.
            let again = into.findings.iter().any(|f| {
                f.at.symbol == finding.at.symbol
                    && f.at.offset == finding.at.offset
                    && f.subject == finding.subject
                    && f.observed == finding.observed
            });
            if !again {
                into.findings.push(finding);
            }
        }
    }
    into.states.push(ExplainedState {
        title: report.title.clone(),
        role,
        at: accuse::place(&situation, &around),
        who: if role == StateRole::Fault { who(report) } else { String::new() },
        user_mode: situation.user_mode,
        code: decode::lines(
            &situation,
            &consistency,
            options.syntax,
            &source_at(&situation, options),
        ),
        consistency: summary,
        values: values(&situation, &consistency, &options.images),
        provenance: if situation.user_mode {
            Vec::new()
        } else {
            provenance(&situation, &consistency)
        },
        spin: if situation.user_mode { None } else { spin_wait(&situation) },
        frames: if role == StateRole::Fault { trace(report, options) } else { Vec::new() },
    });
}

/// The whole function instead of the bytes of the dump, where an image has it.
fn widen(situation: &mut Situation, options: &Options<'_>) -> Result<(), String> {
    if situation.user_mode || options.images.kernel.is_none() {
        return Ok(());
    }
    match (options.images.of(&situation.place), &situation.place.module) {
        (Some((code, _)), _) => code.widen(situation),
        (None, Some(module)) => Err(format!(
            "the module {module} is not at hand: --module-dir names a folder that has its .ko"
        )),
        (None, None) => Ok(()),
    }
}

/// A crash without registers and code, whose trace the image still explains.
fn trace_alone(report: &CrashReport, options: &Options<'_>) -> Option<ExplainedState> {
    let frames = trace(report, options);
    let place = report.states.first().and_then(|s| s.pc.clone()).or_else(|| {
        Some(report.traces.first()?.frames.iter().find(|f| f.reliable)?.place.clone())
    })?;
    (!frames.is_empty()).then(|| ExplainedState {
        title: report.title.clone(),
        at: FindingPlace {
            symbol: place.function.unwrap_or_default(),
            offset: place.offset.unwrap_or_default(),
            size: place.size.unwrap_or_default(),
            module: place.module,
            input_offset: Some(report.span.start),
            ..FindingPlace::default()
        },
        who: who(report),
        frames,
        ..ExplainedState::default()
    })
}

fn who(report: &CrashReport) -> String {
    let context = &report.context;
    let mut words = Vec::new();
    if let Some(cpu) = context.cpu {
        words.push(format!("CPU {cpu}"));
    }
    if let Some(comm) = &context.comm {
        words.push(match context.pid {
            Some(pid) => format!("{comm}/{pid}"),
            None => comm.clone(),
        });
    }
    if let Some(release) = &context.release {
        words.push(release.clone());
    }
    words.join(", ")
}

/// Source lines of an offset in the window.
fn source_at<'a>(
    situation: &Situation,
    options: &Options<'a>,
) -> impl Fn(usize) -> Vec<String> + use<'a> {
    let code = options.images.of(&situation.place);
    let base = code.and_then(|(code, _)| code.link_address(&situation.place));
    let (lines, trap) = (code.and_then(|(_, lines)| lines), situation.window.trap);
    move |offset| {
        let Some((base, lines)) = base.zip(lines) else { return Vec::new() };
        let address = base.wrapping_add_signed(offset as i64 - trap as i64);
        lines(address).iter().map(frames::source_text).collect()
    }
}

fn trace(report: &CrashReport, options: &Options<'_>) -> Vec<ExplainedFrame> {
    let with_code = options.all_frames.then_some(options.syntax);
    let frames = report.traces.first().map(|t| t.frames.as_slice()).unwrap_or_default();
    let innermost = report.states.first().and_then(|s| s.pc.as_ref());
    frames
        .iter()
        .filter_map(|frame| {
            // The trap itself is printed once more at the head of many traces.
            let is_trap = innermost.is_some_and(|pc| {
                pc.function == frame.place.function && pc.offset == frame.place.offset
            });
            frames::explained(frame, is_trap, &options.images, with_code)
        })
        .collect()
}

fn summarise(situation: &Situation, consistency: &Consistency) -> ConsistencySummary {
    let decided = consistency.decided();
    let firm = |subject: Subject| consistency.footing(subject).is_some_and(|f| f.is_firm());
    let mut determined = Vec::new();
    let mut firmly = Vec::new();
    for register in &decided.registers {
        determined.push(register.name().to_uppercase());
        if firm(Subject::Register(*register)) {
            firmly.push(register.name().to_uppercase());
        }
    }
    determined.extend(decided.parts.iter().map(|part| part.to_string()));
    for flag in &decided.flags {
        determined.push(flag.name().to_owned());
        if firm(Subject::Flag(*flag)) {
            firmly.push(flag.name().to_owned());
        }
    }
    let start = consistency.steps.first().map_or(situation.window.trap, |s| s.offset);
    let doubts = doubts(consistency);
    ConsistencySummary {
        conclusion: match consistency.conclusion {
            _ if situation.user_mode && consistency.conclusion == Conclusion::Contradicts => {
                StateConclusion::Doubtful
            }
            Conclusion::Undecided => StateConclusion::Undecided,
            Conclusion::Agrees => StateConclusion::Agrees,
            Conclusion::Doubtful => StateConclusion::Doubtful,
            Conclusion::Contradicts => StateConclusion::Contradicts,
        },
        steps: consistency.steps.len() as u32,
        from: situation.address_of(start),
        from_reason: reason(situation.window.start_reason).to_owned(),
        determined,
        firmly,
        doubts,
    }
}

/// The differences without a firm footing, a sentence for each kind.
fn doubts(consistency: &Consistency) -> Vec<String> {
    let loose: Vec<_> = consistency
        .verdicts
        .iter()
        .filter(|v| v.clash != 0 && !consistency.footing(v.subject).is_some_and(|f| f.is_firm()))
        .collect();
    if loose.is_empty() {
        return Vec::new();
    }
    let (by_fault, by_code): (Vec<_>, Vec<_>) = loose.into_iter().partition(|v| {
        consistency.footing(v.subject).is_some_and(|f| f.from == consistency.steps.len())
    });
    let names =
        |of: &[&Verdict]| of.iter().map(|v| subject_name(v.subject)).collect::<Vec<_>>().join(", ");
    let mut doubts = Vec::new();
    if !by_fault.is_empty() {
        doubts.push(format!(
            "{} would make another address than the one that the headline names, but that may be of \
             another access",
            names(&by_fault)
        ));
    }
    let risks = by_code.iter().filter_map(|v| consistency.footing(v.subject)).map(|f| f.risk);
    let least = risks.fold(1.0, f64::min);
    if !by_code.is_empty() {
        doubts.push(format!(
            "{} would differ from what the code shown computes, but control may have come in \
             between (compiled code has a branch target there in {:.0}% of such places)",
            names(&by_code),
            least * 100.0
        ));
    }
    doubts
}

fn subject_name(subject: Subject) -> String {
    match subject {
        Subject::Register(register) => register.name().to_uppercase(),
        Subject::Flag(flag) => flag.name().to_owned(),
        Subject::Path(_) | Subject::Fact(_) => String::new(),
    }
}

fn reason(reason: StartReason) -> &'static str {
    match reason {
        StartReason::Edge => "the bytes begin there",
        StartReason::FunctionStart => "the function begins there",
        StartReason::Unaligned => "the bytes before can be cut in several ways",
        StartReason::Unreachable => "the instruction before does not fall through",
        StartReason::BranchTarget => "a branch lands there",
        StartReason::LoopHead => "a loop begins there",
        StartReason::Padding => "padding lies before it",
        StartReason::Undecodable => "the bytes before the trap do not decode up to it",
    }
}

fn values(
    situation: &Situation,
    consistency: &Consistency,
    images: &Images<'_>,
) -> Vec<ExplainedValue> {
    let marks = situation.landmarks();
    let mut found = Vec::new();
    if situation.user_mode {
        return found;
    }
    if let Some(trapping) = situation.window.trapping()
        && let Some((address, true)) = decode::trap_address(situation, trapping)
        && let Some(mut meaning) = recognise_address(address, &marks)
    {
        let mut member = None;
        if let (Some(types), "null" | "null-plus-offset") = (images.types, meaning.kind) {
            types(&mut |graph| member = member_accessed(situation, consistency, graph));
        }
        if let Some(member) = member {
            meaning.text = format!("NULL plus {address:#x}: {member}");
        }
        found.push(ExplainedValue {
            name: "accessed address".to_owned(),
            value: format!("{address:#018x}"),
            kind: meaning.kind.to_owned(),
            meaning: meaning.text,
        });
    }
    for register in Gpr::all().filter(|&r| r != Gpr::RSP) {
        let Some(value) = situation.register(register) else { continue };
        let Some(meaning) = recognise(value, &marks).filter(|m| m.kind != "null") else { continue };
        found.push(ExplainedValue {
            name: register.name().to_uppercase(),
            value: format!("{value:#018x}"),
            kind: meaning.kind.to_owned(),
            meaning: meaning.text,
        });
    }
    if let Some(flags) = situation.flags {
        let set: Vec<&str> =
            Flag::ALL.into_iter().filter(|f| flags >> f.bit() & 1 == 1).map(Flag::name).collect();
        found.push(ExplainedValue {
            name: "EFLAGS".to_owned(),
            value: format!("{flags:#x}"),
            kind: "flags".to_owned(),
            meaning: if set.is_empty() { "none set".to_owned() } else { set.join(" ") },
        });
    }
    found
}
