//! A CPU caught in a loop: what does it wait for?
//!
//! Decides whether the trap lies in a small loop that changes nothing but looks at memory, and what
//! would end it. The main function is [`spin_wait`]. Bias: a loop that stores, or whose edges lie
//! outside the window, is not called a wait.

use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind};
use kolumbo_case::SpinWait;
use kolumbo_dataflow::symbolic::Step;
use kolumbo_dataflow::symbolic::line::branch_target;
use kolumbo_dataflow::{EffectsReader, Syntax};

use crate::decode;
use crate::device;
use crate::situation::Situation;
use crate::value;

/// A loop of more bytes than this does work.
const LONGEST: i64 = 64;

/// The wait that the trap lies in.
pub fn spin_wait(situation: &Situation) -> Option<SpinWait> {
    let window = &situation.window;
    let all: Vec<&Step> = window.before.steps.iter().chain(&window.after.steps).collect();
    let (first, last) = enclosing_loop(&all, window.trap)?;
    let body = &all[first..=last];
    let mut reader = EffectsReader::default();
    let changes = body.iter().any(|s| {
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
    let looks: Vec<&&Step> = body.iter().filter(|s| reads_memory(&s.instruction)).collect();
    let [look] = looks.as_slice() else { return None };
    // The exit is the first conditional branch behind the look, the loop being read as a ring.
    let at = body.iter().position(|s| s.offset == look.offset)?;
    let exit =
        body[at..].iter().chain(&body[..at]).find(|s| s.instruction.is_jcc_short_or_near())?;
    let head = body[0].offset as i64;
    let tail = body[body.len() - 1].offset as i64;
    let target = branch_target(&exit.instruction)?;
    let leaves_when_taken = target < head || target > tail;
    let text = |step: &Step| decode::text(situation, step, Syntax::Att);
    let operand = look_operand(situation, &look.instruction);
    let until = condition(&look.instruction, exit.instruction.condition_code(), leaves_when_taken)
        .map(|c| c.replace("VALUE", &operand.text))
        .unwrap_or_else(|| {
            format!(
                "`{}` {}",
                text(exit),
                if leaves_when_taken { "is taken" } else { "is not taken" }
            )
        });
    Some(SpinWait {
        from: situation.address_of(body[0].offset),
        to: situation.address_of(body[body.len() - 1].offset),
        until,
        looks_at: format!("{} {}", situation.address_of(look.offset), text(look)),
        ended_by: format!("{} {}", situation.address_of(exit.offset), text(exit)),
        waits_for: operand.who,
    })
}

/// The smallest loop around `trap`, as positions of its first and last instruction.
fn enclosing_loop(all: &[&Step], trap: usize) -> Option<(usize, usize)> {
    all.iter()
        .enumerate()
        .filter_map(|(last, step)| {
            let target = branch_target(&step.instruction)?;
            let around = target <= trap as i64
                && trap <= step.offset
                && step.offset as i64 - target <= LONGEST;
            let first = all.iter().position(|s| s.offset as i64 == target)?;
            (around && first <= last).then_some((first, last))
        })
        .min_by_key(|(first, last)| last - first)
}

fn reads_memory(instruction: &Instruction) -> bool {
    !matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Lea)
        && (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory)
}

struct Operand {
    text: String,
    who: String,
}

fn look_operand(situation: &Situation, look: &Instruction) -> Operand {
    let mask = immediate(look).unwrap_or(0);
    match decode::trap_address(situation, look) {
        Some((address, _)) => match device::at(address) {
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

/// The condition that leaves the loop, with `VALUE` for the operand.
fn condition(look: &Instruction, code: ConditionCode, taken: bool) -> Option<String> {
    let imm = immediate(look);
    let equal = match code {
        ConditionCode::e => taken,
        ConditionCode::ne => !taken,
        _ => return None,
    };
    let sign = if equal { "==" } else { "!=" };
    match (look.mnemonic(), imm) {
        (Mnemonic::Test, Some(mask)) => Some(format!("(VALUE & {mask:#x}) {sign} 0")),
        (Mnemonic::Cmp, Some(value)) => Some(format!("VALUE {sign} {value:#x}")),
        (Mnemonic::Mov | Mnemonic::Movzx, _) => {
            Some(format!("VALUE {} what it is compared with", if equal { "is" } else { "is not" }))
        }
        _ => None,
    }
}
