//! One address space made of a vmlinux, modules and objects.
//!
//! Linked files keep their addresses. Relocatable files are laid out behind each other where the kernel puts modules, and
//! their relocations are applied; names that they do not define are looked up in the files given before them, and what is
//! found nowhere gets an address of its own without code. Main types: [`Image`], [`Input`].

use std::borrow::Cow;
use std::collections::HashMap;

use kolumbo_vmlinux::Elf;
use kolumbo_vmlinux::elf::{ElfError, Section};

/// Where the kernel maps modules (`MODULES_VADDR` in arch/x86/include/asm/pgtable_64_types.h, since v2.6.25).
const MODULES_BASE: u64 = 0xffff_ffff_c000_0000;
/// Addresses for names that no file defines; nothing is mapped there.
const UNKNOWN_BASE: u64 = 0xffff_ffff_ff00_0000;
const UNKNOWN_STEP: u64 = 16;

/// One file to check.
#[derive(Clone, Copy, Debug)]
pub struct Input<'d> {
    /// Name for messages and reports.
    pub name: &'d str,
    /// The bytes of an ELF file, not compressed.
    pub bytes: &'d [u8],
}

/// Why a file cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No file was given.
    #[error("no image was given; name a vmlinux, a module or an object")]
    Nothing,
    /// The file is no ELF file that can be read.
    #[error("cannot read {name} as an ELF file: {source}; give an uncompressed vmlinux, .ko or .o")]
    Elf {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: ElfError,
    },
    /// The file has no code.
    #[error(
        "{name} has no executable section; a file made by --only-keep-debug has lost its code, give the one that is loaded"
    )]
    NoCode {
        /// The file.
        name: String,
    },
}

/// A run of mapped bytes.
#[derive(Debug)]
pub struct Region<'d> {
    /// First address.
    pub address: u64,
    /// The bytes, relocations applied.
    pub bytes: Cow<'d, [u8]>,
    /// Whether it holds code.
    pub code: bool,
    /// Name of the section.
    pub section: String,
    /// Index of the file in the order given.
    pub file: usize,
}

/// A named address in code or data.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'d> {
    /// Address.
    pub address: u64,
    /// Size as the assembler gave it, 0 when it gave none.
    pub size: u64,
    /// Name.
    pub name: &'d str,
    /// Whether the assembler called it a function.
    pub function: bool,
    /// Whether the assembler called it data.
    pub object: bool,
    /// Whether other files can see it.
    pub global: bool,
    /// Whether it lies in code.
    pub code: bool,
    /// Whether its kind and size are guesses, because the table it stands in has neither (kallsyms, System.map).
    pub guessed: bool,
    /// Index of the file in the order given.
    pub file: usize,
}

/// Everything that is checked together.
#[derive(Debug)]
pub struct Image<'d> {
    /// Mapped bytes, ascending by address.
    pub regions: Vec<Region<'d>>,
    /// Symbols, ascending by address.
    pub symbols: Vec<Symbol<'d>>,
    /// Names of the files.
    pub files: Vec<String>,
    /// Names that no file defines, by the address they were given.
    pub unknown: HashMap<u64, String>,
    /// The bytes of each file, and whether it is relocatable.
    sources: Vec<(&'d [u8], bool)>,
    by_name: HashMap<&'d str, u64>,
}

