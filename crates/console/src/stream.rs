//! A console of any length in bounded memory.
//!
//! Decides which stretch of the input is worth reading: it looks for the literals of headlines and
//! boots in raw bytes and parses only around them, so that a healthy log costs one search. Keeps at
//! most a window of [`WINDOW`] bytes and the reports. Main type: [`ConsoleStream`].

use kolumbo_case::{Gap, Passage, Phase, ReadResult, Span};

use crate::boot::{BANNER, BootReader};
use crate::crash::{headline_at, name_crash};
use crate::listing::find_listings;
use crate::phase::phase_of;
use crate::report::{report_of, segment_end};
use crate::scan;
use crate::text::{Line, Text, line_of, split};

/// Bytes behind a headline that are read for one crash.
pub const WINDOW: usize = 512 * 1024;
/// Bytes before a headline that are kept: the lines of `cut here`, and what ran before.
const BEFORE: usize = 16 * 1024;
/// Bytes of one line that are looked at around a literal.
const MAX_LINE: usize = crate::lines::MAX_LINE;
/// Crashes that are read; more are counted.
pub const MAX_REPORTS: usize = 256;
/// Headlines that are looked at closely; what is no crash after all counts, too.
const MAX_ATTEMPTS: u32 = 4 * MAX_REPORTS as u32;
/// Boots that are kept: a reset loop has thousands that are alike.
const MAX_BOOTS: usize = 64;

/// Reads a console piece by piece.
#[derive(Debug)]
pub struct ConsoleStream {
    buffer: Vec<u8>,
    /// Offset of the first byte of `buffer`.
    offset: u64,
    /// Index in `buffer` up to which literals were looked for.
    scanned: usize,
    /// Offset up to which lines belong to a crash that was reported.
    done: u64,
    part: u32,
    first_only: bool,
    boot: Option<BootReader>,
    /// Offset up to which the open boot has taken lines.
    boot_at: u64,
    more_reports: u64,
    more_boots: u64,
    attempts: u32,
    result: ReadResult,
}

