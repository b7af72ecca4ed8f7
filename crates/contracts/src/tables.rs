//! The tables by which the kernel changes its own code or leaves the straight path: alternatives, exception table, bug table,
//! jump labels.
//!
//! The layout of each table is probed from its contents (every entry must point at code and be sane), never taken from a
//! version. A table that fits no known layout is left out and named in [`Tables::gaps`]. Main type: [`Tables`].

use kolumbo_dataflow::{AddressMap, AddressSet, Replacement};

use crate::image::Image;

/// One way in which a place may be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Where, and by what.
    pub replacement: Replacement,
    /// Word times 32 plus bit in the kernel's CPU feature array; the bit may be a synthetic one.
    pub feature: u16,
    /// Whether the replacement is taken when the feature is absent.
    pub inverted: bool,
}

/// What the tables of an image say, by address.
#[derive(Debug, Default)]
pub struct Tables {
    /// Replacements as the walk wants them.
    pub replacements: AddressMap<Vec<Replacement>>,
    /// The same with their conditions.
    pub alternatives: AddressMap<Vec<Alternative>>,
    /// Places whose original code does not run on the selected machine.
    pub replaced: AddressSet,
    /// Where code goes on after a fault at an address.
    pub faults: AddressMap<Vec<u64>>,
    /// Addresses of traps that only warn.
    pub warnings: AddressSet,
    /// Where jumps go that may be patched in.
    pub jumps: AddressMap<Vec<u64>>,
    /// Tables that could not be read.
    pub gaps: Vec<String>,
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The bytes and address of a table in each file: by its boundary symbols in a linked kernel, by section elsewhere.
fn pieces<'i>(image: &'i Image<'_>, section: &str, bounds: (&str, &str)) -> Vec<(u64, &'i [u8])> {
    let mut pieces: Vec<(u64, &[u8])> = image
        .regions
        .iter()
        .filter(|region| region.section == section && !region.bytes.is_empty())
        .map(|region| (region.address, &*region.bytes))
        .collect();
    if pieces.is_empty()
        && let (Some(start), Some(end)) = (image.address_of(bounds.0), image.address_of(bounds.1))
        && let Some(size) = end.checked_sub(start)
        && let Some(bytes) =
            image.bytes_at(start).get(..usize::try_from(size).unwrap_or(usize::MAX))
        && !bytes.is_empty()
    {
        pieces.push((start, bytes));
    }
    pieces
}

impl Tables {
    /// Reads every table of the image.
    #[must_use]
    pub fn read(image: &Image<'_>) -> Self {
        let mut tables = Self::default();
        for (address, bytes) in
            pieces(image, ".altinstructions", ("__alt_instructions", "__alt_instructions_end"))
        {
            tables.read_alternatives(image, address, bytes);
        }
        tables.drop_misuse_warning(image);
        for (address, bytes) in
            pieces(image, "__ex_table", ("__start___ex_table", "__stop___ex_table"))
        {
            tables.read_faults(image, address, bytes);
        }
        for (address, bytes) in
            pieces(image, "__bug_table", ("__start___bug_table", "__stop___bug_table"))
        {
            tables.read_warnings(image, address, bytes);
        }
        for (address, bytes) in
            pieces(image, "__jump_table", ("__start___jump_table", "__stop___jump_table"))
        {
            tables.read_jumps(image, address, bytes);
        }
        tables
    }

    /// Keeps only what a machine runs: replacements it does not take go, and replaced code goes where one is taken for sure.
    /// The later of several entries wins, as in `apply_alternatives()`.
    pub fn select(&mut self, takes: &dyn Fn(&Alternative) -> Option<bool>) {
        for (site, alternatives) in &mut self.alternatives {
            let sure =
                alternatives.iter().rposition(|alternative| takes(alternative) == Some(true));
            let first = sure.unwrap_or(0);
            let mut number = 0;
            alternatives.retain(|alternative| {
                number += 1;
                number > first && takes(alternative) != Some(false)
            });
            let replacements: Vec<Replacement> =
                alternatives.iter().map(|alternative| alternative.replacement).collect();
            if sure.is_some() {
                self.replaced.insert(*site);
            }
            self.replacements.insert(*site, replacements);
        }
        self.alternatives.retain(|_, alternatives| !alternatives.is_empty());
        self.replacements.retain(|_, replacements| !replacements.is_empty());
    }

    /// The alternative whose replacement holds `address`.
    #[must_use]
    pub fn live_when(&self, address: u64) -> Option<&Alternative> {
        self.alternatives.values().flatten().find(|alternative| {
            let replacement = alternative.replacement;
            (replacement.at..replacement.at.saturating_add(u64::from(replacement.len)))
                .contains(&address)
        })
    }

