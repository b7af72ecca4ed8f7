//! Which line announces trouble, and of what kind.
//!
//! Decides from one line alone and is cheap enough for every line of a console that floods. It
//! knows the kernel's own headlines only and asks for the words around them, since a false
//! accusation is worse than silence: a program that prints `WARNING:` or `BUG` does not fire. It may
//! not know traces, titles or what came before. Main type: [`Headline`].

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};
use kolumbo_case::HeadlineKind;

/// A line that announces trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headline {
    /// What kind of trouble.
    pub kind: HeadlineKind,
    /// The kernel does not go on after this line: it panicked or halted.
    pub ends_kernel: bool,
    /// Where the headline begins in the line, as a byte index.
    pub at: usize,
}

/// What must stand around a literal, beyond the literal itself.
type Guard = fn(before: &str, after: &str) -> bool;

struct Row {
    literal: &'static str,
    kind: HeadlineKind,
    ends: bool,
    guard: Guard,
}

fn always(_: &str, _: &str) -> bool {
    true
}

/// `traps: init[1] general protection fault ip:7f.. sp:7f..` is a signal for a program.
fn not_a_program(before: &str, after: &str) -> bool {
    !before.contains("traps: ") && !after.contains(" ip:") && !after.contains(" sp:")
}

/// The trap's error code and the oops counter follow (`die()`): `divide error: 0000 [#1] SMP`.
fn counted(before: &str, after: &str) -> bool {
    not_a_program(before, after) && after.contains("[#")
}

fn not_the_end_of_a_panic(before: &str, _: &str) -> bool {
    !before.ends_with("---[ end ")
}

/// Nothing but prefixes stands before it: `BUG: ` in the middle of a sentence is prose.
fn opens_the_message(before: &str, _: &str) -> bool {
    let before = before.trim_end();
    before.is_empty() || before.ends_with([']', '>', ':', '|', '='])
}

/// `WARNING: CPU: 1 PID: 2 at file.c:3 fn+0x4/0x5`, `WARNING: at file.c:3 fn()` and, since v6.18,
/// `WARNING: file.c:3 at fn+0x4/0x5, CPU#1: comm/2`.
fn warned_by_the_kernel(_: &str, after: &str) -> bool {
    if after.starts_with("CPU: ") || after.starts_with("at ") {
        return true;
    }
    let Some((place, rest)) = after.split_once(" at ") else {
        return false;
    };
    let is_place = place.rsplit_once(':').is_some_and(|(file, line)| {
        !file.is_empty() && !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit())
    });
    is_place && rest.contains("+0x")
}

/// SLUB's `BUG kmalloc-64 (Not tainted): Poison overwritten`.
fn slab_cache_named(before: &str, after: &str) -> bool {
    opens_the_message(before, after)
        && (after.contains("(Not tainted): ")
            || after.contains("(Tainted: ") && after.contains("): "))
}

const fn row(literal: &'static str, kind: HeadlineKind) -> Row {
    Row { literal, kind, ends: false, guard: always }
}

const fn guarded(literal: &'static str, kind: HeadlineKind, guard: Guard) -> Row {
    Row { literal, kind, ends: false, guard }
}

const fn ending(literal: &'static str, guard: Guard) -> Row {
    Row { literal, kind: HeadlineKind::Panic, ends: true, guard }
}

use HeadlineKind::{
    BadPageState, Corruption, HardLockup, HungTask, Interrupt, Kasan, Kcsan, KernelBug, Kfence,
    Kmsan, Lockdep, MachineCheck, MemoryLeak, Oops, Other, OutOfMemory, RcuStall,
    SchedulingWhileAtomic, SoftLockup, Trap, Ubsan, Warning, WorkqueueLockup,
};

