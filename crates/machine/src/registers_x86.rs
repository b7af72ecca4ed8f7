//! The text of QEMU's `info registers -a` for x86, as registers and samples.
//!
//! The format is that of `x86_cpu_dump_state` in QEMU's target/i386/cpu-dump.c: `RAX=` or `EAX=`
//! pairs, `RIP=... RFL=... CPL=... HLT=...`, segments as `GS =sel base limit flags`. Unknown lines
//! are passed over.

use kolumbo_case::{VcpuRegisters, VcpuSample};

/// RFLAGS.IF, interrupts enabled.
const FLAG_IF: u64 = 1 << 9;
/// CPUs beyond this are not read; QEMU's own limit for `pc` is 255.
const MAX_CPUS: usize = 4096;

/// The general registers, in the order in which they enter the state hash.
const GENERAL: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Parses the dump of all CPUs. Total over text: what cannot be read is left out.
pub fn parse_registers(text: &str) -> Vec<VcpuRegisters> {
    let mut cpus: Vec<VcpuRegisters> = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        if let Some(index) = line.strip_prefix("CPU#") {
            if cpus.len() == MAX_CPUS {
                break;
            }
            let cpu = index.trim().parse().unwrap_or(cpus.len() as u32);
            cpus.push(VcpuRegisters { cpu, ..VcpuRegisters::default() });
            continue;
        }
        let Some(cpu) = cpus.last_mut() else { continue };
        match line.get(..4) {
            Some("ES =" | "CS =" | "SS =" | "DS =" | "FS =" | "GS =" | "LDT=" | "TR =") => {
                parse_segment(cpu, line);
            }
            Some("GDT=" | "IDT=") => parse_table(cpu, line),
            Some(prefix) if prefix.starts_with("FPR") || prefix.starts_with("XMM") => {}
            _ => parse_pairs(cpu, line),
        }
    }
    cpus
}

/// `RAX=0123 RBX=...`, where a name may be followed by blanks (`R8 =`).
fn parse_pairs(cpu: &mut VcpuRegisters, line: &str) {
    let mut rest = line;
    while let Some(equals) = rest.find('=') {
        let name = rest[..equals].trim_end().rsplit(' ').next().unwrap_or("");
        let after = &rest[equals + 1..];
        let end = after.find(' ').unwrap_or(after.len());
        if let Ok(value) = u64::from_str_radix(&after[..end], 16) {
            let name = long_name(name);
            match name.as_str() {
                "hlt" => cpu.halted = value != 0,
                "" | "a20" => {}
                _ => cpu.values.push((name, value)),
            }
        }
        rest = &after[end..];
    }
}

/// The 64-bit name of a register: a dump of a CPU in 16 or 32-bit mode says `EAX`, `EIP`, `EFL`.
fn long_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "rfl" | "efl" => "rflags".to_owned(),
        "eax" | "ebx" | "ecx" | "edx" | "esi" | "edi" | "ebp" | "esp" | "eip" => {
            format!("r{}", &lower[1..])
        }
        _ => lower,
    }
}

fn parse_segment(cpu: &mut VcpuRegisters, line: &str) {
    let name = line[..3].trim_end().to_ascii_lowercase();
    let mut fields = line[4..].split_whitespace();
    if let Some(Ok(selector)) = fields.next().map(|f| u64::from_str_radix(f, 16)) {
        cpu.values.push((name.clone(), selector));
    }
    if let Some(Ok(base)) = fields.next().map(|f| u64::from_str_radix(f, 16)) {
        cpu.values.push((format!("{name}_base"), base));
    }
    if name == "cs" && line.contains("CS64") {
        cpu.values.push(("long_mode".to_owned(), 1));
    }
}

fn parse_table(cpu: &mut VcpuRegisters, line: &str) {
    let name = line[..3].to_ascii_lowercase();
    if let Some(Ok(base)) = line[4..].split_whitespace().next().map(|f| u64::from_str_radix(f, 16))
    {
        cpu.values.push((name, base));
    }
}

