//! `kolumbo build`: from arguments to a kernel, and what is shown while it is built.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kolumbo_lab::inputs::rfc3339;
use kolumbo_source::build::toolchain::installed;
use kolumbo_source::build::{BuildError, Observer, Request, Step, build, read};

use crate::boot::cache_folder;
use crate::exit::Outcome;

/// Exit codes, as they stand in the help.
pub(crate) const EXIT_CODES: &str = "Exit codes:
    0  The kernel was built, or was there already.
    1  make failed; the first error is shown.
    2  The command line was not understood.
  125  There is no such toolchain, it does not suit the tree, or kolumbo itself failed.
";

/// Arguments of `kolumbo build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The top folder of a kernel tree; it is not written to
    #[arg(value_name = "SOURCE", value_hint = ValueHint::DirPath, required_unless_present = "list_toolchains")]
    pub(crate) source: Option<PathBuf>,

    /// The compiler: gcc-12, clang-14, a path of one, or a folder with one. With clang the LLVM tools of
    /// the same version are used where tree and host have them
    #[arg(long, default_value = "gcc", value_name = "NAME")]
    pub(crate) toolchain: String,

    /// A target of make (defconfig, tinyconfig), a .config, or what 'kolumbo config diff' takes;
    /// +FRAGMENT merges a file, +NAME=VALUE one option. In order; may be given more than once
    #[arg(long, value_name = "CONFIG", num_args = 1.., default_value = "defconfig")]
    pub(crate) config: Vec<String>,

    /// What make builds; may be given more than once
    #[arg(long, value_name = "TARGET", default_value = "bzImage")]
    pub(crate) target: Vec<String>,

    /// The build folder (default: one below the XDG cache folder, by what is built)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,

    /// Jobs of make (default: one for each CPU)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,

    /// Do not put ccache before the compiler
    #[arg(long)]
    pub(crate) no_ccache: bool,

    /// Print the compilers that are installed, and do nothing else
    #[arg(long)]
    pub(crate) list_toolchains: bool,

    /// Print build.json and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &BuildArgs) -> Result<Outcome> {
    let mut out = std::io::stdout().lock();
    let Some(source) = args.source.as_ref().filter(|_| !args.list_toolchains) else {
        for tool in installed() {
            let (name, path) = (&tool.name, tool.compiler.display());
            writeln!(out, "{name:<12} {:<10} {path}  {}", tool.version(), tool.version_text)?;
        }
        return Ok(Outcome::Done);
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let request = Request {
        source: source.clone(),
        toolchain: args.toolchain.clone(),
        config: args.config.clone(),
        edits: Vec::new(),
        targets: args.target.clone(),
        out: args.out.clone(),
        shared: false,
        cache: cache_folder()?,
        jobs: args.jobs.map_or(cpus, usize::from),
        ccache: !args.no_ccache,
        started: rfc3339(SystemTime::now()),
    };
    let mut screen = Screen::new(args.json);
    let result = build(&request, &mut screen);
    screen.bar.finish_and_clear();
    let (file, outcome) = match result {
        Ok(result) => (result.file, Outcome::Done),
        Err(BuildError::Failed { failure, log }) => {
            let _ =
                writeln!(std::io::stderr(), "kolumbo: the whole output is in {}", log.display());
            match log.parent().and_then(read) {
                Some(file) => (file, Outcome::Broken),
                None => {
                    write!(out, "{}", kolumbo_report::build::failure(&failure))?;
                    return Ok(Outcome::Broken);
                }
            }
        }
        Err(other) => return Err(other.into()),
    };
    if args.json {
        serde_json::to_writer_pretty(&mut out, &file)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", kolumbo_report::build::report(&file))?;
    }
    Ok(outcome)
}

/// A bar in a terminal, nothing elsewhere.
struct Screen {
    bar: ProgressBar,
}

impl Screen {
    fn new(quiet: bool) -> Screen {
        let target = if !quiet && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.enable_steady_tick(Duration::from_millis(250));
        Screen { bar }
    }
}

impl Observer for Screen {
    fn step(&mut self, step: Step<'_>) {
        // An estimate gives no time that could be believed.
        let template = if step.estimated {
            "{spinner} {pos} of about {len} [{wide_bar}] {msg}"
        } else {
            "{spinner} {pos}/{len} [{wide_bar}] {msg}, {eta} left"
        };
        if step.done == 1
            && let Ok(style) = ProgressStyle::with_template(template)
        {
            self.bar.set_style(style);
        }
        self.bar.set_length(u64::from(step.total));
        self.bar.set_position(u64::from(step.done));
        self.bar.set_message(format!(
            "{} {}",
            step.tool,
            kolumbo_report::matrix::visible(step.file)
        ));
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "kolumbo: {text}");
        });
    }
}
