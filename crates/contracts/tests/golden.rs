//! The table of inferred contracts of Debian 6.1, and how much of it was decided: the check finds nothing because it looked, not
//! because it was silent.
//!
//! The table is that of two kernels, which have the same code. Of another kernel only what many calls rely on is compared.
//! `UPDATE_EXPECT=1` writes the table anew.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cached;

use std::collections::BTreeMap;
use std::fmt::Write;

use expect_test::expect_file;
use kolumbo_contracts::{Image, Input, Options, check};

/// The kernels whose table stands in the file.
const RELEASES: &[&str] = &["6.1.0-56-cloud-amd64", "6.1.0-57-cloud-amd64"];
/// The table.
const TABLE: &str = include_str!("inferred-6.1.txt");
/// Calls that rely on a register of a callee in the table: where there are so many, another kernel of the same series has
/// some of them, too.
const MANY: usize = 20;

#[test]
fn the_contracts_of_debian_6_1_stand_in_the_table() {
    let found = cached::newest("usr/lib/debug/boot/vmlinux-{release}");
    let Some((release, path)) = found.filter(|(release, _)| release.starts_with("6.1.")) else {
        assert!(
            std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
            "no debug kernel of Debian 12 is in the cache; scripts/kernel.sh debug fetches it"
        );
        eprintln!("skipped: no debug kernel of Debian 12 is in the cache");
        return;
    };
    let file = std::fs::File::open(&path).expect("the image can be opened");
    // SAFETY: nothing writes to the image during the test.
    let map = unsafe { memmap2::Mmap::map(&file).expect("the image can be mapped") };
    let image = Image::new(&[Input { name: "vmlinux", bytes: &map }]).expect("an image");
    let report = check(&image, &Options::default());
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let totals = &report.totals;
    println!("{totals:?}");
    let known = totals.undecided_why.iter().map(|(_, count)| count).sum::<usize>();
    assert_eq!(known, totals.undecided, "each undecided call has a reason");
    assert!(totals.relying > 24_000 && totals.undecided * 100 <= totals.relying, "{totals:?}");
    let mut table = format!(
        "{} calls, {} rely beyond C, {} undecided\n",
        totals.sites, totals.relying, totals.undecided
    );
    for row in &report.inferred {
        let registers: Vec<String> =
            row.registers.iter().map(|(register, sites)| format!("{register}:{sites}")).collect();
        let _ = writeln!(
            table,
            "{} {} of {}: {}",
            row.callee,
            row.relying,
            row.sites,
            registers.join(" ")
        );
    }
    if RELEASES.contains(&release.as_str()) {
        expect_file!["./inferred-6.1.txt"].assert_eq(&table);
    } else {
        println!("{release} is compared as another kernel");
        assert_eq!(lost(TABLE, &table), Vec::<String>::new());
    }
}

/// Callees, and how many calls rely on which of their registers.
fn rows(table: &str) -> BTreeMap<&str, BTreeMap<&str, usize>> {
    let lines = table.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter_map(|(head, registers)| {
            let counts = registers.split(' ').filter_map(|word| word.split_once(':'));
            let counts = counts.filter_map(|(name, count)| Some((name, count.parse().ok()?)));
            Some((head.split(' ').next()?, counts.collect()))
        })
        .collect()
}

/// What many calls rely on in one table, and none in the other.
fn lost(table: &str, other: &str) -> Vec<String> {
    let other = rows(other);
    let mut lost = Vec::new();
    for (callee, registers) in rows(table) {
        let there = other.get(callee);
        for (register, _) in registers.into_iter().filter(|(_, count)| *count >= MANY) {
            if there.is_none_or(|registers| !registers.contains_key(register)) {
                lost.push(format!("{register} of {callee}"));
            }
        }
    }
    lost
}

#[test]
fn another_kernel_is_held_against_what_many_rely_on() {
    let known = "1 calls\na 30 of 40: rcx:25 rdx:5\nb 3 of 3: rsi:3\n";
    assert!(lost(known, "9 calls\na 1 of 1: rcx:1\n").is_empty());
    assert_eq!(lost(known, "9 calls\nb 3 of 3: rsi:3\n"), ["rcx of a"]);
    assert_eq!(lost(known, "9 calls\na 30 of 40: rdx:30\n"), ["rcx of a"]);
    assert!(rows(TABLE).len() > 90);
}
