//! Why a question to a repository has no answer, whoever was asked: gix or the git program.

use std::path::PathBuf;

use thiserror::Error;

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
    /// There is none.
    #[error("{path} is in no git repository that can be read: {said}")]
    NoRepository {
        /// Where one was looked for.
        path: PathBuf,
        /// What is wrong there.
        said: String,
    },
    /// History has a gap.
    #[error("the {kind} {id} is missing in {repository}; {advice}")]
    Missing {
        /// What it is.
        kind: &'static str,
        /// Its name.
        id: String,
        /// Where.
        repository: PathBuf,
        /// What the user can do.
        advice: &'static str,
    },
    /// An object makes no sense.
    #[error("cannot read the {kind} {id} in {repository}: {said}; 'git fsck' tells more")]
    Damaged {
        /// What it should be.
        kind: &'static str,
        /// Its name.
        id: String,
        /// Where.
        repository: PathBuf,
        /// What is wrong with it.
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
