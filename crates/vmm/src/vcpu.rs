//! One virtual CPU: how it begins, how it runs, how it is looked at.
//!
//! Knows KVM and nothing of kernels. A signal that every thread of the monitor blocks, and that
//! KVM_RUN alone lets through, brings a CPU back; nothing is lost when it comes just before KVM_RUN.
//! Main function: [`look`].

use std::os::fd::AsRawFd;

use kolumbo_case::VcpuRegisters;
use kvm_bindings::{CpuId, KVM_MP_STATE_RUNNABLE, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::load::{GDT, Start};
use crate::words::Look;

/// The signal that brings a CPU back from KVM_RUN.
const WAKE: libc::c_int = libc::SIGUSR1;
/// Bytes of code before the instruction pointer: twice what the kernel's own dumps show
/// (`PROLOGUE_SIZE` in arch/x86/kernel/dumpstack.c is 42).
const BEFORE: u64 = 84;
/// Bytes from the instruction pointer on.
const BEHIND: u64 = 42;
const PAGE: u64 = 4096;

/// CR0: protected mode, and the bit that is always one.
const CR0_PROTECTED: u64 = 0x11;
/// RFLAGS: the bit that is always one.
pub(crate) const FLAGS_FIXED: u64 = 2;

fn check(result: libc::c_int) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Blocks the wake-up signal in the calling thread and in those that it will start.
pub(crate) fn block_wake_signal() -> std::io::Result<()> {
    // SAFETY: the set is initialised before it is used; the mask changed is this thread's own.
    let error = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, WAKE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(error)) }
}

/// Lets `vcpu` come back from KVM_RUN when the wake-up signal is pending.
pub(crate) fn wake_in_guest(vcpu: &VcpuFd) -> std::io::Result<()> {
    // struct kvm_signal_mask and KVM_SET_SIGNAL_MASK = _IOW(KVMIO, 0x8b, struct kvm_signal_mask),
    // include/uapi/linux/kvm.h. The kernel's signal set has 8 bytes.
    #[repr(C)]
    struct SignalMask {
        length: u32,
        set: [u8; 8],
    }
    const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;
    // All others are blocked while the guest runs: they are for the monitor's first thread.
    let mut blocked = u64::MAX;
    blocked &= !(1 << (WAKE - 1));
    let mask = SignalMask { length: 8, set: blocked.to_ne_bytes() };
    // SAFETY: the descriptor is a vCPU's and the structure is what this request reads.
    check(unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) })
}

/// Takes a wake-up that is pending for the calling thread.
pub(crate) fn take_wake_signal() {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set is initialised before it is used; no information about the signal is asked for.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, WAKE);
        libc::sigtimedwait(&set, std::ptr::null_mut(), &now);
    }
}

/// The calling thread, for [`wake`].
pub(crate) fn this_thread() -> libc::pid_t {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() }
}

/// Brings the CPU that runs on `thread` of this process back.
pub(crate) fn wake(thread: libc::pid_t) {
    // SAFETY: the call has no memory arguments; where the thread is gone it fails, which is as good.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, WAKE) };
}

/// CPU time that the calling thread has used, in microseconds.
fn used_us() -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is valid for writing.
    check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }).ok()?;
    Some(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000)
}

/// `supported` as CPU `cpu` is to see it: with its own APIC id, and as one of a hypervisor's CPUs.
pub(crate) fn cpuid_of(supported: &CpuId, cpu: u8) -> CpuId {
    /// CPUID.1:ECX, a hypervisor is present.
    const HYPERVISOR: u32 = 1 << 31;
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => {
                entry.ebx = entry.ebx & 0x00ff_ffff | u32::from(cpu) << 24;
                entry.ecx |= HYPERVISOR;
            }
            0xb | 0x1f => entry.edx = u32::from(cpu),
            0x8000_001e => entry.eax = u32::from(cpu),
            _ => {}
        }
    }
    cpuid
}

/// Flat 32-bit protected mode without paging, the state in which PVH and bzImage kernels begin.
pub(crate) fn enter_flat(vcpu: &VcpuFd, start: Start) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    flat_segments(&mut sregs);
    sregs.gdt = kvm_dtable { base: GDT, limit: 31, ..Default::default() };
    sregs.idt = kvm_dtable::default();
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: start.entry,
        rbx: if start.protocol == "pvh" { start.info } else { 0 },
        rsi: if start.protocol == "pvh" { 0 } else { start.info },
        rflags: FLAGS_FIXED,
        ..Default::default()
    })?;
    legacy_interrupts(vcpu)
}

pub(crate) fn flat_segments(sregs: &mut kvm_sregs) {
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x10,
        type_: 11,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: 0x18, type_: 3, ..code };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = CR0_PROTECTED;
    sregs.cr4 = 0;
    sregs.efer = 0;
}

