//! Who may have changed the state behind the code's back.
//!
//! Decides the order of the suspects of one contradiction, what speaks for and against each, and the
//! check that would settle it. The main function is [`rank`].

use iced_x86::OpKind;
use kolumbo_case::{Listing, Suspect, SuspectKind};
use kolumbo_dataflow::symbolic::{Flag, Gpr};
use kolumbo_dataflow::{EffectsReader, Parts};

use crate::accuse::{ShownStep, Surroundings};
use crate::consistency::Consistency;
use crate::device::{self, DeviceRegister};
use crate::situation::Situation;
use crate::value;

/// One contradiction with everything around it.
pub(crate) struct Scene<'a> {
    pub(crate) situation: &'a Situation,
    pub(crate) consistency: &'a Consistency,
    pub(crate) around: &'a Surroundings<'a>,
    pub(crate) steps: &'a [ShownStep],
    /// Flags that are impossible.
    pub(crate) flags: &'a [Flag],
    /// The register that is impossible, and its value.
    pub(crate) register: Option<(Gpr, u64)>,
}

/// The suspects, the likeliest first.
pub(crate) fn rank(scene: &Scene<'_>) -> Vec<Suspect> {
    let mut ranked: Vec<(i32, Suspect)> = Vec::new();
    ranked.extend(emulation(scene));
    ranked.extend(callees(scene));
    ranked.push(interrupt_path(scene));
    ranked.extend(other_path(scene));
    ranked.push((
        10,
        Suspect {
            kind: SuspectKind::Hardware,
            name: None,
            because: Vec::new(),
            against: vec![
                "a single wrong state says nothing; a broken CPU fails in many places".to_owned(),
            ],
            check: "reproduce on another machine".to_owned(),
        },
    ));
    ranked.push((
        5,
        Suspect {
            kind: SuspectKind::KolumboMisread,
            name: None,
            because: Vec::new(),
            against: Vec::new(),
            check: "compare the derivation above with the processor manual, and the bytes with objdump -d".to_owned(),
        },
    ));
    ranked.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    ranked.into_iter().map(|(_, suspect)| suspect).collect()
}

/// Control that came in from elsewhere; out of the question where every way in is known.
fn other_path(scene: &Scene<'_>) -> Option<(i32, Suspect)> {
    let suspect = Suspect {
        kind: SuspectKind::OtherPath,
        name: None,
        because: vec!["a Code: line does not show who jumps into it".to_owned()],
        against: vec!["compiled code hardly ever joins two paths at these places".to_owned()],
        check: "run again with --vmlinux: the whole function shows every branch target".to_owned(),
    };
    (!scene.situation.window.exact).then_some((20, suspect))
}

