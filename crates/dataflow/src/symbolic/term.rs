//! Terms: values as expressions over unknowns.
//!
//! Decides how a term is simplified and which bits of it are known when bits of its unknowns are.
//! Terms are 64 bits wide, narrow values are zero-extended, flags are terms of one bit. Equal terms
//! share one number, and operands always have smaller numbers than the terms made of them, so that
//! every walk is a loop. The main type is [`Terms`].

use std::collections::HashMap;

use super::bits::{Bits, mask};
use super::machine::{Flag, Gpr};

/// Number of a term within its [`Terms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u32);

impl Term {
    /// Position within [`Terms::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The segment base that an address is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Flat: base 0.
    Flat,
    /// The FS base.
    Fs,
    /// The GS base, where the per-CPU area of a kernel lies.
    Gs,
}

/// Where an unknown came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A register at the start of the line.
    Initial(Gpr),
    /// A flag at the start of the line.
    InitialFlag(Flag),
    /// What a load returned.
    Load {
        /// Effective address without the segment base.
        address: Term,
        /// Segment that the base comes from.
        segment: Segment,
        /// Size in bytes.
        bytes: u8,
    },
    /// A register that a callee may have overwritten.
    CalleeLeft(Gpr),
    /// The address of the code itself.
    CodeBase,
    /// A result that the evaluation does not model.
    Opaque,
}

/// One unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown {
    /// Where it came from.
    pub origin: Origin,
    /// Step of the line that made it; `None` for the start of the line.
    pub step: Option<usize>,
    /// Width in bits.
    pub width: u32,
}

/// How a term is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// A number.
    Const(u64),
    /// An unknown, by its position in [`Terms::unknowns`].
    Unknown(u32),
    /// Sum modulo 2^64.
    Add(Term, Term),
    /// Difference modulo 2^64.
    Sub(Term, Term),
    /// Product modulo 2^64.
    Mul(Term, Term),
    /// Bitwise and.
    And(Term, Term),
    /// Bitwise or.
    Or(Term, Term),
    /// Bitwise exclusive or.
    Xor(Term, Term),
    /// Shift left by a constant of 0 to 63.
    Shl(Term, u8),
    /// Logical shift right by a constant of 0 to 63.
    Shr(Term, u8),
    /// Arithmetic shift right of the 64-bit value by a constant of 0 to 63.
    Sar(Term, u8),
    /// Sign extension of the low bits, whose number is given, to 64 bits.
    Sext(Term, u8),
    /// 1 where the operand is zero, else 0.
    IsZero(Term),
    /// 1 where the low byte of the operand has an even number of ones, else 0.
    EvenParity(Term),
    /// 1 where the first operand is below the second, unsigned, else 0.
    Below(Term, Term),
    /// The second operand where the first (one bit) is 1, else the third.
    Choose(Term, Term, Term),
}

/// A set of terms, each stored once.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    nodes: Vec<Node>,
    index: HashMap<Node, Term>,
    unknowns: Vec<Unknown>,
}

impl Terms {
    /// An empty set.
    pub fn new() -> Terms {
        Terms::default()
    }

    /// Every node; operands come before the terms made of them.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Every unknown.
    pub fn unknowns(&self) -> &[Unknown] {
        &self.unknowns
    }

    /// How `term` is made.
    pub fn node(&self, term: Term) -> Node {
        self.nodes[term.index()]
    }

    /// The number that `term` is, when it is one.
    pub fn as_const(&self, term: Term) -> Option<u64> {
        match self.node(term) {
            Node::Const(value) => Some(value),
            _ => None,
        }
    }

    /// The unknown that `term` is, when it is one.
    pub fn as_unknown(&self, term: Term) -> Option<&Unknown> {
        match self.node(term) {
            Node::Unknown(id) => self.unknowns.get(id as usize),
            _ => None,
        }
    }

