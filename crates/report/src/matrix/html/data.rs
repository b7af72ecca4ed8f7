//! A matrix as the compact JSON that the page reads.
//!
//! Decides the shape of the data: rows of numbers, and texts by index into one list, since a table
//! of 100,000 cells says the same few sentences again and again. `model.js` is the other side.

use std::collections::HashMap;
use std::io::{self, Write};

use chrono::DateTime;
use kolumbo_case::matrix::{Answer, Axis, Bug, Cell, MatrixFile, Run};
use kolumbo_case::{Phase, VerdictKind};
use serde::Serialize;
use serde_json::{Value, json};

use super::Chosen;
use super::script_safe::to_script;
use crate::matrix::words::{
    Outcome, clipped, duration, letter, mark, outcome, sentence, short, strikes, visible,
};

/// The longest text, in characters.
const FIELD: usize = 4_000;
/// Runs of one cell that the page shows.
pub(super) const RUNS_OF_A_CELL: usize = 100;
/// Text of commands that the page holds, in bytes.
const COMMANDS: usize = 8 << 20;

pub(super) fn field(text: &str) -> String {
    clipped(&visible(text), FIELD).into_owned()
}

/// Texts that are written once.
#[derive(Default)]
struct Texts<'m> {
    numbers: HashMap<&'m str, usize>,
    order: Vec<&'m str>,
}

impl<'m> Texts<'m> {
    fn number(&mut self, text: &'m str) -> usize {
        *self.numbers.entry(text).or_insert_with(|| {
            self.order.push(text);
            self.order.len() - 1
        })
    }
}

/// Writes the object that `model.js` reads. `embedded` says which runs have details in the page.
pub(super) fn write(matrix: &MatrixFile, embedded: &Chosen, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\"head\":")?;
    to_script(out, &head(matrix))?;
    write!(out, ",\n\"axes\":")?;
    to_script(out, &matrix.axes.iter().map(axis).collect::<Vec<_>>())?;
    write!(out, ",\n\"bugs\":")?;
    let bugs = matrix.bugs.iter().enumerate().map(|(n, b)| bug(matrix, n, b));
    to_script(out, &bugs.collect::<Vec<_>>())?;
    write!(out, ",\n\"cells\":[")?;
    let mut texts = Texts::default();
    let mut commands = 0;
    for (number, cell) in (0u32..).zip(&matrix.cells) {
        out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
        commands += cell.command.len();
        let command = (commands <= COMMANDS).then_some(cell.command.as_str());
        let row = cell_row(number, cell, command, matrix, embedded, &mut texts);
        to_script(out, &row)?;
    }
    write!(out, "],\n\"texts\":[")?;
    for (number, text) in texts.order.iter().enumerate() {
        out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
        to_script(out, &field(text))?;
    }
    write!(out, "]}}")
}

fn head(matrix: &MatrixFile) -> Value {
    let verdicts: Vec<Value> =
        VerdictKind::ALL.iter().map(|&v| json!([v.name(), short(v), v.meaning()])).collect();
    let phases: Vec<&str> = Phase::ALL.iter().map(|p| p.name()).collect();
    json!({
        "title": field(&matrix.title),
        "confidence": matrix.confidence,
        "verdicts": verdicts,
        "phases": phases,
    })
}

fn axis(axis: &Axis) -> Value {
    let values: Vec<Value> = axis
        .values
        .iter()
        .map(|v| json!([field(&v.label), field(&v.value), field(&v.note)]))
        .collect();
    json!({ "name": field(&axis.name), "ordered": axis.ordered, "values": values })
}

fn bug(matrix: &MatrixFile, number: usize, bug: &Bug) -> Value {
    json!({
        "letter": letter(u32::try_from(number).unwrap_or(u32::MAX)),
        "signature": field(&bug.signature),
        "sentence": field(&sentence(bug)),
        "strikes": strikes(bug, matrix.confidence),
        "cells": bug.cells.len(),
    })
}

