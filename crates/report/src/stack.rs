//! A stack of patches beside its target, as a table.
//!
//! Main functions: [`status`], [`plan`].

use std::fmt::Write;

use kolumbo_case::StackStatus;
use kolumbo_case::stack::{Held, PlanAction, Remark, RemarkKind, StackPlan, StackRow};

use crate::matrix::{visible, visible_lines};
use crate::stack_versus::{one_column, side_by_side};

/// Below this width two columns show too little.
const NARROW: usize = 80;
/// What stands before lines that belong to a patch.
const INDENT: &str = "    ";
/// Digits of a commit that are shown.
const DIGITS: usize = 12;

/// The table of a status, and what can be dropped. Diffs that have to be compared stand side by side on a screen
/// of `width` columns, one below the other without it or where it is narrow.
pub fn status(status: &StackStatus, width: Option<usize>) -> String {
    let mut text = head(status);
    for row in &status.rows {
        push_row(&mut text, row);
        if let Some(versus) = &row.versus {
            let columns = width.filter(|width| *width >= NARROW);
            let lines = match columns {
                Some(width) => side_by_side(versus, width - INDENT.len()),
                None => one_column(versus),
            };
            for line in lines.lines() {
                let _ = writeln!(text, "{INDENT}{line}");
            }
        }
    }
    let surely = |r: &&StackRow| matches!(r.held, Held::SamePatch | Held::Named);
    let dropped = status.rows.iter().filter(surely).count();
    let _ = writeln!(
        text,
        "\n{} of {} patches are in {} and can be dropped",
        dropped,
        status.rows.len(),
        visible(&status.onto)
    );
    push_gaps(&mut text, status);
    text
}

/// The steps of a plan.
pub fn plan(plan: &StackPlan) -> String {
    let mut text = head(&plan.status);
    for (row, step) in plan.status.rows.iter().zip(&plan.steps) {
        let action = match step.action {
            PlanAction::Keep => "keep",
            PlanAction::Drop => "drop",
            PlanAction::Empty => "empty",
            PlanAction::Conflict => "conflict",
        };
        let line = format!("{action:<9} {} {}", name(row), title(row));
        let _ = writeln!(text, "{}", visible(&line));
        if let Some(label) = &step.relabel {
            let _ = writeln!(text, "          label it {label}");
        }
        for (file, number) in &step.conflicts {
            let place = if *number == 0 { file.clone() } else { format!("{file}:{number}") };
            let _ = writeln!(text, "          conflict in {}", visible(&place));
        }
        if step.action == PlanAction::Drop {
            let _ = writeln!(text, "          {}", visible(&held(row)));
        }
        if step.action == PlanAction::Conflict {
            let about =
                |r: &&Remark| matches!(r.kind, RemarkKind::Prerequisite | RemarkKind::DoesNotApply);
            for remark in row.remarks.iter().filter(about) {
                let _ = writeln!(text, "          {}", visible(&remark.text));
            }
        }
    }
    push_gaps(&mut text, &plan.status);
    if let Some(applied) = &plan.applied {
        let made = format!("{} is the new branch {}", short(&applied.commit), applied.branch);
        let _ = writeln!(text, "\n{}; git range-diff says:\n", visible(&made));
        for line in applied.range_diff.lines() {
            let _ = writeln!(text, "{}", visible_lines(line));
        }
    }
    text
}

fn head(status: &StackStatus) -> String {
    let line = format!(
        "{} onto {}, which has {} commits that the stack's base has not\n",
        status.stack, status.onto, status.target_commits
    );
    format!("{}\n\n", visible(line.trim_end()))
}

fn push_row(text: &mut String, row: &StackRow) {
    let line = format!("{} {}", name(row), title(row));
    let _ = writeln!(text, "{}", visible(&line));
    let _ = writeln!(text, "    {}", visible(&held(row)));
    for remark in &row.remarks {
        let _ = writeln!(text, "    {}", visible(&remark.text));
    }
}

fn push_gaps(text: &mut String, status: &StackStatus) {
    for gap in &status.gaps {
        let _ = writeln!(text, "note: {}", visible(gap));
    }
}

