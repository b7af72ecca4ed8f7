//! ORC: where the return address and the frame pointer of the caller are, for every code address.
//!
//! `.orc_unwind_ip` holds the addresses, `.orc_unwind` six bytes for each: two offsets and a word of bit
//! fields that changed twice (arch/x86/include/asm/orc_types.h): `type:2, end:1` at first; `type:2,
//! signal:1, end:1` since commit ffb1b4a41016 (v6.3); `type:3, signal:1` since commit fb799447ae29
//! (v6.4), where the numbers of the types changed, too. The numbers of the registers changed later (seen
//! in v7.2). Both are read off the entries themselves.

use super::relative;
use crate::Gap;
use crate::bytes::u16_at;
use crate::image::Image;

/// What the stack pointer of the caller is computed from (`ORC_REG_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrcRegister {
    /// Not known.
    Undefined,
    /// The caller's stack pointer.
    PreviousSp,
    /// RAX.
    Ax,
    /// RDX.
    Dx,
    /// RDI.
    Di,
    /// RBP.
    Bp,
    /// RSP.
    Sp,
    /// R10.
    R10,
    /// R13.
    R13,
    /// The memory at RBP plus the offset.
    BpIndirect,
    /// The memory at RSP, plus the offset.
    SpIndirect,
    /// A number that no known kernel uses.
    Unknown(u8),
}

impl OrcRegister {
    fn from_bits(numbering: Numbering, bits: u16) -> OrcRegister {
        match (numbering, bits & 0xf) {
            (_, 0) => OrcRegister::Undefined,
            (_, 2) => OrcRegister::Dx,
            (_, 4) => OrcRegister::Bp,
            (_, 6) => OrcRegister::R10,
            (_, 7) => OrcRegister::R13,
            (_, 9) => OrcRegister::SpIndirect,
            (Numbering::First, 1) => OrcRegister::PreviousSp,
            (Numbering::First, 3) => OrcRegister::Di,
            (Numbering::First, 5) => OrcRegister::Sp,
            (Numbering::First, 8) => OrcRegister::BpIndirect,
            (Numbering::Second, 1) => OrcRegister::Ax,
            (Numbering::Second, 3) => OrcRegister::Sp,
            (Numbering::Second, 5) => OrcRegister::Di,
            (Numbering::Second, 8) => OrcRegister::PreviousSp,
            (Numbering::Second, 10) => OrcRegister::BpIndirect,
            (_, other) => OrcRegister::Unknown(other as u8),
        }
    }
}

/// Which number means which register; the two differ in the one that nearly all entries use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// RSP is 5.
    First,
    /// RSP is 3.
    Second,
}

/// What lies at the stack pointer that was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrcKind {
    /// Nothing is known here.
    Undefined,
    /// The stack ends here.
    EndOfStack,
    /// A return address below it.
    Call,
    /// A `struct pt_regs`.
    Regs,
    /// The part of a `struct pt_regs` that the CPU pushes.
    RegsPartial,
}

/// How to go from one code address to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrcEntry {
    /// First address that it holds for.
    pub address: u64,
    /// Offset from `sp_register` to the caller's stack pointer, in bytes.
    pub sp_offset: i16,
    /// Offset from `bp_register` to the saved frame pointer, in bytes.
    pub bp_offset: i16,
    /// Base of the stack pointer.
    pub sp_register: OrcRegister,
    /// Base of the frame pointer.
    pub bp_register: OrcRegister,
    /// What is found there.
    pub kind: OrcKind,
    /// The frame was interrupted rather than calling, where the layout tells.
    pub signal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `type:2, end:1`
    First,
    /// `type:2, signal:1, end:1`
    Signal,
    /// `type:3, signal:1`
    WideType,
}

/// The ORC tables of an image. Lookups read the sections in place.
#[derive(Debug, Clone)]
pub struct OrcTable<'a> {
    address: u64,
    ips: &'a [u8],
    entries: &'a [u8],
    layout: Layout,
    numbering: Numbering,
    /// Indices by address, for a table that the build did not sort (before v5.6, and in modules).
    order: Option<Vec<u32>>,
}

