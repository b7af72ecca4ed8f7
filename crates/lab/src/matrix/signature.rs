//! What tells one bug from another: a line made from a case and what its console said.
//!
//! Biased towards one bug: numbers and addresses do not count, and a function only where every
//! CPU that is stuck stands in the same one.

use kolumbo_case::{CaseFile, Evidence, Verdict, VerdictKind};
use kolumbo_console::{ReadOptions, Reader};
use kolumbo_judge::transcript::LOCKUPS;

/// Console bytes that are read for a title: the first crash is near the front of what a guest
/// that floods its console has to say.
const MOST_CONSOLE: usize = 4 << 20;

/// Whether a verdict is one of a healthy guest.
pub fn is_healthy(verdict: VerdictKind, allow_splats: bool) -> bool {
    verdict == VerdictKind::Booted || (allow_splats && verdict == VerdictKind::BootedWithSplats)
}

/// The signature of a sick run: the title of its first crash, or the verdict with the phase and,
/// where it is clear, the function in which it hangs. Empty for a healthy one.
pub fn signature(case: &CaseFile, console: &[u8], allow_splats: bool) -> String {
    let Some(verdict) = &case.outcome else { return String::new() };
    if is_healthy(verdict.verdict, allow_splats) {
        return String::new();
    }
    let console = &console[..console.len().min(MOST_CONSOLE)];
    // A stall that a pause of the host explains is nobody's bug, so what else there is comes first.
    let paused = case.host_paused_ms.is_some();
    let mut reader = Reader::new(ReadOptions { first_only: !paused });
    reader.feed(console);
    let reports = reader.finish().reports;
    let mut titled: Vec<_> =
        reports.into_iter().filter(|report| !report.title.is_empty()).collect();
    if paused {
        titled.sort_by_key(|report| report.kind.is_some_and(|kind| LOCKUPS.contains(&kind)));
    }
    if let Some(report) = titled.into_iter().next() {
        return report.title;
    }
    // Only a guest that stands still stands somewhere: at a reset each run is caught elsewhere.
    let hangs = verdict.verdict.name().starts_with("hung-");
    match stuck_function(verdict).filter(|_| hangs) {
        Some(function) => format!("{} in {} at {function}", verdict.verdict, verdict.phase),
        None => format!("{} in {}", verdict.verdict, verdict.phase),
    }
}

/// The function that all CPUs stand in that are not idle.
fn stuck_function(verdict: &Verdict) -> Option<&str> {
    let mut functions = verdict.evidence.iter().filter_map(|e| match e {
        Evidence::Vcpu { last, .. } if !(last.halted && last.interrupts) => {
            Some(last.symbol.as_deref().and_then(|s| s.split('+').next()))
        }
        _ => None,
    });
    let first = functions.next()??;
    functions.all(|f| f == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kolumbo_case::{Phase, VcpuSample};

    fn vcpu(symbol: Option<&str>, halted: bool) -> Evidence {
        Evidence::Vcpu {
            from_t: 0,
            to_t: 1,
            samples: 2,
            text: String::new(),
            last: VcpuSample {
                symbol: symbol.map(str::to_owned),
                halted,
                interrupts: halted,
                ..serde_json::from_str(
                    r#"{"cpu":0,"halted":false,"interrupts":false,"cpl":0,"pc":0,"flags":0,"page_table":0,"sp":0,"state":0}"#,
                )
                .unwrap()
            },
        }
    }

    fn case(verdict: VerdictKind, evidence: Vec<Evidence>) -> CaseFile {
        let outcome = Verdict {
            verdict,
            reason: String::new(),
            phase: Phase::Initcalls,
            timed_out: false,
            last_sign_of_life_ms: 0,
            decided_ms: 0,
            evidence,
        };
        CaseFile { outcome: Some(outcome), ..CaseFile::default() }
    }

    #[test]
    fn hangs_are_told_apart_by_phase_and_function() {
        let of = |evidence| signature(&case(VerdictKind::HungBoot, evidence), b"", false);
        assert_eq!(of(vec![]), "hung-boot in initcalls");
        assert_eq!(
            of(vec![vcpu(Some("f+0x1/0x2"), false), vcpu(Some("idle+0x1/0x2"), true)]),
            "hung-boot in initcalls at f"
        );
        let two = vec![vcpu(Some("f+0x1/0x2"), false), vcpu(Some("g+0x1/0x2"), false)];
        assert_eq!(of(two), "hung-boot in initcalls");
    }

    #[test]
    fn a_crash_is_known_by_its_title() {
        let console = b"[    1.0] BUG: unable to handle kernel NULL pointer dereference at 0000000000000008\n\
                        [    1.0] RIP: 0010:sick_init+0x1/0x20\n";
        let panicked = case(VerdictKind::Panicked, vec![]);
        let title = signature(&panicked, console, false);
        assert!(title.starts_with("BUG: unable to handle kernel NULL"), "{title}");
        let stall = "[    0.5] rcu: INFO: rcu_preempt self-detected stall on CPU\n[    0.5] Call Trace:\n\
                     [    0.5]  f+0x1/0x2\n[    0.5]  </TASK>\n";
        let between = "[    0.6] pci 0000:00:00.0: all is well\n".repeat(40);
        let stalled = [stall.as_bytes(), between.as_bytes(), console].concat();
        assert!(signature(&panicked, &stalled, false).starts_with("INFO: rcu"));
        let paused = CaseFile { host_paused_ms: Some(9000), ..panicked };
        assert_eq!(signature(&paused, &stalled, false), title);
        let splats = case(VerdictKind::BootedWithSplats, vec![]);
        assert_eq!(signature(&splats, console, true), "");
        assert_ne!(signature(&splats, console, false), "");
    }
}
