//! `kolumbo read`: what a log, a journal or a mail says.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kolumbo_case::Gap;
use kolumbo_console::{ReadOptions, Reader};
use kolumbo_report::crash::{Shown, report};

use crate::args::ReadArgs;
use crate::exit::Outcome;

/// Bytes that are read at once: large enough for the disk, small enough for the cache.
const PIECE: usize = 256 * 1024;

pub(crate) fn run(args: &ReadArgs) -> Result<Outcome> {
    let mut reader = Reader::new(ReadOptions { first_only: args.first });
    if args.file.as_os_str() == "-" {
        pour(&mut std::io::stdin().lock(), &mut reader).context("reading standard input")?;
    } else {
        for path in files_of(&args.file) {
            let mut file = File::open(&path).with_context(|| {
                format!(
                    "opening {}: name a log, a mail, a case folder or a folder of pstore, or - for standard input",
                    path.display()
                )
            })?;
            pour(&mut file, &mut reader).with_context(|| format!("reading {}", path.display()))?;
        }
    }
    let mut result = reader.finish();
    let packed = records_in(&args.file, |name| name.ends_with(PACKED)).len();
    if packed > 0 {
        let what = format!(
            "{packed} records of pstore are still packed ({PACKED}): the kernel that mounts pstore unpacks them"
        );
        result.gaps.push(Gap { what, span: None });
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &result)?;
        writeln!(out)?;
        return Ok(Outcome::Done);
    }
    let shown = match (args.first, args.all) {
        (true, _) => Shown::First,
        (_, true) => Shown::All,
        _ => Shown::Overview,
    };
    write!(out, "{}", report(&result, shown))?;
    Ok(Outcome::Done)
}

/// The ending of records that the running kernel could not unpack.
const PACKED: &str = ".enc.z";

/// What is read for an argument: a case folder stands for the console in it, a folder of fs/pstore for its records.
fn files_of(argument: &Path) -> Vec<PathBuf> {
    let console = argument.join("console.log");
    let records = records_in(argument, |name| !name.ends_with(PACKED));
    match (argument.is_dir(), console.exists(), records.is_empty()) {
        (true, false, false) => records,
        (true, ..) => vec![console],
        (false, ..) => vec![argument.to_owned()],
    }
}

/// Records of dumps (`dmesg-BACKEND-ID`) in a folder whose names are wanted, in the order of their numbers.
fn records_in(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(u128, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (_, id) = name.strip_prefix("dmesg-")?.split_once('-')?;
            let digits = id.split('.').next().unwrap_or_default();
            let number = digits.parse().unwrap_or(u128::MAX);
            wanted(&name).then(|| (number, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn pour(from: &mut impl Read, reader: &mut Reader) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => reader.feed(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
