//! A CPU caught in a loop: what does it wait for?
//!
//! Decides whether the trap lies on a short ring of instructions that changes nothing but looks at
//! memory, and what would end it. The main function is [`spin_wait`]. Bias: the shortest way from the
//! trap back to itself is taken for the way it goes; one that stores, calls, or leaves the window is
//! not called a wait.

use std::collections::{BTreeMap, VecDeque};

use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind};
use kolumbo_case::SpinWait;
use kolumbo_dataflow::symbolic::line::{branch_target, ends_line};
use kolumbo_dataflow::symbolic::{Flag, Gpr, Step};
use kolumbo_dataflow::{ARITHMETIC_FLAGS, EffectsReader, Parts, Syntax};

use crate::decode;
use crate::device;
use crate::situation::Situation;
use crate::value;

/// A loop of more instructions than this does work.
const LONGEST: usize = 24;

/// The wait that the trap lies in.
pub fn spin_wait(situation: &Situation) -> Option<SpinWait> {
    let window = &situation.window;
    let all: Vec<&Step> = window.before.steps.iter().chain(&window.after.steps).collect();
    let ring = ring_through(&all, window.before.steps.len())?;
    let mut reader = EffectsReader::default();
    let changes = ring.iter().any(|s| {
        let effects = reader.effects(&s.instruction);
        effects.writes_memory
            || !matches!(
                s.instruction.flow_control(),
                FlowControl::Next
                    | FlowControl::ConditionalBranch
                    | FlowControl::UnconditionalBranch
            )
    });
    if changes {
        return None;
    }
    let text = |step: &Step| decode::text(situation, step, Syntax::Att);
    let place = |step: &Step| format!("{} {}", situation.address_of(step.offset), text(step));
    let first = ring.iter().map(|s| s.offset).min()?;
    let last = ring.iter().map(|s| s.offset).max()?;
    let (from, to) = (situation.address_of(first), situation.address_of(last));
    if ring.iter().all(|s| !s.instruction.is_jcc_short_or_near()) {
        return Some(SpinWait {
            from,
            to,
            until: "for ever: no instruction of the loop leaves it".to_owned(),
            waits_for: match situation.flag(Flag::If) {
                Some(false) => "nothing, and interrupts are off: only an NMI gets this CPU out",
                _ => "nothing that the loop looks at: an interrupt would have to get this CPU out",
            }
            .to_owned(),
            ..SpinWait::default()
        });
    }
    let looks: Vec<usize> =
        (0..ring.len()).filter(|&i| reads_memory(&ring[i].instruction)).collect();
    let [at] = looks[..] else { return None };
    // The exit is the first conditional branch behind the look, the ring being read from there.
    let turned: Vec<&Step> = ring[at..].iter().chain(&ring[..at]).copied().collect();
    let look = turned[0];
    let exit = turned.iter().position(|s| s.instruction.is_jcc_short_or_near())?;
    let stays = turned[(exit + 1) % turned.len()];
    let leaves_when_taken = branch_target(&turned[exit].instruction)? != stays.offset as i64;
    let compare = comparison(&turned[..exit], &mut reader);
    let operand = look_operand(situation, look, &ring, &mut reader);
    let until = compare
        .and_then(|c| c.until(turned[exit].instruction.condition_code(), leaves_when_taken))
        .map(|c| c.replace("VALUE", &operand.text))
        .unwrap_or_else(|| {
            format!(
                "`{}` {}",
                text(turned[exit]),
                if leaves_when_taken { "is taken" } else { "is not taken" }
            )
        });
    Some(SpinWait {
        from,
        to,
        until,
        looks_at: place(look),
        ended_by: place(turned[exit]),
        waits_for: operand.who,
    })
}

/// The shortest way from the instruction at `trap` back to itself, in the order it is run. Calls and
/// jumps through registers lead nowhere.
fn ring_through<'s>(all: &[&'s Step], trap: usize) -> Option<Vec<&'s Step>> {
    let position = |offset: i64| {
        let offset = usize::try_from(offset).ok()?;
        all.binary_search_by_key(&offset, |s| s.offset).ok()
    };
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut reached = VecDeque::from([(trap, 0)]);
    while let Some((at, distance)) = reached.pop_front() {
        let step = all.get(at)?;
        let next = (!ends_line(&step.instruction)
            && !matches!(
                step.instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall
            ))
        .then(|| position(step.instruction.next_ip() as i64))
        .flatten();
        let target = branch_target(&step.instruction).and_then(position);
        for to in [target, next].into_iter().flatten() {
            if to == trap {
                let mut ring = vec![all[at]];
                let mut here = at;
                while here != trap {
                    here = *came_from.get(&here)?;
                    ring.push(all[here]);
                }
                ring.reverse();
                return Some(ring);
            }
            if distance < LONGEST && !came_from.contains_key(&to) {
                came_from.insert(to, at);
                reached.push_back((to, distance + 1));
            }
        }
    }
    None
}

