//! `kolumbo read`: what a log, a journal or a mail says.

use std::io::Write;

use anyhow::Result;
use kolumbo_console::{ReadOptions, Reader};
use kolumbo_report::crash::{Shown, report};

use crate::args::ReadArgs;
use crate::exit::Outcome;
use crate::log_files::{for_each_piece, still_packed};

pub(crate) fn run(args: &ReadArgs) -> Result<Outcome> {
    let mut reader = Reader::new(ReadOptions { first_only: args.first });
    for_each_piece(&args.file, &mut |piece| {
        reader.feed(piece);
        true
    })?;
    let mut result = reader.finish();
    result.gaps.extend(still_packed(&args.file));
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
