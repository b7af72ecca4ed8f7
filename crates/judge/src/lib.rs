//! Judges a run: events in, a verdict with its proof out.
//!
//! Pure: times arrive in the events, and the same events give the same verdict again, so that a
//! stored case can be judged anew. It may not know QEMU's arguments or wall time. Main type:
//! [`Judge`].

mod pauses;
mod sentence;
pub mod stillness;
pub mod transcript;
pub mod userspace;

use kolumbo_case::{
    Event, EventKind, Evidence, HeadlineKind, Phase, QemuEvent, VcpuSample, Verdict, VerdictKind,
};
use kolumbo_console::{InitFailure, Shutdown};

use crate::pauses::Pauses;
use crate::stillness::{Activity, Circumstances, Proof, Stillness};
use crate::transcript::{LOCKUPS, Line, Splat, Transcript};
use crate::userspace::Userspace;

/// Silence after which the virtual CPUs are looked at.
const SILENCE_MS: u64 = 1_000;
/// Time between two looks at first, and later.
const LOOK_EVERY_MS: u64 = 250;
const LOOK_EVERY_LATER_MS: u64 = 1_000;
/// How long looks are frequent.
const FREQUENT_MS: u64 = 15_000;
/// Console silence after which a panic has said all it had to say.
const PANIC_QUIET_MS: u64 = 1_000;
/// The same once its last line was seen.
const PANIC_ENDED_QUIET_MS: u64 = 200;
/// Resets without reaching userspace that make a loop.
const LOOP_RESETS: usize = 3;
/// A guest in which every CPU is idle and nothing happens for this long while it boots: there is no
/// disk and no network that it could be waiting for.
const IDLE_BOOT_MS: u64 = 60_000;
/// The same while it shuts down after the last thing user space could do.
const IDLE_SHUTDOWN_MS: u64 = 15_000;
/// The same while user space itself is still stopping things.
const IDLE_STOPPING_MS: u64 = 100_000;
/// A worker of init in uninterruptible sleep without one switch, with every CPU idle. The kernel's
/// own hung-task detector waits for 120 s; a driver may well sleep for 30.
const BLOCKED_MS: u64 = 60_000;
/// Heartbeats of init come once a second; a guest that is idle and lost them has no timer.
const BEATS_LOST_MS: u64 = 30_000;
/// How long everything must have been still after the kernel announced a hung task or a stall.
const AFTER_LOCKUP_MS: u64 = 8_000;
/// A prompt that stands this long with every CPU idle is a guest that waits for a person.
const PROMPT_MS: u64 = 5_000;

/// What a run was, as far as judging needs it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Params {
    /// The guest runs kolumbo's own init.
    pub own_init: bool,
    /// A person or a debugger is in control: silence proves nothing and no CPU is looked at.
    pub hands_off: bool,
    /// The kernel idles by spinning (`idle=poll`).
    pub idle_polls: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on watching.
    Watch,
    /// The guest reset itself and stands still: let it start over, to see whether it loops.
    StartOver,
    /// The verdict is reached.
    Done(Box<Verdict>),
}

/// One reset of the guest.
#[derive(Debug, Clone)]
struct Reset {
    t: u64,
    reason: String,
    phase: Phase,
    last_line: Option<Line>,
}

/// Watches one run.
#[derive(Debug, Default)]
pub struct Judge {
    params: Params,
    now: u64,
    transcript: Transcript,
    userspace: Userspace,
    stillness: Stillness,
    /// When the guest last got anywhere; heartbeats and samples do not count.
    progress_t: u64,
    /// When the guest last showed that it lives.
    life_t: u64,
    last_look_t: Option<u64>,
    resets: Vec<Reset>,
    /// A reset or a power-off that was reported and not yet dealt with.
    ended: Option<Ended>,
    exited: Option<Evidence>,
    pvpanic_t: Option<u64>,
    pauses: Pauses,
    time_limit: bool,
    interrupted: bool,
    decided: bool,
}

#[derive(Debug, Clone)]
enum Ended {
    Reset,
    PowerOff(u64, String),
    Trouble(u64, String),
}

impl Judge {
    /// A judge of a run that has not begun.
    pub fn new(params: Params) -> Self {
        Judge { params, ..Judge::default() }
    }

