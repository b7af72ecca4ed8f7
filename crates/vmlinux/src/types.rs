//! The types of a kernel: structs, their members and offsets, functions and their parameters.
//!
//! A [`TypeGraph`] is filled from BTF ([`crate::btf`]) or from one unit of DWARF ([`crate::dwarf_types`])
//! and asked for layouts: what lies at this offset of that struct, and which structs have such a member
//! at such an offset. It knows nothing about values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Index of a type in its graph; 0 is `void`.
pub type TypeId = u32;

/// One type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type<'d> {
    /// Its name, without `struct` and the like; empty when it has none.
    pub name: Cow<'d, str>,
    /// Size in bytes, for the kinds that have one of their own.
    pub size: u64,
    /// What it is.
    pub kind: TypeKind<'d>,
}

/// What a type is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeKind<'d> {
    /// `void`, and what is not known.
    Void,
    /// An integer, a character, a truth value, or a floating point number.
    Number,
    /// An enumeration.
    Enum,
    /// A pointer to another type.
    Pointer(TypeId),
    /// An array; a flexible array has no elements.
    Array(TypeId, u64),
    /// A struct.
    Struct(Vec<Member<'d>>),
    /// A union.
    Union(Vec<Member<'d>>),
    /// A struct or union that is only declared.
    Forward,
    /// Another name for a type.
    Typedef(TypeId),
    /// A type with `const`, `volatile`, `restrict` or a tag.
    Qualified(TypeId),
    /// The type of a function: result and parameters.
    Prototype(TypeId, Vec<Parameter<'d>>),
    /// A function of that prototype.
    Function(TypeId),
}

/// A member of a struct or union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'d> {
    /// Its name; empty for an anonymous struct or union.
    pub name: Cow<'d, str>,
    /// Its type.
    pub of: TypeId,
    /// Offset from the start of the struct, in bits.
    pub bit_offset: u64,
    /// Width in bits of a bit field.
    pub bit_width: Option<u32>,
}

/// A parameter of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'d> {
    /// Its name, when there is one.
    pub name: Cow<'d, str>,
    /// Its type.
    pub of: TypeId,
}

/// The way to a place inside a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPath {
    /// `se.run_node.rb_left`, `comm[3]`; anonymous levels are left out, as in C.
    pub path: String,
    /// The type in C: `struct list_head *`.
    pub type_name: String,
    /// Size in bytes of what is there.
    pub size: u64,
    /// Bytes into it; 0 when the offset is its start.
    pub inside: u64,
    /// It is a pointer.
    pub pointer: bool,
}

/// A struct that has a member at some offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOf<'t> {
    /// Name of the struct.
    pub structure: &'t str,
    /// The member.
    pub member: MemberPath,
}

/// Types by number, structs and functions by name.
#[derive(Debug, Clone, Default)]
pub struct TypeGraph<'d> {
    types: Vec<Type<'d>>,
    by_name: OnceLock<HashMap<String, Vec<TypeId>>>,
}

/// Typedefs and qualifiers do not nest deeper in C that people write; the bound is for damaged input,
/// where they may form rings.
const DEEPEST: usize = 32;

/// State of a walk into a struct.
struct Search {
    path: String,
    found: Vec<MemberPath>,
    /// Members that may still be looked at: in damaged types, unions may hold themselves.
    steps: usize,
}

impl<'d> TypeGraph<'d> {
    pub(crate) fn new(types: Vec<Type<'d>>) -> TypeGraph<'d> {
        TypeGraph { types, by_name: OnceLock::new() }
    }

    /// Number of types, `void` included.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// There are no types.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// The type with number `id`.
    pub fn get(&self, id: TypeId) -> Option<&Type<'d>> {
        self.types.get(id as usize)
    }

