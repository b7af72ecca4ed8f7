//! Kernel, command line and initramfs into the guest's memory, and where the first CPU starts.
//!
//! Decides the layout of low memory and which boot protocol is used: PVH for an ELF kernel
//! (xen/include/public/arch-x86/hvm/start_info.h), the 32-bit protocol for a bzImage
//! (Documentation/arch/x86/boot.rst). Both enter in flat 32-bit mode, so that one set of registers
//! does for both. Main type: [`Start`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use crate::mptable;

/// Where a kernel begins.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;
/// Memory that the kernel may use below [`HIGH_MEMORY`]: what ends where the MP table begins.
const LOW_MEMORY_END: u64 = mptable::ADDRESS;
/// Descriptors for the flat segments.
pub(crate) const GDT: u64 = 0x500;
/// `hvm_start_info`, or the zero page of a bzImage.
const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x7000;
const MEMORY_MAP: u64 = 0x7100;
/// The kernel's command line.
const COMMAND_LINE: u64 = 0x2_0000;
/// `COMMAND_LINE_SIZE` of x86 (arch/x86/include/asm/setup.h), the final NUL included.
const COMMAND_LINE_SIZE: usize = 2048;
/// Device memory begins here (the local and the I/O APIC and what lies below), so memory may not.
pub(crate) const MOST_MEMORY: u64 = 0xc000_0000;
/// The least that can hold a kernel.
pub(crate) const LEAST_MEMORY: u64 = 16 << 20;
/// `initrd_addr_max` where the kernel does not say (boot protocol 2.02 and older).
const INITRD_MAX: u64 = 0x37ff_ffff;
const PAGE: u64 = 4096;

/// Flat code and data segments at selectors 0x10 and 0x18, where the 32-bit boot protocol wants them
/// (`__BOOT_CS`, `__BOOT_DS` in arch/x86/include/asm/segment.h).
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Why a guest's memory cannot be filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read the {role} {path}")]
    File {
        /// `kernel` or `initramfs`.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The kernel is none that is booted here.
    #[error("cannot load {path}: {reason}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Something does not fit.
    #[error("the {what} does not fit into the guest: {size} bytes, room for {room}")]
    Room {
        /// What.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// Bytes that there are.
        room: u64,
    },
    /// The memory refused a write.
    #[error("cannot write the {what} into the guest's memory: {reason}")]
    Memory {
        /// What was written.
        what: &'static str,
        /// What the memory said.
        reason: String,
    },
}

/// How the first CPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Its instruction pointer.
    pub(crate) entry: u64,
    /// RBX for PVH, RSI for a bzImage: the address of what describes the machine.
    pub(crate) info: u64,
    /// `pvh` or `bzimage`.
    pub(crate) protocol: &'static str,
}

/// What goes into the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: Option<&'a Path>,
    pub(crate) command_line: &'a str,
    /// Size of the guest's memory, one piece from address 0.
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
}

/// Fills `memory` for a boot.
pub(crate) fn load(memory: &GuestMemoryMmap, inputs: Inputs<'_>) -> Result<Start, LoadError> {
    let refused = |reason: String| LoadError::Kernel { path: inputs.kernel.to_owned(), reason };
    let unreadable =
        |source| LoadError::File { role: "kernel", path: inputs.kernel.to_owned(), source };
    let mut file = File::open(inputs.kernel).map_err(unreadable)?;
    let mut magic = [0u8; 4];
    file.read_exact(&mut magic).map_err(unreadable)?;
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;

    put(memory, "descriptors", GDT, &DESCRIPTORS.map(u64::to_le_bytes).concat())?;
    put(memory, "MP table", mptable::ADDRESS, &mptable::build(inputs.cpus))?;
    put_command_line(memory, inputs.command_line)?;
    let high = Some(GuestAddress(HIGH_MEMORY));
    if magic == *b"\x7fELF" {
        let loaded = Elf::load(memory, None, &mut file, high)
            .map_err(|e| refused(format!("{e}; is it a vmlinux, and is the memory enough?")))?;
        let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
            return Err(refused(
                "it has no PVH entry; hand over the bzImage, or set CONFIG_PVH=y".to_owned(),
            ));
        };
        let initrd = put_initrd(memory, inputs, loaded.kernel_end, INITRD_MAX)?;
        put_start_info(memory, inputs.memory, initrd)?;
        return Ok(Start { entry: entry.0, info: START_INFO, protocol: "pvh" });
    }
    let loaded = BzImage::load(memory, None, &mut file, high)
        .map_err(|e| refused(format!("{e}; hand over an ELF vmlinux or a bzImage")))?;
    let header =
        loaded.setup_header.ok_or_else(|| refused("its setup header cannot be read".to_owned()))?;
    // Where the kernel unpacks itself lies within init_size behind its preferred address (boot
    // protocol 2.10); older ones say neither and need less.
    let (preferred, size) = match header.version {
        0x20a.. => (header.pref_address, u64::from(header.init_size)),
        _ => (HIGH_MEMORY, 0),
    };
    let end = loaded.kernel_end.max(preferred.saturating_add(size));
    let limit = match header.version {
        0x203.. => u64::from(header.initrd_addr_max),
        _ => INITRD_MAX,
    };
    let initrd = put_initrd(memory, inputs, end, limit)?;
    put_zero_page(memory, inputs.memory, header, initrd)?;
    Ok(Start { entry: loaded.kernel_load.0, info: START_INFO, protocol: "bzimage" })
}

