//! Reads commits and trees of one repository, for one thread.
//!
//! Knows where the parents of a commit are not those that it names: at the end of a shallow clone, and in
//! grafts. Main type: [`Objects`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;
use gix::objs::Find;

use super::super::error::GitError;
use super::commit::{Head, parse_head};

pub(super) use gix::objs::Kind;

/// Bases of deltas that each thread keeps.
const BASES: usize = 24 << 20;
/// Whole objects that each thread keeps: trees of one commit are those of the next, but for some.
const WHOLE: usize = 16 << 20;
/// Grafts of more than this are nobody's.
const LARGEST_GRAFTS: u64 = 16 << 20;

/// Parents of commits, where they are others than the commits say.
pub(super) type Exceptions = HashMap<ObjectId, Vec<ObjectId>>;

/// What all threads share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) repository: gix::ThreadSafeRepository,
    pub(super) exceptions: Arc<Exceptions>,
    pub(super) graph: Option<Arc<gix::commitgraph::Graph>>,
    /// As the user named it.
    pub(super) path: PathBuf,
}

/// A commit's place in history.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) parents: Vec<ObjectId>,
    pub(super) date: u64,
    /// Larger than that of each ancestor, where a commit-graph says it.
    pub(super) generation: Option<u32>,
}

/// The reader of one thread.
pub(super) struct Objects {
    pub(super) repository: gix::Repository,
    shared: Shared,
}

impl Objects {
    pub(super) fn new(shared: &Shared) -> Objects {
        let mut repository = shared.repository.to_thread_local();
        repository.objects.set_pack_cache(|| {
            Box::new(gix::odb::pack::cache::lru::MemoryCappedHashmap::new(BASES))
        });
        repository.object_cache_size(WHOLE);
        Objects { repository, shared: shared.clone() }
    }

    pub(super) fn hash(&self) -> gix::hash::Kind {
        self.repository.object_hash()
    }

    /// The object of that kind, into `bytes`.
    pub(super) fn read(
        &self,
        id: &ObjectId,
        kind: Kind,
        bytes: &mut Vec<u8>,
    ) -> Result<(), GitError> {
        bytes.clear();
        // git knows this one without having it.
        if id.is_empty_tree() {
            return Ok(());
        }
        match self.repository.objects.try_find(id, bytes) {
            Ok(Some(found)) if found.kind == kind => Ok(()),
            Ok(Some(found)) => {
                let said = format!("it is a {}", found.kind);
                Err(self.damaged(word(kind), id, &said))
            }
            Ok(None) => Err(GitError::Missing {
                kind: word(kind),
                id: id.to_string(),
                repository: self.shared.path.clone(),
                advice: if is_partial(&self.repository) {
                    "this is a partial clone, and nothing is fetched: 'git fetch --refetch --filter=blob:none' does"
                } else {
                    "fetch it again, and see what 'git fsck' says"
                },
            }),
            Err(error) => Err(self.damaged(word(kind), id, &error.to_string())),
        }
    }

    pub(super) fn damaged(&self, kind: &'static str, id: &ObjectId, said: &str) -> GitError {
        let repository = self.shared.path.clone();
        GitError::Damaged { kind, id: id.to_string(), repository, said: said.to_owned() }
    }

    /// A commit's bytes, and what history needs of them.
    pub(super) fn commit(&self, id: &ObjectId, bytes: &mut Vec<u8>) -> Result<Head, GitError> {
        self.read(id, Kind::Commit, bytes)?;
        let head = parse_head(bytes, self.hash());
        let mut head = head.ok_or_else(|| self.damaged("commit", id, "it begins as none does"))?;
        if let Some(parents) = self.shared.exceptions.get(id) {
            head.parents.clone_from(parents);
        }
        Ok(head)
    }

    /// The tree of a commit.
    pub(super) fn tree(&self, id: &ObjectId, bytes: &mut Vec<u8>) -> Result<ObjectId, GitError> {
        match self.shared.graph.as_ref().and_then(|graph| graph.commit_by_id(id)) {
            Some(commit) => Ok(commit.root_tree_id().to_owned()),
            None => Ok(self.commit(id, bytes)?.tree),
        }
    }

    /// Where a commit stands in history.
    pub(super) fn place(&self, id: &ObjectId, bytes: &mut Vec<u8>) -> Result<Place, GitError> {
        if let Some(graph) = &self.shared.graph
            && let Some(commit) = graph.commit_by_id(id)
        {
            let parents = commit.iter_parents().map(|p| p.map(|at| graph.id_at(at).to_owned()));
            // One that makes no sense is read itself.
            if let Ok(parents) = parents.collect() {
                let (date, generation) = (commit.committer_timestamp(), commit.generation());
                // Zero is what git wrote when it did not count yet.
                let generation = Some(generation).filter(|generation| *generation > 0);
                return Ok(Place { parents, date, generation });
            }
        }
        let Head { parents, date, .. } = self.commit(id, bytes)?;
        Ok(Place { parents, date, generation: None })
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Tree => "tree",
        Kind::Commit => "commit",
        Kind::Blob => "blob",
        Kind::Tag => "tag",
    }
}

/// Whether objects may be missing on purpose.
fn is_partial(repository: &gix::Repository) -> bool {
    let config = repository.config_snapshot();
    config.string("extensions.partialClone").is_some()
        || config
            .plumbing()
            .sections_by_name("remote")
            .is_some_and(|mut sections| sections.any(|section| section.value("promisor").is_some()))
}

/// Where parents are others than commits say: a shallow clone ends, and grafts tell others.
pub(super) fn exceptions(repository: &gix::Repository) -> Exceptions {
    let mut exceptions = grafts(&repository.common_dir().join("info/grafts"));
    let shallow = repository.shallow_commits().ok().flatten();
    for id in shallow.iter().flat_map(|commits| commits.iter()) {
        exceptions.insert(*id, Vec::new());
    }
    exceptions
}

/// A commit and its parents in each line, as git reads them to this day.
fn grafts(path: &Path) -> Exceptions {
    let small = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= LARGEST_GRAFTS);
    let text = if small { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
    parse_grafts(&text)
}

fn parse_grafts(text: &[u8]) -> Exceptions {
    let line = |line: &[u8]| {
        let words = line.split(|b| *b == b' ').map(|word| ObjectId::from_hex(word.trim_ascii()));
        let mut ids = words.collect::<Result<Vec<_>, _>>().ok()?.into_iter();
        Some((ids.next()?, ids.collect()))
    };
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grafts_are_read() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let text = format!("# {a}\n\n{a} {b} {a}\r\n{b}\n{b} {a} no\n{a}{b}\n");
        let read = parse_grafts(text.as_bytes());
        let id = |text: &str| ObjectId::from_hex(text.as_bytes()).unwrap();
        let expected = [(id(&a), vec![id(&b), id(&a)]), (id(&b), vec![])];
        assert_eq!(read, Exceptions::from(expected));
    }
}
