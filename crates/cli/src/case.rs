//! `kolumbo case`: bugs that are reproduced from the kernel's source, and proven.

pub(crate) mod args;

use std::io::Write;

use anyhow::Result;
use kolumbo_casebook::shelf::{self, ShelfError, Shelved};

use kolumbo_report::wrap::Page;

use self::args::{CaseArgs, CaseCommand};
use crate::exit::Outcome;

pub(crate) fn run(args: &CaseArgs) -> Result<Outcome> {
    let result = match &args.command {
        CaseCommand::List => list().map(|()| Outcome::Done),
        CaseCommand::Show { name } => show(name).map(|()| Outcome::Done),
        CaseCommand::New { dir } => begin(dir).map(|()| Outcome::Done),
    };
    result.or_else(usage)
}

/// A case that makes no sense, or that is not there, is an error of whoever asked.
fn usage(error: anyhow::Error) -> Result<Outcome> {
    match error.downcast_ref::<ShelfError>() {
        Some(
            e @ (ShelfError::Case(_) | ShelfError::Unknown { .. } | ShelfError::Occupied { .. }),
        ) => {
            let _ = writeln!(std::io::stderr(), "kolumbo: {e}");
            Ok(Outcome::Usage)
        }
        _ => Err(error),
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for name in shelf::builtin() {
        let case = shelf::find(name)?;
        writeln!(out, "{name:<20} {}", case.recipe.title)?;
    }
    Ok(())
}

fn show(name: &str) -> Result<()> {
    let case = shelf::find(name)?;
    write!(std::io::stdout(), "{}", text(&case))?;
    Ok(())
}

/// What a case says of itself.
fn text(case: &Shelved) -> String {
    let recipe = &case.recipe;
    let mut page = Page::default();
    page.wrapped("", &format!("{}: {}", case.name, recipe.title));
    page.gap();
    page.wrapped("  ", &recipe.story);
    page.gap();
    page.wrapped("source    ", &recipe.source.words());
    for kernel in &recipe.kernels {
        let how = match (&kernel.built, &kernel.from) {
            (Some(built), _) if built.edits.is_empty() => built.toolchain.clone(),
            (Some(built), _) => {
                format!("{} with the edits {}", built.toolchain, built.edits.join(", "))
            }
            (None, from) => {
                format!("the image of {}, edited", from.as_deref().unwrap_or("another"))
            }
        };
        let about = match kernel.about.as_str() {
            "" => String::new(),
            about => format!(" ({about})"),
        };
        page.wrapped("kernel    ", &format!("{}: {how}{about}", kernel.name));
    }
    for axis in &recipe.axes {
        let labels: Vec<&str> = axis.values.iter().map(|(l, _)| l.as_str()).collect();
        page.wrapped("axis      ", &format!("{}: {}", axis.name, labels.join(", ")));
    }
    for expect in &recipe.expect {
        let terms = expect.when.terms.iter();
        let when: Vec<String> =
            terms.map(|(axis, l)| format!("{axis} {}", l.join(" or "))).collect();
        let verdicts: Vec<&str> = expect.verdicts.iter().map(|v| v.name()).collect();
        let title = match expect.title.as_str() {
            "" => String::new(),
            title => format!(", {title}"),
        };
        let text = format!("with {}: {}{title}", when.join(" and "), verdicts.join(" or "));
        page.wrapped("expected  ", &text);
    }
    for proof in &recipe.proofs {
        page.wrapped("proof     ", &kolumbo_casebook::proof::words(proof));
    }
    let files: Vec<String> = case.files.iter().map(|(p, _)| p.display().to_string()).collect();
    page.wrapped("files     ", &files.join(", "));
    page.finish()
}

fn begin(dir: &std::path::Path) -> Result<()> {
    shelf::begin(dir)?;
    let _ = writeln!(
        std::io::stderr(),
        "kolumbo: {} holds a case; change it, then: kolumbo case run {}",
        dir.display(),
        kolumbo_machine::qemu::quote(&dir.display().to_string())
    );
    Ok(())
}
