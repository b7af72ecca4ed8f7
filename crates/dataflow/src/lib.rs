//! What machine code does, decided from its bytes alone: the effects of each x86-64 instruction on every part of every
//! register and on every flag, control flow, liveness and clobber summaries.
//!
//! This crate may not know Linux (no symbol name stands here), nor files. Bytes and an address come in, facts go out. Where an
//! effect is not certain the answer is the weaker fact: a may-write is not a kill, and an undefined flag is not a result.

pub mod addresses;
pub mod brief;
mod cut;
pub mod demand;
pub mod disassembly;
pub mod effects;
pub mod evidence;
pub mod flow;
pub mod parts;
pub mod symbolic;
pub mod values;

pub use addresses::{AddressMap, AddressSet, Sieve};
pub use brief::Brief;
pub use demand::{Demands, Site, demands, reachable, reliance};
pub use disassembly::{Line, Printer, Syntax, disassemble};
pub use effects::{Effects, EffectsReader, effects, touches_memory};
pub use evidence::{Evidence, evidence};
pub use flow::{Block, Body, Callee, CodeMap, Ending, Replacement, Target, walk};
pub use parts::{ARITHMETIC_FLAGS, Parts};
pub use values::{Callees, Exit, Exits, Returns, Summary, Workspace, exits};

/// The decoder that this crate reads instructions with; its `Instruction` is part of this crate's interface.
pub use iced_x86;
pub use iced_x86::{Instruction, Register};

/// Decodes one instruction at `ip`. `None` when the bytes are no instruction or end too early.
#[must_use]
pub fn decode(bytes: &[u8], ip: u64) -> Option<Instruction> {
    let mut decoder = iced_x86::Decoder::with_ip(64, bytes, ip, iced_x86::DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}
