//! Boots on a cluster that Slurm manages.
//!
//! A batch of runs becomes one job array: a script of plain `kolumbo boot` commands, one for each
//! index. What became of them is read from the case folders, which every node has to see; the
//! queue is asked only whether a job is still there, so no accounting is needed. A run that Slurm
//! starts again after a lost node gets a folder of its own for each start.

// Slurm is reached by its programs; no other part of this crate starts a process.
#![allow(clippy::disallowed_methods)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kolumbo_case::file::CaseState;
use kolumbo_machine::qemu::quote;

use super::command::boot_arguments;
use super::executor::{Ended, Executor, ExecutorError, Finished, Job};
use crate::folder::Folder;

/// Slurm's default for the largest array (`MaxArraySize` is 1001).
const LARGEST_ARRAY: usize = 1000;
/// How often the queue is asked. Case folders are looked at in every round.
const ASK: Duration = Duration::from_secs(2);
/// A job that left the queue without a case gets so long for its files to arrive: NFS clients may
/// look at attributes that are a minute old.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest batch that is gathered before it is submitted.
const GATHER: Duration = Duration::from_millis(200);

/// Hands boots to Slurm.
#[derive(Debug)]
pub struct Slurm {
    /// Folder for scripts and output, seen by every node.
    dir: PathBuf,
    /// The program to run on the nodes.
    kolumbo: PathBuf,
    /// Further arguments for `sbatch`.
    sbatch_args: Vec<String>,
    /// Most jobs of an array that run at once.
    at_once: Option<u32>,
    gathered: Vec<Job>,
    submitted: Vec<Submitted>,
    batches: u32,
    asked: Option<Instant>,
    queue: HashSet<String>,
}

#[derive(Debug)]
struct Submitted {
    job: Job,
    /// `JOBID_INDEX`.
    name: String,
    /// When it was found to have left the queue.
    left: Option<Instant>,
}

impl Slurm {
    /// An executor that keeps its scripts in `dir` and runs `kolumbo` on the nodes.
    pub fn new(
        dir: &Path,
        kolumbo: &Path,
        sbatch_args: Vec<String>,
        at_once: Option<u32>,
    ) -> Slurm {
        Slurm {
            dir: dir.to_owned(),
            kolumbo: kolumbo.to_owned(),
            sbatch_args,
            at_once,
            gathered: Vec::new(),
            submitted: Vec::new(),
            batches: 0,
            asked: None,
            queue: HashSet::new(),
        }
    }

    fn submit(&mut self) -> Result<(), ExecutorError> {
        while !self.gathered.is_empty() {
            let rest = self.gathered.split_off(self.gathered.len().min(LARGEST_ARRAY));
            let batch = std::mem::replace(&mut self.gathered, rest);
            let id = self.submit_array(&batch)?;
            self.submitted.extend(batch.into_iter().enumerate().map(|(index, job)| Submitted {
                job,
                name: format!("{id}_{index}"),
                left: None,
            }));
            self.asked = None;
        }
        Ok(())
    }

    fn submit_array(&mut self, batch: &[Job]) -> Result<String, ExecutorError> {
        self.batches += 1;
        fs::create_dir_all(&self.dir).map_err(|source| io(&self.dir, source))?;
        let stem = format!("batch-{}-{}", std::process::id(), self.batches);
        let path = self.dir.join(format!("{stem}.sh"));
        fs::write(&path, script(&self.kolumbo, batch)).map_err(|source| io(&path, source))?;
        let throttle = self.at_once.map_or_else(String::new, |n| format!("%{n}"));
        let cpus = batch.iter().map(|j| j.request.spec.smp).max().unwrap_or(1);
        let output = Command::new("sbatch")
            .arg("--parsable")
            .arg(format!("--array=0-{}{throttle}", batch.len() - 1))
            .arg(format!("--cpus-per-task={cpus}"))
            .args(["--job-name=kolumbo", "--requeue", "--no-kill"])
            .arg(format!("--output={}", self.dir.join(format!("{stem}-%a.out")).display()))
            .args(&self.sbatch_args)
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| batch_error("run sbatch", &e.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // `JOBID` or `JOBID;CLUSTER`.
        let id = text.trim().split(';').next().unwrap_or_default();
        if !output.status.success() || id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(batch_error(
                "submit a job array",
                &String::from_utf8_lossy(&output.stderr),
            ));
        }
        Ok(id.to_owned())
    }

