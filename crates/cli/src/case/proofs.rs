//! The steps of a case's proof: what each comes to, and whether that is what was promised.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use kolumbo_case::casebook::{CellRun, KernelRun, ProofRun};
use kolumbo_case::contract::Report;
use kolumbo_case::emulation::Outcome as Form;
use kolumbo_case::proof::Conclusion;
use kolumbo_case::{CaseRun, Explanation, Finding, FindingCode, SuspectKind};
use kolumbo_casebook::Recipe;
use kolumbo_casebook::proof::words;
use kolumbo_casebook::recipe::{Proof, Step};
use kolumbo_contracts::{Image, Input, Options, check};
use kolumbo_lab::folder::Folder;
use kolumbo_machine::qemu::quote;
use kolumbo_report::check_testcase::testcase;
use kolumbo_report::wrap::Page;

use super::screen::Screen;
use crate::{host_kvm, prove};

/// What a step came to.
struct Came {
    outcome: String,
    holds: bool,
    evidence: String,
    command: String,
}

/// Goes through all steps. Those that came out before, in a part of the run that was cut off, are gone
/// through again: they cost seconds.
pub(crate) fn run(
    recipe: &Recipe,
    run: &mut CaseRun,
    dir: &Path,
    cache: &Path,
    qemu: Option<&str>,
    interrupted: &AtomicBool,
    screen: &mut Screen,
) -> Result<()> {
    run.proofs.clear();
    let reports = RefCell::new(HashMap::new());
    for proof in &recipe.proofs {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let promise = words(proof);
        screen.begin(&format!("proof: {}", proof.step.name()));
        let begun = Instant::now();
        let Some(kernel) = run.kernels.iter().find(|k| k.name == proof.kernel) else { continue };
        let scene = Scene { run, kernel, dir, cache, qemu, interrupted, reports: &reports };
        // A step that cannot be gone through does not hold, and the others may.
        let came = scene.step(proof).unwrap_or_else(|error| Came {
            outcome: format!("it could not be tried: {error:#}"),
            holds: false,
            evidence: String::new(),
            command: String::new(),
        });
        let word = if came.holds { "holds" } else { "does NOT hold" };
        screen.say(&format!("{word}: {promise}"));
        run.proofs.push(ProofRun {
            step: proof.step.name().to_owned(),
            kernel: proof.kernel.clone(),
            promise,
            outcome: came.outcome,
            holds: came.holds,
            evidence: came.evidence,
            command: came.command,
            wall_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
    Ok(())
}

struct Scene<'a> {
    run: &'a CaseRun,
    kernel: &'a KernelRun,
    dir: &'a Path,
    cache: &'a Path,
    qemu: Option<&'a str>,
    interrupted: &'a AtomicBool,
    /// What the check said of each vmlinux.
    reports: &'a RefCell<HashMap<String, Rc<Report>>>,
}

impl Scene<'_> {
    fn step(&self, proof: &Proof) -> Result<Came> {
        match &proof.step {
            Step::Explain { finding, subject, suspect, names, looks_like } => {
                self.explain(*finding, subject, (suspect, names), looks_like)
            }
            Step::Check { culprits } => self.check(culprits),
            Step::Testcase { culprit, contains } => self.testcase(culprit, contains),
            Step::Emulation { differs, cpu, append } => {
                self.emulation(*differs, cpu.as_deref(), append)
            }
            Step::Prove { register, broken, becomes, call } => {
                self.prove(register, *broken, becomes, call.as_deref())
            }
            other => anyhow::bail!("this kolumbo does not know the step {}", other.name()),
        }
    }

    /// The first cell of the kernel with a finding, else the first one.
    fn cell(&self) -> Option<&CellRun> {
        let axis = self.run.axes.iter().position(|a| a == "kernel")?;
        let of_kernel =
            || self.run.cells.iter().filter(|c| c.labels.get(axis) == Some(&self.kernel.name));
        of_kernel().find(|c| !c.findings.is_empty()).or_else(|| of_kernel().next())
    }

    fn explanation(&self) -> Result<(String, Explanation)> {
        let cell = self.cell().context("no cell boots this kernel")?;
        let path = self.dir.join(&cell.folder);
        let folder = Folder::read(&path)?;
        let explanation = folder
            .case
            .explanation
            .with_context(|| format!("the boot in {} left nothing to explain", path.display()))?;
        Ok((quote(&path.display().to_string()), explanation))
    }

    fn explain(
        &self,
        code: FindingCode,
        subject: &str,
        (suspect, names): (&str, &str),
        looks_like: &str,
    ) -> Result<Came> {
        let (path, explanation) = self.explanation()?;
        let command = format!("kolumbo explain {path}");
        let found = explanation.findings.iter().find(|f| f.code == code && f.subject == subject);
        let Some(finding) = found else {
            let said: Vec<String> =
                explanation.findings.iter().map(|f| format!("{} {}", f.id, f.subject)).collect();
            let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
            let outcome = format!("explain says {said}");
            return Ok(Came { outcome, holds: false, evidence: String::new(), command });
        };
        let first = finding.suspects.first();
        let kind = first.map(|s| kind_name(s.kind)).unwrap_or_default();
        let looks = finding.observed_looks_like.as_deref().unwrap_or("nothing in particular");
        let others = explanation.findings.len() - 1;
        let name = first.and_then(|s| s.name.as_deref()).unwrap_or_default();
        let function = name.split('+').next().unwrap_or_default();
        let mut outcome =
            format!("{} {}, first suspect {kind} {name}: {looks}", finding.id, finding.subject);
        if others > 0 {
            outcome.push_str(&format!("; and {others} more"));
        }
        let holds = kind == suspect
            && (names.is_empty() || names == function)
            && looks.contains(looks_like)
            && others == 0;
        let mut page = Page::default();
        kolumbo_report::explain::render_finding(&mut page, finding);
        Ok(Came { outcome, holds, evidence: page.finish(), command })
    }

    /// The kernel's vmlinux, and what the check says of it.
    fn report(&self) -> Result<(String, Rc<Report>)> {
        let path = Path::new(&self.kernel.folder).join("vmlinux");
        let name = path.display().to_string();
        if let Some(report) = self.reports.borrow().get(&name) {
            return Ok((quote(&name), Rc::clone(report)));
        }
        let bytes = kolumbo_lab::kernel::map(&path)?;
        let image = Image::new(&[Input { name: &name, bytes: &bytes }])?;
        let report = Rc::new(check(&image, &Options::default()));
        self.reports.borrow_mut().insert(name.clone(), Rc::clone(&report));
        Ok((quote(&name), report))
    }

    fn check(&self, culprits: &[String]) -> Result<Came> {
        let (path, report) = self.report()?;
        let mut found: Vec<&str> = report.findings.iter().map(|f| f.culprit.as_str()).collect();
        let mut wanted: Vec<&str> = culprits.iter().map(String::as_str).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        let outcome = match found.as_slice() {
            [] => format!("nobody is accused; {} calls were looked at", report.totals.sites),
            names => format!(
                "accused: {}; {} calls were looked at",
                names.join(", "),
                report.totals.sites
            ),
        };
        Ok(Came {
            outcome,
            holds: found == wanted,
            evidence: kolumbo_report::check::report(&report),
            command: format!("kolumbo check {path}"),
        })
    }

    fn testcase(&self, culprit: &str, contains: &[String]) -> Result<Came> {
        let (path, report) = self.report()?;
        let command = format!("kolumbo check --testcase DIR {path}");
        let finding = report.findings.iter().find(|f| f.culprit == culprit);
        let Some(test) = finding.and_then(testcase) else {
            let outcome = format!("there is no test of {culprit}");
            return Ok(Came { outcome, holds: false, evidence: String::new(), command });
        };
        let missing: Vec<&str> =
            contains.iter().map(String::as_str).filter(|t| !test.text.contains(t)).collect();
        let outcome = match missing.as_slice() {
            [] => format!("{} of {} lines", test.name, test.text.lines().count()),
            missing => format!("{} lacks {}", test.name, missing.join(", ")),
        };
        Ok(Came { outcome, holds: missing.is_empty(), evidence: test.text, command })
    }

    /// The test of emulated flags on the KVM of this kernel, under QEMU's translator.
    fn emulation(&self, differs: bool, cpu: Option<&str>, append: &[String]) -> Result<Came> {
        let kernel = match self.kernel.image.as_str() {
            image if image.ends_with("/vmlinux") => image,
            _ => &self.kernel.folder,
        };
        let target = host_kvm::Target { kernel, cpu, append, qemu: self.qemu, cache: self.cache };
        let file = target.tested()?;
        Ok(Came {
            outcome: kolumbo_report::emulation::sentence(&file),
            holds: match file.count(Form::Differs) {
                0 => !differs && file.count(Form::Ok) > 0,
                _ => differs,
            },
            evidence: kolumbo_report::emulation::report(&file),
            command: target.command(),
        })
    }

    fn prove(
        &self,
        register: &str,
        broken: bool,
        becomes: &str,
        call: Option<&str>,
    ) -> Result<Came> {
        let cell = self.cell().context("no cell boots this kernel")?;
        let path = self.dir.join(&cell.folder);
        let case = Folder::read(&path)?.case;
        let mut target = prove::Target::of_spec(&case.spec, self.qemu, self.cache);
        match call {
            Some(call) => target.add_call(call, &[register.to_owned()]),
            None => self.calls_of_findings(&mut target, register)?,
        }
        let command = match call {
            None if !cell.findings.is_empty() => {
                format!("kolumbo prove {}", quote(&path.display().to_string()))
            }
            _ => target.command(register),
        };
        let file = prove::proven(&target, self.interrupted)?;
        let samples = file.samples.iter().flat_map(|s| &s.relied).filter(|p| !p.kept);
        let kinds: Vec<&str> = samples.filter_map(|p| p.after_kind.as_deref()).collect();
        let holds = match broken {
            true => {
                file.conclusion == Conclusion::Confirmed
                    && (becomes.is_empty() || kinds.contains(&becomes))
            }
            false => file.conclusion == Conclusion::NotConfirmed,
        };
        Ok(Came {
            outcome: file.summary.clone(),
            holds,
            evidence: kolumbo_report::proof::report(&file),
            command,
        })
    }

    /// Calls to watch where the case names none: that of the finding about this register, in the dump of any
    /// kernel of the case, and those that the check says to rely on it, here or in another kernel.
    fn calls_of_findings(&self, target: &mut prove::Target, register: &str) -> Result<()> {
        if let Ok((_, explanation)) = self.explanation() {
            for finding in explanation.findings.iter().filter(|f| is_about(f, register)) {
                target.add_explained(finding, false);
            }
        }
        let (_, report) = self.report()?;
        for finding in &report.findings {
            target.add_check(finding, Some(register));
        }
        if !target.is_empty() {
            return Ok(());
        }
        // A healthy kernel has no finding: it is watched where the sick ones are.
        for cell in self.run.cells.iter().filter(|c| !c.findings.is_empty()) {
            let Ok(folder) = Folder::read(&self.dir.join(&cell.folder)) else { continue };
            let Some(explanation) = &folder.case.explanation else { continue };
            for finding in explanation.findings.iter().filter(|f| is_about(f, register)) {
                target.add_explained(finding, true);
            }
            if !target.is_empty() {
                return Ok(());
            }
        }
        anyhow::bail!("neither explain nor check names a call to watch; name one in the case")
    }
}

fn is_about(finding: &Finding, register: &str) -> bool {
    finding.subject.eq_ignore_ascii_case(register)
}

/// The stable name of a kind of suspect.
fn kind_name(kind: SuspectKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
