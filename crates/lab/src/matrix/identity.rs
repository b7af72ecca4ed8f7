//! Which files go into a matrix, and whether they are still the same.
//!
//! A table is only a table when all its cells were given the same files. Hashes what the cells
//! name; boots nothing. Main functions: [`inputs`], [`compare`], [`notes`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kolumbo_vmlinux::Kernel;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::inputs::{hash, program_path, split_module};
use crate::kernel::{self, KernelError};

/// A file that goes into some cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// `kernel`, `host-kernel`, `initrd`, `module`, `exec`.
    pub role: String,
    /// Path as it was named.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 as hexadecimal.
    pub sha256: String,
}

/// Why the files do not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It cannot be read.
    #[error("cannot read the {role} {path}")]
    Unreadable {
        /// What it is for.
        role: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Nothing to boot there.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// It was another file when the matrix was begun.
    #[error(
        "the {role} {path} has changed since the matrix was begun (sha256 {before} then, {now} now); \
             its cells cannot be compared with the others: put the old file back, or begin a new matrix"
    )]
    Changed {
        /// What it is for.
        role: String,
        /// The file.
        path: String,
        /// First digits of its hash then.
        before: String,
        /// First digits of its hash now.
        now: String,
    },
}

/// Every file that some cell names, hashed, in order of role and path. What is not a kernel at all
/// is hashed as it is: that it does not boot is the verdict of its cells.
pub fn inputs(plan: &Plan, cache: &Path) -> Result<Vec<Input>, IdentityError> {
    let mut files: BTreeSet<(&'static str, PathBuf)> = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for cell in &plan.cells {
        let Ok(spec) = plan.spec(&cell.at) else { continue };
        let mut modules = spec.modules;
        let host = spec.host.map(|host| {
            modules.extend(host.modules);
            host.kernel
        });
        let named = (spec.kernel, host, spec.initrd, modules, spec.exec.into_iter().next());
        if !seen.insert(named.clone()) {
            continue;
        }
        let (kernel, host, initrd, modules, exec) = named;
        files.insert(("kernel", PathBuf::from(kernel)));
        files.extend(host.map(|p| ("host-kernel", PathBuf::from(p))));
        files.extend(initrd.map(|p| ("initrd", PathBuf::from(p))));
        files.extend(modules.iter().map(|m| ("module", split_module(m).0.to_owned())));
        files.extend(exec.map(|p| ("exec", program_path(&p))));
    }
    files.into_iter().map(|(role, path)| input(role, &path, cache)).collect()
}

fn input(role: &'static str, named: &Path, cache: &Path) -> Result<Input, IdentityError> {
    let file = match role {
        "kernel" | "host-kernel" => match kernel::find(named, cache) {
            Ok(found) => found.image,
            Err(KernelError::NotBootable { .. }) if named.is_file() => named.to_owned(),
            Err(other) => return Err(other.into()),
        },
        _ => named.to_owned(),
    };
    let hashed = hash(role, &file).map_err(|source| IdentityError::Unreadable {
        role: role.to_owned(),
        path: file.clone(),
        source,
    })?;
    Ok(Input {
        role: role.to_owned(),
        path: named.display().to_string(),
        size: hashed.size,
        sha256: hashed.sha256,
    })
}

/// Fails for the first file that is not what it was. Files that joined later are no trouble.
pub fn compare(before: &[Input], now: &[Input]) -> Result<(), IdentityError> {
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    for old in before {
        let same = |new: &&Input| (&new.role, &new.path) == (&old.role, &old.path);
        if let Some(new) = now.iter().find(same)
            && new.sha256 != old.sha256
        {
            return Err(IdentityError::Changed {
                role: old.role.clone(),
                path: old.path.clone(),
                before: short(&old.sha256),
                now: short(&new.sha256),
            });
        }
    }
    Ok(())
}

/// What is worth knowing of a value: the release of a kernel and the compiler that built it, as the
/// image says. By axis name and label.
pub fn notes(plan: &Plan, cache: &Path) -> BTreeMap<(String, String), String> {
    let mut notes = BTreeMap::new();
    for axis in plan.request.axes.iter().filter(|a| matches!(&*a.name, "kernel" | "host-kernel")) {
        for (label, path) in &axis.values {
            if let Some(note) = kernel_note(Path::new(path), cache) {
                notes.insert((axis.name.clone(), label.clone()), note);
            }
        }
    }
    notes
}

fn kernel_note(path: &Path, cache: &Path) -> Option<String> {
    let found = kernel::find(path, cache).ok()?;
    let kernel = Kernel::open(&found.bytes).ok()?;
    let banner = kernel.banner()?;
    Some(match banner.compiler {
        None => banner.release,
        Some(compiler) => format!("{}, {compiler}", banner.release),
    })
}
