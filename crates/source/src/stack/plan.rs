//! How a stack comes onto a target: what to drop, what to keep, where it will conflict.
//!
//! Decides from the status, and tries the rest in a scratch repository, patch by patch. A patch that
//! conflicts is left out of what later ones are tried on. Main function: [`plan`].

use kolumbo_case::stack::{Held, PlanAction, PlanStep, RemarkKind, StackPlan, StackStatus};

use super::git::{GitError, Repository};
use super::scratch::Scratch;

/// Plans the rebase of a stack whose status is known.
pub fn plan(repository: &Repository, status: StackStatus) -> Result<StackPlan, GitError> {
    let scratch = Scratch::new(repository)?;
    let mut now = repository.resolve(&status.onto)?;
    let mut steps = Vec::new();
    for row in &status.rows {
        let mut step = PlanStep { commit: row.commit.clone(), ..PlanStep::default() };
        // Only what is surely there is dropped; the target's own form of a commit is as good.
        if matches!(row.held, Held::SamePatch | Held::Named) {
            step.action = PlanAction::Drop;
            steps.push(step);
            continue;
        }
        step.relabel = row.remarks.iter().find_map(|r| match r.kind {
            RemarkKind::ShouldBeBackport => Some("BACKPORT".to_owned()),
            RemarkKind::ShouldBeUpstream => Some("UPSTREAM".to_owned()),
            _ => None,
        });
        // A merge brings what its side has, a patch what it changes: both are its first parent's
        // difference.
        let merged = scratch.merge(&format!("{}^1", row.commit), &now, &row.commit)?;
        if merged.conflicts.is_empty() {
            if merged.tree == scratch.tree(&now)? {
                step.action = PlanAction::Empty;
            } else {
                now = scratch.commit(&merged.tree, &now, &row.subject)?;
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
    Ok(StackPlan { status, steps })
}
