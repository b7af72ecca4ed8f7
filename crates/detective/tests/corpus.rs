//! Every dump of the corpus in `KOLUMBO_CORPUS` (a folder of syzkaller's logs): how many the code
//! decides, that none is falsely accused, and that what is made wrong on purpose is caught.

#![allow(clippy::print_stderr, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use kolumbo_case::{CrashReport, MachineState, ReadResult, Registers};
use kolumbo_dataflow::symbolic::{Flag, Subject};
use kolumbo_detective::{Conclusion, Consistency, Options, Situation, explain};

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The dumps of a crash; true for the one at the fault.
fn states(report: &CrashReport) -> impl Iterator<Item = (&MachineState, bool)> {
    let own = report.states.iter().enumerate().map(|(i, state)| (state, i == 0));
    own.chain(report.traces.iter().flat_map(|t| t.boundaries.iter().map(|b| (&b.state, false))))
}

fn situation(report: &CrashReport, state: &MachineState, is_fault: bool) -> Option<Situation> {
    if is_fault { Situation::at_fault(report, state) } else { Situation::of(state) }
}

/// The dump with one register or flag changed.
fn changed(state: &MachineState, subject: Subject, within: u64) -> MachineState {
    let mut state = state.clone();
    let (name, flip) = match subject {
        // Neither a small nor a large number nor a neighbour of the true value.
        Subject::Register(register) => (register.name(), 0x0000_5a00_1230_0440 & within),
        Subject::Flag(flag) => ("rflags", 1 << flag.bit()),
        Subject::Path(_) | Subject::Fact(_) => return state,
    };
    let values = state
        .registers
        .0
        .iter()
        .map(|(n, v)| (n.clone(), if n == name { v ^ flip } else { *v }))
        .collect();
    state.registers = Registers(values);
    state
}

#[derive(Default)]
struct Count {
    logs: usize,
    kernel: usize,
    user: usize,
    decided: usize,
    whole: usize,
    by_flag: usize,
    by_register: usize,
    firm: usize,
    agree: usize,
    doubtful: usize,
    contradict: usize,
    mutations: usize,
    noticed: usize,
    firm_mutations: usize,
    caught: usize,
}

#[test]
fn no_dump_of_the_corpus_is_accused_and_mutations_are_caught() {
    let Some(corpus) = std::env::var_os("KOLUMBO_CORPUS") else {
        assert!(std::env::var_os("KOLUMBO_REQUIRE_ALL").is_none(), "KOLUMBO_CORPUS is not set");
        eprintln!("skipped: KOLUMBO_CORPUS is not set");
        return;
    };
    let mut files = Vec::new();
    files_below(Path::new(&corpus), &mut files);
    let mut count = Count::default();
    let mut accused = Vec::new();
    for path in &files {
        let Ok(bytes) = std::fs::read(path) else { continue };
        let read = kolumbo_console::read(&bytes);
        let before = count.kernel + count.user;
        for report in &read.reports {
            for (state, is_fault) in states(report) {
                look(&mut count, report, state, is_fault);
            }
        }
        count.logs += usize::from(count.kernel + count.user > before);
        for finding in &explain(&read, &Options::default()).findings {
            accused.push(format!("{}: {}", path.display(), finding.summary));
        }
    }
    let Count {
        logs,
        kernel,
        user,
        decided,
        whole,
        by_flag,
        by_register,
        firm,
        agree,
        doubtful,
        contradict,
        ..
    } = count;
    let percent = |part: usize, whole: usize| part as f64 * 100.0 / whole.max(1) as f64;
    eprintln!("logs with judgeable dumps   {logs}");
    eprintln!(
        "dumps in kernel mode        {kernel} (and {user} in user mode, which are never accused)"
    );
    eprintln!(
        "decided, parts included     {decided} ({:.0}%): {by_flag} by a flag, {by_register} by a register",
        percent(decided, kernel)
    );
    eprintln!("a flag or a whole register  {whole} ({:.0}%)", percent(whole, kernel));
    eprintln!("firmly, whoever jumps in    {firm} ({:.0}%)", percent(firm, kernel));
    eprintln!(
        "agree {agree}, doubtful {doubtful}, contradict {contradict}, accused {}",
        accused.len()
    );
    eprintln!(
        "mutations noticed           {} of {} ({:.1}%)",
        count.noticed,
        count.mutations,
        percent(count.noticed, count.mutations)
    );
    eprintln!(
        "mutations accused           {} of {} firm ones ({:.1}%)",
        count.caught,
        count.firm_mutations,
        percent(count.caught, count.firm_mutations)
    );
    assert!(kernel > 0, "no dump was found below {}", Path::new(&corpus).display());
    assert!(accused.is_empty(), "accused without need:\n{}", accused.join("\n"));
    assert!(
        count.noticed * 100 >= count.mutations * 95,
        "{} of {}",
        count.noticed,
        count.mutations
    );
    assert!(
        count.caught * 100 >= count.firm_mutations * 95,
        "{} of {}",
        count.caught,
        count.firm_mutations
    );
}

fn look(count: &mut Count, report: &CrashReport, state: &MachineState, is_fault: bool) {
    let Some(situation) = situation(report, state, is_fault) else { return };
    if situation.user_mode {
        count.user += 1;
        return;
    }
    count.kernel += 1;
    let consistency = Consistency::check(&situation);
    let found = consistency.decided();
    count.by_flag += usize::from(!found.flags.is_empty());
    count.by_register += usize::from(!found.registers.is_empty());
    let whole = !found.flags.is_empty() || !found.registers.is_empty();
    count.decided += usize::from(whole || !found.parts.is_empty());
    count.whole += usize::from(whole);
    count.firm += usize::from(consistency.footings.iter().any(|f| f.is_firm()));
    match consistency.conclusion {
        Conclusion::Undecided => {}
        Conclusion::Agrees => count.agree += 1,
        Conclusion::Doubtful => count.doubtful += 1,
        Conclusion::Contradicts => count.contradict += 1,
    }
    if consistency.conclusion != Conclusion::Agrees {
        return;
    }
    let whole = found.registers.iter().map(|&r| (Subject::Register(r), u64::MAX));
    let parts = found.parts.iter().map(|p| (Subject::Register(p.register), p.mask));
    let flags = found.flags.iter().filter(|f| Flag::ARITHMETIC.contains(f));
    for (subject, within) in whole.chain(parts).chain(flags.map(|&f| (Subject::Flag(f), 1))) {
        let wrong = changed(state, subject, within);
        let Some(situation) = self::situation(report, &wrong, is_fault) else { continue };
        let again = Consistency::check(&situation).conclusion;
        count.mutations += 1;
        count.noticed +=
            usize::from(matches!(again, Conclusion::Doubtful | Conclusion::Contradicts));
        if consistency.footing(subject).is_some_and(|f| f.is_firm()) {
            count.firm_mutations += 1;
            let mut states = vec![wrong];
            if !is_fault {
                // The first dump is taken for the one at the fault.
                states.insert(0, MachineState::default());
            }
            // Without the marks of a garbled report, which is never accused.
            let headline = report.headline.clone();
            let report = CrashReport { states, headline, ..CrashReport::default() };
            let read = ReadResult { reports: vec![report], ..Default::default() };
            count.caught += usize::from(!explain(&read, &Options::default()).findings.is_empty());
        }
    }
}
