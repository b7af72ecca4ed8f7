//! A stack of 100 patches against a long history: what it costs beside `git log --oneline` over the same
//! range. 200,000 commits with `KOLUMBO_SOAK`, else 2,000; the ratios are printed, not asserted.
#![allow(clippy::print_stderr, clippy::print_stdout)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kolumbo_case::stack::Held;
use kolumbo_source::stack::git::Repository;
use kolumbo_source::stack::series::Stack;
use kolumbo_source::stack::status::{Question, status};

const PATCHES: usize = 100;
const FILES: usize = 1000;

/// A stream for `git fast-import`: a base, a target of `commits` commits, and a stack of which the target
/// took every third patch, under another message.
fn stream(commits: usize, out: &mut dyn Write) -> std::io::Result<()> {
    let head = |out: &mut dyn Write, branch: &str, message: &str| {
        writeln!(out, "commit refs/heads/{branch}")?;
        writeln!(out, "author A <a@x> 1000000000 +0000\ncommitter C <c@x> 1000000000 +0000")?;
        writeln!(out, "data {}\n{message}", message.len())
    };
    let file = |out: &mut dyn Write, name: usize, text: &str| {
        let (folder, data) = (name % 50, text.len());
        writeln!(out, "M 100644 inline d{folder}/f{name}\ndata {data}\n{text}")
    };
    let patched = |n: usize| format!("base {n}\nfixed {n}\n");
    head(out, "base", "base")?;
    for n in 0..FILES {
        file(out, n, &format!("base {n}\n"))?;
    }
    for n in 0..PATCHES {
        head(out, "stack", &format!("UPSTREAM: fix {n}"))?;
        if n == 0 {
            writeln!(out, "from refs/heads/base")?;
        }
        file(out, n, &patched(n))?;
    }
    for n in 0..commits {
        let taken = n / 7;
        let take = n % 7 == 0 && taken < PATCHES && taken % 3 == 0;
        let message =
            if take { format!("taken {taken}") } else { format!("subsystem: change {n}") };
        head(out, "target", &message)?;
        if n == 0 {
            writeln!(out, "from refs/heads/base")?;
        }
        match take {
            true => file(out, taken, &patched(taken))?,
            false => file(out, PATCHES + n % (FILES - PATCHES), &format!("change {n}\n"))?,
        }
    }
    writeln!(out, "done")
}

fn git(dir: &Path, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    let done = Command::new("git").arg("-C").arg(dir).args(arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    begun.elapsed()
}

#[test]
fn a_hundred_patches_against_a_long_history() {
    if Command::new("git").arg("--version").output().is_err() {
        assert!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "git is missing");
        eprintln!("skipped: git is missing");
        return;
    }
    let commits = if std::env::var_os("KOLUMBO_SOAK").is_some() { 200_000 } else { 2_000 };
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"]);
    let mut import = Command::new("git")
        .arg("-C")
        .arg(dir.path())
        .args(["fast-import", "--quiet", "--done"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = std::io::BufWriter::new(import.stdin.take().unwrap());
    stream(commits, &mut pipe).unwrap();
    drop(pipe);
    assert!(import.wait().unwrap().success());

    let log = ["log", "--oneline", "base..target"];
    git(dir.path(), &log);
    let log = git(dir.path(), &log);
    let cache = tempfile::tempdir().unwrap();
    let repository = Repository::open(dir.path()).unwrap();
    let stack = Stack::open(&repository, "base..stack", None).unwrap();
    let ask = || {
        let begun = Instant::now();
        let found = status(
            &repository,
            &Question {
                stack: &stack,
                onto: "target",
                upstream: None,
                labels: &[],
                cache: cache.path(),
            },
        );
        (found.unwrap(), begun.elapsed())
    };
    let (cold, cold_time) = ask();
    let (warm, warm_time) = ask();
    assert_eq!(cold, warm);
    assert_eq!(cold.rows.len(), PATCHES);
    let held = cold.rows.iter().filter(|r| r.held == Held::SamePatch).count();
    assert_eq!(held, PATCHES.div_ceil(3));
    let ratio = |time: Duration| time.as_secs_f64() / log.as_secs_f64().max(1e-9);
    println!(
        "stack status over {commits} commits against git log --oneline ({log:?}): cold {:.1}, warm {:.1} times",
        ratio(cold_time),
        ratio(warm_time)
    );
}
