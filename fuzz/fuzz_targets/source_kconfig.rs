//! A Kconfig file of a tree that somebody sent, and what follows from what under it.
#![no_main]

use std::sync::OnceLock;

use kolumbo_source::config::Config;
use kolumbo_source::config::diff::{Side, diff};
use kolumbo_source::kconfig;
use libfuzzer_sys::fuzz_target;

static TREE: OnceLock<tempfile::TempDir> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let tree = TREE.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    std::fs::write(tree.path().join("Kconfig"), bytes).expect("room for a file");
    let Ok(options) = kconfig::read(tree.path(), "x86") else { return };
    // Whatever is named like an option is on in one configuration and off in the other.
    let text = String::from_utf8_lossy(bytes);
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let lines = |value: &str| -> String {
        words
            .clone()
            .filter(|w| !w.is_empty())
            .take(200)
            .map(|w| format!("CONFIG_{w}={value}\n"))
            .collect()
    };
    let (old, new) = (Config::parse(lines("y").as_bytes()), Config::parse(lines("m").as_bytes()));
    let side = |path, config| Side { path, config };
    let _ = diff(side("a", &old), side("b", &new), Some(&options));
});
