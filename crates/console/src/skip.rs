//! Functions that are never to blame: they only pass on what others asked of them.
//!
//! Decides, by name alone, whether a frame is a helper (skipped on the way to the guilty frame) or a
//! dispatcher (the frame right inside it is the entry point of an operation). Biased to skip: a
//! helper that is really broken is blamed on its caller, which is what a title wants.

/// Patterns: `^abc` begins with, `abc$` ends with, `^abc$` is, `abc` contains.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('^'), pattern.strip_suffix('$')) {
        (Some(p), None) => name.starts_with(p),
        (None, Some(p)) => name.ends_with(p),
        (Some(_), Some(_)) => name == &pattern[1..pattern.len() - 1],
        (None, None) => name.contains(pattern),
    }
}

/// Helpers of every crash.
#[rustfmt::skip]
static HELPERS: &[&str] = &[
    // Dumping and reporting.
    "^__dump_stack", "^dump_stack", "^show_stack", "^dump_backtrace", "^show_regs", "^show_trace", "^__show_regs",
    "^die$", "^__die", "^die_", "^oops_", "^bust_spinlocks", "^call_console", "^warn_slowpath", "^__warn",
    "^report_bug", "^bug_handler", "^fixup_bug", "^print_address", "^print_report", "^dump_page", "^__dump_page",
    "^end_report", "^check_panic_on_warn", "^unwind_backtrace", "^walk_stackframe", "^save_stack", "^stack_trace",
    "^__save_stack", "^arch_stack_walk", "^nmi_cpu_backtrace", "^fail_dump", "^should_fail", "^should_failslab",
    // Sanitizers and coverage.
    "kasan", "^__asan", "asan_", "kmsan", "^__msan", "kcsan", "^__tsan", "kfence", "ubsan", "^__sanitizer",
    "sanitizer_cov", "^check_memory_region", "^memory_is_poisoned", "^quarantine", "^stack_depot", "^depot_", "^kcov",
    "^__hwasan", "^hwasan", "^read_pnet", "^__fortify", "^fortify_",
    // Traps and their entries.
    "^page_fault", "^asm_exc", "^exc_", "^do_page_fault", "^__do_page_fault", "^async_page_fault", "^do_error_trap",
    "^do_invalid_op", "^invalid_op", "^do_trap", "^trap_", "^error_entry", "^do_general_protection",
    "^general_protection", "^no_context", "^do_double_fault", "^double_fault", "^do_int3", "^int3$", "^divide_error",
    "^do_divide_error", "^page_fault_oops", "^kernelmode_fixup", "^handle_page_fault", "^fault_in_kernel",
    "^handle_bug", "^__kernel_fault", "^do_DataAbort", "^do_translation_fault", "^do_mem_abort", "^el1_abort",
    "^el1_da", "^el1_sync", "^el1h_64", "^el1t_64", "^do_sea", "^do_bad_area", "^do_kernel_fault", "^do_undefinstr",
    "^do_alignment_fault", "^__pabt_", "^__und_", "^notify_die", "^df_debug", "^search_exception", "^fixup_exception",
    "^do_debug_exception", "^brk_handler", "^call_break_hook", "^el1_dbg", "^el1_undef", "^bug_", "^die_kernel_fault",
    "^do_sync",
    // Memory helpers.
    "^memcpy", "^__memcpy", "^memset", "^__memset", "^memmove", "^__memmove", "^memcmp", "^memscan", "^memchr",
    "^str", "^__str", "^bcmp", "^crc32", "^__crc32", "^kmalloc", "^__kmalloc", "^kzalloc", "^kcalloc", "^krealloc",
    "^__krealloc", "^kvmalloc", "^kvfree", "^__do_kmalloc", "^__do_krealloc", "^kfree$", "^__kfree$", "^kfree_const",
    "^kfree_sensitive", "^kzfree", "^do_slab_free", "^__do_slab", "^slab_", "^___slab", "^__slab", "^kmem_",
    "^__kmem", "^cache_", "^____cache", "^__cache", "^free_debug", "^alloc_debug", "^object_err", "^print_trailer",
    "^check_slab", "^check_bytes", "^init_object", "^setup_object", "^new_slab", "^vmalloc", "^__vmalloc", "^vzalloc",
    "^vfree", "^__vunmap", "^__vfree", "^kmemdup", "^kstrdup", "^kmemleak", "^copy_to_user", "^copy_from_user",
    "^_copy_to_user", "^_copy_from_user", "^__copy_", "^copy_user", "^raw_copy", "^rep_movs", "^__might_fault",
    "^__check_object_size", "^check_object_size", "^__check_heap_object", "^usercopy_", "^strncpy_from", "^strnlen",
    "^get_page_from_freelist", "^__alloc_pages", "^alloc_pages", "^__get_free_pages", "^ftrace_", "^arch_ftrace",
    "^number$", "^vsnprintf", "^snprintf", "^sprintf", "^vsprintf", "^vscnprintf", "^scnprintf", "^string$",
    "^string_nocheck",
    // Atomics, bits, lists, reference counts.
    "^arch_atomic", "^atomic", "^instrument_", "^refcount_", "^__refcount", "^kref_", "^__list_", "^list_", "^hlist_",
    "^__hlist", "^llist_", "^rb_", "^__rb_", "^rht_", "^__read_once", "^__write_once", "^read_word", "^arch_test_bit",
    "^test_bit", "^_test_bit", "^variable_test_bit", "^constant_test_bit", "^set_bit", "^clear_bit", "^test_and_",
    "^find_first_bit$", "^_find_", "^find_next_bit$", "^ref_tracker", "^rcu_read_lock$", "^rcu_read_unlock$", "^idr_",
    "^ida_", "^__xa_", "^xas_", "^xa_",
    // Locks.
    "lock_acquire", "lock_release", "^lock_is_held", "^__raw_spin", "^_raw_spin", "^_raw_read", "^_raw_write",
    "^__raw_read", "^__raw_write", "^raw_spin", "^do_raw_", "^native_queued", "^queued_spin", "^queued_read",
    "^queued_write", "^pv_", "^__pv_", "^spin_", "^read_lock", "^write_lock", "^arch_spin", "^spin_bug", "^spin_dump",
    "^rwlock_bug", "^debug_spin", "^mutex_", "^__mutex", "^mutex_lock", "^ww_mutex", "^down_read", "^down_write",
    "^up_read", "^up_write", "^down_trylock$", "^up$", "^down$", "^down_timeout", "^down_interruptible", "^__down_",
    "^rwsem_", "^percpu_down", "^percpu_up", "^percpu_rwsem", "^seqcount", "^seqlock", "^lockdep_", "^print_",
    "^check_noncircular", "^check_prev", "^check_deadlock", "^check_irq", "^check_usage", "^check_chain",
    "^validate_chain", "^mark_lock", "^mark_held", "^mark_usage", "^__lock_", "^register_lock_class", "^lock_",
    "^debug_check_no_locks", "^__debug_check", "^trace_hardirqs", "^trace_softirqs", "^__trace_hardirqs",
    "^arch_local_irq", "^native_save_fl", "^native_restore_fl", "^debug_object", "^debug_print_object",
    "^debug_check_no_obj", "^__debug_object", "^debug_spin", "^debug_mutex",
    // Scheduling, waiting, preemption.
    "^__might_sleep", "^___might_sleep", "^might_", "^__might_resched", "^__schedule_bug", "^schedule_debug",
    "^__sched_text", "^preempt_", "^___preempt", "^preempt_schedule", "^schedule$", "^__schedule$",
    "^finish_task_switch", "^context_switch", "^__wake_up", "^prepare_to_wait", "^finish_wait", "^add_wait_queue",
    "^init_wait", "^__init_waitqueue", "^try_to_wake", "^autoremove_wake", "^_cond_resched", "^__cond_resched",
    "^need_resched", "^check_preemption_disabled", "^debug_smp_processor_id", "^__this_cpu_preempt",
    "^smp_processor_id", "^kthread_should",
    // Timers and work that only carry a callback.
    "^__init_work", "^destroy_", "^__debug_", "^del_timer$", "^try_to_del_timer", "^lib_ring", "^skb_panic",
    "^skb_over_panic", "^skb_under_panic", "^skb_put$", "^skb_push$", "^skb_pull$", "^skb_trim$", "^__skb_trim",
    "^arch_rwlock", "^PageTail", "^compound_head", "^page_to_", "^lowmem_page", "^virt_to_", "^__phys_addr",
    "^__virt_to", "^__list", "^stackdepot", "^trace_", "^perf_trace", "^__bpf_trace", "^rcu_is_watching",
    "^rcu_lockdep", "^__this_cpu", "^get_current", "^ordered_", "^sanitize", "^__read_overflow", "^__write_overflow",
    "^x86_64_start_kernel$", "^__stack_chk_fail", "^stack_chk",
];

