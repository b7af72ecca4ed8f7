//! An ELF64 little-endian file: sections, loadable segments, notes, symbols and relocations.
//!
//! Reads headers only and borrows everything else, so that a file of many hundred MB behind a mapping
//! costs nothing until a section is asked for. A damaged part is left out and becomes a [`Gap`]. The
//! main type is [`Elf`].

use thiserror::Error;

use crate::Gap;
use crate::bytes::{c_string_at, u16_at, u32_at, u64_at};

/// Why a file is no ELF64 file at all.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The magic number, class or byte order is another one.
    #[error("not a 64-bit little-endian ELF file")]
    OtherFormat,
    /// The file ends inside the ELF header.
    #[error("the file ends inside its ELF header")]
    Truncated,
}

/// One section. `data` is `None` for a section without bytes in the file, or whose bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'d> {
    /// Its name; empty when the name cannot be read.
    pub name: &'d str,
    /// Index in the section table.
    pub index: usize,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Address it is linked at; 0 in a relocatable file.
    pub address: u64,
    /// Bytes in memory.
    pub size: u64,
    /// `sh_link`.
    pub link: u32,
    /// `sh_info`.
    pub info: u32,
    /// `sh_addralign`.
    pub align: u64,
    /// Its bytes.
    pub data: Option<&'d [u8]>,
}

impl Section<'_> {
    /// The section holds code (`SHF_EXECINSTR`).
    pub fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }

    /// The section is part of the running kernel (`SHF_ALLOC`).
    pub fn is_loaded(&self) -> bool {
        self.flags & SHF_ALLOC != 0
    }

    /// The section may be written to (`SHF_WRITE`).
    pub fn is_writable(&self) -> bool {
        self.flags & SHF_WRITE != 0
    }

    /// Whether `address` lies inside, for a linked file.
    pub fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|o| o < self.size)
    }
}

/// One loadable segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'d> {
    /// Virtual address of its first byte.
    pub address: u64,
    /// Physical address of its first byte.
    pub physical: u64,
    /// Bytes in memory; those behind `data` are zero.
    pub size: u64,
    /// Its bytes in the file, as many as there are.
    pub data: &'d [u8],
    /// The segment is executable.
    pub executable: bool,
}

/// One entry of a symbol table, as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElfSymbol<'d> {
    /// Its name; empty when there is none.
    pub name: &'d [u8],
    /// Address, or offset in its section in a relocatable file.
    pub value: u64,
    /// Size in bytes as the assembler gave it; 0 when it gave none.
    pub size: u64,
    /// Section index; `SHN_UNDEF` (0) and `SHN_ABS` (0xfff1) keep their meaning.
    pub section: u32,
    /// `STT_*`: 0 none, 1 object, 2 function, 3 section, 4 file.
    pub kind: u8,
    /// `STB_*`: 0 local, 1 global, 2 weak.
    pub binding: u8,
    /// Index in the table.
    pub index: u32,
}

impl ElfSymbol<'_> {
    /// The symbol stands for a section or a source file and names no code or data.
    pub fn is_section_or_file(&self) -> bool {
        const STT_SECTION: u8 = 3;
        const STT_FILE: u8 = 4;
        matches!(self.kind, STT_SECTION | STT_FILE)
    }
}

/// One relocation with addend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Offset in the section in a relocatable file; an address in a linked one (`--emit-relocs`).
    pub offset: u64,
    /// `R_X86_64_*`.
    pub kind: u32,
    /// Index into the symbol table.
    pub symbol: u32,
    /// The constant to add.
    pub addend: i64,
}

/// One note of a note section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'d> {
    /// Owner, without its NUL: `GNU`, `Xen`, `Linux`.
    pub owner: &'d [u8],
    /// Type, whose meaning the owner defines.
    pub kind: u32,
    /// What it says.
    pub desc: &'d [u8],
}

const SHF_WRITE: u64 = 1 << 0;
const SHF_ALLOC: u64 = 1 << 1;
const SHF_EXECINSTR: u64 = 1 << 2;
const SHT_SYMTAB: u32 = 2;
const SHT_RELA: u32 = 4;
const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const ET_REL: u16 = 1;
const ET_DYN: u16 = 3;
/// include/xen/interface/elfnote.h
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const NT_GNU_BUILD_ID: u32 = 3;

