//! A boot under kolumbo's own monitor, inside another guest.
//!
//! QEMU boots the host kernel with kolumbo's init, which runs the monitor, which runs the guest proper.
//! The verdict is the guest's; a host that is sick is said to be that, and decides nothing. The CPUs
//! of the host are never looked at: while the guest runs, they show the guest. Main function: [`run`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kolumbo_case::{
    Accel, BootSpec, CaseFile, Event, EventKind, HostSpec, NestedHost, Phase, Verdict, VerdictKind,
};
use kolumbo_judge::{Decision, Judge, Params};
use kolumbo_machine::initramfs::{self, Contents};
use kolumbo_machine::{Machine, Sink, host, program_file, qemu, still};
use kolumbo_vmlinux::{ImageKind, Kernel, recognise};

use crate::boot::{self, BootError, LONGEST_WAIT, Observer, Prepared, Request, Status};
use crate::folder::FolderWriter;
use crate::inputs;
use crate::inside::Inside;
use crate::kernel::Found;
use crate::standstill;
use crate::symbolise::Symboliser;

/// Where the guest's files lie in the host's initramfs.
const KERNEL: &str = "/kolumbo/guest/kernel";
const INITRD: &str = "/kolumbo/guest/initrd";
/// The second serial port, on which the monitor speaks.
pub(crate) const CHANNEL: &str = "/dev/ttyS1";
/// Names the monitor where it does not lie beside kolumbo.
const VARIABLE: &str = "KOLUMBO_VMM";

/// The monitor's program: `$KOLUMBO_VMM`, or beside the program that runs.
pub(crate) fn monitor() -> Result<PathBuf, BootError> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let missing = || BootError::NoMonitor { program: kolumbo_vmm::PROGRAM };
    let me = std::env::current_exe().map_err(|_| missing())?;
    // A test lies one folder below what it tests.
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(kolumbo_vmm::PROGRAM))
        .find(|path| path.is_file())
        .ok_or_else(missing)
}

/// Lets QEMU say whether the CPU of `spec` can run guests of its own, so that nobody builds kernels for a machine
/// that cannot boot them. `qemu` is a path or a name, as [`Request::qemu`].
///
/// # Errors
/// [`BootError::NoVirtualisation`] when it cannot; others when QEMU is missing or does not know the CPU.
pub fn must_run_guests(spec: &BootSpec, qemu: Option<&str>) -> Result<(), BootError> {
    let qemu = qemu::find(qemu, std::env::var_os("PATH").as_deref())?;
    let (accel, _) = boot::choose_accel(spec, &qemu)?;
    let usual = if accel == Accel::Kvm { "host" } else { "max" };
    let cpu = spec.cpu.clone().unwrap_or_else(|| usual.to_owned());
    if still::runs_guests(&qemu, accel, &cpu)? {
        return Ok(());
    }
    Err(BootError::NoVirtualisation { cpu, qemu, accel })
}

/// What both kernels are told about the time stamp counter under QEMU's translator, unless the user
/// says it. A kernel that is kept from the CPU while it compares the counter with a timer gets its rate
/// wrong or mistrusts it; KVM in the host then asks for the guest's clock to be updated again and
/// again, which looks like a hang of the guest.
pub(crate) fn clock_words(accel: Accel, append: &[String]) -> Vec<String> {
    let rate = host::tsc_khz().map(|khz| format!("tsc_early_khz={khz}"));
    let words = rate.into_iter().chain(["tsc=reliable".to_owned()]);
    for_translator(accel, append, words.collect())
}

/// What the host kernel is told besides. QEMU's translator loses an interrupt now and then when a guest is taken up
/// or left (seen in 7.2: the guest waits with interrupts on, and no timer of the host ever comes). Probably
/// target/i386/tcg/sysemu/svm_helper.c changes the CPU's pending requests without the lock that devices hold when
/// they make one; that was not proven. If it was the only timer, nothing ever happens again, and a guest looks hung
/// by no fault of its own. A tick that recurs is made up for by the next one.
pub(crate) fn host_words(accel: Accel, append: &[String]) -> Vec<String> {
    let tick = ["highres=off".to_owned(), "nohz=off".to_owned()];
    [clock_words(accel, append), for_translator(accel, append, tick.to_vec())].concat()
}

