//! `kolumbo check`: images for broken register contracts, before anybody boots them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueHint};
use kolumbo_case::contract::{Finding, Report};
use kolumbo_contracts::{Declared, Image, Input, Machine, Options, Unused, check, explain_site};
use kolumbo_report::check_testcase::{Testcase, testcase};
use kolumbo_vmlinux::decompress::{Compression, decompress};
use kolumbo_vmlinux::dwarf::DebugSections;
use kolumbo_vmlinux::{Elf, Kernel, SymbolTable};

use crate::exit::Outcome;

/// Arguments of `kolumbo check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// vmlinux or bzImage, modules (.ko, .ko.xz, .ko.zst) and objects (.o) that are checked together; the vmlinux comes first
    #[arg(value_name = "IMAGE", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) images: Vec<PathBuf>,

    /// A TOML file of contracts beside those that kolumbo knows; may be given more than once
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) contracts: Vec<PathBuf>,

    /// Use what is inferred and the files of --contracts, not the contracts that kolumbo knows
    #[arg(long)]
    pub(crate) no_known_contracts: bool,

    /// Check what runs on one machine: a file with the flags line of /proc/cpuinfo, a console log, a case folder, or names between commas
    #[arg(long, value_name = "FILE|LIST")]
    pub(crate) features: Option<String>,

    /// Check what runs on a machine of this name: host (this one), x86-64-v2, skylake, zen2, EPYC-Milan and others
    #[arg(long, value_name = "NAME", conflicts_with = "features")]
    pub(crate) cpu: Option<String>,

    /// The kernel's command line: code that it switches off is not reported
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,

    /// Write a small test with a RUN line for FileCheck into this folder for each finding, ready for a compiler's test suite
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) testcase: Option<PathBuf>,

    /// Print every callee with an unusual contract and how many calls rely on it
    #[arg(long, conflicts_with_all = ["explain_site", "sarif"])]
    pub(crate) contracts_inferred: bool,

    /// Show the reasoning for one call
    #[arg(long, value_name = "FN+0xOFF", conflicts_with = "sarif")]
    pub(crate) explain_site: Option<String>,

    /// Report only what is not in this report of an earlier run (as --json wrote it)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) baseline: Option<PathBuf>,

    /// Print JSON and nothing else
    #[arg(long, conflicts_with = "sarif")]
    pub(crate) json: bool,

    /// Print SARIF 2.1.0 and nothing else
    #[arg(long)]
    pub(crate) sarif: bool,
}

/// The bytes of an image, mapped or unpacked, and the symbols that do not stand in it.
enum Bytes {
    Mapped(memmap2::Mmap),
    Unpacked(Vec<u8>),
    /// The kernel inside a bzImage, with its kallsyms.
    Kernel(Vec<u8>, SymbolTable),
}

impl Bytes {
    fn open(path: &Path) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let file = File::open(path).with_context(reading)?;
        // SAFETY: the file is only read; if somebody truncates it meanwhile, the program is killed by a signal, as any program
        // that maps files.
        let map = unsafe { memmap2::Mmap::map(&file) }.with_context(reading)?;
        if let Some(compression) = Compression::detect(&map) {
            return Ok(Self::Unpacked(decompress(compression, &map, None).with_context(reading)?));
        }
        if map.starts_with(b"\x7fELF") {
            return Ok(Self::Mapped(map));
        }
        let kernel = Kernel::open(&map).with_context(reading)?;
        let symbols = kernel.symbols(None);
        if symbols.table.is_empty() {
            bail!(
                "{} holds no symbols, so that no function can be told; give the vmlinux it was made from",
                path.display()
            );
        }
        Ok(Self::Kernel(kernel.vmlinux().to_vec(), symbols.table))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Unpacked(bytes) | Self::Kernel(bytes, _) => bytes,
        }
    }
}

pub(crate) fn run(args: &CheckArgs) -> Result<Outcome> {
    let files = args.images.iter().map(|path| Bytes::open(path)).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = args.images.iter().map(|path| path.display().to_string()).collect();
    let inputs: Vec<Input<'_>> =
        names.iter().zip(&files).map(|(name, file)| Input { name, bytes: file.bytes() }).collect();
    let mut image = Image::new(&inputs)?;
    for file in &files {
        if let Bytes::Kernel(_, symbols) = file {
            image.add_symbols(
                symbols
                    .iter()
                    .map(|symbol| (symbol.address, symbol.name, symbol.kind.is_ascii_uppercase())),
            );
        }
    }
    let options = options(args)?;
    let mut out = std::io::stdout().lock();
    if let Some(place) = &args.explain_site {
        let Some(site) = explain_site(&image, &options, place) else {
            bail!(
                "no call that can return is at {place}; name the call instruction, as in schedule+0x12"
            );
        };
        if args.json {
            serde_json::to_writer_pretty(&mut out, &site)?;
            writeln!(out)?;
        } else {
            write!(out, "{}", kolumbo_report::check::site(&site))?;
        }
        return Ok(Outcome::Done);
    }
    let mut report = check(&image, &options);
    if let Some(path) = &args.baseline {
        drop_known(&mut report, path)?;
    }
    name_lines(&mut report, &names, &files);
    if let Some(folder) = &args.testcase {
        write_testcases(&report, folder)?;
    }
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else if args.sarif {
        serde_json::to_writer_pretty(&mut out, &kolumbo_report::check_sarif::sarif(&report))?;
        writeln!(out)?;
    } else if args.contracts_inferred {
        write!(out, "{}", kolumbo_report::check::inferred(&report.inferred))?;
    } else {
        write!(out, "{}", kolumbo_report::check::report(&report))?;
    }
    Ok(if report.findings.is_empty() { Outcome::Done } else { Outcome::Findings })
}

