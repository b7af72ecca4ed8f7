//! `__jump_table`: branches that are patched when a static key changes.
//!
//! Entries are place-relative since commit b5effd3815cc (v4.20): code, target, key with two flag bits.

use super::{Table, in_code, relative};
use crate::bytes::u64_at;
use crate::image::Image;

/// One patchable branch (include/linux/jump_label.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JumpLabel {
    /// Address of the NOP or jump.
    pub instruction: u64,
    /// Where the jump goes.
    pub target: u64,
    /// Address of the static key.
    pub key: u64,
    /// The branch is the likely one: it is a NOP while the key is on.
    pub likely: bool,
    /// The site is in init code.
    pub init: bool,
}

/// Reads the jump labels.
pub fn jump_labels(image: &Image<'_>) -> Table<JumpLabel> {
    const NAME: &str = "__jump_table";
    let bytes = image.table(NAME, ("__start___jump_table", "__stop___jump_table"));
    Table::parse(NAME, bytes, 16, |at, entry| {
        let offset = u64_at(entry, 8)?;
        let key = at.wrapping_add(8).wrapping_add(offset & !3);
        Some(JumpLabel {
            instruction: relative(at, entry, 0).filter(|&a| in_code(image, a))?,
            target: relative(at, entry, 4).filter(|&a| in_code(image, a))?,
            key,
            likely: offset & 1 != 0,
            init: offset & 2 != 0,
        })
    })
}
