//! The table of inferred contracts of Debian 6.1, and how much of it was decided: the check finds nothing because it looked, not
//! because it was silent.
//!
//! The kernel is known by its banner; another one is not compared. `UPDATE_EXPECT=1` writes the table anew.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fmt::Write;
use std::path::PathBuf;

use expect_test::expect_file;
use kolumbo_contracts::{Image, Input, Options, check};

/// The kernel whose table stands in the file.
const RELEASE: &str = "6.1.0-56-cloud-amd64";

fn debug_kernel() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let boot = cache.join("kolumbo/kernels").join(RELEASE).join("usr/lib/debug/boot");
    Some(boot.join(format!("vmlinux-{RELEASE}"))).filter(|path| path.is_file())
}

#[test]
fn the_contracts_of_debian_6_1_stand_in_the_table() {
    let Some(path) = debug_kernel() else {
        assert!(
            std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
            "{RELEASE} is not in the cache; scripts/kernel.sh debug fetches it"
        );
        eprintln!("skipped: the debug kernel {RELEASE} is not in the cache");
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
    expect_file!["./inferred-6.1.0-56.txt"].assert_eq(&table);
}
