//! The kernel's own symbol table, found by its structure in an image that has no other.
//!
//! scripts/kallsyms.c writes the tables, kernel/kallsyms.c reads them. Nothing points at them in a
//! stripped image, so the search starts at what cannot be anything else, the token table, and goes on
//! to the others by their mutual constraints. All layouts since v4.6 are told apart by the bytes:
//!
//! - order: `offsets, relative_base, num_syms, names, markers, [seqs_of_names,] token_table,
//!   token_index` and, since commit 404bad70fcf7 (v6.5), `num_syms, names, markers, token_table,
//!   token_index, offsets, relative_base, seqs_of_names`;
//! - markers and `num_syms` of 32 bits, or of 64 bits before v4.20;
//! - lengths of one byte, or of two for long names, since commit 73bbb94466fb (v6.1);
//! - offsets from a base; or absolute when not negative and downwards from the base when negative
//!   (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`, until v6.14); or relative to the table; or plain addresses.

use memchr::memmem;

use crate::Gap;
use crate::bytes::{i32_at, u16_at, u32_at, u64_at};
use crate::elf::Elf;
use crate::symbols::{SymbolBuilder, SymbolTable};

/// No kernel has more symbols; an allyesconfig has about a million.
const MAX_SYMBOLS: u64 = 1 << 23;
/// Symbols per marker.
const GROUP: usize = 256;

/// Finds and decodes the tables in an ELF image. The gap says how far the search came.
pub fn find(elf: &Elf<'_>) -> Result<SymbolTable, Gap> {
    let mut best = Gap::new("kallsyms", "there is no token table in the image");
    let mut budget = Budget::for_image(elf.bytes());
    for segment in elf.segments() {
        match find_in(segment.data, segment.address, &mut budget) {
            Ok(table) => return Ok(table),
            Err(Some(gap)) => best = gap,
            Err(None) => {}
        }
    }
    if elf.segments().is_empty() {
        return find_in(elf.bytes(), 0, &mut budget).map_err(|gap| gap.unwrap_or(best));
    }
    Err(best)
}

/// Steps that the search may still take, so that an image made to look like tables everywhere ends
/// the search instead of stretching it. A real image takes a thousandth of it.
#[derive(Debug)]
struct Budget(usize);

impl Budget {
    fn for_image(image: &[u8]) -> Budget {
        Budget(image.len().saturating_mul(4).saturating_add(64 << 20))
    }

    fn take(&mut self, steps: usize) -> Option<()> {
        self.0 = self.0.checked_sub(steps)?;
        Some(())
    }
}

/// As [`find`], in the bytes of one segment linked at `address`.
fn find_in(image: &[u8], address: u64, budget: &mut Budget) -> Result<SymbolTable, Option<Gap>> {
    // Digits stand for themselves in the token table, since symbols contain all ten.
    const DIGITS: &[u8] = b"\x000\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
    let mut last = None;
    for hit in memmem::find_iter(image, DIGITS) {
        let Some(tokens) = TokenTable::around(image, hit + 1) else {
            continue;
        };
        match Names::find(image, &tokens, budget) {
            None => {
                last = Some(Gap::at(
                    "kallsyms",
                    tokens.start as u64,
                    "no names lie before its token table",
                ));
            }
            Some(names) => match Addresses::find(image, address, &tokens, &names) {
                None => {
                    last = Some(Gap::at(
                        "kallsyms",
                        names.start as u64,
                        format!("no addresses fit its {} names", names.count),
                    ));
                }
                Some(addresses) => return Ok(decode(image, &tokens, &names, &addresses)),
            },
        }
    }
    Err(last)
}

/// The 256 strings that the bytes of a compressed name stand for.
#[derive(Debug)]
struct TokenTable {
    start: usize,
    /// End of `kallsyms_token_index`.
    end: usize,
    /// Start and length of each token in the image.
    tokens: Vec<(usize, usize)>,
}

impl TokenTable {
    /// The table whose token for `0` stands at `zero`.
    fn around(image: &[u8], zero: usize) -> Option<TokenTable> {
        let mut end = zero;
        for _ in usize::from(b'0')..256 {
            end += memchr::memchr(0, image.get(end..end.checked_add(64)?.min(image.len()))?)? + 1;
        }
        // The index follows, aligned to 4 or 8 bytes.
        (end..end + 8).find_map(|index| Self::with_index(image, zero, end, index))
    }

    fn with_index(image: &[u8], zero: usize, end: usize, index: usize) -> Option<TokenTable> {
        let entry = |i: usize| u16_at(image, index + 2 * i).map(usize::from);
        if entry(0)? != 0 {
            return None;
        }
        let start = zero.checked_sub(entry(usize::from(b'0'))?)?;
        let mut tokens = Vec::with_capacity(256);
        for i in 0..256 {
            let from = start + entry(i)?;
            let to = if i == 255 { end } else { start + entry(i + 1)? };
            let token = image.get(from..to)?;
            let (last, text) = token.split_last()?;
            if *last != 0 || text.contains(&0) {
                return None;
            }
            tokens.push((from, text.len()));
        }
        Some(TokenTable { start, end: index + 512, tokens })
    }

