//! From what the user named to the image that boots and the files beside it.
//!
//! Takes an image, a kernel build folder, a tuxmake output folder, an unpacked or packed Debian
//! package. Decides by names and by what is in the files; runs nothing. Main type: [`Found`].

use std::fs::File;
use std::path::{Path, PathBuf};

use kolumbo_vmlinux::{ImageKind, recognise};
use memmap2::Mmap;

use crate::package::{self, PackageError};

/// Where a kernel build, a tuxmake build and a package keep their image, best first.
const IMAGES: &[&str] = &[
    "arch/x86/boot/bzImage",
    "arch/x86_64/boot/bzImage",
    "bzImage",
    "vmlinuz",
    "boot/bzImage",
    "boot/vmlinuz",
    "vmlinux",
];

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is there, and it is not a kernel that can be booted.
    #[error("{path}: {reason}")]
    NotBootable {
        /// Which file.
        path: PathBuf,
        /// What it is instead, and what to hand over.
        reason: String,
    },
    /// The package could not be unpacked.
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// A kernel to boot.
#[derive(Debug)]
pub struct Found {
    /// The image.
    pub image: PathBuf,
    /// Its bytes.
    pub bytes: Mmap,
    /// The uncompressed kernel with symbols, where one lies beside it.
    pub vmlinux: Option<PathBuf>,
    /// `System.map`.
    pub system_map: Option<PathBuf>,
    /// The configuration.
    pub config: Option<PathBuf>,
}

/// Finds the kernel that `named` means. `cache` is where packages are unpacked.
pub fn find(named: &Path, cache: &Path) -> Result<Found, KernelError> {
    let refuse = |reason: &str| KernelError::NotBootable {
        path: named.to_owned(),
        reason: reason.to_owned(),
    };
    let meta = std::fs::metadata(named).map_err(|source| KernelError::Io {
        doing: "open",
        path: named.to_owned(),
        source,
    })?;
    let image = if meta.is_dir() {
        image_in(named).ok_or_else(|| {
            refuse(
                "this folder holds no kernel image (looked for arch/x86/boot/bzImage, bzImage, \
                 vmlinuz*, boot/vmlinuz*, vmlinux); build one with 'make bzImage' or name the image",
            )
        })?
    } else if !meta.is_file() {
        // Opening a FIFO would block for ever.
        return Err(refuse("this is not a regular file; name a kernel image"));
    } else if package::is_package(named) {
        let dir = package::unpack(named, cache)?;
        image_in(&dir).ok_or_else(|| {
            refuse("this package holds no kernel image; name a linux-image-* package")
        })?
    } else {
        named.to_owned()
    };
    let image = std::path::absolute(&image).unwrap_or(image);
    let bytes = map(&image)?;
    let kind = recognise(&bytes).map_err(|refusal| KernelError::NotBootable {
        path: image.clone(),
        reason: refusal.to_string(),
    })?;
    kind.loadable().map_err(|refusal| KernelError::NotBootable {
        path: image.clone(),
        reason: refusal.to_string(),
    })?;
    let beside = Beside::new(&image);
    Ok(Found {
        vmlinux: match kind {
            ImageKind::Vmlinux(_) => Some(image.clone()),
            _ => beside.find("vmlinux", &["usr/lib/debug/boot", "usr/lib/debug/lib/modules"]),
        },
        system_map: beside.find("System.map", &[]),
        config: beside.find("config", &[]).or_else(|| beside.find(".config", &[])),
        image,
        bytes,
    })
}

/// Maps a file into memory.
#[allow(unsafe_code)] // There is no safe way to map a file.
pub fn map(path: &Path) -> Result<Mmap, KernelError> {
    let io = |doing| move |source| KernelError::Io { doing, path: path.to_owned(), source };
    let file = File::open(path).map_err(io("open"))?;
    // SAFETY: the bytes are only read. A file that shrinks under the mapping raises SIGBUS, which
    // ends kolumbo; kernels are replaced by new files, not cut.
    unsafe { Mmap::map(&file) }.map_err(io("map"))
}

fn image_in(dir: &Path) -> Option<PathBuf> {
    let fixed = IMAGES.iter().map(|name| dir.join(name));
    let named = || newest_with_prefix(dir, "vmlinuz-");
    let packed = || newest_with_prefix(&dir.join("boot"), "vmlinuz-");
    let is_file = |p: &PathBuf| p.is_file();
    let (vmlinux, images): (Vec<_>, Vec<_>) = fixed.partition(|p| p.ends_with("vmlinux"));
    images
        .into_iter()
        .find(is_file)
        .or_else(named)
        .or_else(packed)
        .or_else(|| vmlinux.into_iter().find(is_file))
}

