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
    /// Code against bugs that the machine does not have.
    pub unused: Unused,
}

/// What every x86-64 machine has.
const BASE: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm";
/// What the x86-64-v2 level adds, with what all machines of that age have.
const V2: &str = "cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2 rdtscp nopl rep_good tsc_deadline_timer pcid x2apic";
/// What the x86-64-v3 level adds, with what all machines of that age have.
const V3: &str = "avx avx2 bmi1 bmi2 f16c fma movbe abm xsave osxsave fsgsbase erms smep invpcid rdrand xsaveopt lfence_rdtsc";
const SINCE_SKYLAKE: &str = "smap clflushopt xsavec xsaves xgetbv1 adx rdseed";
const ICE_LAKE: &str = "fsrm clwb rdpid umip pku ospke ibrs_enhanced avx512f avx512bw avx512vl";
const AMD: &str = "svm sse4a clzero";
const ZEN_2: &str = "clwb rdpid umip";
const ZEN_3: &str = "fsrm pku ospke ibpb";
const ZEN_4: &str = "avx512f avx512bw avx512vl ibrs_enhanced autoibrs";

/// Bugs as `/proc/cpuinfo` names them, of which code in the kernel depends.
const NO_BUGS: &[&str] = &[];
const OLD_INTEL: &[&str] = &["spectre_v2", "bhi"];
const SKYLAKE: &[&str] = &["spectre_v2", "bhi", "retbleed"];
const ITS: &[&str] = &["spectre_v2", "bhi", "its"];
const ZEN_1_AND_2: &[&str] = &["spectre_v2", "retbleed", "srso"];
const ZEN_3_AND_4: &[&str] = &["spectre_v2", "srso"];
const ZEN_5: &[&str] = &["spectre_v2"];

/// A machine by name: what it has beyond the level before, and which bugs; `None` when the name stands for many machines.
/// Only features that kernels patch code for matter, so that the lists are short. The bugs are those of
/// `cpu_vuln_blacklist` in arch/x86/kernel/cpu/common.c, v6.12, and the ITS advisory.
type Named = (&'static str, &'static [&'static str], Option<&'static [&'static str]>);

const MACHINES: &[Named] = &[
    ("x86-64-v1", &[BASE], None),
    ("x86-64-v2", &[BASE, V2], None),
    ("x86-64-v3", &[BASE, V2, V3], None),
    ("qemu64", &[BASE, "cx16 lahf_lm pni svm"], Some(NO_BUGS)),
    ("haswell", &[BASE, V2, V3], Some(OLD_INTEL)),
    ("broadwell", &[BASE, V2, V3, "smap adx rdseed"], Some(OLD_INTEL)),
    ("skylake", &[BASE, V2, V3, SINCE_SKYLAKE], Some(SKYLAKE)),
    (
        "cascadelake",
        &[BASE, V2, V3, SINCE_SKYLAKE, "clwb pku ospke ibrs_enhanced avx512f avx512bw avx512vl"],
        Some(ITS),
    ),
    ("icelake", &[BASE, V2, V3, SINCE_SKYLAKE, ICE_LAKE], Some(ITS)),
    (
        "sapphirerapids",
        &[BASE, V2, V3, SINCE_SKYLAKE, ICE_LAKE, "fzrm fsrs fsrc bhi_ctrl serialize"],
        Some(OLD_INTEL),
    ),
    ("zen1", &[BASE, V2, V3, SINCE_SKYLAKE, AMD], Some(ZEN_1_AND_2)),
    ("epyc", &[BASE, V2, V3, SINCE_SKYLAKE, AMD], Some(ZEN_1_AND_2)),
    ("zen2", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2], Some(ZEN_1_AND_2)),
    ("epyc-rome", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2], Some(ZEN_1_AND_2)),
    ("zen3", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2, ZEN_3, "invlpgb"], Some(ZEN_3_AND_4)),
    ("epyc-milan", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2, ZEN_3], Some(ZEN_3_AND_4)),
    ("zen4", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2, ZEN_3, ZEN_4], Some(ZEN_3_AND_4)),
    ("epyc-genoa", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2, ZEN_3, ZEN_4], Some(ZEN_3_AND_4)),
    ("zen5", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2, ZEN_3, ZEN_4], Some(ZEN_5)),
    ("epyc-turin", &[BASE, V2, V3, SINCE_SKYLAKE, AMD, ZEN_2, ZEN_3, ZEN_4], Some(ZEN_5)),
];

