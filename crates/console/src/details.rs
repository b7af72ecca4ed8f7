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
        r"^#PF|^Mem abort|^ESR|^EC =",
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
