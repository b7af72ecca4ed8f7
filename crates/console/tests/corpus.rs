//! Compares what the reader says with the labels of the corpus in `KOLUMBO_CORPUS`.
//!
//! The corpus is a folder in syzkaller's test format with `report/` and `guilty/` in it: headers up
//! to the first empty line, the log, optionally `REPORT:` and text that is not compared. Set
//! `KOLUMBO_CORPUS_SHOW` to print every difference.

// A test reads files and circumstances; the crate must not.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use kolumbo_case::CrashReport;
use kolumbo_console::read;

/// One labelled log.
struct Sample {
    name: String,
    headers: Vec<(String, String)>,
    log: Vec<u8>,
}

impl Sample {
    fn one(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.headers.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect()
    }
}

fn parse(name: String, bytes: Vec<u8>) -> Sample {
    let bytes: Vec<u8> = bytes.into_iter().filter(|&b| b != b'\r').collect();
    let mut headers = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n);
        let line = String::from_utf8_lossy(&bytes[at..end]).into_owned();
        at = (end + 1).min(bytes.len());
        if line.is_empty() {
            break;
        }
        if line.starts_with('#') {
            continue;
        }
        if let Some((key, value)) = line.split_once(':') {
            headers.push((key.to_owned(), value.trim().to_owned()));
        }
    }
    let mut log = bytes[at..].to_vec();
    let marker = b"\nREPORT:\n";
    if let Some(n) = log.windows(marker.len()).position(|w| w == marker) {
        log.truncate(n);
    }
    Sample { name, headers, log }
}

fn samples(folder: &Path) -> Vec<Sample> {
    let mut found: Vec<Sample> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("cannot list {}: {e}", folder.display()))
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.parse::<u32>().ok()?;
            Some(parse(name, fs::read(entry.path()).ok()?))
        })
        .collect();
    found.sort_by_key(|s| s.name.parse::<u32>().unwrap_or(0));
    found
}

#[derive(Default)]
struct Tally {
    fields: BTreeMap<&'static str, (usize, usize)>,
    differences: Vec<String>,
}

impl Tally {
    fn count(&mut self, field: &'static str, sample: &str, wanted: &str, got: &str) {
        let entry = self.fields.entry(field).or_default();
        entry.1 += 1;
        if wanted == got {
            entry.0 += 1;
        } else {
            self.differences.push(format!("{sample} {field}: wanted '{wanted}', got '{got}'"));
        }
    }

    fn percent(&self, field: &str) -> f64 {
        let (matched, total) = self.fields.get(field).copied().unwrap_or((0, 0));
        if total == 0 { 100.0 } else { matched as f64 * 100.0 / total as f64 }
    }
}

fn yes(flag: bool) -> &'static str {
    if flag { "Y" } else { "N" }
}

fn compare(tally: &mut Tally, sample: &Sample) {
    let result = read(&sample.log);
    let name = sample.name.as_str();
    let none = CrashReport::default();
    let report = result.reports.first().unwrap_or(&none);
    let Some(title) = sample.one("TITLE").filter(|t| !t.is_empty()) else {
        tally.count("nothing found", name, "", &report.title);
        return;
    };
    tally.count("TITLE", name, title, &report.title);
    tally.count("TYPE", name, sample.one("TYPE").unwrap_or("UNKNOWN"), &report.crash_type);
    if let Some(frame) = sample.one("FRAME") {
        tally.count("FRAME", name, frame, &report.frame);
    }
    tally.count("CORRUPTED", name, sample.one("CORRUPTED").unwrap_or("N"), yes(report.corrupted));
    tally.count("PANICKED", name, sample.one("PANICKED").unwrap_or("N"), yes(report.panicked));
    let mut alts = sample.all("ALT");
    alts.sort_unstable();
    if !alts.is_empty() || !report.alt_titles.is_empty() {
        tally.count("ALT", name, &alts.join("; "), &report.alt_titles.join("; "));
    }
    for (field, edge) in [("START", report.span.start), ("END", report.span.end)] {
        let Some(wanted) = sample.one(field) else { continue };
        let edge = usize::try_from(edge).unwrap_or(usize::MAX).min(sample.log.len());
        let line = if field == "START" {
            sample.log[edge..].split(|&b| b == b'\n').next()
        } else {
            let upto = sample.log[..edge].strip_suffix(b"\n").unwrap_or(&sample.log[..edge]);
            upto.rsplit(|&b| b == b'\n').next()
        };
        tally.count(field, name, wanted, String::from_utf8_lossy(line.unwrap_or_default()).trim());
    }
}

#[test]
fn the_corpus_agrees() {
    let Some(root) = std::env::var_os("KOLUMBO_CORPUS") else {
        assert!(
            std::env::var_os("KOLUMBO_REQUIRE_ALL").is_none_or(|v| v != "1"),
            "KOLUMBO_REQUIRE_ALL is set, but KOLUMBO_CORPUS does not name the corpus"
        );
        let _ = writeln!(std::io::stderr(), "skipped: KOLUMBO_CORPUS is not set");
        return;
    };
    let root = Path::new(&root);
    let mut tally = Tally::default();
    for sample in samples(&root.join("report")) {
        compare(&mut tally, &sample);
    }
    for sample in samples(&root.join("guilty")) {
        let result = read(&sample.log);
        let file = result.reports.first().and_then(|r| r.guilty_file.clone()).unwrap_or_default();
        let name = format!("guilty/{}", sample.name);
        tally.count("FILE", &name, sample.one("FILE").unwrap_or_default(), &file);
    }
    let mut out = String::new();
    for (field, (matched, total)) in &tally.fields {
        out += &format!("{field}: {matched} of {total}\n");
    }
    if std::env::var_os("KOLUMBO_CORPUS_SHOW").is_some() {
        out += &tally.differences.join("\n");
        out += "\n";
    }
    let _ = std::io::stdout().write_all(out.as_bytes());
    for (field, floor) in [
        ("TITLE", 98.0),
        ("TYPE", 98.0),
        ("FRAME", 98.0),
        ("CORRUPTED", 97.0),
        ("PANICKED", 99.0),
        ("nothing found", 100.0),
        ("ALT", 90.0),
        ("FILE", 90.0),
    ] {
        let reached = tally.percent(field);
        assert!(reached >= floor, "{field}: {reached:.1}% is below {floor}%\n{out}");
    }
}
