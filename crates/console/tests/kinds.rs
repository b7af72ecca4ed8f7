//! Every kind of report, in the words with which kernels from v4.4 to v6.18 print it, and the title
//! and type that it gets. The logs are composed here: a headline, a task line, registers, a stack
//! whose innermost frames are helpers and whose guilty function is `foo_do`.

use kolumbo_console::read;

const TASK: &str = "CPU: 1 PID: 1234 Comm: worker Not tainted 6.6.0-rc1 #1\nHardware name: QEMU";
const ENTRY: &str =
    "foo_ioctl vfs_ioctl __x64_sys_ioctl do_syscall_64 entry_SYSCALL_64_after_hwframe";

/// ` name+0x10/0x200` for each word.
fn frames(names: &str) -> String {
    names.split_whitespace().map(|name| format!(" {name}+0x10/0x200\n")).collect()
}

fn registers(pc: &str) -> String {
    format!(
        "RIP: 0010:{pc}+0x14c/0x3f0\nCode: 48 c1 ea 03 <80> 3c 02 00\n\
         RSP: 0018:ffffc90003e7fb48 EFLAGS: 00010246\n\
         RAX: dffffc0000000000 RBX: 0000000000000000 RCX: ffffffff8177a5d5\n\
         CR2: 0000000000000000 CR3: 0000000079d55000 CR4: 00000000003506e0\n"
    )
}

fn trace(names: &str) -> String {
    format!("Call Trace:\n <TASK>\n{}RIP: 0033:0x7f26a1e7cae9\n </TASK>\n", frames(names))
}

/// A dump at `pc` with `callers` above the system call.
fn dump(head: &str, pc: &str, callers: &str) -> String {
    format!(
        "{head}\n{TASK}\n{}{}---[ end trace 0000000000000000 ]---\n",
        registers(pc),
        trace(&format!("{callers} {ENTRY}"))
    )
}

/// A report that comes with a stack alone.
fn stack(head: &str, callers: &str) -> String {
    format!("{head}\n{TASK}\n{}", trace(&format!("dump_stack_lvl {callers} {ENTRY}")))
}

/// The log as printk writes it, with and without callers.
fn check(body: &str, title: &str, crash_type: &str) {
    for caller in ["", "[ T1234]"] {
        let log: String = body
            .lines()
            .enumerate()
            .map(|(n, line)| format!("[   57.{n:06}]{caller} {line}\n"))
            .collect();
        let result = read(log.as_bytes());
        let got = result
            .reports
            .first()
            .map(|r| (r.title.as_str(), r.crash_type.as_str(), r.corrupted_reason.as_deref()));
        assert_eq!(got, Some((title, crash_type, None)), "{log}");
    }
}

#[test]
fn traps() {
    for (head, title, crash_type) in [
        ("general protection fault: 0000 [#1] SMP", "general protection fault", "DoS"),
        (
            "Oops: general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1] SMP KASAN",
            "general protection fault",
            "DoS",
        ),
        (
            "BUG: unable to handle page fault for address: ffffed1021b00000\n#PF: error_code(0x0000)\nOops: Oops: 0000 [#1] SMP",
            "BUG: unable to handle kernel paging request",
            "MEMORY_SAFETY_BUG",
        ),
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000008\nOops: 0000 [#1] SMP",
            "BUG: unable to handle kernel NULL pointer dereference",
            "NULL-POINTER-DEREFERENCE",
        ),
        ("stack segment: 0000 [#1] SMP", "stack segment fault", "DoS"),
        ("Oops: divide error: 0000 [#1] SMP", "divide error", "DoS"),
        ("divide_error: 0000 [#1] PREEMPT SMP KASAN", "divide error", "DoS"),
        ("int3: 0000 [#1] SMP", "int3", "DoS"),
        ("invalid opcode: 0000 [#1] SMP", "invalid opcode", "DoS"),
        (
            "traps: PANIC: double fault, error_code: 0x0\ndouble fault: 0000 [#1] SMP",
            "PANIC: double fault",
            "DoS",
        ),
        ("kernel BUG at net/foo.c:12!\ninvalid opcode: 0000 [#1] SMP", "kernel BUG", "BUG"),
    ] {
        check(&dump(head, "foo_do", "bar"), &format!("{title} in foo_do"), crash_type);
        check(&dump(head, "memcpy", "foo_do"), &format!("{title} in foo_do"), crash_type);
    }
    for stack in ["", "TASK ", "IRQ ", "#DF ", "ENTRY_TRAMPOLINE "] {
        let guard = format!(
            "BUG: {stack}stack guard page was hit at ffffc90003e78ff8 (stack is x..y)\nkernel stack overflow (double-fault): 0000 [#1] SMP"
        );
        check(
            &dump(&guard, "foo_do", "foo_do foo_do"),
            "BUG: stack guard page was hit in foo_ioctl",
            "UNKNOWN",
        );
    }
}

