//! What a kernel image says about itself: `linux_banner` and the `.config` inside.

use std::io::Read;

use memchr::memmem;

/// The parts of `Linux version RELEASE (BUILDER) (COMPILER, LINKER) BUILD` (init/version-timestamp.c).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// The whole line, without its newline.
    pub text: String,
    /// `6.1.0-56-cloud-amd64`
    pub release: String,
    /// `gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40`, when the
    /// line has it.
    pub compiler: Option<String>,
    /// `#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)`, when the line has it.
    pub build: Option<String>,
}

/// Finds the banner in an uncompressed image.
pub fn find_banner(vmlinux: &[u8]) -> Option<Banner> {
    memmem::find_iter(vmlinux, b"Linux version ").find_map(|at| {
        let text = vmlinux.get(at..)?;
        let text = text.get(..1024).unwrap_or(text);
        // A format string has the same start; its release is a `%s`. The real line ends in a newline.
        let end = text.iter().position(|&b| b == b'\n' || b == 0)?;
        let text = std::str::from_utf8(text.get(..end)?).ok()?;
        parse_banner(text)
    })
}

/// Splits a banner line, from an image or from a log.
pub fn parse_banner(text: &str) -> Option<Banner> {
    let rest = text.strip_prefix("Linux version ")?;
    let (release, rest) = rest.split_once(' ')?;
    if !release.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (_builder, rest) = group(rest)?;
    let (compiler, rest) = match group(rest) {
        Some((compiler, rest)) => (Some(compiler.to_string()), rest),
        None => (None, rest),
    };
    let build = rest.trim();
    Some(Banner {
        text: text.trim_end().to_string(),
        release: release.to_string(),
        compiler,
        build: (!build.is_empty()).then(|| build.to_string()),
    })
}

/// The text of the parenthesised group that `text` starts with, and what follows; groups nest.
fn group(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start().strip_prefix('(')?;
    let mut depth = 1usize;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some((text.get(..i)?, text.get(i + 1..)?)),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The `.config` of a kernel built with `CONFIG_IKCONFIG`: gzip data between two marks
/// (kernel/configs.c). At most 16 MiB are unpacked.
pub fn find_config(vmlinux: &[u8]) -> Option<String> {
    const LIMIT: u64 = 16 << 20;
    let start = memmem::find_iter(vmlinux, b"IKCFG_ST\x1f\x8b\x08").next()? + 8;
    let packed = vmlinux.get(start..)?;
    let mut config = Vec::new();
    flate2::read::GzDecoder::new(packed).take(LIMIT).read_to_end(&mut config).ok()?;
    String::from_utf8(config).ok()
}
