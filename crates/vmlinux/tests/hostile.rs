//! Damaged modules: whatever is wrong with a file, the readers come back with what they could read.
#![allow(clippy::disallowed_methods)]

mod debian;

use kolumbo_vmlinux::dwarf::DebugSections;
use kolumbo_vmlinux::dwarf_types::types_defining;
use kolumbo_vmlinux::tables::orc::OrcTable;
use kolumbo_vmlinux::tables::sites::{SiteList, sites};
use kolumbo_vmlinux::tables::{alternatives, bugs, ex_table, jump_labels, paravirt, static_calls};
use kolumbo_vmlinux::{Elf, Image, SymbolTable, module};

/// Number of entries that all readers together could read.
fn read_all(bytes: &[u8]) -> usize {
    let Ok(elf) = Elf::parse(bytes) else { return 0 };
    let linked = module::link(&elf, module::DEFAULT_BASE, |_| None);
    let in_place = Image::of_vmlinux(&elf, SymbolTable::from_elf(&elf, |_| true));
    let mut read = 0;
    for image in [&linked, &in_place] {
        read += image.symbols().len();
        read += ex_table::ex_table(image).entries.len();
        read += alternatives::alternatives(image).entries.len();
        read += paravirt::paravirt_sites(image).entries.len();
        read += static_calls::static_call_sites(image).entries.len();
        read += jump_labels::jump_labels(image).entries.len();
        read += bugs::bugs(image).entries.len();
        read += sites(image, SiteList::Return).entries.len();
        read += sites(image, SiteList::Mcount).entries.len();
        read += OrcTable::find(image).ok().flatten().map_or(0, |t| t.iter().count());
    }
    if let Some(sections) = DebugSections::of_module(&elf, &linked) {
        read += sections.lines().frames(module::DEFAULT_BASE + 4).len();
        read += types_defining(&sections, "list_head").map_or(0, |t| t.len());
    }
    read
}

#[test]
fn damaged_modules_are_read_as_far_as_they_go() {
    let mut tried = 0;
    for (_, kernel) in debian::find() {
        let Some(modules) = kernel.modules else { continue };
        let Some(file) = smallest(&modules) else { continue };
        let good = module::unpack(&file).unwrap().into_owned();
        let whole = read_all(&good);
        assert!(whole > 20, "{whole}");
        let mut state = 7u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            (state >> 33) as usize % below
        };
        for _ in 0..400 {
            let mut bad = good.clone();
            // Headers are where a file hurts, so half of the damage goes there.
            let sections_at = u64::from_le_bytes(bad[40..48].try_into().unwrap()) as usize;
            for _ in 0..4 {
                let at = match next(4) {
                    0 => next(64),
                    1 => sections_at + next(bad.len() - sections_at),
                    _ => next(bad.len()),
                };
                bad[at] = [0, 0xff, 0x7f, 0x80, bad[at] ^ 1][next(5)];
            }
            read_all(&bad);
            let length = next(good.len());
            assert!(read_all(&good[..length]) <= whole);
        }
        tried += 1;
    }
    if tried == 0 {
        debian::skip("a folder with Debian's modules");
    }
}

/// A file that a fuzzer made of a compiled `struct pair` walk: the size of its unit reaches past the last
/// address.
#[test]
fn a_section_as_large_as_the_address_space_is_left_out_of_a_module() {
    let elf = Elf::parse(include_bytes!("fixtures/section-fills-address-space.elf")).unwrap();
    let image = module::link(&elf, module::DEFAULT_BASE, |_| None);
    assert!(
        image.gaps().iter().any(|g| g.to_string().contains("does not fit")),
        "{:?}",
        image.gaps()
    );
}

#[test]
fn a_unit_past_the_last_address_is_left_out() {
    let elf = Elf::parse(include_bytes!("fixtures/unit-size-overflows.elf")).unwrap();
    let sections = DebugSections::of(&elf).unwrap();
    let lines = sections.lines();
    for address in [0, 4, 0x40, module::DEFAULT_BASE, u64::MAX] {
        assert_eq!(lines.frames(address), [], "{address:#x}");
    }
}

/// The bytes of the smallest module below `dir`.
fn smallest(dir: &std::path::Path) -> Option<Vec<u8>> {
    let mut best: Option<(u64, std::path::PathBuf)> = None;
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(".ko") {
                let size = path.metadata().ok()?.len();
                // Not the ones that are nearly empty.
                if size > 12_000 && best.as_ref().is_none_or(|b| size < b.0) {
                    best = Some((size, path));
                }
            }
        }
    }
    std::fs::read(best?.1).ok()
}
