//! What kbuild and the compilers print while they build.
//!
//! Decides what a line is: a step, a warning, the first error. Memory is bounded whatever is
//! printed. Main type: [`Output`].

use std::collections::HashMap;

use kolumbo_case::{BuildFailure, WarningGroup};

/// Kinds of warnings that are kept apart.
const KINDS: usize = 200;
/// Lines kept behind the first error.
const CONTEXT: usize = 6;
/// Characters kept of a line.
const WIDEST: usize = 400;

/// One line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<'l> {
    /// kbuild begins a step: `  CC      kernel/fork.o`.
    Step {
        /// `CC`, `LD`, `AR`.
        tool: &'l str,
        /// What is made.
        file: &'l str,
    },
    /// A warning or an error; it was taken note of.
    Diagnostic,
    /// Anything else.
    Other,
}

/// What was said so far.
#[derive(Debug, Default)]
pub struct Output {
    source: String,
    warnings: HashMap<String, (usize, WarningGroup)>,
    failure: Option<Found>,
    steps: u32,
    /// Lines that still belong to the first error.
    following: usize,
    /// The last program that a shell did not find.
    missing: Option<String>,
}

#[derive(Debug)]
struct Found {
    failure: BuildFailure,
    /// Only make spoke; a compiler's own words are better.
    from_make: bool,
}

impl Output {
    /// For a tree at `source`, whose path is taken off the names of files.
    pub fn new(source: &str) -> Output {
        Output { source: format!("{}/", source.trim_end_matches('/')), ..Output::default() }
    }

    /// Takes one line, without its end.
    pub fn line<'l>(&mut self, line: &'l str) -> Said<'l> {
        if let Some((tool, file)) = step(line) {
            self.steps += 1;
            self.following = 0;
            return Said::Step { tool, file };
        }
        if let Some(diagnostic) = self.diagnostic(line) {
            self.following = 0;
            match diagnostic {
                Diagnostic::Warning { kind, file, number, text } => {
                    self.warn(kind, file, number, text);
                }
                Diagnostic::Error { file, number, text } => self.fail(file, number, text, false),
                Diagnostic::Make { target, text } => self.make_failed(target, text),
            }
            return Said::Diagnostic;
        }
        if let Some(said) = missing_program(line) {
            self.missing = Some(cut(said));
        }
        if self.following > 0 {
            // Excerpts of compilers begin with blanks; a line that does not is another matter.
            self.following =
                if line.starts_with([' ', '\t', '>']) { self.following - 1 } else { 0 };
            if self.following > 0
                && let Some(found) = &mut self.failure
            {
                found.failure.context.push(cut(line));
            }
        }
        Said::Other
    }

    /// Steps so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The warnings, the most frequent first.
    pub fn warnings(&self) -> Vec<WarningGroup> {
        let mut groups: Vec<_> = self.warnings.values().cloned().collect();
        groups.sort_by_key(|(first, group)| (std::cmp::Reverse(group.count), *first));
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// The first error.
    pub fn failure(&self) -> Option<BuildFailure> {
        self.failure.as_ref().map(|f| f.failure.clone())
    }

    fn warn(&mut self, kind: &str, file: &str, line: u32, text: &str) {
        let known = self.warnings.len();
        let kind = if known < KINDS || self.warnings.contains_key(kind) { kind } else { "other" };
        let file = self.below(file);
        let (_, group) = self.warnings.entry(kind.to_owned()).or_insert_with(|| {
            let kind = kind.to_owned();
            (known, WarningGroup { kind, count: 0, file, line, text: cut(text) })
        });
        group.count = group.count.saturating_add(1);
    }

    fn fail(&mut self, file: &str, line: u32, text: &str, from_make: bool) {
        if self.failure.as_ref().is_some_and(|f| !f.from_make || from_make) {
            return;
        }
        let target = self.failure.take().map(|f| f.failure.target).unwrap_or_default();
        let file = self.below(file);
        let failure = BuildFailure { file, line, message: cut(text), context: Vec::new(), target };
        self.failure = Some(Found { failure, from_make });
        self.following = CONTEXT + 1;
    }

    fn make_failed(&mut self, target: &str, text: &str) {
        match &mut self.failure {
            Some(found) if found.failure.target.is_empty() && !target.is_empty() => {
                // Only the target that the first error belongs to; with -j others fail as well.
                let stem = |path: &str| {
                    let name = path.rsplit('/').next().unwrap_or(path);
                    name.split('.').next().unwrap_or(name).to_owned()
                };
                if stem(&found.failure.file) == stem(target) || found.failure.file.is_empty() {
                    found.failure.target = cut(target);
                }
            }
            Some(_) => {}
            None => {
                // 127 is what a shell ends with that cannot find a program; it has said which one.
                let missing = self.missing.take().filter(|_| text.ends_with("Error 127"));
                self.fail("", 0, missing.as_deref().unwrap_or(text), true);
                if let Some(found) = &mut self.failure {
                    found.failure.target = cut(target);
                }
            }
        }
    }

    fn below(&self, file: &str) -> String {
        cut(file.strip_prefix(self.source.as_str()).unwrap_or(file).trim_start_matches("./"))
    }

    fn diagnostic<'l>(&self, line: &'l str) -> Option<Diagnostic<'l>> {
        if let Some(rest) = line.strip_prefix("make")
            && let Some((_, text)) = rest.split_once(": *** ")
            && rest.starts_with([':', '['])
        {
            return Some(make(text));
        }
        if let Some((place, text)) = line.split_once(": *** ")
            && !place.contains(' ')
        {
            // `Makefile:12: *** text.  Stop.` names the line itself.
            let (file, number) = located(place)?;
            return Some(Diagnostic::Error { file, number, text });
        }
        for (mark, kind) in [("WARNING: modpost: ", "modpost"), ("ERROR: modpost: ", "")] {
            if let Some(text) = line.strip_prefix(mark) {
                return Some(match kind {
                    "" => Diagnostic::Error { file: "", number: 0, text },
                    kind => Diagnostic::Warning { kind, file: "", number: 0, text },
                });
            }
        }
        let marks = [
            (": warning: ", false),
            (": Warning: ", false),
            (": fatal error: ", true),
            (": error: ", true),
            (": Error: ", true),
            (": undefined reference to ", true),
        ];
        let (at, mark, error) = marks
            .iter()
            .filter_map(|(mark, error)| Some((line.find(mark)?, *mark, *error)))
            .min_by_key(|(at, ..)| *at)?;
        let undefined = mark.starts_with(": undefined");
        let text = if undefined { &line[at + 2..] } else { &line[at + mark.len()..] };
        let place = &line[..at];
        // Programs that speak without a place: `ld.lld: error:`, `clang: error:`.
        let tool =
            !place.contains(['/', ':', '.']) || place.ends_with("ld.lld") || is_linker(place);
        let (file, number) = located(place).unwrap_or(if tool { ("", 0) } else { (place, 0) });
        if error {
            return Some(Diagnostic::Error { file, number, text });
        }
        let kind = match text.strip_prefix("objtool: ") {
            Some(_) => "objtool",
            None => option(text).unwrap_or(if tool { "linker" } else { "other" }),
        };
        Some(Diagnostic::Warning { kind, file, number, text })
    }
}