    /// `term` as an unknown (or nothing) plus a constant.
    pub fn as_offset(&self, term: Term) -> (Option<Term>, u64) {
        match self.node(term) {
            Node::Const(value) => (None, value),
            Node::Add(base, offset) => match self.as_const(offset) {
                Some(offset) => (Some(base), offset),
                None => (Some(term), 0),
            },
            _ => (Some(term), 0),
        }
    }

    fn intern(&mut self, node: Node) -> Term {
        if let Some(&term) = self.index.get(&node) {
            return term;
        }
        let term = Term(self.nodes.len() as u32);
        self.nodes.push(node);
        self.index.insert(node, term);
        term
    }

    /// A number.
    pub fn constant(&mut self, value: u64) -> Term {
        self.intern(Node::Const(value))
    }

    /// A new unknown of `width` bits.
    pub fn unknown(&mut self, origin: Origin, step: Option<usize>, width: u32) -> Term {
        let id = self.unknowns.len() as u32;
        self.unknowns.push(Unknown { origin, step, width });
        self.intern(Node::Unknown(id))
    }

    /// Constants stand second in a commutative term.
    fn ordered(&self, a: Term, b: Term) -> (Term, Term) {
        match (self.as_const(a), self.as_const(b)) {
            (Some(_), None) => (b, a),
            (None, Some(_)) => (a, b),
            _ if a <= b => (a, b),
            _ => (b, a),
        }
    }

    /// Sum.
    pub fn add(&mut self, a: Term, b: Term) -> Term {
        let (a, b) = self.ordered(a, b);
        match (self.as_const(a), self.as_const(b)) {
            (Some(x), Some(y)) => return self.constant(x.wrapping_add(y)),
            (None, Some(0)) => return a,
            (None, Some(y)) => {
                if let Node::Add(inner, c) = self.node(a)
                    && let Some(x) = self.as_const(c)
                {
                    let c = self.constant(x.wrapping_add(y));
                    return self.add(inner, c);
                }
            }
            _ => {
                // (x + c) + y keeps its constant outside, so that offsets from one base compare.
                if let Node::Add(inner, c) = self.node(a)
                    && self.as_const(c).is_some()
                {
                    let sum = self.add(inner, b);
                    return self.add(sum, c);
                }
                if let Node::Add(inner, c) = self.node(b)
                    && self.as_const(c).is_some()
                {
                    let sum = self.add(a, inner);
                    return self.add(sum, c);
                }
            }
        }
        self.intern(Node::Add(a, b))
    }

    /// Difference.
    pub fn sub(&mut self, a: Term, b: Term) -> Term {
        if a == b {
            return self.constant(0);
        }
        if let Some(y) = self.as_const(b) {
            let negated = self.constant(y.wrapping_neg());
            return self.add(a, negated);
        }
        let ((base_a, off_a), (base_b, off_b)) = (self.as_offset(a), self.as_offset(b));
        if base_a.is_some() && base_a == base_b {
            return self.constant(off_a.wrapping_sub(off_b));
        }
        self.intern(Node::Sub(a, b))
    }

    /// Product.
    pub fn mul(&mut self, a: Term, b: Term) -> Term {
        let (a, b) = self.ordered(a, b);
        match (self.as_const(a), self.as_const(b)) {
            (Some(x), Some(y)) => self.constant(x.wrapping_mul(y)),
            (None, Some(0)) => self.constant(0),
            (None, Some(1)) => a,
            (None, Some(y)) if y.is_power_of_two() => self.shl(a, y.trailing_zeros()),
            _ => self.intern(Node::Mul(a, b)),
        }
    }

    /// Bitwise and.
    pub fn and(&mut self, a: Term, b: Term) -> Term {
        let (a, b) = self.ordered(a, b);
        if a == b {
            return a;
        }
        match (self.as_const(a), self.as_const(b)) {
            (Some(x), Some(y)) => return self.constant(x & y),
            (None, Some(0)) => return b,
            (None, Some(u64::MAX)) => return a,
            (None, Some(y)) => {
                if let Node::And(inner, c) = self.node(a)
                    && let Some(x) = self.as_const(c)
                {
                    let c = self.constant(x & y);
                    return self.and(inner, c);
                }
                // A mask that keeps everything the value can have says nothing.
                if self.width_mask(a) & !y == 0 {
                    return a;
                }
            }
            _ => {}
        }
        self.intern(Node::And(a, b))
    }

