//! Arguments of `kolumbo case`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Exit codes, as they stand in the help.
pub(crate) const EXIT_CODES: &str = "Exit codes of 'kolumbo case run':
    0  Every cell is as expected, and every step of the proof holds.
    1  A cell or a step is not as expected, or a kernel could not be built.
    2  The command line or the case was not understood, or an edit does not apply.
  125  A cell could not be judged, or kolumbo itself failed.
";

/// Arguments of `kolumbo case`.
#[derive(Debug, Args)]
pub(crate) struct CaseArgs {
    #[command(subcommand)]
    pub(crate) command: CaseCommand,
}

/// What to do with cases.
#[derive(Debug, Subcommand)]
pub(crate) enum CaseCommand {
    /// Name the cases that kolumbo brings along
    List,
    /// Say what a case builds, boots, expects and proves
    Show {
        /// A case that kolumbo brings along, or a folder with a case.toml
        #[arg(value_name = "NAME|DIR", value_hint = ValueHint::DirPath)]
        name: String,
    },
    /// Make a folder with a case to start from
    New {
        /// The folder; it must not exist
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}
