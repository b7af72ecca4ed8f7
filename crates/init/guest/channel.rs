//! The way out: lines for kolumbo that never meet the console.
//!
//! Decides which device carries them: QEMU's debug console at I/O port 0xe9, by the port itself or
//! through /dev/port; else the second serial port, by its ports or through /dev/ttyS1; else none.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use crate::arch::{port_read, port_write};
use crate::sys::{self, Errno};
use crate::words::{DEBUGCON_PORT, SERIAL_PORT};

const NONE: u8 = 0;
const DEBUGCON: u8 = 1;
const DEBUGCON_FILE: u8 = 2;
const SERIAL: u8 = 3;
const SERIAL_FILE: u8 = 4;

// The panic handler writes too, so that the state cannot live in `start`.
static WAY: AtomicU8 = AtomicU8::new(NONE);
static FD: AtomicUsize = AtomicUsize::new(0);

/// Scratch and line status register of an 8250, from its first port.
const UART_LINE_STATUS: u16 = 5;
const UART_SCRATCH: u16 = 7;
const UART_PORTS: usize = 8;
/// The transmitter takes a byte (line status register).
const UART_READY: u8 = 0x20;
/// How often the status is read before a byte is written anyway: some hundred milliseconds.
const UART_PATIENCE: u32 = 100_000;

/// Opens the channel where it needs no file: by the debug console's port.
pub fn open_port() -> bool {
    // QEMU's isa-debugcon answers a read with its own port number; an empty bus with 0xff.
    let found = sys::allow_ports(DEBUGCON_PORT, 1)
        // SAFETY: the right was just granted.
        && u16::from(unsafe { port_read(DEBUGCON_PORT) }) == DEBUGCON_PORT;
    if found {
        WAY.store(DEBUGCON, Relaxed);
    }
    found
}

/// Opens the channel by any other way there is.
pub fn open_device() {
    if let Some(fd) = open_file(c"/dev/port", 1, 4, |p| sys::open_device(p)) {
        let mut byte = [0u8];
        if sys::read_at(fd, &mut byte, usize::from(DEBUGCON_PORT)) == Ok(1)
            && u16::from(byte[0]) == DEBUGCON_PORT
        {
            return set(DEBUGCON_FILE, fd);
        }
        sys::close(fd);
    }
    if sys::allow_ports(SERIAL_PORT, UART_PORTS) && serial_answers() {
        return set(SERIAL, 0);
    }
    if let Some(fd) = open_file(c"/dev/ttyS1", 4, 65, |p| sys::open_terminal(p)) {
        sys::make_raw(fd);
        // A port without a device behind it opens well and fails on the first write.
        if sys::write(fd, b"\n").is_ok() {
            return set(SERIAL_FILE, fd);
        }
        sys::close(fd);
    }
}

/// The way that was found, in words.
pub fn name() -> &'static str {
    match WAY.load(Relaxed) {
        DEBUGCON => "debugcon",
        DEBUGCON_FILE => "debugcon by /dev/port",
        SERIAL => "ttyS1 by port",
        SERIAL_FILE => "/dev/ttyS1",
        _ => "none",
    }
}

/// Writes bytes; where there is no channel they are lost.
pub fn write(bytes: &[u8]) {
    let fd = FD.load(Relaxed);
    match WAY.load(Relaxed) {
        DEBUGCON => {
            for &byte in bytes {
                // SAFETY: the way is set only after the port was granted.
                unsafe { port_write(DEBUGCON_PORT, byte) };
            }
        }
        DEBUGCON_FILE => {
            // Each byte of a longer write would go to the next port.
            for byte in bytes.chunks(1) {
                let _ = sys::write_at(fd, byte, usize::from(DEBUGCON_PORT));
            }
        }
        SERIAL => bytes.iter().for_each(|&byte| serial_write(byte)),
        SERIAL_FILE => write_all(fd, bytes),
        _ => {}
    }
}

/// Waits until everything has left, for `patience_ms` at most. A port takes a byte when it is written; a
/// terminal keeps what a reset would throw away.
pub fn drain(patience_ms: u64) {
    if WAY.load(Relaxed) == SERIAL_FILE {
        sys::drain_terminal(FD.load(Relaxed), patience_ms);
    }
}

fn set(way: u8, fd: usize) {
    FD.store(fd, Relaxed);
    WAY.store(way, Relaxed);
}

/// Opens a device file; a kernel without devtmpfs leaves making it to us.
fn open_file(
    path: &CStr,
    major: usize,
    minor: usize,
    open: impl Fn(&CStr) -> Result<usize, Errno>,
) -> Option<usize> {
    if !sys::exists(path) {
        let _ = sys::make_device(path, major, minor);
    }
    open(path).ok()
}

fn serial_answers() -> bool {
    const PROBE: u8 = 0x5a;
    let scratch = SERIAL_PORT + UART_SCRATCH;
    // SAFETY: the caller was granted all ports of the UART. The scratch register keeps what is
    // written and does nothing else.
    unsafe {
        let before = port_read(scratch);
        port_write(scratch, PROBE);
        let kept = port_read(scratch) == PROBE;
        port_write(scratch, before);
        kept
    }
}

fn serial_write(byte: u8) {
    // SAFETY: the way is set only after the ports were granted.
    unsafe {
        for _ in 0..UART_PATIENCE {
            if port_read(SERIAL_PORT + UART_LINE_STATUS) & UART_READY != 0 {
                break;
            }
        }
        port_write(SERIAL_PORT, byte);
    }
}

fn write_all(fd: usize, mut bytes: &[u8]) {
    const PATIENCE: u32 = 1000;
    let mut waits = 0;
    while !bytes.is_empty() && waits < PATIENCE {
        match sys::write(fd, bytes) {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            // The terminal's buffer is full.
            _ => {
                waits += 1;
                sys::sleep_ms(1);
            }
        }
    }
}
