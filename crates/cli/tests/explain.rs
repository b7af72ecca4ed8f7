//! `kolumbo explain` as its user meets it: text of 78 columns, JSON, a mail, and plain words for what
//! cannot be done.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A loop of the local APIC whose flags are not those of its own test.
const LOG: &str = "\
[  100.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [init:117]
[  100.000000] CPU: 0 PID: 117 Comm: init Not tainted 6.5.0-rc5 #16
[  100.000000] Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2 04/01/2014
[  100.000000] RIP: 0010:default_send_IPI_allbutself+0x2a/0x60
[  100.000000] Code: 83 ff 02 74 35 66 66 2e 0f 1f 84 00 00 00 00 00 f7 04 25 00 c3 5f ff 00 10 00 00 74 0f f3 90 f7 04 25 00 c3 5f ff 00 10 00 00 <75> f1 81 cf 00 00 0c 00 89 3c 25 00 c3 5f ff c3 48 8b 05 d7 2c 61
[  100.000000] RSP: 0018:ffff99e58027fdb0 EFLAGS: 00000082
[  100.000000] RAX: ffffffff8426ab50 RBX: 0000000000000000 RCX: 0000000000000001
[  100.000000] RDX: ffffffffff5fb000 RSI: 00000000000000f8 RDI: 00000000000000f8
[  100.000000] RBP: 0000000000000001 R08: 0000000000000000 R09: ffffffff84482120
[  100.000000] R10: 0000000000000000 R11: ffffffff82c57f50 R12: 000000004321fedc
[  100.000000] R13: fffffffffee1dead R14: 0000000000000000 R15: 0000000028121969
[  100.000000] FS:  0000000000000000(0000) GS:ffff978b9f000000(0000) knlGS:0000000000000000
[  100.000000] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
[  100.000000] Call Trace:
[  100.000000]  <TASK>
[  100.000000]  native_stop_other_cpus+0x7d/0x1f0
[  100.000000]  native_machine_shutdown+0x17/0x40
[  100.000000]  native_machine_power_off+0x24/0x30
[  100.000000]  __se_sys_reboot+0x221/0x230
[  100.000000]  do_syscall_64+0x31/0x50
[  100.000000]  </TASK>
";

/// Runs `kolumbo explain -` with `log` on standard input.
fn explain(log: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kolumbo"))
        .args(["explain", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends at once need not have read everything.
    let _ = child.stdin.take().unwrap().write_all(log.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(log: &str, arguments: &[&str]) -> String {
    let output = explain(log, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_finding_comes_first_in_78_columns() {
    let text = text(LOG, &[]);
    assert!(text.starts_with("K0101 flags-impossible: PF, SF\n"), "{text}");
    assert!(text.contains("1. hypervisor-emulation (emulation of xAPIC ICR low)"), "{text}");
    assert!(text.contains("until    (xAPIC ICR low & 0x1000) == 0"), "{text}");
    assert_eq!(text.lines().find(|l| l.chars().count() > 78), None);
    let intel = self::text(LOG, &["--syntax", "intel"]);
    assert!(intel.contains("jne default_send_IPI_allbutself+0x1d"), "{intel}");
    assert!(intel.contains("or edi,0xc0000") || intel.contains("or edi, 0xc0000"), "{intel}");
}

#[test]
fn the_json_names_what_the_text_says() {
    let json: serde_json::Value = serde_json::from_str(&text(LOG, &["--json"])).unwrap();
    let finding = &json["findings"][0];
    assert_eq!(finding["code"], "flags-impossible");
    assert_eq!(finding["at"]["symbol"], "default_send_IPI_allbutself");
    assert_eq!(finding["at"]["offset"], 0x2a);
    assert_eq!(finding["suspects"][0]["kind"], "hypervisor-emulation");
    assert_eq!(json["states"][0]["consistency"]["conclusion"], "contradicts");
}

#[test]
fn a_mail_has_its_headers_and_regzbots_line() {
    let mail = text(LOG, &["--mail", "--introduced", "v6.4..v6.5-rc1", "--tried", "6.4: boots"]);
    let (headers, body) = mail.split_once("\n\n").unwrap();
    assert!(headers.starts_with("Subject: [REGRESSION] "), "{headers}");
    assert!(headers.contains("regressions@lists.linux.dev"), "{headers}");
    assert_eq!(headers.matches("Cc: ").count(), 1, "{headers}");
    assert!(body.contains("\n\n#regzbot introduced: v6.4..v6.5-rc1\n\n"), "{body}");
    assert!(body.contains("- 6.4: boots") && body.contains("native_stop_other_cpus"), "{body}");
}

#[test]
fn a_log_that_was_cut_off_and_an_empty_one_are_no_failure() {
    for end in [0, 60, 400, 600, 900] {
        let said = text(&LOG[..end], &[]);
        assert!(!said.contains("K01"), "{said}");
    }
    assert!(text("", &[]).contains("no register dump"));
}

#[test]
fn an_image_that_is_none_is_said_with_its_path() {
    let output = explain(LOG, &["--vmlinux", "/no/such/vmlinux"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/vmlinux"));
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "hello\n".repeat(100)).unwrap();
    let output = explain(LOG, &["--vmlinux", text.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125));
}
