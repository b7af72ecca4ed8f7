//! Headlines with `WARNING:` and the deadlock reports of lockdep. Sources: lib/bug.c, kernel/panic.c,
//! kernel/locking/lockdep.c, kernel/rcu/update.c, arch/x86/kernel/unwind_frame.c.

use kolumbo_case::HeadlineKind::{Lockdep, Warning};

use super::{Format, Group, IN_TRACE, NAMED_OR_TRACE, Recipe, Step, TRACE};

/// What `WARN_ON` puts between the caller and the dump.
const WARN_MACHINERY: &[&str] = &[
    "^__warn",
    "^warn_slowpath",
    "^report_bug",
    "^fixup_bug",
    "^do_error_trap",
    "^do_invalid_op",
    "^invalid_op",
    "^handle_bug",
    "^exc_invalid_op",
    "^asm_exc_invalid_op",
    "^bug_handler",
    "^call_break_hook",
    "^brk_handler",
    "^do_debug_exception",
    "^el1_dbg",
    "^el1_brk",
    "^el1h_64_sync",
    "^do_el1_brk",
    "^program_check",
    "^do_trap",
];

static WARNED: Recipe = Recipe {
    ways: &[&[Step::Pc, Step::After(TRACE), Step::Frames], &[Step::After(TRACE), Step::Frames]],
    skip: WARN_MACHINERY,
};

macro_rules! warned_above {
    ($name:ident, $($skip:literal),*) => {
        pub(super) static $name: Recipe = Recipe {
            ways: &[&[Step::Pc, Step::After(TRACE), Step::Frames], &[Step::After(TRACE), Step::Frames]],
            skip: &[$($skip,)* "^__warn", "^warn_slowpath", "^report_bug", "^fixup_bug", "^do_error_trap", "^do_invalid_op",
                "^invalid_op", "^handle_bug", "^exc_invalid_op", "^asm_exc_invalid_op", "^bug_handler", "^call_break_hook",
                "^brk_handler", "^do_debug_exception", "^el1_dbg", "^el1h_64_sync", "^do_trap"],
        };
    };
}

