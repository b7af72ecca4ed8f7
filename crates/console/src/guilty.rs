//! Which source file to blame, in a report that somebody symbolised.
//!
//! Decides from `file:line` alone: the first file that does not only carry what others do, in the
//! order in which the report names them. Biased to skip: a file of the core is blamed only where
//! the report names no other.

/// Files that carry: entry code, allocators, sanitizers, locking, scheduling, the socket and file
/// layers. A trailing `/` names a folder.
static CARRIERS: &[&str] = &[
    "include/",
    "Documentation/",
    "lib/",
    "tools/",
    "arch/x86/entry/",
    "arch/x86/include/",
    "arch/x86/lib/",
    "arch/x86/mm/",
    "arch/x86/kernel/",
    "arch/arm64/kernel/",
    "arch/arm64/mm/",
    "arch/arm64/lib/",
    "arch/arm64/include/",
    "arch/arm/kernel/",
    "arch/arm/mm/",
    "arch/riscv/kernel/",
    "arch/riscv/mm/",
    "arch/powerpc/kernel/",
    "kernel/locking/",
    "kernel/sched/",
    "kernel/rcu/",
    "kernel/printk/",
    "kernel/time/",
    "kernel/kcov.c",
    "kernel/kcsan/",
    "kernel/panic.c",
    "kernel/softirq.c",
    "kernel/kthread.c",
    "kernel/workqueue.c",
    "kernel/task_work.c",
    "kernel/entry/",
    "kernel/exit.c",
    "kernel/fork.c",
    "kernel/signal.c",
    "kernel/stacktrace.c",
    "kernel/hung_task.c",
    "kernel/watchdog.c",
    "kernel/irq/",
    "kernel/module.c",
    "kernel/notifier.c",
    "kernel/events/",
    "kernel/trace/",
    "kernel/refcount.c",
    "mm/",
    "fs/read_write.c",
    "fs/ioctl.c",
    "fs/file_table.c",
    "fs/open.c",
    "fs/namei.c",
    "fs/exec.c",
    "fs/splice.c",
    "fs/select.c",
    "fs/eventpoll.c",
    "fs/namespace.c",
    "fs/super.c",
    "fs/inode.c",
    "fs/fs-writeback.c",
    "fs/proc/",
    "fs/sysfs/",
    "fs/kernfs/",
    "net/socket.c",
    "net/compat.c",
    "net/core/sock.c",
    "net/core/skbuff.c",
    "net/core/dev.c",
    "net/core/datagram.c",
    "net/core/stream.c",
    "net/core/netevent.c",
    "net/netlink/af_netlink.c",
    "net/netlink/genetlink.c",
    "security/security.c",
    "drivers/base/",
    "drivers/usb/core/urb.c",
    "ipc/util.c",
    "init/",
    // The operating system of the secure world prints through the kernel's console.
    "trusty/",
    "crypto/api.c",
    "drivers/clocksource/",
    "drivers/irqchip/",
    "net/ipv4/tcp_output.c",
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
    // What held locks, interrupt flags and registers remember is older than the crash.
    let told = own.filter(|line| {
        !line.trim_start().starts_with('#')
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
    CARRIERS.iter().any(|c| if c.ends_with('/') { file.starts_with(c) } else { file == *c })
        || file.ends_with(".h")
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
