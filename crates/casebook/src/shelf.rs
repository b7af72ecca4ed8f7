//! Where cases lie: those that kolumbo brings along, and folders of the user.
//!
//! Decides which case a name means, and makes the first version of a new one. Main type: [`Shelved`].

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::file::{self, CaseError, is_below};
use crate::recipe::Recipe;

/// The file that makes a folder a case.
pub const RECIPE_FILE: &str = "case.toml";
/// Largest file of a case that is read.
const LARGEST: u64 = 4 << 20;

/// A case that kolumbo brings along: its name and its files.
struct Builtin {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

const BUILTIN: &[Builtin] = &[
    Builtin {
        name: "native-save-fl",
        files: &[
            (RECIPE_FILE, include_str!("../../../cases/native-save-fl/case.toml")),
            ("small.config", include_str!("../../../cases/native-save-fl/small.config")),
        ],
    },
    Builtin {
        name: "srso-safe-ret",
        files: &[
            (RECIPE_FILE, include_str!("../../../cases/srso-safe-ret/case.toml")),
            ("host.config", include_str!("../../../cases/srso-safe-ret/host.config")),
            ("guest.config", include_str!("../../../cases/srso-safe-ret/guest.config")),
        ],
    },
];

/// Why a case cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// What stands in it makes no sense.
    #[error(transparent)]
    Case(#[from] CaseError),
    /// There is none of this name.
    #[error(
        "there is no case '{name}': it is neither one of {known} nor a folder with a case.toml"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names of those that kolumbo brings along.
        known: String,
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
    /// There is something already.
    #[error("{path} exists already; name a new folder")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> ShelfError + 'a {
    move |source| ShelfError::Io { doing, path: path.to_owned(), source }
}

/// A case and its files.
#[derive(Debug, Clone)]
pub struct Shelved {
    /// Its name: that of the folder.
    pub name: String,
    /// What it says.
    pub recipe: Recipe,
    /// The files that it consists of: path below the folder and bytes, `case.toml` first.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// The folder; none for a case that kolumbo brings along.
    pub folder: Option<PathBuf>,
}

/// Names of the cases that kolumbo brings along.
pub fn builtin() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|b| b.name)
}

/// The case that `name` means: one that kolumbo brings along, else a folder, or the `case.toml` in one.
pub fn find(name: &str) -> Result<Shelved, ShelfError> {
    if let Some(builtin) = BUILTIN.iter().find(|b| b.name == name) {
        let text = builtin.files[0].1;
        let recipe = file::parse(&format!("{name}/{RECIPE_FILE}"), text)?;
        let files =
            builtin.files.iter().map(|(p, t)| (PathBuf::from(p), t.as_bytes().to_vec())).collect();
        return Ok(Shelved { name: name.to_owned(), recipe, files, folder: None });
    }
    let path = Path::new(name);
    let folder = match path.file_name() {
        Some(last) if last == RECIPE_FILE => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        },
        _ => path,
    };
    let recipe_file = folder.join(RECIPE_FILE);
    if !recipe_file.is_file() {
        let known = builtin().collect::<Vec<_>>().join(", ");
        return Err(ShelfError::Unknown { name: name.to_owned(), known });
    }
    let text = read(&recipe_file)?;
    let recipe = file::parse(&recipe_file.display().to_string(), &String::from_utf8_lossy(&text))?;
    let mut files = vec![(PathBuf::from(RECIPE_FILE), text)];
    for fragment in fragments(&recipe) {
        if !files.iter().any(|(p, _)| *p == fragment) {
            let bytes = read(&folder.join(&fragment))?;
            files.push((fragment, bytes));
        }
    }
    let absolute = fs::canonicalize(folder).map_err(io("find", folder))?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Shelved { name, recipe, files, folder: Some(absolute) })
}

/// Files that the configurations of a case name, below its folder.
fn fragments(recipe: &Recipe) -> Vec<PathBuf> {
    let parts = recipe.kernels.iter().filter_map(|k| k.built.as_ref()).flat_map(|b| &b.config);
    parts.filter_map(|part| fragment_of(part)).collect()
}

/// The file that a part of a configuration names: `small.config` for `+small.config`, none for `tinyconfig`
/// and `+SMP=y`. Absolute paths are the user's own and stay what they are.
pub(crate) fn fragment_of(part: &str) -> Option<PathBuf> {
    let name = part.strip_prefix('+').unwrap_or(part);
    let is_option = part.starts_with('+') && name.contains('=') && !name.contains('/');
    let is_target =
        !part.starts_with('+') && part.ends_with("config") && !part.contains(['/', '.']);
    let path = PathBuf::from(name);
    (!is_option && !is_target && is_below(&path)).then_some(path)
}

fn read(path: &Path) -> Result<Vec<u8>, ShelfError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(io("open", path))?;
    file.take(LARGEST).read_to_end(&mut bytes).map_err(io("read", path))?;
    Ok(bytes)
}

impl Shelved {
    /// What tells one run of a case from another, in hexadecimal: a hash over its files and the source that
    /// the user named.
    pub fn key(&self, source: Option<&Path>) -> String {
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        for (path, bytes) in &self.files {
            add(path.as_os_str().as_encoded_bytes());
            add(bytes);
        }
        add(source.map(|s| s.as_os_str().as_encoded_bytes()).unwrap_or_default());
        digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Writes the files of the case into `folder`, where builds find its fragments.
    pub fn put_into(&self, folder: &Path) -> Result<(), ShelfError> {
        for (path, bytes) in &self.files {
            let to = folder.join(path);
            let parent = to.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(io("make", parent))?;
            fs::write(&to, bytes).map_err(io("write", &to))?;
        }
        Ok(())
    }
}

/// Makes a new case in `folder`: the first one of kolumbo's own, to be changed.
pub fn begin(folder: &Path) -> Result<(), ShelfError> {
    if folder.exists() {
        return Err(ShelfError::Occupied { path: folder.to_owned() });
    }
    find(BUILTIN[0].name)?.put_into(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_sound_and_complete() {
        for name in builtin() {
            let case = find(name).unwrap_or_else(|e| panic!("{e}"));
            for fragment in fragments(&case.recipe) {
                assert!(case.files.iter().any(|(p, _)| *p == fragment), "{name}: {fragment:?}");
            }
            assert!(!case.recipe.story.is_empty() && !case.recipe.proofs.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_new_case_is_a_case() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("mine");
        begin(&folder).unwrap();
        let case = find(folder.to_str().unwrap()).unwrap();
        assert_eq!(case.name, "mine");
        assert_eq!(case.files.len(), 2);
        assert_eq!(case.key(None), find(BUILTIN[0].name).unwrap().key(None));
        assert_ne!(case.key(None), case.key(Some(Path::new("/linux"))));
        assert!(matches!(begin(&folder), Err(ShelfError::Occupied { .. })));
        // An error names the file that the user has.
        let file = folder.join(RECIPE_FILE);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("nonsense = 1\n{text}")).unwrap();
        let error = find(folder.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:1:1: ", file.display())), "{error}");
        assert!(matches!(find("no-such-case"), Err(ShelfError::Unknown { .. })));
    }

    #[test]
    fn only_files_of_the_case_are_taken_along() {
        for (part, file) in [
            ("tinyconfig", None),
            ("+SMP=y", None),
            ("+small.config", Some("small.config")),
            ("base.config", Some("base.config")),
            ("+sub/x", Some("sub/x")),
            ("+../x", None),
            ("/etc/config", None),
        ] {
            assert_eq!(fragment_of(part), file.map(PathBuf::from), "{part}");
        }
    }
}
