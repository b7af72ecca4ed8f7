//! Time from the bytes of a kernel to its symbols: `cargo bench -p kolumbo-vmlinux --bench symbols -- FILE`.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::time::Instant;

use kolumbo_vmlinux::{Kernel, recognise};

fn main() {
    let Some(path) = std::env::args().skip(1).find(|a| !a.starts_with("--")) else {
        println!("symbols: skipped, name a kernel on the command line");
        return;
    };
    let bytes = std::fs::read(&path).expect("the kernel can be read");
    let start = Instant::now();
    let kind = recognise(&bytes);
    println!("recognise {:?} {kind:?}", start.elapsed());
    let start = Instant::now();
    let kernel = Kernel::open(&bytes).expect("the kernel can be opened");
    println!("open      {:?} ({} bytes of vmlinux)", start.elapsed(), kernel.vmlinux().len());
    let symbols = kernel.symbols(None);
    println!("symbols   {:?} ({:?}, {})", start.elapsed(), symbols.source, symbols.table.len());
    for gap in &symbols.gaps {
        println!("gap       {gap}");
    }
    let start = Instant::now();
    let banner = kernel.banner();
    println!("banner    {:?} {banner:?}", start.elapsed());
    let start = Instant::now();
    let config = kernel.config().map(|c| c.len());
    println!("config    {:?} {config:?}", start.elapsed());
}
