//! Module files of the host, as the guest's kernel takes them.
//!
//! Decides by its first bytes how a file is compressed and unpacks it here, because whether a guest
//! can unpack modules depends on its configuration. Knows nothing about what a module does.

use std::io::Read;
use std::path::Path;

use crate::initramfs::Module;

/// No module is larger than this when unpacked. Debian's largest has 10 MiB; one with full debug
/// information may reach a few hundred.
pub const UNPACKED_LIMIT: u64 = 512 << 20;

/// Memory for unpacking; the largest preset of xz (`-9`) needs 65 MiB.
const XZ_MEMORY_KIB: u32 = 256 << 10;

/// Why a module cannot be handed to the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The file cannot be read or unpacked.
    #[error("reading module {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is larger than any module.
    #[error("reading module {path}: it unpacks to more than {} MiB", UNPACKED_LIMIT >> 20)]
    TooLarge {
        /// The file.
        path: String,
    },
    /// The file is something else.
    #[error(
        "reading module {path}: it is not a kernel module (an ELF object, plain or packed with gz, \
         xz or zstd); name the .ko file that the kernel's build made"
    )]
    NotModule {
        /// The file.
        path: String,
    },
}

/// Reads a module (`.ko`, `.ko.gz`, `.ko.xz`, `.ko.zst`) and unpacks it.
///
/// # Errors
/// When the file cannot be read or is not a module.
pub fn read_module(path: &Path, parameters: &str) -> Result<Module, ModuleError> {
    let shown = || path.display().to_string();
    let read = |source| ModuleError::Read { path: shown(), source };
    // A FIFO or a device would make us wait for ever.
    let meta = std::fs::metadata(path).map_err(read)?;
    if !meta.is_file() {
        return Err(ModuleError::NotModule { path: shown() });
    }
    let packed = std::fs::read(path).map_err(read)?;
    let mut bytes = Vec::new();
    let length = unpack(&packed, &mut bytes, UNPACKED_LIMIT + 1).map_err(read)?;
    if length > UNPACKED_LIMIT {
        return Err(ModuleError::TooLarge { path: shown() });
    }
    if !is_relocatable(&bytes) {
        return Err(ModuleError::NotModule { path: shown() });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split_once(".ko").map_or(&*name, |(stem, _)| stem);
    Ok(Module { name: format!("{name}.ko"), bytes, parameters: parameters.to_owned() })
}

/// Appends at most `limit` bytes of the unpacked file and gives their number.
fn unpack(packed: &[u8], into: &mut Vec<u8>, limit: u64) -> std::io::Result<u64> {
    match packed {
        [0x1f, 0x8b, ..] => {
            flate2::read::MultiGzDecoder::new(packed).take(limit).read_to_end(into)?
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_MEMORY_KIB)
                .take(limit)
                .read_to_end(into)?
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ruzstd::decoding::StreamingDecoder::new(packed)
            .map_err(std::io::Error::other)?
            .take(limit)
            .read_to_end(into)?,
        _ => packed.take(limit).read_to_end(into)?,
    };
    Ok(into.len() as u64)
}

/// An ELF file of type ET_REL, of any class and byte order.
fn is_relocatable(bytes: &[u8]) -> bool {
    const ET_REL: [u8; 2] = [1, 0];
    const BIG_ENDIAN: u8 = 2;
    let Some(kind) = bytes.get(16..18) else { return false };
    let mut kind = [kind[0], kind[1]];
    if bytes[5] == BIG_ENDIAN {
        kind.reverse();
    }
    bytes.starts_with(b"\x7fELF") && kind == ET_REL
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn object() -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0".to_vec();
        elf.resize(100_000, 0x5a);
        elf
    }

    fn packed_by(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut child = Command::new(program)
            .args(["-c", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        Some(child.wait_with_output().unwrap().stdout)
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("sick.ko");
        std::fs::write(&plain, object()).unwrap();
        let expected =
            Module { name: "sick.ko".into(), bytes: object(), parameters: "how=spin".into() };
        assert_eq!(read_module(&plain, "how=spin").unwrap(), expected);
        for (program, name) in
            [("gzip", "sick.ko.gz"), ("xz", "sick.ko.xz"), ("zstd", "sick.ko.zst")]
        {
            let Some(packed) = packed_by(program, &object()) else {
                assert!(std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"), "{program}");
                continue;
            };
            let path = folder.path().join(name);
            std::fs::write(&path, &packed).unwrap();
            assert_eq!(read_module(&path, "how=spin").unwrap(), expected, "{name}");
            std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
            assert!(read_module(&path, "").is_err(), "half of {name}");
        }
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ko");
        for bytes in [&b""[..], b"\x7fELF", b"text", &INIT_EXECUTABLE] {
            std::fs::write(&path, bytes).unwrap();
            let e = read_module(&path, "").unwrap_err();
            assert!(matches!(e, ModuleError::NotModule { .. }), "{e}");
        }
        assert!(matches!(read_module(folder.path(), ""), Err(ModuleError::NotModule { .. })));
        let none = folder.path().join("none");
        assert!(matches!(read_module(&none, ""), Err(ModuleError::Read { .. })));
    }

    const INIT_EXECUTABLE: [u8; 20] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
}
