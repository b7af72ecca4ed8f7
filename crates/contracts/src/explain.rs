//! The reasoning for one call, step by step: what is relied on, what it held, who reads it, what the callee does to it.
//!
//! Decides nothing that the check does not decide; it shows the steps. Main function: [`explain_site`].

use kolumbo_case::contract::{RegisterExplanation, SiteExplanation};
use kolumbo_dataflow::{Callee, Callees, EffectsReader, Evidence, Parts, evidence, reliance};

use crate::check::{Options, View, beyond_c};
use crate::features::FeatureNames;
use crate::image::Image;
use crate::program::{CALLEE_SAVED, Program};
use crate::tables::Tables;
use crate::types::{ResultRegisters, Types};

/// Explains the call at `place` (`function+0x12`, or an address). `None` when no call that can return is there.
#[must_use]
pub fn explain_site(image: &Image<'_>, options: &Options, place: &str) -> Option<SiteExplanation> {
    let address = address_of(image, place)?;
    let names = FeatureNames::read(image);
    let mut tables = Tables::read(image);
    if let Some(machine) = &options.machine {
        tables.select(&|alternative| machine.takes(&names, alternative));
    }
    let program = Program::new(image, tables);
    let (function, site) = program.functions.iter().find_map(|function| {
        function
            .demands
            .sites
            .iter()
            .find(|site| site.address == address)
            .map(|site| (function, site))
    })?;
    let view = View { program: &program, names: &names };
    let types = Types::read(image);
    let symbols = program.target_of(site.callee).map_or(&[][..], |target| image.symbols_at(target));
    let mut reader = EffectsReader::default();
    let summary = program.summary(site.callee);
    let rules = Rules {
        needs: summary.needs,
        results: symbols
            .iter()
            .find_map(|symbol| options.declared.of(symbol.name))
            .map_or(Parts::EMPTY, |contract| contract.results),
        of_c: symbols.iter().find_map(|symbol| types.results(symbol.name, summary.needs)),
    };
    let asked = beyond_c(site.relies)
        | (Parts { general: site.relies.general, ..Parts::EMPTY } & summary.destroys);
    let registers = asked
        .generals()
        .map(|register| {
            let part = site.relies & Parts::general(register);
            let held = evidence(&function.body, &program, site.block, register);
            let kept = !summary.destroys.intersects(part);
            let way = reliance(&function.body, &program, site.block, part, &mut reader).unwrap_or_default();
            RegisterExplanation {
                register: part.to_string(),
                held: match held {
                    Evidence::Held(_) => "a value that was written on purpose and not read before the call",
                    Evidence::Parameter => "what the function was entered with",
                    Evidence::Used => "a value that had been read already; it may have been an argument",
                    Evidence::Leftover => "what an instruction left there besides its result, or nothing that could be found",
                }
                .to_owned(),
                wrote: match held {
                    Evidence::Held(address) => Some(view.place(address)),
                    _ => None,
                },
                way: way.into_iter().map(|address| view.place(address)).collect(),
                kept,
                conclusion: rules.conclusion(kept, register, held).to_owned(),
            }
        })
        .collect();
    Some(SiteExplanation {
        call: view.place(address),
        callee: match (site.callee, program.target_of(site.callee)) {
            (Callee::Slot(slot), Some(target)) => {
                format!("{} through {}", image.describe(target), image.describe_data(slot))
            }
            (_, Some(target)) => image.describe(target),
            _ => "unknown: the pointer is not in the image".to_owned(),
        },
        relies: site.relies.names(),
        destroys: (summary.destroys - Parts { vector: u128::MAX, ..Parts::EMPTY }).names(),
        certain: summary.certain,
        registers,
    })
}

/// What decides about a register that the callee destroys.
struct Rules {
    /// What the callee reads that its caller must have put there.
    needs: Parts,
    /// Results by a stated contract.
    results: Parts,
    /// Where the callee returns its result, when it is known to be C.
    of_c: Option<ResultRegisters>,
}

impl Rules {
    fn conclusion(&self, kept: bool, register: usize, held: Evidence) -> &'static str {
        let whole = Parts::general(register);
        const RDX: usize = 2;
        if kept {
            return "in order: the callee keeps it";
        }
        if register == 0 {
            return "no finding: RAX carries the result";
        }
        if self.results.intersects(whole) {
            return "no finding: a stated contract says that it carries a result";
        }
        if register == RDX && self.of_c == Some(ResultRegisters::Two) {
            return "no finding: by its type the callee returns the upper half of its result there";
        }
        if self.of_c.is_none() && self.needs.intersects(whole) {
            return "no finding: the callee takes it as an argument, so that it may return something there";
        }
        let may_be_result = register == RDX && self.of_c.is_none();
        match held {
            Evidence::Held(_) if whole.intersects(CALLEE_SAVED) => {
                "broken: the callee destroys a register that C makes it keep"
            }
            Evidence::Held(_) if may_be_result => {
                "broken, unless most callers read it and it is a result"
            }
            Evidence::Held(_) => "broken: the value was to survive the call",
            Evidence::Parameter | Evidence::Used if !may_be_result => {
                "broken, if the way to the reader can be taken"
            }
            _ => "no finding: nothing shows that the value from before the call is meant",
        }
    }
}

fn address_of(image: &Image<'_>, place: &str) -> Option<u64> {
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16).ok()
    };
    match place.split_once('+') {
        Some((name, offset)) => {
            // The size behind the offset, as in `fn+0x12/0x40`, is not needed.
            let offset = number(offset.split('/').next()?)?;
            Some(image.address_of(name)?.wrapping_add(offset))
        }
        None => image.address_of(place).or_else(|| number(place)),
    }
}
