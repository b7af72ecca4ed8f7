//! Whether a hypervisor emulates instructions as the CPU executes them: the results of a test.
//!
//! One entry for each instruction form on each kind of address. Holds words only; the test itself is
//! in the crate `vmm`. Main type: [`EmulationFile`].

use serde::{Deserialize, Serialize};

use crate::file::GuestFacts;

/// The version of [`EmulationFile`] that this crate writes.
pub const EMULATION_FORMAT_VERSION: u32 = 1;

/// A whole test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmulationFile {
    /// Format version, [`EMULATION_FORMAT_VERSION`].
    pub emulation_version: u32,
    /// The kernel whose KVM was tested: a release of this machine, or an image that ran in QEMU.
    pub hypervisor: String,
    /// What the kernel that ran in QEMU said of itself; none for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestFacts>,
    /// Instructions a second that this machine's KVM runs; none where it was not timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_second: Option<u64>,
    /// One entry for each instruction form and kind of address.
    pub forms: Vec<FormResult>,
    /// Wall time of the test itself in milliseconds.
    pub test_ms: u64,
    /// Wall time of everything, a boot included.
    pub wall_ms: u64,
}

impl EmulationFile {
    /// Forms with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.forms.iter().filter(|f| f.outcome == outcome).count()
    }
}

/// Where the operand lies that is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The page of the local APIC.
    Apic,
    /// A page without memory or device, which the program that runs the guest serves.
    Device,
}

/// What became of one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Emulated and executed alike.
    Ok,
    /// Flags or result differ.
    Differs,
    /// The hypervisor refuses to emulate it.
    Refused,
    /// The time was over before it.
    NotRun,
}

/// One instruction form on one kind of address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormResult {
    /// As GNU as would read it.
    pub form: String,
    /// Where the operand lay.
    pub place: Place,
    /// What became of it.
    pub outcome: Outcome,
    /// How often it was run.
    pub trials: u32,
    /// How often it differed.
    pub differing: u32,
    /// The first that differed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<Difference>,
}

/// A run of one form whose results differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The operand in memory before.
    pub memory: u32,
    /// The other operand.
    pub operand: u32,
    /// Flags before, of those that arithmetic changes.
    pub flags_before: u32,
    /// Flags register after the CPU executed it.
    pub flags_executed: u32,
    /// Flags register after it was emulated.
    pub flags_emulated: u32,
    /// The memory operand after the CPU executed it.
    pub memory_executed: u32,
    /// The memory operand after it was emulated.
    pub memory_emulated: u32,
}
