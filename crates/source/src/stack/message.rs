//! What the message of a patch says: labels, upstream commits, reverts, fixes.
//!
//! Main type: [`Message`].

/// Labels that are known to everybody; further ones may be named by the user.
pub const LABELS: [&str; 10] = [
    "UPSTREAM",
    "BACKPORT",
    "FROMGIT",
    "FROMLIST",
    "CHROMIUM",
    "ANDROID",
    "CLANG3",
    "CLANG4",
    "CHERRYPICK",
    "NOUPSTREAM",
];

/// Shortest abbreviation of a commit that is believed; git itself writes seven and more.
const SHORTEST: usize = 7;

/// One message, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Labels, the outermost first; `Revert` for a revert.
    pub labels: Vec<String>,
    /// The subject without labels.
    pub subject: String,
    /// Upstream commits that it is a copy of.
    pub names: Vec<String>,
    /// Commits that it reverts.
    pub reverts: Vec<String>,
    /// Commits that it repairs.
    pub fixes: Vec<String>,
}

impl Message {
    /// Reads a message; `own` are further labels.
    pub fn parse(text: &str, own: &[String]) -> Message {
        let mut lines = text.lines();
        let mut subject = lines.next().unwrap_or("").trim();
        let mut message = Message::default();
        while let Some((head, rest)) = subject.split_once(':') {
            let word = head.split('(').next().unwrap_or(head).trim();
            if !LABELS.contains(&word) && !own.iter().any(|o| o == word) {
                break;
            }
            message.labels.push(word.to_owned());
            subject = rest.trim_start();
        }
        if subject.starts_with("Revert \"") {
            message.labels.push("Revert".to_owned());
        }
        message.subject = subject.to_owned();
        for line in lines {
            let line = line.trim();
            let lower = line.to_ascii_lowercase();
            let named = behind(&lower, "(cherry picked from commit ")
                .or_else(|| behind(&lower, "[ upstream commit "))
                .or_else(|| behind(&lower, "upstream commit "))
                .or_else(|| lower.strip_prefix("commit ").filter(|r| r.contains(" upstream")));
            if let Some(id) = named.and_then(commit) {
                message.names.push(id);
            } else if let Some(id) = behind(&lower, "this reverts commit ").and_then(commit) {
                message.reverts.push(id);
            } else if let Some(id) = behind(&lower, "fixes: ").and_then(commit) {
                message.fixes.push(id);
            }
        }
        message
    }

    /// Whether it carries the label.
    pub fn is(&self, label: &str) -> bool {
        self.labels.iter().any(|l| l == label)
    }
}

fn behind<'l>(line: &'l str, mark: &str) -> Option<&'l str> {
    line.strip_prefix(mark)
}

/// The commit at the start of `text`.
fn commit(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    (SHORTEST..=64).contains(&end).then(|| text[..end].to_owned())
}

/// Whether two names, perhaps abbreviated, can mean the same commit.
pub fn same_commit(a: &str, b: &str) -> bool {
    a.len().min(b.len()) >= SHORTEST && (a.starts_with(b) || b.starts_with(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_trailers() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let text = format!(
            "BACKPORT: FROMGIT(tip): x86: fix it\n\ncommit {sha} upstream.\n[ Upstream commit 89abcdef0123 ]\n\
             (cherry picked from commit deadbeefcafe)\nFixes: 1234567 (\"x\")\nThis reverts commit {sha}.\n"
        );
        let message = Message::parse(&text, &[]);
        assert_eq!(message.labels, ["BACKPORT", "FROMGIT"]);
        assert_eq!(message.subject, "x86: fix it");
        assert_eq!(message.names, [sha, "89abcdef0123", "deadbeefcafe"]);
        assert_eq!(
            (message.fixes, message.reverts),
            (vec!["1234567".into()], vec![sha.to_owned()])
        );
        let own = Message::parse("MINE: y", &["MINE".into()]);
        assert!(own.is("MINE") && own.subject == "y");
        assert_eq!(Message::parse("Revert \"a: b\"", &[]).labels, ["Revert"]);
        assert_eq!(Message::parse("x86: y\ncommit message upstream.", &[]).names, [] as [&str; 0]);
        assert_eq!(Message::parse("", &[]), Message::default());
    }
}
