//! Replies of a QEMU that a guest has taken over.
#![no_main]

use kolumbo_machine::{qmp, registers_x86};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = qmp::parse_message(bytes);
    let text = String::from_utf8_lossy(bytes);
    for registers in registers_x86::parse_registers(&text) {
        let _ = registers_x86::sample_of(&registers);
    }
    let _ = registers_x86::parse_memory(&text);
});