    /// Takes the next event. `console` holds the bytes that a console event announces.
    pub fn observe(&mut self, event: &Event, console: &[u8]) {
        self.now = self.now.max(event.t);
        let t = event.t;
        match &event.kind {
            EventKind::Console { .. } => {
                if self.transcript.feed(t, console) {
                    self.progress(t);
                }
                self.life_t = t;
            }
            EventKind::Init { line } => {
                self.life_t = t;
                if self.userspace.observe(t, line) {
                    self.progress(t);
                    self.transcript.progressed(t);
                }
            }
            EventKind::Qemu(event) => self.observe_qemu(t, event),
            EventKind::Sample { vcpus } => self.observe_sample(t, vcpus),
            EventKind::QemuExited { code, signal, stderr } => {
                self.exited = Some(sentence::exit(t, *code, *signal, stderr));
            }
            EventKind::HostPaused { ms } => {
                self.pauses.add(t, *ms);
                // Nothing could move meanwhile, so that nothing did proves nothing.
                self.stillness.clear();
            }
            EventKind::TimeLimit => self.time_limit = true,
            EventKind::Interrupted => self.interrupted = true,
            _ => {}
        }
    }

    fn observe_qemu(&mut self, t: u64, event: &QemuEvent) {
        match event {
            QemuEvent::Shutdown { guest: true, reason } if reason == "guest-reset" => {
                self.resets.push(Reset {
                    t,
                    reason: reason.clone(),
                    phase: self.phase(),
                    last_line: self.transcript.last_line.clone(),
                });
                self.ended = Some(Ended::Reset);
            }
            QemuEvent::Shutdown { guest: true, reason } => {
                self.ended = Some(Ended::PowerOff(t, reason.clone()));
            }
            QemuEvent::Shutdown { guest: false, reason } if reason == "host-error" => {
                self.ended = Some(Ended::Trouble(t, reason.clone()));
            }
            QemuEvent::InternalError => {
                self.ended = Some(Ended::Trouble(t, "internal error".to_owned()));
            }
            QemuEvent::GuestPanicked { .. } => {
                self.pvpanic_t.get_or_insert(t);
            }
            _ => {}
        }
    }

    fn observe_sample(&mut self, t: u64, vcpus: &[VcpuSample]) {
        self.last_look_t = Some(t);
        self.stillness.add(t, vcpus);
    }

    fn progress(&mut self, t: u64) {
        self.progress_t = t;
        self.life_t = t;
        self.stillness.clear();
    }

    /// The furthest phase of the current life.
    pub fn phase(&self) -> Phase {
        let said = if self.userspace.poweroff.is_some() {
            Phase::Shutdown
        } else if self.userspace.hello_t.is_some() {
            Phase::Userspace
        } else {
            Phase::Firmware
        };
        said.max(self.transcript.phase())
    }

    /// Milliseconds from the start of QEMU to the guest's last sign of life.
    pub fn last_sign_of_life_ms(&self) -> u64 {
        self.life_t
    }

    /// Milliseconds in which the host let nothing run: no part of the guest's time.
    pub fn host_paused_ms(&self) -> u64 {
        self.pauses.total_ms()
    }

    /// Where CPU `cpu` mostly stood at the last looks; none where it was halted or not looked at.
    pub fn usual_pc(&self, cpu: u32) -> Option<u64> {
        self.stillness.usual_pc(usize::try_from(cpu).ok()?)
    }

    /// The console so far, as far as it matters.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// What init said so far.
    pub fn userspace(&self) -> &Userspace {
        &self.userspace
    }

    /// When the virtual CPUs should be looked at next, in milliseconds since the start of QEMU.
    pub fn next_look(&self) -> Option<u64> {
        if self.params.hands_off || self.decided || self.ended.is_some() {
            return None;
        }
        let quiet_from = self.progress_t + SILENCE_MS;
        let Some(last) = self.last_look_t.filter(|&t| t >= quiet_from) else {
            return Some(quiet_from);
        };
        let every = if last.saturating_sub(self.progress_t) < FREQUENT_MS {
            LOOK_EVERY_MS
        } else {
            LOOK_EVERY_LATER_MS
        };
        Some(last + every)
    }

    /// When a decision may change although nothing happens, in milliseconds since the start of QEMU.
    pub fn next_decision(&self) -> Option<u64> {
        let panic = self.transcript.panic.as_ref().map(|_| self.panic_settles_at());
        panic.into_iter().chain(self.next_look()).min()
    }

