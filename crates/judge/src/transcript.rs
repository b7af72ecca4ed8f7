//! What the console said, as far as a verdict needs it.
//!
//! Decides nothing about the guest: it keeps the lines that may become proof, bounded, with the
//! time at which they came. Main type: [`Transcript`].

use std::collections::VecDeque;

use kolumbo_case::{ConsoleRecord, Evidence, HeadlineKind, Phase};
use kolumbo_console::{
    InitFailure, LineReader, PhaseTracker, Shutdown, classify, init_failure_of, shutdown_of,
};

/// Splats kept with their lines; beyond that they are only counted.
const SPLATS_KEPT: usize = 32;
/// Console bytes without any progress before the console can be called flooded.
const FLOOD_BYTES: u64 = 2 << 20;
/// How long the flood must have lasted.
const FLOOD_MS: u64 = 5_000;
/// Lines that a report of a lockup has at most: registers, a trace or two, held locks.
const LOCKUP_REPORT_LINES: u64 = 120;
/// Shapes of lines remembered, newest last.
const SHAPES_KEPT: usize = 4096;
/// A console whose last lines have at most this many shapes repeats itself.
const FLOOD_SHAPES: usize = 64;

/// Headlines with which the kernel says that something does not go on. It repeats them as long as
/// that is so.
pub const LOCKUPS: &[HeadlineKind] = &[
    HeadlineKind::SoftLockup,
    HeadlineKind::HardLockup,
    HeadlineKind::RcuStall,
    HeadlineKind::HungTask,
    HeadlineKind::WorkqueueLockup,
];

/// One line that may become proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since the start of QEMU.
    pub t: u64,
    /// Offset in the console's bytes.
    pub offset: u64,
    /// The line without control characters.
    pub text: String,
}

impl Line {
    /// The line as proof.
    pub fn evidence(&self) -> Evidence {
        Evidence::Line { t: self.t, offset: self.offset, text: self.text.clone() }
    }
}

/// A splat: a headline that the kernel survived so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splat {
    /// What kind.
    pub kind: HeadlineKind,
    /// The headline.
    pub line: Line,
}

/// The lines that matter, of the current life of the guest.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    reader: LineReader,
    phases: PhaseTracker,
    /// Bytes since the console began, over all lives.
    pub bytes: u64,
    /// When the last byte came.
    pub last_t: u64,
    /// First proof of each phase, in order.
    pub timeline: Vec<(Phase, Line)>,
    /// Headlines, panics excluded, at most [`SPLATS_KEPT`].
    pub splats: Vec<Splat>,
    /// How many splats there were.
    pub splat_count: u64,
    /// Lines with text, and the one with the last splat.
    lines: u64,
    splat_line: u64,
    /// A report that the kernel gave before is being repeated, up to this line.
    repeats_until: u64,
    /// Lines of such repetitions.
    old_news: u64,
    /// The first line that ended the kernel.
    pub panic: Option<Line>,
    /// The kernel has finished its last report.
    pub panic_ended: bool,
    /// The first line that says why there is no init.
    pub init_failure: Option<(InitFailure, Line)>,
    /// The furthest line of a shutdown.
    pub shutdown: Option<(Shutdown, Line)>,
    /// The kernel waits for its root device.
    pub waits_for_root: Option<Line>,
    /// The last line that has text.
    pub last_line: Option<Line>,
    flood: Flood,
}

/// Whether the console repeats itself.
#[derive(Debug, Clone, Default)]
struct Flood {
    since_t: u64,
    bytes: u64,
    shapes: VecDeque<u64>,
}

impl Transcript {
    /// Takes console bytes that arrived `t` milliseconds after the start of QEMU. Tells whether they
    /// show progress: a kernel that only repeats that something is stuck does not get anywhere.
    pub fn feed(&mut self, t: u64, bytes: &[u8]) -> bool {
        let (lines, old_news) = (self.lines, self.old_news);
        self.bytes += bytes.len() as u64;
        self.last_t = t;
        self.flood.bytes += bytes.len() as u64;
        let mut reader = std::mem::take(&mut self.reader);
        reader.feed(bytes, |record| self.observe(t, &record));
        self.reader = reader;
        let came = self.lines - lines;
        let old = self.old_news - old_news;
        came > old || (came == 0 && self.lines >= self.repeats_until)
    }

