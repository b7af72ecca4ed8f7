//! The text of a System.map or of /proc/kallsyms.
#![no_main]

use kolumbo_vmlinux::slide;
use kolumbo_vmlinux::system_map::parse_system_map;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let (table, _) = parse_system_map(text);
    for symbol in table.iter().take(100) {
        assert!(table.named(symbol.name).any(|s| s.address == symbol.address));
        let _ = table.lookup(symbol.address.wrapping_add(1));
        let _ = slide::from_symbol(&table, symbol.name, 1, symbol.address);
    }
    let _ = std::str::from_utf8(text).map(slide::from_kernel_offset_line);
});
