//! `kolumbo config minimize`: from two configurations and a test to the options that make the difference.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kolumbo_source::config::Config;
use kolumbo_source::config::minimize::run::{Command, Tree};
use kolumbo_source::config::minimize::{Observer, Outcome as Tested, Question, Trying, minimize};
use kolumbo_source::kconfig;
use sha2::{Digest, Sha256};

use super::args::MinimizeArgs;
use super::read;
use crate::boot::cache_folder;
use crate::exit::Outcome;

pub(super) fn run(args: &MinimizeArgs) -> Result<Outcome> {
    let words = words(args)?;
    let good = read(&args.good)?;
    let bad = read(&args.bad)?;
    let arch = Config::parse(&bad.bytes);
    let options = kconfig::read(&args.source, kconfig::arch_of(&arch.kernel))?;
    let folder = match &args.out {
        Some(out) => out.clone(),
        None => default_folder(args, &words, &[&good.bytes, &bad.bytes])?,
    };
    let mut tree = Tree::new(&args.source, &args.toolchain, &folder.join("kconfig"))?;
    let mut command = Command { words: words.clone(), source: tree.source().to_owned() };
    let about = format!("{}\0{}", tree.about(), words.join("\0"));
    let folder = std::fs::canonicalize(&folder)
        .with_context(|| format!("cannot find {}", folder.display()))?;
    let question = Question {
        good: &good.bytes,
        bad: &bad.bytes,
        kconfig: &options,
        about: &about,
        folder: &folder,
    };
    let mut screen = Screen::new(args.json, &folder);
    let found = minimize(&question, &mut tree, &mut command, &mut screen);
    screen.bar.finish_and_clear();
    let found = found?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &found)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", kolumbo_report::config_minimum::report(&found))?;
    }
    Ok(Outcome::Done)
}

fn words(args: &MinimizeArgs) -> Result<Vec<String>> {
    let words = match &args.test {
        Some(text) => shlex::split(text).with_context(|| {
            format!("cannot split the test into words: a quote is open in {text}")
        })?,
        None => args.command.clone(),
    };
    if words.is_empty() {
        bail!("there is no test: name one with --test, or behind --");
    }
    Ok(words)
}

/// A folder of the cache for this search, which is found again when the same command is given again.
fn default_folder(args: &MinimizeArgs, words: &[String], configs: &[&[u8]]) -> Result<PathBuf> {
    let source = std::fs::canonicalize(&args.source)
        .with_context(|| format!("cannot find {}", args.source.display()))?;
    let mut digest = Sha256::new();
    let named = [source.as_os_str().as_encoded_bytes(), args.toolchain.as_bytes()];
    for part in
        named.into_iter().chain(words.iter().map(String::as_bytes)).chain(configs.iter().copied())
    {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let name: String = digest.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    Ok(cache_folder()?.join("minimize").join(name))
}

/// A line in a terminal; elsewhere a line for each test.
struct Screen {
    bar: ProgressBar,
    lines: bool,
    trying: Option<Trying>,
}

impl Screen {
    fn new(quiet: bool, folder: &std::path::Path) -> Screen {
        let terminal = std::io::stderr().is_terminal();
        let target = match !quiet && terminal {
            true => ProgressDrawTarget::stderr_with_hz(5),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        if !quiet {
            let _ =
                writeln!(std::io::stderr(), "kolumbo: the search is kept in {}", folder.display());
        }
        Screen { bar, lines: !quiet && !terminal, trying: None }
    }
}

impl Observer for Screen {
    fn trying(&mut self, trying: Trying) {
        self.trying = Some(trying);
        let Trying { number, options, of } = trying;
        self.bar.set_message(format!("test {number}: {options} of {of} options as in the bad one"));
    }

    fn tried(&mut self, outcome: Tested) {
        let outcome = match outcome {
            Tested::Good => "good",
            Tested::Bad => "bad",
            Tested::Skip => "skipped",
        };
        if let Some(Trying { number, options, of }) = self.trying.take().filter(|_| self.lines) {
            let _ = writeln!(
                std::io::stderr(),
                "kolumbo: test {number}: {options} of {of} options as in the bad one: {outcome}"
            );
        }
    }
}
