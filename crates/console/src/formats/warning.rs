//! Headlines with `WARNING:` and the deadlock reports of lockdep. Sources: lib/bug.c, kernel/panic.c,
//! kernel/locking/lockdep.c, kernel/rcu/update.c, arch/x86/kernel/unwind_frame.c.

use kolumbo_case::HeadlineKind::{Lockdep, Warning};

use super::{Format, Group, IN_TRACE, NAMED_OR_TRACE, NO_WAY, Recipe, Step, TRACE, Take};

/// The registers of newer kernels name the place. Up to v4.19, where a panic follows at once, they
/// stand in the middle of its stack, and what is below them is who warned. Older ones print the stack alone.
macro_rules! warned {
    ($name:ident $(, $skip:literal)*) => {
        pub(super) static $name: Recipe = Recipe {
            ways: &[
                &[Step::Pc, Step::Frames],
                &[Step::After(TRACE), Step::Frames],
            ],
            skip: &[$($skip),*],
            take: Take::First,
        };
    };
}

warned!(WARNED);
// Everything that frees memory or stops a timer or a work asks the debugger first.
warned!(
    OBJECT_DEBUGGED,
    "debug_",
    "rcu",
    "hrtimer_",
    "timer_",
    "work_",
    "percpu_",
    "vunmap",
    "vfree",
    "kfree",
    "free_obj",
    "__free_",
    "free_pages",
    "free_unref"
);
warned!(KOBJECT, "kobject_", "^device_", "dev_set_name");
warned!(PROC_REGISTERED, "proc_");
warned!(COUNTED, "refcount_", "kobject_", "kref_");
warned!(LOCKED, "lock_sock", "release_sock", "^lock_", "^check_", "^hlock_", "^__might");
warned!(
    ALLOCATED,
    "alloc_large",
    "kmalloc",
    "kcalloc",
    "kzalloc",
    "krealloc",
    "vmalloc",
    "slab",
    "kmem",
    "^strndup_user",
    "^__alloc_"
);
warned!(
    SUBMITTED,
    "usb_submit_urb",
    "usb_start_wait_urb",
    "usb_bulk_msg",
    "usb_interrupt_msg",
    "usb_control_msg"
);
warned!(COPIED, "usercopy", "^__check", "^copyout", "^copyin");

/// Lines of others may stand between those of a report that has no callers.
const BELOW: usize = 400;

/// What lockdep says below its headlines (kernel/locking/lockdep.c): who takes, releases or keeps a
/// lock, and where.
pub(super) const TO_ACQUIRE_LOCK: &[(&str, usize)] =
    &[("is trying to acquire lock", BELOW), ("at: ", BELOW)];
pub(super) const TO_ACQUIRE: &[(&str, usize)] = &[("is trying to acquire", BELOW), ("at: ", BELOW)];
pub(super) const CHANGED: &[(&str, usize)] =
    &[("just changed the state of lock", BELOW), ("at: ", BELOW)];
pub(super) const TAKES: &[(&str, usize)] = &[("takes", BELOW), ("at: ", BELOW)];
pub(super) const TO_RELEASE: &[(&str, usize)] = &[("is trying to release lock", 15), ("", 15)];
pub(super) const STILL_HELD: &[(&str, usize)] = &[("at: ", BELOW)];
pub(super) const LEAVES_WITH: &[(&str, usize)] =
    &[("leaving the kernel with locks still held", BELOW), ("at: ", BELOW)];