/// Bugs and the code that a kernel uses against them alone.
const AGAINST: &[(&str, &[&str])] = &[
    ("srso", &["srso_"]),
    ("retbleed", &["retbleed_return_thunk", "zen_", "call_depth_", "__x86_return_skl"]),
    ("its", &["its_return_thunk", "__x86_indirect_its_"]),
    ("bhi", &["clear_bhb_loop"]),
    ("spectre_v2", &["__x86_indirect_"]),
];

impl Machine {
    /// A machine from the text of `/proc/cpuinfo`, a console log in which it was printed, or names between commas or blanks.
    /// `None` when the text is neither: words of a log are no features.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let line_of = |wanted: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                // A console may put a time before it, as in `[    1.5] flags : fpu vme`.
                let key = key.rsplit(']').next().unwrap_or(key);
                (key.trim() == wanted).then_some(value)
            })
        };
        let line = line_of("flags");
        let names = line
            .unwrap_or(text)
            .split(|character: char| character.is_whitespace() || character == ',')
            .filter(|name| !name.is_empty());
        let is_name = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        let features = names.map(|name| is_name(name).then(|| name.to_ascii_lowercase()));
        let features: HashSet<String> = features.collect::<Option<_>>()?;
        // The kernel lists the bugs that it knows of; one that it does not know has no code against it.
        let bugs = line_of("bugs").map(|bugs| bugs.split_whitespace().collect::<Vec<_>>());
        let unused = bugs.map(|bugs| Unused::without(&bugs)).unwrap_or_default();
        (!features.is_empty()).then_some(Self { features, unused })
    }

    /// A machine by its name, in any case; `None` when it is not known. [`Machine::names`] lists them.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (_, lists, bugs) = MACHINES.iter().find(|(known, ..)| *known == name)?;
        let features = lists.iter().flat_map(|list| list.split(' ')).map(str::to_owned).collect();
        Some(Self { features, unused: bugs.map(Unused::without).unwrap_or_default() })
    }

    /// The names of the machines that are known.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MACHINES.iter().map(|(name, ..)| *name)
    }

    /// Whether the machine takes an alternative. `None` when the feature has no name: the kernel decides it at boot.
    #[must_use]
    pub fn takes(&self, names: &FeatureNames, alternative: &Alternative) -> Option<bool> {
        let name = names.names.get(&alternative.feature)?;
        Some(self.features.contains(name) != alternative.inverted)
    }
}

/// Code that a kernel command line switches off, so that what is wrong with it harms nobody.
#[derive(Clone, Debug, Default)]
pub struct Unused {
    prefixes: Vec<&'static str>,
}

/// Words of the command line, and the code that is not used then: Documentation/admin-guide/kernel-parameters.txt, v6.12.
/// `safe-ret` is the one setting of spec_rstack_overflow that uses the srso thunks, `unret` the one of retbleed.
const SWITCHES: &[(&str, &[&str])] = &[
    (
        "mitigations=off",
        &[
            "srso_",
            "retbleed_return_thunk",
            "zen_",
            "its_return_thunk",
            "__x86_indirect_",
            "clear_bhb_loop",
        ],
    ),
    ("spec_rstack_overflow=off", &["srso_"]),
    ("spec_rstack_overflow=microcode", &["srso_"]),
    ("spec_rstack_overflow=ibpb", &["srso_"]),
    ("spec_rstack_overflow=ibpb-vmexit", &["srso_"]),
    ("retbleed=off", &["retbleed_return_thunk", "zen_"]),
    ("retbleed=ibpb", &["retbleed_return_thunk", "zen_"]),
    ("retbleed=stuff", &["retbleed_return_thunk", "zen_"]),
    ("indirect_target_selection=off", &["its_return_thunk", "__x86_indirect_its_"]),
    ("indirect_target_selection=stuff", &["its_return_thunk", "__x86_indirect_its_"]),
    ("spectre_bhi=off", &["clear_bhb_loop"]),
    ("nopvspin", &["__raw_callee_save___pv_queued_spin_unlock", "__pv_queued_spin_unlock"]),
    ("nospectre_v2", &["__x86_indirect_", "clear_bhb_loop"]),
    ("spectre_v2=off", &["__x86_indirect_", "clear_bhb_loop"]),
    ("spectre_v2=eibrs", &["__x86_indirect_"]),
    ("spectre_v2=eibrs,lfence", &["__x86_indirect_"]),
    ("spectre_v2=ibrs", &["__x86_indirect_"]),
];

/// Whether a word of the command line is this setting; `nosmt` behind it asks for something else besides.
fn switches(word: &str, setting: &str) -> bool {
    word.strip_suffix(",nosmt").unwrap_or(word) == setting
}

