//! `__ex_table`: which instructions may fault, and where the kernel goes on when they do.
//!
//! Entries have 12 bytes on x86: instruction, fixup, and, since commit 46d28947d987 (v5.16), a word of
//! type and operands; before it (since v4.6) a pointer to a handler function.

use super::{Table, in_code, most, relative, share};
use crate::bytes::u32_at;
use crate::image::Image;

/// What the fault handler does for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixup {
    /// `EX_TYPE_*` of arch/x86/include/asm/extable_fixup_types.h with its operands.
    Type {
        /// The low byte.
        kind: u8,
        /// Number of the register that it writes, in the order of `struct pt_regs`.
        register: u8,
        /// `EX_FLAG_*`.
        flags: u8,
        /// Immediate operand.
        immediate: i16,
    },
    /// Address of the handler function.
    Handler(u64),
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExEntry {
    /// Address of the instruction that may fault.
    pub instruction: u64,
    /// Address where execution goes on.
    pub fixup: u64,
    /// How.
    pub action: Fixup,
}

/// Reads the exception table.
pub fn ex_table(image: &Image<'_>) -> Table<ExEntry> {
    const NAME: &str = "__ex_table";
    const SIZE: usize = 12;
    let bytes = image.table(NAME, ("__start___ex_table", "__stop___ex_table"));
    let handlers = bytes.is_some_and(|bytes| {
        most(share(bytes, SIZE, |at, e| relative(at, e, 8).is_some_and(|h| in_code(image, h))))
    });
    Table::parse(NAME, bytes, SIZE, |at, entry| {
        let action = if handlers {
            Fixup::Handler(relative(at, entry, 8)?)
        } else {
            let [kind, operands, low, high] = u32_at(entry, 8)?.to_le_bytes();
            Fixup::Type {
                kind,
                register: operands & 0xf,
                flags: operands >> 4,
                immediate: i16::from_le_bytes([low, high]),
            }
        };
        let instruction = relative(at, entry, 0).filter(|&a| in_code(image, a))?;
        Some(ExEntry { instruction, fixup: relative(at, entry, 4)?, action })
    })
}