    /// Bitwise or.
    pub fn or(&mut self, a: Term, b: Term) -> Term {
        let (a, b) = self.ordered(a, b);
        match (self.as_const(a), self.as_const(b)) {
            _ if a == b => a,
            (Some(x), Some(y)) => self.constant(x | y),
            (None, Some(0)) => a,
            (None, Some(u64::MAX)) => b,
            _ => self.intern(Node::Or(a, b)),
        }
    }

    /// Bitwise exclusive or.
    pub fn xor(&mut self, a: Term, b: Term) -> Term {
        let (a, b) = self.ordered(a, b);
        if a == b {
            return self.constant(0);
        }
        match (self.as_const(a), self.as_const(b)) {
            (Some(x), Some(y)) => return self.constant(x ^ y),
            (None, Some(0)) => return a,
            (None, Some(y)) => {
                if let Node::Xor(inner, c) = self.node(a)
                    && let Some(x) = self.as_const(c)
                {
                    let c = self.constant(x ^ y);
                    return self.xor(inner, c);
                }
            }
            _ => {}
        }
        self.intern(Node::Xor(a, b))
    }

    /// Shift left by `by`, 0 to 63.
    pub fn shl(&mut self, a: Term, by: u32) -> Term {
        match (self.as_const(a), by) {
            (_, 0) => a,
            (Some(x), _) => self.constant(x << by),
            _ => self.intern(Node::Shl(a, by as u8)),
        }
    }

    /// Logical shift right by `by`, 0 to 63.
    pub fn shr(&mut self, a: Term, by: u32) -> Term {
        match (self.as_const(a), by) {
            (_, 0) => a,
            (Some(x), _) => self.constant(x >> by),
            _ => self.intern(Node::Shr(a, by as u8)),
        }
    }

    /// Arithmetic shift right of the 64-bit value by `by`, 0 to 63.
    pub fn sar(&mut self, a: Term, by: u32) -> Term {
        match (self.as_const(a), by) {
            (_, 0) => a,
            (Some(x), _) => self.constant(((x as i64) >> by) as u64),
            _ => self.intern(Node::Sar(a, by as u8)),
        }
    }

    /// Sign extension of the low `from` bits (1 to 64) to 64.
    pub fn sext(&mut self, a: Term, from: u32) -> Term {
        match self.as_const(a) {
            _ if from >= 64 => a,
            Some(x) => {
                let by = 64 - from;
                self.constant((((x << by) as i64) >> by) as u64)
            }
            None => self.intern(Node::Sext(a, from as u8)),
        }
    }

    /// The low `width` bits of `a`.
    pub fn low(&mut self, a: Term, width: u32) -> Term {
        if width >= 64 {
            return a;
        }
        let mask = self.constant(mask(width));
        self.and(a, mask)
    }

    /// Bit `bit` of `a` as a one-bit term.
    pub fn bit(&mut self, a: Term, bit: u32) -> Term {
        let shifted = self.shr(a, bit);
        self.low(shifted, 1)
    }

    /// 1 where `a` is zero.
    pub fn is_zero(&mut self, a: Term) -> Term {
        match self.as_const(a) {
            Some(x) => self.constant(u64::from(x == 0)),
            None => self.intern(Node::IsZero(a)),
        }
    }

    /// 1 where the low byte of `a` has an even number of ones.
    pub fn even_parity(&mut self, a: Term) -> Term {
        match self.as_const(a) {
            Some(x) => self.constant(u64::from((x as u8).count_ones().is_multiple_of(2))),
            None => self.intern(Node::EvenParity(a)),
        }
    }

    /// 1 where `a` is below `b`, unsigned.
    pub fn below(&mut self, a: Term, b: Term) -> Term {
        if a == b || self.as_const(b) == Some(0) {
            return self.constant(0);
        }
        match (self.as_const(a), self.as_const(b)) {
            (Some(x), Some(y)) => self.constant(u64::from(x < y)),
            _ => self.intern(Node::Below(a, b)),
        }
    }

