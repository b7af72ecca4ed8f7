//! Any bytes as code, any registers: the engine must come to an end and never panic.
#![no_main]

use kolumbo_case::{CodeBytes, CodePlace, CrashReport, MachineState, ReadResult, Registers};
use kolumbo_detective::{Options, explain};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 18] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rflags", "gs_base",
];

fuzz_target!(|data: &[u8]| {
    let Some((&[trap, offset, named], rest)) = data.split_first_chunk::<3>() else { return };
    let (values, code) = rest.split_at(rest.len().min(8 * NAMES.len()));
    let mut registers = Registers::default();
    registers.insert("rax", 0);
    for (name, value) in NAMES.iter().zip(values.chunks_exact(8)) {
        registers.insert(name, u64::from_le_bytes(value.try_into().unwrap_or_default()));
    }
    let state = MachineState {
        pc: (named & 1 == 1).then(|| CodePlace {
            function: Some("function".to_owned()),
            offset: Some(u64::from(offset)),
            size: Some(256),
            ..Default::default()
        }),
        registers,
        code: Some(CodeBytes {
            bytes: code.to_vec(),
            trap: Some(usize::from(trap)),
            unit: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut report = CrashReport { states: vec![state], ..Default::default() };
    if named & 2 == 2 {
        let address = values.first_chunk().map_or(0, |v| u64::from_le_bytes(*v));
        report.headline.text =
            format!("BUG: unable to handle page fault for address: {address:016x}");
    }
    let read = ReadResult { reports: vec![report], ..Default::default() };
    let explanation = explain(&read, &Options::default());
    let _ = kolumbo_report::explain::report(&explanation, Default::default());
});
