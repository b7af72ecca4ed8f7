//! Compilers: what is installed, what a name means, what a tree wants of them.
//!
//! Decides which variables of make select a compiler, from what the tree's Makefile knows, and
//! whether the tree takes its version. Main type: [`Toolchain`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kolumbo_case::ToolchainFacts;
use thiserror::Error;

/// What belongs to clang when the whole LLVM toolchain is used (Documentation/kbuild/llvm.rst). objtool is
/// linked with HOSTLD (tools/scripts/Makefile.include).
const LLVM_TOOLS: [(&str, &str); 9] = [
    ("LD", "ld.lld"),
    ("HOSTLD", "ld.lld"),
    ("HOSTAR", "llvm-ar"),
    ("AR", "llvm-ar"),
    ("NM", "llvm-nm"),
    ("OBJCOPY", "llvm-objcopy"),
    ("OBJDUMP", "llvm-objdump"),
    ("READELF", "llvm-readelf"),
    ("STRIP", "llvm-strip"),
];

/// Which compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// GNU.
    Gcc,
    /// LLVM.
    Clang,
}

impl Family {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Family::Gcc => "gcc",
            Family::Clang => "clang",
        }
    }
}

/// A compiler that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// As it was asked for.
    pub name: String,
    /// Which compiler.
    pub family: Family,
    /// Its path.
    pub compiler: PathBuf,
    /// Version, major first.
    pub version: Vec<u32>,
    /// First line of `--version`.
    pub version_text: String,
}

/// Why a toolchain cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolchainError {
    /// There is no such compiler.
    #[error("no compiler '{name}' was found; installed are: {installed}")]
    Missing {
        /// What was asked for.
        name: String,
        /// What there is.
        installed: String,
    },
    /// The program is no compiler.
    #[error("{compiler} does not say a version that is understood; it said: {said}")]
    NoVersion {
        /// The program.
        compiler: String,
        /// Its first line.
        said: String,
    },
    /// The tree wants a newer one.
    #[error(
        "{source_tree} needs {family} {least} or newer, and {name} is {version}: take a newer compiler, or an older tree"
    )]
    TooOld {
        /// The tree.
        source_tree: String,
        /// Which compiler.
        family: &'static str,
        /// The tree's minimum.
        least: String,
        /// What was asked for.
        name: String,
        /// Its version.
        version: String,
    },
}

