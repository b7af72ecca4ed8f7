//! What an option brings along, so that Kconfig takes it over.
//!
//! Decides from the Kconfig files: an option that is turned on needs what it depends on, one that is
//! turned off needs those that select it to be off. Where a condition cannot be told, every option in it
//! that differs is taken along: a set may get larger for it, never wrong. Main type: [`Closure`].

use std::collections::{BTreeSet, HashMap};

use crate::config::Config;
use crate::kconfig::Kconfig;
use crate::kconfig::expr::{Expr, Tristate};

/// Options that may be changed, by place, with both configurations.
#[derive(Debug)]
pub(super) struct Closure<'c> {
    good: &'c Config,
    bad: &'c Config,
    kconfig: &'c Kconfig,
    names: &'c [String],
    places: HashMap<&'c str, usize>,
}

impl<'c> Closure<'c> {
    /// Closes sets of `names`, which have to be options that differ.
    pub(super) fn new(
        good: &'c Config,
        bad: &'c Config,
        kconfig: &'c Kconfig,
        names: &'c [String],
    ) -> Closure<'c> {
        let places = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        Closure { good, bad, kconfig, names, places }
    }

    /// The set with everything that its members bring along.
    pub(super) fn of(&self, set: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut closed = set.clone();
        let mut open: Vec<usize> = set.iter().copied().collect();
        while let Some(at) = open.pop() {
            let mut needed = BTreeSet::new();
            self.needs(at, &closed, &mut needed);
            open.extend(needed.into_iter().filter(|other| closed.insert(*other)));
        }
        closed
    }

    /// What one option needs beside a set that it is part of.
    fn needs(&self, at: usize, set: &BTreeSet<usize>, into: &mut BTreeSet<usize>) {
        let name = self.names[at].as_str();
        let Some(symbol) = self.kconfig.get(name) else { return };
        let on = |config: &Config| config.get(name).unwrap_or("n") != "n";
        if on(self.bad) {
            self.require(&Expr::Or(symbol.depends.clone()), set, into);
        }
        if lowered(self.good.get(name), self.bad.get(name)) {
            into.extend(symbol.selected_by.iter().filter_map(|(by, _)| self.place(by)));
        }
    }

    /// Takes along what makes a condition as true as it is in the bad configuration.
    fn require(&self, expr: &Expr, set: &BTreeSet<usize>, into: &mut BTreeSet<usize>) {
        let wanted = expr.value(&|name| self.bad.get(name));
        let now = expr.value(&|name| match self.places.get(name) {
            Some(at) if set.contains(at) => self.bad.get(name),
            _ => self.good.get(name),
        });
        if matches!((now, wanted), (Some(now), Some(wanted)) if now >= wanted) {
            return;
        }
        match expr {
            Expr::And(parts) => parts.iter().for_each(|part| self.require(part, set, into)),
            Expr::Or(parts) => {
                // One alternative is enough, if it is for sure what makes the whole true.
                let one = parts.iter().find(|part| {
                    let value = part.value(&|name| self.bad.get(name));
                    value.is_some() && value == wanted && value != Some(Tristate::No)
                });
                match one {
                    Some(part) => self.require(part, set, into),
                    None => parts.iter().for_each(|part| self.require(part, set, into)),
                }
            }
            other => other.symbols(&mut |name| into.extend(self.place(name))),
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }
}

fn lowered(good: Option<&str>, bad: Option<&str>) -> bool {
    let rank = |value: Option<&str>| match value {
        Some("y") => 2,
        Some("m") => 1,
        _ => 0,
    };
    rank(bad) < rank(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(tree: &str, good: &str, bad: &str, set: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Kconfig"), tree).unwrap();
        let kconfig = crate::kconfig::read(dir.path(), "x86").unwrap();
        let (good, bad) = (Config::parse(good.as_bytes()), Config::parse(bad.as_bytes()));
        let mut names: Vec<String> = bad
            .names()
            .chain(good.names())
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        names.retain(|n| good.get(n).unwrap_or("n") != bad.get(n).unwrap_or("n"));
        let closure = Closure::new(&good, &bad, &kconfig, &names);
        let set = set.iter().map(|n| names.iter().position(|m| m == n).unwrap()).collect();
        closure.of(&set).into_iter().map(|at| names[at].clone()).collect()
    }

    const TREE: &str = "config NET\n\tbool \"net\"\n\
        config PCI\n\tbool \"pci\"\n\
        config CARD\n\tbool \"card\"\n\tdepends on NET && (ISA || PCI)\n\
        config ISA\n\tbool \"isa\"\n\
        config LIB\n\tbool \"lib\"\n\
        config USER\n\tbool \"user\"\n\tselect LIB\n\
        config ODD\n\tbool \"odd\"\n\tdepends on NET && $(success,true)\n";

    #[test]
    fn what_is_turned_on_brings_what_it_depends_on() {
        let bad = "CONFIG_NET=y\nCONFIG_PCI=y\nCONFIG_CARD=y\nCONFIG_LIB=y\n";
        assert_eq!(closed(TREE, "", bad, &["CARD"]), ["CARD", "NET", "PCI"]);
        assert_eq!(
            closed(TREE, "CONFIG_ISA=y\n", &format!("{bad}CONFIG_ISA=y\n"), &["CARD"]),
            ["CARD", "NET"]
        );
        assert_eq!(closed(TREE, "", bad, &["NET", "LIB"]), ["LIB", "NET"]);
        assert_eq!(closed(TREE, "", "CONFIG_NET=y\nCONFIG_ODD=y\n", &["ODD"]), ["NET", "ODD"]);
    }

    #[test]
    fn what_is_turned_off_brings_those_that_select_it() {
        assert_eq!(closed(TREE, "CONFIG_LIB=y\nCONFIG_USER=y\n", "", &["LIB"]), ["LIB", "USER"]);
        assert_eq!(closed(TREE, "CONFIG_LIB=y\nCONFIG_USER=y\n", "", &["USER"]), ["USER"]);
    }
}
