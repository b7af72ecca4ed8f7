//! Builds the smallest files that the readers take for what they are.
#![allow(dead_code)]

/// Address at which [`elf`] puts its image.
pub(crate) const BASE: u64 = 0xffff_ffff_8100_0000;

/// An x86-64 ELF executable with one loadable, executable segment that holds `image` at `address`.
pub(crate) fn elf(address: u64, image: &[u8]) -> Vec<u8> {
    elf_with_notes(address, image, &[])
}

/// As [`elf`], with a note segment behind the image.
pub(crate) fn elf_with_notes(address: u64, image: &[u8], notes: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    put16(&mut out, &[2, 62]);
    put32(&mut out, &[1]);
    put64(&mut out, &[0x100_0000, 64, 0]);
    put32(&mut out, &[0]);
    put16(&mut out, &[64, 56, 2, 0, 0, 0]);
    let size = image.len() as u64;
    put32(&mut out, &[1, 5]);
    put64(&mut out, &[HEADERS, address, 0x100_0000, size, size, 0x1000]);
    put32(&mut out, &[4, 4]);
    let notes_size = notes.len() as u64;
    put64(&mut out, &[HEADERS + size, 0, 0, notes_size, notes_size, 4]);
    out.extend_from_slice(image);
    out.extend_from_slice(notes);
    out
}

/// One note with a description of a multiple of four bytes.
pub(crate) fn note(owner: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put32(&mut out, &[owner.len() as u32 + 1, desc.len() as u32, kind]);
    out.extend_from_slice(owner.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(desc);
    out
}

/// A bzImage whose payload is `payload`, with four sectors of setup code.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0u8; 5 * 512];
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(16), 0);
    let paragraphs = ((out.len() - 5 * 512) / 16) as u32;
    out[0x1f1] = 4;
    out[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    out[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    out[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    out[0x211] = 1;
    out[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
    out[0x234] = 1;
    out[0x236] = 0x7f;
    out[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out[0x300..0x30a].copy_from_slice(b"6.1.0-test");
    out
}

pub(crate) fn put16(out: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}

pub(crate) fn put32(out: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}

pub(crate) fn put64(out: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}

pub(crate) fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}
