//! Dumps whose state cannot be, and healthy ones that look as if it could not.

use kolumbo_case::{
    CodeBytes, CodePlace, Confidence, CrashContext, CrashReport, Explanation, FindingCode,
    ListedInstruction, Listing, MachineState, ReadResult, Registers, SuspectKind,
};
use kolumbo_detective::accuse::{Surroundings, findings};
use kolumbo_detective::{Consistency, Options, Situation, Window, explain};

/// A dump out of `name value` pairs and a `Code:` line.
fn state(place: (&str, u64, u64), registers: &str, code: &str) -> MachineState {
    let mut values = Vec::new();
    let words: Vec<&str> = registers.split_whitespace().collect();
    for pair in words.chunks_exact(2) {
        values.push((pair[0].to_owned(), u64::from_str_radix(pair[1], 16).unwrap()));
    }
    let mut trap = None;
    let mut bytes = Vec::new();
    for word in code.split_whitespace() {
        let plain = word.trim_matches(['<', '>']);
        if plain != word {
            trap = Some(bytes.len());
        }
        bytes.push(u8::from_str_radix(plain, 16).unwrap());
    }
    MachineState {
        pc: Some(CodePlace {
            function: Some(place.0.to_owned()),
            offset: Some(place.1),
            size: Some(place.2),
            ..Default::default()
        }),
        registers: Registers(values),
        code: Some(CodeBytes { bytes, trap, unit: 1, ..Default::default() }),
        ..Default::default()
    }
}

fn explained(state: MachineState, listings: Vec<Listing>, hardware: &str) -> Explanation {
    let report = CrashReport {
        title: "test".to_owned(),
        context: CrashContext { hardware: Some(hardware.to_owned()), ..Default::default() },
        registers: state.registers.clone(),
        code_bytes: state.code.clone(),
        states: vec![state],
        ..Default::default()
    };
    explain(
        &ReadResult { reports: vec![report], listings, ..Default::default() },
        &Options::default(),
    )
}

const ICR_WAIT: &str = "83 ff 02 74 35 66 66 2e 0f 1f 84 00 00 00 00 00 f7 04 25 00 c3 5f ff 00 10 00 00 74 0f \
     f3 90 f7 04 25 00 c3 5f ff 00 10 00 00 <75> f1 81 cf 00 00 0c 00 89 3c 25 00 c3 5f ff c3 48 8b 05 d7 2c 61";

fn icr_wait(flags: &str) -> MachineState {
    state(
        ("default_send_IPI_allbutself", 0x2a, 0x60),
        &format!(
            "cs 10 rsp ffff99e58027fdb0 rflags {flags} rax ffffffff8426ab50 rbx 0 rcx 1 rdx ffffffffff5fb000 rsi f8 \
             rdi f8 rbp 1 r8 0 r9 ffffffff84482120 r10 0 r11 ffffffff82c57f50 r12 4321fedc r13 fffffffffee1dead r14 0 \
             r15 28121969 gs_base ffff978b9f000000"
        ),
        ICR_WAIT,
    )
}

#[test]
fn an_emulated_test_that_loses_its_flags() {
    let explanation =
        explained(icr_wait("82"), Vec::new(), "QEMU Standard PC (i440FX + PIIX, 1996)");
    let [finding] = explanation.findings.as_slice() else { panic!("{:#?}", explanation.findings) };
    assert_eq!(finding.code, FindingCode::FlagsImpossible);
    assert_eq!(finding.id, "K0101");
    assert_eq!(finding.subject, "PF, SF");
    assert_eq!(
        (finding.at.symbol.as_str(), finding.at.offset),
        ("default_send_IPI_allbutself", 0x2a)
    );
    assert_eq!(finding.expected, "CF=0 PF=1 SF=0 OF=0 (AF, ZF either)");
    assert_eq!(finding.observed, "CF=0 PF=0 AF=0 ZF=0 SF=1 OF=0 (EFLAGS 0x82)");
    assert_eq!(finding.suspects[0].kind, SuspectKind::HypervisorEmulation);
    assert!(finding.suspects[0].because.iter().any(|b| b.contains("xAPIC register ICR low")));
    assert_eq!(finding.confidence, Confidence::High);
    let [step] = finding.derivation.as_slice() else { panic!("{:#?}", finding.derivation) };
    assert!(step.instruction.contains("testl $0x1000,0xffffffffff5fc300"), "{}", step.instruction);
    assert_eq!(step.effect, "the result is 0x0 or 0x1000: SF=0 PF=1 CF=0 OF=0; ZF open");
    let spin = explanation.states[0].spin.as_ref().unwrap();
    assert_eq!(spin.until, "(xAPIC ICR low & 0x1000) == 0");
}

