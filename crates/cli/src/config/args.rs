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
    /// Find the smallest set of options that turns a good configuration into a bad one
    #[command(after_long_help = MINIMIZE_TEST)]
    Minimize(MinimizeArgs),
}

/// What the test is told, and what its exit codes mean, as it stands in the help.
const MINIMIZE_TEST: &str = "The test is started without a shell, with these variables:
  KOLUMBO_CONFIG  the configuration, made whole by make olddefconfig
  KOLUMBO_SOURCE  the kernel tree

Its exit code means what it means to 'git bisect run':
    0          good
    1 to 124   bad
    125        cannot tell: taken for good, and counted
    others     the search stops; what was tried is kept, and the same command goes on

Exit codes of kolumbo: 0 when there is an answer, 125 when not.
";

/// Arguments of `kolumbo config minimize`.
#[derive(Debug, Args)]
pub(crate) struct MinimizeArgs {
    /// The configuration that passes the test: whatever 'kolumbo config diff' takes
    #[arg(value_name = "GOOD", value_hint = ValueHint::AnyPath)]
    pub(crate) good: PathBuf,

    /// The one that does not
    #[arg(value_name = "BAD", value_hint = ValueHint::AnyPath)]
    pub(crate) bad: PathBuf,

    /// The kernel's source tree, whose Kconfig makes configurations whole; it is not written to
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,

    /// The test with its arguments, split into words as a shell does, and not expanded
    #[arg(
        long,
        value_name = "CMD",
        conflicts_with = "command",
        required_unless_present = "command"
    )]
    pub(crate) test: Option<String>,

    /// The compiler that Kconfig asks: what 'kolumbo build --toolchain' takes
    #[arg(long, default_value = "gcc", value_name = "NAME")]
    pub(crate) toolchain: String,

    /// Folder for journal, logs and result (default: one below the XDG cache folder, by what is asked)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,

    /// Print JSON and nothing else
    #[arg(long)]
    pub(crate) json: bool,

    /// The test as words: everything behind --
    #[arg(last = true, value_name = "CMD [ARGS]")]
    pub(crate) command: Vec<String>,
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
