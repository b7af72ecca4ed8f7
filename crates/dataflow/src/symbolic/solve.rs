//! Can these final values follow? A small constraint solver over [`Terms`].
//!
//! Decides, for observed values of terms, which bits of each are forced by the others and by the
//! code, and which single observation must be dropped for the rest to hold together. It may not
//! know what a register means to anybody. Bias: it knows bits, no ranges across terms, so it
//! misses contradictions; what it calls forced is forced.

use super::bits::Bits;
use super::machine::{Flag, Gpr};
use super::term::{Node, Term, Terms};

/// Rounds of up and down; each round can only add known bits. Long chains converge in two or three.
const ROUNDS: usize = 6;
/// A result with at most this many unknown bits is tried value by value.
const ENUMERATED_BITS: u32 = 10;

/// What an observation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A general register, all 64 bits.
    Register(Gpr),
    /// One flag.
    Flag(Flag),
    /// A conditional branch at this step that was not taken.
    Path(usize),
    /// A fact that somebody else vouches for (its number is theirs).
    Fact(usize),
}

impl Subject {
    /// The bits that the subject has.
    pub fn relevant(self) -> u64 {
        match self {
            Subject::Register(_) | Subject::Fact(_) => u64::MAX,
            Subject::Flag(_) | Subject::Path(_) => 1,
        }
    }
}

/// A term whose value is known from outside the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observable {
    /// What it is.
    pub subject: Subject,
    /// What the code makes of it.
    pub term: Term,
    /// What was seen.
    pub seen: Bits,
}

/// What the solver found about one observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The observation.
    pub subject: Subject,
    /// Bits that the code and the other observations force.
    pub forced: Bits,
    /// Bits that are forced and were seen otherwise.
    pub clash: u64,
    /// The code alone forces the clashing bits, without any other observed value.
    pub by_code_alone: bool,
}

/// Observations that cannot all be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clash;

/// Terms with observations.
#[derive(Debug)]
pub struct System<'a> {
    terms: &'a Terms,
    observables: Vec<Observable>,
}

impl<'a> System<'a> {
    /// A system over `terms`.
    pub fn new(terms: &'a Terms, observables: Vec<Observable>) -> Self {
        System { terms, observables }
    }

    /// What was observed.
    pub fn observables(&self) -> &[Observable] {
        &self.observables
    }

    /// The known bits of every term, given the observations for which `used` holds.
    fn propagate(&self, used: impl Fn(&Observable) -> bool) -> Result<Vec<Bits>, Clash> {
        let nodes = self.terms.nodes();
        let mut known = vec![Bits::TOP; nodes.len()];
        for observable in self.observables.iter().filter(|o| used(o)) {
            learn(&mut known, observable.term, observable.seen, &mut false)?;
        }
        for _ in 0..ROUNDS {
            let mut changed = false;
            for (i, &node) in nodes.iter().enumerate() {
                let up = self.terms.evaluate(node, |t| known[t.index()]);
                let met = known[i].meet(up).map_err(|_| Clash)?;
                changed |= met != known[i];
                known[i] = met;
            }
            for (i, &node) in nodes.iter().enumerate().rev() {
                let bits = known[i];
                self.push_down(&mut known, node, bits, &mut changed)?;
            }
            if !changed {
                break;
            }
        }
        Ok(known)
    }

    /// What the bits of a term say about its operands.
    fn push_down(
        &self,
        known: &mut [Bits],
        node: Node,
        bits: Bits,
        changed: &mut bool,
    ) -> Result<(), Clash> {
        let of = |known: &[Bits], t: Term| known[t.index()];
        match node {
            Node::Const(_) | Node::Unknown(_) | Node::Mul(..) => {}
            Node::And(a, b) => {
                for (x, y) in [(a, b), (b, a)] {
                    let other = of(known, y);
                    // Where the other side is 1, the result is this side; where the result is 1, so is this.
                    let through = bits.known & other.value;
                    let ones = bits.value;
                    learn(known, x, Bits::new(through | ones, bits.value), changed)?;
                }
            }
            Node::Or(a, b) => {
                for (x, y) in [(a, b), (b, a)] {
                    let other = of(known, y);
                    let zeros = bits.known & !bits.value;
                    let through = bits.known & other.known & !other.value;
                    learn(known, x, Bits::new(through | zeros, bits.value), changed)?;
                }
            }
            Node::Xor(a, b) => {
                for (x, y) in [(a, b), (b, a)] {
                    learn(known, x, bits.xor(of(known, y)), changed)?;
                }
            }
            Node::Add(a, b) => {
                for (x, y) in [(a, b), (b, a)] {
                    learn(known, x, bits.minus(of(known, y)), changed)?;
                }
            }
            Node::Sub(a, b) => {
                learn(known, a, bits.plus(of(known, b)), changed)?;
                let right = of(known, a).minus(bits);
                learn(known, b, right, changed)?;
            }
            Node::Shl(a, by) => {
                learn(known, a, Bits { known: bits.known >> by, value: bits.value >> by }, changed)?
            }
            Node::Shr(a, by) | Node::Sar(a, by) => {
                learn(
                    known,
                    a,
                    Bits { known: bits.known << by, value: bits.value << by },
                    changed,
                )?;
            }
            Node::Sext(a, from) => {
                let low = super::bits::mask(u32::from(from));
                learn(known, a, Bits::new(bits.known & low, bits.value), changed)?;
            }
            Node::IsZero(a) => match bits.exact() {
                Some(1) => learn(known, a, Bits::constant(0), changed)?,
                Some(_) => {
                    let operand = of(known, a);
                    if operand.value == 0 && operand.unknown_count() == 1 {
                        learn(known, a, Bits::new(u64::MAX, !operand.known), changed)?;
                    }
                }
                None => {}
            },
            Node::EvenParity(a) => {
                let operand = of(known, a);
                let missing = !operand.known & 0xff;
                if let (Some(even), 1) = (bits.exact(), missing.count_ones()) {
                    let ones = (operand.value as u8).count_ones() % 2;
                    let set = (even == 1) != (ones == 0);
                    learn(known, a, Bits::new(missing, if set { missing } else { 0 }), changed)?;
                }
            }
            Node::Below(..) => {}
            Node::Choose(c, yes, no) => match of(known, c).exact() {
                Some(0) => learn(known, no, bits, changed)?,
                Some(_) => learn(known, yes, bits, changed)?,
                None => {
                    if bits.meet(of(known, yes)).is_err() {
                        learn(known, c, Bits::constant(0), changed)?;
                    } else if bits.meet(of(known, no)).is_err() {
                        learn(known, c, Bits::constant(1), changed)?;
                    }
                }
            },
        }
        Ok(())
    }

