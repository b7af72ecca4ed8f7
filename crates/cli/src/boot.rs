//! `kolumbo boot`: from arguments to a request, and what is shown while it runs.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kolumbo_case::{Accel, BootSpec, CaseFile, HostSpec, VerdictKind};
use kolumbo_lab::boot::{self, BootError, Observer, Prepared, Request, Status};
use kolumbo_lab::folder::Folder;
use kolumbo_lab::inputs;
use kolumbo_lab::kernel::KernelError;
use kolumbo_machine::qemu;

use crate::args::BootArgs;
use crate::console_output::{Lines, Neutraliser};
use crate::exit::Outcome;
use crate::explain_case;

/// Ctrl-], which ends an interactive run as it ends telnet.
const END_KEY: u8 = 0x1d;

pub(crate) fn run(mut args: BootArgs) -> Result<Outcome> {
    if args.interactive && args.exec.is_empty() && args.initrd.is_none() {
        args.exec = vec!["busybox".to_owned(), "sh".to_owned()];
    }
    // Kept until the run is over: the socket for gdb lies in a folder that only we may enter.
    let private = args
        .gdb
        .then(|| tempfile::Builder::new().prefix("kolumbo-").tempdir())
        .transpose()
        .context("cannot make a private folder for gdb's socket")?;
    let gdb = private.as_ref().map(|dir| dir.path().join("gdb.sock"));
    let request = request(&args, gdb)?;
    if args.dry_run {
        return dry_run(&request);
    }
    let out = match &args.out {
        Some(dir) => dir.clone(),
        None => default_folder(&request.spec.kernel)?,
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("cannot listen for Ctrl-C")?;
    }
    let quiet = args.quiet || args.json;
    let mut screen = Screen::new(quiet, args.interactive, Arc::clone(&interrupted));
    if let Some(socket) = &request.gdb {
        screen.note(&format!(
            "waiting for gdb: gdb vmlinux -ex 'target remote {}'",
            socket.display()
        ));
    }
    let case = boot::boot(&request, &out, &interrupted, &mut screen);
    screen.finish();
    let mut case = match case {
        Err(error @ BootError::Contradiction { .. }) => {
            let _ = writeln!(std::io::stderr(), "kolumbo: {error}");
            return Ok(Outcome::Usage);
        }
        other => other?,
    };
    explain(&mut case, &out, &request.cache)?;

    let mut stdout = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &case)?;
        writeln!(stdout)?;
    } else if args.quiet {
        writeln!(stdout, "{}", coloured(&kolumbo_report::boot::verdict_line(&case), &case))?;
    } else {
        let report = kolumbo_report::boot::report(&case);
        stdout.write_all(coloured(&report, &case).as_bytes())?;
        stdout.flush()?;
        let _ = writeln!(std::io::stderr(), "case      {}", out.display());
    }
    Ok(Outcome::of(&case, args.allow_splats))
}

/// Adds to the case what a sick guest's dumps mean. The guest is over by now, so that no verdict waits
/// for this.
fn explain(case: &mut CaseFile, folder: &Path, cache: &Path) -> Result<()> {
    if case.outcome.as_ref().is_none_or(|v| v.verdict == VerdictKind::Booted) {
        return Ok(());
    }
    let console = Folder::read(folder)?.console().unwrap_or_default();
    case.explanation = explain_case::explanation(case, &console, cache);
    if case.explanation.is_some() {
        kolumbo_lab::folder::replace(folder, case)?;
    }
    Ok(())
}

/// Whether the environment has nothing against colours.
pub(crate) fn colours_are_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_some_and(|t| t != "dumb")
}

/// The report with its first word, the verdict, in colour where colours are welcome
/// (<https://no-color.org>).
fn coloured(report: &str, case: &CaseFile) -> String {
    let unwelcome = !colours_are_welcome();
    let (Some(verdict), false) = (&case.outcome, unwelcome) else { return report.to_owned() };
    if !std::io::stdout().is_terminal() {
        return report.to_owned();
    }
    let colour = match verdict.verdict {
        VerdictKind::Booted => 32,
        VerdictKind::BootedWithSplats | VerdictKind::Slow | VerdictKind::CannotTell => 33,
        _ => 31,
    };
    let name = verdict.verdict.name();
    let rest = report.strip_prefix(name).unwrap_or_default();
    format!("\x1b[1;{colour}m{name}\x1b[0m{rest}")
}

fn request(args: &BootArgs, gdb: Option<PathBuf>) -> Result<Request> {
    let kernel = args.path.as_ref().or(args.kernel.as_ref()).context("no kernel was named")?;
    let qemu_args = match &args.qemu_opts {
        Some(text) => match shlex::split(text) {
            Some(words) => words,
            None => bail!("cannot split --qemu-opts '{text}': a quote is not closed"),
        },
        None => Vec::new(),
    };
    let text = |path: &PathBuf| path.display().to_string();
    Ok(Request {
        spec: BootSpec {
            kernel: text(kernel),
            smp: args.smp,
            memory: args.memory,
            append: args.append.clone(),
            initrd: args.initrd.as_ref().map(text),
            modules: args.modules.clone(),
            exec: args.exec.clone(),
            cpu: args.cpu.clone(),
            machine: args.machine.clone(),
            accel: if args.no_kvm { Accel::Tcg } else { args.accel },
            // Whoever types or debugs is not hurried.
            timeout_ms: if args.gdb || args.interactive { 0 } else { args.timeout },
            engine: args.engine,
            host: args.host_kernel.as_ref().map(|kernel| HostSpec {
                kernel: text(kernel),
                smp: args.host_smp,
                memory: args.host_memory,
                append: args.host_append.clone(),
                modules: args.host_modules.clone(),
            }),
        },
        qemu: args.qemu.clone(),
        qemu_args,
        gdb,
        interactive: args.interactive,
        cache: cache_folder()?,
    })
}

