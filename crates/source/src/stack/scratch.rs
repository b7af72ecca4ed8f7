//! An empty repository that borrows the objects of the user's, to try merges in.
//!
//! Decides nothing; new objects land in a temporary folder that goes away. Main type: [`Scratch`].

use super::git::{GitError, Repository};

/// The scratch repository.
#[derive(Debug)]
pub(super) struct Scratch {
    repository: Repository,
    _dir: tempfile::TempDir,
}

/// What a merge gave.
#[derive(Debug)]
pub(super) struct Merged {
    /// The tree, with conflict marks where there are conflicts.
    pub(super) tree: String,
    /// Files in conflict.
    pub(super) conflicts: Vec<String>,
}

impl Scratch {
    pub(super) fn new(user: &Repository) -> Result<Scratch, GitError> {
        let io = |source| GitError::Io { doing: "make a scratch repository for", source };
        let dir = tempfile::tempdir().map_err(io)?;
        let repository = Repository::at(dir.path());
        repository.bytes(&["init", "--quiet", "--bare", "."], b"")?;
        // commit-tree wants a name; the user's own is taken where there is one.
        for (key, otherwise) in [("user.name", "kolumbo"), ("user.email", "kolumbo@localhost")] {
            let own = user.text(&["config", key]).unwrap_or_else(|_| otherwise.to_owned());
            repository.bytes(&["config", key, &own], b"")?;
        }
        let objects = user.objects()?;
        let line = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
        std::fs::write(dir.path().join("objects/info/alternates"), line).map_err(io)?;
        Ok(Scratch { repository, _dir: dir })
    }

    /// Brings what happened from `base` to `theirs` onto `ours`; no work tree is needed.
    pub(super) fn merge(&self, base: &str, ours: &str, theirs: &str) -> Result<Merged, GitError> {
        let base = format!("--merge-base={base}");
        let arguments = [
            "merge-tree",
            "--write-tree",
            "--name-only",
            "--no-messages",
            "-z",
            &base,
            ours,
            theirs,
        ];
        let output = self.repository.run(&arguments, b"")?;
        let status = output.status.code();
        if !matches!(status, Some(0 | 1)) {
            let what = ["merge-tree (2.40 or newer is needed)"];
            return Err(self.repository.refused(&what, &output.stderr));
        }
        let mut parts =
            output.stdout.split(|b| *b == 0).map(|p| String::from_utf8_lossy(p).into_owned());
        let tree = parts.next().unwrap_or_default();
        let conflicts = parts.filter(|p| status == Some(1) && !p.is_empty()).collect();
        Ok(Merged { tree, conflicts })
    }

    pub(super) fn commit(
        &self,
        tree: &str,
        parent: &str,
        message: &str,
    ) -> Result<String, GitError> {
        let out =
            self.repository.bytes(&["commit-tree", tree, "-p", parent], message.as_bytes())?;
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    }

    /// The tree of a commit.
    pub(super) fn tree(&self, commit: &str) -> Result<String, GitError> {
        self.repository.text(&["rev-parse", &format!("{commit}^{{tree}}")])
    }

    /// The first line of a file with a conflict mark, counted from 1; 0 without any.
    pub(super) fn first_mark(&self, tree: &str, file: &str) -> u32 {
        let spec = format!("{tree}:{file}");
        let bytes = self.repository.bytes(&["cat-file", "blob", &spec], b"").unwrap_or_default();
        let at = bytes.split(|b| *b == b'\n').position(|line| line.starts_with(b"<<<<<<< "));
        at.and_then(|at| u32::try_from(at + 1).ok()).unwrap_or(0)
    }

    /// Commits as mails.
    pub(super) fn patches(&self, from: &str, to: &str) -> Result<Vec<u8>, GitError> {
        let range = format!("{from}..{to}");
        self.repository.bytes(&["format-patch", "--stdout", "--no-signature", &range], b"")
    }
}
