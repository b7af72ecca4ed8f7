//! What follows from small pieces of code, one kind of reasoning a test: what is determined where
//! state and code agree, and that a state which cannot be is noticed.

use kolumbo_case::{
    CodeBytes, CodePlace, CrashReport, ExplainedState, MachineState, Passage, ReadResult,
    Registers, StateConclusion,
};
use kolumbo_detective::{Options, explain};

const ZERO_AND_EVEN: u64 = 0x246;

/// The explanation of a dump of `code`, whose trapping byte stands in `<>`, at `f+0x100`.
fn explained(headline: &str, code: &str, registers: &[(&str, u64)]) -> ExplainedState {
    let words: Vec<&str> = code.split_whitespace().collect();
    let trap = words.iter().position(|w| w.starts_with('<'));
    let bytes: Vec<u8> =
        words.iter().map(|w| u8::from_str_radix(w.trim_matches(['<', '>']), 16).unwrap()).collect();
    let mut values = vec![("cs".to_owned(), 0x10)];
    values.extend(registers.iter().map(|&(name, value)| (name.to_owned(), value)));
    for other in ["rax", "rsp"] {
        if !registers.iter().any(|(name, _)| *name == other) {
            values.push((other.to_owned(), 0xffff_c900_0012_3458));
        }
    }
    // The line begins the function, so that it is cut in one way only.
    let offset = trap.map(|t| t as u64);
    let state = MachineState {
        pc: Some(CodePlace { function: Some("f".to_owned()), offset, ..Default::default() }),
        registers: Registers(values),
        code: Some(CodeBytes { bytes, trap, unit: 1, ..Default::default() }),
        ..Default::default()
    };
    let report = CrashReport {
        headline: Passage { text: headline.to_owned(), ..Default::default() },
        states: vec![state],
        ..Default::default()
    };
    let read = ReadResult { reports: vec![report], ..Default::default() };
    explain(&read, &Options::default()).states.remove(0)
}

/// `registers` agree with `code`, which determines `expected`; with `wrong` in their place they do not.
fn follows(
    headline: &str,
    code: &str,
    registers: &[(&str, u64)],
    expected: &[&str],
    wrong: (&str, u64),
) {
    let state = explained(headline, code, registers);
    assert_eq!(state.consistency.conclusion, StateConclusion::Agrees, "{:?}", state.consistency);
    for name in expected {
        assert!(
            state.consistency.determined.iter().any(|d| d == name),
            "{name} is not among {:?}",
            state.consistency.determined
        );
    }
    let mut changed = registers.to_vec();
    for (name, value) in &mut changed {
        if *name == wrong.0 {
            *value = wrong.1;
        }
    }
    let state = explained(headline, code, &changed);
    assert!(
        matches!(
            state.consistency.conclusion,
            StateConclusion::Doubtful | StateConclusion::Contradicts
        ),
        "{wrong:x?}: {:?}",
        state.consistency
    );
}

#[test]
fn of_a_loop_only_the_last_round_is_known() {
    // xor %eax,%eax; 1: inc %eax; cmp %ecx,%eax; jne 1b; ud2
    follows(
        "",
        "31 c0 ff c0 39 c8 75 fa <0f> 0b",
        &[("rax", 5), ("rcx", 5), ("rflags", ZERO_AND_EVEN)],
        &["RAX", "ZF", "PF", "SF", "CF"],
        ("rax", 6),
    );
}

#[test]
fn behind_a_branch_back_out_of_the_line_its_condition_is_known() {
    // and $0x200,%esi; jne far back; ud2
    follows(
        "",
        "81 e6 00 02 00 00 0f 85 00 ff ff ff <0f> 0b",
        &[("rsi", 0), ("rflags", ZERO_AND_EVEN)],
        &["RSI", "ZF"],
        ("rsi", 0x200),
    );
}

#[test]
fn flags_that_were_popped_are_those_of_the_register_that_was_pushed() {
    // push %rdi; popf; nop
    follows(
        "",
        "57 9d <90>",
        &[("rdi", 0x287), ("rflags", 0x287)],
        &["CF", "PF", "SF", "ZF", "IF"],
        ("rflags", 0x286),
    );
}

#[test]
fn flags_that_were_pushed_are_in_the_register_that_was_popped() {
    // pushf; pop %rbx; cli, of which only the flags that are followed are known
    follows(
        "",
        "9c 5b <fa>",
        &[("rbx", 0x287), ("rflags", 0x287)],
        &["RBX[7:0]", "CF", "SF"],
        ("rbx", 0x206),
    );
}

#[test]
fn a_copy_in_flight_has_done_the_same_rounds_in_every_register() {
    // mov %rdi,%rax; mov %rdx,%rcx; rep movsb
    let base = 0xffff_8880_0100_0000;
    follows(
        "",
        "48 89 f8 48 89 d1 <f3> a4",
        &[
            ("rax", base),
            ("rdx", 0x100),
            ("rcx", 0xf0),
            ("rdi", base + 0x10),
            ("rsi", base + 0x5010),
            ("rflags", 0x246),
        ],
        &["RDI", "RCX", "RAX"],
        ("rdi", base + 0x11),
    );
}

#[test]
fn a_breakpoint_is_run_through() {
    // test %eax,%eax; jne over; int3; nop
    follows(
        "",
        "85 c0 75 02 cc <90> c3",
        &[("rax", 0), ("rflags", ZERO_AND_EVEN)],
        &["RAX[31:0]", "ZF"],
        ("rax", 4),
    );
}

#[test]
fn the_address_of_the_fault_determines_the_pointer() {
    // mov 0x18(%rbx),%rax
    let bad = 0xffff_c900_00e0_8000;
    let headline = "BUG: unable to handle page fault for address: ffffc90000e08018";
    let registers = [("rbx", bad), ("cr2", bad + 0x18), ("rflags", 0x246)];
    follows(headline, "<48> 8b 43 18 c3", &registers, &["RBX"], ("rbx", bad + 8));
    // That another access faulted is no finding, and an old CR2 says nothing.
    let state = explained(headline, "<48> 8b 43 18 c3", &[("rbx", bad + 8), ("rflags", 0x246)]);
    assert_eq!(state.consistency.conclusion, StateConclusion::Doubtful);
    assert!(state.consistency.doubts[0].contains("the headline"), "{:?}", state.consistency);
    let stale = [("rbx", bad + 8), ("cr2", 0x1000), ("rflags", 0x246)];
    let state = explained(headline, "<48> 8b 43 18 c3", &stale);
    assert_eq!(state.consistency.conclusion, StateConclusion::Undecided);
}
