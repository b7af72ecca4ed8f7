//! What tests with real guests share: the kernel to boot, and running kolumbo on it.

// Each test program has a copy of this module and uses what it needs.
#[allow(dead_code)]
pub(crate) mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The kernel to boot, or none with a word about it; a missing kernel fails under
/// `KOLUMBO_REQUIRE_ALL=1`.
pub(crate) fn kernel(test: &str) -> Option<PathBuf> {
    let missing = |what: &str| -> Option<PathBuf> {
        let required = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
        assert!(!required, "{test} needs {what}");
        eprintln!("skipped: {test} needs {what}");
        None
    };
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        return missing("qemu-system-x86_64");
    }
    match std::env::var_os("KOLUMBO_TEST_KERNEL").map(PathBuf::from).or_else(newest_cached) {
        Some(kernel) => Some(kernel),
        None => missing("a kernel: set KOLUMBO_TEST_KERNEL or run scripts/kernel.sh"),
    }
}

fn newest_cached() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folders = std::fs::read_dir(cache.join("kolumbo/kernels")).ok()?;
    let mut images: Vec<PathBuf> = folders
        .flatten()
        .map(|dir| {
            let release = dir.file_name().to_string_lossy().into_owned();
            dir.path().join(format!("boot/vmlinuz-{release}"))
        })
        .filter(|image| image.is_file())
        .collect();
    images.sort();
    images.pop()
}

/// kolumbo with a home of its own in `home`, so that nothing of the user is touched.
pub(crate) fn kolumbo(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kolumbo"));
    command
        .env("HOME", home)
        .env_remove("XDG_STATE_HOME")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("NO_COLOR");
    command
}

// Each test program has a copy of this module and uses what it needs.
#[allow(dead_code)]
/// Runs `kolumbo boot KERNEL --json` with more arguments; gives the output and the case.
pub(crate) fn boot(home: &Path, kernel: &Path, arguments: &[&str]) -> (Output, serde_json::Value) {
    let output = kolumbo(home)
        .arg("boot")
        .arg(kernel)
        .args(["--json", "-m", "256m"])
        .args(arguments)
        .output()
        .expect("kolumbo can be run");
    let case = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {:?} {}", output, String::from_utf8_lossy(&output.stderr))
    });
    (output, case)
}

/// Whether the long form of a test was asked for.
#[allow(dead_code)]
pub(crate) fn soak() -> bool {
    std::env::var("KOLUMBO_SOAK").as_deref() == Ok("1")
}
