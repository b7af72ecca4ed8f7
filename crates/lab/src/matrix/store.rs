//! What is done of a matrix, in an embedded database beside the cases.
//!
//! SQLite with a write-ahead log: a transaction is there or it is not, whatever dies. A run is
//! claimed by one process before it starts, so that two processes in one folder share the work; a
//! claim whose owner is gone is taken back. What a console says is not known here. Main type:
//! [`Store`].

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kolumbo_case::matrix::Run;
use kolumbo_case::{Phase, VerdictKind};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

/// Name of the database in the folder of a matrix.
pub const STORE_FILE: &str = "matrix.db";
/// Version of the tables.
const STORE_VERSION: i64 = 1;
/// How long one process waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(20);
/// An owner on another host that was not heard of for so long is gone.
const SILENCE: u64 = 60;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no matrix in the folder.
    #[error("{path} holds no matrix; begin one with --out")]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// There is one already.
    #[error(
        "{path} holds a matrix already; go on with it by --resume {path}, or name a new folder"
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// No room is left.
    #[error("cannot write {path}: the disk is full; make room and go on with --resume")]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Written by a newer kolumbo.
    #[error("{path} has store version {found}; this kolumbo knows {STORE_VERSION}")]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite or the system refused.
    #[error("cannot {doing} {path}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
}

/// Which run of which cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey {
    /// Name of the cell.
    pub cell: String,
    /// Which repeat, from 1.
    pub repeat: u32,
    /// Which attempt at it, from 1.
    pub attempt: u32,
}

/// A run that was claimed and has not ended, whose owner is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Which one.
    pub key: RunKey,
    /// Its case folder, relative to the matrix' folder.
    pub folder: String,
}

/// The database of one matrix.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
    /// This process in the table of owners.
    owner: i64,
}

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE owners (
        id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, started INTEGER NOT NULL,
        boot TEXT NOT NULL, heard INTEGER NOT NULL);
    CREATE TABLE runs (
        cell TEXT NOT NULL, repeat INTEGER NOT NULL, attempt INTEGER NOT NULL,
        owner INTEGER NOT NULL, state TEXT NOT NULL, folder TEXT NOT NULL,
        started TEXT NOT NULL DEFAULT '', verdict TEXT, reason TEXT NOT NULL DEFAULT '',
        phase TEXT NOT NULL DEFAULT 'firmware', signature TEXT NOT NULL DEFAULT '',
        wall_ms INTEGER NOT NULL DEFAULT 0, decided_ms INTEGER NOT NULL DEFAULT 0,
        timeline TEXT NOT NULL DEFAULT '[]',
        PRIMARY KEY (cell, repeat, attempt)) WITHOUT ROWID;
    CREATE INDEX runs_by_state ON runs (state);
";

