//! From a headline to a named crash.
//!
//! Decides which lines belong to a crash, what its title is, which function is guilty, whether the
//! text is damaged and whether the kernel panicked behind it. The rules stand in [`crate::formats`];
//! this module only applies them. Main type: [`Named`].

use kolumbo_case::HeadlineKind;

use crate::formats::{CompiledGroup, Format, Guilty, Recipe, Step, groups};
use crate::frame::{bare_function, parse_frame, parse_pc};
use crate::scan::DECOMPRESSOR_LITERAL;
use crate::skip::{is_dispatcher, is_helper, is_interrupt_entry};
use crate::text::{Line, Text};
use crate::title::{crash_type, names, normalise, shown_name};

/// Lines behind a headline that a crash may have. Longer ones are dumps of all tasks, whose first
/// part says enough.
pub(crate) const MAX_LINES: usize = 3000;
/// Bytes of text that the patterns see at most.
const MAX_TEXT: usize = 256 * 1024;
/// A panic behind that many lines of a report only repeats its stack (`panic_on_warn`).
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

/// The group whose literal stands first in `line` and does not exclude it.
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
    // "Oops: int3: 0000 [#1]" is an int3: the word alone says less than any other headline.
    hits.sort_unstable_by_key(|&(at, group)| (groups[group].literal == "Oops: ", at));
    hits.into_iter().map(|(_, group)| &groups[group]).find(|group| {
        !group.excludes(line)
            && (group.literal != DECOMPRESSOR_LITERAL
                || line.starts_with(DECOMPRESSOR_LITERAL) && before.is_none_or(was_running))
    })
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
        strict => {
            // Lines that may not be the kernel's own are left out at first. When that leaves a
            // damaged report, they are tried too.
            let loose = name_with(text, at, group, true).filter(|n| n.corrupted.is_none());
            loose.or(strict)
        }
    }
}

