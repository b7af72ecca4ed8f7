//! A matrix driven to its end with an executor that boots nothing: order, retries, resumption.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kolumbo_case::file::{CaseState, GuestFacts};
use kolumbo_case::matrix::{Answer, MatrixFile, Run};
use kolumbo_case::{BootSpec, CASE_FORMAT_VERSION, CaseFile, Phase, Verdict, VerdictKind};
use kolumbo_lab::folder::FolderWriter;
use kolumbo_lab::matrix::drive::{Matrix, MatrixError, Options, Progress, Watcher};
use kolumbo_lab::matrix::executor::{Ended, Executor, ExecutorError, Finished, Job};
use kolumbo_lab::matrix::plan::{Pattern, Request, Template, parse_axis};
use kolumbo_lab::matrix::summary::probes;

/// What a job does in place of booting.
type Rule = dyn Fn(&Job) -> Ended;

/// Ends every job at once, and counts how often each was started.
struct Stub {
    rule: Box<Rule>,
    room: usize,
    waiting: Vec<Job>,
    started: Rc<RefCell<HashMap<String, u32>>>,
}

impl Stub {
    fn new(rule: impl Fn(&Job) -> Ended + 'static) -> Stub {
        Stub { rule: Box::new(rule), room: 64, waiting: Vec::new(), started: Rc::default() }
    }
}

impl Executor for Stub {
    fn has_room(&self, _: &Job) -> bool {
        self.waiting.len() < self.room
    }
    fn start(&mut self, job: Job) -> Result<(), ExecutorError> {
        *self.started.borrow_mut().entry(job.key.cell.clone()).or_default() += 1;
        self.waiting.push(job);
        Ok(())
    }
    fn wait(&mut self, _: Duration) -> Result<Vec<Finished>, ExecutorError> {
        let jobs = std::mem::take(&mut self.waiting);
        Ok(jobs.into_iter().map(|j| Finished { ended: (self.rule)(&j), key: j.key }).collect())
    }
    fn running(&self) -> usize {
        self.waiting.len()
    }
    fn stop(&mut self) -> Vec<Finished> {
        let jobs = std::mem::take(&mut self.waiting);
        jobs.into_iter().map(|j| Finished { key: j.key, ended: Ended::Interrupted }).collect()
    }
}

#[derive(Default)]
struct Silent {
    finished: usize,
    /// Set after so many runs.
    stop_after: Option<(usize, &'static AtomicBool)>,
}

impl Watcher for Silent {
    fn finished(&mut self, _: &str, _: &Run, _: Progress) {
        self.finished += 1;
        if let Some((after, flag)) = self.stop_after
            && self.finished >= after
        {
            flag.store(true, Ordering::Relaxed);
        }
    }
    fn tick(&mut self, _: Progress) {}
    fn note(&mut self, _: &str) {}
}

fn case(verdict: VerdictKind) -> CaseFile {
    let outcome = Verdict {
        verdict,
        reason: "a stub".into(),
        phase: Phase::Initcalls,
        timed_out: false,
        last_sign_of_life_ms: 1,
        decided_ms: 2,
        evidence: Vec::new(),
    };
    CaseFile {
        case_version: CASE_FORMAT_VERSION,
        state: CaseState::Done,
        outcome: Some(outcome),
        wall_ms: Some(5),
        ..CaseFile::default()
    }
}

fn ended(verdict: VerdictKind) -> Ended {
    Ended::Case(Box::new(case(verdict)))
}

fn request(dir: &Path, axes: &[&str]) -> Request {
    let kernel = dir.join("kernel");
    std::fs::write(&kernel, "not a kernel").unwrap();
    let base = Template { kernel: Some(kernel.display().to_string()), ..Template::default() };
    let axes = axes.iter().map(|a| parse_axis(a).unwrap()).collect();
    Request { base, axes, ..Request::default() }
}

fn options(repeat: u32) -> Options {
    Options {
        repeat,
        confidence: 0.95,
        allow_splats: false,
        confirm: true,
        qemu: None,
        qemu_args: Vec::new(),
    }
}

fn never() -> &'static AtomicBool {
    Box::leak(Box::default())
}

