//! A guest that kolumbo's own monitor runs, as the monitor's lines tell it.
//!
//! Turns the lines into events for the judge and the case folder, and keeps where the CPUs stood last.
//! The lines come from a guest, or through one: they are bounded and may be anything. Main type:
//! [`Inside`].

use std::collections::VecDeque;

use kolumbo_case::{
    Event, EventKind, Evidence, GuestView, Phase, QemuEvent, ReadError, VcpuRegisters, VcpuSample,
    Verdict, VerdictKind,
};
use kolumbo_judge::stillness::usual_place;
use kolumbo_judge::{Decision, Judge, Params};
use kolumbo_machine::{Sink, registers_x86};
use kolumbo_vmm::words::{self, End, LineError, Look, Message};

use crate::boot::Observer;
use crate::folder::FolderWriter;

/// Bytes of code in a sample, as everywhere.
const SAMPLE_CODE: usize = 16;

/// Below this part of a CPU, nothing that the CPUs of a guest inside a guest do is held against them. Between
/// two timer ticks its host may then be too slow to run even one instruction of it: the CPU is used,
/// and the guest stands where it stood.
const LEAST_SHARE: f64 = 0.3;

/// Looks that are kept: as many as a proof needs at least.
const LOOKS_KEPT: usize = 8;

/// What a guest under the monitor has done so far.
pub(crate) struct Inside<'a> {
    pub(crate) judge: Judge,
    folder: &'a mut FolderWriter,
    smp: u32,
    /// When the monitor spoke first.
    pub(crate) heard_ms: Option<u64>,
    /// Lines of the monitor that could not be read.
    pub(crate) damaged: u64,
    pub(crate) looks: Looks,
    /// One letter a CPU from the last look.
    pub(crate) letters: String,
    /// Which part of the time that its host reckons with this guest was really given, 0 to 1.
    pub(crate) share: f64,
    /// By CPU: the time that the monitor reported last, and what of the time so far was real.
    ran_us: Vec<(u64, f64)>,
    offset: u64,
    ended: Option<(End, String)>,
    trouble: Option<(u64, String)>,
}

impl<'a> Inside<'a> {
    pub(crate) fn new(params: Params, smp: u32, folder: &'a mut FolderWriter) -> Self {
        Inside {
            judge: Judge::new(params),
            folder,
            smp,
            heard_ms: None,
            damaged: 0,
            looks: Looks::default(),
            letters: String::new(),
            share: 1.0,
            ran_us: vec![(0, 0.0); usize::try_from(smp).unwrap_or(0)],
            offset: 0,
            ended: None,
            trouble: None,
        }
    }

    /// Takes a line that came at `t`; false when it is not one of the monitor's.
    pub(crate) fn take(&mut self, t: u64, line: &str, observer: &mut dyn Observer) -> bool {
        let message = match words::parse_line(line.trim_end_matches('\r')) {
            Ok(message) => message,
            Err(LineError::NoMark) => return false,
            Err(_) => {
                self.damaged += 1;
                return true;
            }
        };
        self.heard_ms.get_or_insert(t);
        // Nothing follows the end.
        if self.ended.is_some() {
            return true;
        }
        match message {
            Message::Hello { .. } => self.event(t, EventKind::Started, &[]),
            Message::Console { text, .. } => {
                let bytes = words::bytes_of(&text);
                self.folder.console(&bytes);
                observer.console(&bytes);
                let (offset, len) = (self.offset, bytes.len() as u64);
                self.offset += len;
                self.event(t, EventKind::Console { offset, len }, &bytes);
            }
            Message::Init { line, .. } => self.event(t, EventKind::Init { line }, &[]),
            Message::Sample { cpus, .. } => self.look(t, cpus),
            Message::Panicked { .. } => {
                let event = QemuEvent::GuestPanicked { action: "run".to_owned() };
                self.event(t, EventKind::Qemu(event), &[]);
            }
            Message::End { how, reason, .. } => self.end(t, how, reason),
            Message::Trouble { text } => {
                self.trouble.get_or_insert((t, text));
            }
            _ => {}
        }
        true
    }

