//! Bytes of a kernel image in which the tables of kallsyms are looked for.
#![no_main]

use kolumbo_vmlinux::banner::{find_banner, find_config};
use kolumbo_vmlinux::{Elf, kallsyms};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|image: &[u8]| {
    let _ = (find_banner(image), find_config(image));
    // An ELF header with one segment, which the input fills.
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for value in [0u64, 64, 0] {
        file.extend(value.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let length = image.len() as u64;
    for value in [120, 0xffff_ffff_8100_0000, 0x100_0000, length, length, 0x1000] {
        file.extend(u64::to_le_bytes(value));
    }
    file.extend_from_slice(image);
    let elf = Elf::parse(&file).expect("the header is sound");
    match kallsyms::find(&elf) {
        Ok(table) => {
            for symbol in table.iter().take(100) {
                assert!(table.at(symbol.address).any(|s| s.name == symbol.name));
            }
        }
        Err(gap) => assert!(!gap.why.is_empty()),
    }
});
