//! The series that takes patches with certain labels back, the newest first.
//!
//! Decides nothing but order: each revert is merged in a scratch repository that borrows the objects of
//! the user's, and leaves as a patch. Main function: [`series`].

use thiserror::Error;

use super::git::{GitError, Repository};
use super::scratch::Scratch;
use super::status::patches;

/// Why there is no series.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RevertError {
    /// git could not do it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// No patch has such a label.
    #[error("no patch of {stack} is labelled {labels}")]
    Nothing {
        /// The range.
        stack: String,
        /// The labels.
        labels: String,
    },
    /// A later patch changes the same lines.
    #[error("{commit} (\"{subject}\") cannot be reverted: what follows it conflicts in {files}")]
    Conflict {
        /// The commit.
        commit: String,
        /// Its subject.
        subject: String,
        /// The files.
        files: String,
    },
}

/// Patches in the form of `git format-patch`, to be applied on the tip of `stack` with `git am`.
pub fn series(
    repository: &Repository,
    stack: &str,
    labels: &[String],
) -> Result<Vec<u8>, RevertError> {
    let mut chosen = patches(repository, stack, labels)?;
    let tip = chosen.last().map(|p| p.commit.id.clone());
    chosen.retain(|p| p.commit.parents == 1 && labels.iter().any(|l| p.message.is(l)));
    let (Some(tip), false) = (tip, chosen.is_empty()) else {
        return Err(RevertError::Nothing { stack: stack.to_owned(), labels: labels.join(", ") });
    };
    let scratch = Scratch::new(repository)?;
    let mut now = tip.clone();
    for patch in chosen.iter().rev() {
        let id = &patch.commit.id;
        let merged = scratch.merge(id, &now, &format!("{id}^"))?;
        if !merged.conflicts.is_empty() {
            return Err(RevertError::Conflict {
                commit: id[..12].to_owned(),
                subject: patch.commit.subject().to_owned(),
                files: merged.conflicts.join(", "),
            });
        }
        let subject = patch.commit.subject();
        let message = format!("Revert \"{subject}\"\n\nThis reverts commit {id}.\n");
        now = scratch.commit(&merged.tree, &now, &message)?;
    }
    Ok(scratch.patches(&tip, &now)?)
}
