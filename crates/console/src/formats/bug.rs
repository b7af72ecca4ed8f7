//! Headlines with `BUG:` and `kernel BUG`. Sources: mm/kasan/report.c, mm/kmsan/report.c,
//! kernel/kcsan/report.c, mm/kfence/report.c, arch/x86/mm/fault.c, kernel/locking/, mm/, kernel/watchdog.c.

use kolumbo_case::HeadlineKind::{
    BadPageState, Corruption, HungTask, Kasan, Kcsan, KernelBug, Kfence, Kmsan, Lockdep,
    MemoryLeak, Oops, Other, SchedulingWhileAtomic, SoftLockup, WorkqueueLockup,
};

use super::{AT_PC, Format, Group, IN_TRACE, NAMED_OR_TRACE, NO_WAY, Recipe, Step, TRACE, Take};
use crate::formats::info::{LOCKUP, USB_TRANSFERS};
use crate::formats::warning::{LEAVES_WITH, LOCKED, RELEASED, STILL_HELD, TO_RELEASE};

const BAD_ACCESS: &[&str] = &["bad-access in {frame}"];

/// KMSAN prints the stack right below the headline, without a heading; before it was merged (v6.1) it
/// had one. Ciphers and checksums read what they are given.
static NAMED_OR_BELOW: Recipe = Recipe {
    ways: &[&[Step::Capture(1), Step::Frames], &[Step::After(TRACE), Step::Frames]],
    skip: &[
        "^aes",
        "^crypto_",
        "^cipher_",
        "^drbg_",
        "^chacha",
        "^sha1_",
        "^sha256_",
        "^sha512_",
        "^md5_",
        "^rng_",
        "^gcmaes_",
        "^skcipher_",
        "^xts_",
        "^cbc_",
        "^ctr_",
        "^ecb_",
        "^blake2",
        "^poly1305",
        "^ghash",
        "^chksum_",
        "^shash_",
        "^ahash_",
        "^aead_",
        "^hmac_",
        "^cmac_",
        "^keccak",
        "^sha3_",
        "^sm3_",
        "^sm4_",
        "^md4_",
        "^des_",
        "^des3_",
        "^gf128mul",
        "^lrw_",
        "^cts_",
        "^essiv_",
        "^jent_",
        "netlink_ack",
        "netlink_rcv_skb",
    ],
    take: Take::First,
};

/// What leaks leaves through the helpers that copy to user space.
static NAMED_OR_BELOW_2: Recipe = Recipe {
    ways: &[&[Step::Capture(2), Step::Frames], &[Step::After(TRACE), Step::Frames]],
    skip: &["^copyout", "_to_iter", "copy_to_user", "^instrument_copy"],
    take: Take::First,
};

/// What leaks leaves through the transfers of the USB core.
static LEAKED_TO_USB: Recipe = Recipe {
    ways: &[&[Step::Capture(2), Step::Frames], &[Step::After(TRACE), Step::Frames]],
    skip: USB_TRANSFERS,
    take: Take::First,
};

static NAMED_OR_TRACE_2: Recipe = Recipe {
    ways: &[&[Step::Capture(2), Step::After(TRACE), Step::Frames]],
    skip: &[],
    take: Take::First,
};

/// The frame above the sleeping primitives: whoever slept or scheduled.
static WHO_SLEPT: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: &["schedule", "might_sleep", "might_resched"],
    take: Take::First,
};

/// The owner of a preemption bug is behind the checker.
static WHO_USED: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: &["preempt", "debug_smp_processor_id"],
    take: Take::First,
};

/// Whoever owns what leaked: above all that allocates an object for its caller.
static LEAKED: Recipe = Recipe {
    ways: &[&[Step::After(&["backtrace:", "backtrace ("]), Step::Frames]],
    skip: &[
        "kmemleak",
        "slab",
        "kmem",
        "alloc",
        "create_object",
        "idr_get",
        "list_lru_init",
        "kasprintf",
        "kvasprintf",
        "pcpu_create",
        "strdup",
        "strndup",
        "memdup",
        "debug_objects",
        "dev_set_name",
    ],
    take: Take::First,
};

static STACK_OVERFLOW: Recipe =
    Recipe { ways: &[&[Step::After(TRACE), Step::Frames]], skip: &[], take: Take::Entry };

