//! The same crash as the kernels of other machines print it.
//!
//! The logs in `fixtures/machines` were written by hand after the functions of the kernel that print
//! them (`show_regs` of each architecture, v6.1): no such machine was there to boot.

use expect_test::{Expect, expect};
use kolumbo_console::read;

/// Everything of the dump that a reader needs, on a few lines.
fn check(log: &str, expected: &Expect) {
    let result = read(log.as_bytes());
    assert_eq!(result.reports.len(), 1);
    let report = &result.reports[0];
    let place = |p: &kolumbo_case::CodePlace| {
        let module = p.module.as_deref().map_or(String::new(), |m| format!(" [{m}]"));
        let function = p.function.as_deref().unwrap_or("?");
        match (p.offset, p.size) {
            (Some(offset), Some(size)) => format!("{function}+{offset:#x}/{size:#x}{module}"),
            _ => format!("{function}{module}"),
        }
    };
    let pc = report.states[0].pc.as_ref().map_or("none".to_owned(), place);
    let frames: Vec<String> = report.traces[0].frames.iter().map(|f| place(&f.place)).collect();
    let registers: Vec<String> =
        report.registers.0.iter().map(|(name, value)| format!("{name}={value:x}")).collect();
    let code = report
        .code_bytes
        .as_ref()
        .map_or("none".to_owned(), |c| format!("{} bytes, trap at {:?}", c.bytes.len(), c.trap));
    let context = &report.context;
    let got = format!(
        "{}\n{} cpu {:?} pid {:?} {} {}\nat {pc}\n{}\n{}\ncode: {code}\n",
        report.title,
        report.crash_type,
        context.cpu.unwrap_or(u32::MAX),
        context.pid.unwrap_or(0),
        context.release.as_deref().unwrap_or("?"),
        if report.corrupted { "corrupted" } else { "whole" },
        frames.join(" < "),
        registers.join(" "),
    );
    expected.assert_eq(&got);
}

#[test]
fn arm64() {
    check(
        include_str!("fixtures/machines/arm64.log"),
        &expect![[r#"
        BUG: unable to handle kernel paging request in sick_deref
        MEMORY_SAFETY_BUG cpu 1 pid 85 6.1.0 whole
        at sick_deref+0x14/0x40 [sick]
        sick_deref+0x14/0x40 [sick] < sick_init+0x6c/0x1000 [sick] < do_one_initcall+0x54/0x1ec
        pstate=60400005 sp=ffff80000a0c3b30 x29=ffff80000a0c3b30 x28=0 x27=ffff80000a0c3d40 x2=dead000000000122 x1=dead000000000100 x0=ffff0000c1a2b000 esr=96000044 far=dead000000000108
        code: 16 bytes, trap at Some(12)
    "#]],
    );
}

#[test]
fn arm() {
    check(
        include_str!("fixtures/machines/arm.log"),
        &expect![[r#"
        BUG: unable to handle kernel NULL pointer dereference in sick_deref
        NULL-POINTER-DEREFERENCE cpu 1 pid 85 6.1.0 whole
        at sick_deref+0x14/0x40 [sick]
        sick_init+0x6c/0x1000 [sick] < do_one_initcall+0x54/0x1ec
        pc=bf000014 lr=bf00506c psr=60000013 sp=e0a15d90 ip=0 fp=e0a15d9c r10=0 r9=c1004c40 r8=bf002000 r3=8 r2=0 r1=1 r0=0
        code: 16 bytes, trap at Some(12)
    "#]],
    );
}

#[test]
fn powerpc() {
    check(
        include_str!("fixtures/machines/powerpc.log"),
        &expect![[r#"
        BUG: unable to handle kernel NULL pointer dereference in sick_deref
        NULL-POINTER-DEREFERENCE cpu 1 pid 85 6.1.0 whole
        at sick_deref+0x14/0x40 [sick]
        sick_init+0x6c/0x1000 [sick] < do_one_initcall+0x54/0x1ec
        nip=c008000000b10014 lr=c008000000b1506c ctr=c008000000b15000 msr=800000000280b033 cr=24002222 xer=20040000 cfar=c00000000000dbe4 dar=8 dsisr=42000000 r0=c008000000b1506c r1=c00000000a0c39a0 r2=c008000000b38000 r3=0 r4=1 r5=2 r6=3 r7=4
        code: none
    "#]],
    );
}

#[test]
fn i386() {
    check(
        include_str!("fixtures/machines/i386.log"),
        &expect![[r#"
        BUG: unable to handle kernel NULL pointer dereference in sick_deref
        NULL-POINTER-DEREFERENCE cpu 1 pid 85 6.1.0 whole
        at sick_deref+0x5/0x20 [sick]
        sick_init+0x6c/0x1000 [sick] < do_one_initcall+0x54/0x1ec
        eax=0 ebx=f8a02000 ecx=1 edx=0 esi=c1a0b000 edi=0 ebp=c10a3e40 esp=c10a3e40 ds=7b es=7b fs=d8 gs=0 ss=68 rflags=10246 cr0=80050033 cr2=8 cr3=a0c3000 cr4=690
        code: 16 bytes, trap at Some(6)
    "#]],
    );
}

#[test]
fn riscv() {
    check(
        include_str!("fixtures/machines/riscv.log"),
        &expect![[r#"
        BUG: unable to handle kernel NULL pointer dereference in sick_deref
        NULL-POINTER-DEREFERENCE cpu 1 pid 85 6.1.0 whole
        at sick_deref+0x8/0x20 [sick]
        sick_deref+0x8/0x20 [sick] < sick_init+0x6e/0x1000 [sick] < do_one_initcall+0x54/0x1ec
        epc=ffffffff01562008 ra=ffffffff0156206e sp=ff20000000123d10 gp=ffffffff8150f8d0 tp=ff60000002a4d000 t0=40 t1=2 t2=0 s0=ff20000000123d30 status=200000120 badaddr=8 cause=f
        code: 14 bytes, trap at Some(8)
    "#]],
    );
}

#[test]
fn s390() {
    check(
        include_str!("fixtures/machines/s390.log"),
        &expect![[r#"
        BUG: unable to handle kernel pointer dereference in sick_deref
        UNKNOWN cpu 1 pid 85 6.1.0 whole
        at sick_deref+0x14/0x40 [sick]
        sick_deref+0x14/0x40 [sick] < sick_init+0x6e/0x1000 [sick] < do_one_initcall+0x54/0x1ec
        pswm=704c00180000000 pswa=3ff8000b2c4 r0=1 r1=0 r2=3ff8000b2b0 r3=3 r4=4 r5=5 r6=6 r7=7 r8=8 r9=9 r10=a r11=b r12=c r13=d r14=3ff8000d06e r15=380000e3c10
        code: 20 bytes, trap at Some(14)
    "#]],
    );
}