#[test]
fn assertions() {
    let bug = |place: &str| {
        format!(
            "------------[ cut here ]------------\nkernel BUG at {place}!\ninvalid opcode: 0000 [#1] SMP"
        )
    };
    for (head, pc, callers, title, crash_type) in [
        (
            bug("net/core/skbuff.c:192"),
            "skb_panic",
            "skb_under_panic skb_push foo_do",
            "kernel BUG in foo_do",
            "BUG",
        ),
        (
            bug("mm/usercopy.c:102"),
            "usercopy_abort",
            "__check_heap_object __check_object_size foo_do",
            "BUG: bad usercopy in foo_do",
            "BUG",
        ),
        (
            bug("mm/usercopy.c:102"),
            "usercopy_abort",
            "__check_heap_object __check_object_size copyout _copy_to_iter copy_foo_to_user",
            "BUG: bad usercopy in copy_foo_to_user",
            "BUG",
        ),
        (
            format!("list_del corruption. prev->next should be x\n{}", bug("lib/list_debug.c:59")),
            "__list_del_entry_valid_or_report",
            "list_del foo_do",
            "BUG: corrupted list in foo_do",
            "MEMORY_SAFETY_BUG",
        ),
        (bug("fs/btrfs/ctree.h:3387"), "assertfail", "foo_do", "kernel BUG in foo_do", "BUG"),
        (
            format!(
                "rust_kernel: panicked at drivers/foo.rs:12:5:\n{}",
                bug("rust/helpers/bug.c:7")
            ),
            "rust_helper_BUG",
            "_RNvCscSpY9Juk0HT_7___rustc17rust_begin_unwind _RNvNtCs43vyB533jt3_4core9panicking9panic_fmt _RNvNtCs43vyB533jt3_4core6option13unwrap_failed foo_do",
            "kernel BUG in foo_do",
            "BUG",
        ),
    ] {
        check(&dump(&head, pc, callers), title, crash_type);
    }
}

/// Up to v4.19 a panic prints the registers of a warning in the middle of its stack. What is below them
/// is who warned, whatever stacks follow.
#[test]
fn warnings_before_a_panic() {
    let innermost = "dump_stack panic __warn report_bug do_trap do_error_trap invalid_op";
    let log = format!(
        "WARNING: CPU: 1 PID: 1234 at lib/refcount.c:153 refcount_inc+0x47/0x50\n\
         Kernel panic - not syncing: panic_on_warn set ...\n\n{TASK}\nCall Trace:\n{}\
         RIP: 0010:refcount_inc+0x47/0x50\nRSP: 0018:ffff8801c7c5f860 EFLAGS: 00010286\n{}\
         Dumping ftrace buffer:\n{TASK}\nCall Trace:\n{}",
        frames(innermost),
        frames(&format!("foo_do {ENTRY}")),
        frames("other_do other_entry other_end")
    );
    check(&log, "WARNING: refcount bug in foo_do", "REFCOUNT_WARNING");
}

#[test]
fn warnings() {
    let at = |place: &str, pc: &str| format!("WARNING: CPU: 1 PID: 1234 at {place} {pc}+0x10/0x20");
    for (place, pc, callers, title, crash_type) in [
        ("net/foo.c:12", "foo_do", "", "WARNING in foo_do", "WARNING"),
        (
            "lib/refcount.c:28",
            "refcount_warn_saturate",
            "kref_put foo_do",
            "WARNING: refcount bug in foo_do",
            "REFCOUNT_WARNING",
        ),
        (
            "lib/debugobjects.c:518",
            "debug_print_object",
            "debug_check_no_obj_freed kfree foo_do",
            "WARNING: ODEBUG bug in foo_do",
            "WARNING",
        ),
        (
            "lib/kobject.c:352",
            "kobject_add_internal",
            "kobject_add device_add foo_do",
            "WARNING: kobject bug in foo_do",
            "WARNING",
        ),
        (
            "fs/proc/generic.c:377",
            "proc_register",
            "proc_create_data foo_do",
            "WARNING: proc registration bug in foo_do",
            "WARNING",
        ),
        (
            "kernel/locking/lockdep.c:232",
            "hlock_class",
            "__lock_acquire _raw_spin_lock foo_do",
            "WARNING: locking bug in foo_do",
            "LOCKDEP",
        ),
        // What lockdep says of itself and of interrupt flags is no lock's fault.
        ("kernel/locking/lockdep.c:5525", "check_flags", "", "WARNING in check_flags", "WARNING"),
        ("mm/util.c:597", "kvmalloc_node", "foo_do", "WARNING: kmalloc bug in foo_do", "WARNING"),
        (
            "mm/page_alloc.c:4455",
            "__alloc_frozen_pages_noprof",
            "alloc_pages_mpol folio_alloc __kmalloc_noprof foo_do",
            "WARNING in foo_do",
            "WARNING",
        ),
        (
            "drivers/usb/core/urb.c:503",
            "usb_submit_urb",
            "usb_start_wait_urb usb_control_msg foo_do",
            "WARNING in foo_do/usb_submit_urb",
            "WARNING",
        ),
        // These look like helpers and are none.
        (
            "kernel/softirq.c:362",
            "__local_bh_enable_ip",
            "foo_do",
            "WARNING in __local_bh_enable_ip",
            "WARNING",
        ),
        (
            "mm/page_alloc.c:3012",
            "get_page_from_freelist",
            "__alloc_pages_noprof foo_do",
            "WARNING in get_page_from_freelist",
            "WARNING",
        ),
        (
            "fs/btrfs/extent-io-tree.c:400",
            "set_state_bits",
            "__set_extent_bit foo_do",
            "WARNING in set_state_bits",
            "WARNING",
        ),
        (
            "kernel/smp.c:815",
            "smp_call_function_many_cond",
            "",
            "WARNING in smp_call_function_many_cond",
            "WARNING",
        ),
    ] {
        check(&dump(&at(place, pc), pc, callers), title, crash_type);
        // Since v6.18 the place comes first.
        let head = format!("WARNING: {place} at {pc}+0x10/0x20, CPU#1: worker/1234");
        check(&dump(&head, pc, callers), title, crash_type);
    }
    // Without CONFIG_DEBUG_BUGVERBOSE no file is known.
    for head in [
        "WARNING: CPU: 1 PID: 1234 at foo_do+0x10/0x20",
        "WARNING: at foo_do+0x10/0x20, CPU#1: worker/1234",
        "WARNING: [a[0] == 0 && b] net/foo.c:12 at foo_do+0x10/0x20, CPU#1: worker/1234",
    ] {
        check(&dump(head, "foo_do", "bar"), "WARNING in foo_do", "WARNING");
    }
}

