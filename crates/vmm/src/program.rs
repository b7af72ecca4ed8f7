//! The program `kolumbo-vmm`: its arguments, where it speaks, how it ends.
//!
//! Everything that it has to say goes to one place as lines of [`words`](crate::words), what goes
//! wrong included. Main function: [`main`].

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::words::{Message, to_line};
use crate::{Monitor, Settings, flags, monitor};

/// The guest is over, or the flags are tested.
const DONE: u8 = 0;
/// The monitor could not do what was asked for.
const FAILED: u8 = 1;
/// The arguments make no sense.
const USAGE: u8 = 2;

const HELP: &str = "\
usage: kolumbo-vmm boot --kernel FILE [--initrd FILE] [--append WORDS] [--smp N]
                        [--memory BYTES] [--time-limit MS] [--out FILE]
       kolumbo-vmm flags [--time-limit MS] [--out FILE]
boot   runs a kernel on KVM and says what it does, a line of JSON a message
flags  compares the flags of emulated instructions with those of the CPU
";

/// How long the test of flags may take where nobody says so.
const FLAGS_LIMIT: Duration = Duration::from_secs(20);
const MEMORY: u64 = 256 << 20;

/// What the arguments ask for.
#[derive(Debug)]
enum Order {
    Boot(Settings),
    Flags(Duration),
    Help,
}

#[derive(Debug)]
struct Arguments {
    order: Order,
    /// Standard output where there is none.
    out: Option<String>,
}

/// Runs the program and gives its exit code.
pub fn main(arguments: impl IntoIterator<Item = String>) -> u8 {
    let arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(text) => {
            // Nobody is left to tell when this fails.
            let _ = std::io::stderr().write_all(format!("kolumbo-vmm: {text}\n{HELP}").as_bytes());
            return USAGE;
        }
    };
    let mut out = match open(arguments.out.as_deref()) {
        Ok(out) => out,
        Err(e) => {
            let name = arguments.out.unwrap_or_default();
            let text = format!("kolumbo-vmm: cannot write to {name}: {e}\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
            return FAILED;
        }
    };
    match obey(arguments.order, &mut *out) {
        Ok(()) => DONE,
        Err(e) => {
            let _ = out.write_all(monitor::trouble_line(&e).as_bytes());
            FAILED
        }
    }
}

fn obey(order: Order, out: &mut dyn Write) -> Result<(), monitor::MonitorError> {
    match order {
        Order::Boot(settings) => Monitor::new(settings)?.run(out).map(drop),
        Order::Flags(limit) => {
            let begun = Instant::now();
            let forms = flags::run(limit)?;
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let line = to_line(&Message::Flags { forms, ms });
            out.write_all(line.as_bytes()).map_err(monitor::system("say the results"))
        }
        Order::Help => out.write_all(HELP.as_bytes()).map_err(monitor::system("print the help")),
    }
}

fn open(name: Option<&str>) -> std::io::Result<Box<dyn Write>> {
    let Some(name) = name else { return Ok(Box::new(std::io::stdout())) };
    let file = OpenOptions::new().create(true).append(true).open(name)?;
    if file.is_terminal() {
        make_raw(file.as_raw_fd());
        return Ok(Box::new(Terminal(file)));
    }
    Ok(Box::new(file))
}

/// A serial port that others write to as well. What they left unfinished must not take a line of ours
/// with it, so that each begins with a line break; a write to a terminal is not interrupted by others.
struct Terminal(File);

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(&[b"\n", bytes].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A terminal shall pass bytes on as they are. One that cannot be set is used as it is: a reader
/// takes a carriage return before the end of a line.
fn make_raw(fd: i32) {
    // SAFETY: the descriptor is open and the structure is filled before it is used.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(fd, &mut settings) == 0 {
            libc::cfmakeraw(&mut settings);
            libc::tcsetattr(fd, libc::TCSANOW, &settings);
        }
    }
}

fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = arguments.into_iter();
    let order = arguments.next().unwrap_or_else(|| "--help".to_owned());
    let mut settings = Settings { smp: 1, memory: MEMORY, ..Settings::default() };
    let mut limit = None;
    let mut out = None;
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number =
            || value.parse::<u64>().map_err(|_| format!("{name} needs a number, not '{value}'"));
        match name.as_str() {
            "--out" => out = Some(value),
            "--time-limit" => limit = Some(Duration::from_millis(number()?)),
            "--kernel" => settings.kernel = value.into(),
            "--initrd" => settings.initrd = Some(value.into()),
            "--append" => settings.command_line = value,
            "--smp" => settings.smp = u32::try_from(number()?).unwrap_or(u32::MAX),
            "--memory" => settings.memory = number()?,
            _ => return Err(format!("unknown option '{name}'")),
        }
    }
    let order = match order.as_str() {
        "boot" if settings.kernel.as_os_str().is_empty() => {
            return Err("boot needs --kernel".to_owned());
        }
        "boot" => Order::Boot(Settings { time_limit: limit.unwrap_or_default(), ..settings }),
        "flags" => Order::Flags(limit.unwrap_or(FLAGS_LIMIT)),
        "help" | "--help" | "-h" => Order::Help,
        other => return Err(format!("unknown order '{other}'")),
    };
    Ok(Arguments { order, out })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_become_settings() {
        let line = "boot --kernel /k --smp 4 --memory 67108864 --time-limit 1500 --out /dev/x";
        let Ok(Arguments { order: Order::Boot(settings), out: Some(out) }) = parsed(line) else {
            panic!("not an order to boot")
        };
        assert_eq!((settings.smp, settings.memory, out.as_str()), (4, 64 << 20, "/dev/x"));
        assert_eq!(settings.time_limit, Duration::from_millis(1500));
        assert!(matches!(parsed("flags").unwrap().order, Order::Flags(FLAGS_LIMIT)));
        assert!(matches!(parsed("").unwrap().order, Order::Help));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (line, part) in [
            ("boot", "--kernel"),
            ("boot --kernel", "needs a value"),
            ("boot --kernel k --smp x", "needs a number"),
            ("boot --colour red", "--colour"),
            ("fly", "'fly'"),
        ] {
            let e = parsed(line).unwrap_err();
            assert!(e.contains(part), "{line}: {e}");
        }
    }
}