/// The literals, most telling first: where two begin at the same place, the earlier row wins.
/// Sources: kernel/panic.c, kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h,
/// kernel/locking/lockdep.c, lib/bug.c, mm/, arch/*/kernel/traps.c and arch/*/mm/fault.c, v4.4 to v6.18.
static ROWS: &[Row] = &[
    ending("Kernel panic - not syncing", not_the_end_of_a_panic),
    // arch/x86/kernel/head_64.S and early_idt handlers: the CPU halts behind it.
    ending("PANIC: early exception", always),
    // arch/x86/boot/compressed/error.c
    ending("-- System halted", always),
    row("PANIC: double fault", Oops),
    row("BUG: KASAN: ", Kasan),
    row("BUG: KMSAN: ", Kmsan),
    row("BUG: KCSAN: ", Kcsan),
    row("BUG: KFENCE: ", Kfence),
    row("UBSAN: ", Ubsan),
    row("BUG: unable to handle ", Oops),
    row("BUG: kernel NULL pointer dereference", Oops),
    row("stack guard page was hit", Oops),
    row("Unable to handle kernel ", Oops),
    guarded("Unhandled fault: ", Oops, not_a_program),
    row("Internal error: ", Oops),
    guarded("Oops: ", Oops, counted),
    guarded("general protection fault: ", Oops, counted),
    guarded("general protection fault, ", Oops, not_a_program),
    guarded("double fault: ", Oops, counted),
    row("Insufficient stack space to handle exception", Oops),
    row("Bad mode in ", Oops),
    row("CFI failure at ", Oops),
    row("kernel BUG at ", KernelBug),
    row("soft lockup - CPU#", SoftLockup),
    row("Watchdog detected hard LOCKUP", HardLockup),
    row("detected stalls on ", RcuStall),
    row("detected expedited stalls on ", RcuStall),
    row("self-detected stall on CPU", RcuStall),
    row(" kthread starved for ", RcuStall),
    guarded("INFO: task ", HungTask, |_, after| after.contains(" blocked ")),
    row("BUG: workqueue lockup", WorkqueueLockup),
    row("possible circular locking dependency detected", Lockdep),
    row("possible recursive locking detected", Lockdep),
    row("possible irq lock inversion dependency detected", Lockdep),
    row("lock order detected", Lockdep),
    guarded("inconsistent lock state", Lockdep, opens_the_message),
    row("suspicious RCU usage", Lockdep),
    row("bad unlock balance detected", Lockdep),
    row("bad contention detected", Lockdep),
    row("held lock freed!", Lockdep),
    row("lock held when returning to user space", Lockdep),
    row("Nested lock was not taken", Lockdep),
    row("BUG: Invalid wait context", Lockdep),
    row("INFO: trying to register non-static key", Lockdep),
    row("BUG: MAX_LOCK", Lockdep),
    row("BUG: MAX_STACK_TRACE_ENTRIES too low", Lockdep),
    row("BUG: spinlock ", Lockdep),
    row("BUG: rwlock ", Lockdep),
    row("BUG: using __this_cpu_", SchedulingWhileAtomic),
    row("BUG: using smp_processor_id() in preemptible", SchedulingWhileAtomic),
    row("BUG: scheduling while atomic", SchedulingWhileAtomic),
    row("BUG: sleeping function called from invalid context", SchedulingWhileAtomic),
    guarded("WARNING: ", Warning, warned_by_the_kernel),
    row("WARNING: kernel stack ", Warning),
    row("WARNING: stack recursion ", Warning),
    row("unchecked MSR access error: ", Warning),
    row("BUG: Bad page ", BadPageState),
    row("BUG: Bad rss-counter state", BadPageState),
    row("BUG: non-zero ", BadPageState),
    row("list_add corruption", Corruption),
    row("list_del corruption", Corruption),
    row("slab error in ", Corruption),
    row("Slab corruption", Corruption),
    guarded("BUG ", Corruption, slab_cache_named),
    row("BUG: memory leak", MemoryLeak),
    guarded("kmemleak: ", MemoryLeak, |_, after| after.contains("new suspected memory leaks")),
    guarded("divide error: ", Trap, counted),
    guarded("divide_error: ", Trap, counted),
    guarded("invalid opcode: ", Trap, counted),
    guarded("int3: ", Trap, counted),
    guarded("stack segment: ", Trap, counted),
    guarded("segment not present: ", Trap, counted),
    guarded("invalid TSS: ", Trap, counted),
    guarded("alignment check: ", Trap, counted),
    guarded("bounds: ", Trap, counted),
    guarded("overflow: ", Trap, counted),
    guarded("control protection fault", Trap, not_a_program),
    row("mce: [Hardware Error]: CPU ", MachineCheck),
    row("mce: [Hardware Error]: Machine check: ", MachineCheck),
    row("Out of memory: Kill", OutOfMemory),
    guarded("irq ", Interrupt, |_, after| after.contains(": nobody cared")),
    row("NMI received for unknown reason", Interrupt),
    row("unregister_netdevice: waiting for ", Other),
    guarded("BUG: ", Other, opens_the_message),
];

