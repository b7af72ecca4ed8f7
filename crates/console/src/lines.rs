//! A stream of console bytes to lines.
//!
//! Decides where a line ends and what of it is text; knows terminals (escape sequences, CR, NUL) but
//! not what a line says. Memory is bounded by [`MAX_LINE`]: a longer line comes out in pieces. Main
//! type: [`LineReader`].

use kolumbo_case::ConsoleRecord;

use crate::prefix::parse_prefix;

/// Raw bytes of a line that one record may hold. printk itself ends a line at 1 KiB
/// (`LOG_LINE_MAX`, kernel/printk/printk.c, v3.5 and later); what is longer comes from user space.
pub const MAX_LINE: usize = 8192;

/// Splits bytes, fed in pieces of any size, into records.
#[derive(Debug, Clone, Default)]
pub struct LineReader {
    /// Raw bytes of the line that has not ended.
    pending: Vec<u8>,
    /// Offset of the first byte of `pending`.
    offset: u64,
    /// `pending` continues a line whose beginning has been handed out.
    continues: bool,
}

impl LineReader {
    /// A reader at offset 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader whose first byte has the given offset.
    pub fn at(offset: u64) -> Self {
        LineReader { offset, ..Self::default() }
    }

    /// Takes more bytes; calls `sink` once for each line that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut sink: impl FnMut(ConsoleRecord)) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            match memchr::memchr(b'\n', window) {
                Some(end) => {
                    self.pending.extend_from_slice(&bytes[..=end]);
                    bytes = &bytes[end + 1..];
                    sink(self.take());
                    self.continues = false;
                }
                None => {
                    let taken = window.len();
                    self.pending.extend_from_slice(window);
                    bytes = &bytes[taken..];
                    if self.pending.len() == MAX_LINE {
                        sink(self.take());
                        self.continues = true;
                    }
                }
            }
        }
    }

    /// The line that has begun and not ended, as it stands: a prompt, or half a message of a
    /// kernel that stopped. None where no byte of it has come.
    pub fn partial(&self) -> Option<ConsoleRecord> {
        (!self.pending.is_empty()).then(|| record(&self.pending, self.offset, self.continues))
    }

    /// Hands out the last line, which has no line end.
    pub fn finish(&mut self) -> Option<ConsoleRecord> {
        if self.pending.is_empty() {
            return None;
        }
        let last = self.take();
        self.continues = false;
        Some(last)
    }

    /// Offset behind the last byte that was fed.
    pub fn offset(&self) -> u64 {
        self.offset + self.pending.len() as u64
    }

    fn take(&mut self) -> ConsoleRecord {
        let line = record(&self.pending, self.offset, self.continues);
        self.offset += self.pending.len() as u64;
        self.pending.clear();
        line
    }
}

/// One raw line, with or without its line end, as a record.
pub fn record(raw: &[u8], offset: u64, continues: bool) -> ConsoleRecord {
    let text = clean(raw);
    let prefix = if continues { Default::default() } else { parse_prefix(&text) };
    ConsoleRecord {
        offset,
        len: raw.len() as u64,
        message_at: prefix.len,
        time: prefix.time,
        caller: prefix.caller.map(str::to_owned),
        level: prefix.level,
        continues,
        text,
    }
}

/// The printable text of raw console bytes: no escape sequences, no control characters, tabs as
/// blanks, U+FFFD for what is not UTF-8, no blanks at the end.
pub fn clean(raw: &[u8]) -> String {
    let printable = |b: &u8| (0x20..0x7f).contains(b);
    let end = raw.iter().rposition(|b| !matches!(b, b'\n' | b'\r' | b' ' | 0)).map_or(0, |i| i + 1);
    let raw = &raw[..end];
    if raw.iter().all(printable) {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let mut kept = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&b, tail)) = rest.split_first() {
        rest = match b {
            0x1b => &tail[escape_len(tail)..],
            b'\t' => {
                kept.push(b' ');
                tail
            }
            0..0x20 | 0x7f => tail,
            _ => {
                kept.push(b);
                tail
            }
        };
    }
    let mut text = String::from_utf8_lossy(&kept).into_owned();
    if !text.is_ascii() {
        text.retain(|c| !c.is_control());
    }
    text.truncate(text.trim_end().len());
    text
}

