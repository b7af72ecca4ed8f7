//! The two mails that kolumbo was made for, part by part.
//!
//! Both are web-archive text with quoting and lines that mailers wrapped. They are not part of the
//! tree; the test looks for them in `shared/seeds` beside the workspace.

// A test reads files and circumstances; the crate must not.
#![allow(clippy::disallowed_methods)]

use std::io::Write as _;
use std::path::PathBuf;

use kolumbo_case::{MachineState, Phase, ReadResult, StackContext};
use kolumbo_console::read;

fn seed(beginning: &str) -> Option<ReadResult> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/seeds");
    let found = std::fs::read_dir(&folder).ok().and_then(|entries| {
        entries
            .filter_map(Result::ok)
            .find(|e| e.file_name().to_string_lossy().starts_with(beginning))
            .and_then(|e| std::fs::read(e.path()).ok())
    });
    if found.is_none() {
        assert!(
            std::env::var_os("KOLUMBO_REQUIRE_ALL").is_none_or(|v| v != "1"),
            "KOLUMBO_REQUIRE_ALL is set, but {} has no seed {beginning}",
            folder.display()
        );
        let _ = writeln!(std::io::stderr(), "skipped: no seed mail {beginning}");
    }
    Some(read(&found?))
}

fn register(state: &MachineState, name: &str) -> u64 {
    state.registers.get(name).unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn a_stall_at_power_off_with_one_nmi_backtrace() {
    let Some(result) = seed("000_") else { return };
    assert_eq!(result.format, "mail");
    assert_eq!(result.reports.len(), 1);
    let report = &result.reports[0];
    assert_eq!(report.title, "INFO: rcu detected stall in reboot");
    assert_eq!(
        (report.crash_type.as_str(), report.panicked, report.corrupted),
        ("HANG", false, false)
    );
    assert_eq!((report.quote_depth, report.time.as_deref()), (0, Some("152.698101")));

    let context = &report.context;
    assert_eq!(
        (context.cpu, context.pid, context.comm.as_deref()),
        (Some(0), Some(117), Some("init"))
    );
    assert_eq!((context.tainted, context.release.as_deref()), (Some(false), Some("6.5.0-rc5")));
    assert!(
        context
            .hardware
            .as_deref()
            .is_some_and(|h| h.starts_with("QEMU Standard PC (i440FX + PIIX, 1996)"))
    );

    let state = &report.states[0];
    assert_eq!(state.cpu, Some(0));
    let pc = state.pc.as_ref().expect("RIP");
    assert_eq!(
        (pc.function.as_deref(), pc.offset, pc.size),
        (Some("default_send_IPI_allbutself"), Some(0x2a), Some(0x60))
    );
    for (name, value) in [
        ("cs", 0x10),
        ("ss", 0x18),
        ("rsp", 0xffff_99e5_8027_fdb0),
        ("rflags", 0x82),
        ("rax", 0xffff_ffff_8426_ab50),
        ("rcx", 1),
        ("rdx", 0xffff_ffff_ff5f_b000),
        ("r13", 0xffff_ffff_fee1_dead),
        ("r15", 0x2812_1969),
        ("gs_base", 0xffff_978b_9f00_0000),
        ("cr0", 0x8005_0033),
        ("cr2", 0x7f09_d4a8_a360),
        ("cr3", 0x24c_4000),
        ("cr4", 0x35_0ef0),
    ] {
        assert_eq!(register(state, name), value, "{name}");
    }
    let code = report.code_bytes.as_ref().expect("Code:");
    assert_eq!((code.bytes.len(), code.trap), (64, Some(42)));
    assert_eq!(&code.bytes[42..44], [0x75, 0xf1], "jne back to the test of ICR");

    let trace = &report.traces[0];
    assert_eq!(trace.frames.len(), 16);
    let nmi: Vec<_> = trace.frames.iter().filter(|f| f.context == StackContext::Nmi).collect();
    assert_eq!(nmi.len(), 10);
    assert!(nmi.iter().all(|f| !f.reliable));
    let task: Vec<_> = trace
        .frames
        .iter()
        .filter(|f| f.context == StackContext::Task)
        .filter_map(|f| f.place.function.as_deref())
        .collect();
    assert_eq!(
        task,
        [
            "native_stop_other_cpus",
            "native_machine_shutdown",
            "native_machine_power_off",
            "__se_sys_reboot",
            "do_syscall_64",
            "entry_SYSCALL_64_after_hwframe"
        ]
    );
    let user = &trace.boundaries[0].state;
    assert!(user.user_mode);
    assert_eq!((register(user, "orig_rax"), register(user, "rdx")), (0xa9, 0x4321_fedc));
    assert_eq!(user.code.as_ref().and_then(|c| c.trap), Some(42));
    assert!(report.details.iter().any(|d| d.values.get("detected_by").is_some_and(|v| v == "1")));
    assert!(result.gaps.is_empty() && report.gaps.is_empty());
}

#[test]
fn two_protection_faults_at_two_depths_and_a_boot() {
    let Some(result) = seed("002_") else { return };
    let titles: Vec<_> =
        result.reports.iter().map(|r| (r.title.as_str(), r.quote_depth, r.panicked)).collect();
    let title = "general protection fault in irq_work_tick";
    assert_eq!(titles, [(title, 3, true), (title, 2, true)]);

    for (report, rcx, offset, size, release) in [
        (&result.reports[0], 0xadec_c9cc_04e2_ca00, 0x9d, 0x110, "4.14.0-1-iniza-llvmlinux"),
        (&result.reports[1], 0x47e9_92c1_bc77_8d00, 0xaf, 0x120, "4.14.0+"),
    ] {
        assert_eq!((report.crash_type.as_str(), report.corrupted), ("DoS", false));
        assert_eq!(report.context.release.as_deref(), Some(release));
        assert_eq!(
            (report.context.pid, report.context.comm.as_deref()),
            (Some(0), Some("swapper/0"))
        );
        let state = &report.states[0];
        let pc = state.pc.as_ref().expect("RIP");
        assert_eq!(
            (pc.function.as_deref(), pc.offset, pc.size),
            (Some("irq_work_tick"), Some(offset), Some(size))
        );
        assert_eq!(register(state, "rcx"), rcx);
        assert_eq!((register(state, "rax"), register(state, "rflags")), (0x82, 0x10046));
        assert_eq!((register(state, "cs"), register(state, "cr4")), (0x10, 0x6b0));
        // The bytes stand behind the trace, and a mailer had cut them into three lines.
        let code = report.code_bytes.as_ref().expect("Code:");
        assert_eq!((code.bytes.len(), code.trap), (64, Some(43)));
        assert_eq!(&code.bytes[43..47], [0x48, 0x83, 0x39, 0x00], "cmpq $0x0,(%rcx)");

        let trace = &report.traces[0];
        assert_eq!(trace.frames.len(), 18);
        assert_eq!(trace.frames.iter().filter(|f| f.context == StackContext::Irq).count(), 10);
        assert_eq!(trace.frames[17].place.function.as_deref(), Some("secondary_startup_64"));
        let boundary = &trace.boundaries[0];
        assert_eq!(boundary.after_frames, 10);
        let interrupted = boundary.state.pc.as_ref().and_then(|p| p.function.as_deref());
        assert_eq!(interrupted, Some("native_restore_fl"));
        assert_eq!(register(&boundary.state, "orig_rax"), 0xffff_ffff_ffff_ffcf);
        assert!(!boundary.state.user_mode);
    }
    assert_eq!(register(&result.reports[0].traces[0].boundaries[0].state, "rflags"), 0x286);

    assert_eq!(result.boots.len(), 1);
    let boot = &result.boots[0];
    assert_eq!((boot.release.as_deref(), boot.quote_depth), (Some("4.14.0-1-iniza-llvmlinux"), 3));
    assert_eq!(
        (boot.compiler.as_deref(), boot.compiler_version.as_deref()),
        (Some("clang"), Some("6.0.0-1"))
    );
    assert_eq!(
        boot.command_line.as_deref(),
        Some("root=/dev/ram0 console=ttyS0 hung_task_panic=1 earlyprintk=ttyS0,115200")
    );
    assert_eq!((boot.memory_available_kib, boot.memory_total_kib), (Some(474_480), Some(523_768)));
    assert_eq!((boot.cpus_allowed, boot.hypervisor.as_deref()), (Some(1), Some("KVM")));
    assert_eq!(boot.phase, Phase::EarlyConsole);

    let functions: Vec<_> =
        result.listings.iter().map(|l| (l.function.as_deref(), l.quote_depth)).collect();
    assert_eq!(functions.first(), Some(&(Some("irq_work_tick"), 2)));
    assert_eq!(functions.last(), Some(&(Some("native_save_fl"), 2)));
    let listing = &result.listings[0];
    let call = listing
        .instructions
        .iter()
        .find(|i| i.address == 0xffff_ffff_8119_32a1)
        .expect("the call through pv_irq_ops");
    assert_eq!(
        (call.bytes.as_slice(), call.text.as_str()),
        (&[0xff, 0x14, 0x25, 0x10, 0x08, 0xc2, 0x81][..], "callq *0xffffffff81c20810")
    );
    let add = listing
        .instructions
        .iter()
        .find(|i| i.address == 0xffff_ffff_8119_3298)
        .expect("the add of the per-CPU base");
    assert_eq!(add.bytes.len(), 9, "the bytes of the second line belong to it");
    let clobber = result
        .listings
        .iter()
        .flat_map(|l| &l.instructions)
        .find(|i| i.address == 0xffff_ffff_8106_025d);
    assert_eq!(clobber.map(|i| i.text.as_str()), Some("mov %gs:0x28,%rcx"));
}
