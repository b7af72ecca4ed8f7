//! The series that takes patches with certain labels back, the newest first.
//!
//! Decides nothing but order: each revert is merged in a scratch repository that borrows the objects of
//! the user's, and leaves as a patch. Main function: [`series`].

use thiserror::Error;

use super::git::{GitError, Repository};
use super::scratch::Scratch;
use super::series::Stack;
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
    /// It is not in the tree that the series would be applied to.
    #[error("{file} does not apply to its base, so there is nothing to revert")]
    NotApplied {
        /// The patch.
        file: String,
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
    stack: &Stack,
    labels: &[String],
) -> Result<Vec<u8>, RevertError> {
    let mut chosen = patches(repository, stack, labels)?;
    let tip = chosen.last().map(|p| p.commit.id.clone());
    chosen.retain(|p| p.commit.parents == 1 && labels.iter().any(|l| p.message.is(l)));
    let (Some(tip), false) = (tip, chosen.is_empty()) else {
        return Err(RevertError::Nothing { stack: stack.name.clone(), labels: labels.join(", ") });
    };
    let lost = chosen.iter().find(|p| stack.misfit(&p.commit.id).is_some_and(|m| !m.applies));
    if let Some(patch) = lost {
        let file = stack.file(&patch.commit.id).unwrap_or_default().to_owned();
        return Err(RevertError::NotApplied { file });
    }
    let scratch = Scratch::new(stack.reader(repository))?;
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
        // Nobody has the commit of a patch that came from a file.
        let what = match stack.file(id) {
            Some(file) => format!("the patch {file}"),
            None => format!("commit {id}"),
        };
        let message = format!("Revert \"{subject}\"\n\nThis reverts {what}.\n");
        now = scratch.commit(&merged.tree, &now, &message)?;
    }
    Ok(scratch.patches(&tip, &now)?)
}