/// A parsed ELF file. Cheap to make; borrows the bytes.
#[derive(Debug, Clone)]
pub struct Elf<'d> {
    bytes: &'d [u8],
    kind: u16,
    entry: u64,
    sections: Vec<Section<'d>>,
    segments: Vec<Segment<'d>>,
    notes: Vec<&'d [u8]>,
    gaps: Vec<Gap>,
}

impl<'d> Elf<'d> {
    /// Reads the headers of `bytes`. Fails only when this is no ELF64 file; see [`Elf::gaps`].
    pub fn parse(bytes: &'d [u8]) -> Result<Elf<'d>, ElfError> {
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(ElfError::OtherFormat);
        }
        if bytes.len() < 64 {
            return Err(ElfError::Truncated);
        }
        let mut elf = Elf {
            bytes,
            kind: u16_at(bytes, 16).unwrap_or(0),
            entry: u64_at(bytes, 24).unwrap_or(0),
            sections: Vec::new(),
            segments: Vec::new(),
            notes: Vec::new(),
            gaps: Vec::new(),
        };
        elf.read_segments();
        elf.read_sections();
        Ok(elf)
    }

    fn read_segments(&mut self) {
        let bytes = self.bytes;
        let table = u64_at(bytes, 32).unwrap_or(0);
        let (size, count) = (u16_at(bytes, 54).unwrap_or(0), u16_at(bytes, 56).unwrap_or(0));
        if count > 0 && size < 56 {
            self.gaps.push(Gap::at("program headers", table, "their size is impossible"));
            return;
        }
        for i in 0..u64::from(count) {
            let at = table.saturating_add(i * u64::from(size));
            let Some(header) = sub(bytes, at, 56) else {
                self.gaps.push(Gap::at("program headers", at, "they run past the end of the file"));
                return;
            };
            let field = |at| u64_at(header, at).unwrap_or(0);
            let (offset, file_size) = (field(8), field(32));
            let data = clipped(bytes, offset, file_size);
            if (data.len() as u64) < file_size {
                self.gaps.push(Gap::at(
                    format!("segment {i}"),
                    offset,
                    format!("{} of {file_size} bytes are in the file", data.len()),
                ));
            }
            match u32_at(header, 0) {
                Some(PT_LOAD) => self.segments.push(Segment {
                    address: field(16),
                    physical: field(24),
                    size: field(40),
                    data,
                    executable: u32_at(header, 4).unwrap_or(0) & 1 != 0,
                }),
                Some(PT_NOTE) => self.notes.push(data),
                _ => {}
            }
        }
    }

    fn read_sections(&mut self) {
        let bytes = self.bytes;
        let table = u64_at(bytes, 40).unwrap_or(0);
        let (size, count) = (u16_at(bytes, 58).unwrap_or(0), u16_at(bytes, 60).unwrap_or(0));
        let names_index = u16_at(bytes, 62).unwrap_or(0);
        if table == 0 {
            return;
        }
        if size < 64 {
            self.gaps.push(Gap::at("section headers", table, "their size is impossible"));
            return;
        }
        let header_at =
            |i: u64| sub(bytes, table.checked_add(i.checked_mul(u64::from(size))?)?, 64);
        // gABI: with 0xff00 sections or more, e_shnum is 0 and the first header holds the count; the
        // same goes for the index of the name table (SHN_XINDEX).
        let first = header_at(0);
        let count = match count {
            0 => first.and_then(|h| u64_at(h, 32)).unwrap_or(0),
            n => u64::from(n),
        };
        let names_index = match names_index {
            0xffff => first.and_then(|h| u32_at(h, 40)).unwrap_or(0),
            n => u32::from(n),
        };
        let names = header_at(u64::from(names_index))
            .map(|h| clipped(bytes, u64_at(h, 24).unwrap_or(0), u64_at(h, 32).unwrap_or(0)))
            .unwrap_or_default();
        if names.is_empty() {
            self.gaps.push(Gap::new("section names", "the table of names is missing"));
        }
        for i in 0..count {
            let Some(header) = header_at(i) else {
                self.gaps.push(Gap::at(
                    "section headers",
                    table,
                    format!("{i} of {count} are in the file"),
                ));
                return;
            };
            self.sections.push(section(bytes, header, names, i as usize));
            let Some(s) = self.sections.last() else {
                return;
            };
            if s.kind != SHT_NOBITS && s.data.is_none() && s.size > 0 {
                let (name, offset) = (s.name.to_string(), u64_at(header, 24).unwrap_or(0));
                self.gaps.push(Gap::at(name, offset, "its bytes run past the end of the file"));
            }
        }
    }

