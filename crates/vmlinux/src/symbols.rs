//! Names for addresses and addresses for names.
//!
//! A [`SymbolTable`] is sorted by link address and answers as the kernel's own `kallsyms_lookup` does:
//! a symbol reaches to the next one, and of several at one address the same one is named. It does not
//! know where it came from nor where the kernel was placed; subtract the slide first.

use std::cmp::Ordering;
use std::sync::OnceLock;

use crate::elf::{Elf, ElfSymbol, Section};

/// One symbol of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'t> {
    /// Its name.
    pub name: &'t str,
    /// Address it is linked at; an offset for per-CPU symbols of kernels that link them at 0.
    pub address: u64,
    /// Letter of `nm`: `T` and `t` for code, upper case for global.
    pub kind: char,
    /// Size in bytes that the ELF symbol table gives it, when there is one and it is not 0.
    pub size: Option<u64>,
}

impl Symbol<'_> {
    /// The symbol names code.
    pub fn is_code(&self) -> bool {
        matches!(self.kind, 't' | 'T' | 'w' | 'W')
    }
}

/// An address, named: `name+offset/size` in the words of a kernel trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located<'t> {
    /// The symbol that the address belongs to.
    pub symbol: Symbol<'t>,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes to the next symbol, as the kernel prints it; 0 for the last symbol.
    pub size: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    size: u64,
    name: u32,
    length: u16,
    kind: u8,
}

/// A table of symbols, sorted by address.
#[derive(Debug, Clone, Default)]
pub struct SymbolTable {
    names: String,
    entries: Vec<Entry>,
    /// Index of the first symbol that code addresses may be named by; those before it are per-CPU
    /// offsets and absolute values.
    first_mapped: usize,
    by_name: OnceLock<Vec<u32>>,
}

/// x86-64 maps the kernel in the upper half; per-CPU offsets and constants lie far below.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;

impl SymbolTable {
    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There is no symbol.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All symbols by address; those at one address in the order in which the kernel prefers them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Symbol<'_>> + ExactSizeIterator {
        self.entries.iter().map(|e| self.symbol(e))
    }

    /// The symbol that the kernel would print for the link address `address`.
    pub fn lookup(&self, address: u64) -> Option<Located<'_>> {
        self.locate(self.entries.get(self.first_mapped..)?, address)
    }

    /// The symbols at exactly `address`, the preferred one first.
    pub fn at(&self, address: u64) -> impl Iterator<Item = Symbol<'_>> {
        let start = self.entries.partition_point(|e| e.address < address);
        let rest = self.entries.get(start..).unwrap_or_default();
        rest.iter().take_while(move |e| e.address == address).map(|e| self.symbol(e))
    }

    /// All symbols called `name`, by address. Static functions of one name are common in a kernel.
    pub fn named<'t>(&'t self, name: &'t str) -> impl Iterator<Item = Symbol<'t>> {
        let order = self.by_name.get_or_init(|| {
            let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
            order.sort_by_key(|&i| (self.name_at(i), i));
            order
        });
        let start = order.partition_point(|&i| self.name_at(i) < name);
        let rest = order.get(start..).unwrap_or_default();
        rest.iter()
            .take_while(move |&&i| self.name_at(i) == name)
            .filter_map(|&i| self.entries.get(i as usize))
            .map(|e| self.symbol(e))
    }

    /// The address of the only symbol called `name`, or of the first of several.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.named(name).next().map(|s| s.address)
    }

    /// The variable at `offset` from a CPU's per-CPU base (`%gs:offset`), with the offset inside it.
    pub fn per_cpu(&self, offset: u64) -> Option<Located<'_>> {
        // Older kernels link the per-CPU section at 0, since v6.15 it lies in the image.
        let start = self.address_of("__per_cpu_start")?;
        let end = self.address_of("__per_cpu_end")?;
        let address = start.checked_add(offset).filter(|&a| a < end)?;
        let low = self.entries.partition_point(|e| e.address < start);
        let high = self.entries.partition_point(|e| e.address <= end);
        // Constants share the low addresses with the variables; they are no memory.
        let variables: Vec<Entry> = self
            .entries
            .get(low..high)?
            .iter()
            .filter(|e| !matches!(e.kind, b'a' | b'A') || e.address == end)
            .copied()
            .collect();
        self.locate(&variables, address)
    }

    fn locate<'t>(&'t self, entries: &[Entry], address: u64) -> Option<Located<'t>> {
        let after = entries.partition_point(|e| e.address <= address);
        let found = entries.get(after.checked_sub(1)?)?.address;
        let first = entries.partition_point(|e| e.address < found);
        let entry = entries.get(first)?;
        let size = entries.get(after).map_or(entry.size, |next| next.address - found);
        let offset = address - found;
        // Behind the last symbol anything could lie.
        (offset == 0 || offset < size).then(|| Located { symbol: self.symbol(entry), offset, size })
    }

    fn symbol(&self, entry: &Entry) -> Symbol<'_> {
        Symbol {
            name: self.name_of(entry),
            address: entry.address,
            kind: char::from(entry.kind),
            size: (entry.size != 0).then_some(entry.size),
        }
    }

    fn name_of(&self, entry: &Entry) -> &str {
        let start = entry.name as usize;
        self.names.get(start..start + usize::from(entry.length)).unwrap_or_default()
    }

    fn name_at(&self, index: u32) -> &str {
        self.entries.get(index as usize).map_or("", |e| self.name_of(e))
    }

    /// The symbols of an ELF file, in the order that the kernel's build would give them. In a
    /// relocatable file addresses are offsets in their sections, so a whole module needs one table
    /// per section: `keep` chooses.
    pub fn from_elf<'d>(
        elf: &Elf<'d>,
        mut keep: impl FnMut(&ElfSymbol<'d>) -> bool,
    ) -> SymbolTable {
        let mut builder = SymbolBuilder::default();
        for symbol in elf.symbols() {
            if symbol.section == 0
                || symbol.name.is_empty()
                || symbol.is_section_or_file()
                || !keep(&symbol)
            {
                continue;
            }
            let kind = letter(&symbol, elf.sections().get(symbol.section as usize));
            builder.push(symbol.name, symbol.value, symbol.size, kind);
        }
        builder.finish()
    }
}

