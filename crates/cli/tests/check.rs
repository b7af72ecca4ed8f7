//! `kolumbo check` as its user sees it: small objects with a planted bug, made on the spot, and every option.
//!
//! Needs clang; the proof of `--testcase` needs FileCheck beside it. What is missing is said, and fails under
//! `KOLUMBO_REQUIRE_ALL=1`.

#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// What clang's stack protector made of `native_save_fl()` in 2018: the canary is checked in RCX.
const SAVES_FLAGS: &str = r#"
unsigned long native_save_fl(void)
{
	unsigned long flags;

	asm volatile("pushf ; pop %0" : "=rm" (flags) : : "memory");
	return flags;
}
"#;

/// Callers that keep a pointer in RCX across the call, as inline assembly lets them.
const CALLERS: &str = r#"
	.text
	.globl	first, second
	.type	first, @function
first:
	lea	8(%rdi), %rcx
	call	native_save_fl
	mov	(%rcx), %rax
	ret
	.size	first, . - first
	.type	second, @function
second:
	lea	16(%rsi), %rcx
	call	native_save_fl
	add	(%rcx), %rax
	ret
	.size	second, . - second
	.section .note.GNU-stack,"",@progbits
"#;

/// A return thunk that changes the flags, and a function of our own that breaks a contract of our own.
const THUNKS: &str = r#"
	.text
	.globl	srso_safe_ret, my_thunk
	.type	srso_safe_ret, @function
srso_safe_ret:
	add	$8, %rsp
	ret
	.size	srso_safe_ret, . - srso_safe_ret
	.type	my_thunk, @function
my_thunk:
	xor	%r9d, %r9d
	ret
	.size	my_thunk, . - my_thunk
	.section .note.GNU-stack,"",@progbits
"#;

const MINE: &str = r#"
[[contract]]
name = "mine"
symbols = ["my_thunk"]
preserves = ["registers"]
source = "my_thunk.S"
why = "callers in assembly"
"#;

fn tool(names: &[&str]) -> Option<String> {
    let works = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let found = names.iter().find(works).map(|name| (*name).to_owned());
    if found.is_none() {
        assert!(
            std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
            "none of {names:?} is installed, and KOLUMBO_REQUIRE_ALL=1 is set"
        );
        eprintln!("skipped: none of {names:?} is installed");
    }
    found
}

fn clang() -> Option<String> {
    tool(&["clang-14", "clang"])
}

/// The objects: `saves.o` with the bug, `mended.o` without it, `callers.o`, `thunks.o`.
struct Objects(TempDir);

impl Objects {
    fn new(clang: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let sources = [
            ("saves.c", SAVES_FLAGS.to_owned()),
            ("mended.c", SAVES_FLAGS.replace("=rm", "=r")),
            ("callers.s", CALLERS.to_owned()),
            ("thunks.s", THUNKS.to_owned()),
        ];
        for (name, text) in sources {
            std::fs::write(at(name), text).expect("a source");
            let kernel = ["-O2", "-g", "-fomit-frame-pointer", "-fstack-protector-strong"];
            let guard =
                ["-mstack-protector-guard-reg=gs", "-mcmodel=kernel", "-mno-red-zone", "-c"];
            let output = Command::new(clang)
                .args(if name.ends_with(".c") { &kernel[..] } else { &[] })
                .args(if name.ends_with(".c") { &guard[..] } else { &["-c"] })
                .arg(at(name))
                .arg("-o")
                .arg(at(name).with_extension("o"))
                .output()
                .expect("clang runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        std::fs::write(at("mine.toml"), MINE).expect("a file of contracts");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn check(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kolumbo"))
            .arg("check")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .expect("kolumbo runs")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.check(arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        })
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_bug_is_inferred_and_the_mended_object_is_clean() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    let found = objects.check(&["saves.o", "callers.o", "--no-known-contracts"]);
    assert_eq!(found.status.code(), Some(1));
    let said = text(&found);
    for words in
        ["K0501 native_save_fl destroys rcx", "stack protector", "first+0x4", "2 of 2 calls"]
    {
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
    // The order of the files does not matter, nor does it that the contract is known as well.
    let stated = objects.check(&["callers.o", "saves.o"]);
    assert_eq!(stated.status.code(), Some(1));
    assert!(text(&stated).contains("K0502 native_save_fl destroys rcx"), "{}", text(&stated));
    let clean = objects.check(&["mended.o", "callers.o"]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean));
    assert!(text(&clean).contains("no broken contract"));
}

