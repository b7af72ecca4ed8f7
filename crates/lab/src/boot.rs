//! One boot: from a spec to a case folder with a verdict in it.
//!
//! [`prepare`] finds everything that goes in; [`run`] starts the machine, hands what it does to the
//! judge and to the case folder, and ends it when the judge is sure. No console line is understood
//! here, and nothing is printed: an [`Observer`] is told.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kolumbo_case::file::CaseState;
use kolumbo_case::{
    Accel, BootSpec, CASE_FORMAT_VERSION, CaseFile, Engine, Event, EventKind, Evidence, Phase,
    Verdict, VerdictKind,
};
use kolumbo_judge::{Decision, Judge, Params};
use kolumbo_machine::initramfs::{self, Contents, InitramfsError, Module};
use kolumbo_machine::kvm;
use kolumbo_machine::module_file::{self, ModuleError};
use kolumbo_machine::program_file::{self, ProgramError};
use kolumbo_machine::{Machine, MachineError, Plan, QemuError, Sink, host, qemu};

use crate::folder::{FolderError, FolderWriter};
use crate::inputs;
use crate::inside::letters;
use crate::kernel::{self, Found, KernelError};
use crate::standstill;
use crate::symbolise::Symboliser;
use crate::{monitored, nested};

/// What kolumbo puts first on every kernel command line, unless the user names a console: the
/// serial console, and the same port for what is printed before it exists.
pub const CONSOLE_WORDS: &str = "console=ttyS0 earlyprintk=serial,ttyS0,115200";
/// What else kolumbo puts on every kernel command line. The check of the timer interrupt
/// (`check_timer` in `arch/x86/kernel/apic/io_apic.c`) counts ticks against a delay loop; a virtual
/// CPU that the host lets wait fails it, and a healthy kernel panics with "IO-APIC + timer doesn't
/// work!". Linux skips it under KVM by itself. A timer that is truly dead still shows: as a hang.
pub const TIMER_WORDS: &str = "no_timer_check";
/// Longest wait of the loop, so that an interrupt by the user is seen in time.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// Short runs until the CPUs of a hung guest are where they mostly are.
const STAND_STILL_TRIES: u32 = 20;
/// Guest memory below this cannot hold a kernel.
const LEAST_MEMORY: u64 = 1 << 20;

/// What went wrong with a boot that is not the guest's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// Nothing to boot. [`KernelError::NotBootable`] never comes out here: it is a verdict.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A module cannot be handed over.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The program of `--exec` cannot be handed over.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// No initramfs can be made.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// QEMU.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// KVM was asked for and does not work.
    #[error("cannot use KVM: {reason}; use --accel tcg")]
    NoKvm {
        /// Why.
        reason: String,
    },
    /// The case folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// kolumbo's own monitor is not there.
    #[error(
        "cannot find {program}, which runs a guest inside another one; it is built and installed \
         beside kolumbo, or named by KOLUMBO_VMM"
    )]
    NoMonitor {
        /// Its name.
        program: &'static str,
    },
    /// The CPU of the host kernel cannot run guests of its own.
    #[error(
        "the CPU '{cpu}' of {qemu} with {accel} has neither SVM nor VMX, so no guest runs inside a guest; name another \
         (--cpu EPYC-Rome,+svm,+npt; QEMU's translator gives SVM only) or another QEMU (--qemu)"
    )]
    NoVirtualisation {
        /// CPU model.
        cpu: String,
        /// The program.
        qemu: PathBuf,
        /// Accelerator.
        accel: Accel,
    },
    /// What was asked for does not fit together.
    #[error("{reason}")]
    Contradiction {
        /// What, and what to do instead.
        reason: String,
    },
    /// The initramfs that the user named.
    #[error("cannot use {path} as initramfs: {reason}")]
    Initrd {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<QemuError> for BootError {
    fn from(e: QemuError) -> Self {
        BootError::Machine(e.into())
    }
}

/// What to boot and how.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The conditions of the experiment.
    pub spec: BootSpec,
    /// QEMU as the user named it.
    pub qemu: Option<String>,
    /// Further arguments for QEMU.
    pub qemu_args: Vec<String>,
    /// Socket on which QEMU waits for gdb.
    pub gdb: Option<PathBuf>,
    /// A person types at the console.
    pub interactive: bool,
    /// Folder for packages that were unpacked.
    pub cache: PathBuf,
}

