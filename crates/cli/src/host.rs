//! `kolumbo host`: what guests can run on here.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use kolumbo_machine::{kvm, qemu};

use crate::args::HostArgs;
use crate::exit::Outcome;

pub(crate) fn run(args: &HostArgs) -> Result<Outcome> {
    let path = qemu::find(args.qemu.as_deref(), std::env::var_os("PATH").as_deref())?;
    let version = qemu::version(&path)?;
    let begun = Instant::now();
    let speed = kvm::measure_speed();
    let accepts = kvm::qemu_accepts(&path, &args.cpu);
    let took = begun.elapsed();
    let real = speed.as_ref().is_ok_and(|s| kvm::is_hardware(*s));
    let usable = real && accepts.is_ok();

    let mut out = std::io::stdout().lock();
    if args.json {
        let facts = kolumbo_machine::host::read_facts();
        let value = serde_json::json!({
            "host_version": 1,
            "qemu": { "path": path.display().to_string(), "version": version },
            "kvm": {
                "usable": usable,
                "instructions_per_second": speed.as_ref().ok().map(|s| s.per_second()),
                "speed_error": speed.as_ref().err().map(ToString::to_string),
                "qemu_error": accepts.as_ref().err().map(ToString::to_string),
                "probe_ms": took.as_secs_f64() * 1e3,
            },
            "host": facts,
        });
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
        return Ok(Outcome::Done);
    }
    writeln!(out, "qemu   {} {version}", path.display())?;
    match &speed {
        Ok(speed) => writeln!(
            out,
            "kvm    {:.1} million instructions a second: {}",
            speed.per_second() / 1e6,
            if real { "hardware" } else { "emulated, not usable" }
        )?,
        Err(e) => writeln!(out, "kvm    {e}")?,
    }
    match &accepts {
        Ok(took) => {
            writeln!(out, "       QEMU accepts -cpu {} ({} ms)", args.cpu, took.as_millis())?
        }
        Err(e) => writeln!(out, "       {e}")?,
    }
    writeln!(out, "       probed in {} ms", took.as_millis())?;
    writeln!(out, "accel  {}", if usable { "kvm" } else { "tcg" })?;
    Ok(Outcome::Done)
}
