//! One guest from its first instruction to its end.
//!
//! Sets the machine up (memory, in-kernel interrupt controllers and timer, ports, one thread a
//! virtual CPU) and says what happens. It judges nothing: when the guest is quiet it looks at the
//! CPUs again and again, and whoever listens decides. Main type: [`Monitor`].

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::{Asked, Ports, SERIAL_PORTS};
use crate::load::{self, Inputs, LEAST_MEMORY, LoadError, MOST_MEMORY, Start};
use crate::vcpu;
use crate::words::{self, CONSOLE_CHUNK, End, LINE_LIMIT, Look, MARK, MOST_CPUS, Message};

/// How often what the guest said is fetched.
const TICK: Duration = Duration::from_millis(20);
/// Silence after which the CPUs are looked at. Looking costs the guest some time.
const SILENCE: Duration = Duration::from_millis(300);
/// How often they are looked at, at first and after [`FREQUENT`].
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY_LATER: Duration = Duration::from_millis(1000);
const FREQUENT: Duration = Duration::from_secs(15);
/// How long the CPUs may take to stand still. One that does not is left out of the sample.
const STAND_STILL: Duration = Duration::from_millis(500);
/// How long they may take to end; a CPU that KVM never gives back is left behind.
const LET_GO: Duration = Duration::from_secs(1);
/// A line of kolumbo's init in the guest is cut here. Quoting may double its length.
const MOST_LINE: usize = 24 * 1024;

/// What to boot.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// ELF kernel with a PVH entry, or bzImage.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: Option<PathBuf>,
    /// Its whole command line.
    pub command_line: String,
    /// Virtual CPUs.
    pub smp: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The guest is ended after this; zero for never.
    pub time_limit: Duration,
}

/// Why a guest cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// What was asked for does not go.
    #[error("{0}")]
    Settings(String),
    /// KVM refused a step.
    #[error("cannot {doing}: {source}")]
    Kvm {
        /// What was being done.
        doing: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// The system refused a step.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The guest's memory.
    #[error("cannot get {bytes} bytes of memory for the guest: {reason}")]
    Memory {
        /// How much was asked for.
        bytes: u64,
        /// What the system said.
        reason: String,
    },
    /// What goes into it.
    #[error(transparent)]
    Load(#[from] LoadError),
}

pub(crate) fn kvm(doing: &'static str) -> impl Fn(kvm_ioctls::Error) -> MonitorError {
    move |source| MonitorError::Kvm { doing, source }
}

pub(crate) fn system(doing: &'static str) -> impl Fn(std::io::Error) -> MonitorError {
    move |source| MonitorError::System { doing, source }
}

/// A machine that is ready to run.
pub struct Monitor {
    settings: Settings,
    start: Start,
    vcpus: Vec<VcpuFd>,
    shared: Arc<Shared>,
    /// Lives as long as its CPUs.
    vm: VmFd,
}

/// What the threads of the CPUs and the first one share.
struct Shared {
    ports: Ports,
    memory: GuestMemoryMmap,
    stop: AtomicBool,
    pause: Mutex<Pause>,
    changed: Condvar,
    /// Threads by CPU, 0 until they run.
    threads: Vec<AtomicI32>,
}

/// A request to stand still, and the answers to it.
#[derive(Default)]
struct Pause {
    /// Number of the request.
    asked: u64,
    /// The last request that is over.
    over: u64,
    /// By CPU: the request that it answered, and what it saw.
    looks: Vec<(u64, Option<Look>)>,
}

impl Shared {
    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        for thread in &self.threads {
            let thread = thread.load(Ordering::Acquire);
            if thread != 0 {
                vcpu::wake(thread);
            }
        }
    }
}

/// What a CPU's thread tells the first one.
enum Told {
    Panicked,
    End(End, String),
}

