//! Whether the virtual CPUs can still get anywhere.
//!
//! Decides from samples alone: no console line, no wall time beyond the times in the samples. Main
//! type: [`Stillness`], the samples since the guest's last sign of progress. Every rule here is
//! biased towards "alive": a guest that is slow, starved or asleep must never be called hung.

use std::collections::{HashSet, VecDeque};

use kolumbo_case::{Evidence, VcpuSample};

/// Samples kept; older ones say nothing that newer ones do not.
const KEPT: usize = 256;
/// Code is told apart in blocks of this many bytes (as a power of two).
const BLOCK_BITS: u32 = 8;
/// A wait loop, with the functions that it calls, stays within this many blocks.
const LOOP_BLOCKS: usize = 4;
/// Samples below which nothing is said.
const FEWEST: usize = 8;

/// Every CPU is halted with interrupts off for this long: only an NMI could wake one, and nobody is
/// left to send it.
const ALL_DEAD_MS: u64 = 1_000;
/// CPU time that the host gave to a CPU which loops with interrupts off in a state that recurs
/// exactly, while no other CPU lives. That is 10^8 instructions or more; a healthy kernel keeps
/// interrupts off for microseconds.
const SPIN_ALONE_US: u64 = 1_000_000;
/// The same while other CPUs still work: more, since one of them might yet end the wait.
const SPIN_AMONG_LIVING_US: u64 = 2_500_000;
/// The same where the state never recurs exactly, as in a loop that reads a clock.
const SPIN_CHANGING_US: u64 = 6_000_000;
/// The same before the initcalls: decompression, memory set-up and self tests are small loops with
/// interrupts off that take seconds on a slow host, and never recur.
const SPIN_CHANGING_EARLY_US: u64 = 60_000_000;
/// CPU time in a kernel loop with interrupts on whose state recurs exactly.
const SPIN_INTERRUPTIBLE_US: u64 = 15_000_000;

/// A wait loop without the functions that it calls is no longer than this many bytes.
const LOOP_BYTES: u64 = 64;
/// Looks that tell where a CPU mostly is.
const RECENT: usize = FEWEST;

/// Where a CPU mostly stands that goes round in one small loop: the program counter that most of its last looks show,
/// of several the newest. `looks` are program counters, the newest first, none for a CPU that was halted. None where
/// the last look shows no running CPU.
///
/// A CPU that waits for a device stands behind the read nearly always, with the answer in its registers and flags, and
/// once in a hundred looks somewhere else, from where the answer cannot be told.
pub fn usual_place(looks: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    let mut looks = looks.into_iter().take(RECENT).map_while(|pc| pc);
    let newest = looks.next()?;
    let near = looks.take_while(|pc| pc.abs_diff(newest) < LOOP_BYTES);
    let round: Vec<u64> = std::iter::once(newest).chain(near).collect();
    let times = |pc: &u64| round.iter().filter(|other| *other == pc).count();
    // The last of those that are as frequent is the newest one.
    round.iter().rev().copied().max_by_key(times)
}

/// What stands still, and why nothing will move it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// One sentence.
    pub sentence: String,
    /// One entry per CPU.
    pub evidence: Vec<Evidence>,
}

/// What the CPUs did since the last sign of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// There are too few samples.
    Unknown,
    /// Every CPU was halted whenever it was looked at, or nearly: it used a tenth of the time at
    /// most.
    Idle,
    /// Some CPU ran.
    Running,
}

/// Circumstances that change what a sample may mean.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances {
    /// The initcalls have begun: early memory set-up is over.
    pub past_early_boot: bool,
    /// The kernel idles by spinning (`idle=poll`).
    pub idle_polls: bool,
    /// Something that init started has been asleep for all of the time, so a spinning CPU is not
    /// what it waits for.
    pub worker_sleeps: bool,
    /// The kernel itself has announced a lockup or a stall; less proof of our own is needed.
    pub kernel_says_stuck: bool,
}

/// The samples since the guest last got anywhere.
#[derive(Debug, Clone, Default)]
pub struct Stillness {
    rounds: VecDeque<(u64, Vec<VcpuSample>)>,
}

