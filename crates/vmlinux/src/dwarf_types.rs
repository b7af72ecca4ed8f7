//! Types from DWARF, for kernels without BTF.
//!
//! The unit that defines the wanted struct is looked for, and all of its types become a
//! [`TypeGraph`]; a unit is self-contained unless it was optimised at link time, in which case members of
//! foreign types stay `void`.

use std::borrow::Cow;
use std::collections::HashMap;

use gimli::{AttributeValue, DwTag, UnitOffset};

use crate::dwarf::{DebugSections, Reader};
use crate::types::{Member, Parameter, Type, TypeGraph, TypeId, TypeKind};

type Entry<'a> = gimli::DebuggingInformationEntry<Reader<'a>>;

/// The types of the first unit that defines the struct or union called `name`. Costs up to half a
/// second on a large kernel, since the top level of every unit may have to be read.
pub fn types_defining<'a>(sections: &'a DebugSections<'_>, name: &str) -> Option<TypeGraph<'a>> {
    let dwarf = sections.dwarf();
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let Ok(unit) = dwarf.unit(header) else { continue };
        if defines(&dwarf, &unit, name).unwrap_or(false) {
            return Some(read_unit(&dwarf, &unit));
        }
    }
    None
}

fn defines(
    dwarf: &gimli::Dwarf<Reader<'_>>,
    unit: &gimli::Unit<Reader<'_>>,
    name: &str,
) -> gimli::Result<bool> {
    let mut cursor = unit.entries();
    // The root, then its first child; siblings from there on.
    cursor.next_dfs()?;
    let mut next = cursor.next_dfs()?;
    while let Some(entry) = next {
        let structure =
            matches!(entry.tag(), gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type);
        if structure
            && entry.has_attr(gimli::DW_AT_byte_size)
            && entry_name(dwarf, unit, entry).is_some_and(|n| n == name)
        {
            return Ok(true);
        }
        next = cursor.next_sibling()?;
    }
    Ok(false)
}

fn entry_name<'a>(
    dwarf: &gimli::Dwarf<Reader<'a>>,
    unit: &gimli::Unit<Reader<'a>>,
    entry: &Entry<'a>,
) -> Option<Cow<'a, str>> {
    let value = entry.attr_value(gimli::DW_AT_name)?;
    let text = dwarf.attr_string(unit, value).ok()?;
    Some(String::from_utf8_lossy(text.slice()))
}

fn number(entry: &Entry<'_>, name: gimli::DwAt) -> Option<u64> {
    entry.attr_value(name)?.udata_value()
}

/// The graph under construction; numbers are given out when an offset is first mentioned.
struct Graph<'a> {
    types: Vec<Type<'a>>,
    ids: HashMap<UnitOffset, TypeId>,
}

impl<'a> Graph<'a> {
    fn id_at(&mut self, offset: UnitOffset) -> TypeId {
        if let Some(&id) = self.ids.get(&offset) {
            return id;
        }
        let id = self.push(Type { name: Cow::Borrowed(""), size: 0, kind: TypeKind::Void });
        self.ids.insert(offset, id);
        id
    }

    fn push(&mut self, of: Type<'a>) -> TypeId {
        self.types.push(of);
        (self.types.len() - 1) as TypeId
    }

    fn set(&mut self, id: TypeId, of: Type<'a>) {
        if let Some(slot) = self.types.get_mut(id as usize) {
            *slot = of;
        }
    }

    /// The type that an entry refers to; `void` when it names none.
    fn target(&mut self, entry: &Entry<'_>) -> TypeId {
        match entry.attr_value(gimli::DW_AT_type) {
            Some(AttributeValue::UnitRef(offset)) => self.id_at(offset),
            _ => 0,
        }
    }
}

/// Reads all types of a unit; damage ends the reading with what there is.
fn read_unit<'a>(
    dwarf: &gimli::Dwarf<Reader<'a>>,
    unit: &gimli::Unit<Reader<'a>>,
) -> TypeGraph<'a> {
    let void = Type { name: Cow::Borrowed(""), size: 0, kind: TypeKind::Void };
    let mut graph = Graph { types: vec![void], ids: HashMap::new() };
    // The types whose children are being read, by depth.
    let mut open: Vec<(isize, TypeId)> = Vec::new();
    let mut cursor = unit.entries();
    while let Ok(Some(entry)) = cursor.next_dfs() {
        let depth = entry.depth();
        open.retain(|&(d, _)| d < depth);
        let parent = open.last().filter(|&&(d, _)| d + 1 == depth).map(|&(_, id)| id);
        let name = entry_name(dwarf, unit, entry).unwrap_or_default();
        match entry.tag() {
            gimli::DW_TAG_member => add_member(&mut graph, parent, name, entry),
            gimli::DW_TAG_subrange_type => add_dimension(&mut graph, parent, entry),
            gimli::DW_TAG_formal_parameter => add_parameter(&mut graph, parent, name, entry),
            tag => {
                let opened = add_type(&mut graph, tag, name, entry);
                open.extend(opened.map(|id| (depth, id)));
            }
        }
    }
    TypeGraph::new(graph.types)
}

