//! From the kernels of a case to builds.
//!
//! Checks everything that can be checked before the first build (compilers, edits, configurations), then
//! builds one after the other. All builds go through `kolumbo_source`. Main functions: [`check`], [`make`].

use std::fs;
use std::path::{Path, PathBuf};

use kolumbo_case::BuildFailure;
use kolumbo_case::casebook::KernelRun;
use kolumbo_source::build::toolchain::Toolchain;
use kolumbo_source::build::tree::{self, Edit, TreeError};
use kolumbo_source::build::{self, BuildError, Observer, Request};
use kolumbo_source::fetch::{self, FetchError, Fetched};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::file::CaseError;
use crate::image;
use crate::recipe::{Built, KernelWanted, Recipe, SourceEdit, SourceWanted};
use crate::shelf::fragment_of;

/// Largest image that is edited.
const LARGEST_IMAGE: u64 = 2 << 30;
/// What lies beside an image and goes along with it.
const BESIDE: &[&str] = &["System.map", ".config"];

/// Why the kernels of a case cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelsError {
    /// What the case says does not fit the source or the host.
    #[error(transparent)]
    Case(#[from] CaseError),
    /// There is no source.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A build failed for its source or configuration.
    #[error("kernel '{kernel}' cannot be built: {failure}; the whole output is in {log}",
            failure = one_line(failure))]
    Failed {
        /// Which kernel.
        kernel: String,
        /// The first error.
        failure: Box<BuildFailure>,
        /// Everything that make printed.
        log: PathBuf,
    },
    /// A build could not be run.
    #[error("kernel '{kernel}' cannot be built")]
    Build {
        /// Which kernel.
        kernel: String,
        /// Why not.
        #[source]
        source: Box<BuildError>,
    },
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
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> KernelsError + 'a {
    move |source| KernelsError::Io { doing, path: path.to_owned(), source }
}

fn one_line(failure: &BuildFailure) -> String {
    match failure.file.as_str() {
        "" => failure.message.clone(),
        file => format!("{file}:{}: {}", failure.line, failure.message),
    }
}

/// The source that a case wants. `folder` is that of the case, for relative paths.
pub fn source(
    wanted: &SourceWanted,
    folder: Option<&Path>,
    cache: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Fetched, KernelsError> {
    let beside = |path: &Path| folder.map_or_else(|| path.to_owned(), |f| f.join(path));
    match (&wanted.debian, &wanted.folder, &wanted.git) {
        (Some(package), ..) => Ok(fetch::debian(package, cache, note)?),
        (_, Some(tree), _) => Ok(given(&beside(tree))),
        (.., Some((repository, tag))) => {
            Ok(fetch::git(&beside(Path::new(repository)), tag, cache, note)?)
        }
        _ => Err(CaseError {
            place: wanted.place.clone(),
            reason: "the case does not say where its source comes from; name a tree with --source"
                .into(),
        }
        .into()),
    }
}

/// A tree that the user named.
pub fn given(tree: &Path) -> Fetched {
    Fetched { tree: tree.to_owned(), from: tree.display().to_string() }
}

/// Where and how kernels are made.
#[derive(Debug, Clone)]
pub struct Workplace<'a> {
    /// The source.
    pub tree: &'a Path,
    /// A folder with the files of the case.
    pub files: &'a Path,
    /// Where builds are kept.
    pub cache: &'a Path,
    /// Jobs of make.
    pub jobs: usize,
    /// RFC 3339, for what is written down.
    pub started: &'a str,
}

impl Workplace<'_> {
    fn request(&self, built: &Built, edits: Vec<Edit>) -> Request {
        let config = built.config.iter().map(|part| match fragment_of(part) {
            Some(file) => {
                let plus = if part.starts_with('+') { "+" } else { "" };
                format!("{plus}{}", self.files.join(file).display())
            }
            None => part.clone(),
        });
        Request {
            source: self.tree.to_owned(),
            toolchain: built.toolchain.clone(),
            config: config.collect(),
            edits,
            targets: built.targets.clone(),
            out: None,
            shared: true,
            cache: self.cache.to_owned(),
            jobs: self.jobs,
            ccache: true,
            started: self.started.to_owned(),
        }
    }
}

/// The edits of a kernel, with what the case says of each.
fn edits_of<'r>(recipe: &'r Recipe, built: &Built) -> Vec<&'r SourceEdit> {
    built
        .edits
        .iter()
        .flat_map(|name| recipe.edits.iter().filter(move |e| e.name == *name))
        .collect()
}

fn as_edits(edits: &[&SourceEdit]) -> Vec<Edit> {
    let one = |e: &&SourceEdit| Edit {
        file: e.file.clone(),
        search: e.find.clone(),
        replace: e.replace.clone(),
    };
    edits.iter().map(one).collect()
}

