//! What the commits of a target say, kept on disk and completed step by step.
//!
//! Decides nothing about patches. A cache file holds one record for each commit that was ever
//! looked at; what is missing is read. A damaged cache is made again. Main type: [`Index`].

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::git::{Commit, GitError, Repository};
use super::message::{Message, same_commit};

/// One commit of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    #[serde(rename = "i")]
    pub id: String,
    /// Who wrote it.
    #[serde(rename = "a")]
    pub author: String,
    /// Its subject without the labels that everybody knows.
    #[serde(rename = "s")]
    pub subject: String,
    /// Upstream commits that it names.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Commits that it reverts.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub reverts: Vec<String>,
    /// Commits that it repairs.
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<String>,
    /// A digest over the names of the files that it changes; empty for merges.
    #[serde(rename = "p", default, skip_serializing_if = "String::is_empty")]
    pub files: String,
}

impl Entry {
    fn of(commit: Commit) -> Entry {
        let message = Message::parse(&commit.message, &[]);
        Entry {
            id: commit.id,
            author: commit.author,
            subject: message.subject,
            names: message.names,
            reverts: message.reverts,
            fixes: message.fixes,
            files: commit.files,
        }
    }

    /// Whether the names of commits look like such, which a damaged file need not hold to.
    fn is_sound(&self) -> bool {
        let names = [&self.names, &self.reverts, &self.fixes];
        names.into_iter().flatten().all(|n| same_commit(n, n) && n.is_ascii())
    }
}

/// Records of one repository on disk.
#[derive(Debug)]
pub struct Index {
    entries: PathBuf,
    patches: PathBuf,
}

