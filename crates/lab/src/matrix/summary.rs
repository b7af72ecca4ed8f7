//! Runs summed up: counts and answers of cells, bugs told apart, and where each of them strikes.
//!
//! A pure function of the plan and the runs, so that a resumed matrix reads like an undisturbed
//! one. Main functions: [`summarise`], [`probes`].

use std::collections::{BTreeMap, HashMap};

use kolumbo_case::file::{CaseState, HostFacts};
use kolumbo_case::matrix::{
    Answer, Axis, AxisValue, Bug, Cell, Condition, Counts, MATRIX_FORMAT_VERSION, MatrixFile,
    Place, Relation, Run,
};

use super::interval::wilson;
use super::plan::{MOST_CELLS, Plan};
use super::shrink::{self, Mark, Shape};
use super::signature::is_healthy;
use super::words;

/// Bugs whose conditions are looked for; the others are counted only.
const MOST_BUGS: usize = 32;
/// Numbers between a healthy and a sick value are tried one by one up to this distance.
const WIDEST_GAP: u64 = 1024;

/// What is known of a matrix beside its runs.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// When it was begun.
    pub started: String,
    /// Whether a cell still waits.
    pub state: CaseState,
    /// Level of the intervals.
    pub confidence: f64,
    /// A boot with splats is healthy.
    pub allow_splats: bool,
    /// The machine that began it.
    pub host: HostFacts,
    /// Notes on values, by axis name and label.
    pub notes: BTreeMap<(String, String), String>,
    /// What could not be found out.
    pub gaps: Vec<String>,
}

/// A cell that would be worth a boot, and what it would decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// For each axis the label, and the value where the axis does not have it yet.
    pub labels: Vec<String>,
    /// What is decided by it.
    pub decides: String,
}

/// Sums up the runs.
pub fn summarise(
    plan: &Plan,
    runs: impl IntoIterator<Item = (String, Run)>,
    command: impl Fn(&[u32]) -> String,
    circumstances: &Circumstances,
) -> MatrixFile {
    let axes: Vec<Axis> = plan
        .request
        .axes
        .iter()
        .zip(&plan.ordered)
        .map(|(axis, ordered)| Axis {
            name: axis.name.clone(),
            ordered: *ordered,
            values: axis
                .values
                .iter()
                .map(|(label, value)| AxisValue {
                    label: label.clone(),
                    value: value.clone(),
                    note: circumstances
                        .notes
                        .get(&(axis.name.clone(), label.clone()))
                        .cloned()
                        .unwrap_or_default(),
                })
                .collect(),
        })
        .collect();
    let mut cells: Vec<Cell> = plan
        .cells
        .iter()
        .map(|planned| Cell {
            name: plan.name(&planned.at),
            at: planned.at.clone(),
            expect: planned.expect.clone(),
            command: command(&planned.at),
            ..Cell::default()
        })
        .collect();
    let index: HashMap<String, usize> =
        cells.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
    let mut strays = 0usize;
    for (name, run) in runs {
        match index.get(&name) {
            Some(i) => cells[*i].runs.push(run),
            None => strays += 1,
        }
    }
    let healthy = |run: &Run| run.verdict.map(|v| is_healthy(v, circumstances.allow_splats));
    for cell in &mut cells {
        settle(cell, &healthy, circumstances.confidence);
    }
    let mut gaps = circumstances.gaps.clone();
    if strays > 0 {
        gaps.push(format!("{strays} runs belong to no cell of this plan and were left out"));
    }
    let mut matrix = MatrixFile {
        matrix_version: MATRIX_FORMAT_VERSION,
        kolumbo: env!("CARGO_PKG_VERSION").to_owned(),
        title: plan.request.title.clone(),
        started: circumstances.started.clone(),
        state: circumstances.state,
        axes,
        cells,
        confidence: circumstances.confidence,
        bugs: Vec::new(),
        any_bug: None,
        host: circumstances.host.clone(),
        gaps,
    };
    tell_apart(&mut matrix);
    for bug in 0..matrix.bugs.len().min(MOST_BUGS) {
        locate(&mut matrix, bug);
    }
    matrix.any_bug = together(&matrix);
    matrix
}

