//! The initramfs of kolumbo's own userspace, as bytes.
//!
//! Decides where things lie in the guest and how they are packed ("newc" cpio). A pure function:
//! the same contents give the same bytes, and no file, clock or process is touched. Main type:
//! [`Contents`].

use std::collections::BTreeMap;

use kolumbo_init::words::PLAN_PATH;
use kolumbo_init::{Plan, PlanError, PlannedExec, PlannedModule};

/// Folder of the guest that holds the modules.
const MODULES: &str = "/kolumbo/modules";
/// Folder of the guest that holds the program to run.
const PROGRAMS: &str = "/kolumbo/exec";
/// Folder of the guest that holds the program's libraries. Init sets `LD_LIBRARY_PATH` to it.
const LIBRARIES: &str = kolumbo_init::words::LIBRARY_FOLDER;

/// What goes into the initramfs.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// The program that runs as PID 1, [`kolumbo_init::INIT_ELF`].
    pub init: &'a [u8],
    /// Modules that init loads, in this order.
    pub modules: &'a [Module],
    /// The program that init runs after them.
    pub program: Option<&'a Program>,
    /// Other files, for the program: absolute path and bytes.
    pub files: &'a [(&'a str, &'a [u8])],
}

/// One module as the kernel takes it: an ELF file, not compressed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Module {
    /// Name of the file, without folder.
    pub name: String,
    /// The ELF file.
    pub bytes: Vec<u8>,
    /// Parameters as `insmod` takes them.
    pub parameters: String,
}

/// A program of the host and what it needs to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Name of the file, without folder.
    pub name: String,
    /// The program.
    pub bytes: Vec<u8>,
    /// Its arguments, without its name.
    pub arguments: Vec<String>,
    /// The interpreter of a dynamically linked program or of a script, by the absolute path that
    /// the program names; and the interpreter's own, where that is dynamically linked.
    pub interpreters: Vec<(String, Vec<u8>)>,
    /// Shared libraries by the name under which they are asked for.
    pub libraries: BTreeMap<String, Vec<u8>>,
}

/// Why no initramfs can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitramfsError {
    /// What init is told does not fit into its plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The format has 32 bits for a size.
    #[error("packing {path} for the guest: its {size} bytes are more than an initramfs can hold")]
    TooLarge {
        /// Path in the guest.
        path: String,
        /// Its size in bytes.
        size: usize,
    },
    /// Two files for one path.
    #[error("packing {path} for the guest: two different files claim this place")]
    Twice {
        /// Path in the guest.
        path: String,
    },
}

/// The bytes of the initramfs: files sorted by path, no times, everything owned by root.
///
/// # Errors
/// When something does not fit into the format or into init's plan.
pub fn build(contents: Contents) -> Result<Vec<u8>, InitramfsError> {
    let mut archive = Archive::default();
    for folder in ["/dev", "/proc", "/sys", "/tmp", "/run"] {
        archive.folder(folder);
    }
    // Without /dev/console the kernel gives init no standard files; the second is for a kernel
    // without devtmpfs.
    archive.entries.insert("/dev/console".into(), Entry::CharDevice { major: 5, minor: 1 });
    archive.entries.insert("/dev/null".into(), Entry::CharDevice { major: 1, minor: 3 });
    archive.file("/init", 0o755, contents.init)?;

    let mut plan = Plan::default();
    for (number, module) in contents.modules.iter().enumerate() {
        let path = format!("{MODULES}/{number:02}-{}", module.name);
        archive.file(&path, 0o644, &module.bytes)?;
        plan.modules.push(PlannedModule { path, parameters: module.parameters.clone() });
    }
    if let Some(program) = contents.program {
        let path = format!("{PROGRAMS}/{}", program.name);
        archive.file(&path, 0o755, &program.bytes)?;
        for (path, bytes) in &program.interpreters {
            archive.file(path, 0o755, bytes)?;
        }
        for (name, bytes) in &program.libraries {
            archive.file(&format!("{LIBRARIES}/{name}"), 0o755, bytes)?;
        }
        let name = std::iter::once(program.name.clone());
        let arguments = name.chain(program.arguments.iter().cloned()).collect();
        plan.exec = Some(PlannedExec { path, arguments });
    }
    for (path, bytes) in contents.files {
        archive.file(path, 0o644, bytes)?;
    }
    let plan = plan.to_bytes()?;
    archive.file(&PLAN_PATH.to_string_lossy(), 0o644, &plan)?;
    Ok(archive.pack())
}

/// What lies at one path.
#[derive(Debug, PartialEq, Eq)]
enum Entry<'a> {
    Folder,
    File { mode: u32, bytes: &'a [u8] },
    CharDevice { major: u32, minor: u32 },
}

/// Paths start with a slash; the map's order puts a folder before what is in it.
#[derive(Default)]
struct Archive<'a> {
    entries: BTreeMap<String, Entry<'a>>,
}

