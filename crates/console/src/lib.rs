//! Bytes of a kernel console to meaning.
//!
//! Decides what a line says: where it begins and ends, which of them is the headline of a crash,
//! how far a boot came. May not know QEMU, ELF, files or wall time; every timestamp it reports was
//! printed by the kernel. Input is hostile: memory is bounded, nothing panics, time is linear.

mod boot;
mod context;
mod crash;
mod details;
mod dump;
pub mod formats;
pub mod frame;
mod guilty;
pub mod headline;
mod journal;
pub mod lines;
mod listing;
mod mail;
pub mod phase;
pub mod prefix;
mod pstore;
pub mod read;
mod registers;
mod report;
mod s390;
mod scan;
mod skip;
pub mod stream;
pub mod text;
mod title;
mod unwrap;
mod walk;

pub use headline::{Headline, classify};
pub use lines::LineReader;
pub use phase::{InitFailure, PhaseTracker, Shutdown, init_failure_of, phase_of, shutdown_of};
pub use read::{ReadOptions, Reader, read};
