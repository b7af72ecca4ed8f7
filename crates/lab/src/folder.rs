//! The case folder: what a run has learnt, on disk at every moment.
//!
//! `case.json` is replaced as a whole, `console.log` and `events.jsonl` only grow, so that a run
//! that is killed at any moment leaves a folder that can be read. Main types: [`FolderWriter`],
//! [`Folder`].

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kolumbo_case::file::CaseState;
use kolumbo_case::{CASE_FORMAT_VERSION, CaseFile, Event, EventKind};
use kolumbo_machine::Sink;

/// Name of the case file in its folder.
pub const CASE_FILE: &str = "case.json";
/// Name of the console's bytes in the folder.
pub const CONSOLE_FILE: &str = "console.log";
/// Name of the events, one JSON object a line.
pub const EVENTS_FILE: &str = "events.jsonl";
/// What the names of the files begin with that belong to the guest between QEMU and the guest proper.
pub const HOST_PREFIX: &str = "host-";
/// Console bytes that are kept; a guest that writes more is judged on, but not kept.
pub const MAX_CONSOLE: u64 = 64 << 20;
/// Largest case file that is read.
const MAX_CASE: u64 = 16 << 20;
/// Longest event line that is read.
const MAX_EVENT: u64 = 4 << 20;
/// Most events that are read.
const MAX_EVENTS: usize = 2_000_000;

/// Why a case folder cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// There is a case already.
    #[error("{path} holds a case already; name a new folder with --out or remove this one")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// It is not a case file.
    #[error("{path} is not a case file of kolumbo")]
    NotACase {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// Written by a newer kolumbo.
    #[error("{path} has case version {found}; this kolumbo reads up to {CASE_FORMAT_VERSION}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> FolderError + 'a {
    move |source| FolderError::Io { doing, path: path.to_owned(), source }
}

/// Replaces the case file in the case folder `dir`, whole. A finished case is on the disk when this
/// returns; one that still runs outlives this process, not a power failure, which ends the run anyway.
pub fn replace(dir: &Path, case: &CaseFile) -> Result<(), FolderError> {
    let path = dir.join(CASE_FILE);
    let mut text = serde_json::to_vec_pretty(case)
        .map_err(|source| FolderError::NotACase { path: path.clone(), source })?;
    text.push(b'\n');
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(io("write into", dir))?;
    file.write_all(&text).map_err(io("write", &path))?;
    if case.state == CaseState::Done {
        file.as_file().sync_data().map_err(io("write", &path))?;
    }
    file.persist(&path).map_err(|e| io("replace", &path)(e.error))?;
    Ok(())
}

/// Writes one case. As a [`Sink`] it takes console bytes and events as they come.
#[derive(Debug)]
pub struct FolderWriter {
    path: PathBuf,
    console: File,
    events: File,
    kept: u64,
    truncated: bool,
    /// The first failure to write; later ones follow from it.
    trouble: Option<FolderError>,
}

impl FolderWriter {
    /// Makes the folder (and the ones above it) and the first case file in it.
    pub fn create(path: &Path, case: &CaseFile) -> Result<Self, FolderError> {
        fs::create_dir_all(path).map_err(io("make the case folder", path))?;
        if path.join(CASE_FILE).exists() {
            return Err(FolderError::Occupied { path: path.to_owned() });
        }
        let append = |name: &str| {
            let file = path.join(name);
            OpenOptions::new().create(true).append(true).open(&file).map_err(io("write", &file))
        };
        let writer = FolderWriter {
            path: path.to_owned(),
            console: append(CONSOLE_FILE)?,
            events: append(EVENTS_FILE)?,
            kept: 0,
            truncated: false,
            trouble: None,
        };
        writer.save(case)?;
        Ok(writer)
    }

