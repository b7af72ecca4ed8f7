//! Runs a matrix to its end: what comes next, what is tried again, what is taken over.
//!
//! A run is claimed in the store, then started, then its case is on disk, then the store says so;
//! whatever dies between two of these steps, the next process finds out which of them were done.
//! Boots are run by an [`Executor`]. Main type: [`Matrix`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kolumbo_case::file::{CaseState, HostFacts};
use kolumbo_case::matrix::{MatrixFile, Run};
use kolumbo_case::{Accel, BootSpec, CaseFile, VerdictKind};
use kolumbo_machine::host;
use serde::{Deserialize, Serialize};

use super::command::boot_command;
use super::executor::{Ended, Executor, ExecutorError, Finished, Job};
use super::history::History;
use super::identity::{self, IdentityError, Input};
use super::interval::wilson;
use super::plan::{Plan, PlanError, Request};
use super::signature::{is_healthy, signature};
use super::store::{Orphan, RunKey, Store, StoreError};
use super::summary::{Circumstances, Probe, summarise};
use crate::boot;
use crate::folder::Folder;
use crate::inputs;

/// Attempts at one run before it counts as an error. A host that fails three times in a row fails
/// the fourth time, too.
pub const MOST_ATTEMPTS: u32 = 3;
/// A cell that always gave one answer is settled when the other one is rarer than this, at the
/// matrix' confidence: 12 runs at 95%.
pub const RARE: f64 = 0.25;
/// Runs of a cell whose sickness no other run of the table shows.
const CONFIRMED: u32 = 2;
/// Longest wait for a run to end before the loop looks at everything else again.
const TICK: Duration = Duration::from_millis(200);
/// How often other hosts are told that this process lives.
const BEAT: Duration = Duration::from_secs(10);
/// Longest wait for other processes in the same folder between two looks.
const OTHERS: Duration = Duration::from_millis(300);
/// Runs that are written in one transaction at most.
const BATCH: usize = 256;

/// Why a matrix cannot go on. Everything that was done stays done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// What is asked for makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The executor.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// A file that went in is not what it was.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The disk is full.
    #[error("the disk is full ({reason}); make room and go on with --resume")]
    DiskFull {
        /// What could not be written.
        reason: String,
    },
    /// The folder.
    #[error("cannot make {path}")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What the store holds cannot be read.
    #[error("the matrix in {path} is damaged: {reason}; begin a new one with --out")]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another matrix than the one that is resumed.
    #[error(
        "{path} holds another matrix than the one that was described; leave the description out, \
             or begin a new one with --out"
    )]
    Other {
        /// The folder.
        path: PathBuf,
    },
}

/// How a matrix is run, beside what is in its cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Runs of each cell at most.
    pub repeat: u32,
    /// Level of intervals and of early stops.
    pub confidence: f64,
    /// A boot with splats is healthy.
    pub allow_splats: bool,
    /// A sickness that nobody expects and that one run of the table shows is booted once more before it
    /// is believed.
    #[serde(default)]
    pub confirm: bool,
    /// QEMU as the user named it.
    pub qemu: Option<String>,
    /// Further arguments for QEMU.
    pub qemu_args: Vec<String>,
}

/// How far a matrix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Runs that ended.
    pub done: usize,
    /// Runs that ended, are running or will be started.
    pub total: usize,
    /// Runs under way in this process.
    pub running: usize,
}

/// Is told what happens.
pub trait Watcher {
    /// A run ended.
    fn finished(&mut self, cell: &str, run: &Run, progress: Progress);
    /// Called several times a second.
    fn tick(&mut self, progress: Progress);
    /// Something worth a line.
    fn note(&mut self, text: &str);
}

/// A matrix in a folder.
#[derive(Debug)]
pub struct Matrix {
    dir: PathBuf,
    store: Store,
    plan: Plan,
    options: Options,
    circumstances: Circumstances,
    /// What every boot is given for [`Accel::Auto`].
    accel: Accel,
    cache: PathBuf,
    history: Option<History>,
}

