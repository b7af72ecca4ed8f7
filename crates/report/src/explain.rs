//! An explanation as plain text of 78 columns.
//!
//! Decides what stands where: findings first, since they are what the reader came for, then each
//! dump with its code. The main function is [`report`].

use kolumbo_case::{
    Confidence, DecodedLine, ExplainedFrame, ExplainedState, Explanation, Finding, StateConclusion,
    StateRole, Suspect,
};

use crate::wrap::{Page, WIDTH};

/// Values of registers shown per dump.
const VALUES: usize = 8;
/// Instructions shown before the trap.
const BEFORE: usize = 12;
/// Instructions shown behind it.
const BEHIND: usize = 5;

/// What to show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// The code of every dump, also of other CPUs and interrupted code.
    pub all_frames: bool,
}

/// The whole explanation.
pub fn report(explanation: &Explanation, shown: Shown) -> String {
    let mut page = Page::default();
    if explanation.states.is_empty() {
        page.line("no register dump with code was found: there is nothing to explain");
    }
    for finding in &explanation.findings {
        page.gap();
        render_finding(&mut page, finding);
    }
    for state in explanation.states.iter().filter(|s| wanted(s, explanation, shown)) {
        page.gap();
        render_state(&mut page, state, shown);
    }
    let hidden = explanation.states.iter().filter(|s| !wanted(s, explanation, shown)).count();
    if hidden > 0 {
        page.gap();
        let (what, pronoun) = match hidden {
            1 => ("1 more dump agrees or cannot be judged".to_owned(), "it"),
            more => (format!("{more} more dumps agree or cannot be judged"), "them"),
        };
        page.line(&format!("{what} (kolumbo explain --all-frames shows {pronoun})"));
    }
    for gap in &explanation.gaps {
        page.gap();
        page.wrapped("gap  ", &gap.what);
    }
    page.finish()
}

/// Dumps of programs and of interrupted code rarely matter.
fn wanted(state: &ExplainedState, explanation: &Explanation, shown: Shown) -> bool {
    shown.all_frames
        || state.role == StateRole::Fault && !state.user_mode
        || state.consistency.conclusion == StateConclusion::Contradicts
        || state.spin.is_some()
        || explanation.states.len() == 1
}

/// One finding.
pub fn render_finding(page: &mut Page, finding: &Finding) {
    page.line(&format!("{} {}: {}", finding.id, finding.code, finding.subject));
    page.wrapped("  ", &finding.summary);
    page.wrapped("  expected    ", &finding.expected);
    page.wrapped("  in the dump ", &finding.observed);
    if let Some(looks) = &finding.observed_looks_like {
        page.wrapped("              ", looks);
    }
    page.wrapped("  confidence  ", confidence(finding.confidence));
    page.gap();
    page.line("  what the code does");
    for step in &finding.derivation {
        instruction(page, "    ", inside(&step.address, &finding.at.symbol), &step.instruction);
        page.wrapped("               ", &step.effect);
    }
    let trap = finding.at.to_string();
    instruction(page, "  > ", inside(&trap, &finding.at.symbol), &finding.at.instruction);
    page.line("               the trap; the state is the one before it");
    page.gap();
    page.line("  suspects");
    for (i, suspect) in finding.suspects.iter().enumerate() {
        render_suspect(page, i + 1, suspect);
    }
    page.gap();
    for assumption in &finding.assumptions {
        page.wrapped("  assumed     ", assumption);
    }
    for other in &finding.other_explanations {
        page.wrapped("  or else     ", other);
    }
}

/// The address without the function that stands in the heading.
fn inside<'a>(address: &'a str, function: &str) -> &'a str {
    match address.strip_prefix(function) {
        Some(offset) if !function.is_empty() && offset.starts_with(['+', '-']) => offset,
        _ => address,
    }
}

fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "certain: follows from the instructions alone",
        Confidence::High => "high: rests on assumptions that compiled code keeps",
        Confidence::Medium => "medium: rests on assumptions that rarely fail",
        Confidence::Low => "low: rests on an assumption that often fails",
    }
}

fn render_suspect(page: &mut Page, number: usize, suspect: &Suspect) {
    let name = suspect.name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
    page.line(&format!("    {number}. {}{name}", suspect.kind.name()));
    for reason in &suspect.because {
        page.wrapped("       for     ", reason);
    }
    for reason in &suspect.against {
        page.wrapped("       against ", reason);
    }
    page.wrapped("       check   ", &suspect.check);
}

