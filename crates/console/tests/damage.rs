//! Reports of which something is missing or not to be trusted: what is still named, and that it is
//! called damaged.

use kolumbo_console::read;

/// ` name+0x10/0x200` for each word.
fn frames(names: &str) -> String {
    names.split_whitespace().map(|name| format!(" {name}+0x10/0x200\n")).collect()
}

/// A report that comes with a stack alone.
fn stack(head: &str, callers: &str) -> String {
    format!("{head}\nCPU: 1 PID: 1234 Comm: worker\nCall Trace:\n{}", frames(callers))
}

/// What should follow a headline is missing.
#[test]
fn cut_off() {
    for (head, title, crash_type) in [
        (
            "WARNING: possible circular locking dependency detected",
            "WARNING: possible circular locking dependency detected",
            "WARNING",
        ),
        (
            "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
            "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
            "WARNING",
        ),
        (
            "WARNING: bad unlock balance detected!",
            "WARNING: bad unlock balance in corrupted",
            "LOCKDEP",
        ),
        (
            "[ BUG: bad unlock balance detected! ]",
            "BUG: bad unlock balance in corrupted",
            "LOCKDEP",
        ),
        ("WARNING: held lock freed!", "WARNING: held lock freed in corrupted", "LOCKDEP"),
        ("INFO:", "INFO: corrupted", "UNKNOWN"),
        ("WARNING:", "WARNING: corrupted", "WARNING"),
        ("BUG:", "BUG: corrupted", "UNKNOWN"),
    ] {
        let log = format!("[   57.000000] {head}\n[   57.000000] 6.6.0-rc1 #1 Not tainted\n");
        let result = read(log.as_bytes());
        let report = &result.reports[0];
        assert_eq!((report.title.as_str(), report.crash_type.as_str()), (title, crash_type));
        assert!(report.corrupted, "{head}");
    }
}

/// Stacks are lost: none is printed where there should be one, or what is remembered of them is damaged.
#[test]
fn damaged() {
    let bare = "general protection fault: 0000 [#1] SMP\nRIP: 0010:foo_do+0x14c/0x3f0\n? x+0x1/0x2";
    let bare = format!("{bare}\n{}", frames("foo_do bar"));
    let depot = stack("BUG: KASAN: use-after-free in foo_do+0x10/0x20\nRead of size 8", "foo_do")
        + "slab index 52160 out of bounds (604) for stack id 0283cbc0\n";
    for (log, reason) in [
        (bare, "there is no stack trace"),
        (depot.clone(), "the memory of stacks is damaged"),
        (depot.replace("for stack id", "of"), ""),
    ] {
        let report = &read(log.as_bytes()).reports[0];
        let said = report.corrupted_reason.as_deref().unwrap_or_default();
        assert!(said.starts_with(reason) && said.is_empty() == reason.is_empty(), "{said}: {log}");
    }
}

/// A log that ends within the trace: what is missing might have named another function.
#[test]
fn cut_off_in_the_trace() {
    for (frames, corrupted) in [(1, true), (2, false)] {
        let log: String = stack(
            "general protection fault: 0000 [#1] SMP\nRIP: 0010:foo_do+0x14c/0x3f0",
            "bar baz end",
        )
        .lines()
        .scan(None, |left: &mut Option<i32>, line| {
            *left = left.map(|n| n - 1).or(line.contains("Call Trace").then_some(frames));
            (*left >= Some(0) || left.is_none()).then(|| format!("[   57.000000] {line}\n"))
        })
        .collect();
        let report = &read(log.as_bytes()).reports[0];
        assert_eq!((report.frame.as_str(), report.corrupted), ("foo_do", corrupted), "{log}");
    }
}

/// A panic soon behind a warning brings its only trace; one behind a whole report repeats that one's.
/// What the unwinder guesses does not count.
#[test]
fn panics_behind_warnings() {
    for (filler, frame) in [(23, "foo_do"), (24, "corrupted")] {
        let body = format!(
            "WARNING: CPU: 1 PID: 1234 at net/foo.c:12 foo_do+0x10/0x20\n{}{}{}",
            "a line of somebody else\n".repeat(filler),
            " ? guess+0x1/0x2\n".repeat(20),
            stack(
                "Kernel panic - not syncing: panic_on_warn set ...",
                "panic __warn warn_slowpath_null foo_do"
            )
        );
        let log: String = body.lines().map(|l| format!("[   57.000000] {l}\n")).collect();
        let report = &read(log.as_bytes()).reports[0];
        assert_eq!(report.frame, frame, "{filler}");
        assert!(report.panicked);
    }
}