    /// The guest begins a new life: what the old one said is no proof for the new one, but what was
    /// sick about it stays known.
    pub fn restart(&mut self) {
        self.phases = PhaseTracker::new();
        self.shutdown = None;
        self.waits_for_root = None;
    }

    /// Something other than the console shows that the guest got somewhere.
    pub fn progressed(&mut self, t: u64) {
        self.flood = Flood { since_t: t, ..Flood::default() };
    }

    /// The furthest phase that the console proves.
    pub fn phase(&self) -> Phase {
        self.phases.reached()
    }

    /// The line that has begun and not ended.
    pub fn partial(&self) -> Option<Line> {
        let record = self.reader.partial()?;
        let text = record.text.trim_end();
        (!text.is_empty()).then(|| Line {
            t: self.last_t,
            offset: record.offset,
            text: text.to_owned(),
        })
    }

    /// The first splat whose kind is one of `kinds`.
    pub fn splat_of(&self, kinds: &[HeadlineKind]) -> Option<&Splat> {
        self.splats.iter().find(|s| kinds.contains(&s.kind))
    }

    /// A sentence and its number of bytes, when the console only repeats itself.
    pub fn flooded(&self, now: u64) -> Option<String> {
        let lasted = now.saturating_sub(self.flood.since_t);
        if self.flood.bytes < FLOOD_BYTES
            || lasted < FLOOD_MS
            || self.flood.shapes.len() < SHAPES_KEPT
        {
            return None;
        }
        let mut shapes: Vec<u64> = self.flood.shapes.iter().copied().collect();
        shapes.sort_unstable();
        shapes.dedup();
        (shapes.len() <= FLOOD_SHAPES).then(|| {
            format!(
                "{} KiB of console in {:.1} s without progress; the last {SHAPES_KEPT} lines have \
                 {} different shapes",
                self.flood.bytes >> 10,
                lasted as f64 / 1e3,
                shapes.len()
            )
        })
    }

    /// `BUG: kernel NULL pointer dereference` and `Oops: 0000 [#1]` are two headlines of one splat:
    /// arch/x86/mm/fault.c prints up to three lines between them.
    fn continues_splat(&self, kind: HeadlineKind) -> bool {
        matches!(kind, HeadlineKind::Oops | HeadlineKind::Trap)
            && self
                .splats
                .last()
                .is_some_and(|s| matches!(s.kind, HeadlineKind::Oops | HeadlineKind::KernelBug))
            && self.lines - self.splat_line <= 5
    }

    fn observe(&mut self, t: u64, record: &ConsoleRecord) {
        let text = record.text.trim_end();
        if text.is_empty() {
            return;
        }
        self.lines += 1;
        let line = || Line { t, offset: record.offset, text: text.to_owned() };
        if let Some(phase) = self.phases.observe(record) {
            self.timeline.push((phase, line()));
            self.progressed(t);
        }
        self.flood.note(record.message());
        let headline = classify(text);
        if let Some(headline) = headline {
            let again = LOCKUPS.contains(&headline.kind)
                && self.splats.iter().any(|s| s.kind == headline.kind);
            self.repeats_until = if again { self.lines + LOCKUP_REPORT_LINES } else { 0 };
        }
        self.old_news += u64::from(self.lines <= self.repeats_until);
        if let Some(headline) = headline {
            if headline.ends_kernel {
                self.panic.get_or_insert_with(line);
            } else if !self.continues_splat(headline.kind) {
                self.splat_count += 1;
                self.splat_line = self.lines;
                if self.splats.len() < SPLATS_KEPT {
                    self.splats.push(Splat { kind: headline.kind, line: line() });
                }
            }
        }
        if self.panic.is_some() && text.contains("---[ end Kernel panic") {
            self.panic_ended = true;
        }
        if let Some(failure) = init_failure_of(text) {
            self.init_failure.get_or_insert_with(|| (failure, line()));
        }
        if let Some(how) = shutdown_of(text)
            && self.shutdown.as_ref().is_none_or(|(before, _)| *before < how)
        {
            self.shutdown = Some((how, line()));
        }
        // init/do_mounts.c, wait_for_root(): printed once under `rootwait`.
        if record.message().starts_with("Waiting for root device ") {
            self.waits_for_root = Some(line());
        }
        self.last_line = Some(line());
    }
}

