//! What the guests are made of: a kernel, the module, a shell, and damaged kernels.

use std::path::{Path, PathBuf};
use std::process::Command;

use kolumbo_machine::initramfs::{self, Contents, Program};

use crate::table::{Guest, Initrd, Kernel};

const BUSYBOX: &str = "/bin/busybox";

/// What could be found or built; for the rest, what is missing.
pub(crate) struct Ingredients {
    kernel: Result<PathBuf, String>,
    module: Result<PathBuf, String>,
    busybox: Result<Vec<u8>, String>,
}

impl Ingredients {
    pub(crate) fn find() -> Ingredients {
        let kernel = find_kernel();
        let module = kernel.as_ref().map_err(Clone::clone).and_then(|k| build_module(k));
        let busybox = std::fs::read(BUSYBOX)
            .map_err(|e| format!("{BUSYBOX} (Debian: apt-get install busybox-static): {e}"));
        Ingredients { kernel, module, busybox }
    }

    /// The arguments of `kolumbo boot` for one guest; files that it needs are made in `folder`.
    pub(crate) fn arguments(&self, guest: &Guest, folder: &Path) -> Result<Vec<String>, String> {
        let kernel = match guest.kernel {
            Some(kind) => self.make_kernel(kind, folder)?,
            None => self.kernel.clone()?,
        };
        let mut arguments = vec![kernel.display().to_string()];
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|w| (*w).to_owned()));
        add(&["--accel", "tcg", "--smp", &guest.smp.to_string(), "--memory", &guest.memory]);
        add(&["--timeout", &format!("{}s", guest.timeout)]);
        for words in &guest.append {
            add(&["--append", words]);
        }
        if let Some(parameters) = &guest.module {
            let module = self.module.clone()?;
            add(&["--module", &format!("{} {parameters}", module.display())]);
        }
        if let Some(kind) = guest.initrd {
            let initrd = self.make_initrd(kind, folder)?;
            add(&["--initrd", &initrd.display().to_string()]);
        }
        if !guest.exec.is_empty() {
            add(&["--exec"]);
            arguments.extend(guest.exec.iter().cloned());
        }
        Ok(arguments)
    }

    fn make_kernel(&self, kind: Kernel, folder: &Path) -> Result<PathBuf, String> {
        let path = folder.join("kernel");
        let whole = || std::fs::read(self.kernel.clone()?).map_err(|e| e.to_string());
        let bytes = match kind {
            Kernel::Truncated => {
                let mut bytes = whole()?;
                bytes.truncate(bytes.len() / 2);
                bytes
            }
            Kernel::BitFlipped => {
                let mut bytes = whole()?;
                // One bit in every 64 KiB of the compressed kernel: one alone may fall on a byte
                // that no boot ever looks at, and then the guest is not sick.
                let flips = (bytes.len() / 4..bytes.len()).step_by(64 << 10);
                flips.for_each(|at| bytes[at] ^= 1);
                bytes
            }
            Kernel::Arm64Image => arm64_image(),
            Kernel::Text => b"This is the configuration of a kernel, not a kernel.\n".to_vec(),
            Kernel::Empty => Vec::new(),
            Kernel::Folder => {
                std::fs::create_dir_all(path.join("arch/x86/boot")).map_err(|e| e.to_string())?;
                return Ok(path);
            }
            Kernel::Fifo => {
                let made = Command::new("mkfifo").arg(&path).status();
                return match made {
                    Ok(status) if status.success() => Ok(path),
                    other => Err(format!("mkfifo: {other:?}")),
                };
            }
        };
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        Ok(path)
    }

    fn make_initrd(&self, kind: Initrd, folder: &Path) -> Result<PathBuf, String> {
        let script = match kind {
            Initrd::Exits => "exit 3",
            Initrd::Sleeps => {
                "/bin/busybox mount -t proc proc /proc\n/bin/busybox sleep 60\n\
                 /bin/busybox poweroff -f"
            }
            Initrd::Prompt => "exec /bin/busybox sh -i",
        };
        // busybox takes the place of an interpreter, so that it lies where the script names it.
        let busybox = Program {
            name: "busybox".to_owned(),
            interpreters: vec![(BUSYBOX.to_owned(), self.busybox.clone()?)],
            ..Program::default()
        };
        let init = format!("#!{BUSYBOX} sh\n{script}\n");
        let contents =
            Contents { init: init.as_bytes(), modules: &[], program: Some(&busybox), files: &[] };
        let path = folder.join("initrd");
        let bytes = initramfs::build(contents).map_err(|e| e.to_string())?;
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        Ok(path)
    }
}