impl Monitor {
    /// Makes the machine and fills its memory.
    ///
    /// # Errors
    /// When KVM cannot be used, the memory is not there, or a file cannot be loaded.
    pub fn new(settings: Settings) -> Result<Monitor, MonitorError> {
        check(&settings)?;
        let (kvm_device, vm) = machine()?;
        let memory = memory_of(&vm, settings.memory)?;
        let interrupts = SERIAL_PORTS.map(|(_, line)| {
            let event = EventFd::new(libc::EFD_NONBLOCK)
                .map_err(system("make the interrupt of a serial port"))?;
            vm.register_irqfd(&event, line).map_err(kvm("wire the interrupt of a serial port"))?;
            Ok::<_, MonitorError>(event)
        });
        let [first, second] = interrupts;
        let start = load::load(
            &memory,
            Inputs {
                kernel: &settings.kernel,
                initrd: settings.initrd.as_deref(),
                command_line: &settings.command_line,
                memory: settings.memory,
                cpus: settings.smp,
            },
        )?;
        let cpuid = cpuid(&kvm_device)?;
        let mut vcpus = Vec::new();
        for cpu in 0..settings.smp {
            let vcpu = vm.create_vcpu(u64::from(cpu)).map_err(kvm("make a virtual CPU"))?;
            vcpu.set_cpuid2(&vcpu::cpuid_of(&cpuid, cpu as u8))
                .map_err(kvm("say what a virtual CPU can do"))?;
            vcpu::wake_in_guest(&vcpu).map_err(system("set the signals of a virtual CPU"))?;
            vcpus.push(vcpu);
        }
        vcpu::enter_flat(&vcpus[0], start).map_err(kvm("set the first CPU's registers"))?;
        let shared = Arc::new(Shared {
            ports: Ports::new([first?, second?]),
            memory,
            stop: AtomicBool::new(false),
            pause: Mutex::new(Pause { looks: vec![(0, None); vcpus.len()], ..Pause::default() }),
            changed: Condvar::new(),
            threads: vcpus.iter().map(|_| AtomicI32::new(0)).collect(),
        });
        Ok(Monitor { settings, start, vcpus, shared, vm })
    }

    /// Runs the guest to its end and says everything to `out`, one write a line.
    ///
    /// # Errors
    /// When threads cannot be started or nobody can be told.
    pub fn run(self, out: &mut dyn Write) -> Result<End, MonitorError> {
        let Monitor { settings, start, vcpus, shared, vm } = self;
        vcpu::block_wake_signal().map_err(system("block a signal"))?;
        let mut teller = Teller::new(out, Arc::clone(&shared));
        teller.say(&Message::Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            smp: settings.smp,
            entry: start.protocol.to_owned(),
        })?;
        let (say, told) = mpsc::channel();
        let mut threads = Vec::new();
        for (cpu, vcpu) in vcpus.into_iter().enumerate() {
            let (shared, say) = (Arc::clone(&shared), say.clone());
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{cpu}"))
                .spawn(move || run_vcpu(vcpu, cpu, &shared, &say))
                .map_err(system("start the thread of a virtual CPU"))?;
            threads.push(thread);
        }
        drop(say);
        let (how, reason) = watch(&mut teller, &told, settings.time_limit)?;
        teller.fetch(true)?;
        teller.say(&Message::End { t: teller.now(), how, reason })?;
        shared.stop.store(true, Ordering::Release);
        shared.changed.notify_all();
        let deadline = Instant::now() + LET_GO;
        while threads.iter().any(|t| !t.is_finished()) && Instant::now() < deadline {
            shared.wake_all();
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(vm);
        Ok(how)
    }
}

fn check(settings: &Settings) -> Result<(), MonitorError> {
    let refuse = |reason: String| Err(MonitorError::Settings(reason));
    if !(1..=MOST_CPUS).contains(&settings.smp) {
        return refuse(format!("{} CPUs: 1 to {MOST_CPUS} are possible", settings.smp));
    }
    if !(LEAST_MEMORY..=MOST_MEMORY).contains(&settings.memory)
        || !settings.memory.is_multiple_of(4096)
    {
        return refuse(format!(
            "{} bytes of memory: {} MiB to {} MiB are possible",
            settings.memory,
            LEAST_MEMORY >> 20,
            MOST_MEMORY >> 20
        ));
    }
    Ok(())
}

/// What KVM's CPUs can do. The deadline timer is KVM's own as the APIC is, and it asks to be told of it apart:
/// with it a guest need not time its APIC, which goes wrong where it is kept from the CPU meanwhile.
pub(crate) fn cpuid(device: &Kvm) -> Result<CpuId, MonitorError> {
    /// CPUID.1:ECX, the APIC's timer can be told a value of the time stamp counter.
    const TSC_DEADLINE: u32 = 1 << 24;
    let mut cpuid = device
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(kvm("ask KVM what its CPUs can do"))?;
    if device.check_extension(Cap::TscDeadlineTimer) {
        for entry in cpuid.as_mut_slice().iter_mut().filter(|entry| entry.function == 1) {
            entry.ecx |= TSC_DEADLINE;
        }
    }
    Ok(cpuid)
}

