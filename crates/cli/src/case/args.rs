//! Arguments of `kolumbo case`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Exit codes, as they stand in the help.
pub(crate) const EXIT_CODES: &str = "Exit codes of 'kolumbo case run':
    0  Every cell is as expected, and every step of the proof holds.
    1  A cell or a step is not as expected, or a kernel could not be built.
    2  The command line or the case was not understood, or it does not fit this host or this source.
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
        /// A case that kolumbo brings along, a folder with a case.toml, or the folder of a run
        #[arg(value_name = "NAME|DIR", value_hint = ValueHint::DirPath)]
        name: String,
        /// Of a run, print run.json
        #[arg(long)]
        json: bool,
        /// Of a run, write the page into this file
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        html: Option<PathBuf>,
    },
    /// Build, boot, explain, check and prove; goes on where an earlier run was cut off
    #[command(after_long_help = EXIT_CODES)]
    Run(RunArgs),
    /// Make a folder with a case to start from
    New {
        /// The folder; it must not exist
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// Arguments of `kolumbo case run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A case that kolumbo brings along, or a folder with a case.toml
    #[arg(value_name = "NAME|DIR", value_hint = ValueHint::DirPath)]
    pub(crate) name: String,

    /// The kernel tree to build, in place of the one that the case names; it is not written to
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: Option<PathBuf>,

    /// Folder of the run (default: below the XDG state folder, the last run of this case if that was cut off,
    /// else a new one)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,

    /// Build the kernels, and boot nothing
    #[arg(long)]
    pub(crate) build_only: bool,

    /// Jobs of make (default: one for each CPU)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,

    /// The QEMU to run, as a path or a name in $PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<String>,

    /// Write the page into this file; it needs no network
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,

    /// Print run.json and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}
