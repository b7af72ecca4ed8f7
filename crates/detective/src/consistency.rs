//! Can this state follow from this code?
//!
//! Decides, for one situation, what the straight line before the trap forces about every register
//! and flag at the trap, and whether the dump agrees. It may not know who is to blame. The main type
//! is [`Consistency`].
//!
//! The state is always that *before* the instruction at RIP: a fault reports the instruction that
//! could not be executed, UD2 changes nothing, INT3 and interrupts report the next instruction. One
//! exception is a string instruction with a REP prefix, which changes its own operands while in flight:
//! it is taken for a number of rounds that nobody knows.

use std::collections::BTreeMap;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kolumbo_dataflow::symbolic::line::expected_back;
use kolumbo_dataflow::symbolic::run::run;
use kolumbo_dataflow::symbolic::{
    Bits, Conventions, Flag, Gpr, Node, Observable, Origin, Outcome, Segment, Step, Subject,
    System, Term, Terms, Verdict,
};

use crate::entry::EntryRisks;
use crate::situation::Situation;

/// What the code forces and whether the dump agrees.
pub struct Consistency {
    /// The line that was evaluated.
    pub steps: Vec<Step>,
    /// What it left behind.
    pub outcome: Outcome,
    /// For each register and flag of the dump, what is forced and what clashes.
    pub verdicts: Vec<Verdict>,
    /// For each verdict that says something, how firmly it stands.
    pub footings: Vec<Footing>,
    /// Known bits of every term, from all that agrees.
    pub known: Vec<Bits>,
    /// Where the per-CPU base was recognised: the term and the value it must have.
    pub percpu_base: Option<(Term, u64)>,
    /// Registers that the code behind a call expects back, with the step of the call.
    pub relied_on: Vec<(usize, Gpr, usize)>,
    /// What the whole comes to.
    pub conclusion: Conclusion,
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Nothing about any register or flag is forced.
    Undecided,
    /// Something is forced, and the dump agrees.
    Agrees,
    /// The dump disagrees, and control coming in from elsewhere would explain it.
    Doubtful,
    /// Something is forced firmly, and the dump disagrees.
    Contradicts,
}

/// How firmly a verdict stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footing {
    /// The register or flag.
    pub subject: Subject,
    /// The verdict needs no step before this one.
    pub from: usize,
    /// Risk that control came in behind that step, so that the verdict says nothing.
    pub risk: f64,
    /// An address of a fixed object must have survived a call whose caller relies on it, and what was
    /// found in its place cannot be an address at all. Control from elsewhere would have brought
    /// another address.
    pub lost_address: bool,
}

/// Steps back from the trap in which the footing of a verdict is looked for.
const MOST_FOOTING_STEPS: usize = 64;

/// A contradiction is reported below this risk. Healthy guests, sampled at random moments, show none
/// below it; see the figures in `tests/live.rs`.
pub const FIRM: f64 = 0.025;

impl Footing {
    /// A contradiction here is worth an accusation.
    pub fn is_firm(&self) -> bool {
        self.risk <= FIRM || self.lost_address
    }
}

/// Risk that the address of a headline belongs to another access than that of the trapping
/// instruction. It is a guess, and above [`FIRM`]: a nested fault or an emulated access is no proof.
const OTHER_FAULT: f64 = 0.05;

/// What is forced completely.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// Registers of which every bit is forced.
    pub registers: Vec<Gpr>,
    /// Registers of which some bits are forced.
    pub partly: Vec<Gpr>,
    /// Parts of those that have a name (`AL`, `AH`, `AX`, `EAX`, the upper half), forced whole.
    pub parts: Vec<RegisterPart>,
    /// Flags that are forced.
    pub flags: Vec<Flag>,
}

/// A part of a register that instructions name or that 32-bit writes clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterPart {
    /// The register.
    pub register: Gpr,
    /// Its bits.
    pub mask: u64,
}

impl RegisterPart {
    /// The largest named parts, largest first.
    const MASKS: [u64; 5] = [0xffff_ffff, !0xffff_ffff, 0xffff, 0xff, 0xff00];

    /// The parts of `register` that lie within `known`, without those within a larger one.
    fn within(register: Gpr, known: u64) -> Vec<RegisterPart> {
        let mut found: Vec<RegisterPart> = Vec::new();
        for mask in Self::MASKS {
            if known & mask == mask && !found.iter().any(|p| p.mask & mask == mask) {
                found.push(RegisterPart { register, mask });
            }
        }
        found
    }
}