impl<'d> Image<'d> {
    /// Puts the files into one address space.
    ///
    /// # Errors
    /// When no file is given, or one is no ELF file with code.
    pub fn new(inputs: &[Input<'d>]) -> Result<Self, ImageError> {
        if inputs.is_empty() {
            return Err(ImageError::Nothing);
        }
        let mut image = Self {
            regions: Vec::new(),
            symbols: Vec::new(),
            files: Vec::new(),
            unknown: HashMap::new(),
            sources: Vec::new(),
            by_name: HashMap::new(),
        };
        let mut base = MODULES_BASE;
        for input in inputs {
            let elf = Elf::parse(input.bytes)
                .map_err(|source| ImageError::Elf { name: input.name.to_owned(), source })?;
            if !elf.has_code() {
                return Err(ImageError::NoCode { name: input.name.to_owned() });
            }
            let file = image.files.len();
            image.files.push(input.name.to_owned());
            image.sources.push((input.bytes, elf.is_relocatable()));
            if elf.is_relocatable() {
                base = image.add_relocatable(&elf, file, base);
            } else {
                image.add_linked(&elf, file);
            }
        }
        image.regions.sort_by_key(|region| region.address);
        image.sort_symbols();
        Ok(image)
    }

    /// Whether a file, by its index, was not linked yet: a module or an object.
    #[must_use]
    pub fn is_relocatable(&self, file: usize) -> bool {
        self.sources.get(file).is_some_and(|source| source.1)
    }

    /// The bytes of the files that are linked.
    pub fn linked_files(&self) -> impl Iterator<Item = &'d [u8]> + '_ {
        self.sources.iter().filter(|source| !source.1).map(|source| source.0)
    }

    /// Names code by symbols that are not in the files: those of a System.map, or of the kallsyms in a bzImage. A symbol
    /// reaches up to the next one.
    pub fn add_symbols(&mut self, symbols: impl Iterator<Item = (u64, &'d str, bool)>) {
        let mut found: Vec<(u64, &'d str, bool)> = symbols.collect();
        found.sort_unstable();
        for index in 0..found.len() {
            let (address, name, global) = found[index];
            let Some(region) = self.region(address) else { continue };
            let code = region.code;
            let end = region.address + region.bytes.len() as u64;
            let next = found[index..].iter().map(|symbol| symbol.0).find(|next| *next > address);
            let size = next.map_or(end, |next| next.min(end)).saturating_sub(address);
            let file = region.file;
            self.add_symbol(Symbol {
                address,
                size,
                name,
                function: code,
                object: !code,
                global,
                code,
                guessed: true,
                file,
            });
        }
        self.sort_symbols();
    }

    fn sort_symbols(&mut self) {
        self.symbols.sort_by_key(|symbol| {
            (symbol.address, !symbol.function, !symbol.global, std::cmp::Reverse(symbol.size))
        });
    }

    fn add_linked(&mut self, elf: &Elf<'d>, file: usize) {
        // Per-CPU data is linked at address 0 and mapped elsewhere.
        for section in
            elf.sections().iter().filter(|section| section.is_loaded() && section.address != 0)
        {
            if let Some(data) = section.data {
                self.regions.push(Region {
                    address: section.address,
                    bytes: Cow::Borrowed(data),
                    code: holds_code(section),
                    section: section.name.to_owned(),
                    file,
                });
            }
        }
        let code: Vec<(u64, u64)> = elf
            .sections()
            .iter()
            .filter(|section| holds_code(section))
            .map(|section| (section.address, section.address.saturating_add(section.size)))
            .collect();
        for symbol in elf.symbols().filter(|symbol| symbol.kind <= 2 && symbol.section != 0) {
            let Ok(name) = std::str::from_utf8(symbol.name) else { continue };
            if name.is_empty() {
                continue;
            }
            let in_code = code.iter().any(|(start, end)| (*start..*end).contains(&symbol.value));
            self.add_symbol(Symbol {
                address: symbol.value,
                size: symbol.size,
                name,
                function: symbol.kind == 2,
                object: symbol.kind == 1,
                global: symbol.binding != 0,
                code: in_code,
                guessed: false,
                file,
            });
        }
    }

    fn add_symbol(&mut self, symbol: Symbol<'d>) {
        if symbol.global {
            self.by_name.insert(symbol.name, symbol.address);
        } else {
            self.by_name.entry(symbol.name).or_insert(symbol.address);
        }
        self.symbols.push(symbol);
    }

    /// Lays out a relocatable file at `base` and returns the first address behind it.
    fn add_relocatable(&mut self, elf: &Elf<'d>, file: usize, base: u64) -> u64 {
        let mut places: HashMap<usize, u64> = HashMap::new();
        let mut at = base;
        for section in elf.sections().iter().filter(|section| section.is_loaded()) {
            let align = section.align.clamp(1, 1 << 21).next_power_of_two();
            at = at.next_multiple_of(align);
            places.insert(section.index, at);
            at = at.saturating_add(section.size.min(1 << 30)).saturating_add(16);
        }
        let sections = elf.sections();
        let symbols: Vec<_> = elf.symbols().collect();
        let mut own: HashMap<u32, u64> = HashMap::with_capacity(symbols.len());
        for symbol in &symbols {
            let name = std::str::from_utf8(symbol.name).unwrap_or_default();
            let Some(place) = places.get(&(symbol.section as usize)) else { continue };
            let address = place.wrapping_add(symbol.value);
            own.insert(symbol.index, address);
            // Module metadata repeats names of the kernel; only real definitions become symbols.
            if symbol.kind <= 2 && !name.is_empty() && !name.starts_with("__UNIQUE_ID") {
                let code = sections
                    .iter()
                    .any(|section| section.index == symbol.section as usize && holds_code(section));
                self.add_symbol(Symbol {
                    address,
                    size: symbol.size,
                    name,
                    function: symbol.kind == 2,
                    object: symbol.kind == 1,
                    global: symbol.binding != 0,
                    code,
                    guessed: false,
                    file,
                });
            }
        }
        for section in sections.iter().filter(|section| section.is_loaded()) {
            let (Some(data), Some(place)) = (section.data, places.get(&section.index).copied())
            else {
                continue;
            };
            let mut bytes = data.to_vec();
            for relocation in elf.relocations(section.index) {
                let target = match own.get(&relocation.symbol) {
                    Some(address) => *address,
                    None => {
                        let name = symbols
                            .get((relocation.symbol as usize).wrapping_sub(1))
                            .and_then(|symbol| std::str::from_utf8(symbol.name).ok())
                            .unwrap_or_default();
                        self.resolve(name)
                    }
                };
                relocate(
                    &mut bytes,
                    place,
                    relocation.offset,
                    relocation.kind,
                    target.wrapping_add(relocation.addend as u64),
                );
            }
            self.regions.push(Region {
                address: place,
                bytes: Cow::Owned(bytes),
                code: holds_code(section),
                section: section.name.to_owned(),
                file,
            });
        }
        at.next_multiple_of(1 << 12)
    }

    fn resolve(&mut self, name: &'d str) -> u64 {
        if let Some(address) = self.by_name.get(name) {
            return *address;
        }
        let address = UNKNOWN_BASE + self.unknown.len() as u64 * UNKNOWN_STEP;
        self.unknown.insert(address, name.to_owned());
        self.by_name.insert(name, address);
        address
    }

    /// The region that holds `address`.
    #[must_use]
    pub fn region(&self, address: u64) -> Option<&Region<'d>> {
        let index =
            self.regions.partition_point(|region| region.address <= address).checked_sub(1)?;
        let region = &self.regions[index];
        (address - region.address < region.bytes.len() as u64).then_some(region)
    }

    /// The bytes from `address` to the end of its region.
    #[must_use]
    pub fn bytes_at(&self, address: u64) -> &[u8] {
        self.region(address)
            .map_or(&[], |region| &region.bytes[(address - region.address) as usize..])
    }

    /// The eight bytes at `address` as a number.
    #[must_use]
    pub fn word_at(&self, address: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes_at(address).get(..8)?.try_into().ok()?))
    }

