//! `function+offset/size` to functions and lines, held against the kernel's `scripts/faddr2line`, which
//! reads all symbols anew for each address: 4 addresses, 200 in the long form. The other oracle of
//! lines, `addr2line` itself, is asked about 10,000 in the tests of `vmlinux`.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

#[path = "../../vmlinux/tests/debian/mod.rs"]
mod debian;

use std::path::PathBuf;
use std::process::Command;

use kolumbo_case::CodePlace;
use kolumbo_detective::ImageCode;
use kolumbo_vmlinux::dwarf::{DebugSections, SourceFrame};
use kolumbo_vmlinux::{Elf, Image, SymbolTable};

/// The script: below `KOLUMBO_LINUX_SOURCE`, else where `scripts/kernel.sh scripts` puts it.
fn script() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let named = std::env::var_os("KOLUMBO_LINUX_SOURCE").map(PathBuf::from);
    [named, Some(cache.join("kolumbo/linux-scripts"))]
        .into_iter()
        .flatten()
        .map(|tree| tree.join("scripts/faddr2line"))
        .find(|path| path.is_file())
}

/// `function at file:line`, as the script prints it, without the folder of the build.
fn as_printed(frame: &SourceFrame, folder: &str) -> String {
    let file = frame.file.as_deref().unwrap_or("??");
    let file = file.strip_prefix(folder).unwrap_or(file).trim_start_matches("./");
    let line = frame.line.map_or("?".to_owned(), |line| line.to_string());
    format!("{} at {file}:{line}", frame.function.as_deref().unwrap_or("??"))
}

#[test]
fn places_of_a_trace_equal_faddr2line() {
    let kernels = debian::find().into_iter();
    let Some(path) = kernels.filter(|(r, _)| r.starts_with("6.1.")).find_map(|(_, k)| k.vmlinux)
    else {
        return debian::skip("Debian's vmlinux with DWARF");
    };
    let Some(script) = script() else {
        return debian::skip("scripts/faddr2line of Linux (run scripts/kernel.sh scripts)");
    };
    let soak = std::env::var("KOLUMBO_SOAK").as_deref() == Ok("1");
    let count = if soak { 200 } else { 4 };
    let file = std::fs::File::open(&path).unwrap();
    // SAFETY: nobody writes to the file of an unpacked package while the test runs.
    let bytes = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let elf = Elf::parse(&bytes).unwrap();
    let symbols = SymbolTable::from_elf(&elf, |_| true);
    let image = Image::of_vmlinux(&elf, symbols);
    let code = ImageCode::new(&image);
    let sections = DebugSections::of(&elf).unwrap();
    let lines = sections.lines();
    let start = lines.frames(image.symbols().address_of("start_kernel").unwrap());
    let folder = start[0].file.as_deref().unwrap().strip_suffix("init/main.c").unwrap().to_owned();

    let functions: Vec<_> = image
        .symbols()
        .iter()
        .filter(|s| s.is_code() && s.size.is_some_and(|size| size > 16))
        // The script compares names with awk and would take a pattern for one.
        .filter(|s| s.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    let mut places = Vec::new();
    let mut pick = 0x6b6f_6c75usize;
    while places.len() < count {
        pick = pick.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let symbol = &functions[(pick >> 20) % functions.len()];
        let offset = (pick >> 8) as u64 % symbol.size.unwrap();
        let size = image.symbols().lookup(symbol.address).unwrap().size;
        let place = CodePlace {
            function: Some(symbol.name.to_owned()),
            offset: Some(offset),
            size: Some(size),
            ..CodePlace::default()
        };
        // Two functions of one name and size are told apart by nobody.
        if code.link_address(&place).is_some() {
            places.push((format!("{}+{offset:#x}/{size:#x}", symbol.name), place));
        }
    }
    let output = Command::new("bash")
        .arg(&script)
        .arg(&path)
        .args(places.iter().map(|(text, _)| text))
        .output()
        .unwrap();
    let theirs = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers: Vec<&str> = theirs.split("\n\n").collect();
    assert_eq!(answers.len(), count, "{theirs}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut other_file = 0;
    for ((text, place), answer) in places.iter().zip(answers) {
        let theirs: Vec<&str> =
            answer.lines().skip(1).map(|l| l.trim().trim_start_matches("(inlined by) ")).collect();
        let theirs: Vec<&str> =
            theirs.iter().map(|l| l.split(" (discriminator").next().unwrap_or(l)).collect();
        let frames = lines.frames(code.link_address(place).unwrap());
        let ours: Vec<String> = frames.iter().map(|f| as_printed(f, &folder)).collect();
        // addr2line names the file of the unit where a row belongs to a header; see the tests of vmlinux.
        let names = |all: &[String]| -> Vec<(String, String)> {
            all.iter()
                .map(|l| {
                    (
                        l.split(" at ").next().unwrap().to_owned(),
                        l.rsplit(':').next().unwrap().to_owned(),
                    )
                })
                .collect()
        };
        let theirs: Vec<String> = theirs.into_iter().map(str::to_owned).collect();
        if ours != theirs && names(&ours) == names(&theirs) {
            other_file += 1;
            continue;
        }
        assert_eq!(ours, theirs, "{text}");
    }
    eprintln!("{count} places equal faddr2line, {other_file} of them but for the file");
    assert!(other_file * 50 <= count, "{other_file} of {count}");
}