/// A well-formed header of an arm64 kernel (`Documentation/arm64/booting.rst`), and nothing else.
fn arm64_image() -> Vec<u8> {
    const SIZE: usize = 1 << 20;
    let mut image = vec![0u8; SIZE];
    // A branch over the header, as kernels without an EFI stub have it.
    image[0..8].copy_from_slice(&[0x10, 0x00, 0x00, 0x14, 0, 0, 0, 0]);
    image[16..24].copy_from_slice(&(SIZE as u64).to_le_bytes());
    // Little-endian, 4 KiB pages, anywhere in memory.
    image[24..32].copy_from_slice(&0b1010u64.to_le_bytes());
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image
}

fn find_kernel() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("KOLUMBO_TEST_KERNEL") {
        return Ok(PathBuf::from(path));
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .ok_or("a home folder")?;
    let mut kernels = Vec::new();
    collect_kernels(&cache.join("kolumbo"), 5, &mut kernels);
    // One whose headers are here serves every guest.
    let with_headers = kernels.iter().find(|k| headers(k).is_ok());
    with_headers
        .or(kernels.last())
        .cloned()
        .ok_or_else(|| "a kernel (set KOLUMBO_TEST_KERNEL, or run `make demo` once)".to_owned())
}

fn collect_kernels(folder: &Path, depth: u32, kernels: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && name.starts_with("vmlinuz-") {
            kernels.push(path);
        } else if path.is_dir()
            && let Some(depth) = depth.checked_sub(1)
        {
            collect_kernels(&path, depth, kernels);
        }
    }
}

/// The folder that modules for this kernel are built against.
fn headers(kernel: &Path) -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os("KDIR") {
        return Ok(PathBuf::from(folder));
    }
    let release = release(kernel)?;
    let folder = Path::new("/lib/modules").join(&release).join("build");
    if folder.join("Makefile").exists() {
        return Ok(folder);
    }
    Err(format!("the headers of {release} (Debian: apt-get install linux-headers-{release})"))
}

/// The release that a bzImage names in its header (`Documentation/x86/boot.rst`: the field
/// kernel_version at 0x20e points, less 0x200, to a string).
fn release(kernel: &Path) -> Result<String, String> {
    let bytes = std::fs::read(kernel).map_err(|e| format!("{}: {e}", kernel.display()))?;
    let name = bytes
        .get(0x20e..0x210)
        .and_then(|at| bytes.get(usize::from(u16::from_le_bytes([at[0], at[1]])) + 0x200..))
        .and_then(|text| text.split(|&b| b == b' ' || b == 0).next())
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn build_module(kernel: &Path) -> Result<PathBuf, String> {
    let headers = headers(kernel)?;
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/guests");
    // One folder for each kernel: a module fits no other.
    let key = headers.display().to_string().replace('/', "_");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sick").join(key);
    let result = Command::new("make")
        .args(["-s", "-C", sources])
        .arg(format!("KDIR={}", headers.display()))
        .arg(format!("OUT={}", out.display()))
        .output()
        .map_err(|e| format!("make (Debian: apt-get install make gcc): {e}"))?;
    let module = out.join("sick.ko");
    if result.status.success() && module.exists() {
        return Ok(module);
    }
    Err(format!("a module for it: {}", String::from_utf8_lossy(&result.stderr)))
}
