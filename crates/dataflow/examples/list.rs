//! Lists the executable sections of an ELF file, one instruction a line, to be compared with another disassembler's output.

// A tool for whoever works on the crate: it reads its own input.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]
use std::io::Write;

use kolumbo_dataflow::{Printer, Syntax};
use object::{Object, ObjectSection, SectionKind};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: list ELF [SECTION]")?;
    let only = std::env::args().nth(2);
    let data = std::fs::read(path)?;
    let file = object::File::parse(&*data)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut printer = Printer::new(Syntax::Att);
    for section in file.sections() {
        let name = section.name().unwrap_or("?").to_owned();
        if section.kind() != SectionKind::Text || only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        for line in printer.listing(section.data()?, section.address()) {
            writeln!(out, "{:x}\t{}", line.ip, line.text)?;
        }
    }
    Ok(())
}