impl std::fmt::Display for RegisterPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.register.name().to_uppercase();
        let (high, low) = (63 - self.mask.leading_zeros(), self.mask.trailing_zeros());
        write!(f, "{name}[{high}:{low}]")
    }
}

impl Consistency {
    /// Compares `situation` with its code.
    pub fn check(situation: &Situation) -> Consistency {
        let steps = situation.window.line().to_vec();
        let conventions = Conventions { also_kept: BTreeMap::new() };
        let relied_on = relied_on(&steps, &situation.window.after.steps);
        let mut conventions = conventions;
        for &(call, register, _) in &relied_on {
            *conventions.also_kept.entry(call).or_default() |= 1 << register.index();
        }
        let (outcome, trap) = run_to_trap(&steps, situation, &conventions);
        let percpu_base = percpu_base(&steps, &outcome, situation);
        let observables = observables(situation, &outcome, percpu_base, trap);
        let verdicts = judge(&outcome.machine.terms, &observables);
        let clashes = verdicts.iter().any(|v| v.clash != 0);
        let wrong = |o: &Observable| {
            verdicts.iter().any(|v| v.subject == o.subject && v.clash != 0)
                || (clashes && o.subject == ACCESSED)
        };
        let believed: Vec<Observable> = observables.iter().filter(|o| !wrong(o)).copied().collect();
        let known = System::new(&outcome.machine.terms, believed)
            .known()
            .unwrap_or_else(|| vec![Bits::TOP; outcome.machine.terms.nodes().len()]);
        let footings = footings(situation, &steps, &verdicts, &relied_on);
        let firm_clash = |v: &Verdict| {
            v.clash != 0 && footings.iter().any(|f| f.subject == v.subject && f.is_firm())
        };
        let conclusion = if verdicts.iter().any(firm_clash) {
            Conclusion::Contradicts
        } else if verdicts.iter().any(|v| v.clash != 0) {
            Conclusion::Doubtful
        } else if verdicts.iter().any(is_news) {
            Conclusion::Agrees
        } else {
            Conclusion::Undecided
        };
        Consistency {
            steps,
            outcome,
            verdicts,
            footings,
            known,
            percpu_base,
            relied_on,
            conclusion,
        }
    }

    /// How firmly what is said about `subject` stands.
    pub fn footing(&self, subject: Subject) -> Option<&Footing> {
        self.footings.iter().find(|f| f.subject == subject)
    }

    /// What is forced, clashing or not.
    pub fn decided(&self) -> Decided {
        let mut decided = Decided::default();
        for verdict in &self.verdicts {
            match verdict.subject {
                Subject::Register(register) if verdict.forced.known == u64::MAX => {
                    decided.registers.push(register)
                }
                Subject::Register(register) if verdict.forced.known != 0 => {
                    decided.partly.push(register);
                    decided.parts.extend(RegisterPart::within(register, verdict.forced.known));
                }
                Subject::Flag(flag) if verdict.forced.known & 1 != 0 => decided.flags.push(flag),
                _ => {}
            }
        }
        decided
    }

    /// Known bits of every term from the instructions alone: no branch, register or flag is believed.
    pub fn bits_by_code(&self) -> Vec<Bits> {
        System::new(&self.outcome.machine.terms, Vec::new()).known().unwrap_or_default()
    }

    /// The result that a zero flag was made of.
    pub fn result_of_flags(&self, zero_flag: Term) -> Option<Term> {
        match self.outcome.machine.terms.node(zero_flag) {
            Node::IsZero(result) => Some(result),
            _ => None,
        }
    }

    /// The term that `subject` is at the trap.
    pub fn term_of(&self, subject: Subject) -> Option<Term> {
        match subject {
            Subject::Register(register) => Some(self.outcome.machine.register(register)),
            Subject::Flag(flag) => Some(self.outcome.machine.flag(flag)),
            Subject::Path(_) | Subject::Fact(_) => None,
        }
    }
}

/// The address that the headline names, as something observed.
const ACCESSED: Subject = Subject::Fact(2);