    /// What to do, `now` milliseconds after the start of QEMU.
    pub fn decide(&mut self, now: u64) -> Decision {
        self.now = self.now.max(now);
        match self.judge() {
            Step::Watch => Decision::Watch,
            Step::StartOver => {
                self.ended = None;
                self.transcript.restart();
                self.userspace = Userspace::default();
                self.progress(self.now);
                Decision::StartOver
            }
            Step::Done(verdict) => {
                self.decided = true;
                Decision::Done(verdict)
            }
        }
    }

    /// The verdict at the end of all events, whatever they were.
    pub fn finish(&mut self, now: u64) -> Verdict {
        match self.decide(now) {
            Decision::Done(verdict) => *verdict,
            Decision::StartOver => self.reset_verdict(),
            Decision::Watch => self.verdict(
                VerdictKind::CannotTell,
                "the run ended before the evidence was enough".to_owned(),
                self.stillness.evidence(),
            ),
        }
    }

    fn judge(&self) -> Step {
        if let Some(step) = self.judge_panic() {
            return step;
        }
        if let Some(ended) = &self.ended {
            return match ended {
                Ended::Reset => self.judge_reset(),
                Ended::PowerOff(t, reason) => Step::done(self.judge_power_off(*t, reason)),
                Ended::Trouble(t, reason) => Step::done(self.verdict(
                    VerdictKind::CannotTell,
                    format!("QEMU stopped the guest by itself ({reason})"),
                    vec![sentence::report(*t, "qemu", reason)],
                )),
            };
        }
        if let Some(evidence) = &self.exited {
            return Step::done(self.verdict(
                VerdictKind::CannotTell,
                "QEMU ended by itself".to_owned(),
                vec![evidence.clone()],
            ));
        }
        if self.interrupted {
            return Step::done(self.verdict(
                VerdictKind::CannotTell,
                "the run was interrupted".to_owned(),
                self.stillness.evidence(),
            ));
        }
        if let Some(flood) = self.transcript.flooded(self.now) {
            let mut evidence = vec![sentence::report(self.now, "host", &flood)];
            evidence.extend(self.transcript.last_line.as_ref().map(Line::evidence));
            return Step::done(self.verdict(VerdictKind::ConsoleFlood, flood, evidence));
        }
        if !self.params.hands_off
            && let Some(verdict) = self.judge_stillness()
        {
            return Step::done(verdict);
        }
        if self.time_limit {
            return Step::done(self.judge_time_limit());
        }
        Step::Watch
    }

    fn panic_settles_at(&self) -> u64 {
        let quiet = if self.transcript.panic_ended { PANIC_ENDED_QUIET_MS } else { PANIC_QUIET_MS };
        self.transcript.last_t + quiet
    }

    /// A panic is final, but its report is worth waiting for.
    fn judge_panic(&self) -> Option<Step> {
        let settled = self.now >= self.panic_settles_at()
            || self.ended.is_some()
            || self.exited.is_some()
            || self.time_limit
            || self.interrupted;
        let Some(panic) = &self.transcript.panic else {
            // pvpanic without a line: the console is not where the kernel speaks.
            let t = self.pvpanic_t?;
            return Some(Step::done(self.verdict(
                VerdictKind::Panicked,
                "the guest reported a panic through the pvpanic device".to_owned(),
                vec![sentence::report(t, "qemu", "GUEST_PANICKED")],
            )));
        };
        if !settled {
            return Some(Step::Watch);
        }
        let mut evidence = vec![panic.evidence()];
        // An oops of init's own makes the kernel say that init was killed: the oops is the news.
        let crash = self.transcript.splat_of(CRASHES);
        if crash.is_none()
            && let Some((why, line)) = &self.transcript.init_failure
            && *why != InitFailure::BadInitramfs
        {
            if line != panic {
                evidence.insert(0, line.evidence());
            }
            let reason = sentence::init_failure(*why).to_owned();
            return Some(Step::done(self.verdict(VerdictKind::InitFailed, reason, evidence)));
        }
        if let Some(splat) = crash {
            evidence.insert(0, splat.line.evidence());
        }
        let reason = sentence::message_of(&panic.text);
        Some(Step::done(self.verdict(VerdictKind::Panicked, reason, evidence)))
    }

    fn judge_reset(&self) -> Step {
        if self.shutdown_was_orderly() {
            return Step::done(self.booted());
        }
        let in_userspace = self.phase() >= Phase::Userspace;
        if in_userspace || self.params.hands_off || self.time_limit {
            return Step::done(self.reset_verdict());
        }
        if self.resets.len() >= LOOP_RESETS {
            return Step::done(self.reset_verdict());
        }
        Step::StartOver
    }

