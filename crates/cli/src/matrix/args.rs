//! Arguments of `kolumbo matrix`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// Where boots are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorName {
    /// On this host.
    Local,
    /// As job arrays of Slurm, from a folder that every node sees.
    Slurm,
}

/// Arguments of `kolumbo matrix`.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// The matrix as TOML (docs/matrix.md). Without it and without --axis: kolumbo.toml here, then in
    /// the XDG configuration folders
    #[arg(value_name = "FILE.toml", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// An axis: NAME=VALUE,VALUE or NAME=LABEL:VALUE,LABEL:VALUE. Names that mean an option of
    /// 'kolumbo boot': kernel, smp, memory, append, cpu, machine, accel, initramfs, module, exec,
    /// timeout; any other name fills {NAME} in the other values. Replaces an axis of the file
    #[arg(long = "axis", value_name = "NAME=VALUES", allow_hyphen_values = true)]
    pub(crate) axes: Vec<String>,

    /// The kernel of every cell, unless an axis names it
    #[arg(short = 'k', long = "kernel-location", alias = "kernel", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) kernel: Option<PathBuf>,

    /// Virtual CPUs of every cell, unless an axis names them
    #[arg(short, long, alias = "cpus", value_name = "N")]
    pub(crate) smp: Option<String>,

    /// Memory of every cell (512m, 2G)
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,

    /// Longest time a run may take (90s, 3m)
    #[arg(short, long, value_name = "DUR")]
    pub(crate) timeout: Option<String>,

    /// Words for every kernel's command line; may be given more than once
    #[arg(long, alias = "kargs", value_name = "STR", allow_hyphen_values = true)]
    pub(crate) append: Vec<String>,

    /// Runs of each cell at most; they end early once the answer is sure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: Option<u32>,

    /// Believe a sickness that only one run of the whole table shows; without this such a run is booted once
    /// more, so that what strikes now and then is told from what strikes always
    #[arg(long)]
    pub(crate) no_confirm: bool,

    /// How sure an answer has to be before repeats end early, and the level of intervals
    #[arg(long, value_name = "LEVEL", value_parser = confidence)]
    pub(crate) confidence: Option<f64>,

    /// Guests at once; without it as many as CPUs and memory allow, a virtual CPU counting as a CPU
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,

    /// Boot further cells where the table leaves open what the condition is
    #[arg(long)]
    pub(crate) shrink: bool,

    /// A guest that booted with splats is healthy
    #[arg(long)]
    pub(crate) allow_splats: bool,

    /// A new folder for the matrix (default: one below the XDG state folder)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "resume")]
    pub(crate) out: Option<PathBuf>,

    /// Go on with the matrix in this folder; what is done is not run again
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) resume: Option<PathBuf>,

    /// Run nothing: print and write what the folder of --resume holds
    #[arg(long, requires = "resume")]
    pub(crate) show: bool,

    /// Where boots are run
    #[arg(long, value_enum, default_value_t = ExecutorName::Local, value_name = "NAME")]
    pub(crate) executor: ExecutorName,

    /// Further arguments for sbatch, split as a shell would
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) sbatch_opts: Option<String>,

    /// The QEMU to run, as a path or a name in $PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<String>,

    /// Further arguments for QEMU, split as a shell would
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) qemu_opts: Option<String>,

    /// Write JUnit XML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,

    /// Write KTAP
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ktap: Option<PathBuf>,

    /// Write KCIDB JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kcidb: Option<PathBuf>,

    /// Name of the CI system in the KCIDB report
    #[arg(long, value_name = "NAME", default_value = "kolumbo")]
    pub(crate) kcidb_origin: String,

    /// Write one self-contained HTML page
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,

    /// Print what went wrong as commands of GitHub's workflows
    #[arg(long)]
    pub(crate) github: bool,

    /// Print the matrix as JSON and nothing else
    #[arg(long, conflicts_with = "github")]
    pub(crate) json: bool,

    /// Print the sentences only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

fn confidence(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|level| (0.5..1.0).contains(level))
        .ok_or_else(|| format!("'{text}' is no level between 0.5 and 1, such as 0.95"))
}
