//! Analyses images and says how many functions, sites and reliances there are.

// A tool for whoever works on the crate: it reads its own input.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]
use kolumbo_contracts::program::{CALLEE_SAVED, Program};
use kolumbo_contracts::{Image, Input};
use kolumbo_dataflow::{Callee, Parts};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let mut maps = Vec::new();
    for path in &paths {
        // SAFETY: the files are not changed while they are mapped.
        maps.push(unsafe { memmap2::Mmap::map(&std::fs::File::open(path)?)? });
    }
    let inputs: Vec<Input<'_>> =
        paths.iter().zip(&maps).map(|(name, bytes)| Input { name, bytes }).collect();
    let start = std::time::Instant::now();
    let image = Image::new(&inputs)?;
    println!("image {:?}", start.elapsed());
    let program = Program::new(&image, kolumbo_contracts::tables::Tables::read(&image));
    println!("program {:?}", start.elapsed());
    println!(
        "gaps {:?} alternatives {} faults {} warnings {} jumps {}",
        program.tables.gaps,
        program.tables.alternatives.len(),
        program.tables.faults.len(),
        program.tables.warnings.len(),
        program.tables.jumps.len()
    );
    let instructions: usize = program.functions.iter().map(|f| f.body.instructions.len()).sum();
    println!("functions {} instructions {}", program.functions.len(), instructions);
    println!(
        "lost {} incomplete {} uncertain {} never {} skips {}",
        program.functions.iter().filter(|f| !f.body.gaps.is_empty()).count(),
        program.functions.iter().filter(|f| f.exits.incomplete).count(),
        program.functions.iter().filter(|f| !f.summary.certain).count(),
        program
            .functions
            .iter()
            .filter(|f| f.summary.returns == kolumbo_dataflow::Returns::Never)
            .count(),
        program
            .functions
            .iter()
            .filter(|f| f.summary.returns == kolumbo_dataflow::Returns::PastCaller)
            .count()
    );
    if std::env::var("BIG").is_ok() {
        let mut all: Vec<_> = program
            .functions
            .iter()
            .map(|f| (f.body.instructions.len(), image.describe(f.entry), f.body.gaps.len()))
            .collect();
        all.sort();
        for f in all.iter().rev().take(12) {
            println!("{f:?}");
        }
        println!("gaps {}", program.functions.iter().filter(|f| !f.body.gaps.is_empty()).count());
        return Ok(());
    }
    if std::env::var("ROOTS").is_ok() {
        for f in &program.functions {
            if !f.summary.certain {
                continue;
            }
            for e in &f.exits.exits {
                for r in (e.destroys & CALLEE_SAVED).generals() {
                    let w = e.writers[r];
                    if w == 0 {
                        println!(
                            "{} {} ? exit {:#x}",
                            image.describe(f.entry),
                            Parts::general(r),
                            f.body.blocks[e.block].range.end
                        );
                        continue;
                    }
                    let i = &f.body.instructions[w as usize - 1];
                    if i.mnemonic() != kolumbo_dataflow::iced_x86::Mnemonic::Call {
                        println!(
                            "{} {} {:#x} {:?}",
                            image.describe(f.entry),
                            Parts::general(r),
                            i.ip(),
                            i.mnemonic()
                        );
                    }
                }
            }
        }
        return Ok(());
    }
    if let Ok(name) = std::env::var("FN") {
        for f in &program.functions {
            if image.describe(f.entry) == name {
                println!("{name}: {:?}", f.summary);
                println!("destroys {} needs {}", f.summary.destroys, f.summary.needs);
                for e in &f.exits.exits {
                    let b = &f.body.blocks[e.block];
                    println!(
                        " exit {:?} at {:#x} depth {:?} destroys {}",
                        b.ending,
                        f.body.last_of(b).map_or(0, |i| i.ip()),
                        e.depth,
                        e.destroys
                    );
                    for (r, w) in e.writers.iter().enumerate() {
                        if *w != 0 {
                            println!(
                                "   {} by {:#x}",
                                Parts::general(r),
                                f.body.instructions[*w as usize - 1].ip()
                            );
                        }
                    }
                }
                for s in &f.demands.sites {
                    println!(
                        " site {:#x} {} relies {}",
                        s.address,
                        program.target_of(s.callee).map_or("?".into(), |t| image.describe(t)),
                        s.relies
                    );
                    let bad = (Parts { vector: 0, flags: 0, ..s.relies } - Parts::general(0))
                        & kolumbo_dataflow::Callees::summary(&program, s.callee).destroys;
                    if !bad.is_empty() {
                        let way = kolumbo_dataflow::reliance(
                            &f.body,
                            &program,
                            s.block,
                            bad,
                            &mut Default::default(),
                        );
                        println!("    BAD {bad} {:x?}", way);
                    }
                }
            }
        }
        return Ok(());
    }
    let mut reader = kolumbo_dataflow::EffectsReader::default();
    let mut sites = 0;
    let mut relying = 0;
    let mut unknown = 0;
    let mut conflicts = 0;
    let rax = Parts::general(0);
    let mut by: std::collections::BTreeMap<String, (usize, usize, Vec<String>)> =
        Default::default();
    for f in &program.functions {
        for s in &f.demands.sites {
            sites += 1;
            let beyond = Parts { vector: 0, flags: 0, ..s.relies } - CALLEE_SAVED - rax;
            let sum = kolumbo_dataflow::Callees::summary(&program, s.callee);
            if s.callee == Callee::Unknown {
                if !beyond.is_empty() {
                    unknown += 1;
                }
                continue;
            }
            if !(beyond - sum.destroys).is_empty() {
                relying += 1;
            }
            let bad = (Parts { vector: 0, flags: 0, ..s.relies } - rax) & sum.destroys;
            if !bad.is_empty() {
                conflicts += 1;
                let t = program.target_of(s.callee).unwrap_or(0);
                let mut strong = Parts::EMPTY;
                let mut why = String::new();
                for r in bad.generals() {
                    let ev = kolumbo_dataflow::evidence(&f.body, &program, s.block, r, &mut reader);
                    let arg = sum.needs.intersects(Parts::general(r));
                    if matches!(
                        ev,
                        kolumbo_dataflow::Evidence::Held(_) | kolumbo_dataflow::Evidence::Parameter
                    ) && !arg
                    {
                        strong |= Parts::general(r);
                        why = format!("{ev:x?}");
                    }
                }
                if strong.is_empty() {
                    continue;
                }
                let e = by
                    .entry(format!("{} [{}] certain {}", image.describe(t), strong, sum.certain))
                    .or_default();
                e.2.push(why);
                e.0 += 1;
                if e.2.len() < 4 {
                    e.2.push(image.describe(s.address));
                }
            }
        }
    }
    println!(
        "sites {sites} relying {relying} unknown-relying {unknown} conflicts {conflicts} at {} callees",
        by.len()
    );
    for (k, v) in &by {
        println!("{} {k} {:?}", v.0, v.2);
    }
    println!("total {:?}", start.elapsed());
    Ok(())
}