static WARNING: &[Format] = &[
    Format::new(
        Warning,
        r"WARNING: .*lib/debugobjects\.c.*",
        "WARNING: ODEBUG bug in {frame}",
        &OBJECT_DEBUGGED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*mm/usercopy\.c.*",
        "WARNING: bad usercopy in {frame}",
        &COPIED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*lib/kobject\.c.*",
        "WARNING: kobject bug in {frame}",
        &KOBJECT,
    ),
    Format::new(
        Warning,
        r"WARNING: .*fs/proc/generic\.c.*proc_register",
        "WARNING: proc registration bug in {frame}",
        &PROC_REGISTERED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*lib/refcount\.c.*",
        "WARNING: refcount bug in {frame}",
        &COUNTED,
    ),
    Format::new(
        Lockdep,
        r"WARNING: .*kernel/locking/lockdep\.c.*lock_",
        "WARNING: locking bug in {frame}",
        &LOCKED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*mm/vmalloc\.c.*__vmalloc_node_range",
        "WARNING: zero-size vmalloc in {frame}",
        &ALLOCATED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*mm/[^ ]*\.c:\d+ (?:at )?k.?.?malloc",
        "WARNING: kmalloc bug in {frame}",
        &ALLOCATED,
    ),
    Format::new(
        Warning,
        r"WARNING: .* usb_submit_urb",
        "WARNING in {frame}/usb_submit_urb",
        &SUBMITTED,
    ),
    Format::new(Warning, r"WARNING: .*(?:CPU|cpu).* at {src}", "WARNING in {frame}", &WARNED),
    // CONFIG_DEBUG_BUGVERBOSE_DETAILED puts the condition before the place.
    Format::new(Warning, r"WARNING: (?:\[.*\] )?{src} at {fn}", "WARNING in {frame}", &WARNED),
    Format::new(Warning, r"WARNING: at {src}", "WARNING in {frame}", &WARNED),
    // Without CONFIG_DEBUG_BUGVERBOSE, and where clang's CFI warns, no file is known.
    Format::new(
        Warning,
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at {fn}\+0x",
        "WARNING in {frame}",
        &WARNED,
    ),
    Format::new(
        Lockdep,
        r"WARNING: possible circular locking dependency detected",
        "possible deadlock in {frame}",
        &TAKEN_TWICE,
    ).behind(TO_ACQUIRE_LOCK),
    Format::new(
        Lockdep,
        r"WARNING: possible irq lock inversion dependency detected",
        "possible deadlock in {frame}",
        &TAKEN_TWICE,
    ).behind(CHANGED),
    Format::new(
        Lockdep,
        r"WARNING: .*-> .*lock order detected",
        "possible deadlock in {frame}",
        &LOCK_ORDER,
    ).behind(TO_ACQUIRE),
    Format::new(
        Lockdep,
        r"WARNING: possible recursive locking detected",
        "possible deadlock in {frame}",
        &TAKEN_TWICE,
    ).behind(TO_ACQUIRE_LOCK),
    Format::new(
        Lockdep,
        r"WARNING: inconsistent lock state",
        "inconsistent lock state in {frame}",
        &TAKEN,
    ).behind(TAKES),
    Format::new(
        Lockdep,
        r"WARNING: suspicious RCU usage.*\n(?s:.*?){src}",
        "WARNING: suspicious RCU usage in {frame}",
        &RCU_USED,
    ),

    Format::new(
        Warning,
        r"WARNING: kernel stack regs at +[^ ]+ in [^ ]* has bad '\w+' value",
        "WARNING: kernel stack regs has bad value",
        &IN_TRACE,
    )
    .plain_title()
    .stackless(),
    Format::new(
        Warning,
        r"WARNING: kernel stack frame pointer at +[^ ]+ in [^ ]* has bad value",
        "WARNING: kernel stack frame pointer has bad value",
        &IN_TRACE,
    )
    .plain_title()
    .stackless(),
    Format::new(
        Lockdep,
        r"WARNING: bad unlock balance detected!",
        "WARNING: bad unlock balance in {frame}",
        &RELEASED,
    )
    .behind(TO_RELEASE),
    Format::new(
        Lockdep,
        r"WARNING: bad unlock balance detected!",
        "WARNING: bad unlock balance in {frame}",
        &NO_WAY,
    ),
    Format::new(
        Lockdep,
        r"WARNING: held lock freed!",
        "WARNING: held lock freed in {frame}",
        &NAMED_OR_TRACE,
    )
    .behind(STILL_HELD),
    Format::new(
        Lockdep,
        r"WARNING: held lock freed!",
        "WARNING: held lock freed in {frame}",
        &NO_WAY,
    ),
    Format::new(
        Lockdep,
        r"WARNING: [Nn]ested lock was not taken",
        "WARNING: nested lock was not taken in {frame}",
        &IN_TRACE,
    ),
    Format::new(
        Lockdep,
        r"WARNING: lock held when returning to user space!",
        "WARNING: lock held when returning to user space in {frame}",
        &NO_WAY,
    )
    .behind(LEAVES_WITH)
    .capture(1)
    .stackless(),
    Format::new(
        Lockdep,
        r"WARNING: .*still has locks held!",
        "WARNING: still has locks held in {frame}",
        &NAMED_OR_TRACE,
    )
    .behind(STILL_HELD),
    Format::new(
        Lockdep,
        r"WARNING: .*still has locks held!",
        "WARNING: still has locks held in {frame}",
        &IN_TRACE,
    ),
    Format::plain(Lockdep, r"WARNING: (suspicious RCU usage|possible circular locking dependency detected|possible recursive locking detected|possible irq lock inversion dependency detected|.*-> .*lock order detected|inconsistent lock state|lock held when returning to user space!)\s*\n", "WARNING: {1}").corrupted(),
    Format::plain(Warning, r"WARNING:\s*(?:\n|$)", "WARNING: corrupted").corrupted(),
    Format::plain(Warning, r"WARNING: (.*)", "WARNING: {1}").stackless(),
];

