//! Bytes to kernel facts.
//!
//! Everything here starts from byte slices (the caller maps files) and ends in plain facts about one
//! kernel image: what kind of file it is, its sections, symbols and tables. Nothing here knows the
//! file system, a guest or a console. Damaged input gives the facts that could be read, and a [`Gap`]
//! for each that could not. Start at [`Kernel::open`], or at [`recognise`] for the kind alone.

pub mod recognise;

pub mod bzimage;
pub mod decompress;
mod lzo;

pub mod elf;
pub mod kernel;
pub mod symbols;

pub mod kallsyms;
pub mod system_map;

pub mod image;
pub mod module;
pub mod tables;

pub mod dwarf;

pub mod btf;
pub mod dwarf_types;
pub mod types;

pub mod banner;
pub mod slide;

mod bytes;
mod gap;

pub use elf::Elf;
pub use gap::Gap;
pub use image::Image;
pub use kernel::{Kernel, OpenError};
pub use recognise::{ImageKind, Refusal, recognise};
pub use symbols::{Located, Symbol, SymbolTable};
