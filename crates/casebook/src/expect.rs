//! Whether what was seen of a boot is what the case expects.
//!
//! Pure functions over words; what a verdict or a finding means is not known here. Main function:
//! [`differences`].

use std::collections::BTreeMap;

use kolumbo_case::{FindingCode, VerdictKind};

use crate::recipe::{Expect, Recipe};

/// What was seen of one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The verdict; none where there is none.
    pub verdict: Option<VerdictKind>,
    /// The title of the crash, or the kind of hang; empty for a healthy boot.
    pub title: String,
    /// Codes of what explain found.
    pub findings: Vec<FindingCode>,
}

/// What a recipe expects of the cell with these labels (axis and label); none for a healthy boot.
pub fn expected<'r>(recipe: &'r Recipe, labels: &[(String, String)]) -> Option<&'r Expect> {
    recipe.expect.iter().rev().find(|e| e.when.matches(labels))
}

/// In what way `seen` is not what was expected, in words; empty when it is. A finding that nobody expects
/// counts, too: a healthy kernel must not be accused.
pub fn differences(expect: Option<&Expect>, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    let healthy = [VerdictKind::Booted];
    let verdicts = match expect {
        Some(e) if !e.verdicts.is_empty() => &e.verdicts[..],
        _ => &healthy[..],
    };
    let names = || verdicts.iter().map(|v| v.name()).collect::<Vec<_>>().join(" or ");
    match seen.verdict {
        None => found.push("it was not judged".to_owned()),
        Some(v) if !verdicts.contains(&v) => {
            found.push(format!("the verdict is {v}, expected was {}", names()));
        }
        Some(_) => {}
    }
    let title = expect.map_or("", |e| e.title.as_str());
    if !title.is_empty() && !fits(title, &seen.title) {
        let other = if seen.title.is_empty() { "nothing" } else { &seen.title };
        found.push(format!("what it shows is '{other}', expected was '{title}'"));
    }
    let wanted = expect.map_or(&[][..], |e| &e.findings[..]);
    for code in wanted.iter().filter(|c| !seen.findings.contains(c)) {
        found.push(format!("explain does not say {} ({code})", code.id()));
    }
    for code in seen.findings.iter().filter(|c| !wanted.contains(c)) {
        found.push(format!("explain says {} ({code}), which nobody expects", code.id()));
    }
    found
}

/// In what way the kernel with these `vulnerabilities` (file and text) is not the one that the cell with these
/// labels is about. A kernel that came to say nothing at all is judged by its verdict alone.
pub fn other_mitigations(
    recipe: &Recipe,
    labels: &[(String, String)],
    vulnerabilities: &BTreeMap<String, String>,
) -> Vec<String> {
    let wanted = recipe.vulnerabilities.iter().filter(|v| v.when.matches(labels));
    wanted
        .filter(|_| !vulnerabilities.is_empty())
        .filter_map(|wanted| {
            let said = vulnerabilities.get(&wanted.file).map_or("nothing", String::as_str);
            let file = &wanted.file;
            (!fits(&wanted.says, said)).then(|| {
                format!("the kernel says of {file} '{said}', expected was '{}'", wanted.says)
            })
        })
        .collect()
}

/// Whether `text` is like `pattern`, in which a `*` stands for any text.
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        if let Some(before) = last.replace(piece) {
            // Greedy from the left is enough where only the last piece is tied to an end.
            match rest.find(before) {
                Some(at) => rest = &rest[at + before.len()..],
                None => return false,
            }
        }
    }
    match last {
        Some(piece) => rest.ends_with(piece),
        None => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Vulnerability, When};

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, yes) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abd", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), yes, "{pattern} {text}");
        }
    }

    #[test]
    fn a_row_is_what_the_kernel_says() {
        let when = When { terms: vec![("mode".into(), vec!["on".into()])], ..When::default() };
        let says = "Mitigation: safe RET*".to_owned();
        let wanted = Vulnerability { when, file: "srso".to_owned(), says };
        let recipe = Recipe { vulnerabilities: vec![wanted], ..Recipe::default() };
        let of = |mode: &str, file: &str, text: &str| {
            let said = BTreeMap::from([(file.to_owned(), text.to_owned())]);
            other_mitigations(&recipe, &[("mode".to_owned(), mode.to_owned())], &said)
        };
        assert!(of("on", "srso", "Mitigation: safe RET, no microcode").is_empty());
        assert!(of("off", "srso", "Vulnerable").is_empty());
        assert!(of("on", "srso", "Vulnerable")[0].contains("'Vulnerable', expected was 'Mit"));
        assert!(of("on", "mds", "Not affected")[0].contains("'nothing'"));
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        let text = "title = \"t\"\nstory = \"s\"\n[[kernel]]\nname = \"k\"\ntoolchain = \"gcc\"\n\
                    config = [\"tinyconfig\"]\n[[vulnerability]]\nfile = \"../x\"\nsays = \"*\"\n";
        let error = crate::file::parse("case.toml", text).unwrap_err().to_string();
        assert!(error.contains("case.toml:8:8: '../x' is no file of a vulnerability"), "{error}");
    }

    #[test]
    fn what_nobody_expects_is_said() {
        let expect = Expect {
            verdicts: vec![VerdictKind::Panicked],
            title: "general protection fault in *".to_owned(),
            findings: vec![FindingCode::RegisterImpossible],
            ..Expect::default()
        };
        let seen = Seen {
            verdict: Some(VerdictKind::Panicked),
            title: "general protection fault in irq_work_tick".to_owned(),
            findings: vec![FindingCode::RegisterImpossible],
        };
        assert!(differences(Some(&expect), &seen).is_empty());
        assert_eq!(differences(None, &seen).len(), 2, "a sick guest with a finding");
        let healthy = Seen { verdict: Some(VerdictKind::Booted), ..Seen::default() };
        assert!(differences(None, &healthy).is_empty());
        assert_eq!(differences(Some(&expect), &healthy).len(), 3);
        let accused = Seen { findings: vec![FindingCode::FlagsImpossible], ..healthy };
        assert_eq!(differences(None, &accused).len(), 1);
        assert_eq!(differences(None, &Seen::default()), ["it was not judged"]);
    }
}
