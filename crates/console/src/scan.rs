//! Finding the lines that matter, fast, in raw bytes.
//!
//! Decides nothing: it looks for the literals of [`crate::formats`] and of boots and says where one
//! stands. Most of a healthy log is never split into lines.

use std::sync::OnceLock;

use aho_corasick::AhoCorasick;

use crate::formats::headers;

/// What the decompressor says in every boot.
pub(crate) const DECOMPRESSOR_LITERAL: &str = "Booting the kernel";

/// Bytes of the longest literal.
pub(crate) const LONGEST: usize = 64;

/// Literals that begin a boot or prove one of its phases.
static BOOT: &[&str] = &[
    "Linux version ",
    "Decompressing Linux",
    "Command line: ",
    "smp: Bring",
    "smp: Brought",
    "x86: Boot",
    "Run /",
    "reboot: ",
    "Sent SIG",
    "Requesting system ",
    "systemd-shutdown[1]: ",
];

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The literal of a headline.
    Headline,
    /// The literal of a boot.
    Boot,
}

fn search() -> &'static AhoCorasick {
    static SEARCH: OnceLock<AhoCorasick> = OnceLock::new();
    SEARCH.get_or_init(|| {
        AhoCorasick::new(headers()).expect("a few dozen short literals always build")
    })
}

/// The first literal at or behind `from`.
pub(crate) fn next(bytes: &[u8], from: usize) -> Option<(Found, usize)> {
    static SEARCH: OnceLock<(AhoCorasick, usize)> = OnceLock::new();
    let (search, headlines) = SEARCH.get_or_init(|| {
        let literals: Vec<&str> = headers().chain(BOOT.iter().copied()).collect();
        let search = AhoCorasick::new(&literals).expect("a few dozen short literals always build");
        (search, literals.len() - BOOT.len())
    });
    let found = search.find(bytes.get(from..)?)?;
    let kind = if found.pattern().as_usize() < *headlines { Found::Headline } else { Found::Boot };
    Some((kind, from + found.start()))
}

/// Calls `found` with group and offset for each literal in `bytes`.
pub(crate) fn literals(bytes: &[u8], mut found: impl FnMut(usize, usize)) {
    for hit in search().find_overlapping_iter(bytes) {
        found(hit.pattern().as_usize(), hit.start());
    }
}
