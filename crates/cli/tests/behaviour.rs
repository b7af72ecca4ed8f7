//! How `kolumbo boot` behaves around a guest: what it leaves behind, what it says, what it shows
//! again. Real guests under QEMU.

mod guest;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use guest::{boot, kernel, kolumbo, soak};

/// Processes of QEMU whose arguments hold `mark`.
fn qemus_with(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        if arguments.contains("qemu-system") && arguments.contains(mark) {
            found.push(pid);
        }
    }
    found
}

fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(tree(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}

/// Busy loops on the host, killed when dropped.
struct Load(Vec<Child>);

impl Load {
    fn new(loops: usize) -> Load {
        let spin =
            || Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        Load((0..loops).map(|_| spin().expect("sh can be run")).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A healthy kernel at 1, 2 and 4 CPUs, every other time with the host's CPUs kept busy: booted,
/// each time. 200 boots in the soak.
#[test]
fn a_healthy_kernel_boots_every_time() {
    let Some(kernel) = kernel("healthy boots") else { return };
    let home = tempfile::tempdir().unwrap();
    let rounds = if soak() { 200 } else { 6 };
    let mut booted = 0;
    for round in 0..rounds {
        let smp = ["1", "2", "4"][round % 3];
        let _load = (round % 2 == 1).then(|| Load::new(2));
        let out = home.path().join(format!("case-{round}"));
        let (output, case) =
            boot(home.path(), &kernel, &["-s", smp, "--out", out.to_str().unwrap()]);
        if case["verdict"] == "booted" && output.status.code() == Some(0) {
            booted += 1;
            assert_eq!(case["guest"]["cpus_online"], smp.parse::<u32>().unwrap());
            fs::remove_dir_all(out).unwrap();
        } else {
            eprintln!("round {round}, -smp {smp}: {case:#}");
        }
    }
    println!("healthy boots: {booted} of {rounds} booted");
    assert_eq!(booted, rounds);
}

/// Runs side by side leave no process, no socket and no file outside their case folders.
#[test]
fn runs_side_by_side_leave_nothing_behind() {
    let Some(kernel) = kernel("side by side") else { return };
    let home = tempfile::tempdir().unwrap();
    let cases = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (runs, wide) = if soak() { (200, 8) } else { (8, 4) };
    let mark = format!("kolumbo_mark={}", std::process::id());
    let next = AtomicUsize::new(0);
    let booted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..wide {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        return;
                    }
                    let out = cases.path().join(run.to_string());
                    let status = kolumbo(home.path())
                        .env("TMPDIR", scratch.path())
                        .arg("boot")
                        .arg(&kernel)
                        .args(["-q", "-m", "256m", "--append", &mark, "--out"])
                        .arg(&out)
                        .stdout(Stdio::null())
                        .status()
                        .unwrap();
                    booted.fetch_add(usize::from(status.code() == Some(0)), Ordering::Relaxed);
                }
            });
        }
    });
    let booted = booted.into_inner();
    println!("side by side: {booted} of {runs} booted, {wide} at a time");
    assert_eq!(booted, runs);
    assert_eq!(qemus_with(&mark), Vec::<u32>::new(), "QEMU processes left");
    assert_eq!(tree(home.path()), BTreeSet::new(), "files left in the home folder");
    assert_eq!(tree(scratch.path()), BTreeSet::new(), "files left in the temporary folder");
    let names: BTreeSet<String> = tree(cases.path())
        .iter()
        .filter(|p| p.is_file())
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names,
        ["case.json", "console.log", "events.jsonl"].map(str::to_owned).into_iter().collect()
    );
}

/// `kill -9` at any moment leaves no QEMU behind and a case that can be shown.
#[test]
fn kill_9_leaves_no_qemu_and_a_readable_case() {
    let Some(kernel) = kernel("kill -9") else { return };
    let home = tempfile::tempdir().unwrap();
    let rounds = if soak() { 40 } else { 4 };
    let mark = format!("kolumbo_kill={}", std::process::id());
    for round in 0..rounds {
        let out = home.path().join(format!("case-{round}"));
        let mut child = kolumbo(home.path())
            .arg("boot")
            .arg(&kernel)
            .args(["-m", "256m", "--append", &mark, "--out"])
            .arg(&out)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over the first two seconds, in steps that do not fall together with a period.
        thread::sleep(Duration::from_millis((round * 617 + 90) % 2000));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("QEMU ends", Duration::from_secs(5), || qemus_with(&mark).is_empty());
        if !out.join("case.json").exists() {
            // Killed before there was anything to know.
            continue;
        }
        let shown = kolumbo(home.path()).arg("show").arg(&out).output().unwrap();
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert!(text.contains("unfinished") && text.contains("did not finish"), "{text}");
    }
}

