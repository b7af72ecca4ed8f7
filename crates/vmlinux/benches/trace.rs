//! A trace of thirty frames on a vmlinux with DWARF, cold, against one call of `addr2line`:
//! `cargo bench -p kolumbo-vmlinux --bench trace -- VMLINUX`.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::process::Command;
use std::time::Instant;

use kolumbo_vmlinux::dwarf::DebugSections;
use kolumbo_vmlinux::{Elf, SymbolTable};

fn main() {
    let Some(path) = std::env::args().skip(1).find(|a| !a.starts_with("--")) else {
        println!("trace: skipped, name a vmlinux on the command line");
        return;
    };
    let start = Instant::now();
    let file = std::fs::File::open(&path).expect("the vmlinux can be opened");
    // SAFETY: the benchmark is run by hand on a file that nobody writes to.
    let bytes = unsafe { memmap2::Mmap::map(&file).expect("the vmlinux can be mapped") };
    let elf = Elf::parse(&bytes).expect("the vmlinux is ELF");
    let symbols = SymbolTable::from_elf(&elf, |_| true);
    println!("symbols          {:?} ({})", start.elapsed(), symbols.len());
    let sections = DebugSections::of(&elf).expect("the vmlinux has DWARF");
    let lines = sections.lines();
    println!("ranges           {:?}", start.elapsed());
    let code: Vec<u64> = symbols.iter().filter(|s| s.is_code()).map(|s| s.address + 1).collect();
    let trace: Vec<u64> = (0..30).map(|i| code[i * 7919 % code.len()]).collect();
    let frames: usize = trace.iter().map(|&a| lines.frames(a).len()).sum();
    let ours = start.elapsed();
    println!("30 addresses     {ours:?} ({frames} frames, all steps)");
    println!("memory           {}", resident());
    let start = Instant::now();
    let address = format!("{:#x}", trace[0]);
    let status = Command::new("addr2line").args(["-ifC", "-e", &path, &address]).output();
    let theirs = start.elapsed();
    println!("one addr2line    {theirs:?} ({:?})", status.map(|o| o.status));
    println!(
        "ratio            {:.3} of one addr2line call",
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
}

/// Anonymous and mapped memory that the process holds now.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = |l: &&str| l.starts_with("RssAnon") || l.starts_with("RssFile");
    status
        .lines()
        .filter(wanted)
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}
