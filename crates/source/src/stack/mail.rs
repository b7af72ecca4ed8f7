//! The text of a patch: who wrote it, what it says, and the change.
//!
//! Decides what of a file is a head and what is none. Mails are read by `git mailinfo`, as `git am` does;
//! patches without a mail's head, as quilt has them, here. Main type: [`Mail`].

use std::path::Path;

use super::git::{GitError, Repository};

/// Longest message that is kept.
const LONGEST_MESSAGE: usize = 1 << 20;

/// A patch as its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mail {
    author: String,
    address: String,
    date: String,
    message: String,
    /// What `git apply` takes.
    pub(super) diff: Vec<u8>,
    /// Neither author nor subject stand in it.
    pub(super) headless: bool,
}

impl Mail {
    /// Reads one patch; `name` is its file's, for want of a subject. `folder` takes what git writes.
    pub(super) fn read(
        repository: &Repository,
        folder: &Path,
        text: &[u8],
        name: &str,
    ) -> Result<Mail, GitError> {
        let head = Head::parse(text);
        if !head.is_mail {
            return Ok(Mail {
                message: head.message(name),
                headless: head.subject.is_none() && head.author.0.is_empty(),
                author: head.author.0,
                address: head.author.1,
                diff: text.to_vec(),
                ..Mail::default()
            });
        }
        let (message, diff) = (folder.join("import-message"), folder.join("import-diff"));
        let (message_name, diff_name) = (message.display().to_string(), diff.display().to_string());
        let arguments = ["mailinfo", "-b", "-u", "--encoding=UTF-8", &message_name, &diff_name];
        let out = repository.run(&arguments, text)?;
        if !out.status.success() {
            // Damaged as a mail; what git apply makes of the text is seen later.
            let message = head.message(name);
            return Ok(Mail { message, diff: text.to_vec(), headless: true, ..Mail::default() });
        }
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let field = |name: &str| {
            said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim().to_owned()
        };
        let body = std::fs::read(&message).unwrap_or_default();
        let subject = field("Subject: ");
        let first = if subject.is_empty() { name.to_owned() } else { subject.clone() };
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Mail {
            author: field("Author: "),
            address: field("Email: "),
            date: field("Date: "),
            headless: subject.is_empty(),
            message: format!("{first}\n\n{body}"),
            diff: std::fs::read(&diff).unwrap_or_default(),
        })
    }

    /// Makes it a commit. The same patch on the same parent is the same commit in every run.
    pub(super) fn commit(
        &self,
        repository: &Repository,
        tree: &str,
        parent: &str,
    ) -> Result<String, GitError> {
        let or = |text: &str, otherwise: &str| {
            let text: String =
                text.chars().filter(|c| !c.is_control() && !"<>".contains(*c)).collect();
            if text.trim().is_empty() { otherwise.to_owned() } else { text }
        };
        let (author, address) = (or(&self.author, "unknown"), or(&self.address, "unknown"));
        let message: String =
            self.message.chars().take(LONGEST_MESSAGE).filter(|c| *c != '\0').collect();
        let arguments = ["commit-tree", tree, "-p", parent];
        let mut refused = None;
        // A date that git does not understand is none.
        for date in [self.date.as_str(), "@0 +0000"].into_iter().filter(|d| !d.is_empty()) {
            let env = [
                ("GIT_AUTHOR_NAME", author.as_ref()),
                ("GIT_AUTHOR_EMAIL", address.as_ref()),
                ("GIT_AUTHOR_DATE", date.as_ref()),
                ("GIT_COMMITTER_NAME", "kolumbo".as_ref()),
                ("GIT_COMMITTER_EMAIL", "kolumbo@localhost".as_ref()),
                ("GIT_COMMITTER_DATE", "@0 +0000".as_ref()),
            ];
            let out = repository.run_with(&arguments, message.as_bytes(), &env)?;
            if out.status.success() {
                return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
            }
            refused = Some(out.stderr);
        }
        Err(repository.refused(&arguments, &refused.unwrap_or_default()))
    }
}

/// What stands before the change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// It begins as a mail does.
    is_mail: bool,
    author: (String, String),
    subject: Option<String>,
    rest: String,
}

impl Head {
    /// Reads the text before the first line of a change. Debian's patches say `Description:` (DEP-3), those of
    /// quilt have free text, whose first line is taken for the subject.
    pub(super) fn parse(text: &[u8]) -> Head {
        let mut head = Head::default();
        let text = &text[..text.len().min(LONGEST_MESSAGE)];
        let mut fields = true;
        let mut free = Vec::new();
        for (number, line) in text.split(|b| *b == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            let line = line.trim_end_matches('\r');
            if is_change(line) {
                break;
            }
            if line.is_empty() {
                fields = false;
            }
            let field = line.split_once(':').filter(|(name, _)| fields && is_known_field(name));
            match field.map(|(name, value)| (name.to_ascii_lowercase(), value.trim())) {
                Some((name, value)) if name == "from" || name == "author" => {
                    head.is_mail |= name == "from";
                    head.author = address(value);
                }
                Some((name, value)) if name == "subject" => {
                    head.is_mail = true;
                    head.subject = Some(value.to_owned());
                }
                Some((name, value)) if name == "description" => {
                    head.subject.get_or_insert_with(|| value.to_owned());
                }
                Some(_) => {}
                None if number == 0 && line.starts_with("From ") => head.is_mail = true,
                None => free.push(line.to_owned()),
            }
        }
        let mut free = free.into_iter().skip_while(|line| line.trim().is_empty());
        if head.subject.is_none() {
            head.subject = free.next().map(|line| line.trim_start_matches('#').trim().to_owned());
            head.subject = head.subject.filter(|subject| !subject.is_empty());
        }
        head.rest = free.collect::<Vec<_>>().join("\n");
        head
    }