/// More helpers: what drivers and file systems call on the way to the place that broke.
#[rustfmt::skip]
static CARRIERS: &[&str] = &[
    "mempool_", "kvrealloc", "clear_user", "put_user", "get_user", "csum_", "strscpy", "strlcpy", "^nla_str",
    "^plist_", "^interval_tree", "^mas_", "^__mas", "^ida_", "^idr_", "^put_pid", "^put_task_struct", "^sock_hold",
    "^dev_hold", "^dev_put", "^netdev_hold", "^netdev_put", "^mntput", "^sk_stop_timer", "^sk_reset_timer",
    "^hrtimer_cancel", "^hrtimer_try", "^hrtimer_active", "^timer_shutdown", "^enqueue_timer", "insert_work",
    "delayed_work", "^complete", "^swake_up", "^va_format", "^symbol_string", "^ip6_addr", "^ip4_addr",
    "^mac_address_string", "^uuid_string", "^dentry_name", "^widen_string", "^seq_printf", "^seq_vprintf",
    "^seq_puts", "^bitmap_", "^page_ref", "^check_page", "^assfail", "^ether_addr", "^skcipher_walk", "^scatterwalk",
    "^sg_copy", "^__put_unaligned", "^get_unaligned", "^memzero", "^unwind_", "^arch_unwind", "^device_links_",
    "^driver_detach", "^__device_release", "^device_release_driver", "^bus_remove_device", "^kobject",
    "drain_workqueue", "destroy_workqueue", "^console_unlock", "^console_trylock", "^console_flush", "^console_emit",
    "^__console", "_map_alloc$", "^pointer$", "^_free_event", "^free_event", "^__free_event", "timer_delete",
    "^put_event", "^perf_addr", "dput", "panic", "printk", "lockdep", "^osq_", "^sysfs_", "^device_remove_file",
    "^device_create_file", "^i2c_del_adapter", "^i2c_unregister", "^dpm_", "^tty_unregister", "^hwrng_",
    "^misc_deregister", "^cdev_del", "^init_timer", "^timer_init", "^do_init_timer", "^hex_", "^print_hex",
    "memdup_user", "^warn_bogus", "^klist_", "compound_head", "_encrypt$", "_decrypt$", "crypt_walk", "^xts_",
    "^cbc_", "^ecb_", "cleanup_srcu", "^__rhashtable", "^rhashtable_", "skb_reason", "drop_nlink", "inc_nlink",
    "clear_nlink", "set_nlink", "^get_taint$", "del_timer", "folio_unlock", "unlock_page", "copy_from_iter",
    "copy_to_iter", "^iov_iter", "^create_object", "debug_objects_", "^tp_perf_event", "^__sk_destruct",
    "^__alloc_percpu", "^pcpu_alloc", "^bpf_map_area", "^hash_digest", "^array_map_alloc_percpu",
    "^input_unregister_device", "^unregister_console", "^wake_up_process$", "^wake_up_q$", "^entry_SYS",
    "^do_syscall_", "^do_fast_syscall", "^secondary_startup", "^pcpu_", "^device_create", "^device_destroy",
    "^device_initialize", "^try_to_grab_pending", "^__cancel_work", "^cancel_work", "^cancel_delayed_work",
    "^__flush_work", "^flush_work$", "^timer_delete", "^mod_timer", "^__mod_timer", "^add_timer", "^do_tag_",
    "_copy_to_user", "_copy_from_user", "copy_to_user", "copy_from_user", "kmalloc", "kzalloc", "kcalloc", "kvmalloc",
    "alloc_page", "alloc_pages", "kmem_cache", "_frozen_pages", "warn_alloc", "alloc_contig", "indirect_thunk",
    "rq_lock", "rq_unlock", "rt_mutex", "reacquire_held", "assertfail", "_is_static_object", "seqprop_assert",
    "kernel_fault", "queue_work", "queue_delayed_work", "delayed_work_timer", "^device_release$",
    "^device_unregister", "^device_del$", "^device_add$", "^device_register$", "^put_device$", "^get_device$",
    "^kobject_", "^__kobject", "^devres_release", "^devm_", "^release_nodes", "^usb_control_msg", "^usb_bulk_msg",
    "^usb_interrupt_msg", "^usb_start_wait_urb", "^kfree_skb", "^consume_skb", "^__kfree_skb", "^wait_for_completion",
    "^__wait_for_common", "^kthread_stop", "^logic_in", "^logic_out", "^__raw_read", "^__raw_write", "^readb",
    "^readl", "^writel", "^_atomic_dec_and", "^atomic_dec_and", "^refcount_dec_and", "^crc16", "^crc_", "^xxh64",
    "^__crc", "^find_lock_entries", "^find_get_entr", "^truncate_inode_pages", "^invalidate_mapping",
    "^mark_buffer_dirty", "^__brelse", "^__bread", "^reiserfs_write_lock", "_panic$", "^call_rcu", "^__call_rcu",
    "^queue_rcu", "^perf_tp_event_init", "^perf_try_init", "^perf_event_alloc", "^inherit_", "^pcpu_mem",
    "^sget_userns$", "^_dev_", "^dev_info", "^dev_err", "^dev_warn", "^__dev_printk", "^dev_printk", "^dev_vprintk",
    "^netdev_printk", "^__netdev_printk",
];

