//! What kind of file is this, and would a loader take it?
//!
//! Looks at magic numbers and headers only, never at a file name. The main types are [`ImageKind`],
//! for what holds an x86-64 kernel, and [`Refusal`], which says what the file is instead and what to
//! hand over.

use std::io::Read;

use thiserror::Error;

use crate::bytes::{array_at, u16_at, u32_at, u64_at};
use crate::bzimage::SetupHeader;
use crate::elf::Elf;

/// A file that holds an x86-64 kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageKind {
    /// `arch/x86/boot/bzImage`, also known as `vmlinuz`.
    BzImage(SetupHeader),
    /// An uncompressed ELF `vmlinux`.
    Vmlinux(VmlinuxHeader),
}

/// What the ELF header and notes of a `vmlinux` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmlinuxHeader {
    /// The physical entry point of a PVH boot (`XEN_ELFNOTE_PHYS32_ENTRY`), when the kernel has one.
    /// QEMU's `-kernel` refuses an ELF kernel without it.
    pub pvh_entry: Option<u64>,
    /// GNU build-id, when there is one.
    pub build_id: Option<Vec<u8>>,
    /// The loadable segments have bytes in the file. False for a split debug file.
    pub has_code: bool,
}

impl ImageKind {
    /// Whether QEMU's `-kernel` would take it; the refusal says why not.
    pub fn loadable(&self) -> Result<(), Refusal> {
        match self {
            ImageKind::BzImage(header) if !header.loaded_high || !header.entry_64 => {
                Err(Refusal::BzImageNot64Bit { version: header.kernel_version.clone() })
            }
            ImageKind::BzImage(_) => Ok(()),
            ImageKind::Vmlinux(VmlinuxHeader { has_code: false, .. }) => Err(Refusal::DebugOnly),
            ImageKind::Vmlinux(VmlinuxHeader { pvh_entry: None, .. }) => Err(Refusal::NoPvhEntry),
            ImageKind::Vmlinux(_) => Ok(()),
        }
    }
}

