//! Small programs of our own, in assembly and C, each with one bug or with something that must not be taken for one.
//!
//! Needs `as`, `ld` and a C compiler; what is missing is said, and fails under `KOLUMBO_REQUIRE_ALL=1`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::process::Command;

use kolumbo_case::contract::Report;
use kolumbo_contracts::{Declared, Image, Input, Options, check};

/// Two callers that rely on RCX across a call of CALLEE, and what they may call.
const CALLERS: &str = r#"
	.text
	.globl	_start
	.type	_start, @function
_start:
	lea	8(%rdi), %rcx
	CALL
	mov	(%rcx), %rax
	lea	8(%rsi), %rcx
	CALL
	add	(%rcx), %rax
	ret
	.size	_start, . - _start
	.type	keeps, @function
keeps:
	mov	$1, %eax
	ret
	.size	keeps, . - keeps
	.type	clears, @function
clears:
	xor	%ecx, %ecx
	ret
	.size	clears, . - clears
"#;

/// Tells the linker that no stack needs to be executable.
const NOTE: &str = "\n\t.section .note.GNU-stack,\"\",@progbits\n";

fn run(program: &str, arguments: &[&str], folder: &Path) -> bool {
    let Ok(output) = Command::new(program).args(arguments).current_dir(folder).output() else {
        assert!(
            std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
            "{program} is not installed, and KOLUMBO_REQUIRE_ALL=1 is set"
        );
        eprintln!("skipped: {program} is not installed");
        return false;
    };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// The report about what the sources make when they are linked. `None` when a tool is missing.
fn report(sources: &[(&str, &str)], declared: Declared) -> Option<Report> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut link = vec!["-Ttext=0x1000000".to_owned(), "-e0".into(), "-o".into(), "linked".into()];
    for (name, text) in sources {
        std::fs::write(folder.path().join(name), text).expect("a source");
        let object = format!("{name}.o");
        let made = if name.ends_with(".c") {
            let kernel = ["-O2", "-g", "-fno-pic", "-mcmodel=kernel", "-fcf-protection=none", "-c"];
            run("gcc", &[&kernel[..], &[name, "-o", &object]].concat(), folder.path())
        } else {
            run("as", &[name, "-o", &object], folder.path())
        };
        if !made {
            return None;
        }
        link.push(object);
    }
    let link: Vec<&str> = link.iter().map(String::as_str).collect();
    if !run("ld", &link, folder.path()) {
        return None;
    }
    let bytes = std::fs::read(folder.path().join("linked")).expect("a linked file");
    let image = Image::new(&[Input { name: "linked", bytes: &bytes }]).expect("an image");
    Some(check(&image, &Options { declared, ..Options::default() }))
}

/// The culprits in callers of `call` with `more` code beside them, without any stated contract.
fn culprits(call: &str, more: &str) -> Option<Vec<String>> {
    let source = format!("{}{more}{NOTE}", CALLERS.replace("CALL", call));
    let report = report(&[("callers.s", &source)], Declared::default())?;
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    Some(report.findings.into_iter().map(|finding| finding.culprit).collect())
}

#[test]
fn a_pointer_that_code_fills_is_followed() {
    let slot = "\n\t.data\nops:\t.quad keeps, keeps\nother:\t.quad clears, clears\n\t.text\n\t.type fill, @function\nfill:\n";
    let ways = [
        ("stored as a constant", "\tmovq $clears, ops+8(%rip)\n\tret\n"),
        ("stored from a register", "\tlea clears(%rip), %rax\n\tmov %rax, ops+8(%rip)\n\tret\n"),
        ("loaded from a table", "\tmov other+8(%rip), %rdx\n\tmov %rdx, ops+8\n\tret\n"),
        (
            "copied by a string instruction",
            "\tmov $ops, %rdi\n\tmov $other, %rsi\n\tmov $2, %ecx\n\trep movsq\n\tret\n",
        ),
        (
            "copied by a function",
            "\tmov $ops, %rdi\n\tmov $other, %rsi\n\tmov $16, %edx\n\tjmp memcpy\n\t.globl memcpy\n\t.type memcpy, @function\nmemcpy:\n\tmov %rdx, %rcx\n\trep movsb\n\tret\n",
        ),
    ];
    let Some(healthy) = culprits("call *ops+8(%rip)", &format!("{slot}\tret\n")) else { return };
    assert!(healthy.is_empty(), "{healthy:?}");
    for (way, code) in ways {
        let found = culprits("call *ops+8(%rip)", &format!("{slot}{code}"));
        assert_eq!(found.as_deref(), Some(&["clears".to_owned()][..]), "{way}");
    }
    println!("calls through a pointer that code fills: {0} of {0} found", ways.len());
}

#[test]
fn a_static_call_that_is_updated_is_followed() {
    let code = |function: &str| {
        format!(
            "\n\t.globl __static_call_update\n\t.type __static_call_update, @function\n__static_call_update:\n\tret\n\
             \t.type __SCT__work, @function\n__SCT__work:\n\tjmp keeps\n\t.type set, @function\nset:\n\
             \tmov $0x2000000, %rdi\n\tmov $__SCT__work, %rsi\n\tmov ${function}, %rdx\n\tcall __static_call_update\n\tret\n"
        )
    };
    let Some(healthy) = culprits("call __SCT__work", &code("keeps")) else { return };
    assert!(healthy.is_empty(), "{healthy:?}");
    assert_eq!(culprits("call __SCT__work", &code("clears")).expect("the tools"), ["clears"]);
}

/// A table with one member whose type promises that every register is kept, and one without such a promise.
const TABLE: &str = r#"
struct paravirt_callee_save { void *func; };
struct pv_irq_ops { struct paravirt_callee_save save_fl; void (*halt)(void); };
struct paravirt_patch_template { int dummy; struct pv_irq_ops irq; };
extern void first(void), second(void);
struct paravirt_patch_template pv_ops = { 1, { { first }, second } };
"#;