    /// Asks the queue which jobs are still there. A queue that does not answer changes nothing.
    fn ask(&mut self) {
        if self.asked.is_some_and(|at| at.elapsed() < ASK) {
            return;
        }
        self.asked = Some(Instant::now());
        let ids = self.job_ids();
        if ids.is_empty() {
            return;
        }
        let Ok(output) = Command::new("squeue")
            .args(["--noheader", "--array", "--states=all", "--format=%i %T", "--jobs"])
            .arg(ids.join(","))
            .stdin(Stdio::null())
            .output()
        else {
            return;
        };
        if !output.status.success() {
            // Jobs that are all gone are an error to squeue, which says so in these words.
            let said = String::from_utf8_lossy(&output.stderr).to_ascii_lowercase();
            if said.contains("invalid job id") {
                self.queue.clear();
                self.mark_left();
            }
            return;
        }
        self.queue = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(_, state)| is_alive(state.trim()))
            .map(|(name, _)| name.to_owned())
            .collect();
        self.mark_left();
    }

    /// The jobs that are waited for, each once.
    fn job_ids(&self) -> Vec<String> {
        let ids = self.submitted.iter().filter_map(|s| s.name.split('_').next());
        let mut ids: Vec<String> = ids.filter(|id| !id.is_empty()).map(str::to_owned).collect();
        ids.dedup();
        ids
    }

    fn mark_left(&mut self) {
        for job in &mut self.submitted {
            if self.queue.contains(&job.name) {
                job.left = None;
            } else {
                job.left.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// Whether a job in this state may still come to an end of its own.
fn is_alive(state: &str) -> bool {
    const OVER: &[&str] = &[
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ];
    !OVER.contains(&state)
}

/// The batch script: the one place where a shell sees our words, each of them quoted.
fn script(kolumbo: &Path, batch: &[Job]) -> String {
    let mut text =
        "#!/bin/sh\n# One boot for each index of the array.\ncase $SLURM_ARRAY_TASK_ID in\n"
            .to_owned();
    let program = quote(&kolumbo.display().to_string());
    for (index, job) in batch.iter().enumerate() {
        let request = &job.request;
        let mut between: Vec<String> = vec!["--quiet".into()];
        if let Some(qemu) = &request.qemu {
            between.extend(["--qemu".into(), qemu.clone()]);
        }
        if !request.qemu_args.is_empty() {
            let joined = request.qemu_args.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" ");
            between.extend(["--qemu-opts".into(), joined]);
        }
        // Filled in by the shell below: each start of a job writes to a folder of its own.
        // No argument can hold the marker.
        let marker = "\0";
        between.extend(["--out".into(), marker.into()]);
        let out = quote(&job.out.display().to_string());
        let words = boot_arguments(&request.spec, &between)
            .iter()
            .map(|word| match word == marker {
                true => format!("{out}-\"$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}\""),
                false => quote(word),
            })
            .collect::<Vec<_>>()
            .join(" ");
        text.push_str(&format!("{index}) exec {program} {words} ;;\n"));
    }
    text.push_str("esac\n");
    text
}

/// A finished case of one of the starts of a job.
fn finished_case(job: &Job) -> Option<(PathBuf, Folder)> {
    let parent = job.out.parent()?;
    let stem = format!("{}-", job.out.file_name()?.to_string_lossy());
    fs::read_dir(parent).ok()?.filter_map(Result::ok).find_map(|entry| {
        let name = entry.file_name();
        let start = name.to_string_lossy().strip_prefix(&stem)?.to_owned();
        if !start.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return None;
        }
        let folder = Folder::read(&entry.path()).ok()?;
        (folder.case.state == CaseState::Done).then(|| (entry.path(), folder))
    })
}

impl Executor for Slurm {
    fn has_room(&self, _: &Job) -> bool {
        // Slurm keeps the queue.
        true
    }

    fn start(&mut self, job: Job) -> Result<(), ExecutorError> {
        if finished_case(&job).is_some() {
            // Handed over by a process that died; the cluster went on.
            self.submitted.push(Submitted { job, name: String::new(), left: None });
        } else {
            self.gathered.push(job);
        }
        Ok(())
    }

    fn is_here(&self) -> bool {
        false
    }

    fn wait(&mut self, longest: Duration) -> Result<Vec<Finished>, ExecutorError> {
        self.submit()?;
        self.ask();
        let mut finished = Vec::new();
        let mut still = Vec::new();
        for submitted in std::mem::take(&mut self.submitted) {
            match finished_case(&submitted.job) {
                Some((path, folder)) => {
                    // The case gets the name that the table knows it by.
                    let ended = match fs::rename(&path, &submitted.job.out) {
                        Ok(()) => Ended::with_case(folder.case),
                        Err(e) => Ended::Failed {
                            reason: format!("cannot move {}: {e}", path.display()),
                            disk_full: false,
                        },
                    };
                    finished.push(Finished { key: submitted.job.key, ended });
                }
                None if submitted.left.is_some_and(|at| at.elapsed() > PATIENCE) => {
                    let reason = format!("Slurm's job {} ended without a case", submitted.name);
                    let ended = Ended::Failed { reason, disk_full: false };
                    finished.push(Finished { key: submitted.job.key, ended });
                }
                None => still.push(submitted),
            }
        }
        self.submitted = still;
        if finished.is_empty() {
            std::thread::sleep(longest.min(GATHER));
        }
        Ok(finished)
    }

    fn running(&self) -> usize {
        self.gathered.len() + self.submitted.len()
    }

    fn stop(&mut self) -> Vec<Finished> {
        let ids = self.job_ids();
        if !ids.is_empty() {
            // Whether it worked is seen by whoever resumes: a case that was finished counts.
            let _ = Command::new("scancel").args(&ids).stdin(Stdio::null()).output();
        }
        let gathered = std::mem::take(&mut self.gathered).into_iter();
        let submitted = std::mem::take(&mut self.submitted).into_iter().map(|s| s.job);
        gathered
            .chain(submitted)
            .map(|job| {
                let ended = match finished_case(&job) {
                    Some((path, folder)) if fs::rename(&path, &job.out).is_ok() => {
                        Ended::Case(Box::new(folder.case))
                    }
                    _ => Ended::Interrupted,
                };
                Finished { key: job.key, ended }
            })
            .collect()
    }
}

fn io(path: &Path, source: std::io::Error) -> ExecutorError {
    ExecutorError::Io { path: path.to_owned(), source }
}

fn batch_error(doing: &str, said: &str) -> ExecutorError {
    let reason = said.split_whitespace().collect::<Vec<_>>().join(" ");
    ExecutorError::Batch { doing: doing.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Request;
    use crate::matrix::store::RunKey;
    use kolumbo_case::BootSpec;

    fn job(cell: &str, append: &str) -> Job {
        let spec = BootSpec {
            kernel: "/k".into(),
            smp: 2,
            memory: 1 << 30,
            append: vec![append.into()],
            timeout_ms: 1000,
            ..BootSpec::default()
        };
        Job {
            key: RunKey { cell: cell.into(), repeat: 1, attempt: 1 },
            request: Request { spec, ..Request::default() },
            out: format!("/m/cells/{cell}/1-1").into(),
        }
    }

    #[test]
    fn the_script_quotes_every_word() {
        let text = script(Path::new("/usr/bin/kolumbo"), &[job("a", "x"), job("b c", "$(rm) 'y'")]);
        assert_eq!(
            text,
            "#!/bin/sh\n\
             # One boot for each index of the array.\n\
             case $SLURM_ARRAY_TASK_ID in\n\
             0) exec /usr/bin/kolumbo boot /k -s 2 -m 1G -t 1000ms --append x --quiet --out \
             /m/cells/a/1-1-\"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}\" ;;\n\
             1) exec /usr/bin/kolumbo boot /k -s 2 -m 1G -t 1000ms --append '$(rm) '\\''y'\\''' \
             --quiet --out '/m/cells/b c/1-1'-\"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}\" ;;\n\
             esac\n"
        );
    }

    #[test]
    fn states_of_slurm() {
        for state in ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED"] {
            assert!(is_alive(state), "{state}");
        }
        for state in ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"] {
            assert!(!is_alive(state), "{state}");
        }
    }
}
