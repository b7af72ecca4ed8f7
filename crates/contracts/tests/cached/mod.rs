//! The kernels that `scripts/kernel.sh` left in the cache.

use std::path::PathBuf;

/// The newest of them that has such a file, with its release: Debian replaces its kernels, so no test can name one.
/// `{release}` in `file` stands for the release.
pub(crate) fn newest(file: &str) -> Option<(String, PathBuf)> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folders = std::fs::read_dir(cache.join("kolumbo/kernels")).ok()?;
    let found = folders.flatten().map(|folder| {
        let release = folder.file_name().to_string_lossy().into_owned();
        let path = folder.path().join(file.replace("{release}", &release));
        (release, path)
    });
    found.filter(|(_, path)| path.is_file()).max()
}