/// What a loaded value is held against.
enum Comparison {
    /// `test $mask, VALUE`; all ones for the whole value.
    Mask(u64),
    /// `cmp $value, VALUE`.
    With(u64),
}

impl Comparison {
    /// The condition that leaves the loop, with `VALUE` for the operand.
    fn until(&self, code: ConditionCode, taken: bool) -> Option<String> {
        let equal = match code {
            ConditionCode::e => taken,
            ConditionCode::ne => !taken,
            _ => return None,
        };
        let sign = if equal { "==" } else { "!=" };
        Some(match self {
            Comparison::Mask(u64::MAX) => format!("VALUE {sign} 0"),
            Comparison::Mask(mask) => format!("(VALUE & {mask:#x}) {sign} 0"),
            Comparison::With(value) => format!("VALUE {sign} {value:#x}"),
        })
    }
}

/// How `steps`, which start with the look, compare what it loaded; `None` where anything else happens
/// to the value on the way.
fn comparison(steps: &[&Step], reader: &mut EffectsReader) -> Option<Comparison> {
    let look = &steps.first()?.instruction;
    let compares = |i: &Instruction| match (i.mnemonic(), immediate(i)) {
        (Mnemonic::Test, Some(mask)) => Some(Comparison::Mask(mask)),
        (Mnemonic::Test, None) if i.op0_register() == i.op1_register() => {
            Some(Comparison::Mask(u64::MAX))
        }
        (Mnemonic::Cmp, Some(value)) => Some(Comparison::With(value)),
        _ => None,
    };
    let flags = Parts { flags: ARITHMETIC_FLAGS, ..Parts::EMPTY };
    let writer = steps
        .iter()
        .rposition(|s| !(reader.effects(&s.instruction).may_write & flags).is_empty())?;
    if writer == 0 {
        return compares(look).filter(|_| look.op_kind(0) == OpKind::Memory);
    }
    if !matches!(look.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx) {
        return None;
    }
    let loaded = Gpr::of(look.op0_register())?;
    let part = Parts::general(loaded.index());
    let changed = steps[1..writer]
        .iter()
        .any(|s| !(reader.effects(&s.instruction).may_write & part).is_empty());
    let compare = &steps[writer].instruction;
    (Gpr::of(compare.op0_register()) == Some(loaded) && !changed).then(|| compares(compare))?
}

fn reads_memory(instruction: &Instruction) -> bool {
    !matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Lea)
        && (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory)
}

struct Operand {
    text: String,
    who: String,
}

fn look_operand(
    situation: &Situation,
    look: &Step,
    ring: &[&Step],
    reader: &mut EffectsReader,
) -> Operand {
    let look = &look.instruction;
    let mask = immediate(look).unwrap_or(0);
    // The registers of the dump are those of the look only where the loop leaves them alone.
    let address = [look.memory_base(), look.memory_index()].into_iter().filter_map(Gpr::of);
    let moved = address.map(|g| Parts::general(g.index())).any(|part| {
        ring.iter().any(|s| !(reader.effects(&s.instruction).may_write & part).is_empty())
    });
    match decode::trap_address(situation, look).filter(|_| !moved) {
        Some((address, _)) => match device::at(address).or_else(|| {
            device::hpet_at(address, situation.place.function.as_deref().unwrap_or_default())
        }) {
            Some(register) => {
                let bit = device::bit_meaning(&register, mask)
                    .map(|b| format!(" ({b})"))
                    .unwrap_or_default();
                Operand {
                    text: format!(
                        "{} {}",
                        register.device,
                        register.name.clone().unwrap_or_else(|| format!("{:#x}", register.offset))
                    ),
                    who: format!(
                        "the {} device, that is the machine or its hypervisor{bit}",
                        register.device
                    ),
                }
            }
            None => {
                let what = value::recognise_address(address, &situation.landmarks())
                    .map(|m| format!(", {}", m.text))
                    .unwrap_or_default();
                Operand {
                    text: format!("[{address:#x}]"),
                    who: format!(
                        "another CPU, an interrupt or a device that writes {address:#x}{what}"
                    ),
                }
            }
        },
        None => Operand {
            text: "the memory operand".to_owned(),
            who: "another CPU, an interrupt or a device that writes there".to_owned(),
        },
    }
}

fn immediate(instruction: &Instruction) -> Option<u64> {
    (0..instruction.op_count()).find_map(|i| instruction.try_immediate(i).ok())
}
