//! Every function of an image: where it begins, its body, its callees, and its summary, computed from the leaves upward.
//!
//! Decides what a branch target means (a return thunk, a retpoline, ordinary code) by the names the image has. Functions that
//! call each other in a circle are taken to destroy what C lets them destroy. Main types: [`Program`], [`Function`].

use std::collections::{HashMap, HashSet};

use kolumbo_dataflow::{
    Body, Callee, Callees, CodeMap, Demands, EffectsReader, Ending, Exits, Parts, Register,
    Replacement, Returns, Summary, Target, demands, exits, walk,
};
use rayon::prelude::*;

use crate::image::Image;
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
    /// Its ways out.
    pub exits: Exits,
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
    index: HashMap<u64, u32>,
    code: Code<'i, 'd>,
}

/// The image as the walk sees it.
struct Code<'i, 'd> {
    image: &'i Image<'d>,
    /// Ranges of function symbols, ascending and without those nested in others.
    ranges: Vec<(u64, u64)>,
    starts: HashSet<u64>,
    targets: HashMap<u64, Target>,
    tables: std::sync::Arc<Tables>,
}

/// Names of code that only returns to the caller: arch/x86/lib/retpoline.S, since v5.19 (commit 0b53c374b9ef).
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
        self.tables.warnings.contains_key(&address)
    }

    fn is_slot(&self, address: u64) -> bool {
        self.image.word_at(address).is_some_and(|target| {
            self.starts.contains(&target) || self.targets.contains_key(&target)
        })
    }
}

impl<'i, 'd> Code<'i, 'd> {
    fn new(image: &'i Image<'d>, tables: std::sync::Arc<Tables>) -> Self {
        let mut starts = HashSet::new();
        let mut targets = HashMap::new();
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
            }
        }
        Self { image, ranges, starts, targets, tables }
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

/// Rounds in which functions that call each other in a circle are analysed again. Every round starts from facts that hold, so
/// stopping early only loses precision.
const MOST_REFINEMENTS: usize = 8;

fn never_returns() -> Summary {
    Summary { returns: Returns::Never, ..c_function() }
}

/// What is known so far.
struct State<'p> {
    index: &'p HashMap<u64, u32>,
    image: &'p Image<'p>,
    summaries: Vec<Option<Summary>>,
    results: Vec<Option<(Exits, Demands)>>,
}

impl State<'_> {
    /// Analyses these functions and returns those whose summary changed.
    fn run(&mut self, numbers: &[u32], bodies: &[(u64, Body)]) -> Vec<u32> {
        let this = &*self;
        let done: Vec<(u32, Summary, Exits, Demands)> = numbers
            .par_iter()
            .map_init(EffectsReader::default, |reader, number| {
                let (summary, exits, demands) = analyse(&bodies[*number as usize].1, this, reader);
                (*number, summary, exits, demands)
            })
            .collect();
        let mut changed = Vec::new();
        for (number, summary, exits, demands) in done {
            let place = &mut self.summaries[number as usize];
            if *place != Some(summary) {
                *place = Some(summary);
                changed.push(number);
            }
            self.results[number as usize] = Some((exits, demands));
        }
        changed
    }

    fn better_than_assumed(&self, number: u32) -> bool {
        self.summaries[number as usize].is_some_and(|summary| {
            summary.destroys.general != c_destroys().general || summary.returns != Returns::Behind
        })
    }
}