/// Everything that goes into a run.
#[derive(Debug)]
pub struct Prepared {
    /// The kernel.
    pub found: Found,
    /// The command line of QEMU.
    pub plan: Plan,
    /// kolumbo's own userspace, unless the user brought one.
    pub initramfs: Option<Vec<u8>>,
    /// Why this accelerator.
    pub accel_reason: String,
    /// QEMU may refuse KVM; TCG is used then.
    pub may_fall_back: bool,
    pub(crate) params: Params,
    /// The kernel of the guest that is the host of this one.
    pub host: Option<Found>,
}

/// Is told what happens, while it happens.
pub trait Observer {
    /// Console bytes, as the guest wrote them: not safe for a terminal.
    fn console(&mut self, bytes: &[u8]);
    /// Where the run stands; called several times a second.
    fn status(&mut self, status: &Status);
    /// The console takes input: called once, for an interactive run.
    fn console_input(&mut self, input: Box<dyn std::io::Write + Send>);
    /// Something worth a line, such as why KVM is not used.
    fn note(&mut self, text: &str);
}

/// Where a run stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// The furthest phase so far.
    pub phase: Phase,
    /// Since QEMU was started.
    pub elapsed: Duration,
    /// Since the last console byte or word of init.
    pub quiet: Duration,
    /// One letter per CPU from the last look: `h` halted, `u` user, `k` kernel, `K` kernel with
    /// interrupts off. Empty when nobody looked.
    pub vcpus: String,
}

/// Finds everything that goes into the run.
pub fn prepare(request: &Request) -> Result<Prepared, BootError> {
    let spec = &request.spec;
    check_spec(request)?;
    let found = kernel::find(Path::new(&spec.kernel), &request.cache)?;
    let qemu_path = qemu::find(request.qemu.as_deref(), std::env::var_os("PATH").as_deref())?;
    if let Some(path) = &spec.initrd {
        inputs::check_initrd(Path::new(path))?;
    }
    let host =
        spec.host.as_ref().map(|h| kernel::find(Path::new(&h.kernel), &request.cache)).transpose();
    // A host that does not boot is no verdict about its guest.
    let host = host.map_err(|e| match e {
        KernelError::NotBootable { path, reason } => BootError::Contradiction {
            reason: format!("the host kernel {}: {reason}", path.display()),
        },
        other => other.into(),
    })?;
    let (accel, accel_reason) = choose_accel(spec, &qemu_path)?;
    let mut cmdline = command_line(&spec.append);
    let initramfs = match (&spec.initrd, &spec.host) {
        (_, Some(host)) => {
            let guest_words = nested::clock_words(accel, &spec.append);
            let guest_line = command_line(&[&*spec.append, &*guest_words].concat());
            let host_words = nested::host_words(accel, &host.append);
            cmdline = command_line(&[&*host.append, &*host_words].concat());
            Some(nested::host_initramfs(spec, host, &found, &guest_line)?)
        }
        (Some(_), None) => None,
        (None, None) => Some(own_initramfs(spec)?),
    };
    let params = Params {
        own_init: spec.initrd.is_none(),
        hands_off: request.gdb.is_some() || request.interactive,
        idle_polls: spec
            .append
            .iter()
            .flat_map(|a| a.split_whitespace())
            .any(|word| word == "idle=poll"),
    };
    let mut plan = Plan {
        qemu: qemu_path,
        accel,
        cpu: spec.cpu.clone(),
        machine: spec.machine.clone(),
        smp: spec.smp,
        memory: spec.memory,
        kernel: found.image.clone(),
        initrd: spec.initrd.as_ref().map(PathBuf::from),
        cmdline,
        gdb: request.gdb.clone(),
        breakpoints: false,
        extra: request.qemu_args.clone(),
    };
    if let (Some(host), Some(found)) = (&spec.host, &host) {
        plan.smp = host.smp;
        plan.memory = host.memory;
        plan.kernel = found.image.clone();
        plan.initrd = None;
    }
    let may_fall_back = spec.accel == Accel::Auto && accel == Accel::Kvm;
    Ok(Prepared { found, plan, initramfs, accel_reason, may_fall_back, params, host })
}

