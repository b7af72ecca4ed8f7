//! What the check of an image for broken register contracts found: findings grouped by culprit, inferred contracts, totals, what
//! was not decided.
//!
//! Knows neither how it was found nor how it is laid out. Main types: [`Report`], [`Finding`].

use serde::{Deserialize, Serialize};

/// Everything the check says about an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Names of the files that were checked together.
    pub images: Vec<String>,
    /// Broken contracts, the worst first.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub totals: Totals,
    /// Every callee on which some caller relies beyond the C calling convention.
    pub inferred: Vec<Inferred>,
    /// What could not be read or decided, one sentence each.
    pub gaps: Vec<String>,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Functions.
    pub functions: usize,
    /// Instructions in them.
    pub instructions: usize,
    /// Calls that can return.
    pub sites: usize,
    /// Of these, calls whose caller relies on a register that the C calling convention lets the callee destroy.
    pub relying: usize,
    /// Relying calls that could not be decided.
    pub undecided: usize,
    /// Reasons, with the number of calls each.
    pub undecided_why: Vec<(String, usize)>,
    /// Functions whose stack or control flow was not understood.
    pub uncertain_functions: usize,
    /// Places with alternatives that can become live.
    pub alternatives: usize,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A single caller suffers, or the evidence has another likely reading.
    Low,
    /// Several callers suffer.
    Medium,
    /// A stated contract is broken, or many callers suffer.
    High,
}

/// Where a contract comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ContractSource {
    /// Read off the callers.
    Inferred {
        /// Calls that rely on it.
        sites: usize,
        /// All calls of the callee.
        of: usize,
    },
    /// Stated in a file.
    Declared {
        /// Name of the contract.
        name: String,
        /// The kernel file that states it.
        source: String,
        /// The commit that states it.
        commit: String,
        /// Why it exists.
        why: String,
    },
}

/// A place in code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Address in the image.
    pub address: u64,
    /// `symbol+0x1f`.
    pub symbol: String,
    /// The instruction, AT&T syntax.
    pub instruction: String,
    /// File of the images given.
    pub image: String,
    /// Condition under which the code is live, when it is patched in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_when: Option<String>,
    /// `file.c:12`, when the image has debug information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A caller that suffers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sufferer {
    /// The call.
    pub call: Place,
    /// Registers that the caller relies on and the callee destroys.
    pub relies: Vec<String>,
    /// The instruction that reads the destroyed value, with the way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<Place>,
    /// The instruction that wrote the value before the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrote: Option<Place>,
}

/// One broken contract.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// `K0501` register relied on, `K0502` stated contract.
    pub code: String,
    /// The function that breaks it.
    pub culprit: String,
    /// Its address.
    pub address: u64,
    /// Register parts and flags that are destroyed against the contract.
    pub destroys: Vec<String>,
    /// The instruction that destroys.
    pub instruction: Place,
    /// From the callee that is named in the calls to the culprit, by name.
    pub path: Vec<String>,
    /// What put the instruction there, when it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_there_by: Option<String>,
    /// The contract.
    pub contract: ContractSource,
    /// Callers that suffer, as many as are kept.
    pub sites: Vec<Sufferer>,
    /// How many suffer in all.
    pub sites_total: usize,
    /// How sure this is.
    pub confidence: Confidence,
    /// What else could explain it.
    pub otherwise: Vec<String>,
    /// The code of the function that breaks it, AT&T syntax, as far as it is short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listing: Vec<String>,
}

impl Report {
    /// Every place that a finding names.
    pub fn places_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.findings.iter_mut().flat_map(|finding| {
            let sites = finding.sites.iter_mut().flat_map(|site| {
                std::iter::once(&mut site.call).chain(&mut site.reads).chain(&mut site.wrote)
            });
            std::iter::once(&mut finding.instruction).chain(sites)
        })
    }
}

/// What is relied on across calls of one function beyond the C calling convention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inferred {
    /// The callee, or `slot+0x..` for a pointer.
    pub callee: String,
    /// Registers, each with the number of calls that rely on it.
    pub registers: Vec<(String, usize)>,
    /// Calls that rely on at least one.
    pub relying: usize,
    /// All calls.
    pub sites: usize,
}

/// Why one call is or is not in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteExplanation {
    /// The call.
    pub call: Place,
    /// Whom it calls, as far as that is known.
    pub callee: String,
    /// What the caller reads behind the call before writing it.
    pub relies: Vec<String>,
    /// What the callee destroys.
    pub destroys: Vec<String>,
    /// Whether the callee was understood.
    pub certain: bool,
    /// For each register that is relied on and may be destroyed by a C function: what it held, and the way to its reader.
    pub registers: Vec<RegisterExplanation>,
}

/// The reasoning for one register at one call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisterExplanation {
    /// The register part.
    pub register: String,
    /// What it held before the call, in words.
    pub held: String,
    /// The instruction that wrote it, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrote: Option<Place>,
    /// Instructions on the way to the reader, which comes last.
    pub way: Vec<Place>,
    /// Whether the callee keeps it.
    pub kept: bool,
    /// The conclusion, in words.
    pub conclusion: String,
}