/// What firmware leaves in the local APIC of the first CPU: the legacy interrupt controller on LINT0
/// and NMIs on LINT1.
fn legacy_interrupts(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    // Offsets and delivery modes: Intel SDM volume 3, chapter "Advanced Programmable Interrupt
    // Controller".
    const LINT0: usize = 0x350;
    const LINT1: usize = 0x360;
    const EXTERNAL: u32 = 7 << 8;
    const NMI: u32 = 4 << 8;
    let mut lapic = vcpu.get_lapic()?;
    for (register, value) in [(LINT0, EXTERNAL), (LINT1, NMI)] {
        for (byte, new) in lapic.regs[register..register + 4].iter_mut().zip(value.to_le_bytes()) {
            *byte = new as _;
        }
    }
    vcpu.set_lapic(&lapic)
}

/// Where CPU `cpu` stands. Called by the thread that runs it.
pub(crate) fn look(vcpu: &VcpuFd, cpu: u32, memory: &GuestMemoryMmap) -> Option<Look> {
    let (regs, sregs) = (vcpu.get_regs().ok()?, vcpu.get_sregs().ok()?);
    // A CPU that waits for its start is as halted as one that executed HLT.
    let halted = vcpu.get_mp_state().is_ok_and(|s| s.mp_state != KVM_MP_STATE_RUNNABLE);
    let linear = if sregs.cs.l == 1 { regs.rip } else { regs.rip.wrapping_add(sregs.cs.base) };
    let (code_at, bytes) = code_around(vcpu, memory, linear);
    Some(Look {
        registers: registers(cpu, halted, &regs, &sregs),
        ran_us: used_us(),
        code_at,
        code: bytes.iter().map(|b| format!("{b:02x}")).collect(),
    })
}

fn registers(cpu: u32, halted: bool, regs: &kvm_regs, sregs: &kvm_sregs) -> VcpuRegisters {
    let mut values: Vec<(&str, u64)> = vec![
        ("rax", regs.rax),
        ("rbx", regs.rbx),
        ("rcx", regs.rcx),
        ("rdx", regs.rdx),
        ("rsi", regs.rsi),
        ("rdi", regs.rdi),
        ("rbp", regs.rbp),
        ("rsp", regs.rsp),
        ("r8", regs.r8),
        ("r9", regs.r9),
        ("r10", regs.r10),
        ("r11", regs.r11),
        ("r12", regs.r12),
        ("r13", regs.r13),
        ("r14", regs.r14),
        ("r15", regs.r15),
        ("rip", regs.rip),
        ("rflags", regs.rflags),
        ("cpl", u64::from(sregs.ss.dpl)),
        ("cs", u64::from(sregs.cs.selector)),
        ("cs_base", sregs.cs.base),
        ("fs_base", sregs.fs.base),
        ("gs_base", sregs.gs.base),
        ("cr0", sregs.cr0),
        ("cr2", sregs.cr2),
        ("cr3", sregs.cr3),
        ("cr4", sregs.cr4),
        ("efer", sregs.efer),
    ];
    if sregs.cs.l == 1 {
        values.push(("long_mode", 1));
    }
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    VcpuRegisters { cpu, halted, values }
}

/// Address and bytes of the code around `pc`; a page that is not mapped ends it on its side.
fn code_around(vcpu: &VcpuFd, memory: &GuestMemoryMmap, pc: u64) -> (u64, Vec<u8>) {
    let page = pc & !(PAGE - 1);
    let Some(behind) = read_page(vcpu, memory, pc, BEHIND.min(PAGE - pc % PAGE)) else {
        return (pc, Vec::new());
    };
    let inside = BEFORE.min(pc - page);
    let mut bytes = read_page(vcpu, memory, pc - inside, inside).unwrap_or_default();
    let mut at = pc - bytes.len() as u64;
    // The rest lies in the pages before and behind.
    let missing = BEFORE - inside;
    if missing > 0
        && let Some(from) = page.checked_sub(missing)
        && let Some(before) = read_page(vcpu, memory, from, missing)
    {
        bytes = [before, bytes].concat();
        at = from;
    }
    let taken = behind.len() as u64;
    bytes.extend(behind);
    if taken < BEHIND {
        let next = page.wrapping_add(PAGE);
        bytes.extend(read_page(vcpu, memory, next, BEHIND - taken).unwrap_or_default());
    }
    (at, bytes)
}

/// `length` bytes at the virtual address `at`, which all lie in one page.
fn read_page(vcpu: &VcpuFd, memory: &GuestMemoryMmap, at: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    if bytes.is_empty() {
        return Some(bytes);
    }
    let place = vcpu.translate_gva(at).ok().filter(|t| t.valid != 0)?;
    memory.read_slice(&mut bytes, GuestAddress(place.physical_address)).ok()?;
    Some(bytes)
}
