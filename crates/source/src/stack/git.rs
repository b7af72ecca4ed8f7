//! Reads a git repository with the git program.
//!
//! Plumbing of the program is exact by definition (patch-ids above all), streams, and needs none of
//! the 113 crates of gix. Nothing is ever written to the repository that the user named: optional locks
//! are off, and merges are tried in a scratch repository that borrows its objects. Main type:
//! [`Repository`].

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

/// Longest message that is read of a commit.
const LONGEST_RECORD: u64 = 1 << 20;

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
            .args(["--no-pager", "-c", "core.fsmonitor=false", "-c", "gc.auto=0", "-C"])
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
        let mut command = self.git();
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

    /// Commits of a range, the newest first, with further arguments of rev-list.
    pub fn list(&self, arguments: &[&str]) -> Result<Vec<String>, GitError> {
        let mut all = vec!["rev-list"];
        all.extend(arguments);
        Ok(self.text(&all)?.lines().map(str::to_owned).collect())
    }

    /// Calls `seen` for each commit, in the order given.
    pub fn each(&self, commits: &[String], seen: &mut dyn FnMut(Commit)) -> Result<(), GitError> {
        if commits.is_empty() {
            return Ok(());
        }
        let arguments = [
            "log",
            "--no-walk=unsorted",
            "--stdin",
            "-z",
            "--encoding=UTF-8",
            "--no-show-signature",
            "--format=%H%n%P%n%an <%ae>%n%B",
        ];
        let mut command = self.git();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(io("start"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let read = std::thread::scope(|scope| {
            scope
                .spawn(move || stdin.map(|mut pipe| pipe.write_all(commits.join("\n").as_bytes())));
            let mut reader = BufReader::new(
                stdout
                    .into_iter()
                    .fold(Box::new(std::io::empty()) as Box<dyn Read + Send>, |_, out| {
                        Box::new(out)
                    }),
            );
            let mut record = Vec::new();
            loop {
                record.clear();
                if reader.by_ref().take(LONGEST_RECORD).read_until(0, &mut record)? == 0 {
                    return Ok(());
                }
                if let Some(commit) = parse(&record) {
                    seen(commit);
                }
            }
        });
        read.map_err(io("read from"))?;
        let output = child.wait_with_output().map_err(io("wait for"))?;
        if output.status.success() { Ok(()) } else { Err(self.refused(&arguments, &output.stderr)) }
    }

    /// Stable patch-ids by commit; merges and empty commits have none.
    pub fn patch_ids(&self, commits: &[String]) -> Result<HashMap<String, String>, GitError> {
        let mut ids = HashMap::new();
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

    /// Lines that a commit adds and removes, each behind its file.
    pub fn changed_lines(&self, commit: &str) -> Result<Vec<Vec<u8>>, GitError> {
        let diff = self.bytes(
            &[
                "diff-tree",
                "-p",
                "-r",
                "--root",
                "--no-renames",
                "--no-ext-diff",
                "--no-commit-id",
                commit,
            ],
            b"",
        )?;
        let mut file: &[u8] = b"";
        let mut lines = Vec::new();
        for line in diff.split(|b| *b == b'\n') {
            if let Some(name) = line.strip_prefix(b"+++ ").or_else(|| line.strip_prefix(b"--- ")) {
                file = name.get(2..).unwrap_or(name);
            } else if line.starts_with(b"+") || line.starts_with(b"-") {
                lines.push([line, b"\0", file].concat());
            }
        }
        lines.sort_unstable();
        Ok(lines)
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

fn parse(record: &[u8]) -> Option<Commit> {
    let text = String::from_utf8_lossy(record);
    let text = text.trim_end_matches('\0');
    let mut parts = text.splitn(4, '\n');
    Some(Commit {
        id: parts.next().filter(|id| id.len() >= 40)?.to_owned(),
        parents: parts.next()?.split_whitespace().count(),
        author: parts.next()?.to_owned(),
        message: parts.next().unwrap_or("").to_owned(),
    })
}
