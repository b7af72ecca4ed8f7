//! Which source file to blame, in a report that somebody symbolised.
//!
//! Decides from `file:line` alone: the first file that does not only carry what others do, in the
//! order in which the report names them. Biased to skip: a file of the core is blamed only where
//! the report names no other. What calls everything (system calls, the exit of a task) is no
//! carrier: it is to blame where it stands innermost.

/// Files that carry: entry code, allocators, sanitizers, locking, scheduling, the core of sockets. A
/// name is a beginning; `*` stands for anything but a slash, `?` for one character.
static CARRIERS: &[&str] = &[
    // No code of its own: what it declares runs inside others.
    "include/",
    "Documentation/",
    "tools/",
    "scripts/",
    "lib/",
    "virt/lib/",
    // The operating system of the secure world prints through the kernel's console.
    "trusty/",
    // Sanitizers, allocators, the page cache.
    "kernel/kcov.c",
    "kernel/kcsan/",
    "mm/kasan/",
    "mm/kmsan/",
    "mm/kfence/",
    "mm/kmemleak.c",
    "mm/sl?b.c",
    "mm/slab_common.c",
    "mm/dmapool.c",
    "mm/filemap.c",
    "mm/folio-compat.c",
    "mm/truncate.c",
    "mm/memory.c",
    "mm/mempool.c",
    "mm/mempolicy.c",
    "mm/page_alloc.c",
    "mm/percpu*",
    "mm/usercopy.c",
    "mm/util.c",
    "mm/vmalloc.c",
    "mm/maccess.c",
    "mm/debug.c",
    // Entries, traps and unwinders of every machine.
    "arch/*/entry/",
    "arch/*/lib/",
    "arch/*/mm/",
    "arch/*/include/",
    "arch/*/kernel/traps",
    "arch/*/kernel/unwind",
    "arch/*/kernel/stacktrace",
    "arch/*/kernel/dumpstack",
    "arch/*/kernel/entry",
    "arch/*/kernel/process",
    "arch/*/kernel/irq",
    "arch/*/kernel/apic/",
    "arch/*/kernel/debug",
    "arch/*/kernel/smp",
    "arch/*/kernel/syscall",
    "arch/*/kernel/kvm.c",
    "arch/*/kernel/paravirt",
    "arch/*/kernel/hw_breakpoint",
    "kernel/entry/",
    // Waiting, running and reporting.
    "kernel/locking/",
    "kernel/rcu/",
    "kernel/sched/",
    "kernel/printk/",
    "kernel/irq/",
    "kernel/hung_task.c",
    "kernel/irq_work.c",
    "kernel/kthread.c",
    "kernel/panic.c",
    "kernel/softirq.c",
    "kernel/stacktrace.c",
    "kernel/time/",
    "kernel/watchdog.c",
    "kernel/workqueue.c",
    // Layers that hand every call on.
    "drivers/base/",
    "drivers/clocksource/",
    "drivers/irqchip/",
    "drivers/usb/core/urb.c",
    "fs/proc/generic.c",
    "net/core/datagram.c",
    "net/core/dev.c",
    "net/core/skbuff.c",
    "net/core/sock.c",
    "net/core/stream.c",
];

/// Where the tick stands on a stack: whoever is stuck is below it.
const TICKS: &[&str] =
    &["apic_timer_interrupt+0x", "el1h_64_irq+0x", "el1_irq+0x", "Exception stack"];

/// The file to blame among `lines`, which begin at the headline. For a stall (`stalled`) the stacks
/// above the tick belong to whoever noticed it.
pub(crate) fn guilty_file(lines: &[&str], stalled: bool) -> Option<String> {
    let below = TICKS.iter().filter(|_| stalled).find_map(|tick| {
        let at = lines.iter().position(|l| l.contains(tick))?;
        first_file(&lines[at..]).filter(|f| !carries(f))
    });
    below.or_else(|| first_file(lines)).map(str::to_owned)
}