/// Adds the type that `entry` is, if it is one, and returns the number that its children belong to.
fn add_type<'a>(
    graph: &mut Graph<'a>,
    tag: DwTag,
    name: Cow<'a, str>,
    entry: &Entry<'a>,
) -> Option<TypeId> {
    let size = number(entry, gimli::DW_AT_byte_size).unwrap_or(0);
    let declared = entry.has_attr(gimli::DW_AT_declaration);
    let kind = match tag {
        gimli::DW_TAG_base_type => TypeKind::Number,
        gimli::DW_TAG_enumeration_type => TypeKind::Enum,
        gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type if declared => TypeKind::Forward,
        gimli::DW_TAG_structure_type => TypeKind::Struct(Vec::new()),
        gimli::DW_TAG_union_type => TypeKind::Union(Vec::new()),
        gimli::DW_TAG_pointer_type => TypeKind::Pointer(graph.target(entry)),
        gimli::DW_TAG_array_type => TypeKind::Array(graph.target(entry), 0),
        gimli::DW_TAG_typedef => TypeKind::Typedef(graph.target(entry)),
        gimli::DW_TAG_const_type
        | gimli::DW_TAG_volatile_type
        | gimli::DW_TAG_restrict_type
        | gimli::DW_TAG_atomic_type => TypeKind::Qualified(graph.target(entry)),
        gimli::DW_TAG_subroutine_type => TypeKind::Prototype(graph.target(entry), Vec::new()),
        gimli::DW_TAG_subprogram if !name.is_empty() => {
            let result = graph.target(entry);
            let prototype = TypeKind::Prototype(result, Vec::new());
            let prototype = graph.push(Type { name: Cow::Borrowed(""), size: 0, kind: prototype });
            graph.push(Type { name, size: 0, kind: TypeKind::Function(prototype) });
            return Some(prototype);
        }
        _ => return None,
    };
    let id = graph.id_at(entry.offset());
    graph.set(id, Type { name, size, kind });
    Some(id)
}

fn add_member<'a>(
    graph: &mut Graph<'a>,
    parent: Option<TypeId>,
    name: Cow<'a, str>,
    entry: &Entry<'a>,
) {
    let of = graph.target(entry);
    let bit_width = number(entry, gimli::DW_AT_bit_size).and_then(|w| u32::try_from(w).ok());
    let start = number(entry, gimli::DW_AT_data_member_location).unwrap_or(0).saturating_mul(8);
    let bit_offset = match (
        number(entry, gimli::DW_AT_data_bit_offset),
        number(entry, gimli::DW_AT_bit_offset),
        bit_width,
    ) {
        (Some(offset), ..) => offset,
        // DWARF 3 counts from the most significant bit of a storage unit.
        (None, Some(offset), Some(width)) => {
            let storage = number(entry, gimli::DW_AT_byte_size).unwrap_or(4).saturating_mul(8);
            start.saturating_add(storage).saturating_sub(offset).saturating_sub(u64::from(width))
        }
        _ => start,
    };
    let Some(parent) = parent.and_then(|id| graph.types.get_mut(id as usize)) else { return };
    if let TypeKind::Struct(members) | TypeKind::Union(members) = &mut parent.kind {
        members.push(Member { name, of, bit_offset, bit_width });
    }
}

/// The dimensions of an array multiply: for offsets `a[2][3]` is six elements.
fn add_dimension(graph: &mut Graph<'_>, parent: Option<TypeId>, entry: &Entry<'_>) {
    let count = number(entry, gimli::DW_AT_count)
        .or_else(|| number(entry, gimli::DW_AT_upper_bound)?.checked_add(1))
        .unwrap_or(0);
    let Some(parent) = parent.and_then(|id| graph.types.get_mut(id as usize)) else { return };
    if let TypeKind::Array(_, total) = &mut parent.kind {
        *total = if *total == 0 { count } else { total.saturating_mul(count) };
    }
}

fn add_parameter<'a>(
    graph: &mut Graph<'a>,
    parent: Option<TypeId>,
    name: Cow<'a, str>,
    entry: &Entry<'a>,
) {
    let of = graph.target(entry);
    let Some(parent) = parent.and_then(|id| graph.types.get_mut(id as usize)) else { return };
    if let TypeKind::Prototype(_, parameters) = &mut parent.kind {
        parameters.push(Parameter { name, of });
    }
}
