//! An explanation as a person would send it to a kernel list.
//!
//! Decides the order that maintainers expect: what happened, since when, what was tried, the splat,
//! the finding, how to reproduce. The main function is [`mail`].

use kolumbo_case::{CrashReport, ExplainedState, Explanation, ReadResult};

use crate::explain::{Shown, render_finding, render_state};
use crate::wrap::Page;

/// What the reporter knows beyond the log.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// First bad commit, or the range that holds it.
    pub introduced: Option<String>,
    /// Addresses.
    pub recipients: Vec<String>,
    /// What was tried already.
    pub tried: Vec<String>,
}

/// The whole mail, headers first.
pub fn mail(read: &ReadResult, explanation: &Explanation, circumstances: &Circumstances) -> String {
    let mut page = Page::default();
    let report = read.reports.first();
    headers(&mut page, report, explanation, circumstances);
    page.gap();
    page.line("Hi,");
    page.gap();
    page.wrapped("", &summary(report, explanation));
    if let Some(introduced) = &circumstances.introduced {
        page.gap();
        page.line(&format!("#regzbot introduced: {introduced}"));
    }
    if !circumstances.tried.is_empty() {
        page.gap();
        page.line("What was tried:");
        for tried in &circumstances.tried {
            page.wrapped("- ", tried);
        }
    }
    for finding in &explanation.findings {
        page.gap();
        render_finding(&mut page, finding);
    }
    page.gap();
    page.line("The decoded splat:");
    page.gap();
    if let Some(state) = explanation.states.iter().find(|s| !s.user_mode) {
        let alone = ExplainedState { frames: Vec::new(), ..state.clone() };
        render_state(&mut page, &alone, Shown::default());
        if !state.frames.is_empty() {
            page.gap();
            page.line("  Call Trace:");
            for frame in &state.frames {
                let mark = if frame.reliable { "" } else { "? " };
                page.line(&format!("   {mark}{}", frame.text));
                for source in &frame.source {
                    page.wrapped("       ", source);
                }
            }
        }
    } else {
        page.line("  (the log holds no register dump with code)");
    }
    page.gap();
    reproduce(&mut page, read);
    page.gap();
    page.wrapped("", "The decoding and the comparison of state and code were made by kolumbo; the log follows or is attached.");
    page.finish()
}

fn headers(
    page: &mut Page,
    report: Option<&CrashReport>,
    explanation: &Explanation,
    circumstances: &Circumstances,
) {
    let mark = if circumstances.introduced.is_some() { "[REGRESSION] " } else { "[BUG] " };
    let title = match (report, explanation.findings.first()) {
        (Some(report), _) if !report.title.is_empty() => report.title.clone(),
        (_, Some(finding)) => finding.summary.clone(),
        _ => "kernel crash".to_owned(),
    };
    page.line(&format!("Subject: {mark}{title}"));
    let (people, lists): (Vec<&String>, Vec<&String>) = circumstances
        .recipients
        .iter()
        .partition(|r| !r.contains("@vger.kernel.org") && !r.contains("lists."));
    addresses(page, "To", &people.into_iter().cloned().collect::<Vec<_>>());
    let mut copies: Vec<String> = lists.into_iter().cloned().collect();
    if copies.is_empty() {
        copies.push("linux-kernel@vger.kernel.org".to_owned());
    }
    if circumstances.introduced.is_some() {
        copies.push("regressions@lists.linux.dev".to_owned());
    }
    addresses(page, "Cc", &copies);
}

/// One header, an address a line: a header of that name may stand only once (RFC 5322, 3.6).
fn addresses(page: &mut Page, name: &str, all: &[String]) {
    for (i, address) in all.iter().enumerate() {
        let first = if i == 0 { format!("{name}: ") } else { "    ".to_owned() };
        let comma = if i + 1 < all.len() { "," } else { "" };
        page.line(&format!("{first}{address}{comma}"));
    }
}

fn summary(report: Option<&CrashReport>, explanation: &Explanation) -> String {
    let mut text = String::new();
    if let Some(report) = report {
        let release =
            report.context.release.as_deref().map(|r| format!(" on {r}")).unwrap_or_default();
        let hardware =
            report.context.hardware.as_deref().map(|h| format!(" ({h})")).unwrap_or_default();
        text = format!("I see \"{}\"{release}{hardware}.", report.title);
    }
    for finding in &explanation.findings {
        let suspect = finding.suspects.first().map(|s| {
            let name = s.name.as_deref().map(|n| format!(" ({n})")).unwrap_or_default();
            format!(" The first suspect is {}{name}.", s.kind.name())
        });
        text = format!(
            "{text} The machine state cannot follow from the code: {}.{}",
            finding.summary,
            suspect.unwrap_or_default()
        );
    }
    text
}

fn reproduce(page: &mut Page, read: &ReadResult) {
    page.line("How to reproduce:");
    let Some(boot) = read.boots.first() else {
        page.wrapped("  ", "boot the kernel named above; the log does not tell its command line");
        return;
    };
    if let Some(banner) = &boot.banner {
        page.wrapped("  kernel        ", &banner.text);
    }
    if let Some(line) = &boot.command_line {
        page.wrapped("  command line  ", line);
    }
    if let Some(hardware) = &boot.hardware {
        page.wrapped("  machine       ", hardware);
    }
}
