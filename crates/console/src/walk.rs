//! From a recipe and the lines of a report to the guilty function.
//!
//! Decides which frames a recipe looks at and which of them it takes. A stack ends where the next
//! one begins, so that nobody is blamed for what another task did. May not know how a crash was
//! recognised nor how its title is written. Main type: [`Recipe`] of [`crate::formats`].

use crate::formats::{Recipe, Step, Take};
use crate::frame::{bare_function, parse_frame, parse_pc};
use crate::skip::{WAITING, is_dispatcher, is_helper, matches, waited_for};

/// The guilty function, or none where the report names none that could be trusted.
pub(crate) fn guilty(recipe: &Recipe, report: &[&str], captures: &[String]) -> Option<String> {
    recipe.ways.iter().find_map(|way| walk(way, recipe, report, captures))
}

/// Frames gathered on the way, helpers left out.
struct Gathered<'a> {
    recipe: &'a Recipe,
    frames: Vec<String>,
}

impl Gathered<'_> {
    /// Remembers the first of `names` that is no helper.
    fn add(&mut self, names: &[&str]) {
        let named =
            names.iter().find(|name| !name.is_empty() && !is_helper(name, self.recipe.skip));
        if let Some(name) = named {
            self.frames.push((*name).to_owned());
        }
    }

    fn take(&self) -> Option<String> {
        match self.recipe.take {
            Take::First => self.frames.first().cloned(),
            Take::Entry => entry(&self.frames),
            Take::Waiter => waiter(&self.frames),
        }
    }
}

fn walk(way: &[Step], recipe: &Recipe, report: &[&str], captures: &[String]) -> Option<String> {
    let mut gathered = Gathered { recipe, frames: Vec::new() };
    let mut at = 0;
    let mut stacks = 0;
    for (n, step) in way.iter().enumerate() {
        match step {
            Step::Capture(n) => {
                gathered.add(&[bare_function(captures.get(*n).map_or("", |c| c))]);
            }
            Step::Unless(literal) => {
                if report.iter().any(|l| l.contains(literal)) {
                    return None;
                }
            }
            Step::After(literals) => {
                let Some(n) = find(&report[at..], |l| literals.iter().any(|t| l.contains(t)))?
                else {
                    break;
                };
                // Old kernels print the first frame on the line of the heading.
                at += n + usize::from(parse_frame(report[at + n]).is_none());
            }
            Step::Held => {
                if let Some(n) = find(&report[at..], |l| held_at(l).is_some())? {
                    gathered.add(&[held_at(report[at + n]).unwrap_or_default()]);
                    at += n + 1;
                }
            }
            Step::Pc => {
                let Some(n) = find(&report[at..], |l| kernel_pc(l).is_some())? else { break };
                // A jump to nowhere has no function; whoever called is in the trace.
                let function = kernel_pc(report[at + n]).unwrap_or_default();
                gathered.add(&[bare_function(&function)]);
                at += n + 1;
            }
            Step::Frames => {
                if stacks > 0 && gathered.take().is_some() {
                    break;
                }
                stacks += 1;
                at += stack(&report[at..], way.get(n + 1), &mut gathered);
            }
        }
    }
    gathered.take()
}

/// `(&mm->mmap_lock){++++}, at: [<ffffffff81000000>] fn+0x1/0x2`: lockdep names who takes a lock.
fn held_at(line: &str) -> Option<&str> {
    let frame = parse_frame(line.split_once(", at: ")?.1)?;
    let name = frame.place.function?;
    let at = line.rfind(&name)?;
    Some(bare_function(&line[at..at + name.len()]))
}

/// The function of a kernel program counter, empty for a bare address.
fn kernel_pc(line: &str) -> Option<String> {
    if line.starts_with("IP:") && !line.contains('+') {
        return None;
    }
    match parse_pc(line) {
        Some((place, false)) => Some(place.function.unwrap_or_default()),
        _ => None,
    }
}

/// Index of the first line that `wanted` accepts, at most. None of none: the lines before it are mixed
/// with a stack of the fault injector, so that whatever is found may belong to that one.
fn find(report: &[&str], wanted: impl Fn(&str) -> bool) -> Option<Option<usize>> {
    for (n, line) in report.iter().enumerate() {
        if injected(line) {
            return None;
        }
        if wanted(line) {
            return Some(Some(n));
        }
    }
    Some(None)
}

/// Frames of the fault injector are printed in the middle of the stack that they hit; behind them
/// the stack is not to be trusted.
fn injected(line: &str) -> bool {
    line.contains("should_fail")
        && parse_frame(line).is_some_and(|f| f.reliable && f.function().starts_with("should_fail"))
}

/// Gathers the frames of the stack at the beginning of `report`; how many lines it had.
fn stack(report: &[&str], next: Option<&Step>, gathered: &mut Gathered) -> usize {
    for (n, line) in report.iter().enumerate() {
        if injected(line) {
            return n + 1;
        }
        if n > 0 && begins_stack(line) {
            return n;
        }
        let ends = match next {
            Some(Step::After(literals)) => literals.iter().any(|t| line.contains(t)),
            Some(Step::Pc) => kernel_pc(line).is_some(),
            _ => false,
        };
        if ends {
            return n;
        }
        let Some(frame) = parse_frame(line).filter(|f| f.reliable && !f.inlined) else { continue };
        // The callee of an arm frame stands in the line before as the caller, but for the first one
        // and behind an exception.
        let caller = bare_function(frame.place.function.as_deref().unwrap_or(""));
        gathered.add(&[frame.function(), caller]);
    }
    report.len()
}

