//! Names: the normalised title, the guilty function as a title shows it, and the crash type.
//!
//! Decides how two logs of the same crash get the same title: values become ADDR, NUM, LINE, IP, CPU,
//! and a function loses the wrappers around it. Follows syzkaller's conventions. May not know lines.

use std::sync::OnceLock;

use regex::Regex;

use crate::formats::Take;

/// Bytes of a title at most.
const MAX_TITLE: usize = 120;

/// Replaces values by their names and cuts what is too long.
pub(crate) fn normalise(title: &str) -> String {
    static RULES: OnceLock<Vec<(Regex, &'static str)>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        [
            // A place in a function says nothing about the crash.
            (r"\+0x[0-9a-f]+/0x[0-9a-f]+", ""),
            // Processes of the fuzzer are numbered and named by the run.
            (r"syz-executor\.?[0-9]+(?:[/:][0-9]+)?", "syz-executor"),
            (r"syzkaller[0-9]+(?:[/:][0-9]+)?", "syzkaller"),
            // What looks like an address is none of a name's words, but a name may end in one: the tag of a
            // program of the JIT.
            (r"([^a-zA-Z0-9])(?:0x)?[0-9a-f]{6,}", "${1}ADDR"),
            (r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b", "IP"),
            (r"\bCPU#[0-9]+", "CPU"),
            (r"(\.\w+)(?::[0-9]+)+", "$1:LINE"),
        ]
        .into_iter()
        .map(|(p, r)| (Regex::new(p).expect("a fixed pattern"), r))
        .collect()
    });
    let mut text = title.trim().to_owned();
    for (pattern, by) in rules {
        text = pattern.replace_all(&text, *by).into_owned();
    }
    sanitise(&numbers(&text))
}

/// What a title keeps: printable ASCII of its first bytes, and one blank where there are several.
fn sanitise(title: &str) -> String {
    let mut text = String::with_capacity(title.len().min(MAX_TITLE));
    for byte in title.bytes().take(MAX_TITLE) {
        let byte = if byte == b'\t' { b' ' } else { byte };
        if (byte == b' ' || byte.is_ascii_graphic()) && !(byte == b' ' && text.ends_with([' '])) {
            text.push(char::from(byte));
        }
    }
    text.trim().to_owned()
}

/// Numbers that stand alone or end a word that they count (`syz-executor7`, `testdir12`).
fn numbers(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            let end = text[at..].char_indices().nth(1).map_or(text.len(), |(i, _)| at + i);
            out.push_str(&text[at..end]);
            at = end;
            continue;
        }
        let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let before = at.checked_sub(1).map(|i| bytes[i]);
        let after = bytes.get(end).copied();
        let letter = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        // A long number in a word counts things; a short one is part of a name, such as `nl802154`.
        if end - at < 7 && (letter(after) || letter(before)) {
            out.push_str(&text[at..end]);
        } else {
            out.push_str("NUM");
        }
        at = end;
    }
    out
}

/// What a wrapper's name is in a title. Architectures and compat layers have one name for the same
/// system call.
pub(crate) fn shown_name(function: &str) -> &str {
    // The old names of a system call's entry and body are its plain name.
    for prefix in ["compat_SYSC_", "compat_SyS_", "SYSC_", "SyS_"] {
        if let Some(rest) = function.strip_prefix(prefix).filter(|r| !r.is_empty()) {
            return rest;
        }
    }
    // An architecture's entry keeps its `sys_`, the body behind it does not: both are dropped step
    // by step, see `names`.
    for prefix in [
        "__x64_",
        "__ia32_",
        "__arm64_",
        "__s390x_",
        "__s390_",
        "__riscv_",
        "__powerpc_",
        "__loongarch_",
        "__mips_",
        "__se_",
        "__do_",
    ] {
        if let Some(rest) = function.strip_prefix(prefix)
            && (rest.starts_with("sys_") || rest.starts_with("compat_sys_"))
        {
            return rest;
        }
    }
    function
}

/// The one name of functions in which everybody hangs for the same reason: a grace period that
/// does not end, a CPU that does not answer. Only hangs are named so.
pub(crate) fn hang_name<'a>(function: &'a str, take: &Take) -> &'a str {
    match take {
        Take::Waiter if function.contains("synchronize_") => "synchronize_rcu",
        Take::Entry if function.contains("smp_call_function") => "smp_call_function",
        _ => function,
    }
}

/// All names of a function that titles use, from the raw one to the one that is shown.
pub(crate) fn names(function: &str) -> Vec<&str> {
    let mut names = vec![function];
    let shown = shown_name(function);
    if shown != function {
        names.push(shown);
        let body = function.starts_with("__se_") || function.starts_with("__do_");
        if let Some(plain) = shown
            .strip_prefix("compat_sys_")
            .or(shown.strip_prefix("sys_"))
            .filter(|p| body && !p.is_empty())
        {
            names.push(plain);
        }
    }
    names
}

