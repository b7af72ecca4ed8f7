//! DWARF of an ELF file: lines, inlined functions, types.
#![no_main]

use kolumbo_vmlinux::dwarf::DebugSections;
use kolumbo_vmlinux::dwarf_types::types_defining;
use kolumbo_vmlinux::{Elf, module};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(elf) = Elf::parse(bytes) else { return };
    let image = module::link(&elf, module::DEFAULT_BASE, |_| None);
    for sections in [DebugSections::of(&elf), DebugSections::of_module(&elf, &image)] {
        let Some(sections) = sections else { continue };
        let lines = sections.lines();
        for address in [4, 0x40, module::DEFAULT_BASE, module::DEFAULT_BASE + 0x21] {
            let _ = lines.frames(address);
        }
        if let Some(types) = types_defining(&sections, "pair") {
            let _ = (types.members_at("pair", 8), types.structs_with(0, |_| true));
        }
    }
});
