//! Lines of the monitor, from a host kernel whose guest may have taken over either.
#![no_main]

use kolumbo_vmm::words::{self, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: String| {
    // The mark is hard to guess; what follows it is what is worth trying.
    for line in [format!("{} {line}", words::MARK), line] {
        let Ok(message) = words::parse_line(&line) else { continue };
        if let Message::Console { text, .. } = &message {
            assert!(words::bytes_of(text).len() <= text.len());
        }
        if let Message::Sample { cpus, .. } = &message {
            for cpu in cpus {
                assert!(words::bytes_of_hex(&cpu.code).len() <= cpu.code.len() / 2);
            }
        }
        let again = words::to_line(&message);
        if again.len() <= words::LINE_LIMIT {
            assert_eq!(words::parse_line(again.trim_end()).as_ref(), Ok(&message));
        }
    }
});
