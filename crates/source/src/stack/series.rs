//! What a stack is: a range of commits, a quilt series, a folder of patches, or a mailbox.
//!
//! Decides what a name means. Patches in files become commits of a scratch repository, on the commit that
//! they were made for, so that all the rest works on commits. A patch that does not apply there stands
//! in the stack as an empty commit, and its text says what it is. Main type: [`Stack`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::git::{GitError, Repository};
use super::history::Files;
use super::mail::{self, Mail};
use super::scratch::Scratch;

/// Largest patch that is read.
const LARGEST: u64 = 64 << 20;
/// Most patches of a stack in files.
const MOST: usize = 10_000;
/// Endings of patches in a folder without a series.
const ENDINGS: [&str; 5] = ["patch", "diff", "mbox", "eml", "mail"];

/// Why there is no stack.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StackError {
    /// git could not do it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file could not be read.
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
    /// The series names a file outside of its folder.
    #[error("line {line} of {series} names '{name}', which is no path below its folder")]
    Outside {
        /// The file.
        series: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What it names.
        name: String,
    },
    /// There is nothing to look at.
    #[error(
        "{path} holds no patch: a file 'series', or names that end in .patch, .diff, .mbox or .eml, are looked for"
    )]
    NoPatches {
        /// The folder.
        path: PathBuf,
    },
    /// Nobody says what the patches are for.
    #[error(
        "name the commit that the patches of {path} are made for with --base; none of them says so in a line base-commit:"
    )]
    NoBase {
        /// The folder or the mailbox.
        path: PathBuf,
    },
    /// More or larger than anything that a person could have made.
    #[error("{path} is too large or holds too many patches")]
    TooLarge {
        /// The file or the folder.
        path: PathBuf,
    },
}

/// A stack whose patches are commits.
#[derive(Debug)]
pub struct Stack {
    /// As the user named it.
    pub name: String,
    /// The commit that it begins on.
    pub base: String,
    /// Its last patch.
    pub tip: String,
    /// Files by commit, where it came from files.
    files: BTreeMap<String, String>,
    misfits: BTreeMap<String, Misfit>,
    /// Of which the commits are, when they are not the user's.
    scratch: Option<Scratch>,
}

/// What is to be known of a patch from a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misfit {
    /// It applies to what stands before it, perhaps with less context than it has.
    pub applies: bool,
    /// It applied only with less context than it has, as `patch` does it.
    pub fuzzy: bool,
    /// Neither author nor subject stand in it.
    pub headless: bool,
    /// Where it does not apply; lines from 1, 0 for the whole file.
    pub places: Vec<(String, u32)>,
    /// What git said.
    pub said: String,
    /// The patch-id of its text, where it does not apply.
    pub patch_id: Option<String>,
    /// A digest over the names of its files, where it does not apply.
    pub digest: String,
}

impl Stack {
    /// What `named` is: a folder with a series or with patches, a series, a mailbox, or a range of commits.
    /// `base` is the commit that patches in files are made for.
    pub fn open(user: &Repository, named: &str, base: Option<&str>) -> Result<Stack, StackError> {
        let path = Path::new(named);
        if path.exists() { of_files(user, path, base) } else { Ok(of_range(user, named)?) }
    }

    /// The repository that has the commits.
    pub fn reader<'r>(&'r self, user: &'r Repository) -> &'r Repository {
        self.scratch.as_ref().map_or(user, Scratch::repository)
    }

    /// The file that a commit was made of.
    pub fn file(&self, commit: &str) -> Option<&str> {
        self.files.get(commit).map(String::as_str)
    }

    /// What is to be known of a patch that came from a file; none where all is well.
    pub fn misfit(&self, commit: &str) -> Option<&Misfit> {
        self.misfits.get(commit)
    }
}

/// `BASE..BRANCH`, or `BASE` for all behind it up to HEAD.
fn of_range(user: &Repository, range: &str) -> Result<Stack, GitError> {
    let (base, tip) = range.split_once("..").unwrap_or((range, "HEAD"));
    let tip = if tip.is_empty() { "HEAD" } else { tip };
    Ok(Stack {
        name: range.to_owned(),
        base: user.resolve(base)?,
        tip: user.resolve(tip)?,
        files: BTreeMap::new(),
        misfits: BTreeMap::new(),
        scratch: None,
    })
}

/// A patch with how it is to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PatchFile {
    name: String,
    text: Vec<u8>,
    strip: u32,
    reverse: bool,
}

