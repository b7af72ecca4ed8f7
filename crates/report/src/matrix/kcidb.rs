//! A matrix in the format of the Kernel CI database, version 4.2.
//!
//! Decides which status a run has there: what the guest did, whatever was expected (a sick run that
//! was expected is waived). One build for each kernel, one test for each run, one issue for each
//! bug. Written piece by piece. The schema is that of the package kcidb-io.

use std::collections::HashMap;
use std::io::{self, Write as _};

use chrono::DateTime;
use kolumbo_case::matrix::{Cell, MatrixFile, Run};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::details::Details;
use super::words::{Outcome, clipped, label, outcome, sentence, strikes, visible, visible_bytes};

/// The longest excerpt that the schema allows, in characters.
const EXCERPT: usize = 16_384;
/// Runs of one bug whose console is quoted; the others have a sentence only.
const QUOTED: u32 = 20;
/// The longest other text, in characters.
const FIELD: usize = 4_000;

/// Writes the report in the name of `origin`, the CI system that sends it (lower case letters,
/// digits and underscores; others are replaced).
///
/// # Errors
/// What `out` answers.
pub fn write(
    matrix: &MatrixFile,
    origin: &str,
    details: &dyn Details,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let out = &mut io::BufWriter::new(out);
    let sender = Sender::new(matrix, origin);
    write!(out, r#"{{"version":{{"major":4,"minor":2}}"#)?;
    list(out, "checkouts", [sender.checkout(matrix)])?;
    list(out, "builds", sender.builds(matrix))?;
    let mut quoted: HashMap<u32, u32> = HashMap::new();
    list(
        out,
        "tests",
        runs(matrix).map(|(c, cell, r, run)| {
            let quote = outcome(run) == Outcome::Sick && {
                let n = quoted.entry(run.bug.unwrap_or(u32::MAX)).or_default();
                *n += 1;
                *n <= QUOTED
            };
            let console = quote.then(|| details.console(c, r, EXCERPT)).flatten();
            sender.test(matrix, (c, cell), (r, run), console.map(|tail| tail.bytes))
        }),
    )?;
    list(out, "issues", sender.issues(matrix))?;
    let incidents = runs(matrix).filter_map(|(c, _, r, run)| {
        let bug = run.bug.filter(|&b| (b as usize) < matrix.bugs.len())?;
        Some(json!({
            "id": sender.id(&format!("incident-{c}-{r}")),
            "origin": sender.origin,
            "issue_id": sender.issue(matrix, bug),
            "issue_version": 1,
            "test_id": sender.id(&format!("{c}-{r}")),
            "present": true,
        }))
    });
    list(out, "incidents", incidents)?;
    writeln!(out, "}}")?;
    out.flush()
}

/// Every run with the index of its cell and its own.
fn runs(matrix: &MatrixFile) -> impl Iterator<Item = (u32, &Cell, usize, &Run)> {
    (0u32..)
        .zip(&matrix.cells)
        .flat_map(|(c, cell)| cell.runs.iter().enumerate().map(move |(r, run)| (c, cell, r, run)))
}

fn list<T: Serialize>(
    out: &mut dyn io::Write,
    name: &str,
    items: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    write!(out, ",\n\"{name}\":[")?;
    for (number, item) in items.into_iter().enumerate() {
        out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &item)?;
    }
    write!(out, "]")
}

/// Who sends, and what makes the identifiers of this matrix unlike those of any other.
struct Sender {
    origin: String,
    matrix: String,
    /// The axis whose values are kernels.
    kernels: Option<usize>,
}

impl Sender {
    fn new(matrix: &MatrixFile, origin: &str) -> Sender {
        let origin: String = origin
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(100)
            .collect();
        let origin = if origin.is_empty() { "kolumbo".to_owned() } else { origin };
        let mut hash = Sha256::new();
        for word in [&matrix.started, &matrix.title, &matrix.host.kernel, &matrix.host.cpu] {
            hash.update(word.as_bytes());
            hash.update([0]);
        }
        for value in matrix.axes.iter().flat_map(|a| &a.values) {
            hash.update(value.value.as_bytes());
            hash.update([0]);
        }
        let kernels = matrix.axes.iter().position(|a| a.name == "kernel");
        Sender { origin, matrix: hex(&hash.finalize()[..12]), kernels }
    }

    fn id(&self, what: &str) -> String {
        format!("{}:{}-{what}", self.origin, self.matrix)
    }

    fn checkout(&self, matrix: &MatrixFile) -> Value {
        let mut checkout = json!({
            "id": self.id("kernels"),
            "origin": self.origin,
            "comment": "kernel images as they were handed over; their sources are not known here",
        });
        if let Some(time) = time(&matrix.started) {
            checkout["start_time"] = time;
        }
        checkout
    }

    fn build(&self, cell: &Cell) -> String {
        let value = self.kernels.and_then(|k| cell.at.get(k)).copied().unwrap_or(0);
        self.id(&format!("kernel-{value}"))
    }