    /// The guest went down the way it was asked to.
    fn shutdown_was_orderly(&self) -> bool {
        let announced = self.transcript.shutdown.as_ref().map(|(how, _)| *how);
        let last_word = matches!(
            announced,
            Some(Shutdown::PowerDown | Shutdown::Halted | Shutdown::Restarting)
        );
        if self.params.own_init {
            // A kernel that prints nothing is believed when init asked for the restart.
            let restart = self.userspace.poweroff.as_ref().is_some_and(|(_, way)| way == "restart");
            return self.userspace.poweroff.is_some() && (last_word || restart);
        }
        last_word
    }

    fn reset_verdict(&self) -> Verdict {
        let looped = self.resets.len() >= LOOP_RESETS;
        let kind = if looped { VerdictKind::ResetLoop } else { VerdictKind::Reset };
        let mut evidence: Vec<Evidence> = Vec::new();
        for reset in self.resets.iter().take(LOOP_RESETS) {
            evidence.extend(reset.last_line.as_ref().map(Line::evidence));
            let text = format!("{} in phase {}", reset.reason, reset.phase);
            evidence.push(sentence::report(reset.t, "qemu", &text));
        }
        if let Some((t, vcpus)) = self.stillness.last() {
            evidence.extend(sentence::at_reset(*t, vcpus));
        }
        let phase = self.resets.last().map_or(Phase::Firmware, |r| r.phase);
        let reason = if looped {
            format!("the guest reset itself {} times in phase {phase}", self.resets.len())
        } else if self.resets.len() > 1 {
            format!("the guest reset itself {} times, last in phase {phase}", self.resets.len())
        } else {
            format!("the guest reset itself in phase {phase}")
        };
        self.verdict(kind, reason, evidence)
    }

    fn judge_power_off(&self, t: u64, reason: &str) -> Verdict {
        let report = sentence::report(t, "qemu", reason);
        if self.params.own_init {
            return match self.userspace.poweroff {
                Some(_) => self.booted(),
                None => self.verdict(
                    VerdictKind::InitFailed,
                    "the guest powered itself off before init said that it would".to_owned(),
                    vec![report],
                ),
            };
        }
        if self.transcript.bytes == 0 {
            return self.verdict(
                VerdictKind::Silent,
                "the guest powered itself off without printing a byte".to_owned(),
                vec![report],
            );
        }
        if self.phase() < Phase::Init {
            return self.verdict(
                VerdictKind::InitFailed,
                "the guest powered itself off before it started init".to_owned(),
                vec![report],
            );
        }
        self.booted()
    }

    /// The guest came up and went down again: what was printed on the way decides the rest.
    fn booted(&self) -> Verdict {
        let mut evidence = Vec::new();
        if let Some(t) = self.userspace.hello_t {
            evidence.push(sentence::report(t, "init", "hello"));
        } else if let Some((_, line)) = self
            .transcript
            .timeline
            .iter()
            .rfind(|(p, _)| *p >= Phase::Init && *p < Phase::Shutdown)
        {
            evidence.push(line.evidence());
        }
        evidence.extend(self.transcript.shutdown.as_ref().map(|(_, line)| line.evidence()));
        if !self.resets.is_empty() && !self.shutdown_was_orderly() {
            return self.reset_verdict();
        }
        if self.resets.iter().any(|r| r.phase < Phase::Shutdown) {
            return self.reset_verdict();
        }
        if self.transcript.splat_count > 0 {
            let reason = match self.transcript.splat_count {
                1 => "booted and powered off, with one splat on the way".to_owned(),
                n => format!("booted and powered off, with {n} splats on the way"),
            };
            return self.booted_with_splats(reason, evidence);
        }
        let mut reason = if self.ended.is_some() {
            "booted and powered off".to_owned()
        } else {
            "booted and halted".to_owned()
        };
        if let Some((t, done)) = self.userspace.failed_job() {
            let failed = sentence::failed_job(done);
            reason.push_str(&format!("; {failed}"));
            evidence.push(sentence::report(*t, "init", &failed));
        }
        if self.transcript.bytes == 0 {
            reason.push_str("; the console stayed empty");
        }
        self.verdict(VerdictKind::Booted, reason, evidence)
    }

