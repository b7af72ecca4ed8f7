//! What the kernel's scripts/diffconfig prints, to the byte.
//!
//! The script reads more loosely than Kconfig does: each line loses its last character whether that
//! is a line end or not, and any line that ends in " is not set" names an option. That is kept here
//! and nowhere else, since people compare the output of both. Main function: [`script_diff`].

use std::collections::HashMap;

use thiserror::Error;

/// How changes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `-X v`, `+X v`, ` X a -> b`.
    Changes,
    /// `-m`: lines that `scripts/kconfig/merge_config.sh` takes.
    Merge,
}

/// A file that the script itself ends on with a traceback.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "line {line} of the {which} configuration begins with CONFIG_ and has no '=': scripts/diffconfig \
     ends there; leave --plain out to compare the rest"
)]
pub struct NoValue {
    /// `first` or `second`.
    pub which: &'static str,
    /// Counted from 1.
    pub line: usize,
}

/// The output for two files.
pub fn script_diff(old: &[u8], new: &[u8], form: Form) -> Result<Vec<u8>, NoValue> {
    let old = translated(old);
    let new = translated(new);
    let a = values(&old).map_err(|line| NoValue { which: "first", line })?;
    let b = values(&new).map_err(|line| NoValue { which: "second", line })?;
    let sorted = |keep: &dyn Fn(&[u8]) -> bool, of: &HashMap<&[u8], &[u8]>| {
        let mut names: Vec<Vec<u8>> =
            of.keys().copied().filter(|&k| keep(k)).map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        names
    };
    let mut out = Vec::new();
    for name in sorted(&|k| !b.contains_key(k), &a) {
        if form == Form::Changes {
            line(&mut out, &[b"-", &name, b" ", a[name.as_slice()]]);
        }
    }
    for name in sorted(&|k| b.get(k).is_some_and(|v| a[k] != *v), &a) {
        let (was, is) = (a[name.as_slice()], b[name.as_slice()]);
        match form {
            Form::Changes => line(&mut out, &[b" ", &name, b" ", was, b" -> ", is]),
            Form::Merge => merge(&mut out, &name, is),
        }
    }
    for name in sorted(&|k| !a.contains_key(k), &b) {
        let is = b[name.as_slice()];
        match form {
            Form::Changes => line(&mut out, &[b"+", &name, b" ", is]),
            Form::Merge => merge(&mut out, &name, is),
        }
    }
    Ok(out)
}

fn line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend(parts.iter().copied().flatten());
    out.push(b'\n');
}

fn merge(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    match value {
        b"" => {}
        b"n" => line(out, &[b"# CONFIG_", name, b" is not set"]),
        _ => line(out, &[b"CONFIG_", name, b"=", value]),
    }
}

/// Python's text files know three line ends.
fn translated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == b'\r' {
            at += usize::from(bytes.get(at) == Some(&b'\n'));
            out.push(b'\n');
        } else {
            out.push(byte);
        }
    }
    out
}

/// The dictionary that the script makes, or the number of the line that it ends on.
fn values(text: &[u8]) -> Result<HashMap<&[u8], &[u8]>, usize> {
    const NOT_SET: &[u8] = b" is not set";
    let mut values = HashMap::new();
    for (number, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
        let line = without_last(line);
        if let Some(rest) = line.strip_prefix(b"CONFIG_") {
            let at = rest.iter().position(|b| *b == b'=').ok_or(number + 1)?;
            values.insert(&rest[..at], &rest[at + 1..]);
        }
        if let Some(head) = line.strip_suffix(NOT_SET) {
            values.insert(behind(head, line, 9), b"n".as_slice());
        }
    }
    Ok(values)
}

/// Without the last character; a byte that belongs to no character counts as one.
fn without_last(line: &[u8]) -> &[u8] {
    let last = line.utf8_chunks().last().map_or(0, |chunk| match chunk.invalid() {
        [] => chunk.valid().chars().next_back().map_or(0, char::len_utf8),
        _ => 1,
    });
    &line[..line.len() - last]
}

/// `line[count:]` as far as `head` goes, in characters.
fn behind<'t>(head: &'t [u8], line: &'t [u8], count: usize) -> &'t [u8] {
    let mut at = 0;
    let mut seen = 0;
    for chunk in line.utf8_chunks() {
        let sizes = chunk.valid().chars().map(char::len_utf8);
        for size in sizes.chain(chunk.invalid().iter().map(|_| 1)) {
            if seen == count {
                return head.get(at..).unwrap_or_default();
            }
            at += size;
            seen += 1;
        }
    }
    head.get(at..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: &str, new: &str, form: Form) -> String {
        String::from_utf8(script_diff(old.as_bytes(), new.as_bytes(), form).unwrap()).unwrap()
    }

    #[test]
    fn removed_changed_added_in_this_order() {
        let old = "CONFIG_Z=y\nCONFIG_B=14\n# CONFIG_A is not set\nCONFIG_S=\"x\"\n";
        let new = "CONFIG_B=16\nCONFIG_A=y\n# CONFIG_N is not set\nCONFIG_S=\"x\"\n";
        assert_eq!(diff(old, new, Form::Changes), "-Z y\n A n -> y\n B 14 -> 16\n+N n\n");
        assert_eq!(diff(old, new, Form::Merge), "CONFIG_A=y\nCONFIG_B=16\n# CONFIG_N is not set\n");
    }

    #[test]
    fn the_scripts_oddities_are_kept() {
        // The last line has no end and loses a character of its value.
        assert_eq!(diff("CONFIG_A=yes\n", "CONFIG_A=yes", Form::Changes), " A yes -> ye\n");
        assert_eq!(diff("", " is not set\nfoo is not set\n", Form::Changes), "+ n\n");
        assert_eq!(diff("", "0123456789ab is not set\n", Form::Changes), "+9ab n\n");
        let failed = script_diff(b"", b"\nCONFIG_A\n", Form::Changes).unwrap_err();
        assert_eq!((failed.which, failed.line), ("second", 2));
    }
}
