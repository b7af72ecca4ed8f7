//! The reports of a matrix for other programs: they are read back by what reads them elsewhere.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests start the programs they compare with, and say why they were skipped"
)]

mod samples;

use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;
use kolumbo_case::matrix::MatrixFile;
use kolumbo_report::matrix::{Details, NoDetails, github, junit, kcidb, ktap};
use samples::{Folders, HostileFolders};

fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Nothing that a terminal would act on, and no direction of text.
fn harmless(text: &str) {
    for c in text.chars() {
        let acts = (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!acts, "{c:?} is left");
    }
}

fn every_matrix() -> Vec<(&'static str, MatrixFile)> {
    vec![
        ("empty", MatrixFile::default()),
        ("planted", samples::planted()),
        ("mixed", samples::mixed()),
        ("hostile", samples::hostile()),
        ("large", samples::large(1_000)),
    ]
}

#[test]
fn junit_is_read_back() {
    for (name, matrix) in every_matrix() {
        let xml = written(|out| junit::write(&matrix, out));
        harmless(&xml);
        let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        let suite = &report.test_suites[0];
        assert_eq!(suite.test_cases.len(), matrix.cells.len(), "{name}");
        let failures = matrix.cells.iter().filter(|c| c.as_expected == Some(false)).count();
        assert_eq!(suite.failures, failures, "{name}");
        let pending = matrix
            .cells
            .iter()
            .filter(|c| c.answer == kolumbo_case::matrix::Answer::Pending)
            .count();
        assert_eq!(suite.skipped, pending, "{name}");
        // A second reader: well-formed XML to its end.
        let mut reader = quick_xml::Reader::from_str(&xml);
        while !matches!(reader.read_event().unwrap(), quick_xml::events::Event::Eof) {}
    }
}

