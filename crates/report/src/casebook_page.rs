//! One run of a case as one HTML file that needs no network and runs no script.
//!
//! Everything that is not markup of this file is escaped; a policy in the page forbids all but its own style.
//! Main function: [`page`].

use std::fmt::Write;

use kolumbo_case::CaseRun;
use kolumbo_case::casebook::{CellRun, ProofRun};

use crate::casebook::{seconds, totals};
use crate::matrix::words::visible_lines;

const STYLE: &str = "
:root { color-scheme: light dark; --fg: light-dark(#1c2128, #d9dfe6); --bg: light-dark(#fff, #101418);
  --soft: light-dark(#57606a, #98a4b0); --line: light-dark(#d5dbe1, #2c353e); --raised: light-dark(#f6f8fa, #171c22);
  --ok: light-dark(#1d5a30, #8ed0a2); --bad: light-dark(#a31515, #ff8d85); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 1.8rem 0 .5rem; }
p { max-width: 46rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); } code, pre { font: 12.5px/1.45 ui-monospace, monospace; }
pre { background: var(--raised); border: 1px solid var(--line); padding: .7rem; overflow-x: auto; margin: .5rem 0; }
.ok { color: var(--ok); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
summary { cursor: pointer; } details { margin: .6rem 0; } .total { font-size: 1.05rem; }
";

/// The page.
#[must_use]
pub fn page(run: &CaseRun) -> String {
    let mut out = String::with_capacity(64 << 10);
    // Writing into a string cannot fail.
    let _ = write_page(run, &mut out);
    out
}

fn write_page(run: &CaseRun, out: &mut String) -> std::fmt::Result {
    let title = escaped(&format!("{}: {}", run.name, run.title));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>"
    )?;
    let mark = if run.is_as_expected() { "ok" } else { "bad" };
    writeln!(out, "<h1>{title}</h1>\n<p class=\"total {mark}\">{}</p>", escaped(&totals(run)))?;
    for paragraph in run.story.split("\n\n") {
        writeln!(out, "<p>{}</p>", escaped(paragraph))?;
    }
    writeln!(
        out,
        "<p class=\"soft\">Source: {}, Linux {}. Begun {}, kolumbo {}.</p>",
        escaped(&run.source),
        escaped(&run.release),
        escaped(&run.started),
        escaped(&run.kolumbo)
    )?;
    kernels(run, out)?;
    cells(run, out)?;
    if !run.proofs.is_empty() {
        writeln!(out, "<h2>The proof</h2>")?;
    }
    for proof in &run.proofs {
        step(proof, out)?;
    }
    if !run.gaps.is_empty() {
        writeln!(out, "<h2>What could not be found out</h2>\n<ul>")?;
        for gap in &run.gaps {
            writeln!(out, "<li>{}</li>", escaped(gap))?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</main>\n</body>\n</html>")
}

fn kernels(run: &CaseRun, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>What was built</h2>\n<div class=\"wide\"><table>\n<tr><th scope=\"col\">kernel</th>\
         <th scope=\"col\">for</th><th scope=\"col\">compiler</th><th scope=\"col\">edits</th><th scope=\"col\">build</th></tr>"
    )?;
    for kernel in &run.kernels {
        let time = match (kernel.cached, kernel.wall_ms) {
            (true, _) | (_, 0) => "was there".to_owned(),
            (false, ms) => seconds(ms),
        };
        writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{time}</td></tr>",
            escaped(&kernel.name),
            escaped(&kernel.about),
            escaped(&kernel.compiler),
            escaped(&kernel.edits.join(", "))
        )?;
    }
    writeln!(out, "</table></div>")
}

fn cells(run: &CaseRun, out: &mut String) -> std::fmt::Result {
    writeln!(out, "<h2>What was booted</h2>\n<div class=\"wide\"><table>\n<tr>")?;
    let columns = ["expected", "seen", "explained", "after", ""];
    for name in run.axes.iter().map(String::as_str).chain(columns) {
        writeln!(out, "<th scope=\"col\">{}</th>", escaped(name))?;
    }
    writeln!(out, "</tr>")?;
    for cell in &run.cells {
        row(cell, out)?;
    }
    writeln!(out, "</table></div>")?;
    for sentence in &run.sentences {
        writeln!(out, "<p>Where: {}</p>", escaped(sentence))?;
    }
    Ok(())
}

fn row(cell: &CellRun, out: &mut String) -> std::fmt::Result {
    write!(out, "<tr>")?;
    for label in &cell.labels {
        write!(out, "<td>{}</td>", escaped(label))?;
    }
    let names: Vec<&str> = cell.expected.iter().map(|v| v.name()).collect();
    let joined = |first: &str, second: &str| match second {
        "" => escaped(first),
        second => format!("{}<br><span class=\"soft\">{}</span>", escaped(first), escaped(second)),
    };
    let seen = cell.verdict.map_or("not judged", |v| v.name());
    let good = cell.differences.is_empty() && cell.judged;
    let (mark, word) = if good { ("ok", "as expected") } else { ("bad", "not as expected") };
    writeln!(
        out,
        "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><span class=\"{mark}\">{word}</span>{}</td></tr>",
        joined(&names.join(" or "), &cell.expected_title),
        joined(seen, &cell.title),
        escaped(&cell.findings.join(", ")),
        seconds(cell.decided_ms),
        cell.differences.iter().map(|d| format!("<br>{}", escaped(d))).collect::<String>()
    )
}

fn step(proof: &ProofRun, out: &mut String) -> std::fmt::Result {
    let (mark, word) = if proof.holds { ("ok", "holds") } else { ("bad", "does not hold") };
    let open = if proof.holds { "" } else { " open" };
    writeln!(
        out,
        "<details{open}><summary><span class=\"{mark}\">{word}</span>: {}<br><span class=\"soft\">{} ({})</span></summary>",
        escaped(&proof.promise),
        escaped(&proof.outcome),
        seconds(proof.wall_ms)
    )?;
    if !proof.command.is_empty() {
        writeln!(out, "<pre>$ {}</pre>", escaped(&proof.command))?;
    }
    if !proof.evidence.is_empty() {
        writeln!(out, "<pre>{}</pre>", escaped(&proof.evidence))?;
    }
    writeln!(out, "</details>")
}

/// Text that cannot become markup; what terminals and browsers act on is made visible.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in visible_lines(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::casebook::tests::example;

    #[test]
    fn nothing_of_the_guest_becomes_markup() {
        let html = page(&example());
        assert!(
            html.contains("&lt;irq_work_tick&gt;") && html.contains("&lt;/script&gt;&lt;b&gt;")
        );
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("http://"));
        assert_eq!(html.matches("<details").count(), html.matches("</details>").count());
        assert_eq!(html.matches("<tr").count(), html.matches("</tr>").count());
        assert!(html.contains("1 of 2 cells as expected") && html.contains("not as expected"));
    }
}
