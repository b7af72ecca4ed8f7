//! Headlines of traps and panics, by architecture and in general. Sources: arch/*/kernel/traps.c,
//! arch/*/mm/fault.c, kernel/panic.c, lib/ubsan.c.

use kolumbo_case::HeadlineKind::{Corruption, MachineCheck, Oops, Other, Panic, Trap, Ubsan};

use super::{AT_PC, Format, Group, IN_TRACE, Recipe, Step, TRACE, Take};

const BAD_ACCESS: &[&str] = &["bad-access in {frame}"];

static FAULT: &[Format] = &[
    Format::new(
        Oops,
        r"Unable to handle kernel (paging request|NULL pointer dereference|access to user memory|pointer dereference)",
        "BUG: unable to handle kernel {1} in {frame}",
        &AT_PC,
    )
    .alts(BAD_ACCESS),
    Format::new(
        Oops,
        // arch/arm64/mm/fault.c: also what may not be read, written or executed.
        r"Unable to handle kernel ([a-z \-]+) at",
        "BUG: unable to handle kernel {1} in {frame}",
        &AT_PC,
    )
    .alts(BAD_ACCESS),
];

static GPF: &[Format] = &[Format::new(
    Oops,
    r"general protection fault",
    "general protection fault in {frame}",
    &AT_PC,
)
.alts(BAD_ACCESS)];

static STACK_CHECKED: Recipe = Recipe {
    ways: &[&[Step::Capture(1), Step::After(TRACE), Step::Frames]],
    skip: &[],
    take: Take::First,
};

static STACK_END: Recipe =
    Recipe { ways: &[&[Step::After(TRACE), Step::Frames]], skip: &[], take: Take::Entry };

static PANIC: &[Format] = &[
    Format::plain(
        Panic,
        r"Kernel panic - not syncing: Attempted to kill init!",
        "kernel panic: Attempted to kill init!",
    ),
    Format::plain(
        Panic,
        r"Kernel panic - not syncing: Couldn't open N_TTY ldisc for [^ ]+ --- error",
        "kernel panic: Couldn't open N_TTY ldisc",
    ),
    Format::new(
        Panic,
        r"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: *(?:\[?<?[0-9a-f]{8,16}>?\]? *)?{fn}?",
        "kernel panic: stack is corrupted in {frame}",
        &STACK_CHECKED,
    ).stackless(),
    Format::new(
        Panic,
        r"Kernel panic - not syncing: corrupted stack end detected inside scheduler",
        "kernel panic: corrupted stack end in {frame}",
        &STACK_END,
    )
    .alts(&["stack-overflow in {frame}"]),
    // These follow another report, which is lost when they come first.
    Format::plain(
        Panic,
        r"Kernel panic - not syncing: (Fatal exception|panic_on_warn set|hung_task: blocked tasks)",
        "kernel panic: {1}",
    )
    .corrupted(),
    Format::plain(Panic, r"Kernel panic - not syncing: (.*?)\s*$", "kernel panic: {1}"),
    Format::plain(Panic, r"Kernel panic - not syncing:? ?(.*)", "kernel panic: {1}"),
];

static UBSAN: &[Format] = &[
    Format::new(
        Ubsan,
        r"UBSAN: Undefined behaviour in",
        "UBSAN: undefined-behaviour in {frame}",
        &UNDEFINED,
    ),
    Format::new(
        Ubsan,
        r"UBSAN: (array-index-out-of-bounds) in",
        "UBSAN: {1} in {frame}",
        &UNDEFINED,
    )
    .alts(BAD_ACCESS),
    Format::new(Ubsan, r"UBSAN: ([a-z\-]+) in", "UBSAN: {1} in {frame}", &UNDEFINED),
];

static UNDEFINED: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: &[
        "^ubsan",
        "^__ubsan",
        "^handle_overflow",
        "^handle_misaligned",
        "^handle_null_ptr",
        "^handle_object_size",
        "^val_to_string",
        "^__overflow",
    ],
    take: Take::First,
};

static DOUBLE_FAULT: &[Format] =
    &[Format::new(Oops, r"PANIC: double fault", "PANIC: double fault in {frame}", &AT_PC)];
