//! One run of a case as one page of plain text.
//!
//! Tells the story in the order in which it happened: what the bug is, what was built, what was booted and
//! seen, what proves it. Main function: [`report`].

use kolumbo_case::CaseRun;
use kolumbo_case::casebook::{CellRun, ProofRun};
use kolumbo_case::file::CaseState;

use crate::wrap::Page;

/// Lines of evidence that are shown of a step.
const EVIDENCE: usize = 60;

/// The whole page.
#[must_use]
pub fn report(run: &CaseRun) -> String {
    let mut page = Page::default();
    page.wrapped("", &format!("{}: {}", run.name, run.title));
    page.gap();
    page.wrapped("  ", &run.story);
    page.gap();
    page.wrapped("source    ", &format!("{} (Linux {})", run.source, run.release));
    for kernel in &run.kernels {
        let time = match (kernel.cached, kernel.wall_ms) {
            (true, _) | (_, 0) => "was built before".to_owned(),
            (false, ms) => format!("built in {}", seconds(ms)),
        };
        let edits = match kernel.edits.as_slice() {
            [] => String::new(),
            edits => format!(", edits {}", edits.join(", ")),
        };
        page.wrapped(
            "kernel    ",
            &format!("{}: {} ({}){edits}; {time}", kernel.name, kernel.about, kernel.compiler),
        );
    }
    page.gap();
    for cell in &run.cells {
        show_cell(&mut page, cell);
    }
    for sentence in &run.sentences {
        page.wrapped("where     ", sentence);
    }
    for proof in &run.proofs {
        page.gap();
        show_proof(&mut page, proof);
    }
    page.gap();
    for gap in &run.gaps {
        page.wrapped("gap       ", gap);
    }
    page.wrapped("", &totals(run));
    page.finish()
}

/// The last line: what came of it, in numbers.
#[must_use]
pub fn totals(run: &CaseRun) -> String {
    let state = match run.state {
        CaseState::Done => "",
        CaseState::Running => " so far",
    };
    format!(
        "{} of {} cells as expected, {} of {} steps of the proof hold{state}, {}",
        run.cells_as_expected(),
        run.cells.len(),
        run.proofs_that_hold(),
        run.proofs.len(),
        seconds(run.wall_ms)
    )
}

fn show_cell(page: &mut Page, cell: &CellRun) {
    let mark =
        if cell.differences.is_empty() && cell.judged { "as expected " } else { "NOT expected" };
    let verdict = cell.verdict.map_or("not judged", |v| v.name());
    let what = match (cell.title.as_str(), cell.findings.as_slice()) {
        ("", []) => String::new(),
        (title, []) => format!(", {title}"),
        (title, findings) => format!(", {title}; {}", findings.join(", ")),
    };
    page.wrapped(&format!("{mark}  "), &format!("{}: {verdict}{what}", cell.labels.join("/")));
    for difference in &cell.differences {
        page.wrapped("              ", difference);
    }
}

fn show_proof(page: &mut Page, proof: &ProofRun) {
    let mark = if proof.holds { "proven    " } else { "NOT proven" };
    page.wrapped(&format!("{mark}  "), &proof.promise);
    page.wrapped("            ", &format!("{} ({})", proof.outcome, seconds(proof.wall_ms)));
    if !proof.command.is_empty() {
        page.line(&format!("            $ {}", proof.command));
    }
    let lines: Vec<&str> = proof.evidence.lines().collect();
    for line in lines.iter().take(EVIDENCE) {
        // Tabs would not survive a mail.
        page.line(&format!("    | {}", line.replace('\t', "        ")));
    }
    if lines.len() > EVIDENCE {
        page.line(&format!("    | ({} more lines)", lines.len() - EVIDENCE));
    }
}

/// A time in seconds, with a decimal where that matters.
pub(crate) fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} s", ms.div_ceil(1000)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kolumbo_case::VerdictKind;
    use kolumbo_case::casebook::KernelRun;

    pub(crate) fn example() -> CaseRun {
        let cell = |name: &str, differences: &[&str]| CellRun {
            labels: vec![name.to_owned(), "2".to_owned()],
            expected: vec![VerdictKind::Panicked],
            expected_title: "general protection fault in *".to_owned(),
            judged: true,
            verdict: Some(VerdictKind::Panicked),
            title: "general protection fault in <irq_work_tick>".to_owned(),
            findings: vec!["K0102 RCX".to_owned()],
            differences: differences.iter().map(|d| (*d).to_owned()).collect(),
            ..CellRun::default()
        };
        CaseRun {
            name: "native-save-fl".to_owned(),
            title: "native_save_fl destroys RCX".to_owned(),
            story: "It was so. </script><b>".to_owned(),
            source: "Debian".to_owned(),
            release: "6.1.192".to_owned(),
            state: CaseState::Done,
            wall_ms: 61_500,
            kernels: vec![KernelRun {
                name: "sick".to_owned(),
                wall_ms: 1500,
                ..KernelRun::default()
            }],
            axes: vec!["kernel".to_owned(), "smp".to_owned()],
            cells: vec![
                cell("sick", &[]),
                cell("healthy", &["the verdict is panicked, expected was booted"]),
            ],
            proofs: vec![ProofRun {
                step: "prove".to_owned(),
                promise: "rcx is lost".to_owned(),
                outcome: "confirmed in 1 of 1 call".to_owned(),
                holds: true,
                evidence: "line\n".repeat(70),
                command: "kolumbo prove CASE".to_owned(),
                ..ProofRun::default()
            }],
            ..CaseRun::default()
        }
    }

    #[test]
    fn the_page_tells_what_was_expected_and_what_was_seen() {
        let text = report(&example());
        for expected in [
            "as expected   sick/2: panicked, general protection fault in",
            "NOT expected  healthy/2: panicked",
            "              the verdict is panicked, expected was booted",
            "proven      rcx is lost",
            "    | (10 more lines)",
            "1 of 2 cells as expected, 1 of 1 steps of the proof hold, 62 s",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!example().is_as_expected());
    }
}