fn put(
    memory: &GuestMemoryMmap,
    what: &'static str,
    address: u64,
    bytes: &[u8],
) -> Result<(), LoadError> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|e| LoadError::Memory { what, reason: e.to_string() })
}

fn put_command_line(memory: &GuestMemoryMmap, line: &str) -> Result<(), LoadError> {
    let room = COMMAND_LINE_SIZE as u64;
    let size = line.len() as u64 + 1;
    if size > room {
        return Err(LoadError::Room { what: "command line", size, room });
    }
    put(memory, "command line", COMMAND_LINE, &[line.as_bytes(), b"\0"].concat())
}

/// Puts the initramfs as high as it may be, behind the kernel's end. Returns address and size.
fn put_initrd(
    memory: &GuestMemoryMmap,
    inputs: Inputs<'_>,
    kernel_end: u64,
    limit: u64,
) -> Result<Option<(u64, u64)>, LoadError> {
    let Some(path) = inputs.initrd else { return Ok(None) };
    let unreadable = |source| LoadError::File { role: "initramfs", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let end = inputs.memory.min(limit.saturating_add(1));
    let room = end.saturating_sub(kernel_end);
    let address = end.checked_sub(size).map(|a| a & !(PAGE - 1)).filter(|&a| a >= kernel_end);
    let Some(address) = address else {
        return Err(LoadError::Room { what: "initramfs", size, room });
    };
    let length =
        usize::try_from(size).map_err(|_| LoadError::Room { what: "initramfs", size, room })?;
    memory
        .read_exact_volatile_from(GuestAddress(address), &mut file, length)
        .map_err(|e| LoadError::Memory { what: "initramfs", reason: e.to_string() })?;
    Ok(Some((address, size)))
}

/// The pieces of memory that the kernel may use: address and size.
fn usable(memory: u64) -> [(u64, u64); 2] {
    [(0, LOW_MEMORY_END), (HIGH_MEMORY, memory - HIGH_MEMORY)]
}

fn put_start_info(
    memory: &GuestMemoryMmap,
    size: u64,
    initrd: Option<(u64, u64)>,
) -> Result<(), LoadError> {
    const MAGIC: u32 = 0x336e_c578;
    /// `E820_TYPE_RAM`, arch/x86/include/asm/e820/types.h.
    const RAM: u32 = 1;
    let pieces = usable(size);
    for (index, (addr, size)) in pieces.into_iter().enumerate() {
        let entry = hvm_memmap_table_entry { addr, size, type_: RAM, reserved: 0 };
        let at = MEMORY_MAP + (index * size_of::<hvm_memmap_table_entry>()) as u64;
        put(memory, "memory map", at, entry.as_slice())?;
    }
    if let Some((paddr, size)) = initrd {
        let module = hvm_modlist_entry { paddr, size, ..Default::default() };
        put(memory, "list of modules", MODULES, module.as_slice())?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: MODULES,
        cmdline_paddr: COMMAND_LINE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: pieces.len() as u32,
        ..Default::default()
    };
    put(memory, "start info", START_INFO, info.as_slice())
}

fn put_zero_page(
    memory: &GuestMemoryMmap,
    size: u64,
    header: setup_header,
    initrd: Option<(u64, u64)>,
) -> Result<(), LoadError> {
    const RAM: u32 = 1;
    /// "Undefined" boot loader, Documentation/arch/x86/boot.rst.
    const LOADER: u8 = 0xff;
    let mut page = boot_params { hdr: header, ..Default::default() };
    page.hdr.type_of_loader = LOADER;
    page.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    if let Some((address, size)) = initrd {
        // Both lie below MOST_MEMORY.
        page.hdr.ramdisk_image = address as u32;
        page.hdr.ramdisk_size = size as u32;
    }
    let pieces = usable(size);
    for (entry, (addr, size)) in page.e820_table.iter_mut().zip(pieces) {
        *entry = boot_e820_entry { addr, size, r#type: RAM };
    }
    page.e820_entries = pieces.len() as u8;
    put(memory, "zero page", START_INFO, page.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap()
    }

    fn inputs<'a>(kernel: &'a Path, initrd: Option<&'a Path>, line: &'a str) -> Inputs<'a> {
        Inputs { kernel, initrd, command_line: line, memory: 32 << 20, cpus: 2 }
    }

    /// An ELF file with one segment at 1 MiB and, where asked for, the note of a PVH entry there.
    fn elf(pvh: bool) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [4u32, 4, 18] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note.extend_from_slice(b"Xen\0");
        note.extend_from_slice(&0x10_0000u32.to_le_bytes());
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        let half = |file: &mut Vec<u8>, values: &[u16]| {
            values.iter().for_each(|v| file.extend_from_slice(&v.to_le_bytes()));
        };
        let long = |file: &mut Vec<u8>, values: &[u64]| {
            values.iter().for_each(|v| file.extend_from_slice(&v.to_le_bytes()));
        };
        half(&mut file, &[2, 62]);
        file.extend_from_slice(&1u32.to_le_bytes());
        long(&mut file, &[0x10_0000, 64, 0]);
        file.extend_from_slice(&0u32.to_le_bytes());
        half(&mut file, &[64, 56, 2, 0, 0, 0]);
        let body = 64 + 2 * 56;
        for (kind, offset, size) in [(1u32, body, 4u64), (if pvh { 4 } else { 0 }, body + 4, 24)] {
            file.extend_from_slice(&kind.to_le_bytes());
            file.extend_from_slice(&5u32.to_le_bytes());
            let address = if kind == 1 { 0x10_0000 } else { 0 };
            long(&mut file, &[offset as u64, address, address, size, size, 4]);
        }
        file.extend_from_slice(b"\xf4\xf4\xf4\xf4");
        file.extend_from_slice(&note);
        file
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn an_elf_kernel_enters_by_pvh() {
        let (kernel, initrd) = (file(&elf(true)), file(&[7u8; 5000]));
        let memory = memory();
        let start = load(&memory, inputs(kernel.path(), Some(initrd.path()), "quiet")).unwrap();
        assert_eq!((start.entry, start.protocol), (0x10_0000, "pvh"));
        let info: hvm_start_info = memory.read_obj(GuestAddress(start.info)).unwrap();
        assert_eq!((info.magic, info.nr_modules, info.memmap_entries), (0x336e_c578, 1, 2));
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr % PAGE, module.size), (0, 5000));
        assert_eq!(memory.read_obj::<u8>(GuestAddress(module.paddr + 4999)).unwrap(), 7);
        let mut line = [0u8; 6];
        memory.read_slice(&mut line, GuestAddress(info.cmdline_paddr)).unwrap();
        assert_eq!(&line, b"quiet\0");
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(mptable::ADDRESS)).unwrap(), *b"_MP_");
    }

    #[test]
    fn what_cannot_be_booted_is_refused_in_words() {
        let refused = |bytes: &[u8], line: &str, initrd: Option<&Path>| {
            let kernel = file(bytes);
            load(&memory(), inputs(kernel.path(), initrd, line)).unwrap_err().to_string()
        };
        assert!(refused(&elf(false), "", None).contains("CONFIG_PVH"));
        assert!(refused(&[0; 8192], "", None).contains("hand over"));
        assert!(refused(&elf(true)[..100], "", None).contains("is it a vmlinux"));
        assert!(refused(&elf(true), &"x".repeat(2048), None).contains("room for 2048"));
        let large = file(&[]);
        large.as_file().set_len(64 << 20).unwrap();
        assert!(refused(&elf(true), "", Some(large.path())).contains("does not fit"));
        let gone = load(&memory(), inputs(Path::new("/nowhere"), None, "")).unwrap_err();
        assert!(gone.to_string().contains("/nowhere"));
    }
}
