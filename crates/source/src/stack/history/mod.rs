//! Reads the history of a git repository, with gix.
//!
//! Decides what a name means, which commits a range has, and what each of them says and changes. Knows no
//! patches and no diffs. Nothing is written, fetched or started, and nothing of the environment or of the
//! user's own configuration counts. Main type: [`History`].

mod changes;
mod commit;
mod lineage;
mod objects;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use gix::ObjectId;
use gix::discover::upwards;
use gix::sec::{Trust, trust};

use self::changes::Changes;
use self::objects::{Objects, Shared};
use super::error::GitError;

pub(crate) use self::changes::Files;
pub use self::commit::Commit;

/// Largest commit or tree that is read.
const LARGEST_OBJECT: &str = "gitoxide.objects.allocLimit=256m";
/// Threads that compare trees.
const MOST_READERS: usize = 4;
/// Commits that one reader takes at a time: what is next to each other shares most of its trees.
const RUN: usize = 1024;
/// Commits of a run of which is asked how their trees are packed.
const SAMPLE: usize = 8;
/// Text that a reader gathers before it hands it on.
const BATCH: usize = 1 << 20;

/// The history of one repository.
pub(super) struct History {
    shared: Shared,
    /// Keeps what it read from one question to the next.
    objects: Mutex<Objects>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl History {
    /// The repository at `path`, or the one that it lies in.
    pub(super) fn open(path: &Path) -> Result<History, GitError> {
        let refused = |error: gix::Error| GitError::NoRepository {
            path: path.to_owned(),
            said: error.to_string(),
        };
        let options =
            || gix::open::Options::isolated().config_overrides([LARGEST_OBJECT]).with(Trust::Full);
        let search = upwards::Options {
            // Nothing that it says is ever run.
            trust: upwards::TrustPolicy::Assume(Trust::Full),
            ..upwards::Options::default()
        };
        let trust = trust::Mapping { full: options(), reduced: options() };
        let repository =
            gix::ThreadSafeRepository::discover_opts(path, search, trust).map_err(refused)?;
        let local = repository.to_thread_local();
        let exceptions = objects::exceptions(&local);
        // A commit-graph holds the parents that commits name.
        let graph = match exceptions.is_empty() {
            true => local.commit_graph_if_enabled().ok().flatten(),
            false => None,
        };
        let shared = Shared {
            repository,
            exceptions: Arc::new(exceptions),
            graph: graph.map(Arc::new),
            path: path.to_owned(),
        };
        let objects = Mutex::new(Objects::new(&shared));
        Ok(History { shared, objects })
    }

    /// The folder of the objects.
    pub(super) fn folder_of_objects(&self) -> PathBuf {
        let path = self.shared.repository.objects_dir().to_owned();
        std::path::absolute(&path).unwrap_or(path)
    }

    /// Whether names of branches lie in git's newer form, which gix cannot read.
    pub(super) fn has_reftable(&self) -> bool {
        let form = |objects: &Objects| {
            objects.repository.config_snapshot().string("extensions.refStorage").map(|s| s.to_vec())
        };
        self.ask(form).is_some_and(|form| form != b"files")
    }

    /// How objects are named here.
    pub(super) fn object_format(&self) -> String {
        self.ask(Objects::hash).to_string()
    }

    fn ask<T>(&self, question: impl FnOnce(&Objects) -> T) -> T {
        question(&self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn id(&self, commit: &str) -> Result<ObjectId, GitError> {
        let hash = self.ask(Objects::hash);
        let id = ObjectId::from_hex(commit.as_bytes()).ok().filter(|id| id.kind() == hash);
        id.ok_or_else(|| self.no_commit(commit))
    }

    fn ids(&self, commits: &[String]) -> Result<Vec<ObjectId>, GitError> {
        commits.iter().map(|commit| self.id(commit)).collect()
    }

    fn no_commit(&self, name: &str) -> GitError {
        GitError::NoCommit { name: name.to_owned(), repository: self.shared.path.clone() }
    }

    /// The commit that a name means.
    pub(super) fn resolve(&self, name: &str) -> Result<String, GitError> {
        let spec = format!("{name}^{{commit}}");
        // Nothing at all would mean HEAD.
        let found = self.ask(|objects| match name.is_empty() {
            true => None,
            false => objects.repository.rev_parse_single(spec.as_str()).ok().map(gix::Id::detach),
        });
        found.map(|id| id.to_string()).ok_or_else(|| self.no_commit(name))
    }

    /// A commit that both have.
    pub(super) fn merge_base(&self, one: &str, other: &str) -> Result<String, GitError> {
        let ids = (self.id(one)?, self.id(other)?);
        let found = self.ask(|objects| lineage::merge_base(objects, ids.0, ids.1))?;
        found.map(|id| id.to_string()).ok_or_else(|| GitError::Unrelated {
            one: one.to_owned(),
            other: other.to_owned(),
            hint: match self.is_shallow() {
                true => " here; this clone is shallow, run 'git fetch --unshallow'",
                false => "",
            },
        })
    }

    /// Whether the clone lacks history.
    pub(super) fn is_shallow(&self) -> bool {
        self.ask(|objects| objects.repository.is_shallow().unwrap_or(false))
    }

    /// Whether `one` is `other` or one of its ancestors; not where one of them is not there.
    pub(super) fn is_ancestor(&self, one: &str, other: &str) -> bool {
        let (Ok(one), Ok(other)) = (self.id(one), self.id(other)) else { return false };
        self.ask(|objects| lineage::is_ancestor(objects, one, other).unwrap_or(false))
    }

    /// What `tip` has and none of `without` has, the newest first.
    pub(super) fn range(&self, tip: &str, without: &[String]) -> Result<Vec<String>, GitError> {
        Ok(self.range_of_ids(tip, without)?.iter().map(ObjectId::to_string).collect())
    }

    fn range_of_ids(&self, tip: &str, without: &[String]) -> Result<Vec<ObjectId>, GitError> {
        let (tip, without) = (self.id(tip)?, self.ids(without)?);
        self.ask(|objects| lineage::range(objects, tip, &without))
    }

    /// What `tip` has and `base` has not, each commit behind its parents, and side branches in one piece.
    pub(super) fn line(&self, base: &str, tip: &str) -> Result<Vec<String>, GitError> {
        let range = self.range_of_ids(tip, &[base.to_owned()])?;
        let sorted = self.ask(|objects| lineage::topological(objects, &range))?;
        Ok(sorted.iter().rev().map(ObjectId::to_string).collect())
    }

    /// Calls `seen` for each commit, in the order given.
    pub(super) fn each(
        &self,
        commits: &[String],
        seen: &mut dyn FnMut(Commit),
    ) -> Result<(), GitError> {
        self.each_id(&self.ids(commits)?, seen)
    }

    /// Calls `seen` for each commit of a range, the newest first.
    pub(super) fn each_of(
        &self,
        tip: &str,
        without: &[String],
        seen: &mut dyn FnMut(Commit),
    ) -> Result<(), GitError> {
        self.each_id(&self.range_of_ids(tip, without)?, seen)
    }

    fn each_id(&self, ids: &[ObjectId], seen: &mut dyn FnMut(Commit)) -> Result<(), GitError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = ids.len().div_ceil(RUN).min(cores).min(MOST_READERS);
        if readers < 2 {
            // Its own reader, so that `seen` may ask for more.
            let objects = Objects::new(&self.shared);
            let mut reading = Reading::new(&objects);
            return ids.chunks(RUN).try_for_each(|run| reading.run(run, seen));
        }
        std::thread::scope(|scope| {
            let handed: Vec<Receiver<Batch>> = (0..readers)
                .map(|first| {
                    let (give, take) = sync_channel(1);
                    scope.spawn(move || self.read_runs(ids, first, readers, &give));
                    take
                })
                .collect();
            for run in 0..ids.len().div_ceil(RUN) {
                // A reader that ended without a last batch has panicked, and the scope passes that on.
                while let Ok(batch) = handed[run % readers].recv() {
                    let batch = batch?;
                    batch.commits.into_iter().for_each(&mut *seen);
                    if batch.is_last {
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    /// Reads every `step`th run. Who takes them may have left.
    fn read_runs(&self, ids: &[ObjectId], first: usize, step: usize, give: &SyncSender<Batch>) {
        let objects = Objects::new(&self.shared);
        let mut reading = Reading::new(&objects);
        for run in ids.chunks(RUN).skip(first).step_by(step) {
            let (mut commits, mut text, mut is_alone) = (Vec::with_capacity(RUN), 0, false);
            let read = reading.run(run, &mut |commit| {
                text += commit.message.len();
                commits.push(commit);
                if text > BATCH {
                    text = 0;
                    let commits = std::mem::take(&mut commits);
                    is_alone |= give.send(Ok(Commits { commits, is_last: false })).is_err();
                }
            });
            let failed = read.is_err();
            let last = read.map(|()| Commits { commits, is_last: true });
            if is_alone || give.send(last).is_err() || failed {
                return;
            }
        }
    }
}

/// Some commits of a run, in order.
struct Commits {
    commits: Vec<Commit>,
    is_last: bool,
}

type Batch = Result<Commits, GitError>;

/// Reads one commit after the other, with the buffers for it.
struct Reading<'o> {
    objects: &'o Objects,
    bytes: Vec<u8>,
    parent: Vec<u8>,
    changes: Changes,
}

impl<'o> Reading<'o> {
    fn new(objects: &'o Objects) -> Reading<'o> {
        let (bytes, parent) = (Vec::new(), Vec::new());
        Reading { objects, bytes, parent, changes: Changes::default() }
    }

    /// Reads commits that follow each other, the newest first.
    fn run(&mut self, ids: &[ObjectId], seen: &mut dyn FnMut(Commit)) -> Result<(), GitError> {
        // Of what is packed as a difference, all that it differs from has to be read first; what was just
        // read is at hand.
        let mut files = Vec::new();
        if self.old_trees_are_bases(ids)? {
            for id in ids.iter().rev() {
                let head = self.objects.commit(id, &mut self.bytes)?;
                files.push(self.files(&head)?);
            }
        }
        for id in ids {
            let head = self.objects.commit(id, &mut self.bytes)?;
            let (author, message) = commit::parse_text(&self.bytes);
            let files = match files.pop() {
                Some(files) => files,
                None => self.files(&head)?,
            };
            let parents = head.parents.len();
            seen(Commit { id: id.to_string(), parents, author, message, files });
        }
        Ok(())
    }

    /// Whether newer trees are packed as differences from older ones, as fast-import does it; git's own packs
    /// hold the newest ones whole.
    fn old_trees_are_bases(&mut self, ids: &[ObjectId]) -> Result<bool, GitError> {
        let mut depths = Vec::new();
        for id in ids.iter().take(SAMPLE) {
            let tree = self.objects.commit(id, &mut self.bytes)?.tree;
            let header = self.objects.repository.try_find_header(tree).ok().flatten();
            depths.extend(header.and_then(|header| header.num_deltas()));
        }
        let longer = depths.windows(2).filter(|pair| pair[0] > pair[1]).count();
        Ok(2 * longer > depths.len())
    }

    fn files(&mut self, head: &commit::Head) -> Result<String, GitError> {
        let old = match head.parents.as_slice() {
            [] => None,
            [parent] => Some(self.objects.tree(parent, &mut self.parent)?),
            _ => return Ok(String::new()),
        };
        self.changes.digest(self.objects, old, head.tree)
    }
}