/// Title beginnings and types; the first that fits wins.
static TYPES: &[(&str, &str)] = &[
    ("KCSAN: assert", "KCSAN-ASSERT"),
    ("KCSAN: data-race", "KCSAN-DATARACE"),
    ("KFENCE: use-after-free read", "KFENCE-USE-AFTER-FREE-READ"),
    ("KFENCE: use-after-free write", "KFENCE-USE-AFTER-FREE-WRITE"),
    ("KFENCE: use-after-free", "KFENCE-USE-AFTER-FREE-READ"),
    ("KFENCE: invalid free", "KFENCE-INVALID-FREE"),
    ("KFENCE: invalid read", "KFENCE-READ"),
    ("KFENCE: invalid write", "KFENCE-WRITE"),
    ("KFENCE: out-of-bounds read", "KFENCE-READ"),
    ("KFENCE: out-of-bounds write", "KFENCE-WRITE"),
    ("KFENCE: memory corruption", "KFENCE-MEMORY-CORRUPTION"),
    ("KMSAN: uninit-value", "KMSAN-UNINIT-VALUE"),
    ("KMSAN: kernel-", "KMSAN-INFO-LEAK"),
    ("KMSAN: use-after-free", "KMSAN-USE-AFTER-FREE-READ"),
    ("KMSAN:", "KMSAN-UNKNOWN"),
    ("KASAN: invalid-free", "KASAN-INVALID-FREE"),
    ("KASAN: double-free", "KASAN-INVALID-FREE"),
    ("UBSAN: array-index", "MEMORY_SAFETY_UBSAN"),
    ("UBSAN:", "UBSAN"),
    ("BUG: unable to handle kernel NULL pointer dereference", "NULL-POINTER-DEREFERENCE"),
    ("BUG: unable to handle kernel paging request", "MEMORY_SAFETY_BUG"),
    ("BUG: unable to handle kernel access to user memory", "MEMORY_SAFETY_BUG"),
    ("BUG: unable to handle kernel read from", "MEMORY_SAFETY_BUG"),
    ("BUG: unable to handle kernel write to", "MEMORY_SAFETY_BUG"),
    ("BUG: unable to handle kernel execute from", "MEMORY_SAFETY_BUG"),
    ("BUG: corrupted list", "MEMORY_SAFETY_BUG"),
    ("BUG: bad usercopy", "BUG"),
    ("kernel BUG", "BUG"),
    ("BUG: scheduling while atomic", "ATOMIC_SLEEP"),
    ("BUG: sleeping function called from invalid context", "ATOMIC_SLEEP"),
    ("BUG: spinlock", "LOCKDEP"),
    ("BUG: rwlock", "LOCKDEP"),
    ("BUG: using ", "LOCKDEP"),
    ("BUG: still has locks held", "LOCKDEP"),
    ("BUG: bad unlock balance", "LOCKDEP"),
    ("BUG: held lock freed", "LOCKDEP"),
    ("BUG: lock held when returning", "LOCKDEP"),
    ("BUG: Invalid wait context", "LOCKDEP"),
    ("BUG: soft lockup", "HANG"),
    ("BUG: hard lockup", "HANG"),
    ("BUG: workqueue lockup", "HANG"),
    ("INFO: rcu detected stall", "HANG"),
    ("INFO: task hung", "HANG"),
    ("INFO: task can't die", "HANG"),
    ("WARNING: suspicious RCU usage in", "LOCKDEP"),
    ("WARNING: locking bug in", "LOCKDEP"),
    ("WARNING: bad unlock balance", "LOCKDEP"),
    ("WARNING: held lock freed", "LOCKDEP"),
    ("WARNING: nested lock was not taken", "LOCKDEP"),
    ("WARNING: still has locks held", "LOCKDEP"),
    ("WARNING: lock held when returning", "LOCKDEP"),
    ("possible deadlock", "LOCKDEP"),
    ("inconsistent lock state", "LOCKDEP"),
    ("WARNING: refcount bug", "REFCOUNT_WARNING"),
    ("WARNING: kernel stack ", "UNKNOWN"),
    ("WARNING", "WARNING"),
    ("memory leak", "LEAK"),
    ("unexpected kernel reboot", "REBOOT"),
    ("SYZFAIL", "SYZ_FAILURE"),
    ("SYZFATAL", "SYZ_FAILURE"),
    ("general protection fault", "DoS"),
    ("kernel panic", "DoS"),
    ("PANIC: ", "DoS"),
    ("divide error", "DoS"),
    ("int3", "DoS"),
    ("invalid opcode", "DoS"),
    ("stack segment fault", "DoS"),
    ("double fault", "DoS"),
    ("Internal error", "DoS"),
    ("Unhandled fault", "DoS"),
    ("Alignment trap", "DoS"),
    ("trusty:", "DoS"),
    ("go runtime error", "DoS"),
    ("panic: ", "DoS"),
    ("unregister_netdevice", "DoS"),
    ("VFS: ", "DoS"),
    ("segment not present", "DoS"),
    ("invalid TSS", "DoS"),
    ("alignment check", "DoS"),
    ("control protection fault", "DoS"),
    ("kernel stack overflow", "DoS"),
    ("Oops in", "DoS"),
    ("KCSAN:", "KCSAN-UNKNOWN"),
    ("KFENCE:", "KFENCE-UNKNOWN"),
];