fn is_sick(cell: &str) -> bool {
    cell.starts_with("clang/") && !cell.contains("/1/") && cell.ends_with("/safe-ret")
}

fn mostly_healthy(job: &Job) -> Ended {
    ended(if is_sick(&job.key.cell) { VerdictKind::HungBoot } else { VerdictKind::Booted })
}

const AXES: &[&str] = &["k=gcc:g,clang:c", "smp=1,2,4", "append=off:{k}a,ibpb:b,safe-ret:c"];

/// Cells and bugs without what differs from run to run.
fn table(matrix: &MatrixFile) -> Vec<String> {
    let cells = matrix
        .cells
        .iter()
        .map(|c| format!("{} {} {}/{}", c.name, c.answer.name(), c.counts.sick, c.counts.judged()));
    cells.chain(matrix.bugs.iter().map(|b| format!("{}: {}", b.signature, b.sentence))).collect()
}

#[test]
fn a_table_is_run_once_and_says_its_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let mut matrix =
        Matrix::begin(&out, request(dir.path(), AXES), options(1), dir.path()).unwrap();
    let mut watcher = Silent::default();
    assert!(matrix.drive(&mut Stub::new(mostly_healthy), never(), &mut watcher).unwrap());
    let summary = matrix.summary().unwrap();
    assert_eq!(summary.state, CaseState::Done);
    assert_eq!(watcher.finished, 18);
    assert_eq!(summary.bugs[0].sentence, "k = clang and smp ≥ 2 and safe-ret");
    // Nothing is left for a second process, whatever it is asked to do.
    let mut again = Matrix::resume(&out, dir.path()).unwrap();
    let mut idle = Stub::new(|_| panic!("everything is done"));
    assert!(again.drive(&mut idle, never(), &mut Silent::default()).unwrap());
    assert_eq!(table(&again.summary().unwrap()), table(&summary));
}

#[test]
fn our_own_failures_are_tried_again_and_never_count_as_sick() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let mut matrix =
        Matrix::begin(&out, request(dir.path(), &["smp=1,2,3"]), options(1), dir.path()).unwrap();
    let died = || Ended::Failed { reason: "QEMU died".into(), disk_full: false };
    let mut stub = Stub::new(move |job| match (job.key.cell.as_str(), job.key.attempt) {
        ("1", 1) | ("2", _) => died(),
        ("3", 1) => ended(VerdictKind::CannotTell),
        _ => ended(VerdictKind::Booted),
    });
    let started = Rc::clone(&stub.started);
    assert!(matrix.drive(&mut stub, never(), &mut Silent::default()).unwrap());
    let counts = |cell: &str| started.borrow().get(cell).copied();
    assert_eq!((counts("1"), counts("2"), counts("3")), (Some(2), Some(3), Some(2)));
    let summary = matrix.summary().unwrap();
    let answers: Vec<Answer> = summary.cells.iter().map(|c| c.answer).collect();
    assert_eq!(answers, [Answer::Healthy, Answer::Error, Answer::Healthy]);
    assert!(summary.bugs.is_empty());
    // A resumed matrix tries what was in error again, and only that.
    let mut again = Matrix::resume(&out, dir.path()).unwrap();
    let mut stub = Stub::new(|_| ended(VerdictKind::Booted));
    let started = Rc::clone(&stub.started);
    assert!(again.drive(&mut stub, never(), &mut Silent::default()).unwrap());
    assert_eq!(started.borrow().len(), 1);
    assert_eq!(again.summary().unwrap().cells[1].answer, Answer::Healthy);
}