    /// One-bit negation.
    pub fn not_bit(&mut self, a: Term) -> Term {
        let one = self.constant(1);
        self.xor(a, one)
    }

    /// `yes` where `condition` (one bit) is 1, else `no`.
    pub fn choose(&mut self, condition: Term, yes: Term, no: Term) -> Term {
        match self.as_const(condition) {
            _ if yes == no => yes,
            Some(0) => no,
            Some(_) => yes,
            None => self.intern(Node::Choose(condition, yes, no)),
        }
    }

    /// A mask of the bits that `term` can have at all, from its own shape.
    fn width_mask(&self, term: Term) -> u64 {
        match self.node(term) {
            Node::Const(value) => value,
            Node::Unknown(id) => mask(self.unknowns[id as usize].width),
            Node::And(_, c) => self.as_const(c).unwrap_or(u64::MAX),
            Node::Shr(_, by) => u64::MAX >> by,
            Node::IsZero(_) | Node::EvenParity(_) | Node::Below(..) => 1,
            _ => u64::MAX,
        }
    }

    /// The bits of `node` that follow from `of`, the bits of its operands.
    pub fn evaluate(&self, node: Node, of: impl Fn(Term) -> Bits) -> Bits {
        match node {
            Node::Const(value) => Bits::constant(value),
            Node::Unknown(id) => Bits::of_width(self.unknowns[id as usize].width),
            Node::Add(a, b) => of(a).plus(of(b)),
            Node::Sub(a, b) => of(a).minus(of(b)),
            Node::Mul(a, b) => of(a).times(of(b)),
            Node::And(a, b) => of(a).and(of(b)),
            Node::Or(a, b) => of(a).or(of(b)),
            Node::Xor(a, b) => of(a).xor(of(b)),
            Node::Shl(a, by) => of(a).shifted_left(u32::from(by)),
            Node::Shr(a, by) => of(a).shifted_right(u32::from(by)),
            Node::Sar(a, by) => of(a).sar(u32::from(by)),
            Node::Sext(a, from) => of(a).sext(u32::from(from)),
            Node::IsZero(a) => {
                let a = of(a);
                if a.value != 0 {
                    Bits::constant(0)
                } else if a.known == u64::MAX {
                    Bits::constant(1)
                } else {
                    Bits::of_width(1)
                }
            }
            Node::EvenParity(a) => {
                let a = of(a);
                if a.known & 0xff == 0xff {
                    Bits::constant(u64::from((a.value as u8).count_ones().is_multiple_of(2)))
                } else {
                    Bits::of_width(1)
                }
            }
            Node::Below(a, b) => {
                let (a, b) = (of(a), of(b));
                if a.max() < b.min() {
                    Bits::constant(1)
                } else if a.min() >= b.max() {
                    Bits::constant(0)
                } else {
                    Bits::of_width(1)
                }
            }
            Node::Choose(c, yes, no) => match of(c).exact() {
                Some(0) => of(no),
                Some(_) => of(yes),
                None => of(yes).join(of(no)),
            },
        }
    }
}

impl Node {
    /// Calls `each` for every operand.
    pub fn operands(self, mut each: impl FnMut(Term)) {
        match self {
            Node::Const(_) | Node::Unknown(_) => {}
            Node::Add(a, b)
            | Node::Sub(a, b)
            | Node::Mul(a, b)
            | Node::And(a, b)
            | Node::Or(a, b)
            | Node::Xor(a, b)
            | Node::Below(a, b) => {
                each(a);
                each(b);
            }
            Node::Shl(a, _)
            | Node::Shr(a, _)
            | Node::Sar(a, _)
            | Node::Sext(a, _)
            | Node::IsZero(a)
            | Node::EvenParity(a) => each(a),
            Node::Choose(c, a, b) => {
                each(c);
                each(a);
                each(b);
            }
        }
    }
}
