//! Reads a git repository with the git program.
//!
//! Plumbing of the program is exact by definition (patch-ids above all), streams, and needs none of
//! the 113 crates of gix. Nothing is ever written to the repository that the user named: optional locks
//! are off, and merges are tried in a scratch repository that borrows its objects. Main type:
//! [`Repository`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Longest message that is read of a commit.
const LONGEST_RECORD: usize = 1 << 20;

/// Why git could not answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GitError {
    /// git could not be started or read.
    #[error("cannot {doing} git; is it installed?")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// git refused.
    #[error("git {what} in {repository} failed: {said}")]
    Refused {
        /// The command.
        what: String,
        /// Where.
        repository: PathBuf,
        /// The first line of its complaint.
        said: String,
    },
    /// A name that is no commit here.
    #[error("'{name}' names no commit in {repository}; fetch it, or check its spelling")]
    NoCommit {
        /// The name.
        name: String,
        /// Where.
        repository: PathBuf,
    },
    /// The histories do not meet.
    #[error("{one} and {other} have no commit in common{hint}")]
    Unrelated {
        /// One.
        one: String,
        /// The other.
        other: String,
        /// What may be the reason.
        hint: &'static str,
    },
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> GitError {
    move |source| GitError::Io { doing, source }
}

/// A repository that is only read.
#[derive(Debug, Clone)]
pub struct Repository {
    path: PathBuf,
}

/// One commit with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its name.
    pub id: String,
    /// Number of parents.
    pub parents: usize,
    /// `Name <mail>`; bytes that are not UTF-8 are replaced.
    pub author: String,
    /// The whole message.
    pub message: String,
    /// A digest over the names of the files that it changes; empty for merges and where nothing changes.
    pub files: String,
}

impl Commit {
    /// The first line of the message.
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or("")
    }
}

impl Repository {
    /// The repository at `path`, which may be a folder inside it.
    pub fn open(path: &Path) -> Result<Repository, GitError> {
        let repository = Repository { path: path.to_owned() };
        repository.text(&["rev-parse", "--git-dir"])?;
        Ok(repository)
    }

    /// git with nothing of the environment that could point elsewhere or make it write.
    pub(crate) fn git(&self) -> Command {
        let mut command = Command::new("git");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
            command.env_remove(name);
        }
        command
            .args(["--no-pager", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"])
            // An old git would fetch what a partial clone lacks, and write it there.
            .args(["-c", "protocol.allow=never", "-C"])
            .arg(&self.path)
            .env("LC_ALL", "C")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .stdin(Stdio::null());
        command
    }

    /// Standard output of a command that has to succeed.
    pub(crate) fn bytes(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, GitError> {
        let output = self.run(arguments, input)?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(self.refused(arguments, &output.stderr))
        }
    }

    pub(crate) fn refused(&self, arguments: &[&str], said: &[u8]) -> GitError {
        let said = String::from_utf8_lossy(said);
        GitError::Refused {
            what: (*arguments.first().unwrap_or(&"")).to_owned(),
            repository: self.path.clone(),
            said: said.lines().next().unwrap_or("it gave no reason").to_owned(),
        }
    }

    /// Whatever the command ends with.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Output, GitError> {
        self.run_with(arguments, input, &[])
    }

