//! Guests inside guests, and the test of emulated flags, as their user sees them.
//!
//! The host is the kernel of all tests with guests, with its own KVM modules, and once more with the thunk of its
//! return mitigation as it was before ba5ca5e5e6a1. The soak form boots a guest in it forty times.

#![allow(clippy::print_stderr)]

mod guest;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use guest::{kernel, kolumbo, soak};
use serde_json::Value;

/// An AMD CPU whose kernel chooses the thunk with LEA, and that runs guests.
const CPU: &str = "EPYC-Rome,+svm,+npt";
/// The thunk inside a movabs, and the same with ADD, which is a byte shorter.
const LEA: &[u8] = &[0x48, 0xb8, 0x48, 0x8d, 0x64, 0x24, 0x08, 0xc3, 0xcc, 0xcc, 0x0f, 0xae, 0xe8];
const ADD: &[u8] = &[0x48, 0xb8, 0x48, 0x83, 0xc4, 0x08, 0xc3, 0xcc, 0xcc, 0xcc, 0x0f, 0xae, 0xe8];

/// The kernel and the modules of its KVM, in the order in which they are loaded.
fn host(test: &str) -> Option<(PathBuf, Vec<PathBuf>)> {
    let image = kernel(test)?;
    let folder = image.parent()?.parent()?.join("lib/modules");
    let mut found = Vec::new();
    for name in ["irqbypass", "ccp", "kvm", "kvm-amd"] {
        found.extend(module(&folder, name));
    }
    if !found.iter().any(|path| path.ends_with("kvm-amd.ko")) {
        let required = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
        assert!(!required, "{test} needs kvm-amd.ko below {}", folder.display());
        eprintln!("skipped: {test} needs kvm-amd.ko beside the kernel");
        return None;
    }
    Some((image, found))
}

fn module(folder: &Path, name: &str) -> Option<PathBuf> {
    let file = format!("{name}.ko");
    fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        match path.is_dir() && !path.is_symlink() {
            true => module(&path, name),
            false => path.ends_with(&file).then_some(path),
        }
    })
}

/// Words that name the host, what QEMU is, and how its mitigation is set.
fn in_host(command: &mut Command, host: &Path, modules: &[PathBuf]) {
    command.args(["--accel", "tcg", "--cpu", CPU, "--host-memory", "768m"]);
    command.args(["--host-append", "spec_rstack_overflow=safe-ret"]);
    command.arg("--host-kernel").arg(host);
    for module in modules {
        command.arg("--host-module").arg(module);
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The test on the KVM of `host`.
fn flags(home: &Path, host: &Path, modules: &[PathBuf]) -> (Option<i32>, Value) {
    let mut command = kolumbo(home);
    command.args(["prove", "--host-kvm", "--json", "-t", "4m"]);
    in_host(&mut command, host, modules);
    let output = command.output().unwrap();
    (output.status.code(), json(&output))
}

fn form<'a>(file: &'a Value, name: &str, place: &str) -> &'a Value {
    let forms = file["forms"].as_array().unwrap();
    forms.iter().find(|f| f["form"] == name && f["place"] == place).unwrap()
}

#[test]
fn a_thunk_with_add_shows_in_the_flags_and_one_with_lea_does_not() {
    let Some((image, modules)) = host("flags under a host") else { return };
    let home = tempfile::tempdir().unwrap();
    let (code, healthy) = flags(home.path(), &image, &modules);
    assert_eq!(code, Some(0), "{healthy}");
    let mitigation = &healthy["guest"]["vulnerabilities"]["spec_rstack_overflow"];
    assert!(mitigation.as_str().unwrap().contains("safe RET"), "{mitigation}");
    let forms = healthy["forms"].as_array().unwrap();
    assert!(forms.len() > 60 && forms.iter().all(|f| f["outcome"] == "ok"), "{forms:?}");

    // The same kernel, unpacked, with the thunk as it was.
    let bytes = fs::read(&image).unwrap();
    let mut vmlinux = kolumbo_vmlinux::Kernel::open(&bytes).unwrap().vmlinux().to_vec();
    let hits: Vec<usize> =
        (0..vmlinux.len() - LEA.len()).filter(|&at| vmlinux[at..].starts_with(LEA)).collect();
    assert_eq!(hits.len(), 1);
    vmlinux[hits[0]..][..ADD.len()].copy_from_slice(ADD);
    let sick = home.path().join("vmlinux");
    fs::write(&sick, vmlinux).unwrap();
    // The emulator is in kvm.ko here; it returns through the kernel's thunk.
    let (code, file) = flags(home.path(), &sick, &modules);
    assert_eq!(code, Some(1), "{file}");
    let test = form(&file, "testl $imm, mem", "apic");
    assert_eq!(test["outcome"], "differs");
    assert_eq!((&test["first"]["memory"], &test["first"]["operand"]), (&0.into(), &0x1000.into()));
    // ZF and PF are due; SF is what is left of a stack pointer.
    assert_eq!(test["first"]["flags_executed"].as_u64().unwrap() & 0xc5, 0x44);
    assert_eq!(test["first"]["flags_emulated"].as_u64().unwrap() & 0xc1, 0x80);
    assert_eq!(form(&file, "movl mem, %ecx", "apic")["outcome"], "ok");
}

