//! A real boot: init in a Debian kernel under QEMU's translator, and every word it says.
//!
//! The kernel is the one `KOLUMBO_TEST_KERNEL` names, else one in kolumbo's cache folder. Without
//! one, or without QEMU, the test says so and is skipped; `KOLUMBO_REQUIRE_ALL=1` makes that a
//! failure.

#![allow(clippy::print_stderr, reason = "a skipped test must say why")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kolumbo_init::protocol::{Done, JobKind, Message};
use kolumbo_init::{INIT_ELF, Plan, PlannedExec, PlannedModule, parse_line, words};

const QEMU: &str = "qemu-system-x86_64";
/// A boot takes seconds; this only ends a test that would never end.
const GIVE_UP: Duration = Duration::from_secs(180);

#[test]
fn it_speaks_by_the_debug_console_and_powers_off() {
    let Some(kernel) = kernel() else { return };
    let lines = boot(&kernel, &["-device", "isa-debugcon,iobase=0xe9,chardev=init"], &[]);
    check(&lines, "debugcon");
    let Message::Facts(facts) = &lines[1] else { panic!("{lines:?}") };
    assert_eq!(facts.cpus_online, 2);
    assert!(facts.cmdline.contains("kolumbo.test=\"a b\""), "{}", facts.cmdline);
    assert!(facts.proc_version.contains(&facts.release), "{facts:?}");
    assert!(facts.vulnerabilities.contains_key("spectre_v2"), "{facts:?}");
    assert!(facts.text > 0xffff_ffff_8000_0000, "{:#x}", facts.text);
    assert!(!facts.more.contains_key("truncated"));
}

#[test]
fn it_speaks_by_the_second_serial_port_where_there_is_no_debug_console() {
    let Some(kernel) = kernel() else { return };
    // Two `-serial`: the first is the console of `boot`, the second the channel.
    let lines = boot(&kernel, &["-serial", "chardev:init"], &[]);
    check(&lines, "ttyS1 by port");
}

#[test]
fn it_speaks_by_files_where_ports_are_locked() {
    let Some(kernel) = kernel() else { return };
    let lines = boot(&kernel, &["-serial", "chardev:init"], &["lockdown=confidentiality"]);
    check(&lines, "/dev/ttyS1");
}

fn check(lines: &[Message], channel: &str) {
    let Message::Hello(hello) = &lines[0] else { panic!("no hello first: {lines:?}") };
    assert_eq!(hello.channel, channel);
    assert!(hello.boot_ms > 0);

    let dones: Vec<&Done> = lines
        .iter()
        .filter_map(|l| if let Message::Done(d) = l { Some(d) } else { None })
        .collect();
    assert_eq!(dones.len(), 2, "{lines:?}");
    // Not an ELF file: ENOEXEC, or what the lockdown says first.
    assert_eq!(dones[0].job, JobKind::Module);
    assert_eq!(dones[0].name, "00-text.ko");
    assert!(matches!(dones[0].errno, Some(8 | 1)), "{dones:?}");
    // Init itself, started a second time, is not PID 1 and leaves with 64.
    assert_eq!((dones[1].job, dones[1].exit), (JobKind::Exec, Some(64)));

    let [.., Message::End(end), Message::PowerOff(off)] = lines else { panic!("{lines:?}") };
    assert_eq!(off.way, "power-off");
    assert!(end.taint.is_some() && end.up_ms >= hello.boot_ms);
}

/// Boots with two jobs, and gives what init said until QEMU ended by itself.
fn boot(kernel: &Path, channel: &[&str], append: &[&str]) -> Vec<Message> {
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    let initrd = folder.path().join("initrd");
    let plan = Plan {
        modules: vec![PlannedModule { path: "/kolumbo/00-text.ko".into(), ..Default::default() }],
        exec: Some(PlannedExec { path: "/init".into(), arguments: vec!["init".into()] }),
    };
    std::fs::write(&initrd, initramfs(&plan.to_bytes().unwrap())).unwrap();
    let mut qemu = Command::new(QEMU)
        .args(["-accel", "tcg", "-m", "256", "-smp", "2", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(&initrd)
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 kolumbo.test=\"a b\" {}", append.join(" ")))
        .arg("-serial")
        .arg(format!("file:{}", folder.path().join("console").display()))
        .arg("-chardev")
        .arg(format!("file,id=init,path={}", said.display()))
        .args(channel)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        match qemu.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begun.elapsed() > GIVE_UP => {
                qemu.kill().unwrap();
                qemu.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let console = std::fs::read(folder.path().join("console")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let said = String::from_utf8(std::fs::read(&said).unwrap()).expect("init speaks UTF-8");
    assert!(status.is_some_and(|s| s.success()), "{status:?}\n{said}\n{console}");
    assert!(!console.contains(words::MARK), "init's lines are on the console:\n{console}");
    said.lines()
        .filter(|l| !l.is_empty())
        .map(|l| parse_line(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect()
}

/// The smallest initramfs in the "newc" format (`Documentation/driver-api/early-userspace/`).
fn initramfs(plan: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut entry = |name: &str, mode: u32, bytes: &[u8]| {
        out.extend(b"070701");
        let fields =
            [0, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        for field in fields {
            out.extend(format!("{field:08x}").bytes());
        }
        for part in [format!("{name}\0").as_bytes(), bytes] {
            out.extend(part);
            out.resize(out.len().next_multiple_of(4), 0);
        }
    };
    entry("init", 0o100755, INIT_ELF);
    entry("kolumbo", 0o040755, b"");
    entry("kolumbo/plan", 0o100644, plan);
    entry("kolumbo/00-text.ko", 0o100644, b"This is no module.\n");
    entry("TRAILER!!!", 0, b"");
    out
}

fn kernel() -> Option<PathBuf> {
    let found = std::env::var_os("KOLUMBO_TEST_KERNEL").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        newest_kernel(&cache.join("kolumbo"), 4)
    });
    let has_qemu = Command::new(QEMU).arg("--version").output().is_ok_and(|o| o.status.success());
    let missing = match (&found, has_qemu) {
        (None, _) => "a kernel (set KOLUMBO_TEST_KERNEL, or run `make demo` once)",
        (_, false) => "qemu-system-x86_64 (Debian: apt-get install qemu-system-x86)",
        (Some(_), true) => return found,
    };
    assert!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "missing: {missing}");
    eprintln!("skipped: a real boot needs {missing}");
    None
}

fn newest_kernel(folder: &Path, depth: u32) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    entries.sort();
    entries.into_iter().rev().find_map(|path| {
        let name = path.file_name()?.to_str()?;
        if path.is_file() {
            (name.starts_with("vmlinuz-") && name.ends_with("-cloud-amd64")).then(|| path.clone())
        } else {
            depth.checked_sub(1).and_then(|depth| newest_kernel(&path, depth))
        }
    })
}
