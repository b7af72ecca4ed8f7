//! `.parainstructions`: calls through `pv_ops` that are patched at boot (until v6.7, where commit
//! 60bc276b129e turned them into alternatives).

use super::{Table, in_code};
use crate::bytes::u64_at;
use crate::image::Image;

/// One patch site of `struct paravirt_patch_site` (arch/x86/include/asm/paravirt_types.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParavirtSite {
    /// Address of the indirect call.
    pub instruction: u64,
    /// Index of the operation in `struct paravirt_patch_template`, in pointers.
    pub operation: u8,
    /// Bytes that may be patched.
    pub length: u8,
}

/// Reads the paravirt patch sites.
pub fn paravirt_sites(image: &Image<'_>) -> Table<ParavirtSite> {
    const NAME: &str = ".parainstructions";
    const SIZE: usize = 16;
    let bytes = image.table(NAME, ("__parainstructions", "__parainstructions_end"));
    let parse = |_, entry: &[u8]| {
        let instruction = u64_at(entry, 0).filter(|&a| in_code(image, a))?;
        let length = entry.get(9).copied().filter(|&l| l > 0)?;
        Some(ParavirtSite { instruction, operation: *entry.get(8)?, length })
    };
    // Each entry is aligned in front and not padded behind, so the last one is shorter.
    let whole = bytes.map(|mut bytes| {
        let tail = bytes.data.len() % SIZE;
        let used = bytes.data.len() - if (10..SIZE).contains(&tail) { tail } else { 0 };
        bytes.data = bytes.data.get(..used).unwrap_or(bytes.data);
        bytes
    });
    let mut table = Table::parse(NAME, whole, SIZE, parse);
    if let (Some(all), Some(whole)) = (bytes, whole) {
        let tail = all.data.get(whole.data.len()..).unwrap_or_default();
        table.entries.extend(parse(0, tail).filter(|_| !tail.is_empty()));
    }
    table
}