impl Flood {
    fn note(&mut self, message: &str) {
        if self.shapes.len() == SHAPES_KEPT {
            self.shapes.pop_front();
        }
        self.shapes.push_back(shape(message));
    }
}

/// A hash of the words of a line without its numbers: `CPU 3: 0x12` and `CPU 4: 0x7f` are alike.
fn shape(message: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut in_number = false;
    for byte in message.bytes().take(256) {
        let digit = byte.is_ascii_digit() || (in_number && byte.is_ascii_hexdigit());
        if digit && in_number {
            continue;
        }
        in_number = digit;
        let byte = if digit { b'0' } else { byte };
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(text: &str) -> Transcript {
        let mut transcript = Transcript::default();
        transcript.feed(10, text.as_bytes());
        transcript
    }

    #[test]
    fn a_panic_and_its_end_are_seen() {
        let t = fed("[ 1.0] Kernel panic - not syncing: test\n[ 1.1] CPU: 0\n");
        assert_eq!(t.panic.as_ref().unwrap().text, "[ 1.0] Kernel panic - not syncing: test");
        assert!(!t.panic_ended);
        let t = fed("Kernel panic - not syncing: a\n---[ end Kernel panic - not syncing: a ]---\n");
        assert!(t.panic_ended);
        assert_eq!(t.splat_count, 0);
    }

    #[test]
    fn the_furthest_shutdown_line_wins() {
        let t = fed(
            "Requesting system poweroff\n[    2.000000] reboot: Power down\nSent SIGKILL to all processes\n",
        );
        assert_eq!(t.shutdown.unwrap().0, Shutdown::PowerDown);
    }

    #[test]
    fn a_prompt_is_a_partial_line() {
        assert_eq!(fed("hello\nlogin: ").partial().unwrap().text, "login:");
        assert!(fed("hello\n").partial().is_none());
    }

    #[test]
    fn only_a_console_that_repeats_itself_is_flooded() {
        let mut noisy = Transcript::default();
        let mut busy = Transcript::default();
        let mut random = 1u64;
        for i in 0..40_000u64 {
            let line = format!("dev {i}: failed with status {i:#x}, trying again and again\n");
            noisy.feed(i / 4, line.as_bytes());
            let word: String = (0..12)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    char::from(b'g' + ((random >> 33) % 16) as u8)
                })
                .collect();
            let line = format!("test {word} did something new that is worth a line of its own\n");
            busy.feed(i / 4, line.as_bytes());
        }
        assert!(noisy.flooded(10_000).unwrap().contains("without progress"));
        assert_eq!(busy.flooded(10_000), None);
        noisy.progressed(10_000);
        assert_eq!(noisy.flooded(20_000), None);
    }

    #[test]
    fn a_repeated_lockup_is_no_progress() {
        let blocked = "INFO: task insmod:71 blocked for more than 5 seconds.\n  Not tainted\n";
        let mut t = Transcript::default();
        assert!(t.feed(1, b"hello\n"));
        assert!(t.feed(2, blocked.as_bytes()));
        assert!(!t.feed(3, blocked.as_bytes()));
        assert!(!t.feed(4, b"Call Trace:\n"));
        assert!(t.feed(5, b"WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n"));
        assert!(t.feed(6, b"hel"));
    }

    #[test]
    fn an_oops_with_two_headlines_is_one_splat() {
        let t = fed("BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
            #PF: supervisor write access in kernel mode\n#PF: error_code(0x0002)\n\
            PGD 0 P4D 0\nOops: 0002 [#1] PREEMPT SMP NOPTI\n");
        assert_eq!(t.splat_count, 1);
    }

    #[test]
    fn splats_are_counted_beyond_what_is_kept() {
        let t = fed(&"WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n".repeat(40));
        assert_eq!((t.splat_count, t.splats.len()), (40, SPLATS_KEPT));
    }
}