/// Prints the command line. kolumbo's own initramfs is written into the cache folder under its
/// hash, since a pasted command needs a file.
fn dry_run(request: &Request) -> Result<Outcome> {
    let Prepared { mut plan, initramfs, accel_reason, .. } = match boot::prepare(request) {
        Err(BootError::Kernel(KernelError::NotBootable { path, reason })) => {
            bail!("{}: {reason}", path.display())
        }
        other => other?,
    };
    if let Some(bytes) = &initramfs {
        plan.initrd = Some(inputs::store_by_hash(&request.cache.join("initramfs"), bytes, "cpio")?);
    }
    let words: Vec<String> = plan.argv_to_paste().iter().map(|a| qemu::quote(a)).collect();
    let _ = writeln!(std::io::stderr(), "kolumbo: {} ({accel_reason})", plan.accel);
    writeln!(std::io::stdout(), "{}", words.join(" "))?;
    Ok(Outcome::Done)
}

pub(crate) fn cache_folder() -> Result<PathBuf> {
    xdg("XDG_CACHE_HOME", ".cache")
}

fn xdg(variable: &str, below_home: &str) -> Result<PathBuf> {
    let absolute = |v: std::ffi::OsString| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    let base = std::env::var_os(variable)
        .and_then(absolute)
        .or_else(|| Some(std::env::var_os("HOME").and_then(absolute)?.join(below_home)))
        .with_context(|| format!("neither {variable} nor HOME names a folder; set one"))?;
    Ok(base.join("kolumbo"))
}

/// A new folder below the state folder: time, what is booted, process.
fn default_folder(kernel: &str) -> Result<PathBuf> {
    let name = Path::new(kernel).file_name().unwrap_or_default().to_string_lossy();
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(60).collect();
    new_folder("cases", &name)
}

/// A new name below the state folder.
pub(crate) fn new_folder(kind: &str, name: &str) -> Result<PathBuf> {
    let time = inputs::rfc3339(SystemTime::now()).replace(':', "");
    let name = format!("{time}-{name}-{}", std::process::id());
    Ok(state_folder()?.join(kind).join(name))
}

pub(crate) fn state_folder() -> Result<PathBuf> {
    xdg("XDG_STATE_HOME", ".local/state")
}

/// What a person or a pipe gets to see while the guest runs.
struct Screen {
    quiet: bool,
    /// Someone types: bytes go through as they come.
    interactive: bool,
    lines: Lines,
    neutraliser: Neutraliser,
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
    terminal: Option<RawTerminal>,
}

impl Screen {
    fn new(quiet: bool, interactive: bool, interrupted: Arc<AtomicBool>) -> Screen {
        let live = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let target = if live && !quiet && !interactive {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        let terminal = interactive.then(RawTerminal::enter).flatten();
        Screen {
            quiet,
            interactive,
            lines: Lines::default(),
            neutraliser: Neutraliser::default(),
            bar,
            interrupted,
            terminal,
        }
    }

    fn print(&self, text: &[u8]) {
        if self.quiet || text.is_empty() {
            return;
        }
        // A reader that went away does not end the run: the case is still written.
        self.bar.suspend(|| {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(text).and_then(|()| out.flush());
        });
    }

    fn finish(&mut self) {
        let rest = self.lines.finish();
        self.print(rest.as_bytes());
        self.bar.finish_and_clear();
        self.terminal = None;
    }
}

impl Observer for Screen {
    fn console(&mut self, bytes: &[u8]) {
        if self.interactive {
            let text = self.neutraliser.feed(bytes);
            self.print(&text);
        } else {
            let text = self.lines.feed(bytes);
            self.print(text.as_bytes());
        }
    }

    fn status(&mut self, status: &Status) {
        let mut text = format!("{:.1} s  {}", status.elapsed.as_secs_f64(), status.phase);
        if status.quiet >= Duration::from_secs(1) {
            text.push_str(&format!("  silent for {:.1} s", status.quiet.as_secs_f64()));
            if !status.vcpus.is_empty() {
                text.push_str(&format!("  cpus {}", status.vcpus));
            }
        }
        self.bar.set_message(text);
        self.bar.tick();
    }

    fn console_input(&mut self, mut input: Box<dyn Write + Send>) {
        let interrupted = Arc::clone(&self.interrupted);
        // The thread ends with the process, or when the guest is gone.
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut byte = [0u8; 1];
            while let Ok(1) = stdin.read(&mut byte) {
                if byte[0] == END_KEY {
                    interrupted.store(true, Ordering::Relaxed);
                    return;
                }
                if input.write_all(&byte).is_err() {
                    return;
                }
            }
        });
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| {
                let _ = writeln!(std::io::stderr(), "kolumbo: {text}");
            });
        }
    }
}

/// The terminal in raw mode, until it is dropped.
struct RawTerminal {
    before: rustix::termios::Termios,
}

impl RawTerminal {
    fn enter() -> Option<RawTerminal> {
        let stdin = std::io::stdin();
        let before = rustix::termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // The guest's console ends its lines for a terminal that does not.
        raw.output_modes = before.output_modes;
        let when = rustix::termios::OptionalActions::Now;
        rustix::termios::tcsetattr(&stdin, when, &raw).ok()?;
        Some(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let when = rustix::termios::OptionalActions::Now;
        let _ = rustix::termios::tcsetattr(std::io::stdin(), when, &self.before);
    }
}
