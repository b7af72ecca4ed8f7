//! A QEMU whose guest never runs: what it says of a CPU.
//!
//! Decides nothing; it starts a machine of a few megabytes, asks, and ends it. Nothing outlives the call. Main
//! function: [`runs_guests`].

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kolumbo_case::Accel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::qemu::QemuError;

/// How long QEMU may take to answer, on a host that has much else to do.
const LIMIT: Duration = Duration::from_secs(30);
/// The first CPU, where QEMU's machine `pc` keeps it.
const FIRST_CPU: &str = "/machine/unattached/device[0]";
/// The features by which a CPU runs guests of its own: AMD's and Intel's.
const VIRTUALISATION: [&str; 2] = ["svm", "vmx"];

/// Whether a CPU of this model can run guests of its own under this QEMU, which drops the features that it cannot
/// give. Takes some 0.1 s.
///
/// # Errors
/// When QEMU does not know the model, or does not answer.
pub fn runs_guests(qemu: &Path, accel: Accel, cpu: &str) -> Result<bool, QemuError> {
    let asked = VIRTUALISATION.map(|feature| {
        format!(
            "{{\"execute\":\"qom-get\",\"id\":\"{feature}\",\"arguments\":\
             {{\"path\":\"{FIRST_CPU}\",\"property\":\"{feature}\"}}}}"
        )
    });
    let said = ask(qemu, accel, cpu, &asked, LIMIT)
        .map_err(|stderr| QemuError::DidNotStart { path: qemu.display().to_string(), stderr })?;
    let answers = String::from_utf8_lossy(&said);
    Ok(answers.lines().filter_map(|line| serde_json::from_str(line).ok()).any(
        |answer: serde_json::Value| {
            let of = answer["id"].as_str();
            of.is_some_and(|id| VIRTUALISATION.contains(&id)) && answer["return"] == true
        },
    ))
}

/// Lets QEMU set up a machine with one CPU of model `cpu`, without running it, answer `questions` (QMP), and end
/// within `limit`. What it answered.
///
/// # Errors
/// When QEMU refuses, dies or does not answer: its last words.
pub(crate) fn ask(
    qemu: &Path,
    accel: Accel,
    cpu: &str,
    questions: &[String],
    limit: Duration,
) -> Result<Vec<u8>, String> {
    let begun = Instant::now();
    let mut command = Command::new(qemu);
    command
        .args(["-S", "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"])
        .args(["-machine", "pc", "-m", "16", "-accel", accel.name(), "-cpu", cpu])
        .args(["-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // QEMU aborts where KVM refuses a register; a core file of it would help nobody.
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &none);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let mut said = Vec::new();
    let mut complaint = Vec::new();
    if let Some(mut stdin) = child.stdin.take() {
        // All commands at once: QEMU reads them in order. When it is gone already, its status
        // tells.
        let questions = questions.concat();
        let _ = stdin.write_all(
            format!("{{\"execute\":\"qmp_capabilities\"}}{questions}{{\"execute\":\"quit\"}}\n")
                .as_bytes(),
        );
        drain(
            [
                child.stdout.take().map(|f| (OwnedFd::from(f).into(), &mut said)),
                child.stderr.take().map(|f| (OwnedFd::from(f).into(), &mut complaint)),
            ],
            begun + limit,
        );
    }
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(1)),
            None => {
                // It may have ended just now; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not answer within {} ms", limit.as_millis()));
            }
        }
    };
    if status.success() && said.starts_with(b"{\"QMP\"") {
        return Ok(said);
    }
    Err(last_words(&complaint, status))
}

type Stream<'a> = Option<(std::fs::File, &'a mut Vec<u8>)>;

/// Reads both streams until they end or the deadline comes.
fn drain(mut streams: [Stream; 2], deadline: Instant) {
    // What QEMU has to say here is short; what a stranger may say is not kept.
    const KEPT: usize = 16 << 10;
    let mut buffer = [0u8; 4096];
    while streams.iter().any(Option::is_some) {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let open: Vec<usize> = (0..streams.len()).filter(|&i| streams[i].is_some()).collect();
        let ready: Vec<usize> = {
            let mut fds: Vec<PollFd> = streams
                .iter()
                .flatten()
                .map(|(file, _)| PollFd::new(file, PollFlags::IN))
                .collect();
            // An interrupted poll is tried again until the deadline.
            if poll(&mut fds, Some(&timeout)).is_err() {
                continue;
            }
            open.iter()
                .zip(&fds)
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|(&i, _)| i)
                .collect()
        };
        for i in ready {
            let Some((file, kept)) = &mut streams[i] else { continue };
            match file.read(&mut buffer) {
                Ok(n) if n > 0 => {
                    let room = KEPT.saturating_sub(kept.len()).min(n);
                    kept.extend_from_slice(&buffer[..room]);
                }
                _ => streams[i] = None,
            }
        }
    }
}

fn last_words(complaint: &[u8], status: ExitStatus) -> String {
    let text = String::from_utf8_lossy(complaint);
    let last = text.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or_default();
    let last: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
    if last.is_empty() { format!("it ended with {status}") } else { format!("{last} ({status})") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A program that is no QEMU, in a folder that lives as long as the first value.
    pub(crate) fn fake_qemu(script: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qemu");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_cpu_runs_guests_when_qemu_says_so_and_not_otherwise() {
        let answer = |svm: bool| {
            format!(
                "read line; echo '{{\"QMP\": {{}}}}'; echo '{{\"return\": {svm}, \"id\": \"svm\"}}'; \
                 echo '{{\"return\": true, \"id\": \"other\"}}'"
            )
        };
        for svm in [true, false] {
            let (_folder, qemu) = fake_qemu(&answer(svm));
            assert_eq!(runs_guests(&qemu, Accel::Tcg, "max").unwrap(), svm);
        }
        let (_folder, qemu) = fake_qemu("echo 'unable to find CPU model' >&2; exit 1");
        let e = runs_guests(&qemu, Accel::Tcg, "none-such").unwrap_err().to_string();
        assert!(e.contains("unable to find CPU model"), "{e}");
    }
}
