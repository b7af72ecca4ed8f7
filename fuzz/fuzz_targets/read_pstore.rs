//! Any bytes behind the heading of a record of pstore.
#![no_main]

use kolumbo_console::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut records = b"Oops#1 Part1\n".to_vec();
    records.extend_from_slice(bytes);
    assert!(["console", "pstore"].contains(&read(&records).format.as_str()));
});