/// The verdicts. The address that the fault names was made from registers of the dump: where one of
/// them is wrong, the address says so a second time, and two witnesses that saw one thing would leave
/// nobody to blame. So it is heard only where nothing clashes without it.
fn judge(terms: &Terms, observables: &[Observable]) -> Vec<Verdict> {
    let without: Vec<Observable> =
        observables.iter().filter(|o| o.subject != ACCESSED).copied().collect();
    if without.len() < observables.len() {
        let verdicts = judge_all(terms, &without);
        if verdicts.iter().any(|v| v.clash != 0) {
            return verdicts;
        }
    }
    judge_all(terms, observables)
}

/// The verdicts of all that was observed, with the stack pointer above suspicion where flags may be
/// wrong in its place: with a wrong one there would be no dump.
fn judge_all(terms: &Terms, observables: &[Observable]) -> Vec<Verdict> {
    let stack_pointer = Subject::Register(Gpr::RSP);
    let verdicts = System::new(terms, observables.to_vec()).judge();
    if !verdicts.iter().any(|v| v.clash != 0 && v.subject == stack_pointer) {
        return verdicts;
    }
    let given = observables.iter().map(|o| match o.subject {
        subject if subject == stack_pointer => Observable { subject: Subject::Fact(3), ..*o },
        _ => *o,
    });
    let others = System::new(terms, given.collect()).judge();
    let blamed: Vec<Subject> = others.iter().filter(|v| v.clash != 0).map(|v| v.subject).collect();
    let only_flags = blamed.iter().all(|s| matches!(s, Subject::Flag(_)));
    if only_flags && !blamed.is_empty() { others } else { verdicts }
}

fn is_news(verdict: &Verdict) -> bool {
    match verdict.subject {
        Subject::Register(_) => verdict.forced.known != 0,
        Subject::Flag(_) => verdict.forced.known & 1 != 0,
        Subject::Path(_) | Subject::Fact(_) => false,
    }
}

/// For each verdict the latest step from which it can still be derived, everything before being
/// unknown, and the risk of control coming in behind that step.
fn footings(
    situation: &Situation,
    steps: &[Step],
    verdicts: &[Verdict],
    relied_on: &[(usize, Gpr, usize)],
) -> Vec<Footing> {
    let risks = if situation.window.exact {
        EntryRisks::none(steps)
    } else {
        EntryRisks::of(steps, &situation.window.after.steps)
    };
    let mut open: Vec<&Verdict> = verdicts.iter().filter(|v| is_news(v) || v.clash != 0).collect();
    let mut found = Vec::new();
    // Nothing depends on steps that far back, and every one costs an evaluation of all behind it.
    let oldest = steps.len().saturating_sub(MOST_FOOTING_STEPS);
    for from in (oldest..=steps.len()).rev() {
        if open.is_empty() {
            break;
        }
        let mut conventions = Conventions::default();
        for &(call, register, _) in relied_on.iter().filter(|(call, ..)| *call >= from) {
            *conventions.also_kept.entry(call - from).or_default() |= 1 << register.index();
        }
        let part = &steps[from..];
        let (outcome, trap) = run_to_trap(part, situation, &conventions);
        let base = percpu_base(part, &outcome, situation);
        let again = judge(&outcome.machine.terms, &observables(situation, &outcome, base, trap));
        open.retain(|verdict| {
            let same = again.iter().any(|a| {
                a.subject == verdict.subject
                    && a.clash & verdict.clash == verdict.clash
                    && a.forced.known & verdict.forced.known == verdict.forced.known
            });
            if same {
                let lost_address = lost_address(situation, verdict, &outcome, base, &conventions);
                found.push(Footing {
                    subject: verdict.subject,
                    from,
                    // Needing no step at all, it hangs on the address that the headline names.
                    risk: if from == steps.len() { OTHER_FAULT } else { risks.since(from) },
                    lost_address,
                });
            }
            !same
        });
    }
    found
}

/// See [`Footing::lost_address`].
fn lost_address(
    situation: &Situation,
    verdict: &Verdict,
    outcome: &Outcome,
    base: Option<(Term, u64)>,
    conventions: &Conventions,
) -> bool {
    let (Subject::Register(register), Some((base, _))) = (verdict.subject, base) else {
        return false;
    };
    let Some(seen) = situation.register(register).filter(|_| verdict.clash != 0) else {
        return false;
    };
    let is_object = matches!(outcome.machine.terms.node(outcome.machine.register(register)), Node::Add(load, _) if load == base);
    let survived = conventions.also_kept.values().any(|kept| kept & (1 << register.index()) != 0);
    let dereferenced =
        situation.window.trapping().is_some_and(|i| Gpr::of(i.memory_base()) == Some(register));
    is_object && survived && dereferenced && !situation.landmarks().is_canonical(seen)
}

