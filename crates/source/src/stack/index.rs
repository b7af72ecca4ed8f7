//! What the commits of a target say, kept on disk and completed step by step.
//!
//! Decides nothing about patches. A cache file holds one record for each commit that was ever
//! looked at; what is missing is asked of git. A damaged cache is asked for again. Main type: [`Index`].

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::git::{GitError, Repository};
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
}

impl Entry {
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
        // Without a cache all is asked of git again; that is slow, not wrong.
        let _ = fs::create_dir_all(&folder);
        Ok(Index { entries: folder.join("commits-1.jsonl"), patches: folder.join("patch-ids-1") })
    }

    /// Records of `commits`, in that order.
    pub fn entries(
        &self,
        repository: &Repository,
        commits: &[String],
    ) -> Result<Vec<Entry>, GitError> {
        let places: HashMap<&str, usize> =
            commits.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let mut found: Vec<Option<Entry>> = vec![None; commits.len()];
        for line in fs::read(&self.entries).unwrap_or_default().split(|b| *b == b'\n') {
            // The name stands first, so that records of others are not read in full.
            let id = line.get(6..).and_then(|rest| rest.split(|b| *b == b'"').next());
            let id = id.and_then(|id| std::str::from_utf8(id).ok());
            if let Some(&at) = id.and_then(|id| places.get(id))
                && let Ok(entry) = serde_json::from_slice::<Entry>(line)
                && entry.id == commits[at]
                && entry.is_sound()
            {
                found[at] = Some(entry);
            }
        }
        let missing: Vec<String> = found
            .iter()
            .zip(commits)
            .filter(|(entry, _)| entry.is_none())
            .map(|(_, id)| id.clone())
            .collect();
        let mut new = Vec::new();
        repository.each(&missing, &mut |commit| {
            let message = Message::parse(&commit.message, &[]);
            let entry = Entry {
                id: commit.id,
                author: commit.author,
                subject: message.subject,
                names: message.names,
                reverts: message.reverts,
                fixes: message.fixes,
            };
            if serde_json::to_writer(&mut new, &entry).is_ok() {
                new.push(b'\n');
            }
            if let Some(&at) = places.get(entry.id.as_str()) {
                found[at] = Some(entry);
            }
        })?;
        append(&self.entries, &new);
        Ok(found.into_iter().flatten().collect())
    }

    /// Commits that touch one of `files` (pathspecs), among all that were ever looked at from `meeting` on
    /// for those files; those of `meeting..onto` are complete. git has to compare trees for this, which
    /// is dear, so the answer is kept and only what came since is asked for.
    pub fn touching(
        &self,
        repository: &Repository,
        files: &[String],
        onto: &str,
        meeting: &str,
    ) -> Result<Vec<String>, GitError> {
        let digest = Sha256::digest(files.join("\0") + "\0" + meeting);
        let name: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let path = self.patches.with_file_name(format!("touching-1-{name}"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        // `onto COMMIT` stands behind the commits that were found for it, so that a list that was cut
        // off is not believed.
        let mut found = Vec::new();
        let mut looked_at = None;
        let mut believed = 0;
        for line in text.lines() {
            match line.strip_prefix("onto ") {
                Some(onto) => {
                    looked_at = Some(onto.to_owned());
                    believed = found.len();
                }
                None => found.push(line.to_owned()),
            }
        }
        found.truncate(believed);
        if looked_at.as_deref() == Some(onto) {
            return Ok(found);
        }
        // A commit that was rewritten away may be gone; then everything is asked again.
        let before = looked_at.filter(|id| repository.resolve(id).is_ok());
        let mut known: BTreeSet<String> = found.into_iter().collect();
        let mut new = BTreeSet::new();
        let mut without = vec![format!("^{meeting}")];
        without.extend(before.map(|id| format!("^{id}")));
        // A command line has room for some thousand names. Without full history, git leaves out side
        // branches whose changes a merge did not take.
        for some in files.chunks(500) {
            let mut arguments = vec!["--no-merges", "--full-history", onto];
            arguments.extend(without.iter().map(String::as_str));
            arguments.push("--");
            arguments.extend(some.iter().map(String::as_str));
            new.extend(repository.list(&arguments)?);
        }
        let lines: String = new.iter().map(|id| format!("{id}\n")).collect();
        append(&path, format!("{lines}onto {onto}\n").as_bytes());
        known.extend(new);
        Ok(known.into_iter().collect())
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

/// One write, so that two at once do not mix their lines; a torn line is not understood later, and
/// its commit is asked for again.
fn append(path: &Path, bytes: &[u8]) {
    if !bytes.is_empty()
        && let Ok(mut file) = fs::File::options().append(true).create(true).open(path)
    {
        let _ = file.write_all(bytes);
    }
}