/// The device page that a step of the derivation accesses.
fn device_access(scene: &Scene<'_>) -> Option<(String, DeviceRegister, u64)> {
    scene.steps.iter().rev().find_map(|step| {
        let instruction = &scene.consistency.steps.get(step.at)?.instruction;
        let has_memory =
            (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
        let fixed = instruction.memory_base() == iced_x86::Register::None
            && instruction.memory_index() == iced_x86::Register::None;
        let register =
            device::at(instruction.memory_displacement64()).filter(|_| has_memory && fixed)?;
        let mask = (0..instruction.op_count())
            .find_map(|i| instruction.try_immediate(i).ok())
            .unwrap_or(0);
        Some((step.shown.instruction.clone(), register, mask))
    })
}

fn runs_under_hypervisor(around: &Surroundings<'_>) -> Option<&'static str> {
    let hardware = around.hardware?;
    [
        "QEMU",
        "KVM",
        "VMware",
        "VirtualBox",
        "Google Compute Engine",
        "Amazon EC2",
        "Virtual Machine",
        "Bochs",
        "Xen",
    ]
    .into_iter()
    .find(|name| hardware.contains(name))
}

fn emulation(scene: &Scene<'_>) -> Option<(i32, Suspect)> {
    let device = device_access(scene);
    let hypervisor = runs_under_hypervisor(scene.around);
    let mut because = Vec::new();
    let mut against = Vec::new();
    let mut weight = 0;
    if let Some((instruction, register, mask)) = &device {
        weight += 100;
        because.push(format!("`{instruction}` reads the {}", value::device_text(register)));
        if let Some(meaning) = device::bit_meaning(register, *mask) {
            because.push(format!("bit mask {mask:#x} there is the {meaning}"));
        }
        because.push("where the processor does not virtualise that device, the access leaves the guest and is emulated, flags included".to_owned());
        if !scene.flags.is_empty() {
            because.push("whatever the device answered, no value gives these flags, so they are not the instruction's own".to_owned());
            if let Some(text) = flags_look_like(scene.situation) {
                because.push(text);
            }
        }
    } else if scene.flags.is_empty() {
        return None;
    } else {
        weight += 25;
        against.push("no operand is a device: nothing here has to be emulated".to_owned());
    }
    match (scene.around.hypervisor, hypervisor) {
        (Some(known), _) => because.push(format!("the machine is virtual: it ran in {known}")),
        (None, Some(name)) => {
            because.push(format!("the machine is virtual: the hardware name says {name}"));
        }
        (None, None) => {
            weight -= 20;
            against.push("the dump does not say that the machine is virtual".to_owned());
        }
    }
    Some((
        weight,
        Suspect {
            kind: SuspectKind::HypervisorEmulation,
            name: device.map(|(_, register, _)| match register.name {
                Some(name) => format!("emulation of {} {name}", register.device),
                None => format!("emulation of {}", register.device),
            }),
            because,
            against,
            check: "boot the same guest on a host with another kernel or other mitigations (spec_rstack_overflow=off, retbleed=off), or with x2APIC so that nothing is emulated; on the host, check that every return of the emulator's fast paths keeps the flags (kolumbo check VMLINUX)".to_owned(),
        },
    ))
}

fn callees(scene: &Scene<'_>) -> Vec<(i32, Suspect)> {
    let Some((register, seen)) = scene.register else { return Vec::new() };
    let name = register.name().to_uppercase();
    let canary = value::is_canary_like(seen);
    let calls: Vec<&ShownStep> = scene.steps.iter().filter(|s| s.is_call).collect();
    let mut found = Vec::new();
    for call in &calls {
        let mut because = vec![format!(
            "`{}` is the only step between that could change {name}",
            call.shown.instruction
        )];
        if calls.len() > 1 {
            because[0] =
                format!("`{}` stands between the value and its use", call.shown.instruction);
        }
        if register.is_caller_saved() {
            because.push(format!("{name} is caller-saved in the C convention; this caller relies on a callee that keeps it"));
        }
        let mut against = Vec::new();
        if canary {
            because.push(format!("{seen:#018x} is canary-like: code with a stack protector leaves the canary in a scratch register"));
        }
        let culprit = listed_writer(scene, register, canary);
        let mut check = format!(
            "look at the function that `{}` reaches (System.map, or the slot in memory) for writes to {name}: kolumbo check VMLINUX does it for all of them",
            call.shown.instruction
        );
        if let Some(culprit) = &culprit {
            because.push(format!(
                "the text lists {}, which does `{}` at {}{}",
                culprit.function,
                culprit.instruction,
                culprit.place,
                if culprit.only { format!(", its only write to {name}") } else { String::new() }
            ));
            against.push(format!(
                "the text does not prove that the call reaches {}",
                culprit.function
            ));
            check = format!(
                "confirm that the call at {} reaches {}; then build it so that it keeps {name} (no stack protector there), and boot again",
                call.shown.address, culprit.function
            );
        }
        let weight = 90 + if culprit.is_some() { 5 } else { 0 };
        found.push((
            weight,
            Suspect {
                kind: SuspectKind::Callee,
                name: culprit.map(|c| c.place),
                because,
                against,
                check,
            },
        ));
    }
    found
}

/// A function listed in the text that writes the register.
struct ListedWriter {
    function: String,
    place: String,
    instruction: String,
    only: bool,
}

/// The listing in which the register is written, preferring the write that explains the value: a
/// canary comes from `%gs:0x28` (`fixed_percpu_data.stack_canary`, arch/x86/include/asm/processor.h).
fn listed_writer(scene: &Scene<'_>, register: Gpr, canary: bool) -> Option<ListedWriter> {
    let mut best: Option<(i32, ListedWriter)> = None;
    for listing in scene.around.listings {
        let Some(function) = listing.function.clone() else { continue };
        if Some(&function) == scene.situation.place.function.as_ref() {
            continue;
        }
        let writes = writes_to(listing, register);
        for &(address, ref text, loads_canary) in &writes {
            let start = listing.instructions.first().map_or(address, |i| i.address);
            // A register that is popped again at the end was saved.
            if text.starts_with("pop") {
                continue;
            }
            let score = i32::from(loads_canary && canary) * 10 + i32::from(writes.len() == 1);
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                let place = format!("{function}+{:#x}", address.wrapping_sub(start));
                best = Some((
                    score,
                    ListedWriter {
                        function: function.clone(),
                        place,
                        instruction: text.clone(),
                        only: writes.len() == 1,
                    },
                ));
            }
        }
    }
    best.map(|(_, writer)| writer)
}

/// Address, text and "loads %gs:0x28" of each listed instruction that writes `register`.
pub(crate) fn writes_to(listing: &Listing, register: Gpr) -> Vec<(u64, String, bool)> {
    let mut reader = EffectsReader::default();
    let wanted = Parts::general(register.index());
    let mut found = Vec::new();
    for listed in &listing.instructions {
        let Some(instruction) = kolumbo_dataflow::decode(&listed.bytes, listed.address) else {
            continue;
        };
        if (reader.effects(&instruction).may_write & wanted).is_empty() {
            continue;
        }
        let canary = instruction.memory_segment() == iced_x86::Register::GS
            && instruction.memory_displacement64() == 0x28;
        let text = kolumbo_dataflow::disassemble(&listed.bytes, listed.address).unwrap_or_default();
        found.push((listed.address, text.split_whitespace().collect::<Vec<_>>().join(" "), canary));
    }
    found
}

fn interrupt_path(scene: &Scene<'_>) -> (i32, Suspect) {
    let on = scene.situation.flag(Flag::If);
    let mut because = Vec::new();
    let mut against =
        vec!["an entry path that loses registers or flags would break every program".to_owned()];
    match on {
        Some(true) => because.push("interrupts are on at the trap".to_owned()),
        Some(false) => against.push(
            "interrupts are off at the trap (IF=0): only an NMI or an exception could come between"
                .to_owned(),
        ),
        None => {}
    }
    (
        30,
        Suspect {
            kind: SuspectKind::InterruptPath,
            name: None,
            because,
            against,
            check: "kolumbo check VMLINUX looks at what the entry paths restore".to_owned(),
        },
    )
}

/// What impossible flags look like themselves.
pub(crate) fn flags_look_like(situation: &Situation) -> Option<String> {
    let (sign, zero) = (situation.flag(Flag::Sf)?, situation.flag(Flag::Zf)?);
    (sign && !zero && situation.flag(Flag::Cf) == Some(false) && situation.flag(Flag::Of) == Some(false)).then(|| {
        "SF set with ZF, CF and OF clear is what arithmetic on a kernel address leaves, such as an add to the stack pointer".to_owned()
    })
}