/// Helpers that are to blame all the same, since the general patterns would hide them.
#[rustfmt::skip]
static NOT_HELPERS: &[&str] = &[
    "^console_lock$", "^qlist_free_all$", "^rtnl_lock$", "^synchronize_sched", "^synchronize_rcu", "^printk_ring",
    "^list_lru", "^mutex_perf", "^idr_for_each", "^rb_first_postorder$", "^lock_two", "^destroy_unused_super$",
    "^lock_rename", "^string_to", "^stream_", "^strp_", "^strset", "^idr_copy", "^lock_mount", "^lock_metapage",
    "^memfd_", "^trace_event_raw", "^bug_on", "^sanitize_boot",
];

/// Waiting for these is the operation itself, whatever a crash's own patterns say.
static NEVER_HELPERS: &[&str] =
    &["^rtnl_lock$", "synchronize_rcu", "^synchronize_sched", "synchronize_srcu"];

/// A frame that only passes on what others asked of it. `extra` are the crash's own patterns.
pub(crate) fn is_helper(name: &str, extra: &[&str]) -> bool {
    let in_table = |table: &[&str]| table.iter().any(|p| matches(p, name));
    if in_table(NEVER_HELPERS) {
        return false;
    }
    in_table(extra) || (in_table(HELPERS) || in_table(CARRIERS)) && !in_table(NOT_HELPERS)
}