impl ConsoleStream {
    /// A stream whose spans name `part`. With `first_only` it stops looking behind the first crash.
    pub fn new(part: u32, first_only: bool) -> Self {
        ConsoleStream {
            buffer: Vec::new(),
            offset: 0,
            scanned: 0,
            done: 0,
            part,
            first_only,
            boot: None,
            boot_at: 0,
            more_reports: 0,
            more_boots: 0,
            attempts: 0,
            result: ReadResult::default(),
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(WINDOW) {
            self.buffer.extend_from_slice(piece);
            self.advance(false);
        }
    }

    /// The input is over.
    pub fn finish(mut self) -> ReadResult {
        self.advance(true);
        self.boot_lines(self.buffer.len(), true);
        self.close_boot();
        if self.more_reports > 0 {
            let what = format!(
                "{} more headlines were counted but not read, after the first {MAX_REPORTS} crashes",
                self.more_reports
            );
            self.result.gaps.push(Gap { what, span: None });
        }
        if self.more_boots > 0 {
            let what = format!("{} more boots follow the first {MAX_BOOTS}", self.more_boots);
            self.result.gaps.push(Gap { what, span: None });
        }
        self.result
    }

    /// Bytes that are kept at the moment.
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    fn advance(&mut self, over: bool) {
        let mut from = self.scanned;
        loop {
            let Some((group, at)) = scan::next(&self.buffer, from) else {
                // A literal may begin in the last bytes and end in the next piece.
                let end = self.buffer.len().saturating_sub(if over { 0 } else { scan::LONGEST });
                self.scanned = self.scanned.max(end).max(from.min(self.buffer.len()));
                break;
            };
            if !over && self.buffer.len() - at < WINDOW {
                // The crash may go on; come back when there is enough of it.
                self.scanned = at;
                break;
            }
            let line = self.line_start(at);
            let line_end = self.line_end(at);
            from = match group {
                scan::Found::Headline => self.headline(line, line_end),
                scan::Found::Boot => self.boot_mark(line, line_end),
            }
            .max(at + 1);
        }
        self.boot_lines(self.scanned, false);
        self.forget();
    }

    /// Drops what nobody will look at again.
    fn forget(&mut self) {
        let keep = self.scanned.saturating_sub(BEFORE);
        if keep >= WINDOW || keep > 0 && self.buffer.len() > 2 * WINDOW {
            self.buffer.drain(..keep);
            self.offset += keep as u64;
            self.scanned -= keep;
        }
    }

    fn line_start(&self, at: usize) -> usize {
        let low = at.saturating_sub(MAX_LINE);
        memchr::memrchr(b'\n', &self.buffer[low..at]).map_or(low, |n| low + n + 1)
    }

    fn line_end(&self, at: usize) -> usize {
        let high = self.buffer.len().min(at + MAX_LINE);
        memchr::memchr(b'\n', &self.buffer[at..high]).map_or(high, |n| at + n + 1)
    }

    /// Reads the crash whose headline is the given line; tells where to go on.
    fn headline(&mut self, start: usize, end: usize) -> usize {
        let offset = self.offset + start as u64;
        if offset < self.done || self.first_only && !self.result.reports.is_empty() {
            return end;
        }
        let line = line_of(&self.buffer[start..end], offset, false);
        let context = start.saturating_sub(BEFORE);
        let tired = self.attempts >= MAX_ATTEMPTS;
        let before = || if tired { Text::default() } else { self.lines(context, start) };
        if !headline_at(&line, before) {
            self.attempts = self
                .attempts
                .saturating_add(u32::from(line.text.starts_with(scan::DECOMPRESSOR_LITERAL)));
            return end;
        }
        if tired || self.result.reports.len() >= MAX_REPORTS {
            self.more_reports += 1;
            return end;
        }
        self.attempts += 1;
        let high = self.buffer.len().min(start + WINDOW);
        let text = self.lines(start, high);
        let Some(group) = crate::crash::group_of(&text.lines[0].text) else { return end };
        let Some(named) = name_crash(&text, 0, group) else { return end };
        let last = segment_end(&text, &named);
        let report = report_of(&text, named, last);
        self.done = text.lines.get(last.saturating_sub(1)).map_or(offset, |l| l.end);
        self.result.reports.push(report);
        end.max(usize::try_from(self.done.saturating_sub(self.offset)).unwrap_or(end).min(high))
    }

    fn lines(&self, from: usize, to: usize) -> Text {
        split(&self.buffer[from..to], self.offset + from as u64, self.part, false)
    }

    /// A line that proves something about a boot.
    fn boot_mark(&mut self, start: usize, end: usize) -> usize {
        let offset = self.offset + start as u64;
        let line = line_of(&self.buffer[start..end], offset, false);
        let is_banner = line.text.trim_start().starts_with(BANNER);
        let phase = phase_of(&line.text);
        if phase.is_none() && !is_banner {
            return end;
        }
        let starts = is_banner && self.boot.as_ref().is_some_and(BootReader::has_banner)
            || phase == Some(Phase::Decompressor)
                && self.boot.as_ref().is_some_and(BootReader::has_banner);
        if starts {
            self.boot_lines(start, true);
            self.close_boot();
        }
        let span = Span { start: offset, end: offset + (end - start) as u64, part: self.part };
        if self.boot.is_none() {
            self.boot = Some(BootReader::new(span, 0));
            self.boot_at = offset;
        }
        if self.boot.as_ref().is_some_and(BootReader::is_full)
            && let Some(boot) = &mut self.boot
        {
            boot.observe(&line, span);
        }
        end
    }

    /// Gives the open boot the lines up to `to`.
    fn boot_lines(&mut self, to: usize, over: bool) {
        let Some(boot) = &mut self.boot else { return };
        let from = usize::try_from(self.boot_at.saturating_sub(self.offset))
            .unwrap_or(0)
            .min(self.buffer.len());
        let to =
            if over { to } else { memchr::memrchr(b'\n', &self.buffer[..to]).map_or(0, |n| n + 1) };
        if to <= from {
            return;
        }
        self.boot_at = self.offset + to as u64;
        if !boot.is_full() {
            for line in
                split(&self.buffer[from..to], self.offset + from as u64, self.part, false).lines
            {
                let span = Span { start: line.start, end: line.end, part: self.part };
                boot.observe(&line, span);
            }
            return;
        }
        // The boot is long over: only its last line is of interest.
        let tail = to.saturating_sub(2048).max(from);
        let found: Option<Line> =
            split(&self.buffer[tail..to], self.offset + tail as u64, self.part, false)
                .lines
                .into_iter()
                .skip(usize::from(tail > from))
                .rfind(|l| !l.text.trim().is_empty());
        if let Some(line) = found {
            let span = Span { start: line.start, end: line.end, part: self.part };
            boot.last(Passage { text: line.text.trim().to_owned(), span });
        }
    }

    fn close_boot(&mut self) {
        let Some(facts) = self.boot.take().and_then(BootReader::finish) else { return };
        if self.result.boots.len() < MAX_BOOTS {
            self.result.boots.push(facts);
        } else {
            self.more_boots += 1;
        }
    }
}

/// Everything that a whole text says; for mails, whose parts are short.
pub(crate) fn read_text(text: &Text, first_only: bool, mail: bool) -> ReadResult {
    let mut result = ReadResult::default();
    let mut at = 0;
    let mut attempts = 0;
    while let Some((index, group)) = crate::crash::next_headline(text, at) {
        at = index + 1;
        attempts += 1;
        if first_only && !result.reports.is_empty() {
            break;
        }
        if result.reports.len() >= MAX_REPORTS || attempts > MAX_ATTEMPTS {
            let what = format!(
                "more headlines follow the first {} crashes and were not read",
                result.reports.len()
            );
            result.gaps.push(Gap { what, span: None });
            break;
        }
        let Some(named) = name_crash(text, index, group) else { continue };
        // Prose says "BUG:" and "WARNING:", too; in a mail a headline needs more than the word.
        if mail && !text.lines[index].marked && named.lines.len() < 3 && named.corrupted.is_some() {
            continue;
        }
        let last = segment_end(text, &named);
        at = last.max(at);
        result.reports.push(report_of(text, named, last));
    }
    let mut boot: Option<(u32, BootReader)> = None;
    for (n, line) in text.lines.iter().enumerate() {
        let span = text.span(n, n + 1);
        let is_banner = line.text.trim_start().starts_with(BANNER);
        let other_depth = boot
            .as_ref()
            .is_some_and(|(depth, _)| *depth != line.depth && !line.text.trim().is_empty());
        if is_banner || other_depth {
            result.boots.extend(boot.take().and_then(|(_, b)| b.finish()));
        }
        // A mail quotes lines of many boots; only a banner says that one is told from its beginning.
        let begins = is_banner || !mail && line.marked && phase_of(&line.text).is_some();
        if boot.is_none() && begins {
            boot = Some((line.depth, BootReader::new(span, line.depth)));
        }
        if let Some((_, reader)) = &mut boot
            && line.marked
        {
            reader.observe(line, span);
        }
    }
    result.boots.extend(boot.take().and_then(|(_, b)| b.finish()));
    result.boots.truncate(MAX_BOOTS);
    result.listings = find_listings(text);
    result
}
