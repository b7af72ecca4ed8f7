//! Every function of an image: where it begins, its body, its callees, and its summary, computed from the leaves upward.
//!
//! Decides what a branch target means (a return thunk, a retpoline, ordinary code) by the names the image has. Functions that
//! call each other in a circle are taken to destroy what C lets them destroy. Main types: [`Program`], [`Function`].

use std::collections::BTreeMap;

use kolumbo_dataflow::{
    AddressMap, AddressSet, Body, Callee, Callees, CodeMap, Demands, EffectsReader, Ending, Exits,
    Parts, Register, Replacement, Returns, Sieve, Summary, Target, Workspace, demands, exits, walk,
};
use rayon::prelude::*;

use crate::image::Image;
use crate::slots::Slots;
use crate::tables::Tables;

/// RBX, RBP, RSP, R12 to R15: what the C calling convention makes a callee keep.
pub const CALLEE_SAVED: Parts = Parts {
    general: 0xf << 12 | 0xf << 16 | 0xf << 20 | 0xf << 48 | 0xf << 52 | 0xf << 56 | 0xf << 60,
    vector: 0,
    flags: 0,
};

/// What the C calling convention lets a callee destroy.
#[must_use]
pub fn c_destroys() -> Parts {
    Parts { flags: kolumbo_dataflow::ARITHMETIC_FLAGS, ..!CALLEE_SAVED - Parts::flags(u32::MAX) }
}

/// What is assumed of code that cannot be seen.
#[must_use]
pub fn c_function() -> Summary {
    Summary { destroys: c_destroys(), needs: Parts::EMPTY, returns: Returns::Behind, certain: true }
}

/// One function.
#[derive(Debug)]
pub struct Function {
    /// Its first address.
    pub entry: u64,
    /// Its code.
    pub body: Body,
    /// What it does to its callers.
    pub summary: Summary,
    /// Its calls, and what is relied on behind each.
    pub demands: Demands,
}

/// All functions of an image.
pub struct Program<'i, 'd> {
    /// The image.
    pub image: &'i Image<'d>,
    /// Its tables.
    pub tables: std::sync::Arc<Tables>,
    /// Functions, ascending by entry.
    pub functions: Vec<Function>,
    /// Who stands behind pointers at constant addresses and static calls.
    pub slots: Slots,
    index: AddressMap<u32>,
    code: Code<'i, 'd>,
}

/// The image as the walk sees it.
struct Code<'i, 'd> {
    image: &'i Image<'d>,
    /// Ranges of function symbols, ascending and without those nested in others.
    ranges: Vec<(u64, u64)>,
    starts: AddressSet,
    targets: AddressMap<Target>,
    /// Addresses of which a table says something.
    marked: Sieve,
    tables: std::sync::Arc<Tables>,
}

/// Names of code that only returns to the caller: arch/x86/lib/retpoline.S, since v5.19.
const RETURN_THUNK: &str = "__x86_return_thunk";

