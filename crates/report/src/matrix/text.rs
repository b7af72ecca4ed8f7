//! A matrix for a terminal: the table, where the bugs strike, what is left open.
//!
//! Decides which axes become columns and when a table is too large to be shown whole; it may not
//! know whether a terminal listens. Main items: [`table`] and [`line`].

use std::collections::HashMap;
use std::fmt::Write;

use kolumbo_case::file::CaseState;
use kolumbo_case::matrix::{Answer, Cell, MatrixFile, Run};
use unicode_width::UnicodeWidthStr;

use super::words::{
    Mark, Outcome, Totals, anywhere, clipped, duration, labels, letter, mark, outcome, percent,
    plural, sentence, short, strikes, visible,
};

/// A table with more rows than this is summed up.
const ROWS: usize = 60;
/// Cells that are not healthy and are listed one by one when the table is summed up.
const LISTED: usize = 40;
/// Of these, cells with the same answer and the same bug.
const OF_A_KIND: usize = 8;
/// Values of one axis that are summed up.
const VALUES: usize = 40;
/// Bugs that are shown.
const BUGS: usize = 20;
/// Gaps, and sentences on what a bug leaves open, that are shown.
const REMARKS: usize = 12;
/// The longest label, in characters.
const LABEL: usize = 32;
/// The longest sentence, in characters. Conditions may name many values.
const SENTENCE: usize = 2_000;

/// How the text should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences for colours are welcome. Nothing is said by colour alone.
    pub colour: bool,
    /// Columns of the terminal.
    pub width: usize,
    /// Characters beyond ASCII are welcome in what kolumbo itself says.
    pub unicode: bool,
}

impl Default for Style {
    /// Plain text of 100 columns.
    fn default() -> Style {
        Style { colour: false, width: 100, unicode: false }
    }
}

/// The whole report, with a line end at its end.
pub fn table(matrix: &MatrixFile, style: Style) -> String {
    let mut page = Page { text: String::new(), style };
    page.head(matrix);
    match Layout::of(matrix, style.width) {
        Some(layout) => page.grid(matrix, &layout),
        None => {
            page.marginals(matrix);
            page.listed(matrix);
        }
    }
    page.legend(matrix);
    page.bugs(matrix);
    page.totals(matrix);
    let text = page.text;
    if style.unicode { text } else { text.replace('≥', ">=").replace('≤', "<=") }
}

/// One run that ended, as one line without a line end.
pub fn line(cell: &Cell, run: &Run) -> String {
    let word = match (outcome(run), run.verdict) {
        (Outcome::Spoilt, _) | (_, None) => "err",
        (_, Some(verdict)) => short(verdict),
    };
    let mut text = format!("{word:<7}  {}", clipped(&visible(&cell.name), 120));
    if run.repeat > 1 {
        let _ = write!(text, " #{}", run.repeat);
    }
    if run.attempt > 1 {
        let _ = write!(text, " attempt {}", run.attempt);
    }
    let _ = write!(text, "  {}", duration(run.wall_ms));
    let why = if run.signature.is_empty() { &run.reason } else { &run.signature };
    if outcome(run) != Outcome::Healthy && !why.is_empty() {
        let _ = write!(text, "  {}", clipped(&visible(why), 200));
    }
    text
}

/// Which axes stand above the table, and how wide everything is.
struct Layout {
    /// Axes from this one on are columns.
    split: usize,
    /// Values of all axes of a row, with the cells of the row by column.
    rows: Vec<(Vec<u32>, Vec<Option<usize>>)>,
    columns: Vec<Vec<u32>>,
    /// Width of each axis that stands on the left.
    left: Vec<usize>,
    /// Width of each column.
    widths: Vec<usize>,
}

impl Layout {
    /// The first choice is the last axes as columns, as many as the width holds: the table is
    /// read from left to right like the names of its cells.
    fn of(matrix: &MatrixFile, width: usize) -> Option<Layout> {
        let axes = matrix.axes.len();
        let mut best: Option<(usize, Layout)> = None;
        for split in (0..=axes).rev() {
            let Some(layout) = Layout::with(matrix, split) else { continue };
            if layout.width() > width.max(20) || layout.rows.len() > ROWS {
                continue;
            }
            // Lines cost more than columns: a square in letters is a third as wide as it looks.
            let cost = layout.rows.len() * 3 + layout.columns.len() * 2;
            let better = best.as_ref().is_none_or(|&(least, _)| cost < least);
            if better {
                best = Some((cost, layout));
            }
        }
        best.map(|(_, layout)| layout)
    }

