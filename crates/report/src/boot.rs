//! A case of `kolumbo boot` as plain text.

use std::fmt::Write;

use kolumbo_case::file::CaseState;
use kolumbo_case::{CaseFile, Evidence, VcpuSample, Verdict};

use crate::explain;

/// Evidence lines that are shown; the rest is in the case file.
const SHOWN: usize = 24;

/// One line: the verdict and why.
pub fn verdict_line(case: &CaseFile) -> String {
    match &case.outcome {
        Some(v) => format!("{}: {}", v.verdict, v.reason),
        None => "unfinished: kolumbo ended before there was a verdict".to_owned(),
    }
}

/// The whole report: the verdict line, the circumstances, the proof.
pub fn report(case: &CaseFile) -> String {
    let mut out = verdict_line(case);
    out.push('\n');
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {name:<9} {}", safe(value));
        }
    };
    row("kernel", &kernel(case));
    row("guest", &guest(case));
    row("accel", &accel(case));
    if let Some(v) = &case.outcome {
        row("phase", &phases(case, v));
        row("time", &times(case, v));
    }
    for gap in &case.gaps {
        row("gap", gap);
    }
    if let Some(v) = &case.outcome {
        proof(&mut out, v);
    }
    if let Some(explanation) = &case.explanation {
        out.push('\n');
        out.push_str(&explain::report(explanation, explain::Shown::default()));
    }
    if case.state == CaseState::Running {
        out.push_str("  the run did not finish; console and events up to its end are kept\n");
    }
    out
}

fn kernel(case: &CaseFile) -> String {
    let image = case.inputs.iter().find(|i| i.role == "kernel");
    let path = image.map_or(case.spec.kernel.as_str(), |i| i.path.as_str());
    match &case.guest {
        Some(g) if !g.release.is_empty() => format!("{path} ({})", g.release),
        _ => path.to_owned(),
    }
}

fn guest(case: &CaseFile) -> String {
    let spec = &case.spec;
    let mut text = format!("-smp {} -m {}M", spec.smp, spec.memory >> 20);
    if !spec.append.is_empty() {
        let _ = write!(text, " --append '{}'", spec.append.join(" "));
    }
    if let Some(g) = &case.guest
        && g.cpus_online != spec.smp
    {
        let plural = if g.cpus_online == 1 { "" } else { "s" };
        let _ = write!(text, ", {} CPU{plural} online", g.cpus_online);
    }
    text
}

fn accel(case: &CaseFile) -> String {
    if case.qemu.accel.is_empty() {
        return String::new();
    }
    let reason = match case.qemu.accel_reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    match case.qemu.version.as_str() {
        "" => format!("{}{reason}", case.qemu.accel),
        version => format!("{}{reason}, QEMU {version}", case.qemu.accel),
    }
}

fn phases(case: &CaseFile, verdict: &Verdict) -> String {
    let mut steps: Vec<String> =
        case.timeline.iter().map(|(phase, t)| format!("{phase} {}", seconds(*t))).collect();
    if steps.is_empty() {
        steps.push(verdict.phase.to_string());
    }
    steps.join(", ")
}

fn times(case: &CaseFile, verdict: &Verdict) -> String {
    let Some(wall) = case.wall_ms else { return String::new() };
    let mut text = format!(
        "decided after {}, last sign of life at {}",
        seconds(verdict.decided_ms),
        seconds(verdict.last_sign_of_life_ms)
    );
    if verdict.timed_out {
        let _ = write!(text, ", by the time limit of {}", seconds(case.spec.timeout_ms));
    }
    if wall > verdict.decided_ms + 1000 {
        let _ = write!(text, ", ended after {}", seconds(wall));
    }
    text
}

fn proof(out: &mut String, verdict: &Verdict) {
    for evidence in verdict.evidence.iter().take(SHOWN) {
        match evidence {
            Evidence::Line { t, text, .. } => {
                let _ = writeln!(out, "  {:>8}  {}", seconds(*t), safe(text));
            }
            Evidence::Report { t, from, text } => {
                let _ = writeln!(out, "  {:>8}  {from}: {}", seconds(*t), safe(text));
            }
            Evidence::Vcpu { to_t, samples, text, last, .. } => {
                let _ = writeln!(
                    out,
                    "  {:>8}  cpu {}: {} ({samples} samples)",
                    seconds(*to_t),
                    last.cpu,
                    safe(text)
                );
                let _ = writeln!(out, "            {}", safe(&place(last)));
            }
            _ => {}
        }
    }
    let more = verdict.evidence.len().saturating_sub(SHOWN);
    if more > 0 {
        let _ = writeln!(out, "  {:>8}  and {more} more in the case file", "");
    }
}

fn place(sample: &VcpuSample) -> String {
    let mut text = match &sample.symbol {
        Some(symbol) => format!("{symbol} ({:#x})", sample.pc),
        None => format!("{:#x}", sample.pc),
    };
    if let Some(instruction) = &sample.instruction {
        let _ = write!(text, ": {}", instruction.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let _ = write!(text, ", rflags {:#x}", sample.flags);
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

/// Text from a guest or a file name: control characters must not reach a terminal.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kolumbo_case::{BootSpec, Phase, VerdictKind};

    #[test]
    fn a_hang_reads_well() {
        let verdict = Verdict {
            verdict: VerdictKind::HungUserspace,
            reason: "CPU 1 spins with interrupts off".into(),
            phase: Phase::Userspace,
            timed_out: false,
            last_sign_of_life_ms: 3100,
            decided_ms: 8650,
            evidence: vec![
                Evidence::Vcpu {
                    from_t: 4100,
                    to_t: 8600,
                    samples: 18,
                    text: "spins in one place with interrupts off".into(),
                    last: VcpuSample {
                        cpu: 1,
                        pc: 0xffff_ffff_8100_0010,
                        flags: 0x46,
                        symbol: Some("f+0x10/0x20".into()),
                        instruction: Some("jmp    ffffffff81000010".into()),
                        ..VcpuSample::default()
                    },
                },
                Evidence::Line { t: 3100, offset: 9, text: "last \x1b[31mwords".into() },
            ],
        };
        let case = CaseFile {
            state: CaseState::Done,
            spec: BootSpec {
                kernel: "/k/bzImage".into(),
                smp: 2,
                memory: 1 << 30,
                append: vec!["quiet".into()],
                ..BootSpec::default()
            },
            timeline: vec![(Phase::EarlyConsole, 300), (Phase::Userspace, 3100)],
            outcome: Some(verdict),
            wall_ms: Some(8700),
            ..CaseFile::default()
        };
        expect![[r#"
            hung-userspace: CPU 1 spins with interrupts off
              kernel    /k/bzImage
              guest     -smp 2 -m 1024M --append 'quiet'
              phase     early-console 0.300 s, userspace 3.100 s
              time      decided after 8.650 s, last sign of life at 3.100 s
               8.600 s  cpu 1: spins in one place with interrupts off (18 samples)
                        f+0x10/0x20 (0xffffffff81000010): jmp ffffffff81000010, rflags 0x46
               3.100 s  last �[31mwords
        "#]]
        .assert_eq(&report(&case));
    }

    #[test]
    fn a_case_that_was_cut_off_says_so() {
        assert!(report(&CaseFile::default()).contains("did not finish"));
    }
}