    /// The place that is replaced by the code at `address`.
    #[must_use]
    pub fn replaced_by(&self, address: u64) -> Option<u64> {
        self.alternatives
            .iter()
            .find(|(_, alternatives)| {
                alternatives.iter().any(|alternative| {
                    let replacement = alternative.replacement;
                    (replacement.at..replacement.at.saturating_add(u64::from(replacement.len)))
                        .contains(&address)
                })
            })
            .map(|(site, _)| *site)
    }

    fn read_alternatives(&mut self, image: &Image<'_>, address: u64, bytes: &[u8]) {
        // struct alt_instr in arch/x86/include/asm/alternative.h: 12 bytes; 13 with padlen (before v5.14); 14 with 32 bits of flags (since v6.3).
        let layouts: [(usize, Layout); 3] = [
            (14, Layout { feature: 8, flags: Some(10), len: 12, replacement_len: 13 }),
            (12, Layout { feature: 8, flags: None, len: 10, replacement_len: 11 }),
            (13, Layout { feature: 8, flags: None, len: 10, replacement_len: 11 }),
        ];
        let code = |address| image.region(address).is_some_and(|region| region.code);
        let fits = |entry: &[u8], at: u64, layout: Layout| {
            layout.entry(entry, at).is_some_and(|(site, alternative)| {
                let replacement = alternative.replacement;
                replacement.replaces > 0
                    && replacement.len <= replacement.replaces
                    && code(site)
                    && (replacement.len == 0 || code(replacement.at))
            })
        };
        // A few entries may patch what is no code here, such as the image of the vDSO; a wrong layout fits almost nothing.
        let fitting = layouts.into_iter().find(|(stride, layout)| {
            let entries = bytes.len() / stride;
            let good = bytes
                .chunks_exact(*stride)
                .enumerate()
                .filter(|(index, entry)| {
                    fits(entry, address.wrapping_add((index * stride) as u64), *layout)
                })
                .count();
            bytes.len().is_multiple_of(*stride) && good * 20 >= entries * 19
        });
        let Some((stride, layout)) = fitting else {
            self.gaps.push(
                "alternatives: the table has no known layout, only the code in the file is checked"
                    .to_owned(),
            );
            return;
        };
        // ALT_FLAG_DIRECT_CALL (since v6.8): the call through memory becomes a direct call of the same target.
        const DIRECT_CALL: u16 = 1 << 1;
        for (index, entry) in bytes.chunks_exact(stride).enumerate() {
            let at = address.wrapping_add((index * stride) as u64);
            if let Some((site, alternative)) =
                layout.entry(entry, at).filter(|_| fits(entry, at, layout))
            {
                let direct_call = layout
                    .flags
                    .and_then(|flags| u16_at(entry, flags))
                    .is_some_and(|flags| flags & DIRECT_CALL != 0);
                if !direct_call {
                    self.replacements.entry(site).or_default().push(alternative.replacement);
                    self.alternatives.entry(site).or_default().push(alternative);
                }
            }
        }
    }

    /// Since v6.9 the return thunk warns once when it is still used although another one was selected. That
    /// is a report of a misuse, not code that callers live with.
    fn drop_misuse_warning(&mut self, image: &Image<'_>) {
        let (Some(thunk), Some(warning)) =
            (image.address_of("__x86_return_thunk"), image.address_of("warn_thunk_thunk"))
        else {
            return;
        };
        const JMP: u8 = 0xe9;
        if let Some(alternatives) = self.alternatives.get_mut(&thunk) {
            alternatives.retain(|alternative| {
                let at = alternative.replacement.at;
                let bytes = image.bytes_at(at);
                let target =
                    i32_at(bytes, 1).map(|offset| at.wrapping_add(5).wrapping_add(offset as u64));
                !(bytes.first() == Some(&JMP) && target == Some(warning))
            });
            let left = alternatives.iter().map(|alternative| alternative.replacement).collect();
            self.replacements.insert(thunk, left);
        }
    }

    fn read_faults(&mut self, image: &Image<'_>, address: u64, bytes: &[u8]) {
        // struct exception_table_entry: instruction, fixup, and a handler or a type, each relative to itself (since v4.6).
        const STRIDE: usize = 12;
        for (index, entry) in bytes.chunks_exact(STRIDE).enumerate() {
            let at = address.wrapping_add((index * STRIDE) as u64);
            let relative = |offset: usize| {
                i32_at(entry, offset)
                    .map(|value| at.wrapping_add(offset as u64).wrapping_add(value as u64))
            };
            if let (Some(instruction), Some(fixup)) = (relative(0), relative(4)) {
                let code = |address| image.region(address).is_some_and(|region| region.code);
                if code(instruction) && code(fixup) && !handler_writes(entry) {
                    self.faults.entry(instruction).or_default().push(fixup);
                }
            }
        }
    }