impl<'a> Archive<'a> {
    fn folder(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').skip(1) {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Folder);
        }
        self.entries.entry(path.to_owned()).or_insert(Entry::Folder);
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &'a [u8]) -> Result<(), InitramfsError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(InitramfsError::TooLarge { path: path.to_owned(), size: bytes.len() });
        }
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            self.folder(parent);
        }
        let entry = Entry::File { mode, bytes };
        match self.entries.get(path) {
            Some(there) if *there != entry => Err(InitramfsError::Twice { path: path.to_owned() }),
            _ => {
                self.entries.insert(path.to_owned(), entry);
                Ok(())
            }
        }
    }

    /// The "newc" format, `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux.
    fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (mode, links, bytes, device): (u32, u32, &[u8], _) = match *entry {
                Entry::Folder => (0o040_755, 2, &[], (0, 0)),
                Entry::File { mode, bytes } => (0o100_000 | mode, 1, bytes, (0, 0)),
                Entry::CharDevice { major, minor } => (0o020_600, 1, &[], (major, minor)),
            };
            pack_entry(&mut out, number, path.trim_start_matches('/'), mode, links, device, bytes);
        }
        pack_entry(&mut out, 0, "TRAILER!!!", 0, 1, (0, 0), &[]);
        out
    }
}

fn pack_entry(
    out: &mut Vec<u8>,
    inode: u32,
    name: &str,
    mode: u32,
    links: u32,
    (major, minor): (u32, u32),
    bytes: &[u8],
) {
    // Both sizes were checked or are short: a file when it was added, a path by its origin.
    let (name_size, size) = (name.len() as u32 + 1, bytes.len() as u32);
    let (owner, group, time, checksum) = (0, 0, 0, 0);
    out.extend_from_slice(b"070701");
    for field in
        [inode, mode, owner, group, links, time, size, 0, 0, major, minor, name_size, checksum]
    {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn contents() -> (Vec<Module>, Program) {
        let modules = vec![
            Module { name: "b.ko".into(), bytes: b"second".to_vec(), parameters: "x=1".into() },
            Module { name: "a.ko".into(), bytes: b"first".to_vec(), parameters: String::new() },
        ];
        let program = Program {
            name: "true".into(),
            bytes: b"program".to_vec(),
            arguments: vec!["-x".into()],
            interpreters: vec![("/lib64/ld.so".into(), b"linker".to_vec())],
            libraries: BTreeMap::from([("libc.so.6".into(), b"libc".to_vec())]),
        };
        (modules, program)
    }

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        let (modules, program) = contents();
        let contents =
            Contents { init: b"init", modules: &modules, program: Some(&program), files: &[] };
        assert_eq!(build(contents).unwrap(), build(contents).unwrap());
    }

    #[test]
    fn two_files_at_one_path_are_refused() {
        let (_, mut program) = contents();
        program.interpreters.push(("/init".into(), b"other".to_vec()));
        let contents =
            Contents { init: b"init", modules: &[], program: Some(&program), files: &[] };
        assert_eq!(build(contents), Err(InitramfsError::Twice { path: "/init".into() }));
    }

    /// The oracle is the program that the format is named after.
    #[test]
    fn cpio_lists_what_was_packed() {
        let (modules, program) = contents();
        let bytes = build(Contents {
            init: b"init",
            modules: &modules,
            program: Some(&program),
            files: &[],
        })
        .unwrap();
        let listing = match cpio(&["-itv", "--quiet"], &bytes) {
            Ok(listing) => listing,
            Err(e) => {
                assert!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "{e}");
                return;
            }
        };
        // Mode and name of each line; between them stand links, owner, size or device, and time.
        let entries: Vec<String> = listing
            .lines()
            .map(|l| format!("{} {}", &l[..10], l.rsplit(' ').next().unwrap()))
            .collect();
        assert_eq!(
            entries,
            [
                "drwxr-xr-x dev",
                "crw------- dev/console",
                "crw------- dev/null",
                "-rwxr-xr-x init",
                "drwxr-xr-x kolumbo",
                "drwxr-xr-x kolumbo/exec",
                "-rwxr-xr-x kolumbo/exec/true",
                "drwxr-xr-x kolumbo/lib",
                "-rwxr-xr-x kolumbo/lib/libc.so.6",
                "drwxr-xr-x kolumbo/modules",
                "-rw-r--r-- kolumbo/modules/00-b.ko",
                "-rw-r--r-- kolumbo/modules/01-a.ko",
                "-rw-r--r-- kolumbo/plan",
                "drwxr-xr-x lib64",
                "-rwxr-xr-x lib64/ld.so",
                "drwxr-xr-x proc",
                "drwxr-xr-x run",
                "drwxr-xr-x sys",
                "drwxr-xr-x tmp",
            ]
        );
        let plan = cpio(&["-i", "--quiet", "--to-stdout", "kolumbo/plan"], &bytes).unwrap();
        assert_eq!(
            plan,
            "module\0/kolumbo/modules/00-b.ko\0x=1\0module\0/kolumbo/modules/01-a.ko\0\0\
             exec\0/kolumbo/exec/true\x002\0true\0-x\0"
        );
    }

    fn cpio(arguments: &[&str], archive: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), archive).unwrap();
        let output = Command::new("cpio")
            .args(arguments)
            .stdin(Stdio::from(std::fs::File::open(file.path()).unwrap()))
            .output()
            .map_err(|e| format!("missing: cpio (Debian: apt-get install cpio): {e}"))?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout).unwrap())
    }
}