/// Names of code that jumps to where a register points.
fn is_indirect_thunk(name: &str) -> bool {
    [
        "__x86_indirect_thunk_",
        "__x86_indirect_call_thunk_",
        "__x86_indirect_jump_thunk_",
        "__x86_indirect_its_thunk_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// A part of a function that the compiler moved away shares the frame of its parent.
fn is_cold_part(name: &str) -> bool {
    name.ends_with(".cold") || name.contains(".cold.")
}

impl CodeMap for Code<'_, '_> {
    fn code_at(&self, address: u64) -> &[u8] {
        self.image
            .region(address)
            .filter(|region| region.code)
            .map_or(&[], |_| self.image.bytes_at(address))
    }

    fn data_at(&self, address: u64) -> &[u8] {
        self.image
            .region(address)
            .filter(|region| !region.code)
            .map_or(&[], |_| self.image.bytes_at(address))
    }

    fn is_plain(&self, address: u64) -> bool {
        !self.marked.may_hold(address)
    }

    fn function_range(&self, address: u64) -> Option<(u64, u64)> {
        let index = self.ranges.partition_point(|range| range.0 <= address).checked_sub(1)?;
        let range = self.ranges[index];
        (address < range.1).then_some(range)
    }

    fn starts_function(&self, address: u64) -> bool {
        self.starts.contains(&address)
    }

    fn target(&self, address: u64) -> Target {
        self.targets.get(&address).copied().unwrap_or(Target::Code)
    }

    fn fault_exits(&self, address: u64) -> &[u64] {
        self.tables.faults.get(&address).map_or(&[], Vec::as_slice)
    }

    fn replacements(&self, address: u64) -> &[Replacement] {
        self.tables.replacements.get(&address).map_or(&[], Vec::as_slice)
    }

    fn is_replaced(&self, address: u64) -> bool {
        self.tables.replaced.contains(&address)
    }

    fn patched_jumps(&self, address: u64) -> &[u64] {
        self.tables.jumps.get(&address).map_or(&[], Vec::as_slice)
    }

    fn survives_trap(&self, address: u64) -> bool {
        // `ud1 (%edx),%reg` carries the arguments of a warning and has no entry of its own: `decode_bug()` in
        // arch/x86/kernel/traps.c, since v6.19. A sanitizer's trap names (%eax).
        let carries_warning = || {
            let bytes = self.image.bytes_at(address);
            let bytes = bytes.strip_prefix(&[0x67]).unwrap_or_default();
            let bytes = bytes.strip_prefix(&[0x48]).unwrap_or(bytes);
            const BASE_IS_EDX: u8 = 2;
            bytes.starts_with(&[0x0f, 0xb9])
                && bytes.get(2).is_some_and(|modrm| modrm & 0b1100_0111 == BASE_IS_EDX)
        };
        self.tables.warnings.contains(&address) || carries_warning()
    }

    fn is_slot(&self, address: u64) -> bool {
        // One that is empty in the file may be filled by code that is found later. Thunks are no functions of their own.
        self.image.region(address).is_none_or(|region| !region.code)
            && !self.image.word_at(address).is_some_and(|target| self.targets.contains_key(&target))
    }
}

impl<'i, 'd> Code<'i, 'd> {
    fn new(image: &'i Image<'d>, tables: std::sync::Arc<Tables>) -> Self {
        let mut starts = AddressSet::default();
        let mut targets = AddressMap::default();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for symbol in image.symbols.iter().filter(|symbol| symbol.code) {
            if symbol.name == RETURN_THUNK {
                targets.insert(symbol.address, Target::Return);
            } else if is_indirect_thunk(symbol.name) && !symbol.name.ends_with("_array") {
                targets.insert(symbol.address, Target::Indirect(Register::None));
            }
            let cold = is_cold_part(symbol.name);
            if symbol.function && !cold {
                starts.insert(symbol.address);
            }
            if symbol.size > 0 {
                let end = symbol.address.saturating_add(symbol.size);
                match ranges.last_mut() {
                    // A function inside another one shares its range: code that two entries share.
                    Some(last) if symbol.address < last.1 => last.1 = last.1.max(end),
                    _ => ranges.push((symbol.address, end)),
                }
            }
        }
        for address in image.unknown.keys() {
            starts.insert(*address);
        }
        for (address, name) in &image.unknown {
            if name == RETURN_THUNK {
                targets.insert(*address, Target::Return);
            } else if is_indirect_thunk(name) {
                targets.insert(*address, Target::Indirect(Register::None));
            } else if NEVER_RETURN.contains(&name.as_str()) {
                targets.insert(*address, Target::NoReturn);
            }
        }
        let mut marked = Sieve::default();
        for address in
            tables.replacements.keys().chain(tables.faults.keys()).chain(tables.jumps.keys())
        {
            marked.insert(*address);
        }
        Self { image, ranges, starts, targets, marked, tables }
    }

    /// Takes out of the functions what is a label inside another one, and walks those again that jump to it. Returns the bodies
    /// without those of the labels.
    ///
    /// Only names without kind and size are in doubt. A jump to one while the frame still stands is no tail call, for the code
    /// there takes the frame down. Nothing is accused for it: a label has no callers of its own, and what jumps there is judged
    /// with the code behind it.
    fn without_labels(&mut self, mut bodies: Vec<(u64, Body)>) -> Vec<(u64, Body)> {
        // A label may lead to the next; hand-written code has few in a row.
        const MOST_ROUNDS: usize = 8;
        let image = self.image;
        let guessed: AddressSet = image
            .symbols
            .iter()
            .filter(|symbol| symbol.guessed && symbol.code)
            .map(|symbol| symbol.address)
            .filter(|address| self.starts.contains(address))
            .collect();
        if guessed.is_empty() {
            return bodies;
        }
        for _ in 0..MOST_ROUNDS {
            let found: AddressSet = bodies
                .par_iter()
                .map_init(Workspace::default, |workspace, (_, body)| {
                    jumps_with_frame(body, &guessed, workspace)
                })
                .flatten_iter()
                .filter(|target| self.starts.contains(target))
                .collect();
            if found.is_empty() {
                break;
            }
            self.starts.retain(|start| !found.contains(start));
            bodies.retain(|(entry, _)| !found.contains(entry));
            let this = &*self;
            bodies.par_iter_mut().for_each_init(EffectsReader::default, |reader, (entry, body)| {
                let reaches =
                    |callee| matches!(callee, Callee::Direct(target) if found.contains(&target));
                if callees_of(body).any(reaches) {
                    *body = walk(this, *entry, reader);
                }
            });
        }
        bodies
    }

    fn entries(&self) -> Vec<u64> {
        let mut entries: Vec<u64> = self
            .image
            .symbols
            .iter()
            .filter(|symbol| symbol.code && !is_cold_part(symbol.name))
            .filter(|symbol| {
                symbol.function || (symbol.size > 0 && symbol.global && !symbol.object)
            })
            .filter(|symbol| {
                !symbol.name.starts_with("__pfx_") && !symbol.name.starts_with("__cfi_")
            })
            .map(|symbol| symbol.address)
            .collect();
        entries.sort_unstable();
        entries.dedup();
        entries
    }
}

/// What is assumed while nothing is known of any callee.
struct Strangers;

impl Callees for Strangers {
    fn summary(&self, _: Callee) -> Summary {
        c_function()
    }
}

/// The `targets` that a body jumps to while something of its own lies on the stack. Running into them does not count: behind a
/// call that never returns stands whatever comes next.
fn jumps_with_frame(body: &Body, targets: &AddressSet, workspace: &mut Workspace) -> Vec<u64> {
    let target_of = |ending| match ending {
        Ending::TailCalls(Callee::Direct(target)) if targets.contains(&target) => Some(target),
        _ => None,
    };
    if !body.blocks.iter().any(|block| target_of(block.ending).is_some()) {
        return Vec::new();
    }
    exits(body, &Strangers, workspace)
        .exits
        .iter()
        .filter(|exit| exit.depth.is_some_and(|depth| depth < 0))
        .filter_map(|exit| {
            let block = &body.blocks[exit.block];
            let target = target_of(block.ending)?;
            let code = &body.instructions[block.range.start as usize..block.range.end as usize];
            let jump = code.last()?;
            let jumps = jump.is_jmp_short_or_near() || jump.is_jcc_short_or_near();
            (jumps && jump.near_branch_target() == target).then_some(target)
        })
        .collect()
}

/// What is known so far.
struct State<'p> {
    index: &'p AddressMap<u32>,
    slots: &'p Slots,
    bodies: &'p [(u64, Body)],
    /// Empty until a function was looked at for the first time.
    summaries: Vec<Summary>,
}

impl State<'_> {
    /// Looks at every function, callees first, and again at those that call each other in a circle until nothing changes.
    fn settle(&mut self, edges: &[Vec<u32>], levels: &[Vec<u32>]) {
        let mut level_of = vec![0_u32; edges.len()];
        for (level, numbers) in levels.iter().enumerate() {
            for number in numbers {
                level_of[*number as usize] = level as u32;
            }
            // A function in a circle sees nothing yet of those that lie above it.
            self.run(numbers, false);
        }
        let mut callers: Vec<Vec<u32>> = vec![Vec::new(); edges.len()];
        let mut agenda = Agenda::default();
        // Functions that already destroy all that their callee does are looked at once, in the end: what the callee destroys
        // could only matter when they keep a register in another one across the call.
        let mut last: Vec<u32> = Vec::new();
        for (number, callees) in edges.iter().enumerate() {
            for callee in callees {
                callers[*callee as usize].push(number as u32);
                if level_of[*callee as usize] >= level_of[number] {
                    if self.adds_nothing(number as u32, *callee) {
                        last.push(number as u32);
                    } else {
                        agenda.add(level_of[number], number as u32);
                    }
                }
            }
        }
        loop {
            let mut next = Agenda::default();
            while let Some((level, numbers)) = agenda.pop() {
                for changed in self.run(&numbers, true) {
                    for caller in &callers[changed as usize] {
                        let above = level_of[*caller as usize];
                        if self.adds_nothing(*caller, changed) {
                            last.push(*caller);
                        } else if above > level {
                            agenda.add(above, *caller);
                        } else {
                            next.add(above, *caller);
                        }
                    }
                }
            }
            if next.0.is_empty() {
                last.sort_unstable();
                last.dedup();
                for changed in self.run(&std::mem::take(&mut last), true) {
                    for caller in &callers[changed as usize] {
                        next.add(level_of[*caller as usize], *caller);
                    }
                }
                if next.0.is_empty() {
                    return;
                }
            }
            agenda = next;
        }
    }

    /// Whether a caller is known to destroy whatever its callee destroys.
    fn adds_nothing(&self, caller: u32, callee: u32) -> bool {
        let (caller, callee) = (&self.summaries[caller as usize], &self.summaries[callee as usize]);
        callee.returns != Returns::PastCaller && caller.destroys.contains(callee.destroys)
    }

    /// Looks at these functions, all against what is known now, and returns those that do more than was known.
    fn run(&mut self, numbers: &[u32], again: bool) -> Vec<u32> {
        let this = &*self;
        let look = |workspace: &mut Workspace, number: &u32| {
            let body = &this.bodies[*number as usize].1;
            let old = this.summaries[*number as usize];
            let new = summary(body, &exits(body, this, workspace), this);
            let new = if again { joined(old, new) } else { new };
            (new != old).then_some((*number, new))
        };
        // Waking the other threads costs more than a few functions do.
        const FEW: usize = 4;
        let changed: Vec<(u32, Summary)> = if numbers.len() <= FEW {
            let mut workspace = Workspace::default();
            numbers.iter().filter_map(|number| look(&mut workspace, number)).collect()
        } else {
            numbers.par_iter().map_init(Workspace::default, look).flatten_iter().collect()
        };
        for (number, summary) in &changed {
            self.summaries[*number as usize] = *summary;
        }
        changed.into_iter().map(|(number, _)| number).collect()
    }
}

