//! Programs of the host, with all they need to run in a guest that has nothing.
//!
//! Decides which interpreter and which shared libraries a program needs, by the rules of ld.so(8),
//! by reading ELF files and the linker's configuration: neither the program nor `ldd` is run.
//! Libraries that a program opens while it runs (`dlopen`) cannot be seen and are not found.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

use crate::initramfs::Program;

/// More libraries than any program needs; ends a search that would not end.
const LIBRARY_LIMIT: usize = 512;
/// Bytes of one file.
const FILE_LIMIT: u64 = 1 << 30;
/// How deep configuration files of the linker may include each other.
const INCLUDE_LIMIT: u32 = 4;
/// Where the linkers of glibc and musl look when nothing else says.
const DEFAULT_FOLDERS: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
];

/// Why a program cannot be handed to the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// A file cannot be read.
    #[error("reading {path}, which the guest is to run or needs for it: {source}")]
    Read {
        /// The file.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Not a program, or one for another machine.
    #[error("reading {path}, which the guest is to run or needs for it: {reason}")]
    NotProgram {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A library is nowhere.
    #[error(
        "looking for {library}, which {needed_by} needs: it is in none of the linker's folders; \
         install it, or link the program statically"
    )]
    NoLibrary {
        /// The library's name.
        library: String,
        /// Who asks for it.
        needed_by: String,
    },
}

/// Reads a program of the host with everything it needs. `folders` are searched as the linker's
/// configured folders are, see [`configured_folders`].
///
/// # Errors
/// When the program cannot be read, is not one for x86-64, or needs what the host does not have.
pub fn read_program(
    path: &Path,
    arguments: &[String],
    folders: &[PathBuf],
) -> Result<Program, ProgramError> {
    let bytes = read(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut program = Program { name, arguments: arguments.to_vec(), bytes, ..Program::default() };
    let needs = if let Some(interpreter) = script_interpreter(&program.bytes) {
        let interpreter = PathBuf::from(interpreter);
        let bytes = read(&interpreter)?;
        let needs = elf_needs(&interpreter, &bytes)?;
        program.interpreters.push((interpreter.display().to_string(), bytes));
        needs
    } else {
        elf_needs(path, &program.bytes)?
    };
    if let Some(linker) = &needs.interpreter {
        program.interpreters.push((linker.display().to_string(), read(linker)?));
    }
    program.libraries = libraries(needs, folders)?;
    Ok(program)
}

/// The folders that the host's `/etc/ld.so.conf` names, in order. A file that cannot be read names
/// none.
pub fn configured_folders(configuration: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    read_configuration(configuration, INCLUDE_LIMIT, &mut folders);
    folders
}

fn read_configuration(path: &Path, depth: u32, folders: &mut Vec<PathBuf>) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include ") {
            let Some(depth) = depth.checked_sub(1) else { continue };
            for path in matching_files(path, Path::new(pattern.trim())) {
                read_configuration(&path, depth, folders);
            }
        } else if line.starts_with('/') {
            folders.push(PathBuf::from(line));
        }
    }
}

/// The files that `folder/*.suffix` or a plain path names, sorted. No other pattern is in use.
fn matching_files(beside: &Path, pattern: &Path) -> Vec<PathBuf> {
    let pattern = beside.parent().unwrap_or(Path::new("/")).join(pattern);
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern] };
    let folder = pattern.parent().unwrap_or(Path::new("/"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        })
        .collect();
    files.sort();
    files
}

/// What one ELF file asks its linker for.
#[derive(Debug, Default)]
struct Needs {
    /// The file, for messages and for `$ORIGIN`.
    path: PathBuf,
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    /// Folders of DT_RUNPATH, or of DT_RPATH where there is none, `$ORIGIN` replaced.
    folders: Vec<PathBuf>,
}