/// How one CPU has behaved for the longest time up to now in which it did one thing only.
#[derive(Debug, Clone)]
struct Stretch {
    doing: Doing,
    samples: usize,
    from_t: u64,
    to_t: u64,
    /// CPU time that it got within the stretch.
    ran_us: u64,
    /// Samples whose full register state had been seen before within the stretch.
    recurred: usize,
    blocks: usize,
    last: VcpuSample,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Halted with interrupts off.
    Dead,
    /// Halted with interrupts on.
    Idle,
    /// In one small loop in the kernel with interrupts off.
    SpinOff,
    /// In one small loop in the kernel, interrupts on.
    SpinOn,
    /// In the kernel with interrupts off, over a lot of code.
    BusyOff,
    /// Anything else: user space, varied kernel code.
    Alive,
}

impl Stillness {
    /// Forgets everything: the guest got somewhere.
    pub fn clear(&mut self) {
        self.rounds.clear();
    }

    /// Adds one look at all CPUs, `t` milliseconds after the start of QEMU.
    pub fn add(&mut self, t: u64, vcpus: &[VcpuSample]) {
        if self.rounds.len() == KEPT {
            self.rounds.pop_front();
        }
        self.rounds.push_back((t, vcpus.to_vec()));
    }

    /// The last look, if there was one.
    pub fn last(&self) -> Option<&(u64, Vec<VcpuSample>)> {
        self.rounds.back()
    }

    /// Where CPU `cpu` mostly is: [`usual_place`] of what was seen of it.
    pub fn usual_pc(&self, cpu: usize) -> Option<u64> {
        let seen = self.rounds.iter().rev().map_while(|(_, vcpus)| vcpus.get(cpu));
        usual_place(seen.map(|v| (!v.halted).then_some(v.pc)))
    }

    /// Milliseconds between the first and the last look.
    pub fn span_ms(&self) -> u64 {
        match (self.rounds.front(), self.rounds.back()) {
            (Some((from, _)), Some((to, _))) => to.saturating_sub(*from),
            _ => 0,
        }
    }

    /// What the CPUs did on the whole.
    pub fn activity(&self) -> Activity {
        if self.rounds.len() < FEWEST {
            return Activity::Unknown;
        }
        let cpus = self.rounds.back().map_or(0, |(_, vcpus)| vcpus.len());
        if (0..cpus).all(|cpu| self.is_idle(cpu)) { Activity::Idle } else { Activity::Running }
    }

    /// An idle CPU wakes for its timer now and then, and on a busy host it may be seen waiting for
    /// its turn to go back to sleep: what counts is that it hardly used any CPU time.
    fn is_idle(&self, cpu: usize) -> bool {
        let seen = || self.rounds.iter().filter_map(|(_, vcpus)| vcpus.get(cpu));
        let halted = seen().filter(|v| v.halted).count();
        let ran = |sample: Option<&VcpuSample>| sample.and_then(|v| v.ran_us);
        let first = self.rounds.front().and_then(|(_, vcpus)| vcpus.get(cpu));
        let last = self.rounds.back().and_then(|(_, vcpus)| vcpus.get(cpu));
        let hardly_ran = match (ran(first), ran(last)) {
            (Some(from), Some(to)) => to.saturating_sub(from) / 100 <= self.span_ms(),
            _ => false,
        };
        halted == self.rounds.len() || (halted > 0 && hardly_ran)
    }

    /// One entry per CPU that sums up what it did last.
    pub fn evidence(&self) -> Vec<Evidence> {
        self.stretches().iter().map(Stretch::evidence).collect()
    }

    /// The proof that this guest can get nowhere any more, or none.
    pub fn proof(&self, circumstances: Circumstances) -> Option<Proof> {
        let stretches = self.stretches();
        if stretches.is_empty() {
            return None;
        }
        let proven = |sentence: String| Proof {
            sentence,
            evidence: stretches.iter().map(Stretch::evidence).collect(),
        };
        if stretches.iter().all(|s| s.doing == Doing::Dead && s.lasts_ms() >= ALL_DEAD_MS) {
            return Some(proven(match stretches.len() {
                1 => "the only CPU is halted with interrupts off".to_owned(),
                n => format!("all {n} CPUs are halted with interrupts off"),
            }));
        }
        // One CPU that works with interrupts off may be what the others wait for (stop_machine).
        if stretches.iter().any(|s| s.doing == Doing::BusyOff) {
            return None;
        }
        let living = stretches.iter().any(|s| matches!(s.doing, Doing::Idle | Doing::Alive));
        let stuck: Vec<&Stretch> =
            stretches.iter().filter(|s| s.is_stuck(living, circumstances)).collect();
        let first = stuck.first()?;
        let interrupts = if first.doing == Doing::SpinOff { "off" } else { "on" };
        let who = match stuck.len() {
            1 if stretches.len() == 1 => "the only CPU spins".to_owned(),
            1 => format!("CPU {} spins", first.last.cpu),
            n if n == stretches.len() => format!("all {n} CPUs spin"),
            n => format!("{n} of {} CPUs spin", stretches.len()),
        };
        Some(proven(format!("{who} with interrupts {interrupts}")))
    }

