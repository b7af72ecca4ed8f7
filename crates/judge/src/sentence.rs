//! The words of a verdict: facts to sentences.
//!
//! Decides nothing.

use kolumbo_case::{Evidence, VcpuSample};
use kolumbo_console::InitFailure;
use kolumbo_console::prefix::parse_prefix;
use kolumbo_init::protocol::{Done, JobKind};

/// Something that QEMU, init or the host reported.
pub(crate) fn report(t: u64, from: &str, text: &str) -> Evidence {
    Evidence::Report { t, from: from.to_owned(), text: text.to_owned() }
}

/// How QEMU ended.
pub(crate) fn exit(t: u64, code: Option<i32>, signal: Option<i32>, stderr: &str) -> Evidence {
    let how = match (code, signal) {
        (_, Some(signal)) => format!("killed by signal {signal}"),
        (Some(code), None) => format!("exit code {code}"),
        (None, None) => "ended".to_owned(),
    };
    let text = if stderr.is_empty() { how } else { format!("{how}: {stderr}") };
    report(t, "qemu", &text)
}

/// A console line without its printk prefix.
pub(crate) fn message_of(line: &str) -> String {
    line[parse_prefix(line).len..].trim().to_owned()
}

/// Why there is no init, as a sentence.
pub(crate) fn init_failure(why: InitFailure) -> &'static str {
    match why {
        InitFailure::NoRoot => "the kernel found no root file system",
        InitFailure::NoInit => "the kernel found no program to run as init",
        InitFailure::InitDied => "init ended",
        InitFailure::BadInitramfs => "the initramfs could not be unpacked",
    }
}

/// What a job did instead of succeeding.
pub(crate) fn failed_job(done: &Done) -> String {
    let what = match done.job {
        JobKind::Module => "module",
        JobKind::Exec => "program",
    };
    match (done.errno, done.exit, done.signal) {
        (Some(errno), ..) if errno != 0 => {
            format!("{what} {} failed with errno {errno}", done.name)
        }
        (_, Some(code), _) => format!("{what} {} ended with exit code {code}", done.name),
        (.., Some(signal)) => format!("{what} {} was killed by signal {signal}", done.name),
        _ => format!("{what} {} did not end well", done.name),
    }
}

/// Each CPU at the moment of a reset.
pub(crate) fn at_reset(t: u64, vcpus: &[VcpuSample]) -> Vec<Evidence> {
    let entry = |last: &VcpuSample| Evidence::Vcpu {
        from_t: t,
        to_t: t,
        samples: 1,
        text: "when the machine was reset".to_owned(),
        last: last.clone(),
    };
    vcpus.iter().map(entry).collect()
}
