//! Our AT&T text, held against `objdump -d` on 100,000 instructions of Debian's kernel.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

#[path = "../../vmlinux/tests/debian/mod.rs"]
mod debian;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use kolumbo_dataflow::{Printer, Syntax};
use kolumbo_vmlinux::Elf;

/// Instructions that are compared, and the regions of `.text` that they come from.
const COUNT: usize = 100_000;
const REGIONS: u64 = 4;

/// Address to text, without symbols and with single blanks.
fn oracle(path: &Path, from: u64, to: u64) -> Option<BTreeMap<u64, String>> {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn"])
        .arg(format!("--start-address={from:#x}"))
        .arg(format!("--stop-address={to:#x}"))
        .arg(path)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |line: &str| {
        let (address, text) = line.split_once(":\t")?;
        Some((u64::from_str_radix(address.trim(), 16).ok()?, plain(text)))
    };
    Some(text.lines().filter_map(line).collect())
}

/// Without `<symbol+0x1f>`, blanks collapsed.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_text_equals_objdump() {
    let Some(path) = debian::find().into_values().find_map(|kernel| kernel.vmlinux) else {
        return debian::skip("Debian's vmlinux with DWARF");
    };
    let file = std::fs::File::open(&path).unwrap();
    // SAFETY: nobody writes to the file of an unpacked package while the test runs.
    let bytes = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let elf = Elf::parse(&bytes).unwrap();
    let text = elf.section(".text").unwrap();
    let code = text.data.unwrap();
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut compared = 0;
    for region in 0..REGIONS {
        // Four and a half bytes are one instruction of a kernel on average.
        let size = COUNT / REGIONS as usize * 5;
        let at = code.len() / 8 + code.len() / (2 * REGIONS as usize) * region as usize;
        let from = text.address + at as u64;
        let Some(theirs) = oracle(&path, from, from + size as u64).filter(|t| !t.is_empty()) else {
            return debian::skip("the objdump program");
        };
        let ours = Printer::new(Syntax::Att).listing(&code[at..at + size], from);
        for line in ours.iter().take(COUNT / REGIONS as usize) {
            compared += 1;
            let ours = plain(&line.text);
            let theirs =
                theirs.get(&line.ip).map_or("(inside another instruction)", String::as_str);
            let group = difference(&ours, theirs);
            groups.entry(group).or_default().push(format!("{:#x}: {ours} | {theirs}", line.ip));
        }
    }
    for (group, members) in &groups {
        eprintln!("{group}: {} of {compared}", members.len());
    }
    assert_eq!(compared, COUNT);
    let spelled: usize = groups.get(NO_INDEX).map_or(0, Vec::len);
    assert!(spelled * 1000 < COUNT, "{:?}", groups.get(NO_INDEX));
    groups.retain(|group, _| ![EQUAL, NO_INDEX].contains(group));
    assert!(groups.is_empty(), "{groups:#?}");
}

const EQUAL: &str = "equal";

/// objdump shows an index that is none as `%riz`, where the bytes have a place for one. Compilers leave
/// that place out; it comes up where bytes are taken for code that are none.
const NO_INDEX: &str = "an index register that is none";

/// The kind of difference between two texts. What else objdump spells in a way of its own,
/// `disassembly` spells so, too.
fn difference(ours: &str, theirs: &str) -> &'static str {
    if ours == theirs {
        EQUAL
    } else if theirs.replace(",%riz,1)", ")") == ours {
        NO_INDEX
    } else {
        "another text"
    }
}