impl Store {
    /// Begins a matrix in `dir`; `meta` is kept with it.
    pub fn create(dir: &Path, meta: &[(&str, &str)]) -> Result<Store, StoreError> {
        let path = dir.join(STORE_FILE);
        if path.exists() {
            return Err(StoreError::Occupied { path: dir.to_owned() });
        }
        // The tables are complete before the name exists: a folder holds a whole matrix or none.
        let new = dir.join(format!(".{STORE_FILE}.{}", std::process::id()));
        let failed = wrap("begin", &path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let made = Connection::open_with_flags(&new, flags).and_then(|mut c| {
            let transaction = c.transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", STORE_VERSION)?;
            for (key, value) in meta {
                transaction.execute("INSERT INTO meta VALUES (?1, ?2)", params![key, value])?;
            }
            transaction.commit()?;
            c.close().map_err(|(_, e)| e)
        });
        let linked = made.map_err(&failed).and_then(|()| {
            std::fs::hard_link(&new, &path).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => StoreError::Occupied { path: dir.to_owned() },
                std::io::ErrorKind::StorageFull => StoreError::Full { path: path.clone() },
                _ => failed(rusqlite::Error::InvalidPath(path.clone())),
            })
        });
        let _ = std::fs::remove_file(&new);
        let _ =
            std::fs::remove_file(dir.join(format!(".{STORE_FILE}.{}-journal", std::process::id())));
        linked?;
        Store::open(dir)
    }

    /// Opens the matrix in `dir` and takes part in it.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let path = dir.join(STORE_FILE);
        if !path.is_file() {
            return Err(StoreError::Missing { path: dir.to_owned() });
        }
        let failed = wrap("open", &path);
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(&failed)?;
        connection.busy_timeout(BUSY).map_err(&failed)?;
        // A lost transaction after a power failure costs nothing: the case folder is on disk, and
        // a claimed run with a finished case is taken over as it is.
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            .map_err(&failed)?;
        let found: i64 =
            connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(&failed)?;
        if found > STORE_VERSION {
            return Err(StoreError::TooNew { path: path.clone(), found });
        }
        let me = Process::this();
        connection
            .execute(
                "INSERT INTO owners (pid, started, boot, heard) VALUES (?1, ?2, ?3, ?4)",
                params![me.pid, me.started, me.boot, now()],
            )
            .map_err(&failed)?;
        let owner = connection.last_insert_rowid();
        Ok(Store { path: path.clone(), connection, owner })
    }

    /// What was kept under `key`.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(wrap("read", &self.path))
    }

    /// Keeps `value` under `key`.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.connection
            .execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![key, value])
            .map_err(wrap("write", &self.path))?;
        Ok(())
    }

    /// Claims a run; false when somebody else has it or had it.
    pub fn claim(&self, key: &RunKey, folder: &str) -> Result<bool, StoreError> {
        let claimed = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO runs (cell, repeat, attempt, owner, state, folder)
                 VALUES (?1, ?2, ?3, ?4, 'running', ?5)",
            )
            .and_then(|mut s| {
                s.execute(params![key.cell, key.repeat, key.attempt, self.owner, folder])
            })
            .map_err(wrap("write", &self.path))?;
        Ok(claimed == 1)
    }

    /// Takes over a run whose owner is gone; false when somebody else was faster.
    pub fn take_over(&self, orphan: &Orphan) -> Result<bool, StoreError> {
        let key = &orphan.key;
        let gone = self.gone()?;
        let mut taken = 0;
        for owner in gone {
            taken += self
                .connection
                .execute(
                    "UPDATE runs SET owner = ?1 WHERE cell = ?2 AND repeat = ?3 AND attempt = ?4
                     AND state = 'running' AND owner = ?5",
                    params![self.owner, key.cell, key.repeat, key.attempt, owner],
                )
                .map_err(wrap("write", &self.path))?;
        }
        Ok(taken == 1)
    }

    /// Keeps what became of claimed runs, all or none. A run that is done already stays as it is.
    pub fn finish(&mut self, ended: &[(RunKey, Run)]) -> Result<(), StoreError> {
        let failed = wrap("write", &self.path);
        let transaction = self.connection.transaction().map_err(&failed)?;
        for (key, run) in ended {
            let state = if run.verdict.is_some() { "done" } else { "failed" };
            let timeline = serde_json::to_string(&run.timeline).unwrap_or_default();
            transaction
                .prepare_cached(
                    "UPDATE runs SET state = ?4, started = ?5, verdict = ?6, reason = ?7, phase = ?8,
                     signature = ?9, wall_ms = ?10, decided_ms = ?11, timeline = ?12
                     WHERE cell = ?1 AND repeat = ?2 AND attempt = ?3 AND state = 'running'",
                )
                .and_then(|mut s| {
                    s.execute(params![
                        key.cell,
                        key.repeat,
                        key.attempt,
                        state,
                        run.started,
                        run.verdict.map(VerdictKind::name),
                        run.reason,
                        run.phase.name(),
                        run.signature,
                        i64::try_from(run.wall_ms).unwrap_or(i64::MAX),
                        i64::try_from(run.decided_ms).unwrap_or(i64::MAX),
                        timeline,
                    ])
                })
                .map_err(&failed)?;
        }
        transaction.commit().map_err(&failed)
    }

    /// Gives a claim back: the run never happened.
    pub fn abandon(&self, key: &RunKey) -> Result<(), StoreError> {
        self.connection
            .execute(
                "DELETE FROM runs WHERE cell = ?1 AND repeat = ?2 AND attempt = ?3
                 AND state = 'running' AND owner = ?4",
                params![key.cell, key.repeat, key.attempt, self.owner],
            )
            .map_err(wrap("write", &self.path))?;
        Ok(())
    }

    /// Runs that were claimed by processes that are gone.
    pub fn orphans(&self) -> Result<Vec<Orphan>, StoreError> {
        let mut orphans = Vec::new();
        for owner in self.gone()? {
            let failed = wrap("read", &self.path);
            let mut statement = self
                .connection
                .prepare_cached(
                    "SELECT cell, repeat, attempt, folder FROM runs
                     WHERE state = 'running' AND owner = ?1",
                )
                .map_err(&failed)?;
            let rows = statement.query_map([owner], |row| {
                let key = RunKey { cell: row.get(0)?, repeat: row.get(1)?, attempt: row.get(2)? };
                Ok(Orphan { key, folder: row.get(3)? })
            });
            for row in rows.map_err(&failed)? {
                orphans.push(row.map_err(&failed)?);
            }
        }
        Ok(orphans)
    }

    /// Number of runs that other living processes have claimed.
    pub fn runs_of_others(&self) -> Result<u32, StoreError> {
        self.connection
            .query_row(
                "SELECT COUNT(*) FROM runs WHERE state = 'running' AND owner != ?1",
                [self.owner],
                |row| row.get(0),
            )
            .map_err(wrap("read", &self.path))
    }

    /// Hands every run that ended to `each`, with the name of its cell, in order of cell, repeat
    /// and attempt.
    pub fn for_each(&self, mut each: impl FnMut(String, Run)) -> Result<(), StoreError> {
        let failed = wrap("read", &self.path);
        let mut statement = self
            .connection
            .prepare(
                "SELECT cell, repeat, attempt, folder, started, verdict, reason, phase, signature,
                 wall_ms, decided_ms, timeline FROM runs WHERE state != 'running'
                 ORDER BY cell, repeat, attempt",
            )
            .map_err(&failed)?;
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, run_of(row)?))).map_err(&failed)?;
        for row in rows {
            let (cell, run) = row.map_err(&failed)?;
            each(cell, run);
        }
        Ok(())
    }

    /// Tells processes on other hosts that this one lives.
    pub fn beat(&self) -> Result<(), StoreError> {
        self.connection
            .execute("UPDATE owners SET heard = ?1 WHERE id = ?2", params![now(), self.owner])
            .map_err(wrap("write", &self.path))?;
        Ok(())
    }

    fn gone(&self) -> Result<Vec<i64>, StoreError> {
        let failed = wrap("read", &self.path);
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, pid, started, boot, heard FROM owners WHERE id != ?1")
            .map_err(&failed)?;
        let rows = statement
            .query_map([self.owner], |row| {
                let process = Process { pid: row.get(1)?, started: row.get(2)?, boot: row.get(3)? };
                Ok((row.get(0)?, process, row.get::<_, i64>(4)?))
            })
            .map_err(&failed)?;
        let mut gone = Vec::new();
        for row in rows {
            let (id, process, heard) = row.map_err(&failed)?;
            if !process.lives(u64::try_from(heard).unwrap_or(0)) {
                gone.push(id);
            }
        }
        Ok(gone)
    }
}

