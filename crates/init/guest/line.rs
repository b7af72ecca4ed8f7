//! One line of the protocol: the mark, a word, one JSON object.
//!
//! Decides how text is escaped and what is left out when a line grows too long. Every line that
//! is said is valid JSON and has no byte below 0x20 inside.

use crate::channel;
use crate::words::{LINE_LIMIT, MARK};

/// Left free for the ends of strings and objects, numbers, and the mark of truncation.
const RESERVE: usize = 256;

/// Bytes go out in pieces of this size: a line is as long as it likes, the stack is not.
const PIECE: usize = 1024;

pub struct Line {
    piece: [u8; PIECE],
    /// Bytes in `piece`.
    filled: usize,
    /// Bytes of the line so far, those in `piece` included.
    length: usize,
    /// Nothing was written since the last `{`.
    first: bool,
    truncated: bool,
}

impl Line {
    /// Begins a line. There is never more than one at a time: its bytes go out as they come.
    pub fn new(word: &str) -> Line {
        let mut line =
            Line { piece: [0; PIECE], filled: 0, length: 0, first: true, truncated: false };
        line.push(MARK.as_bytes());
        line.push(b" ");
        line.push(word.as_bytes());
        line.push(b" {");
        line
    }

    pub fn number(&mut self, key: &str, value: u64) {
        if self.key(key.as_bytes()) {
            let mut digits = [0u8; 20];
            self.push(decimal(value, &mut digits));
        }
    }

    pub fn text(&mut self, key: &str, value: &[u8]) {
        self.text_bytes(key.as_bytes(), value);
    }

    pub fn text_bytes(&mut self, key: &[u8], value: &[u8]) {
        if self.key(key) {
            self.quoted(value);
        }
    }

    /// Writes an object under `key`, whose fields `fill` writes.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut Line)) {
        if self.key(key.as_bytes()) {
            self.push(b"{");
            self.first = true;
            fill(self);
            self.push(b"}");
            self.first = false;
        }
    }

    /// Ends the line.
    pub fn say(mut self) {
        if self.truncated {
            self.push(if self.first { b"\"truncated\":true" } else { b",\"truncated\":true" });
        }
        self.push(b"}\n");
        channel::write(&self.piece[..self.filled]);
    }

    /// Begins a field, or leaves it out when the line is full.
    fn key(&mut self, key: &[u8]) -> bool {
        if self.length + key.len() * 6 > LINE_LIMIT - RESERVE {
            self.truncated = true;
            return false;
        }
        if !self.first {
            self.push(b",");
        }
        self.first = false;
        self.quoted(key);
        self.push(b":");
        true
    }

    fn quoted(&mut self, text: &[u8]) {
        self.push(b"\"");
        for chunk in text.utf8_chunks() {
            for c in chunk.valid().chars() {
                self.escaped(c);
            }
            if !chunk.invalid().is_empty() {
                self.escaped(char::REPLACEMENT_CHARACTER);
            }
        }
        self.push(b"\"");
    }

    fn escaped(&mut self, c: char) {
        if self.length + 6 > LINE_LIMIT - RESERVE / 2 {
            self.truncated = true;
            return;
        }
        match c {
            '"' => self.push(b"\\\""),
            '\\' => self.push(b"\\\\"),
            '\n' => self.push(b"\\n"),
            '\t' => self.push(b"\\t"),
            // Line separators are line ends to some readers.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let c = c as usize;
                let digit = |shift: usize| HEX[c >> shift & 15];
                self.push(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            c => self.push(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.filled == PIECE {
                channel::write(&self.piece);
                self.filled = 0;
            }
            self.piece[self.filled] = byte;
            self.filled += 1;
        }
        self.length += bytes.len();
    }
}

/// The decimal digits of a number.
pub fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}
