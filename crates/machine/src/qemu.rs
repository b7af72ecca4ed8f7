//! Which QEMU, and with which arguments.
//!
//! [`Plan`] is the whole command line as data. [`Plan::argv`] is what kolumbo runs (sockets are
//! inherited descriptors, so nothing appears in the file system or on the network);
//! [`Plan::argv_to_paste`] is the same machine for a person: console on the terminal, no
//! descriptors.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kolumbo_case::Accel;

/// Oldest QEMU that has every option used here: `-action` came with 6.0.
pub const OLDEST_QEMU: (u32, u32) = (6, 0);
/// The program that runs x86-64 guests.
pub const QEMU_X86_64: &str = "qemu-system-x86_64";
/// I/O port of the channel that kolumbo's init writes to: QEMU's debug console at its usual place.
pub const INIT_CHANNEL_PORT: u16 = 0xe9;

/// Why no QEMU can be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QemuError {
    /// Not installed.
    #[error(
        "cannot find {program}; install it (Debian, Ubuntu: apt install qemu-system-x86; \
         Fedora: dnf install qemu-system-x86-core; Arch: pacman -S qemu-system-x86) \
         or name it with --qemu"
    )]
    Missing {
        /// What was looked for.
        program: String,
    },
    /// Installed and too old.
    #[error(
        "{path} is QEMU {found}, kolumbo needs {}.{} or newer", OLDEST_QEMU.0, OLDEST_QEMU.1
    )]
    TooOld {
        /// Path of the program.
        path: String,
        /// Its version.
        found: String,
    },
    /// It could not be run or does not say which version it is.
    #[error("cannot run '{path} --version': {reason}; is it a QEMU system emulator?")]
    Unusable {
        /// Path of the program.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// It did not come up.
    #[error("{path} ended before its guest ran: {stderr}")]
    DidNotStart {
        /// Path of the program.
        path: String,
        /// What it wrote on its standard error.
        stderr: String,
    },
}

/// Finds the QEMU to run: `given` as a path or a name in `$PATH`, else `qemu-system-x86_64`.
pub fn find(given: Option<&str>, search: Option<&OsStr>) -> Result<PathBuf, QemuError> {
    let program = given.unwrap_or(QEMU_X86_64);
    let missing = || QemuError::Missing { program: program.to_owned() };
    if program.contains('/') {
        let path = PathBuf::from(program);
        return if path.is_file() { Ok(path) } else { Err(missing()) };
    }
    std::env::split_paths(search.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin")))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or_else(missing)
}

/// Asks QEMU for its version. Costs one process start, so it is asked only when something failed
/// or before anything else has told.
pub fn version(path: &Path) -> Result<String, QemuError> {
    let unusable =
        |reason: String| QemuError::Unusable { path: path.display().to_string(), reason };
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| unusable(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .skip_while(|w| *w != "version")
        .nth(1)
        .map(str::to_owned)
        .ok_or_else(|| unusable("its output names no version".to_owned()))
}

/// Fails when `version` (as `major.minor...`) is older than [`OLDEST_QEMU`].
pub fn check_version(path: &Path, version: &str) -> Result<(), QemuError> {
    let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < OLDEST_QEMU {
        return Err(QemuError::TooOld {
            path: path.display().to_string(),
            found: version.to_owned(),
        });
    }
    Ok(())
}

/// A QEMU command line as data.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The program.
    pub qemu: PathBuf,
    /// Resolved accelerator; never [`Accel::Auto`].
    pub accel: Accel,
    /// CPU model, none for the accelerator's default.
    pub cpu: Option<String>,
    /// Machine type, none for `pc`.
    pub machine: Option<String>,
    /// Virtual CPUs.
    pub smp: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The kernel image.
    pub kernel: PathBuf,
    /// Path of the initramfs as QEMU will open it.
    pub initrd: Option<PathBuf>,
    /// The whole kernel command line.
    pub cmdline: String,
    /// A unix socket on which QEMU waits for gdb before the first instruction.
    pub gdb: Option<PathBuf>,
    /// kolumbo itself sets breakpoints: QEMU waits for it before the first instruction.
    pub breakpoints: bool,
    /// Further arguments, as given by the user.
    pub extra: Vec<String>,
}

/// The descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub struct Channels {
    /// Write end of a pipe: the debug console, the channel of kolumbo's init.
    pub init: RawFd,
    /// Write end of a pipe: the second serial port. Init speaks there where it has no debug console,
    /// and a program that init runs may always.
    pub serial: RawFd,
    /// One end of a socket pair: QMP.
    pub monitor: RawFd,
    /// One end of a socket pair: the debugger, where the plan has breakpoints.
    pub debugger: Option<RawFd>,
}

