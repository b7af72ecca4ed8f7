//! Any bytes as a console: read whole and in two pieces, with the same result.
#![no_main]

use kolumbo_console::{ReadOptions, Reader, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    let cut = bytes.first().map_or(0, |&b| bytes.len() * usize::from(b) / 256);
    let mut reader = Reader::new(ReadOptions::default());
    reader.feed(&bytes[..cut]);
    reader.feed(&bytes[cut..]);
    assert_eq!(whole, reader.finish());
    for report in &whole.reports {
        assert!(report.span.start <= report.span.end && report.span.end <= bytes.len() as u64 || whole.format == "mail");
    }
    let text = kolumbo_report::crash::report(&whole, kolumbo_report::crash::Shown::All);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
});
