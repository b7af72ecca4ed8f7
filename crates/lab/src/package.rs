//! Kernel packages of Debian: unpacked into a cache folder, never installed.
//!
//! Takes what a boot needs (`/boot` and the debug vmlinux) and nothing else. No program is run and
//! no path of the archive is trusted. See deb(5) for the format.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Most bytes that are unpacked; a debug vmlinux has some 600 MB.
const MAX_UNPACKED: u64 = 4 << 30;

/// Why a package cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The system refused, or the archive is damaged.
    #[error("cannot unpack {path}: {doing}")]
    Io {
        /// The package.
        path: PathBuf,
        /// What was being done.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// There is no data in it.
    #[error("cannot unpack {path}: it has no data.tar in a compression that kolumbo knows")]
    NoData {
        /// The package.
        path: PathBuf,
    },
}

/// Whether the file is a Debian package, by its first bytes.
pub fn is_package(path: &Path) -> bool {
    let mut start = [0u8; 21];
    let read = File::open(path).and_then(|mut f| f.read_exact(&mut start));
    read.is_ok() && &start == b"!<arch>\ndebian-binary"
}

/// Unpacks the parts that a boot needs below `cache` and returns the folder. What was unpacked
/// before is used again.
pub fn unpack(package: &Path, cache: &Path) -> Result<PathBuf, PackageError> {
    let fail = |doing: &str| {
        let doing = doing.to_owned();
        move |source| PackageError::Io { path: package.to_owned(), doing, source }
    };
    let meta = fs::metadata(package).map_err(fail("reading it"))?;
    let modified = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |d| d.as_nanos());
    let stem = package.file_stem().unwrap_or_default().to_string_lossy();
    let target = cache.join("packages").join(format!("{stem}-{}-{modified:x}", meta.len()));
    if target.is_dir() {
        return Ok(target);
    }
    let parent = target.parent().unwrap_or(cache);
    fs::create_dir_all(parent).map_err(fail("making the cache folder"))?;
    // Unpacked aside and renamed, so that a run that is killed leaves nothing half done in place.
    let aside = tempfile::Builder::new()
        .prefix(".unpack-")
        .tempdir_in(parent)
        .map_err(fail("making a folder"))?;
    let file = File::open(package).map_err(fail("opening it"))?;
    let mut archive = ar::Archive::new(io::BufReader::new(file));
    let mut found = false;
    while let Some(entry) = archive.next_entry() {
        let entry = entry.map_err(fail("reading the ar archive"))?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        let data: Box<dyn Read> = match name.trim_end_matches('/') {
            "data.tar" => Box::new(entry),
            "data.tar.gz" => Box::new(flate2::read::GzDecoder::new(entry)),
            "data.tar.xz" => Box::new(lzma_rust2::XzReader::new(entry, true)),
            "data.tar.zst" => Box::new(
                ruzstd::decoding::StreamingDecoder::new(entry)
                    .map_err(|e| fail("reading data.tar.zst")(io::Error::other(e.to_string())))?,
            ),
            _ => continue,
        };
        found = true;
        unpack_tar(data, aside.path()).map_err(fail("reading its data.tar"))?;
        break;
    }
    if !found {
        return Err(PackageError::NoData { path: package.to_owned() });
    }
    match fs::rename(aside.path(), &target) {
        Ok(()) => {
            let _ = aside.keep();
            Ok(target)
        }
        // Somebody else was faster.
        Err(_) if target.is_dir() => Ok(target),
        Err(source) => Err(fail("putting it into place")(source)),
    }
}

fn unpack_tar(data: impl Read, target: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(data.take(MAX_UNPACKED));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(inside) = wanted(&path) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let to = target.join(inside);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        io::copy(&mut entry, &mut File::create(to)?)?;
    }
    Ok(())
}

/// The path below the target, for what a boot needs; nothing that climbs out of it.
fn wanted(path: &Path) -> Option<PathBuf> {
    let parts: Option<Vec<&std::ffi::OsStr>> = path
        .components()
        .filter(|c| !matches!(c, Component::CurDir | Component::RootDir))
        .map(|c| match c {
            Component::Normal(part) => Some(part),
            _ => None,
        })
        .collect();
    let inside: PathBuf = parts?.into_iter().collect();
    let name = inside.file_name()?.to_string_lossy().into_owned();
    let debug = inside.starts_with("usr/lib/debug") && name.starts_with("vmlinux");
    (inside.starts_with("boot") || debug).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(dir: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // set_path refuses what a hostile archive would hold.
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let path = dir.join("linux-image.deb");
        let mut ar = ar::Builder::new(File::create(&path).unwrap());
        for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("data.tar", &tar[..])] {
            ar.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
        }
        drop(ar);
        path
    }

    #[test]
    fn only_what_a_boot_needs_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(
            dir.path(),
            &[
                ("./boot/vmlinuz-6.1", b"kernel"),
                ("./usr/share/doc/x", b"doc"),
                ("./boot/../../../evil", b"evil"),
                ("/boot/System.map-6.1", b"map"),
            ],
        );
        assert!(is_package(&deb));
        let cache = dir.path().join("cache");
        let out = unpack(&deb, &cache).unwrap();
        assert_eq!(fs::read(out.join("boot/vmlinuz-6.1")).unwrap(), b"kernel");
        assert_eq!(fs::read(out.join("boot/System.map-6.1")).unwrap(), b"map");
        assert!(!out.join("usr").exists() && !dir.path().join("evil").exists());
        assert_eq!(unpack(&deb, &cache).unwrap(), out);
    }

    #[test]
    fn a_damaged_package_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path(), &[("./boot/vmlinuz-6.1", &[b'k'; 4096])]);
        let bytes = fs::read(&deb).unwrap();
        fs::write(&deb, &bytes[..bytes.len() / 2]).unwrap();
        let cache = dir.path().join("cache");
        assert!(unpack(&deb, &cache).is_err());
        assert_eq!(fs::read_dir(cache.join("packages")).unwrap().count(), 0);
    }
}
