//! What a person or a pipe gets to see while a matrix runs.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kolumbo_case::matrix::{Cell, Run};
use kolumbo_lab::matrix::drive::{Matrix, Progress, Watcher};
use kolumbo_report::matrix::text::line;

use super::args::MatrixArgs;

pub(crate) struct Screen {
    /// A line for each run that ends.
    lines: bool,
    notes: bool,
    bar: ProgressBar,
    /// Cells for the lines, by name.
    cells: HashMap<String, Cell>,
}

impl Screen {
    pub(crate) fn new(args: &MatrixArgs, matrix: &Matrix) -> Screen {
        let loud = !args.quiet && !args.json;
        let target = if loud && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.set_style(
            ProgressStyle::with_template("{spinner} {pos}/{len} [{wide_bar}] {msg}, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(Duration::from_millis(250));
        let plan = matrix.plan();
        let cells = plan
            .cells
            .iter()
            .map(|c| {
                let name = plan.name(&c.at);
                let cell = Cell { name: name.clone(), expect: c.expect.clone(), ..Cell::default() };
                (name, cell)
            })
            .collect();
        Screen { lines: loud, notes: loud, bar, cells }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A line on the standard error, between two redraws of the bar.
    pub(crate) fn say(&self, text: &str) {
        if self.notes {
            self.bar.suspend(|| {
                let _ = writeln!(std::io::stderr(), "kolumbo: {text}");
            });
        }
    }
}

impl Watcher for Screen {
    fn finished(&mut self, cell: &str, run: &Run, progress: Progress) {
        if self.lines {
            let name = cell.to_owned();
            let cell =
                self.cells.entry(name.clone()).or_insert_with(|| Cell { name, ..Cell::default() });
            let text = line(cell, run);
            self.bar.suspend(|| {
                // A reader that went away does not end the matrix.
                let _ = writeln!(std::io::stdout(), "{text}");
            });
        }
        self.tick(progress);
    }

    fn tick(&mut self, progress: Progress) {
        self.bar.set_length(progress.total as u64);
        self.bar.set_position(progress.done as u64);
        self.bar.set_message(format!("{} running", progress.running));
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }
}

/// Columns of the terminal that the table is written to.
pub(crate) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 20).then_some(usize::from(size.ws_col))
}

/// Whether the locale takes characters beyond ASCII.
pub(crate) fn is_utf8() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .is_some_and(|v| v.to_ascii_lowercase().replace('-', "").contains("utf8"))
}
