//! `kolumbo case`: bugs that are reproduced from the kernel's source, and proven.

pub(crate) mod args;
mod boots;
mod page;
mod proofs;
mod run;
mod screen;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use kolumbo_casebook::shelf::{self, ShelfError, Shelved};

use kolumbo_report::wrap::Page;

use self::args::{CaseArgs, CaseCommand};
use crate::exit::Outcome;

pub(crate) fn run(args: &CaseArgs) -> Result<Outcome> {
    let result = match &args.command {
        CaseCommand::List => list().map(|()| Outcome::Done),
        CaseCommand::Show { name, json, html } => {
            show(name, *json, html.as_deref()).map(|()| Outcome::Done)
        }
        CaseCommand::Run(args) => run::run(args),
        CaseCommand::New { dir } => begin(dir).map(|()| Outcome::Done),
    };
    result.or_else(usage)
}

/// A case that makes no sense, or that does not fit this host or this source, is an error of whoever asked.
fn usage(error: anyhow::Error) -> Result<Outcome> {
    let shelf = matches!(
        error.downcast_ref::<ShelfError>(),
        Some(ShelfError::Case(_) | ShelfError::Unknown { .. } | ShelfError::Occupied { .. })
    );
    let outcome = match () {
        () if shelf || run::is_usage(&error) => Outcome::Usage,
        () if run::is_broken(&error) => Outcome::Broken,
        () => return Err(error),
    };
    let _ = writeln!(std::io::stderr(), "kolumbo: {error}");
    Ok(outcome)
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for name in shelf::builtin() {
        let case = shelf::find(name)?;
        writeln!(out, "{name:<20} {}", case.recipe.title)?;
    }
    Ok(())
}

fn show(name: &str, json: bool, html: Option<&Path>) -> Result<()> {
    let dir = Path::new(name);
    if let Some(run) = run::read(dir)? {
        if let Some(path) = html {
            std::fs::write(path, kolumbo_report::casebook_page::page(&run))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        return page::print(&run, json);
    }
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

fn begin(dir: &Path) -> Result<()> {
    shelf::begin(dir)?;
    let _ = writeln!(
        std::io::stderr(),
        "kolumbo: {} holds a case; change it, then: kolumbo case run {}",
        dir.display(),
        kolumbo_machine::qemu::quote(&dir.display().to_string())
    );
    Ok(())
}