warned_above!(
    OBJECT_DEBUGGED,
    "^debug_",
    "^__debug_",
    "^free_obj_work",
    "^slab_free",
    "^kfree",
    "^kvfree",
    "^kmem_cache_free",
    "^vfree",
    "^__vunmap",
    "^free_pages",
    "^__free_pages",
    "^free_unref",
    "^__init_work",
    "^del_timer",
    "^try_to_del"
);
warned_above!(KOBJECT, "^kobject_", "^device_", "^dev_set_name");
warned_above!(PROC_REGISTERED, "^proc_");
warned_above!(
    COUNTED,
    "^refcount_",
    "^kobject_",
    "^kref_",
    "^get_device",
    "^put_device",
    "^__refcount"
);
warned_above!(
    LOCKED,
    "^lock_",
    "^__lock",
    "^down_",
    "^up_",
    "^_raw_",
    "^mutex_",
    "^__mutex",
    "^debug_",
    "^register_lock_class",
    "^look_up_lock_class",
    "^hlock_class",
    "^check_",
    "^validate_chain",
    "^mark_",
    "^lockdep_",
    "^lock_sock",
    "^_lock_sock",
    "^release_sock",
    "^lock_sock",
    "^__might"
);
warned_above!(
    ALLOCATED,
    "^kmalloc",
    "^__kmalloc",
    "^krealloc",
    "^kvmalloc",
    "^__kvmalloc",
    "^kcalloc",
    "^kzalloc",
    "^memdup_user",
    "^__do_kmalloc",
    "^__alloc_pages",
    "^alloc_pages",
    "^kmemdup",
    "^strndup_user",
    "^vmemdup_user",
    "^__get_free",
    "^get_zeroed",
    "^kmalloc_order",
    "^sock_kmalloc"
);
warned_above!(VMALLOCED, "^vmalloc", "^__vmalloc", "^vzalloc", "^kvmalloc");
warned_above!(
    SUBMITTED,
    "^usb_submit_urb",
    "^usb_start_wait_urb",
    "^usb_bulk_msg",
    "^usb_interrupt_msg",
    "^usb_control_msg"
);
warned_above!(COPIED, "^usercopy", "^__check", "^check_", "^__copy", "^_copy", "^copy_");

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
        r"WARNING: .*kernel/locking/lockdep\.c.*",
        "WARNING: locking bug in {frame}",
        &LOCKED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*mm/slab_common\.c.*kmalloc_slab",
        "WARNING: kmalloc bug in {frame}",
        &ALLOCATED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*mm/.*\.c.*(?:kvmalloc_node|kmalloc_large)",
        "WARNING: kmalloc bug in {frame}",
        &ALLOCATED,
    ),
    Format::new(
        Warning,
        r"WARNING: .*mm/vmalloc\.c.*__vmalloc_node_range",
        "WARNING: zero-size vmalloc in {frame}",
        &VMALLOCED,
    ),
    Format::new(
        Warning,
        r"WARNING: .* usb_submit_urb",
        "WARNING in {frame}/usb_submit_urb",
        &SUBMITTED,
    ),
    Format::new(Warning, r"WARNING: .*(?:CPU|cpu).* at {src}", "WARNING in {frame}", &WARNED),
    Format::new(Warning, r"WARNING: {src} at {fn}", "WARNING in {frame}", &WARNED),
    Format::new(Warning, r"WARNING: at {src}", "WARNING in {frame}", &WARNED),
    Format::new(
        Lockdep,
        r"WARNING: possible circular locking dependency detected(?:.*\n){0,30}?.*is trying to acquire lock(?:.*\n){0,10}?.*at: (?:\[<.*?>\] +)?{fn}",
        "possible deadlock in {frame}",
        &DEADLOCK,
    ),
    Format::new(
        Lockdep,
        r"WARNING: possible irq lock inversion dependency detected(?:.*\n){0,30}?.*just changed the state of lock(?:.*\n){0,10}?.*at: (?:\[<.*?>\] +)?{fn}",
        "possible deadlock in {frame}",
        &DEADLOCK,
    ),
    Format::new(
        Lockdep,
        r"WARNING: .*-> .*lock order detected(?:.*\n){0,30}?.*is trying to acquire(?:.*\n){0,10}?.*at: (?:\[<.*?>\] +)?{fn}",
        "possible deadlock in {frame}",
        &LOCK_ORDER,
    ),
    Format::new(
        Lockdep,
        r"WARNING: possible recursive locking detected(?:.*\n){0,30}?.*is trying to acquire lock(?:.*\n){0,10}?.*at: (?:\[<.*?>\] +)?{fn}",
        "possible deadlock in {frame}",
        &DEADLOCK,
    ),
    Format::new(
        Lockdep,
        r"WARNING: inconsistent lock state(?:.*\n){0,30}?.*takes(?:.*\n){0,10}?.*at: (?:\[<.*?>\] +)?{fn}",
        "inconsistent lock state in {frame}",
        &DEADLOCK,
    ),
    Format::new(
        Lockdep,
        r"WARNING: suspicious RCU usage\n.*\n-+\n.*{src}",
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
        r"WARNING: bad unlock balance detected!(?:.*\n){0,15}?.*is trying to release lock(?:.*\n){0,5}?(?:\[<.*>\] )?{fn}\+0x",
        "WARNING: bad unlock balance in {frame}",
        &RELEASED,
    ),
    Format::new(
        Lockdep,
        r"WARNING: held lock freed!(?:.*\n){0,15}?.*at: (?:\[<.*?>\] +)?{fn}",
        "WARNING: held lock freed in {frame}",
        &NAMED_OR_TRACE,
    ),
    Format::new(
        Lockdep,
        r"WARNING: [Nn]ested lock was not taken",
        "WARNING: nested lock was not taken in {frame}",
        &IN_TRACE,
    ),
    Format::plain(
        Lockdep,
        r"WARNING: lock held when returning to user space!",
        "WARNING: lock held when returning to user space",
    )
    .stackless(),
    Format::new(
        Lockdep,
        r"WARNING: .*still has locks held!",
        "WARNING: still has locks held in {frame}",
        &IN_TRACE,
    ),
    Format::plain(Lockdep, r"WARNING: (suspicious RCU usage|possible circular locking dependency detected|possible recursive locking detected|possible irq lock inversion dependency detected|inconsistent lock state|bad unlock balance detected!|held lock freed!)\s*\n", "WARNING: {1}").corrupted(),
    Format::plain(Warning, r"WARNING: (.*)", "WARNING: {1}").stackless(),
];

/// lockdep names the place itself; locking helpers between are skipped by the general table.
pub(super) static DEADLOCK: Recipe = Recipe {
    ways: &[&[Step::Capture(1), Step::After(TRACE), Step::Frames]],
    skip: &[
        "^lock_",
        "^__lock",
        "^down_",
        "^_raw_",
        "^mutex_",
        "^__mutex",
        "^print_",
        "^check_",
        "^validate_chain",
        "^mark_",
        "^lockdep_",
        "^rwsem_",
        "^percpu_",
    ],
};

/// Two contexts take two locks in a different order: the one that made a lock safe is named.
pub(super) static LOCK_ORDER: Recipe = Recipe {
    ways: &[&[Step::After(&["... which became"]), Step::Frames], &[Step::Capture(1)]],
    skip: &[],
};

pub(super) static RCU_USED: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: &["^rcu_", "^lockdep_rcu", "^___might_sleep", "^__might_"],
};

pub(super) static RELEASED: Recipe = Recipe {
    ways: &[&[Step::Capture(1), Step::After(TRACE), Step::Frames]],
    skip: &[
        "^lock_",
        "^__lock",
        "^up_",
        "^_raw_",
        "^mutex_",
        "^__mutex",
        "^print_",
        "^check_",
        "^lockdep_",
    ],
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
        r"WARNING: bad unlock balance detected!\s*\]",
    ],
}];

impl Format {
    /// The title stands alone although a trace follows.
    pub(super) const fn plain_title(mut self) -> Self {
        self.guilty = super::Guilty::None;
        self
    }
}
