//! Man pages and completions, out of the definition of the command line.

use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::Cli;
use crate::exit::Outcome;

/// Writes `kolumbo.1` and one page for each command.
pub(crate) fn write_pages(dir: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write man pages into {}", dir.display()))?;
    Ok(Outcome::Done)
}

/// Prints the completions for `shell`.
pub(crate) fn print_completions(shell: clap_complete::Shell) -> Result<Outcome> {
    clap_complete::generate(shell, &mut Cli::command(), "kolumbo", &mut std::io::stdout());
    Ok(Outcome::Done)
}
