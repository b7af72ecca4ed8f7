//! What is asked of a matrix: the file, the axes and the options of the command line put together.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kolumbo_lab::matrix::drive::Options;
use kolumbo_lab::matrix::file::{self, MatrixToml};
use kolumbo_lab::matrix::plan::{Request, parse_axis};

use super::args::MatrixArgs;

/// Name of the file that is looked for.
const FILE_NAME: &str = "kolumbo.toml";
/// Largest file that is read.
const LARGEST: u64 = 16 << 20;

/// A matrix that was described.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) options: Options,
}

/// Why it cannot be.
pub(crate) enum RequestError {
    /// What was asked for makes no sense.
    Usage(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for RequestError {
    fn from(error: anyhow::Error) -> Self {
        RequestError::Failed(error)
    }
}

/// The description; none where there is none at all.
pub(crate) fn asked(args: &MatrixArgs) -> Result<Option<Asked>, RequestError> {
    let path = match &args.file {
        Some(path) => Some(path.clone()),
        None if args.axes.is_empty() && args.resume.is_none() => found_file(),
        None => None,
    };
    let described = match &path {
        Some(path) => read(path)?,
        None if args.axes.is_empty() => return Ok(None),
        None => MatrixToml::default(),
    };
    let mut request = described.request;
    for text in &args.axes {
        let axis = parse_axis(text).map_err(|e| RequestError::Usage(e.to_string()))?;
        match request.axes.iter_mut().find(|a| a.name == axis.name && a.place.contains(".toml:")) {
            Some(old) => *old = axis,
            None => request.axes.push(axis),
        }
    }
    let base = &mut request.base;
    let text = |path: &PathBuf| path.display().to_string();
    let options = [
        (&mut base.kernel, args.kernel.as_ref().map(text)),
        (&mut base.smp, args.smp.clone()),
        (&mut base.memory, args.memory.clone()),
        (&mut base.timeout, args.timeout.clone()),
    ];
    for (slot, given) in options {
        if given.is_some() {
            *slot = given;
        }
    }
    base.append.extend(args.append.iter().cloned());
    let qemu_args = match &args.qemu_opts {
        Some(text) => shlex::split(text).ok_or_else(|| {
            RequestError::Usage(format!("cannot split --qemu-opts '{text}': a quote is not closed"))
        })?,
        None => Vec::new(),
    };
    let options = Options {
        repeat: args.repeat.or(described.repeat).unwrap_or(1),
        confidence: args.confidence.or(described.confidence).unwrap_or(0.95),
        allow_splats: args.allow_splats || described.allow_splats.unwrap_or(false),
        confirm: !args.no_confirm && described.confirm.unwrap_or(true),
        qemu: args.qemu.clone(),
        qemu_args,
    };
    Ok(Some(Asked { request, options }))
}

fn read(path: &Path) -> Result<MatrixToml, RequestError> {
    let reading = || format!("cannot read {}", path.display());
    let length = std::fs::metadata(path).with_context(reading)?.len();
    if length > LARGEST {
        return Err(RequestError::Usage(format!("{} is too large for a matrix", path.display())));
    }
    let text = std::fs::read_to_string(path).with_context(reading)?;
    file::parse(&path.display().to_string(), &text).map_err(|e| RequestError::Usage(e.to_string()))
}

/// `kolumbo.toml` here, then in `$XDG_CONFIG_HOME/kolumbo`, then in `$XDG_CONFIG_DIRS`.
fn found_file() -> Option<PathBuf> {
    let absolute = |v: std::ffi::OsString| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .and_then(absolute)
        .or_else(|| Some(std::env::var_os("HOME").and_then(absolute)?.join(".config")));
    let dirs = std::env::var_os("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    let dirs: Vec<PathBuf> = std::env::split_paths(&dirs).filter(|p| p.is_absolute()).collect();
    let folders = home.into_iter().chain(dirs).map(|dir| dir.join("kolumbo"));
    std::iter::once(PathBuf::new())
        .chain(folders)
        .map(|dir| dir.join(FILE_NAME))
        .find(|path| path.is_file())
}
