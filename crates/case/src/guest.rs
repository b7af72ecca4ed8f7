//! The read-only view of a guest: registers and memory.
//!
//! `machine` implements it for a live guest, tests implement it over saved bytes, and whoever
//! diagnoses a guest sees nothing else of it. Nothing here can change the guest.

use serde::{Deserialize, Serialize};

/// The registers of one virtual CPU, by the names that the kernel's own dumps use in lower case
/// (`rax` ... `r15`, `rip`, `rflags`, `cs`, `cr0`, `cr2`, `cr3`, `cr4`, `gs_base`, ...).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuRegisters {
    /// Index of the virtual CPU, from 0.
    pub cpu: u32,
    /// The CPU executed HLT and waits for an interrupt.
    pub halted: bool,
    /// Name and value of each register that could be read, in the order the source gave them.
    pub values: Vec<(String, u64)>,
}

impl VcpuRegisters {
    /// The value of the register called `name`, when it was read.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values.iter().find(|(n, _)| n == name).map(|&(_, v)| v)
    }
}

/// Why guest memory could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No page is mapped there.
    #[error("no page is mapped at {address:#x} in this guest")]
    Unmapped {
        /// The first address that could not be read.
        address: u64,
    },
    /// The guest is gone or did not answer.
    #[error("the guest did not answer while reading {address:#x}: {reason}")]
    Gone {
        /// The address that was asked for.
        address: u64,
        /// What the transport said.
        reason: String,
    },
}

/// A guest whose registers and memory can be read and that holds still while it is read.
pub trait GuestView {
    /// Number of virtual CPUs.
    fn vcpus(&self) -> u32;
    /// The registers of CPU `cpu` (from 0).
    fn registers(&mut self, cpu: u32) -> Result<VcpuRegisters, ReadError>;
    /// Fills `into` from the virtual address `address` as CPU `cpu` would see it.
    fn read_memory(&mut self, cpu: u32, address: u64, into: &mut [u8]) -> Result<(), ReadError>;
}