impl Matrix {
    /// Begins a matrix in the new folder `dir`.
    pub fn begin(
        dir: &Path,
        request: Request,
        options: Options,
        cache: &Path,
    ) -> Result<Matrix, MatrixError> {
        let plan = Plan::new(request)?;
        let inputs = identity::inputs(&plan, cache)?;
        std::fs::create_dir_all(dir)
            .map_err(|source| MatrixError::Folder { path: dir.to_owned(), source })?;
        let started = inputs::rfc3339(SystemTime::now());
        let notes: Vec<((String, String), String)> =
            identity::notes(&plan, cache).into_iter().collect();
        let meta = [
            ("request", json(&plan.request)),
            ("options", json(&options)),
            ("inputs", json(&inputs)),
            ("notes", json(&notes)),
            ("started", started),
            ("host", json(&host::read_facts())),
        ];
        let meta: Vec<(&str, &str)> = meta.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let store = Store::create(dir, &meta)?;
        Matrix::with(dir, store, cache)
    }

    /// Goes on with the matrix in `dir`. Every file that went in has to be what it was.
    pub fn resume(dir: &Path, cache: &Path) -> Result<Matrix, MatrixError> {
        let matrix = Matrix::look(dir, cache)?;
        let before: Vec<Input> = matrix.meta("inputs")?;
        identity::compare(&before, &identity::inputs(&matrix.plan, cache)?)?;
        Ok(matrix)
    }

    /// Opens the matrix in `dir` to look at it, whatever became of the files that went in.
    pub fn look(dir: &Path, cache: &Path) -> Result<Matrix, MatrixError> {
        Matrix::with(dir, Store::open(dir)?, cache)
    }

    fn with(dir: &Path, store: Store, cache: &Path) -> Result<Matrix, MatrixError> {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let get = |key| read_meta(&dir, &store, key);
        let plan = Plan::new(serde(&dir, &get("request")?)?)?;
        let options = serde(&dir, &get("options")?)?;
        let notes: Vec<((String, String), String)> = serde(&dir, &get("notes")?)?;
        let host: HostFacts = serde(&dir, &get("host")?)?;
        let circumstances = Circumstances {
            started: get("started")?,
            state: CaseState::Running,
            confidence: 0.0,
            allow_splats: false,
            host,
            notes: notes.into_iter().collect::<BTreeMap<_, _>>(),
            gaps: Vec::new(),
        };
        let options: Options = options;
        let circumstances = Circumstances {
            confidence: options.confidence,
            allow_splats: options.allow_splats,
            ..circumstances
        };
        Ok(Matrix {
            dir,
            store,
            plan,
            options,
            circumstances,
            accel: Accel::Auto,
            cache: cache.to_owned(),
            history: History::open(cache),
        })
    }

