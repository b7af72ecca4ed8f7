//! The difference between two configurations as text.
//!
//! Decides order and grouping: what matters for boot first, then the menus. Main function:
//! [`report`].

use std::collections::BTreeMap;
use std::fmt::Write;

use kolumbo_case::{ConfigDiff, ConfigSide, OptionChange};

use crate::matrix::visible;

/// Widest column of names.
const NAMES: usize = 36;
/// Widest column of values.
const VALUES: usize = 24;

/// The report. `topics` gives the order of what matters for boot; `all` shows options that only
/// lost or gained a line, too.
pub fn report(diff: &ConfigDiff, topics: &[&str], all: bool) -> String {
    let mut text = String::new();
    for (mark, side) in [("-", &diff.old), ("+", &diff.new)] {
        let _ = writeln!(text, "{mark} {}", visible(&about(side)));
    }
    let (lines, real): (Vec<_>, Vec<_>) = diff.changes.iter().partition(|c| c.same_code);
    let forced = real.iter().filter(|c| !c.follows.is_empty()).count();
    let _ = write!(text, "{}", counted(real.len(), "option differs", "options differ"));
    if forced > 0 {
        let _ = write!(text, ", {forced} of them because of others");
    }
    if !lines.is_empty() {
        let _ = write!(
            text,
            "; {} \"is not set\" on one side and not asked on the other",
            counted(lines.len(), "is", "are")
        );
    }
    text.push('\n');
    let shown: Vec<&OptionChange> =
        diff.changes.iter().filter(|change| all || !change.same_code).collect();
    let width = shown.iter().map(|c| c.name.len()).max().unwrap_or(0).min(NAMES);
    for topic in topics {
        let here = shown.iter().filter(|c| c.boot.as_deref() == Some(topic));
        group(&mut text, &format!("{topic} [matters for boot]"), here, width);
    }
    let mut menus: BTreeMap<String, Vec<&OptionChange>> = BTreeMap::new();
    for change in &shown {
        if !change.boot.as_deref().is_some_and(|topic| topics.contains(&topic)) {
            let menu = match change.menu.as_slice() {
                [] => "computed, or in no menu".to_owned(),
                titles => titles.join(" > "),
            };
            menus.entry(menu).or_default().push(change);
        }
    }
    for (menu, here) in &menus {
        group(&mut text, menu, here.iter(), width);
    }
    if !diff.gaps.is_empty() {
        text.push_str("\nnot understood:\n");
        for gap in &diff.gaps {
            let _ = writeln!(text, "  {}", visible(gap));
        }
    }
    text
}

fn about(side: &ConfigSide) -> String {
    let parts = [&side.path, &side.kernel, &side.compiler];
    let parts: Vec<&str> =
        parts.into_iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
    format!("{} ({})", parts.join(", "), counted(side.options as usize, "option", "options"))
}

fn group<'c>(
    text: &mut String,
    title: &str,
    changes: impl Iterator<Item = &'c &'c OptionChange>,
    width: usize,
) {
    for (number, change) in changes.enumerate() {
        if number == 0 {
            let _ = writeln!(text, "\n{}", visible(title));
        }
        let value = |v: &Option<String>| v.as_deref().unwrap_or("-").to_owned();
        let values = format!("{} -> {}", value(&change.old), value(&change.new));
        let note = note(change);
        let line = if note.is_empty() {
            format!("  {:width$}  {values}", change.name)
        } else {
            format!("  {:width$}  {values:<VALUES$}  {note}", change.name)
        };
        let _ = writeln!(text, "{}", visible(&line));
    }
}

/// What it is, and what it follows from.
fn note(change: &OptionChange) -> String {
    let mut parts = Vec::new();
    if !change.prompt.is_empty() {
        parts.push(change.prompt.clone());
    }
    let direct: Vec<&str> = change.follows.iter().map(|c| c.option.as_str()).collect();
    if !direct.is_empty() {
        let mut follows = format!("follows from {}", few(&direct));
        let roots: Vec<&str> =
            change.roots.iter().map(String::as_str).filter(|r| !direct.contains(r)).collect();
        if !roots.is_empty() {
            let _ = write!(follows, ", in the end from {}", few(&roots));
        }
        parts.push(follows);
    }
    parts.join("; ")
}

fn few(names: &[&str]) -> String {
    const MOST: usize = 3;
    let mut text = names[..names.len().min(MOST)].join(", ");
    if names.len() > MOST {
        let _ = write!(text, " and {} more", names.len() - MOST);
    }
    text
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kolumbo_case::{Cause, CauseKind};

    fn change(name: &str, old: Option<&str>, new: Option<&str>) -> OptionChange {
        OptionChange {
            name: name.into(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
            same_code: old.unwrap_or("n") == new.unwrap_or("n"),
            ..OptionChange::default()
        }
    }

    #[test]
    fn boot_comes_first_and_causes_are_named() {
        let mut smp = change("SMP", Some("y"), Some("n"));
        smp.boot = Some("SMP".into());
        smp.prompt = "Symmetric multi-processing support".into();
        let mut lto = change("LTO", None, Some("y"));
        lto.menu = vec!["General".into(), "LTO".into()];
        lto.follows = vec![Cause { option: "HAS_LTO".into(), by: CauseKind::Depends }];
        lto.roots = vec!["CC_IS_CLANG".into()];
        let diff = ConfigDiff {
            old: ConfigSide { path: "a".into(), options: 1, ..ConfigSide::default() },
            new: ConfigSide {
                path: "b".into(),
                kernel: "Linux/x86 6.1".into(),
                compiler: "clang\u{1b}[0m".into(),
                options: 3,
            },
            changes: vec![change("GONE", Some("n"), None), lto, smp],
            gaps: vec!["a: line 3".into()],
            ..ConfigDiff::default()
        };
        expect![[r#"
            - a (1 option)
            + b, Linux/x86 6.1, clang^[[0m (3 options)
            2 options differ, 1 of them because of others; 1 is "is not set" on one side and not asked on the other

            SMP [matters for boot]
              SMP  y -> n                    Symmetric multi-processing support

            General > LTO
              LTO  - -> y                    follows from HAS_LTO, in the end from CC_IS_CLANG

            not understood:
              a: line 3
        "#]]
        .assert_eq(&report(&diff, &["SMP"], false));
        assert!(report(&diff, &["SMP"], true).contains("GONE  n -> -\n"));
    }
}
