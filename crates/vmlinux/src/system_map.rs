//! `System.map` and `/proc/kallsyms`: one symbol a line, address, letter, name.

use crate::Gap;
use crate::symbols::{SymbolBuilder, SymbolTable};

/// Reads the symbols of `text`. Lines that are no symbol are counted in one gap. Symbols of modules
/// (`name [module]`, in `/proc/kallsyms`) are left out: their addresses belong to one boot.
pub fn parse_system_map(text: &[u8]) -> (SymbolTable, Vec<Gap>) {
    let mut builder = SymbolBuilder::with_capacity(text.len() / 40, text.len() / 2);
    let mut odd = 0usize;
    let mut first_odd = None;
    let mut at = 0u64;
    for line in text.split(|&b| b == b'\n') {
        match parse_line(line) {
            Line::Symbol(address, kind, name) => builder.push(name, address, 0, kind),
            Line::OfModule | Line::Empty => {}
            Line::Odd => {
                odd += 1;
                first_odd.get_or_insert(at);
            }
        }
        at += line.len() as u64 + 1;
    }
    let table = builder.finish_in_order();
    let mut gaps = Vec::new();
    if let Some(at) = first_odd {
        gaps.push(Gap::at("System.map", at, format!("{odd} lines are no symbol")));
    }
    // Without the privilege to see them, the kernel prints every address as 0.
    if !table.is_empty() && table.iter().all(|s| s.address == 0) {
        gaps.push(Gap::new("System.map", "every address in it is 0 (kptr_restrict?)"));
        return (SymbolTable::default(), gaps);
    }
    (table, gaps)
}

enum Line<'d> {
    Symbol(u64, u8, &'d [u8]),
    OfModule,
    Empty,
    Odd,
}

fn parse_line(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Line::Empty;
    }
    let mut fields = line.splitn(3, |b| b.is_ascii_whitespace());
    let (Some(address), Some([kind]), Some(name)) = (fields.next(), fields.next(), fields.next())
    else {
        return Line::Odd;
    };
    let Some(address) = parse_hex(address).filter(|_| kind.is_ascii_alphabetic() || *kind == b'?')
    else {
        return Line::Odd;
    };
    match name.iter().position(u8::is_ascii_whitespace) {
        None => Line::Symbol(address, *kind, name),
        Some(_) if name.ends_with(b"]") => Line::OfModule,
        // Debian ships a line of prose instead of its System.map.
        Some(_) => Line::Odd,
    }
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        Some(value << 4 | u64::from(char::from(digit).to_digit(16)?))
    })
}