#[test]
fn json_says_who_and_where_and_a_baseline_hides_it() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    let report = objects.json(&["saves.o", "callers.o", "--no-known-contracts", "--json"]);
    let finding = &report["findings"][0];
    assert_eq!(finding["code"], "K0501");
    assert_eq!(finding["culprit"], "native_save_fl");
    assert_eq!(finding["destroys"][0], "rcx");
    assert!(
        finding["instruction"]["instruction"].as_str().expect("text").contains("%gs:0x28,%rcx")
    );
    assert_eq!(finding["contract"]["kind"], "inferred");
    assert_eq!(finding["sites"].as_array().map(Vec::len), Some(2));
    for total in ["sites", "relying", "undecided", "functions"] {
        assert!(report["totals"][total].is_u64(), "{total} is missing");
    }
    std::fs::write(objects.path("earlier.json"), report.to_string()).expect("a baseline");
    let arguments = ["saves.o", "callers.o", "--no-known-contracts", "--baseline", "earlier.json"];
    assert_eq!(objects.check(&arguments).status.code(), Some(0));
}

/// What SARIF 2.1.0 (OASIS standard, sections 3.13 to 3.34) knows of the objects that are written: the key of an object, the
/// properties that it must have, and all others that may stand in it as far as they are used. No other one is allowed.
const SARIF: &[(&str, &[&str], &[&str])] = &[
    ("log", &["version", "runs"], &["$schema"]),
    ("runs", &["tool"], &["artifacts", "results"]),
    ("tool", &["driver"], &[]),
    ("driver", &["name"], &["version", "rules"]),
    ("rules", &["id"], &["shortDescription"]),
    ("shortDescription", &["text"], &[]),
    ("artifacts", &[], &["location"]),
    ("location", &[], &["uri"]),
    (
        "results",
        &["message"],
        &["ruleId", "level", "locations", "relatedLocations", "partialFingerprints"],
    ),
    ("message", &["text"], &[]),
    ("locations", &[], &["physicalLocation", "logicalLocations", "message"]),
    ("relatedLocations", &[], &["physicalLocation", "logicalLocations", "message"]),
    ("physicalLocation", &[], &["artifactLocation", "address"]),
    ("artifactLocation", &[], &["uri"]),
    ("address", &[], &["absoluteAddress", "name"]),
    ("logicalLocations", &[], &["fullyQualifiedName", "kind"]),
];

/// Walks a log and compares each object with the table; returns how many objects there were.
fn conforms(name: &str, value: &Value) -> usize {
    match value {
        Value::Array(items) => {
            // Sections 3.14.14, 3.27.12: no array is there twice with the same item where items are unique.
            let unique = ["artifacts", "relatedLocations", "rules"].contains(&name);
            assert!(
                !unique || items.iter().enumerate().all(|(n, item)| !items[..n].contains(item))
            );
            items.iter().map(|item| conforms(name, item)).sum()
        }
        Value::Object(object) if name == "partialFingerprints" => {
            assert!(object.values().all(Value::is_string), "{object:?}");
            1
        }
        Value::Object(object) => {
            let (_, required, others) =
                SARIF.iter().find(|(known, ..)| *known == name).expect("a known object");
            for property in *required {
                assert!(object.contains_key(*property), "{name} has no {property}");
            }
            for property in object.keys() {
                let known = [required, others].into_iter().any(|l| l.contains(&property.as_str()));
                assert!(known, "{name} may not have {property}");
            }
            1 + object.iter().map(|(property, value)| conforms(property, value)).sum::<usize>()
        }
        Value::String(text) => {
            assert!(
                name != "level" || ["none", "note", "warning", "error"].contains(&text.as_str())
            );
            // A URI reference: no blank, no control character, no other character that must be escaped.
            let escaped = |c: char| c.is_ascii_graphic() && !"<>\"{}|\\^`".contains(c);
            assert!(name != "uri" || text.chars().all(escaped), "{text}");
            0
        }
        Value::Number(number) => {
            // `absoluteAddress` is an integer of at least -1; a reader with 64 signed bits must be able to hold it.
            assert!(number.as_i64().is_some_and(|number| number >= -1), "{name}: {number}");
            0
        }
        _ => panic!("{name}: {value} is of no type that stands in a log"),
    }
}

#[test]
fn sarif_has_what_2_1_0_requires() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    std::fs::copy(objects.path("saves.o"), objects.path("name with a blank.o")).expect("a copy");
    let log = objects.json(&["name with a blank.o", "callers.o", "thunks.o", "--sarif"]);
    assert!(conforms("log", &log) > 20);
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().expect("a schema").contains("2.1.0"));
    let run = &log["runs"][0];
    let rules: Vec<&str> = run["tool"]["driver"]["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .filter_map(|rule| rule["id"].as_str())
        .collect();
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 2);
    assert!(
        results.iter().all(|result| rules.contains(&result["ruleId"].as_str().expect("a rule")))
    );
    let clean = objects.json(&["mended.o", "callers.o", "--sarif"]);
    assert!(conforms("log", &clean) > 5);
    assert_eq!(clean["runs"][0]["results"].as_array().map(Vec::len), Some(0));
}

