//! What could be read from the log or the mail of a dying kernel.
//!
//! Names the parts of a crash and where each stands in the input; decides nothing. The `console`
//! crate fills them, `detective` and `report` read them. Every part is optional, since what was
//! damaged is a [`Gap`], never a failure. Main types: [`ReadResult`], [`CrashReport`].
//!
//! The serialised form is the schema of `kolumbo read --json`, versioned by [`READ_FORMAT_VERSION`]:
//! addresses and register values are strings (`"0xffffffff81000000"`), since JSON numbers lose them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::console::HeadlineKind;
use crate::hex;
use crate::phase::Phase;

/// The version of the schema. Fields may be added within a version, never renamed or removed.
pub const READ_FORMAT_VERSION: u32 = 1;

/// A range of bytes in the input.
///
/// For a mail whose body had to be decoded (base64, quoted-printable, gzip), offsets count in the
/// decoded text of that part, see [`ReadResult::parts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte.
    pub end: u64,
    /// Index in [`ReadResult::parts`]; 0 is the input itself.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub part: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Everything that one input said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadResult {
    /// [`READ_FORMAT_VERSION`].
    pub read_version: u32,
    /// `console`, `journal-json` or `mail`.
    pub format: String,
    /// The texts that offsets count in: the input, then each part that had to be decoded.
    pub parts: Vec<InputPart>,
    /// The crashes, in the order of the input. Empty for a healthy log.
    pub reports: Vec<CrashReport>,
    /// The boots that the input tells of, in order.
    pub boots: Vec<BootFacts>,
    /// Disassembly that somebody pasted into the text.
    pub listings: Vec<Listing>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// One text that offsets count in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputPart {
    /// What it is: `input`, or the file name of an attachment, or `body 2`.
    pub name: String,
    /// The encoding that was undone: `7bit`, `base64`, `quoted-printable`, `gzip`.
    pub encoding: String,
    /// Length in bytes, decoded.
    pub len: u64,
    /// Subject, sender and date of the mail that it belongs to, as the mail says.
    pub mail: Option<MailFacts>,
}

/// The headers of a mail that matter to a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MailFacts {
    /// Subject line.
    pub subject: String,
    /// Sender as it was written.
    pub from: String,
    /// Date as it was written.
    pub date: String,
    /// Message-ID without brackets.
    pub message_id: String,
}

/// Something that could not be read, in plain words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// What is missing and why.
    pub what: String,
    /// Where, if it has a place.
    pub span: Option<Span>,
}

/// One crash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CrashReport {
    /// Headline in syzkaller's normalised form: `KASAN: use-after-free Read in foo`.
    pub title: String,
    /// Further titles under which the same crash is known, sorted.
    pub alt_titles: Vec<String>,
    /// syzkaller's crash type: `HANG`, `WARNING`, `DoS`, `KASAN-READ`, ..., `UNKNOWN`.
    #[serde(rename = "type")]
    pub crash_type: String,
    /// What kind of trouble the headline announces.
    pub kind: Option<HeadlineKind>,
    /// The guilty function, as it stands in the title; empty where none could be named.
    pub frame: String,
    /// The source file to blame, where frames carry `file:line`.
    pub guilty_file: Option<String>,
    /// The parts contradict each other, or the trace is missing or interleaved.
    pub corrupted: bool,
    /// Why it is corrupted, in plain words.
    pub corrupted_reason: Option<String>,
    /// The kernel panicked behind it.
    pub panicked: bool,
    /// From the first to the last line of the crash.
    pub span: Span,
    /// How often a mailer quoted it; 0 for a console.
    pub quote_depth: u32,
    /// The line that announces it, without prefixes.
    pub headline: Passage,
    /// Seconds since boot of the headline, as printed (`12.345678`).
    pub time: Option<String>,
    /// CPU, task, taint and kernel, as the dump names them.
    pub context: CrashContext,
    /// The registers at the fault: those of `states[0]`, where there is one.
    pub registers: Registers,
    /// The bytes around the fault: those of the first state that has them.
    pub code_bytes: Option<CodeBytes>,
    /// Every register dump of the crash, the one at the fault first. Those at exception
    /// boundaries inside a trace are in [`Trace::boundaries`].
    pub states: Vec<MachineState>,
    /// Call traces in order of the text.
    pub traces: Vec<Trace>,
    /// What the checker that fired had to say, by part.
    pub details: Vec<Detail>,
    /// What was damaged in this crash.
    pub gaps: Vec<Gap>,
}

