//! The effects of an instruction in the small form in which whole programs are analysed: 48 bytes, computed once.
//!
//! Leaves the vector registers out; an instruction that touches one is marked, and whoever follows vector registers asks an
//! [`EffectsReader`] again. Main type: [`Brief`].

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::effects::{Effects, EffectsReader, Rule, operands};
use crate::parts::Parts;

/// [`Effects`] without vector registers.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    reads: u64,
    writes: u64,
    may_write: u64,
    always: u64,
    read_flags: u16,
    written_flags: u16,
    maybe_written_flags: u16,
    always_flags: u16,
    rule: Rule,
    marks: u8,
}

const TOUCHES_VECTOR: u8 = 1;
const WRITES_MEMORY: u8 = 2;
const SAVES_REGISTER: u8 = 4;
const PUSHES_ADDRESS: u8 = 8;

impl Brief {
    /// The small form of the effects of `instruction`.
    #[must_use]
    pub fn of(instruction: &Instruction, reader: &mut EffectsReader) -> Self {
        let effects = reader.effects(instruction);
        let Effects { mut reads, writes, may_write, mut always, .. } = effects;
        if instruction.mnemonic() == Mnemonic::Cpuid {
            // Few leaves read ECX, and then it is set right before; elsewhere whatever lies there is handed over. Leaving it
            // out keeps a caller from seeming to rely on it.
            const RCX: Parts = Parts::general(1);
            (reads, always) = (reads - RCX, always - RCX);
        }
        let saves =
            instruction.mnemonic() == Mnemonic::Push && instruction.op0_kind() == OpKind::Register;
        let mut marks = 0;
        if reads.vector | may_write.vector | writes.vector != 0 {
            marks |= TOUCHES_VECTOR;
        }
        if effects.writes_memory {
            marks |= WRITES_MEMORY;
        }
        if saves {
            marks |= SAVES_REGISTER;
        }
        Self {
            reads: reads.general,
            writes: writes.general,
            may_write: may_write.general,
            always: always.general,
            read_flags: reads.flags,
            written_flags: writes.flags,
            maybe_written_flags: may_write.flags,
            always_flags: always.flags,
            rule: effects.rule,
            marks,
        }
    }

    /// The same, of an instruction by which no function is entered: a call then only pushes its address.
    #[must_use]
    pub(crate) fn without_call(mut self, instruction: &Instruction) -> Self {
        if instruction.mnemonic() == Mnemonic::Call {
            self.marks |= PUSHES_ADDRESS;
        }
        self
    }

    /// Whether the instruction is a call that only pushes its address.
    #[must_use]
    pub const fn pushes_address(&self) -> bool {
        self.marks & PUSHES_ADDRESS != 0
    }

    /// Whether a vector register is read or written.
    #[must_use]
    pub const fn touches_vector(&self) -> bool {
        self.marks & TOUCHES_VECTOR != 0
    }

    /// Whether memory is written.
    #[must_use]
    pub const fn writes_memory(&self) -> bool {
        self.marks & WRITES_MEMORY != 0
    }

    /// Whether a register is pushed.
    #[must_use]
    pub const fn saves_register(&self) -> bool {
        self.marks & SAVES_REGISTER != 0
    }

    /// As [`Effects::reads`].
    #[must_use]
    pub const fn reads(&self) -> Parts {
        Parts { general: self.reads, vector: 0, flags: self.read_flags }
    }

    /// As [`Effects::writes`].
    #[must_use]
    pub const fn writes(&self) -> Parts {
        Parts { general: self.writes, vector: 0, flags: self.written_flags }
    }

    /// As [`Effects::may_write`].
    #[must_use]
    pub const fn may_write(&self) -> Parts {
        Parts { general: self.may_write, vector: 0, flags: self.maybe_written_flags }
    }

    /// As [`Effects::needed`]; a need for vector registers stays as it is.
    #[must_use]
    pub fn needed(&self, after: Parts) -> Parts {
        let mut needed = Parts {
            general: after.general & !self.writes | self.always,
            vector: after.vector,
            flags: after.flags & !self.written_flags | self.always_flags,
        };
        let wanted = after & self.may_write();
        if wanted.general != 0 || wanted.flags != 0 {
            needed |= operands(self.rule, self.reads(), wanted);
        }
        needed
    }
}
