//! What the guest is: one line.
//!
//! Decides where each fact is read and what stands in for it on a kernel that lacks the file. A
//! fact that cannot be had is left out.

use core::ffi::CStr;

use crate::line::Line;
use crate::{sys, words};

const VULNERABILITIES: &CStr = c"/sys/devices/system/cpu/vulnerabilities";
/// Symbols come in the order of their addresses and the start of the text is among the first; the
/// whole list has megabytes, which a translated guest takes a second to print.
const SYMBOLS_READ: usize = 1 << 20;

pub fn report(boot_ms: u64) {
    let mut buffer = [0u8; 8192];
    let mut line = Line::new(words::FACTS);
    if let Ok(names) = sys::uname() {
        line.text("release", until_nul(&names[2]));
        line.text("version", until_nul(&names[3]));
        line.text("machine", until_nul(&names[4]));
    }
    for (key, path) in [("proc_version", c"/proc/version"), ("cmdline", c"/proc/cmdline")] {
        if let Ok(text) = sys::read_file(path, &mut buffer) {
            line.text(key, text.trim_ascii());
        }
    }
    line.number("cpus_online", u64::from(cpus_online(&mut buffer)));
    line.object("vulnerabilities", |line| vulnerabilities(line, &mut buffer));
    if let Some(taint) = taint() {
        line.number("taint", taint);
    }
    line.number("boot_ms", boot_ms);
    line.number("text", text_address().unwrap_or(0));
    line.say();
}

/// The kernel's taint flags.
pub fn taint() -> Option<u64> {
    let mut buffer = [0u8; 32];
    number(sys::read_file(c"/proc/sys/kernel/tainted", &mut buffer).ok()?.trim_ascii())
}

/// A decimal number that takes up the whole text.
pub fn number(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

fn cpus_online(buffer: &mut [u8]) -> u32 {
    sys::read_file(c"/sys/devices/system/cpu/online", buffer)
        .ok()
        .and_then(|list| count_list(list.trim_ascii()))
        .or_else(|| sys::cpus_allowed().ok())
        .unwrap_or(1)
}

/// How many numbers a list such as `0-3,6` names.
fn count_list(list: &[u8]) -> Option<u32> {
    let mut count = 0u32;
    for range in list.split(|&b| b == b',') {
        let mut ends = range.splitn(2, |&b| b == b'-');
        let first = number(ends.next()?)?;
        let last = ends.next().map_or(Some(first), number)?;
        count = count.checked_add(u32::try_from(last.checked_sub(first)?.checked_add(1)?).ok()?)?;
    }
    Some(count)
}

fn vulnerabilities(line: &mut Line, buffer: &mut [u8]) {
    let prefix = VULNERABILITIES.to_bytes();
    // A kernel without the folder has no such facts, which the empty object says.
    let _ = sys::each_entry(VULNERABILITIES, |name| {
        let name = name.to_bytes();
        let mut path = [0u8; 256];
        let length = prefix.len() + 1 + name.len();
        if name.starts_with(b".") || length >= path.len() {
            return;
        }
        path[..prefix.len()].copy_from_slice(prefix);
        path[prefix.len()] = b'/';
        path[prefix.len() + 1..length].copy_from_slice(name);
        let Ok(path) = CStr::from_bytes_until_nul(&path) else {
            return;
        };
        if let Ok(text) = sys::read_file(path, buffer) {
            line.text_bytes(name, text.trim_ascii());
        }
    });
}

/// The address of `_text` or `_stext`, or none where the kernel does not tell.
fn text_address() -> Option<u64> {
    let fd = sys::open(c"/proc/kallsyms", sys::O_RDONLY).ok()?;
    let mut buffer = [0u8; 4096];
    let mut filled = 0;
    let mut total = 0;
    let mut found = None;
    while found.is_none() && total < SYMBOLS_READ {
        let Ok(n @ 1..) = sys::read(fd, &mut buffer[filled..]) else {
            break;
        };
        total += n;
        let bytes = &buffer[..filled + n];
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        found = bytes[..whole].split(|&b| b == b'\n').find_map(text_symbol);
        let rest = bytes.len() - whole;
        // A line longer than the buffer is no symbol that we look for.
        filled = if rest == buffer.len() { 0 } else { rest };
        buffer.copy_within(whole..whole + filled, 0);
    }
    sys::close(fd);
    found
}

fn text_symbol(line: &[u8]) -> Option<u64> {
    let mut fields = line.split(|&b| b == b' ');
    let address = fields.next()?;
    let name = fields.nth(1)?;
    if name != b"_text" && name != b"_stext" {
        return None;
    }
    u64::from_str_radix(core::str::from_utf8(address).ok()?, 16).ok()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(bytes)
}
