//! How far a boot came, as an ordered enum.
//!
//! The order is the order in which a healthy boot passes through them, so `a < b` means "a comes
//! before b". Names are stable: they stand in `case.json` and in `kolumbo read --json`.

use serde::{Deserialize, Serialize};

/// The furthest point of a boot for which there is proof.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing was seen yet: firmware or boot loader.
    #[default]
    Firmware,
    /// The compressed kernel's own loader speaks ("Decompressing Linux...").
    Decompressor,
    /// The kernel proper printed something: `start_kernel` and `setup_arch`.
    EarlyConsole,
    /// Secondary CPUs are being started.
    SmpBringUp,
    /// SMP is up; initcalls and drivers run.
    Initcalls,
    /// The kernel started the first user process, which has not spoken yet.
    Init,
    /// The first user process spoke.
    Userspace,
    /// A power-off, halt or reboot was asked for.
    Shutdown,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 8] = [
        Phase::Firmware,
        Phase::Decompressor,
        Phase::EarlyConsole,
        Phase::SmpBringUp,
        Phase::Initcalls,
        Phase::Init,
        Phase::Userspace,
        Phase::Shutdown,
    ];

    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Firmware => "firmware",
            Phase::Decompressor => "decompressor",
            Phase::EarlyConsole => "early-console",
            Phase::SmpBringUp => "smp-bring-up",
            Phase::Initcalls => "initcalls",
            Phase::Init => "init",
            Phase::Userspace => "userspace",
            Phase::Shutdown => "shutdown",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
