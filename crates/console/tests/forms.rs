//! One oops of our own in every shape in which people send a log.
//!
//! Each shape is made from the console log of a kolumbo boot by a function that says what the tool
//! in question writes. What is in the oops must come out of all of them.

use std::fmt::Write as _;
use std::io::Write as _;

use kolumbo_case::{DetailKind, Phase, ReadResult, StackContext, TraceKind};
use kolumbo_console::read;

const OOPS: &str = include_str!("fixtures/null-dereference.log");

const HEADERS: &str = "From: A Tester <a@example.org>\nTo: b@example.org\nSubject: it died\n\
    Date: Mon, 7 May 2018 13:49:18 +0000\nMessage-ID: <1@example.org>\n";

/// Time and message of each line that printk wrote; what firmware and loader said before is left out.
fn messages() -> Vec<(&'static str, &'static str)> {
    OOPS.lines()
        .filter_map(|l| l.trim_end().strip_prefix('[')?.split_once("] "))
        .map(|(time, text)| (time.trim(), text))
        .collect()
}

/// What must come out, whatever the shape. `placed` says that frames carry offsets.
fn check(result: &ReadResult, placed: bool) {
    let titles: Vec<_> = result.reports.iter().map(|r| &r.title).collect();
    assert_eq!(result.reports.len(), 1, "{titles:?}");
    let report = &result.reports[0];
    assert_eq!(
        report.title,
        "BUG: unable to handle kernel NULL pointer dereference in null_dereference"
    );
    assert_eq!(report.crash_type, "NULL-POINTER-DEREFERENCE");
    assert_eq!((report.corrupted, report.panicked), (false, false));
    let context = &report.context;
    assert_eq!(
        (context.cpu, context.pid, context.comm.as_deref()),
        (Some(1), Some(85), Some("init"))
    );
    assert_eq!((context.taint.as_str(), context.tainted), ("GOE", Some(true)));
    assert!(context.taint_meaning.iter().any(|m| m == "O: externally built module was loaded"));
    assert_eq!(context.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
    let state = &report.states[0];
    let pc = state.pc.as_ref().expect("RIP");
    assert_eq!(
        (pc.function.as_deref(), pc.module.as_deref()),
        (Some("null_dereference"), Some("sick"))
    );
    for (name, value) in [
        ("rip", None),
        ("rax", Some(0xffff_ffff_c056_2040)),
        ("rflags", Some(0x206)),
        ("r12", Some(0xff25_a0bd_01a9_e090)),
        ("cr2", Some(8)),
        ("cr3", Some(0x294_8000)),
        ("cr4", Some(0x75_1ea0)),
        ("orig_rax", None),
    ] {
        assert_eq!(report.registers.get(name), value, "{name}");
    }
    let details: Vec<_> = report.details.iter().flat_map(|d| &d.values).collect();
    for (name, value) in
        [("access", "write"), ("error_code", "0x0002"), ("address", "0000000000000008")]
    {
        assert!(details.iter().any(|(n, v)| *n == name && *v == value), "{name}");
    }
    let code = report.code_bytes.as_ref().expect("Code:");
    assert_eq!((code.bytes.len(), code.trap), (64, Some(42)));
    let trace = &report.traces[0];
    assert_eq!(trace.kind, TraceKind::Call);
    let functions: Vec<_> = trace
        .frames
        .iter()
        .filter(|f| f.reliable)
        .map(|f| f.place.function.as_deref().unwrap_or("?"))
        .collect();
    assert_eq!(
        functions,
        [
            "sick_init",
            "do_one_initcall",
            "do_init_module",
            "__do_sys_finit_module",
            "do_syscall_64",
            "entry_SYSCALL_64_after_hwframe"
        ]
    );
    assert!(trace.frames.iter().all(|f| f.context == StackContext::Task));
    if placed {
        assert_eq!((pc.offset, pc.size), (Some(5), Some(0x20)));
        assert_eq!(
            (trace.frames[0].place.offset, trace.frames[0].place.size),
            (Some(0x6e), Some(0x1000))
        );
    }
    let user = &trace.boundaries[0].state;
    assert_eq!((user.user_mode, user.registers.get("orig_rax")), (true, Some(0x139)));
}

/// The boot that came before, where the shape keeps it.
fn check_boot(result: &ReadResult) {
    assert_eq!(result.boots.len(), 1);
    let boot = &result.boots[0];
    assert_eq!(boot.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
    assert_eq!(
        (boot.compiler.as_deref(), boot.compiler_version.as_deref()),
        (Some("gcc"), Some("12.2.0"))
    );
    assert_eq!(boot.cpus, Some(2));
    assert_eq!(boot.phase, Phase::Shutdown);
}

/// A log that ends in the middle of what lockdep has to say.
#[test]
fn a_lock_report_that_was_cut_off_keeps_what_it_says() {
    let log = "[    4.1] WARNING: possible recursive locking detected\n[    4.1] 6.1.0 #1 Not tainted\n\
        [    4.1] --------------------------------------------\n\
        [    4.1] init/85 is trying to acquire lock:\n\
        [    4.1] ffff888003a4b0a0 (&sick->lock){+.+.}-{3:3}, at: sick_twice+0x2a/0x60 [sick]\n";
    let result = read(log.as_bytes());
    let [report] = result.reports.as_slice() else { panic!("{:?}", result.reports) };
    let [detail] = report.details.as_slice() else { panic!("{:?}", report.details) };
    assert_eq!(detail.kind, DetailKind::LockChain);
    assert!(detail.lines[1].contains("sick_twice+0x2a/0x60"), "{:?}", detail.lines);
    assert_eq!(detail.span.end, log.len() as u64);
}

/// `Part` files of fs/pstore, put together: a heading, then lines with level and time.
#[test]
fn pstore() {
    let mut log = "Oops#1 Part1\n".to_owned();
    for (time, text) in messages() {
        let _ = writeln!(log, "<4>[{time:>12}] {text}");
    }
    let result = read(log.as_bytes());
    check(&result, true);
    check_boot(&result);

    // As a firmware keeps it: cut from its end into records, which are listed by their numbers.
    let lines: Vec<&str> = log.lines().skip(1).collect();
    let records: Vec<String> = lines
        .rchunks(7)
        .enumerate()
        .map(|(n, lines)| format!("Oops#1 Part{}\n{}\n", n + 1, lines.join("\n")))
        .collect();
    assert!(records.len() > 5, "the crash is cut, too");
    let result = read(records.concat().as_bytes());
    assert_eq!((result.format.as_str(), result.gaps.len()), ("pstore", 0));
    check(&result, true);
    check_boot(&result);
    let result = read(records[1..].iter().rev().cloned().collect::<String>().as_bytes());
    assert_eq!(result.boots.len(), 1);
}

/// `dmesg`, `dmesg -T`, `dmesg -x`, with callers, and without any mark.
#[test]
fn dmesg() {
    for mark in
        ["[TIME] ", "[Sun Nov 22 01:46:47 2026] ", "kern  :warn  : [TIME] ", "[TIME][   T85] ", ""]
    {
        let mut log = String::new();
        for (time, text) in messages() {
            let _ = writeln!(log, "{}{text}", mark.replace("TIME", &format!("{time:>12}")));
        }
        let result = read(log.as_bytes());
        check(&result, true);
        check_boot(&result);
    }
}

/// A serial console: CR before LF, NUL, escape sequences, and a program that prints in between.
#[test]
fn serial() {
    let mut log = "\x1bc\x1b[?7l\x1b[2J\0\0SeaBIOS\r\n".to_owned();
    for (n, (time, text)) in messages().iter().enumerate() {
        let _ = write!(log, "\x1b[0m[{time:>12}] {text}\r\r\n");
        if n % 5 == 0 {
            log += "a program says something\r\n";
        }
    }
    let result = read(log.as_bytes());
    check(&result, true);
    check_boot(&result);
}

/// `journalctl -k`, its ISO form, and `-o json`.
#[test]
fn journal() {
    for mark in ["Nov 22 01:46:47 box kernel: ", "2026-11-22T01:46:47+0000 box kernel: "] {
        let mut log = "-- Journal begins at Sun 2026-11-22 01:46:47 UTC. --\n".to_owned();
        for (_, text) in messages() {
            let _ = writeln!(log, "{mark}{text}");
        }
        let result = read(log.as_bytes());
        check(&result, true);
        check_boot(&result);
    }
    let mut log = String::new();
    for (time, text) in messages() {
        let micros: u64 = time.replace('.', "").parse().expect("a time");
        let entry = serde_json::json!({
            "_TRANSPORT": "kernel", "PRIORITY": "4", "MESSAGE": text,
            "_SOURCE_MONOTONIC_TIMESTAMP": micros.to_string(), "_HOSTNAME": "box",
        });
        let _ = writeln!(log, "{entry}");
    }
    log += "{\"_TRANSPORT\":\"kernel\",\"MESSAGE\":[110,117,255]}\n{\"broken\n";
    let result = read(log.as_bytes());
    assert_eq!(result.format, "journal-json");
    assert!(!result.gaps.is_empty(), "a broken entry is a gap");
    check(&result, true);
    check_boot(&result);
    assert_eq!(result.reports[0].time.as_deref(), Some("3.620075"));
    // A fuzzer's: lines of a mail behind the first entry make no mail of it.
    let mixed =
        "{\"MESSAGE\":\"x\"}\nFrom: a@example.org\nDate: Wed, 9 Aug 2023 21:33:40 -0400\n\n> y\n";
    assert_eq!(read(mixed.as_bytes()).format, "journal-json");
}

/// `scripts/decode_stacktrace.sh` puts file and line in the place of offset and size, and a
/// disassembly below `Code:`.
#[test]
fn decoded() {
    for keeps_offset in [false, true] {
        let mut log = String::new();
        for (time, text) in messages() {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            for word in &mut words {
                if let Some((name, _)) = word.split_once("+0x").filter(|(n, _)| !n.is_empty()) {
                    let place = "kernel/module/main.c:2455 (discriminator 3)";
                    *word = if keeps_offset {
                        format!("{word} ({place})")
                    } else {
                        format!("{name} ({place})")
                    };
                }
            }
            let _ = writeln!(log, "[{time:>12}] {}", words.join(" "));
            if text.starts_with("Code: ") {
                log += "All code\n========\n   0:\t01 c3                \tadd    %eax,%ebx\n   2:\tcc                   \tint3\n";
                log +=
                    "  2a:*\tc7 04 25 08 00 00 00 \tmovl   $0x1,0x8\t\t<-- trapping instruction\n";
                log += "\nCode starting with the faulting instruction\n===========================================\n   0:\tc7 04 25 08 00 00 00 \tmovl   $0x1,0x8\n";
            }
        }
        let result = read(log.as_bytes());
        check(&result, keeps_offset);
        let frame = &result.reports[0].traces[0].frames[0].place;
        assert_eq!((frame.file.as_deref(), frame.line), (Some("kernel/module/main.c"), Some(2455)));
    }
}

/// The log as a whole and cut off, packed.
#[test]
fn gzip() {
    let packed = pack(OOPS.as_bytes());
    let result = read(&packed);
    assert_eq!(
        (result.parts[0].encoding.as_str(), result.parts[0].len),
        ("gzip", OOPS.len() as u64)
    );
    assert!(result.gaps.is_empty());
    check(&result, true);
    check_boot(&result);
    let half = read(&packed[..packed.len() / 2]);
    assert!(half.gaps.iter().any(|g| g.what.contains("gzip")));
    assert_eq!(half.boots.len(), 1, "what could be unpacked is read");
    let twice = read(&pack(&packed));
    assert!(twice.reports.is_empty(), "packed twice is not text");
}

#[test]
fn other_packers_are_named() {
    for (head, packer) in [(&b"\xfd7zXZ\0\0\x04"[..], "xz"), (b"\x28\xb5\x2f\xfd\x04", "zstd")] {
        let result = read(head);
        assert!(result.reports.is_empty());
        assert!(result.gaps[0].what.contains(&format!("packed by {packer} ")), "{:?}", result.gaps);
    }
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (n, chunk) in bytes.chunks(3).enumerate() {
        let word =
            chunk.iter().fold(0_u32, |w, &b| w << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let six = (word >> (18 - 6 * i)) as usize & 63;
            out.push(if i <= chunk.len() { char::from(BASE64[six]) } else { '=' });
        }
        if n % 19 == 18 {
            out.push('\n');
        }
    }
    out + "\n"
}

/// RFC 2045, 6.7: soft line ends at 76 columns.
fn quoted_printable(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut column = 0;
        for b in line.bytes() {
            let unit = if b == b'=' || !(b' '..=b'~').contains(&b) {
                format!("={b:02X}")
            } else {
                char::from(b).to_string()
            };
            if column + unit.len() > 75 {
                out += "=\n";
                column = 0;
            }
            column += unit.len();
            out += &unit;
        }
        out.push('\n');
    }
    out
}

#[test]
fn mime() {
    let part = |kind: &str, encoding: &str, body: &str| {
        format!("--sep\nContent-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n{body}\n")
    };
    for attached in [
        part("text/plain; charset=utf-8", "quoted-printable", &quoted_printable(OOPS)),
        part("text/plain", "base64", &base64(OOPS.as_bytes())),
        part("application/gzip; name=\"dmesg.gz\"", "base64", &base64(&pack(OOPS.as_bytes()))),
        part("text/x-log; name=\"dmesg.txt\"", "8bit", OOPS),
    ] {
        let mail = format!(
            "{HEADERS}MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"sep\"\n\n{}{attached}--sep--\n",
            part("text/plain", "7bit", "See what it said.")
        );
        let result = read(mail.as_bytes());
        assert_eq!(result.format, "mail");
        check(&result, true);
        check_boot(&result);
        let span = result.reports[0].span;
        assert!(span.part > 1, "the crash stands in the attachment");
        assert_eq!(
            result.parts[span.part as usize].mail.as_ref().map(|m| m.subject.as_str()),
            Some("it died")
        );
    }
}

/// Two messages, the second of which quotes the first and was wrapped on the way.
#[test]
fn mailbox() {
    let quoted: String = OOPS.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "> {}", line.trim_end());
        out
    });
    let from = "From a@example.org Mon May  7 13:49:18 2018\n";
    let mbox =
        format!("{from}{HEADERS}\n{OOPS}\n{from}{HEADERS}\nI see it, too:\n\n{quoted}\nThanks\n");
    let result = read(mbox.as_bytes());
    assert_eq!(result.reports.len(), 2);
    assert_eq!(result.reports.iter().map(|r| r.quote_depth).collect::<Vec<_>>(), [0, 1]);
    for report in &result.reports {
        check(&ReadResult { reports: vec![report.clone()], ..ReadResult::default() }, true);
    }
}

