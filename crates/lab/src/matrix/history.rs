//! How long boots took before, so that the longest are started first.
//!
//! A small database in the cache folder, by hash of what is booted. Nothing depends on it: without
//! it the order is that of the table.

use std::path::Path;
use std::time::Duration;

use kolumbo_case::BootSpec;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

/// Name of the database in the cache folder.
const HISTORY_FILE: &str = "durations.db";
/// Entries that are kept; the oldest go first.
const MOST_ENTRIES: i64 = 50_000;

/// Durations of earlier boots.
#[derive(Debug)]
pub struct History {
    connection: Connection,
}

impl History {
    /// Opens or makes the history; none where that is not possible.
    pub fn open(cache: &Path) -> Option<History> {
        std::fs::create_dir_all(cache).ok()?;
        let connection = Connection::open(cache.join(HISTORY_FILE)).ok()?;
        connection.busy_timeout(Duration::from_millis(200)).ok()?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                 CREATE TABLE IF NOT EXISTS durations (
                     boot TEXT PRIMARY KEY, wall_ms INTEGER NOT NULL);",
            )
            .ok()?;
        Some(History { connection })
    }

    /// Milliseconds that this boot took the last time.
    pub fn expected_ms(&self, spec: &BootSpec) -> Option<u64> {
        let found: Option<i64> = self
            .connection
            .prepare_cached("SELECT wall_ms FROM durations WHERE boot = ?1")
            .and_then(|mut s| s.query_row([name(spec)], |row| row.get(0)).optional())
            .ok()?;
        u64::try_from(found?).ok()
    }

    /// Keeps how long a boot took. What goes wrong here is not worth a word.
    pub fn keep(&self, spec: &BootSpec, wall_ms: u64) {
        let wall_ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
        let _ = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO durations VALUES (?1, ?2)")
            .and_then(|mut s| s.execute(params![name(spec), wall_ms]));
        let _ = self
            .connection
            .prepare_cached(
                "DELETE FROM durations WHERE rowid <= (SELECT MAX(rowid) FROM durations) - ?1",
            )
            .and_then(|mut s| s.execute([MOST_ENTRIES]));
    }
}

fn name(spec: &BootSpec) -> String {
    let text = serde_json::to_vec(spec).unwrap_or_default();
    Sha256::digest(&text).iter().take(12).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_duration_counts() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let spec = BootSpec { smp: 2, ..BootSpec::default() };
        assert_eq!(history.expected_ms(&spec), None);
        history.keep(&spec, 5);
        history.keep(&spec, 7);
        assert_eq!(history.expected_ms(&spec), Some(7));
        assert_eq!(history.expected_ms(&BootSpec { smp: 3, ..spec }), None);
    }
}