impl Index {
    /// The files for a repository below `cache`. Commits are named by their content, so a record
    /// stays true for ever.
    pub fn new(cache: &Path, repository: &Repository) -> Result<Index, GitError> {
        let objects = repository.objects()?;
        let digest = Sha256::digest(objects.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let folder = cache.join("stacks").join(name);
        // Without a cache all is read again; that is slow, not wrong.
        let _ = fs::create_dir_all(&folder);
        Ok(Index { entries: folder.join("commits-2.jsonl"), patches: folder.join("patch-ids-1") })
    }

    /// Records of all commits that `onto` has and `meeting` has not, the newest first. `name` is what the
    /// user calls `onto`: a branch that grew since costs only what came to it.
    pub fn entries(
        &self,
        repository: &Repository,
        name: &str,
        onto: &str,
        meeting: &str,
    ) -> Result<Vec<Entry>, GitError> {
        let list = CommitList::read(self.beside("range-1", &[name, meeting]));
        if list.onto.as_deref() == Some(onto) {
            return self.records(repository, &list.commits);
        }
        let mut without = vec![meeting.to_owned()];
        // What was there for a branch that was rewritten since does not count.
        let grown = list.onto.as_deref().filter(|old| repository.is_ancestor(old, onto));
        without.extend(grown.map(str::to_owned));
        let mut entries = Vec::new();
        if self.entries.exists() {
            entries = self.records(repository, &repository.range(onto, &without)?)?;
        } else {
            // All is new: the history is walked once for names and messages.
            let mut new = Vec::new();
            repository.each_of(onto, &without, &mut |commit| {
                let entry = Entry::of(commit);
                push_record(&mut new, &entry);
                entries.push(entry);
            })?;
            append(&self.entries, &new);
        }
        let grown = grown.is_some();
        list.extend(grown, entries.iter().map(|e| e.id.as_str()), onto);
        if grown {
            entries.extend(self.records(repository, &list.commits)?);
        }
        Ok(entries)
    }

    /// Records of `commits`, in that order; what no file holds is read.
    fn records(&self, repository: &Repository, commits: &[String]) -> Result<Vec<Entry>, GitError> {
        let text = fs::read(&self.entries).unwrap_or_default();
        let mut lines: HashMap<&[u8], &[u8]> = HashMap::new();
        for line in text.split(|b| *b == b'\n') {
            // The name stands first, so that records of others are not read in full.
            if let Some(id) = line.get(6..).and_then(|rest| rest.split(|b| *b == b'"').next()) {
                lines.insert(id, line);
            }
        }
        let kept = |id: &String| {
            let entry: Entry = serde_json::from_slice(lines.get(id.as_bytes())?).ok()?;
            (entry.id == *id && entry.is_sound()).then_some(entry)
        };
        let mut found: Vec<Option<Entry>> = commits.iter().map(kept).collect();
        let missing: Vec<(usize, String)> = (0..commits.len())
            .filter(|at| found[*at].is_none())
            .map(|at| (at, commits[at].clone()))
            .collect();
        let places: HashMap<&str, usize> =
            missing.iter().map(|(at, id)| (id.as_str(), *at)).collect();
        let asked: Vec<String> = missing.iter().map(|(_, id)| id.clone()).collect();
        let mut new = Vec::new();
        repository.each(&asked, &mut |commit| {
            let entry = Entry::of(commit);
            push_record(&mut new, &entry);
            if let Some(&at) = places.get(entry.id.as_str()) {
                found[at] = Some(entry);
            }
        })?;
        append(&self.entries, &new);
        Ok(found.into_iter().flatten().collect())
    }

    /// A file of the index that is named after what it is about.
    fn beside(&self, kind: &str, about: &[&str]) -> PathBuf {
        let digest = Sha256::digest(about.join("\0"));
        let name: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        self.patches.with_file_name(format!("{kind}-{name}"))
    }

    /// Patch-ids of `commits`, by commit; merges have none.
    pub fn patch_ids(
        &self,
        repository: &Repository,
        commits: &[String],
    ) -> Result<HashMap<String, String>, GitError> {
        let text = fs::read_to_string(&self.patches).unwrap_or_default();
        let kept: HashMap<&str, &str> = text.lines().filter_map(|l| l.split_once(' ')).collect();
        let mut ids = HashMap::new();
        let mut missing = Vec::new();
        for commit in commits {
            match kept.get(commit.as_str()) {
                Some(id) => {
                    ids.insert(commit.clone(), (*id).to_owned());
                }
                None => missing.push(commit.clone()),
            }
        }
        let asked = repository.patch_ids(&missing)?;
        let mut new = Vec::new();
        for commit in &missing {
            let id = asked.get(commit).map_or("-", String::as_str);
            new.extend_from_slice(format!("{commit} {id}\n").as_bytes());
            ids.insert(commit.clone(), id.to_owned());
        }
        append(&self.patches, &new);
        ids.retain(|_, id| id != "-");
        Ok(ids)
    }
}

/// Commits that were found for a target, in a file: names, the newest first within a block, and behind each
/// block `onto COMMIT`, so that a list that was cut off is not believed.
#[derive(Debug)]
struct CommitList {
    path: PathBuf,
    /// The newest block first.
    commits: Vec<String>,
    /// The target of the last block.
    onto: Option<String>,
}

impl CommitList {
    fn read(path: PathBuf) -> CommitList {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut blocks: Vec<Vec<String>> = Vec::new();
        let mut block = Vec::new();
        let mut onto = None;
        for line in text.lines() {
            match line.strip_prefix("onto ") {
                Some(target) => {
                    onto = Some(target.to_owned());
                    blocks.push(std::mem::take(&mut block));
                }
                None => block.push(line.to_owned()),
            }
        }
        CommitList { path, commits: blocks.into_iter().rev().flatten().collect(), onto }
    }

    /// Adds a block for a new target, or begins anew without `keep`.
    fn extend<'c>(&self, keep: bool, new: impl Iterator<Item = &'c str>, onto: &str) {
        if !keep {
            let _ = fs::remove_file(&self.path);
        }
        let mut lines = String::new();
        for id in new {
            lines.push_str(id);
            lines.push('\n');
        }
        append(&self.path, format!("{lines}onto {onto}\n").as_bytes());
    }
}

fn push_record(records: &mut Vec<u8>, entry: &Entry) {
    if serde_json::to_writer(&mut *records, entry).is_ok() {
        records.push(b'\n');
    }
}

/// One write, so that two at once do not mix their lines; a torn line is not understood later, and
/// its commit is read again.
fn append(path: &Path, bytes: &[u8]) {
    if !bytes.is_empty()
        && let Ok(mut file) = fs::File::options().append(true).create(true).open(path)
    {
        let _ = file.write_all(bytes);
    }
}
