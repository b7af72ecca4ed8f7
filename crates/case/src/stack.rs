//! What became of a stack of patches, as `kolumbo stack status --json` prints it.
//!
//! Decides nothing: `source` fills it, `report` renders it. Main type: [`StackStatus`].

use serde::{Deserialize, Serialize};

/// The version that this crate writes. Fields may be added within a version, never renamed.
pub const STACK_FORMAT_VERSION: u32 = 1;

/// A stack beside the branch that it shall stand on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StackStatus {
    /// Format version, [`STACK_FORMAT_VERSION`].
    pub stack_version: u32,
    /// The range, as it was given.
    pub stack: String,
    /// The target, as it was given.
    pub onto: String,
    /// The commit that the stack begins on.
    pub base_commit: String,
    /// Its last patch; of patches in files, a commit that no repository keeps.
    pub tip_commit: String,
    /// The target's commit.
    pub onto_commit: String,
    /// Commits that the target has and the stack's base has not.
    pub target_commits: u32,
    /// The patches, the oldest first.
    pub rows: Vec<StackRow>,
    /// What could not be read or found out, in plain words.
    pub gaps: Vec<String>,
}

/// One patch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StackRow {
    /// The commit.
    pub commit: String,
    /// The file that it was read from, of a stack in files.
    pub file: Option<String>,
    /// Its subject without labels.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
    /// Its labels, `BACKPORT`, the outermost first.
    pub labels: Vec<String>,
    /// Upstream commits that its message names.
    pub names: Vec<String>,
    /// Whether the target has it.
    pub held: Held,
    /// The commit of the target that `held` is about.
    pub by: Option<String>,
    /// The commit of the target that reverts that one.
    pub reverted_by: Option<String>,
    /// The patch and that commit, where a person has to compare the two.
    pub versus: Option<Versus>,
    /// What else was seen.
    pub remarks: Vec<Remark>,
}

/// Two diffs that claim to be the same change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versus {
    /// The patch's, without names of blobs and numbers of lines.
    pub ours: String,
    /// The target's.
    pub theirs: String,
    /// Lines of both that were left out, because they are too many.
    pub left_out: u32,
}

/// Whether the target has a patch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// Nothing in the target looks like it.
    #[default]
    Absent,
    /// A commit with the same patch-id.
    SamePatch,
    /// A commit that names the same upstream commit, or is it; its diff differs.
    Named,
    /// A commit of the same subject and author; its diff differs.
    SameSubject,
    /// A commit that makes a part of its changes.
    Partly,
    /// The target had it and took it back.
    Reverted,
    /// It is no patch but a merge.
    Merge,
}

/// Something to know about a patch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// What it is.
    pub kind: RemarkKind,
    /// In plain words.
    pub text: String,
}

/// Kinds of remarks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemarkKind {
    /// UPSTREAM, though the diff is not that of the commit it names.
    ShouldBeBackport,
    /// BACKPORT, though the diff is that of the commit it names.
    ShouldBeUpstream,
    /// The label says that it comes from upstream, and no commit is named.
    NamesNothing,
    /// A named commit is not in the repository.
    #[default]
    NotInRepository,
    /// An upstream commit repairs this one, and neither stack nor target has it.
    MissingFix,
    /// It repairs a commit that neither stack nor target has.
    RepairsAbsent,
    /// The lines that it changes come from an upstream commit that neither stack nor target has.
    Prerequisite,
    /// The patch of a file does not apply to what it is made for.
    DoesNotApply,
    /// It applies only with less context than it has.
    Fuzzy,
    /// The file says neither author nor subject.
    NoHead,
}

/// How a stack comes onto a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StackPlan {
    /// What the target holds.
    pub status: StackStatus,
    /// One step for each row of it.
    pub steps: Vec<PlanStep>,
    /// The branch that was made of it.
    pub applied: Option<AppliedPlan>,
}

/// A plan that became a branch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppliedPlan {
    /// Its name.
    pub branch: String,
    /// Its commit.
    pub commit: String,
    /// How the old stack became the new one, as `git range-diff` says it.
    pub range_diff: String,
}

/// What to do with one patch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanStep {
    /// The commit.
    pub commit: String,
    /// What to do.
    pub action: PlanAction,
    /// Another label that fits better; none where the own one is right.
    pub relabel: Option<String>,
    /// Files with the first line that conflicts, counted from 1 in the file with conflict marks; 0
    /// where the whole file is in conflict.
    pub conflicts: Vec<(String, u32)>,
}

/// What to do with a patch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanAction {
    /// It applies.
    #[default]
    Keep,
    /// The target has it.
    Drop,
    /// It changes nothing there any more.
    Empty,
    /// It conflicts.
    Conflict,
}
