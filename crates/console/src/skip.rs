//! Functions that are never to blame: they only pass on what others asked of them.
//!
//! Decides, by name alone, whether a frame is a helper (skipped on the way to the guilty frame), a
//! dispatcher (the frame right inside it is the entry point of an operation) or something that
//! everybody waits for. Families are named by the kernel's own prefixes, and there is no entry for a
//! single caller. Biased to skip: a helper that is really broken is blamed on its caller, which is
//! what a title wants.

use std::sync::OnceLock;

use aho_corasick::AhoCorasick;

/// Patterns: `^abc` begins with, `abc$` ends with, `^abc$` is, `abc` contains; one `*` stands for
/// anything between.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    if let Some((before, behind)) = pattern.split_once('*') {
        let at = match before.strip_prefix('^') {
            Some(p) => name.starts_with(p).then_some(p.len()),
            None => name.find(before).map(|at| at + before.len()),
        };
        return at.is_some_and(|at| matches(behind, &name[at..]));
    }
    match (pattern.strip_prefix('^'), pattern.strip_suffix('$')) {
        (Some(_), Some(_)) => name == &pattern[1..pattern.len() - 1],
        (Some(p), None) => name.starts_with(p),
        (None, Some(p)) => name.ends_with(p),
        (None, None) => name.contains(pattern),
    }
}

/// A table of patterns that is asked for every frame: one search finds those that may fit.
struct Names {
    search: AhoCorasick,
    patterns: Vec<&'static str>,
}

impl Names {
    fn new(patterns: impl Iterator<Item = &'static str>) -> Self {
        let patterns: Vec<&str> = patterns.collect();
        let literal = |p: &&'static str| {
            let before = p.split('*').next().unwrap_or(p);
            before.trim_start_matches('^').trim_end_matches('$')
        };
        let search = AhoCorasick::new(patterns.iter().map(literal))
            .expect("a few hundred short literals always build");
        Names { search, patterns }
    }

    fn fit(&self, name: &str) -> bool {
        let mut hits = self.search.find_overlapping_iter(name);
        hits.any(|hit| matches(self.patterns[hit.pattern()], name))
    }
}

