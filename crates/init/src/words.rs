//! The words of the guest protocol, shared by both ends.
//!
//! This file is compiled twice: into the library for the host, and into the freestanding program
//! for the guest. It holds constants only. The format itself is documented in `protocol.rs`.

/// Every line starts with this mark, which carries the version of the protocol, and one space.
pub const MARK: &str = "kolumbo-init/1";
/// The part of [`MARK`] that never changes; what follows is the version as a decimal number.
pub const MARK_STEM: &str = "kolumbo-init/";
/// A line is never longer than this, the newline included.
pub const LINE_LIMIT: usize = 60 * 1024;

/// The first word: userspace is reached.
pub const HELLO: &str = "hello";
/// The facts of the guest.
pub const FACTS: &str = "facts";
/// A job begins.
pub const START: &str = "start";
/// One a second while a job runs.
pub const BEAT: &str = "beat";
/// A job has ended.
pub const DONE: &str = "done";
/// Something that init tried did not work; it went on.
pub const TROUBLE: &str = "trouble";
/// All jobs are done.
pub const END: &str = "end";
/// The last word: the next thing init does is to sync and to power off.
pub const POWEROFF: &str = "poweroff";

/// Where the plan lies in the initramfs: what init is to do, see `plan.rs`.
pub const PLAN_PATH: &core::ffi::CStr = c"/kolumbo/plan";
/// The longest plan that init reads, in bytes.
pub const PLAN_LIMIT: usize = 128 * 1024;
/// The most arguments, the program's name included, that init passes to a program.
pub const ARGUMENT_LIMIT: usize = 512;
/// Word of the plan: load a module. Two fields follow, its path and its parameters.
pub const PLAN_MODULE: &str = "module";
/// Word of the plan: run a program. Its path and a decimal number follow, then as many arguments,
/// of which the first is the program's own name.
pub const PLAN_EXEC: &str = "exec";

/// Folder of the guest that holds a program's shared libraries; `LD_LIBRARY_PATH` names it.
pub const LIBRARY_FOLDER: &str = "/kolumbo/lib";

/// I/O port of QEMU's `isa-debugcon`, which reads back the same number.
pub const DEBUGCON_PORT: u16 = 0xe9;
/// First I/O port of the second serial port.
pub const SERIAL_PORT: u16 = 0x2f8;
