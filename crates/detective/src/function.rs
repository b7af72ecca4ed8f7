//! The whole function around a trap, from the image.
//!
//! Decides which function of the image a dump means, and where control can come into its middle:
//! branches of the function and of its cold part, exception fixups, jump labels, alternatives. The
//! main type is [`ImageCode`].

use std::cell::OnceCell;
use std::collections::HashMap;

use iced_x86::FlowControl;
use kolumbo_case::CodePlace;
use kolumbo_dataflow::symbolic::line::{Line, branch_target};
use kolumbo_vmlinux::Image;
use kolumbo_vmlinux::tables::alternatives::{Alternative, alternatives};
use kolumbo_vmlinux::tables::ex_table::ex_table;
use kolumbo_vmlinux::tables::jump_labels::jump_labels;

use crate::situation::Situation;
use crate::window::{Entry, Window};

/// No function of a kernel is longer.
const LONGEST: u64 = 1 << 20;

/// The code of an image with what may be patched into it.
pub struct ImageCode<'i, 'd> {
    image: &'i Image<'d>,
    /// Read when the first function is looked at; a trace alone needs none of it.
    tables: OnceCell<Tables>,
}

/// What the image says about the ways into its functions.
struct Tables {
    /// Targets of fixups and of branches that may be patched in, sorted.
    patched_targets: Vec<u64>,
    /// Alternatives by the address of what they replace, sorted.
    alternatives: Vec<Alternative>,
    /// Address and size of the cold parts of functions, by the function's name.
    cold_parts: HashMap<String, Vec<(u64, u64)>>,
}

/// A function found in the image.
#[derive(Debug, Clone)]
pub struct Function {
    /// Link address.
    pub address: u64,
    /// Its bytes as they are linked.
    pub bytes: Vec<u8>,
    /// Where control comes into its middle.
    pub entries: Vec<Entry>,
    /// Nothing else can come in.
    pub exact: bool,
}

impl<'i, 'd> ImageCode<'i, 'd> {
    /// The code of `image`.
    pub fn new(image: &'i Image<'d>) -> Self {
        ImageCode { image, tables: OnceCell::new() }
    }

    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| Tables::read(self.image))
    }

    /// The image.
    pub fn image(&self) -> &'i Image<'d> {
        self.image
    }

    /// Link address of `place`, duplicates told apart by the size of the function.
    pub fn link_address(&self, place: &CodePlace) -> Option<u64> {
        let (name, offset) = (place.function.as_deref()?, place.offset?);
        let symbols = self.image.symbols();
        // The kernel prints the distance to the next symbol, tools print the size of the symbol.
        let fits = |symbol: &kolumbo_vmlinux::Symbol<'_>| {
            let distance = symbols.lookup(symbol.address).map_or(0, |l| l.size);
            let size = place.size.filter(|&s| s != 0);
            // For the last function of a module's section it is the distance to the end of the page.
            let to_the_page =
                |s: u64| place.module.is_some() && s > distance && s - distance < 0x1000;
            distance > offset
                && size.is_none_or(|s| s == distance || Some(s) == symbol.size || to_the_page(s))
        };
        let mut fitting = symbols.named(name).filter(fits).map(|s| s.address);
        let first = fitting.next()?;
        // Two functions of the same name and size cannot be told apart.
        fitting.all(|a| a == first).then(|| first.wrapping_add(offset))
    }

    /// The function that `place` names.
    pub fn function(&self, place: &CodePlace) -> Option<Function> {
        let at = self.link_address(place)?;
        let address = at.wrapping_sub(place.offset?);
        let size = self.image.symbols().lookup(address)?.size.min(LONGEST);
        let mut bytes = self.image.bytes_at(address, usize::try_from(size).ok()?)?.to_vec();
        self.without_fentry(address, &mut bytes);
        let mut exact = true;
        let line = Line::decode_on(&bytes, 0);
        let decoded = line.steps.last().map_or(0, |s| s.offset + s.instruction.len());
        // What does not decode to its end is hand-written or holds data.
        exact &= decoded == bytes.len();
        for step in &line.steps {
            // Where a jump through a register goes is not known here; tail calls leave, but tables do not.
            exact &= step.instruction.flow_control() != FlowControl::IndirectBranch;
        }
        // Code of the entry section is written by hand and jumped into from everywhere.
        exact &= self
            .image
            .section_of(address)
            .is_none_or(|s| !s.name.contains("entry") && !s.name.contains("noinstr"));
        let inside = |target: u64| {
            usize::try_from(target.wrapping_sub(address)).ok().filter(|&o| o < bytes.len())
        };
        let tables = self.tables();
        let from = tables.patched_targets.partition_point(|&t| t < address);
        let elsewhere = |to: usize| Entry { to, from: None };
        let mut entries: Vec<Entry> = tables.patched_targets[from..]
            .iter()
            .map_while(|&t| inside(t))
            .map(elsewhere)
            .collect();
        entries.extend(line.steps.iter().filter_map(|step| {
            let to = usize::try_from(branch_target(&step.instruction)?)
                .ok()
                .filter(|&o| o < bytes.len())?;
            Some(Entry { to, from: Some(step.offset) })
        }));
        let name = place.function.as_deref().unwrap_or_default();
        for &(cold, size) in tables.cold_parts.get(name).into_iter().flatten() {
            let Some(code) = usize::try_from(size).ok().and_then(|s| self.image.bytes_at(cold, s))
            else {
                continue;
            };
            entries.extend(targets_of(code, cold).filter_map(inside).map(elsewhere));
        }
        entries.sort_unstable();
        entries.dedup();
        Some(Function { address, bytes, entries, exact })
    }

    /// The call of `__fentry__` that the compiler puts at the start of a function is a no-operation
    /// from boot on (`ftrace_init`, kernel/trace/ftrace.c), and what tracing puts there keeps registers.
    fn without_fentry(&self, address: u64, bytes: &mut [u8]) {
        const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
        const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
        let at = if bytes.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 };
        let Some(call) = bytes.get_mut(at..at + NOP.len()) else { return };
        let &mut [0xe8, a, b, c, d] = call else { return };
        let next = address.wrapping_add((at + NOP.len()) as u64);
        let target = next.wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d])));
        if self.image.symbols().address_of("__fentry__") == Some(target) {
            call.copy_from_slice(&NOP);
        }
    }

    /// Widens the window of `situation` to its whole function; says why where it cannot.
    pub fn widen(&self, situation: &mut Situation) -> Result<(), String> {
        let place = &situation.place;
        // Code without a name is a module's or nobody's: there is nothing to look for.
        let Some(shown) = place.function.clone() else { return Ok(()) };
        let function = self.function(place).ok_or_else(|| {
            format!("{shown} could not be found in the image: is it another build?")
        })?;
        let trap = place.offset.and_then(|o| usize::try_from(o).ok()).unwrap_or(0);
        let mut bytes = function.bytes.clone();
        // What ran is what the dump shows; the image was patched at boot.
        let shift = trap as i64 - situation.window.trap as i64;
        let (mut differing, mut compared) = (0, 0);
        for (i, &seen) in situation.window.bytes.iter().enumerate() {
            let Some(slot) =
                usize::try_from(i as i64 + shift).ok().and_then(|at| bytes.get_mut(at))
            else {
                continue;
            };
            compared += 1;
            differing += usize::from(
                *slot != seen
                    && !self.is_patchable(function.address.wrapping_add((i as i64 + shift) as u64)),
            );
            *slot = seen;
        }
        // Tracing and static calls patch five bytes here and there; a module was linked elsewhere, so
        // that its addresses differ and its instructions do not.
        let relocated = place.module.is_some()
            && same_instructions(&function.bytes, &bytes, trap, situation.window.trap);
        if differing > 10 && differing * 3 > compared && !relocated {
            return Err(format!(
                "{differing} of {compared} bytes at {shown} differ from the image: it is another build"
            ));
        }
        let window = Window::of_function(&bytes, trap, &function.entries, function.exact)
            .ok_or_else(|| format!("{shown} does not decode up to the trap"))?;
        situation.window = window;
        Ok(())
    }

    /// An alternative may have replaced the byte at this link address.
    fn is_patchable(&self, address: u64) -> bool {
        let alternatives = &self.tables().alternatives;
        let after = alternatives.partition_point(|a| a.instruction <= address);
        alternatives[..after]
            .iter()
            .rev()
            .take(8)
            .any(|a| address < a.instruction + u64::from(a.instruction_length))
    }
}