    fn look(&mut self, t: u64, cpus: Vec<Look>) {
        // A sample without all of the CPUs would be read as another guest's.
        let complete = (0..self.smp).eq(cpus.iter().map(|c| c.registers.cpu));
        if !complete {
            return;
        }
        let mut vcpus: Vec<VcpuSample> = cpus.iter().map(sample).collect();
        for (vcpu, (before, real)) in vcpus.iter_mut().zip(&mut self.ran_us) {
            let Some(ran_us) = vcpu.ran_us else { continue };
            let share = if self.share < LEAST_SHARE { 0.0 } else { self.share };
            *real += ran_us.saturating_sub(*before) as f64 * share;
            *before = ran_us;
            vcpu.ran_us = Some(*real as u64);
        }
        self.letters = letters(&vcpus);
        self.looks.add(cpus);
        self.event(t, EventKind::Sample { vcpus }, &[]);
    }

    fn end(&mut self, t: u64, how: End, reason: String) {
        let shutdown = |reason: &str| {
            let reason = reason.to_owned();
            EventKind::Qemu(QemuEvent::Shutdown { guest: true, reason })
        };
        let kind = match how {
            End::Reset => shutdown("guest-reset"),
            End::PowerOff => shutdown("guest-shutdown"),
            End::TimeLimit => EventKind::TimeLimit,
            End::InternalError => EventKind::Qemu(QemuEvent::InternalError),
        };
        self.event(t, kind, &[]);
        self.ended = Some((how, reason));
    }

    /// Adds an event of this guest.
    pub(crate) fn event(&mut self, t: u64, kind: EventKind, console: &[u8]) {
        let event = Event { t, kind };
        self.judge.observe(&event, console);
        self.folder.event(event);
    }

    /// The verdict, once there is one.
    pub(crate) fn verdict(&mut self, now: u64) -> Option<Verdict> {
        if let Some((t, text)) = &self.trouble {
            let evidence =
                Evidence::Report { t: *t, from: "kolumbo-vmm".to_owned(), text: text.clone() };
            let reason = format!("the monitor could not run the guest: {text}");
            return Some(self.cannot_tell(now, reason, vec![evidence]));
        }
        match &self.ended {
            Some((End::InternalError, reason)) => {
                let reason = format!("KVM could not go on with the guest: {reason}");
                Some(self.cannot_tell(now, reason, Vec::new()))
            }
            Some(_) => Some(self.judge.finish(now)),
            None => match self.judge.decide(now) {
                Decision::Done(verdict) => Some(*verdict),
                // The monitor ends at the first reset, and says so.
                Decision::Watch | Decision::StartOver => None,
            },
        }
    }

    /// "Cannot tell", for what is not this guest's fault.
    pub(crate) fn cannot_tell(&self, now: u64, reason: String, evidence: Vec<Evidence>) -> Verdict {
        Verdict {
            verdict: VerdictKind::CannotTell,
            reason,
            phase: if self.heard_ms.is_some() { self.judge.phase() } else { Phase::Firmware },
            timed_out: false,
            last_sign_of_life_ms: self.judge.last_sign_of_life_ms(),
            decided_ms: now,
            evidence,
        }
    }
}

fn sample(look: &Look) -> VcpuSample {
    let mut sample = registers_x86::sample_of(&look.registers);
    sample.ran_us = look.ran_us;
    let code = words::bytes_of_hex(&look.code);
    let at = sample.pc.checked_sub(look.code_at).and_then(|at| usize::try_from(at).ok());
    let bytes = at.and_then(|at| code.get(at..)).unwrap_or_default();
    sample.code = bytes.iter().take(SAMPLE_CODE).map(|b| format!("{b:02x}")).collect();
    sample
}

/// One letter a CPU: `h` halted, `u` user, `k` kernel, `K` kernel with interrupts off.
pub(crate) fn letters(vcpus: &[VcpuSample]) -> String {
    let letter = |v: &VcpuSample| match (v.halted, v.cpl, v.interrupts) {
        (true, ..) => 'h',
        (_, 0, true) => 'k',
        (_, 0, false) => 'K',
        _ => 'u',
    };
    vcpus.iter().map(letter).collect()
}

/// Where the CPUs stood at the last looks, the newest last: registers, and the code around them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looks(VecDeque<Vec<Look>>);

impl Looks {
    fn add(&mut self, cpus: Vec<Look>) {
        if self.0.len() == LOOKS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(cpus);
    }

