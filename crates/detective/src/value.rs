//! What is this value?
//!
//! Decides from the number alone, and from a few landmarks of the dump, what a 64-bit value most
//! likely is. The main function is [`recognise`]. Layout after
//! Documentation/arch/x86/x86_64/mm.rst (four levels); with `CONFIG_RANDOMIZE_MEMORY` the direct map,
//! vmalloc and vmemmap move within their part, so those three are named with a "probably".

use crate::device::{self, DeviceRegister};

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// Stable name of the kind.
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

/// Landmarks of the dump that the value came from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Landmarks {
    /// Per-CPU base of the CPU.
    pub gs_base: Option<u64>,
    /// Stack pointer.
    pub rsp: Option<u64>,
    /// Instruction pointer.
    pub rip: Option<u64>,
    /// The stack canary of the CPU, where it was read.
    pub canary: Option<u64>,
    /// Page tables have five levels, so that addresses have 57 bits.
    pub five_levels: bool,
}

impl Landmarks {
    /// Where kernel addresses begin.
    pub fn kernel_half(&self) -> u64 {
        if self.five_levels { KERNEL_HALF_57 } else { KERNEL_HALF }
    }

    /// Where user addresses end.
    fn user_end(&self) -> u64 {
        if self.five_levels { 1 << 56 } else { USER_END }
    }

    /// The processor takes `value` for an address.
    pub fn is_canonical(&self, value: u64) -> bool {
        value < self.user_end() || value >= self.kernel_half()
    }
}

/// Addresses from here up are sign-extended kernel addresses (48 bits).
pub(crate) const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// With five levels (57 bits).
pub(crate) const KERNEL_HALF_57: u64 = 0xff00_0000_0000_0000;
/// The end of user addresses with four levels.
const USER_END: u64 = 0x0000_8000_0000_0000;
/// `MAX_ERRNO` of include/linux/err.h.
const MAX_ERRNO: u64 = 4095;
/// `KASAN_SHADOW_OFFSET` of arch/x86/Kconfig.
const KASAN_SHADOW_OFFSET: u64 = 0xdfff_fc00_0000_0000;
/// `POISON_POINTER_DELTA` of x86-64 (`CONFIG_ILLEGAL_POINTER_VALUE`).
const POISON_DELTA: u64 = 0xdead_0000_0000_0000;

fn meaning(kind: &'static str, text: impl Into<String>) -> Option<Meaning> {
    Some(Meaning { kind, text: text.into() })
}

/// What `value` most likely is; `None` where nothing is worth a word.
pub fn recognise(value: u64, marks: &Landmarks) -> Option<Meaning> {
    if marks.canary == Some(value) && value != 0 {
        return meaning("stack-canary", "the stack canary of this CPU (%gs:40)");
    }
    if value >= MAX_ERRNO.wrapping_neg() {
        return error_pointer(value);
    }
    if let Some(register) = device::at(value) {
        return meaning("fixmap-device", device_text(&register));
    }
    if let Some(found) = poison(value) {
        return Some(found);
    }
    if let Some(found) = near_landmark(value, marks) {
        return Some(found);
    }
    if let Some(text) = ascii(value) {
        return meaning("ascii", format!("text \"{text}\""));
    }
    if value >= KERNEL_HALF {
        return kernel_address(value, marks);
    }
    if value >= marks.kernel_half() {
        return five_level_address(value);
    }
    if value >= marks.user_end() {
        return non_canonical(value);
    }
    match value {
        0 => meaning("null", "NULL"),
        1..0x1000 => None,
        0x1000..0x1_0000_0000 => None,
        _ => meaning("user-pointer", "a user-space address, or a plain number"),
    }
}

/// What `address` is, when something is about to be accessed there.
pub fn recognise_address(address: u64, marks: &Landmarks) -> Option<Meaning> {
    match address {
        0 => meaning("null", "NULL"),
        1..0x1000 => meaning(
            "null-plus-offset",
            format!("NULL plus {address:#x}: a member of a structure that is not there"),
        ),
        0x1000.. if address < marks.user_end() => meaning("user-pointer", "a user-space address"),
        _ => recognise(address, marks),
    }
}

/// A device register in words.
pub fn device_text(register: &DeviceRegister) -> String {
    let name = match &register.name {
        Some(name) => {
            format!("{} register {name} (offset {:#x})", register.device, register.offset)
        }
        None => format!("{} page, offset {:#x}", register.device, register.offset),
    };
    match register.device {
        "HPET" => name,
        _ => format!("{name}, mapped in the fixmap"),
    }
}

/// A stack canary since v4.13: 56 random bits above a zero byte (`CANARY_MASK`, include/linux/stackprotector.h).
/// Bias: any random number with a zero low byte looks the same, so sparse and dense values are left out.
pub fn is_canary_like(value: u64) -> bool {
    let ones = value.count_ones();
    let canonical = value >> 47 == 0 || value >> 47 == 0x1_ffff;
    let bytes: std::collections::BTreeSet<u8> = value.to_le_bytes()[1..].iter().copied().collect();
    value & 0xff == 0 && !canonical && (14..=44).contains(&ones) && bytes.len() >= 5
}

