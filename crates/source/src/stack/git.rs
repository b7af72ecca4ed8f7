//! One repository: its history, which gix reads, and the git program for all else.
//!
//! The program makes what only it can make exactly, which is patch-ids, diffs as text, blame and mails, and
//! it alone writes: merges and patches in the scratch repository, and the branch of a plan. It does not read
//! history: that is `history`, without a process for each question. Nothing of the environment that could
//! point elsewhere or fetch reaches the program. Main type: [`Repository`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};

use super::history::History;

pub use super::error::GitError;
pub use super::history::Commit;

/// Variables that would make git see another repository, or another history in it, than gix does.
const ELSEWHERE: [&str; 11] = [
    "GIT_DIR",
    "GIT_COMMON_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_NO_REPLACE_OBJECTS",
];

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> GitError {
    move |source| GitError::Io { doing, source }
}

/// A repository that is only read.
#[derive(Debug, Clone)]
pub struct Repository {
    path: PathBuf,
    /// Opened when it is first asked: a scratch repository is made by the program.
    history: OnceLock<Arc<History>>,
}

impl Repository {
    /// The repository at `path`, which may be a folder inside it.
    pub fn open(path: &Path) -> Result<Repository, GitError> {
        let repository = Repository::at(path);
        repository.history()?;
        Ok(repository)
    }

    pub(crate) fn at(path: &Path) -> Repository {
        Repository { path: path.to_owned(), history: OnceLock::new() }
    }

    fn history(&self) -> Result<&History, GitError> {
        if let Some(open) = self.history.get() {
            return Ok(open);
        }
        let open = Arc::new(History::open(&self.path)?);
        Ok(self.history.get_or_init(|| open))
    }

    /// git with nothing of the environment that could point elsewhere or make it write.
    pub(crate) fn git(&self) -> Command {
        let mut command = Command::new("git");
        for name in ELSEWHERE {
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
        let history = self.history()?;
        if !history.has_reftable() {
            return history.resolve(name);
        }
        let spec = format!("{name}^{{commit}}");
        self.text(&["rev-parse", "--verify", "--quiet", "--end-of-options", &spec]).map_err(|_| {
            GitError::NoCommit { name: name.to_owned(), repository: self.path.clone() }
        })
    }

    /// A commit that both have.
    pub fn merge_base(&self, one: &str, other: &str) -> Result<String, GitError> {
        self.history()?.merge_base(one, other)
    }

    /// Whether the clone lacks history.
    pub fn is_shallow(&self) -> bool {
        self.history().is_ok_and(History::is_shallow)
    }

    /// Whether `one` is `other` or one of its ancestors; not where one of them is not there.
    pub fn is_ancestor(&self, one: &str, other: &str) -> bool {
        self.history().is_ok_and(|history| history.is_ancestor(one, other))
    }

    /// What `tip` has and none of `without` has, the newest first.
    pub fn range(&self, tip: &str, without: &[String]) -> Result<Vec<String>, GitError> {
        self.history()?.range(tip, without)
    }

    /// What `tip` has and `base` has not, each commit behind its parents, and side branches in one piece.
    pub fn line(&self, base: &str, tip: &str) -> Result<Vec<String>, GitError> {
        self.history()?.line(base, tip)
    }

    /// Calls `seen` for each commit, in the order given.
    pub fn each(&self, commits: &[String], seen: &mut dyn FnMut(Commit)) -> Result<(), GitError> {
        self.history()?.each(commits, seen)
    }

    /// Calls `seen` for each commit that `tip` has and none of `without` has, the newest first.
    pub fn each_of(
        &self,
        tip: &str,
        without: &[String],
        seen: &mut dyn FnMut(Commit),
    ) -> Result<(), GitError> {
        self.history()?.each_of(tip, without, seen)
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

    /// The folder of the objects.
    pub(crate) fn objects(&self) -> Result<PathBuf, GitError> {
        Ok(self.history()?.folder_of_objects())
    }

    /// How its objects are named, in the words of `git init --object-format`.
    pub(crate) fn object_format(&self) -> Result<String, GitError> {
        Ok(self.history()?.object_format())
    }
}
