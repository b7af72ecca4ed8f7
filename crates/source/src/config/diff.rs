//! What differs between two configurations, and which change follows from which.
//!
//! Decides from values and, with a source tree, from Kconfig: a change is forced where a dependency
//! holds on one side only, where it is selected on one side only, or where nobody is asked for it. What
//! Kconfig leaves open is taken for chosen. Main function: [`diff`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kolumbo_case::{CONFIG_DIFF_VERSION, Cause, CauseKind, ConfigDiff, ConfigSide, OptionChange};

use super::{Config, boot};
use crate::kconfig::expr::{Expr, Tristate};
use crate::kconfig::{Kconfig, Symbol};

/// Changes that are looked at for the roots of one; chains in the tree have less than fifty.
const FOLLOWED: usize = 1000;

/// A configuration with the name of its file.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Where it was read.
    pub path: &'a str,
    /// The configuration.
    pub config: &'a Config,
}

/// Compares two configurations. With `kconfig` menus and prompts are the tree's, and causes are told.
pub fn diff(old: Side<'_>, new: Side<'_>, kconfig: Option<&Kconfig>) -> ConfigDiff {
    let names: BTreeSet<&str> = old.config.names().chain(new.config.names()).collect();
    let mut changes: Vec<OptionChange> = names
        .into_iter()
        .filter(|name| old.config.get(name) != new.config.get(name))
        .map(|name| change(name, old.config, new.config, kconfig))
        .collect();
    if let Some(kconfig) = kconfig {
        find_causes(&mut changes, old.config, new.config, kconfig);
    }
    let mut gaps = Vec::new();
    for side in [old, new] {
        gaps.extend(side.config.gaps.iter().map(|gap| format!("{}: {gap}", side.path)));
    }
    gaps.extend(kconfig.iter().flat_map(|k| k.gaps.iter().cloned()));
    ConfigDiff {
        config_diff_version: CONFIG_DIFF_VERSION,
        old: about(old),
        new: about(new),
        changes,
        gaps,
    }
}

fn about(side: Side<'_>) -> ConfigSide {
    ConfigSide {
        path: side.path.to_owned(),
        kernel: side.config.kernel.clone(),
        compiler: side.config.text("CC_VERSION_TEXT").unwrap_or_default(),
        options: u32::try_from(side.config.len()).unwrap_or(u32::MAX),
    }
}

fn change(name: &str, old: &Config, new: &Config, kconfig: Option<&Kconfig>) -> OptionChange {
    let (was, is) = (old.get(name), new.get(name));
    let symbol = kconfig.and_then(|k| k.get(name));
    let menu = symbol.map(|s| s.menu.as_slice()).filter(|m| !m.is_empty()).unwrap_or_else(|| {
        let there = if is.is_some() { new } else { old };
        there.menu(name)
    });
    OptionChange {
        name: name.to_owned(),
        old: was.map(str::to_owned),
        new: is.map(str::to_owned),
        same_code: was.unwrap_or("n") == is.unwrap_or("n"),
        boot: boot::topic(name).map(str::to_owned),
        menu: menu.to_vec(),
        prompt: symbol.and_then(|s| s.prompts.first()).map(|p| p.text.clone()).unwrap_or_default(),
        follows: Vec::new(),
        roots: Vec::new(),
    }
}

/// Both sides, to see where a condition differs.
struct Pair<'a> {
    old: &'a Config,
    new: &'a Config,
}

impl Pair<'_> {
    fn values(&self, expr: &Expr) -> (Option<Tristate>, Option<Tristate>) {
        (expr.value(&|n| self.old.get(n)), expr.value(&|n| self.new.get(n)))
    }

    /// Whether the condition is worth more on one side than on the other, for sure.
    fn differs(&self, expr: &Expr) -> bool {
        matches!(self.values(expr), (Some(a), Some(b)) if a != b)
    }

    /// Options in `expr` that tell the sides apart.
    fn changed(&self, expr: &Expr, into: &mut BTreeSet<String>) {
        expr.symbols(&mut |name| {
            if self.old.get(name).unwrap_or("n") != self.new.get(name).unwrap_or("n") {
                into.insert(name.to_owned());
            }
        });
    }
}

