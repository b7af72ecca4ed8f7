//! Gets the source of a kernel: from a Debian package, installed or downloaded, or out of git.
//!
//! Trees are kept below the cache folder and are put into place whole, so that a run that is killed leaves
//! nothing half done. Nothing is installed. Main functions: [`debian`], [`git`], [`release`].

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

/// Where Debian's packages of Linux' source put their tarball.
const INSTALLED: &str = "/usr/src";
/// Most bytes that are unpacked; Linux 6.1 has 1.3 GB.
const MOST_UNPACKED: u64 = 8 << 30;
/// Most that is kept of what a program says on its standard error.
const MOST_SAID: usize = 2 << 10;

/// A tree that was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its top.
    pub tree: PathBuf,
    /// Where it is from, in a few words.
    pub from: String,
}

/// Why there is no tree.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A file could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be run.
    #[error("cannot run {program} to get {what}; {instead}")]
    Missing {
        /// The program.
        program: &'static str,
        /// What was wanted.
        what: String,
        /// What to do.
        instead: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A program failed.
    #[error("{program} cannot get {what}: {said}; {instead}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What was wanted.
        what: String,
        /// What it said.
        said: String,
        /// What to do.
        instead: &'static str,
    },
    /// The archive is not what it should be.
    #[error("{archive} holds no kernel source: {reason}")]
    NoSource {
        /// The archive.
        archive: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> FetchError + 'a {
    move |source| FetchError::Io { doing, path: path.to_owned(), source }
}

const NAME_A_FOLDER: &str = "name the folder of a kernel tree instead";

/// The release that a tree says it is: `6.1.192`; none where its Makefile does not say.
pub fn release(tree: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(tree.join("Makefile")).ok()?.take(64 << 10).read_to_string(&mut text).ok()?;
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?.trim_start().strip_prefix('=')?;
            Some(rest.trim().to_owned())
        })
    };
    let (version, patch) = (value("VERSION")?, value("PATCHLEVEL")?);
    let sublevel = value("SUBLEVEL").filter(|s| !s.is_empty());
    let extra = value("EXTRAVERSION").unwrap_or_default();
    let sublevel = sublevel.map_or(String::new(), |s| format!(".{s}"));
    Some(format!("{version}.{patch}{sublevel}{extra}"))
}

/// The tree of a Debian package such as `linux-source-6.1`: the one that is installed, else one that was
/// downloaded before, else it is downloaded with apt-get.
pub fn debian(
    package: &str,
    cache: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Fetched, FetchError> {
    debian_in(Path::new(INSTALLED), package, cache, note)
}

fn debian_in(
    installed: &Path,
    package: &str,
    cache: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Fetched, FetchError> {
    let sources = cache.join("sources");
    let tarball = installed.join(format!("{package}.tar.xz"));
    if let Ok(meta) = fs::metadata(&tarball) {
        use std::os::unix::fs::MetadataExt;
        // An update of the package is another tree.
        let target = sources.join(format!("{package}-{:x}-{:x}", meta.size(), meta.mtime()));
        let from = tarball.display().to_string();
        if !target.is_dir() {
            note(&format!("unpacking {from}"));
            let file = File::open(&tarball).map_err(io("open", &tarball))?;
            unpack(BufReader::new(file), &tarball, &target)?;
        }
        return Ok(Fetched { tree: target, from });
    }
    if let Some(tree) = downloaded(&sources, package) {
        let from = format!("Debian's {}", tree.file_name().unwrap_or_default().to_string_lossy());
        return Ok(Fetched { tree, from });
    }
    fs::create_dir_all(&sources).map_err(io("make", &sources))?;
    let aside = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(&sources)
        .map_err(io("make a folder in", &sources))?;
    note(&format!("downloading Debian's package {package}"));
    download(package, aside.path())?;
    let deb = fs::read_dir(aside.path())
        .map_err(io("read", aside.path()))?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"))
        .ok_or_else(|| FetchError::NoSource {
            archive: aside.path().to_owned(),
            reason: "apt-get left no package in it",
        })?;
    // linux-source-6.1_6.1.192-2_all.deb
    let stem = deb.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.rsplit_once('_').map_or(&*stem, |(name, _)| name).to_owned();
    let target = sources.join(&name);
    note(&format!("unpacking {name}"));
    unpack_package(&deb, package, &target)?;
    Ok(Fetched { tree: target, from: format!("Debian's {name}") })
}

/// The newest tree of a package that was downloaded before.
fn downloaded(sources: &Path, package: &str) -> Option<PathBuf> {
    let prefix = format!("{package}_");
    let found = fs::read_dir(sources).ok()?.flatten().filter(|entry| {
        entry.file_name().to_string_lossy().starts_with(&prefix) && entry.path().is_dir()
    });
    let when = |e: &fs::DirEntry| e.metadata().and_then(|m| m.modified()).ok();
    found.max_by_key(when).map(|e| e.path())
}

fn download(package: &str, into: &Path) -> Result<(), FetchError> {
    // apt drops its rights for a user who may not write into a private folder.
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]);
    run(command.current_dir(into), "apt-get", package)
}

