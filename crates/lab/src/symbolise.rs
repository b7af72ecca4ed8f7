//! Names for the addresses of a verdict.
//!
//! Reads the image only when there is something to name, since unpacking it takes longer than a
//! healthy guest needs to shut down. Main type: [`Symboliser`].

use kolumbo_case::{Evidence, MachineState, VcpuSample, Verdict};
use kolumbo_dataflow::disassembly::{Printer, Syntax};
use kolumbo_vmlinux::{Kernel, SymbolTable, slide};

use crate::kernel::{self, Found};

/// The files that know the names.
#[derive(Debug)]
pub struct Symboliser<'a> {
    found: &'a Found,
    /// Address of `_text` that the guest reported; 0 where it did not.
    text: u64,
}

impl<'a> Symboliser<'a> {
    /// Names from the files of `found`, for a guest whose init reported `text` as the address of
    /// its first code (0 where it did not).
    pub fn new(found: &'a Found, text: u64) -> Self {
        Symboliser { found, text }
    }

    /// Fills in symbol and instruction of every sample in `verdict` and the function of every state in
    /// `cpus`. Returns what could not be found out.
    pub fn annotate(&self, verdict: &mut Verdict, cpus: &mut [MachineState]) -> Vec<String> {
        let mut samples: Vec<&mut VcpuSample> = verdict
            .evidence
            .iter_mut()
            .filter_map(|e| match e {
                Evidence::Vcpu { last, .. } => Some(last),
                _ => None,
            })
            .collect();
        if samples.is_empty() {
            return Vec::new();
        }
        let mut gaps = Vec::new();
        let (table, offset) = match self.load(&samples) {
            Ok(loaded) => loaded,
            Err(reason) => {
                gaps.push(reason);
                (SymbolTable::default(), None)
            }
        };
        if offset.is_none() && !table.is_empty() {
            gaps.push("the KASLR offset of this guest could not be found out".to_owned());
        }
        let name = |address: u64| {
            let located = table.lookup(address.checked_sub(offset?)?)?;
            let at = located.offset;
            Some(format!("{}+{at:#x}/{:#x}", located.symbol.name, located.size))
        };
        for sample in &mut samples {
            sample.symbol = name(sample.pc);
            let code = bytes_of(&sample.code);
            sample.instruction = Printer::new(Syntax::Att)
                .with_symbols(|target| {
                    name(target).map(|n| n.split('/').next().unwrap_or(&n).to_owned())
                })
                .listing(&code, sample.pc)
                .into_iter()
                .next()
                .map(|line| line.text);
        }
        for place in cpus.iter_mut().filter_map(|cpu| cpu.pc.as_mut()) {
            let Some(address) = place.address.zip(offset).and_then(|(a, o)| a.checked_sub(o))
            else {
                continue;
            };
            if let Some(located) = table.lookup(address) {
                place.function = Some(located.symbol.name.to_owned());
                place.offset = Some(located.offset);
                place.size = Some(located.size);
            }
        }
        gaps
    }

    fn load(&self, samples: &[&mut VcpuSample]) -> Result<(SymbolTable, Option<u64>), String> {
        let unreadable = |e: &dyn std::fmt::Display| format!("no symbols: {e}");
        let vmlinux = self.found.vmlinux.as_deref().map(kernel::map).transpose();
        let vmlinux = vmlinux.map_err(|e| unreadable(&e))?;
        let bytes = vmlinux.as_deref().unwrap_or(&self.found.bytes);
        let kernel = Kernel::open(bytes).map_err(|e| unreadable(&e))?;
        let system_map = self.found.system_map.as_ref().and_then(|p| std::fs::read(p).ok());
        let symbols = kernel.symbols(system_map.as_deref());
        if symbols.table.is_empty() {
            let why: Vec<String> = symbols.gaps.iter().map(ToString::to_string).collect();
            return Err(format!("no symbols: {}", why.join("; ")));
        }
        let reported = ["_text", "_stext"]
            .iter()
            .filter(|_| self.text != 0)
            .find_map(|name| slide::from_symbol(&symbols.table, name, 0, self.text));
        let observed: Vec<(u64, Vec<u8>)> =
            samples.iter().map(|s| (s.pc, bytes_of(&s.code))).collect();
        let observed: Vec<(u64, &[u8])> = observed.iter().map(|(a, b)| (*a, &b[..])).collect();
        let offset = reported.or_else(|| slide::deduce(&kernel.elf(), &observed));
        Ok((symbols.table, offset))
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks_exact(2)
        .map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
