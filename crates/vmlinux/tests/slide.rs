//! The KASLR slide, from code bytes, from symbols, from the kernel's own words; and the banner.
#![allow(clippy::disallowed_methods)]

mod synthetic;

use kolumbo_vmlinux::banner::{find_banner, find_config};
use kolumbo_vmlinux::system_map::parse_system_map;
use kolumbo_vmlinux::{Elf, slide};
use synthetic::{BASE, elf};

/// Bytes without a period, so that no two places agree.
fn code() -> Vec<u8> {
    let mut state = 1u64;
    (0..5 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn code_seen_in_memory_gives_the_slide() {
    let code = code();
    let file = elf(BASE, &code);
    let elf = Elf::parse(&file).unwrap();
    let seen = |at: usize, n: usize| (BASE + 0x1e0_0000 + at as u64, &code[at..at + n]);
    assert_eq!(slide::deduce(&elf, &[seen(0x41_2345, 64)]), Some(0x1e0_0000));
    // Patched at boot: five bytes of one window are a call now.
    let mut patched = code[0x1000..0x1040].to_vec();
    patched[20..25].copy_from_slice(&[0xe8, 1, 2, 3, 4]);
    let both = [(BASE + 0x1e0_1000, &patched[..]), seen(0x30_0000, 32)];
    assert_eq!(slide::deduce(&elf, &both), Some(0x1e0_0000));
    // Neither code from elsewhere nor too little code is a reason to guess.
    assert_eq!(slide::deduce(&elf, &[(BASE + 0x1e0_0000, &[0xf4; 64])]), None);
    assert_eq!(slide::deduce(&elf, &[seen(0x1000, 6)]), None);
    assert_eq!(slide::deduce(&elf, &[]), None);
    // A module's code says nothing, and does not stand in the way of what does.
    let module = (0xffff_ffff_c012_3456, &[0x90; 64][..]);
    assert_eq!(slide::deduce(&elf, &[module, seen(0x2_0000, 64)]), Some(0x1e0_0000));
}

#[test]
fn symbols_and_panic_messages_give_the_slide() {
    let map = b"ffffffff81000000 T _text\nffffffff81000100 t twice\nffffffff81000300 t twice\n";
    let (symbols, gaps) = parse_system_map(map);
    assert_eq!(gaps, []);
    assert_eq!(slide::from_symbol(&symbols, "_text", 0, BASE + 0x400_0000), Some(0x400_0000));
    assert_eq!(slide::from_symbol(&symbols, "_text", 0x10, BASE + 0x400_0000), None);
    assert_eq!(slide::from_symbol(&symbols, "twice", 8, BASE + 0x20_0108), Some(0x20_0000));
    assert_eq!(slide::from_symbol(&symbols, "missing", 0, BASE), None);
    let line = "Kernel Offset: 0x1e00000 from 0xffffffff81000000 (relocation range: ...)";
    assert_eq!(slide::from_kernel_offset_line(line), Some(0x1e0_0000));
    assert_eq!(slide::from_kernel_offset_line("Kernel Offset: disabled"), Some(0));
    assert_eq!(slide::from_kernel_offset_line("Kernel Offset: 0x123 from"), None);
}

#[test]
fn the_banner_is_found_and_split() {
    let image = b"\0Linux version %s (%s)\0xLinux version 6.1.0 (a@b) (gcc (Debian 12) 12.2.0, GNU ld 2.40) #1 SMP\n\0";
    let banner = find_banner(image).unwrap();
    assert_eq!(banner.release, "6.1.0");
    assert_eq!(banner.compiler.as_deref(), Some("gcc (Debian 12) 12.2.0, GNU ld 2.40"));
    assert_eq!(banner.build.as_deref(), Some("#1 SMP"));
    assert_eq!(find_banner(b"Linux version unknown"), None);
}

#[test]
fn the_configuration_inside_is_unpacked() {
    use std::io::Write;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(b"CONFIG_SMP=y\n").unwrap();
    let image = [b"....IKCFG_ST", &gz.finish().unwrap()[..], b"IKCFG_ED..."].concat();
    assert_eq!(find_config(&image).as_deref(), Some("CONFIG_SMP=y\n"));
    assert_eq!(find_config(&image[..30]), None);
    assert_eq!(find_config(b"nothing"), None);
}

#[test]
fn system_maps_that_are_none_say_so() {
    let placeholder =
        b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n";
    let (table, gaps) = parse_system_map(placeholder);
    assert!(table.is_empty());
    assert_eq!(gaps[0].to_string(), "System.map at 0x0: 1 lines are no symbol");
    let (table, gaps) = parse_system_map(b"0000000000000000 T _text\n0000000000000000 t a\n");
    assert!(table.is_empty());
    assert_eq!(gaps.len(), 1);
    let (table, _) =
        parse_system_map(b"ffffffffc0000000 t init_module\t[loop]\nffffffff81000000 T _text\n");
    assert_eq!(table.len(), 1);
}
