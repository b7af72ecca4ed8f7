//! The end: report the taint, say so, and switch the machine off.
//!
//! Decides between power-off and restart. Never returns, whatever the kernel does.

use crate::line::Line;
use crate::sys::{self, RebootCommand};
use crate::{channel, facts, trouble, words};

/// How long the console may take to send what a program wrote last, and the channel what init said.
const PATIENCE_MS: u64 = 1000;
const CONSOLE: usize = 1;

pub fn power_off() -> ! {
    sys::drain_terminal(CONSOLE, PATIENCE_MS);
    let mut line = Line::new(words::END);
    line.number("up_ms", sys::uptime_ms());
    if let Some(taint) = facts::taint() {
        line.number("taint", taint);
    }
    line.say();

    let can_power_off = can_power_off();
    let mut line = Line::new(words::POWEROFF);
    line.number("up_ms", sys::uptime_ms());
    line.text("way", if can_power_off { b"power-off" } else { b"restart" });
    line.say();
    channel::drain(PATIENCE_MS);

    sys::sync();
    if can_power_off {
        trouble("powering off", sys::reboot(RebootCommand::PowerOff));
    }
    trouble("restarting", sys::reboot(RebootCommand::Restart));
    // PID 1 must not end: the kernel would panic, and that would look like the guest's fault.
    loop {
        sys::pause();
    }
}

/// Whether the kernel has a way to switch a PC off, which is ACPI. Without one it would take the
/// request as "halt" (`kernel/reboot.c`, since v2.6.14) and stand still for ever.
///
/// Bias: where neither /sys nor /proc can be had the answer is no, since a restart always ends.
fn can_power_off() -> bool {
    sys::exists(c"/sys/firmware/acpi/tables") || sys::exists(c"/proc/acpi")
}
