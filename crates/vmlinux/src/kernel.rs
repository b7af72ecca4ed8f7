//! One kernel, whatever it was packed in: the way from a file's bytes to an ELF image, its symbols,
//! banner and configuration. The main type is [`Kernel`].

use std::borrow::Cow;

use thiserror::Error;

use crate::banner::{Banner, find_banner, find_config};
use crate::bzimage::extract_vmlinux;
use crate::decompress::DecompressError;
use crate::elf::{Elf, ElfError};
use crate::kallsyms;
use crate::recognise::{ImageKind, Refusal, recognise};
use crate::symbols::SymbolTable;
use crate::system_map::parse_system_map;
use crate::{Gap, bytes};

/// Why a kernel could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is no kernel.
    #[error(transparent)]
    NotAKernel(#[from] Refusal),
    /// The bzImage cannot be unpacked.
    #[error(transparent)]
    Packed(#[from] DecompressError),
    /// What is inside the bzImage is no ELF file.
    #[error(
        "the payload of this bzImage unpacks to something that is {source}; the file is damaged, copy it again or rebuild it"
    )]
    Inside {
        /// What the ELF reader said.
        #[source]
        source: ElfError,
    },
}

/// Where a symbol table came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SymbolSource {
    /// `.symtab` of the ELF file.
    ElfSymtab,
    /// A `System.map` that agrees with the image.
    SystemMap,
    /// The tables of kallsyms inside the image.
    Kallsyms,
    /// There are no symbols.
    None,
}

/// A symbol table with its origin and what is missing from it.
#[derive(Debug, Clone)]
pub struct Symbols {
    /// The symbols, at link addresses.
    pub table: SymbolTable,
    /// Where they came from.
    pub source: SymbolSource,
    /// Why a better source was not used, and damage in this one.
    pub gaps: Vec<Gap>,
}

/// An x86-64 kernel as an ELF image, borrowed from a `vmlinux` or unpacked from a bzImage.
#[derive(Debug, Clone)]
pub struct Kernel<'d> {
    kind: ImageKind,
    vmlinux: Cow<'d, [u8]>,
}

impl<'d> Kernel<'d> {
    /// Opens the bytes of a bzImage (which is unpacked: some 50 MB) or of a vmlinux (which is borrowed).
    pub fn open(bytes: &'d [u8]) -> Result<Kernel<'d>, OpenError> {
        let kind = recognise(bytes)?;
        let vmlinux = match &kind {
            ImageKind::BzImage(header) => Cow::Owned(extract_vmlinux(bytes, header)?),
            ImageKind::Vmlinux(_) => Cow::Borrowed(bytes),
        };
        Elf::parse(&vmlinux).map_err(|source| OpenError::Inside { source })?;
        Ok(Kernel { kind, vmlinux })
    }

    /// What the file is.
    pub fn kind(&self) -> &ImageKind {
        &self.kind
    }

    /// The bytes of the ELF image.
    pub fn vmlinux(&self) -> &[u8] {
        &self.vmlinux
    }

    /// The ELF image; parsing it again costs microseconds.
    pub fn elf(&self) -> Elf<'_> {
        Elf::parse(&self.vmlinux).unwrap_or_else(|_| Elf::empty())
    }

    /// The best symbols there are: ELF symbol table, then `system_map` (the bytes of a file, if one is
    /// at hand) when it agrees with the image, then kallsyms.
    pub fn symbols(&self, system_map: Option<&[u8]>) -> Symbols {
        let elf = self.elf();
        let mut gaps = elf.gaps().to_vec();
        let table = SymbolTable::from_elf(&elf, |_| true);
        if !table.is_empty() {
            return Symbols { table, source: SymbolSource::ElfSymtab, gaps };
        }
        if let Some(text) = system_map {
            let (table, map_gaps) = parse_system_map(text);
            gaps.extend(map_gaps);
            match agrees(&elf, &table) {
                Ok(()) => {
                    return Symbols { table, source: SymbolSource::SystemMap, gaps };
                }
                Err(why) => gaps.push(Gap::new("System.map", why)),
            }
        }
        match kallsyms::find(&elf) {
            Ok(table) => Symbols { table, source: SymbolSource::Kallsyms, gaps },
            Err(gap) => {
                gaps.push(gap);
                Symbols { table: SymbolTable::default(), source: SymbolSource::None, gaps }
            }
        }
    }

    /// The kernel's own version line.
    pub fn banner(&self) -> Option<Banner> {
        find_banner(&self.vmlinux)
    }

    /// The configuration inside, for kernels with `CONFIG_IKCONFIG`.
    pub fn config(&self) -> Option<String> {
        find_config(&self.vmlinux)
    }
}

/// A System.map of another build names everything wrongly, so it must point at the banner of this one.
fn agrees(elf: &Elf<'_>, table: &SymbolTable) -> Result<(), String> {
    if table.is_empty() {
        return Err("it holds no symbols".into());
    }
    let banner = table.address_of("linux_banner").ok_or("it has no linux_banner")?;
    let there = elf.bytes_from(banner).and_then(|b| bytes::array_at::<14>(b, 0));
    if there.as_ref().is_some_and(|b| b == b"Linux version ") {
        Ok(())
    } else {
        Err("it belongs to another build: its linux_banner is elsewhere in this image".into())
    }
}