    /// All types with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, &Type<'d>)> {
        self.types.iter().enumerate().map(|(i, t)| (i as TypeId, t))
    }

    /// Types called `name`: a struct and a function may share a name.
    fn named(&self, name: &str) -> impl Iterator<Item = (TypeId, &Type<'d>)> {
        let index = self.by_name.get_or_init(|| {
            let mut index: HashMap<String, Vec<TypeId>> = HashMap::new();
            for (id, of) in self.iter().filter(|(_, t)| !t.name.is_empty()) {
                index.entry(of.name.to_string()).or_default().push(id);
            }
            index
        });
        index.get(name).into_iter().flatten().filter_map(|&id| Some((id, self.get(id)?)))
    }

    /// The struct or union called `name`, or the one that a typedef of that name stands for.
    pub fn structure(&self, name: &str) -> Option<&Type<'d>> {
        let name =
            name.strip_prefix("struct ").or_else(|| name.strip_prefix("union ")).unwrap_or(name);
        let fields = |t: &Type<'_>| matches!(t.kind, TypeKind::Struct(_) | TypeKind::Union(_));
        self.named(name).map(|(_, t)| t).find(|t| fields(t)).or_else(|| {
            let typedefs = self.named(name).filter(|(_, t)| matches!(t.kind, TypeKind::Typedef(_)));
            typedefs.filter_map(|(id, _)| self.get(self.strip(id))).find(|t| fields(t))
        })
    }

    /// Result and parameters of the function called `name`.
    pub fn function(&self, name: &str) -> Option<(TypeId, &[Parameter<'d>])> {
        self.named(name).find_map(|(_, t)| match t.kind {
            TypeKind::Function(prototype) => match &self.get(prototype)?.kind {
                TypeKind::Prototype(result, parameters) => Some((*result, parameters.as_slice())),
                _ => None,
            },
            _ => None,
        })
    }

    /// The type behind typedefs and qualifiers.
    pub fn strip(&self, mut id: TypeId) -> TypeId {
        for _ in 0..DEEPEST {
            match self.get(id).map(|t| &t.kind) {
                Some(&(TypeKind::Typedef(of) | TypeKind::Qualified(of))) => id = of,
                _ => break,
            }
        }
        id
    }

    /// Size of a type in bytes; 0 for `void` and functions.
    pub fn size_of(&self, id: TypeId) -> u64 {
        let (mut id, mut factor) = (id, 1u64);
        for _ in 0..DEEPEST {
            id = self.strip(id);
            match self.get(id) {
                Some(Type { kind: TypeKind::Pointer(_), .. }) => return factor.saturating_mul(8),
                Some(&Type { kind: TypeKind::Array(of, count), .. }) => {
                    factor = factor.saturating_mul(count);
                    id = of;
                }
                Some(of) => return factor.saturating_mul(of.size),
                None => return 0,
            }
        }
        0
    }

    /// The type in C: `struct task_struct *`, `unsigned long[4]`.
    pub fn name_of(&self, id: TypeId) -> String {
        self.name_within(id, DEEPEST)
    }

    fn name_within(&self, id: TypeId, depth: usize) -> String {
        let Some(of) = self.get(id).filter(|_| depth > 0) else { return "void".into() };
        let below = |id| self.name_within(id, depth - 1);
        let or_anonymous = |word: &str| match &*of.name {
            "" => format!("{word} {{...}}"),
            name => format!("{word} {name}"),
        };
        match &of.kind {
            TypeKind::Void => "void".into(),
            TypeKind::Struct(_) | TypeKind::Forward => or_anonymous("struct"),
            TypeKind::Union(_) => or_anonymous("union"),
            TypeKind::Enum => or_anonymous("enum"),
            TypeKind::Number | TypeKind::Typedef(_) | TypeKind::Function(_) => of.name.to_string(),
            TypeKind::Qualified(of) => below(*of),
            TypeKind::Array(of, count) => format!("{}[{count}]", below(*of)),
            TypeKind::Prototype(result, _) => format!("{} (...)", below(*result)),
            TypeKind::Pointer(to) => match below(*to) {
                name if name.ends_with('*') => format!("{name}*"),
                name => format!("{name} *"),
            },
        }
    }

    /// What lies at `offset` bytes of the struct called `structure`. Members of a union overlap, so
    /// there may be several answers, at most 16; none for padding.
    pub fn members_at(&self, structure: &str, offset: u64) -> Vec<MemberPath> {
        self.structure(structure).map(|of| self.search(of, offset)).unwrap_or_default()
    }

    fn search(&self, of: &Type<'d>, offset: u64) -> Vec<MemberPath> {
        self.search_within(of, offset, &mut (1 << 14))
    }

    fn search_within(&self, of: &Type<'d>, offset: u64, steps: &mut usize) -> Vec<MemberPath> {
        let mut search = Search { path: String::new(), found: Vec::new(), steps: *steps };
        self.descend(of, offset, &mut search, DEEPEST);
        *steps = search.steps;
        search.found
    }

    fn descend(&self, of: &Type<'d>, offset: u64, search: &mut Search, depth: usize) {
        let (TypeKind::Struct(members) | TypeKind::Union(members)) = &of.kind else { return };
        for member in members {
            if search.found.len() == 16 || search.steps == 0 || depth == 0 {
                return;
            }
            search.steps -= 1;
            let start = member.bit_offset / 8;
            let size = match member.bit_width {
                Some(width) => (member.bit_offset % 8 + u64::from(width)).div_ceil(8),
                None => self.size_of(member.of),
            };
            let Some(inside) = offset.checked_sub(start).filter(|&i| i < size) else { continue };
            let length = search.path.len();
            if !member.name.is_empty() {
                if length > 0 {
                    search.path.push('.');
                }
                search.path.push_str(&member.name);
            }
            self.place(member.of, inside, size, search, depth - 1);
            search.path.truncate(length);
        }
    }

    /// Goes on into elements of an array and members of a struct, down to what has no parts.
    fn place(&self, of: TypeId, inside: u64, size: u64, search: &mut Search, depth: usize) {
        let Some(target) = self.get(self.strip(of)) else { return };
        match target.kind {
            TypeKind::Array(element, _) if depth > 0 => {
                let each = self.size_of(element);
                if each == 0 {
                    return;
                }
                let length = search.path.len();
                search.path.push_str(&format!("[{}]", inside / each));
                self.place(element, inside % each, each, search, depth - 1);
                search.path.truncate(length);
            }
            TypeKind::Struct(_) | TypeKind::Union(_) => {
                self.descend(target, inside, search, depth);
            }
            _ => search.found.push(MemberPath {
                path: search.path.clone(),
                type_name: self.name_of(of),
                size,
                inside,
                pointer: matches!(target.kind, TypeKind::Pointer(_)),
            }),
        }
    }

    /// The named structs that have something at `offset` that starts there and that `wanted` takes:
    /// for naming an access to NULL plus an offset. In the order of the type numbers.
    pub fn structs_with(
        &self,
        offset: u64,
        mut wanted: impl FnMut(&MemberPath) -> bool,
    ) -> Vec<MemberOf<'_>> {
        let mut all = Vec::new();
        // All structs of a kernel have some hundred thousand members.
        let mut steps = 1 << 23;
        for (_, of) in self.iter() {
            if of.name.is_empty() || !matches!(of.kind, TypeKind::Struct(_)) || of.size <= offset {
                continue;
            }
            let members = self.search_within(of, offset, &mut steps);
            let fitting = members.into_iter().find(|m| m.inside == 0 && wanted(m));
            all.extend(fitting.map(|member| MemberOf { structure: &of.name, member }));
        }
        all
    }
}
