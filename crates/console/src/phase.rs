//! How far a boot has come, as told by its console.
//!
//! Decides which line proves which [`Phase`], which line says that init could not be started, and
//! which line says that the kernel left. One line is enough for each; [`PhaseTracker`] keeps the
//! furthest phase and tells user space from the kernel by what has no printk mark. It may not know
//! what was asked of the guest.

use kolumbo_case::{ConsoleRecord, Phase};

use crate::prefix::parse_prefix;

/// Message beginnings and what they prove. Sources: arch/x86/boot/compressed/misc.c, init/main.c,
/// kernel/smp.c, kernel/reboot.c; v4.4 to v6.18, both spellings where they changed.
static BEGINNINGS: &[(&str, Phase)] = &[
    ("Decompressing Linux", Phase::Decompressor),
    ("early console in extract_kernel", Phase::Decompressor),
    ("early console in decompress_kernel", Phase::Decompressor),
    ("early console in setup code", Phase::Decompressor),
    ("Probing EDD", Phase::Decompressor),
    ("Physical KASLR ", Phase::Decompressor),
    ("Virtual KASLR ", Phase::Decompressor),
    ("KASLR disabled: ", Phase::Decompressor),
    ("Booting the kernel", Phase::Decompressor),
    ("EFI stub: ", Phase::Decompressor),
    ("Linux version ", Phase::EarlyConsole),
    ("Booting Linux on ", Phase::EarlyConsole),
    ("Command line: ", Phase::EarlyConsole),
    ("Kernel command line: ", Phase::EarlyConsole),
    ("BIOS-provided physical RAM map", Phase::EarlyConsole),
    ("printk: bootconsole [", Phase::EarlyConsole),
    ("printk: legacy bootconsole [", Phase::EarlyConsole),
    ("bootconsole [", Phase::EarlyConsole),
    ("Memory: ", Phase::EarlyConsole),
    ("Calibrating delay loop", Phase::EarlyConsole),
    ("smp: Bringing up secondary CPUs", Phase::SmpBringUp),
    ("smpboot: x86: Booting SMP configuration", Phase::SmpBringUp),
    ("x86: Booting SMP configuration", Phase::SmpBringUp),
    (".... node ", Phase::SmpBringUp),
    ("smpboot: Booting Node ", Phase::SmpBringUp),
    ("smp: Brought up ", Phase::Initcalls),
    ("x86: Booted up ", Phase::Initcalls),
    ("SMP: Total of ", Phase::Initcalls),
    ("smpboot: Total of ", Phase::Initcalls),
    ("Brought up ", Phase::Initcalls),
    ("devtmpfs: initialized", Phase::Initcalls),
    ("NET: Registered ", Phase::Initcalls),
    ("PCI: Using configuration type ", Phase::Initcalls),
    ("clocksource: Switched to clocksource ", Phase::Initcalls),
    ("Trying to unpack rootfs image as initramfs", Phase::Initcalls),
    ("Unpacking initramfs", Phase::Initcalls),
    ("Freeing initrd memory", Phase::Initcalls),
    ("Freeing unused kernel ", Phase::Initcalls),
    ("Write protecting the kernel read-only data", Phase::Initcalls),
    ("VFS: Mounted root", Phase::Initcalls),
    ("Run /", Phase::Init),
    ("systemd[1]: ", Phase::Userspace),
    ("INIT: version ", Phase::Userspace),
];

/// How the kernel said that it leaves, or that it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shutdown {
    /// User space began to stop, or the kernel prepares devices for it.
    Requested,
    /// `reboot: Power down`: the next thing is the firmware's.
    PowerDown,
    /// `reboot: System halted`: nothing will follow.
    Halted,
    /// `reboot: Restarting system`.
    Restarting,
}

