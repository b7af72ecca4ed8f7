//! From the argument that names a log to its bytes.
//!
//! Decides which files stand behind a folder: the console of a case, or the records of fs/pstore. May not know what
//! the bytes say. Main function: [`for_each_piece`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kolumbo_case::Gap;

/// Bytes that are read at once: large enough for the disk, small enough for the cache.
const PIECE: usize = 256 * 1024;

/// The ending of records that the running kernel could not unpack.
const PACKED: &str = ".enc.z";

/// Hands out what is read for an argument: a file, standard input for `-`, the console of a case folder, or the
/// records in a folder of fs/pstore one after the other. `take` says whether it wants more.
///
/// # Errors
/// What cannot be opened or read.
pub(crate) fn for_each_piece(argument: &Path, take: &mut impl FnMut(&[u8]) -> bool) -> Result<()> {
    if argument.as_os_str() == "-" {
        return pour(&mut std::io::stdin().lock(), take).context("reading standard input");
    }
    let records = records(argument);
    let is_folder = !records.is_empty();
    if let Some(gap) =
        still_packed(argument).filter(|_| !is_folder && !argument.join("console.log").exists())
    {
        bail!("nothing to read in {}: {}", argument.display(), gap.what);
    }
    let console = || match argument.is_dir() {
        true => vec![argument.join("console.log")],
        false => vec![argument.to_owned()],
    };
    for path in if is_folder { records } else { console() } {
        let mut file = File::open(&path).with_context(|| {
            format!(
                "opening {}: name a log, a mail, a case folder or a folder of pstore, or - for standard input",
                path.display()
            )
        })?;
        let mut last = b'\n';
        let mut more = true;
        pour(&mut file, &mut |piece| {
            last = *piece.last().unwrap_or(&last);
            more = take(piece);
            more
        })
        .with_context(|| format!("reading {}", path.display()))?;
        // Whatever a record ends with, the heading of the next one begins a line.
        if is_folder && last != b'\n' {
            more &= take(b"\n");
        }
        if !more {
            break;
        }
    }
    Ok(())
}

/// The records of a folder of fs/pstore in the order of their numbers; none for anything else, and for a case folder.
pub(crate) fn records(folder: &Path) -> Vec<PathBuf> {
    match folder.join("console.log").exists() {
        true => Vec::new(),
        false => records_in(folder, |name| !name.ends_with(PACKED)),
    }
}

/// A word about records that only a kernel can unpack.
pub(crate) fn still_packed(folder: &Path) -> Option<Gap> {
    let packed = records_in(folder, |name| name.ends_with(PACKED)).len();
    let what = format!(
        "{packed} of the records of pstore are still packed ({PACKED}): the kernel that mounts pstore unpacks them"
    );
    (packed > 0).then_some(Gap { what, span: None })
}

/// Records of dumps (`dmesg-BACKEND-ID`) whose names are wanted.
fn records_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(u128, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (_, id) = name.strip_prefix("dmesg-")?.split_once('-')?;
            let digits = id.split('.').next().unwrap_or_default();
            let number = digits.parse().unwrap_or(u128::MAX);
            wanted(&name).then(|| (number, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn pour(from: &mut impl Read, take: &mut impl FnMut(&[u8]) -> bool) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) if take(&piece[..n]) => {}
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