    /// With further variables of the environment.
    pub(crate) fn run_with(
        &self,
        arguments: &[&str],
        input: &[u8],
        variables: &[(&str, &OsStr)],
    ) -> Result<Output, GitError> {
        let mut command = self.git();
        command.envs(variables.iter().copied());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(io("start"))?;
        let stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            // A command that ends early closes its input; that is told by its exit code.
            scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input)));
            child.wait_with_output()
        });
        output.map_err(io("read from"))
    }

    pub(crate) fn text(&self, arguments: &[&str]) -> Result<String, GitError> {
        let bytes = self.bytes(arguments, b"")?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// The commit that a name means.
    pub fn resolve(&self, name: &str) -> Result<String, GitError> {
        let spec = format!("{name}^{{commit}}");
        self.text(&["rev-parse", "--verify", "--quiet", "--end-of-options", &spec]).map_err(|_| {
            GitError::NoCommit { name: name.to_owned(), repository: self.path.clone() }
        })
    }

    /// A commit that both have.
    pub fn merge_base(&self, one: &str, other: &str) -> Result<String, GitError> {
        self.text(&["merge-base", one, other]).map_err(|_| {
            let shallow = self.text(&["rev-parse", "--is-shallow-repository"]);
            GitError::Unrelated {
                one: one.to_owned(),
                other: other.to_owned(),
                hint: match shallow.as_deref() {
                    Ok("true") => " here; this clone is shallow, run 'git fetch --unshallow'",
                    _ => "",
                },
            }
        })
    }

    /// Whether the clone lacks history.
    pub fn is_shallow(&self) -> bool {
        self.text(&["rev-parse", "--is-shallow-repository"]).is_ok_and(|t| t == "true")
    }

    /// Whether `one` is `other` or one of its ancestors; not where one of them is not there.
    pub fn is_ancestor(&self, one: &str, other: &str) -> bool {
        self.bytes(&["merge-base", "--is-ancestor", one, other], b"").is_ok()
    }

    /// Commits of a range, the newest first, with further arguments of rev-list.
    pub fn list(&self, arguments: &[&str]) -> Result<Vec<String>, GitError> {
        let mut all = vec!["rev-list"];
        all.extend(arguments);
        Ok(self.text(&all)?.lines().map(str::to_owned).collect())
    }

    /// Calls `seen` for each commit, in the order given.
    pub fn each(&self, commits: &[String], seen: &mut dyn FnMut(Commit)) -> Result<(), GitError> {
        if commits.is_empty() { Ok(()) } else { self.log("--no-walk=unsorted", commits, seen) }
    }

    /// Calls `seen` for each commit of a range, which is given as rev-list takes it, the newest first.
    pub fn each_of(&self, range: &[String], seen: &mut dyn FnMut(Commit)) -> Result<(), GitError> {
        self.log("--do-walk", range, seen)
    }

    fn log(
        &self,
        walk: &str,
        commits: &[String],
        seen: &mut dyn FnMut(Commit),
    ) -> Result<(), GitError> {
        let arguments = [
            "log",
            walk,
            "--stdin",
            "-z",
            // Trees are compared in the same pass; blobs are not read for it.
            "--raw",
            "--root",
            "--no-abbrev",
            "--no-renames",
            "--no-ext-diff",
            "--diff-merges=off",
            "--encoding=UTF-8",
            "--no-show-signature",
            "--no-decorate",
            "--no-notes",
            "--format=%H%n%P%n%an <%ae>%n%B",
        ];
        let mut command = self.git();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(io("start"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let read = std::thread::scope(|scope| {
            scope
                .spawn(move || stdin.map(|mut pipe| pipe.write_all(commits.join("\n").as_bytes())));
            match stdout {
                Some(out) => read_log(&mut BufReader::with_capacity(1 << 16, out), seen),
                None => Ok(()),
            }
        });
        read.map_err(io("read from"))?;
        let output = child.wait_with_output().map_err(io("wait for"))?;
        if output.status.success() { Ok(()) } else { Err(self.refused(&arguments, &output.stderr)) }
    }

    /// Stable patch-ids by commit; merges and empty commits have none.
    pub fn patch_ids(&self, commits: &[String]) -> Result<HashMap<String, String>, GitError> {
        let mut ids = HashMap::new();
        if commits.is_empty() {
            return Ok(ids);
        }
        // Some thousand diffs at a time bound the memory.
        for some in commits.chunks(2000) {
            let input = some.join("\n") + "\n";
            let diff = [
                "diff-tree",
                "--stdin",
                "-p",
                "-r",
                "--root",
                "--no-renames",
                "--no-ext-diff",
                "--no-textconv",
            ];
            let diffs = self.bytes(&diff, input.as_bytes())?;
            let out = self.bytes(&["patch-id", "--stable"], &diffs)?;
            for line in String::from_utf8_lossy(&out).lines() {
                if let Some((id, commit)) = line.split_once(' ') {
                    ids.insert(commit.to_owned(), id.to_owned());
                }
            }
        }
        Ok(ids)
    }

    /// The folder of the objects, for a scratch repository.
    pub(crate) fn objects(&self) -> Result<PathBuf, GitError> {
        let path = self.text(&["rev-parse", "--git-path", "objects"])?;
        Ok(std::path::absolute(self.path.join(path)).unwrap_or_default())
    }

    pub(crate) fn at(path: &Path) -> Repository {
        Repository { path: path.to_owned() }
    }
}

/// Reads what `git log -z --raw` prints: a commit, and behind it `:modes blobs status` and a name for each
/// file, all of them ended by a zero byte.
fn read_log(reader: &mut dyn BufRead, seen: &mut dyn FnMut(Commit)) -> std::io::Result<()> {
    let mut record = Vec::new();
    let mut open: Option<(Commit, Files)> = None;
    let mut file_follows = false;
    while read_record(reader, &mut record)? {
        if std::mem::take(&mut file_follows) {
            if let Some((_, files)) = &mut open {
                files.push(&record);
            }
            continue;
        }
        let text = record.strip_prefix(b"\n").unwrap_or(&record);
        if text.starts_with(b":") {
            file_follows = true;
        } else if let Some(commit) = parse(text)
            && let Some((mut done, files)) = open.replace((commit, Files::default()))
        {
            done.files = files.digest();
            seen(done);
        }
    }
    if let Some((mut done, files)) = open {
        done.files = files.digest();
        seen(done);
    }
    Ok(())
}

/// Reads up to a zero byte, which is left out; what is behind [`LONGEST_RECORD`] bytes is passed over.
fn read_record(reader: &mut dyn BufRead, record: &mut Vec<u8>) -> std::io::Result<bool> {
    record.clear();
    let mut any = false;
    loop {
        let there = reader.fill_buf()?;
        if there.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(0, there);
        let bytes = &there[..end.unwrap_or(there.len())];
        let room = LONGEST_RECORD - record.len();
        record.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let used = bytes.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// A digest over the names of files, in the order of git's trees: patches with the same patch-id have the
/// same.
#[derive(Default)]
pub(crate) struct Files {
    digest: Sha256,
    any: bool,
}

impl Files {
    pub(crate) fn push(&mut self, name: &[u8]) {
        self.any = true;
        self.digest.update(name);
        self.digest.update([0]);
    }

    /// Empty without any file.
    pub(crate) fn digest(self) -> String {
        if !self.any {
            return String::new();
        }
        self.digest.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

fn parse(record: &[u8]) -> Option<Commit> {
    let text = String::from_utf8_lossy(record);
    let mut parts = text.splitn(4, '\n');
    Some(Commit {
        id: parts.next().filter(|id| id.len() >= 40)?.to_owned(),
        parents: parts.next()?.split_whitespace().count(),
        author: parts.next()?.to_owned(),
        message: parts.next().unwrap_or("").to_owned(),
        files: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_and_files_are_told_apart() {
        let id = |c: char| c.to_string().repeat(40);
        let (a, b, c) = (id('a'), id('b'), id('c'));
        let long = "x".repeat(LONGEST_RECORD + 10);
        let text = format!(
            "{a}\n{b}\nN <m>\nfirst\n\nbody\n\0\n:100644 100644 1 2 M\0:odd name\0:100644 100644 1 2 M\0{b}\n\0\
             {b}\n\nN <m>\n{long}\0{c}\n{a} {b}\nN <m>\nmerge\0"
        );
        let mut seen = Vec::new();
        read_log(&mut text.as_bytes(), &mut |commit| seen.push(commit)).unwrap();
        assert_eq!(seen.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), [a, b.clone(), c]);
        let mut files = Files::default();
        files.push(b":odd name");
        files.push(format!("{b}\n").as_bytes());
        assert_eq!(seen[0].files, files.digest());
        assert_eq!((seen[0].message.as_str(), seen[0].parents), ("first\n\nbody\n", 1));
        assert!(seen[1].message.len() < LONGEST_RECORD && seen[1].files.is_empty());
        assert_eq!((seen[2].message.as_str(), seen[2].parents), ("merge", 2));
    }
}