    fn stretches(&self) -> Vec<Stretch> {
        let Some((_, newest)) = self.rounds.back() else { return Vec::new() };
        if self.rounds.len() < FEWEST {
            return Vec::new();
        }
        (0..newest.len()).filter_map(|cpu| self.stretch(cpu)).collect()
    }

    /// The longest run of samples up to the newest in which CPU `cpu` did one thing.
    fn stretch(&self, cpu: usize) -> Option<Stretch> {
        let samples: Vec<(u64, &VcpuSample)> = self
            .rounds
            .iter()
            .rev()
            .map_while(|(t, vcpus)| vcpus.get(cpu).map(|v| (*t, v)))
            .collect();
        let newest = samples.first()?.1;
        let doing = if newest.halted {
            if newest.interrupts { Doing::Idle } else { Doing::Dead }
        } else if newest.cpl != 0 {
            Doing::Alive
        } else {
            busy_kind(&samples)
        };
        let mut blocks = HashSet::new();
        let mut states = HashSet::new();
        let mut recurred = 0;
        let mut taken = 0;
        for (_, sample) in &samples {
            if !fits(doing, newest, sample) {
                break;
            }
            blocks.insert(sample.pc >> BLOCK_BITS);
            if matches!(doing, Doing::SpinOff) && blocks.len() > LOOP_BLOCKS {
                break;
            }
            recurred += usize::from(!states.insert(sample.state));
            taken += 1;
        }
        let (from_t, first) = samples[taken.max(1) - 1];
        let ran = |s: &VcpuSample| s.ran_us.unwrap_or(0);
        Some(Stretch {
            doing,
            samples: taken,
            from_t,
            to_t: samples[0].0,
            ran_us: ran(newest).saturating_sub(ran(first)),
            recurred,
            blocks: blocks.len(),
            last: newest.clone(),
        })
    }
}

/// Whether `sample` belongs to the same stretch as the newest one.
fn fits(doing: Doing, newest: &VcpuSample, sample: &VcpuSample) -> bool {
    match doing {
        Doing::Dead => sample.halted && !sample.interrupts,
        Doing::Idle => sample.halted && sample.interrupts,
        Doing::SpinOff => {
            !sample.halted
                && !sample.interrupts
                && sample.cpl == 0
                && sample.page_table == newest.page_table
        }
        // An interrupt handler that happens to be seen, halted or not, belongs to it.
        Doing::SpinOn => sample.cpl == 0,
        Doing::BusyOff => !sample.halted && !sample.interrupts && sample.cpl == 0,
        Doing::Alive => true,
    }
}

/// What a CPU does that runs kernel code, newest sample first.
fn busy_kind(samples: &[(u64, &VcpuSample)]) -> Doing {
    let recent = &samples[..samples.len().min(24)];
    let off = recent.iter().take_while(|(_, s)| !s.halted && !s.interrupts && s.cpl == 0).count();
    let blocks_of = |samples: &[(u64, &VcpuSample)]| {
        samples.iter().map(|(_, s)| s.pc >> BLOCK_BITS).collect::<HashSet<_>>().len()
    };
    if off >= FEWEST {
        return if blocks_of(&recent[..off]) <= LOOP_BLOCKS {
            Doing::SpinOff
        } else {
            Doing::BusyOff
        };
    }
    if recent.len() < FEWEST || recent.iter().any(|(_, s)| s.cpl != 0 || s.halted) {
        return Doing::Alive;
    }
    // Timer interrupts are seen now and then; the loop itself must make up three quarters.
    let mut counts: Vec<(u64, usize)> = Vec::new();
    for (_, s) in recent {
        let block = s.pc >> BLOCK_BITS;
        match counts.iter_mut().find(|(b, _)| *b == block) {
            Some((_, n)) => *n += 1,
            None => counts.push((block, 1)),
        }
    }
    counts.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    let in_loop: usize = counts.iter().take(LOOP_BLOCKS).map(|(_, n)| n).sum();
    if in_loop * 4 >= recent.len() * 3 { Doing::SpinOn } else { Doing::Alive }
}