enum Diagnostic<'l> {
    Warning {
        kind: &'l str,
        file: &'l str,
        number: u32,
        text: &'l str,
    },
    Error {
        file: &'l str,
        number: u32,
        text: &'l str,
    },
    /// make gave a target up.
    Make {
        target: &'l str,
        text: &'l str,
    },
}

/// `  CC [M]  net/core/x.o`: two blanks, a word in capitals, perhaps `[M]`, a name without blanks
/// (`quiet_cmd_*` in scripts/Kbuild.include).
fn step(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("  ")?;
    let end = rest.find(' ')?;
    let (tool, rest) = rest.split_at(end);
    let capital = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if tool.is_empty() || !tool.bytes().all(capital) {
        return None;
    }
    let rest = rest.trim_start();
    let file = rest.strip_prefix("[M]").unwrap_or(rest).trim();
    (!file.is_empty() && !file.contains(' ')).then_some((tool, file))
}

/// `[scripts/Makefile.build:250: kernel/fork.o] Error 1` or a sentence.
fn make(text: &str) -> Diagnostic<'_> {
    let inside = text.strip_prefix('[').and_then(|t| t.split_once(']'));
    let target = match inside {
        Some((inside, _)) => inside.rsplit(": ").next().unwrap_or(inside),
        None => "",
    };
    Diagnostic::Make { target, text }
}

/// `flex: not found` for `/bin/sh: 1: flex: not found`, and what bash says for it. Some probes of a healthy build
/// say so, too, so that this is no error by itself.
fn missing_program(line: &str) -> Option<&str> {
    let said = line.strip_prefix("/bin/sh: ")?;
    if !said.ends_with(": not found") && !said.ends_with(": command not found") {
        return None;
    }
    let said = said.strip_prefix("line ").unwrap_or(said);
    Some(match said.split_once(": ") {
        Some((number, rest)) if number.parse::<u32>().is_ok() => rest,
        _ => said,
    })
}

/// `file:line` or `file:line:column`.
fn located(place: &str) -> Option<(&str, u32)> {
    let (head, last) = place.rsplit_once(':')?;
    let last = last.parse::<u32>().ok()?;
    match head.rsplit_once(':') {
        Some((file, line)) if line.parse::<u32>().is_ok() => Some((file, line.parse().ok()?)),
        _ => Some((head, last)),
    }
}

fn is_linker(place: &str) -> bool {
    let name = place.rsplit('/').next().unwrap_or(place);
    name == "ld" || name.starts_with("ld.") || name.ends_with("-ld") || name.starts_with("ld-")
}

/// `[-Wunused-variable]` at the end of a warning.
fn option(text: &str) -> Option<&str> {
    let inside = text.trim_end().strip_suffix(']')?.rsplit_once('[')?.1;
    inside.starts_with("-W").then_some(inside)
}

