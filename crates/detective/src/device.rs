//! Devices behind fixed kernel addresses.
//!
//! Decides which device register an address of the fixmap is. Such an access is what a hypervisor
//! has to emulate when the processor does not virtualise it. The main function is [`at`].

/// A register of a memory-mapped device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRegister {
    /// `xAPIC`, `IO-APIC` or `HPET`.
    pub device: &'static str,
    /// Offset in the device's page.
    pub offset: u64,
    /// Name of the register, where it is one.
    pub name: Option<String>,
}

/// `FIX_APIC_BASE` of arch/x86/include/asm/fixmap.h. The fixmap ends at 0xffffffffff7ff000 and grows down;
/// page 511 is the vsyscall page, 512 the debug port, 513 the early console, then, where it is
/// configured, the FireWire page. That puts the local APIC on one of two pages, and the IO-APICs
/// right below it.
const XAPIC_PAGES: [u64; 2] = [0xffff_ffff_ff5f_c000, 0xffff_ffff_ff5f_d000];

/// The device register at `address`, when it lies on a device page of the fixmap.
pub fn at(address: u64) -> Option<DeviceRegister> {
    let (page, offset) = (address & !0xfff, address & 0xfff);
    if XAPIC_PAGES.contains(&page) {
        let name = xapic_register(offset & !0xf);
        // The FireWire page is the APIC's neighbour; only a known register settles which it is.
        if name.is_none() && page == XAPIC_PAGES[1] {
            return None;
        }
        return Some(DeviceRegister { device: "xAPIC", offset, name });
    }
    let first = XAPIC_PAGES[0] - 0x1000;
    // As many IO-APICs as machines have; further down lies other use of the fixmap.
    if page <= first && page > first - 8 * 0x1000 {
        let name = match offset {
            0x00 => Some("IOREGSEL".to_owned()),
            0x10 => Some("IOWIN".to_owned()),
            0x40 => Some("EOI".to_owned()),
            _ => None,
        };
        return name.map(|name| DeviceRegister { device: "IO-APIC", offset, name: Some(name) });
    }
    None
}

/// The HPET register at `address`, for an access in `function`. The HPET is mapped by `ioremap`
/// somewhere in vmalloc space, so that only a function that is about nothing else tells
/// (arch/x86/kernel/hpet.c); the registers take one KiB at the start of a page.
pub fn hpet_at(address: u64, function: &str) -> Option<DeviceRegister> {
    let about = ["hpet_", "read_hpet", "_hpet_"].iter().any(|w| function.starts_with(w));
    let vmalloc = (0xffff_c900_0000_0000..0xffff_e900_0000_0000).contains(&address);
    let offset = address & 0xfff;
    let name = hpet_register(offset).filter(|_| about && vmalloc)?;
    Some(DeviceRegister { device: "HPET", offset, name: Some(name) })
}

/// Names after the IA-PC HPET specification 1.0a, section 2.3, and arch/x86/include/asm/hpet.h.
fn hpet_register(offset: u64) -> Option<String> {
    let name = match offset {
        0x00 => "capabilities and ID",
        0x04 => "counter period",
        0x10 => "configuration",
        0x20 => "interrupt status",
        0xf0 | 0xf4 => "main counter",
        0x100..0x400 => {
            let part = match offset % 0x20 {
                0x00 | 0x04 => "configuration",
                0x08 | 0x0c => "comparator",
                0x10 | 0x14 => "FSB route",
                _ => return None,
            };
            return Some(format!("timer {} {part}", (offset - 0x100) / 0x20));
        }
        _ => return None,
    };
    Some(name.to_owned())
}

/// Names after the Intel SDM, volume 3, table 11-1, and arch/x86/include/asm/apicdef.h.
fn xapic_register(offset: u64) -> Option<String> {
    let name = match offset {
        0x20 => "ID",
        0x30 => "version",
        0x80 => "TPR",
        0x90 => "APR",
        0xa0 => "PPR",
        0xb0 => "EOI",
        0xc0 => "RRD",
        0xd0 => "LDR",
        0xe0 => "DFR",
        0xf0 => "SPIV",
        0x280 => "ESR",
        0x2f0 => "LVT CMCI",
        0x300 => "ICR low",
        0x310 => "ICR high",
        0x320 => "LVT timer",
        0x330 => "LVT thermal",
        0x340 => "LVT performance counter",
        0x350 => "LVT LINT0",
        0x360 => "LVT LINT1",
        0x370 => "LVT error",
        0x380 => "timer initial count",
        0x390 => "timer current count",
        0x3e0 => "timer divide",
        0x100..0x180 => return Some(format!("ISR{}", (offset - 0x100) / 0x10)),
        0x180..0x200 => return Some(format!("TMR{}", (offset - 0x180) / 0x10)),
        0x200..0x280 => return Some(format!("IRR{}", (offset - 0x200) / 0x10)),
        _ => return None,
    };
    Some(name.to_owned())
}

/// What a bit of a device register means, where it is waited for.
pub fn bit_meaning(register: &DeviceRegister, mask: u64) -> Option<&'static str> {
    match (register.device, register.offset, mask) {
        // APIC_ICR_BUSY.
        ("xAPIC", 0x300, 0x1000) => {
            Some("delivery status: an inter-processor interrupt is still being sent")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hpet_is_known_by_its_functions() {
        let counter = 0xffff_c900_0000_50f0;
        let name = |function| hpet_at(counter, function).and_then(|r| r.name);
        assert_eq!(name("read_hpet").as_deref(), Some("main counter"));
        assert_eq!(name("memcpy"), None);
        let comparator = hpet_at(0xffff_c900_0000_5128, "hpet_clkevt_set_next_event").unwrap();
        assert_eq!(comparator.name.as_deref(), Some("timer 1 comparator"));
        assert_eq!(hpet_at(0xffff_8880_0000_50f0, "read_hpet"), None);
    }

    #[test]
    fn the_interrupt_command_register_is_named() {
        let register = at(0xffff_ffff_ff5f_c300).unwrap();
        assert_eq!((register.device, register.name.as_deref()), ("xAPIC", Some("ICR low")));
        assert!(bit_meaning(&register, 0x1000).is_some());
        assert_eq!(at(0xffff_ffff_ff5f_b000).unwrap().name.as_deref(), Some("IOREGSEL"));
        assert_eq!(at(0xffff_ffff_ff60_0000), None);
        assert_eq!(at(0xffff_ffff_8100_0000), None);
    }
}