/// Counts, answer and expectation of a cell from its runs.
fn settle(cell: &mut Cell, healthy: &impl Fn(&Run) -> Option<bool>, confidence: f64) {
    let mut counts = Counts::default();
    let mut as_expected = true;
    for run in &cell.runs {
        match (run.verdict, healthy(run)) {
            (Some(verdict), Some(well))
                if verdict.exit_code() != kolumbo_case::verdict::EXIT_CANNOT_TELL =>
            {
                if well {
                    counts.healthy += 1;
                } else {
                    counts.sick += 1;
                }
                as_expected &=
                    if cell.expect.is_empty() { well } else { cell.expect.contains(&verdict) };
            }
            _ => counts.errors += 1,
        }
    }
    counts.interval = wilson(counts.sick, counts.judged(), confidence);
    cell.answer = match (counts.healthy, counts.sick, counts.errors) {
        (0, 0, 0) => Answer::Pending,
        (0, 0, _) => Answer::Error,
        (_, 0, _) => Answer::Healthy,
        (0, ..) => Answer::Sick,
        _ => Answer::Flaky,
    };
    cell.as_expected = (counts.judged() > 0).then_some(as_expected);
    cell.counts = counts;
}

/// Fills in the bugs and which run shows which of them.
fn tell_apart(matrix: &mut MatrixFile) {
    let merged = merge_hangs(matrix);
    let mut seen: BTreeMap<String, (u32, Vec<u32>)> = BTreeMap::new();
    for (i, cell) in matrix.cells.iter().enumerate() {
        for run in cell.runs.iter().filter(|r| !r.signature.is_empty()) {
            let name = merged.get(&run.signature).unwrap_or(&run.signature);
            let (struck, cells) = seen.entry(name.clone()).or_default();
            *struck += 1;
            let i = u32::try_from(i).unwrap_or(u32::MAX);
            if cells.last() != Some(&i) {
                cells.push(i);
            }
        }
    }
    let mut bugs: Vec<Bug> = seen
        .into_iter()
        .map(|(signature, (struck, cells))| {
            let judged =
                cells.iter().map(|i| matrix.cells[*i as usize].counts.judged()).sum::<u32>();
            let interval = wilson(struck, judged, matrix.confidence);
            Bug { signature, cells, struck, judged, interval, ..Bug::default() }
        })
        .collect();
    // The most frequent first; names settle the rest, so that the order is always the same.
    bugs.sort_by(|a, b| b.struck.cmp(&a.struck).then_with(|| a.signature.cmp(&b.signature)));
    let number: HashMap<&str, u32> =
        bugs.iter().zip(0u32..).map(|(bug, i)| (bug.signature.as_str(), i)).collect();
    for run in matrix.cells.iter_mut().flat_map(|c| &mut c.runs) {
        let name = merged.get(&run.signature).unwrap_or(&run.signature);
        run.bug = number.get(name.as_str()).copied();
    }
    matrix.bugs = bugs;
}

/// Hangs that differ only by the function of the last look, and that one cell shows both of, are
/// one bug: a loop through two functions is caught now in one, now in the other.
fn merge_hangs(matrix: &MatrixFile) -> HashMap<String, String> {
    let mut merged: HashMap<String, String> = HashMap::new();
    for cell in &matrix.cells {
        let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for run in cell.runs.iter().filter(|r| r.signature.starts_with("hung-")) {
            let kind = run.signature.split(" at ").next().unwrap_or_default();
            let list = by_kind.entry(kind).or_default();
            if !list.contains(&run.signature.as_str()) {
                list.push(&run.signature);
            }
        }
        for (kind, list) in by_kind.into_iter().filter(|(_, list)| list.len() > 1) {
            for signature in list {
                merged.insert(signature.to_owned(), kind.to_owned());
            }
        }
    }
    merged
}

