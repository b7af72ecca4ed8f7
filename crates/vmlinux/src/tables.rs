//! The tables that the kernel's build leaves in the image about its own code.
//!
//! Each reader takes an [`Image`] and gives a [`Table`]: the entries that make sense and a gap for what
//! does not. Layouts that changed over time are probed: the one under which the entries point into
//! code is the one that was used. No reader knows what the entries are good for.

pub mod alternatives;
pub mod bugs;
pub mod ex_table;
pub mod jump_labels;
pub mod orc;
pub mod paravirt;
pub mod sites;
pub mod static_calls;

use crate::Gap;
use crate::bytes::i32_at;
use crate::image::{Image, TableBytes};

/// The entries of one table, in its order, and what could not be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// What is missing, and why. An image without the table has no entries and no gap.
    pub gaps: Vec<Gap>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { entries: Vec::new(), gaps: Vec::new() }
    }
}

impl<'a, T> IntoIterator for &'a Table<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl<T> Table<T> {
    /// Reads entries of `size` bytes; `parse` gets the address of the entry and its bytes, and says no
    /// to what cannot be an entry.
    fn parse(
        name: &str,
        bytes: Option<TableBytes<'_>>,
        size: usize,
        mut parse: impl FnMut(u64, &[u8]) -> Option<T>,
    ) -> Table<T> {
        let mut table = Table::default();
        let Some(TableBytes { address, data }) = bytes else { return table };
        let mut refused = 0usize;
        for (i, entry) in data.chunks_exact(size).enumerate() {
            match parse(address.wrapping_add((i * size) as u64), entry) {
                Some(entry) => table.entries.push(entry),
                None => refused += 1,
            }
        }
        if refused > 0 {
            let why = format!("{refused} of {} entries point nowhere", data.len() / size);
            table.gaps.push(Gap::at(name, address, why));
        }
        if data.len() % size != 0 {
            let why = format!("its length {} is no multiple of {size}", data.len());
            table.gaps.push(Gap::at(name, address, why));
        }
        table
    }
}

/// The target of the place-relative 32-bit pointer at `offset` of an entry at `address`.
fn relative(address: u64, entry: &[u8], offset: usize) -> Option<u64> {
    let place = address.wrapping_add(offset as u64);
    Some(place.wrapping_add_signed(i64::from(i32_at(entry, offset)?)))
}

/// How many of the first entries of `size` bytes satisfy `fits`, out of how many were looked at. Probes
/// compare the shares of rival layouts.
fn share(bytes: TableBytes<'_>, size: usize, fits: impl Fn(u64, &[u8]) -> bool) -> (usize, usize) {
    const SAMPLE: usize = 2000;
    let entries = bytes.data.chunks_exact(size).take(SAMPLE).enumerate();
    let fitting =
        |(i, entry): (usize, &[u8])| fits(bytes.address.wrapping_add((i * size) as u64), entry);
    let looked = (bytes.data.len() / size).min(SAMPLE);
    (entries.filter(|&e| fitting(e)).count(), looked)
}

/// `count` of `total` is nine tenths or more.
fn most((count, total): (usize, usize)) -> bool {
    total > 0 && count * 10 >= total * 9
}

/// A target that holds code in `image`, or lies in discarded code: `.init.text` of an image that has it
/// no more is no reason to drop an entry, so only addresses outside every section are refused.
fn in_code(image: &Image<'_>, address: u64) -> bool {
    image.is_code(address)
}