/// Finds every library that `first` needs, and those they need, breadth first as the linker does.
fn libraries(
    first: Needs,
    configured: &[PathBuf],
) -> Result<BTreeMap<String, Vec<u8>>, ProgramError> {
    let mut found = BTreeMap::new();
    // Bias: folders of the program are searched for its libraries' libraries too. That is the rule
    // for DT_RPATH only; for DT_RUNPATH it may find a library where the linker would not.
    let own = first.folders.clone();
    let mut queue = VecDeque::from([first]);
    while let Some(needs) = queue.pop_front() {
        for library in &needs.libraries {
            // In the guest all lie in one folder, by their names.
            let name = library.rsplit('/').next().unwrap_or(library);
            if found.contains_key(name) || found.len() >= LIBRARY_LIMIT {
                continue;
            }
            let candidates: Vec<PathBuf> = if library.contains('/') {
                vec![PathBuf::from(library)]
            } else {
                let defaults = DEFAULT_FOLDERS.iter().map(PathBuf::from);
                let configured = configured.iter().cloned();
                let near = needs.folders.iter().chain(&own).cloned();
                near.chain(configured).chain(defaults).map(|f| f.join(library)).collect()
            };
            // A folder may hold a library of the same name for another machine.
            let (bytes, theirs) = candidates
                .iter()
                .filter(|path| path.is_file())
                .find_map(|path| {
                    let bytes = read(path).ok()?;
                    let needs = elf_needs(path, &bytes).ok()?;
                    Some((bytes, needs))
                })
                .ok_or_else(|| ProgramError::NoLibrary {
                    library: library.clone(),
                    needed_by: needs.path.display().to_string(),
                })?;
            found.insert(name.to_owned(), bytes);
            queue.push_back(theirs);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, ProgramError> {
    let shown = || path.display().to_string();
    let error = |source| ProgramError::Read { path: shown(), source };
    let meta = std::fs::metadata(path).map_err(error)?;
    if !meta.is_file() || meta.len() > FILE_LIMIT {
        let reason = "it is not a file, or too large to be a program".to_owned();
        return Err(ProgramError::NotProgram { path: shown(), reason });
    }
    std::fs::read(path).map_err(error)
}

/// The interpreter that the first line of a script names.
fn script_interpreter(bytes: &[u8]) -> Option<&str> {
    let line = bytes.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    std::str::from_utf8(line).ok()?.split_whitespace().next()
}

fn elf_needs(path: &Path, bytes: &[u8]) -> Result<Needs, ProgramError> {
    let not = |reason: &str| ProgramError::NotProgram {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let header = elf::FileHeader64::<Endianness>::parse(bytes)
        .map_err(|_| not("it is neither a 64-bit ELF program nor a script"))?;
    let endian = header.endian().map_err(|_| not("its ELF header is damaged"))?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(not("it is a program for another kind of machine than x86-64"));
    }
    if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
        return Err(not("it is an ELF file, but neither a program nor a library"));
    }
    let segments = header
        .program_headers(endian, bytes)
        .map_err(|_| not("its program headers lie outside the file"))?;
    let at = |address: u64| -> Option<&[u8]> {
        segments.iter().find_map(|s| {
            let inside = address.checked_sub(s.p_vaddr(endian))?;
            (s.p_type(endian) == elf::PT_LOAD && inside < s.p_filesz(endian)).then_some(())?;
            bytes.get(usize::try_from(s.p_offset(endian).checked_add(inside)?).ok()?..)
        })
    };
    let mut needs = Needs { path: path.to_path_buf(), ..Needs::default() };
    let mut dynamic: Vec<(elf::DynamicTag, u64)> = Vec::new();
    for segment in segments {
        if let Ok(Some(path)) = segment.interpreter(endian, bytes) {
            needs.interpreter = Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()));
        }
        if let Ok(Some(entries)) = segment.dynamic(endian, bytes) {
            dynamic = entries
                .iter()
                .map(|e| (e.tag(endian), e.val(endian)))
                .take_while(|&(tag, _)| tag != elf::DT_NULL)
                .collect();
        }
    }
    let value = |wanted: elf::DynamicTag| dynamic.iter().find(|e| e.0 == wanted).map(|e| e.1);
    let strings = value(elf::DT_STRTAB).and_then(at).unwrap_or_default();
    let string = |offset: u64| -> Option<String> {
        let rest = strings.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().take(4096).position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    for &(_, offset) in dynamic.iter().filter(|e| e.0 == elf::DT_NEEDED) {
        let name = string(offset).ok_or_else(|| not("the names of its libraries are damaged"))?;
        needs.libraries.push(name);
    }
    let folders = value(elf::DT_RUNPATH).or(value(elf::DT_RPATH)).and_then(string);
    let origin = path.canonicalize().ok();
    let origin = origin.as_deref().and_then(Path::parent).unwrap_or(Path::new("/"));
    let origin = origin.display().to_string();
    needs.folders = folders
        .iter()
        .flat_map(|list| list.split(':'))
        .filter(|folder| !folder.is_empty())
        .map(|f| PathBuf::from(f.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)))
        .collect();
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::process::Command;

    fn host() -> Vec<PathBuf> {
        configured_folders(Path::new("/etc/ld.so.conf"))
    }

    /// The oracle is `ldd`, on programs that every Debian has.
    #[test]
    fn libraries_are_those_that_the_linker_finds() {
        let mut compared = 0;
        for program in ["/bin/ls", "/usr/bin/env", "/bin/bash", "/usr/bin/qemu-system-x86_64"] {
            let path = Path::new(program);
            let Ok(output) = Command::new("ldd").arg(path).output() else { continue };
            if !path.exists() || !output.status.success() {
                continue;
            }
            // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)"; the linker itself and the
            // kernel's vdso have no arrow.
            let expected: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter(|l| l.contains("=>"))
                .filter_map(|l| Some(l.split_whitespace().next()?.to_owned()))
                .collect();
            let found = read_program(path, &[], &host()).unwrap();
            let linker = &found.interpreters[0].0;
            let mut names: BTreeSet<String> = found.libraries.keys().cloned().collect();
            names.retain(|name| !linker.ends_with(&format!("/{name}")));
            assert_eq!(names, expected, "{program}");
            compared += 1;
        }
        assert!(
            compared > 0 || std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
            "nothing to compare with: neither ldd nor a program"
        );
    }

    #[test]
    fn a_static_program_needs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        std::fs::write(&path, kolumbo_init::INIT_ELF).unwrap();
        let program = read_program(&path, &["a".into()], &[]).unwrap();
        assert_eq!(program.name, "init");
        assert_eq!(program.arguments, ["a"]);
        assert!(program.interpreters.is_empty() && program.libraries.is_empty());
    }

    #[test]
    fn a_script_brings_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.sh");
        std::fs::write(&path, "#! /bin/sh -e\ntrue\n").unwrap();
        let program = read_program(&path, &[], &host()).unwrap();
        assert_eq!(program.interpreters[0].0, "/bin/sh");
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut damaged = kolumbo_init::INIT_ELF.to_vec();
        damaged.truncate(100);
        let mut arm = kolumbo_init::INIT_ELF.to_vec();
        arm[18] = 183;
        for bytes in [&b""[..], b"text", b"\x7fELF", &damaged, &arm] {
            std::fs::write(&path, bytes).unwrap();
            let e = read_program(&path, &[], &[]).unwrap_err();
            assert!(matches!(e, ProgramError::NotProgram { .. }), "{e}");
        }
        std::fs::write(&path, "#!/nowhere/sh\n").unwrap();
        assert!(matches!(read_program(&path, &[], &[]), Err(ProgramError::Read { .. })));
        assert!(matches!(
            read_program(folder.path(), &[], &[]),
            Err(ProgramError::NotProgram { .. })
        ));
    }

    #[test]
    fn the_linkers_configuration_may_include_and_may_circle() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("ld.so.conf");
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(&main, "include d/*.conf\n/last # comment\n").unwrap();
        std::fs::write(folder.path().join("d/b.conf"), "/second\n").unwrap();
        std::fs::write(folder.path().join("d/a.conf"), "# none\n/first\n").unwrap();
        std::fs::write(folder.path().join("d/a.conf.old"), "/never\n").unwrap();
        let folders = configured_folders(&main);
        assert_eq!(folders, ["/first", "/second", "/last"].map(PathBuf::from));
        std::fs::write(&main, "include ld.so.conf\n/once\n").unwrap();
        assert!(configured_folders(&main).len() <= INCLUDE_LIMIT as usize + 1);
        assert!(configured_folders(Path::new("/nowhere")).is_empty());
    }
}