    fn expand(&self, image: &[u8], compressed: &[u8], into: &mut Vec<u8>) {
        into.clear();
        for &byte in compressed {
            if let Some(&(start, length)) = self.tokens.get(usize::from(byte)) {
                into.extend_from_slice(image.get(start..start + length).unwrap_or_default());
            }
        }
    }
}

/// The compressed names: one or two bytes of length, then that many tokens.
#[derive(Debug)]
struct Names {
    start: usize,
    count: usize,
    /// Where `kallsyms_num_syms` stands.
    count_at: usize,
    /// Lengths of 128 and more take two bytes.
    long_lengths: bool,
}

impl Names {
    fn find(image: &[u8], tokens: &TokenTable, budget: &mut Budget) -> Option<Names> {
        // Markers end where the token table begins, or where `kallsyms_seqs_of_names` begins (three
        // bytes a symbol; v6.2 to v6.4), so the run of markers is looked for backwards.
        let lowest = tokens.start.saturating_sub(3 * MAX_SYMBOLS as usize / 4);
        let mut at = tokens.start & !3;
        while at >= lowest.max(8) {
            at -= 4;
            budget.take(1)?;
            if u32_at(image, at) != Some(0) {
                continue;
            }
            let found = Self::with_markers(image, tokens, at, 4, budget)
                .or_else(|| Self::with_markers(image, tokens, at, 8, budget));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Tries `at` as the first marker, each `width` bytes wide.
    fn with_markers(
        image: &[u8],
        tokens: &TokenTable,
        at: usize,
        width: usize,
        budget: &mut Budget,
    ) -> Option<Names> {
        let marker = |i: usize| -> Option<u64> {
            let at = at + i * width;
            if at + width > tokens.start {
                return None;
            }
            if width == 4 { u32_at(image, at).map(u64::from) } else { u64_at(image, at) }
        };
        // A name takes two bytes at least and some forty on average; `plausible` only prunes.
        let plausible = |from: u64, to: u64| {
            (2 * GROUP as u64..=256 * GROUP as u64).contains(&to.wrapping_sub(from))
        };
        let (mut run, mut last) = (1, 0);
        while let Some(next) = marker(run).filter(|&m| plausible(last, m)) {
            last = next;
            run += 1;
        }
        budget.take(run)?;
        // The names end right before the markers; where they start, the number of symbols stands in
        // front. The run may have gone too far, into what follows the markers.
        for markers in [run, run - 1, run.saturating_sub(2)] {
            let Some(last) = markers.checked_sub(1).and_then(marker) else {
                continue;
            };
            // Between the last marker and the token table lies nothing but alignment, or one sequence
            // number of three bytes per symbol. This ends nearly all false starts.
            let between = tokens.start.checked_sub(at + markers * width)?;
            let fewest = 3 * ((markers - 1) * GROUP + 1);
            if between >= 16 && !(fewest..3 * markers * GROUP + 16).contains(&between) {
                continue;
            }
            let latest = at.checked_sub(usize::try_from(last).ok()?)?;
            let earliest = latest.saturating_sub(GROUP * 256);
            let mut start = latest & !3;
            while start > earliest.max(8) {
                budget.take(1)?;
                let found = Self::at(image, start, (at, markers, width), between, budget);
                if found.is_some() {
                    return found;
                }
                start -= 4;
            }
        }
        None
    }

    fn at(
        image: &[u8],
        start: usize,
        (markers_at, markers, width): (usize, usize, usize),
        between: usize,
        budget: &mut Budget,
    ) -> Option<Names> {
        // Aligned to 8 bytes, the 32-bit count is followed by four bytes of zeros.
        for (count_at, narrow) in [(start.checked_sub(8)?, false), (start.checked_sub(4)?, true)] {
            let count =
                if narrow { u64::from(u32_at(image, count_at)?) } else { u64_at(image, count_at)? };
            let groups = count.div_ceil(GROUP as u64);
            if count == 0 || count > MAX_SYMBOLS || groups != markers as u64 {
                continue;
            }
            let count = count as usize;
            if between >= 16 && !(3 * count..3 * count + 16).contains(&between) {
                continue;
            }
            for long_lengths in [true, false] {
                let names = Names { start, count, count_at, long_lengths };
                if names.fits(image, markers_at, width, budget)? {
                    return Some(names);
                }
            }
        }
        None
    }

    /// All names end before the markers, and each marker is where its group starts.
    fn fits(
        &self,
        image: &[u8],
        markers_at: usize,
        width: usize,
        budget: &mut Budget,
    ) -> Option<bool> {
        let mut at = self.start;
        for i in 0..self.count {
            if i % GROUP == 0 {
                let marker_at = markers_at + i / GROUP * width;
                let marker = if width == 4 {
                    u32_at(image, marker_at).map(u64::from)
                } else {
                    u64_at(image, marker_at)
                };
                if marker != Some((at - self.start) as u64) {
                    return Some(false);
                }
                budget.take(GROUP)?;
            }
            match self.name_at(image, at) {
                Some((name, next)) if !name.is_empty() && next <= markers_at => at = next,
                _ => return Some(false),
            }
        }
        Some(markers_at - at < 16)
    }

    /// The compressed name at `at`, and where the next one starts.
    fn name_at<'d>(&self, image: &'d [u8], at: usize) -> Option<(&'d [u8], usize)> {
        let first = usize::from(*image.get(at)?);
        let (length, start) = if self.long_lengths && first & 0x80 != 0 {
            ((first & 0x7f) | usize::from(*image.get(at + 1)?) << 7, at + 2)
        } else {
            (first, at + 1)
        };
        Some((image.get(start..start + length)?, start + length))
    }
}

/// How the address of symbol `i` is written.
#[derive(Debug, Clone, Copy)]
enum Encoding {
    /// `base + offset`, unsigned.
    Base(u64),
    /// `offset` when it is not negative, else `base - 1 - offset`.
    AbsolutePerCpu(u64),
    /// The address of the entry plus its signed value.
    Place(u64),
    /// 64-bit addresses.
    Plain,
}

#[derive(Debug)]
struct Addresses {
    start: usize,
    encoding: Encoding,
}

impl Addresses {
    fn find(image: &[u8], link: u64, tokens: &TokenTable, names: &Names) -> Option<Addresses> {
        let offsets_size = names.count.checked_mul(4)?;
        let mut candidates = Vec::new();
        for pad in [0usize, 4] {
            // Newer order: behind the token index; the base follows the offsets, aligned.
            let after = tokens.end.next_multiple_of(8) + pad;
            let base_at = (after + offsets_size).next_multiple_of(8);
            if let Some(base) = u64_at(image, base_at) {
                candidates.push((after, Encoding::Base(base)));
                candidates.push((after, Encoding::AbsolutePerCpu(base)));
            }
            candidates.push((after, Encoding::Place(link.wrapping_add(after as u64))));
            // Older order: the base stands before the number of symbols, the offsets before the base.
            let Some(base_at) = names.count_at.checked_sub(8 + pad) else {
                continue;
            };
            let offsets = |padding: usize| base_at.checked_sub(offsets_size + padding);
            if let Some(base) = u64_at(image, base_at) {
                for at in [offsets(offsets_size % 8), offsets(0)].into_iter().flatten() {
                    candidates.push((at, Encoding::AbsolutePerCpu(base)));
                    candidates.push((at, Encoding::Base(base)));
                }
            }
            if let Some(at) = names.count_at.checked_sub(pad + names.count * 8) {
                candidates.push((at, Encoding::Plain));
            }
        }
        candidates
            .into_iter()
            .map(|(start, encoding)| Addresses { start, encoding })
            .find(|a| a.fit(image, names.count))
    }