/// The file whose name is the last in version order: 6.10 comes after 6.9.
fn newest_with_prefix(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    entries
        .flatten()
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let release = name.strip_prefix(prefix)?.to_owned();
            e.path().is_file().then(|| (version_key(&release), e.path()))
        })
        .max()
        .map(|(_, path)| path)
}

fn version_key(release: &str) -> Vec<(u64, String)> {
    release.split(['.', '-']).map(|part| (part.parse().unwrap_or(0), part.to_owned())).collect()
}

/// Where the companions of an image are looked for.
struct Beside {
    folders: Vec<PathBuf>,
    /// `-6.1.0-18-amd64` for `vmlinuz-6.1.0-18-amd64`.
    suffix: String,
}

impl Beside {
    fn new(image: &Path) -> Beside {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let suffix = name.strip_prefix("vmlinuz").unwrap_or_default().to_owned();
        let folder = image.parent().unwrap_or(Path::new("."));
        let mut folders = vec![folder.to_owned()];
        // A build folder keeps its image in arch/x86/boot and all the rest at the top.
        if ["arch/x86/boot", "arch/x86_64/boot"].iter().any(|tail| folder.ends_with(tail)) {
            folders.extend(folder.ancestors().nth(3).map(Path::to_owned));
        }
        Beside { folders, suffix }
    }

    fn find(&self, stem: &str, debug_folders: &[&str]) -> Option<PathBuf> {
        let names = [format!("{stem}{}", self.suffix), stem.to_owned()];
        let beside = self.folders.iter().flat_map(|dir| names.iter().map(move |n| dir.join(n)));
        let release = self.suffix.trim_start_matches('-');
        // Debug packages: /usr/lib/debug/boot/vmlinux-RELEASE (Debian),
        // /usr/lib/debug/lib/modules/RELEASE/vmlinux (Fedora), also below an unpacked package.
        let roots = self.folders.iter().filter_map(|dir| dir.parent()).chain([Path::new("/")]);
        let debug = roots.flat_map(|root| {
            debug_folders.iter().flat_map(move |folder| {
                let dir = root.join(folder);
                [dir.join(format!("{stem}-{release}")), dir.join(release).join(stem)]
            })
        });
        let has_release = !release.is_empty();
        beside.chain(debug.filter(|_| has_release)).find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }

    #[test]
    fn a_build_folder_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["arch/x86/boot/bzImage", "vmlinux", "System.map", ".config"] {
            touch(dir.path().join(name));
        }
        let image = image_in(dir.path()).unwrap();
        assert!(image.ends_with("arch/x86/boot/bzImage"));
        let beside = Beside::new(&image);
        assert_eq!(beside.find("vmlinux", &[]), Some(dir.path().join("vmlinux")));
        assert_eq!(beside.find("System.map", &[]), Some(dir.path().join("System.map")));
        assert_eq!(beside.find(".config", &[]), Some(dir.path().join(".config")));
    }

    #[test]
    fn the_newest_kernel_of_a_package_is_taken_with_its_own_map() {
        let dir = tempfile::tempdir().unwrap();
        for release in ["6.9.0-1-amd64", "6.10.0-1-amd64"] {
            touch(dir.path().join(format!("boot/vmlinuz-{release}")));
            touch(dir.path().join(format!("boot/System.map-{release}")));
            touch(dir.path().join(format!("usr/lib/debug/boot/vmlinux-{release}")));
        }
        let image = image_in(dir.path()).unwrap();
        assert!(image.ends_with("boot/vmlinuz-6.10.0-1-amd64"));
        let beside = Beside::new(&image);
        assert!(beside.find("System.map", &[]).unwrap().ends_with("System.map-6.10.0-1-amd64"));
        let vmlinux = beside.find("vmlinux", &["usr/lib/debug/boot"]).unwrap();
        assert!(vmlinux.ends_with("usr/lib/debug/boot/vmlinux-6.10.0-1-amd64"));
    }

    #[test]
    fn what_is_not_a_kernel_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| match find(path, dir.path()) {
            Err(KernelError::NotBootable { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert!(refused(dir.path()).contains("make bzImage"));
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        assert!(!refused(&empty).is_empty());
        let text = dir.path().join("text");
        std::fs::write(&text, "hello\n".repeat(100)).unwrap();
        assert!(!refused(&text).is_empty());
        let missing = find(&dir.path().join("missing"), dir.path());
        assert!(matches!(missing, Err(KernelError::Io { .. })));
    }
}