#[test]
fn sanitizers() {
    let kasan = |what: &str, rw: &str| {
        let head = format!("BUG: KASAN: {what} in memcpy+0x10/0x20\n{rw} by task worker/1234\n");
        let freed = frames("kasan_save_stack kfree foo_free");
        stack(&head, "print_report kasan_report memcpy foo_do") + "\nFreed by task 1235:\n" + &freed
    };
    for (what, title, crash_type) in [
        ("slab-use-after-free", "slab-use-after-free Read", "KASAN-USE-AFTER-FREE-READ"),
        ("vmalloc-out-of-bounds", "vmalloc-out-of-bounds Read", "KASAN-READ"),
        ("null-ptr-deref", "null-ptr-deref Read", "KASAN-NULL-POINTER-DEREFERENCE-READ"),
    ] {
        let log = kasan(what, "Read of size 8 at addr ffff88807a2d0000");
        check(&log, &format!("KASAN: {title} in foo_do"), crash_type);
    }
    // A symboliser names what was inlined, too.
    let inlined = kasan("slab-use-after-free", "Write of size 8 at addr ffff88807a2d0000")
        .replacen(
            "in memcpy",
            "in a_read include/linux/a.h:68 [inline]\nBUG: KASAN: slab-use-after-free in memcpy",
            1,
        );
    check(&inlined, "KASAN: slab-use-after-free Write in foo_do", "KASAN-USE-AFTER-FREE-WRITE");
    let twice = kasan("double-free", "Free of addr ffff88807a2d0000");
    check(&twice, "KASAN: invalid-free in foo_do", "KASAN-INVALID-FREE");
    for (what, inner, title, crash_type) in [
        ("uninit-value", "", "KMSAN: uninit-value", "KMSAN-UNINIT-VALUE"),
        (
            "kernel-infoleak",
            "_copy_to_iter simple_copy_to_iter",
            "KMSAN: kernel-infoleak",
            "KMSAN-INFO-LEAK",
        ),
        (
            "kernel-usb-infoleak",
            "usb_submit_urb usb_start_wait_urb",
            "KMSAN: kernel-usb-infoleak",
            "KMSAN-INFO-LEAK",
        ),
    ] {
        let named = inner.split(' ').next().filter(|n| !n.is_empty()).unwrap_or("foo_do");
        let log = format!(
            "BUG: KMSAN: {what} in {named}+0x10/0x20\n{}\nUninit was created at:\n{}\n{TASK}\n",
            frames(&format!("{inner} foo_do {ENTRY}")),
            frames("kmem_cache_alloc foo_alloc")
        );
        check(&log, &format!("{title} in foo_do"), crash_type);
    }
    // Whoever hands out a whole buffer is named, whatever copied it; a cipher is not.
    for (what, inner, title, crash_type) in [
        ("kernel-infoleak", "_copy_to_user put_cmsg", "put_cmsg", "KMSAN-INFO-LEAK"),
        (
            "kernel-infoleak",
            "_copy_to_iter simple_copy_to_iter __skb_datagram_iter",
            "__skb_datagram_iter",
            "KMSAN-INFO-LEAK",
        ),
        (
            "uninit-value",
            "crc32c_generic chksum_update crypto_shash_update",
            "foo_do",
            "KMSAN-UNINIT-VALUE",
        ),
        ("uninit-value", "aes_encrypt crypto_ecb_encrypt", "foo_do", "KMSAN-UNINIT-VALUE"),
        ("uninit-value", "tipc_aead_encrypt", "tipc_aead_encrypt", "KMSAN-UNINIT-VALUE"),
    ] {
        let named = inner.split(' ').next().unwrap_or_default();
        let log = format!(
            "BUG: KMSAN: {what} in {named}+0x10/0x20\n{}\nUninit was created at:\n{}\n{TASK}\n",
            frames(&format!("{inner} foo_do {ENTRY}")),
            frames("kmem_cache_alloc foo_alloc")
        );
        check(&log, &format!("KMSAN: {what} in {title}"), crash_type);
        // Before it was merged, it printed a heading.
        let headed = stack(
            &format!("BUG: KMSAN: {what} in {named}+0x10/0x20"),
            &format!("kmsan_report __msan_warning {inner} foo_do"),
        );
        check(&headed, &format!("KMSAN: {what} in {title}"), crash_type);
    }
    let race = format!(
        "BUG: KCSAN: data-race in foo_do / bar_do\n\nwrite to 0xffff8880 of 8 bytes by task 1 on cpu 0:\n{}\nread to 0xffff8880 of 8 bytes by interrupt on cpu 1:\n{}",
        frames("foo_do x"),
        frames("bar_do y")
    );
    check(&race, "KCSAN: data-race in foo_do / bar_do", "KCSAN-DATARACE");
    check("BUG: KCSAN: data-race in", "KCSAN: data-race in", "KCSAN-DATARACE");
    for (what, checker, crash_type) in [
        ("shift-out-of-bounds", "__ubsan_handle_shift_out_of_bounds", "UBSAN"),
        ("array-index-out-of-bounds", "__ubsan_handle_out_of_bounds", "MEMORY_SAFETY_UBSAN"),
        ("signed-integer-overflow", "handle_overflow __ubsan_handle_add_overflow", "UBSAN"),
        ("misaligned-access", "handle_misaligned_access ubsan_type_mismatch_common", "UBSAN"),
    ] {
        let log = stack(
            &format!("UBSAN: {what} in net/foo.c:12:34"),
            &format!("ubsan_epilogue {checker} foo_do"),
        );
        check(&log, &format!("UBSAN: {what} in foo_do"), crash_type);
    }
}

