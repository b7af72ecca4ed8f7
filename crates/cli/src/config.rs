//! `kolumbo config`: from two names to what differs between two configurations, and what of it matters.

pub(crate) mod args;
mod minimize;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kolumbo_lab::folder::{CASE_FILE, Folder};
use kolumbo_lab::kernel;
use kolumbo_source::config::diff::{Side, diff};
use kolumbo_source::config::input::{self, Found};
use kolumbo_source::config::script::{Form, script_diff};
use kolumbo_source::config::{Config, boot};
use kolumbo_source::kconfig;
use kolumbo_vmlinux::Kernel;

use self::args::{ConfigArgs, ConfigCommand, DiffArgs};
use crate::boot::cache_folder;
use crate::exit::Outcome;

pub(crate) fn run(args: &ConfigArgs) -> Result<Outcome> {
    match &args.command {
        ConfigCommand::Diff(args) => run_diff(args),
        ConfigCommand::Minimize(args) => minimize::run(args),
    }
}

fn run_diff(args: &DiffArgs) -> Result<Outcome> {
    let old = read(&args.old)?;
    let new = read(&args.new)?;
    let mut out = std::io::stdout().lock();
    if args.plain || args.merge {
        let form = if args.merge { Form::Merge } else { Form::Changes };
        out.write_all(&script_diff(&old.bytes, &new.bytes, form)?)?;
        return Ok(Outcome::Done);
    }
    let (a, b) = (Config::parse(&old.bytes), Config::parse(&new.bytes));
    let tree = match &args.source {
        Some(top) => Some(kconfig::read(top, kconfig::arch_of(&b.kernel))?),
        None => None,
    };
    let (old, new) = (old.path.display().to_string(), new.path.display().to_string());
    let result =
        diff(Side { path: &old, config: &a }, Side { path: &new, config: &b }, tree.as_ref());
    if args.json {
        serde_json::to_writer_pretty(&mut out, &result)?;
        writeln!(out)?;
    } else {
        let topics: Vec<&str> = boot::TOPICS.iter().map(|(topic, _)| *topic).collect();
        out.write_all(kolumbo_report::config::report(&result, &topics, args.all).as_bytes())?;
    }
    Ok(Outcome::Done)
}

/// A configuration and the file that it came from.
struct Read {
    path: PathBuf,
    bytes: Vec<u8>,
}

fn read(named: &Path) -> Result<Read> {
    if named.join(CASE_FILE).is_file() {
        return of_case(named);
    }
    match input::find(named)? {
        Found::Text { path, bytes } => Ok(Read { path, bytes }),
        Found::Image(path) | Found::Folder(path) => of_image(&path),
    }
}

fn of_case(named: &Path) -> Result<Read> {
    let case = Folder::read(named)?.case;
    let input = |role: &str| case.inputs.iter().find(|i| i.role == role);
    let kept = input("config").or_else(|| input("kernel")).ok_or_else(|| {
        anyhow!("the case {} names neither a configuration nor a kernel", named.display())
    })?;
    read_file(Path::new(&kept.path)).with_context(|| {
        format!(
            "cannot read the configuration of the case {}: its files may have moved",
            named.display()
        )
    })
}

fn read_file(path: &Path) -> Result<Read> {
    match input::find(path)? {
        Found::Text { path, bytes } => Ok(Read { path, bytes }),
        Found::Image(path) => of_image(&path),
        Found::Folder(path) => bail!("{} is a folder", path.display()),
    }
}

/// The configuration inside an image, or of the file beside it.
fn of_image(named: &Path) -> Result<Read> {
    let found = kernel::find(named, &cache_folder()?)?;
    let inside = Kernel::open(&found.bytes).ok().and_then(|kernel| kernel.config());
    if let Some(config) = inside {
        return Ok(Read { path: found.image, bytes: config.into_bytes() });
    }
    let Some(path) = &found.config else {
        bail!(
            "{} was built without CONFIG_IKCONFIG and no config-* lies beside it; name its .config",
            found.image.display()
        );
    };
    match input::find(path)? {
        Found::Text { path, bytes } => Ok(Read { path, bytes }),
        Found::Image(_) | Found::Folder(_) => bail!("{} is no configuration", path.display()),
    }
}
