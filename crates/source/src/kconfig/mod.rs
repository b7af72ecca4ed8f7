//! The Kconfig files of a kernel tree, as far as they say where an option stands and what decides it.
//!
//! Decides menus, prompts, dependencies, defaults and selects. Macros that ask a compiler are not
//! run: what hangs on them is not known. Main type: [`Kconfig`].

mod parse;

pub mod expr;

use std::collections::HashMap;
use std::path::PathBuf;

use self::expr::Expr;

pub use self::parse::{KconfigError, arch_of, read};

/// All options of a tree for one architecture.
#[derive(Debug, Default)]
pub struct Kconfig {
    /// By name.
    options: HashMap<String, Symbol>,
    /// Files that are named and cannot be read, and lines that are not understood.
    pub gaps: Vec<String>,
    /// Kconfig files that were read.
    pub files: Vec<PathBuf>,
}

/// One option with everything that all its entries say.
#[derive(Debug, Default, Clone)]
pub struct Symbol {
    /// What the user is asked, by entry; empty for options that are computed.
    pub prompts: Vec<Prompt>,
    /// Titles of the menus above its first entry.
    pub menu: Vec<String>,
    /// What each entry depends on; several entries are alternatives.
    pub depends: Vec<Expr>,
    /// Values with their conditions, in the order of the files.
    pub defaults: Vec<DefaultValue>,
    /// Options that select this one, with the condition.
    pub selected_by: Vec<(String, Expr)>,
    /// One of the options of a `choice`, of which the user picks one.
    pub in_choice: bool,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its text.
    pub text: String,
    /// When it is asked.
    pub when: Expr,
}

/// A default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultValue {
    /// The value.
    pub value: Expr,
    /// When it applies.
    pub when: Expr,
}

impl Kconfig {
    /// One option.
    pub fn get(&self, name: &str) -> Option<&Symbol> {
        self.options.get(name)
    }

    /// Number of options.
    pub fn len(&self) -> usize {
        self.options.len()
    }

    /// Whether there is no option.
    pub fn is_empty(&self) -> bool {
        self.options.is_empty()
    }
}

/// Bytes of the macro call or variable at the start of `text`, which begins with `$`.
fn macro_length(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        if at > 0 && depth == 0 {
            return at;
        }
    }
    text.len()
}
