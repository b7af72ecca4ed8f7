//! Lines on the channel of kolumbo's init, from a guest that may say anything.
#![no_main]

use kolumbo_case::{Event, EventKind};
use kolumbo_judge::{Judge, Params};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: Vec<(u16, String)>| {
    let mut judge = Judge::new(Params { own_init: true, ..Params::default() });
    let mut t = 0;
    for (pause, line) in lines {
        t += u64::from(pause);
        let _ = kolumbo_init::parse_line(&line);
        // The mark is hard to guess; what follows it is what is worth trying.
        for line in [format!("kolumbo-init/1 {line}"), line] {
            judge.observe(&Event { t, kind: EventKind::Init { line } }, &[]);
        }
        let _ = judge.decide(t);
    }
    let _ = judge.finish(t);
});
