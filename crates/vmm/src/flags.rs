//! Whether a hypervisor computes flags as the CPU does.
//!
//! A guest without a kernel runs each instruction form twice: on memory, where the CPU executes it,
//! and on addresses without memory behind them, where the hypervisor emulates it. Flags and results
//! have to be equal. The addresses are the APIC's page (emulated inside KVM, unless the hardware
//! does it) and a page that nobody owns (emulated in KVM, served by this program). Main function:
//! [`run`].

use std::sync::mpsc;
use std::time::{Duration, Instant};

use kolumbo_case::emulation::{Difference, FormResult, Outcome, Place};
use kvm_bindings::kvm_regs;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::monitor::{self, MonitorError, kvm, system};
use crate::vcpu;

const CODE: u64 = 0x1000;
const STACK: u64 = 0x8000;
/// The memory operand that the CPU works on.
const IN_MEMORY: u32 = 0x9000;
const RESULTS: u64 = 0xa000;
const MEMORY: u64 = 0x2_0000;
/// The initial count of the local APIC's timer (offset 0x380, Intel SDM volume 3): 32 bits that keep
/// what is written. Its interrupt is masked after a reset, so that counting does nothing.
const IN_APIC: u32 = 0xfee0_0380;
/// No memory and no device of KVM is here.
const IN_DEVICE: u32 = 0xd000_0000;
/// The guest says at this port that it is done.
const DONE: u16 = 0xf4;

/// Carry, parity, adjust, zero, sign and overflow.
const ARITHMETIC: u32 = 0x8d5;
const CF: u32 = 1;
const AF: u32 = 0x10;
const OF: u32 = 0x800;
/// What is left where AND, OR, XOR and TEST leave AF undefined.
const LOGIC: u32 = ARITHMETIC & !AF;
/// After a shift by more than one bit, OF is undefined as well.
const SHIFT: u32 = LOGIC & !OF;
/// Rotations by more than one bit define CF, and keep ZF, SF, PF and AF.
const ROTATE: u32 = ARITHMETIC & !OF;

/// Results in the guest's memory: flags and operand of both runs, 32 bits each.
const RESULT_SIZE: u64 = 16;

/// An instruction form: how it is encoded with a memory operand, and what it defines.
struct Form {
    /// As GNU as would read it.
    name: &'static str,
    opcode: &'static [u8],
    /// The middle field of ModRM: a register (1 is ECX) or part of the opcode.
    middle: u8,
    /// Bytes of the immediate operand.
    immediate: u8,
    /// Flags that the instruction defines or keeps.
    defined: u32,
    /// It accesses one byte, which the APIC's page does not take.
    byte: bool,
}

const fn form(
    name: &'static str,
    opcode: &'static [u8],
    middle: u8,
    immediate: u8,
    defined: u32,
) -> Form {
    Form { name, opcode, middle, immediate, defined, byte: false }
}

const fn byte(
    name: &'static str,
    opcode: &'static [u8],
    middle: u8,
    immediate: u8,
    defined: u32,
) -> Form {
    Form { name, opcode, middle, immediate, defined, byte: true }
}

