//! Which runs have their console, samples and explanation in the page, and in which shape.
//!
//! Decides the order: one run for each bug and cell, so that no bug is without a proof while another
//! has many; then what failed; then healthy runs to compare with. It may not grow beyond
//! [`EMBEDDED`].

use std::collections::HashSet;
use std::io;

use kolumbo_case::matrix::{Answer, MatrixFile};
use kolumbo_case::{CaseFile, Evidence};
use serde_json::{Value, json};

use super::Chosen;
use super::data::{RUNS_OF_A_CELL, field};
use super::script_safe::to_script;
use crate::matrix::Details;
use crate::matrix::words::{Outcome, clipped, outcome, visible_bytes, visible_lines};

/// Bytes of details in one page.
pub const EMBEDDED: usize = 24 << 20;
/// Of these, bytes of healthy runs.
pub const HEALTHY: usize = 6 << 20;
/// Bytes of one console.
pub const CONSOLE: usize = 256 << 10;
/// Runs whose folders are opened for one page: ill ones, and healthy ones.
const OPENED: [usize; 2] = [3_000, 500];
/// Runs that were too large for what was left, after which no smaller one is looked for.
const MISFITS: usize = 8;
/// Pieces of evidence of one run.
const EVIDENCE: usize = 200;
/// The longest explanation, in characters.
const EXPLANATION: usize = 200_000;

/// What went into the page.
#[derive(Debug, Default)]
pub(super) struct Embedded {
    /// The runs, by cell and run.
    pub(super) chosen: Chosen,
    /// Their data blocks, ready to be written.
    pub(super) blocks: Vec<((u32, usize), Vec<u8>)>,
    /// Runs that were left out for their size.
    pub(super) left_out: usize,
}

/// Collects the details of as many runs as the page has room for.
pub(super) fn collect(matrix: &MatrixFile, details: &dyn Details) -> io::Result<Embedded> {
    let mut embedded = Embedded::default();
    let (ill, healthy) = wanted(matrix);
    let mut used = 0;
    for (runs, most, folders) in
        [(ill, EMBEDDED - HEALTHY, OPENED[0]), (healthy, HEALTHY, OPENED[1])]
    {
        let limit = (used + most).min(EMBEDDED);
        let mut misfits = 0;
        for (place, &(cell, run)) in runs.iter().enumerate() {
            if place == folders || misfits == MISFITS || limit.saturating_sub(used) < 1 << 10 {
                embedded.left_out += runs.len() - place;
                break;
            }
            let Some(value) = block(details, cell, run) else { continue };
            let mut bytes = Vec::new();
            to_script(&mut bytes, &value)?;
            if used + bytes.len() > limit {
                embedded.left_out += 1;
                misfits += 1;
                continue;
            }
            used += bytes.len();
            embedded.chosen.insert((cell, run));
            embedded.blocks.push(((cell, run), bytes));
        }
    }
    Ok(embedded)
}

type Runs = Vec<(u32, usize)>;

/// The runs that are worth most, the most valuable first: the ill ones and the healthy ones.
fn wanted(matrix: &MatrixFile) -> (Runs, Runs) {
    let mut sick: Vec<(usize, Option<u32>, u32, usize)> = Vec::new();
    let mut failed: Runs = Vec::new();
    let mut compared: Runs = Vec::new();
    let mut healthy: Runs = Vec::new();
    let mut of_bug: std::collections::HashMap<Option<u32>, usize> = Default::default();
    for (number, cell) in (0u32..).zip(&matrix.cells) {
        let mut seen: HashSet<Option<u32>> = HashSet::new();
        let runs = || cell.runs.iter().enumerate().take(RUNS_OF_A_CELL);
        for (r, run) in runs().filter(|(_, run)| outcome(run) == Outcome::Sick) {
            if seen.insert(run.bug) {
                let rank = of_bug.entry(run.bug).or_default();
                sick.push((*rank, run.bug, number, r));
                *rank += 1;
            }
        }
        let first = |wanted: Outcome| runs().find(|(_, r)| outcome(r) == wanted).map(|(r, _)| r);
        if let Some(r) = first(Outcome::Undecided).or_else(|| first(Outcome::Spoilt)) {
            failed.push((number, r));
        }
        if let Some(r) = first(Outcome::Healthy) {
            match cell.answer {
                Answer::Flaky => compared.push((number, r)),
                _ => healthy.push((number, r)),
            }
        }
    }
    sick.sort_unstable();
    let mut ill: Runs = sick.into_iter().map(|(_, _, cell, run)| (cell, run)).collect();
    ill.extend(failed);
    compared.extend(healthy);
    (ill, compared)
}

