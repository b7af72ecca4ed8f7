//! The tables of crash formats: which literal opens a group, which patterns name the crash, and how
//! the guilty frame is found.
//!
//! Titles follow syzkaller's conventions, so that crashes can be compared with its dashboards. A
//! format is a row: to add one, add a row to the table of its group. Main types: [`Group`], [`Format`].

mod arch;
mod bug;
mod info;
mod warning;

use std::sync::OnceLock;

use kolumbo_case::HeadlineKind;
use regex::Regex;

/// Everything that begins with the same literal.
pub(crate) struct Group {
    /// The literal that the headline contains.
    pub literal: &'static str,
    /// Formats, most telling first.
    pub formats: &'static [Format],
    /// A line that matches one of these is no crash.
    pub not: &'static [&'static str],
}

/// How one kind of crash is recognised and named.
pub(crate) struct Format {
    /// Pattern over the crash's text, which begins at the headline. `{fn}` stands for a captured
    /// function, `{src}` for `file.c:123`, `{in}` for the `in` before a function.
    pub pattern: &'static str,
    /// Words that must follow, in this order, each within so many lines of what was found before. The
    /// function behind the last of them is one more capture. Lines are counted here and not in the
    /// pattern, whose automaton would grow with them.
    pub behind: &'static [(&'static str, usize)],
    /// `{1}` ... are captures, `{frame}` the guilty function.
    pub title: &'static str,
    /// Further titles of the same crash; `{origin}` is whoever made the memory, see [`ORIGIN`].
    pub alts: &'static [&'static str],
    /// How the guilty frame is found.
    pub guilty: Guilty,
    /// The headline alone shows that the text is damaged.
    pub corrupted: bool,
    /// No trace belongs to this crash.
    pub stackless: bool,
    /// What kind of trouble it is, where the headline's own words do not say.
    pub kind: HeadlineKind,
}

/// How the guilty frame is found.
pub(crate) enum Guilty {
    /// The title names none.
    None,
    /// The capture names it, whatever it is called.
    Capture(usize),
    /// A recipe.
    Recipe(&'static Recipe),
}

/// Ways to the guilty frame, tried in order.
pub(crate) struct Recipe {
    /// Each way is a list of steps.
    pub ways: &'static [&'static [Step]],
    /// Helpers of this crash alone, as patterns of [`crate::skip`].
    pub skip: &'static [&'static str],
    /// Which of the frames that were met is taken.
    pub take: Take,
}

/// Which frame is taken.
pub(crate) enum Take {
    /// The first one.
    First,
    /// The one right inside the first dispatcher.
    Entry,
    /// The one that all who hang wait for, else the first one.
    Waiter,
}

/// One step on the way to the guilty frame.
pub(crate) enum Step {
    /// Look at this capture of the headline.
    Capture(usize),
    /// Go behind the next line that contains one of the literals.
    After(&'static [&'static str]),
    /// Give up where the report contains the literal.
    Unless(&'static str),
    /// Look at who takes a lock in the next line of lockdep that says so, if there is one.
    Held,
    /// Look at the function of the next kernel program counter.
    Pc,
    /// Look at the function that was interrupted: of the next program counter, which names none where a
    /// program ran.
    Interrupted,
    /// Look at the frames of the stack that begins here.
    Frames,
}

/// The headings of call traces.
pub(crate) const TRACE: &[&str] = &["Call Trace", "Call trace", "Backtrace:"];

/// Program counter, then the call trace.
pub(crate) static AT_PC: Recipe =
    Recipe { ways: &[&[Step::Pc, Step::After(TRACE), Step::Frames]], skip: &[], take: Take::First };

/// Who allocated what KMSAN complains of.
pub(crate) static ORIGIN: Recipe = Recipe {
    ways: &[&[Step::After(&["Uninit was created at"]), Step::Frames]],
    skip: &["alloc_skb"],
    take: Take::First,
};

/// What should name the guilty function is missing: the title says `corrupted`.
pub(crate) static NO_WAY: Recipe = Recipe { ways: &[], skip: &[], take: Take::First };

/// The call trace alone.
pub(crate) static IN_TRACE: Recipe =
    Recipe { ways: &[&[Step::After(TRACE), Step::Frames]], skip: &[], take: Take::First };

/// The first capture, then the call trace.
pub(crate) static NAMED_OR_TRACE: Recipe = Recipe {
    ways: &[&[Step::Capture(1), Step::After(TRACE), Step::Frames]],
    skip: &[],
    take: Take::First,
};

