//! From a recipe and the lines of a report to the guilty function.
//!
//! Decides which frames a recipe looks at and which of them it takes. A stack ends where the next
//! one begins, so that nobody is blamed for what another task did. May not know how a crash was
//! recognised nor how its title is written. Main type: [`Recipe`] of [`crate::formats`].

use crate::formats::{Recipe, Step, Take};
use crate::frame::{bare_function, parse_frame, parse_pc};
use crate::skip::{WAITING, is_dispatcher, is_helper, matches, waited_for};

/// What a recipe found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Guilt {
    /// The guilty function, or none where the report names none that could be trusted.
    pub function: Option<String>,
    /// A stack of the fault injector is mixed with the lines that were looked at: what was found may
    /// belong to that one. A way that does not meet it is preferred.
    pub mixed: bool,
}

/// Follows the ways of `recipe` until one of them names a function.
pub(crate) fn guilty(recipe: &Recipe, report: &[&str], captures: &[String]) -> Guilt {
    let mut guilt = Guilt::default();
    for (n, way) in recipe.ways.iter().enumerate() {
        guilt = walk(way, recipe, report, captures);
        let is_last = n + 1 == recipe.ways.len();
        if guilt.function.is_some() && (is_last || !guilt.mixed) {
            break;
        }
    }
    guilt
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

fn walk(way: &[Step], recipe: &Recipe, report: &[&str], captures: &[String]) -> Guilt {
    let mut gathered = Gathered { recipe, frames: Vec::new() };
    let mut at = 0;
    let mut stacks = 0;
    let mut mixed = false;
    for (n, step) in way.iter().enumerate() {
        // The line that the step looks for. Frames of the fault injector before it say that its
        // stack is mixed with this one: the step is given up, and the next goes on behind them.
        let found = match step {
            Step::After(literals) => {
                find(&report[at..], |l| literals.iter().any(|t| l.contains(t)))
            }
            Step::Held => find(&report[at..], |l| held_at(l).is_some()),
            Step::Pc => find(&report[at..], |l| kernel_pc(l).is_some()),
            Step::Interrupted => find(&report[at..], |l| pc_function(l).is_some()),
            _ => Found::At(0),
        };
        let line = match found {
            Found::At(n) => at + n,
            Found::Injected(n) => {
                at += n + 1;
                mixed = true;
                continue;
            }
            Found::Nothing if matches!(step, Step::Held) => continue,
            Found::Nothing => break,
        };
        match step {
            Step::Capture(n) => {
                gathered.add(&[bare_function(captures.get(*n).map_or("", |c| c))]);
            }
            Step::Unless(literal) => {
                if report.iter().any(|l| l.contains(literal)) {
                    return Guilt::default();
                }
            }
            // Old kernels print the first frame on the line of the heading.
            Step::After(_) => at = line + usize::from(parse_frame(report[line]).is_none()),
            Step::Held => {
                gathered.add(&[held_at(report[line]).unwrap_or_default()]);
                at = line + 1;
            }
            Step::Pc | Step::Interrupted => {
                // A jump to nowhere has no function; whoever called is in the trace.
                let function = pc_function(report[line]).unwrap_or_default();
                gathered.add(&[bare_function(&function)]);
                at = line + 1;
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
    Guilt { function: gathered.take(), mixed }
}

/// `(&mm->mmap_lock){++++}, at: [<ffffffff81000000>] fn+0x1/0x2`: lockdep names who takes a lock. A
/// symboliser repeats the line for each function that was inlined there; the function itself comes last.
fn held_at(line: &str) -> Option<&str> {
    let frame = parse_frame(line.split_once(", at: ")?.1).filter(|f| !f.inlined)?;
    let name = frame.place.function?;
    let at = line.rfind(&name)?;
    Some(bare_function(&line[at..at + name.len()]))
}

/// The function of a program counter, empty for a bare address and for one of a program.
fn pc_function(line: &str) -> Option<String> {
    // A symboliser names what was inlined there, too; the function itself stands in the next line.
    if line.starts_with("IP:") && !line.contains('+')
        || line.trim_end().ends_with("[inline]")
        || line.contains("[<     inline     >]")
    {
        return None;
    }
    let (place, user) = parse_pc(line)?;
    Some(place.function.filter(|_| !user).unwrap_or_default())
}

/// The function of a kernel program counter, empty for a bare address.
fn kernel_pc(line: &str) -> Option<String> {
    pc_function(line).filter(|_| parse_pc(line).is_some_and(|(_, user)| !user))
}

/// What a search for a line came upon first.
enum Found {
    At(usize),
    /// A frame of the fault injector.
    Injected(usize),
    Nothing,
}

fn find(report: &[&str], wanted: impl Fn(&str) -> bool) -> Found {
    for (n, line) in report.iter().enumerate() {
        if injected(line) {
            return Found::Injected(n);
        }
        if wanted(line) {
            return Found::At(n);
        }
    }
    Found::Nothing
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
        // Only an old heading, which has a frame behind it, belongs to this stack.
        if begins_stack(line) && (n > 0 || parse_frame(line).is_none()) {
            return n;
        }
        let ends = match next {
            Some(Step::After(literals)) => literals.iter().any(|t| line.contains(t)),
            Some(Step::Pc | Step::Interrupted) => kernel_pc(line).is_some(),
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

/// The frame right inside the first dispatcher: the entry point of the operation. A fault is one
/// only where nothing else is: the kernel itself faults in the middle of other operations.
fn entry(frames: &[String]) -> Option<String> {
    inside(frames, is_dispatcher).or_else(|| inside(frames, |f| f.contains("handle_mm_fault")))
}

/// The frame right inside the first that `dispatches`.
fn inside(frames: &[String], dispatches: impl Fn(&str) -> bool) -> Option<String> {
    let at = frames.iter().position(|f| dispatches(f))?;
    // A CPU that waits for others is stuck in nothing else, whoever called it.
    let waits = frames[at].contains("smp_call_function");
    Some(frames[if waits { at } else { at.saturating_sub(1) }].clone())
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
        guilty(recipe, &lines, &[]).function.unwrap_or_else(|| "-".into())
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
            (
                &AT_PC,
                "RIP: 0010:[<ffffffff81000000>]  [<     inline     >] inner foo.c:1|\
                 RIP: 0010:[<ffffffff81000000>]  [<ffffffff81000000>] foo+0x1/0x2 foo.c:3",
                "foo",
            ),
            (&AT_PC, "RIP: 0010:0x0|Call Trace:| bar+0x1/0x2", "bar"),
            (&AT_PC, "RIP: 0033:0x452cf9|Call Trace:| bar+0x1/0x2", "-"),
            (
                &HELD,
                "lock: (a){+}, at: down_read+0x1/0x2|lock: (b){+}, at: [<ffffffff81000000>] foo+0x1/0x2",
                "foo",
            ),
            (
                &HELD,
                "lock: (a){+}, at: inode_lock include/fs.h:1 [inline]|lock: (a){+}, at: foo+0x1/0x2 fs/a.c:1",
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
        // The way goes on behind the stack that it met, and what it finds is marked.
        let lines = [
            "Oops:",
            " should_fail+0x1/0x2",
            "RIP: 0010:foo+0x1/0x2",
            " should_failslab+0x1/0x2",
            " bar+0x1/0x2",
        ];
        let expected = Guilt { function: Some("bar".into()), mixed: true };
        assert_eq!(guilty(&AT_PC, &lines, &[]), expected);
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
            (" foo+0x1/0x2| __handle_mm_fault+0x1/0x2| exc_page_fault+0x1/0x2", "foo"),
            (
                " foo+0x1/0x2| handle_mm_fault+0x1/0x2| exc_page_fault+0x1/0x2|RIP: 0010:copyout+0x1/0x2| ext4_read+0x1/0x2| vfs_read+0x1/0x2",
                "ext4_read",
            ),
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
