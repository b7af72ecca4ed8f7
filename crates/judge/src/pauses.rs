//! When the host stood still, and which complaints of the guest that explains.
//!
//! The clock of a guest goes on while its host lets nothing run: a healthy kernel then finds that nothing moved for
//! half a minute, and says so. Main type: [`Pauses`].

use crate::transcript::{LOCKUPS, Splat};

/// How long after a pause the guest's watchdogs find it: they look every few seconds.
const EXPLAINS_MS: u64 = 10_000;
/// Pauses that are kept; a host with more of them is not one to measure on.
const KEPT: usize = 256;

/// The pauses of one run.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    /// End and length of each.
    list: Vec<(u64, u64)>,
    total_ms: u64,
}

impl Pauses {
    /// A pause of `ms` ended at `t`.
    pub(crate) fn add(&mut self, t: u64, ms: u64) {
        self.total_ms = self.total_ms.saturating_add(ms);
        if self.list.len() < KEPT {
            self.list.push((t, ms));
        }
    }

    /// Milliseconds in which the host stood still.
    pub(crate) fn total_ms(&self) -> u64 {
        self.total_ms
    }

    /// Whether a pause explains this complaint: it says that something does not go on, and comes right behind one.
    pub(crate) fn explain(&self, splat: &Splat) -> bool {
        let behind = |(end, _): &(u64, u64)| {
            (*end..=end.saturating_add(EXPLAINS_MS)).contains(&splat.line.t)
        };
        LOCKUPS.contains(&splat.kind) && self.list.iter().any(behind)
    }
}

#[cfg(test)]
mod tests {
    use kolumbo_case::{Event, EventKind, VerdictKind};

    use crate::{Decision, Judge, Params};

    const BOOT: &str = "[    0.000000] Linux version 6.1.0 (a@b) (gcc 12) #1 SMP\n\
                        [    1.000000] Run /init as init process\n";
    const STALL: &str = "[   28.000000] rcu: INFO: rcu_preempt self-detected stall on CPU\n";
    const LOCKDEP: &str = "[   28.000000] WARNING: possible circular locking dependency detected\n";
    const DOWN: &str = "[   29.000000] reboot: Power down\n";

    /// What is judged of a guest that prints these texts and goes down; the host stood still before each that has
    /// a length.
    fn judged(said: &[(Option<u64>, &str)]) -> VerdictKind {
        let mut judge = Judge::new(Params::default());
        let (mut offset, mut t) = (0, 0);
        for (pause, text) in said {
            if let Some(ms) = pause {
                t += ms;
                judge.observe(&Event { t, kind: EventKind::HostPaused { ms: *ms } }, b"");
            }
            let len = text.len() as u64;
            judge.observe(&Event { t, kind: EventKind::Console { offset, len } }, text.as_bytes());
            offset += len;
            t += 100;
        }
        let down =
            kolumbo_case::QemuEvent::Shutdown { guest: true, reason: "guest-shutdown".into() };
        judge.observe(&Event { t, kind: EventKind::Qemu(down) }, b"");
        match judge.decide(t) {
            Decision::Done(verdict) => verdict.verdict,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_that_did_not_move_while_the_host_stood_still_is_proof() {
        let idle = |judge: &mut Judge, from: u64, pause: Option<u64>| {
            if let Some(ms) = pause {
                judge.observe(&Event { t: from, kind: EventKind::HostPaused { ms } }, b"");
            }
            for i in 0..20 {
                let vcpus = vec![kolumbo_case::VcpuSample {
                    halted: true,
                    interrupts: true,
                    ran_us: Some(0),
                    ..Default::default()
                }];
                judge.observe(&Event { t: from + i * 250, kind: EventKind::Sample { vcpus } }, b"");
            }
            judge.decide(from + 5000)
        };
        let after = |pause| {
            let mut judge = Judge::new(Params::default());
            let text = b"[    0.000000] Linux version 6.1.0 (a@b) (gcc 12) #1 SMP\n";
            let len = text.len() as u64;
            judge.observe(&Event { t: 0, kind: EventKind::Console { offset: 0, len } }, text);
            assert_eq!(idle(&mut judge, 1000, None), Decision::Watch);
            idle(&mut judge, 80_000, pause)
        };
        assert_eq!(after(Some(70_000)), Decision::Watch);
        assert!(matches!(after(None), Decision::Done(_)), "the same without a pause");
    }

    #[test]
    fn a_stall_behind_a_pause_is_no_verdict_on_the_kernel() {
        let stalled = judged(&[(None, BOOT), (Some(27_000), STALL), (None, DOWN)]);
        assert_eq!(stalled, VerdictKind::CannotTell);
        // Without a pause, long behind one, and beside something that no pause explains it counts.
        let plain = judged(&[(None, BOOT), (None, STALL), (None, DOWN)]);
        assert_eq!(plain, VerdictKind::BootedWithSplats);
        let mut late = vec![(Some(27_000), BOOT)];
        late.extend(std::iter::repeat_n((None, "[    2.0] x\n"), 120));
        late.extend([(None, STALL), (None, DOWN)]);
        assert_eq!(judged(&late), VerdictKind::BootedWithSplats);
        let more = judged(&[(None, BOOT), (Some(27_000), STALL), (None, LOCKDEP), (None, DOWN)]);
        assert_eq!(more, VerdictKind::BootedWithSplats);
        // Two stalls of which one has no pause before it.
        let two = judged(&[(None, STALL), (None, BOOT), (Some(27_000), STALL), (None, DOWN)]);
        assert_eq!(two, VerdictKind::BootedWithSplats);
        // A pause that nobody complains of changes nothing.
        assert_eq!(judged(&[(None, BOOT), (Some(27_000), DOWN)]), VerdictKind::Booted);
    }
}
