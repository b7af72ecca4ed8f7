//! Lines and inlined functions, held against `addr2line -if` on random code addresses. Every difference
//! belongs to a group that is explained below, or the test fails.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stderr)]

mod debian;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use kolumbo_vmlinux::dwarf::{DebugSections, SourceFrame};
use kolumbo_vmlinux::{Elf, SymbolTable};

/// Function, file and line, as `addr2line` prints them: `??` for what is not known.
type Plain = Vec<(String, String)>;

/// Addresses spread evenly over the bytes of all functions of the text, by a fixed sequence of
/// pseudo-random numbers. Left out are the holes between the parts of the text, which nothing names, and
/// the padding before functions, which kernels name since v6.2 (`__pfx_`) and DWARF never does.
fn addresses(elf: &Elf<'_>, symbols: &SymbolTable, count: usize) -> Vec<u64> {
    let text = elf.section(".text").unwrap();
    let functions: Vec<(u64, u64)> = symbols
        .iter()
        .filter(|s| s.is_code() && text.contains(s.address) && !s.name.starts_with("__pfx_"))
        .filter_map(|s| Some((s.address, s.size.filter(|&size| size > 0)?)))
        .collect();
    let total: u64 = functions.iter().map(|(_, size)| size).sum();
    let mut state = 0x6b6f_6c75_6d62_6f00u64;
    let mut picks: Vec<u64> = (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 16) % total
        })
        .collect();
    picks.sort_unstable();
    let mut picked = Vec::new();
    let (mut at, mut before) = (0, 0);
    for pick in picks {
        while pick - before >= functions[at].1 {
            before += functions[at].1;
            at += 1;
        }
        picked.push(functions[at].0 + (pick - before));
    }
    picked.sort_unstable();
    picked
}

/// What `addr2line` says about each address.
fn oracle(path: &std::path::Path, addresses: &[u64]) -> Option<Vec<Plain>> {
    let mut child = Command::new("addr2line")
        .args(["-a", "-i", "-f", "-e"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let input: String = addresses.iter().map(|a| format!("{a:#x}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().ok()?;
    writer.join().ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut answers: Vec<Plain> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            answers.push(Vec::new());
        } else {
            let place = lines.next()?.split(" (").next()?.to_string();
            answers.last_mut()?.push((line.to_string(), place));
        }
    }
    Some(answers)
}

fn plain(frames: &[SourceFrame]) -> Plain {
    if frames.is_empty() {
        return vec![("??".into(), "??:0".into())];
    }
    frames
        .iter()
        .map(|f| {
            let line = f.line.filter(|&l| l > 0).map_or("?".to_string(), |l| l.to_string());
            let file = f.file.clone().unwrap_or("??".into());
            (f.function.clone().unwrap_or("??".into()), format!("{file}:{line}"))
        })
        .collect()
}

#[test]
fn lines_and_inlines_equal_addr2line() {
    // In the long form every kernel that is at hand.
    let soak = std::env::var("KOLUMBO_SOAK").as_deref() == Ok("1");
    let (count, kernels) = if soak { (10_000, usize::MAX) } else { (2_000, 1) };
    let mut seen = 0;
    let with_lines = debian::find().into_iter().filter_map(|(r, k)| Some((r, k.vmlinux?)));
    // The kernel that the other tests boot comes first.
    let (first, others): (Vec<_>, Vec<_>) =
        with_lines.partition(|(release, _)| release.starts_with("6.1."));
    for (release, path) in first.into_iter().chain(others).take(kernels) {
        let file = std::fs::File::open(&path).unwrap();
        // SAFETY: nobody writes to the file of an unpacked package while the test runs.
        let bytes = unsafe { memmap2::Mmap::map(&file).unwrap() };
        let elf = Elf::parse(&bytes).unwrap();
        let symbols = SymbolTable::from_elf(&elf, |_| true);
        let addresses = addresses(&elf, &symbols, count);
        let Some(theirs) = oracle(&path, &addresses) else {
            return debian::skip("the addr2line program");
        };
        assert_eq!(theirs.len(), count);
        let sections = DebugSections::of(&elf).unwrap();
        let lines = sections.lines();
        let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (&address, theirs) in addresses.iter().zip(&theirs) {
            let ours = plain(&lines.frames(address));
            // Of several symbols that reach to an address addr2line may take another one than we do.
            let before = symbols.lookup(address).map_or(0, |l| l.symbol.address);
            let reaches = |name: &str| {
                symbols.named(name).any(|s| {
                    let inside = (s.address..s.address + s.size.unwrap_or(0)).contains(&address);
                    s.address == before || inside
                })
            };
            let group = difference(&ours, theirs, reaches);
            groups
                .entry(group)
                .or_default()
                .push(format!("{address:#x}\n  {ours:?}\n  {theirs:?}"));
        }
        for (group, members) in &groups {
            eprintln!("{release}: {group}: {}", members.len());
        }
        let members = |group: &str| groups.get(group).map_or(0, Vec::len);
        assert!(members(ANOTHER_FILE) * 100 < count, "{:?}", groups.get(ANOTHER_FILE));
        assert!(members(OUTSIDE) * 50 < count, "{:?}", groups.get(OUTSIDE));
        let explained = [EQUAL, SPELLING, OUTSIDE, ANOTHER_FILE];
        groups.retain(|group, _| !explained.contains(group));
        assert!(groups.is_empty(), "{release}: {groups:#?}");
        seen += 1;
    }
    if seen == 0 {
        debian::skip("Debian's vmlinux with DWARF");
    }
}

/// Reproducible builds map the folder of the compiler to ".", which says nothing.
#[test]
fn a_folder_that_was_mapped_away_does_not_show() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("kernel")).unwrap();
    std::fs::write(folder.path().join("kernel/one.c"), "void _start(void)\n{\n}\n").unwrap();
    let map = format!("-ffile-prefix-map={}=.", folder.path().display());
    let built = Command::new("gcc")
        .args(["-g", "-static", "-nostdlib", &map, "kernel/one.c", "-o", "one"])
        .current_dir(folder.path())
        .status();
    let Ok(status) = built else { return debian::skip("gcc") };
    assert!(status.success());
    let bytes = std::fs::read(folder.path().join("one")).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    let start = SymbolTable::from_elf(&elf, |_| true).address_of("_start").unwrap();
    let sections = DebugSections::of(&elf).unwrap();
    let frames = plain(&sections.lines().frames(start));
    assert_eq!(frames, [("_start".to_owned(), "kernel/one.c:2".to_owned())]);
}

