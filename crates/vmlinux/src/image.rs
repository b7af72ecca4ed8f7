//! One loadable image at addresses: a vmlinux as it is linked, or a module as if it were loaded.
//!
//! What reads code and tables works on an [`Image`] and need not know which of the two it has. The
//! addresses of a vmlinux are link addresses; those of a module start where the caller says.

use std::borrow::Cow;

use crate::Gap;
use crate::elf::Elf;
use crate::symbols::SymbolTable;

/// One section of an image, at its address, with its final bytes.
#[derive(Debug, Clone)]
pub struct ImageSection<'d> {
    /// Its name; several sections of a module may share one.
    pub name: &'d str,
    /// Index in the ELF file.
    pub index: usize,
    /// Address of the first byte.
    pub address: u64,
    /// Size in memory; more than `data` holds for `.bss`.
    pub size: u64,
    /// The section holds code.
    pub code: bool,
    /// The section may be written to.
    pub writable: bool,
    /// Its bytes, relocated.
    pub data: Cow<'d, [u8]>,
}

impl ImageSection<'_> {
    /// Whether `address` lies inside.
    pub fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|o| o < self.size)
    }
}

/// Bytes at an address: a table that is about to be read.
#[derive(Debug, Clone, Copy)]
pub struct TableBytes<'a> {
    /// Address of the first byte.
    pub address: u64,
    /// The bytes.
    pub data: &'a [u8],
}

/// Sections, symbols and gaps of one image.
#[derive(Debug, Clone)]
pub struct Image<'d> {
    /// By address; overlapping ones in the order of the file.
    sections: Vec<ImageSection<'d>>,
    symbols: SymbolTable,
    gaps: Vec<Gap>,
}

impl<'d> Image<'d> {
    /// A linked kernel. `symbols` may come from elsewhere ([`crate::Kernel::symbols`]).
    pub fn of_vmlinux(elf: &Elf<'d>, symbols: SymbolTable) -> Image<'d> {
        let sections = elf.sections().iter().filter(|s| s.is_loaded() && s.size > 0);
        let mut sections: Vec<_> = sections
            .map(|s| ImageSection {
                name: s.name,
                index: s.index,
                address: s.address,
                size: s.size,
                code: s.is_code(),
                writable: s.is_writable(),
                data: Cow::Borrowed(s.data.unwrap_or_default()),
            })
            .collect();
        // Without section headers the segments still say where the code is.
        if sections.is_empty() {
            sections = elf
                .segments()
                .iter()
                .enumerate()
                .map(|(index, s)| ImageSection {
                    name: if s.executable { "code segment" } else { "data segment" },
                    index,
                    address: s.address,
                    size: s.size,
                    code: s.executable,
                    writable: !s.executable,
                    data: Cow::Borrowed(s.data),
                })
                .collect();
        }
        Image::new(sections, symbols, elf.gaps().to_vec())
    }

    pub(crate) fn new(
        mut sections: Vec<ImageSection<'d>>,
        symbols: SymbolTable,
        gaps: Vec<Gap>,
    ) -> Image<'d> {
        sections.sort_by_key(|s| s.address);
        Image { sections, symbols, gaps }
    }

    /// The loaded sections, by address.
    pub fn sections(&self) -> &[ImageSection<'d>] {
        &self.sections
    }

    /// The first loaded section called `name`.
    pub fn section(&self, name: &str) -> Option<&ImageSection<'d>> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The loaded section that holds `address`.
    pub fn section_of(&self, address: u64) -> Option<&ImageSection<'d>> {
        // Sections of a sound file do not overlap; a few are looked at in case they do.
        let after = self.sections.partition_point(|s| s.address <= address);
        self.sections.get(..after)?.iter().rev().take(8).find(|s| s.contains(address))
    }

    /// Whether `address` lies in a section with code.
    pub fn is_code(&self, address: u64) -> bool {
        self.section_of(address).is_some_and(|s| s.code)
    }

    /// The bytes from `address` to the end of its section.
    pub fn bytes_from(&self, address: u64) -> Option<&[u8]> {
        let section = self.section_of(address)?;
        section.data.get(usize::try_from(address - section.address).ok()?..)
    }

    /// `length` bytes at `address`.
    pub fn bytes_at(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.bytes_from(address)?.get(..length)
    }

    /// Its symbols, at the addresses of this image.
    pub fn symbols(&self) -> &SymbolTable {
        &self.symbols
    }

    /// What could not be read.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The table in the section called `section`, or else between the two symbols that the linker
    /// script puts around it inside a larger section.
    pub fn table(&self, section: &str, bounds: (&str, &str)) -> Option<TableBytes<'_>> {
        if let Some(section) = self.section(section) {
            return Some(TableBytes { address: section.address, data: &section.data });
        }
        let start = self.symbols.address_of(bounds.0)?;
        let length = self.symbols.address_of(bounds.1)?.checked_sub(start)?;
        if length == 0 {
            return Some(TableBytes { address: start, data: &[] });
        }
        let data = self.bytes_at(start, usize::try_from(length).ok()?)?;
        Some(TableBytes { address: start, data })
    }
}
