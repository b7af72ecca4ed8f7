//! Console bytes for people: whole lines, without anything that a terminal would obey.

use kolumbo_console::LineReader;

/// Turns console bytes, fed in pieces, into clean lines.
#[derive(Default)]
pub(crate) struct Lines {
    reader: LineReader,
}

impl Lines {
    /// The lines that `bytes` complete, each with its newline.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> String {
        let mut text = String::new();
        self.reader.feed(bytes, |record| {
            text.push_str(&record.text);
            text.push('\n');
        });
        text
    }

    /// The last line, which had no end.
    pub(crate) fn finish(&mut self) -> String {
        match self.reader.finish() {
            Some(record) if !record.text.is_empty() => format!("{}\n", record.text),
            _ => String::new(),
        }
    }
}

/// Console bytes for a person who types: nothing waits for the end of a line, and of the control
/// characters only those that move within the line or to the next one get through.
#[derive(Default)]
pub(crate) struct Neutraliser {
    inside: Inside,
}

/// Where in an escape sequence (ECMA-48) the stream is.
#[derive(Default, Clone, Copy)]
enum Inside {
    #[default]
    Text,
    Escape,
    /// Behind `ESC [`, up to a byte from `@` on.
    Control,
}

impl Neutraliser {
    /// What of `bytes` may reach a terminal.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut safe = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.inside = match (self.inside, byte) {
                (_, 0x1b) => Inside::Escape,
                (Inside::Escape, b'[') => Inside::Control,
                (Inside::Escape, _) => Inside::Text,
                (Inside::Control, 0x20..0x40) => Inside::Control,
                (Inside::Control, 0x40..0x7f) => Inside::Text,
                (Inside::Text, b'\n' | b'\r' | b'\t' | 0x08 | 0x20..0x7f) => {
                    safe.push(byte);
                    Inside::Text
                }
                // Other control characters, and bytes from 0x80 on, which may be 8-bit ones.
                (Inside::Text | Inside::Control, _) => Inside::Text,
            };
        }
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_clean() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"ab"), "");
        assert_eq!(lines.feed(b"c\x1b[31m\r\nlogin: "), "abc\n");
        assert_eq!(lines.finish(), "login:\n");
        assert_eq!(lines.finish(), "");
    }

    #[test]
    fn no_escape_gets_through() {
        let mut neutraliser = Neutraliser::default();
        assert_eq!(neutraliser.feed(b"a\x1b[2Jb\x07\r\n\x1b[6"), b"ab\r\n");
        assert_eq!(neutraliser.feed(b"nc\x1bcd\x9b1m"), b"cd1m");
    }
}
