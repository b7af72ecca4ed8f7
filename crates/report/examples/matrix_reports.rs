//! Writes every report of a made-up matrix into a folder, with sizes and CPU times.
//!
//! `cargo run --release -p kolumbo-report --example matrix_reports -- FOLDER [planted|mixed|hostile|CELLS]`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example that measures and prints"
)]

#[path = "../tests/samples/mod.rs"]
mod samples;

use std::fs;
use std::io;
use std::path::Path;

use kolumbo_case::matrix::MatrixFile;
use kolumbo_report::matrix::text::{self, Style};
use kolumbo_report::matrix::{Details, github, html, junit, kcidb, ktap};

/// What writes one report.
type Write<'a> = dyn Fn(&mut dyn io::Write) -> io::Result<()> + 'a;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| ".".into());
    let which = args.next().unwrap_or_else(|| "mixed".into());
    let matrix = match which.as_str() {
        "planted" => samples::planted(),
        "mixed" => samples::mixed(),
        "hostile" => samples::hostile(),
        cells => samples::large(cells.parse().map_err(io::Error::other)?),
    };
    fs::create_dir_all(&folder)?;
    let folders = samples::Folders { matrix: &matrix, console: 8_000 };
    let details: &dyn Details = match which.as_str() {
        "hostile" => &samples::HostileFolders,
        _ => &folders,
    };
    let measure = |name: &str, write: &Write<'_>| -> io::Result<()> {
        let path = Path::new(&folder).join(name);
        let start = cpu_ms();
        let mut file = io::BufWriter::new(fs::File::create(&path)?);
        write(&mut file)?;
        file.into_inner()?;
        let size = fs::metadata(&path)?.len();
        println!("{which:>8} {name:<12} {:>7} KiB {:>6} ms", size >> 10, cpu_ms() - start);
        Ok(())
    };
    measure("matrix.txt", &|out| {
        let style = Style { unicode: true, ..Style::default() };
        out.write_all(text::table(&matrix, style).as_bytes())
    })?;
    measure("junit.xml", &|out| junit::write(&matrix, out))?;
    measure("ktap.txt", &|out| ktap::write(&matrix, out))?;
    measure("kcidb.json", &|out| kcidb::write(&matrix, "kolumbo", details, out))?;
    measure("github.txt", &|out| github::commands(&matrix, out))?;
    measure("matrix.html", &|out| html::write(&matrix, details, out))?;
    measure("matrix.json", &|out| json(&matrix, out))?;
    println!("{which:>8} most memory  {} KiB", peak());
    Ok(())
}

fn json(matrix: &MatrixFile, out: &mut dyn io::Write) -> io::Result<()> {
    serde_json::to_writer(out, matrix).map_err(io::Error::other)
}

/// The largest resident size so far, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// CPU time of this process in milliseconds, in the kernel's steps of ten.
fn cpu_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program stands in parentheses and may hold blanks.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum::<u64>()
        * 10
}
