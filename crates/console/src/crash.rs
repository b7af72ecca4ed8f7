//! From a headline to a named crash.
//!
//! Decides which lines belong to a crash, what its title is, which function is guilty, whether the
//! text is damaged and whether the kernel panicked behind it. The rules stand in [`crate::formats`];
//! this module only applies them. Main type: [`Named`].

use kolumbo_case::HeadlineKind;

use crate::formats::{CompiledGroup, Format, Guilty, ORIGIN, groups};
use crate::frame::{bare_function, parse_frame};
use crate::scan::DECOMPRESSOR_LITERAL;
use crate::text::{Line, Text};
use crate::title::{crash_type, hang_name, names, normalise, shown_name};
use crate::walk::{STACK_HEADINGS, begins_stack, guilty, is_heading};

/// Lines behind a headline that a crash may have. Longer ones are dumps of all tasks, whose first
/// part says enough.
pub(crate) const MAX_LINES: usize = 3000;
/// Bytes of text that the patterns see at most.
const MAX_TEXT: usize = 256 * 1024;
/// A panic behind that many lines of a report, itself among them, only repeats its stack
/// (`panic_on_warn`).
const LINES_BEFORE_PANIC: usize = 25;

/// A crash with its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    /// Normalised title.
    pub title: String,
    /// Other titles, sorted.
    pub alts: Vec<String>,
    /// Type by title.
    pub crash_type: &'static str,
    /// Kind of trouble.
    pub kind: Option<HeadlineKind>,
    /// Guilty function as the title shows it.
    pub frame: String,
    /// Why the text is damaged.
    pub corrupted: Option<String>,
    /// The kernel panicked behind it.
    pub panicked: bool,
    /// Indices of the lines that belong to it, in order.
    pub lines: Vec<usize>,
}

/// Index and group of the next headline at or behind line `from`.
pub(crate) fn next_headline(text: &Text, from: usize) -> Option<(usize, &'static CompiledGroup)> {
    let groups = groups();
    for (index, line) in text.lines.iter().enumerate().skip(from) {
        if let Some(group) = headline_group(groups, &line.text, Some(&text.lines[..index])) {
            return Some((index, group));
        }
    }
    None
}

/// The group of `line`, looking at nothing before it.
pub(crate) fn group_of(line: &str) -> Option<&'static CompiledGroup> {
    headline_group(groups(), line, None)
}

/// `line` is a headline; `before` gives the lines before it, if they matter.
pub(crate) fn headline_at(line: &Line, before: impl FnOnce() -> Text) -> bool {
    match group_of(&line.text) {
        Some(group) if group.literal == DECOMPRESSOR_LITERAL => was_running(&before().lines),
        Some(_) => true,
        None => false,
    }
}

/// The group whose literal counts most in `line`, or else stands first, and does not exclude it.
fn headline_group(
    groups: &'static [CompiledGroup],
    line: &str,
    before: Option<&[Line]>,
) -> Option<&'static CompiledGroup> {
    let mut hits: Vec<(usize, usize)> = Vec::new();
    crate::scan::literals(line.as_bytes(), |group, at| {
        if !hits.iter().any(|&(_, g)| g == group) {
            hits.push((at, group));
        }
    });
    hits.sort_unstable_by_key(|&(at, group)| (precedence(groups[group].literal), at));
    hits.into_iter().map(|(_, group)| &groups[group]).find(|group| {
        !group.excludes(line)
            && (group.literal != DECOMPRESSOR_LITERAL
                || line.starts_with(DECOMPRESSOR_LITERAL) && before.is_none_or(was_running))
    })
}

/// Which of two headlines counts that the console put into one line: "Oops: int3: 0000 [#1]" is an int3, as
/// the word alone says less than any other, and what the fuzzer quotes says more than that it gave up.
fn precedence(literal: &str) -> usize {
    match literal {
        "BUG:" => 0,
        "WARNING:" => 1,
        "INFO:" => 2,
        "Oops: " | "SYZFAIL: " | "SYZFATAL: " => 4,
        _ => 3,
    }
}

/// The decompressor speaks in every boot; it tells of a crash only where something ran before: a
/// kernel, or whatever wrote lines before the firmware did.
fn was_running(before: &[Line]) -> bool {
    let recent = &before[before.len().saturating_sub(300)..];
    let kernel = |l: &Line| l.marked && l.time.as_deref().is_some_and(|t| !t.starts_with("0."));
    if recent.iter().any(kernel) {
        return true;
    }
    let firmware = recent.iter().position(|l| l.text.starts_with("SeaBIOS (version"));
    firmware.is_some_and(|n| {
        recent[..n].iter().any(|l| !l.text.trim().is_empty() && !l.text.starts_with("qemu"))
    })
}

