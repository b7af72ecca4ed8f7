//! The six arithmetic flags as terms.
//!
//! Decides what addition, subtraction, logic and shifts leave in the flags, after the Intel SDM,
//! volume 1, 3.4.3.1 and the pages of volume 2. Flags that the manual calls undefined become
//! unknown. Operands come zero-extended to their width.

use super::machine::{Flag, Machine};
use super::term::Term;

impl Machine {
    /// ZF, SF and PF of a result.
    fn result_flags(&mut self, result: Term, width: u32) {
        let zero = self.terms.is_zero(result);
        let sign = self.terms.bit(result, width - 1);
        let parity = self.terms.even_parity(result);
        self.set_flag(Flag::Zf, zero);
        self.set_flag(Flag::Sf, sign);
        self.set_flag(Flag::Pf, parity);
    }

    fn auxiliary(&mut self, a: Term, b: Term, result: Term) {
        let mixed = self.terms.xor(a, b);
        let mixed = self.terms.xor(mixed, result);
        let flag = self.terms.bit(mixed, 4);
        self.set_flag(Flag::Af, flag);
    }

    /// AND, OR, XOR, TEST.
    pub(super) fn logic_flags(&mut self, result: Term, width: u32) {
        self.result_flags(result, width);
        let zero = self.terms.constant(0);
        self.set_flag(Flag::Cf, zero);
        self.set_flag(Flag::Of, zero);
        self.forget_flag(Flag::Af);
    }

    /// ADD, ADC, INC, XADD: the sum, with all flags but CF where `keep_carry`.
    pub(super) fn sum(
        &mut self,
        a: Term,
        b: Term,
        carry: Option<Term>,
        width: u32,
        keep_carry: bool,
    ) -> Term {
        let mut wide = self.terms.add(a, b);
        if let Some(carry) = carry {
            wide = self.terms.add(wide, carry);
        }
        let result = self.terms.low(wide, width);
        self.result_flags(result, width);
        self.auxiliary(a, b, result);
        let from_a = self.terms.xor(a, result);
        let from_b = self.terms.xor(b, result);
        let both = self.terms.and(from_a, from_b);
        let overflow = self.terms.bit(both, width - 1);
        self.set_flag(Flag::Of, overflow);
        if !keep_carry {
            let out = if width < 64 {
                self.terms.bit(wide, width)
            } else if carry.is_none() {
                self.terms.below(result, a)
            } else {
                self.fresh(1)
            };
            self.set_flag(Flag::Cf, out);
        }
        result
    }

    /// SUB, CMP, SBB, DEC, NEG: the difference, with all flags but CF where `keep_carry`.
    pub(super) fn difference(
        &mut self,
        a: Term,
        b: Term,
        borrow: Option<Term>,
        width: u32,
        keep_carry: bool,
    ) -> Term {
        let mut wide = self.terms.sub(a, b);
        if let Some(borrow) = borrow {
            wide = self.terms.sub(wide, borrow);
        }
        let result = self.terms.low(wide, width);
        self.result_flags(result, width);
        self.auxiliary(a, b, result);
        let operands = self.terms.xor(a, b);
        let from_a = self.terms.xor(a, result);
        let both = self.terms.and(operands, from_a);
        let overflow = self.terms.bit(both, width - 1);
        self.set_flag(Flag::Of, overflow);
        if !keep_carry {
            let out = match borrow {
                None => self.terms.below(a, b),
                Some(borrow) if a == b => borrow,
                Some(borrow) if width < 64 => {
                    let subtrahend = self.terms.add(b, borrow);
                    self.terms.below(a, subtrahend)
                }
                Some(_) => self.fresh(1),
            };
            self.set_flag(Flag::Cf, out);
        }
        result
    }

    /// SHL, SHR, SAR by a constant that is not zero and below the width.
    pub(super) fn shift(&mut self, kind: Shift, a: Term, by: u32, width: u32) -> Term {
        let (result, carry) = match kind {
            Shift::Left => {
                let moved = self.terms.shl(a, by);
                (self.terms.low(moved, width), self.terms.bit(a, width - by))
            }
            Shift::Right => (self.terms.shr(a, by), self.terms.bit(a, by - 1)),
            Shift::Arithmetic => {
                let signed = self.terms.sext(a, width);
                let moved = self.terms.sar(signed, by);
                (self.terms.low(moved, width), self.terms.bit(a, by - 1))
            }
        };
        self.result_flags(result, width);
        self.set_flag(Flag::Cf, carry);
        self.forget_flag(Flag::Af);
        if by == 1 {
            let overflow = match kind {
                Shift::Left => {
                    let sign = self.terms.bit(result, width - 1);
                    self.terms.xor(sign, carry)
                }
                Shift::Right => self.terms.bit(a, width - 1),
                Shift::Arithmetic => self.terms.constant(0),
            };
            self.set_flag(Flag::Of, overflow);
        } else {
            self.forget_flag(Flag::Of);
        }
        result
    }
}

/// Kinds of shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    Left,
    Right,
    Arithmetic,
}
