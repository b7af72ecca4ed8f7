//! `kolumbo matrix` with real guests: the condition that was planted is the one that is named,
//! whatever kills the run in between.

mod guest;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest::table::{cells, sentences};
use guest::{kernel, kolumbo, soak};
use serde_json::Value;

/// A second kernel, another release than the first; fetched by `scripts/kernel.sh other`.
fn other_kernel(test: &str) -> Option<(PathBuf, String)> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let found = fs::read_dir(cache.join("kolumbo/other-kernels")).ok().and_then(|folders| {
        folders.flatten().find_map(|dir| {
            let release = dir.file_name().to_string_lossy().into_owned();
            let image = dir.path().join(format!("boot/vmlinuz-{release}"));
            image.is_file().then_some((image, release))
        })
    });
    if found.is_none() {
        let required = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
        assert!(!required, "{test} needs a second kernel: run scripts/kernel.sh other");
        eprintln!("skipped: {test} needs a second kernel: run scripts/kernel.sh other");
    }
    found
}

/// A program for the guest that crashes the kernel where `condition` holds.
fn sick_where(condition: &str) -> String {
    format!("busybox sh -c 'if {condition}; then echo c > /proc/sysrq-trigger; sleep 60; fi'")
}

const TWO_CPUS: &str = "[ $(grep -c ^processor /proc/cpuinfo) -ge 2 ]";
const SAFE_RET: &str = "grep -q mode=safe-ret /proc/cmdline";

fn matrix(home: &Path, arguments: &[&str]) -> Command {
    let mut command = kolumbo(home);
    command.arg("matrix").args(arguments);
    command
}

fn run(mut command: Command) -> (Output, Value) {
    let output = command.arg("--json").output().expect("kolumbo can be run");
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, value)
}

/// A table of six short boots, a third of them sick.
fn small_table(kernel: &Path, out: &Path) -> Vec<String> {
    let exec = sick_where("grep -q mode=c /proc/cmdline");
    let axes = ["mode=a,b,c".to_owned(), "n=1,2".to_owned(), format!("exec=x:\"{exec}\"")];
    let mut words: Vec<String> =
        ["-m", "256m", "--append", "mode={mode} n={n}", "-k"].map(str::to_owned).to_vec();
    words.push(kernel.display().to_string());
    for axis in axes {
        words.extend(["--axis".to_owned(), axis]);
    }
    words.extend(["--out".to_owned(), out.display().to_string()]);
    words
}

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn the_planted_condition_is_named() {
    let test = "the_planted_condition_is_named";
    let (Some(old), Some((new, release))) = (kernel(test), other_kernel(test)) else { return };
    let home = tempfile::tempdir().unwrap();
    let exec = sick_where(&format!("[ $(uname -r) = {release} ] && {TWO_CPUS} && {SAFE_RET}"));
    let file = home.path().join("planted.toml");
    let text = format!(
        "title = \"planted\"\n\
         [base]\nmemory = \"256m\"\nexec = {exec:?}\n\
         [[axis]]\nname = \"kernel\"\nvalues = {{ old = {old:?}, new = {new:?} }}\n\
         [[axis]]\nname = \"smp\"\nvalues = [1, 2, 4]\n\
         [[axis]]\nname = \"append\"\n\
         values = {{ off = \"mode=off\", ibpb = \"mode=ibpb\", safe-ret = \"mode=safe-ret\" }}\n\
         [[expect]]\nwhen = {{ kernel = \"new\", smp = [2, 4], append = \"safe-ret\" }}\n\
         verdict = \"panicked\"\n"
    );
    fs::write(&file, text).unwrap();
    let out = home.path().join("out");
    let reports = ["r.xml", "r.ktap", "r.kcidb", "r.html"].map(|n| home.path().join(n));
    let words: Vec<String> = [&file, &out, &reports[0], &reports[1], &reports[2], &reports[3]]
        .map(|p| p.display().to_string())
        .to_vec();
    let arguments = [
        &words[0], "--out", &words[1], "--junit", &words[2], "--ktap", &words[3], "--kcidb",
        &words[4], "--html", &words[5],
    ];
    let (output, table) = run(matrix(home.path(), &arguments));
    assert_eq!(sentences(&table), ["new and smp ≥ 2 and safe-ret"], "{table:#}");
    // Nothing but what was expected.
    let code = i32::from(table["bugs"].as_array().unwrap().len() > 1);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    let sick = cells(&table).into_iter().filter(|(_, (planted, _))| *planted).map(|(n, _)| n);
    assert_eq!(sick.collect::<Vec<_>>(), ["new/2/safe-ret", "new/4/safe-ret"]);
    let note = table["axes"][0]["values"][1]["note"].as_str().unwrap();
    assert!(note.contains(&release) && note.contains("gcc"), "{note}");
    for report in &reports {
        let text = fs::read_to_string(report).unwrap();
        assert!(text.contains("safe-ret"), "{} names no cell", report.display());
    }
    // A cell is a case like any other.
    let case = out.join("cells/new/4/safe-ret/1-1");
    let shown = kolumbo(home.path()).arg("show").arg(&case).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("panicked"));
    let (output, again) = run(matrix(home.path(), &["--resume", &words[1], "--show"]));
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(again["cells"], table["cells"]);
}