/// Marks of all cells for one bug. A healthy cell of a bug that does not strike every time counts
/// as healthy only when so many healthy runs would be unlikely otherwise.
fn marks(matrix: &MatrixFile, bug: u32) -> Vec<(Vec<u32>, Mark)> {
    let known = &matrix.bugs[bug as usize];
    let rate = f64::from(known.struck) / f64::from(known.judged.max(1));
    let own = |r: &&Run| r.bug == Some(bug);
    // A run that came further before something else struck was past the place of this bug.
    let place = matrix.cells.iter().flat_map(|c| &c.runs).filter(own).map(|r| r.phase).max();
    let passed = |r: &&Run| r.bug.is_some() && Some(r.phase) > place;
    let mark = |cell: &Cell| {
        let strikes = cell.runs.iter().any(|r| own(&r));
        let further = cell.runs.iter().filter(passed).count();
        let unharmed = cell.counts.healthy + u32::try_from(further).unwrap_or(u32::MAX);
        match strikes {
            true => Mark::Sick,
            false => unharmed_mark(unharmed, rate, matrix.confidence),
        }
    };
    matrix.cells.iter().map(|cell| (cell.at.clone(), mark(cell))).collect()
}

fn shape(matrix: &MatrixFile) -> Shape {
    Shape {
        sizes: matrix.axes.iter().map(|a| a.values.len()).collect(),
        ordered: matrix.axes.iter().map(|a| a.ordered).collect(),
    }
}

/// Where any of the bugs strikes; none unless that takes fewer conditions than there are bugs.
fn together(matrix: &MatrixFile) -> Option<Place> {
    let sick = matrix.cells.iter().map(|c| &c.counts).filter(|c| c.sick > 0);
    let (struck, judged) = sick.fold((0, 0), |(s, j), c| (s + c.sick, j + c.judged()));
    let rate = f64::from(struck) / f64::from(judged.max(1));
    let mark = |cell: &Cell| match cell.counts.sick {
        0 => unharmed_mark(cell.counts.healthy, rate, matrix.confidence),
        _ => Mark::Sick,
    };
    let marks: Vec<_> = matrix.cells.iter().map(|cell| (cell.at.clone(), mark(cell))).collect();
    let found = shrink::conditions(&shape(matrix), &marks);
    let conditions: Vec<_> =
        found.areas.iter().map(|area| words::condition(&matrix.axes, area)).collect();
    let says_less = found.left == 0 && conditions.len() < matrix.bugs.len();
    says_less.then(|| Place { sentence: joined(&conditions), conditions })
}

fn joined(conditions: &[Condition]) -> String {
    conditions.iter().map(|c| c.text.as_str()).collect::<Vec<_>>().join("; or ")
}

/// A cell in which something that strikes at this rate was not seen in so many runs.
fn unharmed_mark(unharmed: u32, rate: f64, confidence: f64) -> Mark {
    let luck = (1.0 - rate).powi(i32::try_from(unharmed).unwrap_or(i32::MAX));
    match unharmed > 0 && luck <= 1.0 - confidence {
        true => Mark::Healthy,
        false => Mark::Unknown,
    }
}

/// Finds the conditions of one bug and says them.
fn locate(matrix: &mut MatrixFile, index: usize) {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let (shape, marks) = (shape(matrix), marks(matrix, number));
    let found = shrink::conditions(&shape, &marks);
    let conditions: Vec<_> =
        found.areas.iter().map(|area| words::condition(&matrix.axes, area)).collect();
    let bug = &matrix.bugs[index];
    let mut sentence = if found.left > 0 {
        format!(
            "no short condition: it strikes in {} of {} cells",
            bug.cells.len(),
            matrix.cells.len()
        )
    } else {
        joined(&conditions)
    };
    if bug.struck < bug.judged {
        // "Always, in 50% of runs" would be a riddle.
        let rules_nothing_out = conditions.iter().any(|c| c.terms.is_empty());
        if rules_nothing_out {
            "under any condition, as far as these runs tell".clone_into(&mut sentence);
        }
        sentence.push_str(", in ");
        sentence.push_str(&words::rate(bug.struck, bug.judged, bug.interval, matrix.confidence));
    }
    let mut open = Vec::new();
    for (area, rival) in found.rivals.iter().take(4) {
        let other = words::condition(&matrix.axes, rival).text;
        let mine = &conditions[*area].text;
        let asked = shrink::questions(&shape, &marks, &found.areas[*area], rival, 2);
        let names: Vec<String> = asked.iter().map(|at| name_of(matrix, at)).collect();
        if !names.is_empty() {
            open.push(format!(
                "the table cannot tell \"{mine}\" from \"{other}\"; a boot of {} would",
                names.join(" or ")
            ));
        }
    }
    open.extend(gaps_of(matrix, &conditions).into_iter().map(|gap| {
        let (low, high) = if gap.sick_above { ("healthy", "sick") } else { ("sick", "healthy") };
        format!(
            "between {} = {} ({low}) and {} ({high}) nothing was tested",
            matrix.axes[gap.axis].name, gap.below, gap.above
        )
    }));
    let bug = &mut matrix.bugs[index];
    // Without a short condition the list of them would mislead.
    bug.conditions = if found.left > 0 { Vec::new() } else { conditions };
    bug.sentence = sentence;
    bug.open = open;
}