/// What the linker makes of several objects without linking them to their places: as vmlinux.o is made.
#[test]
fn objects_that_were_put_together_are_checked_with_their_relocations() {
    let Some(clang) = clang() else { return };
    if tool(&["ld"]).is_none() {
        return;
    }
    let objects = Objects::new(&clang);
    for (name, first, culprit) in
        [("vmlinux.o", "saves.o", Some("native_save_fl")), ("healthy.o", "mended.o", None)]
    {
        let linked = Command::new("ld")
            .args(["-r", first, "callers.o", "-o", name])
            .current_dir(objects.0.path())
            .status();
        assert!(linked.expect("ld runs").success());
        let report = objects.json(&[name, "--no-known-contracts", "--json"]);
        assert_eq!(report["findings"][0]["culprit"].as_str(), culprit, "{name}");
        // Where nothing is broken, both calls find kept what they rely on.
        assert_eq!(report["totals"]["relying"], if culprit.is_none() { 2 } else { 0 }, "{name}");
    }
    // A single object whose callee is elsewhere: nobody is accused, and the calls are counted.
    let alone = objects.json(&["callers.o", "--json"]);
    assert_eq!(alone["findings"].as_array().map(Vec::len), Some(0));
    assert_eq!(alone["totals"]["sites"], 2);
    // Two modules that are packed and one that is not; the one that defines the callee comes first.
    if tool(&["xz"]).is_some() {
        let packed = Command::new("xz")
            .args(["-k", "-S", ".ko.xz", "callers.o", "thunks.o"])
            .current_dir(objects.0.path())
            .status();
        assert!(packed.expect("xz runs").success());
        let report = objects.json(&[
            "saves.o",
            "callers.o.ko.xz",
            "thunks.o.ko.xz",
            "--no-known-contracts",
            "--json",
        ]);
        assert_eq!(report["findings"][0]["culprit"], "native_save_fl");
        assert_eq!(report["images"].as_array().map(Vec::len), Some(3));
        let call = &report["findings"][0]["sites"][0]["call"];
        assert_eq!(call["image"], "callers.o.ko.xz");
    }
}

#[test]
fn a_machine_without_the_bug_does_not_use_the_thunk() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    for (cpu, status) in [("EPYC-Rome", 1), ("skylake", 0), ("zen5", 0), ("x86-64-v3", 1)] {
        let found = objects.check(&["thunks.o", "--cpu", cpu]);
        assert_eq!(found.status.code(), Some(status), "{cpu}: {}", text(&found));
    }
    // This machine has a flags line, or the kernel of the test would not run.
    assert!(matches!(objects.check(&["thunks.o", "--cpu", "host"]).status.code(), Some(0 | 1)));
}

#[test]
fn contracts_of_a_file_and_words_of_the_command_line() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    let both = text(&objects.check(&["thunks.o", "--contracts", "mine.toml"]));
    assert!(both.contains("srso_safe_ret destroys CF PF AF ZF SF OF"), "{both}");
    assert!(both.contains("spec_rstack_overflow=safe-ret on AMD"), "{both}");
    assert!(both.contains("my_thunk destroys r9"), "{both}");
    let off = objects.check(&["thunks.o", "--cmdline", "quiet spec_rstack_overflow=off"]);
    assert_eq!(off.status.code(), Some(0), "{}", text(&off));
    let safe = objects.check(&["thunks.o", "--cmdline", "spec_rstack_overflow=safe-ret"]);
    assert_eq!(safe.status.code(), Some(1));
}

#[test]
fn a_machine_is_named_or_listed() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    std::fs::write(objects.path("cpuinfo"), "processor : 0\nflags\t\t: fpu erms smap\n")
        .expect("a file");
    for arguments in
        [["--cpu", "EPYC-Rome"], ["--features", "erms,smap"], ["--features", "cpuinfo"]]
    {
        let found = objects.check(&["saves.o", "callers.o", arguments[0], arguments[1]]);
        assert_eq!(found.status.code(), Some(1), "{arguments:?}");
    }
    let unknown = objects.check(&["saves.o", "--cpu", "pentium"]);
    assert_eq!(unknown.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("skylake"));
}

#[test]
fn a_machine_is_read_from_a_log_or_a_case() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    let write = |name: &str, text: &str| std::fs::write(objects.path(name), text).expect("a file");
    write(
        "log",
        "[    0.0] Command line: quiet spec_rstack_overflow=off\n[    1.0] flags : fpu erms\n",
    );
    write("safe", "[    0.1] Speculative Return Stack Overflow: Mitigation: Safe RET\n");
    std::fs::create_dir(objects.path("case")).expect("a folder");
    write(
        "case/case.json",
        r#"{"guest":{"cmdline":"quiet","vulnerabilities":{"spec_rstack_overflow":"Not affected"}}}"#,
    );
    for (features, status) in [("log", 0), ("case", 0), ("safe", 1)] {
        let found = objects.check(&["thunks.o", "--features", features]);
        assert_eq!(found.status.code(), Some(status), "{features}: {}", text(&found));
    }
    write("other", "[    0.0] nothing: that helps\n");
    let failed = objects.check(&["thunks.o", "--features", "other"]);
    assert_eq!(failed.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("names no features"));
}

