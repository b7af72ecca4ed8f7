//! `kolumbo prove --host-kvm`: does a hypervisor emulate instructions as the CPU executes them?

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use kolumbo_case::emulation::{EmulationFile, Outcome as Form};
use kolumbo_case::{Accel, BootSpec, HostSpec};
use kolumbo_lab::boot::Request;
use kolumbo_lab::{emulation, size};
use kolumbo_machine::qemu::quote;

use crate::boot;
use crate::exit::Outcome;

/// Arguments of the test of emulated instructions.
#[derive(Debug, Args)]
pub(crate) struct HostKvmArgs {
    /// Compare the flags of emulated instructions with those of the CPU, on this machine's KVM or, with
    /// --host-kernel, on that of a kernel in QEMU. Takes a second or two
    #[arg(long)]
    pub(crate) host_kvm: bool,

    /// The kernel whose KVM is tested, in QEMU (default: this machine's)
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, requires = "host_kvm")]
    pub(crate) host_kernel: Option<PathBuf>,

    /// Words for that kernel's command line; may be given more than once
    #[arg(long, value_name = "STR", allow_hyphen_values = true, requires = "host_kernel")]
    pub(crate) host_append: Vec<String>,

    /// A module that is loaded there first, such as kvm.ko and kvm-amd.ko; may be given more than once
    #[arg(long = "host-module", value_name = "FILE.ko", value_hint = ValueHint::FilePath, requires = "host_kernel")]
    pub(crate) host_modules: Vec<String>,

    /// That kernel's memory
    #[arg(long, default_value = "512M", value_parser = size::parse_memory, value_name = "SIZE", requires = "host_kernel")]
    pub(crate) host_memory: u64,

    /// QEMU's CPU model, one that can run guests: EPYC-Rome,+svm,+npt
    #[arg(long, value_name = "MODEL", requires = "host_kernel")]
    pub(crate) cpu: Option<String>,

    /// How QEMU runs that kernel
    #[arg(long, default_value_t = Accel::Auto, value_name = "ACCEL", requires = "host_kernel")]
    pub(crate) accel: Accel,
}

/// Runs the test; `limit_ms` is the time limit of everything.
pub(crate) fn run(args: &HostKvmArgs, limit_ms: u64, json: bool) -> Result<Outcome> {
    let file = match &args.host_kernel {
        None => emulation::of_this_machine(Duration::from_millis(limit_ms))?,
        Some(kernel) => emulation::under(&request(args, kernel.display().to_string(), limit_ms)?)?,
    };
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &file)?;
        writeln!(out)?;
    } else {
        out.write_all(kolumbo_report::emulation::report(&file).as_bytes())?;
    }
    Ok(outcome(&file))
}

fn outcome(file: &EmulationFile) -> Outcome {
    match (file.count(Form::Differs), file.count(Form::Ok)) {
        (0, 0) => Outcome::Unknown,
        (0, _) => Outcome::Done,
        _ => Outcome::Findings,
    }
}

/// A kernel whose KVM is tested under QEMU's translator, on behalf of a case.
pub(crate) struct Target<'a> {
    pub(crate) kernel: &'a str,
    pub(crate) cpu: Option<&'a str>,
    pub(crate) append: &'a [String],
    pub(crate) qemu: Option<&'a str>,
    pub(crate) cache: &'a Path,
}

impl Target<'_> {
    /// Longest time of a boot and the test, in milliseconds: seconds on a quiet machine.
    const LIMIT_MS: u64 = 120_000;
    const MEMORY: u64 = 512 << 20;
    /// The one that emulates virtualisation on every machine.
    pub(crate) const ACCEL: Accel = Accel::Tcg;

    pub(crate) fn tested(&self) -> Result<EmulationFile> {
        let host = HostSpec {
            kernel: self.kernel.to_owned(),
            smp: 1,
            memory: Self::MEMORY,
            append: self.append.to_vec(),
            modules: Vec::new(),
        };
        let spec = BootSpec {
            cpu: self.cpu.map(str::to_owned),
            accel: Self::ACCEL,
            timeout_ms: Self::LIMIT_MS,
            host: Some(host),
            ..BootSpec::default()
        };
        let request = Request {
            spec,
            qemu: self.qemu.map(str::to_owned),
            cache: self.cache.to_owned(),
            ..Request::default()
        };
        Ok(emulation::under(&request)?)
    }

    /// The command line that does the same.
    pub(crate) fn command(&self) -> String {
        let mut words = vec!["kolumbo", "prove", "--host-kvm", "--host-kernel", self.kernel];
        words.extend(["--accel", "tcg"]);
        words.extend(self.cpu.iter().flat_map(|cpu| ["--cpu", cpu]));
        words.extend(self.append.iter().flat_map(|append| ["--host-append", append]));
        words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
    }
}

fn request(args: &HostKvmArgs, kernel: String, limit_ms: u64) -> Result<Request> {
    let host = HostSpec {
        kernel,
        smp: 1,
        memory: args.host_memory,
        append: args.host_append.clone(),
        modules: args.host_modules.clone(),
    };
    Ok(Request {
        spec: BootSpec {
            cpu: args.cpu.clone(),
            accel: args.accel,
            timeout_ms: limit_ms,
            host: Some(host),
            ..BootSpec::default()
        },
        cache: boot::cache_folder().context("finding where packages are unpacked")?,
        ..Request::default()
    })
}
