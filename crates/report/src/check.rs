//! The check of an image as plain text of 78 columns: findings first, then what was looked at.
//!
//! Decides what stands where. Main functions: [`report`], [`inferred`], [`site`].

use kolumbo_case::contract::{
    Confidence, ContractSource, Finding, Inferred, Place, Report, SiteExplanation,
};

use crate::wrap::Page;

/// Suffering callers that are shown for each finding.
const SITES: usize = 5;

/// Findings and totals.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut page = Page::default();
    for finding in &report.findings {
        page.gap();
        one(&mut page, finding);
    }
    page.gap();
    let totals = &report.totals;
    page.wrapped(
        "",
        &format!(
            "{} in {}: {} functions, {} calls, {} of them rely on a register that C lets the callee destroy, {} undecided",
            match report.findings.len() {
                0 => "no broken contract".to_owned(),
                1 => "1 broken contract".to_owned(),
                many => format!("{many} broken contracts"),
            },
            report.images.join(", "),
            totals.functions,
            totals.sites,
            totals.relying,
            totals.undecided
        ),
    );
    for (why, count) in &totals.undecided_why {
        page.wrapped("  undecided: ", &format!("{count}: {why}"));
    }
    for gap in &report.gaps {
        page.wrapped("  gap: ", gap);
    }
    page.finish()
}

fn one(page: &mut Page, finding: &Finding) {
    page.wrapped(
        "",
        &format!(
            "{} {} destroys {} ({} confidence)",
            finding.code,
            finding.culprit,
            finding.destroys.join(" "),
            confidence(finding.confidence)
        ),
    );
    match &finding.contract {
        ContractSource::Inferred { sites, of } => {
            page.wrapped("  contract:  ", &format!("inferred: {sites} of {of} calls rely on it"));
        }
        ContractSource::Declared { name, source, commit, why } => {
            page.wrapped("  contract:  ", &format!("{name}: {why}"));
            let commit = if commit.is_empty() { String::new() } else { format!("; {commit}") };
            page.wrapped("             ", &format!("stated in {source}{commit}"));
        }
    }
    place(page, "  destroyer: ", &finding.instruction);
    if let Some(what) = &finding.put_there_by {
        page.wrapped("  put there: ", &format!("by the {what}"));
    }
    if finding.path.len() > 1 {
        page.wrapped("  path:      ", &finding.path.join(" -> "));
    }
    for sufferer in finding.sites.iter().take(SITES) {
        place(page, "  suffers:   ", &sufferer.call);
        page.wrapped("             ", &format!("relies on {}", sufferer.relies.join(" ")));
        if let Some(wrote) = &sufferer.wrote {
            place(page, "     wrote:  ", wrote);
        }
        if let Some(reads) = &sufferer.reads {
            place(page, "     reads:  ", reads);
        }
    }
    let shown = finding.sites.len().min(SITES);
    if finding.sites_total > shown && shown > 0 {
        page.line(&format!("             and {} more", finding.sites_total - shown));
    }
    for other in &finding.otherwise {
        page.wrapped("  or else:   ", other);
    }
}

fn place(page: &mut Page, first: &str, place: &Place) {
    let mut words = format!("{}: {}", place.symbol, place.instruction);
    if let Some(when) = &place.live_when {
        words.push_str(&format!(" (live {when})"));
    }
    if let Some(source) = &place.source {
        words.push_str(&format!(" at {source}"));
    }
    page.wrapped(first, &words);
}

fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Low => "low",
        Confidence::Medium => "medium",
        Confidence::High => "high",
    }
}

/// The table of inferred contracts: calls that rely, all calls, callee, registers with their number of calls.
#[must_use]
pub fn inferred(table: &[Inferred]) -> String {
    let mut page = Page::default();
    page.line("relying    calls  callee");
    for row in table {
        let registers: Vec<String> =
            row.registers.iter().map(|(register, count)| format!("{register}:{count}")).collect();
        page.line(&format!("{:>7} {:>8}  {}", row.relying, row.sites, row.callee));
        page.wrapped("                  ", &registers.join(" "));
    }
    page.finish()
}

/// The reasoning for one call.
#[must_use]
pub fn site(site: &SiteExplanation) -> String {
    let mut page = Page::default();
    place(&mut page, "", &site.call);
    page.wrapped("  callee:   ", &site.callee);
    page.wrapped("  destroys: ", &site.destroys.join(" "));
    page.wrapped("  relies:   ", &site.relies.join(" "));
    if !site.certain {
        page.wrapped("  note:     ", "the callee was not understood at every exit");
    }
    for register in &site.registers {
        page.gap();
        page.wrapped(&format!("  {}: ", register.register), &register.held);
        if let Some(wrote) = &register.wrote {
            place(&mut page, "    wrote: ", wrote);
        }
        for (number, step) in register.way.iter().enumerate() {
            let first =
                if number + 1 == register.way.len() { "    reads: " } else { "    way:   " };
            place(&mut page, first, step);
        }
        page.wrapped("    so:    ", &register.conclusion);
    }
    page.finish()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kolumbo_case::contract::{Sufferer, Totals};

    use super::*;

    fn at(symbol: &str, instruction: &str) -> Place {
        Place {
            address: 0x1000,
            symbol: symbol.into(),
            instruction: instruction.into(),
            image: "vmlinux".into(),
            live_when: None,
            source: None,
        }
    }

    #[test]
    fn a_finding_reads_from_contract_to_victim() {
        let finding = Finding {
            code: "K0501".into(),
            culprit: "native_save_fl".into(),
            address: 0x1000,
            destroys: vec!["rcx".into()],
            instruction: at("native_save_fl+0x1d", "mov    %gs:0x28,%rcx"),
            path: vec!["native_save_fl".into()],
            put_there_by: Some("stack protector (CONFIG_STACKPROTECTOR)".into()),
            contract: ContractSource::Inferred { sites: 16, of: 252 },
            sites: vec![Sufferer {
                call: at("irq_work_tick+0x61", "call   *0xffffffff81c20810"),
                relies: vec!["rcx".into()],
                reads: Some(at("irq_work_tick+0xaf", "cmpq   $0x0,(%rcx)")),
                wrote: Some(at("irq_work_tick+0x58", "add    %gs:0xa1d8,%rcx")),
            }],
            sites_total: 16,
            confidence: Confidence::High,
            otherwise: vec!["the register carries a result".into()],
            listing: Vec::new(),
        };
        let totals = Totals { functions: 2, sites: 300, relying: 40, ..Totals::default() };
        let text = report(&Report {
            images: vec!["vmlinux".into()],
            findings: vec![finding],
            totals,
            ..Report::default()
        });
        expect![[r#"
            K0501 native_save_fl destroys rcx (high confidence)
              contract:  inferred: 16 of 252 calls rely on it
              destroyer: native_save_fl+0x1d: mov %gs:0x28,%rcx
              put there: by the stack protector (CONFIG_STACKPROTECTOR)
              suffers:   irq_work_tick+0x61: call *0xffffffff81c20810
                         relies on rcx
                 wrote:  irq_work_tick+0x58: add %gs:0xa1d8,%rcx
                 reads:  irq_work_tick+0xaf: cmpq $0x0,(%rcx)
                         and 15 more
              or else:   the register carries a result

            1 broken contract in vmlinux: 2 functions, 300 calls, 40 of them rely on a
            register that C lets the callee destroy, 0 undecided
        "#]]
        .assert_eq(&text);
    }
}