pub(crate) fn check_spec(request: &Request) -> Result<(), BootError> {
    let spec = &request.spec;
    let contradiction = |reason: &str| BootError::Contradiction { reason: reason.to_owned() };
    if spec.initrd.is_some() && !(spec.modules.is_empty() && spec.exec.is_empty()) {
        return Err(contradiction(
            "--module and --exec need kolumbo's own init; they cannot be used with --initrd",
        ));
    }
    if spec.host.as_ref().is_some_and(|host| host.smp == 0 || host.memory <= spec.memory) {
        return Err(contradiction(
            "the host needs at least one CPU, and more memory than its guest",
        ));
    }
    let by_monitor = spec.host.is_some() || spec.engine == Engine::Vmm;
    if by_monitor && (request.gdb.is_some() || request.interactive) {
        return Err(contradiction(
            "--gdb and --interactive are for guests of QEMU; kolumbo's monitor has neither",
        ));
    }
    if spec.engine == Engine::Vmm && (spec.host.is_some() || spec.accel != Accel::Auto) {
        return Err(contradiction(
            "--engine vmm runs the guest on this machine's KVM; --host-kernel and --accel are for QEMU",
        ));
    }
    if spec.smp == 0 {
        return Err(contradiction("a guest needs at least one CPU"));
    }
    if spec.memory < LEAST_MEMORY {
        return Err(contradiction("a guest needs at least 1M of memory"));
    }
    Ok(())
}

/// The kernel's command line: kolumbo's words, then the user's.
pub fn command_line(append: &[String]) -> String {
    let user = append.join(" ");
    let names_console =
        user.split_whitespace().any(|w| w.starts_with("console=") || w.starts_with("earlyprintk"));
    match (names_console, user.is_empty()) {
        (true, _) => format!("{TIMER_WORDS} {user}"),
        (false, true) => format!("{CONSOLE_WORDS} {TIMER_WORDS}"),
        (false, false) => format!("{CONSOLE_WORDS} {TIMER_WORDS} {user}"),
    }
}

/// Modules as they were named, each with its parameters behind a blank.
pub(crate) fn read_modules(given: &[String]) -> Result<Vec<Module>, ModuleError> {
    given
        .iter()
        .map(|given| {
            let (path, parameters) = inputs::split_module(given);
            module_file::read_module(path, parameters)
        })
        .collect()
}

pub(crate) fn own_initramfs(spec: &BootSpec) -> Result<Vec<u8>, BootError> {
    let modules = read_modules(&spec.modules)?;
    let program = match spec.exec.split_first() {
        Some((program, arguments)) => {
            let path = inputs::program_path(program);
            let folders = program_file::configured_folders(Path::new("/etc/ld.so.conf"));
            Some(program_file::read_program(&path, arguments, &folders)?)
        }
        None => None,
    };
    let contents = Contents {
        init: kolumbo_init::INIT_ELF,
        modules: &modules,
        program: program.as_ref(),
        files: &[],
    };
    Ok(initramfs::build(contents)?)
}

/// The accelerator for a spec and why; an error where KVM was asked for and does not work.
pub(crate) fn choose_accel(spec: &BootSpec, qemu: &Path) -> Result<(Accel, String), BootError> {
    if !matches!(spec.accel, Accel::Auto | Accel::Kvm) {
        return Ok((spec.accel, "asked for".to_owned()));
    }
    match kvm_works(qemu, spec.cpu.as_deref().unwrap_or("host")) {
        Ok(reason) => Ok((Accel::Kvm, reason)),
        Err(reason) if spec.accel == Accel::Auto => Ok((Accel::Tcg, format!("not KVM: {reason}"))),
        Err(reason) => Err(BootError::NoKvm { reason }),
    }
}