fn find_causes(changes: &mut [OptionChange], old: &Config, new: &Config, kconfig: &Kconfig) {
    let pair = Pair { old, new };
    let mut follows: BTreeMap<String, Vec<Cause>> = BTreeMap::new();
    for change in changes.iter() {
        if let Some(symbol) = kconfig.get(&change.name) {
            let mut causes = causes(&pair, change, symbol);
            causes.retain(|c| c.option != change.name);
            if !causes.is_empty() {
                follows.insert(change.name.clone(), causes);
            }
        }
    }
    let mut known = HashMap::new();
    for change in changes.iter_mut() {
        if let Some(causes) = follows.get(&change.name) {
            change.follows.clone_from(causes);
            change.roots = roots(&change.name, &follows, &mut known);
        }
    }
}

fn causes(pair: &Pair<'_>, change: &OptionChange, symbol: &Symbol) -> Vec<Cause> {
    let mut found = Vec::new();
    let mut add = |by: CauseKind, options: BTreeSet<String>| {
        found.extend(options.into_iter().map(|option| Cause { option, by }));
    };
    // An option that is defined in several places is there when one of them is.
    let depends = Expr::Or(symbol.depends.clone());
    let mut options = BTreeSet::new();
    if pair.differs(&depends) {
        for one in symbol.depends.iter().filter(|d| pair.differs(d)) {
            deciding(pair, one, &mut options);
        }
        if !options.is_empty() {
            add(CauseKind::Depends, options);
            return found;
        }
    }
    // A select decides only where it is worth more than what is asked for.
    let mut options = BTreeSet::new();
    for (by, when) in &symbol.selected_by {
        let term = Expr::Term(crate::kconfig::expr::Term::Symbol(by.clone()));
        let both = Expr::And(vec![term, when.clone()]);
        let explains = match pair.values(&both) {
            (Some(a), Some(b)) => (a < b && gains(change)) || (a > b && loses(change)),
            _ => false,
        };
        if explains {
            deciding(pair, &both, &mut options);
        }
    }
    if !options.is_empty() {
        add(CauseKind::Select, options);
        return found;
    }
    // Where a prompt can be seen on the new side, a person or a file chose. Members of a choice
    // exclude each other, which is no cause that a condition could name.
    let asked =
        symbol.prompts.iter().any(|p| p.when.value(&|n| pair.new.get(n)) != Some(Tristate::No));
    if !asked && !symbol.in_choice {
        let mut options = BTreeSet::new();
        for default in &symbol.defaults {
            let differs = pair.differs(&default.when) || pair.differs(&default.value);
            if differs {
                pair.changed(&default.when, &mut options);
                pair.changed(&default.value, &mut options);
            }
            // Later defaults count only where this one does not apply.
            if pair.values(&default.when) == (Some(Tristate::Yes), Some(Tristate::Yes)) {
                break;
            }
        }
        add(CauseKind::Default, options);
    }
    found
}

fn gains(change: &OptionChange) -> bool {
    rank(change.old.as_deref()) < rank(change.new.as_deref())
}

fn loses(change: &OptionChange) -> bool {
    rank(change.old.as_deref()) > rank(change.new.as_deref())
}

fn rank(value: Option<&str>) -> u8 {
    match value {
        Some("y") => 2,
        Some("m") => 1,
        _ => 0,
    }
}

/// The changed options in those parts of a conjunction that tell the sides apart.
fn deciding(pair: &Pair<'_>, expr: &Expr, into: &mut BTreeSet<String>) {
    match expr {
        Expr::And(parts) => {
            for part in parts.iter().filter(|p| pair.differs(p)) {
                deciding(pair, part, into);
            }
        }
        other => pair.changed(other, into),
    }
}

