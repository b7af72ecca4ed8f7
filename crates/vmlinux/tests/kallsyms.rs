//! Finds the kallsyms tables of every layout in images that hold nothing else of use.
#![allow(clippy::disallowed_methods)]

mod synthetic;

use kolumbo_vmlinux::{Elf, SymbolTable, kallsyms};
use synthetic::{BASE, align, elf, put16, put32, put64};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Encoding {
    Base,
    AbsolutePerCpu,
    Place,
    Plain,
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    encoding: Encoding,
    /// Addresses behind the token index (since v6.5) instead of in front of the names.
    addresses_last: bool,
    /// Markers and count of 64 bits (before v4.20).
    wide: bool,
    /// Sequence numbers between markers and tokens (v6.2 to v6.4).
    sequences: bool,
}

/// Address, letter and name of `count` symbols, two per-CPU ones among them where that can be.
fn symbols(count: usize, encoding: Encoding) -> Vec<(u64, String)> {
    let mut symbols = Vec::new();
    if encoding == Encoding::AbsolutePerCpu {
        symbols.push((0, "D__per_cpu_start".to_string()));
        symbols.push((0x1_5b88, "dcpu_irq".to_string()));
        symbols.push((0x3_4000, "D__per_cpu_end".to_string()));
    }
    let mut address = BASE;
    while symbols.len() < count {
        let i = symbols.len();
        symbols.push((address, format!("tfunction_{i}_of_many{}", "x".repeat(i % 7))));
        if i % 5 != 0 {
            address += 0x10 + (i as u64 % 3) * 0x40;
        }
    }
    // More tokens than one byte of length can say.
    symbols[count - 1].1 = format!("T{}", "long".repeat(50));
    symbols
}

/// Token table of the ASCII characters, and of digrams at the values that are no character.
fn tokens() -> Vec<String> {
    (0..256)
        .map(|i| match i as u8 {
            byte @ b'!'..=b'~' => char::from(byte).to_string(),
            byte => format!("<{byte}>"),
        })
        .collect()
}

