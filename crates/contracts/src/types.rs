//! What the types in an image say about calls: which functions are C, how many registers carry their results, and which
//! pointers of a table have a type that stands for a contract.
//!
//! Read from the BTF that the kernel carries, else, for the tables, from DWARF. Assembly has no types, and of it nothing is
//! claimed. Main type: [`Types`].

use kolumbo_dataflow::Parts;
use kolumbo_vmlinux::btf::parse_btf;
use kolumbo_vmlinux::dwarf::DebugSections;
use kolumbo_vmlinux::dwarf_types::types_defining;
use kolumbo_vmlinux::types::{Parameter, TypeGraph, TypeId, TypeKind};
use kolumbo_vmlinux::{Elf, types};

use crate::image::Image;
use crate::program::CALLEE_SAVED;

/// Structs nest no deeper in the tables that are looked at; the bound is for damaged types.
const DEEPEST: usize = 8;
/// Members that are looked at in one table.
const MOST_MEMBERS: usize = 4096;

/// The types of an image.
#[derive(Debug, Default)]
pub struct Types<'i> {
    kernel: Option<TypeGraph<'i>>,
}

/// The registers in which a C function returns its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultRegisters {
    /// RAX, or none.
    One,
    /// RAX and RDX: a struct or an integer of 9 to 16 bytes (System V ABI for x86-64, section 3.2.3).
    Two,
}

impl<'i> Types<'i> {
    /// Reads the BTF of the kernel; an image without it has no types.
    #[must_use]
    pub fn read(image: &'i Image<'_>) -> Self {
        // The BTF of a module builds on that of the kernel, and its functions are not called by name from elsewhere.
        let section =
            image.regions.iter().find(|region| region.section == ".BTF" && region.address != 0);
        let kernel = section
            .filter(|region| !image.is_relocatable(region.file))
            .map(|region| parse_btf(&region.bytes, None).0);
        Self { kernel }
    }

    /// In which registers the C function of this name returns; `None` when there is no such function, or when it `needs` more
    /// than its parameters bring. Assembly that is declared in C for the sake of its name has a convention of its own.
    #[must_use]
    pub fn results(&self, name: &str, needs: Parts) -> Option<ResultRegisters> {
        let graph = self.kernel.as_ref()?;
        // What the compiler split off (`.constprop.0`, `.part.0`, `.isra.0`) returns no more than the whole.
        let base = name.split('.').next().unwrap_or(name);
        let (result, parameters) = graph.function(base)?;
        if base == name && needs.intersects(!(brought_by(graph, parameters) | KEPT)) {
            return None;
        }
        let two = match &graph.get(graph.strip(result))?.kind {
            TypeKind::Struct(_) | TypeKind::Union(_) | TypeKind::Number => {
                (9..=16).contains(&graph.size_of(result))
            }
            _ => false,
        };
        Some(if two { ResultRegisters::Two } else { ResultRegisters::One })
    }

    /// Addresses of the members that have the struct type `member_type`, in the variable `variable` of the struct type
    /// `table_type`. Empty when the variable is not in the image, or no types describe it.
    #[must_use]
    pub fn slots(
        &self,
        image: &Image<'_>,
        variable: &str,
        table_type: &str,
        member_type: &str,
    ) -> Vec<u64> {
        let Some(base) =
            image.address_of(variable).filter(|base| !image.unknown.contains_key(base))
        else {
            return Vec::new();
        };
        let from = |graph: &TypeGraph<'_>| {
            let mut found = Vec::new();
            if let Some(table) = graph.structure(table_type) {
                members_of(graph, table, member_type, base, &mut found);
            }
            found
        };
        if let Some(graph) = &self.kernel {
            return from(graph);
        }
        let elf = image.linked_files().find_map(|bytes| Elf::parse(bytes).ok());
        let sections = elf.as_ref().and_then(DebugSections::of);
        let graph = sections.as_ref().and_then(|sections| types_defining(sections, table_type));
        graph.as_ref().map(from).unwrap_or_default()
    }
}

/// What every function may need: the stack pointer, registers that it saves, and whatever is no general register.
const KEPT: Parts = Parts { general: CALLEE_SAVED.general, vector: u128::MAX, flags: u16::MAX };

/// The registers in which parameters of these types come (System V ABI for x86-64, section 3.2.3); all of them when the
/// function takes any number.
fn brought_by(graph: &TypeGraph<'_>, parameters: &[Parameter<'_>]) -> Parts {
    // RDI, RSI, RDX, RCX, R8, R9.
    const IN_ORDER: [usize; 6] = [7, 6, 2, 1, 8, 9];
    let all = IN_ORDER.iter().fold(Parts::EMPTY, |set, number| set | Parts::general(*number));
    if parameters.last().is_some_and(|parameter| parameter.of == 0) {
        return all | Parts::general(0);
    }
    let mut taken = 0;
    for parameter in parameters {
        let words = match graph.size_of(parameter.of) {
            9..=16 => 2,
            17.. => 0,
            _ => 1,
        };
        // What does not fit into the registers that are left comes on the stack.
        if taken + words <= IN_ORDER.len() {
            taken += words;
        }
    }
    IN_ORDER.iter().take(taken).fold(Parts::EMPTY, |set, number| set | Parts::general(*number))
}

/// Appends the addresses of members of the wanted type, those inside of other structs too.
fn members_of(
    graph: &TypeGraph<'_>,
    table: &types::Type<'_>,
    wanted: &str,
    base: u64,
    found: &mut Vec<u64>,
) {
    let mut todo: Vec<(&types::Type<'_>, u64, usize)> = vec![(table, base, 0)];
    let mut looked = 0;
    let structure = |id: TypeId| graph.get(graph.strip(id));
    while let Some((of, base, depth)) = todo.pop() {
        let (TypeKind::Struct(members) | TypeKind::Union(members)) = &of.kind else { continue };
        for member in members {
            looked += 1;
            if looked > MOST_MEMBERS {
                return;
            }
            let address = base.wrapping_add(member.bit_offset / 8);
            match structure(member.of) {
                Some(inner) if inner.name == wanted => found.push(address),
                Some(inner) if depth < DEEPEST => todo.push((inner, address, depth + 1)),
                _ => {}
            }
        }
    }
    found.sort_unstable();
}
