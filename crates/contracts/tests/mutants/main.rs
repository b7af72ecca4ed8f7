//! Bugs planted into real kernel images by patching their bytes: each must be found, and the untouched image must be clean.
//!
//! The short form plants all bugs that can be told apart into one copy of the image, so that a few checks suffice. With
//! `KOLUMBO_SOAK=1` each gets a check of its own. The images are those that `KOLUMBO_IMAGES` names (paths between colons), else
//! Debian's debug kernel in the cache.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../cached/mod.rs"]
mod cached;
mod plant;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kolumbo_case::contract::{Finding, Report};
use kolumbo_contracts::{Declared, FeatureNames, Image, Input, Program, Tables, judge};
use kolumbo_dataflow::Parts;
use kolumbo_vmlinux::Elf;

use plant::{Mutant, mutants};

/// The images to patch.
fn images() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("KOLUMBO_IMAGES") {
        return std::env::split_paths(&named).collect();
    }
    let found = cached::newest("usr/lib/debug/boot/vmlinux-{release}");
    found.map(|(_, path)| path).into_iter().collect()
}

/// One bug of each kind for each function, and one of each kind among those that everybody suffers from.
fn shorten(planted: &mut Vec<Mutant>) {
    let mut seen = BTreeSet::new();
    planted.retain(|mutant| {
        let place = if mutant.everywhere { 0 } else { mutant.address };
        seen.insert((mutant.kind, place))
    });
}

fn file_offset(elf: &Elf<'_>, address: u64) -> Option<usize> {
    let section = elf
        .sections()
        .iter()
        .find(|section| section.is_loaded() && section.address != 0 && section.contains(address))?;
    let base = section.data?.as_ptr() as usize - elf.bytes().as_ptr() as usize;
    Some(base + (address - section.address) as usize)
}

/// The findings with the stated contracts, and those that need none.
fn findings(bytes: &[u8]) -> (Report, Report) {
    let image = Image::new(&[Input { name: "vmlinux", bytes }]).expect("the image can be checked");
    let program = Program::new(&image, Tables::read(&image));
    let names = FeatureNames::read(&image);
    (judge(&program, &names, &Declared::builtin()), judge(&program, &names, &Declared::default()))
}

/// Whether a finding is about this bug: its function is named, and one of its registers.
fn names(finding: &Finding, mutant: &Mutant) -> bool {
    let lost = finding.destroys.iter().filter_map(|name| Parts::by_name(name));
    let same = finding.address == mutant.address
        || finding.path.first() == Some(&mutant.symbol)
        || finding.culprit == mutant.symbol;
    same && lost.fold(Parts::EMPTY, |set, parts| set | parts).intersects(mutant.lost)
}

/// Planted, found at all, such that callers of the healthy image rely on the register, found without any stated contract.
#[derive(Default)]
struct Count {
    planted: usize,
    found: usize,
    relied_on: usize,
    inferred: usize,
}

/// Bugs that can be told apart stand in one batch: one for each function, and alone those that everybody suffers from.
fn batches(planted: &[Mutant], alone: bool) -> Vec<Vec<usize>> {
    let mut batches: Vec<(BTreeSet<u64>, Vec<usize>)> = Vec::new();
    for (number, mutant) in planted.iter().enumerate() {
        let places: BTreeSet<u64> = std::iter::once(mutant.address)
            .chain(mutant.patches.iter().map(|patch| patch.0))
            .collect();
        let fitting = batches.iter_mut().find(|(taken, _)| {
            !alone && !mutant.everywhere && !taken.contains(&0) && taken.is_disjoint(&places)
        });
        match fitting {
            Some((taken, batch)) => {
                taken.extend(places);
                batch.push(number);
            }
            // Address 0 closes a batch.
            None if mutant.everywhere => batches.push((BTreeSet::from([0]), vec![number])),
            None => batches.push((places, vec![number])),
        }
    }
    batches.into_iter().map(|(_, batch)| batch).collect()
}

/// Whether callers of the healthy image rely on what is destroyed.
fn is_relied_on(healthy: &Report, mutant: &Mutant) -> bool {
    healthy.inferred.iter().any(|row| {
        row.callee == mutant.symbol
            && row
                .registers
                .iter()
                .filter_map(|(name, _)| Parts::by_name(name))
                .any(|register| register.intersects(mutant.lost))
    })
}