/// Why a file is no x86-64 kernel, or none that a loader takes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No bytes at all.
    #[error("the file is empty; hand over a bzImage or an ELF vmlinux")]
    Empty,
    /// Readable text.
    #[error("this is a text file, not a kernel; hand over a bzImage or an ELF vmlinux")]
    Text,
    /// An ELF file for another processor.
    #[error(
        "this is an ELF file for {machine}, and only x86-64 kernels are booted here; build with ARCH=x86_64 and hand over arch/x86/boot/bzImage"
    )]
    OtherMachine {
        /// Name of the machine, or `machine N`.
        machine: String,
    },
    /// A 32-bit or big-endian ELF file.
    #[error(
        "this is a {bits}-bit {order}-endian ELF file, and only x86-64 kernels are booted here; hand over arch/x86/boot/bzImage of a 64-bit build"
    )]
    OtherElfClass {
        /// 32 or 64.
        bits: u8,
        /// `little` or `big`.
        order: &'static str,
    },
    /// An ELF file whose headers cannot be read.
    #[error("this ELF file is damaged: {why}; copy it again or rebuild it")]
    DamagedElf {
        /// What could not be read.
        why: String,
    },
    /// An ELF file that is no kernel.
    #[error("this is an ELF {what}, not a kernel; hand over a bzImage or an ELF vmlinux")]
    NotAKernelElf {
        /// `program`, `shared library`, `kernel module`, `object file`.
        what: &'static str,
    },
    /// A split debug file: sections without bytes.
    #[error(
        "this is a debug file without code, good for symbols only; hand over the kernel that it belongs to"
    )]
    DebugOnly,
    /// An ELF vmlinux without `CONFIG_PVH`.
    #[error(
        "this vmlinux has no PVH entry, so QEMU cannot start it; hand over arch/x86/boot/bzImage of the same build, or set CONFIG_PVH=y"
    )]
    NoPvhEntry,
    /// A flat arm64 `Image`.
    #[error(
        "this is an arm64 Image, and only x86-64 kernels are booted here; build with ARCH=x86_64 and hand over arch/x86/boot/bzImage"
    )]
    Arm64Image,
    /// A flat RISC-V `Image`.
    #[error(
        "this is a RISC-V Image, and only x86-64 kernels are booted here; build with ARCH=x86_64 and hand over arch/x86/boot/bzImage"
    )]
    RiscvImage,
    /// A flat LoongArch image.
    #[error(
        "this is a LoongArch image, and only x86-64 kernels are booted here; build with ARCH=x86_64 and hand over arch/x86/boot/bzImage"
    )]
    LoongArchImage,
    /// An EFI zboot image (`vmlinuz.efi`).
    #[error(
        "this is an EFI zboot image (payload compressed with {compression}), made for other processors than x86; hand over arch/x86/boot/bzImage"
    )]
    EfiZboot {
        /// Compression named in its header.
        compression: String,
    },
    /// A PE file without a Linux boot header.
    #[error(
        "this is an EFI program without a Linux boot header (a boot loader or a unified kernel image?); hand over the bzImage itself"
    )]
    OtherPe,
    /// A compressed file.
    #[error("this is a file compressed with {compression}{}; decompress it and hand over what is inside", inside.as_ref().map(|i| format!(" ({i} inside)")).unwrap_or_default())]
    Compressed {
        /// `gzip`, `xz`, ...
        compression: &'static str,
        /// What is inside, when its first bytes could be read and are known.
        inside: Option<String>,
    },
    /// Another known kind of file.
    #[error("this is {what}, not a kernel; {hint}")]
    OtherFile {
        /// With its article: `a cpio archive`.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A bzImage from the days before bzImage (a zImage) or without 64-bit entry.
    #[error("this bzImage{} has no 64-bit entry point, so it is a 32-bit or very old kernel; hand over a 64-bit build", version.as_ref().map(|v| format!(" ({v})")).unwrap_or_default())]
    BzImageNot64Bit {
        /// Version string of its header.
        version: Option<String>,
    },
    /// The file ends before what the setup header promises.
    #[error(
        "this bzImage is truncated: its header promises {expected} bytes and the file has {actual}; copy it again or rebuild it"
    )]
    TruncatedBzImage {
        /// Bytes that setup code, kernel and payload need.
        expected: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// The setup header contradicts itself.
    #[error("the setup header of this bzImage is damaged: {why}; copy it again or rebuild it")]
    DamagedBzImage {
        /// What is wrong.
        why: String,
    },
    /// Nothing known.
    #[error(
        "this is no kernel that is known here (it starts with {start}); hand over a bzImage or an ELF vmlinux"
    )]
    Unknown {
        /// The first bytes, in hex.
        start: String,
    },
}

/// Says what `bytes` (the whole file) is. `Ok` when it holds an x86-64 kernel; ask
/// [`ImageKind::loadable`] whether QEMU would boot it.
pub fn recognise(bytes: &[u8]) -> Result<ImageKind, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    if bytes.starts_with(b"\x7fELF") {
        return recognise_elf(bytes);
    }
    // "HdrS" is tested before "MZ": an x86 kernel with an EFI stub is a PE file too.
    if array_at(bytes, 0x202) == Some(*b"HdrS") {
        return SetupHeader::parse(bytes).map(ImageKind::BzImage);
    }
    Err(refuse(bytes))
}

