//! A quilt series, a mailbox and a commit message that somebody sent.
#![no_main]

use kolumbo_source::stack::mail::parse_patch;
use kolumbo_source::stack::message::Message;
use kolumbo_source::stack::series::parse_series;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for line in parse_series(bytes) {
        assert!(!line.name.is_empty() && line.number > 0);
    }
    let _ = parse_patch(bytes);
    let message = Message::parse(&String::from_utf8_lossy(bytes), &["OWN".to_owned()]);
    for name in message.names.iter().chain(&message.reverts).chain(&message.fixes) {
        assert!(name.len() >= 7 && name.is_ascii());
    }
});