/// Length of the escape sequence whose ESC stands before `tail` (ECMA-48, sections 5.3 to 5.6).
/// A sequence that never ends takes what is left of the line but no more than 256 bytes, so that a
/// stray ESC cannot hide a headline behind it for long.
fn escape_len(tail: &[u8]) -> usize {
    let limit = tail.len().min(256);
    let Some(&first) = tail.first() else { return 0 };
    match first {
        b'[' => {
            let body = tail[1..limit].iter().take_while(|b| (0x20..0x40).contains(*b)).count();
            let end = 1 + body;
            // The final byte belongs to the sequence only when it is one.
            end + usize::from(tail.get(end).is_some_and(|b| (0x40..0x7f).contains(b)))
        }
        b']' | b'P' | b'X' | b'^' | b'_' => {
            match tail[..limit].iter().position(|&b| b == 0x07 || b == 0x1b) {
                Some(i) if tail[i] == 0x07 => i + 1,
                Some(i) => i + 1 + usize::from(tail.get(i + 1) == Some(&b'\\')),
                None => 1,
            }
        }
        0x20..=0x2f => {
            let middle = tail[..limit].iter().take_while(|b| (0x20..0x30).contains(*b)).count();
            middle + usize::from(tail.get(middle).is_some_and(|b| (0x30..0x7f).contains(b)))
        }
        0x30..=0x7e => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<ConsoleRecord> {
        let mut reader = LineReader::new();
        let mut out = Vec::new();
        for piece in pieces {
            reader.feed(piece, |r| out.push(r));
        }
        out.extend(reader.finish());
        out
    }

    #[test]
    fn terminals_leave_no_trace() {
        for (raw, text) in [
            (&b"a\x1b[1;31mred\x1b[0m b\r\r\n"[..], "ared b"),
            (b"\x1b]0;title\x07x", "x"),
            (b"\x1b]0;title\x1b\\x", "x"),
            (b"\x1bc\x1b[?7l\x1b[2J\0\0SeaBIOS", "SeaBIOS"),
            (b"\x1b(Bx", "x"),
            (b"tab\there", "tab here"),
            (b"bell\x07 \x08del\x7f", "bell del"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("é\u{85}".as_bytes(), "é"),
            (b"\x1b", ""),
            (b"\x1b[", ""),
            (b"x   \r\n", "x"),
        ] {
            assert_eq!(clean(raw), text, "{raw:?}");
        }
    }

    #[test]
    fn half_lines_wait() {
        let mut reader = LineReader::new();
        let mut out = Vec::new();
        reader.feed(b"[    1.000000] one\r\n[    2.0", |r| out.push(r));
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].offset, out[0].len, out[0].message()), (0, 20, "one"));
        assert_eq!(reader.partial().unwrap().text, "[    2.0");
        reader.feed(b"00000] two", |r| out.push(r));
        assert_eq!(out.len(), 1);
        assert_eq!(reader.partial().unwrap().message(), "two");
        assert_eq!(reader.finish().unwrap().offset, 20);
        assert!(reader.partial().is_none());
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let long = vec![b'x'; MAX_LINE * 3 + 5];
        let out = lines_of(&[&long, b"\nnext\n"]);
        assert_eq!(out.len(), 5);
        assert!(!out[0].continues && out[3].continues && !out[4].continues);
        assert_eq!(out[4].offset, long.len() as u64 + 1);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
            let cut = cut.min(bytes.len());
            let whole = lines_of(&[&bytes]);
            prop_assert_eq!(&whole, &lines_of(&[&bytes[..cut], &bytes[cut..]]));
            prop_assert_eq!(whole.iter().map(|r| r.len).sum::<u64>(), bytes.len() as u64);
            for r in &whole {
                prop_assert!(!r.text.chars().any(char::is_control));
            }
        }
    }
}
