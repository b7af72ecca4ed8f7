//! A case file from somewhere else: read and rendered.
#![no_main]

use kolumbo_case::{CaseFile, Event};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(case) = serde_json::from_slice::<CaseFile>(bytes) {
        let text = kolumbo_report::boot::report(&case);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        let again = serde_json::to_vec(&case).expect("a case can be written");
        let case_again: CaseFile = serde_json::from_slice(&again).expect("and read again");
        // Facts of a later kolumbo may hold floating-point numbers, which JSON does not keep exactly.
        assert_eq!((case.spec, case.outcome), (case_again.spec, case_again.outcome));
    }
    let _ = serde_json::from_slice::<Event>(bytes);
});
