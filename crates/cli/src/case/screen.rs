//! What a person or a pipe gets to see while a case runs.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kolumbo_case::matrix::{Cell, Run};
use kolumbo_lab::matrix::drive::{Progress, Watcher};
use kolumbo_report::matrix::text::line;
use kolumbo_report::matrix::visible;
use kolumbo_source::build::{Observer, Step};

/// Time between two lines about a build where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(20);

/// A bar in a terminal, a line now and then elsewhere; all of it on the standard error.
pub(crate) struct Screen {
    quiet: bool,
    bar: ProgressBar,
    /// What is being done.
    doing: String,
    last: Instant,
}

impl Screen {
    pub(crate) fn new(quiet: bool) -> Screen {
        let target = if !quiet && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.enable_steady_tick(Duration::from_millis(250));
        Screen { quiet, bar, doing: String::new(), last: Instant::now() }
    }

    /// Begins something.
    pub(crate) fn begin(&mut self, doing: &str) {
        self.doing = doing.to_owned();
        self.last = Instant::now();
        let style =
            ProgressStyle::with_template("{spinner} {prefix}  {pos}/{len} [{wide_bar}] {msg}");
        if let Ok(style) = style {
            self.bar.set_style(style);
        }
        self.bar.set_prefix(self.doing.clone());
        self.bar.set_message(String::new());
        self.bar.set_position(0);
    }

    /// A line.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| {
                let _ = writeln!(std::io::stderr(), "kolumbo: {text}");
            });
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Screen {
    fn step(&mut self, step: Step<'_>) {
        self.bar.set_length(u64::from(step.total));
        self.bar.set_position(u64::from(step.done));
        self.bar.set_message(format!("{} {}", step.tool, visible(step.file)));
        if self.bar.is_hidden() && self.last.elapsed() > BETWEEN_LINES {
            self.last = Instant::now();
            let of = if step.estimated { "of about" } else { "of" };
            self.say(&format!("{}: {} {of} {} steps", self.doing, step.done, step.total));
        }
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }
}

impl Watcher for Screen {
    fn finished(&mut self, cell: &str, run: &Run, progress: Progress) {
        let cell = Cell { name: cell.to_owned(), ..Cell::default() };
        self.say(&line(&cell, run));
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
