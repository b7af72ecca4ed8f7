//! The code around a trap as a person reads it.
//!
//! Decides how each instruction is addressed, symbolised and annotated. The main function is
//! [`lines`].

use iced_x86::{Instruction, OpKind, Register};
use kolumbo_case::DecodedLine;
use kolumbo_dataflow::symbolic::{Gpr, Step};
use kolumbo_dataflow::{Printer, Syntax};

use crate::consistency::Consistency;
use crate::device;
use crate::situation::Situation;
use crate::value::{self, Landmarks, recognise_address};

/// Instructions shown before the trap, where the whole function is at hand.
const BEFORE: usize = 24;
/// Instructions shown behind the trap.
const BEHIND: usize = 6;

/// The address that the byte at `offset` of the window is decoded at: absolute where the dump knows
/// it, else the offset in the function, so that branches inside the function read well.
fn shown_ip(situation: &Situation, offset: usize) -> u64 {
    let distance = (offset as i64).wrapping_sub(situation.window.trap as i64);
    let base = situation.absolute_rip().or(situation.place.offset).unwrap_or(0);
    base.wrapping_add_signed(distance)
}

/// The text of one instruction of the window, branch targets named.
pub fn text(situation: &Situation, step: &Step, syntax: Syntax) -> String {
    let bytes = situation.window.bytes_of(step);
    let ip = shown_ip(situation, step.offset);
    let Some(instruction) = kolumbo_dataflow::decode(bytes, ip) else { return "(bad)".to_owned() };
    let absolute = situation.absolute_rip();
    let place = &situation.place;
    let name = |address: u64| -> Option<String> {
        let (function, offset) = (place.function.as_deref()?, place.offset?);
        let start = match absolute {
            Some(rip) => rip.wrapping_sub(offset),
            None => 0,
        };
        let inside = address.wrapping_sub(start);
        let size = place.size.filter(|&s| s != 0)?;
        (inside < size).then(|| format!("{function}+{inside:#x}"))
    };
    let mut text = Printer::new(syntax).with_symbols(name).instruction(&instruction);
    if absolute.is_none() {
        // Without an absolute address, addresses relative to RIP mean nothing to the reader.
        if let Some(comment) = text.find("        # ") {
            text.truncate(comment);
        }
        if let Some(target) = kolumbo_dataflow::disassembly::branch_target(&instruction)
            && let Some(name) = name(target)
        {
            let plain = format!("{target:x} <{name}>");
            text = text.replace(&plain, &name);
        } else if let Some(target) = kolumbo_dataflow::disassembly::branch_target(&instruction) {
            let way = target.wrapping_sub(ip) as i64;
            let sign = if way < 0 { '-' } else { '+' };
            text =
                text.replace(&format!("{target:x}"), &format!(".{sign}{:#x}", way.unsigned_abs()));
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The window, instruction by instruction.
pub fn lines(
    situation: &Situation,
    consistency: &Consistency,
    syntax: Syntax,
    source: &dyn Fn(usize) -> Vec<String>,
) -> Vec<DecodedLine> {
    let window = &situation.window;
    let first = window.before.steps.len().saturating_sub(BEFORE);
    let before = window.before.steps.iter().enumerate().skip(first).map(|(i, step)| {
        let at = i.checked_sub(window.start);
        let address = at.and_then(|at| effective_address(consistency, at, step));
        DecodedLine { in_line: at.is_some(), ..line(situation, step, syntax, address) }
    });
    let after = window.after.steps.iter().take(BEHIND).enumerate().map(|(i, step)| {
        let address = (i == 0).then(|| trap_address(situation, &step.instruction)).flatten();
        DecodedLine { in_line: i == 0, trap: i == 0, ..line(situation, step, syntax, address) }
    });
    let steps = window.before.steps.iter().skip(first).chain(&window.after.steps);
    let mut lines: Vec<DecodedLine> = before.chain(after).collect();
    for (line, step) in lines.iter_mut().zip(steps) {
        line.source = source(step.offset);
    }
    lines
}

fn line(
    situation: &Situation,
    step: &Step,
    syntax: Syntax,
    memory: Option<(u64, bool)>,
) -> DecodedLine {
    let marks = situation.landmarks();
    DecodedLine {
        address: situation.address_of(step.offset),
        bytes: hex(situation.window.bytes_of(step)),
        text: text(situation, step, syntax),
        memory: memory
            .filter(|(_, computed)| *computed)
            .map(|(address, _)| format!("{address:#018x}")),
        memory_is: memory.and_then(|(address, computed)| {
            let function = situation.place.function.as_deref().unwrap_or_default();
            let hpet = device::hpet_at(address, function).map(|r| value::device_text(&r));
            hpet.or_else(|| memory_meaning(address, computed, &marks))
        }),
        ..Default::default()
    }
}

/// A fixed address is shown by the instruction itself; only devices and NULL are worth a word there.
fn memory_meaning(address: u64, computed: bool, marks: &Landmarks) -> Option<String> {
    let meaning = recognise_address(address, marks)?;
    (computed || matches!(meaning.kind, "fixmap-device" | "null" | "null-plus-offset"))
        .then_some(meaning.text)
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

fn memory_operand(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory)
        && instruction.mnemonic() != iced_x86::Mnemonic::Nop
        && instruction.mnemonic() != iced_x86::Mnemonic::Lea
}

/// Address of the memory operand of the trapping instruction with the registers of the dump, and
/// whether registers were needed for it.
pub fn trap_address(situation: &Situation, instruction: &Instruction) -> Option<(u64, bool)> {
    address_with(instruction, |register| situation.register(register), situation)
}

fn effective_address(consistency: &Consistency, at: usize, step: &Step) -> Option<(u64, bool)> {
    let snapshot = match at.checked_sub(1) {
        Some(before) => consistency.outcome.behind.get(before)?,
        None => &consistency.outcome.initial,
    };
    let known = |register: Gpr| consistency.known.get(snapshot.register(register).index())?.exact();
    address_plain(&step.instruction, known)
}

fn address_with(
    instruction: &Instruction,
    value: impl Fn(Gpr) -> Option<u64>,
    situation: &Situation,
) -> Option<(u64, bool)> {
    if instruction.memory_segment() == Register::GS
        && memory_operand(instruction)
        && instruction.memory_base() == Register::None
    {
        return Some((situation.gs_base?.wrapping_add(instruction.memory_displacement64()), true));
    }
    address_plain(instruction, value)
}

fn address_plain(
    instruction: &Instruction,
    value: impl Fn(Gpr) -> Option<u64>,
) -> Option<(u64, bool)> {
    if !memory_operand(instruction)
        || instruction.is_ip_rel_memory_operand()
        || matches!(instruction.memory_segment(), Register::FS | Register::GS)
    {
        return None;
    }
    let mut address = instruction.memory_displacement64();
    let mut computed = false;
    if let Some(base) = Gpr::of(instruction.memory_base()) {
        address = address.wrapping_add(value(base)?);
        computed = true;
    }
    if let Some(index) = Gpr::of(instruction.memory_index()) {
        address = address
            .wrapping_add(value(index)?.wrapping_mul(u64::from(instruction.memory_index_scale())));
        computed = true;
    }
    Some((address, computed))
}
