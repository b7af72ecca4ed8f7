//! The bytes of a commit become its parents, its author and its message, in UTF-8.
//!
//! Decides what counts as header and what as text, as git does it: text ends at a zero byte, and what
//! cannot be read in the encoding that a commit names is left as it is. Main type: [`Commit`].

use std::borrow::Cow;

use gix::ObjectId;

/// Longest message that is kept of a commit.
pub(super) const LONGEST_MESSAGE: usize = 1 << 20;
/// Longest author, which is one line of a person.
const LONGEST_AUTHOR: usize = 1 << 12;

/// One commit with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its name.
    pub id: String,
    /// Number of parents.
    pub parents: usize,
    /// `Name <mail>`; bytes that are not UTF-8 are replaced.
    pub author: String,
    /// The whole message.
    pub message: String,
    /// A digest over the names of the files that it changes; empty for merges and where nothing changes.
    pub files: String,
}

impl Commit {
    /// The first line of the message.
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or("")
    }
}

/// What history needs of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tree: ObjectId,
    pub(super) parents: Vec<ObjectId>,
    /// Seconds since 1970 at which it was committed; 0 where that is not said.
    pub(super) date: u64,
}

/// Reads what stands first in a commit; none where that is none.
pub(super) fn parse_head(raw: &[u8], hash: gix::hash::Kind) -> Option<Head> {
    let id = |line: &[u8]| {
        (line.len() == hash.len_in_hex()).then(|| ObjectId::from_hex(line).ok()).flatten()
    };
    let (line, mut rest) = split_line(raw);
    let tree = id(line.strip_prefix(b"tree ")?)?;
    let mut parents = Vec::new();
    while rest.starts_with(b"parent ") {
        let (line, behind) = split_line(rest);
        parents.push(id(&line[b"parent ".len()..])?);
        rest = behind;
    }
    let (author, rest) = split_line(rest);
    let (committer, _) = split_line(rest);
    let said = author.starts_with(b"author ") && committer.starts_with(b"committer ");
    Some(Head { tree, parents, date: if said { date(committer) } else { 0 } })
}

/// Author and message.
pub(super) fn parse_text(raw: &[u8]) -> (String, String) {
    let raw = &raw[..memchr::memchr(0, raw).unwrap_or(raw.len())];
    let text = in_utf8(raw);
    let mut rest = text.as_ref();
    let mut author: &[u8] = b"";
    while !rest.is_empty() {
        let (line, behind) = split_line(rest);
        rest = behind;
        if line.is_empty() {
            break;
        }
        author = line.strip_prefix(b"author ").unwrap_or(author);
    }
    (person(author), readable(rest, LONGEST_MESSAGE))
}

fn readable(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}

/// A line without its end, and what follows.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', text) {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, b""),
    }
}

/// `Name <mail>` without what stands behind it; empty names where there is no such thing.
fn person(line: &[u8]) -> String {
    let parts = || {
        let open = memchr::memchr(b'<', line)?;
        let close = open + 1 + memchr::memchr(b'>', &line[open + 1..])?;
        Some((line[..open].trim_ascii_end(), &line[open + 1..close]))
    };
    let (name, mail) = parts().unwrap_or_default();
    readable(&[name, b" <", mail, b">"].concat(), LONGEST_AUTHOR)
}

fn date(line: &[u8]) -> u64 {
    let behind = memchr::memrchr(b'>', line).map_or(&line[..0], |at| &line[at + 1..]);
    let digits = behind.trim_ascii_start().iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0u64, |date, digit| date.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// The commit in UTF-8, where it names another encoding that is known and holds to it.
fn in_utf8(raw: &[u8]) -> Cow<'_, [u8]> {
    let end = memchr::memmem::find(raw, b"\n\n").unwrap_or(raw.len());
    let mut lines = raw[..end].split(|b| *b == b'\n');
    let Some(name) = lines.find_map(|line| line.strip_prefix(b"encoding ")) else {
        return Cow::Borrowed(raw);
    };
    let decoded = match name.to_ascii_lowercase().as_slice() {
        // The names that browsers know mean windows-1252 with this, and git does not.
        b"iso-8859-1" | b"iso8859-1" | b"iso_8859-1" | b"iso88591" | b"latin-1" | b"latin1" => {
            Some(raw.iter().map(|byte| char::from(*byte)).collect::<String>())
        }
        _ => encoding_rs::Encoding::for_label(name)
            .and_then(|known| known.decode_without_bom_handling_and_without_replacement(raw))
            .map(Cow::into_owned),
    };
    decoded.map_or(Cow::Borrowed(raw), |text| Cow::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_commits() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let hash = gix::hash::Kind::Sha1;
        let raw = format!(
            "tree {a}\nparent {b}\nparent {a}\nauthor N <m> 1 +0000\ncommitter N <m>> 17 +0100\n\nx"
        );
        let head = parse_head(raw.as_bytes(), hash).unwrap();
        assert_eq!((head.tree.to_string(), head.date), (a.clone(), 17));
        assert_eq!(
            head.parents.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [b, a.clone()]
        );
        for none in ["", "tree", "tree 12\n", "parent x\n", &format!("tree {a}\nparent 12\n")] {
            assert_eq!(parse_head(none.as_bytes(), hash), None, "{none}");
        }
        let odd = format!("tree {a}\ncommitter N <m> 99999999999999999999999 +0\nauthor");
        assert_eq!(parse_head(odd.as_bytes(), hash).unwrap().date, 0);
        assert_eq!(parse_head(raw.as_bytes(), gix::hash::Kind::Sha256), None);
    }

    #[test]
    fn texts_of_commits() {
        let text = |raw: &[u8]| parse_text(raw);
        let own = |author: &str, message: &str| (author.to_owned(), message.to_owned());
        assert_eq!(text(b"tree x\nauthor A  B  <m> 1 +0\n\ns\n\nb\n"), own("A  B <m>", "s\n\nb\n"));
        assert_eq!(text(b"author <m> 1\n\n\nx\0y"), own(" <m>", "\nx"));
        assert_eq!(text(b"author A m> 1\nauthor B"), own(" <>", ""));
        assert_eq!(text(b""), own(" <>", ""));
        assert_eq!(
            text(b"author J\xf6rg <m>\nencoding ISO-8859-1\n\n\x80\xe4"),
            own("J\u{f6}rg <m>", "\u{80}\u{e4}")
        );
        assert_eq!(text(b"author A <m>\nencoding koi8-r\n\n\xc1"), own("A <m>", "\u{430}"));
        // Not what it says it is, or nothing that is known.
        assert_eq!(text(b"author A <m>\nencoding EUC-JP\n\n\xff"), own("A <m>", "\u{fffd}"));
        assert_eq!(text(b"author A <m>\nencoding nonsense\n\nx"), own("A <m>", "x"));
        let long = [b"author A <m>\n\n".as_slice(), &vec![b'x'; LONGEST_MESSAGE + 9]].concat();
        assert_eq!(text(&long).1.len(), LONGEST_MESSAGE);
    }
}
