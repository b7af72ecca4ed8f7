//! A kernel tree that completes configurations, and a command that tests them.
//!
//! Decides the arguments of make and what exit codes mean, which is what they mean to `git bisect run`. The
//! tree is never written to: kbuild works in a folder of its own. Main types: [`Tree`], [`Command`].

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

use super::{Complete, MinimizeError, Outcome, Test};
use crate::build::toolchain::Toolchain;
use crate::build::{BuildError, arguments, checked_tree, kept_environment};

/// The exit code of a test that cannot tell.
const CANNOT_TELL: i32 = 125;

/// A tree with the folder that its Kconfig works in.
#[derive(Debug)]
pub struct Tree {
    source: PathBuf,
    folder: PathBuf,
    make: Vec<String>,
}

impl Tree {
    /// The tree at `source` with a toolchain, whose abilities Kconfig asks for; `folder` is made.
    pub fn new(source: &Path, toolchain: &str, folder: &Path) -> Result<Tree, MinimizeError> {
        let source = checked_tree(source)?;
        let toolchain = Toolchain::find(toolchain).map_err(BuildError::from)?;
        toolchain.must_suit(&source).map_err(BuildError::from)?;
        fs::create_dir_all(folder).map_err(MinimizeError::io("make", folder))?;
        let folder = fs::canonicalize(folder).map_err(MinimizeError::io("find", folder))?;
        let (variables, _) = toolchain.variables(&source, false);
        let make = arguments(&source, &folder, &toolchain, variables);
        Ok(Tree { source, folder, make })
    }

    /// Where it lies.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// What tells its answers from those of other trees and toolchains.
    pub fn about(&self) -> String {
        self.make.join("\0")
    }
}

impl Complete for Tree {
    fn complete(&mut self, wanted: &[u8]) -> Result<Vec<u8>, MinimizeError> {
        let path = self.folder.join(".config");
        fs::write(&path, wanted).map_err(MinimizeError::io("write", &path))?;
        let make = process::Command::new("make")
            .args(&self.make)
            .arg("olddefconfig")
            .env_clear()
            .envs(kept_environment())
            .stdin(Stdio::null())
            .output()
            .map_err(MinimizeError::io("start", Path::new("make")))?;
        if !make.status.success() {
            let said = String::from_utf8_lossy(&make.stderr).into_owned();
            let last = said.lines().rfind(|line| !line.trim().is_empty());
            let said = last.unwrap_or("it gave no reason").to_owned();
            return Err(MinimizeError::Make { folder: self.folder.clone(), said });
        }
        fs::read(&path).map_err(MinimizeError::io("read", &path))
    }
}

/// A command with its arguments. No shell is asked: `KOLUMBO_CONFIG` names the configuration, and
/// `KOLUMBO_SOURCE` the tree.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments; at least one word.
    pub words: Vec<String>,
    /// The tree.
    pub source: PathBuf,
}

impl Test for Command {
    fn test(&mut self, config: &Path, log: &Path) -> Result<Outcome, MinimizeError> {
        let program = self.words.first().cloned().unwrap_or_default();
        let file = File::create(log).map_err(MinimizeError::io("write", log))?;
        let errors = file.try_clone().map_err(MinimizeError::io("write", log))?;
        let status = process::Command::new(&program)
            .args(self.words.iter().skip(1))
            .env("KOLUMBO_CONFIG", config)
            .env("KOLUMBO_SOURCE", &self.source)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .status()
            .map_err(MinimizeError::io("start", Path::new(&program)))?;
        let how = match status.code() {
            Some(0) => return Ok(Outcome::Good),
            Some(CANNOT_TELL) => return Ok(Outcome::Skip),
            Some(1..CANNOT_TELL) => return Ok(Outcome::Bad),
            Some(code) => format!("exit code {code}"),
            None => format!("signal {}", status.signal().unwrap_or_default()),
        };
        Err(MinimizeError::Aborted { program, how, log: log.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_mean_what_they_mean_to_git_bisect() {
        let dir = tempfile::tempdir().unwrap();
        let (config, log) = (dir.path().join("a config"), dir.path().join("log"));
        fs::write(&config, "CONFIG_A=y\n").unwrap();
        let run = |script: &str| {
            let words = ["sh", "-c", script].map(str::to_owned).to_vec();
            Command { words, source: "/tree".into() }.test(&config, &log)
        };
        let seen = "grep -q CONFIG_A=y \"$KOLUMBO_CONFIG\" && test \"$KOLUMBO_SOURCE\" = /tree && echo seen";
        assert_eq!(run(seen).unwrap(), Outcome::Good);
        assert_eq!(fs::read_to_string(&log).unwrap(), "seen\n");
        for (code, outcome) in [(1, Outcome::Bad), (124, Outcome::Bad), (125, Outcome::Skip)] {
            assert_eq!(run(&format!("exit {code}")).unwrap(), outcome, "{code}");
        }
        for (script, how) in [
            ("exit 126", "exit code 126"),
            ("exit 127", "exit code 127"),
            ("kill -9 $$", "signal 9"),
        ] {
            let error = run(script).unwrap_err().to_string();
            assert!(error.contains(how), "{error}");
        }
        let none = Command { words: vec!["/nonexistent/test".into()], source: "/tree".into() }
            .test(&config, &log);
        assert!(matches!(none, Err(MinimizeError::Io { doing: "start", .. })));
    }
}
