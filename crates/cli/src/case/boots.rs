//! The table of boots of a case: asked for in the words of a matrix, and what came of it in those of the case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use kolumbo_case::casebook::{CellRun, KernelRun};
use kolumbo_case::{Accel, BootSpec, CaseFile, FindingCode, MatrixFile, VerdictKind};
use kolumbo_casebook::expect::{Seen, differences, expected, other_mitigations};
use kolumbo_casebook::recipe::{Step, When, is_of_kernels};
use kolumbo_casebook::{CaseError, Recipe};
use kolumbo_lab::boot::BootError;
use kolumbo_lab::folder::{Folder, replace};
use kolumbo_lab::matrix::drive::{Matrix, Options, Watcher};
use kolumbo_lab::matrix::executor::{Local, Room};
use kolumbo_lab::matrix::plan::{AxisPlan, Pattern, Plan, Request, Template};
use kolumbo_lab::nested;

use crate::{explain_case, host_kvm};

/// Name of the matrix' folder in that of the run.
pub(crate) const MATRIX: &str = "matrix";

/// What is asked of the matrix.
fn request(recipe: &Recipe, kernels: &[KernelRun]) -> Request {
    // `{kernels.NAME}` stands for the folder of a kernel wherever a value may stand.
    let fill = |text: &str| {
        kernels.iter().fold(text.to_owned(), |text, kernel| {
            text.replace(&format!("{{kernels.{}}}", kernel.name), bootable(kernel))
        })
    };
    let all = |key: &str| -> Vec<String> {
        let found = recipe.base.iter().find(|(name, _)| name == key);
        found.map(|(_, values)| values.iter().map(|v| fill(v)).collect()).unwrap_or_default()
    };
    let one = |key: &str| all(key).into_iter().next();
    let pattern = |when: &When| Pattern { terms: when.terms.clone(), place: when.place.clone() };
    let axes = recipe.axes.iter().map(|axis| AxisPlan {
        name: axis.name.clone(),
        values: axis
            .values
            .iter()
            .map(|(label, value)| {
                let kernel = kernels.iter().find(|k| is_of_kernels(&axis.name) && k.name == *value);
                (label.clone(), kernel.map_or_else(|| fill(value), |k| bootable(k).to_owned()))
            })
            .collect(),
        place: axis.place.clone(),
    });
    Request {
        title: recipe.title.clone(),
        base: Template {
            kernel: None,
            smp: one("smp"),
            memory: one("memory"),
            append: all("append"),
            cpu: one("cpu"),
            machine: one("machine"),
            accel: one("accel"),
            initramfs: one("initramfs"),
            modules: all("module"),
            exec: all("exec"),
            timeout: one("timeout"),
            host_kernel: one("host-kernel"),
            host_smp: one("host-smp"),
            host_memory: one("host-memory"),
            host_append: all("host-append"),
            host_modules: all("host-module"),
        },
        axes: axes.collect(),
        exclude: recipe.exclude.iter().map(pattern).collect(),
        expect: recipe.expect.iter().map(|e| (pattern(&e.when), e.verdicts.clone())).collect(),
        ..Request::default()
    }
}

/// Whether the table makes sense, before anything is built for it.
pub(crate) fn check(recipe: &Recipe) -> Result<(), CaseError> {
    plan(recipe).map(drop)
}

/// Whether there is a QEMU, and one that has the CPUs that guests inside guests need, for the table and for the proof.
///
/// # Errors
/// No QEMU; the first CPU that it lacks.
pub(crate) fn check_host(recipe: &Recipe, qemu: Option<&str>) -> Result<(), BootError> {
    kolumbo_machine::qemu::find(qemu, std::env::var_os("PATH").as_deref())?;
    let Ok(plan) = plan(recipe) else { return Ok(()) };
    let of_cells = plan.cells.iter().filter_map(|cell| plan.spec(&cell.at).ok());
    let of_cells = of_cells.filter(|spec| spec.host.is_some()).map(|spec| (spec.accel, spec.cpu));
    let of_proofs = recipe.proofs.iter().filter_map(|proof| match &proof.step {
        Step::Emulation { cpu, .. } => Some((host_kvm::Target::ACCEL, cpu.clone())),
        _ => None,
    });
    let mut asked: Vec<(Accel, Option<String>)> = Vec::new();
    for (accel, cpu) in of_cells.chain(of_proofs) {
        if !asked.contains(&(accel, cpu.clone())) {
            asked.push((accel, cpu.clone()));
            nested::must_run_guests(&BootSpec { accel, cpu, ..BootSpec::default() }, qemu)?;
        }
    }
    Ok(())
}

fn plan(recipe: &Recipe) -> Result<Plan, CaseError> {
    let made: Vec<KernelRun> = recipe
        .kernels
        .iter()
        .map(|k| KernelRun { name: k.name.clone(), folder: k.name.clone(), ..KernelRun::default() })
        .collect();
    Plan::new(request(recipe, &made)).map_err(|e| CaseError { place: e.place, reason: e.reason })
}

/// What is handed to a boot: the build folder, or the image that was edited.
fn bootable(kernel: &KernelRun) -> &str {
    if kernel.image.ends_with("/vmlinux") { &kernel.image } else { &kernel.folder }
}