/// With the whole function at hand nobody else can have come in.
#[test]
fn another_path_is_no_suspect_where_all_are_known() {
    let mut situation = Situation::of(&icr_wait("82")).unwrap();
    let kinds = |situation: &Situation| {
        let consistency = Consistency::check(situation);
        let found = findings(situation, &consistency, &Surroundings::default());
        assert_eq!(found.len(), 1, "{found:#?}");
        found[0].suspects.iter().map(|s| s.kind).collect::<Vec<_>>()
    };
    assert!(kinds(&situation).contains(&SuspectKind::OtherPath));
    let Window { bytes, trap, .. } = situation.window.clone();
    situation.window = Window::of_function(&bytes, trap, &[], true).unwrap();
    assert!(!kinds(&situation).contains(&SuspectKind::OtherPath));
    situation.window = Window::of_function(&bytes, trap, &[], false).unwrap();
    assert!(kinds(&situation).contains(&SuspectKind::OtherPath));
}

/// Both outcomes that the instruction can have: busy (ZF clear) and idle.
#[test]
fn the_same_loop_with_its_own_flags_is_only_a_wait() {
    for flags in ["6", "46", "206", "246"] {
        let explanation = explained(icr_wait(flags), Vec::new(), "QEMU");
        assert!(explanation.findings.is_empty(), "EFLAGS {flags}: {:#?}", explanation.findings);
        assert!(explanation.states[0].spin.is_some());
    }
}