/// Helpers of every crash, by family. A pattern holds to the beginning of a name (`^`) unless the
/// family's members stand behind many prefixes: who is skipped by accident is never blamed.
#[rustfmt::skip]
static HELPERS: &[&[&str]] = &[
    // Dumping a stack and reporting: lib/dump_stack.c, kernel/panic.c, lib/bug.c, mm/kasan/report.c.
    &["dump_stack", "show_stack", "dump_backtrace", "show_regs", "^dump_page", "^__dump_page", "panic", "printk", "warn_slowpath",
        "warn_alloc", "warn_bogus", "^__warn", "report_bug", "fixup_bug", "bug_handler", "handle_bug", "print_report",
        "print_address_description", "print_*_bug", "^print_bad_irq_dependency", "^print_irqtrace", "print_lock", "print_bad_pte", "object_err", "print_trailer", "check_panic_on_warn", "^end_report$", "get_taint$",
        "stack_trace_save", "^save_stack", "^__save_stack", "^save_trace", "stack_trace_consume", "arch_stack_walk", "stack_depot", "fortify_",
        "print_tainted", "walk_stackframe", "unwind_frame", "unwind_backtrace", "__stack_chk_fail", "assertfail", "assfail", "va_format", "^die$", "^__die", "^die_kernel_fault", "^oops_"],
    // Sanitizers and coverage.
    &["kasan", "__asan", "asan_", "kmsan", "__msan", "kcsan", "__tsan", "kfence_", "ubsan", "__sanitizer",
        "check_memory_region", "read_word_at_a_time", "hwasan"],
    // Traps and the way into them: arch/*/entry, arch/*/mm/fault.c.
    &["invalid_op", "^do_error_trap", "_trap$", "do_trap", "^no_context", "general_protection",
        "double_fault", "divide_error", "^do_int3", "^int3$", "fault_in_kernel", "kernel_fault", "do_DataAbort", "do_translation_fault",
        "do_mem_abort", "el1_abort", "el1_da", "el1_sync", "el1h_64", "^do_sea$", "do_bad_area", "do_undefinstr",
        "do_debug_exception", "brk_handler", "call_break_hook", "el1_dbg", "el1_brk", "el1_undef", "program_check", "notify_die",
        "do_alignment", "do_tag_", "pgm_check", "^monitor_event_exception$", "^illegal_op$", "^handle_exception$", "^do_bp$", "^handle_bp", "^do_ade$", "^handle_ade", "^do_ri$", "^handle_ri$", "^handle_ri_int$", "_indirect_thunk_", "_return_thunk", "^srso_", "^clear_bhb_"],
    // Allocators: mm/sl?b.c, mm/page_alloc.c, mm/vmalloc.c, mm/util.c.
    &["kmalloc", "calloc", "zalloc", "vmalloc", "krealloc", "kvrealloc", "vrealloc",
        "kmem_cache", "^cache_alloc", "^__cache_alloc", "^____cache_alloc", "^__do_cache_alloc", "allocate_slab", "alloc_slab", "new_slab", "slab_", "free_to_partial", "put_cpu_partial",
        "free_to_pcs", "check_slab", "check_object", "check_heap_object", "^init_object$", "^setup_object", "^alloc_debug_processing", "^free_debug_processing", "^alloc_single_from",
        "do_slab_free", "kfree", "kzfree", "kvfree", "^vfree", "^__vfree", "^__vunmap",
        "alloc_page", "folio_alloc", "vma_alloc_folio", "__get_free_pages", "get_zeroed_page", "alloc_frozen_page", "mempool_",
        "memdup", "kstrdup", "strndup", "kasprintf", "kvasprintf", "kmemleak", "^create_object", "^__create_object", "^cache_grow", "^cache_free"],
    // Memory, strings and numbers: lib/string.c, lib/vsprintf.c, lib/usercopy.c, lib/iov_iter.c, lib/crc*.c.
    &["memcpy", "memset", "memmove", "memcmp", "memchr", "memscan", "memzero", "^bcmp$", "strcpy", "strncpy", "strlcpy", "strscpy",
        "strcat", "strncat", "strlcat", "^strcmp", "^strncmp", "^strcasecmp", "^strncasecmp", "^__pi_str", "memneq", "strlen", "strnlen", "strchr", "strrchr", "strnchr",
        "strstr", "strnstr", "strpbrk", "strcspn", "^kstrto", "^_kstrto", "^_parse_integer", "sscanf", "^simple_strto", "^strspn", "^strsep", "^strim", "nla_str", "^string$", "string_nocheck", "^pointer$", "^number$", "snprintf", "scnprintf", "sprintf$",
        "symbol_string", "hex_string", "hex_dump", "hex_number", "widen_string", "resource_string", "bitmap_string", "bitmap_list_string", "escaped_string", "flags_string", "time_and_date",
        "ip6_addr_string", "ip4_addr_string", "ip6_string", "ip4_string", "ip6_compressed_string", "ip_addr_string", "mac_address_string", "uuid_string", "^dentry_name$", "^format_decode$", "^put_dec",
        "copy_to_user", "copy_from_user", "^copy_user_generic", "^copy_user_enhanced", "^copy_user_short", "^copy_user_handle", "^copy_user_nocache", "^copy_user_fsrm", "copy_mc_", "^rep_movs", "^rep_stos", "put_user", "get_user", "clear_user", "^__copy_user", "check_object_size", "usercopy_",
        "copy_to_iter", "copy_from_iter", "copy_page_to_iter", "copy_page_from_iter", "copy_folio_", "^crc4", "^crc7", "^crc8", "^crc16", "crc32", "^crc64", "^crc_", "^crct10dif", "^crc_t10dif", "xxh64", "csum_partial", "might_fault", "logic_in", "logic_out", "__raw_read*", "__raw_write*", "^ioread", "^iowrite", "^readb", "^readw", "^readl", "^readq", "^writeb", "^writew", "^writel", "^writeq"],
    // Atomics, bits, references.
    &["atomic_dec", "atomic_inc", "atomic_read", "atomic_set", "atomic_or", "atomic_xor", "atomic_and", "atomic_add", "atomic_sub", "atomic_fetch", "atomic_xchg", "atomic_try", "atomic64_dec", "atomic64_inc", "atomic64_read", "atomic64_set", "atomic64_or", "atomic64_xor", "atomic64_and", "atomic64_add", "atomic64_sub", "atomic64_fetch", "atomic64_xchg", "atomic64_try", "atomic_long_dec", "atomic_long_inc", "atomic_long_read", "atomic_long_set", "atomic_long_or", "atomic_long_xor", "atomic_long_and", "atomic_long_add", "atomic_long_sub", "atomic_long_fetch", "atomic_long_xchg", "atomic_long_try", "cmpxchg", "instrument_", "^set_bit", "^__set_bit", "^_set_bit", "^clear_bit", "^__clear_bit", "^_clear_bit",
        "^change_bit", "^__change_bit", "^test_bit", "^_test_bit", "^test_and_*_bit", "^__test_and_*_bit", "^arch_*_bit", "^refcount_", "^__refcount", "^kref_", "ref_tracker", "seqprop_", "^__bitmap_", "^bitmap_set$", "^bitmap_clear$", "^bitmap_fill$", "^bitmap_zero$", "^bitmap_weight$", "^bitmap_find_", "^bitmap_allocate_region", "^bitmap_release_region", "^bitmap_parse", "^bitmap_print", "^bitmap_from_arr", "^bitmap_to_arr",
        "find_first_bit", "find_first_zero_bit", "find_first_and_bit", "find_next_bit", "find_next_zero_bit", "find_next_and", "find_last_bit", "drop_nlink", "clear_nlink", "inc_nlink",
        "set_nlink", "^page_ref_", "^__page_ref_"],
    // Lists and trees that only link what the caller gave them.
    &["list_add", "list_del", "list_replace", "list_move", "list_splice", "list_cut", "^llist_", "^plist_", "^klist_",
        "^rb_erase", "^rb_insert", "^rb_first", "^rb_last", "^rb_next$", "^rb_next_postorder", "^rb_prev$", "^rb_replace", "^rb_link", "^rb_add", "^rb_find", "^__rb_erase", "^____rb_erase", "^__rb_insert", "^__rb_rotate", "^__rb_change_child",
        "rhashtable_lookup", "xas_start", "xas_load", "xas_find", "^xas_descend", "find_get_entr", "^ida_"],
    // Locks and lockdep: kernel/locking, arch/*/include/asm/qspinlock.h.
    &["^lockdep", "^__lockdep", "debug_lockdep", "^lock_acquire", "^__lock_acquire", "^lock_release", "^__lock_release", "lock_class", "lock_bug", "^mark_lock", "held_locks", "^mark_usage", "^mark_held", "^check_noncircular",
        "^check_prev", "^check_deadlock", "^check_irq_usage", "^check_redundant", "^check_path", "^check_usage", "^check_chain", "^check_lock", "^check_wait_context", "^hlock_class", "^__bfs", "^find_usage", "^validate_chain", "spin_lock", "spin_trylock",
        "spin_unlock", "spin_bug", "spin_dump", "queued_spin", "^queued_read_lock", "^queued_write_lock", "native_queued", "rwlock_bug", "raw_spin", "read_lock", "read_unlock", "read_trylock",
        "write_lock$", "write_lock_", "write_unlock", "write_trylock", "do_raw_", "down_read", "down_write", "down_trylock", "down_timeout", "down_interruptible", "^down$",
        "^__down", "^up$", "up_read", "up_write", "^downgrade_write", "rwsem_", "^mutex_", "^__mutex", "^ww_mutex", "^__ww_mutex", "rt_mutex", "rt_spin_", "owner_on_cpu", "osq_lock", "osq_unlock",
        "raw_spin_rq", "^rq_lock", "_rq_lock", "^rq_unlock", "_rq_unlock", "percpu_down", "percpu_up", "percpu_rwsem", "trace_hardirqs", "trace_softirqs", "local_irq_"],
    // Debug objects, and timers and work as far as they only carry a callback: lib/debugobjects.c.
    &["debug_object", "debug_print_object", "debug_check_no", "debug_spin", "debug_mutex", "_is_static_object", "^__init_work", "lock_timer_base", "^init_timer", "^do_init_timer", "^del_timer", "^try_to_del_timer", "^__try_to_del_timer", "^timer_delete", "^__timer_delete",
        "^timer_shutdown", "^mod_timer", "^__mod_timer", "^add_timer", "sk_reset_timer", "sk_stop_timer",
        "^flush_work$", "^__flush_work$", "^start_flush_work", "^flush_delayed_work", "cancel_work", "cancel_delayed_work", "^disable_work", "^disable_delayed_work", "try_to_grab_pending", "^work_grab_pending", "drain_workqueue", "destroy_workqueue",
        "^queue_work_", "^queue_work$", "^__queue_work", "^kthread_queue_work", "^kthread_insert_work", "^queue_delayed_work", "^__queue_delayed_work", "^kthread_queue_delayed_work", "^mod_delayed_work", "^insert_work$", "^insert_wq_barrier"],
    // Sleeping and waking.
    &["might_sleep", "might_resched", "cond_resched", "preempt_schedule", "__wake_up", "finish_wait", "^prepare_to_wait",
        "wait_for_completion", "^complete$", "^complete_all$", "^complete_with_flags$", "^swake_up_", "kthread_stop", "check_preemption_disabled", "smp_processor_id", "__this_cpu_preempt"],
    // Objects of the driver core and of sysfs, which their owners tear down: drivers/base, lib/kobject.c.
    &["kobject_", "add_uevent_var", "get_device_parent", "device_add", "device_del", "device_unregister", "^device_register$", "device_destroy", "^device_create", "^device_release$", "^device_initialize$", "device_for_each_child", "__unregister_client",
        "devres_release", "release_nodes", "^put_device$", "^get_device$", "^devm_", "^device_unbind_cleanup", "^device_release_driver", "^__device_release_driver", "bus_remove_device", "device_links_", "driver_detach", "sysfs_remove", "^sysfs_create", "^sysfs_warn", "device_remove_file", "device_create_file", "hwrng_unregister",
        "misc_deregister", "cdev_del", "i2c_del_adapter", "i2c_unregister", "tty_unregister", "^_dev_", "^dev_info", "^dev_notice", "^dev_warn", "^dev_err", "^dev_alert", "^dev_crit", "^dev_emerg",
        "^netdev_info", "^netdev_notice", "^netdev_warn", "^netdev_err", "^netdev_alert", "^netdev_crit", "^netdev_emerg"],
    // A driver takes its network device away: net/core/dev.c.
    &["rollback_registered", "^unregister_netdev$", "^unregister_netdevice_queue$"],
    // Transfers that a USB driver starts, waits for or stops: drivers/usb/core/urb.c, message.c and hcd.c.
    &["usb_submit_urb", "usb_hcd_submit_urb", "usb_kill_urb", "usb_kill_anchored_urbs", "usb_poison_urb", "usb_start_wait_urb", "usb_control_msg", "usb_bulk_msg", "usb_interrupt_msg",
        "usb_internal_control_msg", "dummy_urb_enqueue"],
    // Things that many callers hand over for good or walk through for others.
    &["perf_trace", "^trace_event_buffer", "find_lock_entries", "truncate_inode_pages", "__phys_addr", "cleanup_srcu_struct", 
        "extract_user_to_sg", "extract_iter_to_sg", "folio_unlock", "unlock_page", "compound_head", "mark_buffer_dirty", "^dput", "^fast_dput", "^__dput", "^skb_push", "^__skb_push", "^skb_put", "^__skb_put", "^skb_pull", "^__skb_pull"],
];

