//! One run of a case, as `run.json`: what was built, booted, seen and proven.
//!
//! Decides nothing: `cli` fills it, `report` renders it. The schema is versioned by
//! [`CASEBOOK_FORMAT_VERSION`]. Main type: [`CaseRun`].

use serde::{Deserialize, Serialize};

use crate::file::CaseState;
use crate::verdict::VerdictKind;

/// The version that this crate writes. Fields may be added within a version, never renamed.
pub const CASEBOOK_FORMAT_VERSION: u32 = 1;

/// One run of `kolumbo case run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaseRun {
    /// Format version, [`CASEBOOK_FORMAT_VERSION`].
    pub casebook_version: u32,
    /// Version of kolumbo that wrote it.
    pub kolumbo: String,
    /// Name of the case.
    pub name: String,
    /// A hash over the files of the case and the source that was named.
    pub key: String,
    /// `done` once everything was tried.
    pub state: CaseState,
    /// When it was begun, RFC 3339 in UTC.
    pub started: String,
    /// Wall time in milliseconds, of all parts of a run that was resumed.
    pub wall_ms: u64,
    /// Title of the case.
    pub title: String,
    /// Its story.
    pub story: String,
    /// Where the source is from.
    pub source: String,
    /// The release that the source says it is.
    pub release: String,
    /// The kernels.
    pub kernels: Vec<KernelRun>,
    /// Names of the axes.
    pub axes: Vec<String>,
    /// The cells.
    pub cells: Vec<CellRun>,
    /// The smallest condition of each bug that was seen, in the words of the matrix.
    pub sentences: Vec<String>,
    /// The steps of the proof.
    pub proofs: Vec<ProofRun>,
    /// What could not be read or found out.
    pub gaps: Vec<String>,
}

impl CaseRun {
    /// Cells that are as expected.
    pub fn cells_as_expected(&self) -> usize {
        self.cells.iter().filter(|c| c.differences.is_empty() && c.judged).count()
    }

    /// Steps of the proof that hold.
    pub fn proofs_that_hold(&self) -> usize {
        self.proofs.iter().filter(|p| p.holds).count()
    }

    /// It came to its end, every cell is as expected, and every step of the proof holds.
    pub fn is_as_expected(&self) -> bool {
        self.state == CaseState::Done
            && self.cells_as_expected() == self.cells.len()
            && self.proofs_that_hold() == self.proofs.len()
    }
}

/// A kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelRun {
    /// Its name in the case.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Name and version of the compiler: `clang-14 14.0.6`.
    pub compiler: String,
    /// Its release.
    pub release: String,
    /// Names of the edits.
    pub edits: Vec<String>,
    /// Folder with its image, vmlinux and configuration.
    pub folder: String,
    /// The image that is booted.
    pub image: String,
    /// It was there already.
    pub cached: bool,
    /// Milliseconds that its build took in this run.
    pub wall_ms: u64,
}

/// One cell of the table of boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CellRun {
    /// Its labels, in the order of the axes.
    pub labels: Vec<String>,
    /// Verdicts that were expected.
    pub expected: Vec<VerdictKind>,
    /// The title that was expected; empty where it does not matter.
    pub expected_title: String,
    /// Findings that were expected, by short code.
    pub expected_findings: Vec<String>,
    /// There is a verdict that tells something.
    pub judged: bool,
    /// The verdict.
    pub verdict: Option<VerdictKind>,
    /// Title of the crash or kind of the hang.
    pub title: String,
    /// Why, in one sentence.
    pub reason: String,
    /// What explain found, by short code, with its subject.
    pub findings: Vec<String>,
    /// In what way it is not as expected.
    pub differences: Vec<String>,
    /// The case folder, relative to that of the run.
    pub folder: String,
    /// When the verdict was reached, in milliseconds since the start of QEMU.
    pub decided_ms: u64,
}

/// One step of the proof.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProofRun {
    /// `explain`, `check`, `testcase`, `prove`.
    pub step: String,
    /// The kernel.
    pub kernel: String,
    /// What it promises, in one sentence.
    pub promise: String,
    /// What came out, in one sentence.
    pub outcome: String,
    /// Whether it is what was promised.
    pub holds: bool,
    /// The report of the command, as far as it shows the outcome.
    pub evidence: String,
    /// A command that does it again.
    pub command: String,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}