impl Format {
    /// A format with a recipe and nothing special.
    pub(crate) const fn new(
        kind: HeadlineKind,
        pattern: &'static str,
        title: &'static str,
        recipe: &'static Recipe,
    ) -> Self {
        let guilty = Guilty::Recipe(recipe);
        Format { guilty, ..Self::plain(kind, pattern, title) }
    }

    /// A format whose title names no function.
    pub(crate) const fn plain(
        kind: HeadlineKind,
        pattern: &'static str,
        title: &'static str,
    ) -> Self {
        Format {
            pattern,
            behind: &[],
            title,
            alts: &[],
            guilty: Guilty::None,
            corrupted: false,
            stackless: false,
            kind,
        }
    }

    /// Adds further titles.
    pub(crate) const fn alts(mut self, alts: &'static [&'static str]) -> Self {
        self.alts = alts;
        self
    }

    /// Asks for words behind the headline.
    pub(crate) const fn behind(mut self, words: &'static [(&'static str, usize)]) -> Self {
        self.behind = words;
        self
    }

    /// No trace belongs to it.
    pub(crate) const fn stackless(mut self) -> Self {
        self.stackless = true;
        self
    }

    /// The headline is damaged.
    pub(crate) const fn corrupted(mut self) -> Self {
        self.corrupted = true;
        self
    }

    /// The capture names the guilty function.
    pub(crate) const fn capture(mut self, n: usize) -> Self {
        self.guilty = Guilty::Capture(n);
        self
    }
}

/// One format with its compiled pattern.
pub(crate) struct Compiled {
    /// The row.
    pub format: &'static Format,
    regex: OnceLock<Regex>,
}

impl Compiled {
    /// The pattern, compiled when it is needed first.
    pub(crate) fn regex(&self) -> &Regex {
        self.regex.get_or_init(|| compile(self.format.pattern))
    }
}

/// One group with its compiled formats.
pub(crate) struct CompiledGroup {
    /// The literal.
    pub literal: &'static str,
    /// Its formats.
    pub formats: Vec<Compiled>,
    not: Vec<(&'static str, OnceLock<Regex>)>,
}

impl CompiledGroup {
    /// `line` has the literal but is no crash.
    pub(crate) fn excludes(&self, line: &str) -> bool {
        self.not.iter().any(|(pattern, cell)| cell.get_or_init(|| compile(pattern)).is_match(line))
    }
}

fn compile(pattern: &str) -> Regex {
    let expanded = pattern
        // A symboliser repeats the headline for each function that was inlined at its place.
        .replace("{in}", r"in (?:.*\[inline\].*\n.*BUG: K[A-Z]+: [a-z \-]+ in )*")
        .replace("{fn}", r"([a-zA-Z_][a-zA-Z0-9_$.]*)")
        .replace("{src}", r"[-a-zA-Z0-9_./]+\.[a-zA-Z]{1,3}:\d+");
    Regex::new(&expanded).unwrap_or_else(|e| panic!("the pattern table holds a bad pattern: {e}"))
}

/// All groups, in the order of precedence for a line that has several literals.
pub(crate) fn groups() -> &'static [CompiledGroup] {
    static GROUPS: OnceLock<Vec<CompiledGroup>> = OnceLock::new();
    GROUPS.get_or_init(|| {
        tables()
            .map(|g| CompiledGroup {
                literal: g.literal,
                formats: g
                    .formats
                    .iter()
                    .map(|format| Compiled { format, regex: OnceLock::new() })
                    .collect(),
                not: g.not.iter().map(|p| (*p, OnceLock::new())).collect(),
            })
            .collect()
    })
}

fn tables() -> impl Iterator<Item = &'static Group> {
    bug::GROUPS.iter().chain(warning::GROUPS).chain(info::GROUPS).chain(arch::GROUPS)
}

/// The literals of all groups: what a prefilter over raw bytes has to look for.
pub fn headers() -> impl Iterator<Item = &'static str> {
    tables().map(|g| g.literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_compiles_and_is_consistent() {
        for group in groups() {
            assert!(group.literal.len() >= 4, "{}: too short for a prefilter", group.literal);
            group.excludes("");
            for row in &group.formats {
                let asked = usize::from(!row.format.behind.is_empty());
                let captures = row.regex().captures_len() + asked;
                for n in captures..10 {
                    assert!(
                        !row.format.title.contains(&format!("{{{n}}}")),
                        "{}",
                        row.format.pattern
                    );
                }
                let names_frame = row.format.title.contains("{frame}");
                assert_eq!(
                    names_frame,
                    !matches!(row.format.guilty, Guilty::None),
                    "{}",
                    row.format.pattern
                );
                if let Guilty::Capture(n) = row.format.guilty {
                    assert!(n < captures, "{}", row.format.pattern);
                }
            }
        }
    }
}