static CORRUPTED_LIST: Recipe = Recipe {
    ways: &[&[Step::Pc, Step::After(TRACE), Step::Frames], &[Step::After(TRACE), Step::Frames]],
    skip: &["^__list_", "^list_"],
    take: Take::First,
};

/// mm/usercopy.c checks, and lib/iov_iter.c asks it to.
const CHECKED: &[&str] = &[
    "usercopy",
    "^__check",
    "^check_stack_object",
    "^check_heap_object",
    "^check_bogus_address",
    "^check_page_span",
    "^check_kernel_text_object",
    "^copyout",
    "^copyin",
];

static USERCOPY: Recipe =
    Recipe { ways: &[&[Step::After(TRACE), Step::Frames]], skip: CHECKED, take: Take::First };

static BUG: &[Format] = &[
    Format::new(Kasan, r"BUG: KASAN: (?:double-free or invalid-free|double-free|invalid-free) {in}{fn}", "KASAN: invalid-free in {frame}", &NAMED_OR_TRACE)
        .alts(&["invalid-free in {frame}"]),
    Format::new(Kasan, r"BUG: KASAN: ([a-z\-]+) {in}{fn}.*\n(?s:.*?)(Read|Write) (?:of size|at addr)", "KASAN: {1} {3} in {frame}", &NAMED_OR_TRACE_2)
        .alts(BAD_ACCESS),
    Format::new(Kasan, r"BUG: KASAN: ([a-z\-]+) on address (?s:.*?)(Read|Write) of size(?s:.*?)Call [Tt]race", "KASAN: {1} {2} in {frame}", &IN_TRACE)
        .alts(BAD_ACCESS),
    Format::plain(Kasan, r"BUG: KASAN: ([a-z\-]+) on address (?s:.*?)(Read|Write) (?:of size|at addr)", "KASAN: {1} {2}").corrupted(),
    Format::plain(Kasan, r"BUG: KASAN: (.*)", "KASAN: {1}").corrupted(),
    Format::new(Kmsan, r"BUG: KMSAN: (kernel-usb-infoleak) {in}{fn}", "KMSAN: {1} in {frame}", &LEAKED_TO_USB).alts(&["KMSAN origin in {origin}"]),
    Format::new(Kmsan, r"BUG: KMSAN: uninit-value {in}{fn}", "KMSAN: uninit-value in {frame}", &NAMED_OR_BELOW).alts(BAD_ACCESS),
    Format::new(Kmsan, r"BUG: KMSAN: ([a-z\-]+) {in}{fn}", "KMSAN: {1} in {frame}", &NAMED_OR_BELOW_2).alts(BAD_ACCESS),
    Format::plain(Kmsan, r"BUG: KMSAN: (.*)", "KMSAN: {1}").corrupted(),
    Format::plain(Kcsan, r"BUG: KCSAN: (data-race|assert: race) in {fn} / {fn}", "KCSAN: {1} in {2} / {3}").stackless(),
    Format::new(Kcsan, r"BUG: KCSAN: (data-race|assert: race) in {fn}", "KCSAN: {1} in {frame}", &NAMED_OR_TRACE_2).capture(2).stackless(),
    Format::plain(Kcsan, r"BUG: KCSAN: (.*)", "KCSAN: {1}").stackless(),
    Format::new(Kfence, r"BUG: KFENCE: ((?:use-after-free|out-of-bounds|invalid) (?:read|write)) {in}{fn}", "KFENCE: {1} in {frame}", &NAMED_OR_BELOW_2).alts(BAD_ACCESS),
    Format::new(Kfence, r"BUG: KFENCE: (invalid free) {in}{fn}", "KFENCE: {1} in {frame}", &NAMED_OR_BELOW_2).alts(&["invalid-free in {frame}"]),
    Format::new(Kfence, r"BUG: KFENCE: ([a-z \-]+) {in}{fn}", "KFENCE: {1} in {frame}", &NAMED_OR_BELOW_2),
    Format::plain(Kfence, r"BUG: KFENCE: (.*)", "KFENCE: {1}").corrupted(),
    Format::new(Oops, r"BUG: unable to handle (?:kernel paging request|page fault for address|kernel page fault)|BUG: Unable to handle kernel (?:data access|instruction fetch)", "BUG: unable to handle kernel paging request in {frame}", &AT_PC)
        .alts(BAD_ACCESS),
    Format::new(Oops, r"BUG: (?:unable to handle )?[kK]ernel NULL pointer dereference", "BUG: unable to handle kernel NULL pointer dereference in {frame}", &AT_PC)
        .alts(BAD_ACCESS),
    Format::plain(Oops, r"BUG: unable to handle kernel", "BUG: unable to handle kernel").corrupted().stackless(),
    // kernel/locking/spinlock_debug.c
    Format::new(Lockdep, r"BUG: (spinlock|rwlock) (lockup suspected|lockup|already unlocked|recursion|cpu recursion|bad magic|wrong owner|wrong CPU|trylock failure on UP)", "BUG: {1} {2} in {frame}", &IN_TRACE),
    Format::new(SoftLockup, r"BUG: soft lockup", "BUG: soft lockup in {frame}", &LOCKUP).alts(&["stall in {frame}"]),
    Format::new(Lockdep, r"BUG: .*still has locks held!", "BUG: still has locks held in {frame}", &NAMED_OR_TRACE).behind(STILL_HELD),
    Format::new(Lockdep, r"BUG: .*still has locks held!", "BUG: still has locks held in {frame}", &IN_TRACE),
    Format::new(Lockdep, r"BUG: bad unlock balance detected!", "BUG: bad unlock balance in {frame}", &RELEASED).behind(TO_RELEASE),
    Format::new(Lockdep, r"BUG: bad unlock balance detected!", "BUG: bad unlock balance in {frame}", &NO_WAY),
    Format::new(Lockdep, r"BUG: held lock freed!", "BUG: held lock freed in {frame}", &NAMED_OR_TRACE).behind(STILL_HELD),
    Format::new(Lockdep, r"BUG: held lock freed!", "BUG: held lock freed in {frame}", &NO_WAY),
    Format::new(Lockdep, r"BUG: lock held when returning to user space!", "BUG: lock held when returning to user space in {frame}", &NO_WAY).behind(LEAVES_WITH).capture(1).stackless(),
    Format::new(Lockdep, r"BUG: workqueue leaked (lock or atomic|atomic, lock or RCU)", "BUG: workqueue leaked {1} in {frame}", &NO_WAY).behind(&[("last function: ", 15)]).capture(2).stackless(),
    // Since v6.11 the name stands behind the counters.
    Format::new(Lockdep, r"BUG: workqueue leaked (lock or atomic|atomic, lock or RCU)", "BUG: workqueue leaked {1} in {frame}", &NO_WAY).behind(&[("workfn=", 15)]).capture(2).stackless(),
    Format::new(Lockdep, r"BUG: Invalid wait context", "WARNING: locking bug in {frame}", &LOCKED),
    Format::new(SchedulingWhileAtomic, r"BUG: scheduling while atomic", "BUG: scheduling while atomic in {frame}", &WHO_SLEPT),
    Format::new(SchedulingWhileAtomic, r"BUG: sleeping function called from invalid context", "BUG: sleeping function called from invalid context in {frame}", &WHO_SLEPT),
    Format::new(SchedulingWhileAtomic, r"BUG: using ([a-z_]+)\(\) in preemptible", "BUG: using {1}() in preemptible code in {frame}", &WHO_USED),
    Format::plain(BadPageState, r"BUG: Bad rss-counter state", "BUG: Bad rss-counter state").stackless(),
    Format::plain(BadPageState, r"BUG: non-zero nr_ptes on freeing mm", "BUG: non-zero nr_ptes on freeing mm").stackless(),
    Format::plain(BadPageState, r"BUG: non-zero nr_pmds on freeing mm", "BUG: non-zero nr_pmds on freeing mm").stackless(),
    Format::plain(BadPageState, r"BUG: non-zero pgtables_bytes on freeing mm", "BUG: non-zero pgtables_bytes on freeing mm").stackless(),
    Format::plain(BadPageState, r"BUG: Bad page map", "BUG: Bad page map"),
    Format::new(BadPageState, r"BUG: Bad page (state|cache)", "BUG: Bad page {1} in {frame}", &BAD_PAGE),
    Format::plain(Other, r"BUG: Dentry .* still in use \(\d+\) \[unmount of (.*)\]", "BUG: Dentry still in use [unmount of {1}]"),
    Format::plain(WorkqueueLockup, r"BUG: workqueue lockup", "BUG: workqueue lockup").stackless(),
    Format::new(Oops, r"BUG: (?:[#A-Z_0-9]+ )?stack guard page was hit", "BUG: stack guard page was hit in {frame}", &STACK_OVERFLOW).alts(&["stack-overflow in {frame}"]),
    Format::plain(Lockdep, r"BUG: (MAX_LOCKDEP_[A-Z_]+|MAX_STACK_TRACE_ENTRIES|MAX_LOCK_DEPTH) too low", "BUG: {1} too low!").stackless(),
    Format::new(MemoryLeak, r"BUG: memory leak", "memory leak in {frame}", &LEAKED),
    Format::plain(Other, r"BUG:\s*(?:\n|$)", "BUG: corrupted").corrupted(),
    // What should follow is missing.
    Format::plain(Lockdep, r"BUG: (lock held when returning to user space!)", "BUG: {1}").corrupted(),
    Format::plain(Other, r"BUG: (.*)", "BUG: {1}").stackless(),
];