#[test]
fn hangs() {
    let soft =
        dump("watchdog: BUG: soft lockup - CPU#1 stuck for 143s! [worker:1234]", "spin", "foo_do");
    check(&soft, "BUG: soft lockup in foo_ioctl", "HANG");
    let stall =
        "rcu: INFO: rcu_preempt self-detected stall on CPU\nrcu: \t1-...!: (10499 ticks this GP)\n";
    check(&dump(stall, "spin", "foo_do"), "INFO: rcu detected stall in foo_ioctl", "HANG");
    let ticked = format!(
        "{stall}{TASK}\nCall Trace:\n <IRQ>\n{} </IRQ>\n asm_sysvec_apic_timer_interrupt+0x16/0x20\n{}{}",
        frames("print_cpu_stall rcu_sched_clock_irq update_process_times"),
        registers("spin"),
        frames("foo_do rtc_work process_one_work worker_thread kthread ret_from_fork")
    );
    check(&ticked, "INFO: rcu detected stall in rtc_work", "HANG");
    let other = format!(
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {{ 1-...D }}\nSending NMI from CPU 0 to CPUs 1:\nNMI backtrace for cpu 1\n{TASK}\n{}Call Trace:\n <NMI>\n </NMI>\n <TASK>\n{}",
        registers("spin"),
        frames("smp_call_function_many_cond on_each_cpu foo_do do_syscall_64")
    );
    check(&other, "INFO: rcu detected stall in smp_call_function", "HANG");
    // Since v5.16 a CPU that finds itself stuck prints its registers, and guesses what is above them.
    let guessed = format!(
        "{stall}{TASK}\n{}Call Trace:\n <IRQ>\n ? rcu_dump_cpu_stacks+0x10/0x20\n ? __sysvec_apic_timer_interrupt+0x10/0x20\n </IRQ>\n <TASK>\n ? asm_sysvec_apic_timer_interrupt+0x10/0x20\n{}",
        registers("smp_call_function_many_cond"),
        frames(&format!("foo_do {ENTRY}"))
    );
    check(&guessed, "INFO: rcu detected stall in foo_ioctl", "HANG");
    let hung = |callers: &str| {
        format!(
            "INFO: task worker:1234 blocked for more than 143 seconds.\ntask:worker state:D pid:1234\n{}",
            trace(&format!("context_switch __schedule schedule {callers} {ENTRY}"))
        )
    };
    for (callers, title) in [
        ("schedule_preempt_disabled __mutex_lock foo_do", "foo_do"),
        ("schedule_timeout __wait_for_common wait_for_completion foo_do", "foo_do"),
        ("io_schedule folio_wait_bit_common __folio_lock foo_do", "foo_do"),
        ("__mutex_lock rtnl_lock foo_do", "rtnl_lock"),
        ("synchronize_rcu_expedited synchronize_net foo_do", "synchronize_rcu"),
        ("usb_kill_urb foo_do", "foo_do"),
        ("schedule_preempt_disabled __mutex_lock pcpu_alloc_noprof foo_do", "pcpu_alloc_noprof"),
        ("schedule_timeout __wait_for_common __flush_work cancel_work_sync foo_do", "foo_do"),
        ("rwsem_down_write_slowpath down_write do_user_addr_fault", "do_user_addr_fault"),
    ] {
        check(&hung(callers), &format!("INFO: task hung in {title}"), "HANG");
    }
    // The frame right inside whatever dispatches operations of many kinds.
    let thread = "worker_thread kthread ret_from_fork";
    let send = "netlink_unicast netlink_sendmsg __sock_sendmsg __sys_sendto do_syscall_64";
    for (callers, title) in [
        (
            "foo_do foo_connect __sys_connect_file __sys_connect __x64_sys_connect do_syscall_64"
                .to_owned(),
            "foo_connect",
        ),
        ("foo_do foo_connect SYSC_connect SyS_connect do_syscall_64".to_owned(), "foo_connect"),
        (format!("foo_do genl_rcv_msg netlink_rcv_skb genl_rcv {send}"), "netlink_sendmsg"),
        (format!("foo_do foo_newlink rtnetlink_rcv_msg netlink_rcv_skb {send}"), "foo_newlink"),
        (
            "foo_do foo_sock_release __sock_release sock_close __fput do_syscall_64".to_owned(),
            "foo_sock_release",
        ),
        (format!("foo_do foo_work process_scheduled_works {thread}"), "foo_work"),
        (format!("foo_do foo_work process_one_work {thread}"), "foo_work"),
        // A worker without work.
        (format!("preempt_schedule_irq schedule {thread}"), "worker_thread"),
        ("foo_do foo_get_tree vfs_get_tree __x64_sys_mount do_syscall_64".to_owned(), "sys_mount"),
        (
            "foo_do get_signal exit_to_user_mode_loop syscall_exit_to_user_mode do_syscall_64"
                .to_owned(),
            "syscall_exit_to_user_mode",
        ),
        (
            "foo_do kvm_mmu_page_fault kvm_vcpu_ioctl __se_sys_ioctl do_syscall_64".to_owned(),
            "kvm_vcpu_ioctl",
        ),
        ("foo_do handle_mm_fault __do_page_fault do_page_fault".to_owned(), "handle_mm_fault"),
        (
            "clear_page_erms foo_do __handle_mm_fault handle_mm_fault do_user_addr_fault exc_page_fault"
                .to_owned(),
            "foo_do",
        ),
    ] {
        let log = format!(
            "watchdog: BUG: soft lockup - CPU#1 stuck for 143s! [worker:1234]\n{TASK}\n{}{}",
            registers("spin"),
            trace(&callers)
        );
        check(&log, &format!("BUG: soft lockup in {title}"), "HANG");
    }
    check(
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 37s!",
        "BUG: workqueue lockup",
        "HANG",
    );
}

