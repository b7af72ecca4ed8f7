//! A matrix as KTAP, version 1: a subtest for each value of the first axis, a case for each cell.
//!
//! Decides what counts as `ok` (as expected) and keeps guest text from being read as KTAP. The
//! format: Documentation/dev-tools/ktap.rst; it is read by tools/testing/kunit/kunit_parser.py.

use std::collections::BTreeMap;
use std::io;

use kolumbo_case::matrix::{Answer, Cell, MatrixFile};

use super::words::{
    Outcome, anywhere, clipped, duration, label, letter, outcome, sentence, strikes, visible,
};

/// The longest name or diagnostic, in characters.
const FIELD: usize = 400;

/// Writes the lines.
///
/// # Errors
/// What `out` answers.
pub fn write(matrix: &MatrixFile, out: &mut dyn io::Write) -> io::Result<()> {
    writeln!(out, "KTAP version 1")?;
    if matrix.axes.len() < 2 {
        writeln!(out, "1..{}", matrix.cells.len())?;
        for (number, cell) in matrix.cells.iter().enumerate() {
            case(cell, number + 1, &cell.name, "", out)?;
        }
        return remarks(matrix, out);
    }
    let mut groups: BTreeMap<Option<u32>, Vec<&Cell>> = BTreeMap::new();
    for cell in &matrix.cells {
        groups.entry(cell.at.first().copied()).or_default().push(cell);
    }
    writeln!(out, "1..{}", groups.len())?;
    for (number, cells) in groups.values().enumerate() {
        let axis = matrix.axes.first().map_or("", |a| a.name.as_str());
        let value = cells.first().map_or("?", |c| label(matrix, c, 0));
        let group = name(&format!("{axis}={value}"));
        writeln!(out, "    KTAP version 1")?;
        writeln!(out, "    # Subtest: {group}")?;
        writeln!(out, "    1..{}", cells.len())?;
        let mut good = true;
        for (place, cell) in cells.iter().enumerate() {
            let labels: Vec<&str> =
                (1..matrix.axes.len()).map(|axis| label(matrix, cell, axis)).collect();
            good &= case(cell, place + 1, &labels.join("/"), "    ", out)?;
        }
        let word = if good { "ok" } else { "not ok" };
        writeln!(out, "{word} {} {group}", number + 1)?;
    }
    remarks(matrix, out)
}

/// One cell; true when it does not make its group fail.
fn case(
    cell: &Cell,
    number: usize,
    called: &str,
    indent: &str,
    out: &mut dyn io::Write,
) -> io::Result<bool> {
    for run in cell.runs.iter().filter(|r| outcome(r) != Outcome::Healthy).take(10) {
        let verdict = run.verdict.map_or("error", |v| v.name());
        let reason = visible(&run.reason);
        writeln!(
            out,
            "{indent}# run {}: {verdict} after {}: {}",
            run.repeat,
            duration(run.wall_ms),
            clipped(&reason, FIELD)
        )?;
        if !run.signature.is_empty() {
            writeln!(out, "{indent}#   {}", clipped(&visible(&run.signature), FIELD))?;
        }
    }
    let (good, directive) = match (cell.answer, cell.as_expected) {
        (Answer::Pending, _) => (true, " # SKIP not run yet"),
        (Answer::Error, _) | (_, None) => (false, " # ERROR no run could be judged"),
        (_, Some(good)) => (good, ""),
    };
    let word = if good { "ok" } else { "not ok" };
    writeln!(out, "{indent}{word} {number} {}{directive}", name(called))?;
    Ok(good)
}

/// Diagnostics that belong to no case. Before a plan the kernel's parser would not see the plan.
fn remarks(matrix: &MatrixFile, out: &mut dyn io::Write) -> io::Result<()> {
    for gap in &matrix.gaps {
        writeln!(out, "# gap: {}", clipped(&visible(gap), FIELD))?;
    }
    if let Some(sentence) = anywhere(matrix) {
        writeln!(out, "# anything fails: {}", clipped(&sentence, FIELD))?;
    }
    for (number, bug) in matrix.bugs.iter().enumerate() {
        let letter = letter(u32::try_from(number).unwrap_or(u32::MAX));
        writeln!(out, "# {letter}: {}", clipped(&visible(&bug.signature), FIELD))?;
        let sentence = sentence(bug);
        if !sentence.is_empty() {
            writeln!(out, "#    {}", clipped(&sentence, FIELD))?;
        }
        writeln!(out, "#    {}", strikes(bug, matrix.confidence))?;
    }
    Ok(())
}

/// A name that ends where its line ends: `#` would begin a directive, and a leading `-` would be
/// eaten.
fn name(text: &str) -> String {
    let text = visible(text).replace('#', "_");
    let text = clipped(text.trim(), FIELD).trim_start_matches("- ").to_owned();
    if text.is_empty() { "all".to_owned() } else { text }
}