fn non_canonical(value: u64) -> Option<Meaning> {
    if is_canary_like(value) {
        return meaning(
            "stack-canary",
            "canary-like: no address, a zero low byte and high entropy, as a stack canary has",
        );
    }
    let shadowed = value.wrapping_sub(KASAN_SHADOW_OFFSET) << 3;
    // The shadow of the lower half starts at the offset itself and is not canonical.
    if (KASAN_SHADOW_OFFSET..KASAN_SHADOW_OFFSET + (USER_END >> 3)).contains(&value) {
        let of = match shadowed {
            0..0x1000 => format!("NULL plus {shadowed:#x} to {:#x}", shadowed + 7),
            _ => format!("the addresses {shadowed:#x} to {:#x}", shadowed + 7),
        };
        return meaning(
            "kasan-shadow",
            format!("KASAN's shadow of {of}: that is what was about to be accessed"),
        );
    }
    meaning("non-canonical", "not canonical: no address at all")
}

fn error_pointer(value: u64) -> Option<Meaning> {
    let number = value.wrapping_neg();
    let name = match number {
        1 => "EPERM",
        2 => "ENOENT",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        19 => "ENODEV",
        20 => "ENOTDIR",
        21 => "EISDIR",
        22 => "EINVAL",
        28 => "ENOSPC",
        38 => "ENOSYS",
        95 => "EOPNOTSUPP",
        110 => "ETIMEDOUT",
        512 => "ERESTARTSYS",
        517 => "EPROBE_DEFER",
        _ => "",
    };
    // -1 is a mask or a counter far more often than -EPERM.
    match (number, name) {
        (1, _) => None,
        (_, "") => {
            meaning("err-ptr", format!("-{number}: a small negative number, or an error pointer"))
        }
        _ => meaning("err-ptr", format!("-{number}: ERR_PTR(-{name}), or a small negative number")),
    }
}

/// The patterns of include/linux/poison.h and mm/slab.h.
fn poison(value: u64) -> Option<Meaning> {
    let bytes = value.to_le_bytes();
    // Pointers into poisoned memory are off by a member's offset in the low bytes.
    let upper = bytes[2];
    let repeated = bytes[2..].iter().all(|&b| b == upper);
    let kind = match upper {
        _ if !repeated => "",
        0x6b => "freed slab memory (POISON_FREE)",
        0x5a => "uninitialised slab memory (POISON_INUSE)",
        0xaa => "a freed page (PAGE_POISON)",
        0xcc => "freed init memory (POISON_FREE_INITMEM)",
        0xbb => "a red zone of slab memory (SLUB_RED_INACTIVE)",
        _ => "",
    };
    if !kind.is_empty() {
        return meaning("poison", format!("poison of {kind}"));
    }
    match value.wrapping_sub(POISON_DELTA) {
        // 0x200 until v4.? lists had LIST_POISON2 at 0x200; both spellings are taken.
        0x100..0x110 => meaning(
            "list-poison",
            "LIST_POISON1: the next pointer of an entry that was deleted from a list",
        ),
        0x122..0x12a | 0x200..0x208 => meaning(
            "list-poison",
            "LIST_POISON2: the previous pointer of an entry that was deleted from a list",
        ),
        0x300 => meaning("timer-poison", "TIMER_ENTRY_STATIC"),
        0..0x1000 => meaning("poison", "a poisoned pointer plus a small offset"),
        _ => None,
    }
}

fn near_landmark(value: u64, marks: &Landmarks) -> Option<Meaning> {
    /// THREAD_SIZE of x86-64 with KASAN (arch/x86/include/asm/page_64_types.h); 16 KiB without.
    const STACK: u64 = 0x8000;
    /// Per-CPU units are at most this large (`u2097152` in the boot log).
    const UNIT: u64 = 0x20_0000;
    if let Some(rsp) =
        marks.rsp.filter(|&rsp| rsp >= marks.kernel_half() && value / STACK == rsp / STACK)
    {
        return match value.checked_sub(rsp) {
            Some(above) => meaning("stack", format!("on the current stack, RSP+{above:#x}")),
            None => meaning("stack", format!("on the current stack, {:#x} below RSP", rsp - value)),
        };
    }
    if let Some(base) = marks.gs_base.filter(|&base| base >= marks.kernel_half())
        && let Some(offset) = value.checked_sub(base).filter(|&o| o < UNIT)
    {
        return meaning("per-cpu", format!("in this CPU's per-CPU area, offset {offset:#x}"));
    }
    None
}

fn ascii(value: u64) -> Option<String> {
    let bytes = value.to_le_bytes();
    let used = bytes.iter().take_while(|&&b| b != 0).count();
    let printable = bytes[..used].iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    let rest_is_zero = bytes[used..].iter().all(|&b| b == 0);
    (used >= 6 && printable && rest_is_zero)
        .then(|| String::from_utf8_lossy(&bytes[..used]).replace('"', "'"))
}

