//! `kolumbo check`: images for broken register contracts, before anybody boots them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueHint};
use kolumbo_case::contract::{Finding, Report};
use kolumbo_contracts::{Declared, Image, Input, Machine, Options, check, explain_site};
use kolumbo_vmlinux::decompress::{Compression, decompress};

use crate::exit::Outcome;

/// Arguments of `kolumbo check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// vmlinux, modules (.ko, .ko.xz, .ko.zst) and objects that are checked together; the vmlinux comes first
    #[arg(value_name = "IMAGE", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) images: Vec<PathBuf>,

    /// A TOML file of contracts beside those that kolumbo knows; may be given more than once
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) contracts: Vec<PathBuf>,

    /// Check what runs on one machine: a file with the flags line of /proc/cpuinfo, or names between commas
    #[arg(long, value_name = "FILE|LIST")]
    pub(crate) features: Option<String>,

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

/// The bytes of an image, mapped or unpacked.
enum Bytes {
    Mapped(memmap2::Mmap),
    Unpacked(Vec<u8>),
}

impl Bytes {
    fn open(path: &Path) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let file = File::open(path).with_context(reading)?;
        // SAFETY: the file is only read; if somebody truncates it meanwhile, the program is killed by a signal, as any program
        // that maps files.
        let map = unsafe { memmap2::Mmap::map(&file) }.with_context(reading)?;
        match Compression::detect(&map) {
            Some(compression) => {
                Ok(Self::Unpacked(decompress(compression, &map, None).with_context(reading)?))
            }
            None => Ok(Self::Mapped(map)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Unpacked(bytes) => bytes,
        }
    }
}

pub(crate) fn run(args: &CheckArgs) -> Result<Outcome> {
    let files = args.images.iter().map(|path| Bytes::open(path)).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = args.images.iter().map(|path| path.display().to_string()).collect();
    let inputs: Vec<Input<'_>> =
        names.iter().zip(&files).map(|(name, file)| Input { name, bytes: file.bytes() }).collect();
    let image = Image::new(&inputs)?;
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

fn options(args: &CheckArgs) -> Result<Options> {
    let mut declared = Declared::builtin();
    for path in &args.contracts {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the contracts in {}", path.display()))?;
        declared.add(&path.display().to_string(), &text)?;
    }
    let machine = match &args.features {
        Some(list) if Path::new(list).is_file() => Some(Machine::parse(
            &std::fs::read_to_string(list)
                .with_context(|| format!("reading the features in {list}"))?,
        )),
        Some(list) => Some(Machine::parse(list)),
        None => None,
    };
    Ok(Options { declared, machine })
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