    /// Results with few unknown bits are tried value by value against the observed flags that are
    /// made of them; it is a clash when no value gives all the flags that were seen.
    fn enumerate(&self, known: &[Bits], used: impl Fn(&Observable) -> bool) -> Result<(), Clash> {
        let nodes = self.terms.nodes();
        let flags: Vec<(Term, u64)> = self
            .observables
            .iter()
            .filter(|o| used(o))
            .filter(|o| matches!(o.subject, Subject::Flag(_) | Subject::Path(_)))
            .filter_map(|o| Some((o.term, o.seen.exact()?)))
            .collect();
        let mut tried = Vec::new();
        for &(flag, _) in &flags {
            let (Node::IsZero(result) | Node::EvenParity(result)) = self.terms.node(flag) else {
                continue;
            };
            let bits = known[result.index()];
            if tried.contains(&result) || bits.unknown_count() > ENUMERATED_BITS {
                continue;
            }
            tried.push(result);
            let fits = |value: u64| {
                flags.iter().all(|&(term, seen)| match nodes[term.index()] {
                    Node::IsZero(r) if r == result => seen == u64::from(value == 0),
                    Node::EvenParity(r) if r == result => {
                        seen == u64::from((value as u8).count_ones().is_multiple_of(2))
                    }
                    _ => true,
                })
            };
            let free = !bits.known;
            // Walks the subsets of the free bits.
            let mut subset = 0u64;
            loop {
                if fits(bits.value | subset) {
                    break;
                }
                subset = subset.wrapping_sub(free) & free;
                if subset == 0 {
                    return Err(Clash);
                }
            }
        }
        Ok(())
    }

    fn holds(&self, used: impl Fn(&Observable) -> bool + Copy) -> Result<Vec<Bits>, Clash> {
        let known = self.propagate(used)?;
        self.enumerate(&known, used)?;
        Ok(known)
    }

    /// The bits of every term that follow from the code and all observations, when they agree.
    pub fn known(&self) -> Option<Vec<Bits>> {
        self.propagate(|_| true).ok()
    }

    /// What is forced about each observed register and flag.
    ///
    /// Where everything agrees, each gets the bits that follow from the code and the *other*
    /// observations. Where it does not, those observations are named without which the rest
    /// agrees; when no single one repairs the system, the ones that contradict the code alone.
    pub fn judge(&self) -> Vec<Verdict> {
        let is_outcome =
            |o: &Observable| matches!(o.subject, Subject::Register(_) | Subject::Flag(_));
        let given = |o: &Observable| !matches!(o.subject, Subject::Register(_) | Subject::Flag(_));
        // The code alone: no register and no flag of the dump is believed.
        let alone = self.propagate(given).ok();
        let mut wrong: Vec<Subject> = Vec::new();
        if let Some(alone) = &alone {
            for o in self.observables.iter().filter(|o| is_outcome(o)) {
                if alone[o.term.index()].meet(o.seen).is_err() {
                    wrong.push(o.subject);
                }
            }
        }
        let believed = |o: &Observable| !wrong.contains(&o.subject);
        let all = self.holds(believed);
        let mut verdicts = Vec::new();
        for o in self.observables.iter().filter(|o| is_outcome(o)) {
            if wrong.contains(&o.subject) {
                let forced = alone.as_ref().map_or(Bits::TOP, |a| a[o.term.index()]);
                let clash = forced.known & o.seen.known & (forced.value ^ o.seen.value);
                verdicts.push(Verdict { subject: o.subject, forced, clash, by_code_alone: true });
                continue;
            }
            let others = |other: &Observable| believed(other) && other.subject != o.subject;
            let without = self.holds(others);
            let forced = match &without {
                Ok(known) => known[o.term.index()],
                Err(_) => Bits::TOP,
            };
            let mut clash = 0;
            if all.is_err() && without.is_ok() {
                // Its absence repairs the system; the solver may know that without a single bit of
                // the term itself, for flags that only together are impossible.
                clash = forced.known & o.seen.known & (forced.value ^ o.seen.value);
                if clash == 0 {
                    clash = o.seen.known & !forced.known & self.shape(o.term);
                }
            }
            verdicts.push(Verdict { subject: o.subject, forced, clash, by_code_alone: false });
        }
        verdicts
    }

    fn shape(&self, term: Term) -> u64 {
        let of = |_: Term| Bits::TOP;
        !self.terms.evaluate(self.terms.node(term), of).known
    }
}

fn learn(known: &mut [Bits], term: Term, bits: Bits, changed: &mut bool) -> Result<(), Clash> {
    let slot = &mut known[term.index()];
    let met = slot.meet(bits).map_err(|_| Clash)?;
    *changed |= met != *slot;
    *slot = met;
    Ok(())
}
