//! One line of a trace to a place in the code.
//!
//! Decides whether a line is a stack frame or a program counter and reads it, in every syntax that
//! the kernel has used since v2.6 on x86, arm64, arm, riscv, powerpc and s390, and as
//! `decode_stacktrace.sh` or a symboliser left it. May not know which frame matters. Main type:
//! [`ParsedFrame`].

use kolumbo_case::CodePlace;

/// A frame as its line says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedFrame {
    /// Function, offset, size, module, file and line.
    pub place: CodePlace,
    /// No `?` stood before it and no `(unreliable)` behind it.
    pub reliable: bool,
    /// The symboliser says that it was inlined into the next frame.
    pub inlined: bool,
    /// arm names the function that was called as well: that one is the frame a title looks at.
    pub callee: Option<String>,
}

impl ParsedFrame {
    /// The function without the suffixes that compilers add (`.isra.0`, `.cold`, `.constprop.3`).
    pub fn function(&self) -> &str {
        bare_function(self.callee.as_deref().or(self.place.function.as_deref()).unwrap_or(""))
    }
}

/// The name without what a compiler put behind a dot.
pub fn bare_function(name: &str) -> &str {
    let name = mangled(name);
    match name.find('.') {
        Some(dot) if dot > 0 => &name[..dot],
        _ => name,
    }
}

/// The last identifier of a mangled C++ or Rust name (`_ZN4core3fmt5write17h..E`, `_RNvNtC.._4core3fmt5write`);
/// any other name as it is. Generic arguments and types are dropped: a title names a function.
fn mangled(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("_Z").or_else(|| name.strip_prefix("_R")) else {
        return name;
    };
    if let Some(last) = rust_path(rest).filter(|_| name.starts_with("_R")) {
        return last;
    }
    let mut last = name;
    let mut at = rest.bytes().position(|b| b.is_ascii_digit()).unwrap_or(rest.len());
    while at < rest.len() {
        let digits = rest[at..].bytes().take_while(u8::is_ascii_digit).count();
        let Ok(len) = rest[at..at + digits].parse::<usize>() else { break };
        let begin = at + digits + usize::from(rest[at + digits..].starts_with('_'));
        let Some(word) = begin.checked_add(len).and_then(|end| rest.get(begin..end)) else { break };
        let is_hash =
            len == 17 && word.starts_with('h') && word[1..].bytes().all(|b| b.is_ascii_hexdigit());
        if len == 0 || is_hash {
            break;
        }
        last = word;
        at = begin + len;
        if !rest[at..].starts_with(|c: char| c.is_ascii_digit()) {
            break;
        }
    }
    last
}

/// The last identifier of a plain path in Rust's v0 mangling, whose crate has a hash before its name
/// (`NvNtCs43vyB533jt3_4core9panicking9panic_fmt`); none for implementations of traits.
fn rust_path(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('I').unwrap_or(text);
    let mut left = 1;
    while let Some(inner) = rest.strip_prefix('N') {
        rest = inner.get(1..)?;
        left += 1;
    }
    rest = rest.strip_prefix('C')?;
    let mut last = None;
    while left > 0 {
        if let Some(hash) = rest.strip_prefix('s') {
            rest = hash.split_once('_')?.1;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let len: usize = rest[..digits].parse().ok()?;
        let begin = digits + usize::from(rest[digits..].starts_with('_'));
        last = Some(rest.get(begin..begin.checked_add(len)?)?);
        rest = &rest[begin + len..];
        left -= 1;
    }
    last.filter(|word| !word.is_empty())
}

/// Reads a frame from a message, or none if it is not one.
pub fn parse_frame(line: &str) -> Option<ParsedFrame> {
    let mut rest = line.trim();
    // Old x86 kernels print the first frame behind the stack's name: "<IRQ>  [<ffffffff81000000>] fn".
    if let Some(end) = stack_mark(rest) {
        rest = rest[end..].trim_start();
        // "<TASK>" alone is no frame, nor is "<IRQ> fn" of a mail that lost the line end.
    }
    let mut frame = ParsedFrame { reliable: true, ..Default::default() };
    if let Some(behind) = rest.strip_prefix('#') {
        // vmcoreinfo style "#0 [..] fn at .." belongs to other tools.
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            return None;
        }
    }
    let mut addresses = 0;
    let mut bracketed_inline = false;
    loop {
        if let Some(behind) = rest.strip_prefix("? ") {
            frame.reliable = false;
            rest = behind.trim_start();
        } else if let Some((address, behind)) = address_group(rest) {
            if addresses >= 2 {
                return None;
            }
            addresses += 1;
            bracketed_inline |= address.is_none();
            frame.place.address = address.or(frame.place.address);
            rest = behind.trim_start();
        } else {
            break;
        }
    }
    if let Some(found) = arm_frame(rest, addresses) {
        let reliable = frame.reliable;
        frame = found;
        frame.reliable = reliable;
        return Some(frame);
    }
    // s390: "([<0000000000112f2e>] show_stack+0x1a6/0x1f0)".
    let closed = rest.strip_suffix(')').filter(|_| line.trim().starts_with('('));
    let rest = closed.unwrap_or(rest);
    let behind = symbol(rest, &mut frame.place)?;
    trailer(behind, &mut frame, bracketed_inline)?;
    Some(frame)
}

