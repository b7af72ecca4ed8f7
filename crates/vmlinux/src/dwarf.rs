//! Source lines and inlined functions of code addresses, from DWARF.
//!
//! A kernel has thousands of compilation units and hundreds of MB of DWARF; a trace touches some thirty
//! units. So only `.debug_aranges` is read up front, and each unit that an address falls into is read by
//! itself, as if it were the only one. [`DebugSections`] owns what had to be unpacked or relocated,
//! [`Lines`] answers questions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;

use gimli::{
    DebugInfoOffset, EndianSlice, LittleEndian, Section as _, SectionId, UnitSectionOffset,
};

use crate::Gap;
use crate::bytes::{u32_at, u64_at};
use crate::elf::{Elf, Section};
use crate::image::Image;
use crate::module::relocated;

pub(crate) type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// The debug sections of one file, readable in place where that is possible.
#[derive(Debug, Clone)]
pub struct DebugSections<'d> {
    /// By name, without a leading `.` or `.z`.
    sections: HashMap<&'d str, Cow<'d, [u8]>>,
    gaps: Vec<Gap>,
}

impl<'d> DebugSections<'d> {
    /// The sections of a linked file. `None` when it has no DWARF; ask for its split debug file by
    /// [`Elf::build_id`] then, and check that it has the same one.
    pub fn of(elf: &Elf<'d>) -> Option<DebugSections<'d>> {
        let (sections, gaps) = collect(elf, |_, data| data);
        sections.contains_key("debug_info").then_some(DebugSections { sections, gaps })
    }

    /// The sections of a module, or of its split debug file, related to the addresses of `image`
    /// ([`crate::module::link`]).
    pub fn of_module(elf: &Elf<'d>, image: &Image<'_>) -> Option<DebugSections<'d>> {
        let mut bases: Vec<u64> = vec![0; elf.sections().len()];
        for section in elf.sections() {
            // A split debug file keeps the section table of the module, so the index agrees; the name is
            // compared in case it does not.
            let same = image
                .sections()
                .iter()
                .find(|s| s.index == section.index && s.name == section.name);
            if let (Some(same), Some(base)) = (same, bases.get_mut(section.index)) {
                *base = same.address;
            }
        }
        let mut values = vec![0];
        values
            .extend(elf.symbols().map(|s| {
                bases.get(s.section as usize).copied().unwrap_or(0).wrapping_add(s.value)
            }));
        let mut tables: HashMap<usize, Vec<_>> = HashMap::new();
        for table in elf.relocation_tables() {
            tables.entry(table.target).or_default().push(table);
        }
        let (sections, gaps) = collect(elf, |section, mut data| {
            let relocations =
                tables.get(&section.index).into_iter().flatten().flat_map(|t| t.relocations());
            for r in relocations {
                let Some(&symbol) = values.get(r.symbol as usize) else { continue };
                let Some((value, width)) = relocated(&r, symbol, r.offset) else { continue };
                let range =
                    usize::try_from(r.offset).ok().and_then(|at| Some(at..at.checked_add(width)?));
                let target = range.and_then(|range| data.to_mut().get_mut(range));
                if let (Some(target), Some(value)) = (target, value.to_le_bytes().get(..width)) {
                    target.copy_from_slice(value);
                }
            }
            data
        });
        sections.contains_key("debug_info").then_some(DebugSections { sections, gaps })
    }

    /// What could not be read.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The sections as gimli wants them; missing ones are empty.
    pub(crate) fn dwarf(&self) -> gimli::Dwarf<Reader<'_>> {
        let load = |id: SectionId| -> Result<Reader<'_>, std::convert::Infallible> {
            let name = id.name().trim_start_matches('.');
            let data = self.sections.get(name).map(|d| &**d).unwrap_or_default();
            Ok(EndianSlice::new(data, LittleEndian))
        };
        match gimli::Dwarf::load(load) {
            Ok(dwarf) => dwarf,
        }
    }

    /// Opens the line information.
    pub fn lines(&self) -> Lines<'_> {
        let dwarf = self.dwarf();
        let ranges = address_ranges(&dwarf);
        let state = State { units: HashMap::new(), rest: None };
        Lines { dwarf, ranges, state: Mutex::new(state) }
    }
}