fn cut(text: &str) -> String {
    text.chars().take(WIDEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Output {
        let mut output = Output::new("/src/linux");
        for line in text.lines() {
            output.line(line);
        }
        output
    }

    #[test]
    fn steps_are_counted() {
        let mut output = Output::new("/src");
        let said = output.line("  CC [M]  fs/ext4/inode.o");
        assert_eq!(said, Said::Step { tool: "CC", file: "fs/ext4/inode.o" });
        assert_eq!(output.line("make[1]: Entering directory '/x'"), Said::Other);
        assert_eq!(output.line("  static int x"), Said::Other);
        assert_eq!(
            output.line("  AR      built-in.a"),
            Said::Step { tool: "AR", file: "built-in.a" }
        );
        assert_eq!(output.steps(), 2);
    }

    #[test]
    fn the_first_error_is_kept_with_its_lines() {
        let output = read(
            "  CC      kernel/fork.o\n  CC      kernel/exit.o\n\
             /src/linux/kernel/fork.c:12:3: error: 'x' undeclared\n   12 |  x = 1;\n      |  ^\n\
             make[2]: *** [/src/linux/scripts/Makefile.build:250: kernel/fork.o] Error 1\n\
             /src/linux/kernel/exit.c:1:1: error: another\n\
             make: *** [Makefile:234: __sub-make] Error 2\n",
        );
        let failure = output.failure().unwrap();
        assert_eq!((failure.file.as_str(), failure.line), ("kernel/fork.c", 12));
        assert_eq!(failure.message, "'x' undeclared");
        assert_eq!(failure.context, ["   12 |  x = 1;", "      |  ^"]);
        assert_eq!(failure.target, "kernel/fork.o");
    }

    #[test]
    fn tools_that_name_no_line_are_understood() {
        for (text, file, message) in [
            (
                "ld.lld: error: undefined symbol: foo\n>>> referenced by x.c:1\n",
                "",
                "undefined symbol: foo",
            ),
            (
                "/usr/bin/ld: a.o: undefined reference to `foo'\n",
                "/usr/bin/ld: a.o",
                "undefined reference to `foo'",
            ),
            ("ERROR: modpost: \"foo\" [x.ko] undefined!\n", "", "\"foo\" [x.ko] undefined!"),
            (
                "a.S: Assembler messages:\na.S:3: Error: no such instruction: `frob'\n",
                "a.S",
                "no such instruction: `frob'",
            ),
            (
                "make: *** No rule to make target 'zImage'.  Stop.\n",
                "",
                "No rule to make target 'zImage'.  Stop.",
            ),
            (
                "/src/linux/arch/x86/Makefile:9: *** bad.  Stop.\n",
                "arch/x86/Makefile",
                "bad.  Stop.",
            ),
            ("make[1]: *** [Makefile:2: a.o] Error 1\nb.c:1:1: error: later\n", "b.c", "later"),
            (
                "/bin/sh: 1: pahole: not found\n/bin/sh: 1: flex: not found\nmake[1]: *** [x:9: a.lex.c] Error 127\n",
                "",
                "flex: not found",
            ),
            (
                "/bin/sh: line 1: bc: command not found\nmake[1]: *** [x:9: t.h] Error 127\n",
                "",
                "bc: command not found",
            ),
            ("/bin/sh: 1: pahole: not found\nmake: *** [x:9: y] Error 2\n", "", "[x:9: y] Error 2"),
        ] {
            let failure = read(text).failure().unwrap();
            assert_eq!(
                (failure.file.as_str(), failure.message.as_str()),
                (file, message),
                "{text}"
            );
        }
    }

    #[test]
    fn warnings_are_grouped() {
        let output = read(
            "/src/linux/fs/a.c:3:4: warning: unused variable 'x' [-Wunused-variable]\n\
             fs/b.c:5:4: warning: unused variable 'y' [-Wunused-variable]\n\
             vmlinux.o: warning: objtool: f()+0x1: unreachable instruction\n\
             WARNING: modpost: vmlinux.o: section mismatch\n\
             ld: warning: x has a LOAD segment with RWX permissions\n",
        );
        let groups = output.warnings();
        assert_eq!((groups[0].kind.as_str(), groups[0].count), ("-Wunused-variable", 2));
        assert_eq!((groups[0].file.as_str(), groups[0].line), ("fs/a.c", 3));
        let kinds: Vec<&str> = groups.iter().map(|g| g.kind.as_str()).collect();
        assert_eq!(kinds[1..], ["objtool", "modpost", "linker"]);
        assert!(output.failure().is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut output = Output::new("");
        for n in 0..10_000 {
            output.line(&format!("a.c:1:1: warning: {} [-Wkind-{n}]", "x".repeat(10_000)));
        }
        assert!(output.warnings().len() <= KINDS + 1);
        assert!(output.warnings().iter().all(|g| g.text.len() <= WIDEST));
        assert_eq!(output.warnings()[0].count, 10_000 - 200);
    }
}