    /// A second writer in the same folder, for the console and the events of the guest that is the
    /// host of the first one's. It never touches the case file.
    pub fn beside(&self) -> Result<Self, FolderError> {
        let append = |name: &str| {
            let file = self.path.join(format!("{HOST_PREFIX}{name}"));
            OpenOptions::new().create(true).append(true).open(&file).map_err(io("write", &file))
        };
        Ok(FolderWriter {
            path: self.path.clone(),
            console: append(CONSOLE_FILE)?,
            events: append(EVENTS_FILE)?,
            kept: 0,
            truncated: false,
            trouble: None,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the case file. A reader sees the old one or the new one, never half of one.
    pub fn save(&self, case: &CaseFile) -> Result<(), FolderError> {
        replace(&self.path, case)
    }

    /// The first failure to write, if there was one.
    pub fn take_trouble(&mut self) -> Option<FolderError> {
        self.trouble.take()
    }

    fn write_event(&mut self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        if let Err(e) = self.events.write_all(&line) {
            self.note(EVENTS_FILE, e);
        }
    }

    fn note(&mut self, name: &str, source: std::io::Error) {
        let path = self.path.join(name);
        self.trouble.get_or_insert(FolderError::Io { doing: "write", path, source });
    }
}

impl Sink for FolderWriter {
    fn console(&mut self, bytes: &[u8]) {
        let room = MAX_CONSOLE.saturating_sub(self.kept);
        let keep = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if let Err(e) = self.console.write_all(keep) {
            self.note(CONSOLE_FILE, e);
        }
        self.kept += keep.len() as u64;
    }

    fn event(&mut self, event: Event) {
        let full = self.kept >= MAX_CONSOLE;
        if full && matches!(event.kind, EventKind::Console { .. }) {
            // Console events beyond the limit announce bytes that are not there.
            if !self.truncated {
                self.truncated = true;
                let kind = EventKind::ConsoleTruncated { kept: self.kept };
                self.write_event(&Event { t: event.t, kind });
            }
            return;
        }
        self.write_event(&event);
    }
}

/// A case folder that was read.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The case file.
    pub case: CaseFile,
}

impl Folder {
    /// Reads the case file of a folder; the file itself may be named, too.
    pub fn read(path: &Path) -> Result<Folder, FolderError> {
        let dir = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let file = dir.join(CASE_FILE);
        let mut text = Vec::new();
        File::open(&file)
            .and_then(|f| f.take(MAX_CASE).read_to_end(&mut text))
            .map_err(io("read", &file))?;
        let case: CaseFile = serde_json::from_slice(&text)
            .map_err(|source| FolderError::NotACase { path: file.clone(), source })?;
        if case.case_version > CASE_FORMAT_VERSION {
            return Err(FolderError::TooNew { path: file, found: case.case_version });
        }
        Ok(Folder { path: dir.to_owned(), case })
    }

    /// The console's bytes; empty where there are none.
    pub fn console(&self) -> Result<Vec<u8>, FolderError> {
        let file = self.path.join(CONSOLE_FILE);
        let mut bytes = Vec::new();
        File::open(&file)
            .and_then(|f| f.take(MAX_CONSOLE).read_to_end(&mut bytes))
            .map_err(io("read", &file))?;
        Ok(bytes)
    }

    /// The events, up to the first line that is not one: a run that was killed may have left half
    /// a line.
    pub fn events(&self) -> Result<Vec<Event>, FolderError> {
        let file = self.path.join(EVENTS_FILE);
        let mut reader = BufReader::new(File::open(&file).map_err(io("read", &file))?);
        let mut events = Vec::new();
        let mut line = Vec::new();
        while events.len() < MAX_EVENTS {
            line.clear();
            let n = (&mut reader)
                .take(MAX_EVENT)
                .read_until(b'\n', &mut line)
                .map_err(io("read", &file))?;
            if n == 0 {
                break;
            }
            match serde_json::from_slice(&line) {
                Ok(event) => events.push(event),
                Err(_) => break,
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> CaseFile {
        CaseFile { case_version: CASE_FORMAT_VERSION, ..CaseFile::default() }
    }

    #[test]
    fn a_case_survives_being_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let mut writer = FolderWriter::create(&path, &case()).unwrap();
        writer.console(b"hello\n");
        writer.event(Event { t: 3, kind: EventKind::Console { offset: 0, len: 6 } });
        writer.event(Event { t: 4, kind: EventKind::Started });
        // The process dies here, half way through a line.
        OpenOptions::new()
            .append(true)
            .open(path.join(EVENTS_FILE))
            .and_then(|mut f| f.write_all(b"{\"t\":5,\"ev"))
            .unwrap();
        drop(writer);
        let folder = Folder::read(&path).unwrap();
        assert_eq!(folder.case.state, CaseState::Running);
        assert_eq!(folder.console().unwrap(), b"hello\n");
        assert_eq!(folder.events().unwrap().len(), 2);
    }

    #[test]
    fn an_old_case_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        FolderWriter::create(dir.path(), &case()).unwrap();
        let again = FolderWriter::create(dir.path(), &case());
        assert!(matches!(again, Err(FolderError::Occupied { .. })));
    }

    #[test]
    fn the_console_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = FolderWriter::create(dir.path(), &case()).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for i in 0..66u64 {
            writer.console(&chunk);
            let kind = EventKind::Console { offset: i << 20, len: 1 << 20 };
            writer.event(Event { t: i, kind });
        }
        let folder = Folder::read(dir.path()).unwrap();
        assert_eq!(folder.console().unwrap().len() as u64, MAX_CONSOLE);
        let last = folder.events().unwrap().pop().unwrap();
        assert_eq!(last.kind, EventKind::ConsoleTruncated { kept: MAX_CONSOLE });
    }

    #[test]
    fn a_newer_case_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let newer = CaseFile { case_version: CASE_FORMAT_VERSION + 1, ..CaseFile::default() };
        FolderWriter::create(dir.path(), &newer).unwrap();
        assert!(matches!(Folder::read(dir.path()), Err(FolderError::TooNew { .. })));
    }
}