static BAD_PAGE: Recipe = Recipe {
    ways: &[&[Step::After(TRACE), Step::Frames]],
    skip: &[
        "netif_receive_skb",
        "^bad_page",
        "^check_new_page",
        "^free_",
        "^__free_",
        "^get_page_from",
        "^page_",
        "^__page_",
        "^__alloc_pages",
        "^__folio",
        "^folio_",
        "put_page",
        "release_pages",
        "pagevec_",
        "compound_page",
        "^skb_free",
        "skb_reason",
        "^skb_release",
        "^kfree_skb",
        "page_cache",
        "^filemap_unaccount",
        "filemap_remove",
        "^consume_skb",
        "^rmqueue",
        "^prep_new",
    ],
    take: Take::First,
};

/// A panic of Rust ends in a `BUG()` of its own (rust/helpers/bug.c), behind the core library's
/// way there.
static ASSERTED: Recipe = Recipe {
    ways: AT_PC.ways,
    skip: &[
        "rust_helper_",
        "rust_begin_unwind",
        "^unwrap_failed$",
        "^expect_failed$",
        "_index_len_fail$",
        "_index_order_fail$",
    ],
    take: Take::First,
};

static KERNEL_BUG: &[Format] = &[
    Format::new(
        Corruption,
        r"(?:kernel|Kernel) BUG (?:at|\[verbose debug info unavailable\]).*lib/list_debug\.c",
        "BUG: corrupted list in {frame}",
        &CORRUPTED_LIST,
    )
    .alts(BAD_ACCESS),
    Format::new(
        KernelBug,
        r"(?:kernel|Kernel) BUG at mm/usercopy\.c",
        "BUG: bad usercopy in {frame}",
        &USERCOPY,
    ),
    Format::new(
        KernelBug,
        r"(?:kernel|Kernel) BUG (?:at|\[verbose)",
        "kernel BUG in {frame}",
        &ASSERTED,
    ),
];

static KMEMLEAK: &[Format] =
    &[Format::new(MemoryLeak, r"unreferenced object", "memory leak in {frame}", &LEAKED)];

static BLOCKED: &[Format] = &[Format::plain(
    HungTask,
    r"unregister_netdevice: waiting for .* to become free",
    "unregister_netdevice: waiting for DEV to become free",
)
.stackless()];

pub(super) static GROUPS: &[Group] = &[
    Group {
        literal: "BUG:",
        formats: BUG,
        // The trap behind a BUG() on arm is "Internal error: Oops - BUG: 0 [#1]".
        not: &[
            r"DEBUG:",
            r"\bno (?:known )?BUG:",
            r"BUG: no syscalls can create",
            r"Internal error: Oops - BUG: ",
        ],
    },
    Group { literal: "kernel BUG", formats: KERNEL_BUG, not: &[] },
    // arch/riscv/kernel/traps.c: die() goes on behind "kernel BUG at".
    Group { literal: "Kernel BUG", formats: KERNEL_BUG, not: &[r"Kernel BUG \[#"] },
    Group { literal: "unreferenced object", formats: KMEMLEAK, not: &[] },
    Group { literal: "unregister_netdevice: waiting for", formats: BLOCKED, not: &[] },
];