#[test]
fn a_junit_case_says_how_to_do_it_again() {
    let xml = written(|out| junit::write(&samples::planted(), out));
    let case = xml.split("<testcase").find(|c| c.contains("clang/2/safe-ret")).unwrap();
    let case = case.replace("\n        ", "\n");
    expect![[r#"
         name="clang/2/safe-ret" classname="kolumbo.kernel=clang" timestamp="2026-11-22T04:00:10.000+00:00" time="14.047">
            <properties>
                <property name="kernel" value="clang"/>
                <property name="smp" value="2"/>
                <property name="append" value="safe-ret"/>
            </properties>
            <failure message="hung-boot: hung-boot in srso_alias_safe_ret" type="hung-boot">hung-boot in srso_alias_safe_ret: sick when: clang and smp ≥ 2 and safe-ret
        </failure>
            <system-out>command: kolumbo boot --out again/clang/2/safe-ret clang 2 safe-ret
        run 1: hung-boot after 14.0 s: all CPUs spin in srso_alias_safe_ret and nothing was printed for 12 s
          signature: hung-boot in srso_alias_safe_ret
          folder: cells/clang/2/safe-ret/1
        bugs: A
        </system-out>
        </testcase>
    "#]].assert_eq(&case);
}

/// Results by depth: how many `ok`, `not ok` and skipped lines; panics where a plan is not kept.
fn parse_ktap(text: &str) -> Vec<(usize, usize, usize)> {
    assert!(text.starts_with("KTAP version 1\n"));
    let mut levels: Vec<(usize, usize, usize)> = Vec::new();
    let mut plans: Vec<(usize, usize)> = Vec::new();
    for line in text.lines() {
        let body = line.trim_start_matches(' ');
        let depth = (line.len() - body.len()) / 4;
        levels.resize(levels.len().max(depth + 1), (0, 0, 0));
        let result = body
            .strip_prefix("not ok ")
            .map(|r| (false, r))
            .or(body.strip_prefix("ok ").map(|r| (true, r)));
        if let Some((good, rest)) = result {
            if plans.len() == depth + 2 {
                let (planned, seen) = plans.pop().unwrap();
                assert_eq!(planned, seen, "{line}");
            }
            let plan = plans.last_mut().unwrap();
            plan.1 += 1;
            let (number, name) = rest.split_once(' ').unwrap();
            assert_eq!(number.parse::<usize>().unwrap(), plan.1, "{line}");
            assert!(!name.is_empty());
            let level = &mut levels[depth];
            match (good, name.contains(" # SKIP")) {
                (true, true) => level.2 += 1,
                (true, false) => level.0 += 1,
                (false, _) => level.1 += 1,
            }
        } else if let Some(plan) = body.strip_prefix("1..") {
            assert_eq!(plans.len(), depth);
            plans.push((plan.parse().unwrap(), 0));
        } else {
            assert!(body.starts_with("KTAP version 1") || body.starts_with("# "), "{line}");
        }
    }
    let (planned, seen) = plans.pop().unwrap();
    assert_eq!((planned, plans.len()), (seen, 0));
    levels
}

#[test]
fn ktap_keeps_its_plans() {
    for (name, matrix) in every_matrix() {
        let text = written(|out| ktap::write(&matrix, out));
        harmless(&text);
        let levels = parse_ktap(&text);
        let cells = levels.last().unwrap();
        assert_eq!(cells.0 + cells.1 + cells.2, matrix.cells.len(), "{name}");
    }
    let text = written(|out| ktap::write(&samples::mixed(), out));
    assert_eq!(parse_ktap(&text), [(0, 2, 0), (14, 3, 1)]);
}

#[test]
fn ktap_reads_like_the_kernels_own() {
    let mut matrix = samples::planted();
    matrix.cells.drain(..12);
    expect![[r#"
        KTAP version 1
        1..1
            KTAP version 1
            # Subtest: kernel=clang
            1..6
            ok 1 2/off
            # run 1: hung-boot after 14.0 s: all CPUs spin in srso_alias_safe_ret and nothing was printed for 12 s
            #   hung-boot in srso_alias_safe_ret
            not ok 2 2/safe-ret
            ok 3 2/ibpb
            ok 4 4/off
            # run 1: hung-boot after 13.9 s: all CPUs spin in srso_alias_safe_ret and nothing was printed for 12 s
            #   hung-boot in srso_alias_safe_ret
            not ok 5 4/safe-ret
            ok 6 4/ibpb
        not ok 1 kernel=clang
        # A: hung-boot in srso_alias_safe_ret
        #    sick when: clang and smp ≥ 2 and safe-ret
        #    2 of 2 runs in 2 cells
    "#]].assert_eq(&written(|out| ktap::write(&matrix, out)));
}

#[test]
fn annotations_on_github() {
    let matrix = samples::mixed();
    expect![[r#"
        ::error title=bug A::hung-boot in srso_alias_safe_ret: sick when: clang and smp ≥ 2 and safe-ret (8 of 20 runs in 2 cells: 40%25 (22%25 to 61%25 at 95%25 confidence))
        ::warning title=gcc/1/off::error: qemu-system-x86_64 was killed by signal 9 while the guest ran
        ::error title=clang/2/safe-ret::flaky 4/10: hung-boot in srso_alias_safe_ret
        ::error title=clang/4/safe-ret::flaky 4/10: hung-boot in srso_alias_safe_ret
    "#]].assert_eq(&written(|out| github::commands(&matrix, out)));
    expect![[r#"
        kolumbo: error: bug A: hung-boot in srso_alias_safe_ret: sick when: clang and smp ≥ 2 and safe-ret (8 of 20 runs in 2 cells: 40% (22% to 61% at 95% confidence))
        kolumbo: warning: gcc/1/off: error: qemu-system-x86_64 was killed by signal 9 while the guest ran
        kolumbo: error: clang/2/safe-ret: flaky 4/10: hung-boot in srso_alias_safe_ret
        kolumbo: error: clang/4/safe-ret: flaky 4/10: hung-boot in srso_alias_safe_ret
    "#]].assert_eq(&written(|out| github::lines(&matrix, out)));
}

#[test]
fn a_guest_cannot_write_commands_of_its_own() {
    let matrix = samples::hostile();
    let text = written(|out| github::commands(&matrix, out));
    harmless(&text);
    for line in text.lines() {
        let rest = line.strip_prefix("::error title=").or(line.strip_prefix("::warning title="));
        let (title, _) = rest.unwrap_or_else(|| panic!("{line}")).split_once("::").unwrap();
        assert!(!title.contains([':', ',']), "{title}");
    }
    let matcher: serde_json::Value = serde_json::from_str(github::MATCHER).unwrap();
    let pattern = &matcher["problemMatcher"][0]["pattern"][0]["regexp"];
    let pattern = regex::Regex::new(pattern.as_str().unwrap()).unwrap();
    let lines = written(|out| github::lines(&matrix, out));
    harmless(&lines);
    assert!(lines.lines().count() > 3);
    for line in lines.lines() {
        assert!(pattern.is_match(line), "{line}");
    }
}

/// A Python with kcidb-io, from the folder of the build; made at the first time.
fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kcidb-io");
    let python = venv.join("bin/python");
    let has = |python: &Path| {
        let out = Command::new(python).args(["-c", "import kcidb_io"]).output();
        out.is_ok_and(|o| o.status.success())
    };
    if !has(&python) {
        let _ = Command::new("python3").args(["-m", "venv"]).arg(&venv).output();
        let _ = Command::new(&python).args(["-m", "pip", "-q", "install", "kcidb-io"]).output();
    }
    has(&python).then_some(python)
}

#[test]
fn kcidb_io_takes_the_report() {
    let Some(python) = python() else {
        assert!(
            std::env::var_os("KOLUMBO_REQUIRE_ALL").is_none_or(|v| v != "1"),
            "kcidb-io is missing and KOLUMBO_REQUIRE_ALL=1 is set; it wants python3-venv and pip"
        );
        eprintln!("skipped: the schema of KCIDB was not checked, kcidb-io could not be installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for (name, matrix) in every_matrix() {
        let folders = Folders { matrix: &matrix, console: 40_000 };
        let details: &dyn Details = match name {
            "hostile" => &HostileFolders,
            "planted" | "mixed" => &folders,
            _ => &NoDetails,
        };
        let text = written(|out| kcidb::write(&matrix, "Kolumbo CI", details, out));
        harmless(&text);
        assert!(!text.contains("\\u0000"), "{name}");
        let file = dir.path().join(format!("{name}.json"));
        std::fs::write(&file, text).unwrap();
        let check = "import json, sys, kcidb_io as k\n\
                     data = json.load(open(sys.argv[1]))\n\
                     k.schema.V4_2.validate_exactly(data)\n\
                     new = k.schema.LATEST.upgrade(data)\n\
                     print(len(new['tests']), sorted(set(t.get('status') for t in new['tests'])))";
        let out = Command::new(&python).args(["-c", check]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        let runs: usize = matrix.cells.iter().map(|c| c.runs.len()).sum();
        assert!(said.starts_with(&format!("{runs} ")), "{name}: {said}");
        if name == "mixed" {
            assert_eq!(said.trim(), "170 ['FAIL', 'MISS', 'PASS']");
        }
    }
}