/// Whether all kernels can be made of this tree on this host, as far as that can be told without a build.
/// Nothing is written.
pub fn check(recipe: &Recipe, tree: &Path) -> Result<(), KernelsError> {
    let release = fetch::release(tree)
        .map_or_else(|| "the tree".to_owned(), |release| format!("Linux {release}"));
    for kernel in &recipe.kernels {
        let Some(built) = &kernel.built else { continue };
        let at_kernel = |reason: String| CaseError { place: kernel.place.clone(), reason };
        let toolchain = Toolchain::find(&built.toolchain)
            .map_err(|e| at_kernel(format!("kernel '{}': {e}", kernel.name)))?;
        toolchain
            .must_suit(tree)
            .map_err(|e| at_kernel(format!("kernel '{}': {e}", kernel.name)))?;
        let edits = edits_of(recipe, built);
        if let Err(error) = tree::texts(tree, &as_edits(&edits)) {
            return Err(edit_error(&error, &edits, kernel, &release).into());
        }
    }
    Ok(())
}

fn edit_error(
    error: &TreeError,
    edits: &[&SourceEdit],
    kernel: &KernelWanted,
    release: &str,
) -> CaseError {
    let (number, what) = match error {
        TreeError::Edit { edit, file, count } => {
            let times = match count {
                0 => "not there".to_owned(),
                n => format!("there {n} times"),
            };
            (
                *edit,
                format!("its text must be in {} exactly once, and it is {times}", file.display()),
            )
        }
        TreeError::NoFile { edit, file, source } => {
            (*edit, format!("{} cannot be read: {source}", file.display()))
        }
        other => return CaseError { place: kernel.place.clone(), reason: other.to_string() },
    };
    let (name, place) = edits
        .get(number)
        .map_or(("", kernel.place.as_str()), |edit| (edit.name.as_str(), edit.place.as_str()));
    CaseError {
        place: place.to_owned(),
        reason: format!("the edit '{name}' does not apply to {release}: {what}"),
    }
}

/// Makes one kernel. `made` are those that were made before, with the folders that they lie in.
pub fn make(
    recipe: &Recipe,
    kernel: &KernelWanted,
    made: &[KernelRun],
    place: &Workplace<'_>,
    observer: &mut dyn Observer,
) -> Result<KernelRun, KernelsError> {
    match &kernel.built {
        Some(built) => compile(recipe, kernel, built, place, observer),
        None => patch(kernel, made, place),
    }
}

fn compile(
    recipe: &Recipe,
    kernel: &KernelWanted,
    built: &Built,
    place: &Workplace<'_>,
    observer: &mut dyn Observer,
) -> Result<KernelRun, KernelsError> {
    let edits = as_edits(&edits_of(recipe, built));
    let result = build::build(&place.request(built, edits), observer).map_err(|e| match e {
        BuildError::Failed { failure, log } => {
            KernelsError::Failed { kernel: kernel.name.clone(), failure, log }
        }
        other => KernelsError::Build { kernel: kernel.name.clone(), source: Box::new(other) },
    })?;
    Ok(KernelRun {
        name: kernel.name.clone(),
        about: kernel.about.clone(),
        compiler: format!("{} {}", result.file.toolchain.name, result.file.toolchain.version),
        release: result.file.release.clone(),
        edits: built.edits.clone(),
        folder: result.out.display().to_string(),
        image: result.file.image.clone().unwrap_or_default(),
        cached: result.cached,
        wall_ms: if result.cached { 0 } else { result.file.wall_ms },
    })
}

/// Edits the vmlinux of another kernel; the result is kept under the hash of what it is made of.
fn patch(
    kernel: &KernelWanted,
    made: &[KernelRun],
    place: &Workplace<'_>,
) -> Result<KernelRun, KernelsError> {
    let from = made.iter().find(|k| Some(&k.name) == kernel.from.as_ref()).ok_or_else(|| {
        CaseError { place: kernel.place.clone(), reason: "its kernel was not made".to_owned() }
    })?;
    let folder = Path::new(&from.folder);
    let vmlinux = folder.join("vmlinux");
    let large = fs::metadata(&vmlinux).map_err(io("open", &vmlinux))?.len() > LARGEST_IMAGE;
    if large {
        let reason = format!("{} is too large to be edited", vmlinux.display());
        return Err(CaseError { place: kernel.place.clone(), reason }.into());
    }
    let bytes = fs::read(&vmlinux).map_err(io("read", &vmlinux))?;
    let mut digest = Sha256::new();
    digest.update(&bytes);
    digest.update(format!("{:?}", without_places(kernel)));
    let key: String = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let images = place.cache.join("images");
    let target = images.join(&key[..16]);
    let cached = target.is_dir();
    if !cached {
        let bytes = image::edited(bytes, &kernel.image_edits)?;
        fs::create_dir_all(&images).map_err(io("make", &images))?;
        let aside = tempfile::Builder::new()
            .prefix(".edit-")
            .tempdir_in(&images)
            .map_err(io("make a folder in", &images))?;
        let to = aside.path().join("vmlinux");
        fs::write(&to, bytes).map_err(io("write", &to))?;
        for name in BESIDE {
            let from = folder.join(name);
            if from.is_file() {
                fs::copy(&from, aside.path().join(name)).map_err(io("copy", &from))?;
            }
        }
        match fs::rename(aside.path(), &target) {
            Ok(()) => {
                let _ = aside.keep();
            }
            // Somebody else was faster.
            Err(_) if target.is_dir() => {}
            Err(source) => return Err(io("put into place", &target)(source)),
        }
    }
    Ok(KernelRun {
        name: kernel.name.clone(),
        about: kernel.about.clone(),
        compiler: from.compiler.clone(),
        release: from.release.clone(),
        edits: vec![format!("the image of {}", from.name)],
        folder: target.display().to_string(),
        image: target.join("vmlinux").display().to_string(),
        cached,
        wall_ms: 0,
    })
}