/// The ends of all chains of causes from `name`. Chains that run in a circle end where they close,
/// and very long ones have no end here.
fn roots(
    name: &str,
    follows: &BTreeMap<String, Vec<Cause>>,
    known: &mut HashMap<String, Vec<String>>,
) -> Vec<String> {
    if let Some(roots) = known.get(name) {
        return roots.clone();
    }
    let mut ends = BTreeSet::new();
    let mut seen = BTreeSet::from([name]);
    let mut open = vec![name];
    while let Some(at) = open.pop() {
        match follows.get(at) {
            Some(_) if seen.len() > FOLLOWED => {}
            Some(causes) => {
                let next = causes.iter().map(|c| c.option.as_str());
                open.extend(next.filter(|option| seen.insert(option)));
            }
            None => {
                ends.insert(at.to_owned());
            }
        }
    }
    ends.remove(name);
    let ends: Vec<String> = ends.into_iter().collect();
    known.insert(name.to_owned(), ends.clone());
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kconfig(text: &str) -> Kconfig {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Kconfig"), text).unwrap();
        crate::kconfig::read(dir.path(), "x86").unwrap()
    }

    fn compare(old: &str, new: &str, tree: &str) -> ConfigDiff {
        let (old, new) = (Config::parse(old.as_bytes()), Config::parse(new.as_bytes()));
        let side = |path, config| Side { path, config };
        diff(side("a", &old), side("b", &new), Some(&kconfig(tree)))
    }

    fn follows<'d>(diff: &'d ConfigDiff, name: &str) -> Vec<(&'d str, CauseKind)> {
        let change = diff.changes.iter().find(|c| c.name == name).unwrap();
        change.follows.iter().map(|c| (c.option.as_str(), c.by)).collect()
    }

    const TREE: &str = "config CC_IS_CLANG\n\tdef_bool $(success,test clang)\n\
        config CLANG_VERSION\n\tint\n\tdefault $(cc-version)\n\
        config LTO\n\tbool \"LTO\"\n\tdepends on CC_IS_CLANG && MOD\n\
        config CFI\n\tbool \"CFI\"\n\tdepends on LTO\n\
        config GCC_ONLY\n\tbool \"gcc\"\n\tdepends on !CC_IS_CLANG\n\tselect HELPER\n\
        config HELPER\n\tbool\n\
        config COMPUTED\n\tdef_bool y if CLANG_VERSION >= 140000\n\
        config FREE\n\tbool \"free\"\n\tdefault y if CC_IS_CLANG\n\
        config MOD\n\tbool \"mod\"\n";

    #[test]
    fn what_follows_from_the_compiler_is_told() {
        let old = "CONFIG_CLANG_VERSION=0\nCONFIG_GCC_ONLY=y\nCONFIG_HELPER=y\nCONFIG_MOD=y\n\
                   # CONFIG_FREE is not set\n";
        let new = "CONFIG_CC_IS_CLANG=y\nCONFIG_CLANG_VERSION=140006\nCONFIG_LTO=y\nCONFIG_CFI=y\n\
                   CONFIG_COMPUTED=y\nCONFIG_MOD=y\nCONFIG_FREE=y\n";
        let diff = compare(old, new, TREE);
        assert_eq!(follows(&diff, "LTO"), [("CC_IS_CLANG", CauseKind::Depends)]);
        assert_eq!(follows(&diff, "CFI"), [("LTO", CauseKind::Depends)]);
        assert_eq!(follows(&diff, "GCC_ONLY"), [("CC_IS_CLANG", CauseKind::Depends)]);
        assert_eq!(follows(&diff, "HELPER"), [("GCC_ONLY", CauseKind::Select)]);
        assert_eq!(follows(&diff, "COMPUTED"), [("CLANG_VERSION", CauseKind::Default)]);
        assert_eq!(follows(&diff, "FREE"), [], "somebody chose it");
        assert_eq!(follows(&diff, "CC_IS_CLANG"), []);
        let roots =
            |name: &str| diff.changes.iter().find(|c| c.name == name).unwrap().roots.clone();
        for name in ["CFI", "HELPER", "GCC_ONLY"] {
            assert_eq!(roots(name), ["CC_IS_CLANG"], "{name}");
        }
    }

    #[test]
    fn not_set_and_not_there_build_the_same_code() {
        let diff = compare("# CONFIG_A is not set\nCONFIG_B=m\n", "CONFIG_B=y\n", "config A\n");
        assert_eq!(diff.changes.len(), 2);
        assert!(diff.changes[0].same_code && !diff.changes[1].same_code);
    }

    #[test]
    fn circles_end() {
        let tree = "config A\n\tdef_bool B\nconfig B\n\tdef_bool A\n";
        let diff = compare("", "CONFIG_A=y\nCONFIG_B=y\n", tree);
        assert_eq!(follows(&diff, "A"), [("B", CauseKind::Default)]);
        assert!(diff.changes[0].roots.is_empty());
    }
}
