//! `kolumbo matrix`: from arguments to a table of boots, and what is shown while it runs.

pub(crate) mod args;
mod details;
mod request;
pub(crate) mod screen;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use kolumbo_case::MatrixFile;
use kolumbo_case::matrix::Answer;
use kolumbo_lab::matrix::drive::{Matrix, MatrixError};
use kolumbo_lab::matrix::executor::{Executor, Local, Room};
use kolumbo_lab::matrix::slurm::Slurm;
use kolumbo_lab::matrix::summary::probes;
use kolumbo_report::matrix as report;
use kolumbo_report::matrix::text::Style;

use self::args::{ExecutorName, MatrixArgs};
use self::details::FolderDetails;
use self::screen::Screen;
use crate::boot::cache_folder;
use crate::exit::Outcome;

/// Further cells that are booted at once to settle what is open.
const PROBES: usize = 4;
/// Rounds of them: enough to bisect every gap that is asked about.
const ROUNDS: usize = 24;

pub(crate) fn run(args: &MatrixArgs) -> Result<Outcome> {
    let cache = cache_folder()?;
    let mut matrix = match open(args, &cache) {
        Ok(matrix) => matrix,
        Err(Opening::Usage(error)) => {
            let _ = writeln!(std::io::stderr(), "kolumbo: {error}");
            return Ok(Outcome::Usage);
        }
        Err(Opening::Failed(error)) => return Err(error),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut complete = true;
    if !args.show {
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("cannot listen for Ctrl-C")?;
        }
        let mut screen = Screen::new(args, &matrix);
        let result = drive(args, &mut matrix, &interrupted, &mut screen);
        screen.finish();
        match result {
            Ok(done) => complete = done,
            Err(error) => {
                say_how_to_go_on(args, matrix.dir());
                return Err(error);
            }
        }
    }
    let summary = matrix.summary()?;
    let details = FolderDetails::new(matrix.dir(), &summary, &cache);
    details.explain_bugs();
    write_reports(args, &summary, &details)?;
    print(args, &summary)?;
    if !complete {
        say_how_to_go_on(args, matrix.dir());
    } else if !args.json && !args.quiet {
        let _ = writeln!(std::io::stderr(), "matrix    {}", matrix.dir().display());
    }
    Ok(outcome(&summary))
}

