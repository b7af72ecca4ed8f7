//! Checks images and prints totals and findings, one line each; for measurements.

// A tool for whoever works on the crate: it reads its own input.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]
use kolumbo_contracts::{Image, Input, Options, check};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let mut maps = Vec::new();
    for path in &paths {
        // SAFETY: the files are not changed while they are mapped.
        maps.push(unsafe { memmap2::Mmap::map(&std::fs::File::open(path)?)? });
    }
    let inputs: Vec<Input<'_>> =
        paths.iter().zip(&maps).map(|(name, bytes)| Input { name, bytes }).collect();
    let image = Image::new(&inputs)?;
    let report = check(&image, &Options::default());
    println!("{:?} contracts {} gaps {:?}", report.totals, report.inferred.len(), report.gaps);
    for finding in &report.findings {
        println!(
            "{} {} destroys {:?} at {} `{}` live {:?} path {:?} by {:?} sites {} {:?}",
            finding.code,
            finding.culprit,
            finding.destroys,
            finding.instruction.symbol,
            finding.instruction.instruction,
            finding.instruction.live_when,
            finding.path,
            finding.put_there_by,
            finding.sites_total,
            finding.confidence
        );
        for site in finding.sites.iter().take(3) {
            println!(
                "    {} relies {:?} wrote {:?} reads {:?}",
                site.call.symbol,
                site.relies,
                site.wrote.as_ref().map(|place| (&place.symbol, &place.instruction)),
                site.reads.as_ref().map(|place| (&place.symbol, &place.instruction))
            );
        }
    }
    Ok(())
}
