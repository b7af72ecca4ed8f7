//! The smallest set of options that turns a good configuration into a bad one.
//!
//! Decides which configurations are tested, and what their outcomes come to. Who makes a configuration whole
//! ([`Complete`]) and who tests it ([`Test`]) it does not know; a real tree and a real command are in
//! [`run`]. What was tried is kept in a journal, so that a search that was cut off goes on. Main
//! function: [`minimize`].

mod closure;
mod journal;
pub mod run;
mod search;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kolumbo_case::{CONFIG_MINIMUM_VERSION, ConfigMinimum, MinimumOption};
use thiserror::Error;

use self::closure::Closure;
use self::journal::{Journal, Tried};
use self::search::{Set, smallest};
use super::{Config, boot};
use crate::build::{BuildError, hash_of, merged};
use crate::kconfig::{Kconfig, KconfigError};

pub use self::journal::Outcome;

/// The configuration that is tested, in the folder of the search.
const TRY_FILE: &str = "try.config";
/// The smallest bad configuration.
const MINIMUM_FILE: &str = "minimal.config";

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MinimizeError {
    /// A file could not be read or written, or a program could not be started.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The tree cannot be used.
    #[error(transparent)]
    Tree(#[from] BuildError),
    /// The tree's options cannot be read.
    #[error(transparent)]
    Kconfig(#[from] KconfigError),
    /// make could not complete a configuration.
    #[error("make olddefconfig failed in {folder}: {said}")]
    Make {
        /// Where.
        folder: PathBuf,
        /// The last line that it printed.
        said: String,
    },
    /// An end of the search is not what it is taken for.
    #[error(
        "the {which} configuration is {outcome} for the test, see {log}; without a {which} one nothing can be narrowed down"
    )]
    WrongEnd {
        /// `good` or `bad`.
        which: &'static str,
        /// `good`, `bad`, or `skipped`.
        outcome: &'static str,
        /// What the test printed.
        log: PathBuf,
    },
    /// Nothing differs that anybody could choose.
    #[error(
        "no option that a user can set differs between the two configurations, after make olddefconfig"
    )]
    Alike,
    /// The test said that it cannot go on.
    #[error(
        "the test {program} ended with {how}, see {log}: 0 means good, 1 to 124 bad, 125 skip; what was tried is kept, run the same command again"
    )]
    Aborted {
        /// The command.
        program: String,
        /// `exit code 127`, `signal 9`.
        how: String,
        /// What it printed.
        log: PathBuf,
    },
    /// Another search uses the folder.
    #[error("another search runs in {folder}; wait for it, or name another folder with --out")]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder belongs to another search.
    #[error(
        "{folder} holds a search with other configurations, another tree or another test; name another folder with --out"
    )]
    OtherQuestion {
        /// The folder.
        folder: PathBuf,
    },
}

impl MinimizeError {
    fn io(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> MinimizeError + use<> {
        let path = path.to_owned();
        move |source| MinimizeError::Io { doing, path, source }
    }
}

/// Makes a whole configuration of one that lacks options or has impossible ones, as `make olddefconfig` does.
pub trait Complete {
    /// Completes the bytes of a `.config`.
    fn complete(&mut self, wanted: &[u8]) -> Result<Vec<u8>, MinimizeError>;
}

/// Tests a configuration.
pub trait Test {
    /// Tests the file `config`; whatever is printed goes into `log`.
    fn test(&mut self, config: &Path, log: &Path) -> Result<Outcome, MinimizeError>;
}

/// What is told while the search runs.
pub trait Observer {
    /// A configuration is tested, or was before.
    fn trying(&mut self, trying: Trying);
    /// What became of it.
    fn tried(&mut self, outcome: Outcome);
}

/// A configuration on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trying {
    /// Tests so far, this one included.
    pub number: usize,
    /// Options that are as in the bad configuration.
    pub options: usize,
    /// Of how many.
    pub of: usize,
}

