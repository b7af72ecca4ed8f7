//! The virtual CPUs that a verdict is about, as they stand when it is reached.
//!
//! Decides which of them are kept and how much of the code around them. Works on any [`GuestView`];
//! the guest must hold still. The main function is [`cpus_of`].

use std::collections::BTreeSet;

use kolumbo_case::{
    CodeBytes, CodePlace, Evidence, GuestView, MachineState, Registers, Verdict, VerdictKind,
};

/// Bytes of code before the instruction pointer: twice what the kernel's own dumps show
/// (`PROLOGUE_SIZE` in arch/x86/kernel/dumpstack.c is 42).
const BEFORE: usize = 84;
/// Bytes from the instruction pointer on.
const BEHIND: usize = 42;
/// CPUs that are kept: a guest of hundreds that all wait for one need not fill the case.
const MOST: usize = 16;

/// What a dump of the kernel shows, by the names that it has there.
const KEPT: [&str; 25] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags", "cs", "cr0", "cr2", "cr3", "cr4", "fs_base", "gs_base",
];

/// The CPUs whose samples are evidence of `verdict` and that run: registers and the code around them.
/// Empty for a healthy guest. What cannot be read is left out.
pub fn cpus_of(guest: &mut dyn GuestView, verdict: &Verdict) -> Vec<MachineState> {
    if verdict.verdict == VerdictKind::Booted {
        return Vec::new();
    }
    let named: BTreeSet<u32> = named(verdict).collect();
    named.into_iter().take(MOST).filter_map(|cpu| state_of(guest, cpu)).collect()
}

/// The CPUs that run and whose samples are evidence of `verdict`.
pub fn named(verdict: &Verdict) -> impl Iterator<Item = u32> {
    verdict.evidence.iter().filter_map(|e| match e {
        Evidence::Vcpu { last, .. } if !last.halted => Some(last.cpu),
        _ => None,
    })
}

fn state_of(guest: &mut dyn GuestView, cpu: u32) -> Option<MachineState> {
    let read = guest.registers(cpu).ok()?;
    // Real mode has other registers and another way to find its code.
    read.get("long_mode")?;
    let rip = read.get("rip").filter(|_| !read.halted)?;
    let mut registers = Registers::default();
    for name in KEPT {
        if let Some(value) = read.get(name) {
            registers.insert(name, value);
        }
    }
    Some(MachineState {
        cpu: Some(cpu),
        user_mode: read.get("cs").is_some_and(|cs| cs & 3 == 3),
        pc: Some(CodePlace { address: Some(rip), ..CodePlace::default() }),
        registers,
        code: code_around(guest, cpu, rip),
        ..MachineState::default()
    })
}

/// As many bytes as are mapped: the page before or behind may be missing.
fn code_around(guest: &mut dyn GuestView, cpu: u32, rip: u64) -> Option<CodeBytes> {
    let mut read = |from: u64, length: usize| {
        let mut bytes = vec![0; length];
        guest.read_memory(cpu, from, &mut bytes).ok().map(|()| bytes)
    };
    let in_page = (rip & 0xfff) as usize;
    let (mut bytes, trap) = [BEFORE, BEFORE.min(in_page), 0]
        .into_iter()
        .find_map(|before| Some((read(rip.wrapping_sub(before as u64), before)?, before)))?;
    let behind = [BEHIND, BEHIND.min(0x1000 - in_page)];
    bytes.extend(behind.into_iter().find_map(|length| read(rip, length))?);
    Some(CodeBytes { bytes, trap: Some(trap), unit: 1, ..CodeBytes::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kolumbo_case::{Phase, ReadError, VcpuRegisters, VcpuSample};

    /// One page of code, nothing around it.
    struct Page;

    const AT: u64 = 0xffff_ffff_8100_0000;

    impl GuestView for Page {
        fn vcpus(&self) -> u32 {
            2
        }

        fn registers(&mut self, cpu: u32) -> Result<VcpuRegisters, ReadError> {
            let values = [("rip", AT + 0x10), ("cs", 0x10), ("long_mode", 1), ("rcx", 7)];
            let values = values.iter().map(|&(n, v)| (n.to_owned(), v)).collect();
            Ok(VcpuRegisters { cpu, halted: false, values })
        }

        fn read_memory(&mut self, _: u32, from: u64, into: &mut [u8]) -> Result<(), ReadError> {
            if from < AT || from + into.len() as u64 > AT + 0x1000 {
                return Err(ReadError::Unmapped { address: from });
            }
            into.fill(0x90);
            Ok(())
        }
    }

    #[test]
    fn a_cpu_at_the_edge_of_a_page_is_kept_with_the_code_there_is() {
        let sample = |cpu, halted| Evidence::Vcpu {
            from_t: 0,
            to_t: 1,
            samples: 2,
            text: String::new(),
            last: VcpuSample { cpu, halted, ..VcpuSample::default() },
        };
        let mut verdict = Verdict {
            verdict: VerdictKind::HungUserspace,
            reason: String::new(),
            phase: Phase::Userspace,
            timed_out: false,
            last_sign_of_life_ms: 0,
            decided_ms: 1,
            evidence: vec![sample(0, true), sample(1, false)],
        };
        let cpus = cpus_of(&mut Page, &verdict);
        assert_eq!(cpus.len(), 1);
        assert_eq!((cpus[0].cpu, cpus[0].user_mode), (Some(1), false));
        assert_eq!(cpus[0].registers.get("rcx"), Some(7));
        assert_eq!(cpus[0].registers.get("long_mode"), None);
        let code = cpus[0].code.as_ref().unwrap();
        assert_eq!((code.trap, code.bytes.len()), (Some(0x10), 0x10 + BEHIND));
        verdict.verdict = VerdictKind::Booted;
        assert!(cpus_of(&mut Page, &verdict).is_empty());
    }
}
