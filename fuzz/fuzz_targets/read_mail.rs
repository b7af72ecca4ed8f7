//! Any bytes as the rest of a mail: headers, MIME, quoting, wrapping.
#![no_main]

use kolumbo_console::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut mail = b"From: a@example.org\nTo: b@example.org\nDate: Mon, 7 May 2018 13:49:18 +0000\n".to_vec();
    mail.extend_from_slice(bytes);
    let result = read(&mail);
    assert_eq!(result.read_version, 1);
    let _ = kolumbo_report::crash::report(&result, kolumbo_report::crash::Shown::All);
});
