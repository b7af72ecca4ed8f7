//! The x86 boot protocol: the setup header of a bzImage, and the way to the vmlinux inside.
//!
//! Offsets are those of Documentation/arch/x86/boot.rst, which has only ever added fields; a field is
//! read when the protocol version in the header says it is there. The main type is [`SetupHeader`].

use crate::bytes::{array_at, c_string_at, u16_at, u32_at, u64_at};
use crate::decompress::{Compression, DecompressError, decompress};
use crate::recognise::Refusal;

/// The facts of a setup header that a loader or a reader of symbols needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupHeader {
    /// Boot protocol, major in the high byte: 0x020f is 2.15.
    pub protocol: u16,
    /// The version string: release, builder and build number, as `file` shows it.
    pub kernel_version: Option<String>,
    /// The kernel is loaded at 1 MiB or above, as each bzImage is.
    pub loaded_high: bool,
    /// The kernel has the 64-bit entry point at 0x200 (`XLF_KERNEL_64`).
    pub entry_64: bool,
    /// The kernel may be placed elsewhere than at `preferred_address`.
    pub relocatable: bool,
    /// Physical alignment, in bytes, that a relocatable kernel needs.
    pub kernel_alignment: u32,
    /// Physical address that the kernel would like to run at.
    pub preferred_address: Option<u64>,
    /// Longest command line, in bytes, that the kernel takes.
    pub command_line_size: u32,
    /// Memory, in bytes, that the kernel needs behind its load address before it can read the map.
    pub init_size: Option<u32>,
    /// Offset and length in the file of the compressed vmlinux.
    pub payload: Option<(u64, u64)>,
    /// How the payload is compressed; `None` when its magic is unknown.
    pub compression: Option<Compression>,
}

/// XLF_KERNEL_64, arch/x86/include/uapi/asm/bootparam.h.
const XLF_KERNEL_64: u16 = 1 << 0;
const LOADED_HIGH: u8 = 1 << 0;

impl SetupHeader {
    /// Reads the header of `bytes` (the whole file) and checks that the file holds what it promises.
    pub fn parse(bytes: &[u8]) -> Result<SetupHeader, Refusal> {
        let short = || Refusal::TruncatedBzImage { expected: 0x268, actual: bytes.len() as u64 };
        let damaged = |why: String| Refusal::DamagedBzImage { why };
        if array_at(bytes, 0x202) != Some(*b"HdrS") {
            return Err(damaged("the magic HdrS is missing".into()));
        }
        if u16_at(bytes, 0x1fe) != Some(0xaa55) {
            return Err(damaged("the boot flag 0xaa55 is missing".into()));
        }
        let protocol = u16_at(bytes, 0x206).ok_or_else(short)?;
        if !(0x0200..0x0300).contains(&protocol) {
            return Err(damaged(format!(
                "boot protocol {}.{:02} does not exist",
                protocol >> 8,
                protocol & 0xff
            )));
        }
        let setup_sectors = match *bytes.get(0x1f1).ok_or_else(short)? {
            0 => 4,
            n => u64::from(n),
        };
        let protected_mode = (setup_sectors + 1) * 512;
        // Before protocol 2.04 only the low half of syssize counts (boot.rst).
        let paragraphs = match protocol {
            ..0x0204 => u64::from(u16_at(bytes, 0x1f4).ok_or_else(short)?),
            _ => u64::from(u32_at(bytes, 0x1f4).ok_or_else(short)?),
        };
        let expected = protected_mode + paragraphs * 16;
        let actual = bytes.len() as u64;
        if actual < expected {
            return Err(Refusal::TruncatedBzImage { expected, actual });
        }
        let since = |version: u16| protocol >= version;
        let xloadflags = if since(0x020c) { u16_at(bytes, 0x236).unwrap_or(0) } else { 0 };
        let payload = match (since(0x0208), u32_at(bytes, 0x248), u32_at(bytes, 0x24c)) {
            (true, Some(offset), Some(length)) if length != 0 => {
                let start = protected_mode + u64::from(offset);
                let end = start + u64::from(length);
                if end > actual {
                    return Err(Refusal::TruncatedBzImage { expected: end, actual });
                }
                Some((start, u64::from(length)))
            }
            _ => None,
        };
        Ok(SetupHeader {
            protocol,
            kernel_version: kernel_version(bytes, setup_sectors),
            loaded_high: bytes.get(0x211).is_some_and(|f| f & LOADED_HIGH != 0),
            entry_64: xloadflags & XLF_KERNEL_64 != 0,
            relocatable: since(0x0205) && bytes.get(0x234).is_some_and(|&r| r != 0),
            kernel_alignment: if since(0x0205) { u32_at(bytes, 0x230).unwrap_or(0) } else { 0 },
            preferred_address: if since(0x020a) { u64_at(bytes, 0x258) } else { None },
            command_line_size: if since(0x0206) {
                u32_at(bytes, 0x238).unwrap_or(255)
            } else {
                255
            },
            init_size: if since(0x020a) { u32_at(bytes, 0x260) } else { None },
            compression: payload.and_then(|p| Compression::detect(range(bytes, p)?)),
            payload,
        })
    }
}

/// The field holds the offset of a NUL-terminated string, less 0x200; it must lie in the setup code.
fn kernel_version(bytes: &[u8], setup_sectors: u64) -> Option<String> {
    let at = u64::from(u16_at(bytes, 0x20e)?);
    if at == 0 || at >= setup_sectors * 512 {
        return None;
    }
    let text = c_string_at(bytes, at as usize + 0x200)?;
    let text = text.get(..512).unwrap_or(text);
    Some(String::from_utf8_lossy(text).into_owned())
}

fn range(bytes: &[u8], (start, length): (u64, u64)) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    bytes.get(start..end)
}

/// Unpacks the vmlinux (a stripped ELF file, followed by the relocations that the boot stub applies).
///
/// The output never grows beyond [`crate::decompress::LIMIT`].
pub fn extract_vmlinux(bytes: &[u8], header: &SetupHeader) -> Result<Vec<u8>, DecompressError> {
    let payload = header
        .payload
        .and_then(|p| range(bytes, p))
        .ok_or(DecompressError::NoPayload { protocol: header.protocol })?;
    let compression = header.compression.ok_or_else(|| DecompressError::UnknownMethod {
        start: payload.iter().take(6).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "),
    })?;
    // scripts/Makefile.lib (`size_append`): the payload ends in the length of what is inside, 32 bits,
    // little endian. A gzip payload ends in the same number by its own format.
    let declared = payload.len().checked_sub(4).and_then(|at| u32_at(payload, at));
    decompress(compression, payload, declared.map(|d| d as usize))
}
