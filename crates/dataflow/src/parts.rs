//! Sets of register parts and flags, the words in which effects, liveness and contracts are stated.
//!
//! A general register has four disjoint parts (bits 0-7, 8-15, 16-31, 32-63), a vector register three (0-127, 128-255,
//! 256-511); each flag stands alone. Knows nothing of instructions. Main type: [`Parts`].

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not, Sub};

use iced_x86::{Register, RflagsBits};

/// A set of register parts and flags. Instruction pointer, segment, control and debug registers are no members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts {
    /// Four bits for each of RAX to R15 in encoding order (RAX, RCX, RDX, RBX, RSP, ...): bits 0-7, 8-15, 16-31, 32-63.
    pub general: u64,
    /// Bit n: bits 0-127 of vector register n; bit 32+n: bits 128-255; bit 64+n: bits 256-511; bit 96+n: mask register n;
    /// bit 104: the whole x87 and MMX state.
    pub vector: u128,
    /// iced's `RflagsBits`: CF, PF, AF, ZF, SF, OF, DF, IF, AC.
    pub flags: u16,
}

/// The six flags that arithmetic changes.
pub const ARITHMETIC_FLAGS: u16 = (RflagsBits::CF
    | RflagsBits::PF
    | RflagsBits::AF
    | RflagsBits::ZF
    | RflagsBits::SF
    | RflagsBits::OF) as u16;

const ALL_FLAGS: u16 = ARITHMETIC_FLAGS | (RflagsBits::DF | RflagsBits::IF | RflagsBits::AC) as u16;
const X87: u128 = 1 << 104;
const ALL_VECTOR: u128 = (1 << 105) - 1;

const NAMES_64: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const NAMES_32: [&str; 16] = [
    "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d",
    "r13d", "r14d", "r15d",
];
const NAMES_16: [&str; 16] = [
    "ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w", "r13w",
    "r14w", "r15w",
];
const NAMES_8: [&str; 16] = [
    "al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", "r8b", "r9b", "r10b", "r11b", "r12b",
    "r13b", "r14b", "r15b",
];

/// Flag bit and name, in the order in which kernel people list them.
pub const FLAG_NAMES: [(u16, &str); 9] = [
    (RflagsBits::CF as u16, "CF"),
    (RflagsBits::PF as u16, "PF"),
    (RflagsBits::AF as u16, "AF"),
    (RflagsBits::ZF as u16, "ZF"),
    (RflagsBits::SF as u16, "SF"),
    (RflagsBits::OF as u16, "OF"),
    (RflagsBits::DF as u16, "DF"),
    (RflagsBits::IF as u16, "IF"),
    (RflagsBits::AC as u16, "AC"),
];

impl Parts {
    /// Nothing.
    pub const EMPTY: Self = Self { general: 0, vector: 0, flags: 0 };
    /// Every part of every register and every flag.
    pub const ALL: Self = Self { general: u64::MAX, vector: ALL_VECTOR, flags: ALL_FLAGS };

    /// The parts that a register name covers: `AH` is one part, `EAX` three, `RAX` four. Registers that are no members give
    /// the empty set.
    #[must_use]
    pub fn of(register: Register) -> Self {
        if register.is_gpr() {
            let at = 4 * register.full_register().number();
            let mask = if register.is_gpr64() {
                0b1111
            } else if register.is_gpr32() {
                0b0111
            } else if register.is_gpr16() {
                0b0011
            } else if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
            {
                0b0010
            } else {
                0b0001
            };
            return Self { general: mask << at, ..Self::EMPTY };
        }
        let vector = if register.is_xmm() {
            1 << register.number()
        } else if register.is_ymm() {
            (1 | 1 << 32) << register.number()
        } else if register.is_zmm() {
            (1 | 1 << 32 | 1 << 64) << register.number()
        } else if register.is_k() {
            1 << (96 + register.number())
        } else if register.is_mm() || register.is_st() {
            X87
        } else {
            0
        };
        Self { vector, ..Self::EMPTY }
    }

    /// The whole 64-bit register with this encoding number (0 is RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP, ...; at most 15).
    #[must_use]
    pub const fn general(number: usize) -> Self {
        Self { general: 0b1111 << (4 * (number & 15)), vector: 0, flags: 0 }
    }

    /// Flags by iced's `RflagsBits`; other bits are dropped.
    #[must_use]
    pub const fn flags(bits: u32) -> Self {
        Self { general: 0, vector: 0, flags: bits as u16 & ALL_FLAGS }
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.general == 0 && self.vector == 0 && self.flags == 0
    }

    /// Whether the sets share a member.
    #[must_use]
    pub const fn intersects(&self, other: Self) -> bool {
        self.general & other.general != 0
            || self.vector & other.vector != 0
            || self.flags & other.flags != 0
    }

