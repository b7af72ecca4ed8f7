//! kolumbo's own userspace for guests.
//!
//! Holds the static program that runs as PID 1 in the guest ([`INIT_ELF`]), the plan that tells it
//! what to do ([`Plan`]) and the lines it says ([`protocol`]). It may not know QEMU, files or
//! processes of the host, nor what a line means for the verdict.

mod plan;
pub mod protocol;
pub mod words;

pub use plan::{Plan, PlanError, PlannedExec, PlannedModule};
pub use protocol::{LineError, Message, parse_line};

/// The freestanding init for x86-64 guests: a static ELF executable that needs no file, no library
/// and no device to run. Put it into an initramfs as `/init`.
pub static INIT_ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kolumbo-init"));
