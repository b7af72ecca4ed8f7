//! Boots the guests of `tests/guests/guests.toml` with `kolumbo boot` and compares the verdicts.
//!
//! `KOLUMBO_GUESTS` chooses: unset, the short set; `all`; or names with commas between. The kernel is
//! the one that `KOLUMBO_TEST_KERNEL` names, else one in kolumbo's cache folder; the module is built
//! against `KDIR`, else the installed headers of that kernel. A guest that cannot be made is
//! skipped and counted; `KOLUMBO_REQUIRE_ALL=1` makes that a failure.

#![allow(clippy::print_stdout, reason = "this test prints one line a guest, and two counts")]

mod ingredients;
mod table;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ingredients::Ingredients;
use kolumbo_case::{CaseFile, Verdict};
use table::{Guest, guests};

/// How much longer than its own limit a run may take before the test ends it.
const GRACE: Duration = Duration::from_secs(60);

#[test]
fn every_guest_gets_the_verdict_that_is_right_for_it() {
    let chosen = std::env::var("KOLUMBO_GUESTS").unwrap_or_default();
    let guests: Vec<Guest> = guests().into_iter().filter(|g| g.is_chosen(&chosen)).collect();
    assert!(!guests.is_empty(), "KOLUMBO_GUESTS={chosen} names no guest");

    let ingredients = Ingredients::find();
    let mut tally = Tally::default();
    for guest in &guests {
        let folder = tempfile::tempdir().unwrap();
        let result = match ingredients.arguments(guest, folder.path()) {
            Err(missing) => Outcome::Skipped(missing),
            Ok(arguments) => boot(guest, &arguments, &folder.path().join("case")),
        };
        println!("{}", result.line(guest));
        tally.count(guest, &result);
    }
    println!("sick guests: {} right of {}", tally.sick_right, tally.sick);
    println!("healthy guests: {} false accusations of {}", tally.accused, tally.healthy);
    println!("skipped guests: {}", tally.skipped);
    assert!(tally.wrong.is_empty(), "wrong: {}", tally.wrong.join(", "));
    let require_all = std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() == Ok("1");
    assert!(!require_all || tally.skipped == 0, "{} guests were skipped", tally.skipped);
}

#[derive(Default)]
struct Tally {
    sick: u32,
    sick_right: u32,
    healthy: u32,
    accused: u32,
    skipped: u32,
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, guest: &Guest, outcome: &Outcome) {
        let right = match outcome {
            Outcome::Skipped(_) => {
                self.skipped += 1;
                return;
            }
            Outcome::Ran(ran) => ran.is_right(guest),
            Outcome::Failed(_) => false,
        };
        if guest.healthy {
            self.healthy += 1;
            self.accused += u32::from(!right);
        } else {
            self.sick += 1;
            self.sick_right += u32::from(right);
        }
        if !right {
            self.wrong.push(guest.name.clone());
        }
    }
}

enum Outcome {
    Ran(Box<Ran>),
    Skipped(String),
    Failed(String),
}

struct Ran {
    verdict: Verdict,
    /// Words of the table that `kolumbo show` does not print.
    unexplained: Vec<String>,
    exit: Option<i32>,
    wall: Duration,
}

impl Ran {
    fn is_right(&self, guest: &Guest) -> bool {
        guest.expect.contains(&self.verdict.verdict)
            && self.unexplained.is_empty()
            && self.exit == Some(i32::from(self.verdict.verdict.exit_code()))
    }
}

impl Outcome {
    fn line(&self, guest: &Guest) -> String {
        let name = &guest.name;
        match self {
            Outcome::Skipped(missing) => format!("skip   {name}: {missing}"),
            Outcome::Failed(why) => format!("WRONG  {name}: {why}"),
            Outcome::Ran(ran) => {
                let v = &ran.verdict;
                let mark = if ran.is_right(guest) { "ok   " } else { "WRONG" };
                let silent = v.decided_ms.saturating_sub(v.last_sign_of_life_ms) as f64 / 1e3;
                format!(
                    "{mark}  {name:<28} {:<18} {:5.1} s, {silent:4.1} s after the last sign of \
                     life{}: {}{}",
                    v.verdict.name(),
                    ran.wall.as_secs_f64(),
                    if v.timed_out { ", by the time limit" } else { "" },
                    v.reason,
                    if ran.unexplained.is_empty() {
                        String::new()
                    } else {
                        format!("; the explanation lacks {}", ran.unexplained.join(", "))
                    },
                )
            }
        }
    }
}

fn boot(guest: &Guest, arguments: &[String], out: &Path) -> Outcome {
    let _load = Load::start(guest.load);
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_kolumbo"))
        .arg("boot")
        .args(["--json", "--out"])
        .arg(out)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return Outcome::Failed(format!("starting kolumbo: {e}")),
    };
    // What kolumbo complains about is short; it fits into the pipe.
    let limit = guest.limit() + GRACE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Outcome::Failed(format!("no verdict within {} s", limit.as_secs()));
            }
            Err(e) => return Outcome::Failed(format!("waiting for kolumbo: {e}")),
        }
    };
    let wall = begun.elapsed();
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut stderr, &mut complaint);
    }
    let case = std::fs::read(out.join("case.json"))
        .map_err(|e| e.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()));
    match case {
        Ok(CaseFile { outcome: Some(verdict), .. }) => {
            let unexplained = unexplained(guest, out);
            Outcome::Ran(Box::new(Ran { verdict, unexplained, exit: status.code(), wall }))
        }
        Ok(_) => Outcome::Failed(format!("the case has no verdict ({status}): {complaint}")),
        Err(e) => Outcome::Failed(format!("reading the case: {e} ({status}): {complaint}")),
    }
}

/// What the table wants explained and the report of the case does not say.
fn unexplained(guest: &Guest, case: &Path) -> Vec<String> {
    if guest.explained.is_empty() {
        return Vec::new();
    }
    let shown = Command::new(env!("CARGO_BIN_EXE_kolumbo"))
        .args(["show", "--no-console"])
        .arg(case)
        .output();
    let text = shown.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    guest.explained.iter().filter(|words| !text.contains(*words)).cloned().collect()
}

/// Threads that keep the host's CPUs busy until this is dropped.
struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(threads: u32) -> Load {
        use std::sync::atomic::Ordering::Relaxed;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let threads = (0..threads)
            .map(|_| {
                let stop = stop.clone();
                std::thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        Load { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