fn block(details: &dyn Details, cell: u32, run: usize) -> Option<Value> {
    let case = details.case(cell, run);
    let console = details.console(cell, run, CONSOLE);
    let explanation = details.explanation(cell, run);
    if case.is_none() && console.is_none() && explanation.is_none() {
        return None;
    }
    let mut block = json!({});
    if let Some(case) = case {
        block["case"] = facts(&case);
        block["evidence"] = evidence(&case);
        block["left"] =
            case.outcome.as_ref().map_or(0, |v| v.evidence.len().saturating_sub(EVIDENCE)).into();
    }
    if let Some(mut tail) = console {
        let over = tail.bytes.len().saturating_sub(CONSOLE);
        tail.bytes.drain(..over);
        block["console"] = visible_bytes(&tail.bytes).into();
        block["before"] = tail.before.saturating_add(over as u64).into();
    }
    if let Some(text) = explanation {
        block["explanation"] = clipped(&visible_lines(&text), EXPLANATION).into();
    }
    Some(block)
}

/// Pairs of a name and what is known under it.
fn facts(case: &CaseFile) -> Value {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(verdict) = &case.outcome {
        rows.push((
            "last sign of life",
            crate::matrix::words::duration(verdict.last_sign_of_life_ms),
        ));
        if verdict.timed_out {
            rows.push(("time limit", "ended the run".to_owned()));
        }
    }
    for input in case.inputs.iter().take(32) {
        rows.push(("input", format!("{}: {} (sha256 {})", input.role, input.path, input.sha256)));
    }
    if let Some(guest) = &case.guest {
        rows.push(("guest", guest.proc_version.clone()));
        rows.push(("command line", guest.cmdline.clone()));
    }
    if !case.qemu.accel.is_empty() {
        let why = match case.qemu.accel_reason.as_str() {
            "" => String::new(),
            why => format!(" ({why})"),
        };
        rows.push(("accel", format!("{}{why}, QEMU {}", case.qemu.accel, case.qemu.version)));
    }
    for gap in case.gaps.iter().take(32) {
        rows.push(("gap", gap.clone()));
    }
    rows.into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| json!([name, field(&text)]))
        .collect()
}

fn evidence(case: &CaseFile) -> Value {
    let all = case.outcome.iter().flat_map(|v| &v.evidence).take(EVIDENCE);
    all.filter_map(|evidence| match evidence {
        Evidence::Line { t, text, .. } => {
            Some(json!({ "t": t, "from": "console", "text": field(text) }))
        }
        Evidence::Report { t, from, text } => {
            Some(json!({ "t": t, "from": field(from), "text": field(text) }))
        }
        Evidence::Vcpu { from_t, to_t, samples, text, last } => {
            let place = last.symbol.as_ref().map_or_else(String::new, |s| format!("{} ", field(s)));
            let doing = match (last.halted, last.cpl) {
                (true, _) => "halted",
                (false, 0) => "kernel",
                _ => "user",
            };
            Some(json!({
                "t": to_t, "since": from_t, "cpu": last.cpu, "samples": samples,
                "text": field(text), "place": format!("{place}{:#x}", last.pc),
                "instruction": field(last.instruction.as_deref().unwrap_or("")),
                "doing": doing, "interrupts": last.interrupts,
            }))
        }
        _ => None,
    })
    .collect()
}