    fn with(matrix: &MatrixFile, split: usize) -> Option<Layout> {
        let mut row_of: HashMap<&[u32], usize> = HashMap::new();
        let mut column_of: HashMap<&[u32], usize> = HashMap::new();
        let mut places = Vec::with_capacity(matrix.cells.len());
        for (index, cell) in matrix.cells.iter().enumerate() {
            let (row, column) = cell.at.split_at(split.min(cell.at.len()));
            let rows = row_of.len();
            let row = *row_of.entry(row).or_insert(rows);
            let columns = column_of.len();
            let column = *column_of.entry(column).or_insert(columns);
            if row >= ROWS || column >= ROWS * 4 {
                return None;
            }
            places.push((row, column, index));
        }
        let (row_keys, row_order) = in_order(&row_of);
        let (columns, column_order) = in_order(&column_of);
        let mut rows: Vec<(Vec<u32>, Vec<Option<usize>>)> =
            row_keys.into_iter().map(|k| (k, vec![None; columns.len()])).collect();
        for (row, column, index) in places {
            rows[row_order[row]].1[column_order[column]] = Some(index);
        }
        let mut layout = Layout { split, rows, columns, left: Vec::new(), widths: Vec::new() };
        layout.measure(matrix);
        Some(layout)
    }

    fn measure(&mut self, matrix: &MatrixFile) {
        for (axis, a) in matrix.axes.iter().enumerate().take(self.split) {
            let labels = self.rows.iter().map(|(at, _)| at.get(axis));
            let widest = labels.map(|v| shown(matrix, axis, v).width()).max().unwrap_or(0);
            self.left.push(widest.max(clipped(&visible(&a.name), LABEL).width()));
        }
        for (place, column) in self.columns.iter().enumerate() {
            let mut width = 2;
            for (offset, value) in column.iter().enumerate() {
                width = width.max(shown(matrix, self.split + offset, Some(value)).width());
            }
            for (_, cells) in &self.rows {
                if let Some(cell) = cells[place].and_then(|c| matrix.cells.get(c)) {
                    width = width.max(mark(cell).to_string().width());
                }
            }
            self.widths.push(width);
        }
    }

    fn width(&self) -> usize {
        let left: usize = self.left.iter().map(|w| w + 2).sum();
        // The name of an axis whose values are columns stands on the left, too.
        left.max(8) + 3 + self.widths.iter().map(|w| w + 2).sum::<usize>()
    }
}

/// The keys in rising order, and for each number that was given to a key its place in that order.
fn in_order(numbered: &HashMap<&[u32], usize>) -> (Vec<Vec<u32>>, Vec<usize>) {
    let mut keys: Vec<(&[u32], usize)> = numbered.iter().map(|(k, &n)| (*k, n)).collect();
    keys.sort_unstable();
    let mut place = vec![0; keys.len()];
    for (sorted, &(_, number)) in keys.iter().enumerate() {
        place[number] = sorted;
    }
    (keys.into_iter().map(|(k, _)| k.to_vec()).collect(), place)
}

fn shown(matrix: &MatrixFile, axis: usize, value: Option<&u32>) -> String {
    let value = value.and_then(|&v| usize::try_from(v).ok());
    let label = value.and_then(|v| matrix.axes.get(axis)?.values.get(v));
    label.map_or_else(|| "?".to_owned(), |l| clipped(&visible(&l.label), LABEL).into_owned())
}

