//! The test of emulated flags: on this machine's KVM, or on that of a kernel in QEMU.
//!
//! Runs it and hands back what it found; says nothing about whose fault a difference is. Main
//! functions: [`of_this_machine`] and [`under`].

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use kolumbo_case::emulation::{EMULATION_FORMAT_VERSION, EmulationFile};
use kolumbo_case::{Event, EventKind};
use kolumbo_judge::{Decision, Judge, Params};
use kolumbo_machine::initramfs::{self, Contents};
use kolumbo_machine::kvm::{self, KvmError};
use kolumbo_machine::{Machine, Plan, Sink, host, program_file, qemu};
use kolumbo_vmm::words::{self, Message};

use crate::boot::{self, BootError, LONGEST_WAIT, Request};
use crate::{inputs, kernel, nested};

/// How much longer than the test itself its thread may take.
const GRACE: Duration = Duration::from_secs(2);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulationError {
    /// The host kernel cannot be booted.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// KVM cannot be used.
    #[error("the test of emulated flags cannot run here: {reason}")]
    NoKvm {
        /// Why.
        reason: String,
    },
    /// The host kernel came to no result.
    #[error("{kernel} ended without a result of the test: {reason}")]
    NoResult {
        /// The host kernel.
        kernel: String,
        /// What became of it.
        reason: String,
    },
}

/// Tests the KVM of this machine, for `limit` at most.
///
/// # Errors
/// When KVM is not there or does not do its work.
pub fn of_this_machine(limit: Duration) -> Result<EmulationFile, EmulationError> {
    let begun = Instant::now();
    let no_kvm = |reason: String| EmulationError::NoKvm { reason };
    let speed = match kvm::measure_speed() {
        Ok(speed) => Some(speed.per_second() as u64),
        // The test needs less than a boot; its own limit tells.
        Err(KvmError::TooSlow { .. }) => None,
        Err(e) => return Err(no_kvm(inputs::chain(&e))),
    };
    let (say, result) = mpsc::channel();
    let testing = Instant::now();
    // On a thread of its own: its signals are its own, and a KVM that never comes back keeps it.
    let thread = std::thread::Builder::new().name("emulation".to_owned()).spawn(move || {
        // Nobody listens any more when the time is over.
        let _ = say.send(kolumbo_vmm::flags::run(limit));
    });
    thread.map_err(|e| no_kvm(format!("starting a thread: {e}")))?;
    let forms = match result.recv_timeout(limit + GRACE) {
        Ok(forms) => forms.map_err(|e| no_kvm(inputs::chain(&e)))?,
        Err(RecvTimeoutError::Timeout) => {
            return Err(no_kvm(format!("KVM did not come back within {} s", limit.as_secs())));
        }
        Err(RecvTimeoutError::Disconnected) => {
            return Err(no_kvm("a defect of kolumbo: the test panicked".to_owned()));
        }
    };
    Ok(EmulationFile {
        emulation_version: EMULATION_FORMAT_VERSION,
        hypervisor: host::read_facts().kernel,
        guest: None,
        instructions_per_second: speed,
        forms,
        test_ms: millis(testing),
        wall_ms: millis(begun),
    })
}

/// Tests the KVM of the host kernel in `request.spec.host`, which QEMU boots for it.
///
/// # Errors
/// When it cannot be booted or brings no result.
pub fn under(request: &Request) -> Result<EmulationFile, EmulationError> {
    let spec = &request.spec;
    let host = spec.host.as_ref().ok_or_else(|| BootError::Contradiction {
        reason: "no host kernel was named; use --host-kernel".to_owned(),
    })?;
    let found = kernel::find(Path::new(&host.kernel), &request.cache).map_err(BootError::from)?;
    let qemu = qemu::find(request.qemu.as_deref(), std::env::var_os("PATH").as_deref())
        .map_err(BootError::from)?;
    let (accel, _) = boot::choose_accel(spec, &qemu)?;
    let folders = program_file::configured_folders(Path::new("/etc/ld.so.conf"));
    let arguments = ["flags", "--out", nested::CHANNEL].map(str::to_owned);
    let program = program_file::read_program(&nested::monitor()?, &arguments, &folders)
        .map_err(BootError::from)?;
    let initramfs = initramfs::build(Contents {
        init: kolumbo_init::INIT_ELF,
        modules: &boot::read_modules(&host.modules).map_err(BootError::from)?,
        program: Some(&program),
        files: &[],
    })
    .map_err(BootError::from)?;
    let append = [&*host.append, &*nested::host_words(accel, &host.append)].concat();
    let plan = Plan {
        qemu,
        accel,
        cpu: spec.cpu.clone(),
        machine: spec.machine.clone(),
        smp: host.smp,
        memory: host.memory,
        kernel: found.image,
        initrd: None,
        cmdline: boot::command_line(&append),
        gdb: None,
        breakpoints: false,
        extra: request.qemu_args.clone(),
    };
    let machine = Machine::start(&plan, Some(&initramfs)).map_err(BootError::from)?;
    let limit = Duration::from_millis(spec.timeout_ms);
    watch(machine, &host.kernel, limit)
}

fn watch(
    mut machine: Machine,
    kernel: &str,
    limit: Duration,
) -> Result<EmulationFile, EmulationError> {
    let no_result = |reason: String| EmulationError::NoResult { kernel: kernel.to_owned(), reason };
    let params = Params { own_init: true, hands_off: true, idle_polls: false };
    let mut told = Told { judge: Judge::new(params), pending: Vec::new(), result: None };
    let result = loop {
        let now = machine.now_ms();
        match &told.result {
            Some(Message::Flags { forms, ms }) => break Ok((forms.clone(), *ms)),
            Some(Message::Trouble { text }) => break Err(no_result(text.clone())),
            _ => {}
        }
        if !limit.is_zero() && machine.started().elapsed() >= limit {
            told.event(Event { t: now, kind: EventKind::TimeLimit });
        }
        if let Decision::Done(verdict) = told.judge.decide(now) {
            break Err(no_result(format!("{}: {}", verdict.verdict, verdict.reason)));
        }
        machine.step(Instant::now() + LONGEST_WAIT, &mut told).map_err(BootError::from)?;
    };
    let wall_ms = machine.now_ms();
    machine.end(&mut told).map_err(BootError::from)?;
    let (forms, test_ms) = result?;
    Ok(EmulationFile {
        emulation_version: EMULATION_FORMAT_VERSION,
        hypervisor: kernel.to_owned(),
        guest: told.judge.userspace().facts.clone(),
        instructions_per_second: None,
        forms,
        test_ms,
        wall_ms,
    })
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Hears the host and waits for the result.
struct Told {
    judge: Judge,
    pending: Vec<u8>,
    result: Option<Message>,
}

impl Sink for Told {
    fn console(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    fn event(&mut self, event: Event) {
        if let EventKind::Init { line } = &event.kind
            && let Ok(message) = words::parse_line(line.trim_end_matches('\r'))
        {
            self.result.get_or_insert(message);
            return;
        }
        let bytes = match event.kind {
            EventKind::Console { .. } => std::mem::take(&mut self.pending),
            _ => Vec::new(),
        };
        self.judge.observe(&event, &bytes);
    }
}
