//! What a log tells about a boot.
//!
//! Decides from the lines behind a `Linux version` banner (or from the first line that proves a
//! phase) what kernel it was, on what machine, and how far it came. May not know whether that is good
//! or bad. Main type: [`BootReader`].

use kolumbo_case::{BootFacts, ConsoleRecord, Passage, Phase, Span};

use crate::phase::PhaseTracker;
use crate::text::Line;

/// Lines behind which a boot is over for this reader; later phases come from literals.
pub(crate) const MAX_BOOT_LINES: usize = 20_000;

/// Collects the facts of one boot, line by line.
#[derive(Debug, Clone, Default)]
pub(crate) struct BootReader {
    facts: BootFacts,
    tracker: PhaseTracker,
    lines: usize,
    initcall: Option<String>,
}

/// The banner's beginning.
pub(crate) const BANNER: &str = "Linux version ";

impl BootReader {
    /// A boot whose first line is at `span` and quoted `depth` times.
    pub(crate) fn new(span: Span, depth: u32) -> Self {
        BootReader {
            facts: BootFacts { span, quote_depth: depth, ..Default::default() },
            ..Default::default()
        }
    }

    /// This reader has its banner: another one begins another boot.
    pub(crate) fn has_banner(&self) -> bool {
        self.facts.banner.is_some()
    }

    /// Enough lines were seen.
    pub(crate) fn is_full(&self) -> bool {
        self.lines >= MAX_BOOT_LINES
    }

    /// Takes the next line.
    pub(crate) fn observe(&mut self, line: &Line, span: Span) {
        self.lines += 1;
        let text = line.text.trim();
        if text.is_empty() {
            return;
        }
        let record = ConsoleRecord {
            text: line.text.clone(),
            time: line.marked.then(Default::default),
            ..Default::default()
        };
        self.tracker.observe(&record);
        self.facts.phase = self.tracker.reached();
        self.facts.span.end = self.facts.span.end.max(span.end);
        if line.marked || self.facts.last_line.is_none() {
            self.facts.last_line = Some(Passage { text: text.to_owned(), span });
        }
        self.values(text, span);
    }

    fn values(&mut self, text: &str, span: Span) {
        let facts = &mut self.facts;
        let rest_of = |name: &str| text.strip_prefix(name).map(|r| r.trim().to_owned());
        if text.starts_with(BANNER) && facts.banner.is_none() {
            banner(text, facts);
            facts.banner = Some(Passage { text: text.to_owned(), span });
        } else if let Some(line) = rest_of("Kernel command line: ").or(rest_of("Command line: ")) {
            facts.command_line.get_or_insert(line);
        } else if let Some(line) = rest_of("DMI: ").or(rest_of("Machine model: ")) {
            facts.hardware.get_or_insert(line);
        } else if let Some(line) = rest_of("Hypervisor detected: ") {
            facts.hypervisor.get_or_insert(line);
        } else if let Some(rest) = text.strip_prefix("Memory: ") {
            memory(rest, facts);
        } else if let Some(n) = between(text, "smpboot: Allowing ", " CPUs").or(between(
            text,
            "CPU topo: Allowing ",
            " present CPUs",
        )) {
            facts.cpus_allowed.get_or_insert(n);
        } else if text.contains("Brought up ") || text.contains("Booted up ") {
            facts.cpus =
                between(text, ", ", " CPU").or(between(text, "up ", " CPU")).or(facts.cpus);
        } else if let Some(rest) = text.strip_prefix("calling  ").or(text.strip_prefix("calling "))
        {
            if rest.contains(" @ ") {
                facts.initcalls = facts.initcalls.saturating_add(1);
                self.initcall = rest.split(['+', ' ']).next().map(str::to_owned);
            }
        } else if let Some(rest) = text.strip_prefix("initcall ")
            && rest.contains(" returned ")
            && self.initcall.as_deref() == rest.split(['+', ' ']).next()
        {
            self.initcall = None;
        }
    }

    /// The last line of a boot that is too long to be read as a whole.
    pub(crate) fn last(&mut self, line: Passage) {
        self.facts.span.end = self.facts.span.end.max(line.span.end);
        self.facts.last_line = Some(line);
    }

    /// The facts, when the boot has any.
    pub(crate) fn finish(mut self) -> Option<BootFacts> {
        self.facts.initcall_pending = self.initcall.take();
        (self.facts.banner.is_some() || self.facts.phase > Phase::Firmware).then_some(self.facts)
    }
}