impl Stretch {
    fn lasts_ms(&self) -> u64 {
        self.to_t.saturating_sub(self.from_t)
    }

    fn is_stuck(&self, living: bool, c: Circumstances) -> bool {
        if self.samples < FEWEST {
            return false;
        }
        // A quarter of the samples in a state that was there before: the loop changes nothing of
        // its own, so only the outside could end it.
        let recurs = self.recurred * 4 >= self.samples;
        match self.doing {
            Doing::SpinOff if recurs && !living => self.ran_us >= SPIN_ALONE_US,
            Doing::SpinOff if recurs || c.kernel_says_stuck => self.ran_us >= SPIN_AMONG_LIVING_US,
            Doing::SpinOff if c.past_early_boot => self.ran_us >= SPIN_CHANGING_US,
            Doing::SpinOff => self.ran_us >= SPIN_CHANGING_EARLY_US,
            Doing::SpinOn if c.idle_polls || c.worker_sleeps => false,
            Doing::SpinOn if c.kernel_says_stuck => self.ran_us >= SPIN_AMONG_LIVING_US,
            Doing::SpinOn => recurs && self.ran_us >= SPIN_INTERRUPTIBLE_US,
            Doing::Dead | Doing::Idle | Doing::BusyOff | Doing::Alive => false,
        }
    }

    fn evidence(&self) -> Evidence {
        let what = match self.doing {
            Doing::Dead => "halted with interrupts off".to_owned(),
            Doing::Idle => "halted, interrupts on (idle)".to_owned(),
            Doing::SpinOff => self.spin("off"),
            Doing::SpinOn => self.spin("on"),
            Doing::BusyOff => "runs kernel code with interrupts off".to_owned(),
            Doing::Alive if self.last.cpl != 0 => "runs user code".to_owned(),
            Doing::Alive => "runs kernel code".to_owned(),
        };
        Evidence::Vcpu {
            from_t: self.from_t,
            to_t: self.to_t,
            samples: u32::try_from(self.samples).unwrap_or(u32::MAX),
            text: what,
            last: self.last.clone(),
        }
    }