/// Text with the wishes of the reader.
struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn head(&mut self, matrix: &MatrixFile) {
        let title = if matrix.title.is_empty() { "matrix" } else { &matrix.title };
        let times = if self.style.unicode { " × " } else { " x " };
        let axes: Vec<String> = matrix
            .axes
            .iter()
            .map(|a| format!("{} {}", clipped(&visible(&a.name), LABEL), a.values.len()))
            .collect();
        let _ = write!(self.text, "{}: {}", clipped(&visible(title), 100), axes.join(times));
        let _ = writeln!(self.text, ", {}", plural(matrix.cells.len(), "cell"));
        self.text.push('\n');
    }

    fn grid(&mut self, matrix: &MatrixFile, layout: &Layout) {
        if layout.columns.is_empty() {
            return;
        }
        let left: usize = layout.left.iter().map(|w| w + 2).sum::<usize>().max(8);
        let bar = if self.style.unicode { "│" } else { "|" };
        let above = matrix.axes.len().saturating_sub(layout.split);
        for offset in 0..above {
            self.column_heads(matrix, layout, offset, left, bar);
        }
        if above == 0 {
            self.row_names(matrix, layout, left);
            let _ = writeln!(self.text, "{bar}");
        }
        let mut before: Option<&Vec<u32>> = None;
        for (at, cells) in &layout.rows {
            let mut line = String::new();
            let mut same = true;
            for (axis, &width) in layout.left.iter().enumerate() {
                same = same && before.is_some_and(|b| b.get(axis) == at.get(axis));
                let last = axis + 1 == layout.left.len();
                let label = match same && !last {
                    true => String::new(),
                    false => shown(matrix, axis, at.get(axis)),
                };
                push_padded(&mut line, &label, width + 2);
            }
            let gap = left.saturating_sub(line.width());
            push_padded(&mut line, "", gap);
            let _ = write!(line, "{bar} ");
            for (place, cell) in cells.iter().enumerate() {
                let width = layout.widths[place] + 2;
                match cell.and_then(|c| matrix.cells.get(c)) {
                    Some(cell) => self.push_mark(&mut line, cell, width),
                    None => push_padded(&mut line, "", width),
                }
            }
            self.push_line(&line);
            before = Some(at);
        }
        self.text.push('\n');
    }

    fn column_heads(
        &mut self,
        matrix: &MatrixFile,
        layout: &Layout,
        offset: usize,
        left: usize,
        bar: &str,
    ) {
        let axis = layout.split + offset;
        let last = axis + 1 == matrix.axes.len();
        if last {
            self.row_names(matrix, layout, left);
        } else {
            let _ = write!(self.text, "{:left$}", "");
        }
        let mut line = format!("{bar} ");
        for (place, column) in layout.columns.iter().enumerate() {
            // A value that covers several columns is named once.
            let covered = !last
                && place
                    .checked_sub(1)
                    .is_some_and(|p| layout.columns[p].get(..=offset) == column.get(..=offset));
            let label = match covered {
                true => String::new(),
                false => shown(matrix, axis, column.get(offset)),
            };
            push_padded(&mut line, &label, layout.widths[place] + 2);
        }
        if let Some(axis) = matrix.axes.get(axis) {
            let name = clipped(&visible(&axis.name), LABEL).into_owned();
            line = format!("{}  ({name})", line.trim_end());
        }
        self.push_line(&line);
    }

    fn row_names(&mut self, matrix: &MatrixFile, layout: &Layout, left: usize) {
        let mut line = String::new();
        for (axis, &width) in matrix.axes.iter().zip(&layout.left) {
            push_padded(&mut line, &clipped(&visible(&axis.name), LABEL), width + 2);
        }
        let gap = left.saturating_sub(line.width());
        push_padded(&mut line, "", gap);
        self.text.push_str(&line);
    }

    /// The mark of a cell, padded to `width`; the colour ends where the mark does.
    fn push_mark(&self, line: &mut String, cell: &Cell, width: usize) {
        let mark = mark(cell);
        let text = mark.to_string();
        line.push_str(&self.painted(&text, cell.answer, &mark));
        line.push_str(&" ".repeat(width.saturating_sub(text.width())));
    }

    fn painted(&self, text: &str, answer: Answer, mark: &Mark) -> String {
        if !self.style.colour {
            return text.to_owned();
        }
        let code = match answer {
            Answer::Healthy if mark.unexpected => "1;32",
            Answer::Healthy => "32",
            Answer::Sick if mark.unexpected => "1;31",
            Answer::Sick => "31",
            Answer::Flaky => "1;33",
            Answer::Error => "1;35",
            Answer::Pending => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn marginals(&mut self, matrix: &MatrixFile) {
        for (number, axis) in matrix.axes.iter().enumerate() {
            let mut rows: Vec<(usize, usize, u32, u32)> = vec![(0, 0, 0, 0); axis.values.len()];
            for cell in &matrix.cells {
                let value = cell.at.get(number).and_then(|&v| usize::try_from(v).ok());
                let Some(row) = value.and_then(|v| rows.get_mut(v)) else { continue };
                row.0 += 1;
                row.1 += usize::from(matches!(cell.answer, Answer::Sick | Answer::Flaky));
                row.2 = row.2.saturating_add(cell.counts.sick);
                row.3 = row.3.saturating_add(cell.counts.judged());
            }
            let shown: Vec<String> = axis
                .values
                .iter()
                .map(|v| clipped(&visible(&v.label), LABEL).into_owned())
                .collect();
            let widest = shown.iter().take(VALUES).map(|l| l.width()).max().unwrap_or(0);
            let _ = writeln!(self.text, "{}", clipped(&visible(&axis.name), LABEL));
            for (label, (cells, ill, sick, judged)) in shown.iter().zip(&rows).take(VALUES) {
                let mut line = String::from("  ");
                push_padded(&mut line, label, widest + 2);
                let rate = f64::from(*sick) / f64::from((*judged).max(1));
                let filled = (rate * 20.0).round().clamp(0.0, 20.0) as usize;
                let (full, empty) = if self.style.unicode { ("█", "·") } else { ("#", ".") };
                let bar = full.repeat(filled) + &empty.repeat(20 - filled);
                let _ = write!(
                    line,
                    "{bar}  {:>5} of runs sick; {ill} of {} sick or flaky",
                    if *judged == 0 { "-".to_owned() } else { percent(rate) },
                    plural(*cells, "cell"),
                );
                self.push_line(&line);
            }
            let more = axis.values.len().saturating_sub(VALUES);
            if more > 0 {
                let _ = writeln!(self.text, "  and {} more", plural(more, "value"));
            }
        }
        self.text.push('\n');
    }

    /// The cells that are not healthy: at first those that were not expected, and of each bug only
    /// some, so that a frequent one hides no rare one.
    fn listed(&mut self, matrix: &MatrixFile) {
        let notable = |c: &&Cell| {
            let ill = matches!(c.answer, Answer::Sick | Answer::Flaky | Answer::Error);
            ill || c.as_expected == Some(false)
        };
        let mut cells: Vec<&Cell> = matrix.cells.iter().filter(notable).collect();
        cells.sort_by_key(|c| c.as_expected != Some(false));
        let mut of_a_kind: HashMap<(Answer, Option<u32>), usize> = HashMap::new();
        let mut left = 0;
        let mut said = 0;
        for cell in &cells {
            let bug = cell.runs.iter().find_map(|r| r.bug);
            let seen = of_a_kind.entry((cell.answer, bug)).or_default();
            *seen += 1;
            if *seen > OF_A_KIND || said == LISTED {
                left += 1;
                continue;
            }
            said += 1;
            let mut line = String::from("  ");
            self.push_mark(&mut line, cell, 16);
            let labels: Vec<String> = labels(matrix, cell)
                .iter()
                .map(|l| clipped(&visible(l), LABEL).into_owned())
                .collect();
            line.push_str(&labels.join("/"));
            self.push_line(&line);
        }
        if left > 0 {
            let _ = writeln!(
                self.text,
                "  and {left} more that are sick, flaky, without an answer or not as expected"
            );
        }
        if said > 0 {
            self.text.push('\n');
        }
    }

    fn legend(&mut self, matrix: &MatrixFile) {
        let any = |answer| matrix.cells.iter().any(|c| c.answer == answer);
        let mut words = Vec::new();
        if any(Answer::Flaky) {
            words.push("flaky 3/10: 3 of 10 runs were sick");
        }
        if any(Answer::Error) {
            words.push("err: no run could be judged");
        }
        if any(Answer::Pending) {
            words.push("..: not run yet");
        }
        if !matrix.bugs.is_empty() {
            words.push("A, B: which bug");
        }
        if matrix.cells.iter().any(|c| c.as_expected == Some(false)) {
            words.push("!: not as expected");
        }
        if !words.is_empty() {
            self.wrapped("  ", &words.join("; "));
            self.text.push('\n');
        }
    }

    fn bugs(&mut self, matrix: &MatrixFile) {
        if let Some(sentence) = anywhere(matrix) {
            self.wrapped("anything fails: ", &clipped(&sentence, SENTENCE));
        }
        for (number, bug) in matrix.bugs.iter().enumerate().take(BUGS) {
            let first = format!("{}  ", letter(u32::try_from(number).unwrap_or(u32::MAX)));
            let indent = " ".repeat(first.width());
            self.wrapped(&first, &clipped(&visible(&bug.signature), SENTENCE));
            let sentence = sentence(bug);
            if !sentence.is_empty() {
                self.wrapped(&indent, &clipped(&sentence, SENTENCE));
            }
            self.wrapped(&indent, &strikes(bug, matrix.confidence));
            for open in bug.open.iter().take(REMARKS) {
                self.wrapped(&format!("{indent}open: "), &clipped(&visible(open), SENTENCE));
            }
            let more = bug.open.len().saturating_sub(REMARKS);
            if more > 0 {
                let _ = writeln!(self.text, "{indent}and {more} more left open");
            }
        }
        let more = matrix.bugs.len().saturating_sub(BUGS);
        if more > 0 {
            let _ = writeln!(self.text, "and {} more", plural(more, "bug"));
        }
        if !matrix.bugs.is_empty() {
            self.text.push('\n');
        }
    }

    fn totals(&mut self, matrix: &MatrixFile) {
        let totals = Totals::of(matrix);
        let mut words = vec![plural(totals.cells, "cell")];
        for (n, word) in [
            (totals.healthy, "healthy"),
            (totals.sick, "sick"),
            (totals.flaky, "flaky"),
            (totals.errors, "without an answer"),
            (totals.pending, "pending"),
            (totals.unexpected, "not as expected"),
        ] {
            if n > 0 {
                words.push(format!("{n} {word}"));
            }
        }
        words.push(format!("{}, {}", plural(totals.runs, "run"), duration(totals.wall_ms)));
        self.wrapped("", &words.join(", "));
        if matrix.state == CaseState::Running {
            self.wrapped("", "not finished: cells are still to be run");
        }
        for gap in matrix.gaps.iter().take(REMARKS) {
            self.wrapped("gap: ", &clipped(&visible(gap), SENTENCE));
        }
        let more = matrix.gaps.len().saturating_sub(REMARKS);
        if more > 0 {
            let _ = writeln!(self.text, "and {} more", plural(more, "gap"));
        }
    }

    fn push_line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Words behind `first`; further lines stand behind blanks.
    fn wrapped(&mut self, first: &str, words: &str) {
        let width = self.style.width.clamp(40, 120);
        let indent = " ".repeat(first.width());
        let mut line = first.to_owned();
        let mut used = first.width();
        let mut empty = true;
        for word in words.split_whitespace() {
            let wide = word.width();
            if !empty && used + 1 + wide > width {
                self.push_line(&line);
                line.clone_from(&indent);
                used = indent.len();
                empty = true;
            }
            if !empty {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += wide;
            empty = false;
        }
        self.push_line(&line);
    }
}

fn push_padded(line: &mut String, text: &str, width: usize) {
    line.push_str(text);
    line.push_str(&" ".repeat(width.saturating_sub(text.width())));
}

#[cfg(test)]
mod tests {
    use super::super::words::label;
    use super::*;

    #[test]
    fn a_cell_that_points_nowhere_is_a_question_mark() {
        let matrix = MatrixFile {
            axes: vec![kolumbo_case::matrix::Axis { name: "smp".into(), ..Default::default() }],
            cells: vec![Cell { at: vec![7], ..Cell::default() }, Cell::default()],
            ..MatrixFile::default()
        };
        assert_eq!(label(&matrix, &matrix.cells[0], 0), "?");
        let text = table(&matrix, Style::default());
        assert!(text.contains("2 cells, 2 pending"), "{text}");
    }
}