#[test]
fn an_interrupted_matrix_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let mut matrix =
        Matrix::begin(&out, request(dir.path(), AXES), options(3), dir.path()).unwrap();
    let flag = never();
    let mut stub = Stub { room: 4, ..Stub::new(mostly_healthy) };
    let mut watcher = Silent { stop_after: Some((10, flag)), ..Silent::default() };
    assert!(!matrix.drive(&mut stub, flag, &mut watcher).unwrap());
    drop(matrix);
    let mut matrix = Matrix::resume(&out, dir.path()).unwrap();
    let mut rest = Silent::default();
    assert!(matrix.drive(&mut Stub::new(mostly_healthy), never(), &mut rest).unwrap());
    assert_eq!(watcher.finished + rest.finished, 18 * 3, "none lost, none twice");
}

#[test]
fn repeats_stop_once_the_answer_is_sure_and_flaky_cells_get_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let mut matrix =
        Matrix::begin(&out, request(dir.path(), &["smp=1,2,4"]), options(40), dir.path()).unwrap();
    let rule = |job: &Job| {
        let sick = match job.key.cell.as_str() {
            "1" => false,
            "2" => job.key.repeat % 10 < 3,
            _ => true,
        };
        ended(if sick { VerdictKind::HungBoot } else { VerdictKind::Booted })
    };
    let mut stub = Stub { room: 2, ..Stub::new(rule) };
    assert!(matrix.drive(&mut stub, never(), &mut Silent::default()).unwrap());
    let summary = matrix.summary().unwrap();
    let judged: Vec<u32> = summary.cells.iter().map(|c| c.counts.judged()).collect();
    assert_eq!(judged[1], 40);
    // Twelve settle it at 95%; one more may have been under way.
    assert!((12..=13).contains(&judged[0]) && (12..=13).contains(&judged[2]), "{judged:?}");
}

#[test]
fn what_one_run_alone_shows_is_booted_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, request: Request, options: Options, rule: fn(&Job) -> Ended| {
        let out = dir.path().join(name);
        let mut matrix = Matrix::begin(&out, request, options, dir.path()).unwrap();
        let mut stub = Stub::new(rule);
        let started = Rc::clone(&stub.started);
        assert!(matrix.drive(&mut stub, never(), &mut Silent::default()).unwrap());
        let runs = |cell: &str| started.borrow().get(cell).copied().unwrap_or(0);
        let counts = ["1", "2", "3"].map(runs);
        (counts, matrix.summary().unwrap())
    };
    let three = || request(dir.path(), &["smp=1,2,3"]);
    let once = |job: &Job| {
        let sick = job.key.cell == "2" && job.key.repeat == 1;
        ended(if sick { VerdictKind::HungBoot } else { VerdictKind::Booted })
    };
    let (runs, summary) = run("once", three(), options(1), once);
    assert_eq!(runs, [1, 2, 1]);
    assert_eq!(summary.cells[1].answer, Answer::Flaky);
    // One healthy run of each of the others rules little out.
    let sentence = &summary.bugs[0].sentence;
    assert!(
        sentence
            .starts_with("under any condition, as far as these runs tell, in 50% of runs (1 of 2"),
        "{sentence}"
    );
    // A sickness that stays is what it is, and said without a rate.
    let always = |job: &Job| {
        ended(if job.key.cell == "2" { VerdictKind::HungBoot } else { VerdictKind::Booted })
    };
    let (runs, summary) = run("always", three(), options(1), always);
    assert_eq!(runs, [1, 2, 1]);
    assert_eq!(summary.bugs[0].sentence, "smp = 2");
    // Two cells with one sickness confirm each other.
    let two = |job: &Job| {
        ended(if job.key.cell == "1" { VerdictKind::Booted } else { VerdictKind::HungBoot })
    };
    assert_eq!(run("two", three(), options(1), two).0, [1, 1, 1]);
    // Nor is anything booted again that was expected, or that nobody wants to know again.
    let mut expected = three();
    let two =
        Pattern { terms: vec![("smp".to_owned(), vec!["2".to_owned()])], ..Pattern::default() };
    expected.expect = vec![(two, vec![VerdictKind::HungBoot])];
    assert_eq!(run("expected", expected, options(1), always).0, [1, 1, 1]);
    let believe = Options { confirm: false, ..options(1) };
    assert_eq!(run("believed", three(), believe, always).0, [1, 1, 1]);
}