    /// Addresses ascend, and most of them are addresses of the kernel image (the topmost 2 GiB).
    fn fit(&self, image: &[u8], count: usize) -> bool {
        const IMAGE: u64 = 0xffff_ffff_8000_0000;
        let (mut last, mut inside) = (0, 0);
        for i in 0..count {
            match self.get(image, i) {
                Some(address) if address >= last => {
                    inside += usize::from(address >= IMAGE);
                    last = address;
                }
                _ => return false,
            }
        }
        inside * 2 > count
    }

    fn get(&self, image: &[u8], i: usize) -> Option<u64> {
        let at = self.start + i * 4;
        match self.encoding {
            Encoding::Base(base) => base.checked_add(u64::from(u32_at(image, at)?)),
            Encoding::AbsolutePerCpu(base) => match i32_at(image, at)? {
                offset @ 0.. => Some(offset as u64),
                offset => base.checked_add(u64::from(!offset.cast_unsigned())),
            },
            Encoding::Place(start) => Some(
                start.wrapping_add(i as u64 * 4).wrapping_add_signed(i64::from(i32_at(image, at)?)),
            ),
            Encoding::Plain => u64_at(image, self.start + i * 8),
        }
    }
}

fn decode(image: &[u8], tokens: &TokenTable, names: &Names, addresses: &Addresses) -> SymbolTable {
    let mut builder = SymbolBuilder::with_capacity(names.count, names.count * 24);
    let mut at = names.start;
    let mut text = Vec::new();
    for i in 0..names.count {
        let (Some((name, next)), Some(address)) =
            (names.name_at(image, at), addresses.get(image, i))
        else {
            break;
        };
        tokens.expand(image, name, &mut text);
        if let Some((&kind, name)) = text.split_first() {
            builder.push(name, address, 0, kind);
        }
        at = next;
    }
    builder.finish_in_order()
}
