//! `journalctl -o json` to console bytes.
//!
//! Decides what each entry's line would look like on a console: timestamp and message. Entries of
//! programs are kept without a timestamp, so that they read as what they are. Main type:
//! [`JournalReader`].

use serde::Deserialize;

/// Bytes of one entry; a longer one is dropped and counted.
const MAX_ENTRY: usize = 1024 * 1024;

/// Makes lines of entries.
#[derive(Debug, Default)]
pub(crate) struct JournalReader {
    pending: Vec<u8>,
    /// The entry that is being skipped is too long.
    skipping: bool,
    /// Entries that could not be read.
    pub damaged: u64,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
    #[serde(rename = "_SOURCE_MONOTONIC_TIMESTAMP")]
    source: Option<String>,
    #[serde(rename = "__MONOTONIC_TIMESTAMP")]
    monotonic: Option<String>,
    #[serde(rename = "_TRANSPORT")]
    transport: Option<String>,
    #[serde(rename = "PRIORITY")]
    priority: Option<String>,
}

/// A message is text, or a list of bytes where it is not UTF-8.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
    Other(serde::de::IgnoredAny),
}

/// The first bytes look like a journal in JSON.
pub(crate) fn is_journal(head: &[u8]) -> bool {
    let head = &head[..head.len().min(16 * 1024)];
    let line = head.split(|&b| b == b'\n').next().unwrap_or(head);
    line.trim_ascii_start().starts_with(b"{")
        && memchr::memmem::find(head, b"\"MESSAGE\"").is_some()
}

impl JournalReader {
    /// Takes bytes; hands out console bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.keep(&bytes[..end]);
            self.entry(sink);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The last entry has no line end.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.entry(sink);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.pending.len() + bytes.len() > MAX_ENTRY {
            self.skipping = true;
            self.pending.clear();
        }
        if !self.skipping {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn entry(&mut self, sink: &mut impl FnMut(&[u8])) {
        let skipped = std::mem::take(&mut self.skipping);
        let raw = std::mem::take(&mut self.pending);
        if skipped {
            self.damaged += 1;
            return;
        }
        if raw.trim_ascii().is_empty() {
            return;
        }
        let Ok(entry) = serde_json::from_slice::<Entry>(&raw) else {
            self.damaged += 1;
            return;
        };
        let text = match entry.message {
            Some(Message::Text(text)) => text.into_bytes(),
            Some(Message::Bytes(bytes)) => bytes,
            Some(Message::Other(_)) | None => return,
        };
        let kernel = entry.transport.as_deref().is_none_or(|t| t == "kernel");
        let micros = entry.source.or(entry.monotonic).and_then(|t| t.parse::<u64>().ok());
        for line in text.split(|&b| b == b'\n') {
            let mut out = Vec::with_capacity(line.len() + 32);
            if kernel {
                let micros = micros.unwrap_or(0);
                if let Some(level) = entry.priority.as_deref().filter(|p| p.len() == 1) {
                    out.extend_from_slice(format!("<{level}>").as_bytes());
                }
                out.extend_from_slice(
                    format!("[{:5}.{:06}] ", micros / 1_000_000, micros % 1_000_000).as_bytes(),
                );
            }
            out.extend_from_slice(line);
            out.push(b'\n');
            sink(&out);
        }
    }
}