/// A piece of text and its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passage {
    /// The text without prefixes and quoting; lines that a mailer had wrapped are joined.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// Who was running when it happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CrashContext {
    /// `CPU: 3`.
    pub cpu: Option<u32>,
    /// `PID: 123`.
    pub pid: Option<u32>,
    /// `Comm: init`.
    pub comm: Option<String>,
    /// User ID, where the kernel prints it (since v6.11).
    pub uid: Option<u32>,
    /// The kernel says `Tainted:` (true) or `Not tainted` (false).
    pub tainted: Option<bool>,
    /// The taint letters, blanks removed: `GW`.
    pub taint: String,
    /// Each letter spelled out.
    pub taint_meaning: Vec<String>,
    /// Kernel release: `6.5.0-rc5`.
    pub release: Option<String>,
    /// Build: `#1 SMP PREEMPT_DYNAMIC ...`.
    pub build: Option<String>,
    /// `Hardware name:`.
    pub hardware: Option<String>,
    /// `Workqueue:`.
    pub workqueue: Option<String>,
    /// `Modules linked in:`.
    pub modules: Vec<String>,
    /// Where the `CPU: ... PID: ...` line stands.
    pub span: Option<Span>,
}

/// Registers by name, in the order of the dump.
///
/// Names are lower case and those of [`crate::VcpuRegisters`]: `rax` ... `r15`, `rip`, `rsp`, `rflags`,
/// `cs`, `ss`, `ds`, `es`, `fs`, `gs` (selectors), `fs_base`, `gs_base`, `kernel_gs_base`, `cr0`,
/// `cr2`, `cr3`, `cr4`, `dr0` ..., `orig_rax`; i386 has `eax` ..., `eip`, `esp`, `eflags`; arm64
/// `x0` ..., `sp`, `lr`, `pc`, `pstate`, `esr`, `far`; arm `r0` ..., `psr`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registers(pub Vec<(String, u64)>);

impl Registers {
    /// The value of the register called `name`.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(n, _)| n == name).map(|&(_, v)| v)
    }

    /// Adds a register, unless the dump had it before: a second value would come from a line of
    /// another dump.
    pub fn insert(&mut self, name: &str, value: u64) {
        if self.get(name).is_none() {
            self.0.push((name.to_owned(), value));
        }
    }

    /// No register could be read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A place in the code as a dump names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodePlace {
    /// Address, where one was printed.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// Function; none for a bare address.
    pub function: Option<String>,
    /// Offset in the function.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Size of the function.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Module, without brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Build ID of the kernel or the module, where the frame carries it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Source file, where somebody symbolised the dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Source line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// One register dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineState {
    /// CPU that was dumped, where the text says so.
    pub cpu: Option<u32>,
    /// The CPU was in user mode (selector with privilege level 3, or the architecture's sign).
    pub user_mode: bool,
    /// `RIP:` or `pc :`.
    pub pc: Option<CodePlace>,
    /// The registers.
    pub registers: Registers,
    /// `Code:`.
    pub code: Option<CodeBytes>,
    /// From the first to the last line.
    pub span: Span,
}

/// The bytes of a `Code:` line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodeBytes {
    /// The bytes in the order of memory.
    #[serde(with = "hex::bytes")]
    pub bytes: Vec<u8>,
    /// Index in `bytes` of the first byte of the trapping instruction (`<0f>`, `(e7f001f2)`).
    pub trap: Option<usize>,
    /// Bytes that one printed group has: 1 on x86, 4 on arm64, 2 or 4 on arm.
    pub unit: u8,
    /// Where the line stands.
    pub span: Span,
}

/// What a trace shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TraceKind {
    /// The stack of the CPU or task that the crash is about.
    #[default]
    Call,
    /// Where memory was allocated.
    Allocated,
    /// Where memory was freed.
    Freed,
    /// Where an uninitialised value was stored or created (KMSAN).
    Origin,
    /// Where a lock was taken or a dependency was recorded (lockdep).
    Lock,
    /// One side of a data race (KCSAN).
    Race,
    /// The stack of another task or CPU.
    Other,
}

/// Which stack a frame was found on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StackContext {
    /// The dump does not say.
    #[default]
    Unknown,
    /// `<TASK>`.
    Task,
    /// `<IRQ>`.
    Irq,
    /// `<SOFTIRQ>`.
    SoftIrq,
    /// `<NMI>`.
    Nmi,
    /// `<#DF>`, `<#DB>`, `<#MC>`, `<EOE>`, `<ENTRY_TRAMPOLINE>`: another exception stack.
    Exception,
}

/// One frame of a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// Where.
    #[serde(flatten)]
    pub place: CodePlace,
    /// False for `?` frames: an address on the stack that the unwinder does not vouch for.
    pub reliable: bool,
    /// A function that was inlined into the next frame (symbolised dumps only).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
    /// Which stack.
    pub context: StackContext,
    /// Where the line stands.
    pub span: Span,
}