impl Toolchain {
    /// Finds what `name` means: `gcc-12`, `clang-14`, `llvm-14`, the path of a compiler, or a folder
    /// with one.
    pub fn find(name: &str) -> Result<Toolchain, ToolchainError> {
        let missing = || {
            let all = installed();
            let names: Vec<&str> = all.iter().map(|t| t.name.as_str()).collect();
            let installed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            ToolchainError::Missing { name: name.to_owned(), installed }
        };
        let path = if name.contains('/') {
            let given = std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name));
            let inside = ["clang", "gcc", "bin/clang", "bin/gcc"].map(|c| given.join(c));
            if given.is_dir() { inside.into_iter().find(|p| p.is_file()) } else { Some(given) }
        } else {
            let program = name.replacen("llvm", "clang", 1);
            in_path(&program).or_else(|| {
                let version = program.strip_prefix("clang-")?;
                Some(PathBuf::from(format!("/usr/lib/llvm-{version}/bin/clang")))
            })
        };
        match path.filter(|p| p.is_file()) {
            Some(path) => Toolchain::ask(name, &path),
            None => Err(missing()),
        }
    }

    fn ask(name: &str, compiler: &Path) -> Result<Toolchain, ToolchainError> {
        let said = first_line(compiler, &["--version"]);
        let family = if said.contains("clang version") { Family::Clang } else { Family::Gcc };
        let version = match family {
            Family::Clang => said.split("clang version ").nth(1).and_then(version_in),
            // The package's version in parentheses comes first: "gcc-12 (Debian 12.2.0-14) 12.2.0".
            Family::Gcc if said.contains("gcc") || said.contains("GCC") => {
                let behind = said.split_once(')').map_or(said.as_str(), |(_, rest)| rest);
                version_in(behind.trim())
            }
            Family::Gcc => None,
        };
        let compiler_text = compiler.display().to_string();
        let version = version
            .ok_or(ToolchainError::NoVersion { compiler: compiler_text, said: said.clone() })?;
        Ok(Toolchain {
            name: name.to_owned(),
            family,
            compiler: compiler.to_owned(),
            version,
            version_text: said,
        })
    }

    /// Its version as text.
    pub fn version(&self) -> String {
        dotted(&self.version)
    }

    /// Fails when the tree wants a newer compiler. A tree that does not say is taken to want none.
    pub fn must_suit(&self, tree: &Path) -> Result<(), ToolchainError> {
        match least_version(tree, self.family) {
            Some(least) if self.version < least => Err(ToolchainError::TooOld {
                source_tree: tree.display().to_string(),
                family: self.family.name(),
                least: dotted(&least),
                name: self.name.clone(),
                version: self.version(),
            }),
            _ => Ok(()),
        }
    }

    /// Variables for make, and what had to be done in another way than usual.
    pub fn variables(&self, tree: &Path, ccache: bool) -> (Vec<String>, Vec<String>) {
        let mut gaps = Vec::new();
        let mut variables = Vec::new();
        let compiler = self.compiler.display().to_string();
        let before = if ccache { "ccache " } else { "" };
        if self.family == Family::Clang {
            let makefile = std::fs::read(tree.join("Makefile")).unwrap_or_default();
            // `LLVM=1` came with v5.7, `LLVM=-14` and `LLVM=/path/` with v5.18; every tool is named in
            // full, so the first is all that has to be there.
            let knows = String::from_utf8_lossy(&makefile).contains("$(LLVM)");
            let tools: Vec<_> = LLVM_TOOLS.iter().map(|(v, t)| (*v, *t, self.beside(t))).collect();
            let missing: Vec<&str> =
                tools.iter().filter(|(.., path)| path.is_none()).map(|(_, t, _)| *t).collect();
            if !knows {
                gaps.push("this tree does not know LLVM=; GNU binutils are used".to_owned());
            } else if !missing.is_empty() {
                gaps.push(format!(
                    "{} is not installed for {}; GNU binutils are used",
                    missing.join(", "),
                    self.name
                ));
            } else {
                variables.push("LLVM=1".to_owned());
                for (variable, _, path) in tools {
                    let path = path.unwrap_or_default();
                    variables.push(format!("{variable}={}", path.display()));
                }
            }
        }
        variables.push(format!("CC={before}{compiler}"));
        variables.push(format!("HOSTCC={before}{compiler}"));
        (variables, gaps)
    }

    /// The linker that `variables` select.
    pub fn linker(&self, variables: &[String]) -> String {
        let named = variables.iter().find_map(|v| v.strip_prefix("LD=")).unwrap_or("ld");
        first_line(Path::new(named), &["--version"])
    }

    /// A tool of the same version: beside the compiler, with the same ending.
    fn beside(&self, tool: &str) -> Option<PathBuf> {
        let folder = self.compiler.parent()?;
        let name = self.compiler.file_name()?.to_str()?;
        let ending = name.strip_prefix("clang").unwrap_or("");
        Some(folder.join(format!("{tool}{ending}"))).filter(|p| p.is_file())
    }

    /// Whether it takes an option of the command line.
    pub fn takes(&self, option: &str) -> bool {
        let mut command = quiet(&self.compiler);
        command.args(["-Werror", option, "-x", "c", "-E", "/dev/null"]);
        command.output().is_ok_and(|o| o.status.success())
    }

    /// As it stands in `build.json`.
    pub fn facts(&self, variables: &[String], ccache: bool) -> ToolchainFacts {
        ToolchainFacts {
            name: self.name.clone(),
            family: self.family.name().to_owned(),
            compiler: self.compiler.display().to_string(),
            version: self.version(),
            version_text: self.version_text.clone(),
            linker: self.linker(variables),
            ccache,
        }
    }
}

/// Every gcc and clang in `$PATH` and in `/usr/lib/llvm-*`, by name.
pub fn installed() -> Vec<Toolchain> {
    let mut found: Vec<Toolchain> = Vec::new();
    let mut offer = |name: String, path: PathBuf| {
        if found.iter().all(|t| t.name != name)
            && let Ok(toolchain) = Toolchain::ask(&name, &path)
        {
            found.push(toolchain);
        }
    };
    for dir in std::env::var_os("PATH").iter().flat_map(std::env::split_paths) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_compiler(&name) {
                offer(name, entry.path());
            }
        }
    }
    for entry in std::fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("llvm-") {
            let compiler = entry.path().join("bin/clang");
            if compiler.is_file() {
                offer(format!("clang-{version}"), compiler);
            }
        }
    }
    found.sort_by(|a, b| {
        (a.family.name(), &a.version, &a.name).cmp(&(b.family.name(), &b.version, &b.name))
    });
    found
}

/// `gcc`, `gcc-12`, `clang`, `clang-14`; not `gcc-ar` and not a cross compiler.
fn is_compiler(name: &str) -> bool {
    ["gcc", "clang"].iter().any(|family| {
        name.strip_prefix(family).is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix('-').is_some_and(|v| {
                    !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit() || b == b'.')
                })
        })
    })
}

