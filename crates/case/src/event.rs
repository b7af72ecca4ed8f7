//! What happened during a run, in order, with times.
//!
//! `machine` writes events, `judge` reads them, and the case folder keeps them one JSON object a
//! line, so that a stored run can be judged again. Times are milliseconds since QEMU was started.

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since QEMU was started.
    pub t: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kinds of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// QEMU is running and its monitor answered.
    Started,
    /// Console bytes arrived: `len` bytes at `offset` of `console.log`.
    Console {
        /// Offset in `console.log`.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// One line on the channel of kolumbo's own init (without the newline, at most 64 KiB).
    Init {
        /// The line as it came, made valid UTF-8.
        line: String,
    },
    /// QEMU reported something.
    Qemu(QemuEvent),
    /// Every virtual CPU was looked at while the guest stood still.
    Sample {
        /// One entry per virtual CPU, by index.
        vcpus: Vec<VcpuSample>,
    },
    /// The wall-clock limit was reached.
    TimeLimit,
    /// The host stood still for so long until now: it slept, or let neither QEMU nor kolumbo run. A kolumbo that was
    /// stopped alone looks the same to itself.
    HostPaused {
        /// Milliseconds.
        ms: u64,
    },
    /// The user asked to stop.
    Interrupted,
    /// The console wrote more than kolumbo keeps; later bytes are not in `console.log`.
    ConsoleTruncated {
        /// Bytes kept.
        kept: u64,
    },
    /// QEMU ended.
    QemuExited {
        /// Exit code, when it ended by itself.
        code: Option<i32>,
        /// Signal, when one ended it.
        signal: Option<i32>,
        /// The end of what it wrote on its standard error, at most 8 KiB.
        stderr: String,
    },
}

/// The QMP events that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QemuEvent {
    /// The machine was reset. `guest` tells that the guest caused it.
    Reset {
        /// The guest asked for it or shut down by a triple fault.
        guest: bool,
        /// QEMU's `ShutdownCause`, for example `guest-reset`.
        reason: String,
    },
    /// The machine was powered off.
    Shutdown {
        /// The guest asked for it.
        guest: bool,
        /// QEMU's `ShutdownCause`, for example `guest-shutdown`.
        reason: String,
    },
    /// The pvpanic device was written.
    GuestPanicked {
        /// What the guest reported: `pause`, `poweroff`, `run`.
        action: String,
    },
    /// QEMU stopped the guest by itself because of an error inside QEMU or KVM.
    InternalError,
}

/// One virtual CPU at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuSample {
    /// Index of the virtual CPU, from 0.
    pub cpu: u32,
    /// HLT was executed and no interrupt has come since.
    pub halted: bool,
    /// Interrupts are enabled (RFLAGS.IF on x86).
    pub interrupts: bool,
    /// Privilege level: 0 is the kernel, 3 is user space.
    pub cpl: u8,
    /// Instruction pointer, as a linear address.
    pub pc: u64,
    /// Flags register.
    pub flags: u64,
    /// Page table root (CR3 on x86).
    pub page_table: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Hash of every general register, the instruction pointer and the flags: equal hashes mean
    /// that this CPU was seen twice in the very same state.
    pub state: u64,
    /// CPU time that the host gave to this virtual CPU so far, in microseconds; none where all
    /// share one host thread or the host does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ran_us: Option<u64>,
    /// Instruction bytes at `pc`, as many as could be read, at most 16, as hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub code: String,
    /// `pc` as `function+0xoffset/0xsize`, where symbols are at hand.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub symbol: Option<String>,
    /// The instruction at `pc` in AT&T syntax, where it was decoded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instruction: Option<String>,
}
