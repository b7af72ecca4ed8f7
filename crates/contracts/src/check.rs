//! The check itself: what callers rely on against what callees destroy.
//!
//! A register that a caller reads behind a call before writing it is relied on. A finding needs a callee that destroys it and
//! a caller that had put a value there on purpose and had not used it up; or a stated contract. Prefers silence: a register
//! that most callers read is a result, RAX always is, and a value that was read before the call may have been an argument.
//! Main items: [`check`], [`Options`].

use std::collections::{BTreeMap, BTreeSet};

use kolumbo_dataflow::iced_x86::Mnemonic;
use kolumbo_dataflow::{
    Callee, Callees, EffectsReader, Evidence, Parts, Printer, Returns, Syntax, evidence, reliance,
};
use rayon::prelude::*;

use crate::blame::{
    Blame, blame, handed_on, own_blame, own_writes, put_there_by, understood_destroys,
};
use crate::declared::{Contract, Declared};
use crate::fastops::fastops;
use crate::features::{FeatureNames, Machine, Unused, in_use_under};
use crate::image::Image;
use crate::program::{CALLEE_SAVED, Function, Program};
use crate::tables::Tables;
use crate::types::{ResultRegisters, Types};
use kolumbo_case::contract::{
    Confidence, ContractSource, Finding, Inferred, Place, Report, Sufferer, Totals,
};

/// Suffering callers that are described one by one; the others are counted.
const MOST_SUFFERERS: usize = 20;
const RAX: Parts = Parts::general(0);
const RDX: Parts = Parts::general(2);

/// What to check, and for which machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stated contracts.
    pub declared: Declared,
    /// The machine, when only what becomes live on it is to be checked.
    pub machine: Option<Machine>,
    /// Code that the kernel's command line switches off.
    pub unused: Unused,
}

impl Default for Options {
    fn default() -> Self {
        Self { declared: Declared::builtin(), machine: None, unused: Unused::default() }
    }
}

/// Checks everything in the image.
#[must_use]
pub fn check(image: &Image<'_>, options: &Options) -> Report {
    let mut tables = Tables::read(image);
    let names = FeatureNames::read(image);
    if let Some(machine) = &options.machine {
        tables.select(&|alternative| machine.takes(&names, alternative));
    }
    let mut report = judge(&Program::new(image, tables), &names, &options.declared);
    let spared = options.machine.as_ref().map(|machine| &machine.unused);
    report.findings.retain(|finding| {
        !options.unused.holds(&finding.culprit)
            && !spared.is_some_and(|unused| unused.holds(&finding.culprit))
    });
    report
}

/// Holds what was found out about a program against the contracts, stated and inferred.
#[must_use]
pub fn judge(program: &Program<'_, '_>, names: &FeatureNames, declared: &Declared) -> Report {
    let mut report = Report {
        images: program.image.files.clone(),
        gaps: program.tables.gaps.clone(),
        ..Report::default()
    };
    let view = View { program, names };
    let types = Types::read(program.image);
    let stated = stated(program, &types, declared);
    let calls = Calls::of(program);
    report.totals = calls.totals(program);
    report.inferred = calls.inferred(program);
    let mut conflicts = view.inferred_conflicts(&calls, &stated, &types);
    view.unrestored(&calls, &stated, &mut conflicts);
    view.declared_conflicts(&calls, &stated, &mut conflicts);
    report.findings = view.findings(conflicts, &stated);
    report
}

/// The stated contract of each function that has one, by its entry: a name counts more than the slot that it is put into.
fn stated<'c>(
    program: &Program<'_, '_>,
    types: &Types<'_>,
    declared: &'c Declared,
) -> BTreeMap<u64, &'c Contract> {
    let mut stated = BTreeMap::new();
    for contract in &declared.contracts {
        for table in &contract.slots {
            let slots = types.slots(program.image, &table.variable, &table.table, &table.member);
            for slot in slots {
                let in_file = program.image.word_at(slot);
                for target in program.slots.of(slot).iter().copied().chain(in_file) {
                    stated.insert(target, contract);
                }
            }
        }
    }
    for function in &program.functions {
        let symbols = program.image.symbols_at(function.entry);
        if let Some(contract) = symbols.iter().find_map(|symbol| declared.of(symbol.name)) {
            stated.insert(function.entry, contract);
        }
    }
    stated
}

