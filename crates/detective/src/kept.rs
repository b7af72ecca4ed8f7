//! Did a call leave alone what its caller relies on?
//!
//! Decides from the registers before and behind a call that was seen in a guest, and says what a value is that
//! stands there instead. Knows neither how the call was watched nor whether the guest still lives. Main
//! functions: [`compare`], [`conclude`].

use kolumbo_case::VcpuRegisters;
use kolumbo_case::proof::{CallSample, Conclusion, ProofFile, RegisterPair};

use crate::value::{Landmarks, recognise};

/// The general registers, by their four names.
const REGISTERS: [[&str; 4]; 16] = [
    ["rax", "eax", "ax", "al"],
    ["rbx", "ebx", "bx", "bl"],
    ["rcx", "ecx", "cx", "cl"],
    ["rdx", "edx", "dx", "dl"],
    ["rsi", "esi", "si", "sil"],
    ["rdi", "edi", "di", "dil"],
    ["rbp", "ebp", "bp", "bpl"],
    ["rsp", "esp", "sp", "spl"],
    ["r8", "r8d", "r8w", "r8b"],
    ["r9", "r9d", "r9w", "r9b"],
    ["r10", "r10d", "r10w", "r10b"],
    ["r11", "r11d", "r11w", "r11b"],
    ["r12", "r12d", "r12w", "r12b"],
    ["r13", "r13d", "r13w", "r13b"],
    ["r14", "r14d", "r14w", "r14b"],
    ["r15", "r15d", "r15w", "r15b"],
];

/// The bits of the parts that the four names mean.
const BITS: [u64; 4] = [u64::MAX, 0xffff_ffff, 0xffff, 0xff];

/// The full register and the bits that a name means: `cl` is the lowest eight of `rcx`. None for flags, vector
/// registers and names that are no general register.
pub fn general_part(name: &str) -> Option<(&'static str, u64)> {
    REGISTERS.iter().find_map(|names| {
        let size = names.iter().position(|n| n.eq_ignore_ascii_case(name))?;
        Some((names[0], BITS[size]))
    })
}

/// What is known of a call beside its registers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// Index of the call among those that are watched.
    pub call: usize,
    /// Register parts that the caller relies on.
    pub relies: &'a [String],
    /// The function that it reached.
    pub callee: Option<&'a str>,
    /// The stack canary of the CPU.
    pub canary: Option<u64>,
}

/// The registers of a call before and behind it. RAX, which holds the result, and RSP are not named among
/// those that changed.
pub fn compare(
    before: &VcpuRegisters,
    after: &VcpuRegisters,
    known: &Circumstances<'_>,
) -> CallSample {
    let marks = Landmarks {
        gs_base: after.get("gs_base"),
        rsp: after.get("rsp"),
        rip: after.get("rip"),
        five_levels: after.get("cr4").is_some_and(|cr4| cr4 & CR4_LA57 != 0),
        canary: known.canary,
    };
    let pair = |name: &str, full: &str, bits: u64| {
        let (old, new) = (before.get(full)?, after.get(full)?);
        let kept = (old ^ new) & bits == 0;
        // What a whole register holds is told even where only a part of it matters.
        let meaning = if kept { None } else { recognise(new, &marks) };
        Some(RegisterPair {
            register: name.to_owned(),
            before: format!("{old:#018x}"),
            after: format!("{new:#018x}"),
            kept,
            after_kind: meaning.as_ref().map(|m| m.kind.to_owned()),
            after_is: meaning.map(|m| m.text),
        })
    };
    let relied: Vec<RegisterPair> = known
        .relies
        .iter()
        .filter_map(|name| {
            let (full, bits) = general_part(name)?;
            pair(name, full, bits)
        })
        .collect();
    let is_relied = |full: &str| {
        known.relies.iter().any(|name| general_part(name).is_some_and(|(f, _)| f == full))
    };
    let changed = REGISTERS
        .iter()
        .map(|names| names[0])
        .filter(|full| !matches!(*full, "rax" | "rsp") && !is_relied(full))
        .filter_map(|full| pair(full, full, u64::MAX))
        .filter(|pair| !pair.kept)
        .collect();
    CallSample {
        call: known.call,
        cpu: after.cpu,
        callee: known.callee.map(str::to_owned),
        relied,
        changed,
    }
}

/// CR4.LA57, five-level page tables.
const CR4_LA57: u64 = 1 << 12;

/// Whether something that the caller relies on was lost.
pub fn is_broken(sample: &CallSample) -> bool {
    sample.relied.iter().any(|pair| !pair.kept)
}

