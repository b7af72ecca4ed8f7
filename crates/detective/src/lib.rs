//! From a crash report to findings.
//!
//! Decides whether the machine state of a dump can follow from the code before it, what its values
//! are, and who is suspect where it cannot. May know what `console` read and what an image says; it
//! never learns whether the guest is live, saved or a mail, and prints nothing.

pub mod situation;
pub mod window;

pub mod function;

pub mod consistency;
pub mod entry;

pub mod accuse;
mod callee;
mod suspect;

pub mod decode;
pub mod device;
pub mod value;

pub mod code;
pub mod explain;
pub mod frames;
pub mod kept;
pub mod member;
pub mod provenance;
pub mod spin;

pub use code::{Images, LoadedModule};
pub use consistency::{Conclusion, Consistency, Decided, Footing};
pub use explain::{Options, explain};
pub use function::ImageCode;
pub use situation::Situation;
pub use window::Window;
