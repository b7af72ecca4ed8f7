//! Known bits: which bits of a 64-bit value are certain, and what they are.
//!
//! Decides nothing; it is the abstract domain of the solver. Narrow values are zero-extended, so
//! the bits above their width are known zeros.

/// What is certain about a 64-bit value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits {
    /// Bits whose value is certain.
    pub known: u64,
    /// Their value; zero wherever `known` is zero.
    pub value: u64,
}

impl Bits {
    /// Nothing is certain.
    pub const TOP: Bits = Bits { known: 0, value: 0 };

    /// Every bit is certain.
    pub const fn constant(value: u64) -> Bits {
        Bits { known: u64::MAX, value }
    }

    /// The bits of `value` that `known` selects.
    pub const fn new(known: u64, value: u64) -> Bits {
        Bits { known, value: value & known }
    }

    /// A value of at most `width` bits, about which nothing else is certain.
    pub fn of_width(width: u32) -> Bits {
        Bits::new(!mask(width), 0)
    }

    /// The value, when every bit is certain.
    pub fn exact(self) -> Option<u64> {
        (self.known == u64::MAX).then_some(self.value)
    }

    /// The smallest unsigned value that fits.
    pub fn min(self) -> u64 {
        self.value
    }

    /// The largest unsigned value that fits.
    pub fn max(self) -> u64 {
        self.value | !self.known
    }

    /// Number of low bits, from bit 0 up without a gap, that are certain.
    pub fn known_low(self) -> u32 {
        self.known.trailing_ones()
    }

    /// Both sources are true; `Err` carries the bits on which they disagree.
    pub fn meet(self, other: Bits) -> Result<Bits, u64> {
        let clash = self.known & other.known & (self.value ^ other.value);
        if clash != 0 {
            return Err(clash);
        }
        Ok(Bits { known: self.known | other.known, value: self.value | other.value })
    }

    /// Only what holds in both cases.
    pub fn join(self, other: Bits) -> Bits {
        let known = self.known & other.known & !(self.value ^ other.value);
        Bits::new(known, self.value)
    }

    /// Bitwise and.
    pub fn and(self, b: Bits) -> Bits {
        let ones = self.value & b.value;
        let zeros = (self.known & !self.value) | (b.known & !b.value);
        Bits { known: ones | zeros, value: ones }
    }

    /// Bitwise or.
    pub fn or(self, b: Bits) -> Bits {
        let ones = self.value | b.value;
        let zeros = (self.known & !self.value) & (b.known & !b.value);
        Bits { known: ones | zeros, value: ones }
    }

    /// Bitwise exclusive or.
    pub fn xor(self, b: Bits) -> Bits {
        let known = self.known & b.known;
        Bits::new(known, self.value ^ b.value)
    }

    /// Sum modulo 2^64. A bit is certain where both summands and the carry into it are.
    pub fn plus(self, b: Bits) -> Bits {
        let least = self.min().wrapping_add(b.min());
        let most = self.max().wrapping_add(b.max());
        // The carry into a bit is monotone in both summands: where the carries of the least and of
        // the most sum agree, they agree for every value between.
        let carry_least = least ^ self.min() ^ b.min();
        let carry_most = most ^ self.max() ^ b.max();
        let known = self.known & b.known & !(carry_least ^ carry_most);
        Bits::new(known, least)
    }

    /// Difference modulo 2^64.
    pub fn minus(self, b: Bits) -> Bits {
        // a - b = a + !b + 1
        let not_b = Bits { known: b.known, value: !b.value & b.known };
        let least = self.min().wrapping_add(not_b.min()).wrapping_add(1);
        let most = self.max().wrapping_add(not_b.max()).wrapping_add(1);
        let carry_least = least ^ self.min() ^ not_b.min();
        let carry_most = most ^ self.max() ^ not_b.max();
        let known = self.known & not_b.known & !(carry_least ^ carry_most);
        Bits::new(known, least)
    }

    /// Product modulo 2^64: exact operands, or the trailing zeros of both.
    pub fn times(self, b: Bits) -> Bits {
        if let (Some(x), Some(y)) = (self.exact(), b.exact()) {
            return Bits::constant(x.wrapping_mul(y));
        }
        let zeros = |x: Bits| (x.known & !x.value).trailing_ones();
        let low = (zeros(self) + zeros(b)).min(64);
        Bits::new(mask(low), 0)
    }

    /// Shift left by `by` (0 to 63); zeros come in.
    pub fn shifted_left(self, by: u32) -> Bits {
        Bits { known: (self.known << by) | mask(by), value: self.value << by }
    }

    /// Logical shift right by `by` (0 to 63).
    pub fn shifted_right(self, by: u32) -> Bits {
        let top = if by == 0 { 0 } else { !(u64::MAX >> by) };
        Bits { known: (self.known >> by) | top, value: self.value >> by }
    }

    /// Arithmetic shift right by `by` (0 to 63).
    pub fn sar(self, by: u32) -> Bits {
        let known = ((self.known as i64) >> by) as u64;
        Bits::new(known, ((self.value as i64) >> by) as u64)
    }

    /// Sign extension of the low `from` bits to 64.
    pub fn sext(self, from: u32) -> Bits {
        let by = 64 - from;
        Bits { known: self.known << by, value: self.value << by }.sar(by)
    }

    /// Number of values that fit, saturating.
    pub fn unknown_count(self) -> u32 {
        (!self.known).count_ones()
    }
}

/// The low `width` bits set; everything from 64 on.
pub fn mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { (1u64 << width) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits_of(value: u64, known: u64) -> Bits {
        Bits::new(known, value)
    }

    proptest! {
        /// Whatever the domain claims must hold for the concrete values it was made from.
        #[test]
        fn every_operation_is_sound(a: u64, b: u64, ka: u64, kb: u64, by in 0u32..64, from in 1u32..=64) {
            let (x, y) = (bits_of(a, ka), bits_of(b, kb));
            let holds = |abstracted: Bits, concrete: u64| (concrete ^ abstracted.value) & abstracted.known == 0;
            prop_assert!(holds(x.and(y), a & b));
            prop_assert!(holds(x.or(y), a | b));
            prop_assert!(holds(x.xor(y), a ^ b));
            prop_assert!(holds(x.plus(y), a.wrapping_add(b)));
            prop_assert!(holds(x.minus(y), a.wrapping_sub(b)));
            prop_assert!(holds(x.times(y), a.wrapping_mul(b)));
            prop_assert!(holds(x.shifted_left(by), a << by));
            prop_assert!(holds(x.shifted_right(by), a >> by));
            prop_assert!(holds(x.sar(by), ((a as i64) >> by) as u64));
            let shift = 64 - from;
            prop_assert!(holds(x.sext(from), (((a << shift) as i64) >> shift) as u64));
            prop_assert!(x.min() <= a && a <= x.max());
        }
    }

    #[test]
    fn contradicting_bits_are_named() {
        assert_eq!(Bits::constant(0x82).meet(Bits::new(0x80, 0)), Err(0x80));
        assert_eq!(Bits::new(1, 1).meet(Bits::new(2, 0)), Ok(Bits::new(3, 1)));
    }
}
