//! The commands about kernel source, as a person runs them: output, exit codes, messages.

use std::fs;
use std::io::Write;
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

/// Kconfig itself, as the packages of kernel headers bring it along.
fn kconfig_conf() -> Option<std::path::PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let kbuild = folders.filter(|e| e.file_name().to_string_lossy().starts_with("linux-kbuild-"));
    let found = kbuild.map(|e| e.path().join("scripts/kconfig/conf")).find(|p| p.is_file());
    let tools = ["gcc", "make"].iter().all(|p| Command::new(p).arg("--version").output().is_ok());
    let found = found.filter(|_| tools);
    assert!(
        found.is_some() || std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
        "gcc, make, and a package linux-kbuild-* with scripts/kconfig/conf are needed"
    );
    found
}

/// A tree of forty options with dependencies, selects and a choice, completed by the kernel's own Kconfig.
#[test]
fn the_options_that_matter_are_found_by_trying() {
    let Some(conf) = kconfig_conf() else {
        let _ = writeln!(std::io::stderr(), "skipped: there is no linux-kbuild-* with conf");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let tree = home.path().join("linux");
    fs::create_dir(&tree).unwrap();
    let mut kconfig = "mainmenu \"Linux/x86 6.1.0 Kernel Configuration\"\n\
        config HYPERVISOR_GUEST\n\tbool \"guest\"\n\
        if HYPERVISOR_GUEST\nconfig PARAVIRT\n\tbool \"paravirt\"\n\tselect LIB\nendif\n\
        config PARAVIRT_XXL\n\tbool\n\tdefault PARAVIRT\n\
        config LIB\n\tbool\n\
        config LATE\n\tbool \"comes with paravirt\"\n\tdepends on PARAVIRT\n\tdefault y\n\
        choice\n\tprompt \"unwinder\"\nconfig ORC\n\tbool \"orc\"\nconfig GUESS\n\tbool \"guess\"\nendchoice\n"
        .to_owned();
    let mut bad =
        "CONFIG_HYPERVISOR_GUEST=y\nCONFIG_PARAVIRT=y\nCONFIG_LATE=y\nCONFIG_GUESS=y\n".to_owned();
    for n in 0..30 {
        kconfig.push_str(&format!("config DRIVER_{n}\n\ttristate \"driver {n}\"\n"));
        bad.push_str(&format!("CONFIG_DRIVER_{n}={}\n", if n % 2 == 0 { "y" } else { "n" }));
    }
    fs::write(tree.join("Kconfig"), kconfig).unwrap();
    fs::write(
        tree.join("Makefile"),
        format!(
            "olddefconfig:\n\t@cd $(O) && KCONFIG_CONFIG=.config {} --olddefconfig $(CURDIR)/Kconfig\n",
            conf.display()
        ),
    )
    .unwrap();
    fs::write(path("good"), "CONFIG_ORC=y\n").unwrap();
    fs::write(path("bad"), bad).unwrap();
    // Bad where paravirt and a driver come together; a line in a file for each test that was run.
    let test = home.path().join("a test");
    fs::write(
        &test,
        "#!/bin/sh\necho >> \"$1\"\ngrep -qx CONFIG_PARAVIRT_XXL=y \"$KOLUMBO_CONFIG\" || exit 0\n\
         grep -qx CONFIG_DRIVER_8=y \"$KOLUMBO_CONFIG\" || exit 0\n\
         if [ -e \"$1.kill\" ] && [ $(wc -l < \"$1\") -gt 5 ]; then kill -9 $PPID; fi\nexit 1\n",
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&test, mode).unwrap();
    let (source, ran, out_dir) = (tree.display().to_string(), path("ran"), path("search"));
    let arguments =
        ["config", "minimize", &path("good"), &path("bad"), "--source", &source, "--out", &out_dir];
    let search = |more: &[&str]| kolumbo(home.path(), &[&arguments[..], more].concat());

    // Killed in the middle by its own test, it goes on where it was.
    fs::write(path("ran.kill"), "").unwrap();
    let words = ["--json", "--", test.to_str().unwrap(), &ran];
    assert_eq!(search(&words).status.code(), None);
    let before = fs::read(&ran).unwrap().len();
    fs::remove_file(path("ran.kill")).unwrap();
    let found = search(&words);
    let json: serde_json::Value =
        serde_json::from_slice(&found.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&found)));
    let names: Vec<&str> =
        json["options"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["DRIVER_8", "HYPERVISOR_GUEST", "PARAVIRT"], "{json}");
    assert_eq!(json["options"][1]["needed_by"][0], "PARAVIRT");
    let all = fs::read(&ran).unwrap().len();
    // The one during which it was killed is run again.
    assert_eq!(json["tests"].as_u64().unwrap() as usize, all - 1, "nothing is tested twice");
    assert_eq!(json["tests_before"].as_u64().unwrap() as usize, before - 1);
    let minimal = fs::read_to_string(json["config"].as_str().unwrap()).unwrap();
    assert!(
        minimal.contains("\nCONFIG_LIB=y\n") && minimal.contains("\nCONFIG_ORC=y\n"),
        "{minimal}"
    );
    assert!(
        minimal.contains("# CONFIG_LATE is not set")
            && minimal.contains("# CONFIG_DRIVER_0 is not set"),
        "{minimal}"
    );

    // The words may come as one argument; the search is known by what is asked.
    let text = search(&["--test", &format!("'{}' {ran}", test.display())]);
    assert_eq!(text.status.code(), Some(0), "{}", said(&text));
    assert!(
        out(&text).contains("CONFIG_PARAVIRT n -> y  \"paravirt\"  [paravirtual guest]"),
        "{}",
        out(&text)
    );
    assert_eq!(fs::read(&ran).unwrap().len(), all);
    let other = search(&["--test", "true"]);
    assert!(
        other.status.code() == Some(125) && said(&other).contains("another"),
        "{}",
        said(&other)
    );
    let same = kolumbo(
        home.path(),
        &[
            "config",
            "minimize",
            &path("good"),
            &path("good"),
            "--source",
            &source,
            "--test",
            "true",
        ],
    );
    assert!(said(&same).contains("no option"), "{}", said(&same));
    let mut left: Vec<_> = fs::read_dir(&tree).unwrap().flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["Kconfig", "Makefile"], "the tree was written to");
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