/// A web archive prints some headers, links and its own words around the text.
#[test]
fn web_archive() {
    let page = format!(
        "* it died\n@ 2018-05-07 13:49 A Tester\n  2018-05-07 14:10 ` B Maintainer\n  0 siblings, 1 reply; 2+ messages in thread\nFrom: A Tester @ 2018-05-07 13:49 UTC (permalink / raw)\n  To: b\nDate: Mon, 7 May 2018 13:49:18 +0000\n\n{OOPS}\n^ permalink raw reply\t[flat|nested] 2+ messages in thread\n"
    );
    let result = read(page.as_bytes());
    check(&result, true);
    check_boot(&result);
}

/// Each part stands where its span says.
#[test]
fn spans_show_the_place() {
    let result = read(OOPS.as_bytes());
    let report = &result.reports[0];
    let text = |span: kolumbo_case::Span| &OOPS[span.start as usize..span.end as usize];
    assert!(text(report.span).contains("CR2: 0000000000000008"));
    assert!(text(report.headline.span).contains("BUG: kernel NULL pointer"));
    assert!(text(report.states[0].span).contains("RIP: 0010:null_dereference"));
    assert!(text(report.code_bytes.as_ref().expect("Code:").span).contains("Code: 01 c3 cc"));
    assert!(text(report.traces[0].span).contains("Call Trace:"));
    assert!(text(report.traces[0].frames[0].span).contains("sick_init+0x6e/0x1000"));
}