    /// The newest look that shows this CPU where it mostly is, else the newest of all.
    fn of(&self, cpu: u32) -> Option<&Look> {
        let at = |look: &Look| look.registers.get("rip").filter(|_| !look.registers.halted);
        let of_cpu = |cpus: &'_ Vec<Look>| cpus.iter().position(|l| l.registers.cpu == cpu);
        let looks = || self.0.iter().rev().filter_map(|cpus| Some(&cpus[of_cpu(cpus)?]));
        let usual = usual_place(looks().map(at));
        looks().find(|look| usual.is_some() && at(look) == usual).or_else(|| looks().next())
    }
}

impl GuestView for Looks {
    fn vcpus(&self) -> u32 {
        self.0.back().map_or(0, Vec::len) as u32
    }

    fn registers(&mut self, cpu: u32) -> Result<VcpuRegisters, ReadError> {
        let look = self.of(cpu).ok_or(ReadError::Unmapped { address: 0 })?;
        Ok(look.registers.clone())
    }

    fn read_memory(&mut self, cpu: u32, address: u64, into: &mut [u8]) -> Result<(), ReadError> {
        let unmapped = ReadError::Unmapped { address };
        let look = self.of(cpu).ok_or(unmapped.clone())?;
        let code = words::bytes_of_hex(&look.code);
        let at = address.checked_sub(look.code_at).and_then(|at| usize::try_from(at).ok());
        let bytes = at.and_then(|at| code.get(at..at.checked_add(into.len())?));
        into.copy_from_slice(bytes.ok_or(unmapped)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Status;
    use kolumbo_case::{CASE_FORMAT_VERSION, CaseFile};

    struct Deaf;

    impl Observer for Deaf {
        fn console(&mut self, _: &[u8]) {}
        fn status(&mut self, _: &Status) {}
        fn console_input(&mut self, _: Box<dyn std::io::Write + Send>) {}
        fn note(&mut self, _: &str) {}
    }

    /// The loop of the first mail: `pause; testl $0x1000, ICR; jne`, interrupts off.
    fn spinning(cpu: u32, ran_us: u64) -> Look {
        let values = [("rip", 0xffff_ffff_8100_1010), ("rflags", 0x82), ("cs", 0x10)];
        let values = values.iter().chain(&[("long_mode", 1), ("rdi", 0xf8), ("cr3", 7)]);
        Look {
            registers: VcpuRegisters {
                cpu,
                halted: false,
                values: values.map(|&(n, v)| (n.to_owned(), v)).collect(),
            },
            ran_us: Some(ran_us),
            code_at: 0xffff_ffff_8100_1000,
            code: "90".repeat(16) + &"75f1".repeat(21),
        }
    }

    fn idle(cpu: u32) -> Look {
        let registers = VcpuRegisters {
            cpu,
            halted: true,
            values: vec![("rflags".to_owned(), 0x246), ("long_mode".to_owned(), 1)],
        };
        Look { registers, ran_us: Some(0), ..Look::default() }
    }

    fn with_inside<T>(run: impl FnOnce(&mut Inside<'_>, &dyn Fn(&Message) -> String) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let case = CaseFile { case_version: CASE_FORMAT_VERSION, ..CaseFile::default() };
        let mut folder = FolderWriter::create(dir.path(), &case).unwrap();
        let params = Params { own_init: true, ..Params::default() };
        let mut inside = Inside::new(params, 2, &mut folder);
        run(&mut inside, &|message| words::to_line(message).trim_end().to_owned())
    }

    #[test]
    fn a_cpu_that_spins_is_proven_and_kept() {
        with_inside(|inside, line| {
            let console = Message::Console { t: 0, text: "[    0.1] smp: Bringing up\n".into() };
            assert!(inside.take(1000, &line(&console), &mut Deaf));
            let mut verdict = None;
            for i in 0..100u64 {
                let cpus = vec![spinning(0, i * 100_000), idle(1)];
                let t = 2000 + i * 100;
                inside.take(t, &line(&Message::Sample { t, cpus }), &mut Deaf);
                verdict = inside.verdict(t);
                if verdict.is_some() {
                    break;
                }
            }
            let verdict = verdict.expect("a hang");
            assert_eq!(verdict.verdict, VerdictKind::HungBoot);
            assert!(!verdict.timed_out);
            let cpus = crate::standstill::cpus_of(&mut inside.looks, &verdict);
            assert_eq!(cpus.len(), 1, "the idle CPU is not kept");
            assert_eq!(cpus[0].registers.get("rflags"), Some(0x82));
            let code = cpus[0].code.as_ref().unwrap();
            assert_eq!(code.bytes[code.trap.unwrap()..][..2], [0x75, 0xf1]);
        });
    }

    #[test]
    fn a_cpu_in_a_loop_is_kept_where_it_mostly_is() {
        let at = |offset: u64| {
            let mut look = spinning(0, 0);
            look.registers.values.retain(|(name, _)| name != "rip");
            look.registers.values.push(("rip".to_owned(), 0xffff_ffff_8100_1000 + offset));
            vec![look]
        };
        let kept = |offsets: &[u64]| {
            let mut looks = Looks::default();
            offsets.iter().for_each(|offset| looks.add(at(*offset)));
            looks.registers(0).unwrap().get("rip").unwrap() & 0xffff
        };
        assert_eq!(kept(&[0x10, 0x10, 0x10, 0x5]), 0x1010, "caught at the pause, once");
        assert_eq!(kept(&[0x10, 0x10, 0x10, 0x900]), 0x1900, "it has left");
        assert_eq!(
            kept(&[0x900, 0x10, 0x900, 0x900, 0x5]),
            0x1005,
            "what was before does not count"
        );
        let long = [&[0x5; 9][..], &[0x10; LOOKS_KEPT]].concat();
        assert_eq!(kept(&long), 0x1010, "older looks are forgotten");
    }

    /// A host that itself is kept from the CPU reckons with time that its guests never had.
    #[test]
    fn time_that_was_not_given_proves_nothing() {
        with_inside(|inside, line| {
            inside.share = 0.1;
            for i in 0..100u64 {
                let cpus = vec![spinning(0, i * 100_000), idle(1)];
                let t = i * 100;
                inside.take(t, &line(&Message::Sample { t, cpus }), &mut Deaf);
                assert_eq!(inside.verdict(t), None, "after {t} ms");
            }
        });
    }

    #[test]
    fn an_idle_guest_and_half_a_sample_prove_nothing() {
        with_inside(|inside, line| {
            for i in 0..200u64 {
                let t = i * 100;
                let all = Message::Sample { t, cpus: vec![idle(0), idle(1)] };
                let half = Message::Sample { t, cpus: vec![spinning(0, i * 1_000_000)] };
                inside.take(t, &line(&all), &mut Deaf);
                inside.take(t, &line(&half), &mut Deaf);
                assert_eq!(inside.verdict(t), None);
            }
            assert_eq!(inside.letters, "hh");
        });
    }

    #[test]
    fn what_is_no_line_and_what_comes_after_the_end_changes_nothing() {
        with_inside(|inside, line| {
            assert!(!inside.take(1, "kolumbo-init/1 beat {}", &mut Deaf));
            assert!(inside.take(2, "kolumbo-vmm/1 {\"say\":\"console\"", &mut Deaf));
            assert_eq!(inside.damaged, 1);
            let end = Message::End { t: 3, how: End::InternalError, reason: "odd".into() };
            inside.take(3, &line(&end), &mut Deaf);
            inside.take(4, &line(&Message::Trouble { text: "late".into() }), &mut Deaf);
            let verdict = inside.verdict(5).unwrap();
            assert_eq!(verdict.verdict, VerdictKind::CannotTell);
            assert!(verdict.reason.contains("odd"), "{}", verdict.reason);
        });
    }

    #[test]
    fn an_orderly_restart_is_a_boot() {
        with_inside(|inside, line| {
            for said in [
                r#"kolumbo-init/1 hello {"boot_ms":9}"#,
                r#"kolumbo-init/1 poweroff {"up_ms":11,"way":"restart"}"#,
            ] {
                let init = Message::Init { t: 1, line: said.to_owned() };
                inside.take(1, &line(&init), &mut Deaf);
            }
            let end = Message::End { t: 2, how: End::Reset, reason: String::new() };
            inside.take(2, &line(&end), &mut Deaf);
            assert_eq!(inside.verdict(3).unwrap().verdict, VerdictKind::Booted);
        });
    }
}