fn image(symbols: &[(u64, String)], layout: Layout) -> Vec<u8> {
    let mut out = vec![0xcc; 0x1233];
    out.resize(0x1240, 0);
    if !layout.addresses_last {
        addresses(&mut out, symbols, layout.encoding);
    }
    count(&mut out, symbols.len(), layout.wide);
    let (mut names, mut markers) = (Vec::new(), Vec::new());
    for (i, (_, name)) in symbols.iter().enumerate() {
        if i % 256 == 0 {
            markers.push(names.len() as u32);
        }
        if name.len() >= 0x80 && !layout.wide {
            names.push(0x80 | name.len() as u8);
            names.push((name.len() >> 7) as u8);
        } else {
            names.push(name.len() as u8);
        }
        names.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(&names);
    align(&mut out, 8);
    for marker in &markers {
        if layout.wide {
            put64(&mut out, &[u64::from(*marker)])
        } else {
            put32(&mut out, &[*marker])
        }
    }
    align(&mut out, 8);
    if layout.sequences {
        (0..symbols.len()).for_each(|i| out.extend_from_slice(&(i as u32).to_be_bytes()[1..]));
        align(&mut out, 8);
    }
    let (mut table, mut index) = (Vec::new(), Vec::new());
    for token in tokens() {
        index.push(table.len() as u16);
        table.extend_from_slice(token.as_bytes());
        table.push(0);
    }
    out.extend_from_slice(&table);
    align(&mut out, 8);
    put16(&mut out, &index);
    if layout.addresses_last {
        addresses(&mut out, symbols, layout.encoding);
    }
    out.extend_from_slice(&[0x90; 0x321]);
    out
}

fn count(out: &mut Vec<u8>, count: usize, wide: bool) {
    align(out, 8);
    if wide {
        put64(out, &[count as u64])
    } else {
        put32(out, &[count as u32])
    }
    align(out, 8);
}

fn addresses(out: &mut Vec<u8>, symbols: &[(u64, String)], encoding: Encoding) {
    align(out, 8);
    let here = BASE + out.len() as u64;
    for (i, (address, _)) in symbols.iter().enumerate() {
        match encoding {
            Encoding::Plain => put64(out, &[*address]),
            Encoding::Base => put32(out, &[(address - BASE) as u32]),
            Encoding::AbsolutePerCpu if *address < BASE => put32(out, &[*address as u32]),
            Encoding::AbsolutePerCpu => put32(out, &[!((address - BASE) as u32)]),
            Encoding::Place => put32(out, &[address.wrapping_sub(here + 4 * i as u64) as u32]),
        }
    }
    align(out, 8);
    if matches!(encoding, Encoding::Base | Encoding::AbsolutePerCpu) {
        put64(out, &[BASE]);
    }
}

fn find(image: &[u8]) -> Result<SymbolTable, String> {
    let file = elf(BASE, image);
    kallsyms::find(&Elf::parse(&file).unwrap()).map_err(|gap| gap.to_string())
}

fn check(layout: Layout, count: usize) {
    let symbols = symbols(count, layout.encoding);
    let table =
        find(&image(&symbols, layout)).unwrap_or_else(|e| panic!("{layout:?} {count}: {e}"));
    let found: Vec<_> =
        table.iter().map(|s| (s.address, format!("{}{}", s.kind, s.name))).collect();
    assert_eq!(found, symbols, "{layout:?}");
}

const OLD: Layout = Layout {
    encoding: Encoding::AbsolutePerCpu,
    addresses_last: false,
    wide: false,
    sequences: false,
};

#[test]
fn every_layout_is_read() {
    use Encoding::{AbsolutePerCpu, Base, Place, Plain};
    for count in [40, 256, 257, 3001] {
        check(OLD, count);
        check(Layout { sequences: true, ..OLD }, count);
        for encoding in [AbsolutePerCpu, Base, Place] {
            check(Layout { encoding, addresses_last: true, ..OLD }, count);
        }
        check(Layout { encoding: Base, ..OLD }, count);
        for encoding in [AbsolutePerCpu, Plain] {
            check(Layout { encoding, wide: true, ..OLD }, count);
        }
    }
}

#[test]
fn names_are_looked_up_as_the_kernel_does() {
    let symbols = symbols(600, Encoding::AbsolutePerCpu);
    let table = find(&image(&symbols, OLD)).unwrap();
    assert_eq!(table.lookup(0x1_5b88), None, "a small number is no code address");
    let variable = table.per_cpu(0x1_5b8a).unwrap();
    assert_eq!((variable.symbol.name, variable.offset), ("cpu_irq", 2));
    assert_eq!(table.per_cpu(0x3_4000), None);
    // Symbol 5 does not advance the address, so 5 and 6 are aliases and the first one is named.
    let alias = table.named("function_6_of_manyxxxxxx").next().unwrap();
    let located = table.lookup(alias.address + 3).unwrap();
    assert_eq!((located.symbol.name, located.offset), ("function_5_of_manyxxxxx", 3));
    assert_eq!(located.size, 0x10);
    assert_eq!(table.at(alias.address).count(), 2);
    assert_eq!(table.lookup(BASE - 1), None);
    assert_eq!(table.lookup(u64::MAX), None);
}

#[test]
fn damage_gives_a_gap_and_no_table() {
    let symbols = symbols(600, Encoding::AbsolutePerCpu);
    let good = image(&symbols, OLD);
    assert_eq!(find(&[]).unwrap_err(), "kallsyms: there is no token table in the image");
    let marker = good.windows(8).position(|w| w == b"!\0\"\0#\0$\0").unwrap();
    let mut bad_markers = good.clone();
    // The first marker that is not zero stands some bytes before the token table.
    for byte in &mut bad_markers[marker - 280..marker - 160] {
        *byte = 0xff;
    }
    assert!(find(&bad_markers).unwrap_err().contains("no names lie before its token table"));
    let mut bad_addresses = good;
    bad_addresses[0x1240 + 40] = 0x77;
    bad_addresses[0x1240 + 43] = 0x77;
    assert!(find(&bad_addresses).unwrap_err().contains("no addresses fit its 600 names"));
}