/// The kind of difference between two answers.
fn difference(ours: &Plain, theirs: &Plain, reaches: impl Fn(&str) -> bool) -> &'static str {
    let path = |p: &Plain| p.iter().map(|(f, place)| (f.clone(), normal(place))).collect::<Plain>();
    let functions = |p: &Plain| p.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    let line = |p: &Plain| {
        p.iter()
            .map(|f| normal(&f.1).rsplit(':').next().unwrap_or_default().to_string())
            .collect::<Vec<_>>()
    };
    if ours == theirs {
        return EQUAL;
    }
    if path(ours) == path(theirs) {
        return SPELLING;
    }
    let outside = ours.len() == 1 && ours[0].0 == "??";
    let unknown = outside && ours[0].1.starts_with("??");
    let from_symbols = theirs.len() == 1 && reaches(&theirs[0].0);
    if outside && from_symbols && (unknown || line(ours) == line(theirs)) {
        return OUTSIDE;
    }
    match (functions(ours) == functions(theirs), line(ours) == line(theirs)) {
        (true, true) => ANOTHER_FILE,
        (true, false) => "another line",
        (false, _) if ours.len() != theirs.len() => "another number of frames",
        (false, _) => "another function",
    }
}

const EQUAL: &str = "equal";
/// `trace//hyperv.h` and `trace/hyperv.h`.
const SPELLING: &str = "equal but for the spelling of the path";
/// Assembly, of which DWARF knows lines and no functions, and padding. addr2line falls back to the
/// symbol table, and at the end of a unit to its last line; gdb says, as we do, that there is none.
const OUTSIDE: &str = "outside of DWARF's functions, where addr2line names the symbol before";
/// addr2line of binutils 2.40 names the source file of the unit where a row belongs to a header: it says
/// `init/main.c:48` in `__traceiter_initcall_finish`, gdb and we say `include/trace/events/initcall.h:48`.
const ANOTHER_FILE: &str = "another file";

fn normal(place: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in place.split('/') {
        match part {
            "" | "." if !parts.is_empty() => {}
            ".." if parts.last().is_some_and(|&p| p != ".." && !p.is_empty()) => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/").replace(":0", ":?")
}
