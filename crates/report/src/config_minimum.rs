//! The smallest set of options that makes a kernel bad, as text.
//!
//! Main function: [`report`].

use std::fmt::Write;

use kolumbo_case::{ConfigMinimum, MinimumOption};

use crate::matrix::visible;

/// The report: the reasons first, what they need below.
pub fn report(found: &ConfigMinimum) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "{} of {} options that differ and can be set {} it bad ({} configurations tested",
        found.options.len(),
        found.candidates,
        if found.options.len() == 1 { "makes" } else { "make" },
        found.tests
    );
    if found.tests_before > 0 {
        let _ = write!(text, ", {} of them before", found.tests_before);
    }
    text.push_str(")\n\n");
    let (reasons, needed): (Vec<_>, Vec<_>) =
        found.options.iter().partition(|o| o.needed_by.is_empty());
    for option in reasons.iter().chain(&needed) {
        let _ = writeln!(text, "{}", visible(&line(option)));
    }
    if !found.options.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "the smallest bad configuration: {}", visible(&found.config));
    for gap in &found.gaps {
        let _ = writeln!(text, "note: {}", visible(gap));
    }
    text
}

fn line(option: &MinimumOption) -> String {
    let value = |v: &Option<String>| v.clone().unwrap_or_else(|| "n".to_owned());
    let mut line =
        format!("CONFIG_{} {} -> {}", option.name, value(&option.good), value(&option.bad));
    if !option.prompt.is_empty() {
        let _ = write!(line, "  \"{}\"", option.prompt);
    }
    if let Some(topic) = &option.boot {
        let _ = write!(line, "  [{topic}]");
    }
    if !option.needed_by.is_empty() {
        let _ = write!(line, "  needed by {}", option.needed_by.join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn reasons_stand_before_what_they_need() {
        let option = |name: &str, by: &[&str], boot: Option<&str>| MinimumOption {
            name: name.into(),
            good: None,
            bad: Some("y".into()),
            needed_by: by.iter().map(|b| (*b).to_owned()).collect(),
            prompt: format!("the {name}\u{1b}"),
            boot: boot.map(str::to_owned),
        };
        let found = ConfigMinimum {
            options: vec![
                option("PCI", &["XEN"], None),
                option("XEN", &[], Some("paravirtual guest")),
            ],
            candidates: 1204,
            tests: 57,
            tests_before: 12,
            config: "/x/minimal.config".into(),
            gaps: vec!["2 could not be tested".into()],
            ..ConfigMinimum::default()
        };
        expect![[r#"
            2 of 1204 options that differ and can be set make it bad (57 configurations tested, 12 of them before)

            CONFIG_XEN n -> y  "the XEN^["  [paravirtual guest]
            CONFIG_PCI n -> y  "the PCI^["  needed by XEN

            the smallest bad configuration: /x/minimal.config
            note: 2 could not be tested
        "#]]
        .assert_eq(&report(&found));
    }
}