fn run_of(row: &Row<'_>) -> rusqlite::Result<Run> {
    let verdict: Option<String> = row.get(5)?;
    let phase: String = row.get(7)?;
    let timeline: String = row.get(11)?;
    Ok(Run {
        repeat: row.get(1)?,
        attempt: row.get(2)?,
        folder: row.get(3)?,
        started: row.get(4)?,
        verdict: verdict
            .and_then(|name| VerdictKind::ALL.iter().copied().find(|v| v.name() == name)),
        reason: row.get(6)?,
        phase: Phase::ALL.into_iter().find(|p| p.name() == phase).unwrap_or_default(),
        signature: row.get(8)?,
        bug: None,
        wall_ms: u64::try_from(row.get::<_, i64>(9)?).unwrap_or(0),
        decided_ms: u64::try_from(row.get::<_, i64>(10)?).unwrap_or(0),
        timeline: serde_json::from_str(&timeline).unwrap_or_default(),
    })
}

fn wrap<'a>(doing: &'static str, path: &'a Path) -> impl Fn(rusqlite::Error) -> StoreError + 'a {
    move |source| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full { path: path.to_owned() },
        _ => StoreError::Database { doing, path: path.to_owned(), source },
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A process, told from another one that got its number later.
#[derive(Debug)]
struct Process {
    pid: i64,
    /// Clock ticks from the boot of the host to its start.
    started: i64,
    /// Identity of the host's boot.
    boot: String,
}

impl Process {
    fn this() -> Process {
        let pid = i64::from(std::process::id());
        Process { pid, started: start_of(pid).unwrap_or(0), boot: boot_identity() }
    }

    fn lives(&self, heard: u64) -> bool {
        if self.boot == boot_identity() {
            return start_of(self.pid) == Some(self.started);
        }
        let age = u64::try_from(now()).unwrap_or(0).saturating_sub(heard);
        age < SILENCE
    }
}

fn boot_identity() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold blanks and parentheses.
fn start_of(pid: i64) -> Option<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // A zombie holds nothing any more.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cell: &str, repeat: u32) -> RunKey {
        RunKey { cell: cell.into(), repeat, attempt: 1 }
    }

    fn healthy() -> Run {
        Run {
            verdict: Some(VerdictKind::Booted),
            phase: Phase::Shutdown,
            timeline: vec![(Phase::Init, 3)],
            ..Run::default()
        }
    }

    fn all(store: &Store) -> Vec<(String, Run)> {
        let mut runs = Vec::new();
        store.for_each(|cell, run| runs.push((cell, run))).unwrap();
        runs
    }

    #[test]
    fn a_run_is_claimed_once_and_done_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Store::create(dir.path(), &[("plan", "x")]).unwrap();
        let two = Store::open(dir.path()).unwrap();
        assert_eq!(two.meta("plan").unwrap().as_deref(), Some("x"));
        assert!(one.claim(&key("a", 1), "f").unwrap());
        assert!(!two.claim(&key("a", 1), "f").unwrap());
        assert_eq!(two.runs_of_others().unwrap(), 1);
        assert!(all(&two).is_empty());
        one.finish(&[(key("a", 1), healthy())]).unwrap();
        let sick = Run { verdict: Some(VerdictKind::Panicked), ..Run::default() };
        one.finish(&[(key("a", 1), sick)]).unwrap();
        let runs = all(&two);
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].1.verdict, Some(VerdictKind::Booted));
        assert_eq!(runs[0].1.timeline, [(Phase::Init, 3)]);
        assert!(!two.claim(&key("a", 1), "f").unwrap());
    }

    #[test]
    fn the_claims_of_the_dead_are_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &[]).unwrap();
        assert!(store.claim(&key("a", 1), "f").unwrap());
        assert!(store.orphans().unwrap().is_empty(), "we live");
        // Somebody with our number, but another start.
        store.connection.execute("UPDATE owners SET started = started - 1", []).unwrap();
        let two = Store::open(dir.path()).unwrap();
        let three = Store::open(dir.path()).unwrap();
        let orphans = two.orphans().unwrap();
        assert_eq!(orphans, [Orphan { key: key("a", 1), folder: "f".into() }]);
        assert!(two.take_over(&orphans[0]).unwrap());
        assert!(!three.take_over(&orphans[0]).unwrap());
        two.abandon(&key("a", 1)).unwrap();
        assert!(three.claim(&key("a", 1), "f").unwrap());
    }

    #[test]
    fn an_owner_far_away_is_gone_after_a_silence() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &[]).unwrap();
        store.claim(&key("a", 1), "f").unwrap();
        store.connection.execute("UPDATE owners SET boot = 'elsewhere'", []).unwrap();
        let two = Store::open(dir.path()).unwrap();
        assert!(two.orphans().unwrap().is_empty());
        store.connection.execute("UPDATE owners SET heard = heard - 61 WHERE id = 1", []).unwrap();
        assert_eq!(two.orphans().unwrap().len(), 1);
    }

    #[test]
    fn folders_are_not_mixed_up() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Missing { .. })));
        Store::create(dir.path(), &[]).unwrap();
        assert!(matches!(Store::create(dir.path(), &[]), Err(StoreError::Occupied { .. })));
        let names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert!(names.iter().all(|n| n.starts_with(STORE_FILE)), "{names:?}");
    }
}