/// Functions that dispatch work of many kinds. The frame inside one of them is the entry point of
/// the operation. Callers of a dispatcher are listed too, so that a renamed one does not hide all.
#[rustfmt::skip]
static DISPATCHERS: &[&str] = &[
    "^__sys_setsockopt", "^do_sock_setsockopt", "^__sys_getsockopt", "^do_sock_getsockopt", "compat_ioctl",
    // Work, timers, softirqs, threads.
    "process_one_work", "worker_thread", "do_softirq", "run_ksoftirqd", "call_timer_fn", "_run_timers",
    "run_timer_softirq", "hrtimer_run_queues", "hrtimer_run_softirq", "run_hrtimer", "tasklet_action",
    "smpboot_thread_fn", "^kthread$", "start_secondary", "cpu_startup_entry", "^do_idle$", "^cpu_idle_loop",
    "^rest_init", "ret_from_fork", "task_work_run", "irq_work_run", "rcu_do_batch", "rcu_core", "invoke_rcu",
    "^irq_exit", "^flush_smp_call_function", "generic_smp_call_function", "^handle_irq_event", "^__handle_irq_event",
    "^do_IRQ", "^blk_done_softirq", "^run_workqueue", "^do_one_initcall", "^async_run_entry",
    // System calls.
    "do_syscall_", "do_fast_syscall_", "^do_int80_syscall", "^__do_fast_syscall", "sysenter_dispatch", "tracesys",
    "entry_SYSCALL", "entry_SYSENTER", "^system_call_fastpath", "^x64_sys_call", "^ia32_sys_call", "el0_svc",
    "invoke_syscall", "ret_fast_syscall", "__sys_trace", "^syscall_common", "^ret_from_syscall", "^sysexit",
    "^system_call", "^do_trap_ecall_u", "^__ret_fast", "^do_el0_svc", "^cstar_dispatch", "^do_exit_to_user",
    "exit_to_user", "prepare_exit_to_usermode", "^do_notify_resume", "^syscall_exit",
    // Files, sockets, memory.
    "^__fput$", "^____fput", "^vfs_write", "^vfs_read", "^__vfs_write", "^__vfs_read", "^new_sync_write",
    "^new_sync_read", "^call_read_iter", "^call_write_iter", "^do_iter_", "^vfs_iter_", "^do_readv_writev",
    "^do_loop_readv_writev", "^ksys_write", "^ksys_read", "^ksys_pwrite", "^ksys_pread", "^vfs_writev", "^vfs_readv",
    "^vfs_ioctl", "^do_vfs_ioctl", "^file_ioctl", "^ksys_ioctl", "^__se_sys_ioctl", "^__do_sys_ioctl",
    "^__x64_sys_ioctl", "^__ia32_compat_sys_ioctl", "^__arm64_sys_ioctl", "sys_ioctl$", "SyS_ioctl",
    "^blkdev_driver_ioctl", "^blkdev_ioctl", "^do_dentry_open", "^vfs_open", "^vfs_get_tree", "^mount_fs",
    "^call_mmap", "^mmap_region", "^do_mmap", "^exec_binprm", "^search_binary_handler", "^__do_fault",
    "^do_read_fault", "^do_cow_fault", "^do_shared_fault", "^sock_sendmsg", "^__sock_sendmsg", "^sock_recvmsg",
    "^sock_write_iter", "^sock_read_iter", "^__sock_release", "^sock_close", "^inet_sendmsg", "^rtnetlink_rcv_msg",
    "^netlink_rcv_skb", "^genl_rcv_msg", "^genl_family_rcv_msg",
    // Network receive.
    "netif_receive_skb", "^process_backlog", "^net_rx_action", "^napi_poll", "^__napi_poll", "^deliver_skb",
    // Drivers.
    "^really_probe", "^usb_probe_interface", "^usb_probe_device", "^local_pci_probe", "^drm_ioctl_kernel",
    "^__usb_hcd_giveback_urb", "^usb_hcd_giveback_urb", "^dummy_timer",
];