/// Sources: kernel/reboot.c, kernel/power/, drivers/tty/sysrq.c, kernel/kexec_core.c; busybox,
/// systemd and sysvinit for the requests.
static SHUTDOWNS: &[(&str, Shutdown)] = &[
    ("reboot: Power down", Shutdown::PowerDown),
    ("reboot: Power off not available", Shutdown::Halted),
    ("reboot: System halted", Shutdown::Halted),
    ("reboot: Restarting system", Shutdown::Restarting),
    ("reboot: machine restart", Shutdown::Restarting),
    ("reboot: Starting new kernel", Shutdown::Restarting),
    ("kexec_core: Starting new kernel", Shutdown::Restarting),
    ("Power down.", Shutdown::PowerDown),
    ("System halted.", Shutdown::Halted),
    ("Restarting system", Shutdown::Restarting),
    ("sysrq: Resetting", Shutdown::Restarting),
    ("sysrq: SysRq : Resetting", Shutdown::Restarting),
    ("sysrq: Power Off", Shutdown::Requested),
    ("sysrq: SysRq : Power Off", Shutdown::Requested),
    ("ACPI: PM: Preparing to enter system sleep state S5", Shutdown::Requested),
    ("ACPI: Preparing to enter system sleep state S5", Shutdown::Requested),
    ("Requesting system ", Shutdown::Requested),
    ("The system is going down NOW!", Shutdown::Requested),
    ("Sent SIGTERM to all processes", Shutdown::Requested),
    ("Sent SIGKILL to all processes", Shutdown::Requested),
    ("systemd-shutdown[1]: ", Shutdown::Requested),
    ("systemd[1]: Shutting down.", Shutdown::Requested),
    ("systemd[1]: Reached target Shutdown", Shutdown::Requested),
    ("systemd[1]: Reached target Power-Off", Shutdown::Requested),
    ("systemd[1]: Reached target Reboot", Shutdown::Requested),
];

/// Why the first user process could not be started or went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InitFailure {
    /// The root file system could not be found or mounted.
    NoRoot,
    /// No program to run as init exists, or none could be executed.
    NoInit,
    /// Init ended, by itself or by a signal.
    InitDied,
    /// The initramfs could not be unpacked; the boot goes on without it.
    BadInitramfs,
}

/// Texts anywhere in the message, since a panic wraps them. Sources: init/main.c,
/// init/do_mounts.c, init/initramfs.c, kernel/exit.c.
static INIT_FAILURES: &[(&str, InitFailure)] = &[
    ("VFS: Unable to mount root fs", InitFailure::NoRoot),
    ("VFS: Cannot open root device", InitFailure::NoRoot),
    ("Unable to mount root fs via ", InitFailure::NoRoot),
    ("No working init found", InitFailure::NoInit),
    ("Kernel panic - not syncing: No init found", InitFailure::NoInit),
    ("Kernel panic - not syncing: Requested init ", InitFailure::NoInit),
    ("Requested init ", InitFailure::NoInit),
    ("Failed to execute /", InitFailure::NoInit),
    ("Starting init: /", InitFailure::NoInit),
    ("Attempted to kill init!", InitFailure::InitDied),
    ("Attempted to kill the init task", InitFailure::InitDied),
    ("Initramfs unpacking failed", InitFailure::BadInitramfs),
];

/// The phase that `line` proves, with or without a printk prefix. A phase that needs more than one
/// line (user space that speaks in its own words) is [`PhaseTracker`]'s.
pub fn phase_of(line: &str) -> Option<Phase> {
    let message = message_of(line);
    if shutdown_in(message).is_some() {
        return Some(Phase::Shutdown);
    }
    let begun = BEGINNINGS.iter().find(|(text, _)| message.starts_with(text));
    begun.map(|&(_, phase)| phase)
}

/// How `line` says that the system goes down.
pub fn shutdown_of(line: &str) -> Option<Shutdown> {
    shutdown_in(message_of(line))
}

/// Why init could not be started, if that is what `line` says. A line that fails on one candidate
/// (`Failed to execute /init (error -2)`) is told too, although the kernel may try another one.
pub fn init_failure_of(line: &str) -> Option<InitFailure> {
    let found = INIT_FAILURES.iter().find(|(text, _)| line.contains(text));
    found.map(|&(_, why)| why)
}

