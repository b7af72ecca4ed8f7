//! The table of guests, as data.

use std::time::Duration;

use kolumbo_case::VerdictKind;
use serde::Deserialize;

const TABLE: &str = include_str!("../../../../tests/guests/guests.toml");

/// One guest; the fields are explained at the head of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) module: Option<String>,
    pub(crate) kernel: Option<Kernel>,
    pub(crate) initrd: Option<Initrd>,
    #[serde(default)]
    pub(crate) exec: Vec<String>,
    #[serde(default)]
    pub(crate) append: Vec<String>,
    #[serde(default = "two")]
    pub(crate) smp: u32,
    #[serde(default = "quarter_gigabyte")]
    pub(crate) memory: String,
    /// Seconds.
    #[serde(default = "two_minutes")]
    pub(crate) timeout: u64,
    #[serde(default)]
    pub(crate) load: u32,
    pub(crate) expect: Vec<VerdictKind>,
    #[serde(default)]
    pub(crate) healthy: bool,
    #[serde(default)]
    pub(crate) quick: bool,
    #[serde(default)]
    pub(crate) explained: Vec<String>,
    /// For people.
    #[serde(default, rename = "saw")]
    pub(crate) _saw: String,
}

/// What is booted in place of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kernel {
    Truncated,
    BitFlipped,
    Arm64Image,
    Text,
    Empty,
    Folder,
    Fifo,
}

/// What runs in place of kolumbo's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Initrd {
    Exits,
    Sleeps,
    Prompt,
}

fn two() -> u32 {
    2
}

fn quarter_gigabyte() -> String {
    "256m".to_owned()
}

fn two_minutes() -> u64 {
    120
}

impl Guest {
    /// Whether a list such as `KOLUMBO_GUESTS` holds means this guest.
    pub(crate) fn is_chosen(&self, chosen: &str) -> bool {
        match chosen {
            "" | "short" => self.quick,
            "all" => true,
            names => names.split(',').any(|name| name == self.name),
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Every guest, in the order of the table.
pub(crate) fn guests() -> Vec<Guest> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        guest: Vec<Guest>,
    }
    toml::from_str::<Table>(TABLE).unwrap().guest
}

#[test]
fn names_are_unique_and_every_guest_has_a_right_verdict() {
    let guests = guests();
    let mut names: Vec<&str> = guests.iter().map(|g| g.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), guests.len());
    assert!(guests.iter().all(|g| !g.expect.is_empty()));
    assert!(guests.iter().any(|g| g.healthy && g.quick) && guests.iter().any(|g| g.quick));
}
