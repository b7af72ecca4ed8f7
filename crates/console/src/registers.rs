//! Register dumps and `Code:` lines, by architecture.
//!
//! Decides which words of a line are registers and what they are called (lower case, see
//! [`kolumbo_case::Registers`]). A value that is damaged is left out. May not know where in a crash
//! the line stands.

use kolumbo_case::{CodeBytes, Registers, Span};

/// Printed name, stored name. x86-64 and i386 (arch/x86/kernel/process_64.c, process_32.c), arm64,
/// arm, riscv, powerpc. Names with a number are in [`numbered`].
static NAMES: &[(&str, &str)] = &[
    ("RAX", "rax"),
    ("RBX", "rbx"),
    ("RCX", "rcx"),
    ("RDX", "rdx"),
    ("RSI", "rsi"),
    ("RDI", "rdi"),
    ("RBP", "rbp"),
    ("RSP", "rsp"),
    ("R08", "r8"),
    ("R09", "r9"),
    ("R10", "r10"),
    ("R11", "r11"),
    ("R12", "r12"),
    ("R13", "r13"),
    ("R14", "r14"),
    ("R15", "r15"),
    ("EAX", "eax"),
    ("EBX", "ebx"),
    ("ECX", "ecx"),
    ("EDX", "edx"),
    ("ESI", "esi"),
    ("EDI", "edi"),
    ("EBP", "ebp"),
    ("ESP", "esp"),
    ("EFLAGS", "rflags"),
    ("RFLAGS", "rflags"),
    ("ORIG_RAX", "orig_rax"),
    ("ORIG_EAX", "orig_eax"),
    ("FS", "fs_base"),
    ("GS", "gs_base"),
    ("knlGS", "kernel_gs_base"),
    ("CS", "cs"),
    ("DS", "ds"),
    ("ES", "es"),
    ("SS", "ss"),
    ("CR0", "cr0"),
    ("CR2", "cr2"),
    ("CR3", "cr3"),
    ("CR4", "cr4"),
    ("PKRU", "pkru"),
    ("DR0", "dr0"),
    ("DR1", "dr1"),
    ("DR2", "dr2"),
    ("DR3", "dr3"),
    ("DR6", "dr6"),
    ("DR7", "dr7"),
    ("pstate", "pstate"),
    ("sp", "sp"),
    ("lr", "lr"),
    ("pc", "pc"),
    ("psr", "psr"),
    ("ip", "ip"),
    ("fp", "fp"),
    ("pmr_save", "pmr_save"),
    ("epc", "epc"),
    ("ra", "ra"),
    ("gp", "gp"),
    ("tp", "tp"),
    ("status", "status"),
    ("badaddr", "badaddr"),
    ("cause", "cause"),
    ("NIP", "nip"),
    ("LR", "lr"),
    ("CTR", "ctr"),
    ("MSR", "msr"),
    ("CR", "cr"),
    ("XER", "xer"),
    ("DAR", "dar"),
    ("DSISR", "dsisr"),
    ("CFAR", "cfar"),
    ("ESR", "esr"),
    ("FAR", "far"),
];