fn shutdown_in(message: &str) -> Option<Shutdown> {
    SHUTDOWNS.iter().find(|(text, _)| message.starts_with(text)).map(|&(_, how)| how)
}

fn message_of(line: &str) -> &str {
    line[parse_prefix(line).len..].trim_start()
}

/// Keeps the furthest phase of one boot.
///
/// Biased towards the kernel: a line without a printk mark counts as user space only on a console
/// where the kernel marks its lines, and only after the kernel said that it runs init.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhaseTracker {
    reached: Phase,
    /// The kernel's lines carry a timestamp here.
    marked: bool,
}

impl PhaseTracker {
    /// A boot of which nothing was seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// The furthest phase for which there is proof.
    pub fn reached(&self) -> Phase {
        self.reached
    }

    /// Takes the next line; tells the new phase when it is further than all before.
    pub fn observe(&mut self, record: &ConsoleRecord) -> Option<Phase> {
        let by_printk = record.time.is_some() || record.caller.is_some() || record.level.is_some();
        self.marked |= record.time.is_some();
        let mut phase = phase_of(&record.text);
        let spoke = self.reached == Phase::Init && self.marked && !by_printk;
        if phase.is_none() && spoke && !record.continues && !record.message().trim().is_empty() {
            phase = Some(Phase::Userspace);
        }
        let phase = phase.filter(|&p| p > self.reached)?;
        self.reached = phase;
        Some(phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::LineReader;

    #[test]
    fn a_boot_passes_through_all_phases() {
        let log = "\x1bcSeaBIOS (version 1.16)\r\n\
            Decompressing Linux... Parsing ELF... done.\r\n\
            [    0.000000] Linux version 6.1.0 (a@b) (gcc 12) #1 SMP\r\n\
            [    0.100000] smp: Bringing up secondary CPUs ...\r\n\
            [    0.200000] smp: Brought up 1 node, 4 CPUs\r\n\
            [    1.000000] Run /init as init process\r\n\
            [    1.000001]   with arguments:\r\n\
            hello\r\n\
            [    2.000000] reboot: Power down\r\n";
        let mut seen = Vec::new();
        let mut tracker = PhaseTracker::new();
        LineReader::new().feed(log.as_bytes(), |r| seen.extend(tracker.observe(&r)));
        assert_eq!(seen, Phase::ALL[1..]);
    }

    #[test]
    fn lines_that_prove_nothing() {
        for line in ["", "[    0.1] ", "hello", "pci 0000:00:00.0: Memory: x", "Running tests"] {
            assert_eq!(phase_of(line), None, "{line}");
        }
    }

    #[test]
    fn endings() {
        for (line, how) in [
            ("[    2.0] reboot: Power down", None),
            ("[    2.000000] reboot: Power down", Some(Shutdown::PowerDown)),
            ("[    2.000000][    T1] reboot: System halted", Some(Shutdown::Halted)),
            ("reboot: Restarting system", Some(Shutdown::Restarting)),
            ("Requesting system poweroff", Some(Shutdown::Requested)),
            ("-- System halted", None),
        ] {
            assert_eq!(shutdown_of(line), how, "{line}");
        }
    }

    #[test]
    fn init_that_fails() {
        for (line, why) in [
            (
                "Kernel panic - not syncing: No working init found.  Try passing init=",
                InitFailure::NoInit,
            ),
            (
                "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
                InitFailure::NoRoot,
            ),
            (
                "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
                InitFailure::InitDied,
            ),
            ("Failed to execute /init (error -2)", InitFailure::NoInit),
            (
                "Initramfs unpacking failed: junk within compressed archive",
                InitFailure::BadInitramfs,
            ),
        ] {
            assert_eq!(init_failure_of(line), Some(why), "{line}");
        }
        assert_eq!(init_failure_of("Run /init as init process"), None);
    }
}
