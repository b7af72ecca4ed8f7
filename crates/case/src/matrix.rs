//! A table of boots, as `matrix.json`: axes, cells, what became of each run, and the conditions
//! that separate sick cells from healthy ones.
//!
//! Decides nothing: `lab` fills it, `report` renders it. Cells and axis values refer to each other
//! by index, so that a table of 100,000 cells stays small. Main type: [`MatrixFile`].

use serde::{Deserialize, Serialize};

use crate::file::{CaseState, HostFacts};
use crate::phase::Phase;
use crate::verdict::VerdictKind;

/// The version that this crate writes. Fields may be added within a version, never renamed.
pub const MATRIX_FORMAT_VERSION: u32 = 1;

/// One matrix with everything that is known of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MatrixFile {
    /// Format version, [`MATRIX_FORMAT_VERSION`].
    pub matrix_version: u32,
    /// Version of kolumbo that wrote it.
    pub kolumbo: String,
    /// What the user calls it; may be empty.
    pub title: String,
    /// When the matrix was begun, RFC 3339 in UTC.
    pub started: String,
    /// `done` when no cell waits for a run any more.
    pub state: CaseState,
    /// The axes, in the order in which they were given.
    pub axes: Vec<Axis>,
    /// The cells, in the order of the axes: the last axis changes fastest.
    pub cells: Vec<Cell>,
    /// Level of the confidence intervals, between 0 and 1, for example 0.95.
    pub confidence: f64,
    /// What went wrong, one entry for each kind of failure, the most frequent first.
    pub bugs: Vec<Bug>,
    /// Where any bug at all strikes, if fewer conditions say so than there are bugs: one cause may show as
    /// several.
    pub any_bug: Option<Place>,
    /// The machine that began the matrix.
    pub host: HostFacts,
    /// What could not be read or found out, in plain words.
    pub gaps: Vec<String>,
}

/// One condition that is varied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Axis {
    /// `kernel`, `smp`, `memory`, `append`, `cpu`, `machine`, `accel`, `initrd`, `module`, `exec`, or a free
    /// name.
    pub name: String,
    /// The values are numbers in rising order, so that "at least" means something.
    pub ordered: bool,
    /// The values.
    pub values: Vec<AxisValue>,
}

/// One value of an axis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AxisValue {
    /// Short name, unique on its axis.
    pub label: String,
    /// What stands behind the label: a path, words of a command line; equal to it for numbers.
    pub value: String,
    /// What was read from it, for example the compiler that built a kernel; may be empty.
    pub note: String,
}

/// One combination of values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cell {
    /// The labels joined by `/`, unique in the matrix.
    pub name: String,
    /// For each axis the index of the value.
    pub at: Vec<u32>,
    /// Verdicts that were expected; empty when a healthy boot is.
    pub expect: Vec<VerdictKind>,
    /// What the runs say together.
    pub answer: Answer,
    /// How many runs were sick or healthy.
    pub counts: Counts,
    /// Every run gave an expected verdict; none while there is no judged run.
    pub as_expected: Option<bool>,
    /// The command that boots this cell once more; one line that a person can paste.
    pub command: String,
    /// The runs that ended, in order of time.
    pub runs: Vec<Run>,
}

/// What the runs of a cell say together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// No run has ended.
    #[default]
    Pending,
    /// Every judged run was healthy.
    Healthy,
    /// Every judged run was sick.
    Sick,
    /// Some were sick and some healthy.
    Flaky,
    /// No run could be judged: kolumbo, QEMU or the host failed each time, or the evidence did not
    /// decide.
    Error,
}

impl Answer {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Answer::Pending => "pending",
            Answer::Healthy => "healthy",
            Answer::Sick => "sick",
            Answer::Flaky => "flaky",
            Answer::Error => "error",
        }
    }
}

/// Runs counted by what came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Runs with a healthy verdict.
    pub healthy: u32,
    /// Runs with a sick verdict.
    pub sick: u32,
    /// Attempts that kolumbo, QEMU or the host spoilt. They count for neither side.
    pub errors: u32,
    /// Wilson interval of the rate of sick runs at the matrix' confidence, from 0 to 1; (0, 1)
    /// where nothing was judged.
    pub interval: (f64, f64),
}

