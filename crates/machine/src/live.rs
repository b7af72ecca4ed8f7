//! One running guest: its process, its channels, its virtual CPUs.
//!
//! [`Machine::start`] spawns QEMU, [`Machine::step`] turns what arrives into events, and
//! [`Machine::sample`] looks at every virtual CPU while the guest stands still. Nothing is decided
//! here about what a line or a sample means. QEMU dies with the thread that started it, whatever
//! kills that thread.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use kolumbo_case::{Event, EventKind, GuestView, QemuEvent, ReadError, VcpuRegisters, VcpuSample};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use serde_json::json;

use crate::gdb::{GdbClient, GdbError};
use crate::pause::PauseWatch;
use crate::qemu::{self, Channels, Plan, QemuError};
use crate::qmp::{QmpClient, QmpError};
use crate::registers_x86;

/// Wanted capacity of the console pipe; the kernel may grant less.
const CONSOLE_PIPE: usize = 1 << 20;
/// The console is read at most this often, so that a guest that writes byte by byte does not wake
/// kolumbo for each of them.
const CONSOLE_PERIOD: Duration = Duration::from_millis(5);
/// Longest line on the channel of kolumbo's init; what is longer is cut.
const MAX_INIT_LINE: usize = 64 << 10;
/// How much of QEMU's standard error is kept: the end of it.
const MAX_STDERR: usize = 8 << 10;
/// Most that is read from one descriptor in one step, so that no channel starves the others.
const MAX_READ: usize = 1 << 20;
/// How long QEMU may take for its greeting; on a busy host loading a large initrd takes seconds.
const GREETING_LIMIT: Duration = Duration::from_secs(30);
/// How long QEMU may take for one command.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest runs between two looks at where it is.
const SHORT_RUN: Duration = Duration::from_millis(2);
/// How long QEMU may take to end once it was asked to.
const QUIT_LIMIT: Duration = Duration::from_millis(500);

/// Why a guest could not be started or watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// QEMU is missing, too old, or did not come up.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// QEMU's monitor failed while QEMU was alive.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU's debugger failed while QEMU was alive.
    #[error(transparent)]
    Gdb(#[from] GdbError),
    /// A breakpoint in a guest that was started without.
    #[error("this guest was started without a debugger; a plan with breakpoints has one")]
    NoDebugger,
    /// The system refused something.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

pub(crate) fn system(doing: &'static str) -> impl Fn(std::io::Error) -> MachineError {
    move |source| MachineError::System { doing, source }
}

/// Where console bytes and events go, in the order in which they came.
pub trait Sink {
    /// Console bytes, as the guest wrote them. The event that announces them follows.
    fn console(&mut self, bytes: &[u8]);
    /// An event.
    fn event(&mut self, event: Event);
}

/// One running guest.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    argv: Vec<String>,
    version: String,
    qmp: QmpClient,
    debugger: Option<GdbClient>,
    stdin: ChildStdin,
    console: File,
    console_open: bool,
    console_offset: u64,
    console_ready_at: Instant,
    /// The debug console and the second serial port: init speaks on one of them, and a program that
    /// it runs may speak on the other.
    lines: [LineReader; 2],
    stderr: File,
    stderr_open: bool,
    stderr_tail: Vec<u8>,
    vcpu_threads: Vec<u32>,
    started: Instant,
    pauses: PauseWatch,
    stopped: bool,
    exited: bool,
}

