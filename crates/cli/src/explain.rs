//! `kolumbo explain`: from a log and, where there is one, an image to an explanation.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kolumbo_case::{Explanation, ReadResult};
use kolumbo_dataflow::Syntax;
use kolumbo_detective::{ImageCode, Options};
use kolumbo_lab::folder::Folder;
use kolumbo_vmlinux::dwarf::{DebugSections, Lines};
use kolumbo_vmlinux::{Image, Kernel};

use crate::args::{ExplainArgs, SyntaxName};
use crate::exit::Outcome;
use crate::explain_case;
use crate::maintainers;

/// A log of more than this is not read into memory.
const MOST_INPUT: u64 = 1 << 30;

pub(crate) fn run(args: &ExplainArgs) -> Result<Outcome> {
    let (read, mut explanation) = if args.log.is_dir() {
        of_case(args)?
    } else {
        let read = kolumbo_console::read(&input(&args.log)?);
        let explanation = explained(args, &read)?;
        (read, explanation)
    };
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
        Some(_) => explained(args, &read)?,
        None => {
            let cache = crate::boot::cache_folder()?;
            explain_case::with_its_image(&folder.case, &read, &cache, &options(args))
        }
    };
    Ok((read, explanation))
}

/// The explanation of what was read, with the image that the arguments name.
fn explained(args: &ExplainArgs, read: &ReadResult) -> Result<Explanation> {
    let options = options(args);
    let Some(path) = &args.vmlinux else { return Ok(kolumbo_detective::explain(read, &options)) };
    let file = kolumbo_lab::kernel::map(path)?;
    let system_map = args
        .system_map
        .as_ref()
        .map(|p| std::fs::read(p).with_context(|| format!("cannot read {}", p.display())))
        .transpose()?;
    with_image(read, &options, path, &file, system_map.as_deref())
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

/// The explanation with the kernel in `file`, which lies at `path`.
pub(crate) fn with_image(
    read: &ReadResult,
    options: &Options<'_>,
    path: &Path,
    file: &[u8],
    system_map: Option<&[u8]>,
) -> Result<Explanation> {
    let kernel = Kernel::open(file)
        .with_context(|| format!("cannot read the kernel in {}", path.display()))?;
    let symbols = kernel.symbols(system_map);
    let elf = kernel.elf();
    let image = Image::of_vmlinux(&elf, symbols.table);
    let code = ImageCode::new(&image);
    let debug = DebugSections::of(&elf);
    let lines = debug.as_ref().map(DebugSections::lines);
    let base = lines.as_ref().and_then(|lines| build_folder(&image, lines)).unwrap_or_default();
    let frames = lines.as_ref().map(|lines| {
        let base = base.as_str();
        move |address| {
            let mut frames = lines.frames(address);
            for file in frames.iter_mut().filter_map(|f| f.file.as_mut()) {
                if let Some(inside) = file.strip_prefix(base) {
                    *file = inside.to_owned();
                }
            }
            frames
        }
    });
    let options = Options {
        image: Some(&code),
        lines: frames.as_ref().map(|f| f as &kolumbo_detective::frames::LinesOf<'_>),
        ..*options
    };
    let mut explanation = kolumbo_detective::explain(read, &options);
    explanation.image = Some(match kernel.banner() {
        Some(banner) => format!("{}: {}", path.display(), banner.release),
        None => path.display().to_string(),
    });
    Ok(explanation)
}

/// The folder that the kernel was built in, with its last slash: what stands before `init/main.c` in
/// the place of `start_kernel`, which has been there since 2.6 and earlier.
fn build_folder(image: &Image<'_>, lines: &Lines<'_>) -> Option<String> {
    let start = image.symbols().address_of("start_kernel")?;
    let file = lines.frames(start).pop()?.file?;
    file.strip_suffix("init/main.c").map(str::to_owned)
}

/// The bytes of the log; `-` is standard input.
fn input(path: &PathBuf) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(MOST_INPUT)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        let file =
            File::open(path).with_context(|| format!("cannot open the log {}", path.display()))?;
        file.take(MOST_INPUT)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read the log {}", path.display()))?;
    }
    Ok(bytes)
}
