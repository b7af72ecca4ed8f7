//! What the checker that fired had to say, besides registers and traces.
//!
//! Decides which lines are the access, the object, the shadow, the lock chain, the stall, and reads
//! the values in them. Every rule is one row of [`RULES`]. Sources: mm/kasan/report.c,
//! kernel/rcu/tree_stall.h, kernel/hung_task.c, kernel/locking/lockdep.c, lib/ubsan.c.

use std::sync::OnceLock;

use kolumbo_case::{CrashReport, Detail, DetailKind};
use regex::Regex;

use crate::text::Text;

/// Details that one crash keeps, and lines that one of them keeps.
const MAX_DETAILS: usize = 64;
const MAX_LINES: usize = 64;

/// Pattern with named groups, kind, and whether lines behind it that look alike belong to it.
static RULES: &[(&str, DetailKind, &str)] = &[
    (
        r"^(?P<access>Read|Write) (?:of size (?P<size>\d+) )?at addr (?P<address>[0-9a-f]+) by task (?P<task>.*)",
        DetailKind::MemoryAccess,
        "",
    ),
    (
        r"^(?P<access>Read|Write) of size (?P<size>\d+) by task (?P<task>.*)",
        DetailKind::MemoryAccess,
        "",
    ),
    (
        r"^The buggy address belongs to the object at (?P<object>[0-9a-f]+)",
        DetailKind::MemoryObject,
        r"^(?:which belongs to|The buggy address is located|\[)",
    ),
    (
        r"^Object at (?P<object>[0-9a-f]+), in cache (?P<cache>\S+) size: (?P<cache_size>\d+)",
        DetailKind::MemoryObject,
        "",
    ),
    (
        r"^The buggy address belongs to the page:",
        DetailKind::Page,
        r"^(?:page|raw|flags|page dumped|head|anon|index)",
    ),
    (
        r"^Memory state around the buggy address:",
        DetailKind::Shadow,
        r"^(?:>?\s*[0-9a-f]{8,16}: |\^)",
    ),
    (
        r"^(?P<access>read|write|read-write)(?: \(marked\))? to (?P<address>0x[0-9a-f]+) of (?P<size>\d+) bytes by (?P<task>task \d+|interrupt) on cpu (?P<cpu>\d+)",
        DetailKind::Race,
        "",
    ),
    (r"^value changed: (?P<old>0x[0-9a-f]+) -> (?P<new>0x[0-9a-f]+)", DetailKind::Race, ""),
    // mm/kfence/report.c
    (
        r"^(?P<access>(?:Out-of-bounds|Use-after-free|Invalid) (?:read|write|free)|Invalid free of|Corrupted memory) (?:at |of )?(?P<address>0x[0-9a-f]+)",
        DetailKind::MemoryAccess,
        "",
    ),
    (
        r"^kfence-#\d+ \[(?P<object>0x[0-9a-f]+)-0x[0-9a-f]+, size=(?P<size>\d+), cache=(?P<cache>[^\]]+)\]",
        DetailKind::MemoryObject,
        "",
    ),
    (
        r"^kfence-#\d+: (?P<object>0x[0-9a-f]+)-0x[0-9a-f]+, size=(?P<size>\d+), cache=(?P<cache>\S+)",
        DetailKind::MemoryObject,
        "",
    ),
    // mm/kmsan/report.c
    (
        r"^Bytes? (?P<bytes>[0-9-]+) of (?P<size>\d+) (?:is|are) uninitialized",
        DetailKind::MemoryAccess,
        "",
    ),
    (
        r"^Memory access of size (?P<size>\d+) starts at (?P<address>[0-9a-f]+)",
        DetailKind::MemoryAccess,
        "",
    ),
    (r"^Local variable (?P<variable>.+?) created at:", DetailKind::MemoryObject, ""),
    (r"^Chain exists of:", DetailKind::LockChain, r"-->"),
    (r"^-> #\d+ ", DetailKind::LockChain, ""),
    (
        r"(?:is trying to (?:acquire|release)|is freeing memory|takes:)",
        DetailKind::LockChain,
        r"at: ",
    ),
    (r"^(?:but task is|and this task is) already holding", DetailKind::LockChain, r"at: "),
    (r"^\d+ locks? held by (?P<task>.*?):?$", DetailKind::LocksHeld, r"^#\d+: "),
    (
        r"(?:rcu: )?\s*(?P<cpu>\d+)-\S+: \((?P<ticks>\d+ ticks this GP|.*GPs behind)\)",
        DetailKind::RcuStall,
        "",
    ),
    (
        r"\((?:detected by (?P<detected_by>\d+), )?t=(?P<jiffies>\d+) jiffies,? g=(?P<grace_period>-?\d+)",
        DetailKind::RcuStall,
        "",
    ),
    (
        r"INFO: task (?P<task>.+):(?P<pid>\d+) blocked (?:in I/O wait )?for more than (?P<seconds>\d+) seconds",
        DetailKind::HungTask,
        "",
    ),
    (
        r"soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<seconds>\d+)s! \[(?P<task>.*)\]",
        DetailKind::Lockup,
        "",
    ),
    (r"hard LOCKUP on cpu (?P<cpu>\d+)", DetailKind::Lockup, ""),
    (
        r"^UBSAN: (?P<what>.*) in (?P<file>\S+?):(?P<line>\d+)",
        DetailKind::UndefinedBehaviour,
        r"^[a-z]",
    ),
    (
        r"WARNING: (?:CPU: (?P<cpu>\d+) PID: (?P<pid>\d+) )?at (?P<file>\S+?):(?P<line>\d+)",
        DetailKind::Place,
        "",
    ),
    (r"WARNING: (?P<file>[^ :]+\.[a-zA-Z]+):(?P<line>\d+) at ", DetailKind::Place, ""),
    (r"[kK]ernel BUG at (?P<file>\S+?):(?P<line>\d+)!", DetailKind::Place, ""),
    (
        r"(?:BUG: unable to handle|BUG: kernel NULL|Unable to handle).*?(?:at|address:|address) (?:virtual address )?(?P<address>(?:0x)?[0-9a-f]{8,16})",
        DetailKind::Fault,
        r"^Mem abort",
    ),
    (
        r"^#PF: (?P<mode>supervisor|user) (?P<access>read|write|instruction fetch)",
        DetailKind::Fault,
        "",
    ),
    (r"^#PF: error_code\((?P<error_code>0x[0-9a-f]+)\)", DetailKind::Fault, ""),
    // arch/arm64/mm/fault.c: the syndrome register; the fault address is that of the headline.
    (r"^ESR = (?P<esr>0x[0-9a-f]+)", DetailKind::Fault, r"^EC =|^SET =|^EA =|^FSC ="),
    (r"^Internal error: .*: (?P<esr>[0-9a-f]{8,16}) \[#", DetailKind::Fault, ""),
    (
        r"^Unhandled fault: .* \((?P<error_code>0x[0-9a-f]+)\) at (?P<address>0x[0-9a-f]+)",
        DetailKind::Fault,
        "",
    ),
    (r"probably for non-canonical address (?P<address>0x[0-9a-f]+)", DetailKind::Fault, ""),
    (r"^PGD (?P<pgd>[0-9a-f]+)", DetailKind::PageTable, r"^(?:P4D|PUD|PMD|PTE)"),
    (r"^\[[0-9a-f]+\] (?:\*?pgd)=", DetailKind::PageTable, ""),
    (r"Kernel panic - not syncing: (?P<reason>.*)", DetailKind::Panic, ""),
];

