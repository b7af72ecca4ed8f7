//! An ELF file: recognised, parsed, its tables read, linked as a module.
#![no_main]

use kolumbo_vmlinux::tables::sites::{SiteList, sites};
use kolumbo_vmlinux::tables::{
    alternatives, bugs, ex_table, jump_labels, orc, paravirt, static_calls,
};
use kolumbo_vmlinux::{Elf, Image, SymbolTable, module, recognise, slide};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = recognise(bytes).map(|kind| kind.loadable().map_err(|e| e.to_string()));
    let Ok(elf) = Elf::parse(bytes) else { return };
    let symbols = SymbolTable::from_elf(&elf, |_| true);
    let _ = slide::deduce(&elf, &[(0xffff_ffff_8100_0000, &[0x90; 32])]);
    read(&Image::of_vmlinux(&elf, symbols));
    read(&module::link(&elf, module::DEFAULT_BASE, |_| None));
});

fn read(image: &Image<'_>) {
    for address in [0, 1, 0xffff_ffff_8100_0000, module::DEFAULT_BASE, u64::MAX] {
        let _ = (image.symbols().lookup(address), image.bytes_at(address, 4));
        let _ = image.symbols().per_cpu(address);
    }
    let _ = ex_table::ex_table(image);
    let _ = alternatives::alternatives(image);
    let _ = paravirt::paravirt_sites(image);
    let _ = static_calls::static_call_sites(image);
    let _ = static_calls::static_call_trampolines(image);
    let _ = jump_labels::jump_labels(image);
    let _ = bugs::bugs(image);
    for list in [SiteList::Retpoline, SiteList::SmpLock, SiteList::Mcount] {
        let _ = sites(image, list);
    }
    if let Ok(Some(table)) = orc::OrcTable::find(image) {
        let _ = (table.iter().count(), table.lookup(module::DEFAULT_BASE));
    }
}