fn run(command: &mut Command, program: &'static str, what: &str) -> Result<(), FetchError> {
    let output = command.stdin(Stdio::null()).output().map_err(|source| FetchError::Missing {
        program,
        what: what.to_owned(),
        instead: NAME_A_FOLDER,
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let said: String = said.join("; ").chars().take(MOST_SAID).collect();
    Err(FetchError::Failed { program, what: what.to_owned(), said, instead: NAME_A_FOLDER })
}

/// Unpacks the tarball inside a Debian package. See deb(5).
fn unpack_package(deb: &Path, package: &str, target: &Path) -> Result<(), FetchError> {
    let none = |reason| FetchError::NoSource { archive: deb.to_owned(), reason };
    let file = File::open(deb).map_err(io("open", deb))?;
    let mut archive = ar::Archive::new(BufReader::new(file));
    while let Some(entry) = archive.next_entry() {
        let entry = entry.map_err(io("read", deb))?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        let data: Box<dyn Read> = match name.trim_end_matches('/') {
            "data.tar" => Box::new(entry),
            "data.tar.xz" => Box::new(lzma_rust2::XzReader::new(entry, true)),
            other if other.starts_with("data.tar") => {
                return Err(none("its data is packed in a way that kolumbo does not know"));
            }
            _ => continue,
        };
        let wanted = format!("{package}.tar.xz");
        let mut tar = tar::Archive::new(data);
        for entry in tar.entries().map_err(io("read", deb))? {
            let entry = entry.map_err(io("read", deb))?;
            let path = entry.path().map_err(io("read", deb))?.into_owned();
            if path.file_name().is_some_and(|n| n == wanted.as_str()) {
                return unpack(entry, deb, target);
            }
        }
        return Err(none("the tarball is not in it"));
    }
    Err(none("it has no data"))
}

/// Unpacks a tree from xz-compressed bytes and puts it at `target`.
fn unpack(packed: impl Read, archive: &Path, target: &Path) -> Result<(), FetchError> {
    unpack_tar(lzma_rust2::XzReader::new(packed, true), archive, target)
}

fn unpack_tar(data: impl Read, archive: &Path, target: &Path) -> Result<(), FetchError> {
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).map_err(io("make", parent))?;
    let aside = tempfile::Builder::new()
        .prefix(".unpack-")
        .tempdir_in(parent)
        .map_err(io("make a folder in", parent))?;
    let mut tar = tar::Archive::new(data.take(MOST_UNPACKED));
    // Nothing is unpacked outside of `aside`, whatever the archive says.
    tar.unpack(aside.path()).map_err(io("unpack", archive))?;
    let mut tops = fs::read_dir(aside.path()).map_err(io("read", aside.path()))?.flatten();
    let top = match (tops.next(), tops.next()) {
        (Some(one), None) => one.path(),
        _ => aside.path().to_owned(),
    };
    if !top.join("Makefile").is_file() {
        return Err(FetchError::NoSource {
            archive: archive.to_owned(),
            reason: "there is no Makefile at its top",
        });
    }
    match fs::rename(&top, target) {
        Ok(()) => Ok(()),
        // Somebody else was faster.
        Err(_) if target.is_dir() => Ok(()),
        Err(source) => Err(io("put into place", target)(source)),
    }
}

/// The tree of a tag, branch or commit of a repository, which is only read.
pub fn git(
    repository: &Path,
    tag: &str,
    cache: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Fetched, FetchError> {
    let what = format!("{tag} of {}", repository.display());
    let failed = |said: String| FetchError::Failed {
        program: "git",
        what: what.clone(),
        said,
        instead: NAME_A_FOLDER,
    };
    let missing = |source| FetchError::Missing {
        program: "git",
        what: what.clone(),
        instead: NAME_A_FOLDER,
        source,
    };
    let in_repository = || {
        let mut command = Command::new("git");
        command.arg("-C").arg(repository).stdin(Stdio::null());
        command
    };
    let revision = format!("{tag}^{{commit}}");
    let output = in_repository()
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options", &revision])
        .output()
        .map_err(missing)?;
    let commit = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let is_hash = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    if !output.status.success() || !is_hash {
        return Err(failed("there is no such commit".to_owned()));
    }
    let target = cache.join("sources").join(format!("git-{commit}"));
    let from = format!("{tag} ({})", &commit[..12]);
    if !target.is_dir() {
        note(&format!("taking {what} out of git"));
        let mut child = in_repository()
            .args(["archive", "--format=tar", "--prefix=linux/", &commit])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(missing)?;
        let unpacked = match child.stdout.take() {
            Some(stdout) => unpack_tar(BufReader::new(stdout), repository, &target),
            None => Err(failed("it has no output".to_owned())),
        };
        let status = child.wait().map_err(missing)?;
        unpacked?;
        if !status.success() {
            return Err(failed(format!("it ended with {status}")));
        }
    }
    Ok(Fetched { tree: target, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 7\nEXTRAVERSION = -rc1\n";

    fn tarball(dir: &Path, name: &str, entries: &[(&str, &str)]) -> PathBuf {
        let packed = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1));
        let mut tar = tar::Builder::new(packed.unwrap());
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(1_600_000_000);
            let field = &mut header.as_old_mut().name;
            field[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            tar.append(&header, text.as_bytes()).unwrap();
        }
        let bytes = tar.into_inner().unwrap().finish().unwrap();
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn what_is_installed_is_used_and_unpacked_once() {
        let dir = tempfile::tempdir().unwrap();
        let (installed, cache) = (dir.path().join("src"), dir.path().join("cache"));
        fs::create_dir(&installed).unwrap();
        let name = "linux-source-6.1";
        let entries = [("linux/Makefile", MAKEFILE), ("linux/a/b.c", "int b;\n")];
        tarball(&installed, "linux-source-6.1.tar.xz", &entries);
        let mut notes = Vec::new();
        let mut note = |text: &str| notes.push(text.to_owned());
        let first = debian_in(&installed, name, &cache, &mut note).unwrap();
        let again = debian_in(&installed, name, &cache, &mut note).unwrap();
        assert_eq!(first, again);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(release(&first.tree).unwrap(), "6.1.7-rc1");
        assert_eq!(fs::read_to_string(first.tree.join("a/b.c")).unwrap(), "int b;\n");
        // The fingerprint of a tree goes by times: the same archive gives the same tree.
        let time = fs::metadata(first.tree.join("a/b.c")).unwrap().modified().unwrap();
        let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds, 1_600_000_000);
    }

    #[test]
    fn hostile_and_damaged_archives_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (installed, cache) = (dir.path().join("src"), dir.path().join("cache"));
        fs::create_dir(&installed).unwrap();
        let name = "linux-source-6.1";
        let left = || fs::read_dir(cache.join("sources")).unwrap().count();
        let climbing = [("linux/Makefile", MAKEFILE), ("linux/../../../../evil", "x")];
        let path = tarball(&installed, "linux-source-6.1.tar.xz", &climbing);
        let tree = debian_in(&installed, name, &cache, &mut |_| {}).unwrap().tree;
        assert!(!dir.path().join("evil").exists() && !cache.join("evil").exists());
        fs::remove_dir_all(tree).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(debian_in(&installed, name, &cache, &mut |_| {}).is_err());
        assert_eq!(left(), 0);
        tarball(&installed, "linux-source-6.1.tar.xz", &[("linux/README", "x")]);
        let error = debian_in(&installed, name, &cache, &mut |_| {}).unwrap_err();
        assert!(matches!(error, FetchError::NoSource { .. }), "{error}");
        assert_eq!(left(), 0);
    }

    #[test]
    fn a_package_is_unpacked_through_both_of_its_archives() {
        let dir = tempfile::tempdir().unwrap();
        let inner = tarball(dir.path(), "inner", &[("linux/Makefile", MAKEFILE)]);
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        let bytes = fs::read(inner).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "./usr/src/linux-source-6.1.tar.xz", &bytes[..]).unwrap();
        let data = tar.into_inner().unwrap();
        let deb = dir.path().join("linux-source-6.1_6.1.7-1_all.deb");
        let mut archive = ar::Builder::new(File::create(&deb).unwrap());
        for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("data.tar", &data[..])] {
            archive.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
        }
        drop(archive);
        let target = dir.path().join("sources/linux-source-6.1_6.1.7-1");
        unpack_package(&deb, "linux-source-6.1", &target).unwrap();
        assert_eq!(release(&target).unwrap(), "6.1.7-rc1");
        assert_eq!(downloaded(&dir.path().join("sources"), "linux-source-6.1"), Some(target));
        assert_eq!(downloaded(&dir.path().join("sources"), "linux-source-6"), None);
    }

    #[test]
    fn a_tag_is_taken_out_of_git() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("repo");
        fs::create_dir(&repository).unwrap();
        fs::write(repository.join("Makefile"), MAKEFILE).unwrap();
        let git_says = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(&repository).args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@b.c",
            ]);
            command.args(arguments).output().is_ok_and(|o| o.status.success())
        };
        if !git_says(&["init", "-q"]) {
            assert_ne!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref(), Ok("1"), "git");
            return;
        }
        assert!(git_says(&["add", "-A"]) && git_says(&["commit", "-qm", "one"]));
        assert!(git_says(&["tag", "v6.1-rc1"]));
        let cache = dir.path().join("cache");
        let fetched = git(&repository, "v6.1-rc1", &cache, &mut |_| {}).unwrap();
        assert_eq!(release(&fetched.tree).unwrap(), "6.1.7-rc1");
        let error = git(&repository, "--output=x", &cache, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("no such commit"), "{error}");
    }
}