/// Names the crash whose headline is line `at`.
pub(crate) fn name_crash(text: &Text, at: usize, group: &'static CompiledGroup) -> Option<Named> {
    let strict = name_with(text, at, group, false);
    match strict {
        Some(named) if named.corrupted.is_none() => Some(named),
        // Lines that may not be the kernel's own are left out. Where the headline is one of them
        // already, as in what `dmesg -x` writes, they are tried when the rest is damaged.
        strict if !text.lines[at].questionable => strict,
        strict => {
            let loose = name_with(text, at, group, true).filter(|n| n.corrupted.is_none());
            loose.or(strict)
        }
    }
}

fn name_with(text: &Text, at: usize, group: &'static CompiledGroup, loose: bool) -> Option<Named> {
    let (lines, own) = belonging(text, at, loose);
    let mut joined = String::new();
    for &index in &lines[..own] {
        let line = &text.lines[index].text;
        if joined.len() + line.len() > MAX_TEXT {
            break;
        }
        joined.push_str(line);
        joined.push('\n');
    }
    let (format, captures) = best_format(group, &joined)?;
    let all: Vec<&str> = lines.iter().map(|&i| text.lines[i].text.as_str()).collect();
    // Frames that the unwinder only guessed prove nothing.
    let told = |line: &&str| parse_frame(line).is_none_or(|f| f.reliable);
    let report: Vec<&str> = all.iter().copied().filter(told).collect();
    let mut named = Named { kind: Some(format.kind), ..Default::default() };
    let raw_frame = match &format.guilty {
        Guilty::None => None,
        Guilty::Capture(n) => Some(bare_function(captures.get(*n).map_or("", |c| c)).to_owned()),
        Guilty::Recipe(recipe) => {
            let guilt = guilty(recipe, &all[..own], &captures);
            if guilt.mixed {
                named.corrupted = Some("a stack of the fault injector is mixed with it".into());
            } else if guilt.function.is_none() {
                named.corrupted = Some("no guilty function could be found in the trace".into());
            }
            Some(guilt.function.unwrap_or_else(|| "corrupted".into()))
        }
    };
    let fill = |template: &str, frame: &str| fill_template(template, frame, &captures, format);
    let raw = raw_frame.unwrap_or_default();
    let mut known_as = names(&raw);
    if let Guilty::Recipe(recipe) = &format.guilty {
        let bucket = hang_name(&raw, &recipe.take);
        if bucket != raw {
            known_as.push(bucket);
        }
    }
    let (shown, older) =
        known_as.split_last().map(|(s, o)| (s.to_string(), o.to_vec())).unwrap_or_default();
    named.title = fill(format.title, &shown);
    if timestamp_within(&captures) {
        named.corrupted = Some("another line begins inside the headline".into());
    }
    let mut alts = Vec::new();
    for name in &older {
        alts.push(fill(format.title, name));
    }
    let origin = format.alts.iter().any(|a| a.contains("{origin}"));
    let origin = origin.then(|| guilty(&ORIGIN, &all[..own], &captures).function).flatten();
    for alt in format.alts {
        let alt = match (&origin, alt.contains("{origin}")) {
            (Some(origin), true) => &alt.replace("{origin}", shown_name(origin)),
            (None, true) => continue,
            _ => *alt,
        };
        alts.push(fill(alt, &shown));
        alts.extend(older.iter().map(|name| fill(alt, name)));
    }
    alts.sort();
    alts.dedup();
    alts.retain(|a| *a != named.title);
    named.alts = alts;
    named.frame = if shown.is_empty() && format.title.contains("{2} / {3}") {
        captures.get(2).map(|c| bare_function(c).to_owned()).unwrap_or_default()
    } else {
        shown
    };
    named.crash_type = crash_type(&named.title);
    if named.corrupted.is_none() && format.corrupted {
        named.corrupted = Some("the headline is damaged".into());
    } else if named.corrupted.is_none() && !format.stackless {
        // mm/kmsan/report.c and mm/kfence/report.c print their stacks without one, and so do the
        // registers of riscv (arch/riscv/kernel/stacktrace.c).
        let headed = !matches!(format.kind, HeadlineKind::Kmsan | HeadlineKind::Kfence)
            && !report.iter().any(|l| l.trim_start().starts_with("epc"));
        named.corrupted = damaged_traces(&report, headed).or_else(|| damaged_depot(&report));
    }
    named.panicked = panicked(text, at);
    named.lines = lines;
    Some(named)
}

