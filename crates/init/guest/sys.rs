//! System calls with types, and the few kernel interfaces that are files.
//!
//! Every function reports the kernel's error number and nothing else; nothing here judges.

use core::ffi::CStr;

use crate::arch::{nr, syscall};

/// A Linux error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    pub const NOT_FOUND: Errno = Errno(2);
    pub const INTERRUPTED: Errno = Errno(4);
    pub const TOO_BIG: Errno = Errno(7);
    pub const BUSY: Errno = Errno(16);
    pub const INVALID: Errno = Errno(22);
}

pub const O_RDONLY: usize = 0;
pub const O_RDWR: usize = 2;
const O_NOCTTY: usize = 0o400;
const O_NONBLOCK: usize = 0o4000;
const O_DIRECTORY: usize = 0o200_000;
const O_CLOEXEC: usize = 0o2_000_000;
const F_GETFD: usize = 1;

const S_IFCHR: usize = 0o020_000;

const CLOCK_MONOTONIC: usize = 1;
const CLOCK_BOOTTIME: usize = 7;

const SIG_BLOCK: usize = 0;
const SIG_UNBLOCK: usize = 1;
/// The set that holds SIGCHLD (17) alone, as the kernel's bit mask.
const SIGCHLD_SET: u64 = 1 << (17 - 1);
const WNOHANG: usize = 1;

const REBOOT_MAGIC1: usize = 0xfee1_dead;
const REBOOT_MAGIC2: usize = 0x2812_1969;

/// What the machine is to do at the end (`include/uapi/linux/reboot.h`).
#[derive(Clone, Copy)]
pub enum RebootCommand {
    PowerOff = 0x4321_fedc,
    Restart = 0x0123_4567,
}

#[repr(C)]
#[derive(Default)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

fn call(number: usize, a: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the functions below pass pointers to live objects with their lengths.
    let result = unsafe { syscall(number, a) };
    if (-4095..0).contains(&result) {
        Err(Errno(result.unsigned_abs() as u32))
    } else {
        Ok(result as usize)
    }
}

pub fn getpid() -> usize {
    call(nr::GETPID, [0; 6]).unwrap_or(0)
}

pub fn exit(code: i32) -> ! {
    loop {
        let _ = call(nr::EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]);
    }
}

/// Waits for a signal, for ever.
pub fn pause() {
    let _ = call(nr::PAUSE, [0; 6]);
}

/// Milliseconds since the kernel started its clock; time spent suspended counts.
pub fn uptime_ms() -> u64 {
    for clock in [CLOCK_BOOTTIME, CLOCK_MONOTONIC] {
        let mut now = Timespec::default();
        if call(nr::CLOCK_GETTIME, [clock, &raw mut now as usize, 0, 0, 0, 0]).is_ok() {
            return now.seconds as u64 * 1000 + now.nanoseconds as u64 / 1_000_000;
        }
    }
    0
}

pub fn sleep_ms(ms: u64) {
    let time = timespec(ms);
    let _ = call(nr::NANOSLEEP, [&raw const time as usize, 0, 0, 0, 0, 0]);
}

fn timespec(ms: u64) -> Timespec {
    Timespec { seconds: (ms / 1000) as i64, nanoseconds: (ms % 1000 * 1_000_000) as i64 }
}

// Files.

pub fn open(path: &CStr, flags: usize) -> Result<usize, Errno> {
    call(nr::OPEN, [path.as_ptr() as usize, flags, 0, 0, 0, 0])
}

/// Opens a terminal without waiting for a carrier and without making it our own.
pub fn open_terminal(path: &CStr) -> Result<usize, Errno> {
    open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)
}

pub fn open_device(path: &CStr) -> Result<usize, Errno> {
    open(path, O_RDWR | O_CLOEXEC)
}

