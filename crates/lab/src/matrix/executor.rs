//! Where boots are run.
//!
//! An [`Executor`] takes jobs and gives back what became of them; [`Local`] runs them on threads of
//! this process, `slurm` hands them to a cluster. Neither knows which job comes next, nor why.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kolumbo_case::{Accel, CaseFile, VerdictKind};

use crate::boot::{self, BootError, Observer, Status};
use crate::folder::FolderError;
use crate::inputs;
use crate::matrix::store::RunKey;

/// One run of one cell.
#[derive(Debug, Clone)]
pub struct Job {
    /// Which one.
    pub key: RunKey,
    /// What to boot.
    pub request: boot::Request,
    /// The case folder, which does not exist yet.
    pub out: PathBuf,
}

/// What became of a job.
#[derive(Debug)]
pub struct Finished {
    /// Which one.
    pub key: RunKey,
    /// How it ended.
    pub ended: Ended,
}

/// How a job ended.
#[derive(Debug)]
pub enum Ended {
    /// There is a case, which may say that nothing could be told.
    Case(Box<CaseFile>),
    /// kolumbo, QEMU or the host failed.
    Failed {
        /// What failed, on one line.
        reason: String,
        /// No room is left on the disk: the next job would fail as well.
        disk_full: bool,
    },
    /// It was stopped on request: it never happened.
    Interrupted,
}

impl Ended {
    /// A case counts once all of it is on the disk: what a table says of a run is read from there.
    pub(super) fn with_case(case: CaseFile) -> Ended {
        match case.unkept {
            Some(reason) => Ended::Failed { reason, disk_full: true },
            None => Ended::Case(Box::new(case)),
        }
    }
}

/// Why an executor cannot go on at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// A thread could not be started.
    #[error("cannot start a thread for a boot")]
    Thread(#[source] std::io::Error),
    /// The batch system.
    #[error("cannot {doing}: {reason}")]
    Batch {
        /// What was being done.
        doing: String,
        /// What the batch system said.
        reason: String,
    },
    /// A file for the batch system.
    #[error("cannot write {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Runs jobs.
pub trait Executor {
    /// Whether the job could start now.
    fn has_room(&self, job: &Job) -> bool;
    /// Takes a job. It may start at once or with the next [`Executor::wait`].
    fn start(&mut self, job: Job) -> Result<(), ExecutorError>;
    /// What ended; waits at most `longest` for the first.
    fn wait(&mut self, longest: Duration) -> Result<Vec<Finished>, ExecutorError>;
    /// Whether boots run on this host, so that what is found out here holds for them.
    fn is_here(&self) -> bool {
        true
    }
    /// Number of jobs that were taken and have not ended.
    fn running(&self) -> usize;
    /// Ends every job and gives back what became of them.
    fn stop(&mut self) -> Vec<Finished>;
}

/// How much of this host may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// At most so many guests at once, whatever they need.
    Guests(usize),
    /// As many as fit.
    Host {
        /// CPUs of the host. Under TCG every virtual CPU takes one.
        cpus: usize,
        /// Memory in bytes that is free.
        memory: u64,
    },
}

impl Room {
    /// The CPUs and the free memory of this host.
    pub fn of_host() -> Room {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        });
        Room::Host { cpus, memory: memory.map_or(u64::MAX, |kib| kib << 10) }
    }
}

/// Memory that QEMU needs beside the guest's own: its code, the translation cache of TCG (a
/// quarter of the guest's memory by default, at most 1 GiB).
fn overhead(memory: u64) -> u64 {
    (64 << 20) + (memory / 4).min(1 << 30)
}

/// Runs boots on threads of this process. QEMU dies with the thread that started it.
#[derive(Debug)]
pub struct Local {
    room: Room,
    running: Vec<(RunKey, usize, u64)>,
    stop: Arc<AtomicBool>,
    sender: Sender<Finished>,
    receiver: Receiver<Finished>,
}

impl Local {
    /// An executor that uses so much of this host.
    pub fn new(room: Room) -> Local {
        let (sender, receiver) = channel();
        Local { room, running: Vec::new(), stop: Arc::default(), sender, receiver }
    }

    /// CPUs and memory that a job takes.
    fn needs(&self, job: &Job) -> (usize, u64) {
        let spec = &job.request.spec;
        // A guest inside another one has what that one has.
        let (smp, memory) =
            spec.host.as_ref().map_or((spec.smp, spec.memory), |host| (host.smp, host.memory));
        // With one host thread for all of them, virtual CPUs take one CPU together.
        let cpus = match spec.accel {
            Accel::TcgSingle => 1,
            _ => usize::try_from(smp).unwrap_or(usize::MAX),
        };
        (cpus, memory.saturating_add(overhead(memory)))
    }

    fn taken(&mut self, finished: Finished) -> Finished {
        self.running.retain(|(key, ..)| *key != finished.key);
        finished
    }
}

impl Executor for Local {
    fn has_room(&self, job: &Job) -> bool {
        if self.running.is_empty() {
            // A guest that is larger than the host runs alone.
            return true;
        }
        match self.room {
            Room::Guests(most) => self.running.len() < most,
            Room::Host { cpus, memory } => {
                let (more_cpus, more_memory) = self.needs(job);
                let used = self.running.iter().map(|(_, c, _)| c).sum::<usize>();
                let filled = self.running.iter().map(|(.., m)| m).sum::<u64>();
                used.saturating_add(more_cpus) <= cpus
                    && filled.saturating_add(more_memory) <= memory
            }
        }
    }

