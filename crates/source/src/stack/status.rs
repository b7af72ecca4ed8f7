//! Which patches of a stack a target already holds, and where labels lie.
//!
//! Decides by patch-id first, then by the upstream commit that both name, then by subject and author.
//! What was reverted and not applied again counts as taken back. Main function: [`status`].

use std::collections::{HashMap, HashSet};
use std::path::Path;

use kolumbo_case::STACK_FORMAT_VERSION;
use kolumbo_case::stack::{Held, StackRow, StackStatus};

use super::git::{Commit, GitError, Repository};
use super::index::{Entry, Index};
use super::message::{Message, same_commit};
use super::remarks::{self, Upstream};
use super::scratch::Scratch;
use super::series::Stack;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'q> {
    /// The patches.
    pub stack: &'q Stack,
    /// The branch, tag or commit that the stack shall stand on.
    pub onto: &'q str,
    /// Where upstream's history is, to look for repairs; none to not look.
    pub upstream: Option<&'q str>,
    /// Labels beside the known ones.
    pub labels: &'q [String],
    /// Where the index is kept.
    pub cache: &'q Path,
}

/// A patch of the stack with its message understood.
#[derive(Debug, Clone)]
pub struct Patch {
    /// The commit.
    pub commit: Commit,
    /// Its message.
    pub message: Message,
}

/// The patches of a stack, the oldest first.
pub fn patches(
    repository: &Repository,
    stack: &Stack,
    labels: &[String],
) -> Result<Vec<Patch>, GitError> {
    let reader = stack.reader(repository);
    let ids = reader.line(&stack.base, &stack.tip)?;
    let mut patches = Vec::new();
    reader.each(&ids, &mut |mut commit| {
        let message = Message::parse(&commit.message, labels);
        if let Some(misfit) = stack.misfit(&commit.id).filter(|m| !m.applies) {
            commit.files.clone_from(&misfit.digest);
        }
        patches.push(Patch { commit, message });
    })?;
    Ok(patches)
}

/// Compares a stack with a target.
pub fn status(repository: &Repository, question: &Question<'_>) -> Result<StackStatus, GitError> {
    let stack = question.stack;
    let reader = stack.reader(repository);
    let patches = patches(repository, stack, question.labels)?;
    let onto = repository.resolve(question.onto)?;
    let meeting = repository.merge_base(&stack.base, &onto)?;
    let index = Index::new(question.cache, repository)?;
    let entries = index.entries(repository, question.onto, &onto, &meeting)?;
    let mut gaps = Vec::new();
    if repository.is_shallow() {
        gaps.push(
            "this clone is shallow: what lies before its first commits was not looked at".into(),
        );
    }
    if patches.is_empty() {
        gaps.push(format!("{} holds no commit; write it as BASE..BRANCH", stack.name));
    }
    let near = near(repository, &index, &patches, &entries)?;
    let ours: Vec<String> = patches.iter().map(|p| p.commit.id.clone()).collect();
    let mut our_ids = reader.patch_ids(&ours)?;
    for id in &ours {
        if let Some(text_id) = stack.misfit(id).and_then(|m| m.patch_id.clone()) {
            our_ids.insert(id.clone(), text_id);
        }
    }
    let target = Target::new(&entries, &near);
    let mut rows = Vec::new();
    for patch in &patches {
        let mut row = row(reader, patch, our_ids.get(&patch.commit.id), &target)?;
        row.file = stack.file(&row.commit).map(str::to_owned);
        if let Some(misfit) = stack.misfit(&row.commit) {
            remarks::misfit(misfit, &mut row);
        }
        rows.push(row);
    }
    if let Some(name) = question.upstream {
        let upstream = repository.resolve(name)?;
        let meeting = repository.merge_base(&stack.base, &upstream)?;
        let history = index.entries(repository, name, &upstream, &meeting)?;
        let scratch = Scratch::new(reader)?;
        let upstream = Upstream {
            repository,
            scratch: &scratch,
            history: &history,
            upstream: &upstream,
            meeting: &meeting,
            onto: &onto,
            target: &target,
        };
        let messages: Vec<&Message> = patches.iter().map(|p| &p.message).collect();
        upstream.look(&mut rows, &messages)?;
    }
    Ok(StackStatus {
        stack_version: STACK_FORMAT_VERSION,
        stack: stack.name.clone(),
        onto: question.onto.to_owned(),
        base_commit: stack.base.clone(),
        tip_commit: stack.tip.clone(),
        onto_commit: onto,
        target_commits: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        rows,
        gaps,
    })
}

/// Patch-ids of those commits of the target that change the same files as a patch of the stack does: no
/// other can be the same patch.
fn near(
    repository: &Repository,
    index: &Index,
    patches: &[Patch],
    target: &[Entry],
) -> Result<HashMap<String, String>, GitError> {
    let ours: HashSet<&str> =
        patches.iter().map(|p| p.commit.files.as_str()).filter(|f| !f.is_empty()).collect();
    let same = target.iter().filter(|entry| ours.contains(entry.files.as_str()));
    let same: Vec<String> = same.map(|entry| entry.id.clone()).collect();
    index.patch_ids(repository, &same)
}

