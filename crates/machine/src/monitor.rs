//! kolumbo's own monitor as a process of this machine, on its KVM.
//!
//! Starts it over inherited descriptors, hands on its lines and ends it. Nothing is understood here of
//! what they say. It dies with the thread that started it. Main type: [`Monitor`].

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::live::{self, LineReader, MachineError, system};

/// A monitor that runs.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    argv: Vec<String>,
    lines: LineReader,
    /// Whatever it says here is for nobody; the pipe is kept so that it can say it.
    _stderr: OwnedFd,
    started: Instant,
}

impl Monitor {
    /// Starts `program` with the arguments that `arguments` makes of the paths of `files`, which are
    /// kept in memory only.
    ///
    /// # Errors
    /// When the system refuses memory, pipes or the process.
    pub fn start<const N: usize>(
        program: &Path,
        files: [&[u8]; N],
        arguments: impl FnOnce([&str; N]) -> Vec<String>,
    ) -> Result<Monitor, MachineError> {
        let mut inherited: Vec<OwnedFd> = Vec::new();
        let mut paths: [String; N] = std::array::from_fn(|_| String::new());
        for (path, bytes) in paths.iter_mut().zip(files) {
            let file: File =
                live::memory_file(bytes).map_err(system("put the guest's files into memory"))?;
            *path = format!("/proc/self/fd/{}", file.as_raw_fd());
            inherited.push(file.into());
        }
        let mut argv = vec![program.display().to_string()];
        argv.extend(arguments(std::array::from_fn(|i| paths[i].as_str())));
        let (out, out_monitor) = live::pipe().map_err(system("make a pipe for the monitor"))?;
        let (stderr, stderr_monitor) =
            live::pipe().map_err(system("make a pipe for the monitor's errors"))?;
        let started = Instant::now();
        let child = live::spawn(&argv, &inherited, out_monitor, stderr_monitor)
            .map_err(system("start the monitor"))?;
        let lines = LineReader::new(out);
        Ok(Monitor { child, argv, lines, _stderr: stderr, started })
    }

    /// Program and arguments as they were run.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Milliseconds since it was started.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for lines until `until`. None once the monitor has ended and said everything.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn step(&mut self, until: Instant) -> Result<Option<Vec<String>>, MachineError> {
        if !self.lines.open {
            return Ok(None);
        }
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.lines.file, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(system("wait for the monitor")(e.into())),
        }
        Ok(Some(self.lines.read()))
    }

    /// Ends it.
    pub fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        // What has ended already cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn files_are_handed_over_and_lines_come_back() {
        let script = |[first, second]: [&str; 2]| {
            let text = format!("cat {first} {second}; echo; exec sleep 0");
            vec!["-c".to_owned(), text]
        };
        let files = [&b"one\n"[..], b"two"];
        let mut monitor = Monitor::start(Path::new("/bin/sh"), files, script).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut lines = Vec::new();
        while let Some(more) = monitor.step(deadline).unwrap() {
            lines.extend(more);
        }
        assert_eq!(lines, ["one", "two"]);
        monitor.end();
    }

    #[test]
    fn a_program_that_is_not_there_is_said() {
        let e = Monitor::start(Path::new("/nowhere/vmm"), [], |_| Vec::new()).unwrap_err();
        assert!(e.to_string().contains("start the monitor"), "{e}");
    }
}