/// The type of a crash, which follows from its title.
pub(crate) fn crash_type(title: &str) -> &'static str {
    if let Some(rest) = title.strip_prefix("KASAN: ") {
        let write = rest.contains(" Write");
        return if rest.starts_with("invalid-free") || rest.starts_with("double-free") {
            "KASAN-INVALID-FREE"
        } else if rest.contains("use-after-free") && write {
            "KASAN-USE-AFTER-FREE-WRITE"
        } else if rest.contains("use-after-free") {
            "KASAN-USE-AFTER-FREE-READ"
        } else if rest.starts_with("null-ptr-deref") && write {
            "KASAN-NULL-POINTER-DEREFERENCE-WRITE"
        } else if rest.starts_with("null-ptr-deref") {
            "KASAN-NULL-POINTER-DEREFERENCE-READ"
        } else if write {
            "KASAN-WRITE"
        } else {
            "KASAN-READ"
        };
    }
    TYPES
        .iter()
        .find(|(beginning, _)| title.starts_with(beginning))
        .map_or("UNKNOWN", |&(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_names() {
        for (raw, title) in [
            (
                "slab-out-of-bounds in f+0x4d3/0x4f0 at addr ffff8800b46111c0",
                "slab-out-of-bounds in f at addr ADDR",
            ),
            ("stall in bpf_prog_6deef7357e7b4530", "stall in bpf_prog_ADDR"),
            ("executor 7 failed 11 times", "executor NUM failed NUM times"),
            ("at mm/slab.c:123", "at mm/slab.c:LINE"),
            ("server 10.0.0.1 lost", "server IP lost"),
            ("stuck on CPU#1", "stuck on CPU"),
            ("ath10k USB", "ath10k USB"),
            ("nl802154_x and testdir1234567x", "nl802154_x and testdirNUMx"),
            ("error 0x12 at 0xffffffff81234567", "error 0x12 at ADDR"),
            ("a 10.0.0.1:80 b.txt:1:2", "a IP:NUM b.txt:LINE"),
            ("ath10k 5 a", "ath10k NUM a"),
            ("é 5\u{85}a", "NUMa"),
            ("a  \t b", "a b"),
        ] {
            assert_eq!(normalise(raw), title);
        }
        assert_eq!(normalise(&"a ".repeat(200)).len(), MAX_TITLE - 1);
    }

    #[test]
    fn a_body_has_three_names() {
        assert_eq!(names("__se_sys_mremap"), ["__se_sys_mremap", "sys_mremap", "mremap"]);
        assert_eq!(names("__x64_sys_mremap"), ["__x64_sys_mremap", "sys_mremap"]);
        assert_eq!(names("foo"), ["foo"]);
    }

    #[test]
    fn hangs_have_one_name() {
        assert_eq!(hang_name("synchronize_sched", &Take::Waiter), "synchronize_rcu");
        assert_eq!(hang_name("smp_call_function_single", &Take::Entry), "smp_call_function");
        assert_eq!(hang_name("__synchronize_srcu", &Take::Waiter), "synchronize_rcu");
        let interrupt = "generic_smp_call_function_single_interrupt";
        assert_eq!(hang_name(interrupt, &Take::Entry), "smp_call_function");
        assert_eq!(hang_name("smp_call_function_single", &Take::First), "smp_call_function_single");
    }

    #[test]
    fn wrappers_lose_their_names() {
        for (name, shown) in [
            ("__x64_sys_rmdir", "sys_rmdir"),
            ("SyS_pause", "pause"),
            ("__do_sys_mremap", "sys_mremap"),
            ("compat_SyS_mount", "mount"),
            ("__do_fault", "__do_fault"),
            ("synchronize_sched", "synchronize_sched"),
        ] {
            assert_eq!(shown_name(name), shown);
        }
    }
}