#[test]
fn a_healthy_guest_boots_inside_a_guest() {
    let Some((image, modules)) = host("a guest inside a guest") else { return };
    let home = tempfile::tempdir().unwrap();
    let times = if soak() { 40 } else { 1 };
    for time in 0..times {
        let out = home.path().join(format!("case{time}"));
        let mut command = kolumbo(home.path());
        command.arg("boot").arg(&image).args(["--json", "-m", "256m", "-t", "8m"]);
        command.args(["--append", "noxsave reboot=t nokaslr quiet"]).arg("--out").arg(&out);
        in_host(&mut command, &image, &modules);
        let case = json(&command.output().unwrap());
        assert_eq!(case["verdict"], "booted", "{case}");
        assert_eq!(case["guest"]["cpus_online"], 1);
        assert_eq!(case["nested_host"]["guest"]["cpus_online"], 1);
        assert!(case["nested_host"]["monitor_ms"].as_u64().unwrap() > 0);
        for file in ["console.log", "host-console.log", "host-events.jsonl"] {
            assert!(out.join(file).metadata().unwrap().len() > 0, "{file}");
        }
    }
}

#[test]
fn a_host_that_cannot_run_guests_is_not_taken_for_a_sick_guest() {
    let Some((image, _)) = host("a host without KVM") else { return };
    let home = tempfile::tempdir().unwrap();
    let mut command = kolumbo(home.path());
    command.arg("boot").arg(&image).args(["--json", "-m", "64m", "-t", "4m"]);
    in_host(&mut command, &image, &[]);
    let output = command.output().unwrap();
    let case = json(&output);
    assert_eq!((&case["verdict"], output.status.code()), (&"cannot-tell".into(), Some(125)));
    let reason = case["reason"].as_str().unwrap();
    assert!(reason.contains("/dev/kvm"), "{reason}");
}

/// Whatever this machine is: with hardware, with an emulated KVM, without one.
#[test]
fn this_machine_says_whether_it_emulates_flags_right() {
    let home = tempfile::tempdir().unwrap();
    let output = kolumbo(home.path()).args(["prove", "--host-kvm", "--json"]).output().unwrap();
    if !Path::new("/dev/kvm").exists() {
        assert_eq!(output.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&output.stderr).contains("/dev/kvm"));
        return;
    }
    if output.status.code() == Some(125) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let file = json(&output);
    let differs = file["forms"].as_array().unwrap().iter().any(|f| f["outcome"] == "differs");
    assert_eq!(output.status.code(), Some(i32::from(differs)), "{file}");
}

/// Kernels are not built for a machine that cannot run them.
#[test]
fn a_case_whose_cpu_runs_no_guests_is_refused_before_anything_is_built() {
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = "title = \"t\"\nstory = \"s\"\n[source]\nfolder = \"tree\"\n\
                [[kernel]]\nname = \"k\"\ntoolchain = \"gcc\"\nconfig = [\"tinyconfig\"]\n\
                [base]\naccel = \"tcg\"\nhost-kernel = \"{kernels.k}\"\ncpu = \"qemu64,-svm\"\n\
                [[axis]]\nname = \"smp\"\nvalues = [1, 2]\n";
    std::fs::write(folder.path().join("case.toml"), text).unwrap();
    let output = kolumbo(home.path())
        .args(["case", "run", folder.path().to_str().unwrap()])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("the CPU 'qemu64,-svm'") && errors.contains("neither SVM nor VMX"),
        "{errors}"
    );
}