/// A function that dispatches work of many kinds.
pub(crate) fn is_dispatcher(name: &str) -> bool {
    DISPATCHERS.iter().any(|p| matches(p, name))
}

/// What an interrupt puts on the stack, from the dump down to its entry.
#[rustfmt::skip]
static INTERRUPT_ENTRIES: &[&str] = &[
    "apic_timer_interrupt", "reschedule_interrupt", "call_function_interrupt", "call_function_single_interrupt",
    "^common_interrupt", "^asm_sysvec", "^asm_common_interrupt", "^el1_irq", "^el1h_64_irq", "^el1_interrupt",
    "^__irq_svc", "^ret_from_intr", "^irq_svc", "^end_repeat_nmi", "^asm_exc_nmi", "^nmi$", "^el0_irq",
    "^ret_from_exception", "smp_apic_timer_interrupt_entry",
];

/// The entry code of an interrupt: what is below it is what was interrupted.
pub(crate) fn is_interrupt_entry(name: &str) -> bool {
    INTERRUPT_ENTRIES.iter().any(|p| matches(p, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for helper in [
            "memcpy",
            "kasan_report",
            "__asan_load8",
            "_raw_spin_lock_irqsave",
            "__lock_acquire",
            "dump_stack",
            "list_del_init",
            "refcount_inc",
            "kmem_cache_alloc",
        ] {
            assert!(is_helper(helper, &[]), "{helper}");
        }
        for guilty in [
            "tipc_subscrb_subscrp_delete",
            "ext4_file_write",
            "string_to_context_struct",
            "do_one_initcall",
        ] {
            assert!(!is_helper(guilty, &[]), "{guilty}");
        }
        assert!(is_helper("foo_bar", &["^foo"]));
        assert!(is_dispatcher("process_one_work") && !is_dispatcher("rtc_timer_do_work"));
        assert!(is_interrupt_entry("smp_apic_timer_interrupt"));
    }
}