/// Functions to look at, by level.
#[derive(Default)]
struct Agenda(BTreeMap<u32, Vec<u32>>);

impl Agenda {
    fn add(&mut self, level: u32, number: u32) {
        self.0.entry(level).or_default().push(number);
    }

    /// The lowest level, each function once.
    fn pop(&mut self) -> Option<(u32, Vec<u32>)> {
        let (level, mut numbers) = self.0.pop_first()?;
        numbers.sort_unstable();
        numbers.dedup();
        Some((level, numbers))
    }
}

/// Both at once. What is known only ever grows, so that functions which call each other in a circle come to rest.
fn joined(left: Summary, right: Summary) -> Summary {
    let rank = |returns| match returns {
        Returns::Never => 0,
        Returns::PastCaller => 1,
        Returns::Behind => 2,
    };
    Summary {
        destroys: left.destroys | right.destroys,
        needs: Parts::EMPTY,
        returns: if rank(left.returns) > rank(right.returns) {
            left.returns
        } else {
            right.returns
        },
        certain: left.certain && right.certain,
    }
}

impl Callees for State<'_> {
    fn summary(&self, callee: Callee) -> Summary {
        summary_of(targets(self.slots, &callee), |target| {
            Some(self.summaries[*self.index.get(&target)? as usize])
        })
    }
}

