//! What the reports of a matrix have in common: marks, rates, durations, and guest text made
//! harmless.
//!
//! Decides how an answer is named in a few letters. It may not know where the words will stand.
//! Main types: [`Mark`] and [`Outcome`].

use std::borrow::Cow;
use std::fmt::Write;

use kolumbo_case::VerdictKind;
use kolumbo_case::matrix::{Answer, Bug, Cell, MatrixFile, Run};

/// What one run says about the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The guest did what it should.
    Healthy,
    /// The guest did not.
    Sick,
    /// The guest ran, and the evidence does not decide.
    Undecided,
    /// kolumbo, QEMU or the host failed.
    Spoilt,
}

/// What `run` says about the guest. Splats that the user allows leave a run without a signature,
/// so that it counts as healthy.
pub fn outcome(run: &Run) -> Outcome {
    let named = run.bug.is_some() || !run.signature.is_empty();
    match run.verdict {
        None => Outcome::Spoilt,
        Some(VerdictKind::Booted) if run.bug.is_none() => Outcome::Healthy,
        Some(_) if named => Outcome::Sick,
        Some(VerdictKind::BootedWithSplats) => Outcome::Healthy,
        Some(VerdictKind::Slow | VerdictKind::CannotTell) => Outcome::Undecided,
        Some(_) => Outcome::Sick,
    }
}

/// A verdict in at most seven letters.
pub(crate) fn short(verdict: VerdictKind) -> &'static str {
    match verdict {
        VerdictKind::Booted => "ok",
        VerdictKind::BootedWithSplats => "SPLAT",
        VerdictKind::Panicked => "PANIC",
        VerdictKind::OopsedStuck => "OOPS",
        VerdictKind::HungBoot => "HUNG",
        VerdictKind::HungUserspace => "HUNG-US",
        VerdictKind::HungShutdown => "HUNG-SD",
        VerdictKind::Reset => "RESET",
        VerdictKind::ResetLoop => "LOOP",
        VerdictKind::Silent => "SILENT",
        VerdictKind::InitFailed => "NOINIT",
        VerdictKind::NotBootable => "NOBOOT",
        VerdictKind::ConsoleFlood => "FLOOD",
        VerdictKind::Slow => "slow",
        VerdictKind::CannotTell => "unsure",
    }
}

/// A cell in a few letters that mean the same without colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// `ok`, `HUNG`, `flaky 3/10`, `err`, `..` and the like.
    pub text: String,
    /// The bugs of its runs as letters, `A` for the first; empty without any.
    pub bugs: String,
    /// The cell was judged, and not as the user expected.
    pub unexpected: bool,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = self.text.clone();
        if !self.bugs.is_empty() {
            let _ = write!(all, " {}", self.bugs);
        }
        if self.unexpected {
            all.push('!');
        }
        f.pad(&all)
    }
}

/// Letters of different bugs that a mark has room for.
const LETTERS: usize = 3;

/// The mark of `cell`.
pub fn mark(cell: &Cell) -> Mark {
    let text = match cell.answer {
        Answer::Pending => "..".to_owned(),
        Answer::Healthy => "ok".to_owned(),
        Answer::Sick => worst(cell).map_or("SICK", short).to_owned(),
        Answer::Flaky => format!("flaky {}/{}", cell.counts.sick, cell.counts.judged()),
        Answer::Error => "err".to_owned(),
    };
    let mut bugs: Vec<u32> = cell.runs.iter().filter_map(|r| r.bug).collect();
    bugs.sort_unstable();
    bugs.dedup();
    let mut letters = bugs.iter().take(LETTERS).map(|&b| letter(b)).collect::<Vec<_>>().join(",");
    if bugs.len() > LETTERS {
        letters.push('+');
    }
    Mark { text, bugs: letters, unexpected: cell.as_expected == Some(false) }
}

