//! Packets of a debugger that a guest has taken over.
#![no_main]

use kolumbo_machine::gdb::take_packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut buffer = bytes.to_vec();
    let mut before = buffer.len() + 1;
    // Every packet that is taken makes the buffer shorter, so this ends.
    while let Ok(Some(_)) = take_packet(&mut buffer) {
        assert!(buffer.len() < before);
        before = buffer.len();
    }
});
