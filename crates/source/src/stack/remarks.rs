//! What is to be known of a patch beside whether the target has it: labels that lie, repairs and
//! prerequisites that are missing.
//!
//! Decides from the commits that messages name, as far as they are in the repository: of others nothing is
//! claimed. Main type: [`Upstream`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use kolumbo_case::stack::{Held, Remark, RemarkKind, StackRow, Versus};

use super::git::{GitError, Repository};
use super::index::Entry;
use super::message::{Message, same_commit};
use super::scratch::Scratch;
use super::series::Misfit;
use super::status::{Patch, Target, short};

/// Labels that promise an upstream commit.
const FROM_UPSTREAM: [&str; 3] = ["UPSTREAM", "BACKPORT", "FROMGIT"];
/// Lines of a diff that are kept for a comparison.
const LINES: usize = 2000;
/// Hunks of a commit whose history is looked at.
const HUNKS: usize = 50;
/// Prerequisites that are named of one patch.
const NAMED: usize = 5;

/// Adds a remark.
fn remark(row: &mut StackRow, kind: RemarkKind, text: String) {
    row.remarks.push(Remark { kind, text });
}

/// Labels that are not what the named commits say.
pub(super) fn labels(
    repository: &Repository,
    patch: &Patch,
    patch_id: Option<&String>,
    row: &mut StackRow,
) -> Result<(), GitError> {
    let message = &patch.message;
    let promised = FROM_UPSTREAM.iter().find(|label| message.is(label));
    if let Some(label) = promised
        && message.names.is_empty()
    {
        let text = format!("{label} without naming the commit it comes from");
        remark(row, RemarkKind::NamesNothing, text);
    }
    for name in &message.names {
        let Ok(named) = repository.resolve(name) else {
            let text =
                format!("{} is not in this repository: its diff was not compared", short(name));
            remark(row, RemarkKind::NotInRepository, text);
            continue;
        };
        let same = repository.patch_ids(std::slice::from_ref(&named))?.get(&named) == patch_id;
        if message.is("UPSTREAM") && !message.is("BACKPORT") && !same {
            let text = format!("UPSTREAM, but the diff is not that of {}: BACKPORT", short(name));
            remark(row, RemarkKind::ShouldBeBackport, text);
        } else if message.is("BACKPORT") && same {
            let text = format!("BACKPORT, but the diff is that of {}: UPSTREAM", short(name));
            remark(row, RemarkKind::ShouldBeUpstream, text);
        }
    }
    Ok(())
}

/// What became of a patch that was read from a file.
pub(super) fn misfit(misfit: &Misfit, row: &mut StackRow) {
    if !misfit.applies {
        let place = |(file, line): &(String, u32)| match line {
            0 => file.clone(),
            line => format!("{file}:{line}"),
        };
        let places: Vec<String> = misfit.places.iter().take(NAMED).map(place).collect();
        let places = if places.is_empty() { misfit.said.clone() } else { places.join(", ") };
        let text = format!("does not apply to what stands before it: {places}");
        remark(row, RemarkKind::DoesNotApply, text);
    }
    if misfit.fuzzy {
        let text = "applies only with less context than it has: refresh it".to_owned();
        remark(row, RemarkKind::Fuzzy, text);
    }
    if misfit.headless {
        let text = "says neither author nor subject".to_owned();
        remark(row, RemarkKind::NoHead, text);
    }
}

/// Two commits as a person compares them.
pub(super) fn versus(
    repository: &Repository,
    ours: &str,
    theirs: &str,
) -> Result<Versus, GitError> {
    let (ours, more) = repository.diff(ours)?.shortened(LINES);
    let (theirs, even_more) = repository.diff(theirs)?.shortened(LINES);
    let left_out = u32::try_from(more + even_more).unwrap_or(u32::MAX);
    Ok(Versus { ours, theirs, left_out })
}

/// Upstream's history, beside a stack and its target.
pub(super) struct Upstream<'u> {
    pub(super) repository: &'u Repository,
    /// Sees stack, target and upstream.
    pub(super) scratch: &'u Scratch,
    /// What upstream has behind the stack's base.
    pub(super) history: &'u [Entry],
    pub(super) upstream: &'u str,
    pub(super) meeting: &'u str,
    pub(super) onto: &'u str,
    pub(super) target: &'u Target<'u>,
}