/// One call trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// What it shows.
    pub kind: TraceKind,
    /// Its heading: `Call Trace:`, `Allocated by task 123:`.
    pub label: String,
    /// The frames, innermost first.
    pub frames: Vec<Frame>,
    /// Registers at exception boundaries, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boundaries: Vec<Boundary>,
    /// From the heading to the last line.
    pub span: Span,
}

/// The registers of the code that an exception interrupted, printed inside a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Boundary {
    /// Number of frames that stand before it in the trace.
    pub after_frames: usize,
    /// The interrupted state.
    pub state: MachineState,
}

/// Which part of a checker's report it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DetailKind {
    /// `Read of size 8 at addr ... by task ...`: `access`, `size`, `address`, `task`.
    MemoryAccess,
    /// `The buggy address belongs to the object at ...`: `object`, `cache`, `cache_size`, `offset`.
    MemoryObject,
    /// The shadow bytes around the address.
    Shadow,
    /// The page that the address belongs to.
    Page,
    /// A data race: `access`, `address`, `size`, `task`, `cpu` of one side; `old` and `new` value.
    Race,
    /// A chain of lock dependencies, or the locks that are involved.
    LockChain,
    /// `... locks held by ...`.
    LocksHeld,
    /// One line of an RCU stall: `cpu`, `ticks`, `detected_by`, `jiffies`, `grace_period`.
    RcuStall,
    /// A hung task: `task`, `pid`, `seconds`.
    HungTask,
    /// A lockup: `cpu`, `seconds`, `task`.
    Lockup,
    /// The line behind a UBSAN headline, and where: `file`, `line`.
    UndefinedBehaviour,
    /// Where a warning or a BUG stands in the source: `file`, `line`.
    Place,
    /// An address that could not be accessed: `address`, `error_code`, `access`, `esr`.
    Fault,
    /// `PGD ... P4D ...`, or the page table walk of another architecture.
    PageTable,
    /// The panic's text: `reason`.
    Panic,
    /// Something else that has a name.
    #[default]
    Other,
}

/// One part of what a checker reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// Which part.
    pub kind: DetailKind,
    /// Values by name, as printed; the names are listed at [`DetailKind`].
    pub values: BTreeMap<String, String>,
    /// The lines themselves, without prefixes.
    pub lines: Vec<String>,
    /// Where they stand.
    pub span: Span,
}

/// What a log tells about one boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootFacts {
    /// Kernel release: `4.14.0-1-iniza-llvmlinux`.
    pub release: Option<String>,
    /// The whole `Linux version ...` line.
    pub banner: Option<Passage>,
    /// `clang` or `gcc`, where the banner says so.
    pub compiler: Option<String>,
    /// Version of the compiler.
    pub compiler_version: Option<String>,
    /// Build: `#1 SMP Tue Apr 24 12:42:21 CEST 2018`.
    pub build: Option<String>,
    /// The kernel's command line.
    pub command_line: Option<String>,
    /// `Memory: available/total`, in KiB.
    pub memory_available_kib: Option<u64>,
    /// See `memory_available_kib`.
    pub memory_total_kib: Option<u64>,
    /// `DMI:` or the machine model.
    pub hardware: Option<String>,
    /// `Hypervisor detected:`.
    pub hypervisor: Option<String>,
    /// CPUs that were brought up, where the log says so.
    pub cpus: Option<u32>,
    /// CPUs that the kernel allows.
    pub cpus_allowed: Option<u32>,
    /// Initcalls that began (`initcall_debug`), and the last of them.
    pub initcalls: u32,
    /// An initcall that began and did not return.
    pub initcall_pending: Option<String>,
    /// The furthest phase for which there is proof.
    pub phase: Phase,
    /// The last line of the kernel.
    pub last_line: Option<Passage>,
    /// How often a mailer quoted it.
    pub quote_depth: u32,
    /// From the first to the last line.
    pub span: Span,
}

/// A disassembly by objdump or gdb, found in the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listing {
    /// The function, where the text names it (`<irq_work_tick>:` or `void irq_work_tick(void)`).
    pub function: Option<String>,
    /// The instructions in order of the text. Lines of source between them are left out.
    pub instructions: Vec<ListedInstruction>,
    /// How often a mailer quoted it.
    pub quote_depth: u32,
    /// From the first to the last instruction.
    pub span: Span,
}

/// One line of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedInstruction {
    /// Address.
    #[serde(with = "hex::number")]
    pub address: u64,
    /// Its bytes, those of continuation lines included.
    #[serde(with = "hex::bytes")]
    pub bytes: Vec<u8>,
    /// Its text as printed: `cmpq $0x0,(%rcx)`. Empty for a line of bytes alone.
    pub text: String,
    /// Where the line stands.
    pub span: Span,
}