fn name_of(matrix: &MatrixFile, at: &[u32]) -> String {
    let labels =
        matrix.axes.iter().zip(at).map(|(axis, v)| axis.values[*v as usize].label.as_str());
    labels.collect::<Vec<_>>().join("/")
}

/// Whole numbers on an ordered axis between the last healthy and the first sick value.
struct NumberGap {
    axis: usize,
    below: u64,
    above: u64,
    /// The larger value is the sick one.
    sick_above: bool,
}

fn gaps_of(matrix: &MatrixFile, conditions: &[Condition]) -> Vec<NumberGap> {
    let mut gaps = Vec::new();
    for term in conditions.iter().flat_map(|c| &c.terms) {
        let axis = &matrix.axes[term.axis as usize];
        let number = |i: u32| axis.values.get(i as usize).and_then(|v| v.value.parse::<u64>().ok());
        let ends = match term.relation {
            Relation::AtLeast { value } => value.checked_sub(1).map(|below| (below, value, true)),
            Relation::AtMost { value } => Some((value, value + 1, false)),
            _ => None,
        };
        let Some((below, above, sick_above)) = ends else { continue };
        let (Some(below), Some(above)) = (number(below), number(above)) else { continue };
        if (2..=WIDEST_GAP).contains(&(above - below)) {
            gaps.push(NumberGap { axis: term.axis as usize, below, above, sick_above });
        }
    }
    gaps
}

