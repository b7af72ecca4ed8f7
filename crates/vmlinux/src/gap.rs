//! A fact that is missing: which one, where, and why.

use std::fmt;

/// A part of the input that could not be read. Gaps travel beside the facts, never instead of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// What was being read, as a noun: `.symtab`, `kallsyms`, `__ex_table`.
    pub what: String,
    /// Byte offset or address where reading stopped, when there is one.
    pub at: Option<u64>,
    /// Why it stopped, lower case, without a full stop.
    pub why: String,
}

impl Gap {
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>) -> Gap {
        Gap { what: what.into(), at: None, why: why.into() }
    }

    pub(crate) fn at(what: impl Into<String>, at: u64, why: impl Into<String>) -> Gap {
        Gap { what: what.into(), at: Some(at), why: why.into() }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at {at:#x}: {}", self.what, self.why),
            None => write!(f, "{}: {}", self.what, self.why),
        }
    }
}