/// A program counter line (`RIP: 0010:fn+0x1/0x2`, `pc : fn+...`, `PC is at`, `NIP [...]`, `epc :`,
/// `IP: [<...>] fn`) to its place; the second value tells that it is user mode.
pub fn parse_pc(line: &str) -> Option<(CodePlace, bool)> {
    let line = line.trim();
    let (name, rest) =
        PC_NAMES.iter().find_map(|name| line.strip_prefix(name).map(|rest| (*name, rest)))?;
    let mut rest = rest.trim_start();
    let mut user = false;
    if name == "RIP:" || name == "EIP:" {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits == 4 && rest[digits..].starts_with(':') {
            user = u16::from_str_radix(&rest[..digits], 16).is_ok_and(|cs| cs & 3 == 3);
            rest = rest[digits + 1..].trim_start();
        }
    }
    if rest.starts_with("(null)") {
        return Some((CodePlace { address: Some(0), ..Default::default() }, user));
    }
    let mut place = CodePlace::default();
    let mut groups = 0;
    while let Some((address, behind)) = address_group(rest) {
        place.address = address.or(place.address);
        rest = behind.trim_start();
        groups += 1;
        if groups == 2 {
            break;
        }
    }
    if let Some(hex) = rest.strip_prefix("0x") {
        let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        place.address = u64::from_str_radix(&hex[..digits], 16).ok().or(place.address);
        return place.address.map(|_| (place, user));
    }
    let address = place.address;
    user |= name.starts_with("User");
    // s390 has the symbol in parentheses.
    let closed = rest.strip_prefix('(').and_then(|r| r.strip_suffix(')'));
    let rest = closed.filter(|_| name.contains("PSW")).unwrap_or(rest);
    let mut frame = ParsedFrame { place, ..Default::default() };
    if let Some(behind) = symbol(rest, &mut frame.place)
        && trailer(behind, &mut frame, false).is_some()
    {
        return Some((frame.place, user));
    }
    address.map(|_| (CodePlace { address, ..Default::default() }, user))
}

static PC_NAMES: &[&str] = &[
    "RIP:",
    "EIP:",
    "IP:",
    "RIP ",
    "EIP ",
    "pc : ",
    "pc: ",
    "PC is at ",
    "NIP ",
    "epc : ",
    "epc: ",
    "epc   : ",
    "ERA: ",
    "--- interrupt: 700 at ",
    "Krnl PSW : ",
    "User PSW : ",
];

/// The byte behind `<IRQ>`, `</NMI>`, `<<EOE>>` and their like at the beginning of `text`.
pub fn stack_mark(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('<')?;
    let end = inner.bytes().take(24).position(|b| b == b'>')?;
    let name = inner[..end].trim_start_matches('<');
    let name = name.trim_start_matches('/');
    let known =
        matches!(name, "IRQ" | "EOI" | "NMI" | "TASK" | "SOFTIRQ" | "EOE" | "ENTRY_TRAMPOLINE")
            || name.starts_with('#');
    if !known {
        return None;
    }
    let double = inner.starts_with('<') && inner[end + 1..].starts_with('>');
    Some(end + 2 + usize::from(double))
}

