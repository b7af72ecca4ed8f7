//! Which image has the code of a place: the kernel, or a module.
//!
//! Decides by the module that the dump names. The main type is [`Images`].

use kolumbo_case::CodePlace;
use kolumbo_vmlinux::types::TypeGraph;

use crate::frames::LinesOf;
use crate::function::ImageCode;

/// A module that was linked at some base.
pub struct LoadedModule<'a> {
    /// Its name, with underscores.
    pub name: String,
    /// Its code.
    pub code: ImageCode<'a, 'a>,
    /// Its source lines.
    pub lines: Option<Box<LinesOf<'a>>>,
}

/// Calls back with the types of the kernel, where it has any.
pub type TypesOf<'a> = dyn Fn(&mut dyn FnMut(&TypeGraph<'_>)) + 'a;

/// Everything that is at hand of what ran.
#[derive(Clone, Copy, Default)]
pub struct Images<'a> {
    /// The kernel.
    pub kernel: Option<&'a ImageCode<'a, 'a>>,
    /// Its source lines.
    pub lines: Option<&'a LinesOf<'a>>,
    /// Its types.
    pub types: Option<&'a TypesOf<'a>>,
    /// Modules.
    pub modules: &'a [LoadedModule<'a>],
}

impl<'a> Images<'a> {
    /// The code and the source lines of what holds `place`.
    pub fn of(
        &self,
        place: &CodePlace,
    ) -> Option<(&'a ImageCode<'a, 'a>, Option<&'a LinesOf<'a>>)> {
        let Some(name) = &place.module else { return self.kernel.map(|code| (code, self.lines)) };
        let name = name.replace('-', "_");
        let module = self.modules.iter().find(|m| m.name == name)?;
        Some((&module.code, module.lines.as_deref()))
    }
}
