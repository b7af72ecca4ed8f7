//! How far KASLR moved the kernel: run-time address minus link address.
//!
//! Every way here answers `None` rather than a guess. Text moves by multiples of 2 MiB on x86-64
//! (`CONFIG_PHYSICAL_ALIGN` is at least that, arch/x86/Kconfig), and by at most 1 GiB.

use crate::elf::Elf;
use crate::symbols::SymbolTable;

/// Granularity of the slide, in bytes.
pub const STEP: u64 = 2 << 20;
/// KERNEL_IMAGE_SIZE with KASLR, arch/x86/include/asm/page_64_types.h.
pub const RANGE: u64 = 1 << 30;

/// A slide is a multiple of [`STEP`] below [`RANGE`].
fn plausible(slide: u64) -> Option<u64> {
    (slide.is_multiple_of(STEP) && slide < RANGE).then_some(slide)
}

/// The slide, when `observed` is the run-time address of the symbol `name` plus `offset`. Of several
/// symbols of one name, all that give a plausible slide must give the same.
pub fn from_symbol(symbols: &SymbolTable, name: &str, offset: u64, observed: u64) -> Option<u64> {
    let mut slides = symbols
        .named(name)
        .filter_map(|s| plausible(observed.checked_sub(s.address.checked_add(offset)?)?));
    let first = slides.next()?;
    slides.all(|s| s == first).then_some(first)
}

/// The slide that the kernel itself prints in a panic: `Kernel Offset: 0x1e00000 from 0xffffffff81000000`
/// or `Kernel Offset: disabled` (arch/x86/kernel/setup.c, `dump_kernel_offset`).
pub fn from_kernel_offset_line(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("Kernel Offset: ")?;
    if rest.starts_with("disabled") {
        return Some(0);
    }
    let digits = rest.strip_prefix("0x")?;
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    plausible(u64::from_str_radix(digits.get(..end)?, 16).ok()?)
}

/// The slide under which the code of the image agrees best with what was seen in memory.
///
/// `observed` holds run-time addresses with the bytes there; 16 bytes or more each are of use. The
/// kernel patches itself at boot (alternatives, static calls, ftrace), so single bytes may differ: the
/// slides are compared by the number of bytes that agree over all observations. The best one must
/// agree in three quarters of the bytes and in at least 12, and every other one in clearly fewer, or the
/// answer is `None`.
pub fn deduce(elf: &Elf<'_>, observed: &[(u64, &[u8])]) -> Option<u64> {
    let lowest = elf.segments().iter().map(|s| s.address).filter(|&a| a >= UPPER_HALF).min()?;
    let highest = elf.segments().iter().filter_map(|s| s.address.checked_add(s.size)).max()?;
    let mut scores: Vec<(usize, u64)> = Vec::new();
    let mut total = 0;
    for slide in (0..RANGE).step_by(STEP as usize) {
        let mut agreeing = 0;
        for &(address, bytes) in observed {
            let Some(linked) = address.checked_sub(slide) else {
                continue;
            };
            if linked < lowest || linked >= highest {
                continue;
            }
            let there = elf.bytes_from(linked).unwrap_or_default();
            agreeing += bytes.iter().zip(there).filter(|(a, b)| a == b).count();
        }
        scores.push((agreeing, slide));
    }
    for &(address, bytes) in observed {
        // Modules and the stubs of BPF lie above the kernel image and say nothing here.
        if (lowest..IMAGE_END).contains(&address) {
            total += bytes.len();
        }
    }
    scores.sort_unstable_by(|a, b| b.cmp(a));
    let (&(best, slide), &(second, _)) = (scores.first()?, scores.get(1)?);
    // Unrelated code agrees in about one byte in ten.
    (best >= 12 && best * 4 >= total * 3 && best >= second * 3 / 2).then_some(slide)
}

const UPPER_HALF: u64 = 0xffff_8000_0000_0000;
/// __START_KERNEL_map plus [`RANGE`]: where modules begin with KASLR.
const IMAGE_END: u64 = 0xffff_ffff_8000_0000 + RANGE;