impl Counts {
    /// Runs that were judged.
    pub fn judged(&self) -> u32 {
        self.healthy + self.sick
    }
}

/// One run of a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Which repeat it was, from 1.
    pub repeat: u32,
    /// Which attempt at this repeat, from 1; more than 1 after failures of kolumbo's own.
    pub attempt: u32,
    /// The case folder, relative to the folder of the matrix.
    pub folder: String,
    /// When it started, RFC 3339 in UTC.
    pub started: String,
    /// The verdict; none when the attempt failed.
    pub verdict: Option<VerdictKind>,
    /// Why, in one sentence; for a failed attempt what failed.
    pub reason: String,
    /// How far the guest came.
    pub phase: Phase,
    /// What tells one bug from another: the title of the first crash, or the kind of hang with the
    /// function where CPUs stand. Empty for healthy runs.
    pub signature: String,
    /// Index into [`MatrixFile::bugs`], for sick runs.
    pub bug: Option<u32>,
    /// Wall time of the run in milliseconds.
    pub wall_ms: u64,
    /// When the verdict was reached, in milliseconds since the start of QEMU.
    pub decided_ms: u64,
    /// When each phase began, in milliseconds since the start of QEMU, in order.
    pub timeline: Vec<(Phase, u64)>,
}

/// One kind of failure and where it strikes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bug {
    /// The signature that its runs share.
    pub signature: String,
    /// The cells in which it was seen, by index, in order.
    pub cells: Vec<u32>,
    /// Sick runs with this signature, and judged runs in the cells where it was seen.
    pub struck: u32,
    /// See `struck`.
    pub judged: u32,
    /// Wilson interval of `struck` of `judged`.
    pub interval: (f64, f64),
    /// The smallest conditions under which it strikes; it strikes where any of them holds.
    pub conditions: Vec<Condition>,
    /// The conditions as one sentence.
    pub sentence: String,
    /// What the table leaves open, in plain words.
    pub open: Vec<String>,
}

/// Where something strikes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The smallest conditions; it strikes where any of them holds.
    pub conditions: Vec<Condition>,
    /// The conditions as one sentence.
    pub sentence: String,
}

/// A conjunction: every term holds. Without terms it always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// The terms, in the order of the axes.
    pub terms: Vec<Term>,
    /// The term in the field's words: "clang and smp ≥ 2 and safe-ret".
    pub text: String,
}

/// What one axis has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Index of the axis.
    pub axis: u32,
    /// How the axis is restricted.
    #[serde(flatten)]
    pub relation: Relation,
}

/// A restriction of an axis, by indices of its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "relation", rename_all = "kebab-case")]
pub enum Relation {
    /// One of these values (often just one).
    OneOf {
        /// Indices in rising order.
        values: Vec<u32>,
    },
    /// Any value but these.
    NoneOf {
        /// Indices in rising order.
        values: Vec<u32>,
    },
    /// An ordered axis: this value or a larger one.
    AtLeast {
        /// Index of the smallest value.
        value: u32,
    },
    /// An ordered axis: this value or a smaller one.
    AtMost {
        /// Index of the largest value.
        value: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_survives_json() {
        let terms = [
            Term { axis: 1, relation: Relation::AtLeast { value: 2 } },
            Term { axis: 0, relation: Relation::OneOf { values: vec![1, 3] } },
        ];
        for term in terms {
            let json = serde_json::to_string(&term).unwrap();
            assert_eq!(serde_json::from_str::<Term>(&json).unwrap(), term, "{json}");
        }
    }

    #[test]
    fn an_old_file_without_new_fields_is_read() {
        let file: MatrixFile = serde_json::from_str(r#"{"matrix_version":1,"axes":[]}"#).unwrap();
        assert_eq!((file.state, file.cells.len()), (CaseState::Running, 0));
    }
}