/// The file that a patch came from, else its commit.
fn name(row: &StackRow) -> &str {
    row.file.as_deref().unwrap_or_else(|| short(&row.commit))
}

fn title(row: &StackRow) -> String {
    let labels: String =
        row.labels.iter().filter(|l| *l != "Revert").map(|l| format!("{l}: ")).collect();
    let subject = if row.subject.is_empty() { "(no subject)" } else { &row.subject };
    format!("{labels}{subject}")
}

fn held(row: &StackRow) -> String {
    let by = row.by.as_deref().map_or("", short);
    match row.held {
        Held::Absent => "not there".to_owned(),
        Held::SamePatch => format!("there: {by} is the same patch"),
        Held::Named => format!("there: {by} is the same upstream commit, with another diff"),
        Held::SameSubject => {
            format!("perhaps there: {by} has subject and author, and another diff")
        }
        Held::Partly => format!("partly there: {by} makes some of its changes"),
        Held::Reverted => {
            let reverted = row.reverted_by.as_deref().map_or("", short);
            format!("was there as {by}, and {reverted} took it back")
        }
        Held::Merge => "a merge, which was not compared".to_owned(),
    }
}

fn short(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kolumbo_case::stack::{AppliedPlan, PlanStep, Versus};

    fn example() -> StackStatus {
        let row = |subject: &str, held, by: Option<&str>| StackRow {
            commit: "0123456789abcdef".into(),
            subject: subject.into(),
            labels: vec!["UPSTREAM".into()],
            held,
            by: by.map(str::to_owned),
            ..StackRow::default()
        };
        StackStatus {
            stack: "base..mine".into(),
            onto: "v4.14.36".into(),
            target_commits: 7,
            rows: vec![
                row("x86: a", Held::SamePatch, Some("fedcba9876543210")),
                row("x86: b\u{1b}[0m", Held::Absent, None),
            ],
            gaps: vec!["shallow".into()],
            ..StackStatus::default()
        }
    }

    #[test]
    fn the_table_says_what_can_be_dropped() {
        expect![[r#"
            base..mine onto v4.14.36, which has 7 commits that the stack's base has not

            0123456789ab UPSTREAM: x86: a
                there: fedcba987654 is the same patch
            0123456789ab UPSTREAM: x86: b^[[0m
                not there

            1 of 2 patches are in v4.14.36 and can be dropped
            note: shallow
        "#]]
        .assert_eq(&status(&example(), None));
    }

    #[test]
    fn diffs_to_compare_stand_side_by_side_where_there_is_room() {
        let mut found = example();
        found.rows[1].file = Some("b.patch".into());
        found.rows[1].held = Held::SameSubject;
        found.rows[1].versus =
            Some(Versus { ours: "b.c\n+one\n".into(), theirs: "b.c\n+two\n".into(), left_out: 0 });
        let wide = status(&found, Some(80));
        assert!(wide.contains("b.patch UPSTREAM: x86: b"), "{wide}");
        assert!(wide.contains(&format!("\n    +one{} | +two\n", " ".repeat(32))), "{wide}");
        for narrow in [None, Some(79)] {
            assert!(status(&found, narrow).contains("\n    < +one\n    > +two\n"));
        }
    }

    #[test]
    fn a_plan_names_lines() {
        let step = |action, conflicts| PlanStep { action, conflicts, ..PlanStep::default() };
        let steps = vec![
            step(PlanAction::Drop, vec![]),
            step(PlanAction::Conflict, vec![("kernel/fork.c".into(), 12)]),
        ];
        let text = plan(&StackPlan { status: example(), steps, applied: None });
        assert!(text.contains("conflict in kernel/fork.c:12"), "{text}");
        assert!(text.contains("drop      0123456789ab UPSTREAM: x86: a\n"), "{text}");
        let applied = AppliedPlan {
            branch: "mine-2".into(),
            commit: "89abcdef0123456789".into(),
            range_diff: "1:  a = 1:  b x\u{1b}".into(),
        };
        let text =
            plan(&StackPlan { status: example(), steps: Vec::new(), applied: Some(applied) });
        let end =
            "\n89abcdef0123 is the new branch mine-2; git range-diff says:\n\n1:  a = 1:  b x^[\n";
        assert!(text.ends_with(end), "{text}");
    }
}