impl Machine {
    /// Starts QEMU. `initramfs` is kept in memory only; it takes the place of `plan.initrd`.
    pub fn start(plan: &Plan, initramfs: Option<&[u8]>) -> Result<Machine, MachineError> {
        let mut plan = plan.clone();
        let memory_file = match initramfs {
            Some(bytes) => {
                let file = memory_file(bytes).map_err(system("put the initramfs into memory"))?;
                plan.initrd = Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into());
                Some(file)
            }
            None => None,
        };
        let (monitor, monitor_qemu) =
            UnixStream::pair().map_err(system("make a socket pair for QEMU's monitor"))?;
        let (console, console_qemu) = pipe().map_err(system("make a pipe for the console"))?;
        let (init, init_qemu) = pipe().map_err(system("make a pipe for init"))?;
        let (serial, serial_qemu) = pipe().map_err(system("make a pipe for the second port"))?;
        let (stderr, stderr_qemu) = pipe().map_err(system("make a pipe for QEMU's errors"))?;
        // Less room only makes the guest wait more often.
        let _ = rustix::pipe::fcntl_setpipe_size(&console_qemu, CONSOLE_PIPE);
        // QEMU must not stand still, deaf to its monitor, while the console is full.
        rustix::io::ioctl_fionbio(&console_qemu, true)
            .map_err(|e| system("set up the console's pipe")(e.into()))?;

        let debugger = match plan.breakpoints {
            true => {
                Some(UnixStream::pair().map_err(system("make a socket pair for QEMU's debugger"))?)
            }
            false => None,
        };
        let (debugger, debugger_qemu) = debugger.unzip();
        let channels = Channels {
            init: init_qemu.as_raw_fd(),
            serial: serial_qemu.as_raw_fd(),
            monitor: monitor_qemu.as_raw_fd(),
            debugger: debugger_qemu.as_ref().map(AsRawFd::as_raw_fd),
        };
        let argv = plan.argv(channels);
        let mut inherited: Vec<OwnedFd> = vec![init_qemu, serial_qemu, monitor_qemu.into()];
        inherited.extend(memory_file.map(OwnedFd::from));
        inherited.extend(debugger_qemu.map(OwnedFd::from));
        let started = Instant::now();
        let mut child = spawn(&argv, &inherited, console_qemu, stderr_qemu)
            .map_err(|source| start_error(&plan, source))?;
        drop(inherited);
        let stdin = child.stdin.take().ok_or_else(|| {
            system("reach QEMU's standard input")(std::io::ErrorKind::BrokenPipe.into())
        })?;