#[test]
fn compressed_files_are_unpacked() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    for (compressor, ending) in [("xz", "xz"), ("zstd", "zst")] {
        if tool(&[compressor]).is_none() {
            continue;
        }
        let packed = format!("saves.ko.{ending}");
        let bytes = Command::new(compressor)
            .args(["-c", "-q"])
            .arg(objects.path("saves.o"))
            .output()
            .expect("the compressor runs");
        assert!(bytes.status.success());
        std::fs::write(objects.path(&packed), bytes.stdout).expect("a file");
        let found = objects.check(&[&packed, "callers.o", "--no-known-contracts"]);
        assert_eq!(found.status.code(), Some(1), "{packed}: {}", text(&found));
        assert!(text(&found).contains("K0501 native_save_fl destroys rcx"), "{packed}");
    }
}

#[test]
fn one_site_is_explained_and_contracts_are_listed() {
    let Some(clang) = clang() else { return };
    let objects = Objects::new(&clang);
    let site = text(&objects.check(&["saves.o", "callers.o", "--explain-site", "first+0x4"]));
    assert!(site.contains("native_save_fl") && site.contains("mov (%rcx),%rax"), "{site}");
    let table = text(&objects.check(&["mended.o", "callers.o", "--contracts-inferred"]));
    assert!(table.contains("native_save_fl") && table.contains("rcx:2"), "{table}");
    let nowhere = objects.check(&["saves.o", "--explain-site", "nobody+0x4"]);
    assert_eq!(nowhere.status.code(), Some(125));
}

#[test]
fn what_cannot_be_checked_ends_with_125() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = Objects(folder);
    std::fs::write(objects.path("text"), "not a kernel").expect("a file");
    for name in ["missing.o", "text"] {
        let failed = objects.check(&[name]);
        assert_eq!(failed.status.code(), Some(125), "{name}");
        assert!(String::from_utf8_lossy(&failed.stderr).contains(name));
    }
}

/// Runs the RUN line of a test as a compiler's test suite would.
fn run_line(test: &Path, clang: &str, filecheck: &str) -> bool {
    let source = std::fs::read_to_string(test).expect("a test");
    let line = source.lines().find_map(|line| line.split_once("RUN: ")).expect("a RUN line").1;
    let object = test.with_extension("tmp");
    let objdump = filecheck.replace("FileCheck", "llvm-objdump");
    let line = line
        .replace("%s", &test.display().to_string())
        .replace("%t", &object.display().to_string())
        .replace("llvm-objdump", &objdump)
        .replace("FileCheck", filecheck)
        .replacen("clang", clang, 1);
    let output = Command::new("sh").arg("-c").arg(format!("set -e; {line}")).output().expect("sh");
    if !output.status.success() {
        // It must be FileCheck that says no, not a tool that cannot run.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("CHECK-NOT: excluded string found"), "{line}\n{said}");
    }
    output.status.success()
}

#[test]
fn a_testcase_fails_on_the_bug_and_passes_when_it_is_mended() {
    let Some(clang) = clang() else { return };
    let Some(filecheck) = tool(&["/usr/lib/llvm-14/bin/FileCheck", "FileCheck-14", "FileCheck"])
    else {
        return;
    };
    let objects = Objects::new(&clang);
    objects.check(&["saves.o", "callers.o", "--testcase", "tests"]);
    let test = objects.path("tests/native_save_fl.c");
    assert!(!run_line(&test, &clang, &filecheck), "the bug passes");
    let source = std::fs::read_to_string(&test).expect("a test");
    std::fs::write(
        &test,
        source.replace("(\"pushf ; pop %0\" : \"=rm\"", "(\"pushf ; pop %0\" : \"=r\""),
    )
    .expect("a test");
    assert!(run_line(&test, &clang, &filecheck), "the mended function fails");

    objects.check(&["thunks.o", "--testcase", "tests"]);
    let test = objects.path("tests/srso_safe_ret.s");
    assert!(!run_line(&test, &clang, &filecheck), "the bug passes");
    let source = std::fs::read_to_string(&test).expect("a test");
    let mended = source.replace("\tadd    $0x8,%rsp", "\tlea 8(%rsp),%rsp");
    assert_ne!(source, mended);
    std::fs::write(&test, mended).expect("a test");
    assert!(run_line(&test, &clang, &filecheck), "the mended thunk fails");
}