#[test]
fn a_kernel_that_changed_or_vanished_is_not_mixed_in() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let request = request(dir.path(), &["smp=1,2"]);
    drop(Matrix::begin(&out, request.clone(), options(1), dir.path()).unwrap());
    let kernel = dir.path().join("kernel");
    std::fs::write(&kernel, "another").unwrap();
    let error = Matrix::resume(&out, dir.path()).unwrap_err();
    assert!(matches!(error, MatrixError::Identity(_)), "{error}");
    assert!(error.to_string().contains("has changed since"), "{error}");
    std::fs::remove_file(&kernel).unwrap();
    let error = Matrix::resume(&out, dir.path()).unwrap_err();
    assert!(error.to_string().contains("kernel"), "{error}");
    // Nothing was lost: with the old file back it goes on.
    std::fs::write(&kernel, "not a kernel").unwrap();
    let matrix = Matrix::resume(&out, dir.path()).unwrap();
    assert!(matrix.must_be(&request).is_ok());
    let mut other = request;
    other.base.smp = Some("9".into());
    assert!(matches!(matrix.must_be(&other), Err(MatrixError::Other { .. })));
}

#[test]
fn a_case_that_was_finished_by_the_dead_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let mut matrix =
        Matrix::begin(&out, request(dir.path(), &["smp=1,2,3"]), options(1), dir.path()).unwrap();
    // One whole case, half of one, and one whose console the disk did not take stand there; the
    // claims were lost with the power.
    FolderWriter::create(&out.join("cells/1/1-1"), &case(VerdictKind::Panicked)).unwrap();
    let half = CaseFile { state: CaseState::Running, outcome: None, ..case(VerdictKind::Booted) };
    FolderWriter::create(&out.join("cells/2/1-1"), &half).unwrap();
    let cut = CaseFile { unkept: Some("no space".into()), ..case(VerdictKind::Panicked) };
    FolderWriter::create(&out.join("cells/3/1-1"), &cut).unwrap();
    let mut stub = Stub::new(|job| {
        assert_ne!((job.key.cell.as_str(), job.key.repeat), ("1", 1), "it is whole");
        assert!(!job.out.exists(), "what is left of it is in the way");
        ended(VerdictKind::Booted)
    });
    assert!(matrix.drive(&mut stub, never(), &mut Silent::default()).unwrap());
    let summary = matrix.summary().unwrap();
    assert_eq!(summary.cells[0].runs[0].verdict, Some(VerdictKind::Panicked));
    assert_eq!(summary.cells[1].runs.len(), 1);
    assert_eq!(summary.cells[2].runs[0].verdict, Some(VerdictKind::Booted));
}

/// A guest of `smp` CPUs of which `online` came up.
fn ended_with_cpus(verdict: VerdictKind, online: u32, smp: u32) -> Ended {
    let guest = GuestFacts { cpus_online: online, ..GuestFacts::default() };
    let spec = BootSpec { smp, ..BootSpec::default() };
    Ended::Case(Box::new(CaseFile { spec, guest: Some(guest), ..case(verdict) }))
}

