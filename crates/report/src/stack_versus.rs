//! Two diffs that claim to be the same change, side by side or one below the other.
//!
//! Decides which lines belong together and how wide a column is. Main functions: [`side_by_side`],
//! [`one_column`].

use std::fmt::Write;

use kolumbo_case::stack::Versus;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::matrix::{visible, visible_lines};

/// Largest table of the comparison; beyond it the differing middle is shown as it is.
const LARGEST: usize = 1 << 22;
/// Equal lines that are shown around a difference.
const AROUND: usize = 3;

/// A line of both, or of one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair<'l> {
    Same(&'l str),
    Ours(&'l str),
    Theirs(&'l str),
    Changed(&'l str, &'l str),
    /// Equal lines that are left out.
    Gap(usize),
}

/// Two columns of a screen of `width`: `|` between lines that differ, `<` and `>` beside lines of one only.
pub(crate) fn side_by_side(versus: &Versus, width: usize) -> String {
    let column = width.saturating_sub(3) / 2;
    let mut text = String::new();
    for pair in pairs(&versus.ours, &versus.theirs) {
        let (left, mark, right) = match pair {
            Pair::Same(line) => (line, ' ', line),
            Pair::Ours(line) => (line, '<', ""),
            Pair::Theirs(line) => ("", '>', line),
            Pair::Changed(ours, theirs) => (ours, '|', theirs),
            Pair::Gap(lines) => {
                let _ = writeln!(text, "... {lines} equal lines");
                continue;
            }
        };
        let line = format!("{} {mark} {}", cut(left, column, true), cut(right, column, false));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    push_left_out(&mut text, versus);
    text
}

/// One column, for narrow screens and for files: `<` before lines of the patch, `>` before the target's.
pub(crate) fn one_column(versus: &Versus) -> String {
    let mut text = String::new();
    for pair in pairs(&versus.ours, &versus.theirs) {
        let mut line = |mark: char, line: &str| {
            let _ = writeln!(text, "{}", format!("{mark} {}", visible_lines(line)).trim_end());
        };
        match pair {
            Pair::Same(same) => line(' ', same),
            Pair::Ours(ours) => line('<', ours),
            Pair::Theirs(theirs) => line('>', theirs),
            Pair::Changed(ours, theirs) => {
                line('<', ours);
                line('>', theirs);
            }
            Pair::Gap(lines) => {
                let _ = writeln!(text, "... {lines} equal lines");
            }
        }
    }
    push_left_out(&mut text, versus);
    text
}

fn push_left_out(text: &mut String, versus: &Versus) {
    if versus.left_out > 0 {
        let _ = writeln!(text, "... {} lines more, which were not compared", versus.left_out);
    }
}

/// `text` in `width` columns of the screen, filled up with blanks where `fill` is set.
fn cut(text: &str, width: usize, fill: bool) -> String {
    let spaced = text.replace('\t', "    ");
    let text = visible(&spaced);
    let mut kept = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width {
            break;
        }
        used += wide;
        kept.push(c);
    }
    if kept.len() < text.len() && width > 1 {
        // The last column says that there is more.
        while kept.width() > width - 1 {
            kept.pop();
        }
        kept.push('>');
        used = kept.width();
    }
    if fill {
        kept.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    }
    kept
}

/// The lines of both in order, those in common found by their longest common subsequence.
fn pairs<'l>(ours: &'l str, theirs: &'l str) -> Vec<Pair<'l>> {
    let (a, b): (Vec<&str>, Vec<&str>) = (ours.lines().collect(), theirs.lines().collect());
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let tail =
        a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (end_a, end_b) = (a.len() - tail, b.len() - tail);
    let mut pairs: Vec<Pair<'l>> = a[..head].iter().map(|line| Pair::Same(line)).collect();
    middle(&a[head..end_a], &b[head..end_b], &mut pairs);
    pairs.extend(a[end_a..].iter().map(|line| Pair::Same(line)));
    with_gaps(&beside(pairs))
}

fn middle<'l>(a: &[&'l str], b: &[&'l str], into: &mut Vec<Pair<'l>>) {
    let columns = b.len() + 1;
    if (a.len() + 1).saturating_mul(columns) > LARGEST {
        into.extend(a.iter().map(|line| Pair::Ours(line)));
        into.extend(b.iter().map(|line| Pair::Theirs(line)));
        return;
    }
    let mut table = vec![0u32; (a.len() + 1) * columns];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            table[i * columns + j] = if a[i] == b[j] {
                table[(i + 1) * columns + j + 1] + 1
            } else {
                table[(i + 1) * columns + j].max(table[i * columns + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            into.push(Pair::Same(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len()
            || i < a.len() && table[(i + 1) * columns + j] >= table[i * columns + j + 1]
        {
            into.push(Pair::Ours(a[i]));
            i += 1;
        } else {
            into.push(Pair::Theirs(b[j]));
            j += 1;
        }
    }
}

/// Lines of the one that stand where lines of the other stood are put beside each other.
fn beside(pairs: Vec<Pair<'_>>) -> Vec<Pair<'_>> {
    let mut out = Vec::with_capacity(pairs.len());
    let mut at = 0;
    while at < pairs.len() {
        let run = pairs[at..].iter().take_while(|p| !matches!(p, Pair::Same(_))).count();
        if run == 0 {
            out.push(pairs[at]);
            at += 1;
            continue;
        }
        let lines = &pairs[at..at + run];
        let ours = lines.iter().filter_map(|p| if let Pair::Ours(l) = p { Some(*l) } else { None });
        let theirs =
            lines.iter().filter_map(|p| if let Pair::Theirs(l) = p { Some(*l) } else { None });
        let (mut ours, mut theirs) = (ours, theirs);
        loop {
            out.push(match (ours.next(), theirs.next()) {
                (Some(ours), Some(theirs)) => Pair::Changed(ours, theirs),
                (Some(ours), None) => Pair::Ours(ours),
                (None, Some(theirs)) => Pair::Theirs(theirs),
                (None, None) => break,
            });
        }
        at += run;
    }
    out
}

/// Long runs of equal lines are left out.
fn with_gaps<'l>(pairs: &[Pair<'l>]) -> Vec<Pair<'l>> {
    let mut out: Vec<Pair<'l>> = Vec::new();
    let mut at = 0;
    while at < pairs.len() {
        let run = pairs[at..].iter().take_while(|p| matches!(p, Pair::Same(_))).count();
        // The name of the first file and its function stay.
        let before = if at == 0 { 2 } else { AROUND };
        let behind = if at + run == pairs.len() { 0 } else { AROUND };
        if run > before + behind + 1 {
            out.extend_from_slice(&pairs[at..at + before]);
            out.push(Pair::Gap(run - before - behind));
            out.extend_from_slice(&pairs[at + run - behind..at + run]);
        } else {
            out.extend_from_slice(&pairs[at..at + run]);
        }
        at += run;
        if at < pairs.len() {
            out.push(pairs[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn example() -> Versus {
        Versus {
            ours: "a.c\nint f(void)\n one\n two\n three\n four\n five\n six\n-old\n+new \u{1b}[0m line that is long\n end\n+last\n".into(),
            theirs: "a.c\nint f(void)\n one\n two\n three\n four\n five\n six\n-old\n+\tother\n end\n".into(),
            left_out: 0,
        }
    }

    #[test]
    fn two_columns() {
        expect![[r#"
            a.c                  a.c
            int f(void)          int f(void)
            ... 4 equal lines
             five                 five
             six                  six
            -old                 -old
            +new ^[[0m line t> | +    other
             end                  end
            +last              <
        "#]]
        .assert_eq(&side_by_side(&example(), 39));
    }

    #[test]
    fn one_below_the_other() {
        let versus = Versus { left_out: 7, ..example() };
        expect![[r#"
              a.c
              int f(void)
            ... 4 equal lines
               five
               six
              -old
            < +new ^[[0m line that is long
            > +	other
               end
            < +last
            ... 7 lines more, which were not compared
        "#]]
        .assert_eq(&one_column(&versus));
    }

    #[test]
    fn hostile_sizes_end() {
        let many = |word: &str| (0..50_000).map(|n| format!("{word}{n}\n")).collect::<String>();
        let versus = Versus { ours: many("a"), theirs: many("b"), left_out: 0 };
        assert_eq!(side_by_side(&versus, 80).lines().count(), 50_000);
        for width in 0..9 {
            assert!(side_by_side(&example(), width).lines().count() > 5);
        }
        assert_eq!(one_column(&Versus::default()), "");
    }
}
