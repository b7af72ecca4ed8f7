//! Symbolic evaluation of a straight line of x86-64 instructions.
//!
//! Decides what must hold behind an instruction sequence: every register and every flag as a term
//! over unknowns, and which bits of it are forced once some of the final values are known. It may
//! not know which code it looks at or why. Its main types are [`Machine`], which runs the
//! instructions, and [`System`], which compares the outcome with observed values.

pub mod bits;
pub mod line;
pub mod machine;
pub mod run;
pub mod solve;
pub mod term;
pub mod text;

mod arithmetic;
mod effects;

pub use bits::Bits;
pub use line::{Line, Step};
pub use machine::{CallModel, Flag, Gpr, Machine};
pub use run::{Conventions, Outcome, Snapshot};
pub use solve::{Observable, Subject, System, Verdict};
pub use term::{Node, Origin, Segment, Term, Terms};
