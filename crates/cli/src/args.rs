//! The definition of the command line, from which help, man pages and completions are made.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use kolumbo_case::{Accel, Engine, VerdictKind};

use kolumbo_lab::size;

/// The detective for Linux kernels that do not boot.
#[derive(Debug, Parser)]
#[command(name = "kolumbo", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a kernel in QEMU and say what became of it
    #[command(after_long_help = verdict_table())]
    Boot(Box<BootArgs>),
    /// Check a vmlinux, modules or objects for broken register contracts: who relies on what, and who breaks it
    Check(Box<crate::check::CheckArgs>),
    /// Build a kernel out of its tree, reproducibly, and say what broke it
    #[command(after_long_help = crate::build::EXIT_CODES)]
    Build(Box<crate::build::BuildArgs>),
    /// Reproduce a kernel bug from the kernel's source: build, boot, explain, check, prove
    #[command(after_long_help = crate::case::args::EXIT_CODES)]
    Case(Box<crate::case::args::CaseArgs>),
    /// Say which patches of a stack a branch already holds, plan its rebase, write reverts
    Stack(crate::stack::StackArgs),
    /// Compare kernel configurations
    Config(crate::config::args::ConfigArgs),
    /// Boot a table of conditions in parallel and say the smallest condition under which it fails
    #[command(after_long_help = MATRIX_CODES)]
    Matrix(Box<crate::matrix::args::MatrixArgs>),
    /// Render a case folder again
    Show(ShowArgs),
    /// Read a console log, a dmesg, a journal or a mail: crashes, registers, stacks, boots
    Read(ReadArgs),
    /// Say whether the registers of a dump can follow from its code, and who is suspect if not
    Explain(Box<ExplainArgs>),
    /// See what was concluded happen: watch the calls that a finding names in the running guest, or whether
    /// a hypervisor emulates instructions as the CPU executes them
    #[command(after_long_help = crate::prove::EXIT_CODES)]
    Prove(Box<crate::prove::ProveArgs>),
    /// Say what this host can run guests with: whether KVM is real and QEMU takes it
    Host(HostArgs),
    /// Write the man pages into a folder
    #[command(hide = true)]
    Manual {
        /// The folder; it is made when it does not exist.
        dir: PathBuf,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Exit codes of `kolumbo matrix`, as they stand in its help.
const MATRIX_CODES: &str = "Exit codes:
    0  Every cell is as expected (healthy, where nothing else is).
    1  A cell is not as expected.
    2  The command line or the TOML file was not understood.
  125  A cell could not be judged, or kolumbo itself failed.
";

/// Arguments of `kolumbo boot`.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// What to boot: a bzImage, an ELF vmlinux, a kernel build folder, a tuxmake output folder, or
    /// a Debian linux-image package
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath, required_unless_present = "kernel")]
    pub(crate) path: Option<PathBuf>,

    /// The same as PATH, as boot-utils spells it
    #[arg(
        short = 'k',
        long = "kernel-location",
        alias = "kernel",
        value_name = "PATH",
        conflicts_with = "path",
        id = "kernel",
        value_hint = ValueHint::AnyPath
    )]
    pub(crate) kernel: Option<PathBuf>,

    /// Number of virtual CPUs
    #[arg(short, long, alias = "cpus", default_value_t = 1, value_name = "N")]
    pub(crate) smp: u32,

    /// Guest memory, in MiB or with a suffix (512m, 2G)
    #[arg(short, long, default_value = "1G", value_parser = size::parse_memory, value_name = "SIZE")]
    pub(crate) memory: u64,

    /// Longest time the whole run may take (90s, 3m, 1m30s; a bare number is seconds, 0 is for ever)
    #[arg(short, long, default_value = "3m", value_parser = size::parse_duration_ms, value_name = "DUR")]
    pub(crate) timeout: u64,

    /// Words for the kernel's command line; may be given more than once. Words that name a console
    /// replace kolumbo's own console words
    #[arg(long, alias = "kargs", value_name = "STR", allow_hyphen_values = true)]
    pub(crate) append: Vec<String>,

    /// An initramfs to use in place of kolumbo's own userspace
    #[arg(short = 'I', long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) initrd: Option<PathBuf>,

    /// A module that kolumbo's init loads; parameters may follow the file after a blank
    #[arg(long = "module", value_name = "FILE.ko", value_hint = ValueHint::FilePath)]
    pub(crate) modules: Vec<String>,

    /// A program of this host that kolumbo's init runs in the guest, with its arguments: everything
    /// behind --exec belongs to it, so it comes last
    #[arg(long, value_name = "PROGRAM [ARGS]", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) exec: Vec<String>,

    /// QEMU's CPU model (default: host with KVM, max with TCG)
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,

    /// QEMU's machine type (default: pc)
    #[arg(long, value_name = "TYPE")]
    pub(crate) machine: Option<String>,

    /// How guest code is run: auto, kvm, tcg, or tcg,thread=single. auto times KVM before it trusts it
    #[arg(long, default_value_t = Accel::Auto, value_name = "ACCEL")]
    pub(crate) accel: Accel,

    /// The same as --accel tcg
    #[arg(long, conflicts_with = "accel")]
    pub(crate) no_kvm: bool,

    /// The QEMU to run, as a path or a name in $PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<String>,

    /// Further arguments for QEMU, split as a shell would
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) qemu_opts: Option<String>,

    /// What runs the guest: qemu, or vmm, kolumbo's own monitor on KVM
    #[arg(long, default_value = "qemu", value_name = "NAME", conflicts_with_all = ["host_kernel", "gdb", "interactive", "dry_run", "qemu_opts", "cpu", "machine"])]
    pub(crate) engine: Engine,

    /// Run the guest inside another one: the kernel of that one, in which kolumbo's monitor runs the
    /// guest on KVM. --cpu, --machine and --accel are for this host (see docs/vmm.md)
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) host_kernel: Option<PathBuf>,

    /// Virtual CPUs of the host kernel
    #[arg(long, default_value_t = 1, value_name = "N", requires = "host_kernel")]
    pub(crate) host_smp: u32,

    /// Memory of the host kernel; the guest's is part of it
    #[arg(long, default_value = "1G", value_parser = size::parse_memory, value_name = "SIZE", requires = "host_kernel")]
    pub(crate) host_memory: u64,

    /// Words for the host kernel's command line; may be given more than once
    #[arg(long, value_name = "STR", allow_hyphen_values = true, requires = "host_kernel")]
    pub(crate) host_append: Vec<String>,

    /// A module that is loaded in the host kernel first, such as kvm.ko and kvm-amd.ko; may be given more
    /// than once
    #[arg(long = "host-module", value_name = "FILE.ko", value_hint = ValueHint::FilePath, requires = "host_kernel")]
    pub(crate) host_modules: Vec<String>,

    /// Stop before the first instruction and wait for gdb on a socket
    #[arg(short, long)]
    pub(crate) gdb: bool,

    /// Connect the terminal to the guest's console; Ctrl-] ends the run. Without --exec or --initrd
    /// the guest runs busybox' shell
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Print the QEMU command line that a person can paste, and do not run it
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Folder for the case (default: a new one below the XDG state folder)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,

    /// A guest that booted with splats counts as a success
    #[arg(long)]
    pub(crate) allow_splats: bool,

    /// Print the case as JSON and nothing else
    #[arg(long)]
    pub(crate) json: bool,

    /// Print the verdict line only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Arguments of `kolumbo show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A case folder, or the case.json in it
    #[arg(value_name = "CASE", value_hint = ValueHint::AnyPath)]
    pub(crate) case: PathBuf,
    /// Leave the console out
    #[arg(long)]
    pub(crate) no_console: bool,
    /// Print the case as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `kolumbo read`.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// A log, a mail (eml, mbox, the text of a web archive), `journalctl -k` in its short or JSON
    /// form, a case folder, or a folder of pstore (/sys/fs/pstore); - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) file: PathBuf,
    /// Only the first crash
    #[arg(long, conflicts_with = "all")]
    pub(crate) first: bool,
    /// Every crash in full, not only the first
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON (see docs/read-json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `kolumbo explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A console log, a dmesg, a mail with register dumps, a case folder or a folder of pstore; - is standard input
    #[arg(value_name = "LOG", value_hint = ValueHint::AnyPath)]
    pub(crate) log: PathBuf,
    /// The kernel that ran: a vmlinux (with debug information, source lines are shown) or a bzImage
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) vmlinux: Option<PathBuf>,
    /// The System.map of that kernel, for an image without symbols
    #[arg(long, value_name = "PATH", requires = "vmlinux", value_hint = ValueHint::FilePath)]
    pub(crate) system_map: Option<PathBuf>,
    /// A folder with the modules of that kernel (.ko, .ko.xz, .ko.zst), looked through in depth
    #[arg(long, value_name = "DIR", requires = "vmlinux", value_hint = ValueHint::DirPath)]
    pub(crate) module_dir: Option<PathBuf>,
    /// The kernel's source tree: its lines are shown between the instructions, and a mail is
    /// addressed to the maintainers
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: Option<PathBuf>,
    /// How instructions are written
    #[arg(long, value_enum, default_value_t = SyntaxName::Att, value_name = "NAME")]
    pub(crate) syntax: SyntaxName,
    /// Show every dump, and with an image the code of every frame
    #[arg(long)]
    pub(crate) all_frames: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "mail")]
    pub(crate) json: bool,
    /// Write the report as a mail to a kernel list
    #[arg(long)]
    pub(crate) mail: bool,
    /// The first bad commit or the range that holds it (v6.4..v6.5-rc1): the mail is then a
    /// regression report in regzbot's form
    #[arg(long, value_name = "COMMIT", conflicts_with = "json")]
    pub(crate) introduced: Option<String>,
    /// What was tried already, for the mail; may be given more than once
    #[arg(long, value_name = "TEXT")]
    pub(crate) tried: Vec<String>,
}

/// Names of the two ways to write x86 instructions.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum SyntaxName {
    /// As objdump and every kernel mail do.
    Att,
    /// As the processor manuals do.
    Intel,
}

/// Arguments of `kolumbo host`.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// The QEMU to ask, as a path or a name in $PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<String>,
    /// The CPU model to try with KVM
    #[arg(long, default_value = "host", value_name = "MODEL")]
    pub(crate) cpu: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Parses the process's arguments; ends the process with 2 when they are not understood.
pub(crate) fn parse() -> Cli {
    Cli::parse()
}

/// The verdicts with their exit codes, as they stand in the help and in the man page.
fn verdict_table() -> String {
    let mut text = "Verdicts and exit codes:\n".to_owned();
    for v in VerdictKind::ALL {
        text.push_str(&format!("  {:>3}  {:<18} {}\n", v.exit_code(), v.name(), v.meaning()));
    }
    text.push_str(
        "    1  (booted)           The guest booted, but a --module did not load or --exec failed.\n    \
         2  (usage)            The command line was not understood.\n\
         125 is also the exit code of every failure of kolumbo itself, so that 'git bisect run' skips.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_takes_the_rest() {
        let cli =
            Cli::parse_from(["kolumbo", "boot", "k", "-s", "2", "--exec", "/bin/x", "-a", "b"]);
        let Command::Boot(args) = cli.command else { panic!("not boot") };
        assert_eq!(args.exec, ["/bin/x", "-a", "b"]);
        assert_eq!(args.smp, 2);
    }

    #[test]
    fn the_kernel_may_be_named_in_either_way() {
        for words in [["-k", "x"], ["--kernel-location", "x"], ["--kernel", "x"]] {
            let cli = Cli::parse_from(["kolumbo", "boot"].into_iter().chain(words));
            let Command::Boot(args) = cli.command else { panic!("not boot") };
            assert_eq!(args.kernel, Some("x".into()));
        }
        assert!(Cli::try_parse_from(["kolumbo", "boot"]).is_err());
    }
}
