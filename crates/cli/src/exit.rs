//! How a command ends: one table of exit codes, reached by one match.

use std::io::Write;
use std::process::ExitCode;

use kolumbo_case::verdict::{EXIT_CANNOT_TELL, EXIT_USAGE};
use kolumbo_case::{CaseFile, VerdictKind};

use crate::args::{Cli, Command};
use crate::{
    boot, build, case, check, config, explain, host, manual, matrix, prove, read, show, stack,
};

/// The guest booted, but what it was asked to do there failed.
const EXIT_JOB_FAILED: u8 = 1;

/// A check found broken contracts.
const EXIT_FINDINGS: u8 = 1;

/// A kernel could not be built.
const EXIT_BROKEN: u8 = 1;

/// A matrix has a cell that is not as expected.
const EXIT_UNEXPECTED: u8 = 1;

/// What a command came to.
pub(crate) enum Outcome {
    /// It did what it was asked to.
    Done,
    /// An image has broken contracts.
    Findings,
    /// A kernel could not be built, because of its source or its configuration.
    Broken,
    /// A cell of a matrix is not as expected.
    Unexpected,
    /// A cell of a matrix could not be judged.
    Unknown,
    /// It was asked for something that does not make sense.
    Usage,
    /// A guest was judged. `allow_splats` takes a boot with splats for a success.
    Judged { verdict: VerdictKind, jobs_failed: bool, allow_splats: bool },
}

impl Outcome {
    /// The outcome of a judged case.
    pub(crate) fn of(case: &CaseFile, allow_splats: bool) -> Outcome {
        let verdict = case.outcome.as_ref().map_or(VerdictKind::CannotTell, |v| v.verdict);
        Outcome::Judged { verdict, jobs_failed: case.jobs_failed, allow_splats }
    }

    fn code(&self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Findings => EXIT_FINDINGS,
            Outcome::Broken => EXIT_BROKEN,
            Outcome::Unexpected => EXIT_UNEXPECTED,
            Outcome::Unknown => EXIT_CANNOT_TELL,
            Outcome::Usage => EXIT_USAGE,
            Outcome::Judged { verdict, jobs_failed, allow_splats } => match verdict {
                VerdictKind::Booted if *jobs_failed => EXIT_JOB_FAILED,
                VerdictKind::BootedWithSplats if *allow_splats && *jobs_failed => EXIT_JOB_FAILED,
                VerdictKind::BootedWithSplats if *allow_splats => 0,
                other => other.exit_code(),
            },
        }
    }
}

/// Runs the command and turns what it came to into an exit code.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Boot(args) => boot::run(*args),
        Command::Check(args) => check::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Case(args) => case::run(&args),
        Command::Prove(args) => prove::run(&args),
        Command::Stack(args) => stack::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Matrix(args) => matrix::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Read(args) => read::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Host(args) => host::run(&args),
        Command::Manual { dir } => manual::write_pages(&dir),
        Command::Completions { shell } => manual::print_completions(shell),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "kolumbo: {}", one_line(&error));
            ExitCode::from(EXIT_CANNOT_TELL)
        }
    }
}

/// The error and what caused it, on one line, each said once.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whoever read our output went away (`kolumbo show | head`): that is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let code = |verdict, jobs_failed, allow_splats| {
            Outcome::Judged { verdict, jobs_failed, allow_splats }.code()
        };
        assert_eq!(code(VerdictKind::Booted, false, false), 0);
        assert_eq!(code(VerdictKind::Booted, true, false), 1);
        assert_eq!(code(VerdictKind::BootedWithSplats, false, false), 10);
        assert_eq!(code(VerdictKind::BootedWithSplats, false, true), 0);
        assert_eq!(code(VerdictKind::BootedWithSplats, true, true), 1);
        assert_eq!(code(VerdictKind::Panicked, true, true), 11);
        assert_eq!(code(VerdictKind::CannotTell, false, false), 125);
    }
}