/// What is searched.
#[derive(Debug, Clone)]
pub struct Question<'q> {
    /// The configuration that passes the test.
    pub good: &'q [u8],
    /// The one that does not.
    pub bad: &'q [u8],
    /// Options of the tree.
    pub kconfig: &'q Kconfig,
    /// What else tells this search from others: tree, toolchain, test.
    pub about: &'q str,
    /// Where journal, logs and configurations are kept.
    pub folder: &'q Path,
}

/// Searches the smallest set of options, or goes on with a search of the same folder.
pub fn minimize(
    question: &Question<'_>,
    complete: &mut dyn Complete,
    test: &mut dyn Test,
    observer: &mut dyn Observer,
) -> Result<ConfigMinimum, MinimizeError> {
    let folder = question.folder;
    fs::create_dir_all(folder).map_err(MinimizeError::io("make", folder))?;
    let about =
        hash_of([question.good, question.bad, question.about.as_bytes()].map(<[u8]>::to_vec));
    let journal = Journal::open(folder, &about)?;
    let good = complete.complete(question.good)?;
    let bad = complete.complete(question.bad)?;
    let (good_options, bad_options) = (Config::parse(&good), Config::parse(&bad));
    let names = candidates(&good_options, &bad_options, question.kconfig);
    if names.is_empty() {
        return Err(MinimizeError::Alike);
    }
    let closure = Closure::new(&good_options, &bad_options, question.kconfig, &names);
    let mut search = Search {
        question,
        good: &good,
        options: (&good_options, &bad_options),
        names: &names,
        complete,
        test,
        observer,
        journal,
        ran: 0,
        skipped: BTreeSet::new(),
    };
    search.end("good", &good, Outcome::Good)?;
    search.end("bad", &bad, Outcome::Bad)?;
    let everything: Set = (0..names.len()).collect();
    let mut gaps = Vec::new();
    let found = if search.is_bad(&everything)? {
        smallest(names.len(), &|set| closure.of(set), &mut |set| search.is_bad(set))?
    } else {
        // What nobody is asked for differs, too: a default that another compiler or tree gave.
        gaps.push(
            "with all options that a user can set as in the bad configuration, the test passes: the reason \
             lies in what Kconfig computes"
                .to_owned(),
        );
        Set::new()
    };
    let config = search.config_of(&found)?;
    let path = folder.join(MINIMUM_FILE);
    fs::write(&path, &config).map_err(MinimizeError::io("write", &path))?;
    if !search.skipped.is_empty() {
        gaps.push(format!(
            "{} configurations could not be tested and were taken for good: a smaller set may exist",
            search.skipped.len()
        ));
    }
    let options =
        options(&found, &names, &closure, (&good_options, &bad_options), question.kconfig);
    gaps.extend(not_taken(&options, &Config::parse(&config)));
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(ConfigMinimum {
        config_minimum_version: CONFIG_MINIMUM_VERSION,
        options,
        candidates: count(names.len()),
        tests: count(search.journal.tests()),
        tests_before: count(search.journal.tests().saturating_sub(search.ran)),
        skipped: count(search.skipped.len()),
        config: path.display().to_string(),
        gaps,
    })
}

/// Options that differ and that a user is asked for, or that the tree does not know.
fn candidates(good: &Config, bad: &Config, kconfig: &Kconfig) -> Vec<String> {
    let names: BTreeSet<&str> = good.names().chain(bad.names()).collect();
    let differ = |name: &&str| good.get(name).unwrap_or("n") != bad.get(name).unwrap_or("n");
    let asked = |name: &&str| kconfig.get(name).is_none_or(|symbol| !symbol.prompts.is_empty());
    names.into_iter().filter(differ).filter(asked).map(str::to_owned).collect()
}

fn options(
    found: &Set,
    names: &[String],
    closure: &Closure<'_>,
    (good, bad): (&Config, &Config),
    kconfig: &Kconfig,
) -> Vec<MinimumOption> {
    let needs = |at: usize| {
        let mut needs = closure.of(&Set::from([at]));
        needs.remove(&at);
        needs
    };
    let option = |at: &usize| {
        let name = &names[*at];
        let by = found.iter().filter(|other| *other != at && needs(**other).contains(at));
        let symbol = kconfig.get(name);
        MinimumOption {
            name: name.clone(),
            good: good.get(name).map(str::to_owned),
            bad: bad.get(name).map(str::to_owned),
            needed_by: by.map(|other| names[*other].clone()).collect(),
            prompt: symbol
                .and_then(|s| s.prompts.first())
                .map(|p| p.text.clone())
                .unwrap_or_default(),
            boot: boot::topic(name).map(str::to_owned),
        }
    };
    found.iter().map(option).collect()
}

