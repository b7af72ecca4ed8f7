//! What was seen of calls in a running guest, as `kolumbo prove --json` prints it.
//!
//! Names the parts; decides nothing. `lab` watches, `detective` judges, `report` renders. Addresses and values
//! are strings, since JSON numbers lose their low bits. The schema is versioned by
//! [`PROOF_FORMAT_VERSION`]. Main type: [`ProofFile`].

use serde::{Deserialize, Serialize};

/// The version that this crate writes. Fields may be added within a version, never renamed.
pub const PROOF_FORMAT_VERSION: u32 = 1;

/// What became of the attempt to prove a finding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// No call was seen from its beginning to its end: nothing is known.
    #[default]
    NotSeen,
    /// Calls were seen, and what the caller relies on came back each time.
    NotConfirmed,
    /// At least once it did not come back.
    Confirmed,
}

impl Conclusion {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Conclusion::NotSeen => "not-seen",
            Conclusion::NotConfirmed => "not-confirmed",
            Conclusion::Confirmed => "confirmed",
        }
    }
}

/// One proof.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProofFile {
    /// Format version, [`PROOF_FORMAT_VERSION`].
    pub prove_version: u32,
    /// Version of kolumbo that wrote it.
    pub kolumbo: String,
    /// When it was begun, RFC 3339 in UTC.
    pub started: String,
    /// The finding, in one line.
    pub finding: String,
    /// The image that was booted.
    pub kernel: String,
    /// What became of it.
    pub conclusion: Conclusion,
    /// The conclusion with its numbers, in one sentence.
    pub summary: String,
    /// The calls that were watched.
    pub watched: Vec<WatchedCall>,
    /// Calls that were seen from beginning to end.
    pub seen: u32,
    /// Of these, calls behind which something that the caller relies on was not what it had been.
    pub broken: u32,
    /// Some of the calls that were seen: the first broken one of each place, else the first one.
    pub samples: Vec<CallSample>,
    /// How the watch ended, in one sentence.
    pub ended: String,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// What could not be read or found out.
    pub gaps: Vec<String>,
}

/// A call that is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchedCall {
    /// `irq_work_tick+0x5c`.
    pub place: String,
    /// Its address.
    pub address: String,
    /// The instruction, AT&T syntax.
    pub instruction: String,
    /// Register parts that the caller relies on.
    pub relies: Vec<String>,
    /// How often it was seen from beginning to end.
    pub seen: u32,
    /// How often something relied on was lost.
    pub broken: u32,
}

/// A call that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallSample {
    /// Which of the watched calls, from 0.
    pub call: usize,
    /// On which CPU.
    pub cpu: u32,
    /// The function that it reached, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee: Option<String>,
    /// The registers that the caller relies on.
    pub relied: Vec<RegisterPair>,
    /// Other registers that changed.
    pub changed: Vec<RegisterPair>,
}

/// A register before and after a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegisterPair {
    /// `rcx`, `cl`.
    pub register: String,
    /// Its value before the call.
    pub before: String,
    /// Its value behind it.
    pub after: String,
    /// They are equal.
    pub kept: bool,
    /// Stable name of the kind of value that it holds then, such as `stack-canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_kind: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_is: Option<String>,
}
