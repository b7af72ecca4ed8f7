//! What the tables of an image hold and how long reading them takes:
//! `cargo bench -p kolumbo-vmlinux --bench tables -- FILE`.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::time::Instant;

use kolumbo_vmlinux::tables::sites::{SiteList, sites};
use kolumbo_vmlinux::tables::{
    Table, alternatives, bugs, ex_table, jump_labels, orc, paravirt, static_calls,
};
use kolumbo_vmlinux::{Elf, Image, Kernel, module};

fn main() {
    let Some(path) = std::env::args().skip(1).find(|a| !a.starts_with("--")) else {
        println!("tables: skipped, name a kernel or a module on the command line");
        return;
    };
    let bytes = std::fs::read(&path).expect("the file can be read");
    if let Ok(kernel) = Kernel::open(&bytes) {
        let symbols = kernel.symbols(None).table;
        return tables(&Image::of_vmlinux(&kernel.elf(), symbols));
    }
    let bytes = module::unpack(&bytes).expect("the module can be unpacked");
    let elf = Elf::parse(&bytes).expect("the module is ELF");
    tables(&module::link(&elf, module::DEFAULT_BASE, |_| None));
}

fn tables(image: &Image<'_>) {
    for gap in image.gaps() {
        println!("gap {gap}");
    }
    let start = Instant::now();
    show("__ex_table", &ex_table::ex_table(image));
    show(".altinstructions", &alternatives::alternatives(image));
    show(".parainstructions", &paravirt::paravirt_sites(image));
    show(".static_call_sites", &static_calls::static_call_sites(image));
    show(".static_call_tramp_key", &static_calls::static_call_trampolines(image));
    show("__jump_table", &jump_labels::jump_labels(image));
    show("__bug_table", &bugs::bugs(image));
    use SiteList::{Call, Cfi, EndbrSeal, Mcount, Retpoline, Return, SmpLock};
    for list in [Retpoline, Return, Call, EndbrSeal, Cfi, SmpLock, Mcount] {
        show(&format!("{list:?}"), &sites(image, list));
    }
    match orc::OrcTable::find(image) {
        Ok(Some(table)) => {
            println!("{:24} {:7} {:x?}", "orc", table.len(), table.iter().nth(table.len() / 2))
        }
        other => println!("{:24} {other:?}", "orc"),
    }
    println!("in {:?}", start.elapsed());
}

fn show<T: std::fmt::Debug>(name: &str, table: &Table<T>) {
    println!(
        "{name:24} {:7} {:x?}",
        table.entries.len(),
        table.entries.get(table.entries.len() / 2)
    );
    for gap in &table.gaps {
        println!("  gap {gap}");
    }
}
