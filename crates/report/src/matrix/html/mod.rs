//! A matrix as one HTML file that needs no network: a heat map, timelines, and for chosen runs the
//! proof, the explanation and the console.
//!
//! Decides what is embedded; `page.css` and the scripts beside it decide how it looks. A policy in
//! the page forbids everything but this style and this script, and guest text arrives as data.
//! Main item: [`write()`].

mod data;
mod detail;
mod script_safe;

use std::collections::HashSet;
use std::io::{self, Write};

use kolumbo_case::file::CaseState;
use kolumbo_case::matrix::MatrixFile;

use self::data::field;
use self::script_safe::{integrity, markup};
use super::Details;
use super::words::{Totals, anywhere, plural, sentence, strikes};

pub use self::detail::{CONSOLE, EMBEDDED, HEALTHY};

/// Runs by cell and run.
type Chosen = HashSet<(u32, usize)>;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(
    "'use strict';\n",
    include_str!("model.js"),
    include_str!("filter.js"),
    include_str!("map.js"),
    include_str!("timelines.js"),
    include_str!("panel.js"),
    include_str!("page.js"),
);

/// Bugs that the page lists before the script adds the others.
const BUGS: usize = 50;
/// Gaps that the page lists.
const GAPS: usize = 50;

/// Writes the page. Details of at most [`EMBEDDED`] bytes are held in memory; the cells are written
/// one by one.
///
/// # Errors
/// What `out` answers.
pub fn write(matrix: &MatrixFile, details: &dyn Details, out: &mut dyn Write) -> io::Result<()> {
    let out = &mut io::BufWriter::with_capacity(1 << 16, out);
    let embedded = detail::collect(matrix, details)?;
    head(matrix, out)?;
    body(matrix, &embedded, out)?;
    write!(out, "<script type=\"application/json\" id=\"matrix\">")?;
    data::write(matrix, &embedded.chosen, out)?;
    writeln!(out, "</script>")?;
    for ((cell, run), block) in &embedded.blocks {
        write!(out, "<script type=\"application/json\" id=\"d{cell}-{run}\">")?;
        out.write_all(block)?;
        writeln!(out, "</script>")?;
    }
    writeln!(out, "<script>{SCRIPT}</script>\n</body>\n</html>")?;
    out.flush()
}

fn title(matrix: &MatrixFile) -> String {
    match matrix.title.as_str() {
        "" => "kolumbo matrix".to_owned(),
        title => markup(&field(title)),
    }
}

fn head(matrix: &MatrixFile, out: &mut dyn Write) -> io::Result<()> {
    let title = title(matrix);
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        integrity(SCRIPT),
        integrity(STYLE)
    );
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>"
    )
}

fn body(matrix: &MatrixFile, embedded: &detail::Embedded, out: &mut dyn Write) -> io::Result<()> {
    let totals = Totals::of(matrix);
    writeln!(out, "<body>\n<header>\n<h1>{}</h1>", title(matrix))?;
    let mut facts = vec![plural(totals.cells, "cell"), plural(totals.runs, "run")];
    facts.extend(data::facts(matrix, totals.wall_ms));
    if matrix.state == CaseState::Running {
        facts.push("not finished".to_owned());
    }
    let facts: Vec<String> = facts.iter().map(|f| format!("<li>{}</li>", markup(f))).collect();
    writeln!(out, "<ul id=\"facts\">{}</ul>\n<div id=\"tools\"></div>\n</header>", facts.join(""))?;
    writeln!(out, "<main id=\"main\">")?;
    bugs(matrix, out)?;
    writeln!(
        out,
        "<noscript><p>The table, the timelines and the consoles need the script of this file. It \
         loads nothing from elsewhere.</p></noscript>\n<div id=\"work\"></div>"
    )?;
    remarks(matrix, embedded, out)?;
    writeln!(out, "</main>\n<aside id=\"panel\" hidden></aside>")
}

fn bugs(matrix: &MatrixFile, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<section aria-labelledby=\"bugs-title\" id=\"bugs\">")?;
    if matrix.bugs.is_empty() {
        let text = match matrix.state {
            CaseState::Done => "No run was sick.",
            CaseState::Running => "No run was sick so far.",
        };
        writeln!(out, "<h2 id=\"bugs-title\">{text}</h2>\n</section>")?;
        return Ok(());
    }
    let what = plural(matrix.bugs.len(), "kind");
    writeln!(out, "<h2 id=\"bugs-title\">{what} of failure</h2>")?;
    if let Some(sentence) = anywhere(matrix) {
        writeln!(out, "<p>Anything fails: {}</p>", markup(&field(&sentence)))?;
    }
    writeln!(out, "<ol>")?;
    for (number, bug) in matrix.bugs.iter().enumerate().take(BUGS) {
        let letter = super::words::letter(u32::try_from(number).unwrap_or(u32::MAX));
        writeln!(
            out,
            "<li data-bug=\"{number}\"><b class=\"letter\">{letter}</b><div><p class=\"signature\">\
             {}</p><p class=\"sentence\">{}</p><p class=\"strikes\">{}</p>",
            markup(&field(&bug.signature)),
            markup(&field(&sentence(bug))),
            markup(&strikes(bug, matrix.confidence)),
        )?;
        for open in bug.open.iter().take(GAPS) {
            writeln!(out, "<p class=\"open\">open: {}</p>", markup(&field(open)))?;
        }
        writeln!(out, "</div></li>")?;
    }
    writeln!(out, "</ol>")?;
    let more = matrix.bugs.len().saturating_sub(BUGS);
    if more > 0 {
        writeln!(out, "<p>and {more} more</p>")?;
    }
    writeln!(out, "</section>")
}

/// What is not in the page, and what could not be found out.
fn remarks(
    matrix: &MatrixFile,
    embedded: &detail::Embedded,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "<footer>")?;
    for gap in matrix.gaps.iter().take(GAPS) {
        writeln!(out, "<p class=\"gap\">gap: {}</p>", markup(&field(gap)))?;
    }
    let more = matrix.gaps.len().saturating_sub(GAPS);
    if more > 0 {
        writeln!(out, "<p class=\"gap\">and {more} more</p>")?;
    }
    let runs: usize = matrix.cells.iter().map(|c| c.runs.len()).sum();
    writeln!(
        out,
        "<p>Console, proof and explanation of {} of {} are in this file, at most {} KiB of a \
         console: one run of each failure in each cell, then healthy runs to compare with. The rest \
         is in the case folders{}.</p>\n</footer>",
        embedded.blocks.len(),
        plural(runs, "run"),
        CONSOLE >> 10,
        match embedded.left_out {
            0 => String::new(),
            n => format!("; {} did not fit", plural(n, "chosen run")),
        }
    )
}