/// `[<ffffffff81000000>]`, `[ffffffff81000000]`, `[<     inline     >]`, `<ffffffff81000000>` or a
/// bare number of at least eight digits.
fn address_group(text: &str) -> Option<(Option<u64>, &str)> {
    let bytes = text.as_bytes();
    let (open, close) = match bytes.first()? {
        b'[' if bytes.get(1) == Some(&b'<') => (2, ">]"),
        b'[' => (1, "]"),
        b'(' if bytes.get(1) == Some(&b'[') => return address_group(&text[1..]),
        _ => (0, ""),
    };
    let body = text.get(open..)?;
    let digits = body.bytes().take_while(u8::is_ascii_hexdigit).count();
    if open == 0 {
        let ends = body[digits..].starts_with(' ');
        let value = u64::from_str_radix(&body[..digits], 16).ok();
        return ((8..=16).contains(&digits) && ends).then_some((value, &body[digits..]));
    }
    if digits == 0 {
        let end = body.find(close)?;
        let inner = body[..end].trim();
        return (inner == "inline").then_some((None, &body[end + close.len()..]));
    }
    if !(7..=16).contains(&digits) {
        return None;
    }
    let value = u64::from_str_radix(&body[..digits], 16).ok();
    body[digits..].strip_prefix(close).map(|behind| (value, behind))
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$')
}

/// `fn+0x1/0x2`; also `fn file.c:1` and `fn (file.c:1)`, which [`trailer`] checks.
fn symbol<'a>(text: &'a str, place: &mut CodePlace) -> Option<&'a str> {
    let mut len = text.bytes().take_while(|&b| is_name_byte(b)).count();
    // Rust's demangled names: "<kernel::sync::Arc<T> as Drop>::drop+0x1/0x2".
    if (len == 0 || text[len..].starts_with("::")) && text.len() < 512 {
        let plus = text.find("+0x")?;
        let name = &text[..plus];
        if !name.contains("::") || name.contains(['(', '[', '?']) {
            return None;
        }
        len = plus;
    }
    let name = text.get(..len)?;
    if name.is_empty() || name.len() > 512 || name.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    place.function = Some(name.to_owned());
    let behind = &text[len..];
    let Some(offset) = behind.strip_prefix("+0x") else {
        return Some(behind);
    };
    let digits = offset.bytes().take_while(u8::is_ascii_hexdigit).count();
    place.offset = Some(u64::from_str_radix(&offset[..digits], 16).ok()?);
    let behind = &offset[digits..];
    if let Some(size) = behind.strip_prefix("/0x") {
        let digits = size.bytes().take_while(u8::is_ascii_hexdigit).count();
        place.size = Some(u64::from_str_radix(&size[..digits], 16).ok()?);
        return Some(&size[digits..]);
    }
    Some(behind)
}

/// What may stand behind a symbol; none says that the line is prose after all.
fn trailer(behind: &str, frame: &mut ParsedFrame, bracketed_inline: bool) -> Option<()> {
    let mut rest = behind.strip_prefix("()").unwrap_or(behind).trim();
    let mut placed = frame.place.offset.is_some();
    if !placed && rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']')?;
            let inside = &inner[..end];
            rest = inner[end + 1..].trim_start();
            if inside == "inline" {
                frame.inlined = true;
                continue;
            }
            if !placed {
                return None;
            }
            module(inside, &mut frame.place);
        } else if let Some(inner) = rest.strip_prefix('(') {
            let end = inner.find(')')?;
            let inside = &inner[..end];
            rest = inner[end + 1..].trim_start().trim_start_matches(')').trim_start();
            match inside {
                "unreliable" => frame.reliable = false,
                "P" | "F" | "O" | "E" | "discriminator" => {}
                _ if source_place(inside.split(' ').next()?, &mut frame.place) => placed = true,
                _ if placed => {}
                _ => return None,
            }
        } else {
            let word = rest.split(' ').next()?;
            if source_place(word, &mut frame.place) {
                placed = true;
            } else if !placed {
                return None;
            }
            rest = rest[word.len()..].trim_start();
        }
    }
    frame.inlined |= bracketed_inline;
    placed.then_some(())
}

