//! Finds Debian's kernels for the tests that compare with other tools. A test whose kernel is missing
//! says so and passes, unless `KOLUMBO_REQUIRE_ALL=1` turns that into a failure.
#![allow(clippy::disallowed_methods)]
#![allow(dead_code, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files of one kernel, as far as they are on this machine.
#[derive(Default, Debug, Clone)]
pub(crate) struct DebianKernel {
    pub(crate) vmlinuz: Option<PathBuf>,
    /// With DWARF.
    pub(crate) vmlinux: Option<PathBuf>,
    pub(crate) system_map: Option<PathBuf>,
    /// A folder with modules.
    pub(crate) modules: Option<PathBuf>,
}

/// All kernels, by release, under `KOLUMBO_TEST_KERNEL_DIR` or else in the cache folder that
/// `make demo` and `make test` fill. `KOLUMBO_TEST_VMLINUX` adds one ELF file.
pub(crate) fn find() -> BTreeMap<String, DebianKernel> {
    let root = std::env::var_os("KOLUMBO_TEST_KERNEL_DIR").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache")));
        cache.map(|c| c.join("kolumbo"))
    });
    let mut kernels = BTreeMap::new();
    if let Some(root) = root {
        walk(&root, 0, &mut kernels);
    }
    if let Some(path) = std::env::var_os("KOLUMBO_TEST_VMLINUX") {
        kernels.entry(String::new()).or_default().vmlinux = Some(path.into());
    }
    kernels
}

fn walk(dir: &Path, depth: usize, kernels: &mut BTreeMap<String, DebianKernel>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    if depth > 9 {
        return;
    }
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_symlink() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name == "kernel" && dir.parent().is_some_and(|p| p.ends_with("lib/modules")) {
                let release = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                kernels.entry(release).or_default().modules.get_or_insert(path);
            } else {
                walk(&path, depth + 1, kernels);
            }
            continue;
        }
        // Newer debug packages have lib/modules/RELEASE/vmlinux.
        let parent = dir.file_name().unwrap_or_default().to_string_lossy();
        let (kind, release) = match name.split_once('-') {
            None if name == "vmlinux" => ("vmlinux", &*parent),
            None => continue,
            Some(parts) => parts,
        };
        if !matches!(kind, "vmlinuz" | "vmlinux" | "System.map") {
            continue;
        }
        let kernel = kernels.entry(release.to_string()).or_default();
        // The image package and the debug package both have a System.map; one is a placeholder.
        let (slot, least) = match kind {
            "vmlinuz" => (&mut kernel.vmlinuz, 1 << 20),
            "vmlinux" => (&mut kernel.vmlinux, 100 << 20),
            _ => (&mut kernel.system_map, 1 << 20),
        };
        if slot.is_none() && path.metadata().is_ok_and(|m| m.len() >= least) {
            *slot = Some(path);
        }
    }
}

/// Says that a test is skipped for want of `what`, or fails when everything is required.
pub(crate) fn skip(what: &str) {
    assert!(
        std::env::var_os("KOLUMBO_REQUIRE_ALL").is_none_or(|v| v != "1"),
        "{what} is missing and KOLUMBO_REQUIRE_ALL=1 is set; run `make demo` to fetch Debian's kernel, \
         or set KOLUMBO_TEST_KERNEL_DIR"
    );
    eprintln!("skipped: {what} is missing (set KOLUMBO_TEST_KERNEL_DIR)");
}