/// Boots that would settle what the table leaves open, the most useful ones first. Empty when
/// nothing is open. At most `most`.
pub fn probes(matrix: &MatrixFile, most: usize) -> Vec<Probe> {
    let shape = shape(matrix);
    let mut probes: Vec<Probe> = Vec::new();
    let mut add = |probe: Probe| {
        if probes.len() < most && !probes.iter().any(|p| p.labels == probe.labels) {
            probes.push(probe);
        }
    };
    if matrix.cells.len() + most > MOST_CELLS {
        return Vec::new();
    }
    for (number, bug) in matrix.bugs.iter().enumerate().take(MOST_BUGS) {
        if bug.conditions.is_empty() {
            continue;
        }
        let marks = marks(matrix, u32::try_from(number).unwrap_or(u32::MAX));
        let labels = |at: &[u32]| -> Vec<String> {
            let values = matrix.axes.iter().zip(at);
            values.map(|(axis, v)| axis.values[*v as usize].label.clone()).collect()
        };
        let found = shrink::conditions(&shape, &marks);
        for (area, rival) in &found.rivals {
            for at in shrink::questions(&shape, &marks, &found.areas[*area], rival, 1) {
                let (a, b) = (&found.areas[*area], rival);
                add(Probe {
                    labels: labels(&at),
                    decides: format!(
                        "\"{}\" or \"{}\"",
                        words::condition(&matrix.axes, a).text,
                        words::condition(&matrix.axes, b).text
                    ),
                });
            }
        }
        for gap in gaps_of(matrix, &bug.conditions) {
            let Some(sick) = bug.cells.first() else { continue };
            let mut wanted = labels(&matrix.cells[*sick as usize].at);
            let middle = u64::midpoint(gap.below, gap.above);
            let name = &matrix.axes[gap.axis].name;
            wanted[gap.axis] = middle.to_string();
            add(Probe {
                decides: format!(
                    "where between {name} = {} and {} it begins",
                    gap.below, gap.above
                ),
                labels: wanted,
            });
        }
    }
    probes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::plan::{Request, Template, parse_axis};
    use kolumbo_case::VerdictKind;

    fn plan(axes: &[&str]) -> Plan {
        let base = Template { kernel: Some("k".into()), ..Template::default() };
        let axes = axes.iter().map(|a| parse_axis(a).unwrap()).collect();
        Plan::new(Request { base, axes, ..Request::default() }).unwrap()
    }

    fn circumstances() -> Circumstances {
        Circumstances {
            started: String::new(),
            state: CaseState::Done,
            confidence: 0.95,
            allow_splats: false,
            host: HostFacts::default(),
            notes: BTreeMap::new(),
            gaps: Vec::new(),
        }
    }

    fn run(repeat: u32, signature: &str) -> Run {
        let verdict =
            if signature.is_empty() { VerdictKind::Booted } else { VerdictKind::HungBoot };
        Run {
            repeat,
            attempt: 1,
            verdict: Some(verdict),
            signature: signature.to_owned(),
            ..Run::default()
        }
    }

    /// A matrix whose cells run `repeats` times each.
    fn matrix(
        plan: &Plan,
        repeats: u32,
        strikes: impl Fn(&str, u32) -> &'static str,
    ) -> MatrixFile {
        let runs: Vec<(String, Run)> = plan
            .cells
            .iter()
            .flat_map(|c| (1..=repeats).map(|r| (plan.name(&c.at), r)))
            .map(|(name, r)| (name.clone(), run(r, strikes(&name, r))))
            .collect();
        summarise(plan, runs, |_| String::new(), &circumstances())
    }

    #[test]
    fn the_mails_own_sentence() {
        let plan = plan(&["kernel=gcc:g,clang:c", "smp=1,2,4", "append=off:a,ibpb:b,safe-ret:c"]);
        let found = matrix(&plan, 1, |name, _| match name {
            "clang/2/safe-ret" | "clang/4/safe-ret" => "hung-boot in initcalls",
            _ => "",
        });
        assert_eq!(found.bugs.len(), 1);
        assert_eq!(found.bugs[0].sentence, "clang and smp ≥ 2 and safe-ret");
        assert!(found.bugs[0].open.is_empty(), "{:?}", found.bugs[0].open);
        assert_eq!(found.cells.iter().filter(|c| c.as_expected == Some(true)).count(), 16);
    }

    #[test]
    fn a_flaky_bug_has_a_rate_and_unlucky_cells_do_not_mislead() {
        let plan = plan(&["kernel=gcc:g,clang:c", "smp=1,2"]);
        // 30% where it strikes; one of its cells was run too seldom to show it.
        let mut found = matrix(&plan, 20, |name, r| match name {
            "clang/2" if r % 10 < 3 => "hung-boot in init",
            _ => "",
        });
        assert_eq!(
            found.bugs[0].sentence,
            "clang and smp ≥ 2, in 30% of runs (6 of 20, 95% interval 15 to 52%)"
        );
        assert_eq!(found.cells[3].answer, Answer::Flaky);
        // With three healthy runs a cell proves nothing against 30%.
        found.cells[1].runs.truncate(3);
        settle(&mut found.cells[1], &|r| Some(r.signature.is_empty()), 0.95);
        assert_eq!(marks(&found, 0)[1].1, Mark::Unknown);
    }

    #[test]
    fn two_bugs_do_not_hide_each_other() {
        let plan = plan(&["kernel=gcc:g,clang:c", "smp=1,2"]);
        let found = matrix(&plan, 1, |name, _| match name {
            "gcc/2" => "BUG: a",
            "clang/1" | "clang/2" => "hung-boot in init",
            _ => "",
        });
        let sentences: Vec<&str> = found.bugs.iter().map(|b| b.sentence.as_str()).collect();
        assert_eq!(sentences, ["clang", "smp ≥ 2"], "clang/2 could hide the second one");
        assert_eq!(found.any_bug, None, "two causes stay two");
    }

    #[test]
    fn one_cause_that_shows_as_several_bugs_has_one_sentence() {
        let plan = plan(&["kernel=gcc:g,clang:c", "smp=1,2,4", "append=no:nopv,yes:"]);
        let found = matrix(&plan, 1, |name, _| match name {
            "clang/2/no" => "hung-boot in smp-bring-up",
            "clang/4/no" | "clang/4/yes" => "hung-boot in smp-bring-up at f",
            "clang/2/yes" => "hung-shutdown in shutdown at f",
            _ => "",
        });
        assert_eq!(found.bugs.len(), 3);
        assert_eq!(found.any_bug.unwrap().sentence, "clang and smp ≥ 2");
    }

    #[test]
    fn a_bug_that_strikes_later_says_that_the_earlier_one_did_not() {
        let plan = plan(&["kernel=gcc:g,clang:c", "smp=1,2"]);
        let mut runs = Vec::new();
        for cell in &plan.cells {
            let name = plan.name(&cell.at);
            let (signature, phase) = match name.as_str() {
                "clang/1" | "clang/2" => ("BUG: early", kolumbo_case::Phase::EarlyConsole),
                _ => ("reset in shutdown", kolumbo_case::Phase::Shutdown),
            };
            runs.push((name, Run { phase, ..run(1, signature) }));
        }
        let found = summarise(&plan, runs, |_| String::new(), &circumstances());
        let sentences: Vec<&str> = found.bugs.iter().map(|b| b.sentence.as_str()).collect();
        // Whether the late one strikes with clang, too, the early one hides.
        assert_eq!(sentences, ["clang", "always"]);
    }

    #[test]
    fn a_loop_through_two_functions_is_one_bug() {
        let plan = plan(&["smp=1,2"]);
        let found = matrix(&plan, 2, |name, r| match (name, r) {
            ("2", 1) => "hung-boot in init at f",
            ("2", _) => "hung-boot in init at g",
            _ => "",
        });
        assert_eq!(found.bugs.len(), 1);
        assert_eq!(found.bugs[0].signature, "hung-boot in init");
        assert_eq!(found.bugs[0].struck, 2);
    }

    #[test]
    fn what_is_open_is_asked_for() {
        let found = matrix(&plan(&["smp=1,8", "append=a:x,b:y"]), 1, |name, _| match name {
            "8/b" => "BUG: a",
            _ => "",
        });
        assert_eq!(
            found.bugs[0].open,
            ["between smp = 1 (healthy) and 8 (sick) nothing was tested"]
        );
        let probes = probes(&found, 8);
        assert_eq!(probes.len(), 1);
        assert_eq!(probes[0].labels, ["4", "b"]);
    }

    #[test]
    fn a_gap_says_which_end_is_sick() {
        let found =
            matrix(&plan(&["smp=1,2,8"]), 1, |name, _| if name == "8" { "" } else { "BUG: a" });
        assert_eq!(found.bugs[0].sentence, "smp ≤ 2");
        assert_eq!(
            found.bugs[0].open,
            ["between smp = 2 (sick) and 8 (healthy) nothing was tested"]
        );
    }

    #[test]
    fn failures_of_the_host_count_for_no_side() {
        let plan = plan(&["smp=1,2"]);
        let failed = Run { reason: "disk".into(), ..Run::default() };
        let unclear = Run { verdict: Some(VerdictKind::CannotTell), ..Run::default() };
        let runs = [("1".to_owned(), failed), ("1".to_owned(), unclear)];
        let found = summarise(&plan, runs, |_| String::new(), &circumstances());
        assert_eq!(found.cells[0].answer, Answer::Error);
        assert_eq!((found.cells[0].counts.errors, found.cells[0].as_expected), (2, None));
        assert_eq!(found.cells[1].answer, Answer::Pending);
        assert!(found.bugs.is_empty());
    }
}
