//! One run of a case, from source to proof. Every stage is kept on disk when it is done, and found there again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use kolumbo_case::file::CaseState;
use kolumbo_case::{CASEBOOK_FORMAT_VERSION, CaseRun};
use kolumbo_casebook::kernels::{self, KernelsError, Workplace};
use kolumbo_casebook::shelf::{self, ShelfError, Shelved};
use kolumbo_lab::boot::BootError;
use kolumbo_lab::inputs::rfc3339;
use kolumbo_source::fetch;
use rustix::fs::{FlockOperation, flock};

use super::args::RunArgs;
use super::screen::Screen;
use super::{boots, page, proofs};
use crate::boot::{cache_folder, state_folder};
use crate::exit::Outcome;

/// What is known of the run, in its folder.
pub(crate) const RUN_FILE: &str = "run.json";
/// The files of the case, as they were run.
const CASE_FILES: &str = "case";
/// Held as long as the run lives.
const LOCK_FILE: &str = "run.lock";
/// Largest `run.json` that is read.
const LARGEST: u64 = 64 << 20;

pub(crate) fn run(args: &RunArgs) -> Result<Outcome> {
    let begun = Instant::now();
    let case = shelf::find(&args.name)?;
    boots::check(&case.recipe).map_err(ShelfError::from)?;
    if !args.build_only {
        boots::check_host(&case.recipe, args.qemu.as_deref())?;
    }
    let cache = cache_folder()?;
    let mut screen = Screen::new(args.json);
    let source = args.source.as_ref().map(|s| fs::canonicalize(s).unwrap_or_else(|_| s.clone()));
    let key = case.key(source.as_deref());
    let (dir, _lock, mut run) = open(args, &case, &key, &screen)?;
    let before = run.wall_ms;
    let result = stages(args, &case, source.as_deref(), &dir, &cache, &mut run, &mut screen);
    screen.finish();
    let elapsed = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    run.wall_ms = before.saturating_add(elapsed);
    save(&dir, &run)?;
    if result? == Stage::Interrupted {
        screen.say(&format!("cut off; the same command goes on ({})", dir.display()));
        return Ok(Outcome::Unknown);
    }
    page::write(&run, &dir, args.html.as_deref())?;
    if args.build_only {
        return Ok(Outcome::Done);
    }
    page::print(&run, args.json)?;
    screen.say(&format!("the run is in {}", dir.display()));
    Ok(outcome(&run))
}

/// A cell that could not be judged says nothing about the case; everything else is for or against it.
fn outcome(run: &CaseRun) -> Outcome {
    if run.is_as_expected() {
        Outcome::Done
    } else if run.cells.iter().any(|c| !c.judged) {
        Outcome::Unknown
    } else {
        Outcome::Unexpected
    }
}

#[derive(PartialEq, Eq)]
enum Stage {
    Complete,
    Interrupted,
}

fn stages(
    args: &RunArgs,
    case: &Shelved,
    source: Option<&Path>,
    dir: &Path,
    cache: &Path,
    run: &mut CaseRun,
    screen: &mut Screen,
) -> Result<Stage> {
    let recipe = &case.recipe;
    let fetched = match source {
        Some(tree) => kernels::given(tree),
        None => kernels::source(&recipe.source, case.folder.as_deref(), cache, &mut |text| {
            screen.say(text);
        })?,
    };
    run.source = fetched.from;
    run.release = fetch::release(&fetched.tree).unwrap_or_default();
    kernels::check(recipe, &fetched.tree)?;
    save(dir, run)?;
    let files = dir.join(CASE_FILES);
    case.put_into(&files)?;
    let jobs = args
        .jobs
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let started = rfc3339(SystemTime::now());
    let place = Workplace { tree: &fetched.tree, files: &files, cache, jobs, started: &started };
    let earlier = std::mem::take(&mut run.kernels);
    for kernel in &recipe.kernels {
        screen.begin(&format!("building {}", kernel.name));
        let mut made = kernels::make(recipe, kernel, &run.kernels, &place, screen)?;
        screen.say(&match made.cached {
            true => format!("{} is built", kernel.name),
            false => format!("built {} in {} s", kernel.name, made.wall_ms.div_ceil(1000)),
        });
        // What an earlier part of this run built was built by this run.
        if let Some(old) = earlier.iter().find(|k| k.name == made.name && k.folder == made.folder) {
            made.cached &= old.cached;
            made.wall_ms = made.wall_ms.max(old.wall_ms);
        }
        run.kernels.push(made);
        save(dir, run)?;
    }
    if args.build_only {
        return Ok(Stage::Complete);
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("cannot listen for Ctrl-C")?;
    }
    screen.begin("booting");
    let qemu = args.qemu.as_deref();
    let (matrix, complete) =
        boots::run(recipe, &run.kernels, dir, qemu, cache, &interrupted, screen)?;
    run.axes = matrix.axes.iter().map(|a| a.name.clone()).collect();
    run.cells = boots::cells(recipe, &matrix, dir, cache);
    let any = matrix.any_bug.iter().map(|place| format!("anything fails: {}", place.sentence));
    let each = matrix.bugs.iter().map(|b| format!("{}: {}", b.signature, b.sentence));
    run.sentences = any.chain(each).collect();
    run.gaps = matrix.gaps.clone();
    save(dir, run)?;
    if !complete {
        return Ok(Stage::Interrupted);
    }
    proofs::run(recipe, run, dir, cache, qemu, &interrupted, screen)?;
    if interrupted.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(Stage::Interrupted);
    }
    run.state = CaseState::Done;
    Ok(Stage::Complete)
}