impl<'a> OrcTable<'a> {
    /// Finds the tables. `Ok(None)` when the kernel has none.
    pub fn find(image: &'a Image<'_>) -> Result<Option<OrcTable<'a>>, Gap> {
        let ips = image.table(".orc_unwind_ip", ("__start_orc_unwind_ip", "__stop_orc_unwind_ip"));
        let entries = image.table(".orc_unwind", ("__start_orc_unwind", "__stop_orc_unwind"));
        let (ips, entries) = match (ips, entries) {
            (Some(ips), Some(entries)) => (ips, entries),
            (None, None) => return Ok(None),
            _ => return Err(Gap::new(".orc_unwind", "one of its two sections is missing")),
        };
        let count = ips.data.len() / 4;
        if count != entries.data.len() / 6 {
            let why = format!("{count} addresses but {} entries", entries.data.len() / 6);
            return Err(Gap::at(".orc_unwind", entries.address, why));
        }
        let (layout, numbering) = probe(entries.data);
        let mut table = OrcTable {
            address: ips.address,
            ips: ips.data,
            entries: entries.data,
            layout,
            numbering,
            order: None,
        };
        let sorted = (1..count).all(|i| table.ip(i - 1) <= table.ip(i));
        if !sorted {
            let mut order: Vec<u32> = (0..count as u32).collect();
            order.sort_by_key(|&i| table.ip(i as usize));
            table.order = Some(order);
        }
        Ok(Some(table))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ips.len() / 4
    }

    /// There is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry that holds for the code at `address`.
    pub fn lookup(&self, address: u64) -> Option<OrcEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ip(self.nth(middle)?)? <= address { low = middle + 1 } else { high = middle }
        }
        self.entry(self.nth(low.checked_sub(1)?)?)
    }

    /// All entries by address.
    pub fn iter(&self) -> impl Iterator<Item = OrcEntry> + '_ {
        (0..self.len()).filter_map(|i| self.entry(self.nth(i)?))
    }

    fn nth(&self, i: usize) -> Option<usize> {
        match &self.order {
            Some(order) => order.get(i).map(|&i| i as usize),
            None => Some(i),
        }
    }

    fn ip(&self, i: usize) -> Option<u64> {
        let at = self.address.wrapping_add(i as u64 * 4);
        relative(at, self.ips.get(i * 4..)?, 0)
    }

    fn entry(&self, i: usize) -> Option<OrcEntry> {
        let at = i * 6;
        let bits = u16_at(self.entries, at + 4)?;
        let (kind, signal) = kind(self.layout, bits);
        Some(OrcEntry {
            address: self.ip(i)?,
            sp_offset: u16_at(self.entries, at)?.cast_signed(),
            bp_offset: u16_at(self.entries, at + 2)?.cast_signed(),
            sp_register: OrcRegister::from_bits(self.numbering, bits),
            bp_register: OrcRegister::from_bits(self.numbering, bits >> 4),
            kind,
            signal,
        })
    }
}

fn kind(layout: Layout, bits: u16) -> (OrcKind, bool) {
    let flag = |bit: u16| bits >> bit & 1 != 0;
    let narrow = |end: bool| match bits >> 8 & 3 {
        _ if end => OrcKind::EndOfStack,
        _ if bits & 0xf == 0 => OrcKind::Undefined,
        0 => OrcKind::Call,
        1 => OrcKind::Regs,
        _ => OrcKind::RegsPartial,
    };
    match layout {
        Layout::First => (narrow(flag(10)), false),
        Layout::Signal => (narrow(flag(11)), flag(10)),
        Layout::WideType => {
            let kind = match bits >> 8 & 7 {
                0 => OrcKind::Undefined,
                1 => OrcKind::EndOfStack,
                2 => OrcKind::Call,
                3 => OrcKind::Regs,
                _ => OrcKind::RegsPartial,
            };
            (kind, flag(11))
        }
    }
}

/// Nearly all entries are calls, so their number tells the numbering of the types, and nearly all of
/// them start from RSP. The bit above the second form is set in the entries of the idle tasks and
/// nowhere in the first form.
fn probe(entries: &[u8]) -> (Layout, Numbering) {
    let (mut calls_first, mut calls_wide, mut bit_11) = (0usize, 0usize, false);
    let (mut sp_first, mut sp_second) = (0usize, 0usize);
    for bits in entries.chunks_exact(6).filter_map(|e| u16_at(e, 4)) {
        calls_first += usize::from(bits & 0xf != 0 && bits >> 8 & 3 == 0);
        calls_wide += usize::from(bits >> 8 & 7 == 2);
        bit_11 |= bits >> 11 & 1 != 0;
        sp_first += usize::from(bits & 0xf == 5);
        sp_second += usize::from(bits & 0xf == 3);
    }
    let layout = match () {
        () if calls_wide > calls_first => Layout::WideType,
        () if bit_11 => Layout::Signal,
        () => Layout::First,
    };
    (layout, if sp_second > sp_first { Numbering::Second } else { Numbering::First })
}