    /// A file without anything in it.
    pub(crate) fn empty() -> Elf<'static> {
        Elf {
            bytes: &[],
            kind: 0,
            entry: 0,
            sections: Vec::new(),
            segments: Vec::new(),
            notes: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// What could not be read, in the order of the file.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The whole file.
    pub fn bytes(&self) -> &'d [u8] {
        self.bytes
    }

    /// `ET_REL`: a module or an object file, whose addresses are offsets in sections.
    pub fn is_relocatable(&self) -> bool {
        self.kind == ET_REL
    }

    /// `ET_DYN`.
    pub fn is_shared(&self) -> bool {
        self.kind == ET_DYN
    }

    /// `e_entry`.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// All sections, the null section at index 0 included.
    pub fn sections(&self) -> &[Section<'d>] {
        &self.sections
    }

    /// The first section called `name`.
    pub fn section(&self, name: &str) -> Option<&Section<'d>> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The bytes of the section called `name`.
    pub fn section_data(&self, name: &str) -> Option<&'d [u8]> {
        self.section(name)?.data
    }

    /// The loaded section of a linked file that holds `address`. The per-CPU section, which older
    /// kernels link at 0, is left out unless nothing else fits.
    pub fn section_of(&self, address: u64) -> Option<&Section<'d>> {
        self.sections.iter().find(|s| s.is_loaded() && s.size > 0 && s.contains(address))
    }

    /// The loadable segments.
    pub fn segments(&self) -> &[Segment<'d>] {
        &self.segments
    }

    /// At least one loadable segment has bytes in the file.
    pub fn has_code(&self) -> bool {
        if self.sections.iter().any(Section::is_code) {
            return self
                .sections
                .iter()
                .any(|s| s.is_code() && s.data.is_some_and(|d| !d.is_empty()));
        }
        self.segments.iter().any(|s| s.executable && !s.data.is_empty())
    }

    /// The bytes from the linked address `address` to the end of what the file holds contiguously.
    pub fn bytes_from(&self, address: u64) -> Option<&'d [u8]> {
        let tail = |start: u64, data: &'d [u8]| {
            let offset = usize::try_from(address.checked_sub(start)?).ok()?;
            data.get(offset..).filter(|rest| !rest.is_empty())
        };
        if self.segments.is_empty() {
            return self
                .sections
                .iter()
                .filter(|s| s.is_loaded())
                .find_map(|s| tail(s.address, s.data?));
        }
        self.segments.iter().find_map(|s| tail(s.address, s.data))
    }

    /// `length` bytes at the linked address `address`.
    pub fn bytes_at(&self, address: u64, length: usize) -> Option<&'d [u8]> {
        self.bytes_from(address)?.get(..length)
    }

    /// The notes of all note segments, or of all note sections when there is no such segment.
    pub fn notes(&self) -> impl Iterator<Item = Note<'d>> + '_ {
        let sections = self.sections.iter().filter(|s| s.kind == SHT_NOTE).filter_map(|s| s.data);
        let sections = sections.filter(|_| self.notes.is_empty());
        self.notes.iter().copied().chain(sections).flat_map(|data| Notes { data })
    }

    /// The GNU build-id.
    pub fn build_id(&self) -> Option<&'d [u8]> {
        self.notes()
            .find(|n| n.owner == b"GNU" && n.kind == NT_GNU_BUILD_ID && !n.desc.is_empty())
            .map(|n| n.desc)
    }

    /// The physical entry point of a PVH boot.
    pub fn pvh_entry(&self) -> Option<u64> {
        let note =
            self.notes().find(|n| n.owner == b"Xen" && n.kind == XEN_ELFNOTE_PHYS32_ENTRY)?;
        crate::recognise::note_address(note.desc)
    }

    /// The entries of `.symtab`, the null entry left out. Empty in a stripped file.
    pub fn symbols(&self) -> impl Iterator<Item = ElfSymbol<'d>> + '_ {
        let table = self.sections.iter().find(|s| s.kind == SHT_SYMTAB);
        let strings =
            table.and_then(|t| self.sections.get(t.link as usize)?.data).unwrap_or_default();
        let wide = table.and_then(|t| self.wide_indices(t.index));
        let data = table.and_then(|t| t.data).unwrap_or_default();
        data.chunks_exact(24).enumerate().skip(1).filter_map(move |(i, entry)| {
            let info = *entry.get(4)?;
            // SHN_XINDEX: the real index stands in SHT_SYMTAB_SHNDX.
            let section = match u16_at(entry, 6)? {
                0xffff => wide.and_then(|w| u32_at(w, i * 4)).unwrap_or(0),
                n => u32::from(n),
            };
            Some(ElfSymbol {
                name: c_string_at(strings, u32_at(entry, 0)? as usize).unwrap_or_default(),
                value: u64_at(entry, 8)?,
                size: u64_at(entry, 16)?,
                section,
                kind: info & 0xf,
                binding: info >> 4,
                index: i as u32,
            })
        })
    }

    fn wide_indices(&self, symtab: usize) -> Option<&'d [u8]> {
        const SHT_SYMTAB_SHNDX: u32 = 18;
        self.sections.iter().find(|s| s.kind == SHT_SYMTAB_SHNDX && s.link as usize == symtab)?.data
    }

    /// All relocation tables: those of a module, or those that a vmlinux linked with `--emit-relocs`
    /// keeps.
    pub fn relocation_tables(&self) -> impl Iterator<Item = RelocationTable<'d>> + '_ {
        self.sections
            .iter()
            .filter(|s| s.kind == SHT_RELA)
            .filter_map(|s| Some(RelocationTable { target: s.info as usize, data: s.data? }))
    }

    /// The relocations that apply to the section with index `section`.
    pub fn relocations(&self, section: usize) -> impl Iterator<Item = Relocation> + '_ {
        self.relocation_tables().filter(move |t| t.target == section).flat_map(|t| t.relocations())
    }
}