/// Who is called, as far as that is known.
fn targets<'a>(slots: &'a Slots, callee: &'a Callee) -> &'a [u64] {
    match callee {
        Callee::Direct(target) => std::slice::from_ref(target),
        Callee::Slot(slot) => slots.of(*slot),
        Callee::Unknown => &[],
    }
}

/// What a call does that may go to any of these. Code that cannot be seen is taken for C, as is a call of nobody who is known.
fn summary_of(targets: &[u64], known: impl Fn(u64) -> Option<Summary>) -> Summary {
    let mut all = targets.iter().map(|target| known(*target).unwrap_or_else(c_function));
    let Some(first) = all.next() else { return c_function() };
    all.fold(first, |left, right| Summary {
        needs: left.needs | right.needs,
        ..joined(left, right)
    })
}

/// Names of functions of the kernel that never return, for modules that are checked without it.
const NEVER_RETURN: [&str; 8] = [
    "__stack_chk_fail",
    "panic",
    "do_exit",
    "make_task_dead",
    "__module_put_and_kthread_exit",
    "kthread_complete_and_exit",
    "fortify_panic",
    "__fortify_panic",
];

/// Which functions can come back, by the smallest solution: a function does when some path reaches an exit over calls that do.
/// Looks at the functions in the order given, callees first where that is possible.
fn returning(
    bodies: &[(u64, Body)],
    order: impl DoubleEndedIterator<Item = u32>,
    index: &AddressMap<u32>,
    slots: &Slots,
    image: &Image<'_>,
) -> Vec<bool> {
    let mut returns = vec![false; bodies.len()];
    let mut waiting: AddressMap<Vec<u32>> = AddressMap::default();
    let mut todo: Vec<u32> = order.rev().collect();
    // A pointer that may lead to several functions counts as one that comes back.
    let number_of = |callee: Callee| match targets(slots, &callee) {
        [target] => index.get(target).copied(),
        _ => None,
    };
    let known_never = |callee: Callee| {
        !image.unknown.is_empty()
            && matches!(callee, Callee::Direct(target)
                if image.unknown.get(&target).is_some_and(|name| NEVER_RETURN.contains(&name.as_str())))
    };
    let (mut seen, mut blocks) = (Vec::new(), Vec::new());
    while let Some(number) = todo.pop() {
        if returns[number as usize] {
            continue;
        }
        let body = &bodies[number as usize].1;
        seen.clear();
        seen.resize(body.blocks.len(), false);
        blocks.clear();
        if !seen.is_empty() {
            seen[0] = true;
            blocks.push(0_usize);
        }
        let mut blockers = Vec::new();
        let mut found = body.blocks.is_empty();
        while !found && let Some(block) = blocks.pop() {
            let block = &body.blocks[block];
            match block.ending {
                Ending::Returns(_) | Ending::Lost => found = true,
                Ending::Calls(callee) | Ending::TailCalls(callee) => {
                    if known_never(callee) {
                        continue;
                    }
                    if let Some(callee) = number_of(callee)
                        && !returns[callee as usize]
                    {
                        blockers.push(callee);
                        continue;
                    }
                    found |= matches!(block.ending, Ending::TailCalls(_));
                }
                Ending::Flows | Ending::Stops => {}
            }
            for next in body.next(block) {
                if !seen[*next as usize] {
                    seen[*next as usize] = true;
                    blocks.push(*next as usize);
                }
            }
        }
        // A callee that drops its own return address leaves the caller by way of its own exit.
        if found {
            returns[number as usize] = true;
            todo.extend(waiting.remove(&u64::from(number)).unwrap_or_default());
        } else {
            for blocker in blockers {
                waiting.entry(u64::from(blocker)).or_default().push(number);
            }
        }
    }
    returns
}