fn rules() -> &'static [(Regex, DetailKind, Option<Regex>)] {
    static COMPILED: OnceLock<Vec<(Regex, DetailKind, Option<Regex>)>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let compile = |p: &str| Regex::new(p).expect("a fixed pattern");
        RULES
            .iter()
            .map(|(first, kind, more)| {
                (compile(first), *kind, (!more.is_empty()).then(|| compile(more)))
            })
            .collect()
    })
}

/// Whether a line begins a detail, or is the place of a lock in one.
pub(crate) fn is_detail(line: &str) -> bool {
    line.contains("}, at: ") || rules().iter().any(|(first, ..)| first.is_match(line))
}

/// Adds the details among the lines with the given indices to `report`.
pub(crate) fn fill(report: &mut CrashReport, text: &Text, lines: &[usize]) {
    let mut more: Option<&Regex> = None;
    for &index in lines {
        let line = text.lines[index].text.trim();
        if line.is_empty() {
            continue;
        }
        let span = text.span(index, index + 1);
        let found = rules()
            .iter()
            .find_map(|(first, kind, more)| Some((first, first.captures(line)?, *kind, more)));
        if let Some((pattern, captures, kind, behind)) = found {
            if report.details.len() >= MAX_DETAILS || line.starts_with("---[ end") {
                continue;
            }
            let mut detail =
                Detail { kind, lines: vec![line.to_owned()], span, ..Default::default() };
            for name in pattern.capture_names().flatten() {
                if let Some(value) = captures.name(name) {
                    detail.values.insert(name.to_owned(), value.as_str().to_owned());
                }
            }
            report.details.push(detail);
            more = behind.as_ref();
            continue;
        }
        match (more, report.details.last_mut()) {
            (Some(pattern), Some(detail))
                if pattern.is_match(line) && detail.lines.len() < MAX_LINES =>
            {
                detail.lines.push(line.to_owned());
                detail.span.end = span.end;
            }
            _ => more = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &str) -> Vec<(DetailKind, String)> {
        let text = crate::text::split(lines.as_bytes(), 0, 0, false);
        let all: Vec<usize> = (0..text.lines.len()).collect();
        let mut report = CrashReport::default();
        fill(&mut report, &text, &all);
        let values = |d: &Detail| {
            d.values.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        report.details.iter().map(|d| (d.kind, values(d))).collect()
    }

    #[test]
    fn what_checkers_say() {
        for (line, kind, values) in [
            (
                "Read of size 8 at addr ffff8801 by task a/1",
                DetailKind::MemoryAccess,
                "access=Read address=ffff8801 size=8 task=a/1",
            ),
            (
                "Out-of-bounds read at 0xffff8c2aae231fff (1B left of kfence-#24):",
                DetailKind::MemoryAccess,
                "access=Out-of-bounds read address=0xffff8c2aae231fff",
            ),
            (
                "Corrupted memory at 0xffff8c2aae2b2ff9 [ 0xac . ] (in kfence-#88):",
                DetailKind::MemoryAccess,
                "access=Corrupted memory address=0xffff8c2aae2b2ff9",
            ),
            (
                "kfence-#24 [0xffff8c2aae232000-0xffff8c2aae23201f, size=32, cache=kmalloc-32] allocated by task 110:",
                DetailKind::MemoryObject,
                "cache=kmalloc-32 object=0xffff8c2aae232000 size=32",
            ),
            ("Bytes 4-7 of 18 are uninitialized", DetailKind::MemoryAccess, "bytes=4-7 size=18"),
            (
                "Memory access of size 18 starts at ffff888090c4fe00",
                DetailKind::MemoryAccess,
                "address=ffff888090c4fe00 size=18",
            ),
            ("Local variable buf created at:", DetailKind::MemoryObject, "variable=buf"),
            (
                "value changed: 0x00000000 -> 0x00000001",
                DetailKind::Race,
                "new=0x00000001 old=0x00000000",
            ),
            (
                "#PF: supervisor write access in kernel mode",
                DetailKind::Fault,
                "access=write mode=supervisor",
            ),
            ("#PF: error_code(0x0002) - not-present page", DetailKind::Fault, "error_code=0x0002"),
            ("  ESR = 0x0000000096000005", DetailKind::Fault, "esr=0x0000000096000005"),
            (
                "Internal error: Oops: 0000000096000005 [#1] PREEMPT SMP",
                DetailKind::Fault,
                "esr=0000000096000005",
            ),
            (
                "Unhandled fault: page domain fault (0x01b) at 0x00000e30",
                DetailKind::Fault,
                "address=0x00000e30 error_code=0x01b",
            ),
            ("2 locks held by a/1:", DetailKind::LocksHeld, "task=a/1"),
            (
                "INFO: task a b:12 blocked for more than 120 seconds.",
                DetailKind::HungTask,
                "pid=12 seconds=120 task=a b",
            ),
            (
                "(detected by 1, t=147019 jiffies, g=-1003, q=2 ncpus=2)",
                DetailKind::RcuStall,
                "detected_by=1 grace_period=-1003 jiffies=147019",
            ),
        ] {
            assert_eq!(found(line), [(kind, values.to_owned())], "{line}");
        }
        assert!(found("nothing of the kind").is_empty());
    }
}
