//! Builds a kernel out of its tree with kbuild, and keeps what was learnt as `build.json`.
//!
//! Decides the arguments of make, whether a build that is there can be used again, and what the first
//! error was. A build that was killed goes on where it was, since kbuild does. Main function: [`build`].

pub mod output;
pub mod toolchain;
pub mod tree;
mod workshop;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kolumbo_case::{BUILD_FORMAT_VERSION, BuildFailure, BuildFile, BuildState};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use thiserror::Error;

use self::output::{Output, Said};
use self::toolchain::{Toolchain, ToolchainError, in_path};
use self::tree::{Edit, TreeError};

/// What was learnt of a build.
pub const BUILD_FILE: &str = "build.json";
/// Everything that make printed.
pub const LOG_FILE: &str = "build.log";
/// Held as long as any process of the build lives.
const LOCK_FILE: &str = "build.lock";
/// Wait between two looks at a lock that somebody else holds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// Longest line that is looked at.
const LONGEST_LINE: u64 = 64 << 10;
/// Steps for each option that is built in, for the progress of a first build: 1,262 steps for 545
/// options in a small x86 configuration of Linux 6.1.
const STEPS_PER_HUNDRED_OPTIONS: usize = 230;

/// A build that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The top of the tree.
    pub source: PathBuf,
    /// Name of the toolchain, see [`Toolchain::find`].
    pub toolchain: String,
    /// The configuration, in order: a target of make (`defconfig`), a file, `+FRAGMENT` or `+NAME=VALUE`.
    pub config: Vec<String>,
    /// Edits, made in a copy of the tree.
    pub edits: Vec<Edit>,
    /// Targets of make.
    pub targets: Vec<String>,
    /// The build folder; without it one below `cache`, named after what is built.
    pub out: Option<PathBuf>,
    /// Share a tree and objects with other builds that differ from this one in edits only: only what an edit
    /// touches is compiled again. The build folder then holds the products, not the objects.
    pub shared: bool,
    /// Where builds and edited trees are kept.
    pub cache: PathBuf,
    /// Jobs of make.
    pub jobs: usize,
    /// Put ccache before the compiler where it is installed.
    pub ccache: bool,
    /// RFC 3339, for `build.json`.
    pub started: String,
}

/// What is told while a build runs.
pub trait Observer {
    /// A step began. `total` is what the last build of this folder needed, else an estimate.
    fn step(&mut self, step: Step<'_>);
    /// Something that the user should know.
    fn note(&mut self, text: &str);
}

/// A step of kbuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'s> {
    /// Steps so far.
    pub done: u32,
    /// Of how many.
    pub total: u32,
    /// Whether `total` is only an estimate.
    pub estimated: bool,
    /// `CC`, `LD`.
    pub tool: &'s str,
    /// What is made.
    pub file: &'s str,
}

/// A build that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildResult {
    /// What was learnt.
    pub file: BuildFile,
    /// The build folder.
    pub out: PathBuf,
    /// It was there already.
    pub cached: bool,
}

/// Why there is no kernel.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The toolchain cannot be used.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// The tree cannot be used.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// This is no kernel tree.
    #[error("{source_tree} is no kernel tree that can be built: {reason}")]
    NoTree {
        /// The folder.
        source_tree: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// A part of the configuration makes no sense.
    #[error("cannot use the configuration '{part}': {reason}")]
    Config {
        /// As it was given.
        part: String,
        /// Why not.
        reason: String,
    },
    /// Another build uses the folder.
    #[error("another build runs in {out}; wait for it, or name another folder with --out")]
    Busy {
        /// The folder.
        out: PathBuf,
    },
    /// A file could not be read or written, or make could not be started.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// make failed.
    #[error("the build failed, see {log}")]
    Failed {
        /// The first error.
        failure: Box<BuildFailure>,
        /// Everything that was printed.
        log: PathBuf,
    },
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> BuildError + 'a {
    move |source| BuildError::Io { doing, path: path.to_owned(), source }
}

