//! A small KVM monitor for x86-64 that reports what its guest does.
//!
//! Boots one kernel (ELF with a PVH entry, or bzImage) on any number of virtual CPUs, says on one
//! channel what the guest printed and where its CPUs stand ([`words`]), and ends with the guest.
//! Runs on the machine itself or, as a program of kolumbo's init, inside a guest. [`flags`] needs no
//! kernel: it compares the flags of emulated instructions with those of the CPU. It judges nothing.
//! Main type: [`Monitor`].

mod devices;
pub mod flags;
mod load;
mod monitor;
mod mptable;
pub mod program;
mod vcpu;
pub mod words;

pub use load::LoadError;
pub use monitor::{Monitor, MonitorError, Settings, trouble_line};

/// Name of the program, beside `kolumbo` itself.
pub const PROGRAM: &str = "kolumbo-vmm";
