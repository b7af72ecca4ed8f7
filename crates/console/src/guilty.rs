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
    "crypto/api.c",
    "drivers/clocksource/",
    "drivers/irqchip/",
    "net/ipv4/tcp_output.c",
];

/// The file to blame among `lines`, which begin at the headline.
pub(crate) fn guilty_file<'a>(lines: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut first = None;
    for line in lines {
        if line.starts_with("---[ end ") {
            break;
        }
        // Locks that are held name files, too, but those are not to blame.
        if line.contains(", at: ") || line.trim_start().starts_with('#') {
            continue;
        }
        for word in line.split([' ', '(', ')']) {
            let Some(file) = source_file(word) else { continue };
            if !CARRIERS
                .iter()
                .any(|c| if c.ends_with('/') { file.starts_with(c) } else { file == *c })
            {
                return Some(file.to_owned());
            }
            first.get_or_insert_with(|| file.to_owned());
        }
    }
    first
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
        assert_eq!(guilty_file(trace.into_iter()).as_deref(), Some("net/llc/llc_sap.c"));
        assert_eq!(guilty_file(trace[..2].iter().copied()).as_deref(), Some("lib/dump_stack.c"));
        assert_eq!(guilty_file([" foo+0x1/0x2"].into_iter()), None);
    }
}
