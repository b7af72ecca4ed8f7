//! The difference between two kernel configurations, as `kolumbo config diff --json` prints it.
//!
//! Decides nothing: `source` fills it, `report` renders it. Main type: [`ConfigDiff`].

use serde::{Deserialize, Serialize};

/// The version that this crate writes. Fields may be added within a version, never renamed.
pub const CONFIG_DIFF_VERSION: u32 = 1;

/// What differs between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigDiff {
    /// Format version, [`CONFIG_DIFF_VERSION`].
    pub config_diff_version: u32,
    /// The first configuration.
    pub old: ConfigSide,
    /// The second.
    pub new: ConfigSide,
    /// Options that differ, by name.
    pub changes: Vec<OptionChange>,
    /// What could not be read or found out, in plain words.
    pub gaps: Vec<String>,
}

/// One of the two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigSide {
    /// The file that was read.
    pub path: String,
    /// The kernel that its heading names, such as `Linux/x86 6.1.192`; may be empty.
    pub kernel: String,
    /// `CONFIG_CC_VERSION_TEXT` without its quotes; may be empty.
    pub compiler: String,
    /// Options that it has a line for.
    pub options: u32,
}

/// One option that differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptionChange {
    /// Name without `CONFIG_`.
    pub name: String,
    /// Value in the first, as the file writes it; `n` for "is not set", none without a line.
    pub old: Option<String>,
    /// Value in the second.
    pub new: Option<String>,
    /// One side says "is not set", the other has no line: the code is built alike.
    pub same_code: bool,
    /// Why this option is known to matter for boot, for example `KASLR`.
    pub boot: Option<String>,
    /// Titles of the menus that hold it, the outermost first.
    pub menu: Vec<String>,
    /// What Kconfig asks for it; empty for options that are computed, and without a source tree.
    pub prompt: String,
    /// Changes that force this one, as far as Kconfig says; empty where it was chosen.
    pub follows: Vec<Cause>,
    /// The first changes at the end of those, by name.
    pub roots: Vec<String>,
}

/// A change that forces another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The option that forces it.
    pub option: String,
    /// By what.
    pub by: CauseKind,
}

/// How one option decides another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// `depends on` holds on one side only.
    #[default]
    Depends,
    /// It is selected on one side only.
    Select,
    /// Nobody is asked for it, and the first default that applies is another one.
    Default,
}

/// The version of [`ConfigMinimum`] that this crate writes. Fields may be added within a version, never renamed.
pub const CONFIG_MINIMUM_VERSION: u32 = 1;

/// The smallest set of options that was found to turn a good configuration into a bad one, as
/// `kolumbo config minimize --json` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigMinimum {
    /// Format version, [`CONFIG_MINIMUM_VERSION`].
    pub config_minimum_version: u32,
    /// The options, by name. Empty where the reason lies in none that a user can set.
    pub options: Vec<MinimumOption>,
    /// Options that differ and that a user can set.
    pub candidates: u32,
    /// Configurations that were tested.
    pub tests: u32,
    /// Those of them that an earlier run of the same search had tested.
    pub tests_before: u32,
    /// Sets that could not be told (exit code 125).
    pub skipped: u32,
    /// The file with the smallest bad configuration.
    pub config: String,
    /// What could not be found out, in plain words.
    pub gaps: Vec<String>,
}

/// One option of the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MinimumOption {
    /// Name without `CONFIG_`.
    pub name: String,
    /// Value in the good configuration; none without a line.
    pub good: Option<String>,
    /// Value in the bad one.
    pub bad: Option<String>,
    /// Others of the set that cannot be as they are without this one; empty for those that are the reason.
    pub needed_by: Vec<String>,
    /// What Kconfig asks for it.
    pub prompt: String,
    /// Why this option is known to matter for boot.
    pub boot: Option<String>,
}
