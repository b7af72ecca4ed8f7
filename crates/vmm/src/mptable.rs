//! The MultiProcessor table, from which a kernel without ACPI learns its CPUs.
//!
//! Intel MultiProcessor Specification 1.4, chapter 4. GSI 0, the timer, is wired to pin 0 of the
//! I/O APIC, as KVM's own wiring of its in-kernel chips has it once userspace sets none; every
//! other ISA interrupt has the pin of its number.

use crate::words::MOST_CPUS;

/// Where the table lies: the last KiB of the first 640, where kernels look first.
pub(crate) const ADDRESS: u64 = 0x9_fc00;
/// The most bytes that the table may have.
const ROOM: usize = 0x400;

const IO_APIC: u32 = 0xfec0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Version of the APICs that KVM emulates (`APIC_VERSION` in arch/x86/kvm/lapic.c, 0x14).
const APIC_VERSION: u8 = 0x14;
const ISA_PINS: u8 = 16;

/// The floating pointer and the table for `cpus` CPUs, to be written at [`ADDRESS`].
pub(crate) fn build(cpus: u32) -> Vec<u8> {
    let cpus = cpus.min(MOST_CPUS) as u8;
    let mut entries = Vec::new();
    let mut count = 0u16;
    let mut add = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for cpu in 0..cpus {
        // Type 0, APIC id, version, enabled and boot processor, signature, features (APIC, FPU).
        let flags = 1 | u8::from(cpu == 0) << 1;
        let mut entry = vec![0, cpu, APIC_VERSION, flags];
        entry.extend_from_slice(&0x600u32.to_le_bytes());
        entry.extend_from_slice(&0x201u32.to_le_bytes());
        entry.extend_from_slice(&[0; 8]);
        add(&entry);
    }
    add(b"\x01\x00ISA   ");
    let io_apic_id = cpus;
    let mut entry = vec![2, io_apic_id, 0x11, 1];
    entry.extend_from_slice(&IO_APIC.to_le_bytes());
    add(&entry);
    for pin in 0..ISA_PINS {
        // Type 3, vectored interrupt, flags as the bus has them, ISA bus 0, its number, the pin.
        add(&[3, 0, 0, 0, 0, pin, io_apic_id, pin]);
    }
    // Local interrupts: the legacy controller on LINT0 of the first CPU, NMI on LINT1 of all.
    add(&[4, 3, 0, 0, 0, 0, 0, 0]);
    add(&[4, 1, 0, 0, 0, 0, 0xff, 1]);

    const POINTER: usize = 16;
    const HEADER: usize = 44;
    let mut pointer = b"_MP_".to_vec();
    pointer.extend_from_slice(&((ADDRESS as u32) + POINTER as u32).to_le_bytes());
    pointer.extend_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
    let sum = checksum(&pointer);
    pointer[10] = sum;

    let mut table = b"PCMP".to_vec();
    table.extend_from_slice(&((HEADER + entries.len()) as u16).to_le_bytes());
    table.extend_from_slice(&[4, 0]);
    table.extend_from_slice(b"KOLUMBO VMM         ");
    table.extend_from_slice(&[0; 6]);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    table.extend_from_slice(&entries);
    let sum = checksum(&table);
    table[7] = sum;
    pointer.extend_from_slice(&table);
    debug_assert!(pointer.len() <= ROOM);
    pointer
}

/// The byte that makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_sum_up_to_zero_and_fit() {
        for cpus in [1, 4, MOST_CPUS, 1000] {
            let bytes = build(cpus);
            assert!(bytes.len() <= ROOM, "{}", bytes.len());
            let sum = |part: &[u8]| part.iter().fold(0u8, |s, &b| s.wrapping_add(b));
            assert_eq!((sum(&bytes[..16]), sum(&bytes[16..])), (0, 0));
            let length = usize::from(u16::from_le_bytes([bytes[20], bytes[21]]));
            assert_eq!(bytes.len(), 16 + length);
            let entries = u16::from_le_bytes([bytes[16 + 34], bytes[16 + 35]]);
            assert_eq!(u32::from(entries), cpus.min(MOST_CPUS) + 1 + 1 + 16 + 2);
        }
    }

    #[test]
    fn the_timer_is_on_pin_0() {
        let bytes = build(2);
        let interrupts = &bytes[16 + 44 + 2 * 20 + 8 + 8..];
        assert_eq!(interrupts[..8], [3, 0, 0, 0, 0, 0, 2, 0]);
    }
}