/// Those of `words` (`name=value`) that the user did not say, under QEMU's translator.
fn for_translator(accel: Accel, append: &[String], mut words: Vec<String>) -> Vec<String> {
    let said: Vec<&str> = append.iter().flat_map(|a| a.split_whitespace()).collect();
    let name = |word: &str| word.split('=').next().map(str::to_owned);
    words.retain(|word| !said.iter().any(|given| name(given) == name(word)));
    match accel {
        Accel::Tcg | Accel::TcgSingle => words,
        Accel::Auto | Accel::Kvm => Vec::new(),
    }
}

/// What the guest boots: the kernel as the monitor starts it fastest, and its userspace.
pub(crate) fn guest_files(spec: &BootSpec, found: &Found) -> Result<[Vec<u8>; 2], BootError> {
    let initrd = match &spec.initrd {
        Some(path) => std::fs::read(path)
            .map_err(|e| BootError::Initrd { path: path.into(), reason: e.to_string() })?,
        None => boot::own_initramfs(spec)?,
    };
    Ok([unpacked(found), initrd])
}

/// The kernel without its decompressor, where it can be entered without: unpacking inside two layers of
/// emulation takes longer than the rest of the boot.
fn unpacked(found: &Found) -> Vec<u8> {
    let inner = Kernel::open(&found.bytes).ok().map(|kernel| kernel.vmlinux().to_vec());
    inner
        .filter(|bytes| {
            let kind = recognise(bytes);
            matches!(kind, Ok(ImageKind::Vmlinux(header)) if header.pvh_entry.is_some())
        })
        .unwrap_or_else(|| found.bytes.to_vec())
}

/// What the monitor is told: the places of kernel and initramfs, and the guest's command line.
pub(crate) fn monitor_arguments(spec: &BootSpec, files: [&str; 2], line: &str) -> Vec<String> {
    let [kernel, initrd] = files;
    let (smp, memory) = (spec.smp.to_string(), spec.memory.to_string());
    let words = ["boot", "--kernel", kernel, "--initrd", initrd, "--append", line];
    words.iter().chain(&["--smp", &smp, "--memory", &memory]).map(|w| (*w).to_owned()).collect()
}

/// The initramfs of the host: init, the monitor, and the guest's files. `line` is the guest's command
/// line.
pub(crate) fn host_initramfs(
    spec: &BootSpec,
    host: &HostSpec,
    found: &Found,
    line: &str,
) -> Result<Vec<u8>, BootError> {
    let [kernel, initrd] = guest_files(spec, found)?;
    let mut arguments = monitor_arguments(spec, [KERNEL, INITRD], line);
    arguments.extend(["--out", CHANNEL].map(str::to_owned));
    let folders = program_file::configured_folders(Path::new("/etc/ld.so.conf"));
    let program = program_file::read_program(&monitor()?, &arguments, &folders)?;
    Ok(initramfs::build(Contents {
        init: kolumbo_init::INIT_ELF,
        modules: &boot::read_modules(&host.modules)?,
        program: Some(&program),
        files: &[(KERNEL, &kernel), (INITRD, &initrd)],
    })?)
}