#[test]
fn a_sickness_that_strikes_now_and_then_has_a_rate() {
    let test = "a_sickness_that_strikes_now_and_then_has_a_rate";
    let Some(kernel) = kernel(test) else { return };
    if !soak() {
        eprintln!("skipped: {test} boots about 80 guests; KOLUMBO_SOAK=1 runs it");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    // 77 of 256 is 30%.
    let exec = sick_where(&format!(
        "{TWO_CPUS} && {SAFE_RET} && [ $(od -An -N1 -tu1 /dev/urandom) -lt 77 ]"
    ));
    let out = home.path().join("out").display().to_string();
    let (kernel, exec) = (kernel.display().to_string(), format!("exec=x:\"{exec}\""));
    let arguments = [
        "-k",
        &kernel,
        "-m",
        "256m",
        "--axis",
        "smp=1,2,4",
        "--axis",
        "append=off:mode=off,safe-ret:mode=safe-ret",
        "--axis",
        &exec,
        "--repeat",
        "20",
        "--out",
        &out,
    ];
    let (output, table) = run(matrix(home.path(), &arguments));
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let sentence = table["bugs"][0]["sentence"].as_str().unwrap();
    println!("{sentence}");
    assert!(sentence.starts_with("smp ≥ 2 and safe-ret, in "), "{sentence}");
    let (low, high) = (&table["bugs"][0]["interval"][0], &table["bugs"][0]["interval"][1]);
    let (low, high) = (low.as_f64().unwrap(), high.as_f64().unwrap());
    // Forty runs: the interval holds the true rate but for bad luck of 1 in 20.
    assert!(low < 0.40 && high > 0.20, "{low} to {high}");
    let cells = table["cells"].as_array().unwrap().iter();
    let healthy = cells.filter(|c| c["answer"] == "healthy");
    let judged = healthy.map(|c| c["counts"]["healthy"].as_u64().unwrap());
    assert!(
        judged.clone().count() > 0 && judged.clone().all(|n| (12..=14).contains(&n)),
        "{table}"
    );
}

#[test]
fn whatever_kills_it_nothing_is_lost_and_nothing_counted_twice() {
    let test = "whatever_kills_it_nothing_is_lost_and_nothing_counted_twice";
    let Some(kernel) = kernel(test) else { return };
    let home = tempfile::tempdir().unwrap();
    let undisturbed = home.path().join("undisturbed");
    let words = small_table(&kernel, &undisturbed);
    let begun = Instant::now();
    let (_, expected) = run(matrix(home.path(), &texts(&words)));
    let length = begun.elapsed();
    assert_eq!(sentences(&expected), ["mode = c"], "{expected:#}");
    let moments: u32 = if soak() { 20 } else { 3 };
    let (mut lost, mut twice, mut kills) = (0, 0, 0);
    for round in 0..moments {
        let out = home.path().join(format!("killed-{round}"));
        let mut child = matrix(home.path(), &texts(&small_table(&kernel, &out)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(length * (2 * round + 1) / (2 * moments));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let folder = out.display().to_string();
        let (output, table) = if out.join("matrix.db").exists() {
            run(matrix(home.path(), &["--resume", &folder]))
        } else {
            // Killed before there was a matrix: it is begun.
            run(matrix(home.path(), &texts(&small_table(&kernel, &out))))
        };
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        for (name, (planted, judged)) in cells(&expected) {
            let (strikes, times) = cells(&table)[&name];
            lost += u32::from(times == 0 || strikes != planted);
            twice += u32::from(times > judged);
        }
        assert_eq!(sentences(&table), sentences(&expected), "{table:#}");
    }
    println!("kill -9 at {kills} moments: {lost} cells lost, {twice} counted twice");
    assert_eq!((lost, twice), (0, 0));
}

#[test]
fn two_at_once_share_the_work() {
    let test = "two_at_once_share_the_work";
    let Some(kernel) = kernel(test) else { return };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("m");
    let mut first = matrix(home.path(), &texts(&small_table(&kernel, &out)));
    let first = first.args(["-j", "1", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let first = first.spawn().unwrap();
    let begun = Instant::now();
    while !out.join("matrix.db").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the first one never began");
        thread::sleep(Duration::from_millis(5));
    }
    let folder = out.display().to_string();
    let (_, second) = run(matrix(home.path(), &["--resume", &folder, "-j", "1"]));
    let first = first.wait_with_output().unwrap();
    let first: Value = serde_json::from_slice(&first.stdout).unwrap();
    for table in [&first, &second] {
        assert_eq!(sentences(table), ["mode = c"], "{table:#}");
        assert!(cells(table).values().all(|(_, judged)| *judged == 1), "{table}");
    }
}

#[test]
fn a_qemu_that_is_killed_is_an_error_and_the_run_comes_again() {
    let test = "a_qemu_that_is_killed_is_an_error_and_the_run_comes_again";
    let Some(kernel) = kernel(test) else { return };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("m");
    let mark = format!("mark={}", std::process::id());
    let mut words = small_table(&kernel, &out);
    words.extend(["--append".to_owned(), mark.clone(), "-j".to_owned(), "1".to_owned()]);
    let mut command = matrix(home.path(), &texts(&words));
    let child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let victim = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "no QEMU was seen");
        if let Some(pid) = qemu_with(&mark) {
            break pid;
        }
        thread::sleep(Duration::from_millis(5));
    };
    thread::sleep(Duration::from_millis(300));
    let _ = Command::new("kill").args(["-9", &victim.to_string()]).status();
    let output = child.wait_with_output().unwrap();
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sentences(&table), ["mode = c"], "{table:#}");
    let errors: u64 = table["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["counts"]["errors"].as_u64().unwrap())
        .sum();
    assert_eq!(errors, 1, "{table}");
    assert!(cells(&table).values().all(|(_, judged)| *judged == 1), "{table}");
}

fn qemu_with(mark: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse::<u32>().ok()?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        (arguments.contains("qemu-system") && arguments.contains(mark)).then_some(pid)
    })
}