/// The format whose pattern matches first in the text; the earlier row on a tie.
fn best_format(
    group: &'static CompiledGroup,
    text: &str,
) -> Option<(&'static Format, Vec<String>)> {
    let mut best: Option<(usize, &'static Format, Vec<String>)> = None;
    for row in &group.formats {
        let Some(found) = row.regex().captures(text) else { continue };
        let start = found.get(0).map_or(0, |m| m.start());
        if best.as_ref().is_some_and(|(at, ..)| *at <= start) {
            continue;
        }
        let mut captures: Vec<String> =
            found.iter().map(|c| c.map_or("", |m| m.as_str()).to_owned()).collect();
        if !row.format.behind.is_empty() {
            let Some(function) = named_behind(&text[start..], row.format.behind) else { continue };
            captures.push(function.to_owned());
        }
        best = Some((start, row.format, captures));
    }
    best.map(|(_, format, captures)| (format, captures))
}

/// The function behind the last of `words`, which stand in this order, each within so many lines of
/// the one before.
fn named_behind<'a>(text: &'a str, words: &[(&str, usize)]) -> Option<&'a str> {
    let mut lines = text.lines();
    let mut line = lines.next()?;
    let (&(last, _), _) = words.split_last()?;
    for (n, &(word, within)) in words.iter().enumerate() {
        let is_last = n + 1 == words.len();
        let fits = |line: &str| {
            if is_last { function_at(line, word).is_some() } else { line.contains(word) }
        };
        let mut left = within;
        while !fits(line) {
            left = left.checked_sub(1)?;
            line = lines.next()?;
        }
    }
    function_at(line, last)
}

/// The function that stands behind `word`, an address before it or not; a place (`at: `) and whatever
/// begins the line, behind no word at all, has an offset, which what was inlined there has not.
fn function_at<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let at = line.find(word)?;
    let mut rest = line[at + word.len()..].trim_start();
    if rest.starts_with("[<") {
        rest = rest.split_once(">]")?.1.trim_start();
    }
    let begins = rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$');
    let len = rest.bytes().take_while(|&b| name(b)).count();
    let bare = !word.is_empty() && word != "at: ";
    let placed = bare || rest[len..].starts_with("+0x");
    (begins && placed).then(|| &rest[..len])
}

/// The mark of another message stands in what the title takes from the headline.
fn timestamp_within(captures: &[String]) -> bool {
    captures.iter().skip(1).any(|capture| {
        capture.match_indices('[').any(|(at, _)| {
            let inner = capture[at + 1..].trim_start();
            let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
            let fraction = inner[digits..].strip_prefix('.').unwrap_or("");
            let places = fraction.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && places > 0 && fraction[places..].starts_with(']')
        })
    })
}

fn fill_template(template: &str, frame: &str, captures: &[String], format: &Format) -> String {
    let mut title = template.to_owned();
    for (n, capture) in captures.iter().enumerate().skip(1) {
        // A capture of the table is a function when nothing else was asked for.
        let value = if format.stackless && !matches!(format.guilty, Guilty::None)
            || template.contains(" / ")
        {
            shown_name(bare_function(capture))
        } else {
            capture
        };
        title = title.replace(&format!("{{{n}}}"), value);
    }
    normalise(&title.replace("{frame}", frame))
}

/// The lines of the crash at line `at`: those of the same context, until a panic repeats it. The
/// second value tells how many of them tell of this crash alone: where lines do not name their
/// callers, whatever follows another headline may belong to that one.
fn belonging(text: &Text, at: usize, loose: bool) -> (Vec<usize>, usize) {
    let head = &text.lines[at];
    let mut lines = vec![at];
    let mut own_lines = None;
    let mut every_cpu = false;
    // Lines with the headline and this one, but for guesses of the unwinder.
    let mut told = 1;
    for (index, line) in text.lines.iter().enumerate().skip(at + 1) {
        if lines.len() >= MAX_LINES || index - at > 4 * MAX_LINES {
            break;
        }
        if line.depth != head.depth {
            if line.text.trim().is_empty() {
                continue;
            }
            break;
        }
        let tracked = OF_AN_OBJECT.iter().any(|t| head.text.contains(t)) && is_track(&line.text);
        if own_lines.is_none() && head.caller.is_empty() && begins_another(line) && !tracked {
            let before = lines.last().map_or("", |&n| text.lines[n].text.as_str());
            own_lines = (!repeats(before, &line.text)).then_some(lines.len());
        }
        let same = line.caller == head.caller || every_cpu && line.caller.starts_with('C');
        let own = !line.questionable && (line.marked || !head.marked);
        let unmarked = loose && line.caller.is_empty();
        if !(same || unmarked) || !(own || loose) {
            continue;
        }
        let said = line.text.as_str();
        told += usize::from(!head.marked || !is_guess(said));
        if said.contains("Disabling lock debugging due to kernel taint") {
            continue;
        }
        every_cpu |= said.contains("Sending NMI from CPU");
        if told > LINES_BEFORE_PANIC && said.contains("Kernel panic - not syncing") {
            break;
        }
        lines.push(index);
    }
    let own_lines = own_lines.unwrap_or(lines.len());
    (lines, own_lines)
}

