//! BTF: the compact types that a kernel carries in its own image (`.BTF`).
//!
//! The format is that of Documentation/bpf/btf.rst and include/uapi/linux/btf.h. [`parse_btf`] reads it
//! into a [`TypeGraph`]; a type that cannot be read ends the reading, since the next one has no other
//! start.

use std::borrow::Cow;

use crate::Gap;
use crate::bytes::{c_string_at, u16_at, u32_at};
use crate::types::{Member, Parameter, Type, TypeGraph, TypeKind};

/// Reads the bytes of a `.BTF` section. The BTF of a module builds on that of the kernel: give the
/// bytes of the latter as `base`, and the graph holds both.
pub fn parse_btf<'d>(data: &'d [u8], base: Option<&'d [u8]>) -> (TypeGraph<'d>, Vec<Gap>) {
    let mut gaps = Vec::new();
    let mut types = vec![Type { name: Cow::Borrowed(""), size: 0, kind: TypeKind::Void }];
    let mut base_strings = &b""[..];
    if let Some(base) = base {
        match Sections::find(base) {
            Ok(sections) => {
                base_strings = sections.strings;
                read_types(&sections, &[], &mut types, &mut gaps);
            }
            Err(gap) => gaps.push(gap),
        }
    }
    match Sections::find(data) {
        Ok(sections) => read_types(&sections, base_strings, &mut types, &mut gaps),
        Err(gap) => gaps.push(gap),
    }
    (TypeGraph::new(types), gaps)
}

struct Sections<'d> {
    types: &'d [u8],
    strings: &'d [u8],
}

impl<'d> Sections<'d> {
    fn find(data: &'d [u8]) -> Result<Sections<'d>, Gap> {
        const MAGIC: u16 = 0xeb9f;
        if u16_at(data, 0) != Some(MAGIC) {
            return Err(Gap::new(".BTF", "the magic number is missing"));
        }
        let truncated = |what| move || Gap::new(".BTF", format!("{what} run past the end"));
        let field = |at| u32_at(data, at).map(|v| v as usize);
        let part = |offset: usize, length: usize| -> Option<&'d [u8]> {
            let start = field(4)?.checked_add(field(offset)?)?;
            data.get(start..start.checked_add(field(length)?)?)
        };
        let types = part(8, 12).ok_or_else(truncated("the types"))?;
        let strings = part(16, 20).ok_or_else(truncated("the strings"))?;
        Ok(Sections { types, strings })
    }
}

/// Appends the types of `sections`. Strings continue those of the base.
fn read_types<'d>(
    sections: &Sections<'d>,
    base_strings: &'d [u8],
    types: &mut Vec<Type<'d>>,
    gaps: &mut Vec<Gap>,
) {
    let text = |offset: u32| -> Cow<'d, str> {
        let offset = offset as usize;
        let string = match offset.checked_sub(base_strings.len()) {
            Some(own) => c_string_at(sections.strings, own),
            None => c_string_at(base_strings, offset),
        };
        string.map(String::from_utf8_lossy).unwrap_or_default()
    };
    let mut at = 0;
    while at < sections.types.len() {
        match read_type(sections.types, at, &text) {
            Some((read, next)) => {
                types.push(read);
                at = next;
            }
            None => {
                let why = format!("type {} cannot be read, nor those behind it", types.len());
                gaps.push(Gap::at(".BTF", at as u64, why));
                return;
            }
        }
    }
}

/// The type at `at`, and where the next one starts.
fn read_type<'d>(
    data: &'d [u8],
    at: usize,
    text: &impl Fn(u32) -> Cow<'d, str>,
) -> Option<(Type<'d>, usize)> {
    let name = text(u32_at(data, at)?);
    let info = u32_at(data, at + 4)?;
    let size_or_type = u32_at(data, at + 8)?;
    let (count, flag) = ((info & 0xffff) as usize, info >> 31 != 0);
    let body = at + 12;
    let entries =
        |width: usize| data.get(body..body + count * width).map(|d| d.chunks_exact(width));
    let size = u64::from(size_or_type);
    let (size, kind, length) = match info >> 24 & 0x1f {
        1 => (size, TypeKind::Number, 4),
        2 => (8, TypeKind::Pointer(size_or_type), 0),
        3 => {
            let (of, count) = (u32_at(data, body)?, u32_at(data, body + 8)?);
            (0, TypeKind::Array(of, u64::from(count)), 12)
        }
        kind @ (4 | 5) => {
            let members =
                entries(12)?.map(|e| member(e, flag, text)).collect::<Option<Vec<_>>>()?;
            let kind = if kind == 4 { TypeKind::Struct(members) } else { TypeKind::Union(members) };
            (size, kind, count * 12)
        }
        6 => (size, TypeKind::Enum, count * 8),
        7 => (0, TypeKind::Forward, 0),
        8 => (0, TypeKind::Typedef(size_or_type), 0),
        // Volatile, const, restrict, and tags of types.
        9..=11 | 18 => (0, TypeKind::Qualified(size_or_type), 0),
        12 => (0, TypeKind::Function(size_or_type), 0),
        13 => {
            let parameters = entries(8)?
                .map(|e| Some(Parameter { name: text(u32_at(e, 0)?), of: u32_at(e, 4)? }))
                .collect::<Option<Vec<_>>>()?;
            (0, TypeKind::Prototype(size_or_type, parameters), count * 8)
        }
        // A variable, a section of variables, a tag of a declaration: no types.
        14 | 17 => (0, TypeKind::Void, 4),
        15 => (0, TypeKind::Void, count * 12),
        16 => (size, TypeKind::Number, 0),
        19 => (size, TypeKind::Enum, count * 12),
        _ => return None,
    };
    let next = body.checked_add(length)?;
    data.get(body..next)?;
    Some((Type { name, size, kind }, next))
}

/// With the kind flag, the offset word holds the width of a bit field in its upper byte.
fn member<'d>(entry: &[u8], flag: bool, text: &impl Fn(u32) -> Cow<'d, str>) -> Option<Member<'d>> {
    let word = u32_at(entry, 8)?;
    let (width, offset) = if flag { (word >> 24, word & 0x00ff_ffff) } else { (0, word) };
    Some(Member {
        name: text(u32_at(entry, 0)?),
        of: u32_at(entry, 4)?,
        bit_offset: u64::from(offset),
        bit_width: (width != 0).then_some(width),
    })
}