/// The verdict that most sick runs of the cell share; of equals the one that came first.
pub(crate) fn worst(cell: &Cell) -> Option<VerdictKind> {
    let mut counts: Vec<(VerdictKind, usize)> = Vec::new();
    for run in cell.runs.iter().filter(|r| outcome(r) == Outcome::Sick) {
        let Some(verdict) = run.verdict else { continue };
        match counts.iter_mut().find(|(v, _)| *v == verdict) {
            Some((_, n)) => *n += 1,
            None => counts.push((verdict, 1)),
        }
    }
    let most = counts.iter().map(|&(_, n)| n).max()?;
    counts.iter().find(|&&(_, n)| n == most).map(|&(v, _)| v)
}

/// `A` to `Z`, then `AA` and so on.
pub(crate) fn letter(bug: u32) -> String {
    let mut n = u64::from(bug) + 1;
    let mut letters = Vec::new();
    while n > 0 {
        n -= 1;
        letters.push(char::from(b'A' + u8::try_from(n % 26).unwrap_or(0)));
        n /= 26;
    }
    letters.iter().rev().collect()
}

/// The labels of a cell, one for each axis; `?` where the file names a value that is not there.
pub fn labels<'m>(matrix: &'m MatrixFile, cell: &Cell) -> Vec<&'m str> {
    matrix.axes.iter().enumerate().map(|(axis, _)| label(matrix, cell, axis)).collect()
}

/// The label of a cell on one axis.
pub(crate) fn label<'m>(matrix: &'m MatrixFile, cell: &Cell, axis: usize) -> &'m str {
    let value = cell.at.get(axis).and_then(|&v| usize::try_from(v).ok());
    value.and_then(|v| matrix.axes.get(axis)?.values.get(v)).map_or("?", |v| v.label.as_str())
}

/// Where any of several bugs strikes, if that takes fewer words than each of them.
pub(crate) fn anywhere(matrix: &MatrixFile) -> Option<String> {
    matrix.any_bug.as_ref().map(|place| visible(&place.sentence).into_owned())
}

/// What is known about where a bug strikes, as one sentence.
pub(crate) fn sentence(bug: &Bug) -> String {
    if !bug.sentence.is_empty() {
        return visible(&bug.sentence).into_owned();
    }
    let texts: Vec<&str> =
        bug.conditions.iter().map(|c| c.text.as_str()).filter(|t| !t.is_empty()).collect();
    match texts.as_slice() {
        [] => String::new(),
        texts => format!("sick when: {}", visible(&texts.join("; or "))),
    }
}

/// How often a bug strikes where it was seen: "always: 12 of 12 runs", or a rate with its interval.
pub(crate) fn strikes(bug: &Bug, confidence: f64) -> String {
    let cells = plural(bug.cells.len(), "cell");
    let runs = plural(bug.judged as usize, "run");
    if bug.struck >= bug.judged {
        return format!("{} of {runs} in {cells}", bug.struck);
    }
    format!(
        "{} of {runs} in {cells}: {} ({} to {} at {} confidence)",
        bug.struck,
        percent(f64::from(bug.struck) / f64::from(bug.judged.max(1))),
        percent(bug.interval.0),
        percent(bug.interval.1),
        percent(confidence),
    )
}

/// "1 cell", "2 cells".
pub(crate) fn plural(n: usize, word: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {word}{s}")
}

/// A rate as a percentage. What is not quite everything is never rounded up to it, nor down to
/// nothing.
pub(crate) fn percent(rate: f64) -> String {
    if !rate.is_finite() {
        return "?%".to_owned();
    }
    let rounded = (rate * 100.0).clamp(0.0, 100.0).round();
    if rounded <= 0.0 && rate > 0.0 {
        "<1%".to_owned()
    } else if rounded >= 100.0 && rate < 1.0 {
        ">99%".to_owned()
    } else {
        format!("{rounded:.0}%")
    }
}

/// Milliseconds for a person: `830 ms`, `12.3 s`, `4 min 05 s`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        100_000..7_200_000 => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {:02} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Cells and runs counted by what came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) cells: usize,
    pub(crate) healthy: usize,
    pub(crate) sick: usize,
    pub(crate) flaky: usize,
    pub(crate) errors: usize,
    pub(crate) pending: usize,
    pub(crate) unexpected: usize,
    pub(crate) runs: usize,
    pub(crate) wall_ms: u64,
}

