//! `kolumbo explain`: from a log and, where there is one, an image to an explanation.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use kolumbo_case::{Explanation, ReadResult};
use kolumbo_dataflow::Syntax;
use kolumbo_detective::Options;
use kolumbo_lab::folder::Folder;

use crate::args::{ExplainArgs, SyntaxName};
use crate::exit::Outcome;
use crate::explain_case;
use crate::images::{self, ImageFiles};
use crate::log_files;
use crate::maintainers;

/// A log of more than this is not read into memory.
const MOST_INPUT: usize = 1 << 30;

pub(crate) fn run(args: &ExplainArgs) -> Result<Outcome> {
    let is_case = args.log.is_dir() && log_files::records(&args.log).is_empty();
    let (read, mut explanation) = if is_case {
        of_case(args)?
    } else {
        let mut read = kolumbo_console::read(&input(&args.log)?);
        read.gaps.extend(log_files::still_packed(&args.log));
        let explanation = explained(args, &read, &options(args))?;
        (read, explanation)
    };
    if let Some(tree) = &args.source {
        images::interleave(tree, &mut explanation);
    }
    if args.mail && explanation.findings.is_empty() && read.reports.is_empty() {
        explanation
            .gaps
            .push(kolumbo_case::Gap { what: "there is no crash to report".to_owned(), span: None });
    }
    let mut stdout = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &explanation)?;
        writeln!(stdout)?;
    } else if args.mail || args.introduced.is_some() {
        let circumstances = kolumbo_report::explain_mail::Circumstances {
            introduced: args.introduced.clone(),
            recipients: args
                .source
                .as_deref()
                .map(|tree| maintainers::of(tree, &explanation))
                .unwrap_or_default(),
            tried: args.tried.clone(),
        };
        stdout.write_all(
            kolumbo_report::explain_mail::mail(&read, &explanation, &circumstances).as_bytes(),
        )?;
    } else {
        let shown = kolumbo_report::explain::Shown { all_frames: args.all_frames };
        stdout.write_all(kolumbo_report::explain::report(&explanation, shown).as_bytes())?;
    }
    stdout.flush()?;
    Ok(Outcome::Done)
}

/// A case folder: its console and its CPUs, with the image that was booted unless another is named.
fn of_case(args: &ExplainArgs) -> Result<(ReadResult, Explanation)> {
    let folder = Folder::read(&args.log)?;
    let read = explain_case::what_was_seen(&folder.case, &folder.console().unwrap_or_default());
    let explanation = match args.vmlinux {
        Some(_) => {
            let hypervisor = explain_case::what_ran(&folder.case);
            let options = Options { hypervisor: Some(&hypervisor), ..options(args) };
            explained(args, &read, &options)?
        }
        None => {
            let cache = crate::boot::cache_folder()?;
            explain_case::with_its_image(&folder.case, &read, &cache, &options(args))
        }
    };
    Ok((read, explanation))
}

/// The explanation of what was read, with the image that the arguments name.
fn explained(args: &ExplainArgs, read: &ReadResult, options: &Options<'_>) -> Result<Explanation> {
    let Some(path) = &args.vmlinux else { return Ok(kolumbo_detective::explain(read, options)) };
    let file = kolumbo_lab::kernel::map(path)?;
    let system_map = args
        .system_map
        .as_ref()
        .map(|p| std::fs::read(p).with_context(|| format!("cannot read {}", p.display())))
        .transpose()?;
    let files = ImageFiles {
        path: path.clone(),
        bytes: &file,
        system_map: system_map.as_deref(),
        module_dir: args.module_dir.as_deref(),
        modules: Vec::new(),
    };
    images::explained(read, options, &files)
}

fn options(args: &ExplainArgs) -> Options<'static> {
    Options {
        syntax: match args.syntax {
            SyntaxName::Att => Syntax::Att,
            SyntaxName::Intel => Syntax::Intel,
        },
        all_frames: args.all_frames,
        ..Options::default()
    }
}

/// The bytes of the log; `-` is standard input.
fn input(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    log_files::for_each_piece(path, &mut |piece| {
        let room = MOST_INPUT.saturating_sub(bytes.len());
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        piece.len() < room
    })?;
    Ok(bytes)
}
