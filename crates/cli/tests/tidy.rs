//! Holds what the documents promise against the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn files_below(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_below(&root().join("crates"), "rs", &mut files);
    assert!(files.len() > 20, "the tree was not found");
    files
}

/// The crates of the workspace with the crates of the workspace that each depends on.
fn cargo_graph() -> BTreeMap<String, BTreeSet<String>> {
    let mut graph = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        let dependencies = manifest
            .split("[dependencies]")
            .nth(1)
            .unwrap_or("")
            .lines()
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.strip_prefix("kolumbo-"))
            .filter_map(|line| line.split([' ', '.']).next())
            .map(str::to_owned)
            .collect();
        graph.insert(name, dependencies);
    }
    graph
}

/// Words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_map_has_the_crates_and_edges_that_cargo_has() {
    let map = read("ARCHITECTURE.md");
    let table = map.split("## The crates").nth(1).unwrap().split("###").next().unwrap();
    let mut drawn: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
    for row in table.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = quoted(cells[1]).next().unwrap().to_owned();
        let edges = (cells[2] != "everything")
            .then(|| quoted(cells[2]).map(str::to_owned).collect::<BTreeSet<_>>());
        drawn.insert(name, edges);
    }
    let graph = cargo_graph();
    assert_eq!(
        drawn.keys().collect::<Vec<_>>(),
        graph.keys().collect::<Vec<_>>(),
        "crates in ARCHITECTURE.md and in crates/"
    );
    for (name, edges) in &graph {
        if let Some(drawn) = &drawn[name] {
            assert_eq!(drawn, edges, "what {name} depends on, in ARCHITECTURE.md and in Cargo");
        }
        assert!(map.contains(&format!("### `crates/{name}`")), "no paragraph on crates/{name}");
    }
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut checked = 0;
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        for word in quoted(&read(document)) {
            let first = word.split('/').next().unwrap_or("");
            let path = ["crates", "tests", "docs", "scripts", "benches", "fuzz", ".ci"]
                .contains(&first)
                && word.contains('/');
            if path && !word.contains(['*', ' ', '<']) {
                assert!(root().join(word).exists(), "{document} names {word}");
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} paths were found");
}

#[test]
fn the_verdict_table_of_the_manual_is_that_of_the_code() {
    let manual = read("docs/case.md");
    for v in kolumbo_case::VerdictKind::ALL {
        let row = format!("| `{}` | {} | {}", v.name(), v.exit_code(), v.meaning());
        assert!(manual.contains(&row), "docs/case.md lacks: {row}");
    }
}

#[test]
fn no_room_is_too_large_or_has_a_name_that_says_nothing() {
    let empty_names = ["util", "utils", "common", "misc", "helper", "helpers", "manager", "imp"];
    for file in rust_files() {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 900, "{} has {lines} lines: split it", file.display());
        let stem = file.file_stem().unwrap().to_str().unwrap();
        assert!(!empty_names.contains(&stem), "{}: name it after what it decides", file.display());
    }
}

#[test]
fn only_the_command_line_prints() {
    for file in rust_files() {
        let relative = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let library = relative.contains("/src/") && !relative.starts_with("crates/cli/");
        if !library {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // Tests say why they were skipped.
        let library = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in library.lines().enumerate() {
            let code = line.trim_start();
            let prints = ["println!(", "eprintln!(", "print!(", "eprint!("]
                .iter()
                .any(|p| code.starts_with(p));
            assert!(!prints, "{relative}:{} prints", number + 1);
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for file in rust_files() {
        let text = fs::read_to_string(&file).unwrap();
        let opens = text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!["));
        assert!(
            opens.is_some_and(|l| l.starts_with("//!") || l.starts_with("// ")),
            "{} opens without saying what it decides",
            file.display()
        );
    }
}

#[test]
fn man_pages_and_completions_come_out() {
    let dir = tempfile::tempdir().unwrap();
    let kolumbo = env!("CARGO_BIN_EXE_kolumbo");
    let made = std::process::Command::new(kolumbo).arg("manual").arg(dir.path()).status().unwrap();
    assert!(made.success());
    let page = fs::read_to_string(dir.path().join("kolumbo-boot.1")).unwrap();
    assert!(page.contains("hung") && page.contains("125"), "the verdicts are not in the man page");
    for shell in ["bash", "zsh", "fish"] {
        let out =
            std::process::Command::new(kolumbo).args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).contains("kernel-location"), "{shell}");
    }
}