#[test]
fn the_type_of_a_pointer_is_a_contract() {
    let thunks = |first: &str, second: &str| {
        format!(
            "\t.globl first, second\n\t.type first, @function\nfirst:\n\t{first}\n\tret\n\
             \t.type second, @function\nsecond:\n\t{second}\n\tret\n\t.section .note.GNU-stack,\"\",@progbits\n"
        )
    };
    let found = |thunks: &str| {
        let sources = [("table.c", TABLE), ("thunks.s", thunks)];
        let report = report(&sources, Declared::builtin())?;
        let culprits =
            report.findings.into_iter().map(|f| (f.code, f.culprit, f.destroys.join(" ")));
        Some(culprits.collect::<Vec<_>>())
    };
    let Some(healthy) = found(&thunks("xor %eax, %eax", "xor %ecx, %ecx")) else { return };
    assert!(healthy.is_empty(), "{healthy:?}");
    let broken = found(&thunks("xor %r8d, %r8d", "xor %ecx, %ecx")).expect("the tools");
    assert_eq!(broken, [("K0502".into(), "first".into(), "r8".into())]);
}

/// An alternative whose code jumps to its own end, behind which another one begins.
const ALTERNATIVE: &str = r#"
	.globl	patched
	.type	patched, @function
patched:
1:	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x90, 0x90
2:	ret
	.size	patched, . - patched
	.section .altinstr_replacement, "ax"
3:	cmp	%rdi, %rsi
	je	4f
	nop
	nop
4:	xor	%ecx, %ecx
5:
	.section .altinstructions, "a"
	.long	1b - .
	.long	3b - .
	.word	7, 0
	.byte	7, 4b - 3b
	.text
"#;

#[test]
fn a_jump_to_the_end_of_a_replacement_goes_on_behind_the_place() {
    let Some(clean) = culprits("call patched", &ALTERNATIVE.replace(".word	7, 0", ".word	7"))
    else {
        return;
    };
    assert!(clean.is_empty(), "{clean:?}");
    let broken =
        ALTERNATIVE.replace(".word	7, 0", ".word	7").replace("nop\n\tnop", "xor %ecx, %ecx");
    assert_eq!(culprits("call patched", &broken).expect("the tools"), ["patched"]);
}

#[test]
fn calls_over_a_trap_only_push() {
    let stuffs = |exit: &str| {
        format!(
            "\n\t.type stuffs, @function\nstuffs:\n\tpush %rcx\n\tmov $8, %ecx\n1:\tcall 2f\n\tint3\n2:\tcall 3f\n\tint3\n\
             3:\tadd $16, %rsp\n\tdec %ecx\n\tjnz 1b\n\tlfence\n\t{exit}\n\tret\n"
        )
    };
    let Some(clean) = culprits("call stuffs", &stuffs("pop %rcx")) else { return };
    assert!(clean.is_empty(), "{clean:?}");
    assert_eq!(culprits("call stuffs", &stuffs("pop %rdx")).expect("the tools"), ["stuffs"]);
}

#[test]
fn a_warning_that_carries_arguments_comes_back() {
    let warns = "\n\t.type warns, @function\nwarns:\n\t.byte 0x67, 0x48, 0x0f, 0xb9, 0x3a\n\txor %ecx, %ecx\n\tret\n";
    let Some(found) = culprits("call warns", warns) else { return };
    assert_eq!(found, ["warns"]);
    // A sanitizer's trap names (%eax) and is final.
    let stops = warns.replace("0x3a", "0x38");
    assert!(culprits("call warns", &stops).expect("the tools").is_empty());
}

#[test]
fn nobody_is_accused_for_a_jump_to_code_that_is_not_understood() {
    let strange = "\n\t.type jumps, @function\njumps:\n\tjmp strange\n\t.type strange, @function\nstrange:\n\tpush %rcx\n\
                   \tadd %rax, %rsp\n\tpop %rcx\n\tret\n";
    let Some(clean) = culprits("call jumps", strange) else { return };
    assert!(clean.is_empty(), "{clean:?}");
}

/// C functions of one file: the compiler of the callers knows which registers `keeps` leaves alone, and relies on it. In the
/// second form the function is replaced by one that does not.
const C_CALLERS: &str = r#"
	.text
	.globl	caller
	.type	caller, @function
caller:
	mov	%rdi, %r8
	mov	$64, %esi
	call	sum
	add	%rsi, %rax
	add	(%r8), %rax
	ret
	.size	caller, . - caller
	.section .note.GNU-stack,"",@progbits
"#;

#[test]
fn a_c_function_that_takes_another_scratch_register_is_found() {
    let sum = |body: &str| format!("unsigned long sum(unsigned long *p)\n{{\n{body}\n}}\n");
    let found = |body: &str| {
        let c = sum(body);
        let sources = [("sum.c", c.as_str()), ("caller.s", C_CALLERS)];
        let report = report(&sources, Declared::default())?;
        Some(
            report
                .findings
                .into_iter()
                .map(|f| (f.culprit, f.destroys.join(" ")))
                .collect::<Vec<_>>(),
        )
    };
    let Some(clean) = found("\treturn p[0] + p[1];") else { return };
    assert!(clean.is_empty(), "{clean:?}");
    let takes = "\tregister unsigned long q asm(\"r8\") = p[0];\n\tasm volatile(\"\" : \"+r\"(q));\n\treturn q + p[1];";
    let broken = found(takes).expect("the tools");
    assert_eq!(broken, [("sum".to_owned(), "r8".to_owned())]);
}