/// Boots what is not booted yet; the flag says whether nothing is left.
pub(crate) fn run(
    recipe: &Recipe,
    kernels: &[KernelRun],
    dir: &Path,
    qemu: Option<&str>,
    cache: &Path,
    interrupted: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<(MatrixFile, bool)> {
    let dir = dir.join(MATRIX);
    let request = request(recipe, kernels);
    let qemu_opts = recipe.base.iter().find(|(key, _)| key == "qemu-opts");
    let qemu_args = match qemu_opts {
        Some((_, words)) => shlex::split(&words.join(" ")).context("cannot split qemu-opts")?,
        None => Vec::new(),
    };
    let options = Options {
        repeat: 1,
        confidence: 0.95,
        allow_splats: false,
        // What a case shows is one run of each cell.
        confirm: false,
        qemu: qemu.map(str::to_owned),
        qemu_args,
    };
    let mut matrix = match Matrix::resume(&dir, cache) {
        Ok(matrix) => {
            matrix.must_be(&request)?;
            matrix
        }
        // A matrix that was cut off before its store was made is begun anew.
        Err(_) if !dir.join("matrix.db").exists() => Matrix::begin(&dir, request, options, cache)?,
        Err(error) => return Err(error.into()),
    };
    let mut executor = Local::new(Room::of_host());
    let complete = matrix.drive(&mut executor, interrupted, watcher)?;
    Ok((matrix.summary()?, complete))
}

/// Every cell, with what was expected and what was seen. Sick guests are explained, and so are their
/// cases from then on.
pub(crate) fn cells(
    recipe: &Recipe,
    matrix: &MatrixFile,
    dir: &Path,
    cache: &Path,
) -> Vec<CellRun> {
    matrix
        .cells
        .iter()
        .map(|cell| {
            let labels: Vec<(String, String)> = matrix
                .axes
                .iter()
                .zip(&cell.at)
                .map(|(axis, at)| {
                    let value = axis.values.get(*at as usize);
                    (axis.name.clone(), value.map(|v| v.label.clone()).unwrap_or_default())
                })
                .collect();
            let expect = expected(recipe, &labels);
            // Attempts that failed for kolumbo's own reasons come before the one that counts.
            let run = cell.runs.iter().rev().find(|r| r.verdict.is_some()).or(cell.runs.last());
            let folder = run.map(|r| PathBuf::from(MATRIX).join(&r.folder)).unwrap_or_default();
            let explained = explained(&dir.join(&folder), cache);
            let findings: Vec<(FindingCode, String)> = explained
                .as_ref()
                .and_then(|case| case.explanation.as_ref())
                .map(|e| e.findings.iter().map(|f| (f.code, f.subject.clone())).collect())
                .unwrap_or_default();
            let verdict = run.and_then(|r| r.verdict);
            let seen = Seen {
                verdict,
                title: run.map(|r| r.signature.clone()).unwrap_or_default(),
                findings: findings.iter().map(|(code, _)| *code).collect(),
            };
            let judged = verdict.is_some_and(|v| v != VerdictKind::CannotTell);
            CellRun {
                labels: labels.iter().cloned().map(|(_, label)| label).collect(),
                expected: match expect.map(|e| e.verdicts.clone()) {
                    Some(verdicts) if !verdicts.is_empty() => verdicts,
                    _ => vec![VerdictKind::Booted],
                },
                expected_title: expect.map(|e| e.title.clone()).unwrap_or_default(),
                expected_findings: expect
                    .map(|e| e.findings.iter().map(|f| f.id().to_owned()).collect())
                    .unwrap_or_default(),
                judged,
                verdict,
                differences: [
                    differences(expect, &seen),
                    other_mitigations(recipe, &labels, &vulnerabilities(explained.as_ref())),
                ]
                .concat(),
                title: seen.title,
                reason: run.map(|r| r.reason.clone()).unwrap_or_default(),
                findings: findings.iter().map(|(c, s)| format!("{} {s}", c.id())).collect(),
                folder: folder.display().to_string(),
                decided_ms: run.map_or(0, |r| r.decided_ms),
            }
        })
        .collect()
}

/// What the kernel says of its vulnerabilities; of a guest inside another one, the host.
fn vulnerabilities(case: Option<&CaseFile>) -> BTreeMap<String, String> {
    let facts = case.and_then(|case| match &case.nested_host {
        Some(host) => host.guest.as_ref(),
        None => case.guest.as_ref(),
    });
    facts.map(|facts| facts.vulnerabilities.clone()).unwrap_or_default()
}

/// The case of a run with its explanation, which is made where it is missing.
fn explained(path: &Path, cache: &Path) -> Option<CaseFile> {
    let folder = Folder::read(path).ok()?;
    let mut case = folder.case.clone();
    if case.explanation.is_none() {
        let console = folder.console().unwrap_or_default();
        case.explanation = explain_case::explanation(&case, &console, cache);
        if case.explanation.is_some() {
            // What cannot be kept is made again by the next look.
            let _ = replace(path, &case);
        }
    }
    Some(case)
}