/// A frame that the unwinder is not sure of.
fn is_guess(line: &str) -> bool {
    let frame = line.trim_start();
    frame.starts_with("? ") || frame.contains(">] ? ") || frame.ends_with("(unreliable)")
}

/// Notes that come with a stack of their own.
static STACKED_NOTES: &[&str] = &[
    "vmalloc: allocation failure",
    "FAULT_INJECTION: forcing a failure",
    "FAULT_FLAG_ALLOW_RETRY missing",
];

/// Headlines that only go on with what another one began: the trap behind a `BUG()`, the oops behind
/// a fault, the panic behind all of them.
static CONTINUATIONS: &[&str] = &[
    "Kernel panic",
    "invalid opcode:",
    "unregister_netdevice: waiting for",
    "PANIC: double fault",
    "double fault: ",
    "kernel stack overflow",
    "Internal error:",
    "Oops: ",
    "alignment check: ",
    "control protection fault",
    "segment not present: ",
    "invalid TSS: ",
    "-- System halted",
    "mce: [Hardware Error]: CPU",
    "unreferenced object",
];

/// mm/slub.c, slab_bug(): what it says about an object.
const OF_AN_OBJECT: &[&str] =
    &["): Object already free", "edzone overwritten", "): Poison overwritten"];

/// mm/slub.c, print_track() and print_slab_info(): up to v5.13 they tell like this, within the report
/// about an object, who allocated and freed it and where it is.
pub(crate) fn is_track(line: &str) -> bool {
    ["INFO: Allocated in ", "INFO: Freed in ", "INFO: Slab 0x", "INFO: Object 0x"]
        .iter()
        .any(|track| line.contains(track))
        || line.contains("INFO: 0x") && line.contains(". First byte 0x")
}

/// A symboliser repeats a headline for each function that was inlined at its place.
fn repeats(before: &str, line: &str) -> bool {
    let literal = |l: &str| group_of(l).map(|group| group.literal);
    before.contains("[inline]") && literal(before) == literal(line)
}

/// `line` begins another crash or another stack.
fn begins_another(line: &Line) -> bool {
    if STACKED_NOTES.iter().any(|note| line.text.contains(note)) {
        return true;
    }
    group_of(&line.text).is_some_and(|group| !CONTINUATIONS.contains(&group.literal))
}

fn panicked(text: &Text, at: usize) -> bool {
    let depth = text.lines[at].depth;
    text.lines[at..]
        .iter()
        .take(4 * MAX_LINES)
        .take_while(|l| l.depth == depth || l.text.trim().is_empty())
        .any(|l| l.text.contains("Kernel panic - not syncing") && !l.text.contains("---[ end"))
}

/// Why the traces of a report cannot be trusted: behind the first heading of each kind a frame must
/// follow soon, and not as the last line of all. Later ones belong to other tasks, which may have no stack.
/// Where the kernel prints a heading (`headed`) there must be one.
fn damaged_traces(report: &[&str], headed: bool) -> Option<String> {
    const SOON: usize = 15;
    let has_frame =
        |line: &&str| parse_frame(line).is_some() || line.contains("(stack is not available)");
    let mut seen = false;
    for heading in STACK_HEADINGS {
        let Some(at) = report.iter().position(|l| is_heading(l, heading)) else { continue };
        let here = parse_frame(report[at]).is_some();
        if report.len() - at < 3 {
            return Some(format!("the report ends behind '{}'", report[at].trim()));
        }
        let mut below = report[at + 1..].iter().take(SOON).take_while(|l| !begins_stack(l));
        if !here && !below.any(has_frame) {
            return Some(format!("no frame follows '{}'", report[at].trim()));
        }
        seen = true;
    }
    let few = || report.iter().filter(|l| parse_frame(l).is_some()).count() < 2;
    (!seen && (headed || few())).then(|| "there is no stack trace".to_owned())
}

/// lib/stackdepot.c, stack_depot_fetch(): the handle of a remembered stack is nonsense, and so may be
/// what the report says about the memory behind it.
fn damaged_depot(report: &[&str]) -> Option<String> {
    let line =
        report.iter().find(|l| l.contains(" out of bounds (") && l.contains(" for stack id "))?;
    Some(format!("the memory of stacks is damaged: '{}'", line.trim()))
}
