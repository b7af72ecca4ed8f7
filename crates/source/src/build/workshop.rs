//! One tree and one build folder for all builds that differ in their edits only.
//!
//! The tree is a copy in which edits come and go; kbuild sees from the times of files what has to be
//! compiled again. Each build takes its products along. What is half done is never trusted: a build that
//! is cut off while it changes objects that were good costs all of them. Main function: [`build`].

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use kolumbo_case::{BuildFile, BuildState};
use serde::{Deserialize, Serialize};

use super::{BUILD_FILE, BuildError, Job, LOG_FILE, Observer, io, read, save, tree, wait_for};

/// What is known of the workshop.
const STATE_FILE: &str = "workshop.json";
/// What a build takes along, as far as it is there.
const PRODUCTS: &[&str] =
    &["arch/x86/boot/bzImage", "vmlinux", "System.map", ".config", "include/config/kernel.release"];

/// What the tree and the objects are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// Files of the tree that may differ from the source.
    differing: Vec<PathBuf>,
    /// All objects were made once.
    whole: bool,
    /// Objects that were good are being made anew.
    busy: bool,
}

/// Builds in the workshop of `base`, which names all that the edits leave alone, and puts the products
/// into `out`.
pub(super) fn build(
    job: &Job<'_>,
    base: &str,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<BuildFile, BuildError> {
    let texts = tree::texts(&job.source, &job.request.edits)?;
    let folder = job.request.cache.join("workshops").join(&base[..16]);
    let objects = folder.join("out");
    fs::create_dir_all(&folder).map_err(io("make", &folder))?;
    let folder = fs::canonicalize(&folder).map_err(io("find", &folder))?;
    let lock = wait_for(&folder, observer)?;
    let copy = folder.join("tree");
    let mut state = match State::read(&folder) {
        Some(state) => state,
        None => {
            // Without it, nobody knows which edits are in the tree.
            for part in [&copy, &objects] {
                remove(part)?;
            }
            State::default()
        }
    };
    if state.busy {
        // An object that was being replaced may be cut off, and kbuild, which goes by times, would take it
        // for good. In a first build it has no record of the command yet, and is made again.
        observer.note("a build of these objects was cut off; they are all made again");
        remove(&objects)?;
        state.whole = false;
        state.busy = false;
        state.save(&folder)?;
    }
    fs::create_dir_all(&objects).map_err(io("make", &objects))?;
    let objects = fs::canonicalize(&objects).map_err(io("find", &objects))?;
    if !copy.is_dir() {
        tree::edited(&job.source, &copy, &[])?;
    }
    let mut differing = state.differing.clone();
    differing.extend(texts.iter().map(|(file, _)| file.clone()));
    differing.sort();
    differing.dedup();
    state.differing.clone_from(&differing);
    state.busy = state.whole;
    state.save(&folder)?;
    tree::edit_again(&job.source, &copy, &differing, &texts)?;
    let made = job.make(&copy, &objects, lock, observer);
    let orderly = match &made {
        Ok(_) => true,
        // make removes what it could not finish.
        Err(BuildError::Failed { .. }) => true,
        Err(_) => false,
    };
    if orderly {
        state.differing = texts.into_iter().map(|(file, _)| file).collect();
        state.whole |= made.is_ok();
        state.busy = false;
        state.save(&folder)?;
    }
    match made {
        Ok(file) => take_products(&objects, out, file),
        Err(BuildError::Failed { failure, .. }) => {
            copy_file(&objects, out, LOG_FILE)?;
            if let Some(file) = read(&objects) {
                save(out, &file)?;
            }
            Err(BuildError::Failed { failure, log: out.join(LOG_FILE) })
        }
        Err(other) => Err(other),
    }
}

fn remove(folder: &Path) -> Result<(), BuildError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", folder)(e)),
        _ => Ok(()),
    }
}

/// Copies the products. `build.json` comes last: it is what says that they are there.
fn take_products(objects: &Path, out: &Path, file: BuildFile) -> Result<BuildFile, BuildError> {
    let mark = out.join(BUILD_FILE);
    if mark.exists() {
        fs::remove_file(&mark).map_err(io("remove", &mark))?;
    }
    for product in PRODUCTS.iter().chain(&[LOG_FILE]) {
        if objects.join(product).is_file() {
            copy_file(objects, out, product)?;
        }
    }
    let image = file.image.as_ref().map(|image| {
        let below = Path::new(image).strip_prefix(objects).map(|path| out.join(path));
        below.map_or_else(|_| image.clone(), |path| path.display().to_string())
    });
    let file = BuildFile { image, state: BuildState::Done, ..file };
    save(out, &file)?;
    Ok(file)
}

fn copy_file(from: &Path, to: &Path, name: &str) -> Result<(), BuildError> {
    let (from, to) = (from.join(name), to.join(name));
    let folder = to.parent().unwrap_or(&to);
    fs::create_dir_all(folder).map_err(io("make", folder))?;
    fs::copy(&from, &to).map(drop).map_err(io("copy", &from))
}

impl State {
    /// None where nothing is known.
    fn read(folder: &Path) -> Option<State> {
        serde_json::from_slice(&fs::read(folder.join(STATE_FILE)).ok()?).ok()
    }

    fn save(&self, folder: &Path) -> Result<(), BuildError> {
        let path = folder.join(STATE_FILE);
        let write = || {
            let text = serde_json::to_vec(self)?;
            let mut aside = tempfile::NamedTempFile::new_in(folder)?;
            aside.write_all(&text)?;
            aside.as_file().sync_data()?;
            aside.persist(&path).map(drop).map_err(|e| e.error)
        };
        write().map_err(io("write", &path))
    }
}