    fn start(&mut self, job: Job) -> Result<(), ExecutorError> {
        let (cpus, memory) = self.needs(&job);
        let (sender, stop) = (self.sender.clone(), Arc::clone(&self.stop));
        let key = job.key.clone();
        std::thread::Builder::new()
            .name("boot".to_owned())
            .spawn(move || {
                let ended = run(&job, &stop);
                // Nobody listens any more when the matrix was given up.
                let _ = sender.send(Finished { key: job.key, ended });
            })
            .map_err(ExecutorError::Thread)?;
        self.running.push((key, cpus, memory));
        Ok(())
    }

    fn wait(&mut self, longest: Duration) -> Result<Vec<Finished>, ExecutorError> {
        let first = match self.receiver.recv_timeout(longest) {
            Ok(finished) => finished,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Ok(Vec::new());
            }
        };
        let mut all = vec![self.taken(first)];
        while let Ok(more) = self.receiver.try_recv() {
            let more = self.taken(more);
            all.push(more);
        }
        Ok(all)
    }

    fn running(&self) -> usize {
        self.running.len()
    }

    fn stop(&mut self) -> Vec<Finished> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while !self.running.is_empty() {
            let Ok(finished) = self.receiver.recv() else { break };
            let finished = self.taken(finished);
            all.push(finished);
        }
        all
    }
}

fn run(job: &Job, stop: &AtomicBool) -> Ended {
    let booted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        boot::boot(&job.request, &job.out, stop, &mut Deaf)
    }));
    match booted {
        Ok(Ok(case)) => {
            let told = case.outcome.as_ref().is_some_and(|v| v.verdict != VerdictKind::CannotTell);
            if stop.load(Ordering::Relaxed) && !told {
                return Ended::Interrupted;
            }
            Ended::with_case(case)
        }
        Ok(Err(error)) => {
            Ended::Failed { reason: inputs::chain(&error), disk_full: is_disk_full(&error) }
        }
        Err(_) => Ended::Failed {
            reason: "a defect of kolumbo: the thread of this boot panicked".to_owned(),
            disk_full: false,
        },
    }
}

fn is_disk_full(error: &BootError) -> bool {
    match error {
        BootError::Folder(FolderError::Io { source, .. }) => {
            source.kind() == std::io::ErrorKind::StorageFull
        }
        _ => false,
    }
}

/// Nobody watches a single boot of many.
struct Deaf;

impl Observer for Deaf {
    fn console(&mut self, _: &[u8]) {}
    fn status(&mut self, _: &Status) {}
    fn console_input(&mut self, _: Box<dyn std::io::Write + Send>) {}
    fn note(&mut self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use kolumbo_case::BootSpec;

    fn job(cell: &str, smp: u32, memory: u64) -> Job {
        let spec =
            BootSpec { kernel: "/nowhere/bzImage".into(), smp, memory, ..BootSpec::default() };
        Job {
            key: RunKey { cell: cell.into(), repeat: 1, attempt: 1 },
            request: boot::Request { spec, ..boot::Request::default() },
            out: std::env::temp_dir()
                .join(format!("kolumbo-executor-{}-{cell}", std::process::id())),
        }
    }

    #[test]
    fn virtual_cpus_and_memory_are_counted() {
        let mut local = Local::new(Room::Host { cpus: 4, memory: 4 << 30 });
        let fits = |local: &Local, smp, memory| local.has_room(&job("x", smp, memory));
        assert!(fits(&local, 16, 64 << 30), "alone everything runs");
        local.running.push((job("a", 2, 1 << 30).key, 2, 1 << 30));
        assert!(fits(&local, 2, 1 << 30));
        assert!(!fits(&local, 3, 1 << 30));
        assert!(!fits(&local, 1, 3 << 30));
        local.room = Room::Guests(2);
        assert!(fits(&local, 64, 64 << 30));
        local.running.push((job("b", 1, 1).key, 1, 1));
        assert!(!fits(&local, 1, 1));
    }

    #[test]
    fn a_case_that_the_disk_did_not_take_is_none() {
        let whole = CaseFile::default();
        assert!(matches!(Ended::with_case(whole.clone()), Ended::Case(_)));
        let cut = CaseFile { unkept: Some("cannot write console.log".to_owned()), ..whole };
        let Ended::Failed { reason, disk_full: true } = Ended::with_case(cut) else {
            panic!("it counted")
        };
        assert_eq!(reason, "cannot write console.log");
    }

    #[test]
    fn a_kernel_that_is_not_there_is_a_failure_of_the_host() {
        let mut local = Local::new(Room::Guests(1));
        let job = job("a", 1, 1 << 30);
        let out = job.out.clone();
        local.start(job).unwrap();
        let finished = local.wait(Duration::from_secs(20)).unwrap();
        assert_eq!(local.running(), 0);
        let Ended::Failed { reason, disk_full: false } = &finished[0].ended else {
            panic!("{finished:?}")
        };
        assert!(reason.contains("/nowhere/bzImage"), "{reason}");
        std::fs::remove_dir_all(out).unwrap();
    }
}