/// Five levels: the parts of the address space after mm.rst; KASLR moves them within the whole.
fn five_level_address(value: u64) -> Option<Meaning> {
    match value {
        0xff11_0000_0000_0000..0xffdf_0000_0000_0000 => meaning(
            "kernel-address",
            "a kernel address: the direct map, vmalloc or a struct page (five-level page tables)",
        ),
        0xffdf_0000_0000_0000..0xffff_8000_0000_0000 => {
            meaning("kasan-shadow", "a kernel address, in KASAN's shadow if there is one")
        }
        _ => meaning("kernel-address", "a kernel address (five-level page tables)"),
    }
}

fn kernel_address(value: u64, marks: &Landmarks) -> Option<Meaning> {
    match value {
        // With five levels only the parts at the very top are where they are with four.
        0xffff_8000_0000_0000..0xffff_fe00_0000_0000 if marks.five_levels => {
            meaning("kernel-address", "a kernel address")
        }
        0xffff_8000_0000_0000..0xffff_c880_0000_0000 => {
            meaning("direct-map", "a kernel address, probably in the direct map of physical memory")
        }
        0xffff_c880_0000_0000..0xffff_ea00_0000_0000 => {
            meaning("vmalloc", "a kernel address, probably vmalloc (or a task's stack)")
        }
        0xffff_ea00_0000_0000..0xffff_eb00_0000_0000 => {
            meaning("vmemmap", "a kernel address, probably a struct page")
        }
        0xffff_ec00_0000_0000..0xffff_fc00_0000_0000 => meaning(
            "kasan-shadow",
            format!("in KASAN's shadow, of {:#x}", value.wrapping_sub(KASAN_SHADOW_OFFSET) << 3),
        ),
        0xffff_fe00_0000_0000..0xffff_fe80_0000_0000 => {
            meaning("cpu-entry-area", "in the CPU entry area (exception stacks)")
        }
        0xffff_ffff_8000_0000..0xffff_ffff_a000_0000 => {
            meaning("kernel-image", "in the kernel image (code or static data)")
        }
        0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000 => {
            meaning("module", "in the kernel image or a module")
        }
        0xffff_ffff_ff00_0000..0xffff_ffff_ff60_0000 => meaning("fixmap", "in the fixmap"),
        // Sign-extended 32-bit numbers are numbers.
        0xffff_ffff_0000_0000.. => None,
        _ => meaning("kernel-address", "a kernel address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(value: u64) -> &'static str {
        let marks = Landmarks {
            gs_base: Some(0xffff_96dd_9e40_0000),
            rsp: Some(0xffff_96dd_9e40_3e58),
            ..Landmarks::default()
        };
        recognise(value, &marks).map_or("", |m| m.kind)
    }

    #[test]
    fn nearly_every_canary_looks_like_one() {
        // splitmix64; one number in 1,000 may be too even, or an address.
        let mut state = 1u64;
        let missed = (0..100_000).filter(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            !is_canary_like((mixed ^ (mixed >> 31)) & !0xff)
        });
        let missed = missed.count();
        assert!(missed < 100, "{missed} of 100,000");
    }

    #[test]
    fn values_are_recognised() {
        for (value, expected) in [
            (0xadec_c9cc_04e2_ca00, "stack-canary"),
            (0x47e9_92c1_bc77_8d00, "stack-canary"),
            (0xffff_ffff_ff5f_c300, "fixmap-device"),
            (0xdead_0000_0000_0100, "list-poison"),
            (0xdead_0000_0000_0122, "list-poison"),
            (0x6b6b_6b6b_6b6b_6b6b, "poison"),
            (0x6b6b_6b6b_6b6b_6bb3, "poison"),
            (0xdfff_fc00_0000_0003, "kasan-shadow"),
            (0xffff_ffff_ffff_fff4, "err-ptr"),
            (0xffff_96dd_9e41_5b88, "per-cpu"),
            (0xffff_96dd_9e40_3e78, "stack"),
            (0xffff_ffff_8426_ab50, "kernel-image"),
            (0xffff_8880_1f23_1a00, "direct-map"),
            (0x6b6f_6f6c_6374_6177, "ascii"),
            (0x1234_0000_0000_0000, "non-canonical"),
            (0x0000_7f1e_b35c_effb, "user-pointer"),
            (0xffff_ffff_ffff_ffff, ""),
            (7, ""),
        ] {
            assert_eq!(kind(value), expected, "{value:#x}");
        }
    }

    #[test]
    fn with_five_levels_more_values_are_addresses() {
        let marks = Landmarks { five_levels: true, ..Landmarks::default() };
        let kind = |value| recognise(value, &marks).map_or("", |m| m.kind);
        assert_eq!(kind(0xff32_8e80_41ad_3100), "kernel-address");
        assert_eq!(kind(0x00ff_96dd_9e40_0000), "user-pointer");
        assert_eq!(kind(0xadec_c9cc_04e2_ca00), "stack-canary");
        assert_eq!(kind(0xffff_ffff_8426_ab50), "kernel-image");
    }

    #[test]
    fn addresses_near_null_are_members() {
        let marks = Landmarks::default();
        assert_eq!(recognise_address(0x18, &marks).unwrap().kind, "null-plus-offset");
        assert_eq!(recognise_address(0, &marks).unwrap().kind, "null");
    }
}
