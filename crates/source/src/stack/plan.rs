//! How a stack comes onto a target: what to drop, what to keep, where it will conflict.
//!
//! Decides from the status, and tries the rest in a scratch repository, patch by patch. A patch that
//! conflicts is left out of what later ones are tried on. What was tried can become a new branch; nothing
//! else is ever written. Main function: [`plan`].

use kolumbo_case::stack::{
    AppliedPlan, Held, PlanAction, PlanStep, RemarkKind, StackPlan, StackStatus,
};
use thiserror::Error;

use super::git::{GitError, Repository};
use super::scratch::Scratch;
use super::series::Stack;

/// Why a plan did not become a branch.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// git could not do it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The name cannot be a branch.
    #[error("'{branch}' is no name for a branch")]
    BadName {
        /// The name.
        branch: String,
    },
    /// There is such a branch.
    #[error(
        "the branch {branch} is there already, and no branch is ever overwritten; choose another name"
    )]
    Exists {
        /// Its name.
        branch: String,
    },
    /// Some patches cannot be applied.
    #[error(
        "{count} patches conflict ({first} first), and no branch was made; --leave-out-conflicts makes one without them"
    )]
    Conflicts {
        /// How many.
        count: usize,
        /// The first one.
        first: String,
    },
}

/// A plan with what was tried for it.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub plan: StackPlan,
    scratch: Scratch,
    tip: String,
}

/// Plans the rebase of a stack whose status is known.
pub fn plan(
    repository: &Repository,
    stack: &Stack,
    status: StackStatus,
) -> Result<Planned, GitError> {
    let scratch = Scratch::new(stack.reader(repository))?;
    let mut now = status.onto_commit.clone();
    let mut steps = Vec::new();
    for row in &status.rows {
        let mut step = PlanStep { commit: row.commit.clone(), ..PlanStep::default() };
        // Only what is surely there is dropped; the target's own form of a commit is as good.
        if matches!(row.held, Held::SamePatch | Held::Named) {
            step.action = PlanAction::Drop;
            steps.push(step);
            continue;
        }
        if let Some(misfit) = stack.misfit(&row.commit).filter(|m| !m.applies) {
            step.action = PlanAction::Conflict;
            step.conflicts.clone_from(&misfit.places);
            steps.push(step);
            continue;
        }
        let old_label = row.remarks.iter().find_map(|r| match r.kind {
            RemarkKind::ShouldBeBackport => Some(("UPSTREAM", "BACKPORT")),
            RemarkKind::ShouldBeUpstream => Some(("BACKPORT", "UPSTREAM")),
            _ => None,
        });
        step.relabel = old_label.map(|(_, new)| new.to_owned());
        // A merge brings what its side has, a patch what it changes: both are its first parent's
        // difference.
        let merged = scratch.merge(&format!("{}^1", row.commit), &now, &row.commit)?;
        if merged.conflicts.is_empty() {
            if merged.tree == scratch.tree(&now)? {
                step.action = PlanAction::Empty;
            } else {
                now = scratch.commit_again(&row.commit, &merged.tree, &now, &|message| {
                    match old_label {
                        Some((old, new)) => relabelled(message, old, new),
                        None => message.to_vec(),
                    }
                })?;
            }
        } else {
            step.action = PlanAction::Conflict;
            for file in merged.conflicts {
                let line = scratch.first_mark(&merged.tree, &file);
                step.conflicts.push((file, line));
            }
        }
        steps.push(step);
    }
    Ok(Planned { plan: StackPlan { status, steps, applied: None }, scratch, tip: now })
}

impl Planned {
    /// Makes the plan a new branch of the user's repository, which gets the objects and this one name; the
    /// plan then holds the proof.
    pub fn apply(
        &mut self,
        repository: &Repository,
        branch: &str,
        leave_out_conflicts: bool,
    ) -> Result<(), ApplyError> {
        let bad_name = || ApplyError::BadName { branch: branch.to_owned() };
        let checked = repository.text(&["check-ref-format", "--branch", branch]);
        // The command also knows abbreviations such as @{-1}, which name branches that are there.
        if checked.map_err(|_| bad_name())? != branch {
            return Err(bad_name());
        }
        let name = format!("refs/heads/{branch}");
        if repository.text(&["rev-parse", "--verify", "--quiet", &name]).is_ok() {
            return Err(ApplyError::Exists { branch: branch.to_owned() });
        }
        let conflicts = self.plan.steps.iter().zip(&self.plan.status.rows);
        let mut conflicts = conflicts.filter(|(step, _)| step.action == PlanAction::Conflict);
        if !leave_out_conflicts && let Some((_, row)) = conflicts.next() {
            let (count, first) = (1 + conflicts.count(), row.subject.clone());
            return Err(ApplyError::Conflicts { count, first });
        }
        let status = &self.plan.status;
        let (base, old, onto) = (&status.base_commit, &status.tip_commit, &status.onto_commit);
        let proof =
            self.scratch.range_diff(&format!("{base}..{old}"), &format!("{onto}..{}", self.tip))?;
        self.scratch.give(repository, &self.tip, onto)?;
        // All zeros as the old value: the name is only ever made, also when somebody else is faster.
        let none = "0".repeat(self.tip.len());
        let made =
            repository.text(&["update-ref", "-m", "kolumbo stack plan", &name, &self.tip, &none]);
        made.map_err(|refused| {
            match repository.text(&["rev-parse", "--verify", "--quiet", &name]) {
                Ok(_) => ApplyError::Exists { branch: branch.to_owned() },
                Err(_) => ApplyError::Git(refused),
            }
        })?;
        self.plan.applied = Some(AppliedPlan {
            branch: branch.to_owned(),
            commit: self.tip.clone(),
            range_diff: proof,
        });
        Ok(())
    }
}

/// The message with one label of its subject replaced.
fn relabelled(message: &[u8], old: &str, new: &str) -> Vec<u8> {
    let end = message.iter().position(|b| *b == b'\n').unwrap_or(message.len());
    let subject = &message[..end];
    let label = memchr::memmem::find_iter(subject, old).find(|at| {
        let before = subject[..*at].iter().rev().find(|b| **b != b' ');
        let behind = subject[at + old.len()..].iter().find(|b| **b != b' ');
        matches!(before, None | Some(b':')) && matches!(behind, Some(b':' | b'('))
    });
    match label {
        Some(at) => [&message[..at], new.as_bytes(), &message[at + old.len()..]].concat(),
        None => message.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_replaced_and_words_are_not() {
        for (message, expected) in [
            ("UPSTREAM: a: b\n\nUPSTREAM: c", "BACKPORT: a: b\n\nUPSTREAM: c"),
            ("CHROMIUM: UPSTREAM: a", "CHROMIUM: BACKPORT: a"),
            ("UPSTREAM(x): a", "BACKPORT(x): a"),
            ("NOUPSTREAM: UPSTREAM : a", "NOUPSTREAM: BACKPORT : a"),
            ("a: UPSTREAM is far", "a: UPSTREAM is far"),
            ("", ""),
        ] {
            let new = relabelled(message.as_bytes(), "UPSTREAM", "BACKPORT");
            assert_eq!(String::from_utf8_lossy(&new), expected);
        }
    }
}