    fn builds(&self, matrix: &MatrixFile) -> Vec<Value> {
        let kernels = self.kernels.map_or(&[][..], |k| &matrix.axes[k].values);
        let mut builds: Vec<Value> = kernels
            .iter()
            .enumerate()
            .map(|(number, kernel)| {
                let mut build = json!({
                    "id": self.id(&format!("kernel-{number}")),
                    "checkout_id": self.id("kernels"),
                    "origin": self.origin,
                    "comment": field(&format!("{}: {}", kernel.label, kernel.value)),
                });
                if !kernel.note.is_empty() {
                    build["compiler"] = field(&kernel.note).into();
                }
                build
            })
            .collect();
        if builds.is_empty() {
            builds.push(json!({
                "id": self.id("kernel-0"),
                "checkout_id": self.id("kernels"),
                "origin": self.origin,
            }));
        }
        builds
    }

    fn test(
        &self,
        matrix: &MatrixFile,
        (c, cell): (u32, &Cell),
        (r, run): (usize, &Run),
        console: Option<Vec<u8>>,
    ) -> Value {
        let result = outcome(run);
        let status = match result {
            Outcome::Healthy => "PASS",
            Outcome::Sick => "FAIL",
            // The guest ran, and kolumbo could not make out what became of it.
            Outcome::Undecided => "ERROR",
            // The guest was not run to its end.
            Outcome::Spoilt => "MISS",
        };
        let mut conditions = serde_json::Map::new();
        for (number, axis) in matrix.axes.iter().enumerate() {
            conditions.insert(field(&axis.name), field(label(matrix, cell, number)).into());
        }
        let mut test = json!({
            "id": self.id(&format!("{c}-{r}")),
            "build_id": self.build(cell),
            "origin": self.origin,
            "path": self.path(matrix, cell),
            "comment": field(&format!("kolumbo {}", cell.name)),
            "status": status,
            "environment": {
                "comment": field(&format!(
                    "QEMU on {}, Linux {}", matrix.host.cpu, matrix.host.kernel
                )),
                "misc": { "conditions": conditions },
            },
            "duration": run.wall_ms as f64 / 1000.0,
            "misc": { "kolumbo": {
                "cell": field(&cell.name),
                "repeat": run.repeat,
                "attempt": run.attempt,
                "verdict": run.verdict.map(|v| v.name()),
                "phase": run.phase.name(),
                "signature": field(&run.signature),
                "folder": field(&run.folder),
                "command": field(&cell.command),
            }},
        });
        if let Some(time) = time(&run.started) {
            test["start_time"] = time;
        }
        if result == Outcome::Sick && cell.as_expected == Some(true) {
            test["waived"] = true.into();
        }
        if result != Outcome::Healthy {
            test["log_excerpt"] = excerpt(run, console).into();
        }
        test
    }

    /// `boot.kolumbo` and the conditions other than the kernel: the same node of the tree of tests
    /// for every kernel.
    fn path(&self, matrix: &MatrixFile, cell: &Cell) -> String {
        let mut path = String::from("boot.kolumbo");
        for (number, axis) in matrix.axes.iter().enumerate() {
            if Some(number) != self.kernels {
                path.push('.');
                let node = format!("{}_{}", axis.name, label(matrix, cell, number));
                path.extend(node.chars().take(100).map(|c| match c {
                    c if c.is_ascii_alphanumeric() || c == '-' => c,
                    _ => '_',
                }));
            }
        }
        path
    }

    /// An issue is known by its signature, so that two matrices of one sender speak of one issue.
    fn issue(&self, matrix: &MatrixFile, bug: u32) -> String {
        let signature = matrix.bugs.get(bug as usize).map_or("", |b| b.signature.as_str());
        let hash = Sha256::digest(signature.as_bytes());
        format!("{}:{}", self.origin, hex(&hash[..12]))
    }

    fn issues(&self, matrix: &MatrixFile) -> Vec<Value> {
        (0u32..)
            .zip(&matrix.bugs)
            .map(|(number, bug)| {
                let words = format!("{} ({})", sentence(bug), strikes(bug, matrix.confidence));
                json!({
                    "id": self.issue(matrix, number),
                    "version": 1,
                    "origin": self.origin,
                    "report_subject": field(&bug.signature),
                    "comment": field(&words),
                })
            })
            .collect()
    }
}

fn excerpt(run: &Run, console: Option<Vec<u8>>) -> String {
    let mut text = format!("{}\n", visible(&run.reason));
    if !run.signature.is_empty() {
        text.push_str(&visible(&run.signature));
        text.push('\n');
    }
    text = clipped(&text, FIELD).into_owned();
    if let Some(bytes) = console {
        let lines = visible_bytes(&bytes);
        let room = EXCERPT - text.chars().count() - 1;
        let skip = lines.chars().count().saturating_sub(room);
        text.push('\n');
        text.extend(lines.chars().skip(skip));
    }
    text
}

fn time(text: &str) -> Option<Value> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_rfc3339().into())
}

fn field(text: &str) -> String {
    clipped(&visible(text), FIELD).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