fn of_files(user: &Repository, path: &Path, base: Option<&str>) -> Result<Stack, StackError> {
    let patches = read(path)?;
    if patches.is_empty() {
        return Err(StackError::NoPatches { path: path.to_owned() });
    }
    let said = || patches.iter().find_map(|p| mail::base_commit(&p.text));
    let base = match base {
        Some(base) => user.resolve(base)?,
        None => {
            let said = said().ok_or_else(|| StackError::NoBase { path: path.to_owned() })?;
            user.resolve(&said)?
        }
    };
    let scratch = Scratch::new(user)?;
    let mut import = Import { scratch: &scratch, tip: base.clone() };
    import.start()?;
    let (mut files, mut misfits) = (BTreeMap::new(), BTreeMap::new());
    for patch in &patches {
        let misfit = import.add(patch)?;
        files.insert(import.tip.clone(), patch.name.clone());
        if misfit != (Misfit { applies: true, ..Misfit::default() }) {
            misfits.insert(import.tip.clone(), misfit);
        }
    }
    let tip = import.tip;
    let name = path.display().to_string();
    Ok(Stack { name, base, tip, files, misfits, scratch: Some(scratch) })
}

fn read(path: &Path) -> Result<Vec<PatchFile>, StackError> {
    if path.is_dir() {
        for series in [path.join("series"), path.join("patches/series")] {
            if series.is_file() {
                return of_series(&series);
            }
        }
        return of_folder(path);
    }
    if path.file_name().is_some_and(|name| name == "series") {
        return of_series(path);
    }
    let text = bytes(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mails = mail::split(&text);
    let several = mails.len() > 1;
    let one = |(at, text): (usize, &[u8])| PatchFile {
        name: if several { format!("{name}#{}", at + 1) } else { name.clone() },
        text: text.to_vec(),
        strip: 1,
        reverse: false,
    };
    if mails.len() > MOST {
        return Err(StackError::TooLarge { path: path.to_owned() });
    }
    Ok(mails.into_iter().enumerate().map(one).collect())
}

fn of_folder(path: &Path) -> Result<Vec<PatchFile>, StackError> {
    let io = |source| StackError::Io { doing: "read", path: path.to_owned(), source };
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        let ending = file.extension().and_then(|e| e.to_str()).unwrap_or("");
        if ENDINGS.contains(&ending) && file.is_file() {
            names.insert(file);
        }
    }
    let mut patches = Vec::new();
    for file in names {
        patches.extend(read(&file)?);
        if patches.len() > MOST {
            return Err(StackError::TooLarge { path: path.to_owned() });
        }
    }
    Ok(patches)
}

fn of_series(series: &Path) -> Result<Vec<PatchFile>, StackError> {
    let folder = series.parent().unwrap_or(Path::new("."));
    let lines = parse_series(&bytes(series)?);
    if lines.len() > MOST {
        return Err(StackError::TooLarge { path: series.to_owned() });
    }
    let patch = |line: SeriesLine| {
        let name = Path::new(&line.name);
        if name.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
            let series = series.to_owned();
            return Err(StackError::Outside { series, line: line.number, name: line.name });
        }
        let text = bytes(&folder.join(name))?;
        Ok(PatchFile { name: line.name, text, strip: line.strip, reverse: line.reverse })
    };
    lines.into_iter().map(patch).collect()
}

fn bytes(path: &Path) -> Result<Vec<u8>, StackError> {
    let io = |source| StackError::Io { doing: "read", path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(io)?;
    if !meta.is_file() || meta.len() > LARGEST {
        return Err(StackError::TooLarge { path: path.to_owned() });
    }
    fs::read(path).map_err(io)
}

/// One line of a quilt series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesLine {
    /// Counted from 1.
    pub number: usize,
    /// The file, below the folder of the series.
    pub name: String,
    /// Folders to take off the names of files, `-p1`.
    pub strip: u32,
    /// It is taken back, `-R`.
    pub reverse: bool,
}

/// Reads a quilt series: a name in each line, options of patch behind it, and comments behind `#`.
pub fn parse_series(text: &[u8]) -> Vec<SeriesLine> {
    let text = String::from_utf8_lossy(text);
    let line = |(at, line): (usize, &str)| {
        // quilt takes a comment behind a blank; a name may hold the sign.
        let line = line.split_once(" #").map_or(line, |(line, _)| line).trim();
        let mut words = line.split_whitespace();
        let name = words.next().filter(|name| !name.starts_with('#'))?;
        let mut read =
            SeriesLine { number: at + 1, name: name.to_owned(), strip: 1, reverse: false };
        for word in words {
            match word.strip_prefix("-p") {
                // -pab names folders a and b, which is one to take off.
                Some("ab") => read.strip = 1,
                Some(number) => read.strip = number.parse().unwrap_or(read.strip),
                None => read.reverse |= word == "-R" || word == "--reverse",
            }
        }
        Some(read)
    };
    text.lines().enumerate().filter_map(line).collect()
}

/// Patches on their way to commits.
struct Import<'s> {
    scratch: &'s Scratch,
    tip: String,
}