/// Builds, or finds the same build again.
pub fn build(request: &Request, observer: &mut dyn Observer) -> Result<BuildResult, BuildError> {
    let source = checked_tree(&request.source)?;
    let toolchain = Toolchain::find(&request.toolchain)?;
    toolchain.must_suit(&source)?;
    let ccache = request.ccache && in_path("ccache").is_some();
    let (variables, gaps) = toolchain.variables(&source, ccache);
    for gap in &gaps {
        observer.note(gap);
    }
    let parts = parts(&request.config)?;
    let config_asked = hash_of(parts.iter().map(Part::bytes));
    // What builds with any edits have in common.
    let base = hash_of([
        tree::fingerprint(&source)?.into_bytes(),
        source.as_os_str().as_encoded_bytes().to_vec(),
        config_asked.clone().into_bytes(),
        toolchain.version_text.clone().into_bytes(),
        toolchain.compiler.as_os_str().as_encoded_bytes().to_vec(),
        variables.join("\0").into_bytes(),
        request.targets.join("\0").into_bytes(),
    ]);
    let kind = if request.shared { "shared" } else { "" };
    let key = hash_of([
        base.clone().into_bytes(),
        format!("{:?}", request.edits).into_bytes(),
        kind.as_bytes().to_vec(),
    ]);
    let out = match &request.out {
        Some(out) => out.clone(),
        None => request.cache.join("builds").join(&key[..16]),
    };
    fs::create_dir_all(&out).map_err(io("make", &out))?;
    let out = fs::canonicalize(&out).map_err(io("find", &out))?;
    let lock = match request.shared {
        true => wait_for(&out, observer)?,
        false => locked(&out)?,
    };
    if let Some(old) = read(&out)
        && old.key == key
        && old.state == BuildState::Done
        && old.image.as_ref().is_none_or(|image| Path::new(image).is_file())
    {
        return Ok(BuildResult { file: old, out, cached: true });
    }
    let job = Job { request, source, toolchain, variables, ccache, gaps, parts, config_asked, key };
    let file = if request.shared {
        workshop::build(&job, &base, &out, observer)?
    } else {
        let built_from = if request.edits.is_empty() {
            job.source.clone()
        } else {
            let copy = request.cache.join("trees").join(&job.key[..16]);
            if !copy.is_dir() {
                tree::edited(&job.source, &copy, &request.edits)?;
            }
            copy
        };
        job.make(&built_from, &out, lock, observer)?
    };
    Ok(BuildResult { file, out, cached: false })
}

/// A build with everything that was found out before make runs.
struct Job<'r> {
    request: &'r Request,
    source: PathBuf,
    toolchain: Toolchain,
    variables: Vec<String>,
    ccache: bool,
    gaps: Vec<String>,
    parts: Vec<Part>,
    config_asked: String,
    key: String,
}

impl Job<'_> {
    /// Builds the tree `built_from` in `out`, and goes on with what is there.
    fn make(
        &self,
        built_from: &Path,
        out: &Path,
        lock: File,
        observer: &mut dyn Observer,
    ) -> Result<BuildFile, BuildError> {
        let request = self.request;
        let old = read(out);
        let mut file = BuildFile {
            build_version: BUILD_FORMAT_VERSION,
            kolumbo: env!("CARGO_PKG_VERSION").to_owned(),
            state: BuildState::Running,
            source: self.source.display().to_string(),
            toolchain: self.toolchain.facts(&self.variables, self.ccache),
            make: arguments(built_from, out, &self.toolchain, self.variables.clone()),
            key: self.key.clone(),
            config: request.config.clone(),
            config_asked: self.config_asked.clone(),
            edited: request.edits.iter().map(|e| e.file.display().to_string()).collect(),
            targets: request.targets.clone(),
            started: request.started.clone(),
            gaps: self.gaps.clone(),
            ..BuildFile::default()
        };
        // What the last build of this folder knew stays true for the next.
        let known = old.as_ref().filter(|o| o.config_asked == file.config_asked);
        file.steps = known.map_or(0, |o| o.steps);
        let mut run = Run { out, lock, observer, begun: Instant::now() };
        let configured = known.is_some_and(|old| {
            old.make == file.make
                && !old.config_sha256.is_empty()
                && hash_file(&out.join(".config")).is_some_and(|h| h == old.config_sha256)
        });
        if configured {
            file.config_sha256 = known.map(|o| o.config_sha256.clone()).unwrap_or_default();
        }
        save(out, &file)?;
        if !configured {
            run.configure(&mut file, &self.parts)?;
        }
        run.make_targets(&mut file, request.jobs)?;
        Ok(file)
    }
}