/// `ext4` or `ext4 0123456789abcdef0123`, with the module's taint letters: `nvidia(PO)`.
fn module(inside: &str, place: &mut CodePlace) {
    let mut words = inside.split(' ');
    let Some(first) = words.next() else { return };
    let name = first.split('(').next().unwrap_or(first);
    let is_build_id = |w: &str| w.len() >= 16 && w.bytes().all(|b| b.is_ascii_hexdigit());
    if is_build_id(name) {
        place.build_id = Some(name.to_owned());
        return;
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if name.is_empty() || !name.bytes().all(is_name) {
        return;
    }
    if !(name.starts_with('#') || matches!(name, "cannot")) {
        place.module = Some(name.to_owned());
    }
    place.build_id = words.next().filter(|w| is_build_id(w)).map(str::to_owned);
}

/// `net/core/dev.c:123`, `./include/linux/list.h:1:2`.
fn source_place(word: &str, place: &mut CodePlace) -> bool {
    let Some((file, number)) = word.split_once(':') else { return false };
    let known = [".c", ".h", ".S", ".rs", ".cc"].iter().any(|e| file.ends_with(e));
    let digits = number.split([':', ')']).next().unwrap_or(number);
    let Ok(line) = digits.parse::<u32>() else { return known && number.starts_with('?') };
    if !known {
        return false;
    }
    place.file = Some(file.to_owned());
    place.line = Some(line);
    true
}

/// arm: `[<80312e3c>] (fn) from [<803131a4>] (caller+0x18/0x1c)` and, since v5.15,
/// ` fn from caller+0x18/0x1c`. The place is the caller's, since only that has an offset.
fn arm_frame(rest: &str, addresses: usize) -> Option<ParsedFrame> {
    let (callee, behind) = rest.split_once(" from ")?;
    let callee = callee.trim_start_matches('(').trim_end_matches(')');
    // The module stands behind the name, within the parentheses where there are any.
    let callee = match callee.trim_end().strip_suffix(']').and_then(|c| c.rsplit_once(" [")) {
        Some((name, module)) if module.bytes().all(is_name_byte) => name.trim_end(),
        _ => callee,
    };
    let callee = callee.split('+').next()?;
    if callee.is_empty() || !callee.bytes().all(is_name_byte) {
        return None;
    }
    let mut frame =
        ParsedFrame { reliable: true, callee: Some(callee.to_owned()), ..Default::default() };
    let mut behind = behind.trim_start();
    if let Some((address, after)) = address_group(behind) {
        frame.place.address = address;
        behind = after.trim_start();
    } else if addresses > 0 {
        return None;
    }
    let inner = behind.strip_prefix('(').unwrap_or(behind);
    let after = symbol(inner, &mut frame.place)?;
    if let Some(inside) = after.trim().trim_end_matches(')').strip_prefix('[') {
        module(inside.trim_end_matches(']'), &mut frame.place);
    }
    if let Some(word) = after.trim().split(' ').next() {
        source_place(word.trim_matches(['(', ')']), &mut frame.place);
    }
    frame.place.offset.is_some().then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(line: &str) -> String {
        let Some(f) = parse_frame(line) else { return "-".into() };
        let p = &f.place;
        format!(
            "{} {:x?} {:x?} {} {}{}{}",
            p.function.as_deref().unwrap_or("?"),
            p.offset.unwrap_or(0),
            p.size.unwrap_or(0),
            p.module.as_deref().unwrap_or("-"),
            p.file.as_deref().map(|f| format!("{f}:{}", p.line.unwrap_or(0))).unwrap_or_default(),
            if f.reliable { "" } else { "?" },
            if f.inlined { "inline" } else { "" },
        )
    }

    #[test]
    fn frames_of_every_kernel() {
        for (line, expected) in [
            (" do_one+0x1f/0x2c0", "do_one 1f 2c0 - "),
            (" ? do_one+0x1f/0x2c0", "do_one 1f 2c0 - ?"),
            (" [<ffffffff81d90469>] dump_stack+0xc1/0x128", "dump_stack c1 128 - "),
            (" [<ffffffff81d90469>] ? dump_stack+0xc1/0x128", "dump_stack c1 128 - ?"),
            (" <IRQ>  [<ffffffff81d90469>] dump_stack+0xc1/0x128", "dump_stack c1 128 - "),
            (" fn.isra.5.part.6+0x74/0x80()", "fn.isra.5.part.6 74 80 - "),
            (" fn+0x1/0x2 [ext4]", "fn 1 2 ext4 "),
            (" fn+0x1/0x2 [ext4 0123456789abcdef0123]", "fn 1 2 ext4 "),
            (" fn+0x1/0x2 net/core/dev.c:12", "fn 1 2 - net/core/dev.c:12"),
            (
                " napi_poll net/core/dev.c:5202 [inline]",
                "napi_poll 0 0 - net/core/dev.c:5202inline",
            ),
            (" [<     inline     >] fn net/a.c:3", "fn 0 0 - net/a.c:3inline"),
            (
                " dump_stack (lib/dump_stack.c:52 (discriminator 1))",
                "dump_stack 0 0 - lib/dump_stack.c:52",
            ),
            (" fn (fs/ext4/inode.c:1) ext4", "fn 0 0 - fs/ext4/inode.c:1"),
            ("[<802b3ffc>] (a) from [<802e1324>] (b+0x6c/0x120)", "b 6c 120 - "),
            (" a from b+0x6c/0x120", "b 6c 120 - "),
            (" a [m] from b+0x6c/0x120", "b 6c 120 - "),
            ("[<802b3ffc>] (a [m]) from [<802e1324>] (b+0x6c/0x120)", "b 6c 120 - "),
            ("[c0000000f1f2fa40] [c00000000000b2b4] fn+0x24/0x60 (unreliable)", "fn 24 60 - ?"),
            ("([<0000000000112f2e>] show_stack+0x1a6/0x1f0)", "show_stack 1a6 1f0 - "),
            ("[<ffffffff80005c34>] fn+0x1c/0x1e", "fn 1c 1e - "),
            ("Call Trace:", "-"),
            ("hello world", "-"),
            ("CPU: 0 PID: 1 Comm: x", "-"),
            ("value+0xzz/0x1", "-"),
            (" 0x202", "-"),
            ("RIP: 0010:fn+0x1/0x2", "-"),
            ("<TASK>", "-"),
        ] {
            assert_eq!(short(line), expected, "{line}");
        }
    }

    #[test]
    fn mangled_names() {
        for (name, bare) in [
            ("_Z8fakeNameiii", "fakeName"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "write"),
            ("_RNvNtCs43vyB533jt3_4core9panicking9panic_fmt", "panic_fmt"),
            ("_RNvCscSpY9Juk0HT_7___rustc17rust_begin_unwind", "rust_begin_unwind"),
            ("_RINvNtCs43vyB533jt3_4core3ptr13drop_in_placeNtB4_3FooECs5_6kernel", "drop_in_place"),
            ("_RNvCs_99x", "_RNvCs_99x"),
            ("_R", "_R"),
            ("_Z99x", "_Z99x"),
            ("fn.isra.0", "fn"),
        ] {
            assert_eq!(bare_function(name), bare);
        }
    }

    #[test]
    fn program_counters() {
        for (line, function, user) in [
            ("RIP: 0010:fn+0x1/0x2", Some("fn"), false),
            ("RIP: 0010:[<ffffffff81d90469>]  [<ffffffff81d90469>] fn+0x1/0x2", Some("fn"), false),
            ("RIP: 0033:0x452cf9", None, true),
            ("RIP: 0023:[<00000000f7f07c79>]", None, true),
            ("EIP: fn+0x1/0x2", Some("fn"), false),
            ("IP: [<ffffffff81d90469>] fn+0x1/0x2", Some("fn"), false),
            ("pc : fn+0x1/0x2", Some("fn"), false),
            ("PC is at fn+0x1/0x2", Some("fn"), false),
            ("RIP: 0010:fn+0x1/0x2 net/a.c:1", Some("fn"), false),
            ("RIP: fn+0x1/0x2 RSP: ffff96dd9e403e58", Some("fn"), false),
            ("epc   : 80123456 fn+0x1/0x2", Some("fn"), false),
            ("   ERA: 9000000000201a5c fn+0x1/0x2", Some("fn"), false),
        ] {
            let (place, is_user) = parse_pc(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((place.function.as_deref(), is_user), (function, user), "{line}");
        }
        assert_eq!(
            parse_pc("pc : [<802b4048>]    lr : [<802e1324>]").unwrap().0.address,
            Some(0x802b4048)
        );
        assert_eq!(parse_pc("RIP: nonsense"), None);
    }
}
