//! `kolumbo show`: a stored case, as the live run printed it.

use std::io::Write;

use anyhow::Result;
use kolumbo_lab::folder::Folder;

use crate::args::ShowArgs;
use crate::console_output::Lines;
use crate::exit::Outcome;

pub(crate) fn run(args: &ShowArgs) -> Result<Outcome> {
    let folder = Folder::read(&args.case)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &folder.case)?;
        writeln!(out)?;
        return Ok(Outcome::Done);
    }
    if !args.no_console {
        // A run that never started QEMU has no console.
        let mut lines = Lines::default();
        let mut text = lines.feed(&folder.console().unwrap_or_default());
        text.push_str(&lines.finish());
        out.write_all(text.as_bytes())?;
    }
    write!(out, "{}", kolumbo_report::boot::report(&folder.case))?;
    Ok(Outcome::Done)
}