/// What a build folder says of its build.
pub fn read(out: &Path) -> Option<BuildFile> {
    let text = fs::read(out.join(BUILD_FILE)).ok()?;
    let file: BuildFile = serde_json::from_slice(&text).ok()?;
    (file.build_version <= BUILD_FORMAT_VERSION).then_some(file)
}

fn save(out: &Path, file: &BuildFile) -> Result<(), BuildError> {
    let path = out.join(BUILD_FILE);
    let text = serde_json::to_vec_pretty(file).map_err(std::io::Error::from);
    let write = |text: Vec<u8>| {
        let mut aside = tempfile::NamedTempFile::new_in(out)?;
        aside.write_all(&text)?;
        aside.persist(&path).map(drop).map_err(|e| e.error)
    };
    text.and_then(write).map_err(io("write", &path))
}

pub(crate) fn checked_tree(named: &Path) -> Result<PathBuf, BuildError> {
    let no = |reason| BuildError::NoTree { source_tree: named.to_owned(), reason };
    let source = fs::canonicalize(named).map_err(io("find", named))?;
    if !source.join("Makefile").is_file() {
        return Err(no("there is no Makefile in it"));
    }
    if source.as_os_str().as_encoded_bytes().iter().any(|b| b" :".contains(b)) {
        return Err(no("kbuild takes no blanks and colons in its path; move it"));
    }
    if source.join(".config").exists() {
        return Err(no("it was built in itself; run 'make mrproper' in it, as kbuild wants"));
    }
    Ok(source)
}

fn locked(out: &Path) -> Result<File, BuildError> {
    let path = out.join(LOCK_FILE);
    let lock = File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)
        .map_err(io("open", &path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BuildError::Busy { out: out.to_owned() }),
        Err(e) => Err(io("lock", &path)(e.into())),
    }
}

/// Locks a folder that others may be building in, however long that takes.
fn wait_for(folder: &Path, observer: &mut dyn Observer) -> Result<File, BuildError> {
    let mut told = false;
    loop {
        match locked(folder) {
            Err(BuildError::Busy { out }) => {
                if !told {
                    observer.note(&format!("waiting for another build in {}", out.display()));
                    told = true;
                }
                std::thread::sleep(BETWEEN_LOOKS);
            }
            other => return other,
        }
    }
}

/// Arguments of make without jobs and targets. Nothing in them depends on time, user or host.
pub(crate) fn arguments(
    source: &Path,
    out: &Path,
    toolchain: &Toolchain,
    variables: Vec<String>,
) -> Vec<String> {
    let mut arguments =
        vec!["-C".to_owned(), source.display().to_string(), format!("O={}", out.display())];
    arguments.extend(variables);
    arguments.extend(
        [
            "KBUILD_BUILD_TIMESTAMP=1970-01-01",
            "KBUILD_BUILD_USER=kolumbo",
            "KBUILD_BUILD_HOST=kolumbo",
            "KBUILD_BUILD_VERSION=1",
        ]
        .map(str::to_owned),
    );
    if toolchain.takes("-ffile-prefix-map=/a=/b") {
        let (source, out) = (source.display(), out.display());
        // The folder that a compiler runs in stands in the debug information without a slash behind it.
        let maps = [format!("{out}=."), format!("{out}/="), format!("{source}/=")]
            .map(|map| format!("-ffile-prefix-map={map}"))
            .join(" ");
        arguments.extend([format!("KCFLAGS={maps}"), format!("KAFLAGS={maps}")]);
    }
    arguments
}

/// One part of a configuration.
enum Part {
    /// A target of make.
    Target(String),
    /// A whole configuration.
    Whole(Vec<u8>),
    /// Lines that replace those of the same options.
    Fragment(Vec<u8>),
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Part::Target(name) => format!("target {name}").into_bytes(),
            Part::Whole(bytes) => [b"whole ", bytes.as_slice()].concat(),
            Part::Fragment(bytes) => [b"fragment ", bytes.as_slice()].concat(),
        }
    }
}

