//! What stands before a kernel message on its line: log level, timestamp, caller.
//!
//! Decides where the message begins; knows every flavour of printk (`CONFIG_PRINTK_TIME`,
//! `CONFIG_PRINTK_CALLER`, level shown by `netconsole` or pstore) and the prefixes that `dmesg -T`
//! and `journalctl` put there instead. May not know what the message means. Main type: [`Prefix`].

use std::time::Duration;

/// The prefix of one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefix<'a> {
    /// Bytes of the line that belong to the prefix, the blanks behind it included.
    pub len: usize,
    /// Seconds since boot.
    pub time: Option<Duration>,
    /// `T123` or `C1`.
    pub caller: Option<&'a str>,
    /// 0 to 7.
    pub level: Option<u8>,
}

impl Prefix<'_> {
    /// The line carries a mark that only printk (or a reader of its buffer) writes.
    pub fn is_printk(&self) -> bool {
        self.time.is_some() || self.caller.is_some() || self.level.is_some()
    }
}

/// Reads the prefix of `line`. A line without one has `len == 0`; leading blanks of such a line
/// belong to the message, since indentation means something in it.
pub fn parse_prefix(line: &str) -> Prefix<'_> {
    let mut prefix = Prefix::default();
    let mut at = 0;
    let bytes = line.as_bytes();
    // `console_msg_format=syslog`, netconsole and pstore write the facility and level as one number.
    // A wrapped `Code:` line may begin with its trapping byte, `<48> 3d ...`: no level has two digits
    // and a blank behind it.
    if let Some(n) = bracketed(&line[at..], b'<', b'>', 4)
        && let Ok(v) = n.parse::<u16>()
        && (n.len() == 1 || !n.starts_with('0') && bytes.get(n.len() + 2) != Some(&b' '))
    {
        prefix.level = Some((v & 7) as u8);
        at += n.len() + 2;
    }
    if let Some(len) = journal_prefix(&line[at..]) {
        at += len;
        prefix.len = at;
    }
    let blanks = leading_blanks(&bytes[at..]);
    if let Some((len, time)) = timestamp(&line[at + blanks..]) {
        at += blanks + len;
        prefix.time = time;
        let gap = leading_blanks(&bytes[at..]);
        if let Some(inner) = bracketed(&line[at + gap..], b'[', b']', 24)
            && let Some(caller) = caller(inner)
        {
            prefix.caller = Some(caller);
            at += gap + inner.len() + 2;
        }
        // printk writes exactly one blank behind the bracket; more of them indent the message.
        at += usize::from(bytes.get(at) == Some(&b' '));
        prefix.len = at;
    } else if let Some(inner) = bracketed(&line[at + blanks..], b'[', b']', 24)
        && let Some(caller) = caller(inner)
    {
        prefix.caller = Some(caller);
        at += blanks + inner.len() + 2;
        at += usize::from(bytes.get(at) == Some(&b' '));
        prefix.len = at;
    } else if prefix.level.is_some() {
        prefix.len = prefix.len.max(at);
    }
    prefix
}

fn leading_blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// The inside of a bracket that opens `text`, when it closes within `max` bytes.
fn bracketed(text: &str, open: u8, close: u8, max: usize) -> Option<&str> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&open) {
        return None;
    }
    let end = bytes.iter().take(max + 2).position(|&b| b == close)?;
    text.get(1..end)
}

/// `T123`, `C1`, with the blanks that align them.
fn caller(inner: &str) -> Option<&str> {
    let name = inner.trim_start_matches(' ');
    let number = name.strip_prefix(['T', 'C'])?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// `[   12.345678]`, or the calendar time of `dmesg -T`, which says nothing about the boot.
fn timestamp(text: &str) -> Option<(usize, Option<Duration>)> {
    let inner = bracketed(text, b'[', b']', 32)?;
    let len = inner.len() + 2;
    let trimmed = inner.trim_start_matches(' ');
    if let Some(time) = seconds(trimmed) {
        return Some((len, Some(time)));
    }
    // "Sun Nov 22 01:46:47 2026"
    let mut words = trimmed.split_ascii_whitespace();
    let day = words.next()?;
    let _month = words.next()?;
    let _date = words.next()?;
    let clock = words.next()?;
    (day.len() == 3 && is_clock(clock)).then_some((len, None))
}

/// `12.345678`: since v2.6 six digits behind the point; readers print three or nine, too.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || !(3..=9).contains(&fraction.len()) {
        return None;
    }
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos = fraction.parse::<u32>().ok()? * 10u32.pow(9 - fraction.len() as u32);
    Some(Duration::new(whole.parse().ok()?, nanos))
}

fn is_clock(text: &str) -> bool {
    let b = text.as_bytes();
    b.len() >= 8 && b[2] == b':' && b[5] == b':' && b[..2].iter().all(u8::is_ascii_digit)
}

/// `Nov 22 01:46:47 host kernel: ` and `2026-11-22T01:46:47+0000 host kernel: `, as `journalctl -k`
/// and syslog files have them, and the bare ISO time of `dmesg --time-format=iso`.
fn journal_prefix(line: &str) -> Option<usize> {
    let head = line.get(..line.len().min(160)).unwrap_or(line);
    let first = head.split(' ').next()?;
    let iso = first.len() >= 19
        && first.as_bytes()[4] == b'-'
        && first.as_bytes()[10] == b'T'
        && first.is_ascii()
        && is_clock(&first[11..]);
    if iso && first.contains(',') {
        return Some(first.len() + 1).filter(|&n| n <= line.len());
    }
    let month = first.len() == 3
        && ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            .contains(&first);
    let syslog = month && head.split_ascii_whitespace().nth(2).is_some_and(is_clock);
    if !iso && !syslog {
        return None;
    }
    let at = head.find(" kernel: ")?;
    Some(at + " kernel: ".len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> &str {
        &line[parse_prefix(line).len..]
    }

    #[test]
    fn every_flavour_of_printk() {
        for line in [
            "[    1.234567] text",
            "[ 1.234567] text",
            "<4>[    1.234567] text",
            "<4>text",
            "[    1.234567][    T1] text",
            "[    1.234567][    C0] text",
            "[    1.234567] [  T123] text",
            "[  T123] text",
            "[Sun Nov 22 01:46:47 2026] text",
            "2026-11-22T01:46:47,123456+00:00 text",
            "Nov 22 01:46:47 box kernel: text",
            "Nov  2 01:46:47 box kernel: [    1.234567] text",
            "2026-11-22T01:46:47+0000 box kernel: text",
            "text",
        ] {
            assert_eq!(message(line), "text", "{line}");
        }
    }

    #[test]
    fn values_come_out() {
        let p = parse_prefix("<6>[   12.345678][  T123]  indented");
        assert_eq!(p.time, Some(Duration::new(12, 345_678_000)));
        assert_eq!(p.caller, Some("T123"));
        assert_eq!(p.level, Some(6));
        assert_eq!(message("<6>[   12.345678][  T123]  indented"), " indented");
    }

    #[test]
    fn what_only_looks_like_a_prefix_is_message() {
        for line in [
            "[<ffffffff81000000>] fn+0x1/0x2",
            "[drm] Initialized",
            " fn+0x1/0x2",
            "<IRQ>",
            "[1.2.3] x",
            "[",
            "<",
            "[T] x",
            "2026-11-22",
            "<48> 3d 00 f0",
            "<06> 3d",
            "Nov 22",
            "[é.123456] x",
        ] {
            assert_eq!(message(line), line);
        }
    }
}