fn not_taken(options: &[MinimumOption], config: &Config) -> Vec<String> {
    let value = |v: Option<&str>| v.unwrap_or("n").to_owned();
    let lost = options.iter().filter(|o| value(o.bad.as_deref()) != value(config.get(&o.name)));
    lost.map(|o| {
        format!(
            "CONFIG_{} was asked to be {} and Kconfig made it {}",
            o.name,
            value(o.bad.as_deref()),
            value(config.get(&o.name))
        )
    })
    .collect()
}

/// A search under way.
struct Search<'s> {
    question: &'s Question<'s>,
    good: &'s [u8],
    options: (&'s Config, &'s Config),
    names: &'s [String],
    complete: &'s mut dyn Complete,
    test: &'s mut dyn Test,
    observer: &'s mut dyn Observer,
    journal: Journal,
    /// Tests of this run.
    ran: usize,
    /// Configurations that could not be told, by hash.
    skipped: BTreeSet<String>,
}

impl Search<'_> {
    /// The good configuration with the options of the set as in the bad one.
    fn config_of(&mut self, set: &Set) -> Result<Vec<u8>, MinimizeError> {
        let wanted = wanted(self.good, self.options, self.names, set);
        self.complete.complete(&wanted)
    }

    fn is_bad(&mut self, set: &Set) -> Result<bool, MinimizeError> {
        let mark = hash_of([set
            .iter()
            .map(|at| self.names[*at].as_str())
            .collect::<Vec<_>>()
            .join(" ")
            .into_bytes()]);
        let outcome = match self.journal.set(&mark) {
            Some(outcome) => outcome,
            None => {
                let config = self.config_of(set)?;
                self.outcome(mark.clone(), &config, set.len())?
            }
        };
        if outcome == Outcome::Skip {
            self.skipped.insert(mark);
        }
        Ok(outcome == Outcome::Bad)
    }

    /// One of the two ends has to be what it is taken for.
    fn end(
        &mut self,
        which: &'static str,
        config: &[u8],
        expected: Outcome,
    ) -> Result<(), MinimizeError> {
        let number = self.journal.tests() + 1;
        let options = if expected == Outcome::Bad { self.names.len() } else { 0 };
        let outcome = match self.journal.set(which) {
            Some(outcome) => outcome,
            None => self.outcome(which.to_owned(), config, options)?,
        };
        if outcome == expected {
            return Ok(());
        }
        let outcome = match outcome {
            Outcome::Good => "good",
            Outcome::Bad => "bad",
            Outcome::Skip => "skipped",
        };
        Err(MinimizeError::WrongEnd { which, outcome, log: self.log(number) })
    }

    /// What became of a configuration; a set that gives one that was tested before is as good or bad.
    fn outcome(
        &mut self,
        set: String,
        config: &[u8],
        options: usize,
    ) -> Result<Outcome, MinimizeError> {
        let mark = hash_of([of_options(config)]);
        let outcome = match self.journal.config(&mark) {
            Some(outcome) => outcome,
            None => {
                let number = self.journal.tests() + 1;
                let of = self.names.len();
                self.observer.trying(Trying { number, options, of });
                let path = self.question.folder.join(TRY_FILE);
                fs::write(&path, config).map_err(MinimizeError::io("write", &path))?;
                let log = self.log(number);
                let outcome = self.test.test(&path, &log)?;
                self.ran += 1;
                self.observer.tried(outcome);
                outcome
            }
        };
        self.journal.put(Tried { set, config: mark, outcome })?;
        Ok(outcome)
    }

    fn log(&self, number: usize) -> PathBuf {
        self.question.folder.join(format!("test-{number:04}.log"))
    }
}