fn parts(given: &[String]) -> Result<Vec<Part>, BuildError> {
    let bad = |part: &str, reason: String| BuildError::Config { part: part.to_owned(), reason };
    let text = |part: &str, path: &str| match crate::config::input::find(Path::new(path)) {
        Ok(crate::config::input::Found::Text { bytes, .. }) => Ok(bytes),
        Ok(_) => Err(bad(part, "it holds no configuration".to_owned())),
        Err(e) => Err(bad(part, e.to_string())),
    };
    let mut parts = Vec::new();
    for part in given {
        parts.push(if let Some(fragment) = part.strip_prefix('+') {
            match fragment.split_once('=') {
                Some((name, value)) if !fragment.contains('/') => {
                    let name = name.strip_prefix("CONFIG_").unwrap_or(name);
                    Part::Fragment(format!("CONFIG_{name}={value}\n").into_bytes())
                }
                _ => Part::Fragment(text(part, fragment)?),
            }
        } else if part.ends_with("config") && !part.contains(['/', '.']) {
            Part::Target(part.clone())
        } else {
            Part::Whole(text(part, part)?)
        });
    }
    if matches!(parts.first(), None | Some(Part::Fragment(_))) {
        parts.insert(0, Part::Target("defconfig".to_owned()));
    }
    Ok(parts)
}

/// One build under way.
struct Run<'r> {
    out: &'r Path,
    lock: File,
    observer: &'r mut dyn Observer,
    begun: Instant,
}

impl Run<'_> {
    fn configure(&mut self, file: &mut BuildFile, parts: &[Part]) -> Result<(), BuildError> {
        let path = self.out.join(".config");
        let mut asked: Vec<u8> = Vec::new();
        for part in parts {
            match part {
                Part::Target(name) => self.make_config(file, name)?,
                Part::Whole(bytes) => fs::write(&path, bytes).map_err(io("write", &path))?,
                Part::Fragment(bytes) => {
                    let old = fs::read(&path).map_err(io("read", &path))?;
                    fs::write(&path, merged(&old, bytes)).map_err(io("write", &path))?;
                    asked.extend_from_slice(bytes);
                    asked.push(b'\n');
                }
            }
        }
        if !matches!(parts, [Part::Target(_)]) {
            self.make_config(file, "olddefconfig")?;
        }
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        file.config_sha256 = hash_of([bytes.clone()]);
        let (asked, got) =
            (crate::config::Config::parse(&asked), crate::config::Config::parse(&bytes));
        let mut lost: Vec<String> = asked
            .names()
            .filter(|n| got.get(n).unwrap_or("n") != asked.get(n).unwrap_or("n"))
            .map(|n| {
                let value = |c: &crate::config::Config| c.get(n).unwrap_or("n").to_owned();
                format!(
                    "CONFIG_{n}={} was asked for and Kconfig made it {}",
                    value(&asked),
                    value(&got)
                )
            })
            .collect();
        lost.sort_unstable();
        for gap in lost {
            self.observer.note(&gap);
            file.gaps.push(gap);
        }
        save(self.out, file)
    }

    fn make_config(&mut self, file: &mut BuildFile, target: &str) -> Result<(), BuildError> {
        let output = self.make(file, &[target.to_owned()], 1, 0, true)?;
        match output {
            (_, true) => Ok(()),
            (output, false) => self.failed(file, &output),
        }
    }

    fn make_targets(&mut self, file: &mut BuildFile, jobs: usize) -> Result<(), BuildError> {
        let (total, estimated) = match file.steps {
            0 => (self.estimate(), true),
            steps => (steps, false),
        };
        let total = if estimated { total } else { total.max(1) };
        let targets = file.targets.clone();
        let (output, good) = self.make(file, &targets, jobs.max(1), total, estimated)?;
        file.warnings = output.warnings();
        if !good {
            return self.failed(file, &output);
        }
        // A build that went on after it was cut off has fewer steps than a whole one.
        file.steps = file.steps.max(output.steps());
        let release = self.out.join("include/config/kernel.release");
        file.release = fs::read_to_string(release).map(|t| t.trim().to_owned()).unwrap_or_default();
        file.image = ["arch/x86/boot/bzImage", "vmlinux"]
            .map(|name| self.out.join(name))
            .into_iter()
            .find(|path| path.is_file())
            .map(|path| path.display().to_string());
        file.state = BuildState::Done;
        file.wall_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        save(self.out, file)
    }

    fn failed(&self, file: &mut BuildFile, output: &Output) -> Result<(), BuildError> {
        let failure = output.failure().unwrap_or_else(|| BuildFailure {
            message: "make ended with an error that it did not name".to_owned(),
            ..BuildFailure::default()
        });
        file.state = BuildState::Failed;
        file.failure = Some(failure.clone());
        file.wall_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        save(self.out, file)?;
        Err(BuildError::Failed { failure: Box::new(failure), log: self.out.join(LOG_FILE) })
    }

    fn estimate(&self) -> u32 {
        let config = fs::read(self.out.join(".config")).unwrap_or_default();
        let built_in = config.split(|b| *b == b'\n').filter(|l| l.ends_with(b"=y")).count();
        u32::try_from(built_in.saturating_mul(STEPS_PER_HUNDRED_OPTIONS) / 100).unwrap_or(u32::MAX)
    }

    /// Runs make and reads what it prints; the flag says whether it succeeded.
    fn make(
        &mut self,
        file: &BuildFile,
        targets: &[String],
        jobs: usize,
        total: u32,
        estimated: bool,
    ) -> Result<(Output, bool), BuildError> {
        let log_path = self.out.join(LOG_FILE);
        let mut log = File::create(&log_path).map_err(io("write", &log_path))?;
        let make = Path::new("make");
        // Both streams in one pipe, so that an error stands behind the step that it belongs to.
        let (reader, writer) = std::io::pipe().map_err(io("make a pipe for", make))?;
        let errors = writer.try_clone().map_err(io("make a pipe for", make))?;
        // The lock is the standard input: it is held as long as any process of the build lives, and
        // whoever asks a question reads the end of the file.
        let lock = self.lock.try_clone().map_err(io("lock", self.out))?;
        let mut command = Command::new("make");
        command
            .args(&file.make)
            .arg(format!("-j{jobs}"))
            .args(targets)
            .env_clear()
            .envs(kept_environment())
            .stdin(Stdio::from(lock))
            .stdout(writer)
            .stderr(errors);
        let mut child = command.spawn().map_err(io("start", make))?;
        // The command holds the writing ends, without which the pipe would never end.
        drop(command);
        let source = file.make.get(1).map_or("", String::as_str);
        let mut output = Output::new(source);
        let mut lines = BufReader::new(reader);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
            if read.map_err(io("read the output of", make))? == 0 {
                break;
            }
            log.write_all(&line).map_err(io("write", &log_path))?;
            let text = String::from_utf8_lossy(&line);
            if let Said::Step { tool, file } = output.line(text.trim_end_matches(['\n', '\r'])) {
                let tool = tool.to_owned();
                let done = output.steps();
                let total = total.max(done);
                self.observer.step(Step { done, total, estimated, tool: &tool, file });
            }
        }
        let status = child.wait().map_err(io("wait for", make))?;
        Ok((output, status.success()))
    }
}