impl<'i, 'd> Program<'i, 'd> {
    /// Analyses every function of the image.
    #[must_use]
    pub fn new(image: &'i Image<'d>, tables: Tables) -> Self {
        let tables = std::sync::Arc::new(tables);
        let mut code = Code::new(image, tables.clone());
        let bodies: Vec<(u64, Body)> = code
            .entries()
            .into_par_iter()
            .map_init(EffectsReader::default, |reader, entry| (entry, walk(&code, entry, reader)))
            .collect();
        let mut bodies = code.without_labels(bodies);
        let walked = |reader: &mut EffectsReader, entry| (entry, walk(&code, entry, reader));
        let slots = Slots::find(image, &bodies);
        slots.extend_trampolines(image, &mut bodies);
        // Call targets without a function symbol are functions too.
        loop {
            let known: AddressSet = bodies.iter().map(|(entry, _)| *entry).collect();
            let mut missing: Vec<u64> = bodies
                .par_iter()
                .flat_map_iter(|(_, body)| callees_of(body))
                .flat_map_iter(|callee| targets(&slots, &callee).to_vec())
                .filter(|target| {
                    !known.contains(target)
                        && image.region(*target).is_some_and(|region| region.code)
                })
                .collect();
            missing.sort_unstable();
            missing.dedup();
            if missing.is_empty() {
                break;
            }
            bodies.par_extend(missing.into_par_iter().map_init(EffectsReader::default, walked));
        }
        bodies.sort_by_key(|(entry, _)| *entry);
        let index: AddressMap<u32> =
            bodies.iter().enumerate().map(|(number, (entry, _))| (*entry, number as u32)).collect();
        let edges = edges(&slots, &bodies, &index);
        let levels = levels(&edges);
        let returning = returning(&bodies, levels.iter().flatten().copied(), &index, &slots, image);
        let nothing = Summary { destroys: Parts::EMPTY, ..c_function() };
        let never = Summary { returns: Returns::Never, ..nothing };
        let mut state = State {
            index: &index,
            slots: &slots,
            bodies: &bodies,
            summaries: returning
                .iter()
                .map(|returns| if *returns { nothing } else { never })
                .collect(),
        };
        state.settle(&edges, &levels);
        let demands: Vec<Demands> = bodies
            .par_iter()
            .map_init(EffectsReader::default, |reader, (_, body)| demands(body, &state, reader))
            .collect();
        let summaries = state.summaries;
        let functions = bodies
            .into_iter()
            .zip(summaries)
            .zip(demands)
            .map(|(((entry, body), summary), demands)| Function {
                entry,
                summary: Summary { needs: demands.at_entry, ..summary },
                body,
                demands,
            })
            .collect();
        Self { image, tables, functions, slots, index, code }
    }

