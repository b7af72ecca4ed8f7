//! What to boot and under which conditions.

use serde::{Deserialize, Serialize};

/// How guest code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Accel {
    /// KVM when it was timed and found to be real, TCG otherwise.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Hardware virtualisation; an error when it does not work.
    #[serde(rename = "kvm")]
    Kvm,
    /// QEMU's translator, one thread per virtual CPU.
    #[serde(rename = "tcg")]
    Tcg,
    /// QEMU's translator, all virtual CPUs on one thread.
    #[serde(rename = "tcg,thread=single")]
    TcgSingle,
}

impl Accel {
    /// The stable name, as it stands on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Auto => "auto",
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
            Accel::TcgSingle => "tcg,thread=single",
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Accel {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Accel::Auto, Accel::Kvm, Accel::Tcg, Accel::TcgSingle]
            .into_iter()
            .find(|a| a.name() == s)
            .ok_or_else(|| {
                format!("unknown accelerator '{s}': auto, kvm, tcg or tcg,thread=single")
            })
    }
}

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// QEMU.
    #[default]
    Qemu,
    /// kolumbo's own monitor, on KVM.
    Vmm,
}

impl Engine {
    /// Whether it is QEMU.
    pub fn is_qemu(&self) -> bool {
        *self == Engine::Qemu
    }

    /// The stable name, as it stands on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Qemu => "qemu",
            Engine::Vmm => "vmm",
        }
    }
}

impl std::str::FromStr for Engine {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Engine::Qemu, Engine::Vmm]
            .into_iter()
            .find(|e| e.name() == s)
            .ok_or_else(|| format!("unknown engine '{s}': qemu or vmm"))
    }
}

/// A guest that is itself a host: kolumbo's monitor runs the guest proper inside it, on its KVM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSpec {
    /// What the user named: image, folder or package.
    pub kernel: String,
    /// Number of its virtual CPUs.
    pub smp: u32,
    /// Its memory in bytes; the guest's memory is part of it.
    pub memory: u64,
    /// Words added to its command line, after kolumbo's own.
    pub append: Vec<String>,
    /// Modules that kolumbo's init loads there, in this order: those of KVM where it is not built in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
}

/// Everything that decides what a guest is given. Two runs with equal specs and equal inputs are
/// the same experiment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BootSpec {
    /// What the user named: image, folder or package.
    pub kernel: String,
    /// Number of virtual CPUs.
    pub smp: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Words added to the kernel's command line, after kolumbo's own.
    pub append: Vec<String>,
    /// An initramfs that replaces kolumbo's own userspace.
    pub initrd: Option<String>,
    /// Modules that kolumbo's init loads, in this order.
    pub modules: Vec<String>,
    /// Program (a path on the host) and its arguments that kolumbo's init runs.
    pub exec: Vec<String>,
    /// QEMU's CPU model, or none for the accelerator's default.
    pub cpu: Option<String>,
    /// QEMU's machine type, or none for kolumbo's default.
    pub machine: Option<String>,
    /// Which accelerator was asked for.
    pub accel: Accel,
    /// Wall-clock limit of the whole run in milliseconds.
    pub timeout_ms: u64,
    /// What runs the guest.
    #[serde(skip_serializing_if = "Engine::is_qemu")]
    pub engine: Engine,
    /// The guest runs inside another one. `cpu`, `machine` and `accel` are those of QEMU, and so of
    /// this one; everything else is about the guest proper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSpec>,
}