impl Plan {
    /// Program and arguments as kolumbo runs them.
    pub fn argv(&self, channels: Channels) -> Vec<String> {
        let mut argv = self.machine_arguments();
        let mut add = |args: &[&str]| argv.extend(args.iter().map(|a| (*a).to_owned()));
        // The console goes through pipes: a pipe merges the single bytes that a serial port writes,
        // a socket pair is full after some 300 of them.
        add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        add(&["-chardev", &format!("file,id=init,path=/proc/self/fd/{}", channels.init)]);
        add(&["-device", &format!("isa-debugcon,iobase={INIT_CHANNEL_PORT:#x},chardev=init")]);
        // A kernel without I/O port access for programs (CONFIG_X86_IOPL_IOPERM) leaves init the
        // second serial port.
        add(&["-chardev", &format!("file,id=serial,path=/proc/self/fd/{}", channels.serial)]);
        add(&["-serial", "chardev:serial"]);
        add(&["-chardev", &format!("socket,id=monitor,fd={}", channels.monitor)]);
        add(&["-mon", "chardev=monitor,mode=control"]);
        if let Some(debugger) = channels.debugger {
            add(&["-chardev", &format!("socket,id=debugger,fd={debugger}")]);
            add(&["-gdb", "chardev:debugger", "-S"]);
        }
        // The guest stands still, registers intact, when it resets or powers off: whether to go on
        // is decided outside.
        add(&["-action", "reboot=shutdown,shutdown=pause,panic=none"]);
        argv.extend(self.last_arguments());
        argv
    }

    /// The same machine for a person to run: console on the terminal, the channel of kolumbo's
    /// init on standard error, ends at a reset as at a power-off.
    pub fn argv_to_paste(&self) -> Vec<String> {
        let mut argv = self.machine_arguments();
        let mut add = |args: &[&str]| argv.extend(args.iter().map(|a| (*a).to_owned()));
        add(&["-serial", "stdio"]);
        add(&["-chardev", "file,id=init,path=/dev/stderr"]);
        add(&["-device", &format!("isa-debugcon,iobase={INIT_CHANNEL_PORT:#x},chardev=init")]);
        add(&["-chardev", "file,id=serial,path=/dev/stderr", "-serial", "chardev:serial"]);
        add(&["-no-reboot"]);
        argv.extend(self.last_arguments());
        argv
    }

    /// What stands last on both lines: the debugger, the sandbox, the user's own arguments.
    fn last_arguments(&self) -> Vec<String> {
        let mut argv = Vec::new();
        let mut add = |args: &[&str]| argv.extend(args.iter().map(|a| (*a).to_owned()));
        if let Some(socket) = &self.gdb {
            add(&["-S", "-gdb", &format!("unix:{},server=on,wait=off", socket.display())]);
        }
        add(&[
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]);
        argv.extend(self.extra.iter().cloned());
        argv
    }

    fn machine_arguments(&self) -> Vec<String> {
        let mut argv = vec![self.qemu.display().to_string()];
        let mut add = |args: &[&str]| argv.extend(args.iter().map(|a| (*a).to_owned()));
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]);
        add(&["-machine", self.machine.as_deref().unwrap_or("pc")]);
        add(&["-accel", self.accel.name()]);
        let default_cpu = if self.accel == Accel::Kvm { "host" } else { "max" };
        add(&["-cpu", self.cpu.as_deref().unwrap_or(default_cpu)]);
        add(&["-smp", &self.smp.to_string()]);
        add(&["-m", &format!("{}k", self.memory.div_ceil(1024))]);
        add(&["-kernel", &self.kernel.display().to_string()]);
        if let Some(initrd) = &self.initrd {
            add(&["-initrd", &initrd.display().to_string()]);
        }
        add(&["-append", &self.cmdline]);
        add(&["-device", "pvpanic"]);
        argv
    }
}

/// Quotes one argument for a POSIX shell.
pub fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            accel: Accel::Tcg,
            smp: 2,
            memory: 512 << 20,
            kernel: "/k/bzImage".into(),
            initrd: Some("/k/initrd".into()),
            cmdline: "console=ttyS0 quiet".into(),
            ..Plan::default()
        }
    }

    #[test]
    fn nothing_listens_on_the_network() {
        let argv = plan().argv(Channels { init: 6, serial: 9, monitor: 7, debugger: Some(8) });
        let all = argv.join(" ");
        assert!(!all.contains("tcp:") && !all.contains("port=") && !all.contains(" -s "));
        assert!(all.contains("-nic none"));
        for deny in ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"] {
            assert!(all.contains(&format!("{deny}=deny")), "{deny}");
        }
    }

    #[test]
    fn the_line_to_paste_has_no_descriptors_and_the_same_machine() {
        let argv = plan().argv_to_paste();
        assert!(!argv.iter().any(|a| a.contains("fd=")));
        assert_eq!(
            argv[..12],
            plan().argv(Channels { init: 6, serial: 9, monitor: 7, debugger: None })[..12]
        );
        let line: Vec<String> = argv.iter().map(|a| quote(a)).collect();
        assert!(line.join(" ").contains("-append 'console=ttyS0 quiet'"));
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn old_and_missing_programs_are_named() {
        let path = Path::new("/opt/qemu");
        assert!(check_version(path, "5.2.0").unwrap_err().to_string().contains("5.2.0"));
        assert!(check_version(path, "10.0.2").is_ok());
        let e = find(Some("no-such-qemu"), Some(OsStr::new("/bin"))).unwrap_err();
        assert!(e.to_string().contains("apt install qemu-system-x86"));
    }
}