impl Tables {
    fn read(image: &Image<'_>) -> Tables {
        let alternatives = alternatives(image).entries;
        let mut patched_targets: Vec<u64> =
            ex_table(image).entries.iter().map(|e| e.fixup).collect();
        patched_targets.extend(jump_labels(image).entries.iter().map(|l| l.target));
        for alternative in &alternatives {
            // A jump in a replacement is linked for where the replacement lies.
            let Some(bytes) = image
                .bytes_at(alternative.replacement, usize::from(alternative.replacement_length))
            else {
                continue;
            };
            patched_targets.extend(targets_of(bytes, alternative.replacement));
        }
        patched_targets.sort_unstable();
        patched_targets.dedup();
        let mut cold_parts: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for symbol in image.symbols().iter().filter(|s| s.is_code()) {
            if let Some((parent, _)) = symbol.name.split_once(".cold")
                && let Some(located) = image.symbols().lookup(symbol.address)
            {
                cold_parts
                    .entry(parent.to_owned())
                    .or_default()
                    .push((symbol.address, located.size.min(LONGEST)));
            }
        }
        let mut alternatives = alternatives;
        alternatives.sort_by_key(|a| a.instruction);
        Tables { patched_targets, alternatives, cold_parts }
    }
}

/// Most instructions of the last `before` bytes up to `trap` are the same but for their operands.
fn same_instructions(linked: &[u8], seen: &[u8], trap: usize, before: usize) -> bool {
    let linked = Line::decode_on(linked, 0);
    let seen = Line::decode_on(seen, 0);
    let near = trap.saturating_sub(before)..=trap;
    let steps: Vec<_> = linked.steps.iter().filter(|s| near.contains(&s.offset)).collect();
    let same = |step: &&&kolumbo_dataflow::symbolic::Step| {
        let at = seen.at(step.offset).map(|i| seen.steps[i].instruction.code());
        at == Some(step.instruction.code())
    };
    !steps.is_empty() && steps.iter().filter(same).count() * 3 >= steps.len() * 2
}

/// Addresses that the direct branches of `bytes` at `address` go to.
fn targets_of(bytes: &[u8], address: u64) -> impl Iterator<Item = u64> {
    let line = Line::decode_on(bytes, 0);
    line.steps
        .into_iter()
        .filter_map(|s| branch_target(&s.instruction))
        .map(move |offset| address.wrapping_add_signed(offset))
}
