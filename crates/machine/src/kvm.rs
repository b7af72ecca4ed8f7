//! Whether KVM is worth using here.
//!
//! A `/dev/kvm` that opens proves little: it may be emulated, a thousand times slower than QEMU's
//! translator, or QEMU may die on it. [`measure_speed`] times guest code in a VM of one page,
//! [`is_hardware`] judges the speed, and [`qemu_accepts`] lets QEMU itself set up a CPU. Nothing
//! here outlives the call: no process, no signal state.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kolumbo_case::Accel;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::still;

/// How long the measurement may take. One that is not done by then is cut off.
const MEASURE_LIMIT: Duration = Duration::from_millis(40);
/// How long a cut-off measurement may take to notice.
const CUT_LIMIT: Duration = Duration::from_millis(10);
/// A round of the loop counts as measured when it ran this long: the way into the guest and back,
/// some microseconds, then no longer matters.
const LONG_ENOUGH: Duration = Duration::from_millis(2);
/// How long QEMU may take to set up a machine of a few megabytes.
const QEMU_LIMIT: Duration = Duration::from_millis(1500);
/// Instructions a second from which on KVM is taken for hardware.
///
/// Hardware runs the loop at one round or more a cycle, thousands of millions of instructions a
/// second; QEMU's translator at hundreds of millions; a `/dev/kvm` that is emulated in software was
/// seen at 1.4 million. Bias: towards hardware; a host so loaded that a measurement gets a tenth of
/// a CPU still passes.
pub const HARDWARE_INSTRUCTIONS_PER_SECOND: f64 = 1e8;

