//! Reads a file in pieces and prints how many crashes and boots it has: the reader without the rest
//! of kolumbo, for measuring.
#![allow(clippy::disallowed_methods)]

use std::io::{Read as _, Write as _};

use kolumbo_console::{ReadOptions, Reader};

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_default();
    let mut file = std::fs::File::open(path)?;
    let mut reader = Reader::new(ReadOptions::default());
    let mut piece = vec![0; 256 * 1024];
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            break;
        }
        reader.feed(&piece[..n]);
    }
    let result = reader.finish();
    writeln!(std::io::stdout(), "{} crashes, {} boots", result.reports.len(), result.boots.len())
}