fn every_planted_bug_is_found_in(path: &Path, alone: bool) {
    let file = std::fs::File::open(path).expect("the image can be opened");
    // SAFETY: a private copy-on-write mapping; nothing else writes to the image during the test.
    let mut map =
        unsafe { memmap2::MmapOptions::new().map_copy(&file).expect("the image can be mapped") };
    let (healthy, planted) = {
        let image = Image::new(&[Input { name: "vmlinux", bytes: &map }]).expect("an image");
        let program = Program::new(&image, Tables::read(&image));
        let healthy = judge(&program, &FeatureNames::read(&image), &Declared::builtin());
        let mut planted = mutants(&program, &healthy);
        if !alone {
            shorten(&mut planted);
        }
        (healthy, planted)
    };
    assert!(
        healthy.findings.is_empty(),
        "alarms on the untouched image: {:?}",
        healthy.findings.iter().map(|finding| &finding.culprit).collect::<Vec<_>>()
    );
    let offsets: Vec<Vec<usize>> = {
        let elf = Elf::parse(&map).expect("the image is an ELF file");
        let offset = |patch: &(u64, Vec<u8>)| file_offset(&elf, patch.0).expect("code in the file");
        planted.iter().map(|mutant| mutant.patches.iter().map(offset).collect()).collect()
    };
    let mut by_kind: BTreeMap<&str, Count> = BTreeMap::new();
    let (mut missed, mut beyond, mut others) = (Vec::new(), Vec::new(), BTreeSet::new());
    for batch in batches(&planted, alone) {
        let mut saved = Vec::new();
        for number in &batch {
            for ((_, bytes), offset) in planted[*number].patches.iter().zip(&offsets[*number]) {
                let place = *offset..*offset + bytes.len();
                saved.push((*offset, map[place.clone()].to_vec()));
                map[place].copy_from_slice(bytes);
            }
        }
        let (stated, inferred) = findings(&map);
        for (offset, bytes) in saved.into_iter().rev() {
            map[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        for number in &batch {
            let mutant = &planted[*number];
            let found = |report: &Report| report.findings.iter().any(|f| names(f, mutant));
            let count = by_kind.entry(mutant.kind).or_default();
            count.planted += 1;
            count.inferred += usize::from(found(&inferred));
            count.relied_on += usize::from(is_relied_on(&healthy, mutant));
            if found(&stated) {
                count.found += 1;
            } else {
                let line = format!("{}: {} ({})", mutant.kind, mutant.symbol, mutant.lost);
                if mutant.beyond { &mut beyond } else { &mut missed }.push(line);
            }
        }
        // A bug may show in functions that hand on what it destroys; nobody else may be accused.
        for finding in stated.findings {
            if !batch.iter().any(|number| names(&finding, &planted[*number])) {
                others.insert(finding.culprit);
            }
        }
    }
    let mut all = Count::default();
    println!("{}\nplanted  found  relied on  inferred", path.display());
    for (kind, count) in &by_kind {
        let Count { planted, found, relied_on, inferred } = count;
        println!("{planted:>7} {found:>6} {relied_on:>10} {inferred:>9}  {kind}");
        all.planted += count.planted;
        all.found += count.found;
        all.inferred += count.inferred;
        all.relied_on += count.relied_on;
    }
    println!(
        "{:>7} {:>6} {:>10} {:>9}  in all",
        all.planted, all.found, all.relied_on, all.inferred
    );
    println!("beyond what is inferred: {beyond:#?}");
    println!("accused besides: {others:?}");
    assert!(all.planted >= 40, "{} bugs are too few", all.planted);
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

#[test]
fn every_planted_bug_is_found() {
    let images = images();
    if images.is_empty() {
        assert!(
            std::env::var("KOLUMBO_REQUIRE_ALL").as_deref() != Ok("1"),
            "no debug kernel is in the cache; scripts/kernel.sh debug fetches it"
        );
        eprintln!("skipped: no debug kernel is in the cache (scripts/kernel.sh debug)");
        return;
    }
    let alone = std::env::var("KOLUMBO_SOAK").as_deref() == Ok("1");
    for image in images {
        every_planted_bug_is_found_in(&image, alone);
    }
}