/// How fast guest code ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvmSpeed {
    /// Instructions that the fastest round executed.
    pub instructions: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl KvmSpeed {
    /// Instructions a second.
    pub fn per_second(&self) -> f64 {
        self.instructions as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Why KVM cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvmError {
    /// The device cannot be opened.
    #[error("cannot open /dev/kvm: {reason}")]
    Open {
        /// What the system said.
        reason: String,
    },
    /// A VM of one page cannot be set up.
    #[error("/dev/kvm is there, but setting up a virtual machine failed at {step}: {reason}")]
    SetUp {
        /// Which step.
        step: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The guest did something else than to halt.
    #[error("/dev/kvm is there, but it ran a loop of two instructions wrong: {exit}")]
    Wrong {
        /// How KVM came back.
        exit: String,
    },
    /// It took too long.
    #[error("/dev/kvm is there, but a few thousand instructions took longer than {limit_ms} ms")]
    TooSlow {
        /// The limit.
        limit_ms: u64,
    },
    /// QEMU did not come up with it.
    #[error("{qemu} does not come up with -accel kvm -cpu {cpu}: {reason}")]
    Qemu {
        /// The program.
        qemu: String,
        /// CPU model.
        cpu: String,
        /// Its last words, or how it ended.
        reason: String,
    },
}

/// Whether such a speed comes from hardware.
pub fn is_hardware(speed: KvmSpeed) -> bool {
    speed.per_second() >= HARDWARE_INSTRUCTIONS_PER_SECOND
}

/// Times guest code. Returns within about 50 ms, whatever `/dev/kvm` does.
///
/// # Errors
/// When no guest code could be timed.
pub fn measure_speed() -> Result<KvmSpeed, KvmError> {
    let (say_thread, thread) = mpsc::channel();
    let (say_result, result) = mpsc::channel();
    let begun = Instant::now();
    let too_slow = KvmError::TooSlow { limit_ms: MEASURE_LIMIT.as_millis() as u64 };
    // Everything happens on a thread of its own: its signal mask and whatever signal is still
    // pending for it end with it, and when KVM never comes back the caller does.
    let spawned = std::thread::Builder::new().name("kvm-probe".into()).spawn(move || {
        let speed = block_wake_signal().and_then(|()| {
            // SAFETY: gettid has no preconditions.
            let _ = say_thread.send(unsafe { libc::gettid() });
            measure(begun + MEASURE_LIMIT)
        });
        let _ = say_result.send(speed);
    });
    if let Err(e) = spawned {
        return Err(KvmError::SetUp { step: "starting a thread", reason: e.to_string() });
    }
    if let Ok(speed) = result.recv_timeout(MEASURE_LIMIT) {
        return speed;
    }
    if let Ok(tid) = thread.try_recv() {
        // SAFETY: the thread belongs to this process and blocks the signal; when it is gone the
        // call fails. It only makes KVM_RUN come back, see `block_wake_signal`.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, WAKE) };
    }
    result.recv_timeout(CUT_LIMIT).unwrap_or(Err(too_slow))
}

/// The signal that makes KVM_RUN come back. No handler is installed: it is blocked in the one
/// thread that it is sent to, and KVM alone sees it.
const WAKE: libc::c_int = libc::SIGUSR1;

fn block_wake_signal() -> Result<(), KvmError> {
    // SAFETY: the set is initialised before it is used; the mask changed is this thread's own.
    let failed = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, WAKE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    match failed {
        0 => Ok(()),
        n => Err(KvmError::SetUp {
            step: "blocking a signal",
            reason: std::io::Error::from_raw_os_error(n).to_string(),
        }),
    }
}

/// Lets `vcpu` come back from KVM_RUN when [`WAKE`] is pending, although the thread blocks it.
fn wake_in_guest(vcpu: &VcpuFd) -> Result<(), KvmError> {
    // struct kvm_signal_mask and KVM_SET_SIGNAL_MASK = _IOW(KVMIO, 0x8b, struct kvm_signal_mask),
    // include/uapi/linux/kvm.h. The kernel's signal set has 8 bytes; empty means none is blocked.
    #[repr(C)]
    struct SignalMask {
        length: u32,
        set: [u8; 8],
    }
    const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;
    // Other signals stay as they are: only the wake-up may end the guest's run.
    // SAFETY: the set is initialised; with no new set the call only reads the mask.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::sigdelset(&mut set, WAKE);
        let mut first = [0u8; 8];
        std::ptr::copy_nonoverlapping((&raw const set).cast::<u8>(), first.as_mut_ptr(), 8);
        first
    };
    let mask = SignalMask { length: 8, set };
    // SAFETY: the descriptor is a vCPU's and the structure is what this request reads.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) };
    if result < 0 {
        let reason = std::io::Error::last_os_error().to_string();
        return Err(KvmError::SetUp { step: "setting its signal mask", reason });
    }
    Ok(())
}

/// The size of a page, of the guest's memory, and of its alignment.
const PAGE: usize = 4096;

#[repr(C, align(4096))]
struct GuestPage([u8; PAGE]);

/// `1: dec ecx; jnz 1b; hlt`, in 32-bit mode: two instructions a round.
const LOOP: [u8; 4] = [0x49, 0x75, 0xfd, 0xf4];
const INSTRUCTIONS_PER_ROUND: u64 = 2;
/// Rounds of the first run: about a millisecond where a million instructions a second are run.
const FIRST_ROUNDS: u32 = 1 << 10;

fn measure(deadline: Instant) -> Result<KvmSpeed, KvmError> {
    let failed =
        |step| move |e: kvm_ioctls::Error| KvmError::SetUp { step, reason: describe(e.errno()) };
    let kvm = Kvm::new().map_err(|e| KvmError::Open { reason: describe(e.errno()) })?;
    let vm: VmFd = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
    // Older Intel CPUs need three free pages for this and refuse to run without it.
    vm.set_tss_address(0xfffb_d000).map_err(failed("KVM_SET_TSS_ADDR"))?;
    let mut page = Box::new(GuestPage([0; PAGE]));
    page.0[..LOOP.len()].copy_from_slice(&LOOP);
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: PAGE as u64,
        userspace_addr: page.0.as_mut_ptr() as u64,
    };
    // SAFETY: the page outlives the VM and its vCPU, which are dropped before it (declared later
    // or moved into the call below), and nothing here touches it while the guest runs.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
    let speed = time_loop(&vm, deadline);
    drop(vm);
    drop(page);
    speed
}

fn time_loop(vm: &VmFd, deadline: Instant) -> Result<KvmSpeed, KvmError> {
    let failed =
        |step| move |e: kvm_ioctls::Error| KvmError::SetUp { step, reason: describe(e.errno()) };
    let mut vcpu = vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?;
    wake_in_guest(&vcpu)?;
    flat_protected_mode(&vcpu)?;
    let mut rounds = FIRST_ROUNDS;
    let mut best: Option<KvmSpeed> = None;
    loop {
        let mut regs = vcpu.get_regs().map_err(failed("KVM_GET_REGS"))?;
        regs.rip = 0;
        regs.rcx = u64::from(rounds);
        // Bit 1 of the flags is always set.
        regs.rflags = 2;
        vcpu.set_regs(&regs).map_err(failed("KVM_SET_REGS"))?;
        let begun = Instant::now();
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => {}
            Ok(exit) => return Err(KvmError::Wrong { exit: format!("{exit:?}") }),
            Err(e) if e.errno() == libc::EINTR => {
                // The wake-up: the time is over. What was measured so far counts.
                let limit_ms = MEASURE_LIMIT.as_millis() as u64;
                return best.ok_or(KvmError::TooSlow { limit_ms });
            }
            Err(e) => return Err(failed("KVM_RUN")(e)),
        }
        let elapsed = begun.elapsed();
        if vcpu.get_regs().map_err(failed("KVM_GET_REGS"))?.rcx != 0 {
            return Err(KvmError::Wrong { exit: "it halted in the middle of the loop".into() });
        }
        let speed = KvmSpeed { instructions: u64::from(rounds) * INSTRUCTIONS_PER_ROUND, elapsed };
        if best.is_none_or(|b| speed.per_second() > b.per_second()) {
            best = Some(speed);
        }
        let last = rounds.checked_mul(2).filter(|_| elapsed < LONG_ENOUGH);
        match (last, best) {
            // The next round takes twice as long as this one.
            (Some(next), _) if Instant::now() + elapsed * 2 < deadline => rounds = next,
            (_, Some(best)) => return Ok(best),
            (_, None) => {}
        }
    }
}