/// One call, with the function that makes it.
#[derive(Clone, Copy)]
struct Call {
    caller: u32,
    site: u32,
}

/// All calls by callee.
struct Calls {
    by_callee: BTreeMap<u64, Vec<Call>>,
    unknown: Vec<Call>,
}

/// A callee that destroys what some callers rely on.
struct Conflict {
    callee: u64,
    lost: Parts,
    calls: Vec<(Call, Parts)>,
    sites: usize,
    /// The stated contract, and whether only what the code itself writes counts.
    declared: Option<(ContractSource, bool)>,
}

impl Calls {
    fn of(program: &Program<'_, '_>) -> Self {
        let mut calls = Self { by_callee: BTreeMap::new(), unknown: Vec::new() };
        for (caller, function) in program.functions.iter().enumerate() {
            for (site, call) in function.demands.sites.iter().enumerate() {
                let this = Call { caller: caller as u32, site: site as u32 };
                let targets = program.targets_of(&call.callee);
                for target in targets {
                    calls.by_callee.entry(*target).or_default().push(this);
                }
                if targets.is_empty() {
                    calls.unknown.push(this);
                }
            }
        }
        calls
    }

    fn totals(&self, program: &Program<'_, '_>) -> Totals {
        let relies = |call: &Call, destroys: Parts| {
            let site = &program.functions[call.caller as usize].demands.sites[call.site as usize];
            beyond_c(site.relies).intersects(!destroys)
        };
        let mut totals = Totals {
            functions: program.functions.len(),
            instructions: program
                .functions
                .iter()
                .map(|function| function.body.instructions.len())
                .sum(),
            sites: program.functions.iter().map(|function| function.demands.sites.len()).sum(),
            uncertain_functions: program
                .functions
                .iter()
                .filter(|function| !function.summary.certain)
                .count(),
            alternatives: program.tables.alternatives.len(),
            ..Totals::default()
        };
        let mut uncertain = 0;
        for function in &program.functions {
            for site in &function.demands.sites {
                let summary = program.summary(site.callee);
                if !program.targets_of(&site.callee).is_empty()
                    && beyond_c(site.relies).intersects(!summary.destroys)
                {
                    totals.relying += 1;
                    uncertain += usize::from(!summary.certain);
                }
            }
        }
        let unknown = self.unknown.iter().filter(|call| relies(call, Parts::EMPTY)).count();
        totals.relying += unknown;
        totals.undecided = unknown + uncertain;
        for (why, count) in [
            ("the callee is reached through a pointer whose value is not in the image", unknown),
            ("the stack or the control flow of the callee was not understood", uncertain),
        ] {
            if count > 0 {
                totals.undecided_why.push((why.to_owned(), count));
            }
        }
        totals
    }

    fn inferred(&self, program: &Program<'_, '_>) -> Vec<Inferred> {
        let mut table = Vec::new();
        for (callee, calls) in &self.by_callee {
            let destroys = program.summary(Callee::Direct(*callee)).destroys;
            let mut counts = [0_usize; 16];
            let mut relying = 0;
            for call in calls {
                let site =
                    &program.functions[call.caller as usize].demands.sites[call.site as usize];
                let kept = beyond_c(site.relies) - destroys;
                relying += usize::from(!kept.is_empty());
                for register in kept.generals() {
                    counts[register] += 1;
                }
            }
            if relying > 0 {
                let registers = counts
                    .iter()
                    .enumerate()
                    .filter(|(_, count)| **count > 0)
                    .map(|(register, count)| (Parts::general(register).to_string(), *count))
                    .collect();
                table.push(Inferred {
                    callee: program.image.describe(*callee),
                    registers,
                    relying,
                    sites: calls.len(),
                });
            }
        }
        table.sort_by(|left, right| {
            right.relying.cmp(&left.relying).then_with(|| left.callee.cmp(&right.callee))
        });
        table
    }
}

