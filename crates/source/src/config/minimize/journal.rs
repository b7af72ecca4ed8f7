//! What was tried already, in a file that survives whoever writes it.
//!
//! Decides nothing. The first line says which question the file belongs to, each other one what became of
//! a set and of the configuration that Kconfig made of it; a line that was cut off is tried again. Main
//! type: [`Journal`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::MinimizeError;

/// The file in the folder.
const JOURNAL_FILE: &str = "journal.jsonl";
/// Largest journal that is read; a thousand tries take less than a mebibyte.
const LARGEST: u64 = 64 << 20;

/// What the test said of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Exit code 0.
    Good,
    /// Exit codes 1 to 124.
    Bad,
    /// Exit code 125: it cannot be told.
    Skip,
}

/// One configuration that was tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tried {
    /// A hash of the set.
    pub(super) set: String,
    /// A hash of the configuration's options.
    pub(super) config: String,
    /// What became of it.
    pub(super) outcome: Outcome,
}

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    question: String,
}

/// The file with what it holds.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    sets: HashMap<String, Tried>,
    configs: HashMap<String, Outcome>,
}

impl Journal {
    /// Opens the journal of a folder for one question, a hash; nobody else may write to it meanwhile.
    pub(super) fn open(folder: &Path, question: &str) -> Result<Journal, MinimizeError> {
        let path = folder.join(JOURNAL_FILE);
        let io = |doing| MinimizeError::io(doing, &path);
        let file = File::options().read(true).append(true).create(true).open(&path);
        let file = file.map_err(io("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(MinimizeError::Busy { folder: folder.to_owned() });
            }
            Err(e) => return Err(io("lock")(e.into())),
        }
        let mut text = Vec::new();
        (&file).take(LARGEST).read_to_end(&mut text).map_err(io("read"))?;
        let mut lines = text.split(|b| *b == b'\n');
        let head: Option<Head> = lines.next().and_then(|line| serde_json::from_slice(line).ok());
        let mut journal =
            Journal { file, path: path.clone(), sets: HashMap::new(), configs: HashMap::new() };
        match head {
            Some(head) if head.question == question => {
                for tried in lines.filter_map(|line| serde_json::from_slice::<Tried>(line).ok()) {
                    journal.know(tried);
                }
                if text.last().is_some_and(|b| *b != b'\n') {
                    journal.append(b"\n")?;
                }
            }
            // Without a whole first line nothing was tried.
            None if lines.next().is_none() => {
                journal.file.set_len(0).map_err(io("empty"))?;
                journal.file.seek(SeekFrom::Start(0)).map_err(io("empty"))?;
                journal.line(&Head { question: question.to_owned() })?;
            }
            _ => return Err(MinimizeError::OtherQuestion { folder: folder.to_owned() }),
        }
        Ok(journal)
    }

    /// What became of a set.
    pub(super) fn set(&self, set: &str) -> Option<Outcome> {
        self.sets.get(set).map(|tried| tried.outcome)
    }

    /// What became of a configuration.
    pub(super) fn config(&self, config: &str) -> Option<Outcome> {
        self.configs.get(config).copied()
    }

    /// Configurations that were tested, in this run and before.
    pub(super) fn tests(&self) -> usize {
        self.configs.len()
    }

    /// Writes down what became of a set; it is on the disk when this returns.
    pub(super) fn put(&mut self, tried: Tried) -> Result<(), MinimizeError> {
        self.line(&tried)?;
        self.know(tried);
        Ok(())
    }

    fn know(&mut self, tried: Tried) {
        self.configs.insert(tried.config.clone(), tried.outcome);
        self.sets.insert(tried.set.clone(), tried);
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), MinimizeError> {
        let mut line = serde_json::to_vec(value)
            .map_err(|e| MinimizeError::io("write", &self.path)(e.into()))?;
        line.push(b'\n');
        self.append(&line)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), MinimizeError> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        written.map_err(MinimizeError::io("write", &self.path))
    }
}

impl Drop for Journal {
    /// A program that is being started has a copy of the file for a moment, and would hold the lock.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(set: &str, outcome: Outcome) -> Tried {
        Tried { set: set.into(), config: format!("c{set}"), outcome }
    }

    #[test]
    fn what_was_tried_is_known_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "q").unwrap();
        journal.put(tried("1", Outcome::Good)).unwrap();
        journal.put(tried("2", Outcome::Bad)).unwrap();
        assert!(matches!(Journal::open(dir.path(), "q"), Err(MinimizeError::Busy { .. })));
        drop(journal);
        let path = dir.path().join(JOURNAL_FILE);
        let whole = std::fs::read(&path).unwrap();
        // However much of the file is there, what stands before the cut holds.
        let ends: Vec<usize> =
            whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut journal = Journal::open(dir.path(), "q").unwrap();
            assert_eq!(journal.set("1").is_some(), length >= ends[1], "{length}");
            assert_eq!(journal.set("2").is_some(), length >= ends[2], "{length}");
            journal.put(tried("3", Outcome::Skip)).unwrap();
            drop(journal);
            let journal = Journal::open(dir.path(), "q").unwrap();
            assert_eq!(journal.set("3"), Some(Outcome::Skip), "{length}");
        }
        assert!(matches!(
            Journal::open(dir.path(), "other"),
            Err(MinimizeError::OtherQuestion { .. })
        ));
    }
}