    /// The guest came up but complained on the way; nothing can be told where pauses of the host explain all of it.
    fn booted_with_splats(&self, reason: String, mut evidence: Vec<Evidence>) -> Verdict {
        let splats = &self.transcript.splats;
        evidence.splice(0..0, splats.iter().map(|s| s.line.evidence()));
        let explained = splats.iter().filter(|s| self.pauses.explain(s)).count();
        if explained as u64 != self.transcript.splat_count {
            return self.verdict(VerdictKind::BootedWithSplats, reason, evidence);
        }
        let reason = format!(
            "{reason}; but the host stood still for {:.0} s, and a stall right behind that is all that the kernel \
             complains of",
            self.pauses.total_ms() as f64 / 1e3
        );
        self.verdict(VerdictKind::CannotTell, reason, evidence)
    }

    /// The first announcement of a lockup that has no other explanation.
    fn lockup(&self) -> Option<&Splat> {
        self.transcript.splats.iter().find(|s| LOCKUPS.contains(&s.kind) && !self.pauses.explain(s))
    }

    /// What the virtual CPUs, the heartbeats and the silence prove together.
    fn judge_stillness(&self) -> Option<Verdict> {
        let quiet = self.now.saturating_sub(self.progress_t);
        if quiet < SILENCE_MS {
            return None;
        }
        let lockup = self.lockup();
        let circumstances = Circumstances {
            past_early_boot: self.phase() >= Phase::Initcalls,
            idle_polls: self.params.idle_polls,
            worker_sleeps: self.userspace.still_in("S").is_some(),
            kernel_says_stuck: lockup.is_some(),
        };
        if let Some(proof) = self.stillness.proof(circumstances) {
            if self.halted_as_asked() {
                return Some(self.booted());
            }
            return Some(self.hung(proof, lockup));
        }
        let idle = self.stillness.activity() == Activity::Idle;
        if !idle {
            return None;
        }
        let idle_for = quiet.min(self.stillness.span_ms());
        self.judge_idle(idle_for, lockup)
    }

    /// Every CPU is idle, nothing is printed: whether somebody is waited for who cannot come.
    fn judge_idle(&self, idle_for: u64, lockup: Option<&Splat>) -> Option<Verdict> {
        let seconds = idle_for as f64 / 1e3;
        let idle = |what: &str| Proof {
            sentence: format!("{what}: every CPU has been idle for {seconds:.0} s"),
            evidence: self.stillness.evidence(),
        };
        if self.phase() == Phase::Shutdown {
            let asked = self.userspace.poweroff.is_some()
                || matches!(&self.transcript.shutdown, Some((how, _)) if *how > Shutdown::Requested);
            let limit = if asked { IDLE_SHUTDOWN_MS } else { IDLE_STOPPING_MS };
            return (idle_for >= limit)
                .then(|| self.hung(idle("the shutdown never ended"), lockup));
        }
        if let Some(blocked) = self.userspace.still_in("D") {
            let still = blocked.min(idle_for);
            let reported =
                lockup.is_some_and(|s| self.now.saturating_sub(s.line.t) >= AFTER_LOCKUP_MS);
            if still >= BLOCKED_MS || (reported && still >= AFTER_LOCKUP_MS) {
                let mut proof = idle("the worker sleeps and cannot be woken");
                proof.evidence.splice(0..0, self.userspace.beat_evidence());
                return Some(self.hung(proof, lockup));
            }
            return None;
        }
        if self.phase() < Phase::Init {
            let limit_reached = idle_for >= IDLE_BOOT_MS;
            if let Some(line) = self.transcript.waits_for_root.as_ref().filter(|_| limit_reached) {
                return Some(self.verdict(
                    VerdictKind::InitFailed,
                    "the kernel waits for a root device that does not come".to_owned(),
                    vec![line.evidence()],
                ));
            }
            return limit_reached
                .then(|| self.hung(idle("nothing is left that could go on"), lockup));
        }
        let beats_lost = self.userspace.job.is_some()
            && self.userspace.last_t.is_some_and(|t| self.now.saturating_sub(t) >= BEATS_LOST_MS);
        if beats_lost && idle_for >= BEATS_LOST_MS {
            return Some(self.hung(idle("init's heartbeat stopped"), lockup));
        }
        if !self.params.own_init && idle_for >= PROMPT_MS && self.at_prompt().is_some() {
            return Some(self.waits_at_prompt());
        }
        None
    }

    fn halted_as_asked(&self) -> bool {
        let halted =
            matches!(&self.transcript.shutdown, Some((how, _)) if *how == Shutdown::Halted);
        halted && (!self.params.own_init || self.userspace.poweroff.is_some())
    }