    fn read_warnings(&mut self, image: &Image<'_>, address: u64, bytes: &[u8]) {
        // struct bug_entry in include/asm-generic/bug.h with relative pointers; the flags come last.
        const STRIDES: [usize; 4] = [12, 16, 8, 6];
        const BUGFLAG_WARNING: u16 = 1;
        // Since v6.19: the place is no trap but where a call of `__WARN_trap()` is made ready, which returns.
        const BUGFLAG_ARGS: u16 = 1 << 4;
        let trap = |address: u64| {
            let bytes = image.bytes_at(address);
            let bytes = &bytes[..bytes.len().min(4)];
            bytes.starts_with(&[0x0f, 0x0b]) || bytes.windows(2).any(|pair| pair == [0x0f, 0xb9])
        };
        let entry_at = |index: usize, entry: &[u8], stride: usize| {
            let at = address.wrapping_add((index * stride) as u64);
            Some((at.wrapping_add(i32_at(entry, 0)? as u64), u16_at(entry, stride - 2)?))
        };
        let fits = |place: u64, flags: u16| {
            trap(place)
                || flags & BUGFLAG_ARGS != 0
                    && image.region(place).is_some_and(|region| region.code)
        };
        let stride = STRIDES.into_iter().find(|stride| {
            bytes.len().is_multiple_of(*stride)
                && bytes.chunks_exact(*stride).enumerate().all(|(index, entry)| {
                    entry_at(index, entry, *stride).is_some_and(|(place, flags)| fits(place, flags))
                })
        });
        let Some(stride) = stride else {
            self.gaps.push("bug table: unknown layout, every trap is taken to be final".to_owned());
            return;
        };
        for (index, entry) in bytes.chunks_exact(stride).enumerate() {
            if let Some((place, flags)) = entry_at(index, entry, stride)
                && flags & BUGFLAG_WARNING != 0
                && trap(place)
            {
                self.warnings.insert(place);
            }
        }
    }

    fn read_jumps(&mut self, image: &Image<'_>, address: u64, bytes: &[u8]) {
        // struct jump_entry with relative pointers (CONFIG_HAVE_ARCH_JUMP_LABEL_RELATIVE, x86 since v4.20): code, target, key.
        const STRIDE: usize = 16;
        for (index, entry) in bytes.chunks_exact(STRIDE).enumerate() {
            let at = address.wrapping_add((index * STRIDE) as u64);
            let relative = |offset: usize| {
                i32_at(entry, offset)
                    .map(|value| at.wrapping_add(offset as u64).wrapping_add(value as u64))
            };
            if let (Some(site), Some(target)) = (relative(0), relative(4)) {
                let code = |address| image.region(address).is_some_and(|region| region.code);
                if code(site) && code(target) {
                    self.jumps.entry(site).or_default().push(target);
                }
            }
        }
    }
}

/// Offsets of the fields of one `struct alt_instr`.
#[derive(Clone, Copy)]
struct Layout {
    feature: usize,
    flags: Option<usize>,
    len: usize,
    replacement_len: usize,
}

impl Layout {
    fn entry(self, entry: &[u8], at: u64) -> Option<(u64, Alternative)> {
        // ALTINSTR_FLAG_INV was bit 15 of the feature before the flags had a word of their own, where ALT_FLAG_NOT is bit 0.
        const INVERTED: u16 = 1 << 15;
        const NOT: u16 = 1;
        let site = at.wrapping_add(i32_at(entry, 0)? as u64);
        let replacement = at.wrapping_add(4).wrapping_add(i32_at(entry, 4)? as u64);
        let word = u16_at(entry, self.feature)?;
        let inverted = match self.flags {
            Some(flags) => u16_at(entry, flags)? & NOT != 0,
            None => word & INVERTED != 0,
        };
        let replaces = u32::from(*entry.get(self.len)?);
        let len = u32::from(*entry.get(self.replacement_len)?);
        Some((
            site,
            Alternative {
                replacement: Replacement { at: replacement, len, replaces },
                feature: word & !INVERTED,
                inverted,
            },
        ))
    }
}
/// Whether the handler of an exception table entry itself writes registers that the code behind the fixup reads. The way through the
/// fixup is left out then: seen without the handler, it would read what the straight way writes.
///
/// Types and operands: arch/x86/include/asm/extable_fixup_types.h, since commit 46d28947d987 (v5.16). Before, the same
/// word was the distance to a handler, which never has the upper half of such an immediate.
fn handler_writes(entry: &[u8]) -> bool {
    const WRITES: [u8; 6] = [
        9,  // EX_TYPE_RDMSR
        10, // EX_TYPE_WRMSR_SAFE
        11, // EX_TYPE_RDMSR_SAFE
        16, // EX_TYPE_POP_REG
        17, // EX_TYPE_IMM_REG
        20, // EX_TYPE_ZEROPAD
    ];
    const IMMEDIATES: std::ops::RangeInclusive<i16> = -64..=8;
    let Some(&[kind, _, low, high]) = entry.get(8..12) else { return false };
    WRITES.contains(&kind) && IMMEDIATES.contains(&i16::from_le_bytes([low, high]))
}
