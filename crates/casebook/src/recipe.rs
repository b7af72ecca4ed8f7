//! What a case says: source, edits, kernels, boots, expectations, proofs.
//!
//! Names the parts; decides nothing. [`file`](crate::file) fills them from `case.toml`. Every part knows
//! where it stands, so that an edit that does not apply can be found. Main type: [`Recipe`].

use std::path::PathBuf;

use kolumbo_case::{FindingCode, VerdictKind};

/// One case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// One line.
    pub title: String,
    /// What happened, in some ten lines.
    pub story: String,
    /// Where the kernel's source comes from.
    pub source: SourceWanted,
    /// Changes of the source, by name.
    pub edits: Vec<SourceEdit>,
    /// The kernels, in order.
    pub kernels: Vec<KernelWanted>,
    /// What all boots have in common: keys of `[base]` in a matrix file, with their values.
    pub base: Vec<(String, Vec<String>)>,
    /// What is varied. The axes `kernel` and `host-kernel` have names of kernels as values.
    pub axes: Vec<AxisWanted>,
    /// Cells that are left out.
    pub exclude: Vec<When>,
    /// What is expected; the last that matches a cell counts, and without one a healthy boot.
    pub expect: Vec<Expect>,
    /// What kernels have to say of themselves; all that match a cell count.
    pub vulnerabilities: Vec<Vulnerability>,
    /// What is shown once everything was booted, in order.
    pub proofs: Vec<Proof>,
}

/// Where the source comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceWanted {
    /// A Debian package with a tarball in `/usr/src`, such as `linux-source-6.1`.
    pub debian: Option<String>,
    /// A folder, relative to the case.
    pub folder: Option<PathBuf>,
    /// A git repository and what is taken from it.
    pub git: Option<(String, String)>,
    /// Where it stands.
    pub place: String,
}

impl SourceWanted {
    /// In one line.
    pub fn words(&self) -> String {
        match (&self.debian, &self.folder, &self.git) {
            (Some(package), ..) => format!("Debian's package {package}"),
            (_, Some(folder), _) => format!("the folder {}", folder.display()),
            (.., Some((repository, tag))) => format!("{tag} of {repository}"),
            _ => "the folder of --source".to_owned(),
        }
    }
}

/// A replacement in a file of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceEdit {
    /// Several edits may share a name: they are made together.
    pub name: String,
    /// Below the tree.
    pub file: PathBuf,
    /// Text that must be there exactly once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// Where it stands.
    pub place: String,
}

/// A kernel of the case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelWanted {
    /// Its name.
    pub name: String,
    /// In one line, what it is for; may be empty.
    pub about: String,
    /// How it is built; none for one that is made out of another kernel's image.
    pub built: Option<Built>,
    /// The kernel whose image is changed.
    pub from: Option<String>,
    /// Changes of that image.
    pub image_edits: Vec<ImageEdit>,
    /// Where it stands.
    pub place: String,
}

/// How a kernel is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// As `kolumbo build --toolchain` takes it.
    pub toolchain: String,
    /// As `kolumbo build --config` takes it; files are relative to the case.
    pub config: Vec<String>,
    /// Names of edits.
    pub edits: Vec<String>,
    /// Targets of make.
    pub targets: Vec<String>,
}

/// A change of the bytes of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageEdit {
    /// Bytes that are looked for.
    pub find: Vec<u8>,
    /// As many bytes that stand there instead.
    pub replace: Vec<u8>,
    /// How often they must be there.
    pub hits: usize,
    /// Where it stands.
    pub place: String,
}

/// One axis of the table of boots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AxisWanted {
    /// Its name, as in a matrix file.
    pub name: String,
    /// Label and value.
    pub values: Vec<(String, String)>,
    /// Where it stands.
    pub place: String,
}

/// Whether the values of the axis are kernels of the case, by name.
pub fn is_of_kernels(axis: &str) -> bool {
    matches!(axis, "kernel" | "host-kernel")
}

/// Some values of some axes, by label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// Axis and labels.
    pub terms: Vec<(String, Vec<String>)>,
    /// Where it stands.
    pub place: String,
}

impl When {
    /// Whether a cell with these labels (axis and label) matches.
    pub fn matches(&self, labels: &[(String, String)]) -> bool {
        self.terms.iter().all(|(axis, wanted)| {
            labels.iter().any(|(name, label)| name == axis && wanted.contains(label))
        })
    }
}

/// What is expected of a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expect {
    /// Of which cells.
    pub when: When,
    /// One of these verdicts; empty for a healthy boot.
    pub verdicts: Vec<VerdictKind>,
    /// The title of the crash, or the kind of the hang with the function in which CPUs stand: what a matrix
    /// calls the signature. Empty where it does not matter. A `*` stands for any text.
    pub title: String,
    /// Codes that `kolumbo explain` has to give, all of them.
    pub findings: Vec<FindingCode>,
    /// Where it stands.
    pub place: String,
}

/// What the kernel of a cell, or its host's where it runs inside another guest, has to say about a vulnerability:
/// a row of a table is what the kernel did, not what its command line asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vulnerability {
    /// Of which cells.
    pub when: When,
    /// A file in `/sys/devices/system/cpu/vulnerabilities`.
    pub file: String,
    /// What stands in it. A `*` stands for any text.
    pub says: String,
}

/// One step of the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The kernel that it is about.
    pub kernel: String,
    /// What is done, and what must come out.
    pub step: Step,
    /// Where it stands.
    pub place: String,
}

/// What is done, and what must come out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The dump of the first sick cell of the kernel is explained.
    Explain {
        /// This code,
        finding: FindingCode,
        /// about this register or these flags,
        subject: String,
        /// with a suspect of this kind at the head, such as `callee`,
        suspect: String,
        /// which is this function; empty where that does not matter,
        names: String,
        /// and a value that looks like this; empty where that does not matter.
        looks_like: String,
    },
    /// The image is checked for broken contracts.
    Check {
        /// Exactly these functions break one; empty for none.
        culprits: Vec<String>,
    },
    /// The check writes a test for a compiler.
    Testcase {
        /// Of this function.
        culprit: String,
        /// It says all of this.
        contains: Vec<String>,
    },
    /// The kernel runs a guest of a few instructions, and its flags are compared with the CPU's.
    Emulation {
        /// Whether they differ. False for a control.
        differs: bool,
        /// QEMU's CPU model, which must be able to run guests.
        cpu: Option<String>,
        /// Words for the kernel's command line.
        append: Vec<String>,
    },
    /// What happens at a call is watched in the running guest.
    Prove {
        /// The register that the callee should have kept.
        register: String,
        /// Whether it is changed. False for a control.
        broken: bool,
        /// What the register holds behind the call, such as `stack-canary`; empty where it does not matter.
        becomes: String,
        /// The call, as `function+0x5c`; without one, that of the finding that was explained.
        call: Option<String>,
    },
}

impl Step {
    /// The stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Explain { .. } => "explain",
            Step::Check { .. } => "check",
            Step::Testcase { .. } => "testcase",
            Step::Emulation { .. } => "emulation",
            Step::Prove { .. } => "prove",
        }
    }
}