/// The relocations of one section.
#[derive(Debug, Clone, Copy)]
pub struct RelocationTable<'d> {
    /// Index of the section that they apply to.
    pub target: usize,
    data: &'d [u8],
}

impl<'d> RelocationTable<'d> {
    /// The relocations in the order of the file.
    pub fn relocations(&self) -> impl Iterator<Item = Relocation> + use<'d> {
        self.data.chunks_exact(24).filter_map(|entry| {
            Some(Relocation {
                offset: u64_at(entry, 0)?,
                kind: u32_at(entry, 8)?,
                symbol: u32_at(entry, 12)?,
                addend: u64_at(entry, 16)? as i64,
            })
        })
    }
}

fn section<'d>(bytes: &'d [u8], header: &[u8], names: &'d [u8], index: usize) -> Section<'d> {
    let (word, long) = (|at| u32_at(header, at).unwrap_or(0), |at| u64_at(header, at).unwrap_or(0));
    let name = c_string_at(names, word(0) as usize).unwrap_or_default();
    let kind = word(4);
    let data = if kind == SHT_NOBITS || kind == 0 { None } else { sub(bytes, long(24), long(32)) };
    Section {
        name: std::str::from_utf8(name).unwrap_or_default(),
        index,
        kind,
        flags: long(8),
        address: long(16),
        size: long(32),
        link: word(40),
        info: word(44),
        align: long(48),
        data,
    }
}

fn sub(bytes: &[u8], at: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// As [`sub`], cut at the end of the file.
fn clipped(bytes: &[u8], at: u64, length: u64) -> &[u8] {
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    usize::try_from(length).ok().and_then(|n| rest.get(..n)).unwrap_or(rest)
}

struct Notes<'d> {
    data: &'d [u8],
}

impl<'d> Iterator for Notes<'d> {
    type Item = Note<'d>;

    fn next(&mut self) -> Option<Note<'d>> {
        let data = self.data;
        let name_size = u32_at(data, 0)? as usize;
        let desc_size = u32_at(data, 4)? as usize;
        let kind = u32_at(data, 8)?;
        let name = data.get(12..12usize.checked_add(name_size)?)?;
        // The kernel aligns both to four bytes (include/linux/elfnote.h).
        let desc_at = 12 + name_size.checked_next_multiple_of(4)?;
        let desc = data.get(desc_at..desc_at.checked_add(desc_size)?)?;
        let next = desc_at.checked_add(desc_size.checked_next_multiple_of(4)?)?;
        self.data = data.get(next..).unwrap_or_default();
        let owner = name.strip_suffix(b"\0").unwrap_or(name);
        Some(Note { owner, kind, desc })
    }
}