/// Debug sections by name; `finish` may change the bytes of each.
fn collect<'d>(
    elf: &Elf<'d>,
    mut finish: impl FnMut(&Section<'d>, Cow<'d, [u8]>) -> Cow<'d, [u8]>,
) -> (HashMap<&'d str, Cow<'d, [u8]>>, Vec<Gap>) {
    let mut gaps = Vec::new();
    let mut sections = HashMap::new();
    for section in elf.sections() {
        let name = section.name.trim_start_matches('.');
        let name = name.strip_prefix('z').filter(|n| n.starts_with("debug_")).unwrap_or(name);
        if !name.starts_with("debug_") || sections.contains_key(name) {
            continue;
        }
        let Some(data) = section.data else {
            continue;
        };
        match unpack(section, data) {
            Ok(data) => {
                sections.insert(name, finish(section, data));
            }
            Err(why) => gaps.push(Gap::new(section.name, why)),
        }
    }
    (sections, gaps)
}

/// SHF_COMPRESSED sections start with a header (gABI); `.zdebug_*` with `ZLIB` and a length.
fn unpack<'d>(section: &Section<'_>, data: &'d [u8]) -> Result<Cow<'d, [u8]>, &'static str> {
    const SHF_COMPRESSED: u64 = 1 << 11;
    const LIMIT: u64 = 4 << 30;
    let damaged = "its compressed data is damaged";
    let (kind, size, packed) = if section.flags & SHF_COMPRESSED != 0 {
        let kind = u32_at(data, 0).ok_or(damaged)?;
        (kind, u64_at(data, 8).ok_or(damaged)?, data.get(24..).ok_or(damaged)?)
    } else if section.name.starts_with(".z") && data.starts_with(b"ZLIB") {
        let size = crate::bytes::array_at(data, 4).map(u64::from_be_bytes).ok_or(damaged)?;
        (1, size, data.get(12..).ok_or(damaged)?)
    } else {
        return Ok(Cow::Borrowed(data));
    };
    if size > LIMIT {
        return Err("it claims to unpack to more than 4 GiB");
    }
    let mut out = Vec::with_capacity(usize::try_from(size).unwrap_or(0).min(packed.len() * 16));
    let read = match kind {
        1 => flate2::read::ZlibDecoder::new(packed).take(size).read_to_end(&mut out),
        2 => ruzstd::decoding::StreamingDecoder::new(packed)
            .map_err(|_| damaged)?
            .take(size)
            .read_to_end(&mut out),
        _ => return Err("it is compressed by a method that is not known here"),
    };
    match read {
        Ok(_) if out.len() as u64 == size => Ok(Cow::Owned(out)),
        _ => Err(damaged),
    }
}

/// A range of code, and the offset in `.debug_info` of the unit that it was compiled in.
#[derive(Debug, Clone, Copy)]
struct UnitRange {
    start: u64,
    end: u64,
    unit: usize,
}

/// Reads `.debug_aranges`; a damaged set ends the reading, and its units are found by the slow way.
fn address_ranges(dwarf: &gimli::Dwarf<Reader<'_>>) -> Vec<UnitRange> {
    let mut ranges = Vec::new();
    let mut headers = dwarf.debug_aranges.headers();
    while let Ok(Some(header)) = headers.next() {
        let unit = header.debug_info_offset().0;
        let mut entries = header.entries();
        while let Ok(Some(entry)) = entries.next() {
            let range = entry.range();
            // Discarded code keeps its entries, at address 0.
            if range.begin != 0 && range.begin < range.end {
                ranges.push(UnitRange { start: range.begin, end: range.end, unit });
            }
        }
    }
    ranges.sort_unstable_by_key(|r| (r.start, r.end));
    ranges
}

fn find(ranges: &[UnitRange], address: u64) -> Option<usize> {
    let after = ranges.partition_point(|r| r.start <= address);
    // Ranges of sound files do not overlap; a few are looked at in case they do.
    let candidates = ranges.get(..after)?.iter().rev().take(8);
    candidates.into_iter().find(|r| address < r.end).map(|r| r.unit)
}

