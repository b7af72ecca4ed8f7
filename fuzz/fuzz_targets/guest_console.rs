//! Console bytes of a hostile guest, in pieces, through the judge to a rendered verdict.
#![no_main]

use kolumbo_case::{CaseFile, Event, EventKind};
use kolumbo_judge::{Decision, Judge, Params};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<(u16, Vec<u8>)>)| {
    let (own_init, pieces) = input;
    let mut judge = Judge::new(Params { own_init, ..Params::default() });
    let (mut t, mut offset) = (0u64, 0u64);
    for (pause, bytes) in pieces {
        t += u64::from(pause);
        let kind = EventKind::Console { offset, len: bytes.len() as u64 };
        judge.observe(&Event { t, kind }, &bytes);
        offset += bytes.len() as u64;
        if let Decision::Done(_) = judge.decide(t) {
            break;
        }
    }
    let verdict = judge.finish(t + 1_000_000);
    let case = CaseFile { outcome: Some(verdict), ..CaseFile::default() };
    let text = kolumbo_report::boot::report(&case);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a control character got through");
});
