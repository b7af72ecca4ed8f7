//! What became of a guest, and the proof of it.
//!
//! One table holds every verdict with its stable name, its exit code and its meaning; the manual
//! and the command line are made from it. A sick guest is data: there is no error type here.

use serde::{Deserialize, Serialize};

use crate::event::VcpuSample;
use crate::phase::Phase;

/// Exit code for "cannot tell" and for every failure of kolumbo itself, so that `git bisect run`
/// skips the commit.
pub const EXIT_CANNOT_TELL: u8 = 125;
/// Exit code for a command line that kolumbo does not understand.
pub const EXIT_USAGE: u8 = 2;

macro_rules! verdicts {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $code:expr, $meaning:literal; )*) => {
        /// What became of the guest.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum VerdictKind {
            $( #[doc = $meaning] #[serde(rename = $name)] $variant, )*
        }

        impl VerdictKind {
            /// Every verdict, in the order of the documented table.
            pub const ALL: &'static [VerdictKind] = &[$( VerdictKind::$variant, )*];

            /// The stable name, as it stands in JSON.
            pub fn name(self) -> &'static str {
                match self { $( VerdictKind::$variant => $name, )* }
            }

            /// The exit code of `kolumbo boot` for this verdict.
            pub fn exit_code(self) -> u8 {
                match self { $( VerdictKind::$variant => $code, )* }
            }

            /// One sentence that says what the verdict means.
            pub fn meaning(self) -> &'static str {
                match self { $( VerdictKind::$variant => $meaning, )* }
            }
        }
    };
}

verdicts! {
    Booted = "booted", 0, "The guest booted, ran what it was asked to run and powered off, without a splat.";
    BootedWithSplats = "booted-with-splats", 10, "The guest booted and powered off, but a WARNING, BUG, oops, lockdep report or the like was printed on the way (exit code 0 with --allow-splats).";
    Panicked = "panicked", 11, "The kernel panicked.";
    OopsedStuck = "oopsed-stuck", 12, "The kernel oopsed and the guest never came further.";
    HungBoot = "hung-boot", 13, "The guest hung before init's first word.";
    HungUserspace = "hung-userspace", 14, "The guest hung after init's first word and before a shutdown was asked for.";
    HungShutdown = "hung-shutdown", 15, "The guest hung after a power-off, halt or reboot was asked for.";
    Reset = "reset", 16, "The guest reset itself or triple-faulted.";
    ResetLoop = "reset-loop", 17, "The guest resets again and again at the same point.";
    Silent = "silent", 18, "Nothing was ever printed and init never spoke.";
    InitFailed = "init-failed", 19, "The kernel came up, but init did not: no root, no init, or init ended.";
    NotBootable = "not-bootable", 20, "The file is not a kernel, or the loader refused it.";
    ConsoleFlood = "console-flood", 21, "The guest fills the console without end and never came further.";
    Slow = "slow", 22, "The time limit ran out while the guest was still alive.";
    CannotTell = "cannot-tell", EXIT_CANNOT_TELL, "The evidence does not decide, or kolumbo itself failed; the reason is given.";
}

impl std::fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A judged run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What became of the guest.
    pub verdict: VerdictKind,
    /// One sentence, in plain words, that says why.
    pub reason: String,
    /// The furthest phase for which there is proof.
    pub phase: Phase,
    /// The time limit ended the run; a verdict reached by proof has `false` here.
    pub timed_out: bool,
    /// Milliseconds from the start of QEMU to the guest's last sign of life.
    pub last_sign_of_life_ms: u64,
    /// Milliseconds from the start of QEMU to the moment when the verdict was reached.
    pub decided_ms: u64,
    /// What proves it.
    pub evidence: Vec<Evidence>,
}

/// One piece of proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Evidence {
    /// A console line.
    Line {
        /// Milliseconds since the start of QEMU.
        t: u64,
        /// Offset of the line in `console.log`.
        offset: u64,
        /// The line without control characters.
        text: String,
    },
    /// Something that QEMU, kolumbo's init or the host reported.
    Report {
        /// Milliseconds since the start of QEMU.
        t: u64,
        /// Who said it: `qemu`, `init`, `host`.
        from: String,
        /// What was said.
        text: String,
    },
    /// A run of samples of one virtual CPU, summed up.
    Vcpu {
        /// Milliseconds since the start of QEMU, of the first and the last sample.
        from_t: u64,
        /// See `from_t`.
        to_t: u64,
        /// How many samples were taken.
        samples: u32,
        /// What they show, in plain words.
        text: String,
        /// The last of them.
        last: VcpuSample,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_fit_git_bisect() {
        let mut codes: Vec<u8> = VerdictKind::ALL.iter().map(|v| v.exit_code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), VerdictKind::ALL.len());
        for v in VerdictKind::ALL {
            let code = v.exit_code();
            match v {
                VerdictKind::Booted => assert_eq!(code, 0),
                VerdictKind::CannotTell => assert_eq!(code, EXIT_CANNOT_TELL),
                _ => assert!((10..EXIT_CANNOT_TELL).contains(&code), "{v}"),
            }
        }
    }

    #[test]
    fn names_survive_json() {
        for v in VerdictKind::ALL {
            let json = serde_json::to_string(v).unwrap();
            assert_eq!(json, format!("\"{}\"", v.name()));
            assert_eq!(serde_json::from_str::<VerdictKind>(&json).unwrap(), *v);
        }
    }
}
