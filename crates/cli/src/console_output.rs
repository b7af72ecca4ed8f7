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
pub(crate) fn neutralised(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .map(|&b| match b {
            b'\n' | b'\r' | b'\t' | 0x08 | 0x20..0x7f => b,
            // Bytes from 0x80 on may be 8-bit control characters.
            _ => b'.',
        })
        .collect()
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
        assert_eq!(neutralised(b"a\x1b[2Jb\x07\r\n"), b"a.[2Jb.\r\n");
    }
}
