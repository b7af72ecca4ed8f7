//! The names of the files that a commit changes, from two trees.
//!
//! Decides the order: that of git's trees, folders in the place of their names, as `git log --raw -r`
//! prints it; equal folders are never read. Main types: [`Changes`], [`Files`].

use std::cmp::Ordering;

use gix::ObjectId;
use sha2::{Digest, Sha256};

use super::super::error::GitError;
use super::objects::{Kind, Objects};

/// Deepest folder that is looked into; git itself refuses what is deeper.
const DEEPEST: usize = 2048;
/// Names of one commit that are looked at. Trees that share their folders can stand for more files than
/// anybody could ever read.
const MOST: usize = 1 << 20;

/// A digest over the names of files, in the order of git's trees: patches with the same patch-id have the
/// same.
#[derive(Default)]
pub(crate) struct Files {
    digest: Sha256,
    any: bool,
}

impl Files {
    pub(crate) fn push(&mut self, name: &[u8]) {
        self.any = true;
        self.digest.update(name);
        self.digest.update([0]);
    }

    /// Empty without any file.
    pub(crate) fn digest(self) -> String {
        if !self.any {
            return String::new();
        }
        self.digest.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// Compares trees; keeps its buffers from one pair to the next.
#[derive(Default)]
pub(super) struct Changes {
    /// The pairs of folders on the way to where it is; those behind `depth` are buffers that wait.
    pairs: Vec<Pair>,
    depth: usize,
    path: Vec<u8>,
}

/// Two folders of the same name, of which one may be missing.
#[derive(Default)]
struct Pair {
    old: Side,
    new: Side,
    /// How much of the path is theirs.
    path: usize,
}

#[derive(Default)]
struct Side {
    tree: Option<ObjectId>,
    bytes: Vec<u8>,
    at: usize,
}

impl Side {
    fn fill(&mut self, objects: &Objects, tree: Option<ObjectId>) -> Result<(), GitError> {
        (self.tree, self.at) = (tree, 0);
        self.bytes.clear();
        tree.map_or(Ok(()), |id| objects.read(&id, Kind::Tree, &mut self.bytes))
    }

    fn entry_at(&self, at: usize, objects: &Objects) -> Result<Option<Entry<'_>>, GitError> {
        let rest = &self.bytes[at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let hash = objects.hash();
        parse_entry(rest, hash.len_in_bytes()).map(Some).ok_or_else(|| {
            let id = self.tree.unwrap_or(ObjectId::null(hash));
            objects.damaged("tree", &id, "an entry of it makes no sense")
        })
    }
}

/// One line of a tree.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'t> {
    mode: u32,
    name: &'t [u8],
    id: &'t [u8],
    whole: &'t [u8],
}

const FOLDER: u32 = 0o040_000;

fn parse_entry(bytes: &[u8], hash: usize) -> Option<Entry<'_>> {
    let space = bytes.iter().take(8).position(|b| *b == b' ')?;
    let mut mode = 0;
    for digit in &bytes[..space] {
        mode = mode << 3 | u32::from(digit.checked_sub(b'0').filter(|d| *d < 8)?);
    }
    let name = &bytes[space + 1..];
    let name = &name[..memchr::memchr(0, name)?];
    let end = space + 1 + name.len() + 1;
    let id = bytes.get(end..end + hash)?;
    // Other bits of modes say nothing, as for git.
    let mode = match mode & 0o170_000 {
        0o100_000 if mode & 0o100 != 0 => 0o100_755,
        0o100_000 => 0o100_644,
        0o120_000 => 0o120_000,
        FOLDER => FOLDER,
        _ => 0o160_000,
    };
    (space > 0 && !name.is_empty()).then_some(Entry { mode, name, id, whole: &bytes[..end + hash] })
}

impl Entry<'_> {
    fn is_folder(&self) -> bool {
        self.mode == FOLDER
    }

    /// The order of trees: the name of a folder ends in a slash.
    fn order(&self, other: &Entry<'_>) -> Ordering {
        let common = self.name.len().min(other.name.len());
        let next = |entry: &Entry<'_>| match entry.name.get(common) {
            Some(byte) => *byte,
            None if entry.is_folder() => b'/',
            None => 0,
        };
        let heads = self.name[..common].cmp(&other.name[..common]);
        heads.then_with(|| next(self).cmp(&next(other)))
    }

    fn id(&self) -> ObjectId {
        ObjectId::from_bytes_or_panic(self.id)
    }
}