/// What the numbers of `proof` come to, in its fields `conclusion` and `summary`. Nothing that was seen is
/// proof of the contrary: a register that came back may be lost at the next call.
pub fn conclude(proof: &mut ProofFile) {
    let calls = |n: u32| if n == 1 { "1 call".to_owned() } else { format!("{n} calls") };
    // The most telling one: a canary in a register is nobody's result.
    let telling = |s: &&CallSample| {
        let is_canary = |p: &RegisterPair| p.after_kind.as_deref() == Some("stack-canary");
        (!s.relied.iter().any(is_canary), s.call)
    };
    let lost = proof.samples.iter().filter(|s| is_broken(s)).min_by_key(telling);
    (proof.conclusion, proof.summary) = match (proof.seen, lost) {
        (0, _) => (
            Conclusion::NotSeen,
            "not confirmed: none of these calls was seen from its beginning to its end".to_owned(),
        ),
        (seen, None) => (
            Conclusion::NotConfirmed,
            format!(
                "not confirmed: {} looked at, and what the caller relies on came back",
                calls(seen)
            ),
        ),
        (seen, Some(sample)) => {
            let place = proof.watched.get(sample.call).map_or("", |w| w.place.as_str());
            let pair = sample.relied.iter().find(|p| !p.kept);
            let numbers = match (proof.broken, seen) {
                (1, 1) => "in the one call looked at".to_owned(),
                (broken, _) => format!("in {broken} of {} looked at", calls(seen)),
            };
            let told = pair.map(|p| in_words(p, place)).unwrap_or_default();
            (Conclusion::Confirmed, format!("confirmed {numbers}: {told}"))
        }
    };
}

fn in_words(pair: &RegisterPair, place: &str) -> String {
    let full = general_part(&pair.register).map_or(pair.register.as_str(), |(full, _)| full);
    let name = full.to_uppercase();
    let (before, after) = (&pair.before, &pair.after);
    match (pair.after_kind.as_deref(), &pair.after_is) {
        (Some("stack-canary"), Some(text)) if text.contains("%gs") => {
            format!(
                "{name} was {before} before the call at {place} and equals {text} after it, {after}"
            )
        }
        (_, Some(text)) => {
            format!(
                "{name} was {before} before the call at {place} and is {after} after it ({text})"
            )
        }
        _ => format!("{name} was {before} before the call at {place} and is {after} after it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kolumbo_case::proof::WatchedCall;

    fn registers(rcx: u64, rdx: u64) -> VcpuRegisters {
        let values = [("rcx", rcx), ("rdx", rdx), ("gs_base", 0xffff_8880_0f80_0000), ("rax", rcx)];
        VcpuRegisters {
            values: values.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect(),
            ..VcpuRegisters::default()
        }
    }

    fn proof(samples: Vec<CallSample>) -> ProofFile {
        let broken = samples.iter().filter(|s| is_broken(s)).count() as u32;
        let place = "irq_work_tick+0x5c".to_owned();
        let mut proof = ProofFile {
            watched: vec![WatchedCall { place, ..WatchedCall::default() }],
            seen: samples.len() as u32,
            broken,
            samples,
            ..ProofFile::default()
        };
        conclude(&mut proof);
        proof
    }

    #[test]
    fn the_canary_is_told_from_what_looks_like_one() {
        let canary = 0xadec_c9cc_04e2_ca00;
        let relies = ["rcx".to_owned()];
        let known =
            Circumstances { relies: &relies, canary: Some(canary), ..Circumstances::default() };
        let before = registers(0xffff_8880_0f81_ef70, 1);
        let sample = compare(&before, &registers(canary, 2), &known);
        assert!(is_broken(&sample));
        assert_eq!(sample.changed.len(), 1, "RDX, and not RAX: {:?}", sample.changed);
        let told = proof(vec![sample]);
        assert_eq!(told.conclusion, Conclusion::Confirmed);
        assert_eq!(
            told.summary,
            "confirmed in the one call looked at: RCX was 0xffff88800f81ef70 before the call at \
             irq_work_tick+0x5c and equals the stack canary of this CPU (%gs:40) after it, \
             0xadecc9cc04e2ca00"
        );
        let other = Circumstances { canary: Some(1), ..known };
        let sample = compare(&before, &registers(canary, 1), &other);
        assert_eq!(sample.relied[0].after_kind.as_deref(), Some("stack-canary"));
        assert!(proof(vec![sample]).summary.contains("canary-like"));
    }

    #[test]
    fn only_the_part_that_is_relied_on_counts() {
        let relies = ["cl".to_owned(), "ZF".to_owned()];
        let known = Circumstances { relies: &relies, ..Circumstances::default() };
        let kept = compare(&registers(0x1_05, 0), &registers(0x2_05, 0), &known);
        assert!(!is_broken(&kept) && kept.relied.len() == 1);
        let lost = compare(&registers(0x1_05, 0), &registers(0x1_06, 0), &known);
        assert!(is_broken(&lost));
        assert_eq!(proof(vec![kept.clone()]).conclusion, Conclusion::NotConfirmed);
        assert_eq!(proof(vec![kept, lost]).conclusion, Conclusion::Confirmed);
        assert_eq!(proof(Vec::new()).conclusion, Conclusion::NotSeen);
        assert_eq!(general_part("R9D"), Some(("r9", 0xffff_ffff)));
        assert_eq!(general_part("xmm0"), None);
    }
}
