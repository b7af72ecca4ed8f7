//! One machine state with the code around it.
//!
//! Decides which dumps can be judged at all: 64-bit x86 with `Code:` bytes and general registers.
//! The main type is [`Situation`].

use kolumbo_case::{CodePlace, MachineState};
use kolumbo_dataflow::symbolic::{Flag, Gpr};

use crate::value::{KERNEL_HALF, KERNEL_HALF_57, Landmarks};
use crate::window::Window;

/// `__KERNEL_CS` (arch/x86/include/asm/segment.h); 0x33 is `__USER_CS`, 0x23 `__USER32_CS`.
const USER32_CS: u64 = 0x23;

/// CR4.LA57, Intel SDM volume 3, section 2.5.
const CR4_LA57: u64 = 1 << 12;

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
            place,
            window,
        })
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