    /// The function that begins at `address`.
    #[must_use]
    pub fn function(&self, address: u64) -> Option<&Function> {
        self.index.get(&address).map(|number| &self.functions[*number as usize])
    }

    /// Where a call goes, when that is known: the function itself, or what its slot holds in the file.
    #[must_use]
    pub fn target_of(&self, callee: Callee) -> Option<u64> {
        self.targets_of(&callee).first().copied()
    }

    /// Everywhere a call may go, as far as that is known.
    #[must_use]
    pub fn targets_of<'a>(&'a self, callee: &'a Callee) -> &'a [u64] {
        targets(&self.slots, callee)
    }

    /// The first of the functions that a call may go to which destroys some of `lost`.
    #[must_use]
    pub fn destroyer(&self, callee: Callee, lost: Parts) -> Option<u64> {
        self.targets_of(&callee)
            .iter()
            .copied()
            .find(|target| self.summary(Callee::Direct(*target)).destroys.intersects(lost))
    }

    /// `symbol+0x1f` for an address; code that is patched in is named by the place it is patched into.
    #[must_use]
    pub fn place_name(&self, address: u64) -> String {
        match self.tables.replaced_by(address) {
            Some(site) => format!("{} (patched in)", self.image.describe(site)),
            None => self.image.describe(address),
        }
    }

