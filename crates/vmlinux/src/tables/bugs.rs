//! `__bug_table`: where `BUG()` and `WARN()` stand, with file and line (include/asm-generic/bug.h).

use super::{Table, in_code, relative};
use crate::bytes::{c_string_at, i32_at, u16_at};
use crate::image::{Image, TableBytes};

/// One `BUG()` or `WARN()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BugEntry<'a> {
    /// Address of the `ud2`; for warnings with a text (`BUGFLAG_ARGS`, seen in v7.2) a place shortly
    /// before the call of `WARN_trap`.
    pub instruction: u64,
    /// Source file, as the compiler was given it.
    pub file: Option<&'a str>,
    /// Line.
    pub line: u16,
    /// It is a `WARN`, after which execution goes on (`BUGFLAG_WARNING`).
    pub warning: bool,
    /// All flags.
    pub flags: u16,
}

/// Reads the bug table of a kernel built with `CONFIG_DEBUG_BUGVERBOSE`.
pub fn bugs<'a>(image: &'a Image<'_>) -> Table<BugEntry<'a>> {
    const NAME: &str = "__bug_table";
    let bytes = image.table(NAME, ("__start___bug_table", "__stop___bug_table"));
    // Instruction, format string (seen in v7.2), file, line, flags.
    let layout = [(16, 8), (12, 0), (12, 4)]
        .into_iter()
        .max_by_key(|&l| bytes.map_or(0, |bytes| fits(image, bytes, l)));
    let (size, base) = layout.unwrap_or((12, 4));
    Table::parse(NAME, bytes, size, |at, entry| {
        let instruction = relative(at, entry, 0).filter(|&a| in_code(image, a))?;
        let file = file(at, entry, size, base)
            .and_then(|file| std::str::from_utf8(c_string_at(image.bytes_from(file)?, 0)?).ok());
        let (line, flags) = (u16_at(entry, size - 4)?, u16_at(entry, size - 2)?);
        Some(BugEntry { instruction, file, line, warning: flags & 1 != 0, flags })
    })
}

/// The pointer to the file name counts from itself or, in older kernels, from the entry.
fn file(at: u64, entry: &[u8], size: usize, base: u64) -> Option<u64> {
    Some(at.wrapping_add(base).wrapping_add_signed(i64::from(i32_at(entry, size - 8)?)))
}

/// Bytes of the table that make sense: entries at a `ud2` whose file name is the start of a string.
fn fits(image: &Image<'_>, bytes: TableBytes<'_>, (size, base): (usize, u64)) -> usize {
    let sound = |at: u64, entry: &[u8]| {
        let starts = |file: u64| {
            let first = image.section_of(file).is_some_and(|s| s.address == file);
            let after_nul = image.bytes_at(file.wrapping_sub(1), 1) == Some(&[0]);
            (first || after_nul) && image.bytes_at(file, 1).is_some_and(|b| b != [0])
        };
        relative(at, entry, 0).is_some_and(|a| image.bytes_at(a, 2) == Some(&[0x0f, 0x0b]))
            && file(at, entry, size, base).is_some_and(starts)
    };
    super::share(bytes, size, sound).0 * size
}