/// Compilers and ccache as the search path has them.
#[test]
fn toolchains_are_listed_and_ccache_is_used_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    let tree = home.path().join("linux");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&tree).unwrap();
    let log = home.path().join("ccache.log");
    let program = |name: &str, text: String| {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    program("gcc-99", "echo 'gcc-99 (Test 99.1.0-1) 99.1.0'".to_owned());
    program("ccache", format!("echo \"$@\" >> {}", log.display()));
    let kolumbo = |arguments: &[&str]| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_kolumbo"));
        command.args(arguments).env("HOME", home.path()).env("PATH", path);
        command.env_remove("XDG_CACHE_HOME").output().unwrap()
    };
    let listed = out(&kolumbo(&["build", "--list-toolchains"]));
    let line = listed
        .lines()
        .find(|line| line.starts_with("gcc-99 "))
        .unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains(" 99.1.0 ") && line.contains(bin.to_str().unwrap()), "{line}");

    if Command::new("make").arg("--version").output().is_err() {
        assert!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "make is missing");
        return;
    }
    fs::write(
        tree.join("Makefile"),
        "defconfig:\n\t@touch $(O)/.config\nbzImage:\n\t@echo '  CC      a.o'\n\t@$(CC) -c a.c\n",
    )
    .unwrap();
    let source = tree.to_str().unwrap();
    let build = |more: &[&str]| {
        let all = [&["build", source, "--toolchain", "gcc-99", "--json"], more].concat();
        let done = kolumbo(&all);
        let json: serde_json::Value =
            serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&done)));
        json["toolchain"]["ccache"].as_bool().unwrap()
    };
    assert!(!build(&["--no-ccache"]) && !log.exists());
    assert!(build(&[]));
    let used = fs::read_to_string(&log).unwrap();
    assert_eq!(used, format!("{} -c a.c\n", bin.join("gcc-99").display()));
}

