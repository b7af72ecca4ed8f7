//! What each kind of file is taken for, and what its owner is told.
#![allow(clippy::disallowed_methods)]

mod synthetic;

use kolumbo_vmlinux::{ImageKind, Kernel, Refusal, recognise};
use synthetic::{BASE, bzimage, elf, elf_with_notes, note};

fn message(bytes: &[u8]) -> String {
    match recognise(bytes) {
        Ok(kind) => kind.loadable().expect_err("a loader takes this").to_string(),
        Err(refusal) => refusal.to_string(),
    }
}

fn check(bytes: &[u8], start: &str) {
    let message = message(bytes);
    assert!(message.starts_with(start), "{message}");
}

fn at(offset: usize, what: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 4096];
    file[offset..offset + what.len()].copy_from_slice(what);
    file
}

#[test]
fn files_that_are_no_kernel() {
    check(b"", "the file is empty");
    check(b"CONFIG_SMP=y\n# a comment\n", "this is a text file");
    check("Übergröße\n".as_bytes(), "this is a text file");
    check(&[0x90, 0, 1, 2], "this is no kernel that is known here (it starts with 90 00 01 02)");
    check(b"070701rest", "this is a cpio archive");
    check(b"!<arch>\ndebian-binary   ", "this is a Debian package");
}

#[test]
fn kernels_of_other_machines() {
    check(&at(0x38, b"ARM\x64"), "this is an arm64 Image");
    check(&at(0x38, b"RSC\x05"), "this is a RISC-V Image");
    let mut zboot = at(0x18, b"zstd\0");
    zboot[..8].copy_from_slice(b"MZ\0\0zimg");
    check(&zboot, "this is an EFI zboot image (payload compressed with zstd)");
    let mut arm = elf(BASE, b"code");
    arm[18] = 183;
    check(&arm, "this is an ELF file for arm64");
    let mut narrow = elf(BASE, b"code");
    narrow[4] = 1;
    check(&narrow, "this is a 32-bit little-endian ELF file");
    let mut big = vec![0; 64];
    big[..6].copy_from_slice(b"\x7fELF\x02\x02");
    big[19] = 22;
    check(&big, "this is an ELF file for s390");
}

#[test]
fn a_vmlinux_needs_a_pvh_entry_to_be_loaded() {
    let with = elf_with_notes(BASE, b"code", &note("Xen", 18, &0x100_0850u64.to_le_bytes()));
    let kind = recognise(&with).unwrap();
    let ImageKind::Vmlinux(header) = &kind else { panic!("{kind:?}") };
    assert_eq!(header.pvh_entry, Some(0x100_0850));
    assert_eq!(kind.loadable(), Ok(()));
    check(&elf(BASE, b"code"), "this vmlinux has no PVH entry");
    check(&elf(0x40_0000, b"code"), "this is an ELF program");
    check(&with[..20], "this ELF file is damaged");
}

#[test]
fn a_bzimage_is_read_and_its_damage_is_named() {
    let good = bzimage(b"\x02\x21\x4c\x18 and so on");
    let kind = recognise(&good).unwrap();
    let ImageKind::BzImage(header) = &kind else { panic!("{kind:?}") };
    assert_eq!(header.kernel_version.as_deref(), Some("6.1.0-test"));
    assert_eq!((header.protocol, header.kernel_alignment), (0x020f, 0x20_0000));
    assert_eq!(kind.loadable(), Ok(()));

    let expected = good.len() as u64;
    let cut = recognise(&good[..good.len() - 1]);
    assert_eq!(cut, Err(Refusal::TruncatedBzImage { expected, actual: expected - 1 }));
    for length in [0x208, 0x250, 0x400] {
        assert!(
            matches!(recognise(&good[..length]), Err(Refusal::TruncatedBzImage { .. })),
            "{length:#x}"
        );
    }
    let mut long_payload = good.clone();
    long_payload[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(recognise(&long_payload), Err(Refusal::TruncatedBzImage { .. })));
    let mut narrow = good.clone();
    narrow[0x236] = 0;
    check(&narrow, "this bzImage (6.1.0-test) has no 64-bit entry point");
    let mut odd = good;
    odd[0x207] = 9;
    check(&odd, "the setup header of this bzImage is damaged: boot protocol 9.15 does not exist");
}

#[test]
fn a_bzimage_that_does_not_unpack_is_an_error_that_says_so() {
    let open = |bytes: &[u8]| Kernel::open(bytes).map(|_| ()).expect_err("damaged").to_string();
    let lz4 = open(&bzimage(b"\x02\x21\x4c\x18\xff\0\0\0 too short"));
    assert!(
        lz4.starts_with("cannot unpack the lz4 payload: block at 0x8 runs past the end"),
        "{lz4}"
    );
    let other = open(&bzimage(b"nothing known"));
    assert!(other.starts_with("the payload starts with 6e 6f 74 68 69 6e"), "{other}");
}

#[test]
fn compressed_files_are_named_with_what_is_inside() {
    use std::io::Write;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&at(0x38, b"ARM\x64")).unwrap();
    check(&gz.finish().unwrap(), "this is a file compressed with gzip (an arm64 Image inside)");
}
