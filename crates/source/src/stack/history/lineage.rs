//! Who descends from whom.
//!
//! Decides by the dates of commits and, where git wrote a commit-graph, by generations, as git does: the same
//! ranges, in the same order where history is a line. Nothing is kept but names and marks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use gix::ObjectId;
use gix::hashtable::{HashMap, HashSet};

use super::super::error::GitError;
use super::objects::{Objects, Place};

/// revision.c, SLOP: commits that are looked at after all seems said, since clocks differ.
const SLOP: u32 = 5;

/// Marks of a walk over a range.
const SEEN: u8 = 1;
const QUEUED: u8 = 2;
const HIDDEN: u8 = 4;

/// Commits that wait, the newest first; of the same date, the one that came first.
struct Waiting {
    key: (u64, Reverse<u64>),
    id: ObjectId,
    parents: Vec<ObjectId>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.key == other.key
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// A walk over what some commits have and others have not.
struct Walk<'o> {
    objects: &'o Objects,
    bytes: Vec<u8>,
    marks: HashMap<ObjectId, u8>,
    queue: BinaryHeap<Waiting>,
    turn: u64,
    /// Commits in the queue that are not hidden.
    shown: usize,
}

impl Walk<'_> {
    fn add(&mut self, id: ObjectId) -> Result<(), GitError> {
        let mark = self.marks.entry(id).or_default();
        if *mark & SEEN != 0 {
            return Ok(());
        }
        let hidden = *mark & HIDDEN != 0;
        *mark |= SEEN;
        let place = match self.objects.place(&id, &mut self.bytes) {
            // What is not to be shown need not be there.
            Err(GitError::Missing { .. }) if hidden => return Ok(()),
            place => place?,
        };
        *self.marks.entry(id).or_default() |= QUEUED;
        self.shown += usize::from(!hidden);
        self.turn += 1;
        let key = (place.date, Reverse(self.turn));
        self.queue.push(Waiting { key, id, parents: place.parents });
        Ok(())
    }

    /// Marks a commit as one that is not to be shown. What came out of the queue as one of the range, for its
    /// clock was ahead, takes its ancestors with it.
    fn hide(&mut self, id: ObjectId) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let mark = self.marks.entry(id).or_default();
            if *mark & HIDDEN != 0 {
                continue;
            }
            *mark |= HIDDEN;
            if *mark & QUEUED != 0 {
                self.shown -= 1;
            } else if *mark & SEEN != 0
                && let Ok(place) = self.objects.place(&id, &mut self.bytes)
            {
                todo.extend(place.parents);
            }
        }
    }

    fn is_hidden(&self, id: &ObjectId) -> bool {
        self.marks.get(id).is_some_and(|mark| mark & HIDDEN != 0)
    }
}

/// What `tip` has and none of `without` has, the newest first.
pub(super) fn range(
    objects: &Objects,
    tip: ObjectId,
    without: &[ObjectId],
) -> Result<Vec<ObjectId>, GitError> {
    let mut walk = Walk {
        objects,
        bytes: Vec::new(),
        marks: HashMap::default(),
        queue: BinaryHeap::new(),
        turn: 0,
        shown: 0,
    };
    for id in without {
        walk.hide(*id);
    }
    walk.add(tip)?;
    for id in without {
        walk.add(*id)?;
    }
    let mut found = Vec::new();
    let mut last = u64::MAX;
    let mut slop = SLOP;
    while let Some(Waiting { id, parents, key: (date, _) }) = walk.queue.pop() {
        let mark = walk.marks.entry(id).or_default();
        *mark &= !QUEUED;
        let hidden = *mark & HIDDEN != 0;
        walk.shown -= usize::from(!hidden);
        for parent in parents {
            if hidden {
                walk.hide(parent);
            }
            walk.add(parent)?;
        }
        if !hidden {
            found.push(id);
            last = date;
            continue;
        }
        slop = match walk.queue.peek() {
            None => 0,
            Some(next) if last <= next.key.0 || walk.shown > 0 => SLOP,
            Some(_) => slop - 1,
        };
        if slop == 0 {
            break;
        }
    }
    found.retain(|id| !walk.is_hidden(id));
    Ok(found)
}

