//! Plain lists of code addresses: where the kernel patches calls, returns, locks and trace hooks.

use super::{Table, in_code, relative};
use crate::bytes::u64_at;
use crate::image::Image;

/// A list of addresses in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SiteList {
    /// Calls and jumps through retpoline thunks.
    Retpoline,
    /// Jumps to the return thunk that stand for `ret`.
    Return,
    /// Calls that call depth tracking may patch.
    Call,
    /// `endbr64` instructions that nothing needs.
    EndbrSeal,
    /// Function preambles with a kCFI hash.
    Cfi,
    /// `lock` prefixes, which a single CPU does without.
    SmpLock,
    /// Where functions call ftrace.
    Mcount,
}

impl SiteList {
    /// Section, and the symbols around it (arch/x86/kernel/vmlinux.lds.S, vmlinux.lds.h).
    fn names(self) -> (&'static str, (&'static str, &'static str)) {
        match self {
            SiteList::Retpoline => {
                (".retpoline_sites", ("__retpoline_sites", "__retpoline_sites_end"))
            }
            SiteList::Return => (".return_sites", ("__return_sites", "__return_sites_end")),
            SiteList::Call => (".call_sites", ("__call_sites", "__call_sites_end")),
            SiteList::EndbrSeal => {
                (".ibt_endbr_seal", ("__ibt_endbr_seal", "__ibt_endbr_seal_end"))
            }
            SiteList::Cfi => (".cfi_sites", ("__cfi_sites", "__cfi_sites_end")),
            SiteList::SmpLock => (".smp_locks", ("__smp_locks", "__smp_locks_end")),
            SiteList::Mcount => ("__mcount_loc", ("__start_mcount_loc", "__stop_mcount_loc")),
        }
    }
}

/// Reads one list.
pub fn sites(image: &Image<'_>, list: SiteList) -> Table<u64> {
    let (section, bounds) = list.names();
    let bytes = image.table(section, bounds);
    if list == SiteList::Mcount {
        // scripts/sorttable.c blanks the entries of functions that the linker dropped (since v6.15).
        let mut table = Table::parse(section, bytes, 8, |_, entry| {
            u64_at(entry, 0).filter(|&a| a == 0 || in_code(image, a))
        });
        table.entries.retain(|&a| a != 0);
        return table;
    }
    // The linker pads .smp_locks to a page with zeros, which would point at themselves.
    let bytes = bytes.map(|mut bytes| {
        let used = bytes.data.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        bytes.data = bytes.data.get(..used.next_multiple_of(4)).unwrap_or(bytes.data);
        bytes
    });
    Table::parse(section, bytes, 4, |at, entry| {
        relative(at, entry, 0).filter(|&a| in_code(image, a))
    })
}