pub fn close(fd: usize) {
    let _ = call(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
}

pub fn is_open(fd: usize) -> bool {
    call(nr::FCNTL, [fd, F_GETFD, 0, 0, 0, 0]).is_ok()
}

pub fn read(fd: usize, into: &mut [u8]) -> Result<usize, Errno> {
    call(nr::READ, [fd, into.as_mut_ptr() as usize, into.len(), 0, 0, 0])
}

pub fn write(fd: usize, bytes: &[u8]) -> Result<usize, Errno> {
    call(nr::WRITE, [fd, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
}

pub fn read_at(fd: usize, into: &mut [u8], offset: usize) -> Result<usize, Errno> {
    call(nr::PREAD, [fd, into.as_mut_ptr() as usize, into.len(), offset, 0, 0])
}

pub fn write_at(fd: usize, bytes: &[u8], offset: usize) -> Result<usize, Errno> {
    call(nr::PWRITE, [fd, bytes.as_ptr() as usize, bytes.len(), offset, 0, 0])
}

/// Reads until `into` is full or the file ends; gives the part that was filled.
pub fn read_to_end(fd: usize, into: &mut [u8]) -> Result<&[u8], Errno> {
    let mut length = 0;
    while length < into.len() {
        match read(fd, &mut into[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(Errno::INTERRUPTED) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(&into[..length])
}

/// The first bytes of a file, as many as `into` holds.
pub fn read_file<'a>(path: &CStr, into: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let fd = open(path, O_RDONLY | O_CLOEXEC)?;
    let result = read_to_end(fd, into);
    close(fd);
    result
}

pub fn exists(path: &CStr) -> bool {
    call(nr::ACCESS, [path.as_ptr() as usize, 0, 0, 0, 0, 0]).is_ok()
}

/// Calls `visit` with the name of each entry of a folder.
pub fn each_entry(path: &CStr, mut visit: impl FnMut(&CStr)) -> Result<(), Errno> {
    // struct linux_dirent64: inode and offset of 8 bytes each, record length of 2, type of 1, name.
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    let fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)?;
    let mut buffer = [0u8; 4096];
    let result = loop {
        let length =
            match call(nr::GETDENTS64, [fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0]) {
                Ok(0) => break Ok(()),
                Ok(n) => n,
                Err(e) => break Err(e),
            };
        let mut records = &buffer[..length];
        while let Some(size) = records.get(LENGTH_AT..LENGTH_AT + 2) {
            let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
            let Some(name) = records.get(NAME_AT..size) else {
                break;
            };
            if let Ok(name) = CStr::from_bytes_until_nul(name) {
                visit(name);
            }
            records = &records[size..];
        }
    };
    close(fd);
    result
}

pub fn mkdir(path: &CStr, mode: usize) -> Result<usize, Errno> {
    call(nr::MKDIR, [path.as_ptr() as usize, mode, 0, 0, 0, 0])
}

/// Makes a character device, readable and writable for root alone.
pub fn make_device(path: &CStr, major: usize, minor: usize) -> Result<usize, Errno> {
    call(nr::MKNOD, [path.as_ptr() as usize, S_IFCHR | 0o600, major << 8 | minor, 0, 0, 0])
}

pub fn mount(source: &CStr, target: &CStr, kind: &CStr) -> Result<usize, Errno> {
    call(
        nr::MOUNT,
        [source.as_ptr() as usize, target.as_ptr() as usize, kind.as_ptr() as usize, 0, 0, 0],
    )
}

// I/O ports.

pub fn allow_ports(first: u16, count: usize) -> bool {
    // ioperm is the narrow right; iopl is what older kernels without a full bitmap have.
    call(nr::IOPERM, [usize::from(first), count, 1, 0, 0, 0]).is_ok()
        || call(nr::IOPL, [3, 0, 0, 0, 0, 0]).is_ok()
}

/// Waits until a terminal has sent everything, which a reset would throw away. Asks instead of waiting in
/// the kernel (`tcdrain`): a sick serial port would keep init there for ever.
pub fn drain_terminal(fd: usize, patience_ms: u64) {
    for _ in 0..patience_ms {
        match bytes_to_send(fd) {
            Ok(1..) => sleep_ms(1),
            // Sent, or it is no terminal.
            Ok(0) | Err(_) => break,
        }
    }
}

/// Makes a terminal pass bytes on as they are.
pub fn make_raw(fd: usize) {
    const TCGETS: usize = 0x5401;
    const TCSETS: usize = 0x5402;
    const CS8_CREAD_CLOCAL_B115200: u32 = 0o60 | 0o200 | 0o4000 | 0o10002;
    // struct termios of the kernel: four flag words, the line discipline, 19 characters.
    let mut termios = [0u32; 9];
    if call(nr::IOCTL, [fd, TCGETS, &raw mut termios as usize, 0, 0, 0]).is_ok() {
        termios[0] = 0;
        termios[1] = 0;
        termios[2] = CS8_CREAD_CLOCAL_B115200;
        termios[3] = 0;
        let _ = call(nr::IOCTL, [fd, TCSETS, &raw const termios as usize, 0, 0, 0]);
    }
}

/// How many bytes a terminal has still to send.
fn bytes_to_send(fd: usize) -> Result<usize, Errno> {
    const TIOCOUTQ: usize = 0x5411;
    let mut bytes = 0i32;
    call(nr::IOCTL, [fd, TIOCOUTQ, &raw mut bytes as usize, 0, 0, 0])?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

// Processes.

/// The child sees `Ok(0)`, the parent the child's id.
pub fn fork() -> Result<usize, Errno> {
    call(nr::FORK, [0; 6])
}

pub fn new_session() {
    let _ = call(nr::SETSID, [0; 6]);
}

/// Both pointer lists end with a null pointer. Comes back only with an error.
pub fn execve(path: &CStr, arguments: &[*const u8], environment: &[*const u8]) -> Errno {
    match call(
        nr::EXECVE,
        [
            path.as_ptr() as usize,
            arguments.as_ptr() as usize,
            environment.as_ptr() as usize,
            0,
            0,
            0,
        ],
    ) {
        Err(e) => e,
        Ok(_) => Errno::INVALID,
    }
}

/// Blocks SIGCHLD, so that it waits to be taken by [`wait_for_child_signal`].
pub fn block_child_signal(block: bool) {
    let how = if block { SIG_BLOCK } else { SIG_UNBLOCK };
    let set = SIGCHLD_SET;
    let _ = call(nr::RT_SIGPROCMASK, [how, &raw const set as usize, 0, 8, 0, 0]);
}

/// Waits at most `ms` milliseconds for a child to end.
pub fn wait_for_child_signal(ms: u64) {
    let set = SIGCHLD_SET;
    let time = timespec(ms);
    let _ =
        call(nr::RT_SIGTIMEDWAIT, [&raw const set as usize, 0, &raw const time as usize, 8, 0, 0]);
}

/// A child that has ended, and its status as `wait4` gives it.
pub fn reap() -> Option<(usize, u32)> {
    let mut status = 0u32;
    match call(nr::WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0, 0, 0]) {
        Ok(pid) if pid != 0 => Some((pid, status)),
        _ => None,
    }
}

/// A pipe that programs do not inherit: its reading and its writing end.
pub fn pipe() -> Result<(usize, usize), Errno> {
    let mut ends = [0i32; 2];
    call(nr::PIPE2, [&raw mut ends as usize, O_CLOEXEC, 0, 0, 0, 0])?;
    Ok((ends[0] as usize, ends[1] as usize))
}

// The kernel.

/// Six fields of 65 bytes: system, host, release, version, machine, domain.
pub fn uname() -> Result<[[u8; 65]; 6], Errno> {
    let mut fields = [[0u8; 65]; 6];
    call(nr::UNAME, [&raw mut fields as usize, 0, 0, 0, 0, 0])?;
    Ok(fields)
}

/// How many CPUs this process may run on.
pub fn cpus_allowed() -> Result<u32, Errno> {
    let mut mask = [0u64; 128];
    let bytes =
        call(nr::SCHED_GETAFFINITY, [0, size_of_val(&mask), &raw mut mask as usize, 0, 0, 0])?;
    Ok(mask.iter().take(bytes / 8).map(|word| word.count_ones()).sum())
}

pub fn load_module(path: &CStr, parameters: &CStr) -> Result<(), Errno> {
    let fd = open(path, O_RDONLY | O_CLOEXEC)?;
    let result = call(nr::FINIT_MODULE, [fd, parameters.as_ptr() as usize, 0, 0, 0, 0]);
    close(fd);
    result.map(|_| ())
}

pub fn sync() {
    let _ = call(nr::SYNC, [0; 6]);
}

/// Comes back only when the kernel did not do it.
pub fn reboot(command: RebootCommand) -> Errno {
    match call(nr::REBOOT, [REBOOT_MAGIC1, REBOOT_MAGIC2, command as usize, 0, 0, 0]) {
        Err(e) => e,
        Ok(_) => Errno(0),
    }
}
