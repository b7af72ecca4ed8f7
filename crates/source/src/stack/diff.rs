//! One commit's diff as text, and where its lines come from.
//!
//! Decides which lines of a diff are changes; git writes it. Main type: [`Diff`].

use std::collections::BTreeMap;

use super::git::{GitError, Repository};

/// What `git diff-tree -p` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Diff(Vec<u8>);

/// Lines of the old side, from 1: the first, and how many.
pub(super) type Hunk = (u32, u32);

/// A commit that lines come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) id: String,
    /// `Name <mail>`.
    pub(super) author: String,
    pub(super) subject: String,
}

impl Repository {
    /// The diff of a commit against its first parent.
    pub(super) fn diff(&self, commit: &str) -> Result<Diff, GitError> {
        self.diff_with(&[commit])
    }

    /// The part of it that is about one file.
    pub(super) fn diff_of(&self, commit: &str, file: &str) -> Result<Diff, GitError> {
        self.diff_with(&[commit, "--", &format!(":(top,literal){file}")])
    }

    fn diff_with(&self, what: &[&str]) -> Result<Diff, GitError> {
        let fixed = [
            "diff-tree",
            "-p",
            "-r",
            "--root",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            "--no-commit-id",
        ];
        self.bytes(&[&fixed, what].concat(), b"").map(Diff)
    }

    /// The commits behind `meeting` that lines of a file of `commit` come from. Where git cannot tell, none.
    pub(super) fn origins(
        &self,
        commit: &str,
        meeting: &str,
        file: &str,
        hunks: &[Hunk],
    ) -> Vec<Origin> {
        if hunks.is_empty() {
            return Vec::new();
        }
        let range = format!("{meeting}..{commit}");
        let lines: Vec<String> = hunks.iter().map(|(from, n)| format!("-L{from},+{n}")).collect();
        let mut arguments = vec!["blame", "--porcelain"];
        arguments.extend(lines.iter().map(String::as_str));
        arguments.extend([range.as_str(), "--", file]);
        let said = self.bytes(&arguments, b"").unwrap_or_default();
        origins(&String::from_utf8_lossy(&said))
    }
}

/// Reads `git blame --porcelain`: of each commit once who wrote it, and whether it is where the search ended.
fn origins(said: &str) -> Vec<Origin> {
    let mut found: BTreeMap<&str, (Origin, bool)> = BTreeMap::new();
    let mut now = "";
    for line in said.lines() {
        if line.starts_with('\t') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word.len() >= 40 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
            now = word;
            found
                .entry(now)
                .or_insert_with(|| (Origin { id: word.to_owned(), ..Origin::default() }, false));
            continue;
        }
        let Some((origin, boundary)) = found.get_mut(now) else { continue };
        match word {
            "author" => origin.author = rest.to_owned(),
            "author-mail" => origin.author = format!("{} {rest}", origin.author),
            "summary" => origin.subject = rest.to_owned(),
            "boundary" => *boundary = true,
            _ => {}
        }
    }
    found.into_values().filter(|(_, boundary)| !boundary).map(|(origin, _)| origin).collect()
}

impl Diff {
    /// Lines that it adds and removes, each behind its file, sorted.
    pub(super) fn changed_lines(&self) -> Vec<Vec<u8>> {
        let mut file: &[u8] = b"";
        let mut inside = false;
        let mut lines = Vec::new();
        for line in self.0.split(|b| *b == b'\n') {
            if line.starts_with(b"diff --git ") {
                (file, inside) = (line, false);
            } else if line.starts_with(b"@@") {
                inside = true;
            } else if inside && (line.starts_with(b"+") || line.starts_with(b"-")) {
                lines.push([line, b"\0", file].concat());
            }
        }
        lines.sort_unstable();
        lines
    }

    /// What a person compares: names of files and changes, without names of blobs and numbers of lines. Says
    /// how many lines are behind `most`.
    pub(super) fn shortened(&self, most: usize) -> (String, usize) {
        let text = String::from_utf8_lossy(&self.0);
        let mut kept = String::new();
        let mut inside = false;
        let mut lines = 0usize;
        for line in text.lines() {
            let line = if let Some(names) = line.strip_prefix("diff --git ") {
                inside = false;
                names.split_once(" b/").map_or(names, |(_, name)| name)
            } else if let Some(hunk) = line.strip_prefix("@@ ") {
                inside = true;
                hunk.split_once("@@").map_or("", |(_, function)| function.trim_start())
            } else if inside {
                line
            } else {
                continue;
            };
            lines += 1;
            if lines <= most {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        (kept, lines.saturating_sub(most))
    }

    /// The lines of the old side that its hunks are about.
    pub(super) fn hunks(&self, most: usize) -> Vec<Hunk> {
        let text = String::from_utf8_lossy(&self.0);
        let hunk = |line: &str| {
            let (from, count) = match line.strip_prefix("@@ -")?.split(' ').next()?.split_once(',')
            {
                Some((from, count)) => (from.parse().ok()?, count.parse().ok()?),
                None => (line.strip_prefix("@@ -")?.split(' ').next()?.parse().ok()?, 1),
            };
            (from > 0 && count > 0).then_some((from, count))
        };
        text.lines().filter_map(hunk).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "diff --git a/x/y.c b/x/y.c\nindex 1..2 100644\n--- a/x/y.c\n+++ b/x/y.c\n\
        @@ -10,3 +10,4 @@ int f(void)\n a\n--- b\n+++ c\n+d\n@@ -0,0 +1 @@\n+e\n@@ -7 +8 @@\n-f\n";

    #[test]
    fn changes_are_read() {
        let diff = Diff(TEXT.as_bytes().to_vec());
        assert_eq!(diff.hunks(9), [(10, 3), (7, 1)]);
        assert_eq!(diff.hunks(1), [(10, 3)]);
        let lines = diff.changed_lines();
        assert_eq!(
            lines.len(),
            5,
            "lines that look like heads of files are changes inside of a hunk"
        );
        assert_eq!(diff.shortened(4), ("x/y.c\nint f(void)\n a\n--- b\n".to_owned(), 6));
        assert_eq!(Diff::default().shortened(4), (String::new(), 0));
    }

    #[test]
    fn commits_where_the_search_ended_are_no_origins() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let said = format!(
            "{a} 1 1 2\nauthor N\nauthor-mail <m>\nsummary old\nboundary\nfilename x\n\tauthor of text\n\
             {b} 3 3 1\nauthor O\nauthor-mail <o>\nsummary new one\nfilename x\n\tsummary x\n{b} 9 9 1\n\tx\n"
        );
        let expected = Origin { id: b, author: "O <o>".into(), subject: "new one".into() };
        assert_eq!(origins(&said), [expected]);
    }
}