/// The first file that does not only carry, or the first of all. Where another one follows that
/// stands deeper below the same folder, that one says more: `net/core` calls, `net/core/x` is called.
fn first_file<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let own = lines.iter().take_while(|line| !line.starts_with("---[ end "));
    // What held locks, interrupt flags and registers remember is older than the crash, and a frame
    // that the unwinder guessed may be.
    let told = own.filter(|line| {
        !line.trim_start().starts_with('#')
            && !line.contains(" ? ")
            && !line.contains("irqs last ")
            && !line.starts_with("Register r")
    });
    let files: Vec<&str> =
        told.flat_map(|l| l.split([' ', '(', ')']).filter_map(source_file)).collect();
    let mut guilty_files = files.iter().copied().filter(|f| !carries(f));
    let mut guilty = guilty_files.next().or(files.first().copied())?;
    for file in guilty_files {
        let folder = guilty.rsplit_once('/').map_or("", |(folder, _)| folder);
        let inside = file.strip_prefix(folder).and_then(|f| f.strip_prefix('/'));
        if !folder.is_empty() && inside.is_some_and(|f| f.contains('/')) {
            guilty = file;
        }
    }
    Some(guilty)
}

fn carries(file: &str) -> bool {
    file.ends_with(".h") || CARRIERS.iter().any(|carrier| begins_with(file, carrier))
}

/// `pattern` fits a beginning of `file`.
fn begins_with(file: &str, pattern: &str) -> bool {
    match pattern.find(['*', '?']) {
        None => file.starts_with(pattern),
        Some(at) => {
            let Some(rest) = file.strip_prefix(&pattern[..at]) else { return false };
            let after = &pattern[at + 1..];
            if pattern.as_bytes()[at] == b'?' {
                let mut rest = rest.chars();
                return rest.next().is_some() && rest.as_str().starts_with(after);
            }
            let folder = rest.find('/').unwrap_or(rest.len());
            after.is_empty() || rest[folder..].starts_with(after)
        }
    }
}

fn source_file(word: &str) -> Option<&str> {
    let (file, line) = word.split_once(':')?;
    let known = [".c", ".h", ".S", ".rs"].iter().any(|e| file.ends_with(e));
    let number = line.split(':').next().unwrap_or("");
    let file = file.strip_prefix("./").unwrap_or(file);
    (known
        && file.contains('/')
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit()))
    .then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_are_passed_over() {
        let trace = [
            " dump_stack+0x1/0x2 lib/dump_stack.c:52",
            " kfree+0x1/0x2 mm/slab.c:3",
            " foo net/llc/llc_sap.c:294 [inline]",
            " bar+0x1/0x2 net/ipv4/ip.c:1",
        ];
        let file = |lines: &[&str], stalled| guilty_file(lines, stalled).unwrap_or_default();
        assert_eq!(file(&trace, false), "net/llc/llc_sap.c");
        assert_eq!(file(&trace[..2], false), "lib/dump_stack.c");
        assert_eq!(file(&[" foo+0x1/0x2"], false), "");
        let cached = [
            " xas_load+0x1/0x2 lib/xarray.c:1",
            " find_lock_entries+0x1/0x2 mm/filemap.c:1",
            " truncate_inode_pages+0x1/0x2 mm/truncate.c:1",
            " foo_evict_inode+0x1/0x2 fs/foo/inode.c:1",
            " __fput+0x1/0x2 fs/file_table.c:1",
        ];
        assert_eq!(file(&cached, false), "fs/foo/inode.c");
        let own =
            [" __fput+0x1/0x2 fs/file_table.c:1", " task_work_run+0x1/0x2 kernel/task_work.c:1"];
        assert_eq!(file(&own, false), "fs/file_table.c");
        let deeper = [" a+0x1/0x2 net/ipv4/ip.c:1", " b+0x1/0x2 net/ipv4/netfilter/ipt.c:1"];
        assert_eq!(file(&deeper, false), "net/ipv4/netfilter/ipt.c");
        let stall = [
            " a+0x1/0x2 net/noticed.c:1",
            " asm_sysvec_apic_timer_interrupt+0x1/0x2 arch/x86/include/asm/idtentry.h:1",
            " b+0x1/0x2 net/stuck.c:1",
        ];
        assert_eq!(
            (file(&stall, true), file(&stall, false)),
            ("net/stuck.c".into(), "net/noticed.c".into())
        );
    }
}