/// What the edits of an image do, wherever they stand in the file.
fn without_places(kernel: &KernelWanted) -> Vec<(&[u8], &[u8], usize)> {
    let edits = kernel.image_edits.iter();
    edits.map(|e| (e.find.as_slice(), e.replace.as_slice(), e.hits)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::parse;

    const CASE: &str = r#"
title = "t"
[[edit]]
name = "defect"
file = "a.c"
find = "good"
replace = "bad"
[[kernel]]
name = "sick"
toolchain = "gcc"
config = ["+extra", "+A=y", "tinyconfig", "base.config"]
edits = ["defect"]
[[kernel]]
name = "patched"
from = "sick"
[[kernel.image-edit]]
find = "6261"
replace = "4241"
"#;

    fn gcc() -> bool {
        let there = Toolchain::find("gcc").is_ok();
        assert!(there || std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "gcc");
        there
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let makefile = "VERSION = 6\nPATCHLEVEL = 5\nSUBLEVEL =\nEXTRAVERSION = -rc2\n";
        fs::write(dir.path().join("Makefile"), makefile).unwrap();
        dir
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_place_before_anything_is_built() {
        if !gcc() {
            return;
        }
        let dir = tree();
        let recipe = parse("case.toml", CASE).unwrap();
        let says = |recipe: &Recipe| check(recipe, dir.path()).unwrap_err().to_string();
        let text = says(&recipe);
        assert!(
            text.starts_with("case.toml:3:1: the edit 'defect' does not apply to Linux 6.5-rc2: a.c cannot be read"),
            "{text}"
        );
        fs::write(dir.path().join("a.c"), "good good\n").unwrap();
        assert!(says(&recipe).ends_with("in a.c exactly once, and it is there 2 times"));
        fs::write(dir.path().join("a.c"), "bad\n").unwrap();
        assert!(says(&recipe).ends_with("in a.c exactly once, and it is not there"));
        fs::write(dir.path().join("a.c"), "good\n").unwrap();
        check(&recipe, dir.path()).unwrap();
        let other = parse("case.toml", &CASE.replace("\"gcc\"", "\"clang-99\"")).unwrap();
        let text = says(&other);
        assert!(text.starts_with("case.toml:8:1: kernel 'sick': no compiler 'clang-99'"), "{text}");
    }

    #[test]
    fn files_of_the_configuration_are_those_of_the_case() {
        let recipe = parse("case.toml", CASE).unwrap();
        let place = Workplace {
            tree: Path::new("/t"),
            files: Path::new("/run/case"),
            cache: Path::new("/c"),
            jobs: 1,
            started: "",
        };
        let built = recipe.kernels[0].built.as_ref().unwrap();
        let request = place.request(built, as_edits(&edits_of(&recipe, built)));
        let files = ["+/run/case/extra", "+A=y", "tinyconfig", "/run/case/base.config"];
        assert_eq!(request.config, files);
        assert_eq!(request.edits[0].replace, "bad");
    }

    #[test]
    fn an_image_is_edited_once_and_damage_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("built");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("vmlinux"), "xxbaxx").unwrap();
        fs::write(folder.join("System.map"), "map").unwrap();
        let recipe = parse("case.toml", CASE).unwrap();
        let made = KernelRun {
            name: "sick".to_owned(),
            folder: folder.display().to_string(),
            ..KernelRun::default()
        };
        let cache = dir.path().join("cache");
        let place =
            Workplace { tree: dir.path(), files: dir.path(), cache: &cache, jobs: 1, started: "" };
        let made = [made];
        let first = patch(&recipe.kernels[1], &made, &place).unwrap();
        assert_eq!(fs::read_to_string(&first.image).unwrap(), "xxBAxx");
        let map = Path::new(&first.folder).join("System.map");
        assert_eq!(fs::read_to_string(map).unwrap(), "map");
        assert!(!first.cached && patch(&recipe.kernels[1], &made, &place).unwrap().cached);
        fs::write(folder.join("vmlinux"), "baba").unwrap();
        let error = patch(&recipe.kernels[1], &made, &place).unwrap_err().to_string();
        assert_eq!(error, "case.toml:16:1: the bytes to find are in the image 2 times, not 1");
        assert_eq!(fs::read_dir(cache.join("images")).unwrap().count(), 1);
    }
}
