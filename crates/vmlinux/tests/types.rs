//! Layouts from BTF and from DWARF, held against each other: the compiler wrote the one, pahole the other.
#![allow(clippy::disallowed_methods)]

mod debian;

use kolumbo_vmlinux::Elf;
use kolumbo_vmlinux::btf::parse_btf;
use kolumbo_vmlinux::dwarf::DebugSections;
use kolumbo_vmlinux::dwarf_types::types_defining;
use kolumbo_vmlinux::types::{TypeGraph, TypeKind};

/// Name, offset and size of the direct members of a struct; bit fields have no place of their own.
fn layout(types: &TypeGraph<'_>, name: &str) -> Vec<(String, u64, u64)> {
    let structure = types.structure(name).unwrap_or_else(|| panic!("{name} is missing"));
    let (TypeKind::Struct(members) | TypeKind::Union(members)) = &structure.kind else {
        panic!("{name} is {structure:?}")
    };
    let mut layout = vec![("".to_string(), 0, structure.size)];
    layout.extend(
        members
            .iter()
            .filter(|m| m.bit_width.is_none())
            .map(|m| (m.name.to_string(), m.bit_offset / 8, types.size_of(m.of))),
    );
    layout
}

#[test]
fn btf_equals_dwarf() {
    let mut compared = 0;
    for (release, kernel) in debian::find() {
        let Some(path) = kernel.vmlinux else { continue };
        let file = std::fs::File::open(&path).unwrap();
        // SAFETY: nobody writes to the file of an unpacked package while the test runs.
        let bytes = unsafe { memmap2::Mmap::map(&file).unwrap() };
        let elf = Elf::parse(&bytes).unwrap();
        let sections = DebugSections::of(&elf).unwrap();
        let btf = elf.section_data(".BTF").map(|data| {
            let (types, gaps) = parse_btf(data, None);
            assert_eq!(gaps, []);
            types
        });
        // A unit that defines `rq` is one of the scheduler and knows the others, too.
        let dwarf = types_defining(&sections, "rq").unwrap();
        for name in ["task_struct", "page", "rq", "inode", "irq_work", "pt_regs"] {
            if let Some(btf) = &btf {
                assert_eq!(layout(btf, name), layout(&dwarf, name), "{release} {name}");
            }
            for (member, offset, _) in layout(&dwarf, name).iter().filter(|m| !m.0.is_empty()) {
                let at = dwarf.members_at(name, *offset);
                let first = |path: &str| path.split(['.', '[']).next() == Some(member.as_str());
                // A member of no size has no place.
                let empty = layout(&dwarf, name).iter().any(|m| &m.0 == member && m.2 == 0);
                assert!(empty || at.iter().any(|m| first(&m.path)), "{name}.{member}: {at:?}");
            }
        }
        compared += 1;
    }
    if compared == 0 {
        debian::skip("Debian's vmlinux with DWARF");
    }
}

/// BTF with: int, struct pair { int a; struct pair *next; union { int x; int y[2]; }; }, a function.
fn small_btf() -> Vec<u8> {
    let strings = b"\0int\0pair\0a\0next\0x\0y\0walk\0";
    let name = |s: &str| {
        let at =
            strings.windows(s.len() + 2).position(|w| &w[1..=s.len()] == s.as_bytes() && w[0] == 0);
        at.unwrap() as u32 + 1
    };
    let kind = |kind: u32, count: u32| kind << 24 | count;
    let types: Vec<u32> = [
        // 1: int, 2: pointer to 3
        vec![name("int"), kind(1, 0), 4, 32],
        vec![0, kind(2, 0), 3],
        // 3: struct pair
        vec![name("pair"), kind(4, 3), 24, name("a"), 1, 0, name("next"), 2, 64, 0, 4, 128],
        // 4: union, 5: int[2]
        vec![0, kind(5, 2), 8, name("x"), 1, 0, name("y"), 5, 0],
        vec![0, kind(3, 0), 0, 1, 1, 2],
        // 6: int (struct pair *next), 7: walk
        vec![0, kind(13, 1), 1, name("next"), 2],
        vec![name("walk"), kind(12, 0), 6],
    ]
    .concat();
    let mut out = vec![0x9f, 0xeb, 1, 0];
    let types: Vec<u8> = types.iter().flat_map(|v| v.to_le_bytes()).collect();
    for field in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
        out.extend_from_slice(&u32::to_le_bytes(field));
    }
    out.extend_from_slice(&types);
    out.extend_from_slice(strings);
    out
}

#[test]
fn btf_is_read_and_asked() {
    let data = small_btf();
    let (types, gaps) = parse_btf(&data, None);
    assert_eq!(gaps, []);
    let paths = |offset| {
        let found = types.members_at("pair", offset);
        found.iter().map(|m| format!("{} {}+{}", m.type_name, m.path, m.inside)).collect::<Vec<_>>()
    };
    assert_eq!(paths(0), ["int a+0"]);
    assert_eq!(paths(4), [""; 0]);
    assert_eq!(paths(9), ["struct pair * next+1"]);
    assert_eq!(paths(20), ["int y[1]+0"]);
    assert_eq!(paths(16), ["int x+0", "int y[0]+0"]);
    let with = types.structs_with(8, |m| m.pointer && m.path == "next");
    assert_eq!(with.len(), 1);
    assert_eq!(with[0].structure, "pair");
    assert!(types.structs_with(9, |_| true).is_empty());
    let (result, parameters) = types.function("walk").unwrap();
    assert_eq!(
        (types.name_of(result), types.name_of(parameters[0].of)),
        ("int".into(), "struct pair *".into())
    );
}

#[test]
fn every_cut_of_a_btf_gives_a_gap() {
    let data = small_btf();
    for length in 0..data.len() {
        let (types, gaps) = parse_btf(&data[..length], None);
        assert!(!gaps.is_empty() && types.len() <= 8, "{length}");
    }
}

#[test]
fn rings_of_types_end() {
    let mut data = small_btf();
    // The union, type 4, has itself as the type of both members.
    let union = data.windows(4).position(|w| w == (5u32 << 24 | 2).to_le_bytes()).unwrap();
    data[union + 12..union + 16].copy_from_slice(&4u32.to_le_bytes());
    data[union + 24..union + 28].copy_from_slice(&4u32.to_le_bytes());
    let (types, _) = parse_btf(&data, None);
    assert!(types.members_at("pair", 16).len() <= 16);
}
