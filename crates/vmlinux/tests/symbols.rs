//! Symbols from every source, held against each other and against `nm`.
#![allow(clippy::disallowed_methods)]

mod debian;

use std::collections::BTreeSet;
use std::process::Command;

use kolumbo_vmlinux::kernel::SymbolSource;
use kolumbo_vmlinux::system_map::parse_system_map;
use kolumbo_vmlinux::{Elf, Kernel, SymbolTable};

/// Address and name of every code symbol, in table order.
fn code(table: &SymbolTable) -> Vec<(u64, String)> {
    table.iter().filter(|s| s.is_code()).map(|s| (s.address, s.name.to_string())).collect()
}

#[test]
fn kallsyms_of_the_bzimage_equal_system_map() {
    let mut compared = 0;
    for (release, kernel) in debian::find() {
        let (Some(vmlinuz), Some(map)) = (kernel.vmlinuz, kernel.system_map) else {
            continue;
        };
        let bytes = std::fs::read(vmlinuz).unwrap();
        let kernel = Kernel::open(&bytes).unwrap();
        let symbols = kernel.symbols(None);
        assert_eq!(symbols.source, SymbolSource::Kallsyms, "{release}: {:?}", symbols.gaps);
        let text = std::fs::read(map).unwrap();
        let (map, gaps) = parse_system_map(&text);
        assert_eq!(gaps, []);
        let (ours, theirs) = (code(&symbols.table), code(&map));
        assert!(theirs.len() > 30_000);
        assert_eq!(only(&ours, &theirs), [], "{release}: in kallsyms only");
        assert_eq!(only(&theirs, &ours), [], "{release}: in System.map only");
        // The same map beside the image is taken in preference, since it agrees with it.
        assert_eq!(kernel.symbols(Some(&text)).source, SymbolSource::SystemMap);
        compared += 1;
    }
    if compared == 0 {
        debian::skip("Debian's vmlinuz with its System.map");
    }
}

fn only(a: &[(u64, String)], b: &[(u64, String)]) -> Vec<(u64, String)> {
    let b: BTreeSet<_> = b.iter().collect();
    a.iter().filter(|s| !b.contains(s)).cloned().collect()
}

#[test]
fn elf_symbols_equal_nm_and_name_addresses_as_kallsyms_does() {
    let mut compared = 0;
    for (release, kernel) in debian::find() {
        let Some(vmlinux) = kernel.vmlinux else {
            continue;
        };
        let Ok(nm) = Command::new("nm").arg("-n").arg(&vmlinux).output() else {
            return debian::skip("the nm program");
        };
        let file = std::fs::File::open(&vmlinux).unwrap();
        // SAFETY: nobody writes to the file of an unpacked package while the test runs.
        let bytes = unsafe { memmap2::Mmap::map(&file).unwrap() };
        let elf = Elf::parse(&bytes).unwrap();
        let table = SymbolTable::from_elf(&elf, |_| true);
        let (listed, _) = parse_system_map(&nm.stdout);
        let sorted = |table: &SymbolTable| {
            let mut symbols: Vec<_> =
                table.iter().map(|s| (s.address, s.name.to_string(), s.is_code())).collect();
            symbols.sort_unstable();
            symbols
        };
        let (ours, theirs) = (sorted(&table), sorted(&listed));
        assert!(theirs.len() > 80_000);
        assert!(ours == theirs, "{release}: {:?}", ours.iter().zip(&theirs).find(|(a, b)| a != b));
        if let Some(vmlinuz) = kernel.vmlinuz {
            let small = std::fs::read(vmlinuz).unwrap();
            assert_lookups_agree(
                &release,
                &Kernel::open(&small).unwrap().symbols(None).table,
                &table,
            );
        }
        compared += 1;
    }
    if compared == 0 {
        debian::skip("Debian's vmlinux with symbols");
    }
}

/// Every code symbol that the kernel itself knows is named the same from the ELF symbols.
fn assert_lookups_agree(release: &str, inside: &SymbolTable, table: &SymbolTable) {
    let mut different = Vec::new();
    for symbol in inside.iter().filter(|s| s.is_code()) {
        let (a, b) = (inside.lookup(symbol.address).unwrap(), table.lookup(symbol.address));
        if b.is_none_or(|b| (b.symbol.name, b.size) != (a.symbol.name, a.size)) {
            different.push(format!("{a:x?} {b:x?}"));
        }
    }
    let shown = different.get(..different.len().min(20)).unwrap_or_default().join("\n");
    assert!(different.is_empty(), "{release}: {} differ:\n{shown}", different.len());
}