/// `Linux version 6.1.0 (user@host) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld ...) #1 SMP ...`.
fn banner(text: &str, facts: &mut BootFacts) {
    let rest = &text[BANNER.len()..];
    facts.release = rest.split(' ').next().filter(|r| !r.is_empty()).map(str::to_owned);
    facts.build = rest.find(" #").map(|at| rest[at + 1..].trim().to_owned());
    let head = rest.find(" #").map_or(rest, |at| &rest[..at]);
    for (mark, name) in [
        ("clang version ", "clang"),
        ("gcc version ", "gcc"),
        ("clang ", "clang"),
        ("gcc ", "gcc"),
        ("gcc-", "gcc"),
    ] {
        let Some(at) = head.find(mark) else { continue };
        let behind = &head[at + mark.len()..];
        // "gcc (Debian 12.2.0-14) 12.2.0" and "x86_64-linux-gnu-gcc-12 (...) 12.2.0": the version is
        // the first word with a dot behind the brackets.
        let mut depth = 0;
        let version = behind.split(' ').find(|w| {
            let outside =
                depth == 0 && w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.');
            depth += w.matches('(').count() as i32 - w.matches(')').count() as i32;
            outside
        });
        facts.compiler = Some(name.to_owned());
        facts.compiler_version = version.map(|v| v.trim_end_matches([',', ')']).to_owned());
        break;
    }
}

/// `474480K/523768K available (...)`.
fn memory(rest: &str, facts: &mut BootFacts) {
    let Some((available, behind)) = rest.split_once("K/") else { return };
    let Some((total, _)) = behind.split_once('K') else { return };
    if let (Ok(available), Ok(total)) = (available.trim().parse(), total.trim().parse()) {
        facts.memory_available_kib.get_or_insert(available);
        facts.memory_total_kib.get_or_insert(total);
    }
}

/// The number that stands right between two texts.
fn between(text: &str, before: &str, after: &str) -> Option<u32> {
    let rest = &text[text.find(before)? + before.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[digits..].starts_with(after).then(|| rest[..digits].parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::split;

    fn read(log: &str) -> BootFacts {
        let text = split(log.as_bytes(), 0, 0, false);
        let mut reader = BootReader::new(Span::default(), 0);
        for (n, line) in text.lines.iter().enumerate() {
            reader.observe(line, text.span(n, n + 1));
        }
        reader.finish().unwrap()
    }

    #[test]
    fn compilers() {
        for (banner, compiler, version) in [
            (
                "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1",
                "gcc",
                "12.2.0",
            ),
            (
                "Linux version 4.14.0 (a@b) (clang version 6.0.0-1 (tags/RELEASE_600/final)) #1 SMP Tue",
                "clang",
                "6.0.0-1",
            ),
            (
                "Linux version 6.5.0 (a@b) (ClangBuiltLinux clang version 17.0.0 (https://x y), LLD 17.0.0) #1 SMP",
                "clang",
                "17.0.0",
            ),
            (
                "Linux version 4.20.0-rc3+ (s@ci) (gcc version 8.0.1 20180413 (experimental) (GCC)) #344 SMP",
                "gcc",
                "8.0.1",
            ),
            (
                "Linux version 6.1 (a@b) (x86_64-linux-gnu-gcc (GCC) 13.2.0, GNU ld 2.41) #2",
                "gcc",
                "13.2.0",
            ),
        ] {
            let facts = read(&format!("[    0.000000] {banner}\n"));
            assert_eq!(
                (facts.compiler.as_deref(), facts.compiler_version.as_deref()),
                (Some(compiler), Some(version)),
                "{banner}"
            );
            assert!(facts.build.unwrap().starts_with('#'));
        }
    }

    #[test]
    fn machine_and_progress() {
        let facts = read(
            "[    0.000000] Linux version 6.1.0 (a@b) (gcc 12) #1 SMP\n\
             [    0.000000] Command line: console=ttyS0 quiet\n\
             [    0.010000] smpboot: Allowing 4 CPUs, 0 hotplug CPUs\n\
             [    0.020000] Memory: 474480K/523768K available (7639K kernel code)\n\
             [    0.100000] smp: Brought up 1 node, 4 CPUs\n\
             [    0.200000] calling  foo_init+0x0/0x10 @ 1\n\
             [    0.200001] initcall foo_init+0x0/0x10 returned 0 after 1 usecs\n\
             [    0.300000] calling  bar_init+0x0/0x10 @ 1\n",
        );
        assert_eq!((facts.cpus, facts.cpus_allowed, facts.initcalls), (Some(4), Some(4), 2));
        assert_eq!(facts.initcall_pending.as_deref(), Some("bar_init"));
        assert_eq!(
            (facts.memory_available_kib, facts.memory_total_kib),
            (Some(474_480), Some(523_768))
        );
        assert_eq!(facts.phase, Phase::Initcalls);
        assert_eq!(facts.command_line.as_deref(), Some("console=ttyS0 quiet"));
        assert!(facts.last_line.unwrap().text.starts_with("calling  bar_init"));
    }
}
