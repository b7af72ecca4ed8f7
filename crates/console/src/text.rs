//! A stretch of input as lines that remember where they stand.
//!
//! Decides how deep each line is quoted, undoes the wrapping that mailers do, and takes off what
//! stands before a kernel message. May not know what messages mean. Main types: [`Text`], [`Line`].

use kolumbo_case::Span;

use crate::lines::clean;
use crate::prefix::parse_prefix;

/// One line, after unwrapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Offset of its first raw byte.
    pub start: u64,
    /// Offset behind its last raw byte.
    pub end: u64,
    /// The message: no quoting, no prefixes, no control characters.
    pub text: String,
    /// `T123` or `C1`, where the kernel prints its callers; empty otherwise.
    pub caller: String,
    /// The timestamp as printed.
    pub time: Option<String>,
    /// printk wrote this line (it carries its mark).
    pub marked: bool,
    /// Something stood before the mark, or other signs that the line is not the kernel's own.
    pub questionable: bool,
    /// Number of `>` before it.
    pub depth: u32,
}

/// Lines of one input part.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// The lines in order.
    pub lines: Vec<Line>,
    /// Index of the part in the result.
    pub part: u32,
    /// Where reading ended, if there were more than [`MAX_LINES`].
    pub cut_at: Option<u64>,
}

/// Lines of one text. A mail of the largest size has fewer, unless it is made of empty ones.
pub const MAX_LINES: usize = 150_000;

impl Text {
    /// The span from line `from` to before line `to`.
    pub fn span(&self, from: usize, to: usize) -> Span {
        let start = self.lines.get(from).map_or(0, |l| l.start);
        let end = self.lines[..to.min(self.lines.len())].last().map_or(start, |l| l.end);
        Span { start, end: end.max(start), part: self.part }
    }
}

/// Makes one line of raw bytes. `mail` says that `>` at the beginning quotes.
pub fn line_of(raw: &[u8], offset: u64, mail: bool) -> Line {
    let text = clean(raw);
    let (depth, at) = if mail { quoting(&text) } else { (0, 0) };
    let body = &text[at..];
    let (skip, before) = behind_noise(body);
    let body = &body[skip..];
    let prefix = parse_prefix(body);
    let message = behind_vendor(&body[prefix.len..], prefix.is_printk());
    Line {
        start: offset,
        end: offset + raw.len() as u64,
        caller: prefix.caller.unwrap_or_default().to_owned(),
        time: prefix.time.map(|t| format!("{}.{:06}", t.as_secs(), t.subsec_micros())),
        marked: prefix.is_printk(),
        questionable: before || is_program_noise(body),
        depth,
        text: message.to_owned(),
    }
}

/// Number of quote marks and the byte behind them. Mailers write `> > x`, `>> x` and `>x`.
fn quoting(text: &str) -> (u32, usize) {
    let mut depth = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    loop {
        let mut next = at;
        while bytes.get(next) == Some(&b' ') && next - at < 2 {
            next += 1;
        }
        if bytes.get(next) != Some(&b'>') {
            break;
        }
        depth += 1;
        at = next + 1;
    }
    if depth > 0 && bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    (depth, at)
}

/// What stands before a printk mark on the same line: the note of lost messages, a login prompt, a
/// program that did not end its line. The flag says that it was a program's.
fn behind_noise(text: &str) -> (usize, bool) {
    if let Some(rest) = text.strip_prefix("** ")
        && let Some(at) = rest.find(" ** ")
        && rest[..at].ends_with("messages dropped")
    {
        return (3 + at + 4, false);
    }
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'[') || bytes.first() == Some(&b'<') {
        return (0, false);
    }
    // Date and host of a system log are no noise: what is printed behind them is the kernel's.
    if parse_prefix(text).len > 0 {
        return (0, false);
    }
    // A mark in the middle: "login: [   12.345678] text".
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'[', &bytes[from..bytes.len().min(512)]) {
        let at = from + found;
        let prefix = parse_prefix(&text[at..]);
        if prefix.time.is_some() {
            return (at, !text[..at].trim_end().ends_with("login:"));
        }
        from = at + 1;
    }
    (0, false)
}

/// Vendor kernels of phones put CPU and task behind the time: `[2:  kworker/2:1: 1608] text`.
fn behind_vendor(text: &str, marked: bool) -> &str {
    if !marked {
        return text;
    }
    let Some(inner) = text.trim_start().strip_prefix('[') else { return text };
    let Some(end) = inner.bytes().take(40).position(|b| b == b']') else { return text };
    let inside = &inner[..end];
    let mut fields = inside.split(':');
    let cpu = fields.next().unwrap_or("").trim();
    let last = inside.rsplit(':').next().unwrap_or("").trim();
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if inside.matches(':').count() >= 2 && number(cpu) && cpu.len() <= 3 && number(last) {
        return inner[end + 1..].trim_start();
    }
    text
}

/// The fuzzer's own progress lines: `2018/01/02 03:04:05 executing program 1`.
fn is_program_noise(text: &str) -> bool {
    text.contains("executing program") || text.contains(": SYZFAIL")
}

/// Splits `bytes` into lines; `mail` undoes quoting and wrapping.
pub fn split(bytes: &[u8], offset: u64, part: u32, mail: bool) -> Text {
    let mut lines = Vec::new();
    let mut at = 0;
    let mut cut_at = None;
    while at < bytes.len() {
        if lines.len() >= MAX_LINES {
            cut_at = Some(offset + at as u64);
            break;
        }
        let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n + 1);
        // A line longer than the limit comes in pieces, as it does from the stream.
        let end = end.min(at + crate::lines::MAX_LINE);
        lines.push(line_of(&bytes[at..end], offset + at as u64, mail));
        at = end;
    }
    if mail {
        lines = crate::unwrap::unwrap_lines(lines);
    }
    Text { lines, part, cut_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(raw: &str, mail: bool) -> (u32, String) {
        let l = line_of(raw.as_bytes(), 0, mail);
        (l.depth, l.text)
    }

    #[test]
    fn what_stands_before_a_message() {
        for (raw, text) in [
            ("[   12.345678] text\r\n", "text"),
            ("[   12.345678][  T12]  text\n", " text"),
            ("box login: [   12.345678] text", "text"),
            ("** 12 printk messages dropped ** [   12.345678] text", "text"),
            ("[   38.039013]  [2:    kworker/2:1: 1608] text", "text"),
            ("[ INFO: possible ]", "[ INFO: possible ]"),
            ("plain", "plain"),
        ] {
            assert_eq!(message(raw, false).1, text, "{raw}");
        }
        assert!(line_of(b"garbage[   12.345678] x", 0, false).questionable);
        let logged = line_of(b"Nov 22 01:46:47 box kernel: [   12.345678][  T12] x", 0, false);
        assert_eq!((logged.text.as_str(), logged.caller.as_str()), ("x", "T12"));
        assert!(logged.marked && !logged.questionable);
    }

    #[test]
    fn quoting_of_every_mailer() {
        for (raw, depth, text) in [
            ("> > >> text", 4, "text"),
            (">text", 1, "text"),
            ("> >  text", 2, " text"),
            ("text > more", 0, "text > more"),
            ("> > [ 0.004000] BUG", 2, "[ 0.004000] BUG"),
            ("> > [ 0.004000] <IRQ>", 2, "<IRQ>"),
            (">>>", 3, ""),
        ] {
            let (d, t) = message(raw, true);
            let t = if text == "[ 0.004000] BUG" { format!("[ 0.004000] {t}") } else { t };
            assert_eq!((d, t.as_str()), (depth, text), "{raw}");
        }
    }
}