/// What compilers use on device memory, and their neighbours. Opcodes: Intel SDM volume 2.
const FORMS: &[Form] = &[
    form("testl $imm, mem", &[0xf7], 0, 4, LOGIC),
    form("testl %ecx, mem", &[0x85], 1, 0, LOGIC),
    form("cmpl $imm, mem", &[0x81], 7, 4, ARITHMETIC),
    form("cmpl %ecx, mem", &[0x39], 1, 0, ARITHMETIC),
    form("cmpl mem, %ecx", &[0x3b], 1, 0, ARITHMETIC),
    form("andl $imm, mem", &[0x81], 4, 4, LOGIC),
    form("andl mem, %ecx", &[0x23], 1, 0, LOGIC),
    form("orl $imm, mem", &[0x81], 1, 4, LOGIC),
    form("orl mem, %ecx", &[0x0b], 1, 0, LOGIC),
    form("xorl %ecx, mem", &[0x31], 1, 0, LOGIC),
    form("addl $imm, mem", &[0x81], 0, 4, ARITHMETIC),
    form("addl mem, %ecx", &[0x03], 1, 0, ARITHMETIC),
    form("adcl %ecx, mem", &[0x11], 1, 0, ARITHMETIC),
    form("subl $imm, mem", &[0x81], 5, 4, ARITHMETIC),
    form("sbbl %ecx, mem", &[0x19], 1, 0, ARITHMETIC),
    form("incl mem", &[0xff], 0, 0, ARITHMETIC),
    form("decl mem", &[0xff], 1, 0, ARITHMETIC),
    form("negl mem", &[0xf7], 3, 0, ARITHMETIC),
    form("notl mem", &[0xf7], 2, 0, ARITHMETIC),
    form("shll $imm, mem", &[0xc1], 4, 1, SHIFT),
    form("shrl $imm, mem", &[0xc1], 5, 1, SHIFT),
    form("sarl $imm, mem", &[0xc1], 7, 1, SHIFT),
    form("shll mem", &[0xd1], 4, 0, LOGIC),
    form("roll $imm, mem", &[0xc1], 0, 1, ROTATE),
    form("btl $imm, mem", &[0x0f, 0xba], 4, 1, CF),
    form("btsl $imm, mem", &[0x0f, 0xba], 5, 1, CF),
    form("xaddl %ecx, mem", &[0x0f, 0xc1], 1, 0, ARITHMETIC),
    form("cmpxchgl %ecx, mem", &[0x0f, 0xb1], 1, 0, ARITHMETIC),
    form("imull mem, %ecx", &[0x0f, 0xaf], 1, 0, CF | OF),
    form("movl mem, %ecx", &[0x8b], 1, 0, ARITHMETIC),
    byte("testb $imm, mem", &[0xf6], 0, 1, LOGIC),
    byte("cmpb $imm, mem", &[0x80], 7, 1, ARITHMETIC),
    byte("sete mem", &[0x0f, 0x94], 0, 0, ARITHMETIC),
    byte("setb mem", &[0x0f, 0x92], 0, 0, ARITHMETIC),
    byte("seto mem", &[0x0f, 0x90], 0, 0, ARITHMETIC),
];

/// Operands: in memory, in ECX or immediate, and the flags before. The first is the test of a busy
/// APIC that Linux does, `testl $0x1000` on zero.
const TRIALS: [(u32, u32, u32); 8] = [
    (0, 0x1000, 0),
    (0x1000, 0x1000, ARITHMETIC),
    (0x8000_0000, 0x8000_0001, 0),
    (0xffff_ffff, 1, CF),
    (0x7fff_ffff, 1, 0),
    (5, 5, ARITHMETIC),
    (0x1234_5678, 0x0f0f_0f03, CF),
    (1, 2, 0),
];

/// Runs every form on every kind of address, as far as `limit` allows.
///
/// # Errors
/// When KVM cannot be used at all.
pub fn run(limit: Duration) -> Result<Vec<FormResult>, MonitorError> {
    let deadline = Instant::now() + limit;
    vcpu::block_wake_signal().map_err(system("block a signal"))?;
    let (device, vm) = monitor::machine()?;
    let memory = monitor::memory_of(&vm, MEMORY)?;
    let mut vcpu = vm.create_vcpu(0).map_err(kvm("make a virtual CPU"))?;
    let cpuid = monitor::cpuid(&device)?;
    vcpu.set_cpuid2(&vcpu::cpuid_of(&cpuid, 0)).map_err(kvm("say what the CPU can do"))?;
    vcpu::wake_in_guest(&vcpu).map_err(system("set the signals of a virtual CPU"))?;

    // A CPU that never comes back is brought back when the time is over.
    let (over, waits) = mpsc::channel::<()>();
    let thread = vcpu::this_thread();
    let guard = std::thread::spawn(move || {
        if waits.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            vcpu::wake(thread);
        }
    });
    let mut results = Vec::new();
    for place in [Place::Apic, Place::Device] {
        for form in FORMS.iter().filter(|f| !(f.byte && place == Place::Apic)) {
            results.push(if Instant::now() < deadline {
                run_form(&mut vcpu, &memory, form, place)?
            } else {
                result(form, place, Outcome::NotRun)
            });
        }
    }
    drop(over);
    // It has nothing that could fail.
    let _ = guard.join();
    vcpu::take_wake_signal();
    Ok(results)
}