/// Code that counts calls on Intel Skylake.
const CALL_DEPTH: [&str; 2] = ["call_depth_", "__x86_return_skl"];

/// What a log says a mitigation is, the words that stand there when the code is in use, and that code:
/// arch/x86/kernel/cpu/bugs.c, `retbleed_strings`, `srso_strings`, `spectre_v2_strings` and `its_strings`, v6.12.
const CHOICES: &[(&str, &str, &[&str])] = &[
    ("Speculative Return Stack Overflow: ", "safe ret", &["srso_"]),
    ("RETBleed: Mitigation: ", "untrained return thunk", &["retbleed_return_thunk", "zen_"]),
    ("RETBleed: Mitigation: ", "stuffing", &CALL_DEPTH),
    ("Spectre V2 : Mitigation: ", "retpolines", &["__x86_indirect_"]),
    ("Spectre V2 : Vulnerable", "never", &["__x86_indirect_"]),
    ("ITS: ", "return thunks", &["its_return_thunk", "__x86_indirect_its_"]),
    ("RETBleed: Not affected", "never", &["retbleed_return_thunk", "zen_"]),
    ("RETBleed: Vulnerable", "never", &["retbleed_return_thunk", "zen_"]),
];

impl Unused {
    /// What the words of a command line switch off. The last setting of a parameter counts.
    #[must_use]
    pub fn under(cmdline: &str) -> Self {
        let mut last: Vec<&str> = Vec::new();
        for word in cmdline.split_whitespace() {
            let key = word.split('=').next().unwrap_or(word);
            last.retain(|earlier| earlier.split('=').next() != Some(key));
            last.push(word);
        }
        let prefixes = SWITCHES
            .iter()
            .filter(|(word, _)| last.iter().any(|last| switches(last, word)))
            .flat_map(|(_, prefixes)| prefixes.iter().copied())
            .collect();
        let mut unused = Self { prefixes };
        // Nothing but this word selects call-depth tracking: arch/x86/kernel/cpu/bugs.c, RETBLEED_CMD_STUFF, v6.2.
        let stuff = |word: &&str| {
            word.strip_prefix("retbleed=")
                .is_some_and(|value| value.split(',').any(|v| v == "stuff"))
        };
        if !last.iter().any(stuff) {
            unused.prefixes.extend(CALL_DEPTH);
        }
        unused
    }

    /// What a kernel said in its log about itself: its command line, and which return thunks it chose. `None` when it said
    /// neither.
    #[must_use]
    pub fn said_in(log: &str) -> Option<Self> {
        let mut unused = Self::default();
        let mut speaks = false;
        for line in log.lines() {
            if let Some((_, words)) = line
                .split_once("Command line: ")
                .or_else(|| line.split_once("Kernel command line: "))
            {
                speaks = true;
                unused.prefixes.extend(Self::under(words).prefixes);
            }
            for (topic, setting, prefixes) in CHOICES {
                if let Some((_, choice)) = line.split_once(topic) {
                    speaks = true;
                    if !choice.to_ascii_lowercase().contains(setting) {
                        unused.prefixes.extend(*prefixes);
                    }
                }
            }
        }
        unused.prefixes.sort_unstable();
        unused.prefixes.dedup();
        speaks.then_some(unused)
    }

    /// What a machine does not use that has no other bugs than these, named as in `/proc/cpuinfo`.
    #[must_use]
    pub fn without(bugs: &[&str]) -> Self {
        let spared = AGAINST.iter().filter(|(bug, _)| !bugs.contains(bug));
        Self { prefixes: spared.flat_map(|(_, prefixes)| prefixes.iter().copied()).collect() }
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.prefixes.extend(other.prefixes);
        self
    }

    /// Whether the code of this name is not used.
    #[must_use]
    pub fn holds(&self, symbol: &str) -> bool {
        self.prefixes.iter().any(|prefix| symbol.starts_with(prefix))
    }
}

