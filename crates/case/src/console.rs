//! One line of a console and the kinds of headline that a sick kernel prints.
//!
//! The `console` crate makes these out of bytes; everyone else only reads them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One line (or a piece of a very long one) of a kernel console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleRecord {
    /// Offset of the first raw byte of the line in the input.
    pub offset: u64,
    /// Number of raw bytes, line end included.
    pub len: u64,
    /// The whole line without escape sequences, CR, NUL or other control characters. A tab is one
    /// space. Bytes that are not UTF-8 are U+FFFD.
    pub text: String,
    /// Where the message begins in `text`, behind level, timestamp and caller.
    pub message_at: usize,
    /// Seconds since boot, where printk wrote them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Duration>,
    /// Who called printk (`T123`: thread, `C1`: CPU in an interrupt), where the kernel says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub caller: Option<String>,
    /// Log level 0 to 7, where the console shows it (`<4>`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<u8>,
    /// This record continues the line of the record before it, which was too long for one.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub continues: bool,
}

impl ConsoleRecord {
    /// The message behind the prefixes.
    pub fn message(&self) -> &str {
        self.text.get(self.message_at..).unwrap_or(&self.text)
    }
}

/// What kind of trouble a headline announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HeadlineKind {
    /// `Kernel panic - not syncing` and the halts of the early kernel.
    Panic,
    /// An exception in kernel mode that nobody expected: page fault, general protection fault,
    /// double fault, invalid opcode, data abort.
    Oops,
    /// `kernel BUG at`, the kernel's own assertion.
    KernelBug,
    /// `WARN_ON` and friends.
    Warning,
    /// A CPU did not schedule for too long.
    SoftLockup,
    /// A CPU took no interrupt for too long.
    HardLockup,
    /// RCU waits for a CPU or a task that does not report.
    RcuStall,
    /// A task is in uninterruptible sleep for too long.
    HungTask,
    /// The work queue watchdog: a pool makes no progress.
    WorkqueueLockup,
    /// Lockdep and its relatives: deadlocks, bad unlocks, spinlock debugging, suspicious RCU usage.
    Lockdep,
    /// Kernel address sanitizer.
    Kasan,
    /// Kernel memory (uninitialised values) sanitizer.
    Kmsan,
    /// Kernel concurrency sanitizer.
    Kcsan,
    /// Sampling memory error detector.
    Kfence,
    /// Undefined behaviour sanitizer.
    Ubsan,
    /// A page or a memory map with impossible content: `Bad page state`, `Bad rss-counter`.
    BadPageState,
    /// Slab or list corruption that the kernel noticed itself.
    Corruption,
    /// Scheduling or sleeping where that is forbidden.
    SchedulingWhileAtomic,
    /// kmemleak.
    MemoryLeak,
    /// A trap that x86 does not expect in kernel mode: divide error, `int3`, stack segment, ...
    Trap,
    /// Machine check or another hardware error that ends in a report.
    MachineCheck,
    /// The out-of-memory killer ran.
    OutOfMemory,
    /// An interrupt nobody wanted was disabled, an NMI of unknown reason, a stuck interrupt.
    Interrupt,
    /// A `BUG:` or `INFO:` that is none of the above.
    Other,
}

impl HeadlineKind {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            HeadlineKind::Panic => "panic",
            HeadlineKind::Oops => "oops",
            HeadlineKind::KernelBug => "kernel-bug",
            HeadlineKind::Warning => "warning",
            HeadlineKind::SoftLockup => "soft-lockup",
            HeadlineKind::HardLockup => "hard-lockup",
            HeadlineKind::RcuStall => "rcu-stall",
            HeadlineKind::HungTask => "hung-task",
            HeadlineKind::WorkqueueLockup => "workqueue-lockup",
            HeadlineKind::Lockdep => "lockdep",
            HeadlineKind::Kasan => "kasan",
            HeadlineKind::Kmsan => "kmsan",
            HeadlineKind::Kcsan => "kcsan",
            HeadlineKind::Kfence => "kfence",
            HeadlineKind::Ubsan => "ubsan",
            HeadlineKind::BadPageState => "bad-page-state",
            HeadlineKind::Corruption => "corruption",
            HeadlineKind::SchedulingWhileAtomic => "scheduling-while-atomic",
            HeadlineKind::MemoryLeak => "memory-leak",
            HeadlineKind::Trap => "trap",
            HeadlineKind::MachineCheck => "machine-check",
            HeadlineKind::OutOfMemory => "out-of-memory",
            HeadlineKind::Interrupt => "interrupt",
            HeadlineKind::Other => "other",
        }
    }
}

impl std::fmt::Display for HeadlineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