/// What the code behind each call of the line expects back from it. A call that never returns looks
/// the same when a branch from elsewhere lands behind it, so that only calls which surely return are
/// taken: those through a pointer in memory, and those that were patched over one (the bytes that
/// the shorter direct call leaves are filled up with a no-operation).
fn relied_on(steps: &[Step], after: &[Step]) -> Vec<(usize, Gpr, usize)> {
    let mut all = steps.to_vec();
    all.extend_from_slice(after);
    let mut found = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let call = &step.instruction;
        let through_memory = call.is_call_near_indirect()
            && call.op0_kind() == OpKind::Memory
            && is_fixed_slot(call);
        let padding = all.get(i + 1).is_some_and(|next| {
            next.instruction.mnemonic() == Mnemonic::Nop && next.instruction.len() <= 2
        });
        if !(through_memory || call.is_call_near() && padding) {
            continue;
        }
        // The trapping instruction itself counts as a reader, what follows it was not reached.
        let reach = &all[..(steps.len() + 1).min(all.len())];
        found.extend(expected_back(reach, i).into_iter().map(|e| (i, e.register, e.read_at)));
    }
    found
}

/// `call *0xffffffff81c20810` or `call *slot(%rip)`: a slot with a fixed address, as paravirtual
/// operations have (`struct paravirt_patch_template`, arch/x86/include/asm/paravirt_types.h), whose
/// callers rely on more than the C convention. A method table is called through a register.
fn is_fixed_slot(call: &Instruction) -> bool {
    call.memory_base() == Register::None && call.memory_index() == Register::None
        || call.is_ip_rel_memory_operand()
}

/// The per-CPU base, where the line computes an address with it: `mov $offset,%reg` and
/// `add %gs:this_cpu_off,%reg`, the `SHIFT_PERCPU_PTR` of arch/x86/include/asm/percpu.h. The variable
/// holds this CPU's offset, and that is what the kernel loads into the GS base.
///
/// Bias: a counter that is added to a constant looks alike, so the sum must be used as an address.
fn percpu_base(steps: &[Step], outcome: &Outcome, situation: &Situation) -> Option<(Term, u64)> {
    let base = situation
        .gs_base
        .filter(|&base| !situation.user_mode && base >= situation.landmarks().kernel_half())?;
    let trapping = situation.window.trapping();
    for (i, step) in steps.iter().enumerate() {
        let instruction = &step.instruction;
        let adds = instruction.mnemonic() == Mnemonic::Add
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().is_gpr64()
            && instruction.op1_kind() == OpKind::Memory
            && instruction.memory_segment() == Register::GS
            && is_fixed_slot(instruction);
        let Some(register) = Gpr::of(instruction.op0_register()).filter(|_| adds) else { continue };
        let before = if i == 0 { &outcome.initial } else { &outcome.behind[i - 1] };
        let terms = &outcome.machine.terms;
        let Some(offset) = terms.as_const(before.register(register)) else { continue };
        // Offsets are small where the per-CPU section starts at 0 and kernel addresses since v6.15.
        if offset < 0x1000 || (offset >= 1 << 28 && offset >> 31 != 0x1_ffff_ffff) {
            continue;
        }
        let sum = outcome.behind[i].register(register);
        let used = steps[i + 1..].iter().map(|s| &s.instruction).chain(trapping).any(|user| {
            Gpr::of(user.memory_base()) == Some(register) && user.memory_segment() != Register::GS
        });
        if let (true, Node::Add(load, _)) = (used, terms.node(sum))
            && matches!(
                terms.as_unknown(load)?.origin,
                Origin::Load { segment: Segment::Gs, bytes: 8, .. }
            )
        {
            return Some((load, base));
        }
    }
    None
}