/// The letter that `nm` prints, as far as the kernel cares: code, data, bss, read-only, absolute, weak.
pub(crate) fn letter(symbol: &ElfSymbol<'_>, section: Option<&Section<'_>>) -> u8 {
    const STB_LOCAL: u8 = 0;
    const STB_WEAK: u8 = 2;
    const STT_OBJECT: u8 = 1;
    const SHN_ABS: u32 = 0xfff1;
    const SHT_NOBITS: u32 = 8;
    const SHF_WRITE: u64 = 1;
    if symbol.binding == STB_WEAK {
        return if symbol.kind == STT_OBJECT { b'V' } else { b'W' };
    }
    let letter = match section {
        _ if symbol.section == SHN_ABS => b'a',
        None => b'a',
        Some(s) if s.is_code() => b't',
        Some(s) if s.kind == SHT_NOBITS => b'b',
        Some(s) if s.name.starts_with(".rodata") => b'r',
        Some(s) if s.flags & SHF_WRITE != 0 => b'd',
        Some(s) if s.is_loaded() => b'r',
        Some(_) => b'n',
    };
    if symbol.binding == STB_LOCAL { letter } else { letter.to_ascii_uppercase() }
}

/// Collects symbols in the order of their source and sorts them as the kernel's build does.
#[derive(Debug, Default)]
pub(crate) struct SymbolBuilder {
    names: String,
    entries: Vec<Entry>,
}

impl SymbolBuilder {
    pub(crate) fn with_capacity(symbols: usize, name_bytes: usize) -> SymbolBuilder {
        SymbolBuilder {
            names: String::with_capacity(name_bytes),
            entries: Vec::with_capacity(symbols),
        }
    }

    pub(crate) fn push(&mut self, name: &[u8], address: u64, size: u64, kind: u8) {
        // Longer than any KSYM_NAME_LEN (512 since v6.1), so nothing real is lost.
        let name = name.get(..4096).unwrap_or(name);
        let Ok(start) = u32::try_from(self.names.len()) else {
            return;
        };
        match std::str::from_utf8(name) {
            Ok(name) => self.names.push_str(name),
            Err(_) => self.names.push_str(&String::from_utf8_lossy(name)),
        }
        let length = u16::try_from(self.names.len() - start as usize).unwrap_or(u16::MAX);
        self.entries.push(Entry { address, size, name: start, length, kind });
    }

    /// For sources that are in the kernel's order already: only equal addresses keep their order.
    pub(crate) fn finish_in_order(mut self) -> SymbolTable {
        self.entries.sort_by_key(|e| e.address);
        self.table()
    }

    pub(crate) fn finish(mut self) -> SymbolTable {
        let names = std::mem::take(&mut self.names);
        let name = |e: &Entry| {
            names.get(e.name as usize..e.name as usize + usize::from(e.length)).unwrap_or_default()
        };
        self.entries.sort_by(|a, b| {
            a.address.cmp(&b.address).then_with(|| prefer((a.kind, name(a)), (b.kind, name(b))))
        });
        self.names = names;
        self.table()
    }

    fn table(self) -> SymbolTable {
        let mapped = self.entries.partition_point(|e| e.address < UPPER_HALF);
        // A module's table holds offsets only.
        let first_mapped = if mapped == self.entries.len() { 0 } else { mapped };
        SymbolTable {
            names: self.names,
            entries: self.entries,
            first_mapped,
            by_name: OnceLock::new(),
        }
    }
}

/// Which of two symbols at one address the kernel names: a strong one, not one that a linker script
/// provides, the one with fewer leading underscores, then the order of `nm -n`, which is by name
/// (scripts/kallsyms.c, `compare_symbols`).
fn prefer(a: (u8, &str), b: (u8, &str)) -> Ordering {
    let weak = |kind: u8| matches!(kind, b'w' | b'W');
    let underscores = |name: &str| name.bytes().take_while(|&b| b == b'_').count();
    weak(a.0)
        .cmp(&weak(b.0))
        .then_with(|| from_linker_script(a.1).cmp(&from_linker_script(b.1)))
        .then_with(|| underscores(a.1).cmp(&underscores(b.1)))
        .then_with(|| a.1.cmp(b.1))
}

fn from_linker_script(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("__").filter(|_| name.len() >= 8) else {
        return false;
    };
    ["start_", "stop_", "end_"].iter().any(|p| rest.starts_with(p))
        || ["_start", "_end"].iter().any(|s| rest.ends_with(s))
}
