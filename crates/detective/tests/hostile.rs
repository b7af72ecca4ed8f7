//! Any bytes as code, any values as registers: no panic, and an answer in bounded work.

use kolumbo_case::{CodeBytes, CodePlace, CrashReport, MachineState, ReadResult, Registers};
use kolumbo_detective::{Options, explain};
use proptest::prelude::*;

const NAMES: [&str; 18] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rflags", "gs_base",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_dump_gets_an_answer(
        bytes in proptest::collection::vec(any::<u8>(), 1..160),
        at in any::<prop::sample::Index>(),
        values in proptest::collection::vec(any::<u64>(), NAMES.len()),
        offset in proptest::option::of(0u64..200),
        user_mode: bool,
    ) {
        let trap = at.index(bytes.len());
        let state = MachineState {
            user_mode,
            pc: offset.map(|offset| CodePlace {
                function: Some("function".to_owned()),
                offset: Some(offset),
                size: Some(200),
                ..Default::default()
            }),
            registers: Registers(NAMES.iter().map(|n| (*n).to_owned()).zip(values).collect()),
            code: Some(CodeBytes { bytes, trap: Some(trap), unit: 1, ..Default::default() }),
            ..Default::default()
        };
        let report = CrashReport { states: vec![state], ..Default::default() };
        let read = ReadResult { reports: vec![report], ..Default::default() };
        let explanation = explain(&read, &Options::default());
        prop_assert_eq!(explanation.states.len(), 1);
        // The trapping instruction is shown whenever it decodes.
        let traps = explanation.states[0].code.iter().filter(|l| l.trap).count();
        prop_assert!(traps <= 1);
        prop_assert!(!user_mode || explanation.findings.is_empty());
    }
}
