//! One machine state with the code around it.
//!
//! Decides which dumps can be judged at all: 64-bit x86 with `Code:` bytes and general registers.
//! The main type is [`Situation`].

use kolumbo_case::{CodePlace, CrashReport, MachineState};
use kolumbo_dataflow::symbolic::{Flag, Gpr};

use crate::value::{KERNEL_HALF, KERNEL_HALF_57, Landmarks};
use crate::window::Window;

/// `__KERNEL_CS` (arch/x86/include/asm/segment.h); 0x33 is `__USER_CS`, 0x23 `__USER32_CS`.
const USER32_CS: u64 = 0x23;

/// CR4.LA57, Intel SDM volume 3, section 2.5.
const CR4_LA57: u64 = 1 << 12;

/// Where kernel and module code lies (Documentation/arch/x86/x86_64/mm.rst).
const CODE: std::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_ff00_0000;

/// A dump of an x86-64 CPU with its code.
#[derive(Debug, Clone)]
pub struct Situation {
    /// General registers, by [`Gpr::index`].
    pub registers: [Option<u64>; 16],
    /// RFLAGS.
    pub flags: Option<u64>,
    /// Absolute RIP, where the dump has it.
    pub rip: Option<u64>,
    /// GS base, where the dump has it.
    pub gs_base: Option<u64>,
    /// The CPU was in user mode.
    pub user_mode: bool,
    /// Page tables have five levels.
    pub five_levels: bool,
    /// The address that the trapping instruction could not access, where the headline tells it and
    /// CR2, if it is in the dump, is the same: CR2 alone may be of an older fault.
    pub fault_address: Option<u64>,
    /// Where, in the dump's own words.
    pub place: CodePlace,
    /// The code.
    pub window: Window,
}

impl Situation {
    /// The situation that `state` describes; `None` where it is no 64-bit x86 dump with code whose
    /// trapping byte is marked.
    pub fn of(state: &MachineState) -> Option<Situation> {
        let code = state.code.as_ref()?;
        let trap = code.trap.filter(|&t| t < code.bytes.len() && code.unit <= 1)?;
        state.registers.get("rax")?;
        if state.registers.get("cs") == Some(USER32_CS) {
            return None;
        }
        let registers = {
            let mut values = [None; 16];
            for register in Gpr::all() {
                values[register.index()] = state.registers.get(register.name());
            }
            values
        };
        let place = state.pc.clone().unwrap_or_default();
        let window =
            Window::align(&code.bytes, trap, place.offset.filter(|_| place.function.is_some()));
        Some(Situation {
            registers,
            flags: state.registers.get("rflags"),
            rip: place.address.or_else(|| state.registers.get("rip")),
            gs_base: state.registers.get("gs_base"),
            user_mode: state.user_mode,
            five_levels: five_levels(state),
            fault_address: None,
            place,
            window,
        })
    }

    /// The situation at the fault that `report` is about, with what its headline says.
    pub fn at_fault(report: &CrashReport, state: &MachineState) -> Option<Situation> {
        let mut situation = Situation::of(state)?;
        let (address, by_page_fault) = match accessed(&report.headline.text) {
            Some(accessed) => accessed,
            None => return Some(situation),
        };
        let cr2 = state.registers.get("cr2");
        // A page fault on fetching the instruction names the instruction pointer; where that is not
        // in the dump, no address of kernel code is taken for an operand's.
        let fetch = match situation.absolute_rip() {
            Some(rip) => rip == address,
            None => CODE.contains(&address),
        };
        let sure = !by_page_fault || (cr2.is_none_or(|cr2| cr2 == address) && !fetch);
        situation.fault_address = Some(address).filter(|_| sure && !situation.user_mode);
        Some(situation)
    }

    /// The value of `register` in the dump.
    pub fn register(&self, register: Gpr) -> Option<u64> {
        self.registers[register.index()]
    }

    /// The value of `flag` in the dump.
    pub fn flag(&self, flag: Flag) -> Option<bool> {
        self.flags.map(|flags| flags >> flag.bit() & 1 == 1)
    }

    /// RIP where it is an absolute address: dumps since v4.10 print only `function+offset`.
    pub fn absolute_rip(&self) -> Option<u64> {
        self.rip.filter(|&rip| rip > 0xffff || self.place.function.is_none())
    }

    /// What values of this dump are compared with.
    pub fn landmarks(&self) -> Landmarks {
        Landmarks {
            gs_base: self.gs_base,
            rsp: self.register(Gpr::RSP),
            rip: self.absolute_rip(),
            canary: None,
            five_levels: self.five_levels,
        }
    }

    /// How the byte at `offset` of the window is called: `function+0x1f`, or an address.
    pub fn address_of(&self, offset: usize) -> String {
        let distance = offset as i64 - self.window.trap as i64;
        if let (Some(function), Some(at)) = (&self.place.function, self.place.offset) {
            let at = (at as i64).wrapping_add(distance);
            return if at < 0 {
                format!("{function}-{:#x}", -at)
            } else {
                format!("{function}+{at:#x}")
            };
        }
        match self.rip {
            Some(rip) => format!("{:#x}", rip.wrapping_add_signed(distance)),
            None => format!(
                "trap{}{:#x}",
                if distance < 0 { "-" } else { "+" },
                distance.unsigned_abs()
            ),
        }
    }
}

/// CR4.LA57 says it; a dump without CR4 shows it by a kernel stack below the addresses of four levels.
fn five_levels(state: &MachineState) -> bool {
    match (state.registers.get("cr4"), state.registers.get("rsp")) {
        (Some(cr4), _) => cr4 & CR4_LA57 != 0,
        (None, Some(rsp)) => !state.user_mode && (KERNEL_HALF_57..KERNEL_HALF).contains(&rsp),
        _ => false,
    }
}

/// The address in a headline of arch/x86/mm/fault.c (`show_fault_oops`) or arch/x86/kernel/traps.c
/// (`exc_general_protection`), and whether a page fault announced it.
fn accessed(headline: &str) -> Option<(u64, bool)> {
    // Since v6.10 `die` begins the line.
    let headline = headline.strip_prefix("Oops: ").unwrap_or(headline);
    let page_fault = headline.starts_with("BUG: unable to handle")
        || headline.starts_with("BUG: kernel NULL pointer dereference");
    let number = if page_fault {
        ["address: ", " at "].iter().find_map(|before| headline.split_once(before))?.1
    } else if headline.starts_with("general protection fault") {
        headline.split_once("for non-canonical address ")?.1
    } else {
        return None;
    };
    let digits = number.trim_start().trim_start_matches("0x");
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    // Anything shorter is no address of a 64-bit kernel, or a hash of one.
    let digits = digits.get(..end).filter(|d| d.len() == 16)?;
    Some((u64::from_str_radix(digits, 16).ok()?, page_fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_headline_is_read() {
        for (headline, expected) in [
            (
                "BUG: unable to handle page fault for address: ffffc90000e08000",
                Some((0xffff_c900_00e0_8000, true)),
            ),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000008", Some((8, true))),
            (
                "BUG: unable to handle kernel paging request at ffff8880bfffd000",
                Some((0xffff_8880_bfff_d000, true)),
            ),
            (
                "Oops: general protection fault, probably for non-canonical address 0xdffffc0000000004: 0000 [#1]",
                Some((0xdfff_fc00_0000_0004, false)),
            ),
            ("general protection fault: 0000 [#1] SMP", None),
            ("BUG: unable to handle kernel NULL pointer dereference at 00000008", None),
            ("WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1 f+0x1/0x2", None),
        ] {
            assert_eq!(accessed(headline), expected, "{headline}");
        }
    }
}
