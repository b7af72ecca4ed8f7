//! A proof as plain text of 78 columns: the conclusion, then what was seen at each call.
//!
//! Decides what stands where. Main function: [`report`].

use kolumbo_case::proof::{CallSample, ProofFile, RegisterPair};

use crate::wrap::Page;

/// Registers beside those relied on that are shown for a call.
const CHANGED: usize = 6;

/// The whole proof.
#[must_use]
pub fn report(proof: &ProofFile) -> String {
    let mut page = Page::default();
    page.wrapped("", &proof.summary);
    page.wrapped("  finding   ", &proof.finding);
    page.wrapped("  kernel    ", &proof.kernel);
    page.wrapped("  ended     ", &proof.ended);
    for (index, call) in proof.watched.iter().enumerate() {
        let relies = call.relies.join(" ");
        let seen = match (call.seen, call.broken) {
            (0, _) => "not seen".to_owned(),
            (n, 0) => format!("seen {}, kept", times(n)),
            (n, broken) => format!("seen {}, lost {}", times(n), times(broken)),
        };
        page.wrapped(
            "  call      ",
            &format!("{}: {}  relies on {relies}: {seen}", call.place, call.instruction),
        );
        if let Some(sample) = proof.samples.iter().find(|s| s.call == index) {
            show(&mut page, sample);
        }
    }
    for gap in &proof.gaps {
        page.wrapped("  gap       ", gap);
    }
    page.finish()
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

fn show(page: &mut Page, sample: &CallSample) {
    let callee = sample.callee.as_deref().map_or(String::new(), |c| format!(", reached {c}"));
    page.wrapped("            ", &format!("on CPU {}{callee}", sample.cpu));
    for pair in &sample.relied {
        line(page, pair, if pair.kept { "kept" } else { "LOST" });
    }
    for pair in sample.changed.iter().take(CHANGED) {
        line(page, pair, "changed, not relied on");
    }
    if sample.changed.len() > CHANGED {
        let more = sample.changed.len() - CHANGED;
        page.wrapped("            ", &format!("{more} more registers changed"));
    }
}

fn line(page: &mut Page, pair: &RegisterPair, word: &str) {
    let name = &pair.register;
    let arrow =
        if pair.kept { pair.before.clone() } else { format!("{} -> {}", pair.before, pair.after) };
    page.line(&format!("            {name:<5} {arrow}  {word}"));
    if let Some(what) = pair.after_is.as_ref().filter(|_| !pair.kept) {
        page.wrapped("                  after: ", what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kolumbo_case::proof::WatchedCall;

    #[test]
    fn what_was_seen_stands_below_its_call() {
        let pair = |name: &str, kept| RegisterPair {
            register: name.to_owned(),
            before: "0x0000000000000001".to_owned(),
            after: "0x0000000000000002".to_owned(),
            kept,
            after_is: Some("a number".to_owned()),
            ..RegisterPair::default()
        };
        let watched = |place: &str, seen, broken| WatchedCall {
            place: place.to_owned(),
            instruction: "call *0x10(%rip)".to_owned(),
            relies: vec!["rcx".to_owned()],
            seen,
            broken,
            ..WatchedCall::default()
        };
        let proof = ProofFile {
            summary: "confirmed".to_owned(),
            watched: vec![watched("quiet+0x1", 0, 0), watched("loud+0x2", 3, 1)],
            samples: vec![CallSample {
                call: 1,
                callee: Some("culprit".to_owned()),
                relied: vec![pair("rcx", false)],
                changed: (0..8).map(|n| pair(&format!("r{n}"), false)).collect(),
                ..CallSample::default()
            }],
            ..ProofFile::default()
        };
        let text = report(&proof);
        for expected in [
            "quiet+0x1: call *0x10(%rip) relies on rcx: not seen",
            "loud+0x2: call *0x10(%rip) relies on rcx: seen 3 times, lost once\n",
            "reached culprit",
            "rcx   0x0000000000000001 -> 0x0000000000000002  LOST",
            "2 more registers changed",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