impl Totals {
    pub(crate) fn of(matrix: &MatrixFile) -> Totals {
        let mut totals = Totals { cells: matrix.cells.len(), ..Totals::default() };
        for cell in &matrix.cells {
            match cell.answer {
                Answer::Pending => totals.pending += 1,
                Answer::Healthy => totals.healthy += 1,
                Answer::Sick => totals.sick += 1,
                Answer::Flaky => totals.flaky += 1,
                Answer::Error => totals.errors += 1,
            }
            totals.unexpected += usize::from(cell.as_expected == Some(false));
            totals.runs += cell.runs.len();
            let wall: u64 = cell.runs.iter().fold(0, |sum, r| r.wall_ms.saturating_add(sum));
            totals.wall_ms = totals.wall_ms.saturating_add(wall);
        }
        totals
    }
}

/// `text` with everything that a terminal, a browser or a parser could act on made visible:
/// control characters as `cat -v` shows them (`^[` for ESC), marks that change the direction of text as `<U+202E>`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_visible(&mut out, c);
    }
    Cow::Owned(out)
}

/// As [`visible`], for text of many lines: line ends and tabs stay.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) && c != '\n' && c != '\t') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |l| (l, "\n"));
        let line = line.trim_end_matches('\r');
        for (number, part) in line.split('\t').enumerate() {
            if number > 0 {
                out.push('\t');
            }
            out.push_str(&visible(part));
        }
        out.push_str(end);
    }
    Cow::Owned(out)
}

/// Bytes of a console as text, as [`visible_lines`]; bytes that are not UTF-8 as `<AB>`.
pub(crate) fn visible_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(&visible_lines(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "<{byte:02X}>");
        }
    }
    out
}

/// Controls of C0 and C1, what sets the direction of text, separators that end a line in
/// JavaScript, invisible characters, and what XML cannot hold.
fn acts(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
        | '\u{e0000}'..='\u{e007f}')
}

fn push_visible(out: &mut String, c: char) {
    match c {
        '\0'..='\u{1f}' | '\u{7f}' => {
            out.push('^');
            out.push(char::from(u8::try_from(u32::from(c)).unwrap_or(0) ^ 0x40));
        }
        c if acts(c) => {
            let _ = write!(out, "<U+{:04X}>", u32::from(c));
        }
        c => out.push(c),
    }
}

/// At most `most` characters of `text`, with `...` where more followed.
pub(crate) fn clipped(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let end = text.char_indices().nth(most.saturating_sub(3)).map_or(0, |(i, _)| i);
            Cow::Owned(format!("{}...", &text[..end]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_is_left() {
        let hostile = "a\0b\x1b[31m\u{202e}txt\u{2028}\r\n\t\u{7f}\u{9b}\u{ffff}";
        assert_eq!(
            visible(hostile),
            "a^@b^[[31m<U+202E>txt<U+2028>^M^J^I^?<U+009B><U+FFFF>",
            "{hostile:?}"
        );
        assert_eq!(visible_bytes(b"one\r\ntwo\r\r\n\xff\x1bc"), "one\ntwo\n<FF>^[c");
        assert!(matches!(visible("schön ≥ 2"), Cow::Borrowed(_)));
    }

    #[test]
    fn bugs_are_lettered_like_the_columns_of_a_sheet() {
        let letters: Vec<String> = [0, 25, 26, 51, 52, 701, 702].map(letter).into();
        assert_eq!(letters, ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
    }

    #[test]
    fn almost_all_is_not_all() {
        let texts: Vec<String> = [0.0, 0.001, 0.3, 0.9999, 1.0, f64::NAN].map(percent).into();
        assert_eq!(texts, ["0%", "<1%", "30%", ">99%", "100%", "?%"]);
    }

    #[test]
    fn text_is_clipped_between_characters() {
        assert_eq!(clipped("ääääää", 5), "ää...");
        assert_eq!(clipped("ääääää", 6), "ääääää");
    }
}
