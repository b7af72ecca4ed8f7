//! Disassembly that somebody pasted into a text.
//!
//! Decides which lines are objdump's or gdb's and reads address, bytes and text of each. Lines of
//! source between them (`objdump -S`) do not end a listing. May not know instructions.

use kolumbo_case::{ListedInstruction, Listing};

use crate::text::Text;

/// Lines without an instruction that a listing may have in a row.
const MAX_GAP: usize = 12;
/// Instructions that one listing keeps, and listings that one text keeps.
const MAX_INSTRUCTIONS: usize = 4096;
const MAX_LISTINGS: usize = 256;

/// All listings of `text`, in order. Fewer than two instructions are no listing.
pub(crate) fn find_listings(text: &Text) -> Vec<Listing> {
    let mut listings: Vec<Listing> = Vec::new();
    let mut open: Option<Listing> = None;
    let mut last_at = 0;
    let mut named: Option<(usize, String)> = None;
    let close = |open: &mut Option<Listing>, listings: &mut Vec<Listing>| {
        if let Some(listing) = open.take().filter(|l| l.instructions.len() > 1)
            && listings.len() < MAX_LISTINGS
        {
            listings.push(listing);
        }
    };
    for (n, line) in text.lines.iter().enumerate() {
        let body = line.text.trim();
        if let Some(name) = header(body) {
            close(&mut open, &mut listings);
            named = Some((n, name));
            continue;
        }
        if let Some(name) = declaration(body) {
            named = Some((n, name));
            continue;
        }
        let Some(mut instruction) = parse(body) else { continue };
        instruction.span = text.span(n, n + 1);
        let continues = open.as_ref().is_some_and(|l| {
            l.quote_depth == line.depth
                && n - last_at <= MAX_GAP
                && l.instructions.len() < MAX_INSTRUCTIONS
                && l.instructions.last().is_some_and(|i| {
                    // Addresses grow; a jump back or far ahead is another function.
                    instruction.address >= i.address && instruction.address - i.address < 0x1000
                })
        });
        if !continues {
            close(&mut open, &mut listings);
            let function = named.take().filter(|(at, _)| n - at <= 6).map(|(_, name)| name);
            open = Some(Listing {
                function,
                quote_depth: line.depth,
                span: instruction.span,
                ..Default::default()
            });
        }
        last_at = n;
        if let Some(listing) = &mut open {
            listing.span.end = instruction.span.end;
            match listing.instructions.last_mut() {
                // objdump prints seven bytes a line and goes on in the next.
                Some(i)
                    if instruction.text.is_empty()
                        && instruction.address == i.address + i.bytes.len() as u64 =>
                {
                    i.bytes.extend_from_slice(&instruction.bytes);
                    i.span.end = instruction.span.end;
                }
                _ => listing.instructions.push(instruction),
            }
        }
    }
    close(&mut open, &mut listings);
    listings
}

/// `ffffffff81193200 <irq_work_tick>:` or `Dump of assembler code for function irq_work_tick:`.
fn header(line: &str) -> Option<String> {
    if let Some(name) = line.strip_prefix("Dump of assembler code for function ") {
        return Some(name.trim_end_matches(':').to_owned());
    }
    if let Some((address, rest)) = line.split_once(" <")
        && address.len() >= 4
        && address.bytes().all(|b| b.is_ascii_hexdigit())
        && let Some(name) = rest.strip_suffix(">:")
    {
        return Some(name.to_owned());
    }
    None
}

/// The C declaration that `objdump -S` prints before the first instruction. Inside a listing it is
/// that of an inlined function and names nothing.
fn declaration(line: &str) -> Option<String> {
    let (before, arguments) = line.split_once('(')?;
    let declares = arguments.ends_with(')')
        && !arguments.contains(';')
        && before.contains(' ')
        && line.len() < 200;
    let name = before.rsplit([' ', '*']).next()?;
    let identifier =
        |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let types = before.split([' ', '*']).filter(|w| !w.is_empty()).all(identifier);
    let keyword = ["if", "while", "for", "switch", "return"]
        .iter()
        .any(|k| before.starts_with(&format!("{k} ")) || name == *k);
    (declares && types && identifier(name) && !keyword).then(|| name.to_owned())
}

/// `ffffffff8119324a: 48 87 19 xchg %rbx,(%rcx)` and gdb's `0xffffffff8119324a <+74>: xchg ...`.
fn parse(line: &str) -> Option<ListedInstruction> {
    let line = line.strip_prefix("=> ").unwrap_or(line);
    if let Some(rest) = line.strip_prefix("0x") {
        let (address, rest) = rest.split_once(" <")?;
        let (_, text) = rest.split_once(">:")?;
        let address = hex(address)?;
        return Some(ListedInstruction { address, text: squeeze(text), ..Default::default() });
    }
    let (address, rest) = line.split_once(':')?;
    if address.len() < 3 {
        return None;
    }
    let address = hex(address)?;
    let mut bytes = Vec::new();
    let mut rest = rest.trim_start();
    while let Some(word) = rest.split_ascii_whitespace().next() {
        let Some(byte) = (word.len() == 2).then(|| u8::from_str_radix(word, 16).ok()).flatten()
        else {
            break;
        };
        if bytes.len() == 15 {
            break;
        }
        bytes.push(byte);
        rest = rest[word.len()..].trim_start();
    }
    (!bytes.is_empty()).then(|| ListedInstruction {
        address,
        bytes,
        text: squeeze(rest),
        ..Default::default()
    })
}

fn hex(text: &str) -> Option<u64> {
    let fits = (3..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u64::from_str_radix(text, 16).ok())?
}

fn squeeze(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::split;

    #[test]
    fn objdump_with_source() {
        let text = split(
            b"void irq_work_tick(void)\n{\nffffffff81193200: 55 push %rbp\n...\n\
              \twork = llist_entry(llnode, struct irq_work, llnode);\n\
              ffffffff81193256:\t66 2e 0f 1f 84 00 00\tnopw   %cs:0x0(%rax,%rax,1)\nffffffff8119325d:\t00 00 00\n\
              12:34: not one\n",
            0,
            0,
            false,
        );
        let listings = find_listings(&text);
        assert_eq!(listings.len(), 1);
        let listing = &listings[0];
        assert_eq!(listing.function.as_deref(), Some("irq_work_tick"));
        assert_eq!(listing.instructions.len(), 2);
        assert_eq!(listing.instructions[1].bytes.len(), 10);
        assert_eq!(listing.instructions[1].text, "nopw %cs:0x0(%rax,%rax,1)");
    }

    #[test]
    fn gdb() {
        let text = split(b"Dump of assembler code for function f:\n   0xffffffff81060240 <+0>:\tpush   %rbp\n=> 0xffffffff81060241 <+1>:\tret\n", 0, 0, false);
        let listings = find_listings(&text);
        assert_eq!(
            (listings[0].function.as_deref(), listings[0].instructions.len()),
            (Some("f"), 2)
        );
    }
}
