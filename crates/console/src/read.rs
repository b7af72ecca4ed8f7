//! One input to everything that it says.
use kolumbo_case::{CrashReport, READ_FORMAT_VERSION, ReadResult};

use crate::crash::{name_crash, next_headline};
use crate::text::split;

/// Reads a whole input.
pub fn read(bytes: &[u8]) -> ReadResult {
    let text = split(bytes, 0, 0, false);
    let mut result = ReadResult { read_version: READ_FORMAT_VERSION, ..Default::default() };
    let mut at = 0;
    while let Some((index, group)) = next_headline(&text, at) {
        at = index + 1;
        let Some(named) = name_crash(&text, index, group) else { continue };
        result.reports.push(CrashReport {
            title: named.title,
            alt_titles: named.alts,
            crash_type: named.crash_type.to_owned(),
            kind: named.kind,
            frame: named.frame,
            corrupted: named.corrupted.is_some(),
            corrupted_reason: named.corrupted,
            panicked: named.panicked,
            ..Default::default()
        });
        break;
    }
    result
}