/// The text that asks Kconfig for a set. An option that is not in the set and has no line in the good
/// configuration is said to be off, since it would get its default when the set makes it visible.
fn wanted(
    good_text: &[u8],
    (good, bad): (&Config, &Config),
    names: &[String],
    set: &Set,
) -> Vec<u8> {
    let mut lines = String::new();
    for (at, name) in names.iter().enumerate() {
        let chosen = if set.contains(&at) { bad } else { good };
        let may_be_off = [good, bad].iter().any(|c| matches!(c.get(name), Some("y" | "m" | "n")));
        match chosen.get(name) {
            Some(value) if value != "n" => lines.push_str(&format!("CONFIG_{name}={value}\n")),
            _ if may_be_off => lines.push_str(&format!("# CONFIG_{name} is not set\n")),
            // A number or a text without a line has its default.
            _ => {}
        }
    }
    merged(good_text, lines.as_bytes())
}

/// The lines that are options, without comments that hold times and titles.
fn of_options(config: &[u8]) -> Vec<u8> {
    let option = |line: &&[u8]| line.starts_with(b"CONFIG_") || line.starts_with(b"# CONFIG_");
    config.split(|b| *b == b'\n').filter(option).collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kconfig::expr::Tristate;

    /// Kconfig as far as the tests need it: what its dependencies do not allow is taken away, what is
    /// selected is added.
    struct Rules<'k>(&'k Kconfig);

    impl Complete for Rules<'_> {
        fn complete(&mut self, wanted: &[u8]) -> Result<Vec<u8>, MinimizeError> {
            let mut text = wanted.to_vec();
            loop {
                let config = Config::parse(&text);
                let mut names: Vec<&str> = config.names().collect();
                names.sort_unstable();
                let mut out = String::new();
                for name in names {
                    let symbol = self.0.get(name).unwrap();
                    let allowed = symbol
                        .depends
                        .iter()
                        .any(|d| d.value(&|n| config.get(n)) == Some(Tristate::Yes));
                    match config.get(name).unwrap() {
                        "n" if allowed => out.push_str(&format!("# CONFIG_{name} is not set\n")),
                        value if allowed => out.push_str(&format!("CONFIG_{name}={value}\n")),
                        _ => {}
                    }
                }
                if out.as_bytes() == text {
                    return Ok(text);
                }
                text = out.into_bytes();
            }
        }
    }

    /// A test that is bad where all the options are on, and cannot tell where another one is.
    struct Oracle {
        guilty: &'static [&'static str],
        unknown: Option<&'static str>,
        tests: usize,
        fails_at: Option<usize>,
    }

    impl Test for Oracle {
        fn test(&mut self, config: &Path, log: &Path) -> Result<Outcome, MinimizeError> {
            self.tests += 1;
            if self.fails_at == Some(self.tests) {
                let (program, how) = ("x".to_owned(), "signal 9".to_owned());
                return Err(MinimizeError::Aborted { program, how, log: log.to_owned() });
            }
            let config = Config::parse(&fs::read(config).unwrap());
            let on = |name: &&str| config.get(name) == Some("y");
            let all = self.guilty.iter().all(on);
            Ok(match self.unknown {
                Some(name) if on(&name) && !all => Outcome::Skip,
                _ if all => Outcome::Bad,
                _ => Outcome::Good,
            })
        }
    }

    #[derive(Default)]
    struct Seen(Vec<Trying>);

    impl Observer for Seen {
        fn trying(&mut self, trying: Trying) {
            self.0.push(trying);
        }
        fn tried(&mut self, _: Outcome) {}
    }

    /// Sixty options, of which some need others.
    fn tree() -> (tempfile::TempDir, Kconfig, String) {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        let mut bad = String::new();
        for n in 0..60 {
            text.push_str(&format!("config O{n}\n\tbool \"o{n}\"\n"));
            if n >= 50 {
                text.push_str(&format!("\tdepends on O{} && O{}\n", n - 50, n - 20));
            }
            bad.push_str(&format!("CONFIG_O{n}=y\n"));
        }
        text.push_str("config SUM\n\tdef_bool O1\n");
        fs::write(dir.path().join("Kconfig"), text).unwrap();
        let kconfig = crate::kconfig::read(dir.path(), "x86").unwrap();
        (dir, kconfig, bad + "CONFIG_SUM=y\n")
    }

    fn ask(oracle: &mut Oracle, folder: &Path) -> Result<ConfigMinimum, MinimizeError> {
        let (_dir, kconfig, bad) = tree();
        let question = Question {
            good: b"# CONFIG_O2 is not set\n",
            bad: bad.as_bytes(),
            kconfig: &kconfig,
            about: "a test",
            folder,
        };
        minimize(&question, &mut Rules(&kconfig), oracle, &mut Seen::default())
    }

    fn names(found: &ConfigMinimum) -> Vec<&str> {
        found.options.iter().map(|o| o.name.as_str()).collect()
    }

    #[test]
    fn the_guilty_and_what_they_need_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut oracle = Oracle { guilty: &["O55", "O7"], unknown: None, tests: 0, fails_at: None };
        let found = ask(&mut oracle, folder.path()).unwrap();
        assert_eq!(names(&found), ["O35", "O5", "O55", "O7"]);
        assert_eq!(found.options[0].needed_by, ["O55"]);
        assert!(found.options[2].needed_by.is_empty());
        assert_eq!(found.candidates, 60, "SUM is computed");
        let config = Config::parse(&fs::read(&found.config).unwrap());
        assert_eq!((config.get("O55"), config.get("O1")), (Some("y"), Some("n")));
        assert_eq!((found.tests as usize, found.tests_before), (oracle.tests, 0));
        assert_eq!(found.gaps, [] as [&str; 0]);
    }

    #[test]
    fn a_search_that_was_killed_goes_on() {
        let whole = tempfile::tempdir().unwrap();
        let new = |fails_at| Oracle { guilty: &["O12", "O44"], unknown: None, tests: 0, fails_at };
        let mut oracle = new(None);
        let expected = ask(&mut oracle, whole.path()).unwrap();
        for at in [1, 2, 5, oracle.tests] {
            let folder = tempfile::tempdir().unwrap();
            let stopped = ask(&mut new(Some(at)), folder.path());
            assert!(matches!(stopped, Err(MinimizeError::Aborted { .. })), "{stopped:?}");
            let mut rest = new(None);
            let found = ask(&mut rest, folder.path()).unwrap();
            assert_eq!(names(&found), names(&expected));
            assert_eq!(rest.tests, oracle.tests - (at - 1), "nothing is tested twice");
            assert_eq!(found.tests_before as usize, at - 1);
        }
        let again = ask(&mut new(Some(1)), whole.path()).unwrap();
        assert_eq!(again.tests_before, expected.tests);
    }

    #[test]
    fn what_cannot_be_told_is_no_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mut oracle = Oracle { guilty: &["O3"], unknown: Some("O1"), tests: 0, fails_at: None };
        let found = ask(&mut oracle, folder.path()).unwrap();
        assert_eq!(names(&found), ["O3"]);
        assert!(found.skipped > 0 && found.gaps[0].contains("could not be tested"), "{found:?}");
    }

    #[test]
    fn ends_that_are_not_what_they_should_be_are_told() {
        let folder = || tempfile::tempdir().unwrap();
        let mut oracle = Oracle { guilty: &[], unknown: None, tests: 0, fails_at: None };
        let error = ask(&mut oracle, folder().path()).unwrap_err().to_string();
        assert!(error.starts_with("the good configuration is bad"), "{error}");
        let mut oracle = Oracle { guilty: &["NONE"], unknown: None, tests: 0, fails_at: None };
        let error = ask(&mut oracle, folder().path()).unwrap_err().to_string();
        assert!(error.starts_with("the bad configuration is good"), "{error}");
        let mut oracle = Oracle { guilty: &["SUM"], unknown: None, tests: 0, fails_at: None };
        let found = ask(&mut oracle, folder().path()).unwrap();
        assert!(found.options.is_empty() && found.gaps[0].contains("computes"), "{found:?}");
    }
}