/// One dump.
pub fn render_state(page: &mut Page, state: &ExplainedState, shown: Shown) {
    let role = match state.role {
        StateRole::Fault => "",
        StateRole::Other => "another CPU: ",
        StateRole::Boundary => "interrupted code: ",
    };
    if !state.title.is_empty() && state.role == StateRole::Fault {
        page.wrapped("", &state.title);
    }
    let who = if state.who.is_empty() { String::new() } else { format!(" ({})", state.who) };
    let mode = if state.user_mode { ", user mode" } else { "" };
    page.wrapped("", &format!("{role}{}{who}{mode}", state.at));
    render_code(page, &state.code, &state.at.symbol, shown);
    if let Some(spin) = &state.spin {
        page.gap();
        page.wrapped("  waits    ", &format!("in the loop {} to {}", spin.from, spin.to));
        page.wrapped("  until    ", &spin.until);
        page.wrapped("  for      ", &spin.waits_for);
        if !spin.ended_by.is_empty() {
            page.wrapped("  ended by ", &spin.ended_by);
        }
    }
    if !state.code.is_empty() {
        page.gap();
        render_consistency(page, state);
    }
    if !state.values.is_empty() {
        page.gap();
        for value in state.values.iter().take(VALUES) {
            page.wrapped(&format!("  {:<16} {} ", value.name, value.value), &value.meaning);
        }
    }
    // A chain is where state and code agree; where they do not, the finding tells more.
    if state.provenance.len() > 1 && state.consistency.conclusion != StateConclusion::Contradicts {
        page.gap();
        page.line("  where the value came from");
        for step in &state.provenance {
            if !step.instruction.is_empty() {
                instruction(
                    page,
                    "    ",
                    inside(&step.address, &state.at.symbol),
                    &step.instruction,
                );
            }
            page.wrapped(
                if step.instruction.is_empty() { "    " } else { "        " },
                &step.effect,
            );
        }
    }
    render_frames(page, &state.frames, shown);
}

/// Instructions, the trap marked; a bar stands before those that ran straight into it. Of a long
/// window the part around the trap is shown, and all that ran straight into it as far as it fits.
fn render_code(page: &mut Page, code: &[DecodedLine], function: &str, shown: Shown) {
    let trap = code.iter().position(|l| l.trap).unwrap_or(0);
    let (first, last) = match shown.all_frames {
        true => (0, code.len()),
        false => (trap.saturating_sub(BEFORE), (trap + 1 + BEHIND).min(code.len())),
    };
    let mut last_source: Option<&String> = None;
    for line in &code[first..last] {
        // The way through inlined functions matters at the trap; elsewhere the line is enough.
        let source = line.source.first();
        if source.is_some() && (source != last_source || line.trap) {
            let chain = if line.trap { line.source.as_slice() } else { &line.source[..1] };
            for (depth, place) in chain.iter().enumerate() {
                let how = if depth == 0 { "" } else { "inlined at " };
                page.wrapped("      ; ", &format!("{how}{place}"));
            }
            if let Some(text) = &line.source_text {
                page.line(&format!("      ;     {}", cut(text.trim(), WIDTH - 12)));
            }
            last_source = source;
        }
        let mark = match (line.trap, line.in_line) {
            (true, _) => "  > ",
            (false, true) => "  | ",
            (false, false) => "    ",
        };
        instruction(page, mark, inside(&line.address, function), &line.text);
        let operand = match (&line.memory, &line.memory_is) {
            (Some(address), Some(meaning)) => format!("accesses {address}: {meaning}"),
            (Some(address), None) => format!("accesses {address}"),
            (None, Some(meaning)) => meaning.clone(),
            (None, None) => continue,
        };
        page.wrapped("               ; ", &operand);
    }
}

/// At most `width` columns of `text`.
fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// The trace, where an image or the log itself adds source lines to it.
fn render_frames(page: &mut Page, frames: &[ExplainedFrame], shown: Shown) {
    let told = frames.iter().any(|f| !f.source.is_empty() || !f.code.is_empty());
    if !told && !shown.all_frames || frames.is_empty() {
        return;
    }
    page.gap();
    page.line("  call trace");
    for frame in frames.iter().filter(|f| f.reliable || shown.all_frames) {
        let doubt = if frame.reliable { "" } else { "? " };
        page.wrapped("    ", &format!("{doubt}{}", frame.text));
        for (depth, place) in frame.source.iter().enumerate() {
            let how = if depth == 0 { "" } else { "inlined at " };
            page.wrapped("        ", &format!("{how}{place}"));
        }
        let function = frame.text.split('+').next().unwrap_or_default();
        for line in &frame.code {
            instruction(page, "          ", inside(&line.address, function), &line.text);
        }
    }
}

fn instruction(page: &mut Page, mark: &str, address: &str, text: &str) {
    let line = format!("{mark}{address:<10} {text}");
    if line.chars().count() <= WIDTH {
        page.line(&line);
        return;
    }
    page.line(&format!("{mark}{address}"));
    page.wrapped(&format!("{}    ", " ".repeat(mark.len())), text);
}

fn render_consistency(page: &mut Page, state: &ExplainedState) {
    let summary = &state.consistency;
    let text = match summary.conclusion {
        StateConclusion::Undecided => {
            "the code shown determines no register and no flag".to_owned()
        }
        StateConclusion::Agrees => {
            format!("agrees with the code, which determines {}", summary.determined.join(" "))
        }
        StateConclusion::Doubtful => format!("not judged: {}", summary.doubts.join("; ")),
        StateConclusion::Contradicts => "cannot follow from the code: see the finding".to_owned(),
    };
    page.wrapped("  state    ", &text);
    if summary.steps > 0 {
        page.wrapped(
            "           ",
            &format!(
                "({} instruction{} from {}; {})",
                summary.steps,
                if summary.steps == 1 { "" } else { "s" },
                summary.from,
                summary.from_reason
            ),
        );
    }
}
