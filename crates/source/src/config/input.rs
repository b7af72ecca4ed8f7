//! Where the configuration lies that a user names.
//!
//! Decides by content, not by name: text, gzip of text, or an image, which the caller opens, since
//! this crate cannot read kernels. Main function: [`find`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Largest configuration that is read; an allyesconfig has some 400 KiB.
const LARGEST: u64 = 16 << 20;
/// Bytes that tell text from an image.
const START: usize = 4096;

/// Where folders keep a configuration, in order. An image that was built with `CONFIG_IKCONFIG` knows its
/// own, but a file beside it is as good and cheaper.
const NAMES: [&str; 4] = [".config", "config", "kernel.config", "build.config"];

/// What the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The bytes of a `.config`, unpacked.
    Text {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A file that is no text: perhaps an image with a configuration inside.
    Image(PathBuf),
    /// A folder without a configuration: perhaps one with an image.
    Folder(PathBuf),
}

/// Why a configuration could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InputError {
    /// A file could not be opened or read.
    #[error("cannot read {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No configuration is that large.
    #[error("{path} is larger than {LARGEST} bytes: that is no configuration; name a .config")]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// A FIFO or a device.
    #[error("{path} is no regular file; name a .config, a build folder or an image")]
    NoFile {
        /// Which file.
        path: PathBuf,
    },
}

/// Looks at what `named` is.
pub fn find(named: &Path) -> Result<Found, InputError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| InputError::Io { path, source }
    };
    let meta = std::fs::metadata(named).map_err(io(named))?;
    let path = if meta.is_dir() {
        let fixed = NAMES.iter().map(|name| named.join(name)).find(|p| p.is_file());
        match fixed.or_else(|| lonely(named)).or_else(|| lonely(&named.join("boot"))) {
            Some(path) => path,
            None => return Ok(Found::Folder(named.to_owned())),
        }
    } else if meta.is_file() {
        named.to_owned()
    } else {
        return Err(InputError::NoFile { path: named.to_owned() });
    };
    let mut start = Vec::new();
    let mut file = File::open(&path).map_err(io(&path))?;
    file.by_ref().take(START as u64).read_to_end(&mut start).map_err(io(&path))?;
    let packed = start.starts_with(&[0x1f, 0x8b]);
    if !packed && !is_text(&start) {
        return Ok(Found::Image(path));
    }
    let whole = start.as_slice().chain(file);
    let mut bytes = Vec::new();
    let read = if packed {
        flate2::read::MultiGzDecoder::new(whole).take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        whole.take(LARGEST + 1).read_to_end(&mut bytes)
    };
    let text = is_text(&bytes[..bytes.len().min(START)]);
    // Some architectures pack their image with gzip alone.
    if packed && !text {
        return Ok(Found::Image(path));
    }
    read.map_err(io(&path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(InputError::TooLarge { path });
    }
    Ok(Found::Text { path, bytes })
}

/// The one `config-RELEASE` of a folder; among several none is meant.
fn lonely(dir: &Path) -> Option<PathBuf> {
    let mut found = std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("config-") && e.path().is_file());
    let first = found.next()?;
    found.next().is_none().then(|| first.path())
}

fn is_text(start: &[u8]) -> bool {
    !start.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    fn text_of(path: &Path) -> Vec<u8> {
        match find(path).unwrap() {
            Found::Text { bytes, .. } => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_folders_and_gzip() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(find(root).unwrap(), Found::Folder(root.to_owned()));
        std::fs::create_dir(root.join("boot")).unwrap();
        std::fs::write(root.join("boot/config-6.1"), "CONFIG_A=y\n").unwrap();
        assert_eq!(text_of(root), b"CONFIG_A=y\n");
        std::fs::write(root.join("config.gz"), gzip(b"CONFIG_B=y\n")).unwrap();
        assert_eq!(text_of(&root.join("config.gz")), b"CONFIG_B=y\n");
        std::fs::write(root.join(".config"), "").unwrap();
        assert_eq!(text_of(root), b"");
        let image = root.join("vmlinuz");
        std::fs::write(&image, b"MZ\0\0").unwrap();
        assert_eq!(find(&image).unwrap(), Found::Image(image));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let bomb = dir.path().join("bomb.gz");
        std::fs::write(&bomb, gzip(&vec![b'\n'; 17 << 20])).unwrap();
        assert!(matches!(find(&bomb), Err(InputError::TooLarge { .. })));
        let cut = gzip(&b"CONFIG_A=y\n".repeat(1000));
        std::fs::write(&bomb, &cut[..cut.len() / 2]).unwrap();
        assert!(matches!(find(&bomb), Err(InputError::Io { .. })));
        assert!(matches!(find(Path::new("/dev/null")), Err(InputError::NoFile { .. })));
        assert!(matches!(find(&dir.path().join("none")), Err(InputError::Io { .. })));
    }
}