/// A machine without CPUs: interrupt controllers and timer are KVM's own.
pub(crate) fn machine() -> Result<(Kvm, VmFd), MonitorError> {
    let device = Kvm::new().map_err(kvm("open /dev/kvm"))?;
    if !device.check_extension(Cap::Irqchip) || !device.check_extension(Cap::Irqfd) {
        return Err(MonitorError::Settings(
            "this KVM has no interrupt controllers of its own; it is not that of x86 Linux".into(),
        ));
    }
    let vm = device.create_vm().map_err(kvm("make a virtual machine"))?;
    // Older Intel CPUs need three free pages and one more for real mode, and refuse to run without.
    vm.set_tss_address(0xfffb_d000).map_err(kvm("place the TSS"))?;
    vm.set_identity_map_address(0xfffb_c000).map_err(kvm("place the identity map"))?;
    vm.create_irq_chip().map_err(kvm("make the interrupt controllers"))?;
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(kvm("make the timer"))?;
    Ok((device, vm))
}

pub(crate) fn memory_of(vm: &VmFd, bytes: u64) -> Result<GuestMemoryMmap, MonitorError> {
    let failed = |reason: String| MonitorError::Memory { bytes, reason };
    let size = usize::try_from(bytes).map_err(|e| failed(e.to_string()))?;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)])
        .map_err(|e| failed(e.to_string()))?;
    let host = memory
        .iter()
        .next()
        .and_then(|region| region.get_host_address(vm_memory::MemoryRegionAddress(0)).ok())
        .ok_or_else(|| failed("it has no address".to_owned()))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: bytes,
        userspace_addr: host as u64,
    };
    // SAFETY: the memory is shared with the threads of the CPUs and outlives every KVM_RUN; it is
    // reached through vm-memory's volatile accesses only.
    unsafe { vm.set_user_memory_region(region) }.map_err(kvm("give the machine its memory"))?;
    Ok(memory)
}

/// Runs one CPU until the guest is over.
fn run_vcpu(mut vcpu: VcpuFd, cpu: usize, shared: &Shared, say: &mpsc::Sender<Told>) {
    shared.threads[cpu].store(vcpu::this_thread(), Ordering::Release);
    // Whoever listens is gone only when the guest is over.
    let tell = |told| drop(say.send(told));
    let end = |how, reason: &str| tell(Told::End(how, reason.to_owned()));
    while !shared.stop.load(Ordering::Acquire) {
        stand_still(&vcpu, cpu, shared);
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => match shared.ports.write(port, data) {
                Asked::GoOn => {}
                Asked::Panicked => tell(Told::Panicked),
                Asked::Reset => return end(End::Reset, "by a port"),
                Asked::PowerOff => return end(End::PowerOff, "by a port"),
            },
            Ok(VcpuExit::IoIn(port, data)) => shared.ports.read(port, data),
            // No device but KVM's own lies in memory: an empty bus.
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(0xff),
            Ok(VcpuExit::MmioWrite(..) | VcpuExit::Intr | VcpuExit::Hlt) => {}
            Ok(VcpuExit::Shutdown) => return end(End::Reset, "by a triple fault"),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return end(End::InternalError, &format!("KVM could not enter it: {reason:#x}"));
            }
            Ok(other) => return end(End::InternalError, &format!("KVM came back with {other:?}")),
            Err(e) if e.errno() == libc::EINTR => vcpu::take_wake_signal(),
            // A CPU that waits for its start.
            Err(e) if e.errno() == libc::EAGAIN => {}
            Err(e) => return end(End::InternalError, &format!("KVM_RUN failed: {e}")),
        }
    }
}