/// Runs the prepared boot and puts what was learnt into `case`.
pub(crate) fn run(
    prepared: &Prepared,
    request: &Request,
    case: &mut CaseFile,
    folder: &mut FolderWriter,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), BootError> {
    let hashes = inputs::hash_in_background(boot::input_files(
        &prepared.found,
        prepared.host.as_ref(),
        request,
    ));
    let (mut machine, accel, reason) = boot::start(prepared)?;
    boot::note_machine(case, &machine, accel, reason, observer);
    folder.save(case)?;
    let mut host_folder = folder.beside()?;
    let mut pair = Pair {
        inside: Inside::new(prepared.params, request.spec.smp, folder),
        host: Judge::new(Params { own_init: true, hands_off: true, idle_polls: false }),
        host_folder: &mut host_folder,
        observer,
        pending: Vec::new(),
    };
    let mut verdict = watch(&mut machine, request, &mut pair, interrupted)?;
    case.wall_ms = Some(machine.now_ms());
    let Pair { inside, host, .. } = &mut pair;
    case.cpus = standstill::cpus_of(&mut inside.looks, &verdict);
    case.guest = inside.judge.userspace().facts.clone();
    case.timeline = boot::timeline(&inside.judge);
    case.jobs_failed = inside.judge.userspace().failed_job().is_some();
    case.nested_host =
        Some(NestedHost { guest: host.userspace().facts.clone(), monitor_ms: inside.heard_ms });
    case.gaps.extend(gaps(inside, host));
    machine.end(&mut pair)?;

    case.gaps.extend(boot::missing_cpus(case));
    boot::note_pauses(case, &pair.host);
    let text = case.guest.as_ref().map_or(0, |g| g.text);
    case.gaps.extend(Symboliser::new(&prepared.found, text).annotate(&mut verdict, &mut case.cpus));
    case.outcome = Some(verdict);
    case.inputs = hashes.collect();
    Ok(())
}

fn gaps(inside: &Inside<'_>, host: &Judge) -> Vec<String> {
    let mut gaps = Vec::new();
    if inside.damaged > 0 {
        gaps.push(format!("{} lines of the monitor were damaged on the way", inside.damaged));
    }
    match host.transcript().splat_count {
        0 => {}
        n => gaps.push(format!("the host kernel printed {n} splats; see host-console.log")),
    }
    gaps
}

/// Watches both until the guest's verdict, or until the host can no longer bring it.
fn watch(
    machine: &mut Machine,
    request: &Request,
    pair: &mut Pair<'_>,
    interrupted: &AtomicBool,
) -> Result<Verdict, BootError> {
    let mut status_at = Instant::now();
    let mut pace = Pace { last: None };
    loop {
        // A host with several CPUs of which one works looks as if it got little; then a proof takes
        // longer.
        if pair.inside.heard_ms.is_some()
            && let Some(share) = pace.measure(machine)
        {
            pair.inside.share = share;
        }
        let (now, t) = (Instant::now(), machine.now_ms());
        let deadline = boot::deadline(request, machine.started(), &pair.host);
        let over = if interrupted.load(Ordering::Relaxed) {
            Some(EventKind::Interrupted)
        } else if deadline.is_some_and(|d| now >= d) {
            Some(EventKind::TimeLimit)
        } else {
            None
        };
        if let Some(kind) = &over {
            pair.inside.event(t, kind.clone(), &[]);
            pair.event(Event { t, kind: kind.clone() });
        }
        if let Some(verdict) = pair.verdict(t, over.is_some()) {
            return Ok(verdict);
        }
        if now >= status_at {
            pair.status(t);
            status_at = now + LONGEST_WAIT;
        }
        let mut until = Instant::now() + LONGEST_WAIT;
        if let Some(t) = pair.inside.judge.next_decision() {
            until = until.min(machine.started() + Duration::from_millis(t));
        }
        // The judge may ask for looks that only the monitor can give.
        let until = until.max(now + Duration::from_millis(5));
        machine.step(deadline.map_or(until, |d| until.min(d)), pair)?;
    }
}

/// How much of the time that passes the host really gets.
struct Pace {
    /// When it was measured last, and the CPU time that QEMU's threads had used by then, both in
    /// microseconds.
    last: Option<(u64, u64)>,
}

impl Pace {
    /// Less is too short to divide by.
    const SHORTEST_US: u64 = 50_000;

