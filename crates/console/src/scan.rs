//! Finding the lines that matter, fast, in raw bytes.
//!
//! Decides nothing: it looks for the literals of [`crate::formats`] and says where one stands. Most
//! of a healthy log is never split into lines.

use std::sync::OnceLock;

use aho_corasick::AhoCorasick;

use crate::formats::headers;

/// What the decompressor says in every boot.
pub(crate) const DECOMPRESSOR_LITERAL: &str = "Booting the kernel";

fn search() -> &'static AhoCorasick {
    static SEARCH: OnceLock<AhoCorasick> = OnceLock::new();
    SEARCH.get_or_init(|| {
        AhoCorasick::new(headers()).expect("a few dozen short literals always build")
    })
}

/// Calls `found` with group and offset for each literal in `bytes`.
pub(crate) fn literals(bytes: &[u8], mut found: impl FnMut(usize, usize)) {
    for hit in search().find_overlapping_iter(bytes) {
        found(hit.pattern().as_usize(), hit.start());
    }
}