/// What a build may see of the environment: variables such as `KCFLAGS` or `ARCH` would change what
/// is built without standing in `build.json`.
pub(crate) fn kept_environment() -> Vec<(&'static str, OsString)> {
    let mut kept: Vec<_> =
        ["PATH", "HOME", "TMPDIR", "CCACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"]
            .into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)))
            .collect();
    kept.push(("LC_ALL", "C".into()));
    kept
}

/// `old` with the lines of `fragment` in place of its own for the same options.
pub(crate) fn merged(old: &[u8], fragment: &[u8]) -> Vec<u8> {
    let new = crate::config::Config::parse(fragment);
    let mut out = Vec::with_capacity(old.len() + fragment.len() + 1);
    for line in old.split_inclusive(|b| *b == b'\n') {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let option = text
            .strip_prefix("CONFIG_")
            .and_then(|t| t.split('=').next())
            .or_else(|| text.strip_prefix("# CONFIG_").and_then(|t| t.strip_suffix(" is not set")));
        if option.is_none_or(|name| new.get(name).is_none()) {
            out.extend_from_slice(line);
        }
    }
    if out.last().is_some_and(|b| *b != b'\n') {
        out.push(b'\n');
    }
    out.extend_from_slice(fragment);
    out
}

fn hash_file(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| hash_of([bytes]))
}

pub(crate) fn hash_of(parts: impl IntoIterator<Item = Vec<u8>>) -> String {
    let mut digest = Sha256::new();
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        digest.update(&part);
        // Parts of different lengths must not look alike when put together.
        if parts.peek().is_some() {
            digest.update((part.len() as u64).to_le_bytes());
        }
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
