//! Records of fs/pstore to one log.
//!
//! A dump that does not fit into one record of its backend (EFI variables, ERST) is cut from its end: part 1 holds
//! the last lines. Decides by the heading of each record (`Oops#1 Part2`) which of them are of one dump, and puts
//! them in the order in which they were printed, however they were listed. Main function: [`join`].

use std::ops::Range;

use kolumbo_case::Gap;

/// Bytes of all records together; the largest backends keep far less.
pub(crate) const MAX_RECORDS: usize = 8 * 1024 * 1024;
/// Parts that are put together; a backend holds some hundred.
const MAX_PARTS: usize = 4096;

/// Why a kernel dumps its log, as a heading names it.
const REASONS: &[&str] =
    &["Panic", "Oops", "Emergency", "Shutdown", "Restart", "Halt", "Poweroff", "Unknown"];

/// One part of a dump.
#[derive(Debug)]
struct Part<'a> {
    /// `Oops#1`.
    dump: &'a str,
    number: u32,
    body: Range<usize>,
}

/// The first line of a record.
fn heading(line: &[u8]) -> Option<(&str, u32)> {
    let line = std::str::from_utf8(line.get(..line.len().min(64))?).ok()?.trim_end();
    let (dump, part) = line.split_once(" Part")?;
    let (reason, count) = dump.split_once('#')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let fits = REASONS.contains(&reason) && digits(count) && digits(part);
    Some((dump, part.parse().ok()?)).filter(|_| fits)
}

/// The input begins with a record of fs/pstore.
pub(crate) fn is_pstore(head: &[u8]) -> bool {
    head.split(|&b| b == b'\n').next().is_some_and(|line| heading(line).is_some())
}

/// The dumps in `records`, each in the order of its lines, without the headings, and what is missing. None where
/// there is but one part, or more than any backend holds: it is a log as it stands.
pub(crate) fn join(records: &[u8]) -> Option<(Vec<u8>, Vec<Gap>)> {
    let parts = parts(records)?;
    if parts.len() < 2 {
        return None;
    }
    let mut log = Vec::with_capacity(records.len() + parts.len());
    let mut gaps = Vec::new();
    for dump in dumps(parts) {
        gaps.extend(missing(&dump));
        for part in &dump {
            log.extend_from_slice(&records[part.body.clone()]);
            if log.last().is_some_and(|&b| b != b'\n') {
                log.push(b'\n');
            }
        }
    }
    Some((log, gaps))
}

/// None where there are more than [`MAX_PARTS`].
fn parts(records: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut at = 0;
    for line in records.split_inclusive(|&b| b == b'\n') {
        let begin = at;
        at += line.len();
        if let Some((dump, number)) = heading(line) {
            if let Some(last) = parts.last_mut() {
                last.body.end = begin;
            }
            parts.push(Part { dump, number, body: at..records.len() });
        }
        if parts.len() > MAX_PARTS {
            return None;
        }
    }
    Some(parts)
}

/// Neighbours of one name are one dump until a number comes again: another boot counts from the start.
fn dumps(parts: Vec<Part<'_>>) -> Vec<Vec<Part<'_>>> {
    let mut dumps: Vec<Vec<Part<'_>>> = Vec::new();
    for part in parts {
        let goes_on = dumps.last().is_some_and(|dump| {
            dump[0].dump == part.dump && dump.iter().all(|p| p.number != part.number)
        });
        match dumps.last_mut().filter(|_| goes_on) {
            Some(dump) => dump.push(part),
            None => dumps.push(vec![part]),
        }
    }
    for dump in &mut dumps {
        dump.sort_by_key(|part| std::cmp::Reverse(part.number));
    }
    dumps
}

/// Parts between the first and the last one that are not there.
fn missing(dump: &[Part<'_>]) -> Option<Gap> {
    let highest = dump.first()?.number;
    let count = highest.checked_sub(u32::try_from(dump.len()).unwrap_or(u32::MAX))?;
    let name = dump[0].dump;
    let what = format!("{count} of {highest} parts of {name} are missing: the log has holes");
    (count > 0).then_some(Gap { what, span: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(records: &str) -> (String, usize) {
        let (log, gaps) = join(records.as_bytes()).unwrap();
        (String::from_utf8(log).unwrap(), gaps.len())
    }

    #[test]
    fn headings() {
        assert_eq!(heading(b"Oops#1 Part12\n"), Some(("Oops#1", 12)));
        assert_eq!(heading(b"Panic#2 Part1\r\n"), Some(("Panic#2", 1)));
        for line in ["Oops#1", "Oops#1 Part", "Oops#x Part1", "Oops: 0000 [#1] Part1", "", "Part1"]
        {
            assert_eq!(heading(line.as_bytes()), None, "{line}");
        }
        assert!(is_pstore(b"Panic#1 Part3\n<4>[    1.0] x\n"));
        assert!(!is_pstore(b"[    1.0] Panic#1 Part3\n"));
    }

    #[test]
    fn parts_come_in_the_order_of_their_lines() {
        let (one, two, three) = ("Oops#1 Part1\nc\n", "Oops#1 Part2\nb", "Oops#1 Part3\na\n");
        for records in [
            format!("{one}{two}\n{three}"),
            format!("{three}{one}{two}"),
            format!("{three}{two}\n{one}"),
        ] {
            assert_eq!(joined(&records), ("a\nb\nc\n".into(), 0), "{records}");
        }
        assert_eq!(joined(&format!("{three}{one}")), ("a\nc\n".into(), 1));
        // A panic behind an oops is another dump, and so is the same name from the next boot.
        assert_eq!(joined(&format!("{one}{three}Panic#2 Part1\nd\n")).0, "a\nc\nd\n");
        assert_eq!(joined(&format!("{one}{two}\n{one}{two}")).0, "b\nc\nb\nc\n");
        assert!(join(one.as_bytes()).is_none());
        assert!(join(one.repeat(MAX_PARTS).as_bytes()).is_some());
        assert!(join(one.repeat(MAX_PARTS + 1).as_bytes()).is_none());
    }
}