fn result(form: &Form, place: Place, outcome: Outcome) -> FormResult {
    FormResult { form: form.name.to_owned(), place, outcome, trials: 0, differing: 0, first: None }
}

fn run_form(
    vcpu: &mut VcpuFd,
    memory: &GuestMemoryMmap,
    form: &Form,
    place: Place,
) -> Result<FormResult, MonitorError> {
    let failed = |e: vm_memory::GuestMemoryError| MonitorError::Memory {
        bytes: MEMORY,
        reason: e.to_string(),
    };
    memory.write_slice(&program(form, place), GuestAddress(CODE)).map_err(failed)?;
    let blank = [0u8; TRIALS.len() * RESULT_SIZE as usize];
    memory.write_slice(&blank, GuestAddress(RESULTS)).map_err(failed)?;
    let mut sregs = vcpu.get_sregs().map_err(kvm("read the CPU's registers"))?;
    vcpu::flat_segments(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(kvm("set the CPU's registers"))?;
    let regs = kvm_regs { rip: CODE, rsp: STACK, rflags: vcpu::FLAGS_FIXED, ..Default::default() };
    vcpu.set_regs(&regs).map_err(kvm("set the CPU's registers"))?;
    let outcome = serve(vcpu)?;
    if outcome != Outcome::Ok {
        return Ok(result(form, place, outcome));
    }
    let mut results = result(form, place, Outcome::Ok);
    for (index, &(value, operand, flags)) in TRIALS.iter().enumerate() {
        let mut words = [0u32; 4];
        for (word, slot) in words.iter_mut().zip(0..) {
            let at = RESULTS + index as u64 * RESULT_SIZE + slot * 4;
            *word = memory.read_obj(GuestAddress(at)).map_err(failed)?;
        }
        let [flags_executed, memory_executed, flags_emulated, memory_emulated] = words;
        // Bit 1 of the flags is always one: without it, nothing was stored.
        if flags_executed & flags_emulated & vcpu::FLAGS_FIXED as u32 == 0 {
            results.outcome = Outcome::Refused;
            return Ok(results);
        }
        results.trials += 1;
        if (flags_executed ^ flags_emulated) & form.defined != 0
            || memory_executed != memory_emulated
        {
            results.differing += 1;
            results.outcome = Outcome::Differs;
            results.first.get_or_insert(Difference {
                memory: value,
                operand,
                flags_before: flags,
                flags_executed,
                flags_emulated,
                memory_executed,
                memory_emulated,
            });
        }
    }
    Ok(results)
}

/// Runs the guest to its end and serves the page that nobody owns.
fn serve(vcpu: &mut VcpuFd) -> Result<Outcome, MonitorError> {
    let mut page = [0u8; 8];
    let part = |address: u64, length: usize| {
        let from = usize::try_from(address.checked_sub(u64::from(IN_DEVICE))?).ok()?;
        Some(from..from.checked_add(length)?)
    };
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(DONE, _)) => return Ok(Outcome::Ok),
            Ok(VcpuExit::MmioRead(address, data)) => {
                let range = part(address, data.len());
                match range.and_then(|r| page.get(r)) {
                    Some(bytes) => data.copy_from_slice(bytes),
                    None => data.fill(0xff),
                }
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                let range = part(address, data.len());
                if let Some(bytes) = range.and_then(|r| page.get_mut(r)) {
                    bytes.copy_from_slice(data);
                }
            }
            Ok(VcpuExit::Intr) => {}
            // An instruction that KVM cannot emulate ends in an internal error or a triple fault.
            Ok(_) => return Ok(Outcome::Refused),
            Err(e) if e.errno() == libc::EINTR => {
                vcpu::take_wake_signal();
                return Ok(Outcome::NotRun);
            }
            Err(e) => return Err(kvm("run the test of flags")(e)),
        }
    }
}

