//! Where the page of a run goes.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use kolumbo_case::CaseRun;

/// The page as text, in the folder of the run.
const TEXT: &str = "report.txt";
/// The page as HTML.
const HTML: &str = "report.html";

/// Writes the page into the folder of the run, and where the user wants it.
pub(crate) fn write(run: &CaseRun, dir: &Path, html: Option<&Path>) -> Result<()> {
    let put = |path: &Path, text: &str| {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put(&dir.join(TEXT), &kolumbo_report::casebook::report(run))?;
    let page = kolumbo_report::casebook_page::page(run);
    put(&dir.join(HTML), &page)?;
    html.map_or(Ok(()), |path| put(path, &page))
}

pub(crate) fn print(run: &CaseRun, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, run)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", kolumbo_report::casebook::report(run))?;
    }
    Ok(())
}