/// Adds source lines to the findings, from the debug information of linked kernels. It is read only when there is a finding.
fn name_lines(report: &mut Report, names: &[String], files: &[Bytes]) {
    if report.findings.is_empty() {
        return;
    }
    for (name, file) in names.iter().zip(files) {
        let Ok(elf) = Elf::parse(file.bytes()) else { continue };
        if elf.is_relocatable() {
            continue;
        }
        let Some(sections) = DebugSections::of(&elf) else { continue };
        let lines = sections.lines();
        for place in report.places_mut().filter(|place| place.image == *name) {
            place.source = lines
                .frames(place.address)
                .first()
                .and_then(|frame| Some(format!("{}:{}", frame.file.as_deref()?, frame.line?)));
        }
    }
}

/// Writes a test for each finding that fits into one.
fn write_testcases(report: &Report, folder: &Path) -> Result<()> {
    let tests: Vec<Testcase> = report.findings.iter().filter_map(testcase).collect();
    if tests.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for test in tests {
        let path = folder.join(&test.name);
        std::fs::write(&path, &test.text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn options(args: &CheckArgs) -> Result<Options> {
    let mut declared =
        if args.no_known_contracts { Declared::default() } else { Declared::builtin() };
    for path in &args.contracts {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the contracts in {}", path.display()))?;
        declared.add(&path.display().to_string(), &text)?;
    }
    let mut unused = args.cmdline.as_deref().map(Unused::under).unwrap_or_default();
    let machine = match (&args.features, &args.cpu) {
        (_, Some(name)) if name == "host" => {
            const CPUINFO: &str = "/proc/cpuinfo";
            let said = std::fs::read_to_string(CPUINFO)
                .with_context(|| format!("reading the features of this machine in {CPUINFO}"))?;
            match Machine::parse(&said) {
                Some(machine) => Some(machine),
                None => bail!("{CPUINFO} has no flags line; give --features instead"),
            }
        }
        (_, Some(name)) => match Machine::named(name) {
            Some(machine) => Some(machine),
            None => bail!(
                "no CPU is called {name}; kolumbo knows host, {}; give --features for any other",
                Machine::names().collect::<Vec<_>>().join(", ")
            ),
        },
        (Some(list), None) if Path::new(list).exists() => {
            let said = what_a_boot_said(Path::new(list))?;
            let machine = Machine::parse(&said);
            let choices = Unused::said_in(&said);
            if machine.is_none() && choices.is_none() {
                bail!(
                    "{list} names no features: it has neither the flags line of /proc/cpuinfo nor a kernel command line or a mitigation"
                );
            }
            unused = unused.and(choices.unwrap_or_default());
            machine
        }
        (Some(list), None) => match Machine::parse(list) {
            Some(machine) => Some(machine),
            None => bail!("{list} is no file, no case folder and no list of CPU features"),
        },
        (None, None) => None,
    };
    Ok(Options { declared, machine, unused })
}

/// The text of a file with features or of a log; of a case folder, what the guest said about itself, in the words of a log.
fn what_a_boot_said(path: &Path) -> Result<String> {
    let reading = || format!("reading the features in {}", path.display());
    if !path.is_dir() {
        let bytes = std::fs::read(path).with_context(reading)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let text = std::fs::read_to_string(path.join("case.json")).with_context(reading)?;
    let case: serde_json::Value = serde_json::from_str(&text).with_context(reading)?;
    let fact = |pointer: &str| case.pointer(pointer).and_then(serde_json::Value::as_str);
    let facts = [
        ("Command line", fact("/guest/cmdline")),
        ("RETBleed", fact("/guest/vulnerabilities/retbleed")),
        ("Speculative Return Stack Overflow", fact("/guest/vulnerabilities/spec_rstack_overflow")),
        ("Spectre V2 ", fact("/guest/vulnerabilities/spectre_v2")),
        ("ITS", fact("/guest/vulnerabilities/indirect_target_selection")),
    ];
    let lines = facts.iter().filter_map(|(topic, fact)| Some(format!("{topic}: {}\n", (*fact)?)));
    Ok(lines.collect())
}

/// Drops findings of which the earlier report knows the culprit and the registers.
fn drop_known(report: &mut Report, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the baseline {}", path.display()))?;
    let earlier: Report = serde_json::from_str(&text).with_context(|| {
        format!("reading the baseline {} as a report of --json", path.display())
    })?;
    let key = |finding: &Finding| {
        (finding.code.clone(), finding.culprit.clone(), finding.destroys.clone())
    };
    let known: HashSet<_> = earlier.findings.iter().map(key).collect();
    report.findings.retain(|finding| !known.contains(&key(finding)));
    Ok(())
}
