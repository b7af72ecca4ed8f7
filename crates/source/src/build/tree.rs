//! The source tree of a build, as it is or with edits.
//!
//! Decides what identifies a tree, and makes edited copies out of hard links, so that the user's own
//! tree is never written to. Main functions: [`fingerprint`], [`edited`].

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Deepest folder that is followed; a kernel tree has less than twenty.
const DEEPEST: usize = 64;

/// One replacement in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The file, below the tree.
    pub file: PathBuf,
    /// Text that must occur exactly once.
    pub search: String,
    /// What stands there instead.
    pub replace: String,
}

/// Why a tree cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TreeError {
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
    /// The text of an edit is not there exactly once.
    #[error("an edit of {file} wants its text exactly once, and it is there {count} times")]
    Edit {
        /// Which of the edits, from 0.
        edit: usize,
        /// The file.
        file: PathBuf,
        /// How often.
        count: usize,
    },
    /// The file of an edit is not there.
    #[error("an edit names {file}, which is not in the tree")]
    NoFile {
        /// Which of the edits, from 0.
        edit: usize,
        /// The path.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An edit of a file outside the tree.
    #[error("an edit names {file}, which is no path below the tree")]
    Outside {
        /// The path.
        file: PathBuf,
    },
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> TreeError + 'a {
    move |source| TreeError::Io { doing, path: path.to_owned(), source }
}

/// A hash over names, sizes and times of all files, without `.git`: an edit by hand changes it, as
/// far as it changes the time of the file.
pub fn fingerprint(tree: &Path) -> Result<String, TreeError> {
    let mut digest = Sha256::new();
    walk(tree, Path::new(""), 0, &mut |path, meta| {
        digest.update(path.as_os_str().as_encoded_bytes());
        for number in [meta.len(), meta.mtime().cast_unsigned(), meta.mtime_nsec().cast_unsigned()]
        {
            digest.update(number.to_le_bytes());
        }
        Ok(())
    })?;
    Ok(super::hex(&digest.finalize()))
}

/// Calls `seen` for every entry below `tree` in the order of names, folders before what is in them.
fn walk(
    tree: &Path,
    below: &Path,
    depth: usize,
    seen: &mut dyn FnMut(&Path, &Metadata) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let folder = tree.join(below);
    let entries = fs::read_dir(&folder).map_err(io("read", &folder))?;
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name()).collect();
    names.sort_unstable();
    for name in names {
        if below.as_os_str().is_empty() && name == ".git" {
            continue;
        }
        let path = below.join(&name);
        let whole = tree.join(&path);
        let meta = fs::symlink_metadata(&whole).map_err(io("look at", &whole))?;
        if meta.is_dir() {
            // The time of a folder changes with files that editors leave behind for a moment.
            if depth < DEEPEST {
                walk(tree, &path, depth + 1, seen)?;
            }
        } else {
            seen(&path, &meta)?;
        }
    }
    Ok(())
}

/// The files that the edits change, with their new text. Nothing is written.
pub fn texts(tree: &Path, edits: &[Edit]) -> Result<Vec<(PathBuf, String)>, TreeError> {
    let mut new: Vec<(PathBuf, String)> = Vec::new();
    for (number, edit) in edits.iter().enumerate() {
        if edit.file.components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(TreeError::Outside { file: edit.file.clone() });
        }
        let at = match new.iter().position(|(file, _)| *file == edit.file) {
            Some(at) => at,
            None => {
                let text = fs::read_to_string(tree.join(&edit.file)).map_err(|source| {
                    TreeError::NoFile { edit: number, file: edit.file.clone(), source }
                })?;
                new.push((edit.file.clone(), text));
                new.len() - 1
            }
        };
        let text = &mut new[at].1;
        let count = if edit.search.is_empty() { 0 } else { text.matches(&edit.search).count() };
        if count != 1 {
            return Err(TreeError::Edit { edit: number, file: edit.file.clone(), count });
        }
        *text = text.replacen(&edit.search, &edit.replace, 1);
    }
    Ok(new)
}

