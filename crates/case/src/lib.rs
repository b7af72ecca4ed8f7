//! The words that every other crate shares.
//!
//! Decides nothing: it names things. A [`BootSpec`] says what to boot, [`Event`]s say what a run
//! did, a [`Verdict`] says what became of the guest and carries the [`Evidence`] for it, and a
//! [`CaseFile`] keeps all of that on disk. It may not know files, processes, clocks, QEMU or ELF.

pub mod build;
pub mod casebook;
pub mod config;
pub mod console;
pub mod contract;
pub mod crash;
pub mod emulation;
pub mod event;
pub mod explanation;
pub mod file;
pub mod finding;
pub mod guest;
pub mod hex;
pub mod matrix;
pub mod phase;
pub mod proof;
pub mod spec;
pub mod stack;
pub mod verdict;

pub use build::{
    BUILD_FORMAT_VERSION, BuildFailure, BuildFile, BuildState, ToolchainFacts, WarningGroup,
};
pub use casebook::{CASEBOOK_FORMAT_VERSION, CaseRun};
pub use config::{
    CONFIG_DIFF_VERSION, CONFIG_MINIMUM_VERSION, Cause, CauseKind, ConfigDiff, ConfigMinimum,
    ConfigSide, MinimumOption, OptionChange,
};
pub use console::{ConsoleRecord, HeadlineKind};
pub use crash::{
    BootFacts, Boundary, CodeBytes, CodePlace, CrashContext, CrashReport, Detail, DetailKind,
    Frame, Gap, InputPart, ListedInstruction, Listing, MachineState, MailFacts, Passage,
    READ_FORMAT_VERSION, ReadResult, Registers, Span, StackContext, Trace, TraceKind,
};
pub use event::{Event, EventKind, QemuEvent, VcpuSample};
pub use explanation::{
    ConsistencySummary, DecodedLine, EXPLAIN_FORMAT_VERSION, ExplainedFrame, ExplainedState,
    ExplainedValue, Explanation, ProvenanceStep, SpinWait, StateConclusion, StateRole,
};
pub use file::{CASE_FORMAT_VERSION, CaseFile, NestedHost};
pub use finding::{
    Confidence, DerivationStep, Finding, FindingCode, FindingPlace, Suspect, SuspectKind,
};
pub use guest::{GuestView, ReadError, VcpuRegisters};
pub use matrix::{MATRIX_FORMAT_VERSION, MatrixFile};
pub use phase::Phase;
pub use proof::{PROOF_FORMAT_VERSION, ProofFile};
pub use spec::{Accel, BootSpec, Engine, HostSpec};
pub use stack::{STACK_FORMAT_VERSION, StackStatus};
pub use verdict::{Evidence, Verdict, VerdictKind};