/// Answers a request to stand still, where there is one, and waits until it is over.
fn stand_still(vcpu: &VcpuFd, cpu: usize, shared: &Shared) {
    let mut pause = shared.pause();
    if pause.asked == pause.over {
        return;
    }
    let number = pause.asked;
    if pause.looks[cpu].0 != number {
        let look = vcpu::look(vcpu, cpu as u32, &shared.memory);
        pause.looks[cpu] = (number, look);
        shared.changed.notify_all();
    }
    while pause.over < number && !shared.stop.load(Ordering::Acquire) {
        pause = shared.changed.wait(pause).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Says what the guest does until it is over.
fn watch(
    teller: &mut Teller<'_>,
    told: &mpsc::Receiver<Told>,
    limit: Duration,
) -> Result<(End, String), MonitorError> {
    let mut look_at = Instant::now() + SILENCE;
    loop {
        match told.recv_timeout(TICK) {
            Ok(Told::Panicked) => {
                teller.fetch(false)?;
                teller.say(&Message::Panicked { t: teller.now() })?;
            }
            Ok(Told::End(how, reason)) => return Ok((how, reason)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let reason = "every virtual CPU is gone, a defect of the monitor".to_owned();
                return Ok((End::InternalError, reason));
            }
        }
        let now = Instant::now();
        if teller.fetch(false)? {
            look_at = now + SILENCE;
        } else if now >= look_at {
            teller.look()?;
            let quiet = now.saturating_duration_since(teller.heard);
            look_at = now + if quiet < FREQUENT { LOOK_EVERY } else { LOOK_EVERY_LATER };
        }
        if !limit.is_zero() && teller.started.elapsed() >= limit {
            teller.look()?;
            return Ok((End::TimeLimit, format!("{} ms are over", limit.as_millis())));
        }
    }
}

/// Turns what the guest said into messages.
struct Teller<'a> {
    out: &'a mut dyn Write,
    shared: Arc<Shared>,
    started: Instant,
    /// When the guest was last heard.
    heard: Instant,
    init_line: Vec<u8>,
}

impl<'a> Teller<'a> {
    fn new(out: &'a mut dyn Write, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Teller { out, shared, started: now, heard: now, init_line: Vec::new() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn say(&mut self, message: &Message) -> Result<(), MonitorError> {
        let line = words::to_line(message);
        if line.len() > LINE_LIMIT {
            // Cannot happen while the limits above hold; a reader would drop it.
            return Ok(());
        }
        let said = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
        said.map_err(system("say what the guest does"))
    }

    /// Passes on what the guest said; true when it said something. `all` ends a line that was begun.
    fn fetch(&mut self, all: bool) -> Result<bool, MonitorError> {
        let console = self.shared.ports.console.take();
        let init = self.shared.ports.init.take();
        let heard = !console.is_empty() || !init.is_empty();
        if heard {
            self.heard = Instant::now();
        }
        for chunk in console.chunks(CONSOLE_CHUNK) {
            self.say(&Message::Console { t: self.now(), text: words::text_of(chunk) })?;
        }
        for byte in init {
            if byte == b'\n' {
                self.end_init_line()?;
            } else if self.init_line.len() < MOST_LINE {
                self.init_line.push(byte);
            }
        }
        if all && !self.init_line.is_empty() {
            self.end_init_line()?;
        }
        Ok(heard)
    }

    fn end_init_line(&mut self) -> Result<(), MonitorError> {
        let line = String::from_utf8_lossy(&self.init_line).trim_end_matches('\r').to_owned();
        self.init_line.clear();
        self.say(&Message::Init { t: self.now(), line })
    }

    /// Lets every CPU stand still and says where.
    fn look(&mut self) -> Result<(), MonitorError> {
        let deadline = Instant::now() + STAND_STILL;
        let mut pause = self.shared.pause();
        pause.asked += 1;
        let number = pause.asked;
        self.shared.wake_all();
        while pause.looks.iter().any(|(answered, _)| *answered != number) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.changed.wait_timeout(pause, left);
            pause = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let cpus: Vec<Look> = pause
            .looks
            .iter_mut()
            .filter(|(answered, _)| *answered == number)
            .filter_map(|(_, look)| look.take())
            .collect();
        pause.over = number;
        drop(pause);
        self.shared.changed.notify_all();
        let t = self.now();
        self.say(&Message::Sample { t, cpus })
    }
}

/// The line that a monitor which cannot even begin says.
pub fn trouble_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    // A character may take twelve of JSON.
    let text = text.chars().take((LINE_LIMIT - MARK.len()) / 16).collect();
    words::to_line(&Message::Trouble { text })
}