    fn meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T, MatrixError> {
        serde(&self.dir, &read_meta(&self.dir, &self.store, key)?)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is asked for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How it is run.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Fails unless `request` describes this very matrix.
    pub fn must_be(&self, request: &Request) -> Result<(), MatrixError> {
        let ours = Request { added: Vec::new(), extra: Vec::new(), ..self.plan.request.clone() };
        let theirs = Plan::new(request.clone())?.request;
        let bare = |r: &Request| {
            let mut r = r.clone();
            let forget = |p: &mut String| p.clear();
            r.axes.iter_mut().for_each(|a| forget(&mut a.place));
            let patterns = r.exclude.iter_mut().chain(&mut r.include);
            patterns.chain(r.expect.iter_mut().map(|(p, _)| p)).for_each(|p| forget(&mut p.place));
            r
        };
        let without = |mut r: Request, added: &[(String, String)]| {
            for axis in &mut r.axes {
                axis.values.retain(|(l, _)| !added.contains(&(axis.name.clone(), l.clone())));
            }
            r
        };
        let ours = without(ours, &self.plan.request.added);
        if bare(&ours) == bare(&theirs) {
            Ok(())
        } else {
            Err(MatrixError::Other { path: self.dir.clone() })
        }
    }

    /// Raises the number of repeats; what is done counts.
    pub fn repeat(&mut self, repeat: u32) -> Result<(), MatrixError> {
        self.options.repeat = repeat;
        self.store.set_meta("options", &json(&self.options))?;
        Ok(())
    }

    /// Adds cells to the table, and values to its axes where they need some.
    pub fn extend(&mut self, probes: &[Probe]) -> Result<(), MatrixError> {
        let mut request = self.plan.request.clone();
        for probe in probes {
            for (axis, label) in request.axes.iter_mut().zip(&probe.labels) {
                if !axis.values.iter().any(|(l, _)| l == label) {
                    axis.values.push((label.clone(), label.clone()));
                    request.added.push((axis.name.clone(), label.clone()));
                }
            }
            request.extra.push(probe.labels.clone());
        }
        let plan = Plan::new(request)?;
        self.store.set_meta("request", &json(&plan.request))?;
        self.plan = plan;
        Ok(())
    }

    /// Runs everything that is not done. Returns whether the matrix is complete: false after an
    /// interruption.
    pub fn drive(
        &mut self,
        executor: &mut dyn Executor,
        interrupted: &AtomicBool,
        watcher: &mut dyn Watcher,
    ) -> Result<bool, MatrixError> {
        if executor.is_here() {
            self.choose_accel(watcher);
        }
        let mut drive = Drive::new(self);
        loop {
            drive.take_over_orphans(self)?;
            let mut queue = drive.queue(self)?;
            if queue.is_empty() && self.store.runs_of_others()? == 0 {
                return Ok(true);
            }
            if queue.is_empty() {
                watcher.tick(drive.progress(0, 0));
                if interrupted.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                std::thread::sleep(OTHERS);
                continue;
            }
            let outcome = drive.run(self, &mut queue, executor, interrupted, watcher);
            if outcome.is_err() || interrupted.load(Ordering::Relaxed) {
                // Results that came in meanwhile are kept where that is possible.
                let late = executor.stop();
                let kept = drive.keep(self, late, watcher, 0);
                outcome?;
                kept?;
                return Ok(false);
            }
        }
    }

    /// Everything that is known now.
    pub fn summary(&self) -> Result<MatrixFile, MatrixError> {
        let mut runs = Vec::new();
        self.store.for_each(|cell, run| runs.push((cell, run)))?;
        let command =
            |at: &[u32]| self.plan.spec(at).map_or_else(|_| String::new(), |s| boot_command(&s));
        let mut matrix = summarise(&self.plan, runs, command, &self.circumstances);
        let waiting =
            matrix.cells.iter().any(|c| c.answer == kolumbo_case::matrix::Answer::Pending);
        matrix.state = if waiting { CaseState::Running } else { CaseState::Done };
        Ok(matrix)
    }

    /// KVM is timed once for all boots, where the answer is the same for all of them.
    fn choose_accel(&mut self, watcher: &mut dyn Watcher) {
        let Ok(qemu) = kolumbo_machine::qemu::find(
            self.options.qemu.as_deref(),
            std::env::var_os("PATH").as_deref(),
        ) else {
            return;
        };
        if let Ok((Accel::Tcg, reason)) = boot::choose_accel(&BootSpec::default(), &qemu) {
            watcher.note(&format!("tcg ({reason})"));
            self.accel = Accel::Tcg;
        }
    }

    fn job(&self, cell: usize, key: RunKey) -> Result<Job, MatrixError> {
        let mut spec = self.plan.spec(&self.plan.cells[cell].at)?;
        if spec.accel == Accel::Auto {
            spec.accel = self.accel;
        }
        let out = self.dir.join(folder_of(&key));
        let request = boot::Request {
            spec,
            qemu: self.options.qemu.clone(),
            qemu_args: self.options.qemu_args.clone(),
            gdb: None,
            interactive: false,
            cache: self.cache.clone(),
        };
        Ok(Job { key, request, out })
    }

    /// A case as a line of the table.
    fn run_of(&self, key: &RunKey, case: &CaseFile) -> Run {
        let folder = folder_of(key);
        let out = Folder { path: self.dir.join(&folder), case: CaseFile::default() };
        let healthy =
            case.outcome.as_ref().is_some_and(|v| is_healthy(v.verdict, self.options.allow_splats));
        // A healthy guest's console tells nothing that the table needs.
        let console = if healthy { Vec::new() } else { out.console().unwrap_or_default() };
        let verdict = case.outcome.as_ref();
        let untested = self.untested(case).filter(|_| healthy);
        let reason = || verdict.map_or_else(String::new, |v| v.reason.clone());
        Run {
            repeat: key.repeat,
            attempt: key.attempt,
            folder,
            started: case.started.clone(),
            verdict: match untested {
                Some(_) => Some(VerdictKind::CannotTell),
                None => verdict.map(|v| v.verdict),
            },
            reason: untested.unwrap_or_else(reason),
            phase: verdict.map(|v| v.phase).unwrap_or_default(),
            signature: match verdict.map(|v| v.verdict) {
                None | Some(VerdictKind::CannotTell) => String::new(),
                Some(_) => signature(case, &console, self.options.allow_splats),
            },
            bug: None,
            wall_ms: case.wall_ms.unwrap_or(0),
            decided_ms: verdict.map_or(0, |v| v.decided_ms),
            timeline: case.timeline.clone(),
        }
    }

    /// Why a healthy guest tells nothing of its cell: where the number of CPUs is what is varied, it has to
    /// have that many.
    fn untested(&self, case: &CaseFile) -> Option<String> {
        let varied = self.plan.request.axes.iter().any(|axis| axis.name == "smp");
        boot::missing_cpus(case).filter(|_| varied)
    }
}

/// Where the case of a run lies in the matrix' folder.
pub fn folder_of(key: &RunKey) -> String {
    format!("cells/{}/{}-{}", key.cell, key.repeat, key.attempt)
}

/// A run that waits.
#[derive(Debug, Clone)]
struct Waiting {
    cell: usize,
    key: RunKey,
}

/// What is known of a cell while the matrix runs.
#[derive(Debug, Clone, Default)]
struct Tally {
    healthy: u32,
    sick: u32,
    /// Repeats that were judged.
    judged: Vec<u32>,
    /// Last attempt of each repeat that failed.
    failed: HashMap<u32, u32>,
    /// What the last sick run showed, unless it was expected.
    surprise: Option<String>,
}

/// One call of [`Matrix::drive`].
struct Drive {
    tallies: Vec<Tally>,
    /// Attempts of earlier calls: they do not count against this one.
    before: HashMap<RunKey, u32>,
    index: HashMap<String, usize>,
    expected_ms: Vec<u64>,
    done: usize,
    beat: Instant,
    first: bool,
}

impl Drive {
    fn new(matrix: &Matrix) -> Drive {
        let cells = &matrix.plan.cells;
        let names = cells.iter().map(|c| matrix.plan.name(&c.at));
        let expected = |at: &[u32]| {
            let spec = matrix.plan.spec(at).ok()?;
            matrix.history.as_ref()?.expected_ms(&spec)
        };
        Drive {
            tallies: vec![Tally::default(); cells.len()],
            before: HashMap::new(),
            index: names.zip(0..).collect(),
            expected_ms: cells.iter().map(|c| expected(&c.at).unwrap_or(0)).collect(),
            done: 0,
            beat: Instant::now(),
            first: true,
        }
    }