fn recognise_elf(bytes: &[u8]) -> Result<ImageKind, Refusal> {
    // EI_CLASS and EI_DATA, then e_type and e_machine; the same places in ELF32 and ELF64.
    let (class, data) = match (bytes.get(4), bytes.get(5)) {
        (Some(&class), Some(&data)) => (class, data),
        _ => {
            return Err(Refusal::DamagedElf { why: "the file ends inside its header".into() });
        }
    };
    let machine = u16_at(bytes, 18)
        .map(|m| if data == 2 { m.swap_bytes() } else { m })
        .ok_or_else(|| Refusal::DamagedElf { why: "the file ends inside its header".into() })?;
    if machine != EM_X86_64 {
        return Err(Refusal::OtherMachine { machine: machine_name(machine) });
    }
    if class != 2 || data != 1 {
        let bits = if class == 1 { 32 } else { 64 };
        let order = if data == 2 { "big" } else { "little" };
        return Err(Refusal::OtherElfClass { bits, order });
    }
    let elf = Elf::parse(bytes).map_err(|e| Refusal::DamagedElf { why: e.to_string() })?;
    if elf.is_relocatable() {
        let what = if elf.section(".modinfo").is_some() { "kernel module" } else { "object file" };
        return Err(Refusal::NotAKernelElf { what });
    }
    if elf.segments().is_empty() {
        return Err(Refusal::DamagedElf { why: "it has no loadable segment".into() });
    }
    // The kernel is linked at or above the start of the upper half; a program never is.
    if !elf.segments().iter().any(|s| s.address >= 0xffff_8000_0000_0000) {
        let what = if elf.is_shared() { "shared library or program" } else { "program" };
        return Err(Refusal::NotAKernelElf { what });
    }
    Ok(ImageKind::Vmlinux(VmlinuxHeader {
        pvh_entry: elf.pvh_entry(),
        build_id: elf.build_id().map(<[u8]>::to_vec),
        has_code: elf.has_code(),
    }))
}

const EM_X86_64: u16 = 62;

/// e_machine values of the architectures that Linux has been built for (System V gABI registry).
fn machine_name(machine: u16) -> String {
    let name = match machine {
        2 | 43 => "SPARC",
        3 => "32-bit x86",
        4 => "m68k",
        8 => "MIPS",
        15 => "PA-RISC",
        20 => "32-bit PowerPC",
        21 => "PowerPC64",
        22 => "s390",
        40 => "32-bit ARM",
        42 => "SuperH",
        50 => "IA-64",
        94 => "Xtensa",
        164 => "Hexagon",
        183 => "arm64",
        189 => "MicroBlaze",
        195 => "ARC",
        243 => "RISC-V",
        247 => "BPF",
        252 => "C-SKY",
        258 => "LoongArch",
        other => return format!("machine {other}"),
    };
    name.to_string()
}

/// The magic numbers of flat images: Documentation/arch/arm64/booting.rst, arch/riscv/boot-image-header.rst,
/// arch/loongarch/booting.rst, drivers/firmware/efi/libstub/zboot-header.S.
fn refuse(bytes: &[u8]) -> Refusal {
    if array_at(bytes, 0x38) == Some(*b"ARM\x64") {
        return Refusal::Arm64Image;
    }
    if array_at(bytes, 0x38) == Some(*b"RSC\x05") || array_at(bytes, 0x30) == Some(*b"RISCV\0\0\0")
    {
        return Refusal::RiscvImage;
    }
    if bytes.starts_with(b"MZ") {
        if array_at(bytes, 4) == Some(*b"zimg") {
            let compression = crate::bytes::c_string_at(bytes.get(..64).unwrap_or(bytes), 0x18)
                .map(|s| String::from_utf8_lossy(s).into_owned())
                .filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic()))
                .unwrap_or_else(|| "an unnamed method".into());
            return Refusal::EfiZboot { compression };
        }
        // LINUX_PE_MAGIC, in all flat LoongArch kernels at 0x38.
        if u32_at(bytes, 0x38) == Some(0x8182_23cd) {
            return Refusal::LoongArchImage;
        }
        return Refusal::OtherPe;
    }
    if let Some(refusal) = refuse_container(bytes) {
        return refusal;
    }
    if let Some(compression) = crate::decompress::Compression::detect(bytes) {
        let inside =
            crate::decompress::peek(compression, bytes, 4096).and_then(|b| name_inside(&b));
        return Refusal::Compressed { compression: compression.name(), inside };
    }
    // A boot sector that promises a kernel but ends before the header: a bzImage cut very short.
    if u16_at(bytes, 0x1fe) == Some(0xaa55) && bytes.len() < 0x264 {
        return Refusal::TruncatedBzImage { expected: 0x264, actual: bytes.len() as u64 };
    }
    if looks_like_text(bytes) {
        return Refusal::Text;
    }
    let start = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    Refusal::Unknown { start }
}

