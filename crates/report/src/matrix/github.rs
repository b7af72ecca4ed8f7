//! A matrix as annotations on GitHub: workflow commands, or lines for a problem matcher.
//!
//! Decides what deserves an annotation: each bug once, then what was not as expected. GitHub shows
//! ten annotations of a kind for a step, so the bugs come first. Main items: [`commands`],
//! [`lines`], [`MATCHER`].

use std::io;

use kolumbo_case::matrix::{Answer, Bug, Cell, MatrixFile};

use super::words::{Outcome, anywhere, clipped, mark, outcome, sentence, strikes, visible, worst};

/// The longest message, in characters.
const FIELD: usize = 1_000;

/// The problem matcher that reads what [`lines`] writes. `::add-matcher::FILE` switches it on.
pub const MATCHER: &str = r#"{
  "problemMatcher": [
    {
      "owner": "kolumbo",
      "pattern": [
        {
          "regexp": "^kolumbo: (error|warning): ([^:]+): (.*)$",
          "severity": 1,
          "code": 2,
          "message": 3
        }
      ]
    }
  ]
}
"#;

/// Whether something makes a run of continuous integration red.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// Workflow commands, `::error title=clang/2/safe-ret::hung-boot: ...`.
///
/// # Errors
/// What `out` answers.
pub fn commands(matrix: &MatrixFile, out: &mut dyn io::Write) -> io::Result<()> {
    each(matrix, &mut |severity, title, message| {
        writeln!(
            out,
            "::{} title={}::{}",
            severity.name(),
            escaped(title).replace(':', "%3A").replace(',', "%2C"),
            escaped(message)
        )
    })
}

/// One line a problem, as [`MATCHER`] reads them: `kolumbo: error: CELL: VERDICT: WHY`.
///
/// # Errors
/// What `out` answers.
pub fn lines(matrix: &MatrixFile, out: &mut dyn io::Write) -> io::Result<()> {
    each(matrix, &mut |severity, title, message| {
        writeln!(out, "kolumbo: {}: {}: {message}", severity.name(), title.replace(':', ";"))
    })
}

fn each(
    matrix: &MatrixFile,
    say: &mut dyn FnMut(Severity, &str, &str) -> io::Result<()>,
) -> io::Result<()> {
    // Where every cell with a bug was expected to be sick, nothing is new.
    let unexpected = |bug: &Bug| {
        bug.cells.iter().any(|&cell| {
            let cell = usize::try_from(cell).ok().and_then(|c| matrix.cells.get(c));
            cell.is_none_or(|c| c.as_expected != Some(true))
        })
    };
    if let Some(sentence) = anywhere(matrix).filter(|_| matrix.bugs.iter().any(unexpected)) {
        say(Severity::Error, "anything fails", &clipped(&sentence, FIELD))?;
    }
    for (number, bug) in matrix.bugs.iter().enumerate() {
        if !unexpected(bug) {
            continue;
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let title = format!("bug {}", super::words::letter(number));
        let message = format!(
            "{}: {} ({})",
            visible(&bug.signature),
            sentence(bug),
            strikes(bug, matrix.confidence)
        );
        say(Severity::Error, &title, &clipped(&message, FIELD))?;
    }
    for cell in &matrix.cells {
        let severity = match (cell.answer, cell.as_expected) {
            (Answer::Error, _) => Severity::Warning,
            (_, Some(false)) => Severity::Error,
            _ => continue,
        };
        let name = visible(&cell.name);
        say(severity, &clipped(&name, FIELD), &clipped(&why(cell), FIELD))?;
    }
    Ok(())
}

fn why(cell: &Cell) -> String {
    let run = match cell.answer {
        Answer::Error => cell.runs.last(),
        _ => cell.runs.iter().find(|r| outcome(r) == Outcome::Sick),
    };
    let what = run.map_or("", |r| match r.signature.as_str() {
        "" => r.reason.as_str(),
        signature => signature,
    });
    let verdict = match cell.answer {
        Answer::Healthy => return "healthy, but expected to be sick".to_owned(),
        Answer::Flaky => mark(cell).text,
        answer => worst(cell).map_or(answer.name(), |v| v.name()).to_owned(),
    };
    format!("{verdict}: {}", visible(what))
}

/// What a workflow command would read as its end or its escape.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
