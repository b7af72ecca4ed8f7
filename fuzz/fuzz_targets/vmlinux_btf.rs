//! A `.BTF` section, alone and on top of itself.
#![no_main]

use kolumbo_vmlinux::btf::parse_btf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for base in [None, Some(data)] {
        let (types, _) = parse_btf(data, base);
        for (id, of) in types.iter().take(50) {
            let _ = (types.name_of(id), types.size_of(id));
            let _ = (types.members_at(&of.name, 8), types.function(&of.name));
        }
        let _ = types.structs_with(8, |m| m.pointer);
    }
});