/// The headline in `line`, which may still carry its printk prefix, or none.
///
/// Biased to silence: a literal alone is not enough where programs print it, too.
pub fn classify(line: &str) -> Option<Headline> {
    static SEARCH: OnceLock<AhoCorasick> = OnceLock::new();
    let search = SEARCH.get_or_init(|| {
        AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(ROWS.iter().map(|r| r.literal))
            .expect("a few dozen short literals always build")
    });
    let mut best: Option<(usize, usize)> = None;
    for found in search.find_overlapping_iter(line) {
        let (row, at) = (found.pattern().as_usize(), found.start());
        if best.is_some_and(|b| b <= (row, at)) {
            continue;
        }
        if (ROWS[row].guard)(&line[..at], &line[found.end()..]) {
            best = Some((row, at));
        }
    }
    best.map(|(row, at)| Headline { kind: ROWS[row].kind, ends_kernel: ROWS[row].ends, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Option<(HeadlineKind, bool)> {
        classify(line).map(|h| (h.kind, h.ends_kernel))
    }

    #[test]
    fn headlines_of_the_kernel() {
        for (line, expected) in [
            ("[    1.0] Kernel panic - not syncing: No working init found.", HeadlineKind::Panic),
            (
                "PANIC: early exception 0x0d IP 10:ffffffff81000000 error 0 cr2 0x0",
                HeadlineKind::Panic,
            ),
            (" -- System halted", HeadlineKind::Panic),
            ("traps: PANIC: double fault, error_code: 0x0", Oops),
            ("BUG: unable to handle page fault for address: ffffffffffffff10", Oops),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000000", Oops),
            ("Oops: 0000 [#1] PREEMPT SMP NOPTI", Oops),
            ("Oops: Oops: 0002 [#1] SMP", Oops),
            ("general protection fault: 0000 [#1] SMP", Oops),
            (
                "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
                Oops,
            ),
            ("Internal error: Oops - BUG: 0 [#1] PREEMPT SMP ARM", Oops),
            ("kernel BUG at mm/slub.c:3! ", KernelBug),
            ("invalid opcode: 0000 [#1] PREEMPT SMP", Trap),
            ("int3: 0000 [#1] SMP", Trap),
            ("divide error: 0000 [#1] SMP", Trap),
            ("divide_error: 0000 [#1] PREEMPT SMP", Trap),
            ("WARNING: CPU: 0 PID: 1 at kernel/smp.c:3 fn+0x1/0x2", Warning),
            ("WARNING: kernel/smp.c:3 at fn+0x1/0x2, CPU#0: swapper/1", Warning),
            ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [init:1]", SoftLockup),
            ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 0", HardLockup),
            ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", RcuStall),
            ("rcu: INFO: rcu_sched self-detected stall on CPU", RcuStall),
            ("INFO: task kworker/0:1:12 blocked for more than 120 seconds.", HungTask),
            ("WARNING: possible circular locking dependency detected", Lockdep),
            ("WARNING: inconsistent lock state", Lockdep),
            ("[ BUG: Invalid wait context ]", Lockdep),
            ("BUG: KASAN: slab-out-of-bounds in fn+0x1/0x2", Kasan),
            ("UBSAN: array-index-out-of-bounds in a.c:1:2", Ubsan),
            ("BUG: Bad page state in process init  pfn:12345", BadPageState),
            ("BUG kmalloc-64 (Not tainted): Poison overwritten", Corruption),
            ("BUG: scheduling while atomic: init/1/0x00000002", SchedulingWhileAtomic),
            ("irq 9: nobody cared (try booting with the \"irqpoll\" option)", Interrupt),
            ("BUG: something new", Other),
        ] {
            let ends = expected == HeadlineKind::Panic;
            assert_eq!(kind(line), Some((expected, ends)), "{line}");
        }
    }

    #[test]
    fn healthy_lines_stay_silent() {
        for line in [
            "",
            "---[ end Kernel panic - not syncing: Fatal exception ]---",
            "traps: init[1] general protection fault ip:7f00 sp:7f01 error:0 in libc.so",
            "traps: init[1] trap invalid opcode ip:7f00 sp:7f01 error:0 in a.out",
            "traps: init[1] trap divide error ip:7f00 sp:7f01 error:0 in a.out",
            "WARNING: apt does not have a stable CLI interface.",
            "WARNING: the device has been at risk for 12 days",
            "DEBUG: BUGS are fun",
            "init: found a BUG: no",
            "rcu: Hierarchical RCU implementation.",
            "reboot: System halted",
            "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
            "ACPI: Enabled 2 GPEs in block 00 to 0F",
            "irq 9: affinity set",
            "x86/fpu: bounds: none",
            "segfault at 0 ip 0 sp 0 error 4",
            "mce: CPU supports 10 MCE banks",
        ] {
            assert_eq!(kind(line), None, "{line}");
        }
    }
}
