//! Breakpoints in a running guest.
//!
//! The second half of [`Machine`]: what it can do when it was started with a debugger. Nothing is decided here
//! about what stands at a breakpoint. Main type: [`Halt`].

use std::time::{Duration, Instant};

use crate::gdb::GdbError;
use crate::live::{Machine, MachineError, Sink};

/// How long QEMU's debugger may take for one request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Why a guest does not run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// This CPU reached a breakpoint or made its step; all CPUs stand still.
    Break {
        /// The virtual CPU, from 0.
        cpu: u32,
    },
    /// The guest reset itself, powered off, or is gone.
    Ended,
    /// The time is over; the guest still runs.
    TimeIsUp,
}

impl Machine {
    /// Sets a breakpoint at a virtual address, on every CPU.
    pub fn set_breakpoint(&mut self, address: u64) -> Result<(), MachineError> {
        Ok(self.debugger()?.set_breakpoint(address, REQUEST_LIMIT)?)
    }

    /// Takes it away.
    pub fn clear_breakpoint(&mut self, address: u64) -> Result<(), MachineError> {
        Ok(self.debugger()?.clear_breakpoint(address, REQUEST_LIMIT)?)
    }

    /// Lets the guest run on until it stops, ends, or `until`.
    pub fn run_until(&mut self, until: Instant, sink: &mut dyn Sink) -> Result<Halt, MachineError> {
        self.debugger()?.go_on(REQUEST_LIMIT)?;
        self.halt(until, sink)
    }

    /// Lets one CPU run one instruction.
    pub fn step_cpu(
        &mut self,
        cpu: u32,
        until: Instant,
        sink: &mut dyn Sink,
    ) -> Result<Halt, MachineError> {
        self.debugger()?.step(cpu, REQUEST_LIMIT)?;
        self.halt(until, sink)
    }

    /// Waits on, for a guest that runs.
    pub fn wait_until(
        &mut self,
        until: Instant,
        sink: &mut dyn Sink,
    ) -> Result<Halt, MachineError> {
        self.halt(until, sink)
    }

    fn halt(&mut self, until: Instant, sink: &mut dyn Sink) -> Result<Halt, MachineError> {
        loop {
            match self.debugger()?.take_stop() {
                // A stop for another reason than a breakpoint is the end of the guest: nobody else
                // stops it.
                Ok(Some(stop)) if stop.is_trap() => {
                    return Ok(Halt::Break { cpu: stop.cpu.unwrap_or(0) });
                }
                Ok(Some(_)) | Err(GdbError::Closed { .. }) => return Ok(Halt::Ended),
                Ok(None) => {}
                Err(other) => return Err(other.into()),
            }
            if self.has_exited() || self.is_stopped() || self.debugger()?.is_closed() {
                return Ok(Halt::Ended);
            }
            if Instant::now() >= until {
                return Ok(Halt::TimeIsUp);
            }
            self.step(until, sink)?;
        }
    }
}
