//! CPU features by the names the kernel gives them, and which alternatives a machine takes.
//!
//! The names stand in the image itself (`x86_cap_flags`, arch/x86/kernel/cpu/capflags.c), so that no list of them is kept here.
//! Main types: [`FeatureNames`], [`Machine`].

use std::collections::{HashMap, HashSet};

use crate::image::Image;
use crate::tables::Alternative;

/// `NCAPINTS` and `NBUGINTS` together stay below this in every kernel.
const MOST_WORDS: usize = 32;

/// Names of feature bits.
#[derive(Clone, Debug, Default)]
pub struct FeatureNames {
    names: HashMap<u16, String>,
}

impl FeatureNames {
    /// Reads the table of names; an image without it (a module) gives an empty one.
    #[must_use]
    pub fn read(image: &Image<'_>) -> Self {
        let mut names = HashMap::new();
        let Some(symbol) = image.named("x86_cap_flags").next() else { return Self::default() };
        let count = (symbol.size as usize / 8).min(MOST_WORDS * 32);
        for bit in 0..count {
            let Some(pointer) = image.word_at(symbol.address.wrapping_add(8 * bit as u64)) else {
                break;
            };
            const LONGEST: usize = 32;
            let bytes = image.bytes_at(pointer);
            let text = &bytes[..bytes.len().min(LONGEST)];
            if let Some(end) = text.iter().position(|byte| *byte == 0)
                && let Ok(name) = std::str::from_utf8(&text[..end])
                && !name.is_empty()
            {
                names.insert(bit as u16, name.to_owned());
            }
        }
        Self { names }
    }

    /// The name of a feature, or its word and bit.
    #[must_use]
    pub fn name(&self, feature: u16) -> String {
        self.names
            .get(&feature)
            .cloned()
            .unwrap_or_else(|| format!("feature {}*32+{}", feature / 32, feature % 32))
    }

    /// When an alternative is taken, in words.
    #[must_use]
    pub fn condition(&self, alternative: &Alternative) -> String {
        let name = self.name(alternative.feature);
        if alternative.inverted { format!("without {name}") } else { format!("with {name}") }
    }
}

/// The features of one machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Names as in `/proc/cpuinfo`.
    pub features: HashSet<String>,
}

impl Machine {
    /// A machine from a list of names: the `flags` line of `/proc/cpuinfo`, or names between commas or blanks.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "flags").then_some(value)
        });
        let features = line
            .unwrap_or(text)
            .split(|character: char| character.is_whitespace() || character == ',')
            .filter(|name| !name.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        Self { features }
    }

    /// Whether the machine takes an alternative. `None` when the feature has no name: the kernel decides it at boot.
    #[must_use]
    pub fn takes(&self, names: &FeatureNames, alternative: &Alternative) -> Option<bool> {
        let name = names.names.get(&alternative.feature)?;
        Some(self.features.contains(name) != alternative.inverted)
    }
}
