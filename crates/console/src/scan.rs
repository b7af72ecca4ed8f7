//! Finding the lines that matter, fast, in raw bytes.
//!
//! Decides nothing: it looks for the literals of [`crate::formats`] and of boots and says where one
//! stands. Most of a healthy log is never split into lines.

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, packed};

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

/// The search that a healthy log spends its time in. The packed one (vector instructions, up to 64
/// literals) is about twice as fast as the automaton; where it is not available the automaton serves.
struct Prefilter {
    packed: Option<packed::Searcher>,
    automaton: AhoCorasick,
    headlines: usize,
}

fn prefilter() -> &'static Prefilter {
    static PREFILTER: OnceLock<Prefilter> = OnceLock::new();
    PREFILTER.get_or_init(|| {
        // What another literal contains need not be looked for.
        let all: Vec<&str> = headers().collect();
        let needed =
            |literal: &&str| !all.iter().any(|other| other != literal && literal.contains(other));
        let mut literals: Vec<&str> = all.iter().copied().filter(needed).collect();
        let headlines = literals.len();
        literals.extend(BOOT);
        Prefilter {
            packed: packed::Searcher::new(&literals),
            automaton: AhoCorasick::new(&literals)
                .expect("a few dozen short literals always build"),
            headlines,
        }
    })
}

/// The first literal at or behind `from`. A headline is found by one of its literals; which group it
/// belongs to is decided on the whole line.
pub(crate) fn next(bytes: &[u8], from: usize) -> Option<(Found, usize)> {
    let filter = prefilter();
    let (pattern, start) = match &filter.packed {
        Some(packed) if from <= bytes.len() => {
            let found = packed.find_in(bytes, (from..bytes.len()).into())?;
            (found.pattern(), found.start())
        }
        _ => {
            let found = filter.automaton.find(bytes.get(from..)?)?;
            (found.pattern(), from + found.start())
        }
    };
    let kind = if pattern.as_usize() < filter.headlines { Found::Headline } else { Found::Boot };
    Some((kind, start))
}

/// Calls `found` with group and offset for each literal in `bytes`.
pub(crate) fn literals(bytes: &[u8], mut found: impl FnMut(usize, usize)) {
    for hit in search().find_overlapping_iter(bytes) {
        found(hit.pattern().as_usize(), hit.start());
    }
}