#[test]
fn locks() {
    let named = |head: &str, middle: &str| {
        stack(
            &format!(
                "{head}\n6.6.0-rc1 #1 Not tainted\n-----------------------------\n{middle}\nstack backtrace:"
            ),
            "__lock_acquire lock_acquire _raw_spin_lock foo_do",
        )
    };
    let at = "ffff88807a2d0000 (&foo->lock){+.+.}-{3:3}, at: foo_do+0x10/0x20";
    let helper = "ffff88807a2d0000 (&foo->lock){+.+.}-{3:3}, at: _raw_spin_lock+0x10/0x20";
    let holds = "\nbut task is already holding lock:\nffff88807a2d0001 (&bar->lock){+.+.}-{3:3}, at: foo_do+0x10/0x20";
    for (head, middle, title, crash_type) in [
        ("WARNING: possible circular locking dependency detected", format!("worker/1234 is trying to acquire lock:\n{at}"), "possible deadlock in foo_do", "LOCKDEP"),
        ("WARNING: possible circular locking dependency detected", format!("worker/1234 is trying to acquire lock:\n{helper}\n{holds}"), "possible deadlock in foo_do", "LOCKDEP"),
        ("[ INFO: possible circular locking dependency detected ]", format!("worker/1234 is trying to acquire lock:\n{}\n{holds}", at.replace("foo_do", "__might_fault")), "possible deadlock in __might_fault", "LOCKDEP"),
        ("[ INFO: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected ]", format!("worker/1234 [HC0[0]:SC0[0]:HE0:SE1] is trying to acquire:\n{at}\n... which became SOFTIRQ-irq-safe at:\n  lock_acquire+0x10/0x20\n  bar_do+0x10/0x20\n"), "possible deadlock in foo_do", "LOCKDEP"),
        ("WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected", format!("worker/1234 [HC0[0]:SC0[0]:HE0:SE1] is trying to acquire:\n{at}\n... which became SOFTIRQ-irq-safe at:\n  lock_acquire+0x10/0x20\n  bar_do+0x10/0x20\n"), "possible deadlock in bar_do", "LOCKDEP"),
        ("WARNING: possible recursive locking detected", format!("worker/1234 is trying to acquire lock:\n{at}"), "possible deadlock in foo_do", "LOCKDEP"),
        ("WARNING: possible irq lock inversion dependency detected", format!("worker/1234 just changed the state of lock:\n{at}"), "possible deadlock in foo_do", "LOCKDEP"),
        ("WARNING: inconsistent lock state", format!("worker/1234 [HC0[0]:SC1[1]:HE1:SE0] takes:\n{at}"), "inconsistent lock state in foo_do", "LOCKDEP"),
        ("WARNING: suspicious RCU usage", "net/foo.c:123 suspicious rcu_dereference_check() usage!\n".into(), "WARNING: suspicious RCU usage in foo_do", "LOCKDEP"),
        ("WARNING: held lock freed!", format!("worker/1234 is freeing memory 1-2, with a lock still held there!\n{at}"), "WARNING: held lock freed in foo_do", "LOCKDEP"),
        ("WARNING: bad unlock balance detected!", "worker/1234 is trying to release lock (&foo->lock) at:\n[<ffffffff88a2d000>] foo_do+0x10/0x20\nbut there are no more locks to release!".into(), "WARNING: bad unlock balance in foo_do", "LOCKDEP"),
        ("[ BUG: bad unlock balance detected! ]", "worker/1234 is trying to release lock (&foo->lock) at:\n[<ffffffff88a2d000>] foo_do+0x10/0x20".into(), "BUG: bad unlock balance in foo_do", "LOCKDEP"),
        ("WARNING: lock held when returning to user space!", format!("worker/1234 is leaving the kernel with locks still held!\n1 lock held by worker/1234:\n #0: {at}"), "WARNING: lock held when returning to user space in foo_do", "LOCKDEP"),
        ("WARNING: worker/1234 still has locks held!", format!("1 lock held by worker/1234:\n #0: {at}"), "WARNING: still has locks held in foo_do", "LOCKDEP"),
        ("[ BUG: worker/1234 still has locks held! ]", "1 lock held by worker/1234:\n #0:  (&foo->lock){+.+.+.}, at: [<ffffffff88a2d000>] foo_do+0x10/0x20".into(), "BUG: still has locks held in foo_do", "LOCKDEP"),
        ("WARNING: Nested lock was not taken", format!("worker/1234 is trying to lock:\n{at}"), "WARNING: nested lock was not taken in foo_do", "LOCKDEP"),
        ("[ BUG: Invalid wait context ]", format!("worker/1234 is trying to lock:\n{at}"), "WARNING: locking bug in foo_do", "LOCKDEP"),
        ("INFO: trying to register non-static key.", "The code is fine but needs lockdep annotation.".into(), "INFO: trying to register non-static key in foo_do", "UNKNOWN"),
    ] {
        check(&named(head, &middle), title, crash_type);
    }
    // Who takes the locks is a helper of locking; who holds others besides is not asked.
    let others = format!("\n1 lock held by worker/1234:\n #0: {}", at.replace("foo_do", "bar_do"));
    for (head, holds) in [
        ("circular locking dependency", holds.replace("foo_do", "down_write")),
        ("recursive locking", holds.replace("foo_do", "down_read")),
    ] {
        let log = named(
            &format!("WARNING: possible {head} detected"),
            &format!("worker/1234 is trying to acquire lock:\n{helper}\n{holds}{others}"),
        );
        check(&log, "possible deadlock in foo_do", "LOCKDEP");
    }
    // A symboliser repeats the line for what was inlined at its place.
    let inlined = format!(
        "{}\n{}",
        at.replace("foo_do+0x10/0x20", "inode_lock include/linux/fs.h:756 [inline]"),
        at.replace("0x20", "0x20 net/foo.c:12")
    );
    for head in ["circular locking dependency", "recursive locking"] {
        let log = named(
            &format!("WARNING: possible {head} detected"),
            &format!("worker/1234 is trying to acquire lock:\n{inlined}"),
        );
        check(&log, "possible deadlock in foo_do", "LOCKDEP");
    }
    // Lines of others in between, where nothing says whose they are.
    let noise = "netlink: 8 bytes leftover after parsing attributes\n".repeat(60);
    let head = "WARNING: possible recursive locking detected\n";
    let log = named(head.trim(), &format!("worker/1234 is trying to acquire lock:\n{at}"));
    check(
        &log.replacen(head, &format!("{head}{noise}"), 1),
        "possible deadlock in foo_do",
        "LOCKDEP",
    );
    for kind in [
        "spinlock bad magic",
        "spinlock recursion",
        "spinlock already unlocked",
        "spinlock lockup suspected",
        "spinlock trylock failure on UP",
        "rwlock bad magic",
        "rwlock wrong owner",
        "rwlock cpu recursion",
    ] {
        let log = stack(
            &format!("BUG: {kind} on CPU#1, worker/1234"),
            "spin_dump spin_bug rwlock_bug do_raw_spin_lock _raw_spin_lock foo_do",
        );
        check(&log, &format!("BUG: {kind} in foo_do"), "LOCKDEP");
    }
    for (head, callers, title, crash_type) in [
        (
            "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580",
            "__might_resched __mutex_lock foo_do",
            "BUG: sleeping function called from invalid context in foo_do",
            "ATOMIC_SLEEP",
        ),
        (
            "BUG: scheduling while atomic: worker/1234/0x00000002",
            "__schedule_bug __schedule schedule foo_do",
            "BUG: scheduling while atomic in foo_do",
            "ATOMIC_SLEEP",
        ),
        (
            "BUG: using __this_cpu_add() in preemptible [00000000] code: worker/1234",
            "check_preemption_disabled __this_cpu_preempt_check foo_do",
            "BUG: using __this_cpu_add() in preemptible code in foo_do",
            "LOCKDEP",
        ),
    ] {
        check(&stack(head, callers), title, crash_type);
    }
    for line in
        ["     last function: foo_do", "     preempt=0x00000000 lock=1->0 RCU=0->1 workfn=foo_do"]
    {
        let log = stack(
            &format!("BUG: workqueue leaked lock or atomic: kworker/0:1/0x00000001/12\n{line}"),
            "process_one_work",
        );
        check(&log, "BUG: workqueue leaked lock or atomic in foo_do", "UNKNOWN");
    }
}