fn refuse_container(bytes: &[u8]) -> Option<Refusal> {
    let file = |what, hint| Some(Refusal::OtherFile { what, hint });
    if bytes.starts_with(b"!<arch>\ndebian-binary") {
        return file(
            "a Debian package",
            "unpack it with `dpkg-deb -x` and hand over boot/vmlinuz-*",
        );
    }
    if bytes.starts_with(b"!<arch>\n") {
        return file("an archive of object files", "hand over a bzImage or an ELF vmlinux");
    }
    if bytes.starts_with(b"070701") || bytes.starts_with(b"070702") {
        return file(
            "a cpio archive (an initramfs?)",
            "hand it over as the initrd, and a bzImage as the kernel",
        );
    }
    if bytes.starts_with(b"QFI\xfb") {
        return file("a qcow2 disk image", "hand over the bzImage that is on it");
    }
    if bytes.starts_with(b"\x27\x05\x19\x56") {
        return file("a U-Boot uImage", "hand over arch/x86/boot/bzImage");
    }
    if bytes.starts_with(b"\xd0\x0d\xfe\xed") {
        return file("a device tree or FIT image", "hand over arch/x86/boot/bzImage");
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return file("a zip archive", "unpack it and hand over the bzImage");
    }
    if array_at(bytes, 0x101) == Some(*b"ustar") {
        return file("a tar archive", "unpack it and hand over the bzImage");
    }
    if u16_at(bytes, 0x1fe) == Some(0xaa55) && bytes.len() >= 0x264 {
        return file(
            "a boot sector or disk image without a Linux boot header",
            "hand over a bzImage",
        );
    }
    None
}

fn name_inside(start: &[u8]) -> Option<String> {
    if start.starts_with(b"\x7fELF") {
        let machine = u16_at(start, 18)?;
        let name = if machine == EM_X86_64 { "x86-64".into() } else { machine_name(machine) };
        return Some(format!("an ELF file for {name}"));
    }
    if array_at(start, 0x202) == Some(*b"HdrS") {
        return Some("a bzImage".into());
    }
    match refuse(start) {
        Refusal::Arm64Image => Some("an arm64 Image".into()),
        Refusal::RiscvImage => Some("a RISC-V Image".into()),
        Refusal::LoongArchImage => Some("a LoongArch image".into()),
        Refusal::OtherFile { what, .. } => Some(what.into()),
        Refusal::Text => Some("text".into()),
        _ => None,
    }
}

/// Biased towards "unknown": one NUL or a fifth of other control bytes in the first 4 KiB is no text.
fn looks_like_text(bytes: &[u8]) -> bool {
    let head = bytes.get(..4096).unwrap_or(bytes);
    if head.contains(&0) {
        return false;
    }
    let odd = head
        .iter()
        .filter(|&&b| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x1b)) || b == 0x7f)
        .count();
    let high = head.iter().filter(|&&b| b >= 0x80).count();
    odd * 5 < head.len() && (high * 5 < head.len() || std::str::from_utf8(head).is_ok())
}

/// Reads at most `limit` bytes; a read error ends the result early, which is what a peek wants.
pub(crate) fn read_up_to(reader: impl Read, limit: u64) -> Vec<u8> {
    let mut out = Vec::new();
    // The error is dropped on purpose: what came before it is still worth naming.
    let _ = reader.take(limit).read_to_end(&mut out);
    out
}

/// The 64-bit PVH note descriptor may be 4 or 8 bytes long.
pub(crate) fn note_address(desc: &[u8]) -> Option<u64> {
    u64_at(desc, 0).or_else(|| u32_at(desc, 0).map(u64::from))
}
