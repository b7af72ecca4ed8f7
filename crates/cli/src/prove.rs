//! `kolumbo prove`: what was concluded is seen happening.
//!
//! The calls that a finding names are watched in the running guest; the flags of emulated instructions are
//! compared in `host_kvm.rs`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use kolumbo_case::contract::{self, Report};
use kolumbo_case::proof::{CallSample, Conclusion, ProofFile, WatchedCall};
use kolumbo_case::{BootSpec, Finding, PROOF_FORMAT_VERSION};
use kolumbo_contracts::{Input, Options, explain_site};
use kolumbo_detective::kept::{Circumstances, compare, conclude, general_part, is_broken};
use kolumbo_lab::calls::{CallSite, Ending, SeenCall, Watch, watch};
use kolumbo_lab::folder::Folder;
use kolumbo_lab::inputs::rfc3339;
use kolumbo_lab::{boot, kernel, size};
use kolumbo_machine::qemu::quote;
use kolumbo_vmlinux::{Image, Kernel};

use crate::boot::cache_folder;
use crate::exit::Outcome;
use crate::explain_case;
use crate::host_kvm::{self, HostKvmArgs};

/// Exit codes, as they stand in the help.
pub(crate) const EXIT_CODES: &str = "Exit codes:
    0  Confirmed: what a caller relies on was lost in the running guest.
       With --host-kvm: all is as it should be.
    1  Not confirmed: calls were seen, and it came back each time.
       With --host-kvm: it is not.
    2  The command line was not understood, or the finding names no call.
  125  No call was seen, it could not be found out, or kolumbo itself failed.
";

/// Calls that are watched at most.
const MOST_CALLS: usize = 64;
/// Calls that stand in a command to paste.
const SHOWN_CALLS: usize = 4;
/// Time for further calls once one was broken.
const LINGER: Duration = Duration::from_secs(1);
/// Largest report that is read.
const LARGEST: u64 = 256 << 20;

/// Arguments of `kolumbo prove`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ProveArgs {
    #[command(flatten)]
    pub(crate) host_kvm: HostKvmArgs,

    /// A case folder whose explanation names a call, or what 'kolumbo check --json' printed
    #[arg(value_name = "CASE|CHECK.json", value_hint = ValueHint::AnyPath, required_unless_present_any = ["calls", "host_kvm"], conflicts_with = "host_kvm")]
    pub(crate) finding: Option<PathBuf>,

    /// A call to watch; may be given more than once
    #[arg(long = "call", id = "calls", value_name = "FN+0xOFF", requires = "kernel")]
    pub(crate) calls: Vec<String>,

    /// A register that the caller relies on (default: what 'kolumbo check' says of the call, or the finding);
    /// may be given more than once
    #[arg(long = "register", value_name = "NAME", value_parser = register)]
    pub(crate) registers: Vec<String>,

    /// The kernel to boot: what 'kolumbo boot' takes, with its vmlinux beside it (default: that of the finding)
    #[arg(short, long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) kernel: Option<PathBuf>,

    /// Number of virtual CPUs (default: as in the case, else 1)
    #[arg(short, long, value_name = "N")]
    pub(crate) smp: Option<u32>,

    /// Guest memory (default: as in the case, else 1G)
    #[arg(short, long, value_parser = size::parse_memory, value_name = "SIZE")]
    pub(crate) memory: Option<u64>,

    /// Words for the kernel's command line, beside those of the case
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) append: Vec<String>,

    /// QEMU's machine type (default: as in the case)
    #[arg(long, value_name = "TYPE")]
    pub(crate) machine: Option<String>,

    /// The QEMU to run, as a path or a name in $PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<String>,

    /// Further arguments for QEMU, split as a shell would
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) qemu_opts: Option<String>,

    /// Longest time to watch
    #[arg(short, long, default_value = "60s", value_parser = size::parse_duration_ms, value_name = "DUR")]
    pub(crate) timeout: u64,

    /// Calls that are looked at in each place
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..100_000))]
    pub(crate) most: u32,

    /// Print JSON and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