    /// Whether `address` belongs to the symbol that `entry` lies in.
    #[must_use]
    pub fn same_function(&self, entry: u64, address: u64) -> bool {
        self.code.function_range(entry).is_some_and(|range| (range.0..range.1).contains(&address))
    }
}

impl Callees for Program<'_, '_> {
    fn summary(&self, callee: Callee) -> Summary {
        summary_of(self.targets_of(&callee), |target| Some(self.function(target)?.summary))
    }
}

/// Everybody a body hands control to.
pub fn callees_of(body: &Body) -> impl Iterator<Item = Callee> + '_ {
    body.blocks.iter().filter_map(|block| match block.ending {
        Ending::Calls(callee) | Ending::TailCalls(callee) => Some(callee),
        Ending::Returns(Some(thunk)) => Some(Callee::Direct(thunk)),
        _ => None,
    })
}

/// What the exits of a function tell its callers.
fn summary(body: &Body, exits: &Exits, callees: &State<'_>) -> Summary {
    let mut destroys = Parts::EMPTY;
    let mut certain = !exits.incomplete;
    let mut past_caller = !exits.exits.is_empty();
    for exit in &exits.exits {
        destroys |= exit.destroys;
        let goes_on_surely = match body.blocks[exit.block].ending {
            // Where a jump through a register leads is not known, nor what the code there destroys.
            Ending::TailCalls(callee) if targets(callees.slots, &callee).is_empty() => false,
            Ending::TailCalls(callee) => callees.summary(callee).certain,
            Ending::Returns(Some(thunk)) => callees.summary(Callee::Direct(thunk)).certain,
            _ => true,
        };
        certain &= exit.depth == Some(0) && goes_on_surely;
        past_caller &= exit.depth == Some(8);
    }
    let returns = if exits.exits.is_empty() && !exits.incomplete {
        Returns::Never
    } else if past_caller {
        Returns::PastCaller
    } else {
        Returns::Behind
    };
    if !certain {
        // Where the stack was not understood, saved registers may look destroyed.
        destroys = destroys - CALLEE_SAVED;
    }
    Summary { destroys, needs: Parts::EMPTY, returns, certain }
}

/// The functions that each function hands control to, by number.
fn edges(slots: &Slots, bodies: &[(u64, Body)], index: &AddressMap<u32>) -> Vec<Vec<u32>> {
    bodies
        .par_iter()
        .map(|(_, body)| {
            let mut targets: Vec<u32> = callees_of(body)
                .flat_map(|callee| targets(slots, &callee).to_vec())
                .filter_map(|target| index.get(&target).copied())
                .collect();
            targets.sort_unstable();
            targets.dedup();
            targets
        })
        .collect()
}

/// Functions in groups such that the callees of each lie in earlier groups, but for those that call each other in a circle.
fn levels(edges: &[Vec<u32>]) -> Vec<Vec<u32>> {
    // Depth-first, with the level of a function one above the highest of its finished callees.
    let mut level: Vec<u32> = vec![0; edges.len()];
    let mut state: Vec<u8> = vec![0; edges.len()];
    for root in 0..edges.len() as u32 {
        if state[root as usize] != 0 {
            continue;
        }
        let mut stack: Vec<(u32, usize)> = vec![(root, 0)];
        state[root as usize] = 1;
        while let Some((number, position)) = stack.last_mut() {
            let number = *number;
            if let Some(callee) = edges[number as usize].get(*position) {
                *position += 1;
                if state[*callee as usize] == 0 {
                    state[*callee as usize] = 1;
                    stack.push((*callee, 0));
                }
            } else {
                let highest = edges[number as usize]
                    .iter()
                    .filter(|callee| state[**callee as usize] == 2)
                    .map(|callee| level[*callee as usize] + 1)
                    .max()
                    .unwrap_or(0);
                level[number as usize] = highest;
                state[number as usize] = 2;
                stack.pop();
            }
        }
    }
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for (number, level) in level.iter().enumerate() {
        let level = *level as usize;
        if groups.len() <= level {
            groups.resize_with(level + 1, Vec::new);
        }
        groups[level].push(number as u32);
    }
    groups
}