#[test]
fn a_guest_with_fewer_cpus_than_its_cell_is_no_healthy_run_of_it() {
    let run = |axes: &[&str], rule: fn(&Job) -> Ended| {
        let dir = tempfile::tempdir().unwrap();
        let request = request(dir.path(), axes);
        let mut matrix =
            Matrix::begin(&dir.path().join("m"), request, options(1), dir.path()).unwrap();
        assert!(matrix.drive(&mut Stub::new(rule), never(), &mut Silent::default()).unwrap());
        matrix.summary().unwrap()
    };
    let counts = |summary: &MatrixFile| {
        let of = summary.cells.iter().map(|c| &c.counts);
        of.map(|c| (c.healthy, c.sick, c.errors)).collect::<Vec<_>>()
    };
    // With two CPUs one did not come up, once; with four it never does.
    let summary = run(&["smp=1,2,4"], |job| {
        let smp = job.request.spec.smp;
        let lost = smp == 4 || (smp == 2 && job.key.attempt == 1);
        ended_with_cpus(VerdictKind::Booted, smp - u32::from(lost), smp)
    });
    assert_eq!(counts(&summary), [(1, 0, 0), (1, 0, 1), (0, 0, 3)]);
    assert!(summary.cells[2].runs[0].reason.starts_with("3 of 4 CPUs came up"));
    // A sick guest is sick with any number, and what is not varied does not count.
    let sick =
        run(&["smp=2,4"], |job| ended_with_cpus(VerdictKind::Panicked, 1, job.request.spec.smp));
    assert_eq!(counts(&sick), [(0, 1, 0), (0, 1, 0)]);
    let other = run(&["append=a:x,b:y"], |_| ended_with_cpus(VerdictKind::Booted, 1, 2));
    assert_eq!(counts(&other), [(1, 0, 0), (1, 0, 0)]);
}

#[test]
fn a_full_disk_ends_the_run_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let mut matrix =
        Matrix::begin(&out, request(dir.path(), &["smp=1,2,3,4"]), options(1), dir.path()).unwrap();
    let rule = |job: &Job| match job.key.cell.as_str() {
        "2" => Ended::Failed { reason: "console.log".into(), disk_full: true },
        _ => ended(VerdictKind::Booted),
    };
    let mut stub = Stub { room: 1, ..Stub::new(rule) };
    let error = matrix.drive(&mut stub, never(), &mut Silent::default()).unwrap_err();
    assert!(matches!(error, MatrixError::DiskFull { .. }), "{error}");
    drop(matrix);
    let mut matrix = Matrix::resume(&out, dir.path()).unwrap();
    let mut stub = Stub::new(|_| ended(VerdictKind::Booted));
    assert!(matrix.drive(&mut stub, never(), &mut Silent::default()).unwrap());
    let summary = matrix.summary().unwrap();
    assert!(summary.cells.iter().all(|c| c.counts.healthy == 1 && c.counts.errors == 0));
}

#[test]
fn what_the_table_leaves_open_is_tested_further() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    let mut matrix =
        Matrix::begin(&out, request(dir.path(), &["smp=1,16"]), options(1), dir.path()).unwrap();
    let rule = |job: &Job| {
        let smp: u32 = job.key.cell.parse().unwrap();
        ended(if smp >= 5 { VerdictKind::HungBoot } else { VerdictKind::Booted })
    };
    let mut boots = 0;
    loop {
        let mut watcher = Silent::default();
        assert!(matrix.drive(&mut Stub::new(rule), never(), &mut watcher).unwrap());
        boots += watcher.finished;
        let open = probes(&matrix.summary().unwrap(), 4);
        if open.is_empty() {
            break;
        }
        matrix.extend(&open).unwrap();
    }
    assert_eq!(matrix.summary().unwrap().bugs[0].sentence, "smp ≥ 5");
    assert_eq!(
        boots,
        3 + 4,
        "16 once more, as no other is sick yet; then the bisection: 8, 4, 6, 5"
    );
    // The description of the user is still this matrix.
    let matrix = Matrix::resume(&out, dir.path()).unwrap();
    assert!(matrix.must_be(&request(dir.path(), &["smp=1,16"])).is_ok());
}