        let qmp = QmpClient::new(monitor).map_err(system("set up QEMU's monitor"))?;
        let debugger =
            debugger.map(GdbClient::new).transpose().map_err(system("set up QEMU's debugger"))?;
        let mut machine = Machine {
            child,
            argv,
            version: String::new(),
            qmp,
            debugger,
            stdin,
            console: console.into(),
            console_open: true,
            console_offset: 0,
            console_ready_at: started,
            lines: [LineReader::new(init), LineReader::new(serial)],
            stderr: stderr.into(),
            stderr_open: true,
            stderr_tail: Vec::new(),
            vcpu_threads: Vec::new(),
            started,
            pauses: PauseWatch::default(),
            stopped: false,
            exited: false,
        };
        match machine.qmp.handshake(GREETING_LIMIT) {
            Ok(version) => machine.version = version,
            Err(QmpError::Closed { .. }) => return Err(machine.early_end(&plan)),
            Err(other) => return Err(other.into()),
        }
        qemu::check_version(&plan.qemu, &machine.version)?;
        if let Some(debugger) = &mut machine.debugger {
            debugger.handshake(GREETING_LIMIT)?;
        }
        Ok(machine)
    }

    /// QEMU ended before it spoke: says why, in its own words.
    fn early_end(&mut self, plan: &Plan) -> MachineError {
        let _ = self.child.wait();
        self.exited = true;
        self.read_stderr();
        // An old QEMU ends on an option that it does not know.
        if let Ok(version) = qemu::version(&plan.qemu)
            && let Err(old) = qemu::check_version(&plan.qemu, &version)
        {
            return old.into();
        }
        QemuError::DidNotStart {
            path: plan.qemu.display().to_string(),
            stderr: String::from_utf8_lossy(&self.stderr_tail).trim().to_owned(),
        }
        .into()
    }

    /// Program and arguments as they were run.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// QEMU's version, for example `7.2.22`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// QEMU's debugger, where the plan has breakpoints.
    pub(crate) fn debugger(&mut self) -> Result<&mut GdbClient, MachineError> {
        self.debugger.as_mut().ok_or(MachineError::NoDebugger)
    }

    /// Milliseconds since QEMU was started.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When QEMU was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// QEMU has ended.
    pub fn has_exited(&self) -> bool {
        self.exited
    }

    /// The guest stands still: it reset itself or powered off, or was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Waits until something arrives or `until`, whichever is first, and hands it on.
    pub fn step(&mut self, until: Instant, sink: &mut dyn Sink) -> Result<(), MachineError> {
        let now = Instant::now();
        let read_console = self.console_open && now >= self.console_ready_at;
        let mut wake = until;
        if self.console_open && !read_console {
            wake = wake.min(self.console_ready_at);
        }
        let wait = match self.qmp.has_events() {
            true => Duration::ZERO,
            false => wake.saturating_duration_since(now),
        };
        let ready = self.poll(wait, read_console)?;
        if let Some(ms) = self.pauses.round(wait) {
            self.event(sink, EventKind::HostPaused { ms });
        }
        if ready.console {
            self.read_console(sink);
            self.console_ready_at = Instant::now() + CONSOLE_PERIOD;
        }
        for (index, ready) in ready.lines.into_iter().enumerate() {
            if ready {
                self.read_lines(index, sink);
            }
        }
        if ready.stderr {
            self.read_stderr();
        }
        if ready.monitor || self.qmp.has_events() {
            self.read_monitor(sink);
        }
        if self.qmp.is_closed() && !self.exited {
            self.reap(sink)?;
        }
        Ok(())
    }

    fn poll(&self, timeout: Duration, console: bool) -> Result<Ready, MachineError> {
        // poll(2) passes over what has no flags and no hang-up to report, so closed channels are
        // left out of the list instead.
        let mut fds = vec![PollFd::from_borrowed_fd(self.qmp.fd(), PollFlags::IN)];
        let mut slot_of = |file, wanted: bool| {
            wanted.then(|| {
                fds.push(PollFd::new(file, PollFlags::IN));
                fds.len() - 1
            })
        };
        let console = slot_of(&self.console, console);
        let [first, second] = &self.lines;
        let lines = [slot_of(&first.file, first.open), slot_of(&second.file, second.open)];
        let stderr = slot_of(&self.stderr, self.stderr_open);
        // Whoever waits for a stop looks at it then.
        if let Some(debugger) = self.debugger.as_ref().filter(|d| !d.is_closed()) {
            fds.push(PollFd::from_borrowed_fd(debugger.fd(), PollFlags::IN));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(system("wait for QEMU")(e.into())),
        }
        let is_ready = |slot: Option<usize>| slot.is_some_and(|i| !fds[i].revents().is_empty());
        Ok(Ready {
            monitor: is_ready(Some(0)),
            console: is_ready(console),
            lines: lines.map(is_ready),
            stderr: is_ready(stderr),
        })
    }

    fn event(&self, sink: &mut dyn Sink, kind: EventKind) {
        sink.event(Event { t: self.now_ms(), kind });
    }

    fn read_console(&mut self, sink: &mut dyn Sink) {
        let mut taken = 0;
        let mut chunk = [0u8; 64 << 10];
        while taken < MAX_READ {
            match read_some(&mut self.console, &mut chunk) {
                Got::Bytes(n) => {
                    sink.console(&chunk[..n]);
                    taken += n;
                }
                Got::Nothing => break,
                Got::End => {
                    self.console_open = false;
                    break;
                }
            }
        }
        if taken > 0 {
            let (offset, len) = (self.console_offset, taken as u64);
            self.console_offset += len;
            self.event(sink, EventKind::Console { offset, len });
        }
    }

    fn read_both(&mut self, sink: &mut dyn Sink) {
        for channel in 0..self.lines.len() {
            self.read_lines(channel, sink);
        }
    }

    fn read_lines(&mut self, channel: usize, sink: &mut dyn Sink) {
        for line in self.lines[channel].read() {
            self.event(sink, EventKind::Init { line });
        }
    }

    fn read_stderr(&mut self) {
        let mut taken = 0;
        let mut chunk = [0u8; 4 << 10];
        while taken < MAX_READ {
            match read_some(&mut self.stderr, &mut chunk) {
                Got::Bytes(n) => {
                    taken += n;
                    self.stderr_tail.extend_from_slice(&chunk[..n]);
                    let surplus = self.stderr_tail.len().saturating_sub(MAX_STDERR);
                    self.stderr_tail.drain(..surplus);
                }
                Got::Nothing => break,
                Got::End => {
                    self.stderr_open = false;
                    break;
                }
            }
        }
    }

    fn read_monitor(&mut self, sink: &mut dyn Sink) {
        let events = self.qmp.drain();
        if !events.is_empty() {
            // What the guest said before it reset or powered off counts as said before.
            self.read_console(sink);
            self.read_both(sink);
        }
        for event in events {
            // With `-action reboot=shutdown,shutdown=pause` QEMU stops the guest on both.
            self.stopped |= matches!(event, QemuEvent::Shutdown { .. });
            self.event(sink, EventKind::Qemu(event));
        }
    }

    /// Collects a QEMU that ended by itself, with everything that it still had to say.
    fn reap(&mut self, sink: &mut dyn Sink) -> Result<(), MachineError> {
        let status = self.child.wait().map_err(system("collect QEMU's exit status"))?;
        self.exited = true;
        self.read_console(sink);
        self.read_both(sink);
        self.read_stderr();
        let stderr = String::from_utf8_lossy(&self.stderr_tail).trim().to_owned();
        let (code, signal) = (status.code(), status.signal());
        self.event(sink, EventKind::QemuExited { code, signal, stderr });
        Ok(())
    }

    /// Looks at every virtual CPU. The guest stands still for the few milliseconds that it takes:
    /// a running TCG guest would show program counters that are out of date.
    pub fn sample(&mut self) -> Result<Vec<VcpuSample>, QmpError> {
        let running = !self.stopped;
        if running {
            self.qmp.command("stop", json!({}), COMMAND_LIMIT)?;
        }
        let samples = self.sample_stopped();
        if running {
            self.stopped = !self.qmp.run_on(COMMAND_LIMIT)?;
        }
        samples
    }

    /// Stops the virtual CPUs, for a long look at them through [`GuestView`]. The guest is over then:
    /// nothing starts it again.
    pub fn stand_still(&mut self) -> Result<(), QmpError> {
        if !self.stopped && !self.exited {
            self.qmp.command("stop", json!({}), COMMAND_LIMIT)?;
            self.stopped = true;
        }
        Ok(())
    }

    /// As [`Machine::stand_still`], but where each of the CPUs in `places` is at its address, if it comes to that within
    /// `tries` short runs: so a CPU in a loop is caught where it mostly is.
    pub fn stand_still_at(&mut self, places: &[(u32, u64)], tries: u32) -> Result<(), QmpError> {
        for _ in 0..tries {
            if self.stopped || self.exited || places.is_empty() {
                break;
            }
            self.qmp.command("stop", json!({}), COMMAND_LIMIT)?;
            let text = self.qmp.human("info registers -a", 0, COMMAND_LIMIT)?;
            let cpus = registers_x86::parse_registers(&text);
            let is_there = |(cpu, pc): &(u32, u64)| {
                cpus.iter().any(|c| c.cpu == *cpu && c.get("rip") == Some(*pc))
            };
            if places.iter().all(is_there) {
                self.stopped = true;
                break;
            }
            self.stopped = !self.qmp.run_on(COMMAND_LIMIT)?;
            std::thread::sleep(SHORT_RUN);
        }
        self.stand_still()
    }

    fn sample_stopped(&mut self) -> Result<Vec<VcpuSample>, QmpError> {
        if self.vcpu_threads.is_empty() {
            self.vcpu_threads = self.read_vcpu_threads()?;
        }
        let text = self.qmp.human("info registers -a", 0, COMMAND_LIMIT)?;
        let mut samples: Vec<VcpuSample> =
            registers_x86::parse_registers(&text).iter().map(registers_x86::sample_of).collect();
        let shared = self.vcpu_threads.len() > 1
            && self.vcpu_threads.iter().all(|t| *t == self.vcpu_threads[0]);
        for sample in &mut samples {
            let thread = self.vcpu_threads.get(sample.cpu as usize).copied();
            sample.ran_us = thread
                .and_then(|t| crate::host::thread_cpu_time_us(self.child.id(), t))
                // One thread takes turns among all of them: each had at least its even share if
                // it was runnable.
                .map(|us| if shared { us / self.vcpu_threads.len() as u64 } else { us });
            let command = format!("x /16xb {:#x}", sample.pc);
            if let Ok(text) = self.qmp.human(&command, sample.cpu, COMMAND_LIMIT) {
                sample.code =
                    registers_x86::parse_memory(&text).iter().map(|b| format!("{b:02x}")).collect();
            }
        }
        Ok(samples)
    }

    /// CPU time that this host gave to the threads of the virtual CPUs so far, in microseconds, and how
    /// many there are; none where the host does not tell.
    pub fn vcpu_time_us(&mut self) -> Option<(u64, u32)> {
        if self.vcpu_threads.is_empty() {
            self.vcpu_threads = self.read_vcpu_threads().ok()?;
        }
        let mut threads = self.vcpu_threads.clone();
        threads.sort_unstable();
        threads.dedup();
        let times = threads.iter().map(|t| crate::host::thread_cpu_time_us(self.child.id(), *t));
        let sum = times.sum::<Option<u64>>()?;
        Some((sum, threads.len() as u32)).filter(|(_, n)| *n > 0)
    }

    fn read_vcpu_threads(&mut self) -> Result<Vec<u32>, QmpError> {
        let reply = self.qmp.command("query-cpus-fast", json!({}), COMMAND_LIMIT)?;
        let threads = reply.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(threads
            .iter()
            .filter_map(|cpu| u32::try_from(cpu.get("thread-id")?.as_u64()?).ok())
            .collect())
    }

    /// Lets a guest that reset itself start over.
    pub fn start_over(&mut self) -> Result<(), QmpError> {
        self.qmp.command("system_reset", json!({}), COMMAND_LIMIT)?;
        self.qmp.command("cont", json!({}), COMMAND_LIMIT)?;
        self.stopped = false;
        Ok(())
    }

    /// A second handle on the guest's console input. The first stays open as long as the machine
    /// lives, so that the guest never sees the end of its input.
    pub fn take_console_input(&mut self) -> Result<File, MachineError> {
        let fd = self.stdin.as_fd().try_clone_to_owned();
        fd.map(File::from).map_err(system("reach the guest's console"))
    }

    /// Ends QEMU: asks first, then kills. What it still wrote reaches `sink`.
    pub fn end(&mut self, sink: &mut dyn Sink) -> Result<(), MachineError> {
        if self.exited {
            return Ok(());
        }
        // `quit` closes the monitor before its reply can be relied on.
        let _ = self.qmp.command("quit", json!({}), QUIT_LIMIT);
        let deadline = Instant::now() + QUIT_LIMIT;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(_)) | Err(_) => break,
            }
        }
        // Killing what has ended already is harmless: it has not been reaped yet, or try_wait
        // remembers.
        let _ = self.child.kill();
        self.reap(sink)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.exited {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl GuestView for Machine {
    fn vcpus(&self) -> u32 {
        self.vcpu_threads.len() as u32
    }

    fn registers(&mut self, cpu: u32) -> Result<VcpuRegisters, ReadError> {
        let gone = |e: QmpError| ReadError::Gone { address: 0, reason: e.to_string() };
        let text = self.qmp.human("info registers -a", cpu, COMMAND_LIMIT).map_err(gone)?;
        registers_x86::parse_registers(&text)
            .into_iter()
            .find(|r| r.cpu == cpu)
            .ok_or(ReadError::Unmapped { address: 0 })
    }

    fn read_memory(&mut self, cpu: u32, address: u64, into: &mut [u8]) -> Result<(), ReadError> {
        for (index, part) in into.chunks_mut(1024).enumerate() {
            let at = address.wrapping_add(index as u64 * 1024);
            let command = format!("x /{}xb {at:#x}", part.len());
            let text = self
                .qmp
                .human(&command, cpu, COMMAND_LIMIT)
                .map_err(|e| ReadError::Gone { address: at, reason: e.to_string() })?;
            let bytes = registers_x86::parse_memory(&text);
            if bytes.len() < part.len() {
                return Err(ReadError::Unmapped { address: at.wrapping_add(bytes.len() as u64) });
            }
            part.copy_from_slice(&bytes[..part.len()]);
        }
        Ok(())
    }
}

/// Whole lines out of a pipe.
#[derive(Debug)]
pub(crate) struct LineReader {
    pub(crate) file: File,
    pub(crate) open: bool,
    line: Vec<u8>,
}

impl LineReader {
    /// A reader of `pipe`, which must not block.
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        LineReader { file: pipe.into(), open: true, line: Vec::new() }
    }

    /// The lines that are complete by now, without their ends.
    pub(crate) fn read(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut taken = 0;
        let mut chunk = [0u8; 16 << 10];
        while taken < MAX_READ {
            match read_some(&mut self.file, &mut chunk) {
                Got::Bytes(n) => {
                    taken += n;
                    self.take(&chunk[..n], &mut lines);
                }
                Got::Nothing => break,
                Got::End => {
                    self.open = false;
                    break;
                }
            }
        }
        lines
    }

    fn take(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        for &byte in bytes {
            if byte == b'\n' {
                lines.push(String::from_utf8_lossy(&self.line).into_owned());
                self.line.clear();
            } else if self.line.len() < MAX_INIT_LINE {
                self.line.push(byte);
            }
        }
    }
}