impl Upstream<'_> {
    /// Remarks of all rows.
    pub(super) fn look(
        &self,
        rows: &mut [StackRow],
        messages: &[&Message],
    ) -> Result<(), GitError> {
        let stack = InStack::new(rows);
        let mut repairs: HashMap<&str, Vec<(&str, &Entry)>> = HashMap::new();
        for entry in self.history {
            for fixed in &entry.fixes {
                repairs.entry(&fixed[..7]).or_default().push((fixed, entry));
            }
        }
        for (row, message) in rows.iter_mut().zip(messages) {
            self.missing_repairs(row, &stack, &repairs);
            self.repairs_of_nothing(row, message, &stack)?;
            if matches!(row.held, Held::Absent | Held::SameSubject | Held::Reverted) {
                self.prerequisites(row, &stack)?;
            }
        }
        Ok(())
    }

    /// Upstream commits that repair this one and are neither in stack nor target.
    fn missing_repairs(
        &self,
        row: &mut StackRow,
        stack: &InStack,
        repairs: &HashMap<&str, Vec<(&str, &Entry)>>,
    ) {
        for name in row.names.clone() {
            for (fixed, entry) in repairs.get(&name[..7]).into_iter().flatten() {
                if same_commit(fixed, &name)
                    && !self.target.has(&entry.id, &entry.subject, &entry.author)
                    && !stack.has(&entry.id, &entry.subject)
                {
                    let text = format!(
                        "lacks {} (\"{}\"), which repairs it",
                        short(&entry.id),
                        entry.subject
                    );
                    remark(row, RemarkKind::MissingFix, text);
                }
            }
        }
    }

    /// A repair of what is not there is perhaps not needed, or comes without what it stands on.
    fn repairs_of_nothing(
        &self,
        row: &mut StackRow,
        message: &Message,
        stack: &InStack,
    ) -> Result<(), GitError> {
        for name in &message.fixes {
            // Of a commit that is not in the repository, nobody knows whether the target has it.
            let Ok(id) = self.repository.resolve(name) else { continue };
            if self.repository.is_ancestor(&id, self.onto) {
                continue;
            }
            let mut absent = None;
            self.repository.each(std::slice::from_ref(&id), &mut |commit| {
                let subject = Message::parse(&commit.message, &[]).subject;
                if !self.target.has(&id, &subject, &commit.author) && !stack.has(&id, &subject) {
                    absent = Some(subject);
                }
            })?;
            if let Some(subject) = absent {
                let text = format!(
                    "repairs {} (\"{subject}\"), which neither stack nor target has",
                    short(&id)
                );
                remark(row, RemarkKind::RepairsAbsent, text);
            }
        }
        Ok(())
    }

    /// Where the named upstream commit does not come onto the target by itself: the upstream commits that
    /// the lines around its changes come from, as far as neither stack nor target has them. Biased
    /// to silence: what it calls elsewhere is not looked for.
    fn prerequisites(&self, row: &mut StackRow, stack: &InStack) -> Result<(), GitError> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for name in row.names.clone() {
            let Ok(id) = self.repository.resolve(&name) else { continue };
            let parent = format!("{id}^1");
            if self.repository.resolve(&parent).is_err()
                || !self.repository.is_ancestor(&id, self.upstream)
            {
                continue;
            }
            let merged = self.scratch.merge(&parent, self.onto, &id)?;
            for file in &merged.conflicts {
                let hunks = self.repository.diff_of(&id, file)?.hunks(HUNKS);
                for origin in self.repository.origins(&parent, self.meeting, file, &hunks) {
                    let there = self.repository.is_ancestor(&origin.id, self.onto)
                        || self.target.has(&origin.id, &origin.subject, &origin.author)
                        || stack.has(&origin.id, &origin.subject);
                    if !there {
                        found.insert(origin.id, origin.subject);
                    }
                }
            }
        }
        for (id, subject) in found.iter().take(NAMED) {
            let text = format!(
                "stands on {} (\"{subject}\"), which neither stack nor target has",
                short(id)
            );
            remark(row, RemarkKind::Prerequisite, text);
        }
        if found.len() > NAMED {
            let text = format!("stands on {} more such commits", found.len() - NAMED);
            remark(row, RemarkKind::Prerequisite, text);
        }
        Ok(())
    }
}

/// What the stack has.
struct InStack {
    names: BTreeSet<String>,
    subjects: HashSet<String>,
}

impl InStack {
    fn new(rows: &[StackRow]) -> InStack {
        let names = rows.iter().flat_map(|r| r.names.iter().chain([&r.commit])).cloned().collect();
        InStack { names, subjects: rows.iter().map(|r| r.subject.clone()).collect() }
    }

    fn has(&self, id: &str, subject: &str) -> bool {
        // Names may be abbreviated: whatever begins alike stands side by side.
        let near = self.names.range(id[..7].to_owned()..).take_while(|n| n.starts_with(&id[..7]));
        near.into_iter().any(|name| same_commit(name, id)) || self.subjects.contains(subject)
    }
}
