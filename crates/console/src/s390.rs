//! The register dump of s390, whose lines are like no other machine's.
//!
//! Decides what the continuation lines of `Krnl GPRS:` and `Krnl Code:` belong to. Source: show_registers
//! in arch/s390/kernel/dumpstack.c and show_code in arch/s390/kernel/dis.c. Main type: [`Section`].

use kolumbo_case::{CodeBytes, Registers};

/// What the next line without a name goes on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Section {
    /// Nothing of s390.
    #[default]
    None,
    /// Values of general registers.
    Registers,
    /// Disassembled code.
    Code,
}

/// Where the counter stands in a line: behind `Krnl PSW :` or `User PSW :`, mask and address.
pub(crate) fn program_status(line: &str, into: &mut Registers) -> bool {
    let Some(rest) = ["Krnl PSW :", "User PSW :"].iter().find_map(|p| line.strip_prefix(p)) else {
        return false;
    };
    let mut words = rest.split_ascii_whitespace().map(word);
    let (Some(Some(mask)), Some(Some(address))) = (words.next(), words.next()) else {
        return false;
    };
    into.insert("pswm", mask);
    into.insert("pswa", address);
    true
}

fn word(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl Section {
    /// Takes a line of the dump; false when it is none, which ends the section.
    pub(crate) fn take(
        &mut self,
        line: &str,
        registers: &mut Registers,
        code: &mut Option<CodeBytes>,
    ) -> bool {
        let rest = if let Some(rest) = line.strip_prefix("Krnl GPRS:") {
            *self = Section::Registers;
            rest
        } else if let Some(rest) = line.strip_prefix("Krnl Code:") {
            *self = Section::Code;
            rest
        } else {
            line
        };
        let took = match self {
            Section::None => false,
            Section::Registers => general(rest, registers),
            Section::Code => instruction(rest.trim(), code),
        };
        if !took {
            *self = Section::None;
        }
        took
    }
}

/// Four values; the names are not printed.
fn general(line: &str, registers: &mut Registers) -> bool {
    let values: Option<Vec<u64>> = line.split_ascii_whitespace().map(word).collect();
    let Some(values) = values.filter(|v| (1..=4).contains(&v.len())) else { return false };
    let first = (0..16).find(|n| registers.get(&format!("r{n}")).is_none()).unwrap_or(16);
    let fits = first + values.len() <= 16;
    for (n, value) in values.into_iter().enumerate().filter(|_| fits) {
        registers.insert(&format!("r{}", first + n), value);
    }
    fits
}

/// `>000003ff8000b2c4: e54c10000000  mvhi 0(%r1),0`: `>` stands at the instruction that trapped.
fn instruction(line: &str, code: &mut Option<CodeBytes>) -> bool {
    let trapped = line.starts_with('>');
    let line = line.trim_start_matches(['>', '#']);
    let Some((address, rest)) = line.split_once(": ") else { return false };
    let digits = rest.split_ascii_whitespace().next().unwrap_or_default();
    if word(address).is_none() || !matches!(digits.len(), 4 | 8 | 12) || !digits.is_ascii() {
        return false;
    }
    let bytes: Option<Vec<u8>> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let Some(bytes) = bytes else { return false };
    let code = code.get_or_insert_with(|| CodeBytes { unit: 1, ..Default::default() });
    if code.bytes.len() > 512 {
        return false;
    }
    if trapped {
        code.trap = Some(code.bytes.len());
    }
    code.bytes.extend(bytes);
    true
}