/// lockdep names who takes each of the locks; the first that is no helper of locking is guilty. Two locks,
/// at most: those of the report, not those that the task holds besides.
static TAKEN_TWICE: Recipe = Recipe {
    ways: &[&[Step::Held, Step::Held, Step::After(TRACE), Step::Frames]],
    skip: &[],
    take: Take::First,
};

/// One lock, taken in a context in which it must not be.
static TAKEN: Recipe = Recipe {
    ways: &[&[Step::Held, Step::After(TRACE), Step::Frames]],
    skip: &[],
    take: Take::First,
};

/// Two contexts take two locks in a different order: the one that made a lock safe is named.
static LOCK_ORDER: Recipe = Recipe {
    ways: &[&[Step::After(&["... which became"]), Step::Frames], &[Step::Capture(1)]],
    skip: &[],
    take: Take::First,
};

pub(super) static RCU_USED: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: &["rcu", "kmem", "slab", "kmalloc", "vmalloc", "kcalloc", "kzalloc", "___might_sleep"],
    take: Take::First,
};

pub(super) static RELEASED: Recipe = Recipe {
    ways: &[&[Step::Capture(1), Step::After(TRACE), Step::Frames]],
    skip: &[],
    take: Take::First,
};

pub(super) static GROUPS: &[Group] = &[Group {
    literal: "WARNING:",
    formats: WARNING,
    // Of file systems, of ssh and of drivers that warn without a trace.
    not: &[
        r"[a-zA-Z0-9_]+ \([^)]*\): WARNING: ",
        r"^[A-Z][A-Za-z0-9 ]+: WARNING: ",
        r"WARNING: /etc/ssh/moduli",
        r"WARNING: workqueue cpumask",
        r"WARNING: Unsupported flag value",
        r"WARNING: [Tt]he mand mount option",
        r"(?i)wireless extensions which will stop",
        r"WARNING: Reset corrupted AGFL",
        r"WARNING: Unprivileged eBPF is enabled",
        r"WARNING: fbcon: Driver",
        r"WARNING: See https?:",
        r"WARNING: kernel not configured for semaphores",
    ],
}];

impl Format {
    /// The title stands alone although a trace follows.
    pub(super) const fn plain_title(mut self) -> Self {
        self.guilty = super::Guilty::None;
        self
    }
}
