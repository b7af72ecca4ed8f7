//! One small configuration of a whole kernel, built by three compilers and booted with one CPU and with two.
#![allow(clippy::print_stderr)]

mod from_source;

use std::fs;
use std::path::Path;

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
    let home = tempfile::tempdir().unwrap();
    let case = home.path().join("case");
    fs::create_dir(&case).unwrap();
    fs::write(case.join("case.toml"), CASE).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(SMALL), case.join("small.config")).unwrap();
    let compilers = ["gcc-12", "clang-14", "clang-19"];
    let Some((run, code)) = from_source::run(case.to_str().unwrap(), &compilers, home.path())
    else {
        return;
    };
    let cells = run["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 6, "{run:#}");
    for cell in cells {
        assert_eq!(cell["verdict"], "booted", "{cell}");
    }
    assert_eq!(code, Some(0));
}
