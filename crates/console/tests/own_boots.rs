//! Logs of our own runs, as they are and as a mailer would send them.

use kolumbo_case::{HeadlineKind, Phase, ReadResult};
use kolumbo_console::{ReadOptions, Reader, read};

const SYSRQ: &[u8] = include_bytes!("fixtures/sysrq-crash.log");

/// The log in a mail: wrapped at `width` columns, then quoted `depth` times.
fn as_mail(log: &[u8], depth: usize, width: usize) -> String {
    let mut mail =
        "From: a@example.org\nDate: Mon, 7 May 2018 13:49:18 +0000\n\nIt died:\n\n".to_owned();
    for line in String::from_utf8_lossy(log).lines() {
        // Terminals' escape sequences do not survive a mailer.
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let mut rest = line.as_str();
        loop {
            let cut = if rest.len() <= width {
                rest.len()
            } else {
                rest[..width].rfind(' ').filter(|&n| n > 20).unwrap_or(rest.len())
            };
            mail += &format!("{}{}\n", "> ".repeat(depth), &rest[..cut]);
            rest = rest[cut..].trim_start();
            if rest.is_empty() {
                break;
            }
        }
    }
    mail
}

fn check(result: &ReadResult, depth: u32) {
    assert_eq!(
        result.reports.len(),
        1,
        "{:?}",
        result.reports.iter().map(|r| &r.title).collect::<Vec<_>>()
    );
    let report = &result.reports[0];
    assert_eq!(report.title, "kernel panic: sysrq triggered crash");
    assert_eq!(
        (report.kind, report.panicked, report.quote_depth),
        (Some(HeadlineKind::Panic), true, depth)
    );
    assert_eq!((report.context.pid, report.context.comm.as_deref()), (Some(87), Some("busybox")));
    assert_eq!(report.context.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
    let trace = &report.traces[0];
    assert_eq!(trace.frames.len(), 18);
    assert_eq!(trace.frames.iter().filter(|f| f.reliable).count(), 10);
    let user = &trace.boundaries[0].state;
    assert!(user.user_mode);
    assert_eq!(user.registers.get("r15"), Some(0x7ffd_c48e_9990));
    assert_eq!(user.registers.get("orig_rax"), Some(1));
    let code = user.code.as_ref().expect("Code:");
    assert_eq!((code.bytes.len(), code.trap), (64, Some(42)));
    assert_eq!(result.boots.len(), 1);
    let boot = &result.boots[0];
    assert_eq!(
        (boot.compiler.as_deref(), boot.compiler_version.as_deref()),
        (Some("gcc"), Some("12.2.0"))
    );
    assert_eq!((boot.cpus, boot.memory_total_kib), (Some(2), Some(1_048_056)));
    assert!(boot.phase >= Phase::Init);
}

#[test]
fn the_log_as_it_is() {
    check(&read(SYSRQ), 0);
}

#[test]
fn the_log_in_small_pieces() {
    let mut reader = Reader::new(ReadOptions::default());
    for piece in SYSRQ.chunks(7) {
        reader.feed(piece);
    }
    assert_eq!(reader.finish(), read(SYSRQ));
}

#[test]
fn the_log_as_mailers_send_it() {
    for (depth, width) in [(0, 72), (1, 72), (3, 76), (2, 500)] {
        let result = read(as_mail(SYSRQ, depth, width).as_bytes());
        assert_eq!(result.format, "mail");
        check(&result, depth as u32);
    }
}

#[test]
fn a_boot_without_a_crash_has_no_reports() {
    let end = SYSRQ.windows(8).position(|w| w == b"sysrq: T").expect("the trigger");
    let result = read(&SYSRQ[..end]);
    assert!(result.reports.is_empty());
    assert_eq!(result.boots.len(), 1);
}