/// The folder of the run, locked, and what is known of it. A run of the same key that was cut off is taken up.
fn open(
    args: &RunArgs,
    case: &Shelved,
    key: &str,
    screen: &Screen,
) -> Result<(PathBuf, File, CaseRun)> {
    if let Some(dir) = &args.out {
        let lock = locked(dir)?
            .with_context(|| format!("another kolumbo works in {}; wait for it", dir.display()))?;
        return match read(dir)? {
            Some(run) if run.key != key => {
                bail!("{} holds a run of another case or source; name a new folder", dir.display())
            }
            Some(run) => Ok((dir.clone(), lock, taken_up(run))),
            None => Ok((dir.clone(), lock, begun(case, key))),
        };
    }
    let shelf = state_folder()?.join("casebook").join(&case.name);
    let mut folders: Vec<PathBuf> =
        fs::read_dir(&shelf).into_iter().flatten().flatten().map(|e| e.path()).collect();
    folders.sort();
    for dir in folders.into_iter().rev() {
        // A folder that cannot be read is not one of ours to judge.
        let Ok(Some(run)) = read(&dir) else { continue };
        if run.key != key || run.state == CaseState::Done {
            continue;
        }
        if let Ok(Some(lock)) = locked(&dir) {
            screen.say(&format!("going on with {}", dir.display()));
            return Ok((dir, lock, taken_up(run)));
        }
    }
    let time = rfc3339(SystemTime::now()).replace(':', "");
    let dir = shelf.join(format!("{time}-{}", std::process::id()));
    let lock = locked(&dir)?
        .with_context(|| format!("another kolumbo works in {}; wait for it", dir.display()))?;
    Ok((dir, lock, begun(case, key)))
}

/// A run that is done is looked over again: nothing is built or booted twice.
fn taken_up(mut run: CaseRun) -> CaseRun {
    run.state = CaseState::Running;
    run
}

fn begun(case: &Shelved, key: &str) -> CaseRun {
    CaseRun {
        casebook_version: CASEBOOK_FORMAT_VERSION,
        kolumbo: env!("CARGO_PKG_VERSION").to_owned(),
        name: case.name.clone(),
        key: key.to_owned(),
        started: rfc3339(SystemTime::now()),
        title: case.recipe.title.clone(),
        story: case.recipe.story.clone(),
        ..CaseRun::default()
    }
}

/// The lock of a folder, which is made; none where somebody else holds it.
fn locked(dir: &Path) -> Result<Option<File>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(LOCK_FILE);
    let lock = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// What is known of the run in `dir`; none where there is none.
pub(crate) fn read(dir: &Path) -> Result<Option<CaseRun>> {
    use std::io::Read;
    let path = dir.join(RUN_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut text = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let run: CaseRun = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no run of a case", path.display()))?;
    if run.casebook_version > CASEBOOK_FORMAT_VERSION {
        bail!("{} was written by a newer kolumbo; use that one", path.display());
    }
    Ok(Some(run))
}

fn save(dir: &Path, run: &CaseRun) -> Result<()> {
    let path = dir.join(RUN_FILE);
    let write = || -> std::io::Result<()> {
        let mut aside = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut aside, run)?;
        aside.write_all(b"\n")?;
        aside.as_file().sync_data()?;
        aside.persist(&path).map(drop).map_err(|e| e.error)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Whether this error is about the case, this host or this source, and not a failure of kolumbo.
pub(crate) fn is_usage(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<KernelsError>(), Some(KernelsError::Case(_)))
        || matches!(error.downcast_ref::<BootError>(), Some(BootError::NoVirtualisation { .. }))
}

/// Whether a kernel could not be built for its source or configuration.
pub(crate) fn is_broken(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<KernelsError>(), Some(KernelsError::Failed { .. }))
}
