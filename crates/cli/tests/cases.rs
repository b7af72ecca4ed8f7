//! `kolumbo case` and `kolumbo prove` as their user sees them.
//!
//! A small tree that looks like a kernel's to make stands for the source in all tests but two, which build
//! real kernels. What is missing is said, and fails under `KOLUMBO_REQUIRE_ALL=1`.

#![allow(clippy::print_stderr)]

mod from_source;
mod guest;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guest::{kernel, kolumbo};
use serde_json::Value;
use tempfile::TempDir;

/// "Builds" the kernel that lies beside the source, and says so in its log.
const MAKEFILE: &str = "
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
tinyconfig olddefconfig:
\t@touch $(O)/.config
bzImage: $(O)/one.o
\t@echo '  LD      vmlinux'
\t@mkdir -p $(O)/arch/x86/boot $(O)/include/config
\t@echo 6.1.7-test > $(O)/include/config/kernel.release
\t@cp kernel $(O)/arch/x86/boot/bzImage
\t@echo built >> $(CURDIR)/../../../log
$(O)/%.o: %.c
\t@echo '  CC      $*.o'
\t@if grep -q broken $<; then echo '$<:1:2: error: it is broken' >&2; exit 1; fi
\t@cp $< $@
";

const CASE: &str = r#"title = "a kernel that boots"
story = "It is healthy."

[[edit]]
name = "change"
file = "one.c"
find = "int one"
replace = "int uno"

[[kernel]]
name = "plain"
toolchain = "gcc"
config = ["tinyconfig"]

[[kernel]]
name = "changed"
toolchain = "gcc"
config = ["tinyconfig"]
edits = ["change"]

[base]
memory = "256m"
timeout = "2m"

[[axis]]
name = "smp"
values = [1, 2]
"#;

struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let scene = Scene { dir: tempfile::tempdir().unwrap() };
        for folder in ["linux", "case", "home"] {
            fs::create_dir(scene.path(folder)).unwrap();
        }
        fs::write(scene.path("linux/Makefile"), MAKEFILE).unwrap();
        fs::write(scene.path("linux/one.c"), "int one;\n").unwrap();
        fs::write(scene.path("linux/kernel"), "no kernel").unwrap();
        scene.case(CASE);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn case(&self, text: &str) {
        fs::write(self.path("case/case.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = kolumbo(&self.path("home"));
        command.arg("case").arg("run").arg(self.path("case")).arg("--source");
        command.arg(self.path("linux")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        said(self.command(arguments).output().unwrap())
    }

    /// What is kept in a folder of the cache.
    fn kept(&self, folder: &str) -> usize {
        let path = self.path("home/.cache/kolumbo").join(folder);
        fs::read_dir(path).map_or(0, |entries| entries.count())
    }

    /// How often a kernel was linked.
    fn links(&self) -> usize {
        let log = self.path("home/.cache/kolumbo/log");
        fs::read_to_string(log).map_or(0, |text| text.lines().count())
    }
}

fn said(output: Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn has_tools() -> bool {
    let there = ["gcc", "make"].iter().all(|p| Command::new(p).arg("--version").output().is_ok());
    assert!(there || std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "gcc and make");
    if !there {
        eprintln!("skipped: builds need gcc and make");
    }
    there
}

#[test]
fn what_makes_no_sense_or_does_not_fit_is_said_with_its_place() {
    if !has_tools() {
        return;
    }
    let scene = Scene::new();
    let place = scene.path("case/case.toml").display().to_string();
    for (old, new, expected) in [
        ("title", "titel", format!("{place}:1:1: unknown field `titel`")),
        (
            "\"gcc\"",
            "\"clang-99\"",
            format!("{place}:10:1: kernel 'plain': no compiler 'clang-99'"),
        ),
        (
            "int one",
            "int three",
            format!(
                "{place}:4:1: the edit 'change' does not apply to Linux 6.1.7: its text must be in one.c"
            ),
        ),
        (
            "values = [1, 2]",
            "values = [0, 2]",
            format!("{place}:27:10: '0' is not a number of CPUs"),
        ),
        ("memory", "memroy", format!("{place}:22:1: unknown key 'memroy'")),
    ] {
        scene.case(&CASE.replacen(old, new, 1));
        let (code, _, errors) = scene.run(&[]);
        assert_eq!(code, 2, "{new}: {errors}");
        assert!(errors.starts_with(&format!("kolumbo: {expected}")), "{new}: {errors}");
        assert_eq!(scene.kept("builds") + scene.kept("workshops"), 0, "{new}: something was kept");
    }
    scene.case(&CASE.replace("int uno", "broken"));
    let (code, _, errors) = scene.run(&["--build-only"]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("kernel 'changed' cannot be built: one.c:1: it is broken"), "{errors}");
    let (code, _, errors) =
        said(kolumbo(&scene.path("home")).args(["case", "run", "no-such"]).output().unwrap());
    assert_eq!(code, 2);
    assert!(
        errors.contains("there is no case 'no-such'") && errors.contains("native-save-fl"),
        "{errors}"
    );
}

#[test]
fn cases_are_listed_shown_and_begun() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let (code, text, errors) =
            said(kolumbo(home.path()).arg("case").args(arguments).output().unwrap());
        (code, text, errors)
    };
    let (code, text, _) = run(&["list"]);
    assert!(code == 0 && text.contains("native-save-fl"), "{text}");
    let (_, text, _) = run(&["show", "native-save-fl"]);
    for word in ["clang-defect", "linux-source-6.1", "smp: 1, 2, 4", "pv_native_save_fl"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let mine = home.path().join("mine");
    assert_eq!(run(&["new", mine.to_str().unwrap()]).0, 0);
    let (code, text, _) = run(&["show", mine.to_str().unwrap()]);
    assert!(code == 0 && text.starts_with("mine: "), "{text}");
    assert_eq!(run(&["new", mine.to_str().unwrap()]).0, 2, "nothing is overwritten");
}

/// Built, booted, killed half way, resumed, and told; nothing is built or booted twice.
#[test]
fn a_case_that_was_killed_goes_on() {
    let Some(image) = kernel("a case that boots") else { return };
    if !has_tools() {
        return;
    }
    let scene = Scene::new();
    fs::remove_file(scene.path("linux/kernel")).unwrap();
    std::os::unix::fs::symlink(image, scene.path("linux/kernel")).unwrap();
    let run = scene.path("run");
    let out = ["--out", run.to_str().unwrap()];
    let mut child =
        scene.command(&out).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // The first verdict is on disk.
    let finished = || {
        let database = run.join("matrix/matrix.db");
        let cells = run.join("matrix/cells");
        database.exists() && count(&cells, "\"verdict\"") > 0
    };
    while !finished() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = count(&run.join("matrix/cells"), "\"verdict\"");
    let state: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(state["state"], "running");
    assert_eq!(scene.links(), 2);

    let html = scene.path("page.html");
    let (code, text, errors) =
        scene.run(&[&out[..], &["--json", "--html", html.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{errors}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let cells = told["cells"].as_array().unwrap();
    assert_eq!((told["state"].as_str(), cells.len()), (Some("done"), 4), "{text}");
    assert!(
        cells.iter().all(|c| c["verdict"] == "booted" && c["differences"] == Value::Array(vec![]))
    );
    assert_eq!(scene.links(), 2, "nothing was built again");
    assert!(before >= 1 && count(&run.join("matrix/cells"), "\"verdict\"") == 4);
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("4 of 4 cells as expected") && !page.contains("<script"), "{page}");
    let shown =
        said(kolumbo(&scene.path("home")).args(["case", "show"]).arg(&run).output().unwrap());
    assert!(shown.1.contains("4 of 4 cells as expected"), "{shown:?}");

    // Another expectation is another run, and what was built serves it.
    let sick = "[[expect]]\nwhen = { kernel = \"changed\" }\nverdict = \"panicked\"\n";
    scene.case(&format!("{CASE}\n{sick}"));
    let (code, text, errors) = scene.run(&[]);
    assert_eq!(code, 1, "{errors}");
    assert!(text.contains("2 of 4 cells as expected"), "{text}");
    assert!(text.contains("the verdict is booted, expected was panicked"), "{text}");
    assert_eq!(scene.links(), 2);
    let (code, _, errors) = scene.run(&out);
    assert!(code == 125 && errors.contains("another case or source"), "{errors}");
}

/// Case files below `dir` that hold `word`.
fn count(dir: &Path, word: &str) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.path() {
            path if path.is_dir() => count(&path, word),
            path if path.ends_with("case.json") => {
                usize::from(fs::read_to_string(path).is_ok_and(|text| text.contains(word)))
            }
            _ => 0,
        })
        .sum()
}

/// A call that a healthy kernel makes all the time brings back what its caller relies on, and a register that
/// the C calling convention gives away is lost now and then.
#[test]
fn calls_of_a_running_kernel_are_watched() {
    let Some(image) = kernel("watching calls") else { return };
    let home = tempfile::tempdir().unwrap();
    let prove = |call: &str, register: &str| {
        let mut command = kolumbo(home.path());
        command.args(["prove", "--json", "-m", "256m", "--most", "4", "--call", call]);
        let output = command.args(["--register", register, "-k"]).arg(&image).output().unwrap();
        let (code, text, errors) = said(output);
        let proof: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {errors}"));
        (code, proof)
    };
    let call = first_call(&image);
    let (code, proof) = prove(&call, "rbp");
    assert_eq!((code, &proof["conclusion"]), (1, &Value::from("not-confirmed")), "{proof}");
    assert_eq!(proof["seen"], proof["watched"][0]["seen"]);
    assert!(proof["samples"][0]["callee"].is_string(), "{proof}");
    // The stack pointer is back behind every call.
    assert_eq!(prove(&call, "rsp").0, 1);
    let (code, _, errors) = said(
        kolumbo(home.path())
            .args(["prove", "--call", "start_kernel+0x1", "-k"])
            .arg(&image)
            .output()
            .unwrap(),
    );
    assert!(code == 125 && errors.contains("there is no call at start_kernel+0x1"), "{errors}");
}

/// The first call of `start_kernel` behind the one at its beginning, which tracing takes away.
fn first_call(image: &Path) -> String {
    let bytes = fs::read(image).unwrap();
    let kernel = kolumbo_vmlinux::Kernel::open(&bytes).unwrap();
    let elf = kernel.elf();
    let image = kolumbo_vmlinux::Image::of_vmlinux(&elf, kernel.symbols(None).table);
    let start = image.symbols().address_of("start_kernel").unwrap();
    let code = image.bytes_from(start).unwrap();
    let mut at = 0;
    loop {
        let address = start + at as u64;
        let instruction = kolumbo_dataflow::decode(&code[at..], address).unwrap();
        let text = kolumbo_dataflow::disassemble(&code[at..], address).unwrap();
        if at > 5 && text.starts_with("call") {
            return format!("start_kernel+{at:#x}");
        }
        at += instruction.len();
    }
}

/// The whole of it, from source: minutes where nothing was built yet, one where everything was.
#[test]
fn native_save_fl_is_reproduced_and_proven() {
    let Some((run, code, _home)) = run_from_source("native-save-fl") else { return };
    for cell in list(&run, "cells") {
        let sick = cell["labels"][0] == "clang-defect";
        let verdict = if sick { "panicked" } else { "booted" };
        assert_eq!(cell["verdict"], verdict, "{cell}");
        assert_eq!(cell["differences"], Value::Array(Vec::new()), "{cell}");
    }
    assert_eq!(list(&run, "cells").len(), 9);
    let proofs = proven(&run);
    assert_eq!(proofs.len(), 7);
    let proven = proofs.iter().find(|p| p["step"] == "prove").unwrap();
    let outcome = proven["outcome"].as_str().unwrap();
    assert!(
        outcome.contains("RCX was 0xf") && outcome.contains("equals the stack canary"),
        "{outcome}"
    );
    assert_eq!(
        list(&run, "sentences"),
        ["general protection fault in irq_work_tick: clang-defect"]
    );
    assert_eq!(code, Some(0));
}

/// Guests inside guests: the table of the mail, its sentence, its culprit, and the proof without a kernel.
#[test]
fn srso_safe_ret_is_reproduced_and_proven() {
    let Some((mut run, mut code, home)) = run_from_source("srso-safe-ret") else { return };
    let axes = list(&run, "axes");
    let of = |cell: &Value, axis: &str| {
        let at = axes.iter().position(|name| name == axis).unwrap();
        cell["labels"][at].as_str().unwrap().to_owned()
    };
    // Under QEMU's translator a guest that spins at its reboot leaves the loop now and then, in some of a hundred
    // runs, and reboots; why is not understood. One such cell, whose looks show the loop, is no verdict on the table:
    // it is booted once more.
    let cells = list(&run, "cells");
    let unlike: Vec<_> =
        cells.iter().filter(|c| c["differences"] != serde_json::json!([])).collect();
    if let [cell] = unlike[..]
        && (of(cell, "paravirt"), of(cell, "smp")) == ("kvm".into(), "2".into())
        && cell["verdict"] == "booted"
        && spun_until_the_end(&home.path().join("run").join(cell["folder"].as_str().unwrap()))
    {
        println!("once more, since it left its loop: {cell}");
        let Some((table, exit, _)) = run_from_source("srso-safe-ret") else { return };
        (run, code) = (table, exit);
    }
    let mut hung = 0;
    for cell in list(&run, "cells") {
        let by_clang = of(&cell, "kernel") == "clang" && of(&cell, "smp") != "1";
        let sick = by_clang && of(&cell, "mode") == "safe-ret" && of(&cell, "host-kernel") == "add";
        let verdict = cell["verdict"].as_str().unwrap();
        assert_eq!(verdict.starts_with("hung-"), sick, "{cell}");
        assert!(sick || verdict == "booted", "{cell}");
        assert_eq!(cell["differences"], Value::Array(Vec::new()), "{cell}");
        hung += u32::from(sick);
    }
    assert_eq!((list(&run, "cells").len(), hung), (60, 4));
    let proofs = proven(&run);
    assert_eq!(proofs.len(), 5);
    let sentences = list(&run, "sentences");
    let whole = "anything fails: host-kernel = add and mode = safe-ret and clang and smp ≥ 2";
    assert_eq!(sentences[0], whole, "{sentences:?}");
    assert_eq!(code, Some(0));
}

fn list(run: &Value, key: &str) -> Vec<Value> {
    run[key].as_array().cloned().unwrap_or_default()
}

/// The steps of the proof, all of which hold.
fn proven(run: &Value) -> Vec<Value> {
    let proofs = list(run, "proofs");
    for proof in &proofs {
        assert_eq!(proof["holds"], true, "{proof}");
    }
    proofs
}

/// What a run of a case that kolumbo brings along came to, with its exit code.
fn run_from_source(name: &str) -> Option<(Value, Option<i32>, TempDir)> {
    /// Kernels are built and guests are judged with the whole machine.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let home = tempfile::tempdir().unwrap();
    let (run, code) = from_source::run(name, &["clang-14", "gcc-12"], home.path())?;
    Some((run, code, home))
}

/// Whether the last looks at the guest of this case, eight or more in a row, show one CPU in one place with
/// interrupts off.
fn spun_until_the_end(case: &Path) -> bool {
    let events = fs::read_to_string(case.join("events.jsonl")).unwrap();
    let events = events.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let looks: Vec<Value> = events
        .skip_while(|event| event["event"] != "sample")
        .take_while(|event| event["event"] == "sample")
        .collect();
    let place = |look: &Value| {
        let cpu = &look["vcpus"][0];
        let spins = cpu["halted"] == false && cpu["interrupts"] == false;
        spins.then(|| cpu["pc"].as_u64().unwrap() >> 8)
    };
    let first = looks.first().and_then(place);
    first.is_some() && looks.iter().take_while(|look| place(look) == first).count() >= 8
}