fn register(name: &str) -> Result<String, String> {
    general_part(name)
        .map(|_| name.to_ascii_lowercase())
        .ok_or_else(|| format!("'{name}' is no general register, such as rcx, ecx or cl"))
}

pub(crate) fn run(args: &ProveArgs) -> Result<Outcome> {
    if args.host_kvm.host_kvm {
        return host_kvm::run(&args.host_kvm, args.timeout, args.json);
    }
    let cache = cache_folder()?;
    let mut target = match target(args, &cache)? {
        Ok(target) => target,
        Err(usage) => {
            let _ = writeln!(std::io::stderr(), "kolumbo: {usage}");
            return Ok(Outcome::Usage);
        }
    };
    target.limit = Duration::from_millis(args.timeout);
    target.per_site = args.most;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("cannot listen for Ctrl-C")?;
    }
    let proof = proven(&target, &interrupted)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &proof)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", kolumbo_report::proof::report(&proof))?;
    }
    Ok(match proof.conclusion {
        Conclusion::Confirmed => Outcome::Done,
        Conclusion::NotConfirmed => Outcome::Unexpected,
        Conclusion::NotSeen => Outcome::Unknown,
    })
}

/// What the arguments ask for, or why that makes no sense.
fn target(args: &ProveArgs, cache: &Path) -> Result<Result<Target, String>> {
    let mut spec = BootSpec { smp: 1, memory: 1 << 30, ..BootSpec::default() };
    let mut findings: Vec<Finding> = Vec::new();
    let mut broken: Vec<contract::Finding> = Vec::new();
    match &args.finding {
        Some(path) if path.is_dir() => {
            let folder = Folder::read(path)?;
            let console = folder.console().unwrap_or_default();
            let explanation = match folder.case.explanation.clone() {
                Some(explanation) => Some(explanation),
                None => explain_case::explanation(&folder.case, &console, cache),
            };
            findings = explanation.map(|e| e.findings).unwrap_or_default();
            spec = folder.case.spec;
        }
        Some(path) => {
            let report = read_report(path)?;
            let image = report.images.first().cloned().unwrap_or_default();
            spec.kernel = beside(Path::new(&image));
            broken = report.findings;
        }
        None => {}
    }
    let text = |path: &PathBuf| path.display().to_string();
    spec.kernel = args.kernel.as_ref().map_or(spec.kernel, text);
    spec.smp = args.smp.unwrap_or(spec.smp);
    spec.memory = args.memory.unwrap_or(spec.memory);
    spec.append.extend(args.append.iter().cloned());
    spec.machine = args.machine.clone().or(spec.machine);
    let mut target = Target::of_spec(&spec, args.qemu.as_deref(), cache);
    target.request.qemu_args = match &args.qemu_opts {
        Some(text) => match shlex::split(text) {
            Some(words) => words,
            None => return Ok(Err(format!("cannot split --qemu-opts '{text}'"))),
        },
        None => Vec::new(),
    };
    for call in &args.calls {
        target.add_call(call, &args.registers);
    }
    let only = args.registers.first().map(String::as_str);
    for finding in &findings {
        target.add_explained(finding, false);
    }
    for finding in &broken {
        target.add_check(finding, only);
    }
    if target.is_empty() {
        return Ok(Err("there is no finding that names a call; name one with --call".to_owned()));
    }
    Ok(Ok(target))
}

fn read_report(path: &Path) -> Result<Report> {
    use std::io::Read;
    let reading =
        || format!("cannot read {} as what 'kolumbo check --json' prints", path.display());
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(LARGEST).read_to_end(&mut text))
        .with_context(reading)?;
    serde_json::from_slice(&text).with_context(reading)
}

/// What boots for a vmlinux: the folder that it lies in where that has an image, since a vmlinux itself boots
/// only with CONFIG_PVH.
fn beside(vmlinux: &Path) -> String {
    let folder = vmlinux.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let images = ["arch/x86/boot/bzImage", "bzImage"];
    let chosen = if images.iter().any(|i| folder.join(i).is_file()) { folder } else { vmlinux };
    chosen.display().to_string()
}