static DOUBLE_FAULT_COUNTED: &[Format] =
    &[Format::new(Oops, r"double fault: .*\[#", "double fault in {frame}", &AT_PC)];
static EARLY: &[Format] =
    &[Format::plain(Panic, r"PANIC: early exception (0x[0-9a-f]+)", "PANIC: early exception {1}")
        .stackless()];
static DECOMPRESSOR: &[Format] =
    &[Format::plain(Panic, r"-- System halted", "decompressor: System halted").stackless()];
static INTERNAL: &[Format] =
    &[Format::new(Oops, r"Internal error:", "Internal error in {frame}", &AT_PC).alts(BAD_ACCESS)];
static UNHANDLED: &[Format] =
    &[Format::new(Oops, r"Unhandled fault:", "Unhandled fault in {frame}", &AT_PC)
        .alts(BAD_ACCESS)];
static ALIGNMENT: &[Format] =
    &[Format::new(Oops, r"Alignment trap:", "Alignment trap in {frame}", &AT_PC)];

macro_rules! trap {
    ($name:ident, $pattern:literal, $title:literal) => {
        static $name: &[Format] = &[Format::new(Trap, $pattern, $title, &AT_PC)];
    };
}

// v5.8 spelled its name like that of the handler (arch/x86/kernel/traps.c).
trap!(DIVIDE, r"divide[ _]error: ", "divide error in {frame}");
trap!(OPCODE, r"invalid opcode: ", "invalid opcode in {frame}");
trap!(BREAKPOINT, r"int3: ", "int3 in {frame}");
trap!(SEGMENT, r"stack segment: ", "stack segment fault in {frame}");
trap!(PRESENT, r"segment not present: ", "segment not present in {frame}");
trap!(TSS, r"invalid TSS: ", "invalid TSS in {frame}");
trap!(ALIGN, r"alignment check: ", "alignment check in {frame}");
trap!(CONTROL, r"control protection fault", "control protection fault in {frame}");
trap!(OOPS, r"Oops: .*\[#", "Oops in {frame}");

static REBOOT: &[Format] =
    &[Format::plain(Other, r"Booting the kernel", "unexpected kernel reboot").stackless()];

// The secure world's console comes through the kernel's, which may cut it: who called is captured so
// that the mark of another message within it is seen.
static TRUSTY: &[Format] = &[
    Format::plain(
        Panic,
        r"panic \(caller ([^)]*)\): (?:DEBUG )?(ASSERT FAILED) at \([^)]*\): ?(.*)",
        "trusty: {2}: {3}",
    )
    .stackless(),
    Format::plain(Panic, r"panic \(caller ([^)]*)\): (.*)", "trusty: panic: {2}").stackless(),
];

static FUZZER_FAILED: &[Format] =
    &[Format::plain(Other, r"SYZFAIL: (.*)", "SYZFAIL: {1}").stackless()];
static FUZZER_DIED: &[Format] =
    &[Format::plain(Other, r"SYZFATAL: (.*)", "SYZFATAL: {1}").alts(&["SYZFATAL"]).stackless()];

static GO: &[Format] =
    &[Format::plain(Other, r"goroutine \d+ \[running\]", "go runtime error").stackless()];

// The Go runtime (runtime/panic.go): what it cannot go on from, and what nobody recovered from.
static GO_FATAL: &[Format] =
    &[Format::plain(Other, r"fatal error: ", "go runtime error").stackless()];
static GO_PANIC: &[Format] = &[Format::plain(Other, r"panic: (.*)", "panic: {1}").stackless()];

// fs/super.c, generic_shutdown_super(): the inodes are used behind their super block.
static BUSY_INODES: &[Format] = &[Format::plain(
    Corruption,
    r"VFS: Busy inodes after unmount",
    "VFS: Busy inodes after unmount (use-after-free)",
)
.stackless()];

// fs/open.c, filp_close(): a file is closed once more than it was opened.
static CLOSED_FILE: &[Format] = &[Format::plain(
    Corruption,
    r"VFS: Close: file count is 0",
    "VFS: Close: file count is zero (use-after-free)",
)
.stackless()];

// mm/slub.c, slab_bug().
static SLAB: &[Format] = &[Format::new(
    Corruption,
    r"BUG [-a-zA-Z0-9_:]+ \([^)]*\): (Object already free|(?:Left Redzone|Right Redzone|Redzone|Poison) overwritten)",
    "BUG: {1} in {frame}",
    &CHECKED_OBJECT,
)];

