//! The files that go into a run: where they are, what they are, what they hash to.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kolumbo_case::file::InputFile;
use sha2::{Digest, Sha256};

use crate::boot::BootError;

/// `FILE.ko a=1 b=2`: the file, and the parameters behind the first blank. A file whose name has
/// blanks is taken as it is when it exists.
pub fn split_module(given: &str) -> (&Path, &str) {
    match given.split_once(' ') {
        Some((path, parameters)) if !Path::new(given).exists() => {
            (Path::new(path), parameters.trim())
        }
        _ => (Path::new(given), ""),
    }
}

/// The program of `--exec`: a path, or a name that is looked up in `$PATH`.
pub fn program_path(given: &str) -> PathBuf {
    if given.contains('/') {
        return PathBuf::from(given);
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join(given))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(given))
}

/// Fails for what cannot be an initramfs, before QEMU is started.
pub(crate) fn check_initrd(path: &Path) -> Result<(), BootError> {
    let refuse = |reason: String| BootError::Initrd { path: path.to_owned(), reason };
    let meta = std::fs::metadata(path).map_err(|e| refuse(e.to_string()))?;
    if !meta.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    if meta.len() == 0 {
        return Err(refuse("it is empty".to_owned()));
    }
    Ok(())
}

/// Whether QEMU ended because of the kernel or the initramfs that it was given. The texts are those
/// of hw/i386/x86.c and hw/core/loader.c.
pub(crate) fn loader_refused(stderr: &str) -> bool {
    let stderr = stderr.to_ascii_lowercase();
    [
        "could not load kernel",
        "error loading uncompressed kernel",
        "invalid kernel header",
        "linux kernel too old",
        "could not open kernel",
        "kernel does not support",
        "initrd is too large",
        "unable to load kernel",
    ]
    .iter()
    .any(|text| stderr.contains(text))
}

/// A file as it was when it was hashed: device, inode, size, time of its last change in nanoseconds.
type Stamp = (u64, u64, u64, i64);

/// What was hashed last. The runs of a table share their files, and hashing a kernel takes as long
/// as looking at a guest some ten times.
static HASHED: Mutex<VecDeque<(Stamp, InputFile)>> = Mutex::new(VecDeque::new());

/// How many hashes are kept.
const MOST_HASHED: usize = 64;

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let meta = std::fs::metadata(path)?;
    let changed = meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec());
    Ok((meta.dev(), meta.ino(), meta.len(), changed))
}

/// Whether a later change of the file has to show in its stamp: file systems count in ticks of some
/// milliseconds, so that a file that just changed can change again and keep its time.
fn is_old((.., changed): Stamp) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    i128::from(changed) + 1_000_000_000 < i128::try_from(now).unwrap_or(i128::MAX)
}

/// As [`hash`], once for a file that does not change.
fn hash_once(role: &str, path: &Path) -> std::io::Result<InputFile> {
    let now = stamp(path)?;
    let name = |file: &InputFile| InputFile {
        role: role.to_owned(),
        path: path.display().to_string(),
        ..file.clone()
    };
    let known = |hashed: &VecDeque<(Stamp, InputFile)>| {
        hashed.iter().find(|(stamp, _)| *stamp == now).map(|(_, file)| name(file))
    };
    if let Some(file) = known(&HASHED.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(file);
    }
    let file = hash(role, path)?;
    let mut hashed = HASHED.lock().unwrap_or_else(PoisonError::into_inner);
    if stamp(path)? == now && is_old(now) && known(&hashed).is_none() {
        hashed.truncate(MOST_HASHED - 1);
        hashed.push_front((now, file.clone()));
    }
    Ok(file)
}

/// Hashes files on a thread of its own; the iterator waits for it.
pub(crate) fn hash_in_background(
    files: Vec<(&'static str, PathBuf)>,
) -> impl Iterator<Item = InputFile> {
    let worker = std::thread::spawn(move || {
        files.into_iter().filter_map(|(role, path)| hash_once(role, &path).ok()).collect::<Vec<_>>()
    });
    std::iter::once_with(move || worker.join().unwrap_or_default()).flatten()
}

/// Keeps `bytes` in `dir` under their hash and returns the file.
pub fn store_by_hash(dir: &Path, bytes: &[u8], extension: &str) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let name: String = Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let path = dir.join(format!("{name}.{extension}"));
    if !path.exists() {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        file.persist(&path).map_err(|e| e.error)?;
    }
    Ok(path)
}

/// Size and hash of a file.
pub(crate) fn hash(role: &str, path: &Path) -> std::io::Result<InputFile> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0u8; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            n => {
                digest.update(&chunk[..n]);
                size += n as u64;
            }
        }
    }
    let sha256 = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(InputFile { role: role.to_owned(), path: path.display().to_string(), size, sha256 })
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error says what its source says.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A time as RFC 3339 in UTC, to the second.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |y: u64| (y.is_multiple_of(4) && !y.is_multiple_of(100)) || y.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_is_hashed_again_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut hashes = Vec::new();
        for (role, text) in [("kernel", "a"), ("kernel", "b"), ("initrd", "b")] {
            if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                std::fs::write(&path, text).unwrap();
            }
            let file = hash_once(role, &path).unwrap();
            assert_eq!(file, hash(role, &path).unwrap());
            hashes.push(file.sha256);
        }
        assert_ne!(hashes[0], hashes[1]);
        assert!(is_old((0, 0, 0, 0)) && !is_old((0, 0, 0, i64::MAX)));
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn a_module_may_have_parameters() {
        assert_eq!(split_module("a.ko"), (Path::new("a.ko"), ""));
        assert_eq!(split_module("/x/a.ko how=spin n=2"), (Path::new("/x/a.ko"), "how=spin n=2"));
    }

    #[test]
    fn the_loaders_words_are_known() {
        assert!(loader_refused("qemu: could not load kernel 'x': Exec format error"));
        assert!(loader_refused("Error loading uncompressed kernel without PVH ELF Note"));
        assert!(!loader_refused("Failed to get shared \"write\" lock"));
    }
}