fn name_with(text: &Text, at: usize, group: &'static CompiledGroup, loose: bool) -> Option<Named> {
    let lines = belonging(text, at, loose);
    let mut joined = String::new();
    for &index in &lines {
        let line = &text.lines[index].text;
        if joined.len() + line.len() > MAX_TEXT {
            break;
        }
        joined.push_str(line);
        joined.push('\n');
    }
    let (format, captures) = best_format(group, &joined)?;
    let report: Vec<&str> = lines.iter().map(|&i| text.lines[i].text.as_str()).collect();
    let mut named = Named { kind: Some(format.kind), ..Default::default() };
    let raw_frame = match &format.guilty {
        Guilty::None => None,
        Guilty::Capture(n) => Some(bare_function(captures.get(*n).map_or("", |c| c)).to_owned()),
        Guilty::Recipe(recipe) => Some(match guilty(recipe, &report, &captures) {
            Some(name) => name,
            None => {
                named.corrupted = Some("no guilty function could be found in the trace".into());
                "corrupted".into()
            }
        }),
    };
    let fill = |template: &str, frame: &str| fill_template(template, frame, &captures, format);
    let raw = raw_frame.unwrap_or_default();
    let (shown, older) =
        names(&raw).split_last().map(|(s, o)| (s.to_string(), o.to_vec())).unwrap_or_default();
    named.title = fill(format.title, &shown);
    let mut alts = Vec::new();
    for name in &older {
        alts.push(fill(format.title, name));
    }
    for alt in format.alts {
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
    if format.corrupted {
        named.corrupted = Some("the headline is damaged".into());
    } else if named.corrupted.is_none() && !format.stackless {
        named.corrupted = damaged_traces(&report).or_else(|| intruder(&report));
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
        let captures = found.iter().map(|c| c.map_or("", |m| m.as_str()).to_owned()).collect();
        best = Some((start, row.format, captures));
    }
    best.map(|(_, format, captures)| (format, captures))
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

/// The lines of the crash at line `at`: those of the same context, until a panic repeats it.
fn belonging(text: &Text, at: usize, loose: bool) -> Vec<usize> {
    let head = &text.lines[at];
    let mut lines = vec![at];
    let mut every_cpu = false;
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
        let same = line.caller == head.caller || every_cpu && line.caller.starts_with('C');
        let own = !line.questionable && (line.marked || !head.marked);
        let unmarked = loose && line.caller.is_empty();
        if !(same || unmarked) || !(own || loose) {
            continue;
        }
        let said = line.text.as_str();
        if said.contains("Disabling lock debugging due to kernel taint") {
            continue;
        }
        every_cpu |= said.contains("Sending NMI from CPU");
        if lines.len() > LINES_BEFORE_PANIC && said.contains("Kernel panic - not syncing") {
            break;
        }
        lines.push(index);
    }
    lines
}

fn panicked(text: &Text, at: usize) -> bool {
    let depth = text.lines[at].depth;
    text.lines[at..]
        .iter()
        .take(4 * MAX_LINES)
        .take_while(|l| l.depth == depth || l.text.trim().is_empty())
        .any(|l| l.text.contains("Kernel panic - not syncing") && !l.text.contains("---[ end"))
}

/// Headings behind which frames must follow.
fn is_trace_heading(line: &str) -> bool {
    let line = line.trim();
    ["Call Trace", "Call trace", "Backtrace:"].iter().any(|h| line.starts_with(h))
        || (line.starts_with("Allocated") || line.starts_with("Freed"))
            && line.ends_with(':')
            && line.len() < 60
}

/// Why the traces of a report cannot be trusted: the first one must have frames, and so must those
/// that tell where memory came from. Later ones belong to other tasks, which may have no stack.
fn damaged_traces(report: &[&str]) -> Option<String> {
    let is_frame = |line: &&str| parse_frame(line).is_some_and(|f| f.reliable);
    let mut open: Option<&str> = None;
    let mut seen = false;
    for line in report {
        if is_trace_heading(line) || line.contains("Call Trace:") {
            if let Some(heading) = open {
                return Some(format!("no frame follows '{}'", heading.trim()));
            }
            let matters = !seen || line.contains("Allocated") || line.contains("Freed");
            open = matters.then_some(*line);
            seen = true;
        }
        if let Some(heading) = open
            && (is_frame(line)
                || !heading.contains("Call") && line.contains("(stack is not available)"))
        {
            open = None;
        }
    }
    if !seen {
        let frames = report.iter().filter(|l| is_frame(l)).count();
        return (frames < 2).then(|| "there is no stack trace".to_owned());
    }
    open.map(|heading| format!("no frame follows '{}'", heading.trim()))
}

/// A sanitizer closes its report with a line of `=`; another headline before that line means that
/// two reports are mixed.
fn intruder(report: &[&str]) -> Option<String> {
    let head = report.first()?;
    if !["BUG: KASAN: ", "BUG: KMSAN: ", "BUG: KCSAN: "].iter().any(|t| head.contains(t)) {
        return None;
    }
    let end = report.iter().position(|l| l.starts_with("=====")).unwrap_or(0);
    let other = report.get(1..end)?.iter().find(|l| l.starts_with("WARNING: CPU"))?;
    Some(format!("another report begins inside: '{}'", other.trim()))
}

/// Walks the recipe over the report.
fn guilty(recipe: &Recipe, report: &[&str], captures: &[String]) -> Option<String> {
    recipe.ways.iter().find_map(|way| walk(way, recipe.skip, report, captures))
}

fn walk(way: &[Step], extra: &[&str], report: &[&str], captures: &[String]) -> Option<String> {
    let mut at = 0;
    for step in way {
        match step {
            Step::Capture(n) => {
                let name = bare_function(captures.get(*n).map_or("", |c| c));
                if !name.is_empty() && !is_helper(name, extra) {
                    return Some(name.to_owned());
                }
            }
            Step::After(literals) => {
                let found =
                    report[at..].iter().position(|l| literals.iter().any(|t| l.contains(t)))?;
                // Old kernels print the first frame on the line of the heading.
                at += found + usize::from(parse_frame(report[at + found]).is_none());
            }
            Step::Pc => {
                // A jump to nowhere has no function; whoever called is in the trace.
                let name = program_counter(&report[at..])?.unwrap_or_default();
                let name = bare_function(&name);
                if !name.is_empty() && !is_helper(name, extra) {
                    return Some(name.to_owned());
                }
            }
            Step::Frames => match first_guilty(&report[at..], extra) {
                Search::Found(name) => return Some(name),
                Search::Intermixed => return None,
                Search::Exhausted => {}
            },
            Step::BelowInterrupt => {
                let below = report[at..].iter().position(|line| {
                    line.contains("</IRQ>")
                        || line.contains("</NMI>")
                        || line.contains("<EOI>")
                        || parse_frame(line)
                            .is_some_and(|f| f.reliable && is_interrupt_entry(f.function()))
                })?;
                at += below;
            }
            Step::Anchor => return inside_dispatcher(&report[at..]),
        }
    }
    None
}

enum Search {
    Found(String),
    Intermixed,
    Exhausted,
}

/// The first frame that is no helper. Fault injection and failing allocations print stacks of their
/// own in the middle of others; behind their mark nothing can be trusted.
fn first_guilty(report: &[&str], extra: &[&str]) -> Search {
    for line in report {
        if line.contains("FAULT_INJECTION: forcing") || line.contains("vmalloc: allocation failure")
        {
            return Search::Intermixed;
        }
        let Some(frame) = parse_frame(line).filter(|f| f.reliable && !f.inlined) else { continue };
        if frame.function().starts_with("should_fail") {
            return Search::Intermixed;
        }
        let caller = bare_function(frame.place.function.as_deref().unwrap_or(""));
        // The callee of an arm frame stands in the line before as the caller, but for the first one
        // and behind an exception.
        for name in [frame.function(), caller] {
            if !name.is_empty() && !is_helper(name, extra) {
                return Search::Found(name.to_owned());
            }
        }
    }
    Search::Exhausted
}

/// The function of the first program counter in kernel mode (none of a bare address). Nothing where
/// another crash begins before it: two CPUs print at once, and the registers may belong to either.
fn program_counter(report: &[&str]) -> Option<Option<String>> {
    for (n, line) in report.iter().enumerate() {
        let other = ["BUG: ", "WARNING: ", "general protection fault", "Unhandled fault: "]
            .iter()
            .any(|t| line.contains(t));
        if n > 0 && other {
            return None;
        }
        if line.starts_with("IP:") && !line.contains('+') {
            continue;
        }
        if parse_frame(line).is_some_and(|f| f.reliable && f.function().starts_with("should_fail"))
        {
            return None;
        }
        if let Some((place, false)) = parse_pc(line) {
            return Some(place.function);
        }
    }
    None
}

/// The frame right inside the first dispatcher of the trace.
fn inside_dispatcher(report: &[&str]) -> Option<String> {
    let mut inner: Option<String> = None;
    for line in report {
        let name = match parse_frame(line).filter(|f| f.reliable && !f.inlined) {
            Some(frame) => frame.function().to_owned(),
            None => match parse_pc(line) {
                Some((place, false)) => {
                    bare_function(&place.function.unwrap_or_default()).to_owned()
                }
                _ => continue,
            },
        };
        if name.is_empty() {
            continue;
        }
        if is_interrupt_entry(&name) {
            inner = None;
            continue;
        }
        // A CPU that waits for others is stuck in nothing else, whoever called it.
        if name.starts_with("smp_call_function") {
            return Some(name);
        }
        if is_dispatcher(&name) {
            if let Some(inner) = inner.take() {
                return Some(inner);
            }
            continue;
        }
        inner = Some(name);
    }
    None
}