#[test]
fn memory() {
    let leak = format!(
        "BUG: memory leak\nunreferenced object 0xffff88807a2d0000 (size 64):\n  comm \"worker\", pid 1234\n  backtrace (crc 1234abcd):\n{}",
        frames(&format!(
            "kmemleak_alloc slab_post_alloc_hook kmalloc_trace kzalloc foo_do {ENTRY}"
        ))
    );
    check(&leak, "memory leak in foo_do", "LEAK");
    // Whoever copies or keeps what it was given is named; whatever allocates for its caller is not.
    for (callers, title) in [
        ("kmem_cache_alloc skb_clone foo_do", "skb_clone"),
        ("__kmalloc bio_copy_user_iov blk_rq_map_user_iov foo_do", "bio_copy_user_iov"),
        ("kmalloc_trace device_private_init device_add foo_do", "device_private_init"),
        ("kmem_cache_alloc_node __alloc_skb alloc_skb_with_frags foo_do", "foo_do"),
        ("kmem_cache_alloc radix_tree_node_alloc idr_get_free foo_do", "foo_do"),
        ("pcpu_mem_zalloc pcpu_create_chunk pcpu_alloc htab_map_alloc foo_do", "foo_do"),
    ] {
        let log = format!(
            "BUG: memory leak\nunreferenced object 0xffff88807a2d0000 (size 64):\n  backtrace:\n{}",
            frames(&format!("{callers} {ENTRY}"))
        );
        check(&log, &format!("memory leak in {title}"), "LEAK");
    }
    let bad = stack(
        "BUG: Bad page state in process worker  pfn:12345\npage dumped because: nonzero mapcount",
        "bad_page free_unref_page __put_page put_page foo_do",
    );
    check(&bad, "BUG: Bad page state in foo_do", "UNKNOWN");
    let again = stack(
        "BUG kmalloc-64 (Not tainted): Object already free",
        "object_err free_to_partial_list kfree foo_do",
    );
    check(&again, "BUG: Object already free in foo_do", "UNKNOWN");
    let tracked = again.replacen(
        "free\n",
        "free\nINFO: Allocated in foo_alloc+0x29/0x90 age=1 cpu=1 pid=6024\n\tfoo_alloc+0x29/0x90\nINFO: Freed in foo_free+0x29/0x90 age=1 cpu=1 pid=6024\n\tfoo_free+0x29/0x90\nINFO: Slab 0xffffea0002d18440 objects=18 used=18\nINFO: Object 0xffff8800b46111c0 @offset=4544\n",
        1,
    );
    check(&tracked, "BUG: Object already free in foo_do", "UNKNOWN");
    for (what, title) in [
        ("Poison overwritten", "BUG: Poison overwritten in foo_do"),
        ("Redzone overwritten", "BUG: Redzone overwritten in foo_do"),
        ("Right Redzone overwritten", "BUG: Right Redzone overwritten in foo_do"),
    ] {
        let damaged = stack(
            &format!(
                "BUG kmalloc-64 (Tainted: G    B   W        ): {what}\nINFO: 0xffff8800b4611200-0xffff8800b4611207 @offset=512. First byte 0x6a instead of 0x6b\nINFO: Allocated in foo_alloc+0x29/0x90 age=1 cpu=1 pid=6024\n\tfoo_alloc+0x29/0x90"
            ),
            "print_trailer check_bytes_and_report check_object alloc_debug_processing __kmalloc foo_do",
        );
        check(&damaged, title, "UNKNOWN");
    }
    let cached = stack(
        "BUG: Bad page cache in process worker  pfn:12345",
        "unaccount_page_cache_page __delete_from_page_cache foo_do",
    );
    check(&cached, "BUG: Bad page cache in foo_do", "UNKNOWN");
    for (line, title, crash_type) in [
        (
            "BUG: Bad rss-counter state mm:ffff88807a2d0000 type:MM_ANONPAGES val:1",
            "BUG: Bad rss-counter state",
            "UNKNOWN",
        ),
        (
            "BUG: non-zero pgtables_bytes on freeing mm: 4096",
            "BUG: non-zero pgtables_bytes on freeing mm",
            "UNKNOWN",
        ),
        ("VFS: Close: file count is 0", "VFS: Close: file count is zero (use-after-free)", "DoS"),
        (
            "VFS: Busy inodes after unmount of loop0. Self-destruct in 5 seconds.",
            "VFS: Busy inodes after unmount (use-after-free)",
            "DoS",
        ),
    ] {
        check(line, title, crash_type);
    }
}