/// These would be helpers by the general patterns, but are operations of their own.
#[rustfmt::skip]
static OPERATIONS: &[&str] = &[
    "rtnl_lock$", "^synchronize_", "^__synchronize_",
];

/// A frame that only passes on what others asked of it. `extra` are the crash's own patterns.
pub(crate) fn is_helper(name: &str, extra: &[&str]) -> bool {
    static NAMES: OnceLock<Names> = OnceLock::new();
    let helpers = NAMES.get_or_init(|| Names::new(HELPERS.iter().copied().flatten().copied()));
    let among = |table: &[&str]| table.iter().any(|p| matches(p, name));
    among(extra) || !among(OPERATIONS) && helpers.fit(name)
}

/// What a task that hangs does while it waits. The caller is the one to name.
#[rustfmt::skip]
pub(crate) static WAITING: &[&str] = &[
    "sched", "_lock", "_slowlock", "down", "rwsem", "completion", "kthread", "wait", "synchronize", "context_switch", "__switch_to",
    "cancel_delayed_work", "rcu_barrier",
];

/// One holder keeps everybody waiting here, so that each waiter tells of the same hang.
pub(crate) fn waited_for(name: &str) -> bool {
    ["rtnl_lock", "synchronize_rcu", "synchronize_srcu", "synchronize_net", "synchronize_sched"]
        .iter()
        .any(|p| name.contains(p))
}

