//! `kolumbo read`: what a log, a journal or a mail says.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result};
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
        // A case folder stands for the console in it.
        let inside = args.file.join("console.log");
        let path = if args.file.is_dir() { &inside } else { &args.file };
        let mut file = File::open(path).with_context(|| {
            format!(
                "opening {}: name a log, a mail or a case folder, or - for standard input",
                path.display()
            )
        })?;
        pour(&mut file, &mut reader).with_context(|| format!("reading {}", path.display()))?;
    }
    let result = reader.finish();
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
