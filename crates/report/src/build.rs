//! A build as text: what came out, its warnings, or the first error.
//!
//! Main function: [`report`].

use std::fmt::Write;

use kolumbo_case::{BuildFailure, BuildFile, BuildState};

use crate::matrix::visible;

/// Kinds of warnings that are shown.
const KINDS: usize = 8;

/// The report on a build, for the first error or for what came out.
pub fn report(build: &BuildFile) -> String {
    let mut text = String::new();
    let tool = &build.toolchain;
    match (build.state, &build.failure) {
        (BuildState::Failed, Some(failure)) => text.push_str(&self::failure(failure)),
        (BuildState::Done, _) => {
            let image = build.image.as_deref().unwrap_or("no image");
            let _ = writeln!(text, "built     {}", visible(image));
            if !build.release.is_empty() {
                let _ = writeln!(text, "release   {}", visible(&build.release));
            }
        }
        _ => text.push_str("cut off; the same command goes on with it\n"),
    }
    let _ = writeln!(text, "compiler  {}", visible(&tool.version_text));
    if !tool.linker.is_empty() {
        let _ = writeln!(text, "linker    {}", visible(&tool.linker));
    }
    let count: u32 = build.warnings.iter().fold(0, |sum, w| sum.saturating_add(w.count));
    if count > 0 {
        let _ = writeln!(text, "warnings  {count}");
        for group in build.warnings.iter().take(KINDS) {
            let place = if group.file.is_empty() {
                String::new()
            } else {
                format!(", first in {}", place(&group.file, group.line))
            };
            let line = format!("  {:>4} {}{place}: {}", group.count, group.kind, group.text);
            let _ = writeln!(text, "{}", visible(&line));
        }
        if build.warnings.len() > KINDS {
            let _ = writeln!(text, "  and {} further kinds", build.warnings.len() - KINDS);
        }
    }
    for gap in &build.gaps {
        let _ = writeln!(text, "note      {}", visible(gap));
    }
    text
}

/// The first error, with the lines of the compiler that belong to it.
pub fn failure(failure: &BuildFailure) -> String {
    let mut text = String::new();
    let at = match failure.file.as_str() {
        "" => String::new(),
        file => format!("{}: ", place(file, failure.line)),
    };
    let _ = writeln!(text, "failed    {}", visible(&format!("{at}{}", failure.message)));
    for line in &failure.context {
        let _ = writeln!(text, "          {}", visible(line));
    }
    if !failure.target.is_empty() {
        let _ = writeln!(text, "target    {}", visible(&failure.target));
    }
    text
}

fn place(file: &str, line: u32) -> String {
    if line == 0 { file.to_owned() } else { format!("{file}:{line}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kolumbo_case::{ToolchainFacts, WarningGroup};

    #[test]
    fn the_first_error_comes_first() {
        let build = BuildFile {
            state: BuildState::Failed,
            toolchain: ToolchainFacts {
                version_text: "gcc (GCC) 12".into(),
                ..ToolchainFacts::default()
            },
            failure: Some(BuildFailure {
                file: "kernel/fork.c".into(),
                line: 12,
                message: "'x' undeclared\u{1b}[0m".into(),
                context: vec!["   12 |  x = 1;".into()],
                target: "kernel/fork.o".into(),
            }),
            warnings: vec![WarningGroup {
                kind: "-Wunused".into(),
                count: 3,
                file: "fs/a.c".into(),
                line: 2,
                text: "unused".into(),
            }],
            ..BuildFile::default()
        };
        expect![[r#"
            failed    kernel/fork.c:12: 'x' undeclared^[[0m
                         12 |  x = 1;
            target    kernel/fork.o
            compiler  gcc (GCC) 12
            warnings  3
                 3 -Wunused, first in fs/a.c:2: unused
        "#]]
        .assert_eq(&report(&build));
    }
}