/// Flat 32-bit segments without paging: real mode is emulated on CPUs that are old enough.
fn flat_protected_mode(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let failed =
        |step| move |e: kvm_ioctls::Error| KvmError::SetUp { step, reason: describe(e.errno()) };
    let mut sregs = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    let mut flat = sregs.cs;
    flat.base = 0;
    flat.limit = u32::MAX;
    flat.selector = 8;
    (flat.type_, flat.present, flat.dpl, flat.db, flat.s, flat.l, flat.g) = (11, 1, 0, 1, 1, 0, 1);
    sregs.cs = flat;
    (flat.type_, flat.selector) = (3, 16);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (flat, flat, flat, flat, flat);
    const PROTECTED: u64 = 1;
    sregs.cr0 |= PROTECTED;
    vcpu.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))
}

fn describe(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// Lets QEMU set up a machine with KVM and one CPU of model `cpu`, without running it, and gives
/// how long that took. Takes at most some 1.5 s; on a working host, less than 0.1 s.
///
/// # Errors
/// When QEMU refuses, dies or does not answer; the reason holds its last words.
pub fn qemu_accepts(qemu: &Path, cpu: &str) -> Result<Duration, KvmError> {
    let begun = Instant::now();
    still::ask(qemu, Accel::Kvm, cpu, &[], QEMU_LIMIT).map_err(|reason| KvmError::Qemu {
        qemu: qemu.display().to_string(),
        cpu: cpu.to_owned(),
        reason,
    })?;
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(instructions: u64, ms: u64) -> KvmSpeed {
        KvmSpeed { instructions, elapsed: Duration::from_millis(ms) }
    }

    #[test]
    fn hardware_and_its_emulation_are_told_apart() {
        assert!(is_hardware(speed(8_000_000, 2)), "4,000 million a second: hardware");
        assert!(is_hardware(speed(800_000, 4)), "hardware on a busy host");
        assert!(!is_hardware(speed(5_600, 4)), "1.4 million a second: emulated in software");
        assert!(!is_hardware(speed(0, 0)));
    }

    /// Holds on every host: with hardware, with an emulated /dev/kvm, and with none.
    #[test]
    fn measuring_leaves_the_signal_state_as_it_was() {
        let before = signal_state();
        let result = measure_speed();
        assert_eq!(signal_state(), before);
        match result {
            Ok(speed) => assert!(speed.instructions > 0 && speed.per_second() > 0.0),
            Err(KvmError::Open { reason }) => assert!(!reason.is_empty()),
            Err(e) => assert!(Path::new("/dev/kvm").exists(), "{e}"),
        }
    }

    fn signal_state() -> Vec<String> {
        std::fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .filter(|l| ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"].contains(&&l[..6]))
            .map(str::to_owned)
            .collect()
    }

    /// A KVM_RUN that would last for minutes comes back when its thread is woken.
    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test must say why")]
    fn a_long_run_is_cut_off_without_a_handler() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: this host has no /dev/kvm that can be opened");
            return;
        };
        let vm = kvm.create_vm().unwrap();
        let mut page = Box::new(GuestPage([0; PAGE]));
        // `1: jmp 1b`
        page.0[..2].copy_from_slice(&[0xeb, 0xfe]);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: PAGE as u64,
            userspace_addr: page.0.as_mut_ptr() as u64,
        };
        // SAFETY: the page lives until the end of this function, the VM's thread is joined before.
        unsafe { vm.set_user_memory_region(region) }.unwrap();
        let (say, tid) = mpsc::channel();
        let guest = std::thread::spawn(move || {
            block_wake_signal().unwrap();
            // SAFETY: no preconditions.
            say.send(unsafe { libc::gettid() }).unwrap();
            time_loop(&vm, Instant::now() + Duration::from_secs(60))
        });
        let tid = tid.recv().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        // SAFETY: as in `measure_speed`.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, WAKE) };
        let result = guest.join().unwrap();
        assert!(matches!(result, Err(KvmError::TooSlow { .. })), "{result:?}");
        drop(page);
    }

    use crate::still::tests::fake_qemu;

    #[test]
    fn a_qemu_that_aborts_is_refused_with_its_last_words() {
        let (_folder, qemu) = fake_qemu(
            "echo 'warning: one' >&2; echo 'error: failed to set MSR 0x48b to 0x0' >&2; kill -6 $$",
        );
        let Err(KvmError::Qemu { reason, .. }) = qemu_accepts(&qemu, "host") else {
            panic!("accepted")
        };
        assert!(reason.starts_with("error: failed to set MSR 0x48b"), "{reason}");
        assert!(reason.contains("signal: 6"), "{reason}");
    }

    #[test]
    fn a_qemu_that_says_nothing_is_ended() {
        let (_folder, qemu) = fake_qemu("exec sleep 1000");
        let e = qemu_accepts(&qemu, "host").unwrap_err().to_string();
        assert!(e.contains("did not answer"), "{e}");
        // Neither does one count that ends well but is no QEMU, nor one that is not there.
        let (_folder, qemu) = fake_qemu("exit 0");
        assert!(qemu_accepts(&qemu, "host").is_err());
        assert!(qemu_accepts(Path::new("/nowhere/qemu"), "host").is_err());
    }
}
