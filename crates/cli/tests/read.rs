//! `kolumbo read` on what its users have at hand.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A crash as a console prints it.
const CRASH: &str = "\
[    1.000001] Linux version 6.1.0-test (gcc (Debian 12.2.0-14) 12.2.0) #1 SMP\n\
[    2.000001] BUG: kernel NULL pointer dereference, address: 0000000000000008\n\
[    2.000002] #PF: supervisor read access in kernel mode\n\
[    2.000003] #PF: error_code(0x0000) - not-present page\n\
[    2.000004] PGD 0 P4D 0\n\
[    2.000005] Oops: 0000 [#1] PREEMPT SMP NOPTI\n\
[    2.000006] CPU: 1 PID: 85 Comm: init Not tainted 6.1.0-test #1\n\
[    2.000007] RIP: 0010:sick_read+0x12/0x30\n\
[    2.000007] Code: 48 89 d0 48 83 c0 08 <48> 8b 00 c3 cc\n\
[    2.000008] RAX: 0000000000000008 RBX: ffff888003a4b0a0 RCX: 0000000000000000\n\
[    2.000009] Call Trace:\n\
[    2.000010]  <TASK>\n\
[    2.000011]  vfs_read+0xaa/0x310\n\
[    2.000012]  </TASK>\n";

fn read(argument: &Path) -> Value {
    kolumbo("read", argument)
}

fn kolumbo(command: &str, argument: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_kolumbo"))
        .arg(command)
        .arg(argument)
        .arg("--json")
        .output()
        .expect("kolumbo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

#[test]
fn a_folder_of_pstore_is_one_log() {
    let dir = tempfile::tempdir().unwrap();
    // EFI variables: the number of a record ends in its part and a count; part 1 holds the last lines. Part 10 comes
    // behind part 9 by its number, not by its letters.
    let lines: Vec<&str> = CRASH.lines().collect();
    for (part, line) in (1..).zip(lines.iter().rev()) {
        let name = format!("dmesg-efi-1764{:02}001", part);
        fs::write(dir.path().join(name), format!("Panic#1 Part{part}\n{line}")).unwrap();
    }
    fs::write(dir.path().join("console-ramoops-0"), "not a dump").unwrap();
    let whole = read(dir.path());
    assert_eq!(whole["format"], "pstore");
    let title = "BUG: unable to handle kernel NULL pointer dereference in sick_read";
    let report = &whole["reports"][0];
    assert_eq!(report["title"], title);
    assert_eq!(report["registers"]["rbx"], "0xffff888003a4b0a0");
    assert_eq!(report["traces"][0]["frames"][0]["function"], "vfs_read");
    assert_eq!(whole["gaps"], serde_json::json!([]));

    // The same for whoever asks why.
    let explained = kolumbo("explain", dir.path());
    assert_eq!(explained["states"][0]["at"]["symbol"], "sick_read", "{explained}");

    // What could not be unpacked is said.
    fs::write(dir.path().join("dmesg-efi-176414001.enc.z"), [0x78, 0x9c, 0]).unwrap();
    let gaps = read(dir.path())["gaps"].to_string();
    assert!(gaps.contains("still packed"), "{gaps}");
}

#[test]
fn a_case_folder_stands_for_its_console() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("console.log"), CRASH).unwrap();
    fs::write(dir.path().join("dmesg-efi-1"), "Oops#1 Part1\nof another\n").unwrap();
    let result = read(dir.path());
    assert_eq!(
        (&result["format"], result["reports"].as_array().map(Vec::len)),
        (&"console".into(), Some(1))
    );

    let empty = tempfile::tempdir().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_kolumbo")).arg("read").arg(empty.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a folder of pstore"));
    fs::write(empty.path().join("dmesg-efi-176414001.enc.z"), [0x78, 0x9c, 0]).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_kolumbo")).arg("read").arg(empty.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("1 of the records of pstore are still packed")
    );
}