#[test]
fn panics() {
    for (reason, callers, title) in [
        (
            "Attempted to kill init! exitcode=0x00000009",
            "panic do_exit",
            "kernel panic: Attempted to kill init!",
        ),
        (
            "corrupted stack end detected inside scheduler",
            "panic __schedule schedule foo_do",
            "kernel panic: corrupted stack end in foo_ioctl",
        ),
        (
            "stack-protector: Kernel stack is corrupted in: foo_do+0x10/0x20",
            "panic __stack_chk_fail foo_do",
            "kernel panic: stack is corrupted in foo_do",
        ),
        (
            "VFS: Unable to mount root fs on unknown-block(0,0)",
            "panic mount_root",
            "kernel panic: VFS: Unable to mount root fs on unknown-block(NUM,NUM)",
        ),
    ] {
        let log = stack(&format!("Kernel panic - not syncing: {reason}"), callers);
        check(&log, title, "DoS");
        assert!(read(log.as_bytes()).reports[0].panicked);
    }
}

/// arm64 and riscv, whose faults have other words.
#[test]
fn other_machines() {
    let arm64 = |head: &str| {
        format!(
            "{head}\nInternal error: Oops: 9600004f [#1] PREEMPT SMP\n{TASK}\npc : foo_do+0x10/0x20\nlr : bar+0x10/0x20\nCall trace:\n{}",
            frames("foo_do bar el0_svc")
        )
    };
    let riscv = |head: &str| {
        format!(
            "{head}\n{TASK}\nepc : foo_do+0x8/0x20\n ra : bar+0x6e/0x1000\n[<ffffffff01562008>] foo_do+0x8/0x20\n[<ffffffff0156206e>] bar+0x6e/0x1000\n"
        )
    };
    for (log, title, crash_type) in [
        (
            arm64(
                "Unable to handle kernel write to read-only memory at virtual address ffff000012345678",
            ),
            "BUG: unable to handle kernel write to read-only memory in foo_do",
            "MEMORY_SAFETY_BUG",
        ),
        (
            arm64(
                "Unable to handle kernel access to user memory outside uaccess routines at virtual address 20",
            ),
            "BUG: unable to handle kernel access to user memory in foo_do",
            "MEMORY_SAFETY_BUG",
        ),
        (
            arm64("Bad mode in Synchronous Abort handler detected on CPU0, code 0x86000005"),
            "Internal error in foo_do",
            "DoS",
        ),
        (
            riscv("Unable to handle kernel paging request at virtual address ff1f\nOops [#1]"),
            "BUG: unable to handle kernel paging request in foo_do",
            "MEMORY_SAFETY_BUG",
        ),
        (riscv("kernel BUG at net/foo.c:12!\nKernel BUG [#1]"), "kernel BUG in foo_do", "BUG"),
    ] {
        check(&log, title, crash_type);
    }
}

