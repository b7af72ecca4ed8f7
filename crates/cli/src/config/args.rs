//! Arguments of `kolumbo config`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Arguments of `kolumbo config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// What to do with configurations.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what differs between two, what matters for boot first
    Diff(DiffArgs),
}

/// Arguments of `kolumbo config diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A .config (also packed with gzip, as /proc/config.gz is), a build folder, a folder with one
    /// boot/config-*, a case folder, or an image with CONFIG_IKCONFIG
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    pub(crate) old: PathBuf,

    /// The other one
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    pub(crate) new: PathBuf,

    /// The kernel's source tree: menus and prompts are taken from its Kconfig files, and changes that
    /// follow from others say so
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["plain", "merge"])]
    pub(crate) source: Option<PathBuf>,

    /// Print what the kernel's scripts/diffconfig prints
    #[arg(long)]
    pub(crate) plain: bool,

    /// Print what scripts/diffconfig -m prints: lines that merge_config.sh takes
    #[arg(long, conflicts_with = "plain")]
    pub(crate) merge: bool,

    /// Show options, too, that "is not set" on one side and are not asked on the other
    #[arg(long)]
    pub(crate) all: bool,

    /// Print JSON
    #[arg(long, conflicts_with_all = ["plain", "merge"])]
    pub(crate) json: bool,
}
