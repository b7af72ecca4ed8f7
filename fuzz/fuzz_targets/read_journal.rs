//! Any bytes behind one good entry of a journal in JSON.
#![no_main]

use kolumbo_console::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut journal = b"{\"MESSAGE\":\"x\",\"_TRANSPORT\":\"kernel\"}\n".to_vec();
    journal.extend_from_slice(bytes);
    assert_eq!(read(&journal).format, "journal-json");
});
