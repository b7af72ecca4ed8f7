//! Tables of up to 100,000 cells run, are interrupted, resumed and rendered, with an executor that
//! boots nothing. Prints how time and memory grow.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kolumbo_case::file::CaseState;
use kolumbo_case::matrix::Run;
use kolumbo_case::{CASE_FORMAT_VERSION, CaseFile, Phase, Verdict, VerdictKind};
use kolumbo_lab::matrix::drive::{Matrix, Options, Progress, Watcher};
use kolumbo_lab::matrix::executor::{Ended, Executor, ExecutorError, Finished, Job};
use kolumbo_lab::matrix::plan::{Request, Template, parse_axis};
use kolumbo_report::matrix::{NoDetails, html, junit, kcidb, ktap, text};

/// Ends every job at once; the cells of one value are sick.
#[derive(Default)]
struct Stub {
    waiting: Vec<Job>,
}

impl Executor for Stub {
    fn has_room(&self, _: &Job) -> bool {
        self.waiting.len() < 64
    }
    fn start(&mut self, job: Job) -> Result<(), ExecutorError> {
        self.waiting.push(job);
        Ok(())
    }
    fn wait(&mut self, _: Duration) -> Result<Vec<Finished>, ExecutorError> {
        let ended = |job: Job| {
            let sick = job.key.cell.ends_with("/7");
            let verdict = if sick { VerdictKind::HungBoot } else { VerdictKind::Booted };
            Finished { key: job.key, ended: Ended::Case(Box::new(case(verdict))) }
        };
        Ok(self.waiting.drain(..).map(ended).collect())
    }
    fn running(&self) -> usize {
        self.waiting.len()
    }
    fn stop(&mut self) -> Vec<Finished> {
        let stopped = |job: Job| Finished { key: job.key, ended: Ended::Interrupted };
        self.waiting.drain(..).map(stopped).collect()
    }
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
        timeline: vec![(Phase::EarlyConsole, 1), (Phase::Initcalls, 3)],
        ..CaseFile::default()
    }
}

/// Counts runs and interrupts after so many.
struct Count<'a> {
    finished: usize,
    most: usize,
    flag: &'a AtomicBool,
}

impl Watcher for Count<'_> {
    fn finished(&mut self, _: &str, _: &Run, _: Progress) {
        self.finished += 1;
        if self.finished >= self.most {
            self.flag.store(true, Ordering::Relaxed);
        }
    }
    fn tick(&mut self, _: Progress) {}
    fn note(&mut self, _: &str) {}
}

fn request(dir: &Path, cells: usize) -> Request {
    let kernel = dir.join("kernel");
    std::fs::write(&kernel, "not a kernel").unwrap();
    let numbers = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    let axes = [format!("a={}", numbers(cells / 100)), format!("b={}", numbers(100))];
    let base = Template {
        kernel: Some(kernel.display().to_string()),
        append: vec!["a={a} b={b}".into()],
        ..Template::default()
    };
    let axes = axes.iter().map(|a| parse_axis(a).unwrap()).collect();
    Request { base, axes, ..Request::default() }
}

/// Peak resident memory of this process so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn large_tables_run_resume_and_render() {
    let soak = std::env::var("KOLUMBO_SOAK").as_deref() == Ok("1");
    let largest = if soak { 100_000 } else { 1_000 };
    for cells in [1_000usize, 10_000, 100_000].into_iter().filter(|n| *n <= largest) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("m");
        let options = Options {
            repeat: 1,
            confidence: 0.95,
            allow_splats: false,
            confirm: true,
            qemu: None,
            qemu_args: vec![],
        };
        let begin = Instant::now();
        let mut matrix =
            Matrix::begin(&out, request(dir.path(), cells), options, dir.path()).unwrap();
        let (flag, never) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut first = Count { finished: 0, most: cells / 2, flag: &flag };
        assert!(!matrix.drive(&mut Stub::default(), &flag, &mut first).unwrap());
        drop(matrix);
        let mut matrix = Matrix::resume(&out, dir.path()).unwrap();
        let mut second = Count { finished: 0, most: usize::MAX, flag: &flag };
        assert!(matrix.drive(&mut Stub::default(), &never, &mut second).unwrap());
        assert_eq!(first.finished + second.finished, cells, "none lost, none twice");
        let ran = begin.elapsed();
        let summary = matrix.summary().unwrap();
        assert_eq!(summary.bugs[0].sentence, "b = 7");
        assert_eq!(summary.cells.iter().filter(|c| c.counts.judged() == 1).count(), cells);
        let summed = begin.elapsed() - ran;
        let begin = Instant::now();
        let mut sizes = [0usize; 5];
        let table = text::table(&summary, text::Style::default());
        assert!(table.contains("b = 7"), "{table}");
        let mut bytes = Vec::new();
        html::write(&summary, &NoDetails, &mut bytes).unwrap();
        sizes[0] = bytes.len();
        bytes.clear();
        junit::write(&summary, &mut bytes).unwrap();
        sizes[1] = bytes.len();
        bytes.clear();
        ktap::write(&summary, &mut bytes).unwrap();
        sizes[2] = bytes.len();
        bytes.clear();
        kcidb::write(&summary, "kolumbo", &NoDetails, &mut bytes).unwrap();
        sizes[3] = bytes.len();
        sizes[4] = serde_json::to_vec(&summary).unwrap().len();
        assert!(sizes.iter().all(|n| *n > cells), "{sizes:?}");
        println!(
            "{cells:>6} cells: run and resumed {:.2} s, summed up {:.2} s, rendered {:.2} s (HTML {} MB), \
             peak {} MiB",
            ran.as_secs_f64(),
            summed.as_secs_f64(),
            begin.elapsed().as_secs_f64(),
            sizes[0] / 1_000_000,
            peak()
        );
    }
}
