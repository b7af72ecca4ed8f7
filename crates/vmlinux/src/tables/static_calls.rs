//! Static calls: direct calls whose target is patched at run time (include/linux/static_call_types.h).
//!
//! A static call `f` has a key, the variable `__SCK__f`, and a trampoline, the function `__SCT__f`.

use super::{Table, in_code, relative};
use crate::bytes::i32_at;
use crate::image::Image;

/// A call that is patched when its key changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticCallSite {
    /// Address of the call, or of the jump for a tail call.
    pub instruction: u64,
    /// Address of `struct static_call_key`; its symbol is `__SCK__NAME`. In a module that may not see
    /// the key, the trampoline stands here.
    pub key: u64,
    /// The site is a jump.
    pub tail: bool,
    /// The site is in init code.
    pub init: bool,
}

/// Reads `.static_call_sites`.
pub fn static_call_sites(image: &Image<'_>) -> Table<StaticCallSite> {
    const NAME: &str = ".static_call_sites";
    let bytes = image.table(NAME, ("__start_static_call_sites", "__stop_static_call_sites"));
    Table::parse(NAME, bytes, 8, |at, entry| {
        // The two low bits of the key are flags (STATIC_CALL_SITE_TAIL, STATIC_CALL_SITE_INIT).
        let flags = i32_at(entry, 4)?;
        let key = relative(at, entry, 4)?;
        let low = (at + 4).wrapping_add_signed(i64::from(flags)) & 3;
        Some(StaticCallSite {
            instruction: relative(at, entry, 0).filter(|&a| in_code(image, a))?,
            key: key & !3,
            tail: low & 1 != 0,
            init: low & 2 != 0,
        })
    })
}

/// A trampoline that modules may call, with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticCallTrampoline {
    /// Address of the trampoline.
    pub trampoline: u64,
    /// Address of the key.
    pub key: u64,
}

/// Reads `.static_call_tramp_key`.
pub fn static_call_trampolines(image: &Image<'_>) -> Table<StaticCallTrampoline> {
    const NAME: &str = ".static_call_tramp_key";
    let bounds = ("__start_static_call_tramp_key", "__stop_static_call_tramp_key");
    Table::parse(NAME, image.table(NAME, bounds), 8, |at, entry| {
        Some(StaticCallTrampoline {
            trampoline: relative(at, entry, 0).filter(|&a| in_code(image, a))?,
            key: relative(at, entry, 4)?,
        })
    })
}