/// A program of `$PATH`.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// The oldest version that the tree takes: scripts/min-tool-version.sh (since v5.12), before that the
/// checks in include/linux/compiler-*.h. The script is read, not run.
fn least_version(tree: &Path, family: Family) -> Option<Vec<u32>> {
    let read = |path: &str| {
        let bytes = std::fs::read(tree.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    if let Some(script) = read("scripts/min-tool-version.sh") {
        let label = if family == Family::Gcc { "gcc)" } else { "llvm)" };
        let lines = script.lines().map(str::trim).skip_while(|l| *l != label);
        // An exception for another architecture comes first, the rest is behind "else".
        let words = lines.take_while(|l| *l != ";;").filter_map(|l| l.strip_prefix("echo "));
        return words.last().and_then(version_in);
    }
    let (path, symbol) = match family {
        Family::Gcc => ("include/linux/compiler-gcc.h", "GCC_VERSION < "),
        Family::Clang => ("include/linux/compiler-clang.h", "CLANG_VERSION < "),
    };
    let header = read(path)?;
    let lines: Vec<&str> = header.lines().collect();
    lines.windows(2).find_map(|pair| {
        let number = pair[0].split(symbol).nth(1)?;
        let refused = pair[1].trim_start_matches('#').trim_start().starts_with("error");
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        let number: u32 = digits.parse().ok()?;
        refused.then(|| vec![number / 10_000, number / 100 % 100, number % 100])
    })
}

fn version_in(text: &str) -> Option<Vec<u32>> {
    let digits: String =
        text.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let parts: Option<Vec<u32>> =
        digits.trim_end_matches('.').split('.').map(|p| p.parse().ok()).collect();
    parts.filter(|p| !p.is_empty())
}

fn dotted(version: &[u32]) -> String {
    version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn first_line(program: &Path, arguments: &[&str]) -> String {
    let output = quiet(program).args(arguments.iter().map(OsStr::new)).output();
    let said = output.map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that says `version`.
    fn compiler(dir: &Path, name: &str, version: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn versions_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        for (name, said, family, version) in [
            ("gcc-12", "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", Family::Gcc, "12.2.0"),
            ("gcc", "gcc (GCC) 13.1.1 20230614 (Red Hat 13.1.1-4)", Family::Gcc, "13.1.1"),
            ("clang-14", "Debian clang version 14.0.6", Family::Clang, "14.0.6"),
            ("clang-20", "Ubuntu clang version 20.1.0 (++20250101)", Family::Clang, "20.1.0"),
        ] {
            let path = compiler(dir.path(), name, said);
            let found = Toolchain::find(path.to_str().unwrap()).unwrap();
            assert_eq!((found.family, found.version().as_str()), (family, version), "{said}");
        }
        let other = compiler(dir.path(), "x", "hello");
        let error = Toolchain::find(other.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, ToolchainError::NoVersion { .. }));
        assert!(matches!(Toolchain::find("gcc-0"), Err(ToolchainError::Missing { .. })));
    }

    #[test]
    fn a_tree_says_what_it_wants() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        assert_eq!(least_version(tree, Family::Gcc), None);
        std::fs::create_dir_all(tree.join("include/linux")).unwrap();
        std::fs::write(
            tree.join("include/linux/compiler-gcc.h"),
            "#if GCC_VERSION < 40900\n# error Sorry, your compiler is too old\n#endif\n",
        )
        .unwrap();
        assert_eq!(least_version(tree, Family::Gcc), Some(vec![4, 9, 0]));
        std::fs::create_dir_all(tree.join("scripts")).unwrap();
        std::fs::write(
            tree.join("scripts/min-tool-version.sh"),
            "case \"$1\" in\ngcc)\n\techo 8.1.0\n\t;;\nllvm)\n\tif [ \"$SRCARCH\" = s390 ]; then\n\t\techo 15.0.0\n\
             \telse\n\t\techo 13.0.1\n\tfi\n\t;;\nesac\n",
        )
        .unwrap();
        assert_eq!(least_version(tree, Family::Gcc), Some(vec![8, 1, 0]));
        assert_eq!(least_version(tree, Family::Clang), Some(vec![13, 0, 1]));
        let old = compiler(tree, "clang-11", "clang version 11.0.1");
        let old = Toolchain::find(old.to_str().unwrap()).unwrap();
        let error = old.must_suit(tree).unwrap_err().to_string();
        assert!(error.contains("needs clang 13.0.1") && error.contains("is 11.0.1"), "{error}");
    }

    #[test]
    fn llvm_is_used_as_far_as_tree_and_host_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let clang = compiler(dir.path(), "clang-14", "clang version 14.0.6");
        let clang = Toolchain::find(clang.to_str().unwrap()).unwrap();
        std::fs::write(dir.path().join("Makefile"), "ifneq ($(LLVM),)\n").unwrap();
        let (variables, gaps) = clang.variables(dir.path(), false);
        assert_eq!(variables.len(), 2, "{variables:?}");
        assert!(gaps[0].contains("ld.lld"), "{gaps:?}");
        for (_, tool) in LLVM_TOOLS {
            compiler(dir.path(), &format!("{tool}-14"), "LLD 14");
        }
        let (variables, gaps) = clang.variables(dir.path(), true);
        assert!(gaps.is_empty() && variables[0] == "LLVM=1", "{variables:?}");
        assert!(variables.iter().any(|v| v.starts_with("LD=") && v.ends_with("ld.lld-14")));
        assert!(variables.iter().any(|v| v.starts_with("CC=ccache /")));
    }

    #[test]
    fn names_of_compilers() {
        for (name, is) in [
            ("gcc", true),
            ("gcc-12", true),
            ("gcc-ar-12", false),
            ("clang-cl-19", false),
            ("clang-19", true),
        ] {
            assert_eq!(is_compiler(name), is, "{name}");
        }
    }
}