/// How many bytes both begin with.
fn same_bytes(one: &[u8], other: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let blocks = one.as_chunks::<BLOCK>().0.iter().zip(other.as_chunks::<BLOCK>().0);
    let blocks = blocks.take_while(|(one, other)| one == other).count() * BLOCK;
    let rest = one[blocks..].iter().zip(&other[blocks..]);
    blocks + rest.take_while(|(one, other)| one == other).count()
}

/// What comes next in a pair of folders.
enum Step {
    Same,
    File,
    Folders(Option<ObjectId>, Option<ObjectId>),
    End,
}

impl Changes {
    /// The digest over the names of all files that differ between two trees.
    pub(super) fn digest(
        &mut self,
        objects: &Objects,
        old: Option<ObjectId>,
        new: ObjectId,
    ) -> Result<String, GitError> {
        let mut files = Files::default();
        if old != Some(new) {
            self.names(objects, old, new, &mut |name| files.push(name))?;
        }
        Ok(files.digest())
    }

    fn names(
        &mut self,
        objects: &Objects,
        old: Option<ObjectId>,
        new: ObjectId,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<(), GitError> {
        self.depth = 0;
        self.path.clear();
        self.descend(objects, old, Some(new))?;
        let mut count = 0;
        while self.depth > 0 && count < MOST {
            let pair = &mut self.pairs[self.depth - 1];
            self.path.truncate(pair.path);
            match pair.step(objects, &mut self.path)? {
                Step::Same => {}
                Step::File => {
                    count += 1;
                    seen(&self.path);
                }
                Step::Folders(old, new) => {
                    self.path.push(b'/');
                    self.descend(objects, old, new)?;
                }
                Step::End => self.depth -= 1,
            }
        }
        Ok(())
    }

    fn descend(
        &mut self,
        objects: &Objects,
        old: Option<ObjectId>,
        new: Option<ObjectId>,
    ) -> Result<(), GitError> {
        if self.depth == DEEPEST
            && let Some(id) = new.or(old)
        {
            return Err(objects.damaged("tree", &id, "folders are nested too deeply"));
        }
        if self.depth == self.pairs.len() {
            self.pairs.push(Pair::default());
        }
        let pair = &mut self.pairs[self.depth];
        pair.path = self.path.len();
        pair.old.fill(objects, old)?;
        pair.new.fill(objects, new)?;
        self.depth += 1;
        Ok(())
    }
}

impl Pair {
    /// Passes over what is the same on both sides. Most of two trees is, and is compared without being
    /// understood.
    fn skip(&mut self, objects: &Objects) -> Result<(), GitError> {
        let (old, new) = (&self.old.bytes[self.old.at..], &self.new.bytes[self.new.at..]);
        let same = same_bytes(old, new);
        let mut passed = 0;
        if same == old.len() && same == new.len() {
            passed = same;
        } else {
            while passed < same {
                let entry = self.old.entry_at(self.old.at + passed, objects)?;
                let Some(entry) = entry.filter(|entry| passed + entry.whole.len() <= same) else {
                    break;
                };
                passed += entry.whole.len();
            }
        }
        self.old.at += passed;
        self.new.at += passed;
        Ok(())
    }

    /// Takes the next entry of one or of both sides; its name comes behind `path` when it differs.
    fn step(&mut self, objects: &Objects, path: &mut Vec<u8>) -> Result<Step, GitError> {
        self.skip(objects)?;
        let old = self.old.entry_at(self.old.at, objects)?;
        let new = self.new.entry_at(self.new.at, objects)?;
        let order = match (&old, &new) {
            (None, None) => return Ok(Step::End),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.order(new),
        };
        let old = old.filter(|_| order.is_le());
        let new = new.filter(|_| order.is_ge());
        let same = match (&old, &new) {
            (Some(old), Some(new)) => old.id == new.id && old.mode == new.mode,
            _ => false,
        };
        let step = match old.as_ref().or(new.as_ref()) {
            _ if same => Step::Same,
            Some(entry) => {
                path.extend_from_slice(entry.name);
                // Two of the same place are both folders or both none.
                match entry.is_folder() {
                    true => Step::Folders(old.as_ref().map(Entry::id), new.as_ref().map(Entry::id)),
                    false => Step::File,
                }
            }
            None => Step::End,
        };
        let (old, new) = (old.map_or(0, |e| e.whole.len()), new.map_or(0, |e| e.whole.len()));
        self.old.at += old;
        self.new.at += new;
        Ok(step)
    }
}