/// A cell as `[at, answer, expected, healthy, sick, errors, low, high, mark, expect, command, runs,
/// runs left out]`.
fn cell_row<'m>(
    number: u32,
    cell: &'m Cell,
    command: Option<&'m str>,
    matrix: &MatrixFile,
    embedded: &Chosen,
    texts: &mut Texts<'m>,
) -> impl Serialize + use<'m> {
    // The page finds a cell by its place on every axis, so each axis gets an index that exists; one
    // past the last value stands for a place that does not.
    let at: Vec<usize> = matrix
        .axes
        .iter()
        .enumerate()
        .map(|(axis, a)| {
            let value = cell.at.get(axis).and_then(|&v| usize::try_from(v).ok());
            value.filter(|&v| v < a.values.len()).unwrap_or(a.values.len())
        })
        .collect();
    let answer = match cell.answer {
        Answer::Pending => 0,
        Answer::Healthy => 1,
        Answer::Sick => 2,
        Answer::Flaky => 3,
        Answer::Error => 4,
    };
    let expected = cell.as_expected.map_or(-1, i32::from);
    let expect: Vec<&str> = cell.expect.iter().map(|v| v.name()).collect();
    let command = command.map_or(-1, |c| texts.number(c) as i64);
    let runs: Vec<_> = cell
        .runs
        .iter()
        .take(RUNS_OF_A_CELL)
        .enumerate()
        .map(|(r, run)| run_row(run, matrix, embedded.contains(&(number, r)), texts))
        .collect();
    let more = cell.runs.len().saturating_sub(RUNS_OF_A_CELL);
    let c = &cell.counts;
    let (low, high) = c.interval;
    let mark = mark(cell).text;
    (
        (at, answer, expected, c.healthy, c.sick, c.errors),
        (rounded(low), rounded(high), mark, expect, command),
        runs,
        more,
    )
}

/// Three places are enough for a bar.
fn rounded(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

/// A run as `[[repeat, attempt, folder, started], [verdict, reason, phase, signature, bug,
/// outcome], wall, decided, [phase, ms, ...], details]`.
fn run_row<'m>(
    run: &'m Run,
    matrix: &MatrixFile,
    details: bool,
    texts: &mut Texts<'m>,
) -> impl Serialize + use<'m> {
    let verdict = run.verdict.and_then(|v| VerdictKind::ALL.iter().position(|&w| w == v));
    let bug = run.bug.filter(|&b| usize::try_from(b).is_ok_and(|b| b < matrix.bugs.len()));
    let outcome = match outcome(run) {
        Outcome::Healthy => 0,
        Outcome::Sick => 1,
        Outcome::Undecided => 2,
        Outcome::Spoilt => 3,
    };
    let timeline: Vec<u64> = run
        .timeline
        .iter()
        .take(Phase::ALL.len() * 4)
        .flat_map(|&(phase, t)| [phase as u64, t])
        .collect();
    (
        (run.repeat, run.attempt, texts.number(&run.folder), texts.number(&run.started)),
        (
            verdict.map_or(-1, |v| v as i32),
            texts.number(&run.reason),
            run.phase as u8,
            texts.number(&run.signature),
            bug.map_or(-1, i64::from),
            outcome,
        ),
        run.wall_ms,
        run.decided_ms,
        timeline,
        u8::from(details),
    )
}

/// Facts for the head of the page, as one line.
pub(super) fn facts(matrix: &MatrixFile, wall_ms: u64) -> Vec<String> {
    let mut facts = vec![format!("{} of boots", duration(wall_ms))];
    if !matrix.started.is_empty() {
        let begun = DateTime::parse_from_rfc3339(&matrix.started).map_or_else(
            |_| field(&matrix.started),
            |t| t.to_utc().format("%Y-%m-%d %H:%M UTC").to_string(),
        );
        facts.push(format!("begun {begun}"));
    }
    if !matrix.host.cpu.is_empty() {
        facts.push(field(&matrix.host.cpu));
    }
    if !matrix.host.kernel.is_empty() {
        facts.push(format!("Linux {}", field(&matrix.host.kernel)));
    }
    if !matrix.kolumbo.is_empty() {
        facts.push(format!("kolumbo {}", field(&matrix.kolumbo)));
    }
    facts
}
