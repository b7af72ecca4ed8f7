//! What answers on the guest's I/O ports.
//!
//! Two serial ports, the debug console of kolumbo's init, a clock that reads 0, and the ports by
//! which a guest resets, switches off or says that it panicked. Everything else reads as an empty
//! bus. Main type: [`Ports`].

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::EventFd;

/// First ports of the serial ports, with the interrupt of each.
pub(crate) const SERIAL_PORTS: [(u16, u32); 2] = [(0x3f8, 4), (0x2f8, 3)];
const SERIAL_SIZE: u16 = 8;
/// QEMU's `isa-debugcon` at its usual place, which reads back its number.
const DEBUGCON: u16 = 0xe9;
/// Index and data of the CMOS clock.
const CLOCK: std::ops::RangeInclusive<u16> = 0x70..=0x71;
/// Command port of the keyboard controller; 0xfe pulses the CPU's reset line. There is nothing else of
/// it: it reads as an empty bus, since a controller that is there and silent keeps Linux waiting for
/// seconds with interrupts off (`i8042_command` in drivers/input/serio/i8042.c).
const KEYBOARD: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;
/// Reset control register of Intel chipsets; bit 2 resets.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_CPU: u8 = 4;
/// QEMU's `isa-debug-exit` at its usual place; any write switches the guest off.
const DEBUG_EXIT: u16 = 0xf4;
/// QEMU's `pvpanic`; bit 0 says that the guest panicked (include/standard-headers/linux/pvpanic.h).
const PANIC: u16 = 0x505;
const PANICKED: u8 = 1;
/// What an empty bus reads as.
const NOTHING: u8 = 0xff;
/// Bytes that one serial port keeps until they are fetched; what is more is dropped.
const MOST_PENDING: usize = 1 << 20;

/// What a write to a port asks for, beyond the device itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing.
    GoOn,
    /// A reset.
    Reset,
    /// To be switched off.
    PowerOff,
    /// Nothing, but the guest said that it panicked.
    Panicked,
}

/// Raises an interrupt of the guest.
#[derive(Debug)]
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Bytes on their way out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Vec<u8>>>);

impl Outbox {
    /// Takes what has come since the last time.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, bytes: &[u8]) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST_PENDING.saturating_sub(pending.len()).min(bytes.len());
        pending.extend_from_slice(&bytes[..room]);
    }
}

impl Write for Outbox {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type SerialPort = Mutex<Serial<Line, NoEvents, Outbox>>;

/// Every port. Shared by the virtual CPUs.
pub(crate) struct Ports {
    serial: [SerialPort; 2],
    /// What the first serial port said.
    pub(crate) console: Outbox,
    /// What was said on the channel of kolumbo's init: debug console or second serial port.
    pub(crate) init: Outbox,
}

impl Ports {
    /// Devices whose serial ports raise `interrupts`, in the order of [`SERIAL_PORTS`].
    pub(crate) fn new(interrupts: [EventFd; 2]) -> Ports {
        let (console, init) = (Outbox::default(), Outbox::default());
        let [first, second] = interrupts;
        Ports {
            serial: [
                Mutex::new(Serial::new(Line(first), console.clone())),
                Mutex::new(Serial::new(Line(second), init.clone())),
            ],
            console,
            init,
        }
    }

    /// Writes `data` to `port`.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> Asked {
        let Some(&byte) = data.first() else { return Asked::GoOn };
        match port {
            DEBUGCON => self.init.push(data),
            KEYBOARD if byte == KEYBOARD_RESET => return Asked::Reset,
            RESET_CONTROL if byte & RESET_CPU != 0 => return Asked::Reset,
            DEBUG_EXIT => return Asked::PowerOff,
            PANIC if byte & PANICKED != 0 => return Asked::Panicked,
            _ => {
                if let Some((serial, offset)) = self.serial_at(port) {
                    let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                    for &byte in data {
                        // An interrupt that cannot be raised is one that the guest polls for.
                        let _ = serial.write(offset, byte);
                    }
                }
            }
        }
        Asked::GoOn
    }

    /// Fills `data` from `port`.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(NOTHING);
        let Some(byte) = data.first_mut() else { return };
        match port {
            DEBUGCON => *byte = DEBUGCON as u8,
            // No time: a clock that stands still at 0 is one that is never being updated.
            _ if CLOCK.contains(&port) => *byte = 0,
            PANIC => *byte = PANICKED,
            _ => {
                if let Some((serial, offset)) = self.serial_at(port) {
                    let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                    *byte = serial.read(offset);
                }
            }
        }
    }

    fn serial_at(&self, port: u16) -> Option<(&SerialPort, u8)> {
        SERIAL_PORTS.iter().zip(&self.serial).find_map(|(&(first, _), serial)| {
            let offset = port.checked_sub(first).filter(|&o| o < SERIAL_SIZE)?;
            Some((serial, offset as u8))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        Ports::new([EventFd::new(0).unwrap(), EventFd::new(0).unwrap()])
    }

    #[test]
    fn bytes_go_where_their_port_belongs() {
        let ports = ports();
        for &byte in b"hi" {
            assert_eq!(ports.write(0x3f8, &[byte]), Asked::GoOn);
        }
        ports.write(0x2f8, b"b");
        ports.write(0xe9, b"a");
        assert_eq!(ports.console.take(), b"hi");
        assert_eq!(ports.init.take(), b"ba");
        assert_eq!(ports.console.take(), b"");
    }

    #[test]
    fn ports_answer_as_documented() {
        let ports = ports();
        let read = |port| {
            let mut byte = [0];
            ports.read(port, &mut byte);
            byte[0]
        };
        assert_eq!((read(0xe9), read(0x71), read(0x64), read(0x80)), (0xe9, 0, 0xff, 0xff));
        assert_eq!(ports.write(0x64, &[0xfe]), Asked::Reset);
        assert_eq!(ports.write(0x64, &[0x20]), Asked::GoOn);
        assert_eq!(ports.write(0xcf9, &[6]), Asked::Reset);
        assert_eq!(ports.write(0xf4, &[0]), Asked::PowerOff);
        assert_eq!(ports.write(0x505, &[1]), Asked::Panicked);
        assert_eq!(ports.write(0x505, &[]), Asked::GoOn);
    }

    #[test]
    fn what_nobody_fetches_is_bounded() {
        let ports = ports();
        for _ in 0..100 {
            ports.write(0xe9, &[0; 1 << 16]);
        }
        assert_eq!(ports.init.take().len(), MOST_PENDING);
    }
}