    /// The part since the last time, 0 to 1; none where too little has passed.
    fn measure(&mut self, machine: &mut Machine) -> Option<f64> {
        let now = machine.now_ms() * 1000;
        let elapsed = now.saturating_sub(self.last.map_or(0, |(then, _)| then));
        if elapsed < Self::SHORTEST_US {
            return None;
        }
        let (used, threads) = machine.vcpu_time_us()?;
        let before = self.last.replace((now, used));
        let (_, used_before) = before?;
        let given = used.saturating_sub(used_before) as f64 / f64::from(threads);
        Some((given / elapsed as f64).clamp(0.0, 1.0))
    }
}

/// The guest and the host in which it runs.
struct Pair<'a> {
    inside: Inside<'a>,
    host: Judge,
    host_folder: &'a mut FolderWriter,
    observer: &'a mut dyn Observer,
    /// Console bytes of the host whose event has not come yet.
    pending: Vec<u8>,
}

impl Pair<'_> {
    fn verdict(&mut self, t: u64, over: bool) -> Option<Verdict> {
        // Before the monitor spoke, nothing is known of the guest.
        if self.inside.heard_ms.is_some()
            && let Some(verdict) = self.inside.verdict(t)
        {
            return Some(verdict);
        }
        let host = match self.host.decide(t) {
            Decision::Done(verdict) => *verdict,
            Decision::StartOver => self.host.finish(t),
            Decision::Watch if over => self.host.finish(t),
            Decision::Watch => return None,
        };
        let reason = match host.verdict {
            VerdictKind::Booted | VerdictKind::BootedWithSplats => {
                let job = self.host.userspace().failed_job().is_some();
                let how = if job { " with a failure" } else { "" };
                format!(
                    "the monitor ended{how} and did not say what became of its guest; see \
                     host-console.log"
                )
            }
            kind if over => format!(
                "the host kernel had not run its guest to an end yet ({kind}: {})",
                host.reason
            ),
            kind => format!("the host kernel is sick, not the guest ({kind}: {})", host.reason),
        };
        Some(self.inside.cannot_tell(t, reason, host.evidence))
    }

    fn status(&mut self, now: u64) {
        let begun = self.inside.heard_ms.is_some();
        let judge = if begun { &self.inside.judge } else { &self.host };
        let life = judge.last_sign_of_life_ms();
        let status = Status {
            phase: if begun { judge.phase() } else { Phase::Firmware },
            elapsed: Duration::from_millis(now),
            quiet: Duration::from_millis(now.saturating_sub(life)),
            vcpus: self.inside.letters.clone(),
        };
        self.observer.status(&status);
    }
}

impl Sink for Pair<'_> {
    fn console(&mut self, bytes: &[u8]) {
        self.host_folder.console(bytes);
        self.pending.extend_from_slice(bytes);
    }

    fn event(&mut self, event: Event) {
        if let EventKind::Init { line } = &event.kind
            && (line.is_empty() || self.inside.take(event.t, line, self.observer))
        {
            return;
        }
        if matches!(event.kind, EventKind::HostPaused { .. }) {
            self.inside.event(event.t, event.kind.clone(), &[]);
        }
        let bytes = match event.kind {
            EventKind::Console { .. } => std::mem::take(&mut self.pending),
            _ => Vec::new(),
        };
        self.host.observe(&event, &bytes);
        self.host_folder.event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_about_clocks_stands() {
        let given = ["quiet tsc=unstable".to_owned(), "nohz=on".to_owned()];
        let words = host_words(Accel::Tcg, &given);
        assert!(words.contains(&"highres=off".to_owned()), "{words:?}");
        assert!(
            !words.iter().any(|w| w.starts_with("tsc=") || w.starts_with("nohz=")),
            "{words:?}"
        );
        let of_guest = clock_words(Accel::Tcg, &[]);
        assert!(of_guest.contains(&"tsc=reliable".to_owned()), "{of_guest:?}");
        assert!(!of_guest.iter().any(|w| w.starts_with("highres")), "{of_guest:?}");
        assert_eq!(host_words(Accel::Kvm, &[]), Vec::<String>::new());
    }
}