#[test]
fn a_full_disk_is_said_and_room_is_all_it_needs() {
    let test = "a_full_disk_is_said_and_room_is_all_it_needs";
    let Some(kernel) = kernel(test) else { return };
    let home = tempfile::tempdir().unwrap();
    let disk = home.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let out = disk.join("m");
    let words = small_table(&kernel, &out);
    // A file system of its own needs a mount, which a user namespace allows who is not root.
    let is_root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    let user: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    let script = "mount -t tmpfs -o size=400k none \"$1\" || exit 99; disk=$1; kolumbo=$2; shift 2
        \"$kolumbo\" matrix \"$@\" >/dev/null 2>\"$disk.first\"; echo $? >\"$disk.code\"
        mount -o remount,size=64m none \"$disk\" || exit 99
        exec \"$kolumbo\" matrix --resume \"$disk/m\" --json";
    let output = Command::new("unshare")
        .args(user)
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(env!("CARGO_BIN_EXE_kolumbo"))
        .args(&words)
        .env("HOME", home.path())
        .env_remove("XDG_STATE_HOME")
        .env_remove("XDG_CACHE_HOME")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || stderr.contains("unshare failed") {
        let required = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
        assert!(!required, "{test} needs user namespaces: {stderr}");
        eprintln!("skipped: {test} needs user namespaces: {stderr}");
        return;
    }
    let said = fs::read_to_string(home.path().join("disk.first")).unwrap();
    let code = fs::read_to_string(home.path().join("disk.code")).unwrap();
    assert_eq!(code.trim(), "125", "{said}");
    assert!(said.contains("disk is full") && said.contains("--resume"), "{said}");
    let table: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    assert_eq!(sentences(&table), ["mode = c"], "{table:#}");
    assert!(cells(&table).values().all(|(_, judged)| *judged == 1), "{table}");
}

#[test]
fn what_makes_no_sense_is_said_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let usage = |arguments: &[&str]| {
        let output = matrix(home.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(usage(&["-k", "x", "--axis", "smpp=1,2"]).contains("unknown axis 'smpp'"));
    assert!(usage(&["-k", "x", "--axis", "smp="]).contains("no value"));
    let file = home.path().join("m.toml");
    fs::write(&file, "[[axis]]\nname = \"smp\"\nvalues = [1, 1]\n").unwrap();
    let said = usage(&[file.to_str().unwrap()]);
    assert!(said.contains("m.toml:3:10: axis 'smp' has two values"), "{said}");
    // Without a word the matrix is the one of the folder, else that of the user.
    let described_in = |folder: &Path, here: &Path| {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join("kolumbo.toml");
        fs::write(&file, "title = 1\n").unwrap();
        let output = matrix(home.path(), &[]).current_dir(here).output().unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = described_in(home.path(), home.path());
    assert!(said.contains("kolumbo.toml:1:9: "), "{said}");
    let said = described_in(&home.path().join(".config/kolumbo"), home.path());
    assert!(said.contains(".config/kolumbo/kolumbo.toml:1:9: "), "{said}");
    let nothing = matrix(home.path(), &[]).current_dir(home.path()).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    let missing = matrix(home.path(), &["-k", "/nowhere", "--axis", "smp=1"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere"));
}