/// A host that stands still for a while is noticed, and nothing is held against the guest.
#[test]
fn a_host_that_stands_still_is_noticed() {
    let Some(kernel) = kernel("a paused host") else { return };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("case");
    let mark = format!("kolumbo_pause={}", std::process::id());
    let mut child = kolumbo(home.path())
        .arg("boot")
        .arg(&kernel)
        .args(["-q", "-m", "256m", "--append", &mark, "--out"])
        .arg(&out)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("QEMU begins", Duration::from_secs(60), || {
        fs::metadata(out.join("console.log")).is_ok_and(|log| log.len() > 0)
    });
    let everyone = [vec![child.id()], qemus_with(&mark)].concat();
    let signal = |name: &str| {
        for pid in &everyone {
            let _ = Command::new("kill").args([name, &pid.to_string()]).status();
        }
    };
    signal("-STOP");
    thread::sleep(Duration::from_secs(7));
    signal("-CONT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let text = fs::read_to_string(out.join("case.json")).unwrap();
    let case: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(case["verdict"], "booted", "{case:#}");
    assert!(case["host_paused_ms"].as_u64().is_some_and(|ms| ms >= 5000), "{case:#}");
    assert!(text.contains("stood still for"), "{case:#}");
    let events = fs::read_to_string(out.join("events.jsonl")).unwrap();
    assert!(events.contains("\"event\":\"host-paused\""), "{events}");
}

/// What `kolumbo show` prints is what the run printed.
#[test]
fn show_repeats_the_live_output() {
    let Some(kernel) = kernel("show") else { return };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("case");
    let live = kolumbo(home.path())
        .arg("boot")
        .arg(&kernel)
        .args(["-m", "256m", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let shown = kolumbo(home.path()).arg("show").arg(&out).output().unwrap();
    let (live, shown) =
        (String::from_utf8_lossy(&live.stdout), String::from_utf8_lossy(&shown.stdout));
    assert_eq!(live, shown);
    assert!(live.contains("Linux version") && live.contains("\nbooted: "), "{live}");
    assert!(!live.contains('\x1b') && !live.contains('\r'));
}

/// The facts of the guest and the verdict are in the case.
#[test]
fn the_case_has_the_facts() {
    let Some(kernel) = kernel("facts") else { return };
    let home = tempfile::tempdir().unwrap();
    let (_, case) = boot(home.path(), &kernel, &["-s", "2", "--append", "loglevel=4"]);
    assert_eq!(case["verdict"], "booted", "{case:#}");
    assert_eq!(case["case_version"], 1);
    assert_eq!(case["guest"]["cpus_online"], 2);
    let version = case["guest"]["proc_version"].as_str().unwrap();
    assert!(version.contains("gcc") || version.contains("clang"), "{version}");
    assert!(case["guest"]["cmdline"].as_str().unwrap().contains("loglevel=4"));
    assert!(case["guest"]["vulnerabilities"].as_object().unwrap().contains_key("spectre_v2"));
    assert_eq!(case["inputs"][0]["role"], "kernel");
    assert_eq!(case["inputs"][0]["sha256"].as_str().unwrap().len(), 64);
    assert!(case["qemu"]["accel"] == "tcg" || case["qemu"]["accel"] == "kvm");
    assert!(!case["qemu"]["accel_reason"].as_str().unwrap().is_empty());
}

/// A program of the host runs in the guest, and its failure is the exit code 1.
#[test]
fn a_program_runs_in_the_guest() {
    let Some(kernel) = kernel("exec") else { return };
    let home = tempfile::tempdir().unwrap();
    let (output, case) =
        boot(home.path(), &kernel, &["--exec", "/bin/sh", "-c", "echo the-guest-$((40+2))"]);
    assert_eq!((case["verdict"].as_str(), output.status.code()), (Some("booted"), Some(0)));
    let (output, case) = boot(home.path(), &kernel, &["--exec", "/bin/false"]);
    assert_eq!((case["verdict"].as_str(), output.status.code()), (Some("booted"), Some(1)));
    assert!(case["reason"].as_str().unwrap().contains("exit code 1"), "{case:#}");
}

/// A line that a person can paste boots the same guest.
#[test]
fn the_dry_run_can_be_pasted() {
    let Some(kernel) = kernel("dry run") else { return };
    let home = tempfile::tempdir().unwrap();
    let dry = kolumbo(home.path())
        .arg("boot")
        .arg(&kernel)
        .args(["--dry-run", "-m", "256m", "--append", "a='b c'"])
        .output()
        .unwrap();
    let line = String::from_utf8(dry.stdout).unwrap();
    assert_eq!(line.lines().count(), 1);
    let pasted = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
    let console = String::from_utf8_lossy(&pasted.stdout);
    assert!(console.contains("reboot: Power down"), "{console}");
    assert!(console.contains("a='b c'"));
}

/// Failures of our own end with 125 and say what to do.
#[test]
fn our_own_failures_are_not_verdicts_on_the_kernel() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let out = kolumbo(home.path()).arg("boot").args(arguments).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, message) = run(&["/no/such/kernel"]);
    assert_eq!(code, Some(125));
    assert!(message.contains("/no/such/kernel") && message.contains("No such file"), "{message}");
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["x", "--smp", "0"]).0, Some(2));
    if let Some(kernel) = kernel("messages") {
        let kernel = kernel.to_str().unwrap();
        let (code, message) = run(&[kernel, "--qemu", "no-such-qemu"]);
        assert_eq!(code, Some(125));
        assert!(message.contains("apt install qemu-system-x86"), "{message}");
        let (code, message) = run(&[kernel, "--initrd", "/no/such/initrd"]);
        assert_eq!((code, message.contains("/no/such/initrd")), (Some(125), true), "{message}");
        let (code, message) = run(&[kernel, "--module", "/no/such/module.ko"]);
        assert_eq!((code, message.contains("module.ko")), (Some(125), true), "{message}");
        let (code, message) = run(&[kernel, "--qemu-opts", "-no-such-option"]);
        assert_eq!((code, message.contains("no-such-option")), (Some(125), true), "{message}");
    }
}