/// Sums a CPU's registers up as a sample.
pub fn sample_of(registers: &VcpuRegisters) -> VcpuSample {
    let value = |name| registers.get(name).unwrap_or(0);
    // Outside 64-bit code the instruction pointer counts from the code segment's base.
    let base = if registers.get("long_mode").is_some() { 0 } else { value("cs_base") };
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    for name in GENERAL.iter().chain(&["rip", "rflags"]) {
        for byte in value(name).to_le_bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    VcpuSample {
        cpu: registers.cpu,
        halted: registers.halted,
        interrupts: value("rflags") & FLAG_IF != 0,
        cpl: (value("cpl") & 3) as u8,
        pc: value("rip").wrapping_add(base),
        flags: value("rflags"),
        page_table: value("cr3"),
        sp: value("rsp"),
        state,
        ..VcpuSample::default()
    }
}

/// Parses the reply to `x /Nxb ADDRESS`: lines of `address: 0x12 0x34 ...`.
pub fn parse_memory(text: &str) -> Vec<u8> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(_, bytes)| bytes.split_whitespace())
        .map_while(|b| u8::from_str_radix(b.strip_prefix("0x")?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\nCPU#0\n\
        RAX=0000000000000000 RBX=ffffffff97851126 RCX=00000000000000cc RDX=0000000000000005\n\
        R8 =ffffffff97851126 R9 =0000000000000001 R10=ffffffff99203eb9 R11=ffffffff992d2328\n\
        RIP=ffffffff98601ef0 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\n\
        ES =0000 0000000000000000 00000000 00000000\n\
        CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\n\
        GS =0000 ffff88cb5f200000 00000000 00000000\n\
        GDT=     fffffe0000001000 0000007f\n\
        CR0=80050033 CR2=ffff88cb59401000 CR3=0000000018610000 CR4=000006b0\n\
        FPR0=0000000000000000 0000 FPR1=0000000000000000 0000\n\
        \nCPU#1\n\
        EAX=000f49f6 EBX=00000000 ECX=000002ff EDX=00000001\n\
        EIP=0000d09a EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\n\
        CS =f000 000f0000 ffffffff 00cf9b00 DPL=0 CS32 [-RA]\n";

    #[test]
    fn both_modes_are_read() {
        let cpus = parse_registers(DUMP);
        assert_eq!(cpus.len(), 2);
        assert_eq!(cpus[0].get("rip"), Some(0xffff_ffff_9860_1ef0));
        assert_eq!(cpus[0].get("r8"), Some(0xffff_ffff_9785_1126));
        assert_eq!(cpus[0].get("gs_base"), Some(0xffff_88cb_5f20_0000));
        assert_eq!(cpus[0].get("cr2"), Some(0xffff_88cb_5940_1000));
        assert_eq!(cpus[0].get("gdt"), Some(0xffff_fe00_0000_1000));
        let sample = sample_of(&cpus[0]);
        assert!(sample.interrupts && !sample.halted);
        let parked = sample_of(&cpus[1]);
        assert!(parked.halted && !parked.interrupts);
        assert_eq!(parked.pc, 0xf_d09a);
    }

    #[test]
    fn a_change_in_any_register_changes_the_state() {
        let cpus = parse_registers(DUMP);
        let before = sample_of(&cpus[0]);
        for name in ["rcx", "r11", "rip", "rflags"] {
            let mut other = cpus[0].clone();
            for (n, v) in &mut other.values {
                if n == name {
                    *v ^= 1;
                }
            }
            assert_ne!(sample_of(&other).state, before.state, "{name}");
        }
    }

    #[test]
    fn memory_lines_are_bytes() {
        assert_eq!(
            parse_memory("ffffffff81000000: 0x48 0x8d\nffffffff81000002: 0x25\n"),
            [0x48, 0x8d, 0x25]
        );
        assert!(parse_memory("Cannot access memory\n").is_empty());
    }
}