/// The setting under which a return thunk is in use, for reports.
#[must_use]
pub(crate) fn in_use_under(symbol: &str) -> Option<&'static str> {
    const THUNKS: [(&str, &str); 6] = [
        ("srso_", "with spec_rstack_overflow=safe-ret on AMD Zen 1 to 4"),
        ("retbleed_return_thunk", "with retbleed=unret on AMD Zen 1 and 2"),
        ("zen_", "with retbleed=unret on AMD Zen 1 and 2"),
        ("call_depth_return_thunk", "with retbleed=stuff on Intel Skylake"),
        ("__x86_return_skl", "with retbleed=stuff on Intel Skylake"),
        ("its_return_thunk", "with indirect_target_selection=on on Intel Skylake to Rocket Lake"),
    ];
    THUNKS.iter().find(|(prefix, _)| symbol.starts_with(prefix)).map(|(_, when)| *when)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_of_a_parameter_counts() {
        let safe = Unused::under("quiet spec_rstack_overflow=off spec_rstack_overflow=safe-ret");
        assert!(!safe.holds("srso_safe_ret"));
        let off = Unused::under("spec_rstack_overflow=safe-ret spec_rstack_overflow=off");
        assert!(off.holds("srso_safe_ret") && !off.holds("its_return_thunk"));
        assert!(Unused::under("mitigations=off").holds("__x86_indirect_thunk_rax"));
    }

    #[test]
    fn a_log_is_no_list_of_features() {
        let cpuinfo =
            "[    1.5] model name : x\n[    1.5] flags\t\t: fpu ERMS\n[    1.5] vmx flags : ept\n";
        let machine = Machine::parse(cpuinfo).expect("a machine");
        assert!(machine.features.contains("erms") && !machine.features.contains("ept"));
        assert!(Machine::parse("[    0.1] x86/cpu: User Mode Instruction Prevention").is_none());
        assert!(Machine::parse("erms, smap\nfsrm").expect("names").features.contains("fsrm"));
    }

    #[test]
    fn a_log_says_which_thunks_are_in_use() {
        let log = "[    0.0] Command line: quiet retbleed=stuff\n\
                   [    0.1] RETBleed: Mitigation: Stuffing\n\
                   [    0.1] Speculative Return Stack Overflow: Vulnerable: No microcode\n";
        let unused = Unused::said_in(log).expect("a choice");
        assert!(unused.holds("srso_safe_ret") && unused.holds("retbleed_return_thunk"));
        assert!(!unused.holds("call_depth_return_thunk"));
        let safe = Unused::said_in("Speculative Return Stack Overflow: Mitigation: Safe RET\n")
            .expect("a choice");
        assert!(!safe.holds("srso_safe_ret"));
        let quiet = Unused::said_in("Command line: quiet\n").expect("a command line");
        assert!(quiet.holds("call_depth_return_thunk"));
        assert!(Unused::said_in("hello").is_none());
    }

    #[test]
    fn machines_are_known_by_name() {
        let zen2 = Machine::named("EPYC-Rome").expect("a machine");
        assert!(zen2.features.contains("smap") && !zen2.features.contains("fsrm"));
        assert!(Machine::named("pentium").is_none());
        assert!(Machine::names().all(|name| Machine::named(name).is_some()));
    }

    #[test]
    fn a_machine_does_without_code_against_bugs_it_has_not() {
        let unused = |name: &str| Machine::named(name).expect("a machine").unused;
        assert!(unused("skylake").holds("srso_safe_ret"));
        assert!(!unused("skylake").holds("call_depth_return_thunk"));
        assert!(unused("zen3").holds("retbleed_return_thunk"));
        assert!(!unused("zen3").holds("srso_alias_safe_ret"));
        assert!(unused("epyc-turin").holds("srso_safe_ret"));
        // The name of a level stands for machines of every maker.
        assert!(!unused("x86-64-v3").holds("srso_safe_ret"));
        let cpuinfo = "flags\t\t: fpu erms\nbugs\t\t: spectre_v1 spectre_v2 its\n";
        let machine = Machine::parse(cpuinfo).expect("a machine");
        assert!(machine.unused.holds("srso_safe_ret") && !machine.unused.holds("its_return_thunk"));
        assert!(!Machine::parse("flags : fpu\n").expect("a machine").unused.holds("srso_safe_ret"));
    }

    #[test]
    fn a_second_wish_in_a_word_does_not_hide_the_setting() {
        assert!(Unused::under("retbleed=ibpb,nosmt").holds("retbleed_return_thunk"));
        assert!(Unused::under("spectre_v2=eibrs,lfence").holds("__x86_indirect_thunk_rax"));
        assert!(!Unused::under("spectre_v2=eibrs,retpoline").holds("__x86_indirect_thunk_rax"));
        let log = "[    0.1] Spectre V2 : Mitigation: Enhanced / Automatic IBRS\n\
                   [    0.1] ITS: Mitigation: Aligned branch/return thunks\n";
        let unused = Unused::said_in(log).expect("a choice");
        assert!(unused.holds("__x86_indirect_thunk_rax") && !unused.holds("its_return_thunk"));
    }
}