/// Whether this host's KVM runs guest code at the speed of hardware and QEMU takes it, or why not.
/// The cheaper question comes first.
fn kvm_works(qemu: &Path, cpu: &str) -> Result<String, String> {
    let speed = kvm::measure_speed().map_err(|e| inputs::chain(&e))?;
    let rate = speed.per_second() / 1e6;
    if !kvm::is_hardware(speed) {
        return Err(format!(
            "/dev/kvm runs {rate:.1} million instructions a second, so it is emulated"
        ));
    }
    kvm::qemu_accepts(qemu, cpu).map_err(|e| inputs::chain(&e))?;
    Ok(format!("runs {rate:.0} million instructions a second"))
}

/// Runs the prepared boot, or says why it cannot be one, and leaves a case in `out`.
pub fn boot(
    request: &Request,
    out: &Path,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<CaseFile, BootError> {
    let mut case = CaseFile {
        case_version: CASE_FORMAT_VERSION,
        kolumbo: env!("CARGO_PKG_VERSION").to_owned(),
        started: inputs::rfc3339(SystemTime::now()),
        pid: std::process::id(),
        spec: request.spec.clone(),
        host: host::read_facts(),
        ..CaseFile::default()
    };
    let mut folder = FolderWriter::create(out, &case)?;
    let outcome = match request.spec.engine {
        Engine::Vmm => monitored::run(request, &mut case, &mut folder, interrupted, observer),
        Engine::Qemu => prepare(request).and_then(|prepared| {
            let run = if prepared.host.is_some() { nested::run } else { run };
            run(&prepared, request, &mut case, &mut folder, interrupted, observer)
        }),
    };
    match outcome {
        Ok(()) => {}
        Err(BootError::Kernel(KernelError::NotBootable { path, reason })) => {
            case.outcome = Some(not_bootable(format!("{}: {reason}", path.display()), Vec::new()));
        }
        Err(other) => {
            let verdict = Verdict {
                verdict: VerdictKind::CannotTell,
                reason: inputs::chain(&other),
                ..not_bootable(String::new(), Vec::new())
            };
            case.outcome = Some(verdict);
            case.state = CaseState::Done;
            folder.save(&case)?;
            return Err(other);
        }
    }
    if let Some(trouble) = folder.take_trouble() {
        let trouble = inputs::chain(&trouble);
        case.gaps.push(trouble.clone());
        case.unkept = Some(trouble);
    }
    case.state = CaseState::Done;
    folder.save(&case)?;
    Ok(case)
}

fn not_bootable(reason: String, evidence: Vec<Evidence>) -> Verdict {
    Verdict {
        verdict: VerdictKind::NotBootable,
        reason,
        phase: Phase::Firmware,
        timed_out: false,
        last_sign_of_life_ms: 0,
        decided_ms: 0,
        evidence,
    }
}

fn run(
    prepared: &Prepared,
    request: &Request,
    case: &mut CaseFile,
    folder: &mut FolderWriter,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), BootError> {
    let hashes =
        inputs::hash_in_background(input_files(&prepared.found, prepared.host.as_ref(), request));
    let (mut machine, accel, reason) = match start(prepared) {
        Ok(started) => started,
        Err(BootError::Machine(MachineError::Qemu(QemuError::DidNotStart { stderr, .. })))
            if inputs::loader_refused(&stderr) =>
        {
            let evidence = vec![Evidence::Report { t: 0, from: "qemu".to_owned(), text: stderr }];
            let reason = "QEMU's loader refused the kernel".to_owned();
            case.outcome = Some(not_bootable(reason, evidence));
            case.inputs = hashes.collect();
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    note_machine(case, &machine, accel, reason, observer);
    folder.save(case)?;
    if request.interactive {
        observer.console_input(Box::new(machine.take_console_input()?));
    }

    let mut judge = Judge::new(prepared.params);
    let verdict = watch(&mut machine, request, &mut judge, folder, interrupted, observer)?;
    case.wall_ms = Some(machine.now_ms());
    let usual: Vec<(u32, u64)> =
        standstill::named(&verdict).filter_map(|cpu| Some((cpu, judge.usual_pc(cpu)?))).collect();
    if machine.stand_still_at(&usual, STAND_STILL_TRIES).is_ok() {
        case.cpus = standstill::cpus_of(&mut machine, &verdict);
    }
    let mut tail = Tee { judge: &mut judge, folder, observer, pending: Vec::new() };
    machine.end(&mut tail)?;

    case.guest = judge.userspace().facts.clone();
    case.gaps.extend(missing_cpus(case));
    note_pauses(case, &judge);
    case.timeline = timeline(&judge);
    case.jobs_failed = judge.userspace().failed_job().is_some();
    let mut verdict = verdict;
    let text = case.guest.as_ref().map_or(0, |g| g.text);
    case.gaps.extend(Symboliser::new(&prepared.found, text).annotate(&mut verdict, &mut case.cpus));
    case.outcome = Some(verdict);
    case.inputs = hashes.collect();
    Ok(())
}

/// When each phase began.
pub(crate) fn timeline(judge: &Judge) -> Vec<(Phase, u64)> {
    let said = judge.transcript().timeline.iter().map(|(phase, line)| (*phase, line.t));
    let hello = judge.userspace().hello_t.map(|t| (Phase::Userspace, t));
    let mut timeline: Vec<(Phase, u64)> = said.chain(hello).collect();
    timeline.sort();
    timeline.dedup_by_key(|(phase, _)| *phase);
    timeline
}

/// Writes down which QEMU runs, and says why it has this accelerator where nobody asked for one.
pub(crate) fn note_machine(
    case: &mut CaseFile,
    machine: &Machine,
    accel: Accel,
    reason: String,
    observer: &mut dyn Observer,
) {
    if case.spec.accel == Accel::Auto {
        observer.note(&format!("{accel} ({reason})"));
    }
    case.qemu.version = machine.version().to_owned();
    case.qemu.argv = machine.argv().to_vec();
    case.qemu.accel = accel.name().to_owned();
    case.qemu.accel_reason = reason;
}

/// Writes down for how long the host stood still.
pub(crate) fn note_pauses(case: &mut CaseFile, judge: &Judge) {
    let ms = Some(judge.host_paused_ms()).filter(|ms| *ms > 0);
    case.host_paused_ms = ms;
    case.gaps.extend(ms.map(|ms| {
        format!(
            "the host, or kolumbo alone, stood still for {:.1} s while the guest's clock went on",
            ms as f64 / 1e3
        )
    }));
}

/// A word about CPUs that did not come up although nobody asked for fewer.
pub(crate) fn missing_cpus(case: &CaseFile) -> Option<String> {
    let (guest, smp) = (case.guest.as_ref()?, case.spec.smp);
    let online = guest.cpus_online;
    let fewer = ["nosmp", "maxcpus=", "nr_cpus="];
    let asked = guest.cmdline.split_whitespace().any(|w| fewer.iter().any(|f| w.starts_with(f)));
    let by_monitor = case.spec.host.is_some() || case.spec.engine == Engine::Vmm;
    (online > 0 && online < smp && !asked).then(|| match by_monitor {
        true => format!(
            "{online} of {smp} CPUs came up; kolumbo's monitor names them in an MP table, which a kernel \
             reads with CONFIG_X86_MPPARSE"
        ),
        false => format!(
            "{online} of {smp} CPUs came up; where it happens once, one did not answer in time; where it happens \
             always, the kernel may have no ACPI and see one of each socket: try \
             --qemu-opts '-smp {smp},sockets={smp}'"
        ),
    })
}

pub(crate) fn start(prepared: &Prepared) -> Result<(Machine, Accel, String), BootError> {
    let initramfs = prepared.initramfs.as_deref();
    match Machine::start(&prepared.plan, initramfs) {
        Ok(machine) => Ok((machine, prepared.plan.accel, prepared.accel_reason.clone())),
        Err(MachineError::Qemu(QemuError::DidNotStart { stderr, .. }))
            if prepared.may_fall_back =>
        {
            let plan = Plan { accel: Accel::Tcg, ..prepared.plan.clone() };
            let reason = format!("not KVM: QEMU ended under it: {stderr}");
            Ok((Machine::start(&plan, initramfs)?, Accel::Tcg, reason))
        }
        Err(other) => Err(other.into()),
    }
}

/// When the time of a run that began at `started` is over, none where it has no limit. While the host stands still
/// it does not run.
pub(crate) fn deadline(request: &Request, started: Instant, judge: &Judge) -> Option<Instant> {
    let limit = Some(request.spec.timeout_ms).filter(|ms| *ms > 0)?;
    started.checked_add(Duration::from_millis(limit.saturating_add(judge.host_paused_ms())))
}

/// Feeds the judge until it is sure.
fn watch(
    machine: &mut Machine,
    request: &Request,
    judge: &mut Judge,
    folder: &mut FolderWriter,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Verdict, BootError> {
    let mut tee = Tee { judge, folder, observer, pending: Vec::new() };
    tee.event(Event { t: machine.now_ms(), kind: EventKind::Started });
    let mut vcpus = String::new();
    let mut status_at = Instant::now();
    loop {
        let now = Instant::now();
        let deadline = deadline(request, machine.started(), tee.judge);
        if interrupted.load(Ordering::Relaxed) {
            tee.event(Event { t: machine.now_ms(), kind: EventKind::Interrupted });
        } else if deadline.is_some_and(|d| now >= d) {
            look(machine, &mut tee, &mut vcpus);
            tee.event(Event { t: machine.now_ms(), kind: EventKind::TimeLimit });
        } else if tee.judge.next_look().is_some_and(|t| machine.now_ms() >= t) {
            look(machine, &mut tee, &mut vcpus);
        }
        match tee.judge.decide(machine.now_ms()) {
            Decision::Watch => {}
            Decision::StartOver => machine.start_over().map_err(MachineError::from)?,
            Decision::Done(verdict) => return Ok(*verdict),
        }
        if now >= status_at {
            tee.status(machine, &vcpus);
            status_at = now + LONGEST_WAIT;
        }
        let mut until = Instant::now() + LONGEST_WAIT;
        if let Some(t) = tee.judge.next_decision() {
            until = until.min(machine.started() + Duration::from_millis(t));
        }
        machine.step(deadline.map_or(until, |d| until.min(d)), &mut tee)?;
        if machine.is_stopped() && !machine.has_exited() {
            // The guest stands still at its reset or power-off: see where.
            look(machine, &mut tee, &mut vcpus);
        }
    }
}

/// Looks at every virtual CPU. A QEMU that does not answer is dealt with where its end is seen.
fn look(machine: &mut Machine, tee: &mut Tee<'_>, seen: &mut String) {
    let Ok(vcpus) = machine.sample() else { return };
    *seen = letters(&vcpus);
    tee.event(Event { t: machine.now_ms(), kind: EventKind::Sample { vcpus } });
}

/// Hands everything to the case folder first, then to the judge and the observer.
struct Tee<'a> {
    judge: &'a mut Judge,
    folder: &'a mut FolderWriter,
    observer: &'a mut dyn Observer,
    /// Console bytes whose event has not come yet.
    pending: Vec<u8>,
}

impl Tee<'_> {
    fn status(&mut self, machine: &Machine, vcpus: &str) {
        let now = machine.now_ms();
        let life = self.judge.last_sign_of_life_ms();
        let status = Status {
            phase: self.judge.phase(),
            elapsed: Duration::from_millis(now),
            quiet: Duration::from_millis(now.saturating_sub(life)),
            vcpus: vcpus.to_owned(),
        };
        self.observer.status(&status);
    }
}

impl Sink for Tee<'_> {
    fn console(&mut self, bytes: &[u8]) {
        self.folder.console(bytes);
        self.observer.console(bytes);
        self.pending.extend_from_slice(bytes);
    }

    fn event(&mut self, event: Event) {
        self.folder.event(event.clone());
        let bytes = match event.kind {
            EventKind::Console { .. } => std::mem::take(&mut self.pending),
            _ => Vec::new(),
        };
        self.judge.observe(&event, &bytes);
    }
}

pub(crate) fn input_files(
    found: &Found,
    host: Option<&Found>,
    request: &Request,
) -> Vec<(&'static str, PathBuf)> {
    let mut files = vec![("kernel", found.image.clone())];
    let beside = [("system-map", &found.system_map), ("config", &found.config)];
    files.extend(beside.into_iter().filter_map(|(role, path)| Some((role, path.clone()?))));
    files.extend(host.map(|host| ("host-kernel", host.image.clone())));
    files.extend(request.spec.initrd.iter().map(|p| ("initrd", PathBuf::from(p))));
    let of_host = request.spec.host.iter().flat_map(|host| &host.modules);
    let modules = request.spec.modules.iter().chain(of_host);
    let modules = modules.map(|m| inputs::split_module(m).0.to_owned());
    files.extend(modules.map(|path| ("module", path)));
    files.extend(request.spec.exec.first().map(|p| ("exec", inputs::program_path(p))));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_console_replaces_ours() {
        let line = |words: &[&str]| {
            command_line(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(line(&[]), format!("{CONSOLE_WORDS} {TIMER_WORDS}"));
        assert_eq!(line(&["quiet"]), format!("{CONSOLE_WORDS} {TIMER_WORDS} quiet"));
        let named = line(&["quiet", "console=tty0 x"]);
        assert_eq!(named, format!("{TIMER_WORDS} quiet console=tty0 x"));
    }

    #[test]
    fn a_pause_does_not_count_against_the_limit() {
        let of = |timeout_ms| Request {
            spec: BootSpec { timeout_ms, ..BootSpec::default() },
            ..Request::default()
        };
        let (begun, mut judge) = (Instant::now(), Judge::new(Params::default()));
        let after = |ms| begun.checked_add(Duration::from_millis(ms));
        assert_eq!(deadline(&of(1000), begun, &judge), after(1000));
        judge.observe(&Event { t: 900, kind: EventKind::HostPaused { ms: 7000 } }, b"");
        assert_eq!(deadline(&of(1000), begun, &judge), after(8000));
        assert_eq!(deadline(&of(0), begun, &judge), None);
    }

    #[test]
    fn cpus_that_stay_away_are_missed() {
        let case = |online, cmdline: &str| CaseFile {
            spec: BootSpec { smp: 2, ..BootSpec::default() },
            guest: Some(kolumbo_case::file::GuestFacts {
                cpus_online: online,
                cmdline: cmdline.to_owned(),
                ..Default::default()
            }),
            ..CaseFile::default()
        };
        assert!(missing_cpus(&case(1, "quiet")).is_some_and(|t| t.starts_with("1 of 2 CPUs")));
        for (online, cmdline) in [(2, ""), (0, ""), (1, "maxcpus=1"), (1, "x nosmp")] {
            assert_eq!(missing_cpus(&case(online, cmdline)), None);
        }
    }

    #[test]
    fn what_does_not_fit_together_is_said() {
        let request = |spec: BootSpec| Request {
            spec: BootSpec { smp: 1, memory: 1 << 30, ..spec },
            ..Request::default()
        };
        let spec = BootSpec {
            initrd: Some("i".into()),
            exec: vec!["/bin/true".into()],
            ..BootSpec::default()
        };
        let e = check_spec(&request(spec)).unwrap_err().to_string();
        assert!(e.contains("--initrd"), "{e}");
        assert!(check_spec(&Request::default()).is_err());
    }
}
