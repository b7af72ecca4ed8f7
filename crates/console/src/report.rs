//! A named crash and its lines to the report that others read.
//!
//! Decides where a crash ends: at the next headline that is not its own consequence. Main items:
//! [`segment_end`], [`report_of`].

use kolumbo_case::{CrashReport, HeadlineKind, Passage};

use crate::crash::{Named, group_of, is_track};
use crate::details::is_detail;
use crate::dump::fill_parts;
use crate::frame::parse_frame;
use crate::guilty::guilty_file;
use crate::text::{Line, Text};

/// A second headline within that many lines, before any frame, says more about the first.
const COMPANION_LINES: usize = 14;
/// Lines without anything of a crash behind which it is over.
const QUIET_LINES: usize = 60;

/// Index behind the last line of the crash.
pub(crate) fn segment_end(text: &Text, named: &Named) -> usize {
    let Some(&head) = named.lines.first() else { return 0 };
    let mut frames = 0;
    let mut last = head;
    let mut ended = false;
    let mut panicked = named.kind == Some(HeadlineKind::Panic);
    for (n, &index) in named.lines.iter().enumerate() {
        let line = text.lines[index].text.as_str();
        if n > 0
            && !line.contains("---[ end ")
            && !is_track(line)
            && let Some(group) = group_of(line)
        {
            let panic = group.literal == "Kernel panic";
            let companion = if panic {
                !panicked && (is_consequence(line) || n <= 25)
            } else {
                frames == 0 && n <= COMPANION_LINES && !ended
            };
            if !companion {
                break;
            }
            panicked |= panic;
            last = index;
        }
        if parse_frame(line).is_some() {
            frames += 1;
            last = index;
        } else if is_part(line) || is_detail(line.trim()) {
            last = index;
        }
        ended |= line.starts_with("---[ end trace");
        if index > last + QUIET_LINES {
            break;
        }
    }
    behind_panic(text, last + 1)
}

/// The panic that a crash led to belongs to it, with the stack that it prints. It stands right
/// behind the crash, at the same depth.
fn behind_panic(text: &Text, end: usize) -> usize {
    let Some(head) = end.checked_sub(1).and_then(|n| text.lines.get(n)) else { return end };
    let same = |l: &&Line| l.depth == head.depth;
    let near = text.lines[end..].iter().take(40).take_while(same);
    let found = near.enumerate().find(|(_, l)| group_of(&l.text).is_some());
    let Some((at, _)) = found
        .filter(|(_, l)| l.text.contains("Kernel panic - not syncing") && is_consequence(&l.text))
    else {
        return end;
    };
    let mut last = end + at + 1;
    for (n, line) in text.lines.iter().enumerate().skip(last).take(200) {
        let closing = line.text.contains("---[ end Kernel panic");
        if line.depth != head.depth || !closing && group_of(&line.text).is_some() {
            break;
        }
        if closing || is_part(&line.text) || parse_frame(&line.text).is_some() {
            last = n + 1;
        }
        if closing || n > last + QUIET_LINES {
            break;
        }
    }
    last
}

/// A panic that follows from a crash, by its text (kernel/panic.c and its callers).
fn is_consequence(line: &str) -> bool {
    [
        "Fatal ",
        "panic_on_",
        "hung_task",
        "softlockup",
        "Hard LOCKUP",
        "Attempted to kill",
        "RCU Stall",
        "scheduling while atomic",
        "Machine halted",
        "KASAN",
        "KFENCE",
        "UBSAN",
        "Oops",
    ]
    .iter()
    .any(|t| line.contains(t))
}

/// Lines that belong to a dump without being frames.
fn is_part(line: &str) -> bool {
    let line = line.trim();
    [
        "RIP:",
        "RSP:",
        "RAX:",
        "RDX:",
        "RBP:",
        "R10:",
        "R13:",
        "FS:",
        "CS:",
        "CR2:",
        "DR0:",
        "DR3:",
        "Code:",
        "Call Trace",
        "Call trace",
        "</",
        "<",
        "---[ end",
        "CPU:",
        "Hardware name:",
        "Modules linked in",
        "Workqueue:",
        "Kernel Offset",
        "#",
        "->",
        "x",
        "pc :",
        "lr :",
        "sp :",
        "ESR",
        "rcu:",
        "=====",
        ">ffff",
        "page:",
        "Memory state",
    ]
    .iter()
    .any(|t| line.starts_with(t))
}

/// The whole report; lines at or behind index `last` are not its own.
pub(crate) fn report_of(text: &Text, named: Named, last: usize) -> CrashReport {
    let head = named.lines.first().copied().unwrap_or(0);
    let own: Vec<usize> = named.lines.iter().copied().take_while(|&i| i < last).collect();
    let line = &text.lines[head];
    let lines: Vec<&str> = named.lines.iter().map(|&i| text.lines[i].text.as_str()).collect();
    let stalled = named.kind == Some(HeadlineKind::RcuStall);
    let mut report = CrashReport {
        title: named.title,
        alt_titles: named.alts,
        crash_type: named.crash_type.to_owned(),
        kind: named.kind,
        frame: named.frame,
        guilty_file: guilty_file(&lines, stalled),
        corrupted: named.corrupted.is_some(),
        corrupted_reason: named.corrupted,
        panicked: named.panicked,
        span: text.span(head, own.last().map_or(head + 1, |l| l + 1)),
        quote_depth: line.depth,
        headline: Passage { text: line.text.trim().to_owned(), span: text.span(head, head + 1) },
        time: line.time.clone(),
        ..Default::default()
    };
    fill_parts(&mut report, text, &own);
    report
}