/// `x0` to `x30`, `r0` to `r15`, riscv's `a0`, `s1`, `t2`.
fn numbered(name: &str) -> bool {
    let mut chars = name.chars();
    let letter = chars.next().is_some_and(|c| matches!(c, 'x' | 'r' | 'a' | 's' | 't'));
    let digits = chars.as_str();
    letter && (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

fn stored_name(printed: &str) -> Option<String> {
    if let Some(&(_, name)) = NAMES.iter().find(|(p, _)| *p == printed) {
        return Some(name.to_owned());
    }
    numbered(printed).then(|| printed.to_owned())
}

/// Adds the registers of `line`; tells how many there were.
pub(crate) fn parse_registers(line: &str, into: &mut Registers) -> usize {
    if let Some(found) = powerpc_line(line, into) {
        return found;
    }
    let mut found = 0;
    let mut rest = line.trim();
    // i386 prints selectors as "DS: 007b ES: 007b FS: 00d8 GS: 00e0 SS: 0068 EFLAGS: ...".
    let selectors_only = rest.contains("SS: ") && !rest.contains("knlGS");
    while let Some(colon) = rest.find(':') {
        let name_end = rest[..colon].trim_end().len();
        let name_start = rest[..name_end].rfind([' ', '\t', ']']).map_or(0, |i| i + 1);
        let printed = &rest[name_start..name_end];
        let behind = rest[colon + 1..].trim_start().trim_start_matches("= ");
        let bracketed = behind.strip_prefix("[<").unwrap_or(behind);
        let bare = bracketed.strip_prefix("0x").unwrap_or(bracketed);
        let digits = bare.bytes().take_while(u8::is_ascii_hexdigit).count();
        let ends = bare[digits..]
            .chars()
            .next()
            .is_none_or(|c| matches!(c, ' ' | '(' | ':' | '\t' | '>' | '[' | ','));
        let value = u64::from_str_radix(&bare[..digits], 16)
            .ok()
            .filter(|_| (1..=16).contains(&digits) && ends);
        let Some(name) = stored_name(printed) else {
            rest = &rest[colon + 1..];
            continue;
        };
        let Some(value) = value else {
            rest = &rest[colon + 1..];
            continue;
        };
        found += 1;
        rest = &bare[digits..];
        match name.as_str() {
            // "RSP: 0018:ffff..." carries the stack segment.
            "rsp" | "esp" if rest.starts_with(':') => {
                let inner = &rest[1..];
                let digits = inner.bytes().take_while(u8::is_ascii_hexdigit).count();
                if let Ok(pointer) = u64::from_str_radix(&inner[..digits], 16) {
                    into.insert("ss", value);
                    into.insert(&name, pointer);
                }
                rest = &inner[digits..];
            }
            "fs_base" | "gs_base" if selectors_only => into.insert(&name[..2], value),
            // "FS:  0000000000000000(0000)" is base and selector.
            "fs_base" | "gs_base" | "kernel_gs_base" => {
                into.insert(&name, value);
                if let Some(inner) = rest.strip_prefix('(')
                    && let Some(end) = inner.find(')')
                {
                    if let Ok(selector) = u64::from_str_radix(&inner[..end], 16)
                        && name != "kernel_gs_base"
                    {
                        into.insert(&name[..2], selector);
                    }
                    rest = &inner[end + 1..];
                }
            }
            _ => into.insert(&name, value),
        }
    }
    found
}

/// `GPR04: a b c d`.
fn powerpc_line(line: &str, into: &mut Registers) -> Option<usize> {
    let rest = line.trim().strip_prefix("GPR")?;
    let (first, values) = rest.split_once(':')?;
    let first: usize = first.trim().parse().ok().filter(|&n| n < 32)?;
    let mut found = 0;
    for (n, word) in values.split_ascii_whitespace().take(8).enumerate() {
        let Ok(value) = u64::from_str_radix(word, 16) else { break };
        into.insert(&format!("r{}", first + n), value);
        found += 1;
    }
    Some(found)
}

/// The bytes of a `Code:` line, or none if it has none (`Bad RIP value.`). Bytes that are damaged
/// end the list.
pub(crate) fn parse_code(line: &str, span: Span) -> Option<CodeBytes> {
    let rest = line.trim().strip_prefix("Code:")?;
    let mut code = CodeBytes { span, ..Default::default() };
    for word in rest.split_ascii_whitespace() {
        let marked = word.starts_with(['<', '(']);
        let digits = word.trim_matches(['<', '>', '(', ')']);
        let width = digits.len();
        if digits == "??" || !matches!(width, 2 | 4 | 8) || code.bytes.len() > 512 {
            break;
        }
        let Ok(value) = u32::from_str_radix(digits, 16) else { break };
        if code.unit == 0 {
            code.unit = (width / 2) as u8;
        }
        if marked {
            code.trap = Some(code.bytes.len());
        }
        // Wider groups are instruction words of little-endian machines.
        code.bytes.extend_from_slice(&value.to_le_bytes()[..width / 2]);
    }
    (!code.bytes.is_empty()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(lines: &[&str], expected: Expect) {
        let mut registers = Registers::default();
        for line in lines {
            parse_registers(line, &mut registers);
        }
        let text: Vec<String> = registers.0.iter().map(|(n, v)| format!("{n}={v:x}")).collect();
        expected.assert_eq(&text.join(" "));
    }

    #[test]
    fn x86() {
        check(
            &[
                "RSP: 0018:ffff99e58027fdb0 EFLAGS: 00000082",
                "RAX: ffffffff8426ab50 RBX: 0000000000000000 RCX: 1",
                "R10: 0000000000000000 R08: 0000000000000007",
                "FS: 00007f1eb36696a0(0000) GS:ffff978b9f000000(0063) knlGS:0000000000000000",
                "CS: 0010 DS: 002b ES: 0000 CR0: 0000000080050033",
                "RDX: 00000000deadbeef RSI: zz RDI: 3",
            ],
            expect![
                "ss=18 rsp=ffff99e58027fdb0 rflags=82 rax=ffffffff8426ab50 rbx=0 rcx=1 r10=0 r8=7 fs_base=7f1eb36696a0 fs=0 gs_base=ffff978b9f000000 gs=63 kernel_gs_base=0 cs=10 ds=2b es=0 cr0=80050033 rdx=deadbeef rdi=3"
            ],
        );
        check(
            &["DS: 007b ES: 007b FS: 00d8 GS: 00e0 SS: 0068 EFLAGS: 00210246"],
            expect!["ds=7b es=7b fs=d8 gs=e0 ss=68 rflags=210246"],
        );
    }

    #[test]
    fn others() {
        check(
            &[
                "x29: ffff80000aff39f0 x28: fbff0000236abf00 ",
                "x9 : 01 x8 : 2",
                "pstate: 60400009 (nZCv daif)",
                "sp : ffff80000aff39f0",
            ],
            expect![
                "x29=ffff80000aff39f0 x28=fbff0000236abf00 x9=1 x8=2 pstate=60400009 sp=ffff80000aff39f0"
            ],
        );
        check(
            &[
                "pc : [<802b4048>]    lr : [<802e1324>]    psr: 60000193",
                "r10: 8591b080  r9 : 8bdfc000",
            ],
            expect!["pc=802b4048 lr=802e1324 psr=60000193 r10=8591b080 r9=8bdfc000"],
        );
        check(&["GPR04: 0000000000000800 1 2 3"], expect!["r4=800 r5=1 r6=2 r7=3"]);
        check(
            &["epc: ffffffe000207654 ra : ffffffe000207654 sp : ffffffe00b777cd0"],
            expect!["epc=ffffffe000207654 ra=ffffffe000207654 sp=ffffffe00b777cd0"],
        );
        check(&["Modules linked in: a", "CPU: 0 PID: 1", "caller: 12"], expect![""]);
    }

    #[test]
    fn code() {
        let code = parse_code("Code: 48 89 <0f> 0b zz 11", Span::default()).unwrap();
        assert_eq!((code.bytes, code.trap, code.unit), (vec![0x48, 0x89, 0x0f, 0x0b], Some(2), 1));
        let code = parse_code("Code: d503201f (b9400000)", Span::default()).unwrap();
        assert_eq!(
            (code.trap, code.unit, code.bytes[4..].to_vec()),
            (Some(4), 4, vec![0, 0, 0x40, 0xb9])
        );
        assert_eq!(parse_code("Code: Bad RIP value.", Span::default()), None);
    }
}