/// The guest: every trial on memory and on `place`, then the port that ends it. 32-bit code.
fn program(form: &Form, place: Place) -> Vec<u8> {
    let emulated = match place {
        Place::Apic => IN_APIC,
        Place::Device => IN_DEVICE,
    };
    let mut code = Vec::new();
    for (index, &trial) in TRIALS.iter().enumerate() {
        let result = RESULTS as u32 + index as u32 * RESULT_SIZE as u32;
        for (address, result) in [(IN_MEMORY, result), (emulated, result + 8)] {
            one_run(&mut code, form, trial, address, result);
        }
    }
    // mov $DONE, %edx; out %al, (%dx); and for ever, should it come back.
    code.push(0xba);
    code.extend_from_slice(&u32::from(DONE).to_le_bytes());
    code.extend_from_slice(&[0xee, 0xeb, 0xfe]);
    code
}

fn one_run(
    code: &mut Vec<u8>,
    form: &Form,
    (value, operand, flags): (u32, u32, u32),
    address: u32,
    result: u32,
) {
    let mut bytes = |parts: &[&[u8]]| parts.iter().for_each(|p| code.extend_from_slice(p));
    let (address, result_flags) = (address.to_le_bytes(), result.to_le_bytes());
    let result_value = (result + 4).to_le_bytes();
    // mov $value, %eax; mov %eax, address; mov $operand, %ecx
    bytes(&[&[0xb8], &value.to_le_bytes(), &[0xa3], &address, &[0xb9], &operand.to_le_bytes()]);
    // push $flags; popf
    bytes(&[&[0x68], &(flags | vcpu::FLAGS_FIXED as u32).to_le_bytes(), &[0x9d]]);
    // The instruction: ModRM with a 32-bit address.
    const ADDRESS_ONLY: u8 = 5;
    let immediate = operand.to_le_bytes();
    bytes(&[
        form.opcode,
        &[form.middle << 3 | ADDRESS_ONLY],
        &address,
        &immediate[..usize::from(form.immediate)],
    ]);
    // pushf; pop %eax; mov %eax, result
    bytes(&[&[0x9c, 0x58, 0xa3], &result_flags]);
    // What a register form computed counts like what a memory form left: add both.
    // mov address, %eax; lea (%eax,%ecx), %eax; mov %eax, result + 4
    bytes(&[&[0xa1], &address, &[0x8d, 0x04, 0x08, 0xa3], &result_value]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_fits_its_memory() {
        for form in FORMS {
            for place in [Place::Apic, Place::Device] {
                let code = program(form, place);
                assert!(CODE + (code.len() as u64) < STACK - 0x100, "{}", form.name);
                assert_eq!(code[code.len() - 2..], [0xeb, 0xfe]);
            }
        }
        assert!(RESULTS + TRIALS.len() as u64 * RESULT_SIZE < MEMORY);
    }

    #[test]
    fn one_run_is_the_code_that_its_comments_say() {
        let mut code = Vec::new();
        one_run(&mut code, &FORMS[0], (0, 0x1000, 0), IN_APIC, 0xa000);
        let hex: String = code.iter().map(|b| format!("{b:02x}")).collect();
        expect_test::expect![[
            "b800000000a38003e0feb90010000068020000009df7058003e0fe001000009c58a300a00000a18003e0fe8d0408a304a00000"
        ]]
        .assert_eq(&hex);
    }
}
