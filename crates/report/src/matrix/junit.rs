//! A matrix as JUnit XML: one suite, one test case for each cell.
//!
//! Decides what is a failure (not as expected), an error (no answer) and skipped (not run yet).
//! The document is put together in memory, about a kilobyte for each cell.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use chrono::DateTime;
use kolumbo_case::matrix::{Answer, Cell, MatrixFile};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::words::{
    Outcome, anywhere, clipped, duration, label, mark, outcome, percent, sentence, strikes,
    visible, worst,
};

/// Runs of one cell that are written out.
const RUNS: usize = 50;
/// The longest text of one field, in characters.
const FIELD: usize = 4_000;

/// Writes the document.
///
/// # Errors
/// What `out` answers.
pub fn write(matrix: &MatrixFile, out: &mut dyn io::Write) -> io::Result<()> {
    let name = if matrix.title.is_empty() { "kolumbo matrix" } else { matrix.title.as_str() };
    let mut report = Report::new(field(name));
    let mut suite = TestSuite::new(field(name));
    let started = DateTime::parse_from_rfc3339(&matrix.started).ok();
    if let Some(started) = started {
        report.set_timestamp(started);
        suite.set_timestamp(started);
    }
    suite.add_property(Property::new("kolumbo", field(&matrix.kolumbo)));
    suite.add_property(Property::new("host.kernel", field(&matrix.host.kernel)));
    suite.add_property(Property::new("host.cpu", field(&matrix.host.cpu)));
    if let Some(sentence) = anywhere(matrix) {
        suite.add_property(Property::new("anything fails", clipped(&sentence, FIELD).as_ref()));
    }
    for bug in &matrix.bugs {
        let words = format!(
            "{}: {} ({})",
            visible(&bug.signature),
            sentence(bug),
            strikes(bug, matrix.confidence)
        );
        suite.add_property(Property::new("bug", clipped(&words, FIELD).as_ref()));
    }
    for gap in &matrix.gaps {
        suite.add_property(Property::new("gap", field(gap)));
    }
    let mut all = 0u64;
    for cell in &matrix.cells {
        all = all.saturating_add(wall(cell));
        suite.add_test_case(case(matrix, cell));
    }
    suite.set_time(Duration::from_millis(all));
    report.set_time(Duration::from_millis(all));
    report.add_test_suite(suite);
    report.serialize(out).map_err(io::Error::other)
}

fn case(matrix: &MatrixFile, cell: &Cell) -> TestCase {
    let mut case = TestCase::new(field(&cell.name), status(matrix, cell));
    if let Some(axis) = matrix.axes.first() {
        let class = format!("kolumbo.{}={}", visible(&axis.name), visible(label(matrix, cell, 0)));
        case.set_classname(clipped(&class, FIELD).as_ref());
    }
    case.set_time(Duration::from_millis(wall(cell)));
    let first = cell.runs.first().and_then(|r| DateTime::parse_from_rfc3339(&r.started).ok());
    if let Some(started) = first {
        case.set_timestamp(started);
    }
    for (number, axis) in matrix.axes.iter().enumerate() {
        case.add_property(Property::new(field(&axis.name), field(label(matrix, cell, number))));
    }
    if !cell.runs.is_empty() {
        case.set_system_out(runs(cell));
    }
    case
}

fn status(matrix: &MatrixFile, cell: &Cell) -> TestCaseStatus {
    let (kind, message) = match (cell.answer, cell.as_expected) {
        (Answer::Pending, _) => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message("not run yet");
            return skipped;
        }
        (Answer::Error, _) | (_, None) => {
            let why = cell.runs.last().map_or("", |r| r.reason.as_str());
            (NonSuccessKind::Error, format!("no run could be judged: {}", visible(why)))
        }
        (_, Some(true)) => return TestCaseStatus::success(),
        (Answer::Healthy, Some(false)) => {
            (NonSuccessKind::Failure, "healthy, but expected to be sick".to_owned())
        }
        (_, Some(false)) => (NonSuccessKind::Failure, why(matrix, cell)),
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(clipped(&message, FIELD).as_ref());
    status.set_type(worst(cell).map_or(cell.answer.name(), |v| v.name()));
    let bugs = bugs(matrix, cell);
    if !bugs.is_empty() {
        status.set_description(bugs);
    }
    status
}

fn why(matrix: &MatrixFile, cell: &Cell) -> String {
    let run = cell.runs.iter().find(|r| outcome(r) == Outcome::Sick);
    let what = run.map_or("", |r| match r.signature.as_str() {
        "" => r.reason.as_str(),
        signature => signature,
    });
    match cell.answer {
        Answer::Flaky => format!(
            "{} of {} runs were sick, {} to {} at {} confidence: {}",
            cell.counts.sick,
            cell.counts.judged(),
            percent(cell.counts.interval.0),
            percent(cell.counts.interval.1),
            percent(matrix.confidence),
            visible(what)
        ),
        _ => format!("{}: {}", worst(cell).map_or("sick", |v| v.name()), visible(what)),
    }
}

/// The sentences of the bugs that struck here, one a line.
fn bugs(matrix: &MatrixFile, cell: &Cell) -> String {
    let mut seen: Vec<u32> = cell.runs.iter().filter_map(|r| r.bug).collect();
    seen.sort_unstable();
    seen.dedup();
    let mut text = String::new();
    for bug in seen {
        if let Some(bug) = usize::try_from(bug).ok().and_then(|b| matrix.bugs.get(b)) {
            let words = format!("{}: {}", visible(&bug.signature), sentence(bug));
            let _ = writeln!(text, "{}", clipped(&words, FIELD));
        }
    }
    text
}

fn runs(cell: &Cell) -> String {
    let mut text = format!("command: {}\n", clipped(&visible(&cell.command), FIELD));
    for run in cell.runs.iter().take(RUNS) {
        let verdict = run.verdict.map_or("error", |v| v.name());
        let _ = write!(text, "run {}", run.repeat);
        if run.attempt > 1 {
            let _ = write!(text, " attempt {}", run.attempt);
        }
        let _ = writeln!(
            text,
            ": {verdict} after {}: {}",
            duration(run.wall_ms),
            clipped(&visible(&run.reason), FIELD)
        );
        if !run.signature.is_empty() {
            let _ = writeln!(text, "  signature: {}", clipped(&visible(&run.signature), FIELD));
        }
        if !run.folder.is_empty() {
            let _ = writeln!(text, "  folder: {}", clipped(&visible(&run.folder), FIELD));
        }
    }
    if cell.runs.len() > RUNS {
        let _ = writeln!(text, "and {} more runs", cell.runs.len() - RUNS);
    }
    let mark = mark(cell);
    if !mark.bugs.is_empty() {
        let _ = writeln!(text, "bugs: {}", mark.bugs);
    }
    text
}

fn wall(cell: &Cell) -> u64 {
    cell.runs.iter().fold(0, |sum, r| r.wall_ms.saturating_add(sum))
}

fn field(text: &str) -> String {
    clipped(&visible(text), FIELD).into_owned()
}
