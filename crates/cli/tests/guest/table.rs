//! What tests of tables with real guests ask of `matrix --json`. A guest under a translator dies of something else
//! now and then; the table tells it from what was planted, and so do these tests.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the console of a guest says that was told to crash.
const PLANTED: &str = "kernel panic: sysrq triggered crash";

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Where the planted bug strikes, and the sentence of any other bug that struck in every run of its cells, or that is
/// not the first stray of the table. A single stray, one sick run in a cell that was healthy when it was booted once
/// more, is printed.
pub(crate) fn sentences(table: &Value) -> Vec<String> {
    let (mut found, mut strays) = (Vec::new(), 0);
    for bug in list(table, "bugs") {
        if bug["signature"] == PLANTED {
            let texts = list(bug, "conditions").iter().filter_map(|c| c["text"].as_str());
            found.push(texts.collect::<Vec<_>>().join("; or "));
            continue;
        }
        strays += bug["struck"].as_u64().unwrap_or(u64::MAX);
        if strays > 1 || bug["struck"] == bug["judged"] {
            found.push(bug["sentence"].as_str().unwrap_or_default().to_owned());
        } else {
            println!(
                "not planted: {} in cells {}, {}",
                bug["signature"], bug["cells"], bug["sentence"]
            );
        }
    }
    found
}

/// For each cell whether the planted bug struck in it, and how often its first repeat was judged: once, unless
/// something was lost or counted twice. A second repeat only confirms a sickness that stood alone.
pub(crate) fn cells(table: &Value) -> BTreeMap<String, (bool, usize)> {
    let of = |cell: &Value| {
        let runs = list(cell, "runs");
        let judged = |r: &&Value| {
            r["repeat"] == 1 && !r["verdict"].is_null() && r["verdict"] != "cannot-tell"
        };
        let planted = runs.iter().any(|r| r["signature"] == PLANTED);
        (
            cell["name"].as_str().unwrap_or_default().to_owned(),
            (planted, runs.iter().filter(judged).count()),
        )
    };
    list(table, "cells").iter().map(of).collect()
}