impl Import<'_> {
    /// The index, which stands for the tree that patches are applied to.
    fn git(&self, arguments: &[&str], input: &[u8]) -> Result<std::process::Output, GitError> {
        let index = self.scratch.path().join("import-index");
        self.scratch.repository().run_with(
            arguments,
            input,
            &[("GIT_INDEX_FILE", index.as_os_str())],
        )
    }

    fn text(&self, arguments: &[&str]) -> Result<String, GitError> {
        let output = self.git(arguments, b"")?;
        if !output.status.success() {
            return Err(self.scratch.repository().refused(arguments, &output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn start(&self) -> Result<(), GitError> {
        self.text(&["read-tree", &self.tip]).map(drop)
    }

    fn add(&mut self, patch: &PatchFile) -> Result<Misfit, GitError> {
        let mail =
            Mail::read(self.scratch.repository(), self.scratch.path(), &patch.text, &patch.name)?;
        let mut misfit = Misfit { applies: true, headless: mail.headless, ..Misfit::default() };
        let strip = format!("-p{}", patch.strip);
        let mut arguments = vec!["apply", "--cached", "--whitespace=nowarn", &strip];
        if patch.reverse {
            arguments.push("--reverse");
        }
        let exact = self.git(&arguments, &mail.diff)?;
        if !exact.status.success() {
            // patch, and quilt with it, ignores up to two lines of context.
            let fuzzy = [arguments.as_slice(), &["-C1"]].concat();
            misfit.fuzzy = self.git(&fuzzy, &mail.diff)?.status.success();
            if !misfit.fuzzy {
                misfit.applies = false;
                let said = String::from_utf8_lossy(&exact.stderr).into_owned();
                (misfit.places, misfit.said) = places(&said);
                self.look_at_text(&strip, &mail.diff, &mut misfit)?;
            }
        }
        let tree = self.text(&["write-tree"])?;
        self.tip = mail.commit(self.scratch.repository(), &tree, &self.tip)?;
        Ok(misfit)
    }

    /// What can be known of a patch that does not apply. git has no patch-id for one without `diff` lines.
    fn look_at_text(&self, strip: &str, diff: &[u8], misfit: &mut Misfit) -> Result<(), GitError> {
        let ids = self.git(&["patch-id", "--stable"], diff)?;
        let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
        misfit.patch_id = ids.split_whitespace().next().map(str::to_owned);
        let listed = self.git(&["apply", "--numstat", "-z", strip], diff)?;
        let names = listed
            .stdout
            .split(|b| *b == 0)
            .filter_map(|record| record.splitn(3, |b| *b == b'\t').nth(2));
        let mut files = Files::default();
        for name in names.collect::<BTreeSet<&[u8]>>() {
            files.push(name);
        }
        misfit.digest = files.digest();
        Ok(())
    }
}

/// Where a patch does not apply, from what `git apply` says, and its first sentence.
fn places(said: &str) -> (Vec<(String, u32)>, String) {
    let errors = || said.lines().filter_map(|line| line.strip_prefix("error: "));
    let mut places = Vec::new();
    for error in errors() {
        let place = match error.strip_prefix("patch failed: ") {
            Some(place) => place.rsplit_once(':').and_then(|(f, n)| Some((f, n.parse().ok()?))),
            None => error
                .strip_suffix(": does not exist in index")
                .or_else(|| error.strip_suffix(": already exists in index"))
                .map(|file| (file, 0)),
        };
        places.extend(place.map(|(file, line)| (file.to_owned(), line)));
    }
    let first = errors().next().or(said.lines().next()).unwrap_or("it gave no reason");
    (places, first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_read_as_quilt_does() {
        let text = b"# comment\n\na.patch\nsub/b.patch -p0\r\n  c.patch -p ab -R # why\nd#1.diff -pab\n\xff.patch -p99999999999\n";
        let lines = parse_series(text);
        let short: Vec<_> =
            lines.iter().map(|l| (l.number, l.name.as_str(), l.strip, l.reverse)).collect();
        assert_eq!(
            short,
            [
                (3, "a.patch", 1, false),
                (4, "sub/b.patch", 0, false),
                (5, "c.patch", 1, true),
                (6, "d#1.diff", 1, false),
                (7, "\u{fffd}.patch", 1, false),
            ]
        );
    }

    #[test]
    fn places_of_conflicts() {
        let said = "error: patch failed: kernel/a b.c:12\nerror: kernel/a b.c: patch does not apply\n\
                    error: x.c: does not exist in index\n";
        let (found, first) = places(said);
        assert_eq!(found, [("kernel/a b.c".to_owned(), 12), ("x.c".to_owned(), 0)]);
        assert_eq!(first, "patch failed: kernel/a b.c:12");
        assert_eq!(places("").1, "it gave no reason");
    }
}