/// General registers that the C calling convention lets a callee destroy, without the one that carries the result.
pub(crate) fn beyond_c(relies: Parts) -> Parts {
    Parts { general: relies.general, ..Parts::EMPTY } - CALLEE_SAVED - RAX
}

/// The program with what is needed to describe places in it.
pub(crate) struct View<'v, 'i, 'd> {
    pub(crate) program: &'v Program<'i, 'd>,
    pub(crate) names: &'v FeatureNames,
}

impl View<'_, '_, '_> {
    /// Callees that destroy what a caller had put there on purpose.
    fn inferred_conflicts(
        &self,
        calls: &Calls,
        stated: &BTreeMap<u64, &Contract>,
        types: &Types<'_>,
    ) -> Vec<Conflict> {
        calls
            .by_callee
            .par_iter()
            .filter_map(|(callee, calls)| {
                // Nobody is accused whose code is not there.
                let function = self.program.function(*callee)?;
                let summary = function.summary;
                if !summary.certain || summary.returns != Returns::Behind {
                    return None;
                }
                let results = stated.get(callee).map_or(Parts::EMPTY, |contract| contract.results);
                let may_be_lost = summary.destroys - results - RAX;
                let relies = |call: &Call| {
                    let site = &self.program.functions[call.caller as usize].demands.sites
                        [call.site as usize];
                    Parts { general: site.relies.general, ..Parts::EMPTY }
                };
                let candidates = calls.iter().filter(|call| relies(call).intersects(may_be_lost));
                let candidates: Vec<_> = candidates.collect();
                if candidates.is_empty() {
                    return None;
                }
                let symbols = self.program.image.symbols_at(*callee).iter();
                let of_c =
                    symbols.filter_map(|symbol| types.results(symbol.name, summary.needs)).next();
                let mut out = Parts::EMPTY;
                match of_c {
                    // C returns in no other register, and never in one that carried an argument.
                    Some(ResultRegisters::One) => {}
                    Some(ResultRegisters::Two) => out |= RDX,
                    // Without types: RDX carries the upper half of a result when most callers read it, and assembly may
                    // hand back a result where it took an argument.
                    None => {
                        let readers = calls.iter().filter(|call| relies(call).intersects(RDX));
                        if 2 * readers.count() >= calls.len() {
                            out |= RDX;
                        }
                        out |= summary.needs.whole_generals();
                    }
                }
                let suffering: Vec<(Call, Parts)> = candidates
                    .into_iter()
                    .map(|call| {
                        let parts = (relies(call) & may_be_lost) - out;
                        (*call, self.meant_to_last(*call, parts, of_c.is_some()))
                    })
                    .filter(|(_, parts)| !parts.is_empty())
                    .collect();
                let lost = suffering.iter().fold(Parts::EMPTY, |set, (_, parts)| set | *parts);
                (!suffering.is_empty()).then_some(Conflict {
                    callee: *callee,
                    lost,
                    sites: calls.len(),
                    calls: suffering,
                    declared: None,
                })
            })
            .collect()
    }

    /// Which of `parts` the caller had put there before the call and meant to find again behind it.
    fn meant_to_last(&self, call: Call, parts: Parts, typed: bool) -> Parts {
        let function = &self.program.functions[call.caller as usize];
        let site = &function.demands.sites[call.site as usize];
        let mut meant = Parts::EMPTY;
        for register in parts.generals() {
            let whole = Parts::general(register);
            // Compilers merge fresh low parts with whatever the upper parts hold and mask the outcome later.
            let upper_parts_only = parts.of_general(register) & 1 == 0;
            let counts = match evidence(&function.body, self.program, site.block, register) {
                Evidence::Held(_) => true,
                // What was read before may have been used up, and RDX may be a result unless the types say no.
                Evidence::Parameter | Evidence::Used => typed || whole != RDX,
                Evidence::Leftover => false,
            };
            if counts && !upper_parts_only {
                meant |= parts & whole;
            }
        }
        meant
    }

    /// Functions that save a register of their callers and do not bring it back. Whoever saves a register means to keep it,
    /// so that this needs no caller: most C functions are called through pointers.
    fn unrestored(
        &self,
        calls: &Calls,
        stated: &BTreeMap<u64, &Contract>,
        conflicts: &mut Vec<Conflict>,
    ) {
        for function in &self.program.functions {
            let lost = Parts { general: function.summary.destroys.general, ..Parts::EMPTY };
            if !function.summary.certain || function.summary.returns != Returns::Behind {
                continue;
            }
            let saved = function.body.effects.iter().filter(|effects| effects.saves_register());
            let lost =
                lost & CALLEE_SAVED & saved.fold(Parts::EMPTY, |set, push| set | push.reads());
            if lost.is_empty()
                || stated.contains_key(&function.entry)
                || conflicts.iter().any(|conflict| conflict.callee == function.entry)
                || handed_on(self.program, function, lost)
            {
                continue;
            }
            let callers = calls.by_callee.get(&function.entry).map_or(&[][..], Vec::as_slice);
            conflicts.push(Conflict {
                callee: function.entry,
                lost,
                calls: Vec::new(),
                sites: callers.len(),
                declared: Some((
                    ContractSource::Declared {
                        name: "C calling convention".to_owned(),
                        source: "System V ABI for x86-64, section 3.2.1".to_owned(),
                        commit: String::new(),
                        why: "the function saves the register and does not bring it back"
                            .to_owned(),
                    },
                    false,
                )),
            });
        }
    }

    /// Functions that destroy what their stated contract preserves; takes the place of what was inferred about them.
    fn declared_conflicts(
        &self,
        calls: &Calls,
        stated: &BTreeMap<u64, &Contract>,
        conflicts: &mut Vec<Conflict>,
    ) {
        for (entry, contract) in stated {
            let Some(function) = self.program.function(*entry) else { continue };
            let lost = if contract.jumps_on {
                own_writes(self.program, function) & contract.preserves
            } else if function.summary.certain {
                function.summary.destroys & contract.preserves
            } else {
                // Registers are judged only at exits where the stack was understood; flags are not saved by accident.
                let all = function.summary.destroys & contract.preserves;
                let understood = understood_destroys(self.program, function);
                Parts { general: contract.preserves.general & understood.general, ..all }
            };
            if lost.is_empty() || (contract.needs_sufferer && self.flag_readers(lost).is_empty()) {
                continue;
            }
            let callers = calls.by_callee.get(&function.entry).map_or(&[][..], Vec::as_slice);
            let suffering = callers
                .iter()
                .filter_map(|call| {
                    let site = &self.program.functions[call.caller as usize].demands.sites
                        [call.site as usize];
                    let relies = site.relies & lost;
                    (!relies.is_empty()).then_some((*call, relies))
                })
                .collect();
            conflicts.retain(|conflict| conflict.callee != function.entry);
            conflicts.push(Conflict {
                callee: function.entry,
                lost,
                calls: suffering,
                sites: callers.len(),
                declared: Some((
                    ContractSource::Declared {
                        name: contract.name.clone(),
                        source: contract.source.clone(),
                        commit: contract.commit.clone(),
                        why: contract.why.clone(),
                    },
                    contract.jumps_on,
                )),
            });
        }
    }

    /// Conflicts grouped by the function that is to blame.
    fn findings(
        &self,
        conflicts: Vec<Conflict>,
        stated: &BTreeMap<u64, &Contract>,
    ) -> Vec<Finding> {
        let keeps = |entry| stated.get(&entry).map_or(Parts::EMPTY, |contract| contract.preserves);
        // Whoever suffers from a function that breaks a stated contract is counted there.
        let broken: BTreeSet<u64> = conflicts
            .iter()
            .filter(|conflict| conflict.declared.is_some())
            .map(|conflict| conflict.callee)
            .collect();
        let mut groups: BTreeMap<(u64, bool), Vec<(Conflict, Blame)>> = BTreeMap::new();
        for conflict in conflicts {
            let jumps_on = matches!(&conflict.declared, Some((_, true)));
            let blame = blame(self.program, conflict.callee, conflict.lost, &keeps)
                .filter(|_| !jumps_on)
                .unwrap_or_else(|| own_blame(self.program, conflict.callee, conflict.lost));
            if conflict.declared.is_none() && self.is_unknown_call(&blame) {
                continue;
            }
            let declared = conflict.declared.is_some() || broken.contains(&blame.function);
            groups.entry((blame.function, declared)).or_default().push((conflict, blame));
        }
        let mut findings: Vec<Finding> =
            groups.into_values().map(|group| self.finding(group)).collect();
        findings.sort_by(|left, right| {
            right
                .confidence
                .cmp(&left.confidence)
                .then(right.sites_total.cmp(&left.sites_total))
                .then(left.address.cmp(&right.address))
        });
        findings
    }

    /// Whether what is blamed is a call of nobody knows whom. Nobody saw it destroy anything: such a callee is taken to do
    /// all that C allows. A caller that relies on more was compiled by one who knew better, as where the call stands in
    /// inline assembly that says what it destroys.
    fn is_unknown_call(&self, blame: &Blame) -> bool {
        let function = self.program.function(blame.function);
        function.is_some_and(|function| {
            function.demands.sites.iter().any(|site| {
                site.address == blame.instruction && matches!(site.callee, Callee::Unknown)
            })
        })
    }

    fn finding(&self, group: Vec<(Conflict, Blame)>) -> Finding {
        let mut reader = EffectsReader::default();
        let lost = group.iter().fold(Parts::EMPTY, |set, (conflict, _)| set | conflict.lost);
        let sites_total: usize = group.iter().map(|(conflict, _)| conflict.calls.len()).sum();
        let of: usize = group.iter().map(|(conflict, _)| conflict.sites).sum();
        let declared = group.iter().find_map(|(conflict, _)| Some(conflict.declared.clone()?.0));
        let blame = group[0].1.clone();
        // Behind a return thunk stands everybody who reads flags behind a call.
        let flags_only = lost.general == 0 && lost.flags != 0 && declared.is_some();
        let mut of_flags = if flags_only { self.flag_readers(lost) } else { Vec::new() };
        let sites_total = sites_total + of_flags.len();
        of_flags.truncate(MOST_SUFFERERS);
        let sites = group
            .iter()
            .flat_map(|(conflict, _)| &conflict.calls)
            .take(MOST_SUFFERERS)
            .map(|(call, parts)| self.sufferer(*call, *parts, &mut reader))
            .chain(of_flags)
            .collect();
        let confidence = match (&declared, sites_total) {
            (Some(_), _) | (None, 5..) => Confidence::High,
            (None, 2..) => Confidence::Medium,
            _ => Confidence::Low,
        };
        let mut otherwise = Vec::new();
        if declared.is_none() {
            if sites_total < 5 {
                otherwise.push("the read lies on a path that cannot be taken after this call; check the way to it".to_owned());
            }
            otherwise.push("the register carries a result that few callers read; if so, state it in a contracts file".to_owned());
        }
        let put = self
            .program
            .function(blame.function)
            .and_then(|function| put_there_by(self.program, function, blame.instruction));
        Finding {
            code: if declared.is_some() { "K0502" } else { "K0501" }.to_owned(),
            culprit: self.program.image.describe(blame.function),
            address: blame.function,
            destroys: lost.names(),
            instruction: self.place(blame.instruction),
            path: blame.path.iter().map(|entry| self.program.image.describe(*entry)).collect(),
            put_there_by: put.map(str::to_owned),
            contract: declared.unwrap_or(ContractSource::Inferred { sites: sites_total, of }),
            sites,
            sites_total,
            confidence,
            otherwise,
            listing: self.listing(blame.function),
        }
    }

    /// The code of a function, as far as it is short.
    fn listing(&self, entry: u64) -> Vec<String> {
        const LONGEST: usize = 64;
        let mut printer = Printer::new(Syntax::Att);
        let body = self.program.function(entry).map(|function| &function.body);
        let instructions = body.map_or(&[][..], |body| &body.instructions);
        instructions
            .iter()
            .take(LONGEST)
            .map(|instruction| printer.instruction(instruction))
            .collect()
    }

    /// Stubs that deliver flags through their return, and calls behind which flags are read.
    fn flag_readers(&self, lost: Parts) -> Vec<Sufferer> {
        let flags =
            Parts { flags: lost.flags & kolumbo_dataflow::ARITHMETIC_FLAGS, ..Parts::EMPTY };
        // The flags are handed over as well; elsewhere PUSHF behind a call only asks whether interrupts are on.
        let hands_over = |function: &Function, block: usize| {
            let range = function.body.blocks[block].range.clone();
            let code = &function.body.instructions[range.start as usize..range.end as usize];
            code.iter().any(|instruction| instruction.mnemonic() == Mnemonic::Popfq)
        };
        let calls = self.program.functions.iter().flat_map(|function| {
            function.demands.sites.iter().filter(move |site| {
                site.relies.intersects(flags)
                    && matches!(site.callee, Callee::Unknown)
                    && hands_over(function, site.block)
            })
        });
        let calls: Vec<_> = calls.collect();
        let file = |address| self.program.image.region(address).map(|region| region.file);
        let files: Vec<_> = calls.iter().map(|site| file(site.address)).collect();
        let stubs = fastops(self.program);
        // A stub that returns by RET runs no return thunk, and who calls it does not suffer from one.
        let stubs: Vec<_> = stubs
            .into_iter()
            .filter(|stub| stub.by_thunk && files.contains(&file(stub.entry)))
            .collect();
        if stubs.is_empty() {
            return Vec::new();
        }
        let stubs = stubs.into_iter();
        let stubs = stubs.map(|stub| Sufferer {
            call: self.place(stub.returns),
            relies: flags.names(),
            reads: None,
            wrote: Some(self.place(stub.sets)),
        });
        let calls = calls.iter().map(|site| Sufferer {
            call: self.place(site.address),
            relies: (site.relies & flags).names(),
            reads: None,
            wrote: None,
        });
        calls.chain(stubs).collect()
    }

    fn sufferer(&self, call: Call, parts: Parts, reader: &mut EffectsReader) -> Sufferer {
        let function: &Function = &self.program.functions[call.caller as usize];
        let site = &function.demands.sites[call.site as usize];
        let way = reliance(&function.body, self.program, site.block, parts, reader);
        let wrote = parts.generals().find_map(|register| {
            match evidence(&function.body, self.program, site.block, register) {
                Evidence::Held(address) => Some(self.place(address)),
                _ => None,
            }
        });
        Sufferer {
            call: self.place(site.address),
            relies: parts.names(),
            reads: way.and_then(|way| way.last().copied()).map(|address| self.place(address)),
            wrote,
        }
    }

    pub(crate) fn place(&self, address: u64) -> Place {
        let image = self.program.image;
        let mut printer =
            Printer::new(Syntax::Att).with_symbols(|target| Some(image.describe(target)));
        let instruction = kolumbo_dataflow::decode(image.bytes_at(address), address);
        Place {
            address,
            symbol: self.program.place_name(address),
            instruction: instruction.map_or_else(
                || "(bad)".to_owned(),
                |instruction| printer.instruction(&instruction),
            ),
            image: image
                .region(address)
                .map(|region| image.files[region.file].clone())
                .unwrap_or_default(),
            live_when: self
                .program
                .tables
                .live_when(address)
                .map(|alternative| self.names.condition(alternative))
                .or_else(|| in_use_under(&self.program.place_name(address)).map(str::to_owned)),
            source: None,
        }
    }
}