/// Functions that dispatch work of many kinds. The frame inside one of them is the entry point of
/// the operation. Callers of a dispatcher are listed too, so that a renamed one does not hide all.
#[rustfmt::skip]
static DISPATCHERS: &[&str] = &[
    // Work, timers, softirqs, threads.
    "process_one_work", "process_scheduled_works", "do_softirq", "handle_softirqs", "run_ksoftirqd", "call_timer_fn", "_run_timers", "run_timer_softirq", "hrtimer_run",
    "tasklet_action", "tasklet_hi_action", "smpboot_thread_fn", "^kthread$", "start_secondary", "cpu_startup_entry", "ret_from_fork", "task_work_run",
    "smp_call_function", "do_one_initcall", "rest_init",
    // System calls.
    "do_syscall_", "do_fast_syscall_", "do_int80_syscall", "sysenter_dispatch", "tracesys", "entry_SYSCALL", "entry_SYSENTER",
    "system_call_fastpath", "x64_sys_call", "ia32_sys_call", "el0_svc", "invoke_syscall", "ret_fast_syscall", "exit_to_usermode", "^__do_syscall$", "^do_syscall$", "system_call_exception", "syscall_common",
    // What a file, a mapping or a device does behind the call that is the same for all.
    "vfs_write", "vfs_read", "vfs_iter_read", "vfs_iter_write", "do_iter_read", "do_iter_write", "call_read_iter", "call_write_iter", "new_sync_read", "new_sync_write",
    "vfs_ioctl", "ksys_read", "ksys_write", "ksys_ioctl", "compat_ioctl", "compat_sys_ioctl", "sys_ioctl", "SyS_ioctl", "SYSC_ioctl", "blkdev_driver_ioctl", "blkdev_ioctl", "do_iter_readv_writev", "call_mmap",
    "mmap_region", "do_mmap", "do_dentry_open", "vfs_open", "__fput", "__do_fault", "do_page_fault", "^page_fault$",
    // Sockets and netlink.
    "^sock_sendmsg", "^__sock_sendmsg", "^sock_recvmsg", "^sock_release", "^__sock_release", "sys_setsockopt", "do_sock_setsockopt", "kernel_setsockopt", "sock_common_setsockopt",
    "sys_listen", "kernel_listen", "sk_common_release", "^sock_mmap", "__sys_accept", "kernel_accept", "^sock_do_ioctl", "^sock_ioctl", "compat_sock_ioctl", "nfnetlink_rcv_msg",
    "rtnetlink_rcv_msg", "^netlink_dump", "netif_receive_skb", "sys_socketpair", "SyS_socketpair", "SYSC_socketpair", "sys_connect", "SyS_connect", "SYSC_connect",
];

/// A function that dispatches work of many kinds.
pub(crate) fn is_dispatcher(name: &str) -> bool {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| Names::new(DISPATCHERS.iter().copied())).fit(name)
}

#[cfg(test)]
mod tests;
