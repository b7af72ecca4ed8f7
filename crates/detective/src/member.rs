//! NULL plus an offset: which member of which struct?
//!
//! Decides it only where the types say so: the pointer is an argument of the function, or was loaded
//! from a member of what an argument points to. Everything else would be a guess among thousands of
//! structs. The main function is [`member_accessed`].

use kolumbo_case::CodePlace;
use kolumbo_dataflow::symbolic::{Gpr, Origin, Segment, Term};
use kolumbo_vmlinux::types::{TypeGraph, TypeId, TypeKind};

use crate::consistency::Consistency;
use crate::situation::Situation;
use crate::window::StartReason;

/// Registers of the first six arguments (System V ABI).
const ARGUMENTS: [Gpr; 6] = [Gpr::RDI, Gpr::RSI, Gpr::RDX, Gpr::RCX, Gpr::R8, Gpr::R9];
/// Pointers that are followed from an argument.
const MOST_STEPS: usize = 8;

/// `dev->driver.name` in words, for the operand of the trapping instruction.
pub fn member_accessed(
    situation: &Situation,
    consistency: &Consistency,
    types: &TypeGraph<'_>,
) -> Option<String> {
    let trapping = situation.window.trapping()?;
    let base = Gpr::of(trapping.memory_base())?;
    if trapping.memory_index() != iced_x86::Register::None {
        return None;
    }
    let (pointer, offset) = split(consistency, consistency.outcome.machine.register(base));
    let offset = offset.wrapping_add(trapping.memory_displacement64());
    let way =
        Way { place: &situation.place, whole: starts_the_function(situation), consistency, types };
    let (name, of) = way.typed(pointer?, MOST_STEPS)?;
    let structure = way.pointed_to(of)?;
    let member = types.members_at(&structure, offset).into_iter().next()?;
    Some(format!("{name}->{}, a {} in struct {structure}", member.path, member.type_name))
}

fn starts_the_function(situation: &Situation) -> bool {
    let window = &situation.window;
    window.start == 0
        && window.start_reason == StartReason::FunctionStart
        && window.function_start == Some(0)
}

fn split(consistency: &Consistency, term: Term) -> (Option<Term>, u64) {
    consistency.outcome.machine.terms.as_offset(term)
}

struct Way<'w, 'd> {
    place: &'w CodePlace,
    /// The line begins where the function does, so that its arguments are known.
    whole: bool,
    consistency: &'w Consistency,
    types: &'w TypeGraph<'d>,
}

impl Way<'_, '_> {
    /// How `pointer` is called in C, and its type.
    fn typed(&self, pointer: Term, steps: usize) -> Option<(String, TypeId)> {
        let unknown = self.consistency.outcome.machine.terms.as_unknown(pointer)?;
        match unknown.origin {
            Origin::Initial(register) if self.whole => {
                // The compiler's own copies of a function (`.constprop.0`) drop arguments.
                let function = self.place.function.as_deref().filter(|f| !f.contains('.'))?;
                let position = ARGUMENTS.iter().position(|&r| r == register)?;
                let parameters = self.types.function(function)?.1;
                let parameter = parameters.get(position)?;
                // An argument of a struct would shift those behind it.
                let plain = parameters[..=position].iter().all(|p| self.types.size_of(p.of) <= 8);
                plain.then(|| (parameter.name.to_string(), parameter.of))
            }
            Origin::Load { address, segment: Segment::Flat, bytes: 8 } if steps > 0 => {
                let (base, offset) = split(self.consistency, address);
                let (name, of) = self.typed(base?, steps - 1)?;
                let structure = self.pointed_to(of)?;
                let members = self.types.members_at(&structure, offset);
                let mut pointers = members.iter().filter(|m| m.pointer && m.inside == 0);
                let member = pointers.next().filter(|_| pointers.next().is_none())?;
                Some((format!("{name}->{}", member.path), self.pointer_type(&member.type_name)?))
            }
            _ => None,
        }
    }

    /// The name of the struct that a pointer type points to.
    fn pointed_to(&self, of: TypeId) -> Option<String> {
        match self.types.get(self.types.strip(of))?.kind {
            TypeKind::Pointer(to) => {
                let target = self.types.get(self.types.strip(to))?;
                let named = matches!(target.kind, TypeKind::Struct(_)) && !target.name.is_empty();
                named.then(|| target.name.to_string())
            }
            _ => None,
        }
    }

    /// The pointer type that is written `name` in C.
    fn pointer_type(&self, name: &str) -> Option<TypeId> {
        let pointee = name.strip_suffix(" *")?.strip_prefix("struct ")?;
        let mut types = self.types.iter();
        let (id, _) = types.find(|(_, t)| match t.kind {
            TypeKind::Pointer(to) => self
                .types
                .get(self.types.strip(to))
                .is_some_and(|t| t.name == pointee && matches!(t.kind, TypeKind::Struct(_))),
            _ => false,
        })?;
        Some(id)
    }
}