/// A repository with a base, a target that took one of two patches, and the stack.
fn small_stack(home: &Path) -> std::path::PathBuf {
    let repository = home.join("repository");
    fs::create_dir(&repository).unwrap();
    let git = |arguments: &[&str]| {
        let name = ["-c", "user.name=A", "-c", "user.email=a@x", "-c", "commit.gpgsign=false"];
        let mut command = Command::new("git");
        command.current_dir(&repository).env("HOME", home).args(name).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let write = |name: &str, text: &str| fs::write(repository.join(name), text).unwrap();
    git(&["init", "-q", "-b", "base"]);
    write("a", "1\n2\n3\n");
    write("b", "1\n2\n3\n");
    git(&["add", "."]);
    git(&["commit", "-qm", "base"]);
    for (branch, second) in [("target", "3 in another way"), ("stack", "3 as we do it")] {
        git(&["checkout", "-qb", branch, "base"]);
        write("a", "1\ntwo\n3\n");
        git(&["commit", "-qam", if branch == "stack" { "UPSTREAM: a: two" } else { "a: two" }]);
        write("b", &format!("1\n2\n{second}\n"));
        git(&["commit", "-qam", "b: three"]);
    }
    write("c", "new\n");
    git(&["add", "."]);
    git(&["commit", "-qm", "CHROMIUM: c: new"]);
    repository
}

#[test]
fn a_stack_is_told_planned_and_rebased() {
    let home = tempfile::tempdir().unwrap();
    let repository = small_stack(home.path());
    let dir = repository.to_str().unwrap();
    let stack = |words: &[&str]| kolumbo(home.path(), &[&["stack"], words, &["-C", dir]].concat());
    let status = stack(&["status", "base..stack", "--onto", "target"]);
    let text = out(&status);
    assert_eq!(status.status.code(), Some(0), "{}", said(&status));
    assert!(text.contains("1 of 3 patches are in target and can be dropped"), "{text}");
    assert!(text.contains("    < +3 as we do it\n    > +3 in another way\n"), "{text}");
    let plan =
        |more: &[&str]| stack(&[&["plan", "base..stack", "--onto", "target"], more].concat());
    let refused = plan(&["--apply", "new"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(said(&refused).contains("--leave-out-conflicts"), "{}", said(&refused));
    let made = plan(&["--apply", "new", "--leave-out-conflicts"]);
    assert!(out(&made).contains("is the new branch new; git range-diff says:\n"), "{}", out(&made));
    let again = plan(&["--apply", "new", "--leave-out-conflicts"]);
    assert!(said(&again).contains("no branch is ever overwritten"), "{}", said(&again));

    // The same as a quilt series.
    let patches = home.path().join("patches");
    fs::create_dir(&patches).unwrap();
    fs::write(patches.join("series"), "c.patch\n").unwrap();
    fs::write(
        patches.join("c.patch"),
        "CHROMIUM: c: new\n\n--- /dev/null\n+++ b/c\n@@ -0,0 +1 @@\n+new\n",
    )
    .unwrap();
    let named = patches.to_str().unwrap();
    let lost = stack(&["plan", named, "--onto", "target"]);
    assert!(said(&lost).contains("--base"), "{}", said(&lost));
    let quilt = stack(&["plan", named, "--base", "base", "--onto", "target", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&quilt.stdout).unwrap();
    assert_eq!(json["status"]["rows"][0]["file"], "c.patch");
    assert_eq!(json["steps"][0]["action"], "keep");
    let revert = stack(&["revert", named, "--base", "base", "--label", "CHROMIUM"]);
    assert!(out(&revert).contains("This reverts the patch c.patch."), "{}", out(&revert));
}