    fn spin(&self, interrupts: &str) -> String {
        let recurs = if self.recurred > 0 {
            format!(", in {} of {} samples in a state seen before", self.recurred, self.samples)
        } else {
            String::new()
        };
        let blocks = if self.blocks == 1 { "one place" } else { "one loop" };
        format!(
            "spins in {blocks} with interrupts {interrupts} for {:.1} s of CPU time{recurs}",
            self.ran_us as f64 / 1e6
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One CPU's sample in the middle of a kernel loop.
    fn spinning(cpu: u32, pc: u64, interrupts: bool, ran_ms: u64) -> VcpuSample {
        VcpuSample {
            cpu,
            interrupts,
            pc,
            state: pc,
            ran_us: Some(ran_ms * 1000),
            ..VcpuSample::default()
        }
    }

    fn halted(cpu: u32, interrupts: bool) -> VcpuSample {
        VcpuSample { cpu, halted: true, interrupts, ran_us: Some(0), ..VcpuSample::default() }
    }

    /// `seconds` of samples, four a second; `make(i, ran_ms)` gives the CPUs.
    fn watch(seconds: u64, make: impl Fn(u64, u64) -> Vec<VcpuSample>) -> Stillness {
        let mut stillness = Stillness::default();
        for i in 0..=seconds * 4 {
            stillness.add(i * 250, &make(i, i * 250));
        }
        stillness
    }

    fn past_boot() -> Circumstances {
        Circumstances { past_early_boot: true, ..Circumstances::default() }
    }

    #[test]
    fn all_halted_with_interrupts_off_is_dead() {
        let s = watch(2, |_, _| vec![halted(0, false), halted(1, false)]);
        let proof = s.proof(past_boot()).unwrap();
        assert_eq!(proof.sentence, "all 2 CPUs are halted with interrupts off");
        assert_eq!(proof.evidence.len(), 2);
    }

    #[test]
    fn a_cpu_in_a_loop_has_a_usual_place() {
        // Written in the order of time; the newest look comes last.
        let usual = |pcs: &[u64]| usual_place(pcs.iter().rev().map(|pc| (*pc > 0).then_some(*pc)));
        assert_eq!(usual(&[0x1010, 0x1010, 0x1010, 0x1005]), Some(0x1010), "at the pause, once");
        assert_eq!(usual(&[0x1005, 0x1010, 0x1005, 0x1010]), Some(0x1010), "as often: the newest");
        assert_eq!(usual(&[0x1010, 0x1010, 0x1010, 0x1900]), Some(0x1900), "it has left");
        assert_eq!(usual(&[0x1005, 0x1005, 0x1900, 0x1010]), Some(0x1010), "what was before");
        assert_eq!(
            usual(&[&[0x1005; 9][..], &[0x1010; RECENT]].concat()),
            Some(0x1010),
            "older ones"
        );
        assert_eq!(usual(&[0x1010, 0]), None, "halted");
        assert_eq!(usual(&[]), None);
        let s = watch(2, |i, t| vec![spinning(0, if i == 8 { 0x105 } else { 0x110 }, false, t)]);
        assert_eq!((s.usual_pc(0), s.usual_pc(1)), (Some(0x110), None));
    }

    #[test]
    fn an_idle_guest_is_alive_for_ever() {
        let s = watch(60, |_, _| vec![halted(0, true), halted(1, false)]);
        assert_eq!(s.proof(past_boot()), None);
        assert_eq!(s.activity(), Activity::Idle);
    }

    #[test]
    fn an_idle_guest_may_wake_for_its_timer() {
        let idle = |share: u64| {
            watch(20, |i, t| {
                let mut v =
                    if i % 9 == 3 { spinning(0, 0x1000 * i, true, 0) } else { halted(0, true) };
                v.ran_us = Some(t * share * 10);
                vec![v]
            })
        };
        assert_eq!(idle(3).activity(), Activity::Idle);
        assert_eq!(idle(40).activity(), Activity::Running);
    }

    #[test]
    fn a_loop_with_interrupts_off_is_a_hang() {
        let s = watch(4, |i, ran| vec![spinning(0, 0x1000 + i % 2 * 8, false, ran)]);
        assert_eq!(
            s.proof(past_boot()).unwrap().sentence,
            "the only CPU spins with interrupts off"
        );
    }

    #[test]
    fn a_starved_loop_is_given_more_time() {
        let s = watch(8, |_, ran| vec![spinning(0, 0x1000, false, ran / 10)]);
        assert_eq!(s.proof(past_boot()), None);
    }

    #[test]
    fn work_with_interrupts_off_is_not_a_hang() {
        // Registers change all the time: decompression, or clearing memory.
        let work = |i: u64, ran| {
            let mut v = spinning(0, 0x1000 + i % 4 * 8, false, ran);
            v.state = i;
            vec![v]
        };
        let s = watch(5, work);
        assert_eq!(s.proof(past_boot()), None);
        assert_eq!(watch(30, work).proof(Circumstances::default()), None);
        assert!(watch(10, work).proof(past_boot()).is_some());
    }

    #[test]
    fn waiting_for_a_cpu_that_works_with_interrupts_off_is_alive() {
        let s = watch(10, |i, ran| {
            vec![spinning(0, 0x1000, false, ran), spinning(1, 0x1000 + i * 4096, false, ran)]
        });
        assert_eq!(s.proof(past_boot()), None);
    }

    #[test]
    fn one_stuck_cpu_among_living_ones_takes_longer() {
        let one = |seconds| {
            watch(seconds, |_, ran| vec![halted(0, true), spinning(1, 0x1000, false, ran)])
        };
        assert_eq!(one(2).proof(past_boot()), None);
        assert_eq!(one(3).proof(past_boot()).unwrap().sentence, "CPU 1 spins with interrupts off");
    }

    #[test]
    fn spinning_with_interrupts_on_needs_a_recurring_state() {
        let s = watch(20, |i, ran| {
            // Every tenth sample lies in the timer interrupt.
            let pc = if i % 10 == 0 { 0x9_0000 + i * 4096 } else { 0x1000 };
            vec![spinning(0, pc, true, ran)]
        });
        assert!(s.proof(past_boot()).is_some());
        let polls = Circumstances { idle_polls: true, ..past_boot() };
        assert_eq!(s.proof(polls), None);
        let copying = watch(40, |i, ran| {
            let mut v = spinning(0, 0x1000, true, ran);
            v.state = i;
            vec![v]
        });
        assert_eq!(copying.proof(past_boot()), None);
    }

    #[test]
    fn user_code_is_alive() {
        let s = watch(60, |_, ran| {
            let mut v = spinning(0, 0x40_1000, true, ran);
            v.cpl = 3;
            vec![v]
        });
        assert_eq!(s.proof(past_boot()), None);
        assert_eq!(s.activity(), Activity::Running);
    }
}
