//! `.altinstructions`: code that is replaced at boot when the CPU has, or lacks, a feature.
//!
//! `struct alt_instr` (arch/x86/include/asm/alternative.h) had 13 bytes with a `padlen` until commit
//! 23c1ad538f4f (v5.13), then 12, and has 14 with flags of their own since commit 5d1dd961e743 (v6.4).

use super::{Table, in_code, relative, share};
use crate::bytes::{array_at, u16_at};
use crate::image::{Image, TableBytes};

/// One replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternative {
    /// Address of the code that is replaced.
    pub instruction: u64,
    /// Address of the replacement, in `.altinstr_replacement`.
    pub replacement: u64,
    /// Number of the CPU feature bit (`X86_FEATURE_*`), flags removed.
    pub feature: u16,
    /// The replacement is used when the feature is absent (`ALT_FLAG_NOT`).
    pub inverted: bool,
    /// The code is a direct call that stands for an indirect one (`ALT_FLAG_DIRECT_CALL`).
    pub direct_call: bool,
    /// Bytes that are replaced.
    pub instruction_length: u8,
    /// Bytes that replace them; the rest is filled with NOPs.
    pub replacement_length: u8,
}

/// Reads the alternatives.
pub fn alternatives(image: &Image<'_>) -> Table<Alternative> {
    const NAME: &str = ".altinstructions";
    let bytes = image.table(NAME, ("__alt_instructions", "__alt_instructions_end"));
    let size = bytes.map_or(12, |bytes| layout(image, bytes));
    Table::parse(NAME, bytes, size, |at, entry| parse(image, size, at, entry))
}

/// The entry size under which most entries make sense.
fn layout(image: &Image<'_>, bytes: TableBytes<'_>) -> usize {
    let score = |&size: &usize| {
        let (fitting, looked) = share(bytes, size, |at, e| parse(image, size, at, e).is_some());
        fitting * 10_000 / looked.max(1)
    };
    [14, 12, 13].into_iter().max_by_key(score).unwrap_or(12)
}

fn parse(image: &Image<'_>, size: usize, at: u64, entry: &[u8]) -> Option<Alternative> {
    /// ALTINSTR_FLAG_INV, in the feature word until the flags got a word of their own.
    const INVERTED: u16 = 1 << 15;
    let (feature, inverted, direct_call) = match size {
        14 => {
            let flags = u16_at(entry, 10)?;
            (u16_at(entry, 8)?, flags & 1 != 0, flags & 2 != 0)
        }
        _ => {
            let word = u16_at(entry, 8)?;
            (word & !INVERTED, word & INVERTED != 0, false)
        }
    };
    let [instruction_length, replacement_length] =
        array_at(entry, size.min(14) - if size == 13 { 3 } else { 2 })?;
    let alternative = Alternative {
        instruction: relative(at, entry, 0)?,
        replacement: relative(at, entry, 4)?,
        feature,
        inverted,
        direct_call,
        instruction_length,
        replacement_length,
    };
    // NCAPINTS has stayed below 32 words of 32 bits; the padded code is never the shorter one.
    let fits = instruction_length > 0
        && replacement_length <= instruction_length
        && feature < 32 * 32
        && in_code(image, alternative.instruction)
        && (replacement_length == 0 || in_code(image, alternative.replacement));
    fits.then_some(alternative)
}