    /// Whether every member of `other` is in this set.
    #[must_use]
    pub const fn contains(&self, other: Self) -> bool {
        other.general & !self.general == 0
            && other.vector & !self.vector == 0
            && other.flags & !self.flags == 0
    }

    /// The four part bits of one general register, lowest part first.
    #[must_use]
    pub const fn of_general(&self, number: usize) -> u8 {
        (self.general >> (4 * (number & 15)) & 0b1111) as u8
    }

    /// Encoding numbers of the general registers with at least one part in the set, ascending.
    pub fn generals(self) -> impl Iterator<Item = usize> {
        let mut left = self.general;
        std::iter::from_fn(move || {
            let number = (left != 0).then(|| left.trailing_zeros() as usize / 4)?;
            left &= !(0b1111 << (4 * number));
            Some(number)
        })
    }

    /// The set widened so that each general register of which a part is in it is in it whole.
    #[must_use]
    pub fn whole_generals(self) -> Self {
        self.generals().fold(self, |set, number| set | Self::general(number))
    }

    /// The members as people name them: `rcx`, `ecx`, `cl`, `CF`. A register with a hole is named by its highest part.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for number in self.generals() {
            let bits = self.of_general(number);
            names.push(match bits {
                0b0001 => NAMES_8[number].to_owned(),
                0b0010 if number < 4 => format!("{}h", &NAMES_8[number][..1]),
                0b0010 | 0b0011 => NAMES_16[number].to_owned(),
                0b0100..=0b0111 => NAMES_32[number].to_owned(),
                _ => NAMES_64[number].to_owned(),
            });
        }
        for number in 0..32 {
            let part = |shift: u32| self.vector >> (number + shift) & 1 != 0;
            if part(64) {
                names.push(format!("zmm{number}"));
            } else if part(32) {
                names.push(format!("ymm{number}"));
            } else if part(0) {
                names.push(format!("xmm{number}"));
            }
        }
        names.extend(
            (0..8)
                .filter(|number| self.vector >> (96 + number) & 1 != 0)
                .map(|number| format!("k{number}")),
        );
        if self.vector & X87 != 0 {
            names.push("x87".to_owned());
        }
        names.extend(
            FLAG_NAMES
                .iter()
                .filter(|(bit, _)| self.flags & bit != 0)
                .map(|(_, name)| (*name).to_owned()),
        );
        names
    }

    /// A member by name, in any case: `rcx`, `ecx`, `cl`, `xmm3`, `zf`; `None` when there is no such name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.trim_start_matches('%').to_ascii_lowercase();
        if let Some((bit, _)) = FLAG_NAMES.iter().find(|(_, flag)| flag.eq_ignore_ascii_case(&name))
        {
            return Some(Self { flags: *bit, ..Self::EMPTY });
        }
        let place = |names: &[&str; 16]| names.iter().position(|candidate| *candidate == name);
        let with =
            |mask: u64, number: usize| Some(Self { general: mask << (4 * number), ..Self::EMPTY });
        if let Some(number) = place(&NAMES_64) {
            return with(0b1111, number);
        }
        if let Some(number) = place(&NAMES_32) {
            return with(0b0111, number);
        }
        if let Some(number) = place(&NAMES_16) {
            return with(0b0011, number);
        }
        if let Some(number) = place(&NAMES_8) {
            return with(0b0001, number);
        }
        if let Some(number) =
            ["ah", "ch", "dh", "bh"].iter().position(|candidate| *candidate == name)
        {
            return with(0b0010, number);
        }
        let numbered = |prefix: &str| {
            name.strip_prefix(prefix)?.parse::<u32>().ok().filter(|number| *number < 32)
        };
        let vector = |bits: u128| Some(Self { vector: bits, ..Self::EMPTY });
        if let Some(number) = numbered("xmm") {
            return vector(1 << number);
        }
        if let Some(number) = numbered("ymm") {
            return vector((1 | 1 << 32) << number);
        }
        if let Some(number) = numbered("zmm") {
            return vector((1 | 1 << 32 | 1 << 64) << number);
        }
        None
    }
}

impl BitOr for Parts {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self {
            general: self.general | other.general,
            vector: self.vector | other.vector,
            flags: self.flags | other.flags,
        }
    }
}

impl BitOrAssign for Parts {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl BitAnd for Parts {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self {
            general: self.general & other.general,
            vector: self.vector & other.vector,
            flags: self.flags & other.flags,
        }
    }
}

impl Sub for Parts {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self & !other
    }
}

impl Not for Parts {
    type Output = Self;
    fn not(self) -> Self {
        Self {
            general: !self.general,
            vector: !self.vector & ALL_VECTOR,
            flags: !self.flags & ALL_FLAGS,
        }
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.names().join(" "))
    }
}