/// What the target holds, by all that a patch can be found by.
pub(super) struct Target<'t> {
    /// The newest first; the tables below hold places in it.
    entries: &'t [Entry],
    by_patch: HashMap<&'t str, Vec<usize>>,
    by_subject: HashMap<(&'t str, &'t str), Vec<usize>>,
    /// By the first seven digits of the commit that is named.
    by_name: HashMap<&'t str, Vec<(&'t str, usize)>>,
    reverts: HashMap<&'t str, Vec<(&'t str, usize)>>,
}

impl<'t> Target<'t> {
    fn new(entries: &'t [Entry], patch_ids: &'t HashMap<String, String>) -> Target<'t> {
        let mut target = Target {
            entries,
            by_patch: HashMap::new(),
            by_subject: HashMap::new(),
            by_name: HashMap::new(),
            reverts: HashMap::new(),
        };
        for (at, entry) in entries.iter().enumerate() {
            if let Some(id) = patch_ids.get(&entry.id) {
                target.by_patch.entry(id).or_default().push(at);
            }
            target.by_subject.entry((&entry.subject, &entry.author)).or_default().push(at);
            for name in entry.names.iter().chain([&entry.id]) {
                target.by_name.entry(&name[..7]).or_default().push((name, at));
            }
            for name in &entry.reverts {
                target.reverts.entry(&name[..7]).or_default().push((name, at));
            }
        }
        target
    }

    /// Whether the target has an upstream commit in any form, a backport with another diff included.
    pub(super) fn has(&self, id: &str, subject: &str, author: &str) -> bool {
        self.named(id).next().is_some() || self.by_subject.contains_key(&(subject, author))
    }

    fn named(&self, name: &str) -> impl Iterator<Item = usize> {
        let found = self.by_name.get(&name[..7]).into_iter().flatten();
        let name = name.to_owned();
        found.filter(move |(other, _)| same_commit(other, &name)).map(|(_, at)| *at)
    }

    /// The commit that takes `at` back and is not taken back itself. Chains of reverts are short;
    /// a forged circle ends.
    fn reverted_by(&self, at: usize) -> Option<usize> {
        let mut seen = HashSet::from([at]);
        let mut chain = Vec::new();
        let mut now = at;
        while let Some(next) = self.reverter(now).filter(|next| seen.insert(*next)) {
            chain.push(next);
            now = next;
        }
        (chain.len() % 2 == 1).then(|| chain[0])
    }

    fn reverter(&self, at: usize) -> Option<usize> {
        let id = self.entries[at].id.as_str();
        let found = self.reverts.get(&id[..7])?;
        found.iter().find(|(name, _)| same_commit(name, id)).map(|(_, by)| *by)
    }
}

fn row(
    repository: &Repository,
    patch: &Patch,
    patch_id: Option<&String>,
    target: &Target<'_>,
) -> Result<StackRow, GitError> {
    let message = &patch.message;
    let mut row = StackRow {
        commit: patch.commit.id.clone(),
        subject: message.subject.clone(),
        author: patch.commit.author.clone(),
        labels: message.labels.clone(),
        names: message.names.clone(),
        ..StackRow::default()
    };
    if patch.commit.parents > 1 {
        row.held = Held::Merge;
        return Ok(row);
    }
    let mut candidates: Vec<(Held, usize)> = Vec::new();
    let same = patch_id.and_then(|id| target.by_patch.get(id.as_str())).into_iter().flatten();
    candidates.extend(same.map(|at| (Held::SamePatch, *at)));
    for name in &message.names {
        candidates.extend(target.named(name).map(|at| (Held::Named, at)));
    }
    let author = patch.commit.author.as_str();
    if !message.subject.is_empty() {
        let subject = target.by_subject.get(&(message.subject.as_str(), author));
        candidates.extend(subject.into_iter().flatten().map(|at| (Held::SameSubject, *at)));
    }
    // One that still stands says more than one that was taken back.
    let standing = candidates.iter().find(|(_, at)| target.reverted_by(*at).is_none());
    if let Some((held, at)) = standing.or(candidates.first()) {
        row.by = Some(target.entries[*at].id.clone());
        row.held = *held;
        if let Some(by) = target.reverted_by(*at) {
            row.held = Held::Reverted;
            row.reverted_by = Some(target.entries[by].id.clone());
        } else if *held != Held::SamePatch
            && is_part(repository, &target.entries[*at].id, &patch.commit.id)?
        {
            row.held = Held::Partly;
        }
        if matches!(row.held, Held::SameSubject | Held::Partly) && !patch.commit.files.is_empty() {
            let theirs = &target.entries[*at].id;
            row.versus = Some(remarks::versus(repository, &patch.commit.id, theirs)?);
        }
    }
    remarks::labels(repository, patch, patch_id, &mut row)?;
    Ok(row)
}

/// Whether `one` changes some of the lines that `whole` changes, and no others.
fn is_part(reader: &Repository, one: &str, whole: &str) -> Result<bool, GitError> {
    let (one, whole) = (reader.diff(one)?.changed_lines(), reader.diff(whole)?.changed_lines());
    let mut rest = whole.iter();
    let inside = one.iter().all(|line| rest.any(|other| other == line));
    Ok(inside && !one.is_empty() && one.len() < whole.len())
}

/// A commit as people write it.
pub(super) fn short(id: &str) -> &str {
    &id[..id.len().min(12)]
}
