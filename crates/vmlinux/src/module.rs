//! Kernel modules: `.ko`, `.ko.xz`, `.ko.zst`, `.ko.gz`, linked as if they were loaded.
//!
//! A module is a relocatable file, so nothing in it has an address. [`link`] lays its sections out from
//! a base that the caller chooses and applies the relocations, after which code and tables read like
//! those of the kernel itself.

use std::borrow::Cow;

use crate::Gap;
use crate::decompress::{Compression, DecompressError, decompress};
use crate::elf::{Elf, ElfSymbol, Relocation};
use crate::image::{Image, ImageSection};
use crate::symbols::{SymbolBuilder, letter};

/// Where modules are loaded on x86-64 with KASLR (MODULES_VADDR, arch/x86/include/asm/pgtable_64_types.h);
/// a base that nothing else uses.
pub const DEFAULT_BASE: u64 = 0xffff_ffff_c000_0000;

/// The ELF bytes of a module file, unpacked when it is compressed.
pub fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, DecompressError> {
    match Compression::detect(bytes) {
        Some(compression) => Ok(Cow::Owned(decompress(compression, bytes, None)?)),
        None => Ok(Cow::Borrowed(bytes)),
    }
}

/// The name in `.gnu.linkonce.this_module` or `.modinfo`: `name=` of the module itself.
pub fn name<'d>(elf: &Elf<'d>) -> Option<&'d str> {
    modinfo(elf).find(|(key, _)| *key == "name").map(|(_, value)| value)
}

/// The `key=value` pairs of `.modinfo`: `license`, `vermagic`, `depends`, ...
pub fn modinfo<'d>(elf: &Elf<'d>) -> impl Iterator<Item = (&'d str, &'d str)> + use<'d> {
    elf.section_data(".modinfo")
        .unwrap_or_default()
        .split(|&b| b == 0)
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='))
}

/// Links a module at `base`. `resolve` gives the addresses of symbols that the kernel or other modules
/// export; those that it does not know get an address of their own behind the module, and a symbol of
/// kind `U` there, so that calls to them still have a name. What could not be relocated is a gap.
pub fn link<'d>(
    elf: &Elf<'d>,
    base: u64,
    mut resolve: impl FnMut(&str) -> Option<u64>,
) -> Image<'d> {
    let mut gaps = elf.gaps().to_vec();
    let (mut sections, end) = lay_out(elf, base, &mut gaps);
    let addresses: Vec<Option<u64>> = {
        let mut addresses = vec![None; elf.sections().len()];
        for section in &sections {
            if let Some(slot) = addresses.get_mut(section.index) {
                *slot = Some(section.address);
            }
        }
        addresses
    };
    let mut builder = SymbolBuilder::default();
    // By index in the ELF table; the null symbol has no address.
    let mut values: Vec<Option<u64>> = vec![None];
    let mut next_external = end;
    for symbol in elf.symbols() {
        let value = match symbol.section {
            SHN_UNDEF if symbol.name.is_empty() => None,
            SHN_UNDEF => {
                Some(resolve(&String::from_utf8_lossy(symbol.name)).unwrap_or_else(|| {
                    builder.push(symbol.name, next_external, 0, b'U');
                    let address = next_external;
                    next_external = next_external.wrapping_add(16);
                    address
                }))
            }
            SHN_ABS => Some(symbol.value),
            n => addresses.get(n as usize).copied().flatten().map(|a| a.wrapping_add(symbol.value)),
        };
        values.push(value);
        if let Some(address) = value.filter(|_| has_name_and_place(&symbol)) {
            let section = elf.sections().get(symbol.section as usize);
            builder.push(symbol.name, address, symbol.size, letter(&symbol, section));
        }
    }
    let mut positions = vec![usize::MAX; elf.sections().len()];
    for (position, section) in sections.iter().enumerate() {
        if let Some(slot) = positions.get_mut(section.index) {
            *slot = position;
        }
    }
    for table in elf.relocation_tables() {
        let position = positions.get(table.target).copied().unwrap_or(usize::MAX);
        let Some(section) = sections.get_mut(position) else { continue };
        let mut refused = 0usize;
        for relocation in table.relocations() {
            let symbol = values.get(relocation.symbol as usize).copied().flatten();
            if apply(section, &relocation, symbol).is_none() {
                refused += 1;
            }
        }
        if refused > 0 {
            let why = format!("{refused} relocations could not be applied");
            gaps.push(Gap::at(section.name, section.address, why));
        }
    }
    Image::new(sections, builder.finish(), gaps)
}

const SHN_UNDEF: u32 = 0;
const SHN_ABS: u32 = 0xfff1;

fn has_name_and_place(symbol: &ElfSymbol<'_>) -> bool {
    !symbol.name.is_empty() && symbol.section != SHN_UNDEF && !symbol.is_section_or_file()
}

/// Places the loaded sections one behind the other, code first, as the module loader does.
/// Room for modules with KASLR: `MODULES_LEN` in arch/x86/include/asm/pgtable_64_types.h.
const MODULE_AREA: u64 = 1008 << 20;

fn lay_out<'d>(elf: &Elf<'d>, base: u64, gaps: &mut Vec<Gap>) -> (Vec<ImageSection<'d>>, u64) {
    let mut at = base;
    let mut sections = Vec::new();
    for code in [true, false] {
        at = align_up(at, 4096).unwrap_or(at);
        for s in elf.sections().iter().filter(|s| s.is_loaded() && s.is_code() == code) {
            let align = if s.align.is_power_of_two() { s.align.min(1 << 16) } else { 1 };
            let Some(address) = align_up(at, align) else { break };
            let end = address.checked_add(s.size).filter(|end| end - base <= MODULE_AREA);
            let Some(end) = end else {
                let why =
                    format!("its size of {:#x} does not fit where modules are loaded", s.size);
                gaps.push(Gap::at(s.name, address, why));
                continue;
            };
            sections.push(ImageSection {
                name: s.name,
                index: s.index,
                address,
                size: s.size,
                code,
                writable: s.is_writable(),
                data: Cow::Borrowed(s.data.unwrap_or_default()),
            });
            at = end;
        }
    }
    (sections, align_up(at, 4096).unwrap_or(at))
}

fn align_up(at: u64, to: u64) -> Option<u64> {
    at.checked_next_multiple_of(to)
}

/// The relocations that arch/x86/kernel/module.c knows. `None` when the kernel would refuse it, too.
fn apply(section: &mut ImageSection<'_>, r: &Relocation, symbol: Option<u64>) -> Option<()> {
    let at = usize::try_from(r.offset).ok()?;
    let place = section.address.wrapping_add(r.offset);
    let Some((value, width)) = relocated(r, symbol?, place) else {
        return (r.kind == R_X86_64_NONE).then_some(());
    };
    let target = section.data.to_mut().get_mut(at..at.checked_add(width)?)?;
    target.copy_from_slice(value.to_le_bytes().get(..width)?);
    Some(())
}

const R_X86_64_NONE: u32 = 0;

/// Value and width in bytes that `r` writes at the address `place`.
pub(crate) fn relocated(r: &Relocation, symbol: u64, place: u64) -> Option<(u64, usize)> {
    let value = symbol.wrapping_add_signed(r.addend);
    Some(match r.kind {
        1 => (value, 8),
        10 | 11 => (value, 4),
        2 | 4 => (value.wrapping_sub(place), 4),
        24 => (value.wrapping_sub(place), 8),
        _ => return None,
    })
}
