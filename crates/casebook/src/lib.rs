//! Cases: kernel bugs that are reproduced from the kernel's source, and proven.
//!
//! A case is a folder with a `case.toml` (docs/casebook.md has the schema) and what that names. Decides
//! what is built, what is expected of each boot and whether what was seen is that. It starts no guest,
//! knows no console, and prints nothing. Main type: [`Recipe`].

pub mod expect;
pub mod file;
pub mod image;
pub mod kernels;
pub mod proof;
pub mod recipe;
pub mod shelf;

pub use file::CaseError;
pub use recipe::Recipe;
