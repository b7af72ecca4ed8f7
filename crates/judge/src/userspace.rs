//! What kolumbo's own init said.
//!
//! Keeps facts, jobs and heartbeats; decides only what a worker was seen doing. It may not know the
//! console. Main type: [`Userspace`].

use kolumbo_case::Evidence;
use kolumbo_case::file::GuestFacts;
use kolumbo_init::protocol::{Beat, Done, JobKind, Message, parse_line};

/// Jobs that are kept; a guest that reports more is not kolumbo's init.
const DONE_KEPT: usize = 256;

/// What init said in the current life of the guest.
#[derive(Debug, Clone, Default)]
pub struct Userspace {
    /// When init spoke first.
    pub hello_t: Option<u64>,
    /// The facts that it reported.
    pub facts: Option<GuestFacts>,
    /// The job that runs now: what it is and since when.
    pub job: Option<(JobKind, String, u64)>,
    /// Jobs that ended.
    pub done: Vec<(u64, Done)>,
    /// When it said that it powers off, and how.
    pub poweroff: Option<(u64, String)>,
    /// When it last said anything at all.
    pub last_t: Option<u64>,
    /// Taint when all jobs were done.
    pub end_taint: Option<u64>,
    /// Heartbeats since the worker last did something: the first and the newest of them.
    still: Option<(u64, Beat, u64, Beat)>,
}

impl Userspace {
    /// Takes one line. Tells whether it shows progress: a heartbeat alone does not.
    pub fn observe(&mut self, t: u64, line: &str) -> bool {
        // What is not a line of init is noise on the channel, which a dying guest may make.
        let Ok(message) = parse_line(line) else { return false };
        self.last_t = Some(t);
        self.hello_t.get_or_insert(t);
        match message {
            Message::Beat(beat) => return self.beat(t, beat),
            Message::Facts(facts) => self.facts = Some(*facts),
            Message::Start(start) => {
                self.job = Some((start.job, start.name, t));
                self.still = None;
            }
            Message::Done(done) => {
                self.job = None;
                self.still = None;
                if self.done.len() < DONE_KEPT {
                    self.done.push((t, done));
                }
            }
            Message::End(end) => self.end_taint = end.taint,
            Message::PowerOff(off) => self.poweroff = Some((t, off.way)),
            _ => {}
        }
        true
    }

    /// A heartbeat is progress when the worker switched voluntarily since the one before: it waited
    /// for something and got it.
    fn beat(&mut self, t: u64, beat: Beat) -> bool {
        match &mut self.still {
            Some((_, first, last_t, last))
                if first.switches == beat.switches && first.pid == beat.pid =>
            {
                *last_t = t;
                *last = beat;
                false
            }
            still => {
                *still = Some((t, beat.clone(), t, beat));
                true
            }
        }
    }

    /// The job that did not do what it was asked to, if there is one.
    pub fn failed_job(&self) -> Option<&(u64, Done)> {
        self.done.iter().find(|(_, done)| !done.succeeded())
    }

    /// For how long (in milliseconds) the worker has been in state `letter` at every heartbeat
    /// without one voluntary switch.
    pub fn still_in(&self, letter: &str) -> Option<u64> {
        let (from, first, to, last) = self.still.as_ref()?;
        (first.state == letter && last.state == letter).then(|| to - from)
    }

    /// The last heartbeat as proof.
    pub fn beat_evidence(&self) -> Option<Evidence> {
        let (from, _, to, last) = self.still.as_ref()?;
        let wchan = if last.wchan.is_empty() {
            String::new()
        } else {
            format!(", waits in {}", last.wchan)
        };
        Some(Evidence::Report {
            t: *to,
            from: "init".to_owned(),
            text: format!(
                "worker {} ({}) is in state {}{wchan}; {} voluntary switches and no new one for \
                 {:.1} s",
                last.pid,
                last.name,
                last.state,
                last.switches,
                (to - from) as f64 / 1e3
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(state: &str, switches: u64) -> String {
        format!(
            "kolumbo-init/1 beat {{\"job\":\"module\",\"name\":\"m.ko\",\"pid\":7,\
             \"state\":\"{state}\",\"switches\":{switches}}}"
        )
    }

    #[test]
    fn a_worker_that_never_switches_is_still() {
        let mut u = Userspace::default();
        assert!(u.observe(0, "kolumbo-init/1 hello {\"boot_ms\":5}"));
        assert!(u.observe(1000, &beat("D", 3)));
        assert!(!u.observe(2000, &beat("D", 3)));
        assert!(!u.observe(9000, &beat("D", 3)));
        assert_eq!(u.still_in("D"), Some(8000));
        assert_eq!(u.still_in("S"), None);
        assert!(u.observe(9500, &beat("D", 4)));
        assert_eq!(u.still_in("D"), Some(0));
    }

    #[test]
    fn noise_is_passed_over() {
        let mut u = Userspace::default();
        assert!(!u.observe(0, "garbage"));
        assert_eq!(u.hello_t, None);
    }

    #[test]
    fn a_program_that_fails_is_known() {
        let mut u = Userspace::default();
        u.observe(5, "kolumbo-init/1 done {\"job\":\"exec\",\"name\":\"/x\",\"exit\":3}");
        assert_eq!(u.failed_job().unwrap().1.exit, Some(3));
    }
}
