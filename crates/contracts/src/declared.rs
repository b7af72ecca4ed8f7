//! Contracts that are stated, not inferred: a TOML format, and the set that comes with the program.
//!
//! Decides which contract applies to which symbol. A contract applies when its symbol is there, never by version. Main types:
//! [`Contract`], [`Declared`].

use kolumbo_dataflow::Parts;
use serde::Deserialize;

use crate::program::CALLEE_SAVED;

/// The contracts of the x86 kernel.
const X86: &str = include_str!("../contracts/x86.toml");

/// Why a contract file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclaredError {
    /// The file is not TOML, or has fields that are unknown.
    #[error("cannot read the contracts in {file}: {source}")]
    Syntax {
        /// The file.
        file: String,
        /// What the parser says.
        source: Box<toml::de::Error>,
    },
    /// A register name is unknown.
    #[error(
        "contract {contract:?} in {file} names {register:?}; use rax to r15, \"registers\", \"flags\" or one flag such as CF"
    )]
    Register {
        /// The file.
        file: String,
        /// Name of the contract.
        contract: String,
        /// What was written.
        register: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    contract: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    symbols: Vec<String>,
    #[serde(default)]
    slots: Vec<SlotTable>,
    preserves: Vec<String>,
    #[serde(default)]
    may_destroy: Vec<String>,
    #[serde(default)]
    results: Vec<String>,
    #[serde(default)]
    jumps_on: bool,
    source: String,
    #[serde(default)]
    commit: String,
    #[serde(default)]
    needs_sufferer: bool,
    #[serde(default)]
    why: String,
}

/// A table of function pointers, some of which have a type that stands for a contract.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotTable {
    /// The variable.
    pub variable: String,
    /// Its struct type.
    pub table: String,
    /// The struct type of the members that are meant, which holds nothing but the pointer.
    pub member: String,
}

/// One stated contract.
#[derive(Clone, Debug)]
pub struct Contract {
    /// What it is called in reports.
    pub name: String,
    /// Symbols it holds for; a trailing `*` matches any ending.
    pub symbols: Vec<String>,
    /// It holds as well for every function that is put into these pointers.
    pub slots: Vec<SlotTable>,
    /// What the caller may rely on.
    pub preserves: Parts,
    /// Registers that carry results.
    pub results: Parts,
    /// Whether the code jumps on to where a register points, so that only what it writes itself counts.
    pub jumps_on: bool,
    /// Whether the code breaks the rule by design, so that it is judged only when code that relies on it is among the images.
    pub needs_sufferer: bool,
    /// The file that states the rule.
    pub source: String,
    /// The commit that states the rule.
    pub commit: String,
    /// Why the rule exists.
    pub why: String,
}

/// All stated contracts.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// In the order read; later ones win.
    pub contracts: Vec<Contract>,
}

impl Declared {
    /// The contracts that come with the program.
    #[must_use]
    pub fn builtin() -> Self {
        let mut declared = Self::default();
        // A test holds that the file can be read.
        let _ = declared.add("the contracts of the program", X86);
        declared
    }

    /// Adds the contracts of a TOML file.
    ///
    /// # Errors
    /// When the text is not in the documented format. Nothing is added then.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), DeclaredError> {
        let parsed: File = toml::from_str(text).map_err(|source| DeclaredError::Syntax {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        let mut read = Vec::new();
        for entry in parsed.contract {
            let set = |names: &[String]| {
                names.iter().try_fold(Parts::EMPTY, |set, name| {
                    let parts = match name.as_str() {
                        "registers" => Some(Parts { general: !(0xf << 16), ..Parts::EMPTY }),
                        "callee-saved" => Some(CALLEE_SAVED),
                        "flags" => Some(Parts {
                            flags: kolumbo_dataflow::ARITHMETIC_FLAGS,
                            ..Parts::EMPTY
                        }),
                        name => Parts::by_name(name),
                    };
                    parts.map(|parts| set | parts).ok_or_else(|| DeclaredError::Register {
                        file: file.to_owned(),
                        contract: entry.name.clone(),
                        register: name.clone(),
                    })
                })
            };
            let (preserves, may_destroy, results) =
                (set(&entry.preserves)?, set(&entry.may_destroy)?, set(&entry.results)?);
            read.push(Contract {
                preserves: preserves - may_destroy - results,
                results,
                jumps_on: entry.jumps_on,
                needs_sufferer: entry.needs_sufferer,
                name: entry.name,
                symbols: entry.symbols,
                slots: entry.slots,
                source: entry.source,
                commit: entry.commit,
                why: entry.why,
            });
        }
        self.contracts.extend(read);
        Ok(())
    }

    /// The contract for a symbol.
    #[must_use]
    pub fn of(&self, symbol: &str) -> Option<&Contract> {
        self.contracts.iter().rev().find(|contract| {
            contract.symbols.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => symbol.starts_with(start),
                None => symbol == pattern,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_of_the_program_can_be_read() {
        let mut declared = Declared::default();
        declared.add("x86.toml", X86).expect("the file is in the documented format");
        assert!(declared.contracts.len() >= 8);
        let hweight = declared.of("__sw_hweight64").expect("a contract for hweight");
        assert!(hweight.preserves.contains(Parts::general(1)));
        assert!(!hweight.preserves.intersects(Parts::general(0)));
        let thunk = declared.of("srso_safe_ret").expect("a contract for return thunks");
        assert!(
            thunk
                .preserves
                .contains(Parts { flags: kolumbo_dataflow::ARITHMETIC_FLAGS, ..Parts::EMPTY })
        );
        assert!(declared.of("__raw_callee_save_xen_pte_val").is_some());
        assert!(declared.of("memcpy").is_none());
    }

    #[test]
    fn an_unknown_register_is_named() {
        let text = "[[contract]]\nname = \"x\"\nsymbols = [\"f\"]\npreserves = [\"rzx\"]\nsource = \"f.S\"\n";
        let error = Declared::default().add("mine.toml", text).expect_err("rzx is no register");
        assert!(error.to_string().contains("rzx"), "{error}");
    }
}
