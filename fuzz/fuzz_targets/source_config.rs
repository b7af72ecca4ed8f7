//! Two configurations, and everything that is said of how they differ.
#![no_main]

use kolumbo_source::config::Config;
use kolumbo_source::config::diff::{Side, diff};
use kolumbo_source::config::script::{Form, script_diff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let middle = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len() / 2);
    let (old, new) = bytes.split_at(middle);
    let _ = script_diff(old, new, Form::Changes);
    let _ = script_diff(old, new, Form::Merge);
    let (old, new) = (Config::parse(old), Config::parse(new));
    let side = |path, config| Side { path, config };
    let found = diff(side("a", &old), side("b", &new), None);
    let topics: Vec<&str> =
        kolumbo_source::config::boot::TOPICS.iter().map(|(topic, _)| *topic).collect();
    let _ = kolumbo_report::config::report(&found, &topics, true);
});