    fn progress(&self, waiting: usize, running: usize) -> Progress {
        Progress { done: self.done, total: self.done + waiting + running, running }
    }

    /// Runs of processes that died: what is finished on disk is taken as it is, the rest never
    /// happened.
    fn take_over_orphans(&self, matrix: &mut Matrix) -> Result<(), MatrixError> {
        for orphan in matrix.store.orphans()? {
            if matrix.store.take_over(&orphan)? {
                adopt_or_forget(matrix, &orphan)?;
            }
        }
        Ok(())
    }

    /// What is left to do: repeat by repeat, the longest first; when nothing else is, what has to be
    /// confirmed.
    fn queue(&mut self, matrix: &Matrix) -> Result<VecDeque<Waiting>, MatrixError> {
        let mut seen = self.take_stock(matrix)?;
        let repeat = matrix.options.repeat;
        let asked = self.left_to_do(matrix, |_| repeat)?;
        // A run that is under way elsewhere may show what looks like the only one of its kind.
        let confirm =
            matrix.options.confirm && asked.is_empty() && matrix.store.runs_of_others()? == 0;
        if !confirm {
            return Ok(asked);
        }
        seen.retain(|_, times| *times == 1);
        let alone = |tally: &Tally| tally.surprise.as_ref().is_some_and(|s| seen.contains_key(s));
        self.left_to_do(matrix, |tally| repeat.max(if alone(tally) { CONFIRMED } else { 0 }))
    }

