//! What the monitor says, one line a message: `kolumbo-vmm/1 {JSON}`.
//!
//! Holds the messages and their total parser; both ends use it. Times are milliseconds since the
//! monitor started. A reader passes over messages and fields that it does not know. Main type:
//! [`Message`].

use kolumbo_case::VcpuRegisters;
use kolumbo_case::emulation::FormResult;
use serde::{Deserialize, Serialize};

/// Every line starts with this mark, which carries the version, and one space.
pub const MARK: &str = "kolumbo-vmm/1";
/// A line is never longer than this, the newline included.
pub const LINE_LIMIT: usize = 60 * 1024;
/// Console bytes in one message at most. A byte may take six characters of JSON.
pub const CONSOLE_CHUNK: usize = 8 * 1024;
/// CPUs of a guest at most, so that all of them fit one [`Message::Sample`].
pub const MOST_CPUS: u32 = 32;

/// One line of the monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Message {
    /// The guest is about to run.
    Hello {
        /// Version of the monitor.
        version: String,
        /// Virtual CPUs.
        smp: u32,
        /// How the kernel is entered: `pvh` or `bzimage`.
        entry: String,
    },
    /// Bytes of the first serial port.
    Console {
        /// When they were taken.
        t: u64,
        /// One character for each byte, U+0000 to U+00FF.
        text: String,
    },
    /// A line on the channel of kolumbo's init in this guest.
    Init {
        /// When it was complete.
        t: u64,
        /// The line.
        line: String,
    },
    /// The virtual CPUs, looked at while none of them ran.
    Sample {
        /// When.
        t: u64,
        /// The CPUs by number; missing are those that did not stop in time.
        cpus: Vec<Look>,
    },
    /// The guest said through pvpanic that it panicked.
    Panicked {
        /// When.
        t: u64,
    },
    /// The guest is over.
    End {
        /// When.
        t: u64,
        /// Why.
        how: End,
        /// Details in plain words; may be empty.
        reason: String,
    },
    /// The monitor itself failed; nothing follows.
    Trouble {
        /// What failed and what to do.
        text: String,
    },
    /// The results of the flags test ([`crate::flags`]).
    Flags {
        /// One entry for each instruction form.
        forms: Vec<FormResult>,
        /// Wall time of all of them.
        ms: u64,
    },
    /// A message of a later kolumbo.
    #[serde(other)]
    Unknown,
}

/// Why a guest is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The guest reset itself, by a port or by a triple fault.
    Reset,
    /// The guest switched itself off.
    PowerOff,
    /// The time limit.
    TimeLimit,
    /// KVM could not go on.
    InternalError,
}

/// One virtual CPU at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    /// Its registers, by the names of [`VcpuRegisters`], with `cpl`, `cs_base` and, in 64-bit code,
    /// `long_mode`.
    pub registers: VcpuRegisters,
    /// CPU time that its thread has used so far, in microseconds.
    pub ran_us: Option<u64>,
    /// Virtual address of the first byte of `code`.
    pub code_at: u64,
    /// Bytes around the instruction pointer as hexadecimal; empty where none could be read.
    pub code: String,
}

/// Why a line is not one of the monitor's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Something else was said.
    #[error("reading the monitor's channel: the line does not start with '{MARK}'")]
    NoMark,
    /// The mark is there, and what follows cannot be read.
    #[error("reading the monitor's channel: {reason}")]
    Unreadable {
        /// What the JSON reader said.
        reason: String,
    },
    /// The line is longer than any line of the monitor.
    #[error("reading the monitor's channel: a line of {length} bytes is longer than its longest")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// Reads one line, without its newline. Total: any text gives a message or an error.
///
/// # Errors
/// When the line is not one that the monitor says; it can be dropped and reading goes on.
pub fn parse_line(line: &str) -> Result<Message, LineError> {
    if line.len() > LINE_LIMIT {
        return Err(LineError::TooLong { length: line.len() });
    }
    let rest =
        line.strip_prefix(MARK).and_then(|r| r.strip_prefix(' ')).ok_or(LineError::NoMark)?;
    serde_json::from_str(rest).map_err(|e| LineError::Unreadable { reason: e.to_string() })
}

/// Writes one line, with its newline.
pub fn to_line(message: &Message) -> String {
    // Serialising these types cannot fail: no map has other keys than texts.
    let json = serde_json::to_string(message).unwrap_or_default();
    format!("{MARK} {json}\n")
}

/// Bytes as [`Message::Console`] carries them.
pub fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

/// The bytes of a [`Message::Console`]; characters that stand for none are left out.
pub fn bytes_of(text: &str) -> Vec<u8> {
    text.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// Hexadecimal digits as bytes, up to the first pair that is none.
pub fn bytes_of_hex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks_exact(2)
        .map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_the_channel() {
        let all = [
            Message::Hello { version: "0".into(), smp: 4, entry: "pvh".into() },
            Message::Console { t: 3, text: text_of(b"\x1b[0m\xff\n\0x") },
            Message::Sample {
                t: 9,
                cpus: vec![Look { ran_us: Some(7), code: "75f1".into(), ..Look::default() }],
            },
            Message::End { t: 10, how: End::Reset, reason: String::new() },
        ];
        for message in all {
            let line = to_line(&message);
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(parse_line(line.trim_end()), Ok(message));
        }
        assert_eq!(bytes_of(&text_of(b"\x1b\xff\0")), b"\x1b\xff\0");
        assert_eq!(bytes_of_hex("75f1zz"), [0x75, 0xf1]);
    }

    #[test]
    fn what_is_not_a_line_is_told_apart() {
        assert_eq!(parse_line("[    0.1] hello"), Err(LineError::NoMark));
        assert_eq!(parse_line("kolumbo-vmm/1 {\"say\":\"later\"}"), Ok(Message::Unknown));
        assert!(matches!(parse_line("kolumbo-vmm/1 {"), Err(LineError::Unreadable { .. })));
        assert!(matches!(parse_line(&"x".repeat(100_000)), Err(LineError::TooLong { .. })));
    }

    #[test]
    fn the_longest_messages_fit_a_line() {
        let console = Message::Console { t: u64::MAX, text: text_of(&[0; CONSOLE_CHUNK]) };
        assert!(to_line(&console).len() <= LINE_LIMIT);
        let registers = VcpuRegisters {
            cpu: 99,
            halted: false,
            values: (0..40).map(|_| ("long_mode".to_owned(), u64::MAX)).collect(),
        };
        let look =
            Look { registers, ran_us: Some(u64::MAX), code_at: u64::MAX, code: "00".repeat(126) };
        let sample = Message::Sample { t: u64::MAX, cpus: vec![look; MOST_CPUS as usize] };
        assert!(to_line(&sample).len() <= LINE_LIMIT);
    }

    proptest! {
        #[test]
        fn parsing_is_total(line in r#"(kolumbo-vmm/1 )?\{?.{0,80}\}?"#) {
            let _ = parse_line(&line);
        }
    }
}