/// Programs in Go on the same console.
#[test]
fn runtimes() {
    for (log, title) in [
        ("panic: failed to open 12\n\ngoroutine 1 [running]:", "panic: failed to open NUM"),
        ("fatal error: concurrent map writes\n\ngoroutine 7 [running]:", "go runtime error"),
        ("fatal error: all goroutines are asleep - deadlock!", "go runtime error"),
    ] {
        let report = &read(log.as_bytes()).reports[0];
        assert_eq!((report.title.as_str(), report.crash_type.as_str()), (title, "DoS"));
        assert!(!report.corrupted);
    }
}

/// Two headlines in one line.
#[test]
fn precedence() {
    let quoted = read(b"SYZFATAL: BUG: program execution failed: executor 0: exit status 67\n");
    let title = "BUG: program execution failed: executor NUM: exit status NUM";
    assert_eq!(quoted.reports[0].title, title);
    let trap = dump("Internal error: Oops - BUG: 0 [#1] SMP ARM", "foo_do", "bar");
    check(&trap, "Internal error in foo_do", "DoS");
}

#[test]
fn no_report() {
    for line in [
        "INFO: task a:12 <reader> blocked on an rw-semaphore likely owned by task b:13 <writer>",
        "INFO: task a:12 is blocked on a mutex likely owned by task b:13.",
        "rmt_storage:INFO: main: done with init",
        "ALSA: seq fatal error: cannot create timer (-22)",
        "[drm:sde_dbg_init:3432] xlog_status: enable:0, panic: 1, dump:2",
        "skbuff: skb_over_panic: text:ffffffff8361ffaf len:120 put:60",
        "INFO: lockdep is turned off.",
        "INFO: NMI handler (perf_event_nmi_handler) took too long to run: 1.5 msecs",
        "WARNING: The mand mount option has been deprecated and",
        "XFS (loop0): WARNING: Reset corrupted AGFL on AG 0.",
        "traps: worker[1234] general protection fault ip:7f26a1e7cae9 sp:7f26a2b4d0c8 error:0 in worker[7f26a1e00000+1c000]",
        "unchecked MSR access error: WRMSR to 0x1d9 (tried to write 0x4000) at rIP: 0xffffffff8107a4e4",
    ] {
        assert_eq!(read(format!("[   57.000000] {line}\n").as_bytes()).reports, [], "{line}");
    }
}
