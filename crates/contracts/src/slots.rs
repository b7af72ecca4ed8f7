//! Who stands behind a pointer at a constant address, and behind a static call.
//!
//! Decides from what the file holds there, from stores of function addresses in the code (`pv_ops.lock.queued_spin_unlock =
//! ...`), from copies of whole tables, and from calls of `__static_call_update()`. A target found here is one that can be called;
//! that no other one can is not claimed, since pointers may be written where nobody can see it. Main type: [`Slots`].

use kolumbo_dataflow::iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kolumbo_dataflow::{AddressMap, AddressSet, Body, Callee, Ending};
use rayon::prelude::*;

use crate::image::Image;

/// Words that one copy of a table of functions has at most; `struct paravirt_patch_template` has about a hundred.
const MOST_WORDS: u64 = 512;
/// Functions that one slot is believed to get.
const MOST_TARGETS: usize = 16;

/// The functions that are called through pointers and static calls.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// Code addresses by the address of the pointer, or of the trampoline of a static call; what stands in the file comes first.
    targets: AddressMap<Vec<u64>>,
}

/// A code address that is put into a slot.
type Assignment = (u64, u64);

impl Slots {
    /// Looks for the targets of every slot that the bodies call through, and of every static call.
    #[must_use]
    pub fn find(image: &Image<'_>, bodies: &[(u64, Body)]) -> Self {
        let called: AddressSet = bodies
            .par_iter()
            .flat_map_iter(|(_, body)| body.blocks.iter())
            .filter_map(|block| match block.ending {
                Ending::Calls(Callee::Slot(slot)) | Ending::TailCalls(Callee::Slot(slot)) => {
                    Some(slot)
                }
                _ => None,
            })
            .collect();
        let code = |address: &u64| image.region(*address).is_some_and(|region| region.code);
        let mut slots = Self::default();
        for slot in &called {
            let target = image.word_at(*slot).filter(code);
            slots.targets.insert(*slot, target.into_iter().collect());
        }
        let copiers: AddressSet =
            ["memcpy", "__memcpy"].iter().filter_map(|name| image.address_of(name)).collect();
        let updater = image.address_of("__static_call_update");
        let mut found: Vec<Assignment> = bodies
            .par_iter()
            .flat_map_iter(|(_, body)| assignments(image, body, &copiers, updater))
            .filter(|(_, target)| code(target))
            .collect();
        found.sort_unstable();
        found.dedup();
        for (slot, target) in found {
            // A trampoline is code; what it jumps to in the file is found by walking it.
            let targets = match slots.targets.get_mut(&slot) {
                Some(targets) => targets,
                None if code(&slot) => slots.targets.entry(slot).or_default(),
                None => continue,
            };
            if targets.len() < MOST_TARGETS && !targets.contains(&target) {
                targets.push(target);
            }
        }
        slots
    }

    /// The functions behind a slot, as far as they are known.
    #[must_use]
    pub fn of(&self, slot: u64) -> &[u64] {
        self.targets.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Makes static calls that are updated a choice between what their trampolines do in the file and the functions that take
    /// its place.
    pub fn extend_trampolines(&self, image: &Image<'_>, bodies: &mut [(u64, Body)]) {
        for (entry, body) in bodies {
            if !self.of(*entry).is_empty() && image.region(*entry).is_some_and(|region| region.code)
            {
                body.may_also_jump_to(Callee::Slot(*entry));
            }
        }
    }
}

/// What is known of the registers along a straight line.
#[derive(Clone, Copy, Default)]
struct Constants([Option<u64>; 16]);

impl Constants {
    fn of(&self, register: Register) -> Option<u64> {
        register.is_gpr64().then(|| self.0[register.number()])?
    }
}

const RCX: usize = 1;
const RDX: usize = 2;
const RSI: usize = 6;
const RDI: usize = 7;

/// The address that a memory operand names, when it is constant.
fn constant_place(instruction: &Instruction) -> Option<u64> {
    if !matches!(instruction.memory_segment(), Register::DS | Register::None | Register::ES) {
        return None;
    }
    if instruction.is_ip_rel_memory_operand() {
        return Some(instruction.ip_rel_memory_address());
    }
    (instruction.memory_base() == Register::None && instruction.memory_index() == Register::None)
        .then(|| instruction.memory_displacement64())
}

/// Every constant that one body stores at a constant address.
fn assignments(
    image: &Image<'_>,
    body: &Body,
    copiers: &AddressSet,
    updater: Option<u64>,
) -> Vec<Assignment> {
    let mut found = Vec::new();
    for block in &body.blocks {
        let mut constants = Constants::default();
        let copy = |found: &mut Vec<Assignment>, constants: &Constants, words: u64| {
            if let (Some(to), Some(from)) = (constants.0[RDI], constants.0[RSI])
                && words <= MOST_WORDS
            {
                let word = |index: u64| {
                    Some((to.wrapping_add(8 * index), image.word_at(from.wrapping_add(8 * index))?))
                };
                found.extend((0..words).filter_map(word));
            }
        };
        for index in block.range.clone() {
            let index = index as usize;
            let instruction = &body.instructions[index];
            let mut value = None;
            match instruction.mnemonic() {
                Mnemonic::Mov if instruction.op0_kind() == OpKind::Memory => {
                    let stored = match instruction.op1_kind() {
                        OpKind::Register => constants.of(instruction.op1_register()),
                        OpKind::Immediate32to64 => Some(instruction.immediate32to64() as u64),
                        _ => None,
                    };
                    if let (Some(stored), Some(slot)) = (stored, constant_place(instruction)) {
                        found.push((slot, stored));
                    }
                }
                Mnemonic::Mov => {
                    value = match instruction.op1_kind() {
                        OpKind::Immediate32to64 => Some(instruction.immediate32to64() as u64),
                        OpKind::Immediate64 => Some(instruction.immediate64()),
                        OpKind::Immediate32 => Some(u64::from(instruction.immediate32())),
                        OpKind::Register => constants.of(instruction.op1_register()),
                        OpKind::Memory if instruction.op0_register().is_gpr64() => {
                            constant_place(instruction).and_then(|place| image.word_at(place))
                        }
                        _ => None,
                    };
                }
                Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => {
                    value = Some(instruction.ip_rel_memory_address());
                }
                Mnemonic::Movsq if instruction.has_rep_prefix() => {
                    if let Some(words) = constants.0[RCX] {
                        copy(&mut found, &constants, words);
                    }
                }
                Mnemonic::Movsd if instruction.has_rep_prefix() => {
                    if let Some(halves) = constants.0[RCX] {
                        copy(&mut found, &constants, halves / 2);
                    }
                }
                _ => {}
            }
            for register in body.effects[index].may_write().generals() {
                constants.0[register] = None;
            }
            if let Some(value) = value {
                let register = instruction.op0_register();
                if register.is_gpr64() || register.is_gpr32() {
                    constants.0[register.full_register().number()] = Some(value);
                }
            }
        }
        let (Ending::Calls(Callee::Direct(target)) | Ending::TailCalls(Callee::Direct(target))) =
            block.ending
        else {
            continue;
        };
        if copiers.contains(&target)
            && let Some(bytes) = constants.0[RDX]
        {
            copy(&mut found, &constants, bytes / 8);
        }
        // __static_call_update(key, trampoline, function), include/linux/static_call.h.
        if updater == Some(target)
            && let (Some(trampoline), Some(function)) = (constants.0[RSI], constants.0[RDX])
        {
            found.push((trampoline, function));
        }
    }
    found
}