/// Gives `copy`, a copy of `tree` that may differ from it in the files `differing`, the edits whose
/// [`texts`] are `new`. Files that change get a new time, so that make sees them; the others keep theirs.
pub fn edit_again(
    tree: &Path,
    copy: &Path,
    differing: &[PathBuf],
    new: &[(PathBuf, String)],
) -> Result<(), TreeError> {
    let back = differing.iter().filter(|file| !new.iter().any(|(n, _)| n == *file));
    let old = back.map(|file| {
        let from = tree.join(file);
        let bytes = fs::read(&from).map_err(io("read", &from))?;
        Ok((file, bytes))
    });
    let old = old.collect::<Result<Vec<_>, _>>()?;
    let wanted = old
        .iter()
        .map(|(file, bytes)| (*file, bytes.as_slice()))
        .chain(new.iter().map(|(file, text)| (file, text.as_bytes())));
    for (file, bytes) in wanted {
        let to = copy.join(file);
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        // The file may be a hard link to the user's own: it is replaced, never written into.
        let aside = to.with_extension("kolumbo-new");
        fs::write(&aside, bytes).map_err(io("write", &aside))?;
        let from = tree.join(file);
        let mode = fs::metadata(&from).map_err(io("look at", &from))?.permissions();
        fs::set_permissions(&aside, mode).map_err(io("write", &aside))?;
        fs::rename(&aside, &to).map_err(io("replace", &to))?;
    }
    Ok(())
}

/// Makes `copy` a tree like `tree` with the edits in it. Files are hard links where the file system
/// allows it; edited ones are new.
pub fn edited(tree: &Path, copy: &Path, edits: &[Edit]) -> Result<(), TreeError> {
    let new = texts(tree, edits)?;
    let aside = copy.with_extension("new");
    for old in [&aside, &copy.to_owned()] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(io("remove", old))?;
        }
    }
    fs::create_dir_all(&aside).map_err(io("make", &aside))?;
    walk(tree, Path::new(""), 0, &mut |path, meta| {
        let (from, to) = (tree.join(path), aside.join(path));
        let folder = to.parent().unwrap_or(&aside);
        fs::create_dir_all(folder).map_err(io("make", folder))?;
        if let Some((_, text)) = new.iter().find(|(file, _)| file == path) {
            fs::write(&to, text).map_err(io("write", &to))?;
            return fs::set_permissions(&to, meta.permissions()).map_err(io("write", &to));
        }
        if meta.is_symlink() {
            let target = fs::read_link(&from).map_err(io("read", &from))?;
            return std::os::unix::fs::symlink(target, &to).map_err(io("link", &to));
        }
        if meta.is_file() && fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).map_err(io("copy", &from))?;
        }
        Ok(())
    })?;
    fs::rename(&aside, copy).map_err(io("rename", &aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_tree_leaves_the_first_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/c.c"), "int one;\nint two;\n").unwrap();
        fs::write(tree.join("Makefile"), "all:\n").unwrap();
        std::os::unix::fs::symlink("Makefile", tree.join("link")).unwrap();
        let before = fingerprint(&tree).unwrap();
        let copy = dir.path().join("copy");
        let edit = |search: &str| Edit {
            file: "a/b/c.c".into(),
            search: search.into(),
            replace: "long two;".into(),
        };
        edited(&tree, &copy, &[edit("int two;")]).unwrap();
        assert_eq!(fs::read_to_string(copy.join("a/b/c.c")).unwrap(), "int one;\nlong two;\n");
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("Makefile"));
        assert_eq!(fingerprint(&tree).unwrap(), before);
        for (search, count) in [("int", 2), ("absent", 0), ("", 0)] {
            match edited(&tree, &copy, &[edit(search)]) {
                Err(TreeError::Edit { count: found, .. }) => assert_eq!(found, count),
                other => panic!("{search}: {other:?}"),
            }
        }
        let gone = Edit { file: "a/gone.c".into(), ..edit("a") };
        let error = edited(&tree, &copy, &[edit("int two;"), gone]).unwrap_err();
        assert!(matches!(error, TreeError::NoFile { edit: 1, .. }), "{error}");
        let out = Edit { file: "../x".into(), ..edit("a") };
        assert!(matches!(edited(&tree, &copy, &[out]), Err(TreeError::Outside { .. })));

        // Other edits in the same copy; what is not edited any more is as it was, and still not linked.
        let new = texts(&tree, &[edit("int one;")]).unwrap();
        edit_again(&tree, &copy, &["a/b/c.c".into()], &new).unwrap();
        assert_eq!(fs::read_to_string(copy.join("a/b/c.c")).unwrap(), "long two;\nint two;\n");
        edit_again(&tree, &copy, &["a/b/c.c".into()], &[]).unwrap();
        assert_eq!(fs::read_to_string(copy.join("a/b/c.c")).unwrap(), "int one;\nint two;\n");
        assert_eq!(fingerprint(&tree).unwrap(), before);

        fs::write(tree.join("a/b/c.c"), "int one, two;\n").unwrap();
        assert_ne!(fingerprint(&tree).unwrap(), before);
    }
}
