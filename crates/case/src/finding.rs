//! A finding: a contradiction, what it rests on, and who may be behind it.
//!
//! Names the parts; decides nothing. `detective` and `contracts` make findings, `report` shows them.
//! Every finding has a stable code. Addresses and values are strings (`"0xffff96dd9e415b88"`), since
//! JSON numbers lose their low bits. The main type is [`Finding`].

use serde::{Deserialize, Serialize};

macro_rules! finding_codes {
    ($( $variant:ident = $id:literal, $name:literal, $meaning:literal; )*) => {
        /// What kind of contradiction was found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum FindingCode {
            $( #[doc = $meaning] #[serde(rename = $name)] $variant, )*
        }

        impl FindingCode {
            /// Every code, in the order of the documented table.
            pub const ALL: &'static [FindingCode] = &[$( FindingCode::$variant, )*];

            /// The stable name, as it stands in JSON.
            pub fn name(self) -> &'static str {
                match self { $( FindingCode::$variant => $name, )* }
            }

            /// The short code that can be quoted: `K0101`.
            pub fn id(self) -> &'static str {
                match self { $( FindingCode::$variant => $id, )* }
            }

            /// One sentence that says what it means.
            pub fn meaning(self) -> &'static str {
                match self { $( FindingCode::$variant => $meaning, )* }
            }
        }
    };
}

finding_codes! {
    FlagsImpossible = "K0101", "flags-impossible", "Flags in the dump cannot follow from the instructions before the trap.";
    RegisterImpossible = "K0102", "register-impossible", "A register in the dump cannot follow from the instructions before the trap.";
}

impl std::fmt::Display for FindingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// One contradiction between a machine state and the code that led there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The kind, by its stable name.
    pub code: FindingCode,
    /// The same as a short code: `K0101`.
    pub id: String,
    /// The register (`RCX`) or the flags (`SF, PF`) that cannot be.
    pub subject: String,
    /// One sentence.
    pub summary: String,
    /// Where the state was taken.
    pub at: FindingPlace,
    /// What the code makes of it.
    pub expected: String,
    /// What the dump shows.
    pub observed: String,
    /// What the observed value looks like, where it looks like something: `stack canary`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_looks_like: Option<String>,
    /// The instructions that force the expected value, in order.
    pub derivation: Vec<DerivationStep>,
    /// Who may have changed it, the likeliest first.
    pub suspects: Vec<Suspect>,
    /// How sure this is.
    pub confidence: Confidence,
    /// What the conclusion takes for granted.
    pub assumptions: Vec<String>,
    /// What else could explain it, a defect of kolumbo included.
    pub other_explanations: Vec<String>,
}

/// A place in the code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FindingPlace {
    /// Function; empty where the dump names none.
    pub symbol: String,
    /// Bytes from its start.
    pub offset: u64,
    /// Size of the function in bytes, 0 where it is not known.
    pub size: u64,
    /// Module, without brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Absolute address in hexadecimal, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The trapping instruction, AT&T syntax.
    pub instruction: String,
    /// Offset of the dump in the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_offset: Option<u64>,
}

impl std::fmt::Display for FindingPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.address, self.symbol.is_empty()) {
            (_, false) => write!(f, "{}+{:#x}", self.symbol, self.offset),
            (Some(address), true) => f.write_str(address),
            (None, true) => f.write_str("an unnamed place"),
        }
    }
}

/// One instruction and what it does to the subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerivationStep {
    /// `function+0x84`, or an absolute address.
    pub address: String,
    /// The bytes in hexadecimal.
    pub bytes: String,
    /// The instruction, AT&T syntax.
    pub instruction: String,
    /// What it leaves behind.
    pub effect: String,
}

/// Somebody who may have changed the state behind the code's back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// What kind of culprit.
    pub kind: SuspectKind,
    /// Its name, where it has one: `native_save_fl+0x1d`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// What speaks for it.
    pub because: Vec<String>,
    /// What speaks against it.
    pub against: Vec<String>,
    /// The check that would settle it.
    pub check: String,
}

/// Kinds of culprits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SuspectKind {
    /// The hypervisor emulated an instruction and returned something that is not its result.
    HypervisorEmulation,
    /// A function that was called changed what it had to keep.
    Callee,
    /// An interrupt, exception or NMI came between and did not restore everything.
    InterruptPath,
    /// Control came in between from elsewhere, past the instructions of the derivation.
    OtherPath,
    /// Code was patched while it ran.
    CodePatching,
    /// The processor or the memory erred.
    Hardware,
    /// Kolumbo misread the dump or has a wrong model of an instruction.
    KolumboMisread,
}

impl SuspectKind {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            SuspectKind::HypervisorEmulation => "hypervisor-emulation",
            SuspectKind::Callee => "callee",
            SuspectKind::InterruptPath => "interrupt-path",
            SuspectKind::OtherPath => "other-path",
            SuspectKind::CodePatching => "code-patching",
            SuspectKind::Hardware => "hardware",
            SuspectKind::KolumboMisread => "kolumbo-misread",
        }
    }
}

/// How sure a conclusion is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Rests on an assumption that often fails.
    #[default]
    Low,
    /// Rests on assumptions that rarely fail.
    Medium,
    /// Rests on assumptions that compiled code keeps.
    High,
    /// Follows from the instructions alone.
    Certain,
}

impl Confidence {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
            Confidence::Certain => "certain",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_survive_json() {
        let mut ids: Vec<&str> = FindingCode::ALL.iter().map(|c| c.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), FindingCode::ALL.len());
        for code in FindingCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{}\"", code.name()));
        }
        for kind in
            [SuspectKind::HypervisorEmulation, SuspectKind::Callee, SuspectKind::KolumboMisread]
        {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
        }
    }
}
