//! One small configuration of a whole kernel, built by three compilers and booted with one CPU and with two.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Without ACPI a kernel sees one CPU of each socket.
const CASE: &str = r#"
title = "a small kernel boots whatever compiler built it"
[source]
debian = "linux-source-6.1"
[[kernel]]
name = "gcc-12"
toolchain = "gcc-12"
config = ["tinyconfig", "+small.config"]
[[kernel]]
name = "clang-14"
toolchain = "clang-14"
config = ["tinyconfig", "+small.config"]
[[kernel]]
name = "clang-19"
toolchain = "clang-19"
config = ["tinyconfig", "+small.config"]
[base]
memory = "512m"
machine = "pc,smp.sockets={smp}"
timeout = "90s"
[[axis]]
name = "smp"
values = [1, 2]
"#;

/// The configuration of a case that is built anyway: kernels with and without its edits share their objects.
const SMALL: &str = "../../cases/native-save-fl/small.config";

#[test]
fn a_small_kernel_boots_whatever_compiler_built_it() {
    let required = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
    if !required && std::env::var("KOLUMBO_CASES").as_deref() != Ok("1") {
        eprintln!("skipped: three kernels are built from source; set KOLUMBO_CASES=1");
        return;
    }
    for tool in ["gcc-12", "clang-14", "clang-19", "qemu-system-x86_64", "flex", "bison", "bc"] {
        assert!(Command::new(tool).arg("--version").output().is_ok(), "{tool} is not installed");
    }
    let home = tempfile::tempdir().unwrap();
    let case = home.path().join("case");
    fs::create_dir(&case).unwrap();
    fs::write(case.join("case.toml"), CASE).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(SMALL), case.join("small.config")).unwrap();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"));
    let out = home.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kolumbo"));
    command.args(["case", "run"]).arg(&case).arg("--out").arg(&out);
    if let Some(tree) = std::env::var_os("KOLUMBO_LINUX_SOURCE") {
        command.arg("--source").arg(tree);
    }
    command.env("HOME", home.path()).env("XDG_CACHE_HOME", cache).env_remove("XDG_STATE_HOME");
    // Whoever waits for minutes sees what is done.
    let status = command.stderr(Stdio::inherit()).status().unwrap();
    let run: Value = serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap();
    let cells = run["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 6, "{run:#}");
    for cell in cells {
        assert_eq!(cell["verdict"], "booted", "{cell}");
    }
    assert_eq!(status.code(), Some(0));
}
