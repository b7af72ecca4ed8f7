//! Whether the host stood still while a guest ran.
//!
//! A laptop that sleeps, a virtual machine that is moved, a debugger in the wrong window: the guest's clock goes on,
//! and a healthy kernel complains of a stall when it is let run again. Main type: [`PauseWatch`].

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Shorter delays are a busy host. The kernel's own watchdogs wait for 20 s and more, unless they are told otherwise.
const SHORTEST: Duration = Duration::from_secs(5);

/// The two clocks of the host at one moment: the first stands still while the host sleeps, the second does not.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    awake: Instant,
    boot: Duration,
}

impl Clocks {
    fn now() -> Clocks {
        let boot = clock_gettime(ClockId::Boottime);
        let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
        let boot = Duration::new(u64::try_from(boot.tv_sec).unwrap_or(0), nanos);
        Clocks { awake: Instant::now(), boot }
    }
}

/// Watches one loop that should come round in time.
#[derive(Debug, Default)]
pub struct PauseWatch {
    last: Option<Clocks>,
}

impl PauseWatch {
    /// The loop came round, having waited for `wanted` at most on purpose: for how many milliseconds the host stood
    /// still since the last round, where there was one and it is worth a word.
    pub fn round(&mut self, wanted: Duration) -> Option<u64> {
        let now = Clocks::now();
        let before = self.last.replace(now)?;
        let awake = now.awake.duration_since(before.awake);
        stood_still(awake, now.boot.saturating_sub(before.boot), wanted)
    }
}

/// Milliseconds beyond `wanted` on whichever clock went further.
fn stood_still(awake: Duration, boot: Duration, wanted: Duration) -> Option<u64> {
    let late = awake.max(boot).saturating_sub(wanted);
    (late >= SHORTEST).then(|| u64::try_from(late.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_no_pause_and_a_sleeping_host_is_one() {
        let s = Duration::from_secs;
        assert_eq!(stood_still(s(20), s(20), s(19)), None);
        assert_eq!(stood_still(s(4), s(4), s(0)), None);
        assert_eq!(stood_still(s(27), s(27), s(1)), Some(26_000));
        // The clock of a host that slept.
        assert_eq!(stood_still(s(1), s(3601), s(1)), Some(3_600_000));
        let mut watch = PauseWatch::default();
        assert_eq!((watch.round(s(0)), watch.round(s(0))), (None, None));
    }
}
