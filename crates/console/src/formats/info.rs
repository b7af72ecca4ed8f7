//! Headlines with `INFO:`: stalls, hung tasks, old spellings of lockdep. Sources:
//! kernel/rcu/tree_stall.h, kernel/hung_task.c, kernel/locking/lockdep.c.

use kolumbo_case::HeadlineKind::{HardLockup, HungTask, Lockdep, Other, RcuStall};

use super::warning::{CHANGED, RCU_USED, TAKES, TO_ACQUIRE, TO_ACQUIRE_LOCK};
use super::{Format, Group, IN_TRACE, NO_WAY, Recipe, Step, TRACE, Take};

/// Where a timer interrupt stands on the stack: whoever is stuck is below it. A CPU that finds itself
/// stuck unwinds from the registers, and what stands above them is marked as a guess.
const TICK: &[&str] =
    &["apic_timer_interrupt", "Exception stack", "el1_irq", "el1h_64_irq", "el1_interrupt"];

/// The entry point of the stuck operation.
pub(super) static STALL: Recipe = Recipe {
    ways: &[
        &[Step::After(TICK), Step::Interrupted, Step::Frames],
        &[Step::After(TICK), Step::Frames],
        // A CPU that answers to the NMI alone. Where the grace-period kthread got no time itself,
        // what the other CPUs do is no proof against them.
        &[
            Step::Unless("kthread starved for"),
            Step::After(TRACE),
            Step::After(&["</NMI>"]),
            Step::Frames,
        ],
        // A CPU that finds itself stuck prints the registers of what the tick interrupted, and the
        // stack below it (rcu_dump_cpu_stacks(), since v5.16).
        &[
            Step::Unless("kthread starved for"),
            Step::Unless("NMI backtrace"),
            Step::Pc,
            Step::After(TRACE),
            Step::Frames,
        ],
    ],
    skip: &["apic_timer_interrupt", "rcu"],
    take: Take::Entry,
};

/// A lockup prints the registers of the CPU that is stuck and its stack without the interrupt.
pub(super) static LOCKUP: Recipe =
    Recipe { ways: &[&[Step::Pc, Step::After(TRACE), Step::Frames]], skip: &[], take: Take::Entry };

/// drivers/usb/core/message.c: a driver asks for a transfer and waits for it.
pub(super) const USB_TRANSFERS: &[&str] = &[
    "usb_submit_urb",
    "usb_start_wait_urb",
    "usb_bulk_msg",
    "usb_interrupt_msg",
    "usb_control_msg",
];

/// Whoever waits, above scheduling, locking and waiting helpers.
static HUNG: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: USB_TRANSFERS,
    take: Take::Waiter,
};

static INFO: &[Format] = &[
    // The spelling until v4.11: whoever takes the lock is named as it is.
    Format::new(
        Lockdep,
        r"INFO: possible circular locking dependency detected \]",
        "possible deadlock in {frame}",
        &NO_WAY,
    )
    .behind(TO_ACQUIRE_LOCK)
    .capture(1),
    Format::new(
        Lockdep,
        r"INFO: possible irq lock inversion dependency detected \]",
        "possible deadlock in {frame}",
        &NO_WAY,
    )
    .behind(CHANGED)
    .capture(1),
    Format::new(
        Lockdep,
        r"INFO: .*-> .*lock order detected \]",
        "possible deadlock in {frame}",
        &NO_WAY,
    )
    .behind(TO_ACQUIRE)
    .capture(1),
    Format::new(
        Lockdep,
        r"INFO: possible recursive locking detected \]",
        "possible deadlock in {frame}",
        &NO_WAY,
    )
    .behind(TO_ACQUIRE_LOCK)
    .capture(1),
    Format::new(
        Lockdep,
        r"INFO: inconsistent lock state \]",
        "inconsistent lock state in {frame}",
        &NO_WAY,
    )
    .behind(TAKES)
    .capture(1),
    Format::new(
        RcuStall,
        r"INFO: rcu_[a-z_]+ (?:self-)?detected(?: expedited)? stall",
        "INFO: rcu detected stall in {frame}",
        &STALL,
    )
    .alts(&["stall in {frame}"]),
    Format::new(
        Lockdep,
        r"INFO: trying to register non-static key",
        "INFO: trying to register non-static key in {frame}",
        &REGISTERED,
    ),
    Format::new(
        Lockdep,
        r"INFO: suspicious RCU usage.*\n(?s:.*?){src}",
        "INFO: suspicious RCU usage in {frame}",
        &RCU_USED,
    ),
    Format::new(
        Lockdep,
        r"INFO: suspicious RCU usage",
        "INFO: suspicious RCU usage in {frame}",
        &NO_WAY,
    ),
    Format::new(
        HungTask,
        r"INFO: task (?s:.{1,80}?) blocked (?:in I/O wait )?for more than [0-9]+ seconds",
        "INFO: task hung in {frame}",
        &HUNG,
    )
    .alts(&["hang in {frame}"]),
    Format::new(
        HungTask,
        r"INFO: task .* can't die for more than .* seconds",
        "INFO: task can't die in {frame}",
        &HUNG,
    )
    .alts(&["hang in {frame}"]),
    Format::plain(Other, r"INFO:\s*(?:\n|$)", "INFO: corrupted").corrupted(),
    Format::plain(Other, r"INFO: (.*)", "INFO: {1}").corrupted(),
];

/// Whoever uses a lock that nobody initialised.
static REGISTERED: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: &["stack", "lock", "IRQ"],
    take: Take::First,
};

static HARD: &[Format] = &[Format::new(
    HardLockup,
    r"[Ww]atchdog detected hard LOCKUP",
    "BUG: hard lockup in {frame}",
    &LOCKUP,
)
.alts(&["stall in {frame}"])];

static BARE_STALL: &[Format] = &[Format::new(
    RcuStall,
    r"rcu_[a-z]+ self-detected stall",
    "INFO: rcu detected stall in {frame}",
    &STALL,
)
.alts(&["stall in {frame}"])];

static NOBODY: &[Format] =
    &[Format::new(Other, r"irq \d+: nobody cared", "irq: nobody cared in {frame}", &IN_TRACE)];

pub(super) static GROUPS: &[Group] = &[
    Group {
        literal: "INFO:",
        formats: INFO,
        not: &[
            r"INFO: lockdep is turned off",
            r"INFO: Stall ended before state dump start",
            r"INFO: NMI handler",
            r"_INFO:",
            r"INFO: recovery required",
            // Of the fuzzer, about what the kernel lacks.
            r"INFO: no syscalls can create",
            r"INFO: sys_\S* is not present in",
            // kernel/hung_task.c, debug_show_blocker(): what a task that hangs waits for.
            r"INFO: task .* blocked on an? ",
            r"rmt_storage:INFO:",
        ],
    },
    Group { literal: "atchdog detected hard LOCKUP", formats: HARD, not: &[] },
    Group { literal: "self-detected stall on CPU", formats: BARE_STALL, not: &[] },
    Group { literal: ": nobody cared (try booting", formats: NOBODY, not: &[] },
];
