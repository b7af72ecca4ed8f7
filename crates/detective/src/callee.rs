//! Whom a call reaches, as the image has it, and what that function does to a register.
//!
//! Decides the name of a suspect that the dump alone leaves without one. A pointer is read as it was linked;
//! the kernel may have changed it since, which is said. Main function: [`name_callees`].

use iced_x86::OpKind;
use kolumbo_case::crash::{ListedInstruction, Listing};
use kolumbo_case::{Finding, SuspectKind};
use kolumbo_dataflow::symbolic::Gpr;
use kolumbo_vmlinux::Image;

use crate::suspect::writes_to;

/// Bytes of a callee that are looked at: what a callee-save function does is short.
const LONGEST: usize = 512;

/// A function that a call reaches.
struct Callee {
    name: String,
    address: u64,
    /// The call goes through a pointer in memory.
    through_pointer: bool,
}

/// Names the callees among the suspects of `finding`, where the image tells whom its call reaches and that
/// function writes the register. Bias: a function that does not write it is not named, since the pointer may
/// have held another one at that moment.
pub(crate) fn name_callees(finding: &mut Finding, register: Gpr, image: &Image<'_>) {
    if finding.at.module.is_some() {
        return;
    }
    let calls = finding.derivation.iter().filter(|s| s.instruction.starts_with("call"));
    let mut callees: Vec<Callee> = calls.filter_map(|s| callee_of(&s.address, image)).collect();
    // With several calls nobody knows which of them is meant by which suspect.
    let (Some(callee), true) = (callees.pop(), callees.is_empty()) else { return };
    let Some(suspect) =
        finding.suspects.iter_mut().find(|s| s.kind == SuspectKind::Callee && s.name.is_none())
    else {
        return;
    };
    let writes = writes_to(&listing(&callee, image), register);
    // A register that is popped again at the end was saved.
    let saved = writes.last().is_some_and(|(_, text, _)| text.starts_with("pop"));
    let Some((address, text, _)) = writes.last().filter(|_| !saved) else { return };
    let place = format!("{}+{:#x}", callee.name, address.wrapping_sub(callee.address));
    let how = match callee.through_pointer {
        true => "in the image the pointer of this call holds",
        false => "the call goes to",
    };
    suspect.because.push(format!("{how} {}, which does `{text}` at {place}", callee.name));
    if callee.through_pointer {
        suspect
            .against
            .push("the pointer may have held another function at that moment".to_owned());
    }
    suspect.check = "kolumbo prove CASE watches this call in the running guest; kolumbo check VMLINUX looks at all \
                     calls of that function"
        .to_owned();
    suspect.name = Some(place);
}

/// The function that the call at `function+0x5c` reaches.
fn callee_of(place: &str, image: &Image<'_>) -> Option<Callee> {
    let (function, offset) = place.rsplit_once("+0x")?;
    let start = image.symbols().address_of(function)?;
    let address = start.checked_add(u64::from_str_radix(offset, 16).ok()?)?;
    let bytes = image.bytes_from(address)?;
    let instruction = kolumbo_dataflow::decode(&bytes[..bytes.len().min(16)], address)?;
    let direct =
        (instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch_target());
    let target = match direct {
        Some(target) => target,
        None if instruction.is_ip_rel_memory_operand() => {
            let slot = image.bytes_at(instruction.ip_rel_memory_address(), 8)?;
            u64::from_le_bytes(slot.try_into().ok()?)
        }
        None => return None,
    };
    let located = image.symbols().lookup(target).filter(|l| l.offset == 0)?;
    image.is_code(target).then(|| Callee {
        name: located.symbol.name.to_owned(),
        address: target,
        through_pointer: direct.is_none(),
    })
}

/// The code of the callee, up to its end or what is looked at.
fn listing(callee: &Callee, image: &Image<'_>) -> Listing {
    let size = image.symbols().lookup(callee.address).map_or(0, |l| l.size);
    let bytes = image.bytes_from(callee.address).unwrap_or_default();
    let length = usize::try_from(size).unwrap_or(LONGEST).min(LONGEST).min(bytes.len());
    let mut instructions = Vec::new();
    let mut at = 0;
    while at < length {
        let address = callee.address.wrapping_add(at as u64);
        let Some(instruction) = kolumbo_dataflow::decode(&bytes[at..length], address) else {
            break;
        };
        let end = at + instruction.len();
        instructions.push(ListedInstruction {
            address,
            bytes: bytes[at..end].to_vec(),
            ..ListedInstruction::default()
        });
        at = end;
    }
    Listing { function: Some(callee.name.clone()), instructions, ..Listing::default() }
}