impl Callees for State<'_> {
    fn summary(&self, callee: Callee) -> Summary {
        let target = match callee {
            Callee::Direct(target) => Some(target),
            Callee::Slot(slot) => self.image.word_at(slot),
            Callee::Unknown => None,
        };
        target
            .and_then(|target| self.index.get(&target))
            .and_then(|number| self.summaries[*number as usize])
            .unwrap_or_else(c_function)
    }
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
fn returning(bodies: &[(u64, Body)], index: &HashMap<u64, u32>, image: &Image<'_>) -> Vec<bool> {
    let mut returns = vec![false; bodies.len()];
    let mut waiting: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut todo: Vec<u32> = (0..bodies.len() as u32).collect();
    let number_of = |callee: Callee| match callee {
        Callee::Direct(target) => index.get(&target).copied(),
        Callee::Slot(slot) => image.word_at(slot).and_then(|target| index.get(&target).copied()),
        Callee::Unknown => None,
    };
    let known_never = |callee: Callee| {
        matches!(callee, Callee::Direct(target)
            if image.unknown.get(&target).is_some_and(|name| NEVER_RETURN.contains(&name.as_str())))
    };
    while let Some(number) = todo.pop() {
        if returns[number as usize] {
            continue;
        }
        let body = &bodies[number as usize].1;
        let mut seen = vec![false; body.blocks.len()];
        let mut blocks: Vec<usize> = Vec::new();
        if !seen.is_empty() {
            seen[0] = true;
            blocks.push(0);
        }
        let mut blockers = Vec::new();
        let mut found = body.blocks.is_empty();
        while let Some(block) = blocks.pop() {
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
            for next in &block.next {
                if !seen[*next as usize] {
                    seen[*next as usize] = true;
                    blocks.push(*next as usize);
                }
            }
        }
        // A callee that drops its own return address leaves the caller by way of its own exit.
        if found {
            returns[number as usize] = true;
            todo.extend(waiting.remove(&number).unwrap_or_default());
        } else {
            for blocker in blockers {
                waiting.entry(blocker).or_default().push(number);
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
        let code = Code::new(image, tables.clone());
        let mut bodies: Vec<(u64, Body)> =
            code.entries().into_par_iter().map(|entry| (entry, walk(&code, entry))).collect();
        // Call targets without a function symbol are functions too.
        loop {
            let known: HashSet<u64> = bodies.iter().map(|(entry, _)| *entry).collect();
            let mut missing: Vec<u64> = bodies
                .par_iter()
                .flat_map_iter(|(_, body)| callees_of(body))
                .filter_map(|callee| match callee {
                    Callee::Direct(target) => Some(target),
                    Callee::Slot(slot) => image.word_at(slot),
                    Callee::Unknown => None,
                })
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
            bodies.par_extend(missing.into_par_iter().map(|entry| (entry, walk(&code, entry))));
        }
        bodies.sort_by_key(|(entry, _)| *entry);
        let index: HashMap<u64, u32> =
            bodies.iter().enumerate().map(|(number, (entry, _))| (*entry, number as u32)).collect();
        let edges = edges(image, &bodies, &index);
        let returning = returning(&bodies, &index, image);
        let mut state = State {
            index: &index,
            image,
            summaries: returning.iter().map(|returns| (!returns).then(never_returns)).collect(),
            results: std::iter::repeat_with(|| None).take(bodies.len()).collect(),
        };
        let levels = levels(&edges);
        let mut order = vec![0_usize; bodies.len()];
        for (rank, level) in levels.iter().enumerate() {
            for number in level {
                order[*number as usize] = rank;
            }
            state.run(level, &bodies);
        }
        // Functions in a circle were analysed before some of their callees; what is known now is better than what was assumed.
        let mut dirty: Vec<u32> = (0..bodies.len() as u32)
            .filter(|number| {
                edges[*number as usize].iter().any(|callee| {
                    order[*callee as usize] >= order[*number as usize]
                        && state.better_than_assumed(*callee)
                })
            })
            .collect();
        let mut callers: Vec<Vec<u32>> = vec![Vec::new(); bodies.len()];
        for (number, callees) in edges.iter().enumerate() {
            for callee in callees {
                callers[*callee as usize].push(number as u32);
            }
        }
        for _ in 0..MOST_REFINEMENTS {
            let changed = state.run(&dirty, &bodies);
            dirty = changed
                .iter()
                .flat_map(|number| callers[*number as usize].iter().copied())
                .collect();
            dirty.sort_unstable();
            dirty.dedup();
            if dirty.is_empty() {
                break;
            }
        }
        let State { summaries, results, .. } = state;
        let functions = bodies
            .into_iter()
            .zip(summaries)
            .zip(results)
            .map(|(((entry, body), summary), result)| {
                let (exits, demands) = result.unwrap_or_default();
                Function {
                    entry,
                    body,
                    summary: summary.unwrap_or_else(c_function),
                    exits,
                    demands,
                }
            })
            .collect();
        Self { image, tables, functions, index, code }
    }

    /// The function that begins at `address`.
    #[must_use]
    pub fn function(&self, address: u64) -> Option<&Function> {
        self.index.get(&address).map(|number| &self.functions[*number as usize])
    }

    /// Where a call goes, when that is known: the function itself, or what its slot holds in the file.
    #[must_use]
    pub fn target_of(&self, callee: Callee) -> Option<u64> {
        match callee {
            Callee::Direct(target) => Some(target),
            Callee::Slot(slot) => self.image.word_at(slot),
            Callee::Unknown => None,
        }
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
        self.target_of(callee)
            .and_then(|target| self.function(target))
            .map_or_else(c_function, |function| function.summary)
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

fn analyse(
    body: &Body,
    known: &State<'_>,
    reader: &mut EffectsReader,
) -> (Summary, Exits, Demands) {
    let exits = exits(body, known, reader);
    let demands = demands(body, known, reader);
    let mut destroys = Parts::EMPTY;
    let mut certain = !exits.incomplete;
    let mut past_caller = !exits.exits.is_empty();
    for exit in &exits.exits {
        destroys |= exit.destroys;
        // Where a jump through a register leads is not known, nor what the code there destroys.
        let leaves = matches!(body.blocks[exit.block].ending, Ending::TailCalls(Callee::Unknown));
        certain &= exit.depth == Some(0) && !leaves;
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
    (Summary { destroys, needs: demands.at_entry, returns, certain }, exits, demands)
}

/// The functions that each function hands control to, by number.
fn edges(image: &Image<'_>, bodies: &[(u64, Body)], index: &HashMap<u64, u32>) -> Vec<Vec<u32>> {
    bodies
        .par_iter()
        .map(|(_, body)| {
            let mut targets: Vec<u32> = callees_of(body)
                .filter_map(|callee| match callee {
                    Callee::Direct(target) => Some(target),
                    Callee::Slot(slot) => image.word_at(slot),
                    Callee::Unknown => None,
                })
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
