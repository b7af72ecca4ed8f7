//! The case file: one run, as `case.json`.
//!
//! The format is versioned by [`CASE_FORMAT_VERSION`]. A reader takes every file whose version is
//! not newer than its own; fields may be added within a version, never renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crash::MachineState;
use crate::explanation::Explanation;
use crate::phase::Phase;
use crate::spec::BootSpec;
use crate::verdict::Verdict;

/// The version that this crate writes.
pub const CASE_FORMAT_VERSION: u32 = 1;

/// One run of `kolumbo boot`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaseFile {
    /// Format version, [`CASE_FORMAT_VERSION`].
    pub case_version: u32,
    /// Version of kolumbo that wrote it.
    pub kolumbo: String,
    /// `running` until the verdict is on disk, then `done`. A case that says `running` while no
    /// process writes to it was cut off; its events and console are still good.
    pub state: CaseState,
    /// When the run started, RFC 3339 in UTC.
    pub started: String,
    /// Process that writes the case.
    pub pid: u32,
    /// What was asked for.
    pub spec: BootSpec,
    /// Files that went in.
    pub inputs: Vec<InputFile>,
    /// The QEMU that ran.
    pub qemu: QemuFacts,
    /// The host.
    pub host: HostFacts,
    /// What kolumbo's init reported, or none where it did not speak.
    pub guest: Option<GuestFacts>,
    /// When each phase began, in milliseconds since the start of QEMU, in order.
    pub timeline: Vec<(Phase, u64)>,
    /// A module that was handed over did not load, or the program of `--exec` failed.
    pub jobs_failed: bool,
    /// The verdict, once there is one. Its fields stand beside the others in the file, so that
    /// `verdict` is the name of the verdict.
    #[serde(flatten)]
    pub outcome: Option<Verdict>,
    /// The virtual CPUs that the verdict is about, as they stood when it was reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<MachineState>,
    /// What the dumps on the console and the CPUs that stood still mean; none for a healthy guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Wall time of the run in milliseconds, once it ended.
    pub wall_ms: Option<u64>,
    /// Milliseconds of them in which the host stood still: it slept, or let nothing run. Shorter pauses than 5 s are
    /// not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_paused_ms: Option<u64>,
    /// Why the console or the events beside this file are not whole, where the disk did not take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unkept: Option<String>,
    /// The guest that was the host of this one, where there was one between it and QEMU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested_host: Option<NestedHost>,
    /// What could not be read or found out, in plain words.
    pub gaps: Vec<String>,
}

/// The guest inside which the guest of a case ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NestedHost {
    /// What kolumbo's init found there; none where it did not speak.
    pub guest: Option<GuestFacts>,
    /// Milliseconds from the start of QEMU to the first word of the monitor; none where it did not
    /// speak.
    pub monitor_ms: Option<u64>,
}

/// Whether a run has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseState {
    /// Being written.
    #[default]
    Running,
    /// Complete.
    Done,
}

/// One file that went into a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// `kernel`, `initrd`, `vmlinux`, `system-map`, `config`, `module`, `exec`.
    pub role: String,
    /// Path as it was used.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 as hexadecimal.
    pub sha256: String,
}

/// The QEMU that ran the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QemuFacts {
    /// Version, for example `7.2.22`.
    pub version: String,
    /// Program and arguments as they were run.
    pub argv: Vec<String>,
    /// `kvm`, `tcg` or `tcg,thread=single`.
    pub accel: String,
    /// Why this accelerator, in one line.
    pub accel_reason: String,
}

/// The machine that ran QEMU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// Kernel release and version.
    pub kernel: String,
    /// CPU model name.
    pub cpu: String,
    /// Microcode revision, where the host tells.
    pub microcode: String,
    /// Number of CPUs that kolumbo may use.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The files of `/sys/devices/system/cpu/vulnerabilities`.
    pub vulnerabilities: BTreeMap<String, String>,
}

/// What kolumbo's init found inside the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestFacts {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `/proc/version`, which names the compiler.
    pub proc_version: String,
    /// CPUs online.
    pub cpus_online: u32,
    /// `/proc/cmdline`.
    pub cmdline: String,
    /// The files of `/sys/devices/system/cpu/vulnerabilities`.
    pub vulnerabilities: BTreeMap<String, String>,
    /// `/proc/sys/kernel/tainted`.
    pub taint: u64,
    /// Uptime in milliseconds when init spoke first.
    pub boot_ms: u64,
    /// Address of `_text` as the running kernel's kallsyms give it; 0 where it is hidden.
    pub text: u64,
    /// Facts that this version has no field for.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::VerdictKind;

    #[test]
    fn the_verdict_stands_at_the_top_level() {
        let verdict = Verdict {
            verdict: VerdictKind::HungBoot,
            reason: "r".into(),
            phase: Phase::Initcalls,
            timed_out: false,
            last_sign_of_life_ms: 1,
            decided_ms: 2,
            evidence: Vec::new(),
        };
        for outcome in [None, Some(verdict)] {
            let case = CaseFile { outcome, ..CaseFile::default() };
            let json = serde_json::to_value(&case).unwrap();
            let name = case.outcome.as_ref().map(|v| v.verdict.name());
            assert_eq!(json.get("verdict").and_then(|v| v.as_str()), name);
            assert_eq!(serde_json::from_value::<CaseFile>(json).unwrap(), case);
        }
    }
}