struct Ready {
    monitor: bool,
    console: bool,
    lines: [bool; 2],
    stderr: bool,
}

enum Got {
    Bytes(usize),
    Nothing,
    End,
}

fn read_some(file: &mut File, into: &mut [u8]) -> Got {
    loop {
        match file.read(into) {
            Ok(0) => return Got::End,
            Ok(n) => return Got::Bytes(n),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Got::Nothing,
            Err(_) => return Got::End,
        }
    }
}

/// A pipe whose read end does not block. Both ends close on exec.
pub(crate) fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// A file without a name that holds `bytes`; it is gone with its last descriptor.
pub(crate) fn memory_file(bytes: &[u8]) -> std::io::Result<File> {
    let fd = rustix::fs::memfd_create("kolumbo-initramfs", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    Ok(file)
}

fn start_error(plan: &Plan, source: std::io::Error) -> MachineError {
    if source.kind() == std::io::ErrorKind::NotFound {
        return QemuError::Missing { program: plan.qemu.display().to_string() }.into();
    }
    system("start QEMU")(source)
}

#[allow(unsafe_code)] // pre_exec is the only way to run something between fork and exec.
pub(crate) fn spawn(
    argv: &[String],
    inherited: &[OwnedFd],
    console: OwnedFd,
    stderr: OwnedFd,
) -> std::io::Result<Child> {
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::from(console))
        .stderr(Stdio::from(stderr))
        // Ctrl-C at the terminal is for kolumbo, which then ends QEMU in order.
        .process_group(0);
    let keep: Vec<_> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe system calls are made; the descriptors
    // in `keep` are open, since `inherited` outlives the spawn.
    unsafe {
        command.pre_exec(move || {
            for &fd in &keep {
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above took effect.
            if rustix::process::getppid() != Some(parent) {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    command.spawn()
}