/// Everything in the dump that the code says something about.
fn observables(
    situation: &Situation,
    outcome: &Outcome,
    percpu_base: Option<(Term, u64)>,
    trap: AtTrap,
) -> Vec<Observable> {
    let machine = &outcome.machine;
    let in_flight =
        situation.window.trapping().filter(|i| i.has_rep_prefix() || i.has_repne_prefix());
    let moves = |register: Gpr| {
        in_flight.is_some()
            && !trap.rounds_are_followed
            && [Gpr::RCX, Gpr::RSI, Gpr::RDI, Gpr::RAX].contains(&register)
    };
    let mut found = Vec::new();
    for register in Gpr::all().filter(|&r| !moves(r)) {
        if let Some(value) = situation.register(register) {
            found.push(Observable {
                subject: Subject::Register(register),
                term: machine.register(register),
                seen: Bits::constant(value),
            });
        }
    }
    let compares = in_flight.is_some_and(|i| {
        !matches!(
            i.mnemonic(),
            Mnemonic::Movsb
                | Mnemonic::Movsd
                | Mnemonic::Movsq
                | Mnemonic::Movsw
                | Mnemonic::Stosb
                | Mnemonic::Stosd
                | Mnemonic::Stosq
                | Mnemonic::Stosw
        )
    });
    for flag in Flag::ALL.into_iter().filter(|_| !compares) {
        if let Some(seen) = situation.flag(flag) {
            found.push(Observable {
                subject: Subject::Flag(flag),
                term: machine.flag(flag),
                seen: Bits::constant(u64::from(seen)),
            });
        }
    }
    for &(step, condition, taken) in machine.passed_branches() {
        found.push(Observable {
            subject: Subject::Path(step),
            term: condition,
            seen: Bits::constant(u64::from(taken)),
        });
    }
    if let Some(rip) = situation.rip {
        found.push(Observable {
            subject: Subject::Fact(0),
            term: machine.code_base(),
            seen: Bits::constant(rip.wrapping_sub(situation.window.trap as u64)),
        });
    }
    if let Some((term, base)) = percpu_base {
        found.push(Observable { subject: Subject::Fact(1), term, seen: Bits::constant(base) });
    }
    if let Some((term, address)) = trap.accessed {
        found.push(Observable { subject: ACCESSED, term, seen: Bits::constant(address) });
    }
    found
}

/// What the trapping instruction itself tells.
#[derive(Debug, Clone, Copy)]
struct AtTrap {
    /// It is a string instruction in flight whose rounds are one unknown.
    rounds_are_followed: bool,
    /// Its operand's address and what the fault says that is.
    accessed: Option<(Term, u64)>,
}

fn run_to_trap(
    steps: &[Step],
    situation: &Situation,
    conventions: &Conventions,
) -> (Outcome, AtTrap) {
    let mut outcome = run(steps, situation.window.trap, conventions);
    let trapping = situation.window.trapping();
    let upwards = situation.flag(Flag::Df) == Some(false);
    let rounds_are_followed = trapping.is_some_and(|i| upwards && outcome.machine.enter_flight(i));
    let accessed = situation.fault_address.zip(trapping).and_then(|(address, instruction)| {
        has_one_plain_operand(instruction, address).then(|| {
            let (term, _) = outcome.machine.effective_address(instruction);
            (term, address)
        })
    });
    (outcome, AtTrap { rounds_are_followed, accessed })
}

/// The instruction accesses memory once, at the address of its operand and flat, and an access that
/// faults at `address` began there and not on the page before.
fn has_one_plain_operand(instruction: &Instruction, address: u64) -> bool {
    let operands =
        (0..instruction.op_count()).filter(|&i| instruction.op_kind(i) == OpKind::Memory);
    let size = instruction.memory_size().size();
    let by_register = instruction.memory_base().is_gpr64() || instruction.memory_index().is_gpr64();
    // A bit number in a register reaches beyond the operand.
    let reaches_on = matches!(
        instruction.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    ) && instruction.op1_kind() == OpKind::Register;
    let (flat, once) = (
        !matches!(instruction.memory_segment(), Register::FS | Register::GS),
        operands.count() == 1 && !instruction.is_stack_instruction() && !instruction.is_vsib(),
    );
    let crosses = size > 1 && address & 0xfff == 0 && address != 0;
    let (rep, nothing) = (
        instruction.has_rep_prefix() || instruction.has_repne_prefix(),
        matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Lea),
    );
    flat && once
        && by_register
        && !instruction.memory_index().is_vector_register()
        && (1..=64).contains(&size)
        && !(reaches_on || crosses || rep || nothing)
        && !instruction.is_call_near_indirect()
}
