//! An empty repository that borrows the objects of the user's, to try merges in.
//!
//! Decides nothing; new objects land in a temporary folder that goes away, unless they are given to the
//! user's repository under a new branch. Main type: [`Scratch`].

use super::git::{GitError, Repository};

/// Who commits where the user's own name is not known.
const NOBODY: [(&str, &str); 2] = [("user.name", "kolumbo"), ("user.email", "kolumbo@localhost")];

/// The scratch repository.
#[derive(Debug)]
pub(super) struct Scratch {
    repository: Repository,
    dir: tempfile::TempDir,
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
        // Names of objects have to be made as the user's are.
        let format = format!("--object-format={}", user.object_format()?);
        repository.bytes(&["init", "--quiet", "--bare", &format, "."], b"")?;
        // commit-tree wants a name; the user's own is taken where there is one.
        for (key, otherwise) in NOBODY {
            let own = user.text(&["config", key]).unwrap_or_else(|_| otherwise.to_owned());
            repository.bytes(&["config", key, &own], b"")?;
        }
        let objects = user.objects()?;
        let line = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
        std::fs::write(dir.path().join("objects/info/alternates"), line).map_err(io)?;
        Ok(Scratch { repository, dir })
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The repository, which sees the user's objects and its own.
    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Brings what happened from `base` to `theirs` onto `ours`; no work tree is needed. All three are
    /// commits. git takes a base of the caller's since 2.40; commits that have no other history give the
    /// same since 2.38.
    pub(super) fn merge(&self, base: &str, ours: &str, theirs: &str) -> Result<Merged, GitError> {
        let lone = |of: &str, parent: Option<&str>| {
            let tree = format!("{of}^{{tree}}");
            let mut arguments = vec!["commit-tree", &tree];
            arguments.extend(parent.iter().flat_map(|parent| ["-p", parent]));
            self.name(&arguments, b"tried")
        };
        let base = lone(base, None)?;
        let (ours, theirs) = (lone(ours, Some(&base))?, lone(theirs, Some(&base))?);
        let arguments =
            ["merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", &ours, &theirs];
        let output = self.repository.run(&arguments, b"")?;
        let status = output.status.code();
        if !matches!(status, Some(0 | 1)) {
            let what = ["merge-tree --write-tree (git 2.38 or newer is needed)"];
            return Err(self.repository.refused(&what, &output.stderr));
        }
        let mut parts =
            output.stdout.split(|b| *b == 0).map(|p| String::from_utf8_lossy(p).into_owned());
        let tree = parts.next().unwrap_or_default();
        let conflicts = parts.filter(|p| status == Some(1) && !p.is_empty()).collect();
        Ok(Merged { tree, conflicts })
    }

    /// A new commit of the user's own.
    pub(super) fn commit(
        &self,
        tree: &str,
        parent: &str,
        message: &str,
    ) -> Result<String, GitError> {
        self.name(&["commit-tree", tree, "-p", parent], message.as_bytes())
    }

    /// The commit `original` on another parent and with another tree: author, date, encoding and message
    /// stay to the byte, as far as `edit` leaves the message alone.
    pub(super) fn commit_again(
        &self,
        original: &str,
        tree: &str,
        parent: &str,
        edit: &dyn Fn(&[u8]) -> Vec<u8>,
    ) -> Result<String, GitError> {
        let raw = self.repository.bytes(&["cat-file", "commit", original], b"")?;
        let end = memchr::memmem::find(&raw, b"\n\n").unwrap_or(raw.len());
        let message = raw.get(end + 2..).unwrap_or(b"");
        let committer = self.repository.text(&["var", "GIT_COMMITTER_IDENT"])?;
        let mut new = format!("tree {tree}\nparent {parent}\n").into_bytes();
        let line = |name: &[u8]| raw[..end].split(|b| *b == b'\n').find(|l| l.starts_with(name));
        new.extend_from_slice(line(b"author ").unwrap_or(b"author nobody <> 0 +0000"));
        new.extend_from_slice(format!("\ncommitter {committer}\n").as_bytes());
        if let Some(encoding) = line(b"encoding ") {
            new.extend_from_slice(encoding);
            new.push(b'\n');
        }
        new.push(b'\n');
        new.extend_from_slice(&edit(message));
        self.name(&["hash-object", "-t", "commit", "-w", "--stdin"], &new)
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

    /// How the commits of one range became those of the other, as `git range-diff` says it.
    pub(super) fn range_diff(&self, old: &str, new: &str) -> Result<String, GitError> {
        self.repository.text(&["range-diff", "--no-color", old, new])
    }

    /// Writes what `tip` has and `onto` has not into another repository, as loose objects. Nothing there
    /// refers to them yet.
    pub(super) fn give(&self, user: &Repository, tip: &str, onto: &str) -> Result<(), GitError> {
        let revisions = format!("{tip}\n^{onto}\n");
        let arguments = ["pack-objects", "--revs", "--stdout", "--quiet"];
        let pack = self.repository.bytes(&arguments, revisions.as_bytes())?;
        user.bytes(&["unpack-objects", "-q"], &pack).map(drop)
    }

    fn name(&self, arguments: &[&str], input: &[u8]) -> Result<String, GitError> {
        let out = self.repository.bytes(arguments, input)?;
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    }
}
