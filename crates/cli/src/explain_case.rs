//! What a finished run means: the dumps on its console and the CPUs that stood still at its verdict,
//! held against the image that was booted.

use std::path::Path;

use kolumbo_case::{CaseFile, CrashContext, CrashReport, Explanation, ReadResult, VerdictKind};
use kolumbo_detective::Options;
use kolumbo_lab::{inputs, kernel};

use crate::images::{self, ImageFiles};

/// The explanation of `case`, whose console said `console`; none for a healthy guest and where there
/// is nothing to look at. `cache` is where packages were unpacked.
pub(crate) fn explanation(case: &CaseFile, console: &[u8], cache: &Path) -> Option<Explanation> {
    case.outcome.as_ref().filter(|v| v.verdict != VerdictKind::Booted)?;
    let read = what_was_seen(case, console);
    if read.reports.iter().all(|r| r.states.is_empty()) {
        return None;
    }
    Some(with_its_image(case, &read, cache, &Options::default()))
}

/// The explanation of what was seen of `case` with the image that it booted. An image that cannot be
/// read any more is a gap of the explanation.
pub(crate) fn with_its_image(
    case: &CaseFile,
    read: &ReadResult,
    cache: &Path,
    options: &Options<'_>,
) -> Explanation {
    let hypervisor = what_ran(case);
    let options = &Options { hypervisor: Some(&hypervisor), ..*options };
    let found = kernel::find(Path::new(&case.spec.kernel), cache);
    let explained = found.map_err(|e| e.to_string()).and_then(|found| {
        let vmlinux = match &found.vmlinux {
            Some(path) => Some(kernel::map(path).map_err(|e| e.to_string())?),
            None => None,
        };
        let path = found.vmlinux.as_ref().unwrap_or(&found.image);
        let bytes = vmlinux.as_deref().unwrap_or(&found.bytes);
        let system_map = found.system_map.as_ref().and_then(|p| std::fs::read(p).ok());
        let modules = case.spec.modules.iter().map(|m| inputs::split_module(m).0.to_owned());
        let files = ImageFiles {
            path: path.clone(),
            bytes,
            system_map: system_map.as_deref(),
            module_dir: None,
            modules: modules.collect(),
        };
        images::explained(read, options, &files).map_err(|e| format!("{e:#}"))
    });
    explained.unwrap_or_else(|why| {
        let mut alone = kolumbo_detective::explain(read, options);
        alone.gaps.push(kolumbo_case::Gap { what: format!("without an image: {why}"), span: None });
        alone
    })
}

/// What ran the guest of `case`; of a host inside another guest also the mitigations that change how it returns
/// from a function, since emulated instructions hand over their flags across such a return.
pub(crate) fn what_ran(case: &CaseFile) -> String {
    let qemu = match case.qemu.version.as_str() {
        "" => format!("{} ({})", kolumbo_vmm::PROGRAM, case.qemu.accel),
        version => format!("QEMU {version} ({})", case.qemu.accel),
    };
    let Some(nested) = &case.nested_host else { return qemu };
    let mut text = format!("{} on KVM", kolumbo_vmm::PROGRAM);
    let Some(host) = &nested.guest else { return text };
    text.push_str(&format!(" of Linux {}", host.release));
    let said = ["spec_rstack_overflow", "retbleed"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}: {}", host.vulnerabilities.get(name)?)));
    let said: Vec<String> = said.collect();
    if !said.is_empty() {
        text.push_str(&format!(", whose mitigations are {}", said.join("; ")));
    }
    text
}

/// The crashes on the console, and each CPU that stood still as one more.
pub(crate) fn what_was_seen(case: &CaseFile, console: &[u8]) -> ReadResult {
    let mut read = kolumbo_console::read(console);
    // How a console of our own was transported says nothing about the guest.
    read.gaps.clear();
    for cpu in &case.cpus {
        let context = CrashContext {
            release: case.guest.as_ref().map(|g| g.release.clone()).filter(|r| !r.is_empty()),
            ..CrashContext::default()
        };
        read.reports.push(CrashReport {
            title: format!("CPU {} at the verdict", cpu.cpu.unwrap_or_default()),
            context,
            states: vec![cpu.clone()],
            ..CrashReport::default()
        });
    }
    read
}