    /// The address of a name; a global one wins over local ones.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// Every symbol of this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Symbol<'d>> + 'a {
        self.symbols.iter().filter(move |symbol| symbol.name == name)
    }

    /// Symbols at exactly this address, the best name first.
    #[must_use]
    pub fn symbols_at(&self, address: u64) -> &[Symbol<'d>] {
        let start = self.symbols.partition_point(|symbol| symbol.address < address);
        let end = self.symbols.partition_point(|symbol| symbol.address <= address);
        &self.symbols[start..end]
    }

    /// `name+0x1f` for an address in code, or the number when nothing is known.
    #[must_use]
    pub fn describe(&self, address: u64) -> String {
        if let Some(name) = self.unknown.get(&address) {
            return name.clone();
        }
        let end = self.symbols.partition_point(|symbol| symbol.address <= address);
        // The nearest function that reaches here; a label without size counts only when nothing else does.
        const NEAREST: usize = 64;
        let nearest = self.symbols[..end].iter().rev().take(NEAREST).filter(|symbol| symbol.code);
        let covering = nearest
            .clone()
            .filter(|symbol| address < symbol.address.saturating_add(symbol.size.max(1)))
            .max_by_key(|symbol| (symbol.address, symbol.function, symbol.global));
        match covering.or_else(|| nearest.clone().next()) {
            Some(symbol) if symbol.address == address => {
                self.name_at(symbol.address).unwrap_or(symbol.name).to_owned()
            }
            Some(symbol) => {
                format!(
                    "{}+{:#x}",
                    self.name_at(symbol.address).unwrap_or(symbol.name),
                    address - symbol.address
                )
            }
            None => format!("{address:#x}"),
        }
    }

    /// `name+0x1f` for an address in data.
    #[must_use]
    pub fn describe_data(&self, address: u64) -> String {
        let end = self.symbols.partition_point(|symbol| symbol.address <= address);
        match self.symbols[..end].last() {
            Some(symbol) if symbol.address == address => symbol.name.to_owned(),
            Some(symbol) => format!("{}+{:#x}", symbol.name, address - symbol.address),
            None => format!("{address:#x}"),
        }
    }

    /// The best name of exactly this address.
    #[must_use]
    pub fn name_at(&self, address: u64) -> Option<&str> {
        if let Some(name) = self.unknown.get(&address) {
            return Some(name);
        }
        let symbols = self.symbols_at(address);
        symbols
            .iter()
            .find(|symbol| !symbol.name.starts_with("__pfx_"))
            .or(symbols.first())
            .map(|symbol| symbol.name)
    }
}

/// Executable and not writable: some kernels mark `.data` executable because a trampoline stands in it.
fn holds_code(section: &Section<'_>) -> bool {
    const SHF_WRITE: u64 = 1;
    section.is_code() && section.flags & SHF_WRITE == 0
}

/// Applies one relocation; unknown kinds and places outside the section are left alone.
fn relocate(bytes: &mut [u8], place: u64, offset: u64, kind: u32, value: u64) {
    // System V ABI for x86-64, table 4.9.
    const R_64: u32 = 1;
    const R_PC32: u32 = 2;
    const R_PLT32: u32 = 4;
    const R_32: u32 = 10;
    const R_32S: u32 = 11;
    const R_PC64: u32 = 24;
    let position = place.wrapping_add(offset);
    let (size, result) = match kind {
        R_64 => (8, value),
        R_PC64 => (8, value.wrapping_sub(position)),
        R_PC32 | R_PLT32 => (4, value.wrapping_sub(position)),
        R_32 | R_32S => (4, value),
        _ => return,
    };
    let Ok(start) = usize::try_from(offset) else { return };
    if let Some(slot) = start.checked_add(size).and_then(|end| bytes.get_mut(start..end)) {
        slot.copy_from_slice(&result.to_le_bytes()[..size]);
    }
}