/// A call to watch.
#[derive(Debug, Clone)]
struct Wanted {
    place: String,
    relies: Vec<String>,
    /// It was named for another kernel: that it is no call here is a gap, not an error.
    from_another: bool,
}

/// What is booted, and which calls are watched in it.
pub(crate) struct Target {
    request: boot::Request,
    findings: Vec<String>,
    wanted: Vec<Wanted>,
    limit: Duration,
    per_site: u32,
}

impl Target {
    /// Boots what `spec` says, with the kernel where its image says that it is.
    pub(crate) fn of_spec(spec: &BootSpec, qemu: Option<&str>, cache: &Path) -> Target {
        let mut spec = spec.clone();
        if !spec.append.iter().any(|w| w.split_whitespace().any(|w| w == "nokaslr")) {
            spec.append.push("nokaslr".to_owned());
        }
        let request = boot::Request {
            spec,
            qemu: qemu.map(str::to_owned),
            cache: cache.to_owned(),
            ..boot::Request::default()
        };
        Target {
            request,
            findings: Vec::new(),
            wanted: Vec::new(),
            limit: Duration::from_secs(60),
            per_site: 8,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// A command that watches some of the calls again.
    pub(crate) fn command(&self, register: &str) -> String {
        let spec = &self.request.spec;
        let mut words = vec!["kolumbo".to_owned(), "prove".to_owned(), "-k".to_owned()];
        words.push(spec.kernel.clone());
        words.extend(["-s".to_owned(), spec.smp.to_string()]);
        words.extend(["-m".to_owned(), format!("{}m", spec.memory >> 20)]);
        words.extend(spec.machine.iter().flat_map(|m| ["--machine".to_owned(), m.clone()]));
        for place in self.places().take(SHOWN_CALLS) {
            words.extend(["--call".to_owned(), place.to_owned()]);
        }
        words.extend(["--register".to_owned(), register.to_owned()]);
        words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        self.wanted.iter().map(|w| w.place.as_str())
    }

    /// A call, and what its caller relies on; where that is empty, the image is asked.
    pub(crate) fn add_call(&mut self, place: &str, relies: &[String]) {
        self.findings.push(format!("call at {place}"));
        self.add(place, relies.to_vec(), false);
    }

    /// The last call on the way to a register that cannot be what it is.
    pub(crate) fn add_explained(&mut self, finding: &Finding, from_another: bool) {
        let Some((register, _)) = general_part(&finding.subject) else { return };
        let call = finding.derivation.iter().rev().find(|s| s.instruction.starts_with("call"));
        let Some(call) = call else { return };
        self.findings.push(format!("{} {} at {}", finding.id, finding.subject, finding.at));
        self.add(&call.address, vec![register.to_owned()], from_another);
    }

    /// The calls that suffer from a broken contract; with `only`, those that suffer in this register.
    pub(crate) fn add_check(&mut self, finding: &contract::Finding, only: Option<&str>) {
        let full = |name: &str| general_part(name).map(|(full, _)| full);
        let before = self.wanted.len();
        for site in &finding.sites {
            let relies: Vec<String> = site
                .relies
                .iter()
                .filter(|part| full(part).is_some() && only.is_none_or(|o| full(o) == full(part)))
                .cloned()
                .collect();
            if !relies.is_empty() {
                self.add(&site.call.symbol, relies, false);
            }
        }
        if self.wanted.len() > before {
            let destroys = finding.destroys.join(" ");
            self.findings.push(format!("{} {} destroys {destroys}", finding.code, finding.culprit));
        }
    }

    fn add(&mut self, place: &str, relies: Vec<String>, from_another: bool) {
        if self.wanted.len() < MOST_CALLS && !self.places().any(|p| p == place) {
            self.wanted.push(Wanted { place: place.to_owned(), relies, from_another });
        }
    }
}

/// Boots the target, watches its calls, and says what that comes to.
pub(crate) fn proven(target: &Target, interrupted: &AtomicBool) -> Result<ProofFile> {
    let spec = &target.request.spec;
    if spec.host.is_some() || !spec.engine.is_qemu() {
        anyhow::bail!(
            "calls are watched in guests of QEMU only, and this one ran in kolumbo's own monitor; boot the kernel \
             in QEMU and prove that case"
        );
    }
    let started = rfc3339(SystemTime::now());
    let found = kernel::find(Path::new(&target.request.spec.kernel), &target.request.cache)?;
    let vmlinux = found.vmlinux.as_deref().map(kernel::map).transpose()?;
    let path = found.vmlinux.as_ref().unwrap_or(&found.image);
    let bytes = vmlinux.as_deref().unwrap_or(&found.bytes);
    let opened = Kernel::open(bytes)
        .with_context(|| format!("cannot read the kernel in {}", path.display()))?;
    let system_map = found.system_map.as_ref().and_then(|p| std::fs::read(p).ok());
    let symbols = opened.symbols(system_map.as_deref());
    let elf = opened.elf();
    let image = Image::of_vmlinux(&elf, symbols.table);

    let mut gaps = Vec::new();
    let mut sites = Vec::new();
    let mut watched = Vec::new();
    for wanted in &target.wanted {
        let (site, instruction) = match site(&image, &wanted.place) {
            Ok(found) => found,
            Err(why) if wanted.from_another => {
                gaps.push(why);
                continue;
            }
            Err(why) => anyhow::bail!("{why} in {}", path.display()),
        };
        let relies = match wanted.relies.as_slice() {
            [] => relied_on(path, bytes, &wanted.place)?,
            named => named.to_vec(),
        };
        sites.push(site);
        watched.push(WatchedCall {
            place: wanted.place.clone(),
            address: format!("{:#x}", site.address),
            instruction,
            relies,
            ..WatchedCall::default()
        });
    }
    let callee = |address: u64| {
        let located = image.symbols().lookup(address)?;
        let name = located.symbol.name.to_owned();
        Some(if located.offset == 0 { name } else { format!("{name}+{:#x}", located.offset) })
    };
    let sample = |watched: &[WatchedCall], call: &SeenCall| -> CallSample {
        let callee = call.target.and_then(callee);
        let known = Circumstances {
            call: call.site,
            relies: &watched[call.site].relies,
            callee: callee.as_deref(),
            canary: call.canary,
        };
        compare(&call.before, &call.after, &known)
    };
    let watch_for = Watch {
        sites,
        per_site: target.per_site,
        linger: LINGER,
        limit: target.limit,
        canary: canary_offset(&image),
    };
    let mut proof = ProofFile {
        prove_version: PROOF_FORMAT_VERSION,
        kolumbo: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        finding: target.findings.join("; "),
        kernel: found.image.display().to_string(),
        ..ProofFile::default()
    };
    if watch_for.sites.is_empty() {
        "nothing was watched".clone_into(&mut proof.ended);
    } else {
        let mut judge = |call: &SeenCall| is_broken(&sample(&watched, call));
        let seen = watch(&target.request, &watch_for, interrupted, &mut judge)?;
        proof.ended = ended(seen.ending, seen.under_way);
        proof.wall_ms = seen.wall_ms;
        for call in &seen.seen {
            let sample = sample(&watched, call);
            let broken = is_broken(&sample);
            let place = &mut watched[call.site];
            place.seen += 1;
            place.broken += u32::from(broken);
            proof.seen += 1;
            proof.broken += u32::from(broken);
            // The first broken call of each place, else the first one.
            match proof.samples.iter_mut().find(|s| s.call == call.site) {
                None => proof.samples.push(sample),
                Some(old) if broken && !is_broken(old) => *old = sample,
                Some(_) => {}
            }
        }
    }
    proof.watched = watched;
    proof.gaps = gaps;
    conclude(&mut proof);
    Ok(proof)
}

fn ended(ending: Ending, under_way: usize) -> String {
    let why = match ending {
        Ending::Enough => "enough calls were seen",
        Ending::GuestEnded => "the guest ended",
        Ending::TimeIsUp => "the time was over",
        Ending::Interrupted => "it was interrupted",
    };
    match under_way {
        0 => why.to_owned(),
        1 => format!("{why}; 1 call did not come back meanwhile"),
        more => format!("{why}; {more} calls did not come back meanwhile"),
    }
}

/// The call instruction at `function+0x5c` or at an address, and its text.
fn site(image: &Image<'_>, place: &str) -> Result<(CallSite, String), String> {
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let address = match place.rsplit_once('+') {
        Some((function, offset)) => {
            image.symbols().address_of(function).zip(hex(offset)).map(|(a, o)| a.wrapping_add(o))
        }
        None => hex(place),
    };
    let address = address.ok_or_else(|| format!("{place} is no place such as schedule+0x12"))?;
    let bytes = image.bytes_from(address).unwrap_or_default();
    let bytes = &bytes[..bytes.len().min(16)];
    let text = kolumbo_dataflow::disassemble(bytes, address).unwrap_or_default();
    let length = kolumbo_dataflow::decode(bytes, address).map_or(0, |i| i.len() as u64);
    if !text.starts_with("call") || length == 0 {
        return Err(format!("there is no call at {place}"));
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok((CallSite { address, next: address.wrapping_add(length) }, text))
}

/// What the caller at `place` relies on, as the check of the image sees it.
fn relied_on(path: &Path, bytes: &[u8], place: &str) -> Result<Vec<String>> {
    let name = path.display().to_string();
    let image = kolumbo_contracts::Image::new(&[Input { name: &name, bytes }])?;
    let relies = explain_site(&image, &Options::default(), place).map(|site| site.relies);
    let relies: Vec<String> =
        relies.unwrap_or_default().into_iter().filter(|r| general_part(r).is_some()).collect();
    if relies.is_empty() {
        anyhow::bail!(
            "nothing that the callee may destroy is relied on at {place}, as far as the image tells; \
             name a register with --register"
        );
    }
    Ok(relies)
}

/// Where the stack canary lies in the per-CPU area: `stack_canary` of `struct fixed_percpu_data`
/// (arch/x86/include/asm/processor.h) has been 40 bytes behind its start since that was introduced with
/// x86-64's stack protector. A kernel without that structure has its canary elsewhere.
fn canary_offset(image: &Image<'_>) -> Option<u64> {
    Some(image.symbols().address_of("fixed_percpu_data")?.wrapping_add(40))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kolumbo_case::DerivationStep;
    use kolumbo_case::finding::FindingPlace;

    #[test]
    fn the_last_call_before_the_trap_is_watched() {
        let step = |address: &str, instruction: &str| DerivationStep {
            address: address.to_owned(),
            instruction: instruction.to_owned(),
            ..DerivationStep::default()
        };
        let finding = Finding {
            code: kolumbo_case::FindingCode::RegisterImpossible,
            id: "K0102".to_owned(),
            subject: "RCX".to_owned(),
            summary: String::new(),
            at: FindingPlace::default(),
            expected: String::new(),
            observed: String::new(),
            observed_looks_like: None,
            derivation: vec![
                step("f+0x1", "call a"),
                step("f+0x9", "call *0x1(%rip)"),
                step("f+0xf", "nop"),
            ],
            suspects: Vec::new(),
            confidence: kolumbo_case::Confidence::Certain,
            assumptions: Vec::new(),
            other_explanations: Vec::new(),
        };
        let mut target = Target::of_spec(&BootSpec::default(), None, Path::new("/c"));
        target.add_explained(&finding, false);
        target.add_explained(&finding, true);
        assert_eq!(target.places().collect::<Vec<_>>(), ["f+0x9"]);
        assert_eq!(target.wanted[0].relies, ["rcx"]);
        assert_eq!(target.request.spec.append, ["nokaslr"]);
        let flags = Finding { subject: "PF, SF".to_owned(), ..finding };
        let mut target = Target::of_spec(&BootSpec::default(), None, Path::new("/c"));
        target.add_explained(&flags, false);
        assert!(target.is_empty(), "flags are no register that a call loses");
    }
}
