//! What `kolumbo explain` found out: decoded code, values, and whether the state can be.
//!
//! Names the parts; decides nothing. `detective` fills them, `report` shows them. The serialised form
//! is the schema of `kolumbo explain --json`, versioned by [`EXPLAIN_FORMAT_VERSION`]; addresses and
//! values are strings. The main type is [`Explanation`].

use serde::{Deserialize, Serialize};

use crate::crash::Gap;
use crate::finding::{Finding, FindingPlace};

/// The version of the schema. Fields may be added within a version, never renamed or removed.
pub const EXPLAIN_FORMAT_VERSION: u32 = 1;

/// Everything that was found out about one input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// [`EXPLAIN_FORMAT_VERSION`].
    pub explain_version: u32,
    /// The image that was used, in one line; none for a log alone.
    pub image: Option<String>,
    /// The dumps, in the order of the input.
    pub states: Vec<ExplainedState>,
    /// The contradictions of all dumps.
    pub findings: Vec<Finding>,
    /// What could not be read or judged.
    pub gaps: Vec<Gap>,
}

/// Which dump of a crash it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateRole {
    /// The state at the fault.
    #[default]
    Fault,
    /// Another CPU or task that was dumped with it.
    Other,
    /// The code that an exception inside the trace interrupted.
    Boundary,
}

/// One dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExplainedState {
    /// Title of the crash that it belongs to.
    pub title: String,
    /// Which dump of the crash.
    pub role: StateRole,
    /// Where.
    pub at: FindingPlace,
    /// CPU, task and kernel in one line, as far as the dump says.
    pub who: String,
    /// The CPU was in user mode: these registers belong to a program, not to the kernel.
    pub user_mode: bool,
    /// The code around the trap.
    pub code: Vec<DecodedLine>,
    /// Whether the state can follow from the code.
    pub consistency: ConsistencySummary,
    /// What the registers hold, where it is worth a word.
    pub values: Vec<ExplainedValue>,
    /// Where the value that matters came from, from the trap back.
    pub provenance: Vec<ProvenanceStep>,
    /// What the CPU waits for, when it was caught in a loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spin: Option<SpinWait>,
    /// The call trace, symbolised.
    pub frames: Vec<ExplainedFrame>,
}

/// One instruction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecodedLine {
    /// `function+0x1f`, or an absolute address.
    pub address: String,
    /// The bytes in hexadecimal.
    pub bytes: String,
    /// The instruction.
    pub text: String,
    /// The trapping instruction.
    pub trap: bool,
    /// Control runs from here straight into the trap, as far as the code tells.
    pub in_line: bool,
    /// Address of the memory operand, where the registers give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// What that address is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_is: Option<String>,
    /// Source lines, `file:line`, innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// The text of the innermost of them, where a source tree was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_text: Option<String>,
}

/// What the comparison of state and code came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateConclusion {
    /// The code says nothing about any register or flag.
    #[default]
    Undecided,
    /// What the code says is what the dump shows.
    Agrees,
    /// They differ, and control coming in from elsewhere would explain it.
    Doubtful,
    /// They differ.
    Contradicts,
}

/// Whether the state can follow from the code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsistencySummary {
    /// What it came to.
    pub conclusion: StateConclusion,
    /// Instructions that were evaluated.
    pub steps: u32,
    /// The first of them.
    pub from: String,
    /// Why not earlier.
    pub from_reason: String,
    /// Registers and flags that the code determines, in the dump's order.
    pub determined: Vec<String>,
    /// Those of them that hold whoever jumps into the code.
    pub firmly: Vec<String>,
    /// Differences that control from elsewhere would explain.
    pub doubts: Vec<String>,
}

/// What a value is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExplainedValue {
    /// `RCX`, `CR2`, or `[RSP+0x8]`.
    pub name: String,
    /// `0xadecc9cc04e2ca00`.
    pub value: String,
    /// Stable name of the kind: `stack-canary`, `list-poison`, `user-pointer`, ...
    pub kind: String,
    /// In words.
    pub meaning: String,
}

/// One link of the chain back from a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvenanceStep {
    /// Where.
    pub address: String,
    /// The instruction.
    pub instruction: String,
    /// What it did.
    pub effect: String,
}

/// A CPU caught in a loop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpinWait {
    /// First and last instruction of the loop.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// The condition that ends it, in words.
    pub until: String,
    /// The instruction that looks.
    pub looks_at: String,
    /// The instruction that leaves the loop.
    pub ended_by: String,
    /// Who would have to change what it looks at.
    pub waits_for: String,
}

/// One frame of the trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExplainedFrame {
    /// As the dump has it: `function+0x1f/0x60 [module]`.
    pub text: String,
    /// False for `?` frames.
    pub reliable: bool,
    /// Functions and `file:line`, inlined ones first, where an image tells.
    pub source: Vec<String>,
    /// The code before the return address, with `--all-frames`.
    pub code: Vec<DecodedLine>,
}