/// Whoever allocated or freed the object that is found damaged.
static CHECKED_OBJECT: Recipe = Recipe {
    ways: IN_TRACE.ways,
    skip: &[
        "^check_bytes",
        "^on_freelist",
        "^slab_bug",
        "^slab_err",
        "^slab_fix",
        "^slab_pad_check",
    ],
    take: Take::First,
};

static MCE: &[Format] =
    &[Format::plain(MachineCheck, r"mce: \[Hardware Error\]: CPU", "machine check").stackless()];

static OVERFLOW: &[Format] =
    &[Format::new(Oops, r"kernel stack overflow", "kernel stack overflow in {frame}", &IN_TRACE)
        .alts(&["stack-overflow in {frame}"])];

pub(super) static GROUPS: &[Group] = &[
    Group { literal: "Unable to handle kernel", formats: FAULT, not: &[] },
    Group {
        literal: "general protection fault",
        formats: GPF,
        not: &[
            r"general protection(?: fault)? ip:",
            r"traps: .* general protection",
            r"GPL|ip:[0-9a-f]+ sp:",
        ],
    },
    Group { literal: "Kernel panic", formats: PANIC, not: &[r"---\[ end Kernel panic"] },
    Group { literal: "PANIC: double fault", formats: DOUBLE_FAULT, not: &[] },
    Group { literal: "PANIC: early exception", formats: EARLY, not: &[] },
    Group { literal: "double fault: ", formats: DOUBLE_FAULT_COUNTED, not: &[] },
    Group { literal: "-- System halted", formats: DECOMPRESSOR, not: &[] },
    Group { literal: "UBSAN:", formats: UBSAN, not: &[] },
    Group { literal: "Internal error:", formats: INTERNAL, not: &[] },
    Group { literal: "Unhandled fault:", formats: UNHANDLED, not: &[] },
    Group { literal: "Alignment trap:", formats: ALIGNMENT, not: &[] },
    Group { literal: "divide error:", formats: DIVIDE, not: &[] },
    Group { literal: "divide_error: ", formats: DIVIDE, not: &[] },
    Group { literal: "invalid opcode:", formats: OPCODE, not: &[] },
    Group { literal: "int3: ", formats: BREAKPOINT, not: &[r"point3: "] },
    Group { literal: "stack segment: ", formats: SEGMENT, not: &[] },
    Group { literal: "segment not present: ", formats: PRESENT, not: &[] },
    Group { literal: "invalid TSS: ", formats: TSS, not: &[] },
    Group { literal: "alignment check: ", formats: ALIGN, not: &[] },
    Group { literal: "control protection fault", formats: CONTROL, not: &[] },
    Group { literal: "Oops: ", formats: OOPS, not: &[] },
    Group { literal: "Booting the kernel", formats: REBOOT, not: &[] },
    Group { literal: "panic (caller ", formats: TRUSTY, not: &[] },
    Group { literal: "SYZFAIL: ", formats: FUZZER_FAILED, not: &[] },
    Group { literal: "SYZFATAL: ", formats: FUZZER_DIED, not: &[] },
    Group { literal: "goroutine ", formats: GO, not: &[] },
    // Drivers of sound and of displays say the same in the middle of their lines.
    Group { literal: "fatal error: ", formats: GO_FATAL, not: &[r"\S.*fatal error: "] },
    Group { literal: "panic: ", formats: GO_PANIC, not: &[r"\S.*panic: "] },
    Group { literal: "VFS: Busy inodes after unmount", formats: BUSY_INODES, not: &[] },
    Group { literal: "VFS: Close: file count is 0", formats: CLOSED_FILE, not: &[] },
    Group { literal: "): Object already free", formats: SLAB, not: &[] },
    Group { literal: "edzone overwritten", formats: SLAB, not: &[] },
    Group { literal: "Poison overwritten", formats: SLAB, not: &[] },
    Group { literal: "mce: [Hardware Error]: CPU", formats: MCE, not: &[] },
    Group { literal: "kernel stack overflow", formats: OVERFLOW, not: &[] },
];
