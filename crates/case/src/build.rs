//! One build of a kernel, as `build.json`.
//!
//! Decides nothing: `source` fills it, `report` renders it. Main type: [`BuildFile`].

use serde::{Deserialize, Serialize};

/// The version that this crate writes. Fields may be added within a version, never renamed.
pub const BUILD_FORMAT_VERSION: u32 = 1;

/// One build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildFile {
    /// Format version, [`BUILD_FORMAT_VERSION`].
    pub build_version: u32,
    /// Version of kolumbo that wrote it.
    pub kolumbo: String,
    /// How far it came. A build that says `running` while nobody holds its lock was cut off; the
    /// next one goes on with it.
    pub state: BuildState,
    /// The source tree.
    pub source: String,
    /// What make built, `include/config/kernel.release`; may be empty.
    pub release: String,
    /// What it was built with.
    pub toolchain: ToolchainFacts,
    /// Arguments of make.
    pub make: Vec<String>,
    /// SHA-256 over tree, configuration, edits, toolchain and targets.
    pub key: String,
    /// What was asked for as the configuration, in order.
    pub config: Vec<String>,
    /// SHA-256 of what was asked for as the configuration, the contents of files included.
    pub config_asked: String,
    /// SHA-256 of the final `.config`.
    pub config_sha256: String,
    /// Files of the tree that were edited for this build.
    pub edited: Vec<String>,
    /// Targets of make.
    pub targets: Vec<String>,
    /// The image; none where no target makes one.
    pub image: Option<String>,
    /// Steps of a whole build, as kbuild printed them; what the next progress is measured against.
    pub steps: u32,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Warnings by kind, the most frequent first.
    pub warnings: Vec<WarningGroup>,
    /// Why it failed.
    pub failure: Option<BuildFailure>,
    /// What could not be had as it was asked for, in plain words.
    pub gaps: Vec<String>,
}

/// How far a build came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildState {
    /// Under way, or cut off.
    #[default]
    Running,
    /// Complete.
    Done,
    /// make failed.
    Failed,
}

/// A compiler and what belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolchainFacts {
    /// As it was asked for, `clang-14`.
    pub name: String,
    /// `gcc` or `clang`.
    pub family: String,
    /// Path of the compiler.
    pub compiler: String,
    /// Version, `12.2.0`.
    pub version: String,
    /// First line of `--version`.
    pub version_text: String,
    /// First line of the linker's `--version`; may be empty.
    pub linker: String,
    /// Whether ccache stood before the compiler.
    pub ccache: bool,
}

/// Warnings of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WarningGroup {
    /// The compiler's option (`-Wframe-larger-than`), or who warned: `objtool`, `modpost`, `linker`,
    /// `other`.
    pub kind: String,
    /// How many.
    pub count: u32,
    /// Where the first was, below the tree; may be empty.
    pub file: String,
    /// Its line, counted from 1; 0 where it is not known.
    pub line: u32,
    /// Its text.
    pub text: String,
}

/// The first error of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildFailure {
    /// The file, below the tree; may be empty.
    pub file: String,
    /// Its line, counted from 1; 0 where it is not known.
    pub line: u32,
    /// What the tool said.
    pub message: String,
    /// The lines that followed, as far as they belong to it.
    pub context: Vec<String>,
    /// What make could not build, `kernel/fork.o`; may be empty.
    pub target: String,
}
