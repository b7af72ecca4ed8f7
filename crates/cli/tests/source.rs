//! The commands about kernel source, as a person runs them: output, exit codes, messages.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// kolumbo with a home of its own.
fn kolumbo(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kolumbo"))
        .args(arguments)
        .env("HOME", home)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_STATE_HOME")
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn configurations_are_compared_wherever_they_lie() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    fs::write(path("a"), "CONFIG_SMP=y\nCONFIG_X=m\n").unwrap();
    fs::create_dir(path("build")).unwrap();
    fs::write(path("build/.config"), "# CONFIG_SMP is not set\nCONFIG_X=m\nCONFIG_Y=1\n").unwrap();
    let (a, build) = (path("a"), path("build"));

    let plain = kolumbo(home.path(), &["config", "diff", "--plain", &a, &build]);
    assert_eq!((plain.status.code(), out(&plain).as_str()), (Some(0), " SMP y -> n\n+Y 1\n"));
    let shown = kolumbo(home.path(), &["config", "diff", &a, &build]);
    assert!(out(&shown).contains("SMP and processors [matters for boot]"), "{}", out(&shown));

    fs::create_dir(path("case")).unwrap();
    let case = serde_json::json!({
        "case_version": 1,
        "inputs": [{ "role": "config", "path": a, "size": 1, "sha256": "" }],
    });
    fs::write(path("case/case.json"), case.to_string()).unwrap();
    let json = kolumbo(home.path(), &["config", "diff", "--json", &path("case"), &build]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["config_diff_version"], 1);
    assert_eq!(json["changes"][0]["name"], "SMP");

    let missing = kolumbo(home.path(), &["config", "diff", &a, &path("none")]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(said(&missing).contains("cannot read"), "{}", said(&missing));
    fs::write(path("image"), b"MZ\0\0nothing").unwrap();
    let image = kolumbo(home.path(), &["config", "diff", &a, &path("image")]);
    assert_eq!(image.status.code(), Some(125), "{}", said(&image));
}

#[test]
fn builds_say_what_is_wrong_before_and_after() {
    let home = tempfile::tempdir().unwrap();
    let tree = home.path().join("linux");
    fs::create_dir_all(tree.join("scripts")).unwrap();
    let build = |toolchain: &str| {
        kolumbo(home.path(), &["build", tree.to_str().unwrap(), "--toolchain", toolchain])
    };
    let none = build("gcc");
    assert!(said(&none).contains("there is no Makefile"), "{}", said(&none));
    fs::write(
        tree.join("Makefile"),
        "defconfig:\n\t@touch $(O)/.config\nbzImage:\n\t@echo '  CC      a.o'\n\
         \t@echo 'a.c:3:1: error: it is broken' >&2; exit 1\n",
    )
    .unwrap();
    let unknown = build("gcc-0");
    assert_eq!(unknown.status.code(), Some(125));
    assert!(said(&unknown).contains("no compiler 'gcc-0'"), "{}", said(&unknown));
    if Command::new("gcc").arg("--version").output().is_err() {
        assert!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "gcc is missing");
        return;
    }
    let broken = build("gcc");
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    assert!(out(&broken).starts_with("failed    a.c:3: it is broken\n"), "{}", out(&broken));
    fs::write(tree.join("scripts/min-tool-version.sh"), "gcc)\necho 99.1.0\n;;\n").unwrap();
    let old = build("gcc");
    assert_eq!(old.status.code(), Some(125));
    assert!(said(&old).contains("needs gcc 99.1.0 or newer"), "{}", said(&old));
}

#[test]
fn a_stack_needs_a_repository() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let no = kolumbo(home.path(), &["stack", "status", "a..b", "--onto", "c", "-C", dir]);
    assert_eq!(no.status.code(), Some(125));
    assert!(said(&no).contains("git"), "{}", said(&no));
}