    /// Counts what was done, and how often each sickness was seen.
    fn take_stock(&mut self, matrix: &Matrix) -> Result<HashMap<String, u32>, MatrixError> {
        self.tallies.fill(Tally::default());
        self.done = 0;
        let (tallies, index) = (&mut self.tallies, &self.index);
        let (done, expected) = (&mut self.done, &mut self.expected_ms);
        let allow_splats = matrix.options.allow_splats;
        let mut seen: HashMap<String, u32> = HashMap::new();
        matrix.store.for_each(|name, run| {
            let Some(cell) = index.get(&name) else { return };
            *done += 1;
            expected[*cell] = expected[*cell].max(run.wall_ms);
            let tally = &mut tallies[*cell];
            tally.count(&run, allow_splats);
            if run.signature.is_empty() {
                return;
            }
            *seen.entry(run.signature.clone()).or_default() += 1;
            let wanted = &matrix.plan.cells[*cell].expect;
            if run.verdict.is_some_and(|v| !wanted.contains(&v)) {
                tally.surprise = Some(run.signature);
            }
        })?;
        if std::mem::take(&mut self.first) {
            for (name, cell) in &self.index {
                for (repeat, attempt) in &self.tallies[*cell].failed {
                    let key = RunKey { cell: name.clone(), repeat: *repeat, attempt: 0 };
                    self.before.insert(key, *attempt);
                }
            }
        }
        Ok(seen)
    }

    /// The runs that are missing where each cell gets as many as `repeats` says.
    fn left_to_do(
        &self,
        matrix: &Matrix,
        repeats: impl Fn(&Tally) -> u32,
    ) -> Result<VecDeque<Waiting>, MatrixError> {
        let mut waiting: Vec<(u32, u64, u32, Waiting)> = Vec::new();
        for (cell, tally) in self.tallies.iter().enumerate() {
            if tally.is_settled(matrix.options.confidence) {
                continue;
            }
            let name = matrix.plan.name(&matrix.plan.cells[cell].at);
            let smp = matrix.plan.spec(&matrix.plan.cells[cell].at)?.smp;
            for repeat in (1..=repeats(tally)).filter(|r| !tally.judged.contains(r)) {
                let failed = tally.failed.get(&repeat).copied().unwrap_or(0);
                let key = RunKey { cell: name.clone(), repeat, attempt: 0 };
                let before = self.before.get(&key).copied().unwrap_or(0);
                if failed >= before + MOST_ATTEMPTS {
                    continue;
                }
                let key = RunKey { attempt: failed + 1, ..key };
                waiting.push((repeat, self.expected_ms[cell], smp, Waiting { cell, key }));
            }
        }
        waiting.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
        Ok(waiting.into_iter().map(|(.., w)| w).collect())
    }

    /// Starts what waits and keeps what ends, until nothing is left here.
    fn run(
        &mut self,
        matrix: &mut Matrix,
        queue: &mut VecDeque<Waiting>,
        executor: &mut dyn Executor,
        interrupted: &AtomicBool,
        watcher: &mut dyn Watcher,
    ) -> Result<(), MatrixError> {
        while !(queue.is_empty() && executor.running() == 0) {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            while let Some(next) = queue.front() {
                if self.tallies[next.cell].is_settled(matrix.options.confidence) {
                    queue.pop_front();
                    continue;
                }
                let job = matrix.job(next.cell, next.key.clone())?;
                if !executor.has_room(&job) {
                    break;
                }
                queue.pop_front();
                if claim(matrix, &job)? {
                    executor.start(job)?;
                }
            }
            let ended = executor.wait(TICK)?;
            self.keep(matrix, ended, watcher, queue.len() + executor.running())?;
            watcher.tick(self.progress(queue.len(), executor.running()));
            if self.beat.elapsed() > BEAT {
                self.beat = Instant::now();
                matrix.store.beat()?;
            }
        }
        Ok(())
    }