    /// A line that ends as a prompt does: `login: `, `# `, `$ `, `> `.
    fn at_prompt(&self) -> Option<Line> {
        let line = self.transcript.partial()?;
        let prompt = line.text.ends_with(['#', '$', '>', '%']) || line.text.ends_with(':');
        (prompt && self.phase() >= Phase::Init).then_some(line)
    }

    fn waits_at_prompt(&self) -> Verdict {
        let mut evidence: Vec<Evidence> = self.at_prompt().iter().map(Line::evidence).collect();
        evidence.extend(self.stillness.evidence());
        if self.transcript.splat_count > 0 {
            let reason = "booted to a prompt, with splats on the way; the shutdown was not tried";
            return self.booted_with_splats(reason.to_owned(), evidence);
        }
        self.verdict(
            VerdictKind::Booted,
            "booted; the guest waits at a prompt, so the shutdown was not tried".to_owned(),
            evidence,
        )
    }

    /// The guest hangs: which verdict it is depends on how far it came.
    fn hung(&self, proof: Proof, lockup: Option<&Splat>) -> Verdict {
        let mut evidence = proof.evidence;
        evidence.extend(lockup.map(|s| s.line.evidence()));
        evidence.extend(self.transcript.last_line.as_ref().map(Line::evidence));
        if let Some(crash) = self.transcript.splat_of(CRASHES) {
            evidence.insert(0, crash.line.evidence());
            let reason = format!("{}, after an oops", proof.sentence);
            return self.verdict(VerdictKind::OopsedStuck, reason, evidence);
        }
        self.verdict(self.hung_kind(), proof.sentence, evidence)
    }

    fn hung_kind(&self) -> VerdictKind {
        match self.phase() {
            Phase::Shutdown => VerdictKind::HungShutdown,
            Phase::Userspace => VerdictKind::HungUserspace,
            _ if self.transcript.bytes == 0 => VerdictKind::Silent,
            _ => VerdictKind::HungBoot,
        }
    }

    fn judge_time_limit(&self) -> Verdict {
        let mut evidence = self.stillness.evidence();
        evidence.splice(0..0, self.userspace.beat_evidence());
        evidence.extend(self.transcript.last_line.as_ref().map(Line::evidence));
        if self.at_prompt().is_some() && self.stillness.activity() != Activity::Running {
            return self.waits_at_prompt();
        }
        if !self.resets.is_empty() {
            return self.reset_verdict();
        }
        if let Some(crash) = self.transcript.splat_of(CRASHES) {
            evidence.insert(0, crash.line.evidence());
            let reason = "the kernel oopsed and the guest did not end in time".to_owned();
            return self.verdict(VerdictKind::OopsedStuck, reason, evidence);
        }
        if let Some(lockup) = self.lockup() {
            evidence.insert(0, lockup.line.evidence());
            let reason =
                "the kernel reported a lockup and the guest did not end in time".to_owned();
            return self.verdict(self.hung_kind(), reason, evidence);
        }
        if self.transcript.bytes == 0 && self.userspace.hello_t.is_none() {
            let reason = match self.stillness.activity() {
                Activity::Idle => {
                    "nothing was printed; the CPUs are idle, so the kernel may well run without a console"
                }
                _ => "nothing was printed",
            };
            return self.verdict(VerdictKind::Silent, reason.to_owned(), evidence);
        }
        let reason = match self.stillness.activity() {
            Activity::Idle => "the time limit ran out; the guest is idle and alive",
            Activity::Running => "the time limit ran out; the guest runs and is not proven to hang",
            Activity::Unknown => "the time limit ran out while the guest was still getting on",
        };
        self.verdict(VerdictKind::Slow, reason.to_owned(), evidence)
    }

    fn verdict(&self, verdict: VerdictKind, reason: String, evidence: Vec<Evidence>) -> Verdict {
        Verdict {
            verdict,
            reason,
            phase: self.phase(),
            timed_out: self.time_limit,
            last_sign_of_life_ms: self.life_t,
            decided_ms: self.now,
            evidence,
        }
    }
}

enum Step {
    Watch,
    StartOver,
    Done(Box<Verdict>),
}

impl Step {
    fn done(verdict: Verdict) -> Step {
        Step::Done(Box::new(verdict))
    }
}

/// Headlines after which a thread of the kernel is gone, perhaps with locks held.
const CRASHES: &[HeadlineKind] = &[HeadlineKind::Oops, HeadlineKind::KernelBug, HeadlineKind::Trap];
