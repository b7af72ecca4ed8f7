//! A boot under kolumbo's own monitor, on this machine's KVM.
//!
//! No QEMU takes part. A KVM that is itself emulated is used all the same, since it was asked for, and
//! said to be slow. Main function: [`run`].

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kolumbo_case::{Accel, CaseFile, EventKind, Verdict};
use kolumbo_judge::Params;
use kolumbo_machine::Monitor;
use kolumbo_machine::kvm::{self, KvmError};
use kolumbo_machine::pause::PauseWatch;

use crate::boot::{self, BootError, LONGEST_WAIT, Observer, Request, Status};
use crate::folder::FolderWriter;
use crate::inside::Inside;
use crate::symbolise::Symboliser;
use crate::{inputs, kernel, nested, standstill};

/// Runs the boot and puts what was learnt into `case`.
pub(crate) fn run(
    request: &Request,
    case: &mut CaseFile,
    folder: &mut FolderWriter,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), BootError> {
    let spec = &request.spec;
    boot::check_spec(request)?;
    let found = kernel::find(Path::new(&spec.kernel), &request.cache)?;
    let reason = how_fast()?;
    observer.note(&format!("kvm ({reason})"));
    let hashes = inputs::hash_in_background(boot::input_files(&found, None, request));
    let [kernel, initrd] = nested::guest_files(spec, &found)?;
    let line = boot::command_line(&spec.append);
    let mut monitor = Monitor::start(&nested::monitor()?, [&kernel[..], &initrd], |files| {
        nested::monitor_arguments(spec, files, &line)
    })?;
    case.qemu.argv = monitor.argv().to_vec();
    case.qemu.accel = Accel::Kvm.name().to_owned();
    case.qemu.accel_reason = reason;
    folder.save(case)?;

    let params = Params {
        own_init: spec.initrd.is_none(),
        hands_off: false,
        idle_polls: line.split_whitespace().any(|word| word == "idle=poll"),
    };
    let mut inside = Inside::new(params, spec.smp, folder);
    let mut verdict = watch(&mut monitor, request, &mut inside, interrupted, observer)?;
    case.wall_ms = Some(monitor.now_ms());
    monitor.end();
    case.cpus = standstill::cpus_of(&mut inside.looks, &verdict);
    case.guest = inside.judge.userspace().facts.clone();
    case.timeline = boot::timeline(&inside.judge);
    case.jobs_failed = inside.judge.userspace().failed_job().is_some();
    case.gaps.extend(boot::missing_cpus(case));
    boot::note_pauses(case, &inside.judge);
    let text = case.guest.as_ref().map_or(0, |g| g.text);
    case.gaps.extend(Symboliser::new(&found, text).annotate(&mut verdict, &mut case.cpus));
    case.outcome = Some(verdict);
    case.inputs = hashes.collect();
    Ok(())
}

/// How fast this machine's KVM is, in words. One that is too slow to be timed still runs guests.
fn how_fast() -> Result<String, BootError> {
    let speed = match kvm::measure_speed() {
        Ok(speed) => speed,
        Err(slow @ KvmError::TooSlow { .. }) => return Ok(format!("{slow}, so it is emulated")),
        Err(e) => return Err(BootError::NoKvm { reason: inputs::chain(&e) }),
    };
    let rate = speed.per_second() / 1e6;
    let emulated = if kvm::is_hardware(speed) { "" } else { ", so it is emulated" };
    Ok(format!("/dev/kvm runs {rate:.1} million instructions a second{emulated}"))
}

fn watch(
    monitor: &mut Monitor,
    request: &Request,
    inside: &mut Inside<'_>,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Verdict, BootError> {
    let mut pauses = PauseWatch::default();
    loop {
        let (now, t) = (Instant::now(), monitor.now_ms());
        if let Some(ms) = pauses.round(LONGEST_WAIT) {
            inside.event(t, EventKind::HostPaused { ms }, &[]);
        }
        let deadline = boot::deadline(request, monitor.started(), &inside.judge);
        if interrupted.load(Ordering::Relaxed) {
            inside.event(t, EventKind::Interrupted, &[]);
        } else if deadline.is_some_and(|d| now >= d) {
            inside.event(t, EventKind::TimeLimit, &[]);
        }
        if let Some(verdict) = inside.verdict(t) {
            return Ok(verdict);
        }
        let life = inside.judge.last_sign_of_life_ms();
        observer.status(&Status {
            phase: inside.judge.phase(),
            elapsed: Duration::from_millis(t),
            quiet: Duration::from_millis(t.saturating_sub(life)),
            vcpus: inside.letters.clone(),
        });
        let until = now + LONGEST_WAIT;
        let Some(lines) = monitor.step(deadline.map_or(until, |d| until.min(d)))? else {
            let t = monitor.now_ms();
            let reason = "the monitor ended and did not say what became of its guest".to_owned();
            return Ok(inside
                .verdict(t)
                .unwrap_or_else(|| inside.cannot_tell(t, reason, Vec::new())));
        };
        for line in lines {
            inside.take(monitor.now_ms(), &line, observer);
        }
    }
}