    /// Writes down what ended. Failures come again when the queue is made the next time.
    fn keep(
        &mut self,
        matrix: &mut Matrix,
        ended: Vec<Finished>,
        watcher: &mut dyn Watcher,
        left: usize,
    ) -> Result<(), MatrixError> {
        let mut full = None;
        let mut runs: Vec<(RunKey, Run)> = Vec::new();
        for Finished { key, ended } in ended {
            match ended {
                Ended::Case(case) => {
                    let run = matrix.run_of(&key, &case);
                    if let (Some(history), Some(cell)) =
                        (&matrix.history, self.index.get(&key.cell))
                        && let Ok(spec) = matrix.plan.spec(&matrix.plan.cells[*cell].at)
                    {
                        history.keep(&spec, run.wall_ms);
                    }
                    runs.push((key, run));
                }
                Ended::Failed { reason, disk_full: true } => {
                    forget(matrix, &key)?;
                    full = Some(reason);
                }
                Ended::Failed { reason, disk_full: false } => {
                    let run = Run {
                        repeat: key.repeat,
                        attempt: key.attempt,
                        folder: folder_of(&key),
                        started: inputs::rfc3339(SystemTime::now()),
                        reason,
                        ..Run::default()
                    };
                    runs.push((key, run));
                }
                Ended::Interrupted => forget(matrix, &key)?,
            }
        }
        for batch in runs.chunks(BATCH) {
            matrix.store.finish(batch)?;
        }
        for (key, run) in &runs {
            if let Some(cell) = self.index.get(&key.cell) {
                self.tallies[*cell].count(run, matrix.options.allow_splats);
            }
            self.done += 1;
            watcher.finished(&key.cell, run, self.progress(left, 0));
        }
        match full {
            Some(reason) => Err(MatrixError::DiskFull { reason }),
            None => Ok(()),
        }
    }
}

impl Tally {
    fn count(&mut self, run: &Run, allow_splats: bool) {
        match run.verdict {
            None | Some(VerdictKind::CannotTell) => {
                let last = self.failed.entry(run.repeat).or_default();
                *last = (*last).max(run.attempt);
            }
            Some(verdict) => {
                if is_healthy(verdict, allow_splats) {
                    self.healthy += 1;
                } else {
                    self.sick += 1;
                }
                self.judged.push(run.repeat);
            }
        }
    }

    /// Whether more runs would not change the answer. A cell that showed both answers is run to the
    /// end: its rate is what is asked for.
    fn is_settled(&self, confidence: f64) -> bool {
        let judged = self.healthy + self.sick;
        let (low, high) = wilson(self.sick, judged, confidence);
        match (self.healthy, self.sick) {
            (0, 0) => false,
            (_, 0) => high < RARE,
            (0, _) => low > 1.0 - RARE,
            _ => false,
        }
    }
}

/// Claims a run and makes way for its folder; false when it is somebody else's.
fn claim(matrix: &mut Matrix, job: &Job) -> Result<bool, MatrixError> {
    let folder = folder_of(&job.key);
    if !matrix.store.claim(&job.key, &folder)? {
        return Ok(false);
    }
    if job.out.exists() {
        // The claim of whoever made it is lost (a power failure): its case counts if it is whole.
        let orphan = Orphan { key: job.key.clone(), folder };
        adopt_or_forget(matrix, &orphan)?;
        return matrix.store.claim(&job.key, &orphan.folder).map_err(MatrixError::from);
    }
    Ok(true)
}

/// A run that is ours but was begun by somebody who is gone.
fn adopt_or_forget(matrix: &mut Matrix, orphan: &Orphan) -> Result<(), MatrixError> {
    let path = matrix.dir.join(&orphan.folder);
    let finished = Folder::read(&path).ok().filter(|f| {
        // One that was interrupted or failed for our own reasons is run again.
        let told = f.case.outcome.as_ref().is_some_and(|v| v.verdict != VerdictKind::CannotTell);
        f.case.state == CaseState::Done && f.case.unkept.is_none() && told
    });
    match finished {
        Some(folder) => {
            let run = matrix.run_of(&orphan.key, &folder.case);
            matrix.store.finish(&[(orphan.key.clone(), run)])?;
            Ok(())
        }
        None => forget(matrix, &orphan.key),
    }
}

fn forget(matrix: &Matrix, key: &RunKey) -> Result<(), MatrixError> {
    let path = matrix.dir.join(folder_of(key));
    match std::fs::remove_dir_all(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(MatrixError::Folder { path, source });
        }
        _ => {}
    }
    matrix.store.abandon(key)?;
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn read_meta(dir: &Path, store: &Store, key: &str) -> Result<String, MatrixError> {
    store.meta(key)?.ok_or_else(|| MatrixError::Damaged {
        path: dir.to_owned(),
        reason: format!("its database has no '{key}'"),
    })
}

fn serde<T: serde::de::DeserializeOwned>(dir: &Path, text: &str) -> Result<T, MatrixError> {
    serde_json::from_str(text)
        .map_err(|e| MatrixError::Damaged { path: dir.to_owned(), reason: e.to_string() })
}
