//! Lines that a mailer wrapped, joined again.
//!
//! Decides which line goes on in the next one. Evidence only: the next line must look like the rest
//! of what the first one began (a `Code:` line that goes on in bytes, a register line that goes on
//! in a register, a printk line that is followed by one without its mark at the same depth).
//! Biased to leave lines alone: a line that stays cut loses a detail, a wrong join loses a line.

use crate::text::Line;

/// A mailer wraps at 72 to 80 columns; a line shorter than this was not cut by one.
const SHORTEST_WRAPPED: u64 = 48;
/// Wrapped pieces of one line that are joined at most.
const MOST_PIECES: usize = 16;

/// Joins what was wrapped, depth by depth.
pub(crate) fn unwrap_lines(lines: Vec<Line>) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::with_capacity(lines.len());
    // Per place in the text: do the lines of this block carry printk's mark?
    let mut marked_block = false;
    let mut pieces = 0;
    for line in lines {
        let joins = out.last().is_some_and(|last| {
            pieces < MOST_PIECES
                && last.depth == line.depth
                && last.end == line.start
                && goes_on(last, &line, marked_block)
        });
        if joins {
            pieces += 1;
            if let Some(last) = out.last_mut() {
                last.text.push(' ');
                last.text.push_str(line.text.trim_start());
                last.end = line.end;
            }
            continue;
        }
        pieces = 0;
        if line.marked {
            marked_block = true;
        } else if line.text.trim().is_empty() {
            marked_block = false;
        }
        out.push(line);
    }
    out
}

fn goes_on(last: &Line, next: &Line, marked_block: bool) -> bool {
    let next_text = next.text.trim();
    if next.marked || next_text.is_empty() || last.text.trim().is_empty() {
        return false;
    }
    if opens_something(next_text) {
        return false;
    }
    let last_text = last.text.trim();
    if in_code_line(last_text) && is_code_bytes(next_text) {
        return true;
    }
    if ends_in_register_name(last_text) && starts_with_hex(next_text) {
        return true;
    }
    if has_register(last_text) && has_register(next_text) && next_text.starts_with("knlGS:") {
        return true;
    }
    // Inside a block of printk lines a line without a mark is the rest of the one before, when that
    // was long enough for a mailer to cut.
    let long = last.end - last.start >= SHORTEST_WRAPPED;
    marked_block && long && (last.marked || in_code_line(last_text))
}

/// A new thing begins: never the rest of a line.
fn opens_something(text: &str) -> bool {
    text.starts_with("---")
        || text.starts_with("...")
        || text.starts_with("===")
        || text.starts_with("Call Trace")
        || text.starts_with("$ ")
}

fn in_code_line(text: &str) -> bool {
    text.starts_with("Code:")
}

fn is_code_bytes(text: &str) -> bool {
    text.split(' ').all(|w| {
        let w = w.trim_matches(['<', '>', '(', ')']);
        matches!(w.len(), 2 | 4 | 8) && w.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn ends_in_register_name(text: &str) -> bool {
    let last = text.rsplit(' ').next().unwrap_or("");
    last.len() >= 3
        && last.ends_with(':')
        && last.bytes().all(|b| b.is_ascii_alphanumeric() || b == b':' || b == b'_')
}

fn starts_with_hex(text: &str) -> bool {
    let word = text.split([' ', '(']).next().unwrap_or("");
    word.len() >= 4 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

fn has_register(text: &str) -> bool {
    ["RAX:", "RSP:", "RDX:", "RBP:", "R10:", "R13:", "FS:", "CS:", "CR2:", "GS:"]
        .iter()
        .any(|r| text.contains(r))
}