/// A line behind which a stack begins.
pub(crate) fn begins_stack(line: &str) -> bool {
    STACK_HEADINGS.iter().any(|heading| is_heading(line, heading))
}

/// The kinds of headings, by their words.
pub(crate) static STACK_HEADINGS: &[&str] = &[
    "Call Trace",
    "Call trace",
    "Allocated:",
    "Allocated by task ",
    "Freed:",
    "Freed by task ",
    " backtrace",
    "Backtrace:",
    "Uninit was stored to memory at",
];

/// `line` is a heading of this kind.
pub(crate) fn is_heading(line: &str, heading: &str) -> bool {
    let Some(at) = line.find(heading) else { return false };
    let behind = &line[at + heading.len()..];
    match heading {
        "Allocated by task " | "Freed by task " => {
            let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && behind[digits..].starts_with(':')
        }
        // Not lockdep's "stack backtrace:", which the heading of a trace follows.
        " backtrace" => {
            !line[..at].ends_with('k') && (behind.starts_with(':') || behind.starts_with(" (crc "))
        }
        _ => true,
    }
}

/// The frame right inside the first dispatcher: the entry point of the operation.
fn entry(frames: &[String]) -> Option<String> {
    let mut inner = frames.first()?;
    for frame in frames {
        if is_dispatcher(frame) {
            // A CPU that waits for others is stuck in nothing else, whoever called it.
            let waits = frame.contains("smp_call_function");
            return Some(if waits { frame } else { inner }.clone());
        }
        inner = frame;
    }
    None
}

/// What everybody waits for where somebody does, else the first frame that does not wait itself.
fn waiter(frames: &[String]) -> Option<String> {
    let waits = |frame: &String| WAITING.iter().any(|p| matches(p, frame));
    frames.iter().find(|f| waited_for(f)).or(frames.iter().find(|f| !waits(f))).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{AT_PC, IN_TRACE, TRACE};

    const ENTRY: Recipe =
        Recipe { ways: &[&[Step::After(TRACE), Step::Frames]], skip: &[], take: Take::Entry };
    const WAITER: Recipe = Recipe { take: Take::Waiter, ..ENTRY };
    const HELD: Recipe = Recipe {
        ways: &[&[Step::Held, Step::Held, Step::After(TRACE), Step::Frames]],
        skip: &[],
        take: Take::First,
    };

    fn named(recipe: &Recipe, report: &str) -> String {
        let lines: Vec<&str> = report.split('|').collect();
        guilty(recipe, &lines, &[]).unwrap_or_else(|| "-".into())
    }

    #[test]
    fn a_stack_ends_where_the_next_begins() {
        for (recipe, report, expected) in [
            (
                &IN_TRACE,
                "Call Trace:| kfree+0x1/0x2| ? guess+0x1/0x2| foo+0x1/0x2| bar+0x1/0x2",
                "foo",
            ),
            (&IN_TRACE, "Call Trace:| kfree+0x1/0x2|Allocated by task 1:| foo+0x1/0x2", "-"),
            (&IN_TRACE, "stack backtrace:|Call Trace:| foo+0x1/0x2", "foo"),
            (&AT_PC, "RIP: 0010:foo+0x1/0x2|Call Trace:| bar+0x1/0x2", "foo"),
            (&AT_PC, "RIP: 0010:memcpy+0x1/0x2|Call Trace:| bar+0x1/0x2", "bar"),
            (&AT_PC, "RIP: 0010:0x0|Call Trace:| bar+0x1/0x2", "bar"),
            (&AT_PC, "RIP: 0033:0x452cf9|Call Trace:| bar+0x1/0x2", "-"),
            (
                &HELD,
                "lock: (a){+}, at: down_read+0x1/0x2|lock: (b){+}, at: [<ffffffff81000000>] foo+0x1/0x2",
                "foo",
            ),
            (&HELD, "Call Trace:| foo+0x1/0x2", "foo"),
        ] {
            assert_eq!(named(recipe, report), expected, "{report}");
        }
    }

    #[test]
    fn the_fault_injector_breaks_a_stack() {
        assert_eq!(
            named(&AT_PC, "RIP: 0010:foo+0x1/0x2|Call Trace:| should_fail+0x1/0x2| bar+0x1/0x2"),
            "foo"
        );
        assert_eq!(named(&IN_TRACE, "Call Trace:| foo+0x1/0x2| should_fail+0x1/0x2"), "foo");
        assert_eq!(named(&IN_TRACE, " should_failslab+0x1/0x2|Call Trace:| foo+0x1/0x2"), "-");
    }

    #[test]
    fn the_entry_of_an_operation() {
        for (frames, expected) in [
            (
                " foo+0x1/0x2| ext4_write+0x1/0x2| vfs_write+0x1/0x2| do_syscall_64+0x1/0x2",
                "ext4_write",
            ),
            (
                " smp_call_function_many+0x1/0x2| foo+0x1/0x2| do_syscall_64+0x1/0x2",
                "smp_call_function_many",
            ),
            (" foo+0x1/0x2| bar+0x1/0x2", "-"),
        ] {
            assert_eq!(named(&ENTRY, &format!("Call Trace:|{frames}")), expected);
        }
    }

    #[test]
    fn whoever_waits() {
        for (frames, expected) in [
            (" schedule_timeout+0x1/0x2| io_wait+0x1/0x2| foo+0x1/0x2", "foo"),
            (" __mutex_lock+0x1/0x2| foo+0x1/0x2| rtnl_lock+0x1/0x2", "rtnl_lock"),
        ] {
            assert_eq!(named(&WAITER, &format!("Call Trace:|{frames}")), expected);
        }
    }
}