/// The same commits in an order in which each comes before its parents, and lines of history are not mixed.
pub(super) fn topological(
    objects: &Objects,
    commits: &[ObjectId],
) -> Result<Vec<ObjectId>, GitError> {
    let mut bytes = Vec::new();
    let mut children: HashMap<ObjectId, usize> = commits.iter().map(|id| (*id, 0)).collect();
    for id in commits {
        for parent in objects.place(id, &mut bytes)?.parents {
            if let Some(count) = children.get_mut(&parent) {
                *count += 1;
            }
        }
    }
    let mut ready: Vec<ObjectId> = commits.iter().rev().copied().collect();
    ready.retain(|id| children.get(id) == Some(&0));
    let mut sorted = Vec::with_capacity(commits.len());
    while let Some(id) = ready.pop() {
        sorted.push(id);
        for parent in objects.place(&id, &mut bytes)?.parents {
            if let Some(count) = children.get_mut(&parent) {
                *count -= 1;
                if *count == 0 {
                    ready.push(parent);
                }
            }
        }
    }
    Ok(sorted)
}

/// Marks of ancestors of two commits.
const ONE: u8 = 1;
const OTHER: u8 = 2;
const BOTH: u8 = ONE | OTHER;
/// An ancestor of one that both have.
const STALE: u8 = 4;

#[derive(Default)]
struct Painted {
    marks: u8,
    /// How often it is in the queue.
    queued: usize,
}

/// Commits that both have, the newest first; ancestors of others of them only where clocks differ. What is
/// below `floor` is not looked at.
fn common(
    objects: &Objects,
    one: ObjectId,
    other: ObjectId,
    floor: u32,
) -> Result<Vec<ObjectId>, GitError> {
    let mut bytes = Vec::new();
    let mut painted: HashMap<ObjectId, Painted> = HashMap::default();
    let mut queue = BinaryHeap::new();
    let mut found = Vec::new();
    let mut turn = 0;
    // Places in the queue of commits that are not stale.
    let mut open = 0;
    let mut todo = vec![(one, ONE), (other, OTHER)];
    loop {
        for (id, marks) in todo.drain(..) {
            let there = painted.entry(id).or_default();
            if there.marks & marks == marks {
                continue;
            }
            let Place { parents, date, generation } = objects.place(&id, &mut bytes)?;
            if generation.is_some_and(|generation| generation < floor) {
                continue;
            }
            let was_open = there.marks & STALE == 0;
            there.marks |= marks;
            there.queued += 1;
            match there.marks & STALE == 0 {
                true => open += 1,
                false if was_open => open -= there.queued - 1,
                false => {}
            }
            turn += 1;
            queue.push(Waiting { key: (date, Reverse(turn)), id, parents });
        }
        if open == 0 {
            break;
        }
        let Some(Waiting { id, parents, key }) = queue.pop() else { break };
        let there = painted.entry(id).or_default();
        there.queued -= 1;
        open -= usize::from(there.marks & STALE == 0);
        let mut marks = there.marks & (BOTH | STALE);
        if marks == BOTH {
            found.push((key, id));
            marks |= STALE;
        }
        todo.extend(parents.into_iter().map(|parent| (parent, marks)));
    }
    let mut seen = HashSet::default();
    found.retain(|(_, id)| {
        painted.get(id).is_some_and(|there| there.marks & STALE == 0) && seen.insert(*id)
    });
    found.sort_by_key(|(key, _)| Reverse(*key));
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// A commit that both have, of which no other such commit descends.
pub(super) fn merge_base(
    objects: &Objects,
    one: ObjectId,
    other: ObjectId,
) -> Result<Option<ObjectId>, GitError> {
    let found = common(objects, one, other, 0)?;
    let mut best = None;
    for candidate in &found {
        let mut is_best = true;
        for other in found.iter().filter(|other| *other != candidate) {
            is_best &= !is_ancestor(objects, *candidate, *other)?;
        }
        if is_best {
            best = Some(*candidate);
            break;
        }
    }
    Ok(best)
}

/// Whether `one` is `other` or one of its ancestors.
pub(super) fn is_ancestor(
    objects: &Objects,
    one: ObjectId,
    other: ObjectId,
) -> Result<bool, GitError> {
    let floor = objects.place(&one, &mut Vec::new())?.generation.unwrap_or(0);
    Ok(common(objects, one, other, floor)?.contains(&one))
}
