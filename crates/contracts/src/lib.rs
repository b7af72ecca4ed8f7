//! The whole-image check: who relies on which register part across a call, and which callee destroys it.
//!
//! Decides from the bytes of linked kernels, modules and objects, before anybody boots them. Contracts are inferred (what is
//! read after a call before it is written is relied on) or declared in TOML. Knows `vmlinux` and `dataflow`; may not know
//! guests, the file system or how a finding is printed. Start at [`check`].

pub mod image;
pub mod tables;

pub mod features;
pub mod program;
pub mod slots;
pub mod types;

pub mod declared;

pub mod blame;
pub mod check;
pub mod explain;
pub mod fastops;

pub use check::{Options, check, judge};
pub use declared::{Contract, Declared, DeclaredError};
pub use explain::explain_site;
pub use features::{FeatureNames, Machine, Unused};
pub use image::{Image, ImageError, Input};
pub use program::Program;
pub use slots::Slots;
pub use tables::Tables;
pub use types::Types;