/// The listing of the callee as a mail had it.
fn native_save_fl() -> Listing {
    let lines: [(u64, &str); 14] = [
        (0x40, "55"),
        (0x41, "48 89 e5"),
        (0x44, "48 83 ec 10"),
        (0x48, "65 48 8b 04 25 28 00 00 00"),
        (0x51, "48 89 45 f8"),
        (0x55, "9c"),
        (0x56, "8f 45 f0"),
        (0x59, "48 8b 45 f0"),
        (0x5d, "65 48 8b 0c 25 28 00 00 00"),
        (0x66, "48 3b 4d f8"),
        (0x6a, "75 06"),
        (0x6c, "48 83 c4 10"),
        (0x70, "5d"),
        (0x71, "c3"),
    ];
    Listing {
        function: Some("native_save_fl".to_owned()),
        instructions: lines
            .iter()
            .map(|(at, bytes)| ListedInstruction {
                address: 0xffff_ffff_8106_0200 + at,
                bytes: bytes.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn irq_work_tick(rcx: &str) -> MachineState {
    state(
        ("irq_work_tick", 0xaf, 0x120),
        &format!(
            "cs 10 rsp ffff96fb5fc03e58 rflags 10046 rax 82 rbx ffff96fb5fc11d80 rcx {rcx} rdx 1ba00 \
             rsi fffffffffffffed4 rdi ffff96fb5fc1ba38 rbp ffff96fb5fc03e78 r8 0 r9 18 r10 0 r11 18 \
             r12 ffffffffbb41bd40 r13 0 r14 ffffffffbb410480 r15 0 gs_base ffff96fb5fc00000"
        ),
        "4c 0f b1 7b f8 4c 89 e3 4d 85 e4 75 cf 48 c7 c1 88 5b 01 00 65 48 03 0c 25 d8 a1 00 00 ff 14 25 10 08 42 bb \
         a9 00 02 00 00 75 4b <48> 83 39 00 74 3c 31 db 48 87 19 48 85 db 74 32 90 48 8d 7b f8",
    )
}

#[test]
fn a_paravirtual_callee_that_loses_a_register() {
    let explanation = explained(irq_work_tick("47e992c1bc778d00"), vec![native_save_fl()], "QEMU");
    let [finding] = explanation.findings.as_slice() else { panic!("{:#?}", explanation.findings) };
    assert_eq!(finding.code, FindingCode::RegisterImpossible);
    assert_eq!(finding.subject, "RCX");
    assert!(finding.expected.starts_with("0xffff96fb5fc15b88"), "{}", finding.expected);
    assert_eq!(finding.observed, "0x47e992c1bc778d00");
    assert!(finding.observed_looks_like.as_ref().unwrap().contains("canary-like"));
    assert_eq!(finding.suspects[0].kind, SuspectKind::Callee);
    assert_eq!(finding.suspects[0].name.as_deref(), Some("native_save_fl+0x1d"));
    let steps: Vec<&str> = finding.derivation.iter().map(|s| s.instruction.as_str()).collect();
    assert_eq!(steps, ["mov $0x15b88,%rcx", "add %gs:0xa1d8,%rcx", "call *0xffffffffbb420810"]);
}

#[test]
fn without_a_listing_the_callee_is_suspect_but_has_no_name() {
    let explanation = explained(irq_work_tick("47e992c1bc778d00"), Vec::new(), "QEMU");
    let suspect = &explanation.findings[0].suspects[0];
    assert_eq!((suspect.kind, &suspect.name), (SuspectKind::Callee, &None));
}

#[test]
fn the_register_that_the_code_computes_is_no_finding() {
    let explanation = explained(irq_work_tick("ffff96fb5fc15b88"), vec![native_save_fl()], "QEMU");
    assert!(explanation.findings.is_empty(), "{:#?}", explanation.findings);
}

/// A list walk brings another pointer to the same place; that is no proof of anything.
#[test]
fn another_pointer_in_its_place_is_no_finding() {
    let explanation = explained(irq_work_tick("ffff96fb5fc1ba38"), Vec::new(), "QEMU");
    assert!(explanation.findings.is_empty(), "{:#?}", explanation.findings);
}

/// `rep movsb` in flight has its operands half-way: the flags of the `cmp` before it were made of
/// other values than the dump shows.
#[test]
fn a_string_instruction_in_flight_accuses_nobody() {
    let flight = state(
        ("copy_user_generic", 0x9, 0x20),
        "cs 10 rsp ffffc90000003d00 rflags 10206 rax 0 rbx 0 rcx 10 rdx 40 rsi ffff888000000030 rdi 7f0000000030 rbp 0 \
         r8 0 r9 0 r10 0 r11 0 r12 0 r13 0 r14 0 r15 0 gs_base ffff88801f200000",
        "0f 1f 00 89 d1 83 f9 40 <f3> a4 c3",
    );
    let explanation = explained(flight, Vec::new(), "QEMU");
    assert!(explanation.findings.is_empty(), "{:#?}", explanation.findings);
}

/// The same contradiction in user mode belongs to a program, and programs are traced and signalled.
#[test]
fn programs_are_not_accused() {
    let mut state = icr_wait("82");
    state.user_mode = true;
    assert!(explained(state, Vec::new(), "QEMU").findings.is_empty());
}

/// A kernel built by clang 14 in which `pv_ops.irq.save_fl` is a C function with a stack protector,
/// booted here; no-operations stand in place of what was before, so that it decodes in one way only. The
/// headline names the address, which is RCX a second time.
#[test]
fn an_address_in_the_headline_does_not_hide_a_lost_register() {
    let log = "\
[    0.004000] general protection fault, probably for non-canonical address 0xb9c610cdc1f3ef00: 0000 [#1] PREEMPT SMP NOPTI
[    0.004000] CPU: 0 PID: 0 Comm: swapper/0 Not tainted 6.1.192 #2
[    0.004000] RIP: 0010:irq_work_tick+0x6d/0x130
[    0.004000] Code: 90 90 90 90 90 90 90 90 48 c7 c1 70 ef 01 00 65 48 03 0d 64 dc f3 7e ff 15 e6 76 94 00 a9 00 02 00 00 0f 85 bd 00 00 00 <48> 83 39 00 74 0a 31 db 48 87 19
[    0.004000] RSP: 0000:ffa0000000003ef0 EFLAGS: 00000046
[    0.004000] RAX: 0000000000000046 RBX: ff1100001f41c3c0 RCX: b9c610cdc1f3ef00
[    0.004000] RDX: 0000000000000001 RSI: 0000000000000000 RDI: 0000000000000000
[    0.004000] FS:  0000000000000000(0000) GS:ff1100001f400000(0000) knlGS:0000000000000000
[    0.004000] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
[    0.004000] Call Trace:
[    0.004000]  <IRQ>
[    0.004000]  update_process_times+0x69/0x80
[    0.004000]  tick_handle_periodic+0x1b/0x80
[    0.004000]  timer_interrupt+0xf/0x20
[    0.004000]  </IRQ>
[    0.004000] ---[ end trace 0000000000000000 ]---
";
    let explanation = explain(&kolumbo_console::read(log.as_bytes()), &Options::default());
    let finding = explanation.findings.first().expect("a finding");
    assert_eq!(finding.code, FindingCode::RegisterImpossible);
    assert_eq!(finding.subject, "RCX");
    assert!(finding.expected.contains("0xff1100001f41ef70"), "{}", finding.expected);
    assert_eq!(finding.suspects[0].kind, SuspectKind::Callee);
}