/// One function of an inline chain, with the place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFrame {
    /// Name of the function, when it is known.
    pub function: Option<String>,
    /// Path as the compiler was given it, with its directory.
    pub file: Option<String>,
    /// Line; for all but the innermost frame, that of the inlined call.
    pub line: Option<u32>,
    /// Column, where the compiler gave one.
    pub column: Option<u32>,
}

/// Answers which source lines an address belongs to.
pub struct Lines<'a> {
    dwarf: gimli::Dwarf<Reader<'a>>,
    ranges: Vec<UnitRange>,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    /// `None` for a unit that cannot be read.
    units: HashMap<usize, Option<addr2line::Context<Reader<'a>>>>,
    /// Ranges of the units that `.debug_aranges` does not know; clang leaves it out.
    rest: Option<Vec<UnitRange>>,
}

impl std::fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("ranges", &self.ranges.len()).finish_non_exhaustive()
    }
}

/// Units kept in memory, each some 100 KB; questions about many addresses are best asked in order.
const KEPT_UNITS: usize = 256;

impl<'a> Lines<'a> {
    /// The frames at the link address `address`, innermost first: the functions inlined there, then
    /// the function itself. Empty when DWARF does not know the address. For a return address, ask for
    /// the byte before it.
    pub fn frames(&self, address: u64) -> Vec<SourceFrame> {
        // The last address has no byte behind it, which addr2line counts on.
        let Ok(mut state) = self.state.lock() else { return Vec::new() };
        if address == u64::MAX {
            return Vec::new();
        }
        let Some(unit) = find(&self.ranges, address).or_else(|| {
            let rest = state.rest.get_or_insert_with(|| self.ranges_of_the_rest());
            find(rest, address)
        }) else {
            return Vec::new();
        };
        if state.units.len() >= KEPT_UNITS && !state.units.contains_key(&unit) {
            state.units.clear();
        }
        match state.units.entry(unit).or_insert_with(|| self.context(unit)) {
            Some(context) => frames_in(context, address).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// A context that knows one unit, at offset 0 of a `.debug_info` of its own. References of a unit
    /// are relative to it; where a unit refers to others (link-time optimisation), all of them are read.
    fn context(&self, unit: usize) -> Option<addr2line::Context<Reader<'a>>> {
        let header = self.dwarf.debug_info.header_from_offset(DebugInfoOffset(unit)).ok()?;
        let abbreviations = self.dwarf.abbreviations(&header).ok()?;
        let refers_outside = (1u64..)
            .map_while(|code| abbreviations.get(code))
            .flat_map(|a| a.attributes())
            .any(|a| a.form() == gimli::DW_FORM_ref_addr);
        let shallow = if refers_outside {
            self.all_are_shallow()
        } else {
            is_shallow(&header, &abbreviations)
        };
        if !shallow.unwrap_or(false) {
            return None;
        }
        let info = self.dwarf.debug_info.reader().slice();
        let only = if refers_outside {
            info
        } else {
            info.get(unit..unit.checked_add(header.length_including_self())?)?
        };
        let d = &self.dwarf;
        let dwarf = gimli::Dwarf {
            debug_abbrev: d.debug_abbrev,
            debug_addr: d.debug_addr,
            debug_aranges: EndianSlice::new(&[], LittleEndian).into(),
            debug_info: gimli::DebugInfo::new(only, LittleEndian),
            debug_line: d.debug_line,
            debug_line_str: d.debug_line_str,
            debug_macinfo: d.debug_macinfo,
            debug_macro: d.debug_macro,
            debug_names: EndianSlice::new(&[], LittleEndian).into(),
            debug_str: d.debug_str,
            debug_str_offsets: d.debug_str_offsets,
            debug_types: d.debug_types,
            locations: d.locations,
            ranges: d.ranges,
            file_type: d.file_type,
            sup: None,
            abbreviations_cache: gimli::AbbreviationsCache::new(),
        };
        addr2line::Context::from_dwarf(dwarf).ok()
    }

    fn all_are_shallow(&self) -> gimli::Result<bool> {
        let mut headers = self.dwarf.units();
        while let Some(header) = headers.next()? {
            let abbreviations = self.dwarf.abbreviations(&header)?;
            if !is_shallow(&header, &abbreviations)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn ranges_of_the_rest(&self) -> Vec<UnitRange> {
        let known: std::collections::HashSet<usize> = self.ranges.iter().map(|r| r.unit).collect();
        let mut found = Vec::new();
        let mut headers = self.dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            let UnitSectionOffset(offset) = header.offset();
            if known.contains(&offset) {
                continue;
            }
            let Ok(unit) = self.dwarf.unit(header) else { continue };
            for (start, end) in unit_ranges(&self.dwarf, &unit).unwrap_or_default() {
                if start != 0 && start < end {
                    found.push(UnitRange { start, end, unit: offset });
                }
            }
        }
        found.sort_unstable_by_key(|r| (r.start, r.end));
        found
    }
}

/// Whether the entries of a unit nest no deeper than those of any program: addr2line recurses into them.
fn is_shallow(
    header: &gimli::UnitHeader<Reader<'_>>,
    abbreviations: &gimli::Abbreviations,
) -> gimli::Result<bool> {
    const DEEPEST: isize = 500;
    let mut entries = header.entries_raw(abbreviations, None)?;
    while !entries.is_empty() {
        if entries.next_depth() > DEEPEST {
            return Ok(false);
        }
        if let Some(abbreviation) = entries.read_abbreviation()? {
            entries.skip_attributes(abbreviation.attributes())?;
        }
    }
    Ok(true)
}

/// The code of a unit by its root entry. (`gimli::Dwarf::unit_ranges` overflows on damaged sizes.)
fn unit_ranges(
    dwarf: &gimli::Dwarf<Reader<'_>>,
    unit: &gimli::Unit<Reader<'_>>,
) -> gimli::Result<Vec<(u64, u64)>> {
    /// More ranges than any unit has; each takes two bytes of input at least.
    const MOST: usize = 1 << 20;
    let mut cursor = unit.entries();
    let Some(root) = cursor.next_dfs()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    if let Some(value) = root.attr_value(gimli::DW_AT_ranges) {
        if let Some(mut ranges) = dwarf.attr_ranges(unit, value)? {
            while let Some(range) = ranges.next()? {
                if found.len() == MOST {
                    break;
                }
                found.push((range.begin, range.end));
            }
        }
        return Ok(found);
    }
    let address = |name| match root.attr_value(name) {
        Some(value) => dwarf.attr_address(unit, value),
        None => Ok(None),
    };
    if let Some(low) = address(gimli::DW_AT_low_pc)? {
        let size = root.attr_value(gimli::DW_AT_high_pc).and_then(|v| v.udata_value());
        let high = match size {
            Some(size) => low.checked_add(size),
            None => address(gimli::DW_AT_high_pc)?,
        };
        found.extend(high.map(|high| (low, high)));
    }
    Ok(found)
}

fn frames_in(
    context: &addr2line::Context<Reader<'_>>,
    address: u64,
) -> Result<Vec<SourceFrame>, gimli::Error> {
    /// GCC inlines some thirty deep at most; the bound is for damaged files.
    const DEEPEST: usize = 256;
    let mut frames = Vec::new();
    let mut found = context.find_frames(address).skip_all_loads()?;
    while let Some(frame) = found.next()? {
        if frames.len() == DEEPEST {
            break;
        }
        let function = frame.function.as_ref().and_then(|f| f.raw_name().ok());
        let location = frame.location.as_ref();
        frames.push(SourceFrame {
            function: function.map(Cow::into_owned),
            // A build whose folders are mapped away has "." for the folder of its compilers.
            file: location
                .and_then(|l| l.file)
                .map(|file| file.strip_prefix("./").unwrap_or(file).to_owned()),
            line: location.and_then(|l| l.line),
            column: location.and_then(|l| l.column),
        });
    }
    Ok(frames)
}