/// Why there is no matrix to work on.
enum Opening {
    /// What was asked for makes no sense.
    Usage(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Opening {
    fn from(error: anyhow::Error) -> Self {
        Opening::Failed(error)
    }
}

impl From<MatrixError> for Opening {
    fn from(error: MatrixError) -> Self {
        match error {
            MatrixError::Plan(e) => Opening::Usage(e.to_string()),
            other => Opening::Failed(other.into()),
        }
    }
}

fn open(args: &MatrixArgs, cache: &Path) -> Result<Matrix, Opening> {
    let asked = match request::asked(args) {
        Ok(asked) => asked,
        Err(request::RequestError::Usage(text)) => return Err(Opening::Usage(text)),
        Err(request::RequestError::Failed(error)) => return Err(error.into()),
    };
    match (&args.resume, asked) {
        (Some(dir), asked) => {
            let mut matrix =
                if args.show { Matrix::look(dir, cache)? } else { Matrix::resume(dir, cache)? };
            if let Some(asked) = asked {
                matrix.must_be(&asked.request)?;
            }
            if let Some(repeat) = args.repeat {
                matrix.repeat(repeat)?;
            }
            Ok(matrix)
        }
        (None, Some(asked)) => {
            let dir = match &args.out {
                Some(dir) => dir.clone(),
                None => crate::boot::new_folder("matrices", "matrix")?,
            };
            Ok(Matrix::begin(&dir, asked.request, asked.options, cache)?)
        }
        (None, None) => Err(Opening::Usage(
            "no matrix was described; name a FILE.toml, give --axis, or go on with --resume DIR"
                .into(),
        )),
    }
}

fn drive(
    args: &MatrixArgs,
    matrix: &mut Matrix,
    interrupted: &AtomicBool,
    screen: &mut Screen,
) -> Result<bool> {
    for round in 0..=ROUNDS {
        let mut executor = executor(args, matrix)?;
        if !matrix.drive(executor.as_mut(), interrupted, screen)? {
            return Ok(false);
        }
        if !args.shrink || round == ROUNDS {
            break;
        }
        let open = probes(&matrix.summary()?, PROBES);
        if open.is_empty() {
            break;
        }
        for probe in &open {
            screen.say(&format!("booting {} to see {}", probe.labels.join("/"), probe.decides));
        }
        matrix.extend(&open)?;
    }
    Ok(true)
}

fn executor(args: &MatrixArgs, matrix: &Matrix) -> Result<Box<dyn Executor>> {
    match args.executor {
        ExecutorName::Local => {
            let room = args.jobs.map_or_else(Room::of_host, |n| Room::Guests(n as usize));
            Ok(Box::new(Local::new(room)))
        }
        ExecutorName::Slurm => {
            let further = match &args.sbatch_opts {
                Some(text) => shlex::split(text)
                    .with_context(|| format!("cannot split --sbatch-opts '{text}'"))?,
                None => Vec::new(),
            };
            let program = std::env::current_exe().context("cannot find the path of kolumbo")?;
            let dir = matrix.dir().join("slurm");
            Ok(Box::new(Slurm::new(&dir, &program, further, args.jobs)))
        }
    }
}

fn write_reports(
    args: &MatrixArgs,
    matrix: &MatrixFile,
    details: &FolderDetails<'_>,
) -> Result<()> {
    let write = |path: &Path, make: &dyn Fn(&mut dyn Write) -> std::io::Result<()>| -> Result<()> {
        let writing = || format!("cannot write {}", path.display());
        let mut out = BufWriter::new(File::create(path).with_context(writing)?);
        make(&mut out).and_then(|()| out.flush()).with_context(writing)
    };
    if let Some(path) = &args.junit {
        write(path, &|out| report::junit::write(matrix, out))?;
    }
    if let Some(path) = &args.ktap {
        write(path, &|out| report::ktap::write(matrix, out))?;
    }
    if let Some(path) = &args.kcidb {
        write(path, &|out| report::kcidb::write(matrix, &args.kcidb_origin, details, out))?;
    }
    if let Some(path) = &args.html {
        write(path, &|out| report::html::write(matrix, details, out))?;
    }
    Ok(())
}

fn print(args: &MatrixArgs, matrix: &MatrixFile) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, matrix)?;
        writeln!(out)?;
        return Ok(());
    }
    if args.github {
        report::github::commands(matrix, &mut out)?;
    }
    if args.quiet {
        if let Some(place) = &matrix.any_bug {
            writeln!(out, "anything fails: {}", report::visible(&place.sentence))?;
        }
        for bug in &matrix.bugs {
            writeln!(
                out,
                "{}: {}",
                report::visible(&bug.signature),
                report::visible(&bug.sentence)
            )?;
        }
        return Ok(());
    }
    let terminal = std::io::stdout().is_terminal();
    let style = Style {
        colour: terminal && crate::boot::colours_are_welcome(),
        width: screen::width().unwrap_or(100),
        unicode: screen::is_utf8(),
    };
    write!(out, "{}", report::text::table(matrix, style))?;
    Ok(())
}

fn say_how_to_go_on(args: &MatrixArgs, dir: &Path) {
    if !args.show {
        let dir = kolumbo_machine::qemu::quote(&dir.display().to_string());
        let _ = writeln!(std::io::stderr(), "kolumbo: go on with: kolumbo matrix --resume {dir}");
    }
}

/// A cell that is not as expected decides; without one, a cell that could not be judged.
fn outcome(matrix: &MatrixFile) -> Outcome {
    let unexpected = matrix.cells.iter().any(|c| c.as_expected == Some(false));
    let unknown = matrix.cells.iter().any(|c| matches!(c.answer, Answer::Pending | Answer::Error));
    match (unexpected, unknown) {
        (true, _) => Outcome::Unexpected,
        (false, true) => Outcome::Unknown,
        (false, false) => Outcome::Done,
    }
}