    fn message(&self, name: &str) -> String {
        let subject = match self.subject.as_deref() {
            Some(subject) if !subject.is_empty() => subject,
            _ => name,
        };
        format!("{subject}\n\n{}", self.rest.trim())
    }
}

fn is_change(line: &str) -> bool {
    ["diff ", "--- ", "Index: ", "GIT binary patch", "==="]
        .iter()
        .any(|mark| line.starts_with(mark))
        || line == "---"
}

/// Fields of mails and of Debian's patches. Others may as well be the subject of a patch: "x86: fix it".
fn is_known_field(name: &str) -> bool {
    const FIELDS: [&str; 10] = [
        "applied-upstream",
        "author",
        "date",
        "description",
        "forwarded",
        "from",
        "last-update",
        "message-id",
        "origin",
        "subject",
    ];
    let name = name.to_ascii_lowercase();
    FIELDS.contains(&name.as_str()) || name.starts_with("bug-") || name == "bug"
}

fn is_field(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `Name <address>`, or an address alone.
fn address(text: &str) -> (String, String) {
    match text.split_once('<') {
        Some((name, rest)) => {
            let address = rest.split('>').next().unwrap_or(rest);
            (name.trim().trim_matches('"').to_owned(), address.trim().to_owned())
        }
        None => (text.to_owned(), text.to_owned()),
    }
}

/// The mails of a mailbox; one where it is none.
pub(super) fn split(text: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    let mut blank = true;
    for line in text.split_inclusive(|b| *b == b'\n') {
        // A head follows: text of a mail may hold such a line, too.
        if blank && line.starts_with(b"From ") {
            let next = text[at + line.len()..].split(|b| *b == b'\n').next().unwrap_or(b"");
            let name = next.split(|b| *b == b':').next().unwrap_or(b"");
            if next.contains(&b':') && std::str::from_utf8(name).is_ok_and(is_field) {
                starts.push(at);
            }
        }
        blank = line.trim_ascii().is_empty();
        at += line.len();
    }
    if starts.first() != Some(&0) {
        return vec![text];
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
}

/// What `git format-patch --base` says.
pub(super) fn base_commit(text: &[u8]) -> Option<String> {
    let mark = b"base-commit: ";
    let lines = text.split(|b| *b == b'\n');
    let id = lines.filter_map(|line| line.strip_prefix(mark)).next()?.trim_ascii();
    let id = std::str::from_utf8(id).ok()?;
    (id.len() >= 40 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Reads text as every reader of this module would, for what a fuzzer finds.
pub fn parse_patch(text: &[u8]) -> usize {
    let mails = split(text);
    let heads = mails.iter().map(|mail| Head::parse(mail).message("name").len());
    heads.sum::<usize>() + usize::from(base_commit(text).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_kinds() {
        let head = |text: &str| {
            let head = Head::parse(text.as_bytes());
            (head.is_mail, head.author.0.clone(), head.message("a.patch"))
        };
        let mail = "From 0123 Mon Sep 17\nFrom: \"A B\" <a@b>\nSubject: [PATCH] x: y\n\nbody\n---\n x | 1 +\n";
        assert_eq!(head(mail), (true, "A B".into(), "[PATCH] x: y\n\nbody".into()));
        let dep3 = "Description: x: y\n more\nAuthor: A <a@b>\n\nIndex: x\n--- a/x\n";
        assert_eq!(head(dep3), (false, "A".into(), "x: y\n\nmore".into()));
        assert_eq!(
            head("x: y\n\nwhy\n--- a/x\n+++ b/x\n"),
            (false, String::new(), "x: y\n\nwhy".into())
        );
        assert_eq!(head("diff --git a/x b/x\n"), (false, String::new(), "a.patch\n\n".into()));
        assert_eq!(head(""), (false, String::new(), "a.patch\n\n".into()));
    }

    #[test]
    fn a_mailbox_is_split_where_heads_follow() {
        let one = "From 1 Mon\nFrom: a\nSubject: b\n\ntext\n\nFrom here it is text\n\n";
        let two = "From 2 Mon\nFrom: a\nSubject: c\n\n";
        let mailbox = format!("{one}{two}");
        let mails = split(mailbox.as_bytes());
        assert_eq!(mails, [one.as_bytes(), two.as_bytes()]);
        assert_eq!(split(b"diff --git"), [b"diff --git"]);
        let id = "0123456789".repeat(4);
        assert_eq!(base_commit(format!("x\nbase-commit: {id}\r\n").as_bytes()), Some(id));
        assert_eq!(base_commit(b"base-commit: HEAD"), None);
    }
}
