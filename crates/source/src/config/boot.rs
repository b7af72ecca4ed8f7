//! Options that are known to matter for whether a kernel boots.
//!
//! Decides from the name alone. The list is biased towards naming too much: a name here only moves
//! an option to the top of a list. Main function: [`topic`].

/// What an option has to do with boot, in the order in which reports show it.
pub const TOPICS: &[(&str, &[&str])] = &[
    (
        "paravirtual guest",
        &[
            "PARAVIRT",
            "PARAVIRT_*",
            "KVM_GUEST",
            "HYPERVISOR_GUEST",
            "XEN",
            "XEN_PV*",
            "XEN_PVH*",
            "XEN_SMP",
            "HYPERV",
            "PVH",
            "ARCH_CPUIDLE_HALTPOLL",
            "JAILHOUSE_GUEST",
            "INTEL_TDX_GUEST",
            "AMD_MEM_ENCRYPT*",
            "VMGENID",
        ],
    ),
    (
        "unwinder and frame pointers",
        &[
            "UNWINDER_*",
            "FRAME_POINTER",
            "STACK_VALIDATION",
            "OBJTOOL",
            "HAVE_STACK_VALIDATION",
            "NOINSTR_VALIDATION",
        ],
    ),
    (
        "stack protector",
        &[
            "STACKPROTECTOR*",
            "CC_HAS_SANE_STACKPROTECTOR",
            "VMAP_STACK",
            "RANDOMIZE_KSTACK_OFFSET*",
            "SHADOW_CALL_STACK",
            "THREAD_INFO_IN_TASK",
        ],
    ),
    (
        "KASLR and relocation",
        &[
            "RANDOMIZE_BASE",
            "RANDOMIZE_MEMORY*",
            "RELOCATABLE",
            "X86_NEED_RELOCS",
            "PHYSICAL_START",
            "PHYSICAL_ALIGN",
            "DYNAMIC_MEMORY_LAYOUT",
        ],
    ),
    (
        "mitigations",
        &[
            "SPECULATION_MITIGATIONS",
            "CPU_MITIGATIONS",
            "RETPOLINE",
            "RETHUNK",
            "CPU_UNRET_ENTRY",
            "CPU_IBPB_ENTRY",
            "CPU_IBRS_ENTRY",
            "CPU_SRSO",
            "CALL_DEPTH_TRACKING",
            "SLS",
            "GDS_FORCE_MITIGATION",
            "MITIGATION_*",
            "PAGE_TABLE_ISOLATION",
            "CALL_PADDING",
            "CALL_THUNKS",
            "PREFIX_SYMBOLS",
            "ZERO_CALL_USED_REGS",
            "X86_KERNEL_IBT",
            "X86_USER_SHADOW_STACK",
        ],
    ),
    (
        "compiler, LTO, CFI",
        &[
            "CC_IS_*",
            "GCC_VERSION",
            "CLANG_VERSION",
            "CC_VERSION_TEXT",
            "LD_IS_*",
            "LD_VERSION",
            "LLD_VERSION",
            "AS_IS_*",
            "AS_VERSION",
            "LTO*",
            "CFI*",
            "CC_OPTIMIZE_FOR_*",
            "GCC_PLUGIN*",
            "FINEIBT",
            "RUST",
            "CC_HAS_ASM_GOTO*",
            "JUMP_LABEL",
            "HAVE_STATIC_CALL*",
            "X86_NATIVE_CPU",
        ],
    ),
    (
        "SMP and processors",
        &[
            "SMP",
            "NR_CPUS*",
            "MAXSMP",
            "HOTPLUG_CPU",
            "X86_LOCAL_APIC",
            "X86_IO_APIC",
            "X86_X2APIC",
            "X86_64",
            "64BIT",
            "M386",
            "M486*",
            "MPENTIUM*",
            "GENERIC_CPU",
            "MK8",
            "MCORE2",
            "MATOM",
            "CPU_SUP_*",
            "MICROCODE*",
            "NUMA",
            "X86_FRED",
            "HOTPLUG_PARALLEL",
            "HOTPLUG_SPLIT_STARTUP",
        ],
    ),
    (
        "page tables and memory",
        &[
            "X86_5LEVEL",
            "X86_PAE",
            "HIGHMEM*",
            "PGTABLE_LEVELS",
            "SPARSEMEM*",
            "DEFERRED_STRUCT_PAGE_INIT",
            "STRICT_KERNEL_RWX",
            "STRICT_MODULE_RWX",
            "DEBUG_WX",
            "INIT_ON_*",
        ],
    ),
    (
        "timers and preemption",
        &["HZ", "HZ_*", "NO_HZ*", "HPET_TIMER", "PREEMPT*", "HIGH_RES_TIMERS", "X86_TSC", "TICK_*"],
    ),
    (
        "image, initramfs, firmware",
        &[
            "KERNEL_GZIP",
            "KERNEL_BZIP2",
            "KERNEL_LZMA",
            "KERNEL_XZ",
            "KERNEL_LZO",
            "KERNEL_LZ4",
            "KERNEL_ZSTD",
            "BLK_DEV_INITRD",
            "RD_*",
            "EFI",
            "EFI_STUB",
            "EFI_MIXED",
            "ACPI",
            "CMDLINE",
            "CMDLINE_*",
            "BINFMT_ELF",
            "BINFMT_SCRIPT",
            "DEVTMPFS",
            "DEVTMPFS_MOUNT",
            "BOOT_CONFIG*",
            "MODULES",
            "MODULE_SIG*",
            "SECURITY_LOCKDOWN*",
        ],
    ),
    (
        "console",
        &[
            "PRINTK",
            "TTY",
            "SERIAL_8250",
            "SERIAL_8250_CONSOLE",
            "SERIAL_CORE_CONSOLE",
            "EARLY_PRINTK*",
            "VGA_CONSOLE",
            "VT_CONSOLE",
            "HVC_*",
            "VIRTIO_CONSOLE",
        ],
    ),
    (
        "sanitizers and lock checks",
        &[
            "KASAN*",
            "KCSAN*",
            "KMSAN*",
            "UBSAN*",
            "KFENCE*",
            "PROVE_LOCKING",
            "LOCKDEP*",
            "DEBUG_LOCK_ALLOC",
            "DEBUG_VIRTUAL",
            "DEBUG_PAGEALLOC*",
            "SOFTLOCKUP_DETECTOR*",
            "HARDLOCKUP_DETECTOR*",
            "DETECT_HUNG_TASK",
            "PANIC_ON_OOPS*",
            "PANIC_TIMEOUT",
            "FTRACE",
            "DYNAMIC_FTRACE*",
            "FUNCTION_TRACER",
            "KCOV*",
        ],
    ),
];

/// The topic of an option; none for most.
pub fn topic(name: &str) -> Option<&'static str> {
    let fits = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    };
    TOPICS.iter().find(|(_, patterns)| patterns.iter().any(fits)).map(|(topic, _)| *topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_mails_are_about_is_known() {
        for (name, expected) in [
            ("PARAVIRT_SPINLOCKS", Some("paravirtual guest")),
            ("UNWINDER_ORC", Some("unwinder and frame pointers")),
            ("STACKPROTECTOR_STRONG", Some("stack protector")),
            ("RANDOMIZE_BASE", Some("KASLR and relocation")),
            ("MITIGATION_RETPOLINE", Some("mitigations")),
            ("SMP", Some("SMP and processors")),
            ("LTO_CLANG_THIN", Some("compiler, LTO, CFI")),
            ("CFI_CLANG", Some("compiler, LTO, CFI")),
            ("USB_SERIAL", None),
        ] {
            assert_eq!(topic(name), expected, "{name}");
        }
    }
}
