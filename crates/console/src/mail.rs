//! Mails as people really send them.
//!
//! Decides what is a mail (RFC 5322, mbox, or the text of a web archive), undoes MIME, and hands out
//! each part as bytes. May not know kernels. Main item: [`for_each_part`].

use std::io::Read as _;

use kolumbo_case::{Gap, InputPart, MailFacts};
use mail_parser::{MessageParser, MimeHeaders as _, PartType};

/// Bytes of a mailbox that are read; a longer one is a gap.
pub(crate) const MAX_MAIL: usize = 6 * 1024 * 1024;
/// Bytes of one decoded part.
const MAX_PART: usize = 4 * 1024 * 1024;
/// Parts of one input.
const MAX_PARTS: usize = 256;

/// Headers and boundaries of one mail.
const MAX_STRUCTURE: usize = 20_000;

/// One part of a mail, decoded.
pub(crate) struct Part {
    /// What it is.
    pub facts: InputPart,
    /// Its bytes; none where they stand in the input as they are, at the given range.
    pub bytes: Vec<u8>,
}

/// How an input is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// Not a mail.
    None,
    /// Headers, an empty line, a body that may be encoded.
    Message,
    /// Messages behind `From ` lines.
    Mbox,
    /// The text of a web archive, or quoted text without headers: quoting and wrapping, no MIME.
    Text,
}

/// Decides from the first bytes.
pub(crate) fn wrapping(head: &[u8]) -> Wrapping {
    let head = &head[..head.len().min(64 * 1024)];
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines().map(str::trim_end);
    let first = lines.clone().find(|l| !l.is_empty()).unwrap_or("");
    if first.starts_with("From ") && text.contains("\nDate: ") && text.contains(':') {
        return Wrapping::Mbox;
    }
    let known = [
        "From: ",
        "To: ",
        "Subject: ",
        "Date: ",
        "Message-ID: ",
        "Message-Id: ",
        "Received: ",
        "Return-Path: ",
        "Delivered-To: ",
        "MIME-Version: ",
        "Cc: ",
    ];
    let is_header = |l: &str| known.iter().any(|k| l.starts_with(k));
    let headers = text
        .lines()
        .map(str::trim_end)
        .take_while(|l| !l.is_empty())
        .filter(|l| is_header(l))
        .count();
    if headers >= 3
        && (is_header(first)
            || first.split(' ').next().is_some_and(|w| w.ends_with(':') && w.len() > 2))
    {
        return Wrapping::Message;
    }
    // A web archive prints some of the headers somewhere at the top.
    let top: Vec<&str> = lines.by_ref().take(40).collect();
    if top.iter().any(|l| l.starts_with("From: ")) && top.iter().any(|l| l.starts_with("Date: ")) {
        return Wrapping::Text;
    }
    let all = text.lines().take(2000);
    let (quoted, total) = all.fold((0, 0), |(q, t), l| {
        (q + usize::from(l.starts_with("> ") || l.starts_with(">>")), t + 1)
    });
    if total > 4 && quoted * 3 > total { Wrapping::Text } else { Wrapping::None }
}

/// Hands out the parts of a mail or of each mail in a mailbox, one after the other.
pub(crate) fn for_each_part(
    bytes: &[u8],
    wrapping: Wrapping,
    gaps: &mut Vec<Gap>,
    sink: &mut impl FnMut(Part),
) {
    let mut count = 0;
    for message in messages(bytes, wrapping) {
        if count >= MAX_PARTS {
            gaps.push(gap("the mailbox has more parts than are read".into()));
            break;
        }
        one(message, gaps, &mut |part| {
            count += 1;
            sink(part);
            count < MAX_PARTS
        });
    }
}

/// Whether a mail is one that the parser can be trusted with: what it keeps for each header and for
/// each part is many times as large as the shortest of them.
fn is_sane(bytes: &[u8]) -> bool {
    let mut in_header = true;
    let mut special = 0;
    for line in bytes.split(|&b| b == b'\n') {
        in_header &= !line.trim_ascii().is_empty();
        special += usize::from(in_header || line.starts_with(b"--"));
        if special > MAX_STRUCTURE {
            return false;
        }
    }
    true
}

fn gap(what: String) -> Gap {
    Gap { what, span: None }
}

/// Cuts a mailbox at its `From ` lines.
fn messages(bytes: &[u8], wrapping: Wrapping) -> Vec<&[u8]> {
    if wrapping != Wrapping::Mbox {
        return vec![bytes];
    }
    let mut starts: Vec<usize> =
        memchr::memmem::find_iter(bytes, b"\nFrom ").map(|n| n + 1).collect();
    if bytes.starts_with(b"From ") {
        starts.insert(0, 0);
    }
    starts.push(bytes.len());
    starts.windows(2).map(|w| &bytes[w[0]..w[1]]).map(behind_from_line).collect()
}

fn behind_from_line(message: &[u8]) -> &[u8] {
    let line = memchr::memchr(b'\n', message).map_or(message.len(), |n| n + 1);
    if message.starts_with(b"From ") { &message[line..] } else { message }
}

/// Hands out the parts of one mail until the sink has enough.
fn one(bytes: &[u8], gaps: &mut Vec<Gap>, sink: &mut impl FnMut(Part) -> bool) {
    let parsed = is_sane(bytes).then(|| MessageParser::default().parse(bytes)).flatten();
    let Some(message) = parsed else {
        gaps.push(gap("a mail could not be parsed; its text was read as it is".into()));
        let facts =
            InputPart { name: "raw mail".into(), encoding: "raw".into(), ..Default::default() };
        sink(Part { facts, bytes: bytes[..bytes.len().min(MAX_PART)].to_vec() });
        return;
    };
    let address = |a: Option<&mail_parser::Address<'_>>| {
        let first = a.and_then(|a| a.first());
        first
            .map(|a| match (a.name(), a.address()) {
                (Some(name), Some(address)) => format!("{name} <{address}>"),
                (name, address) => name.or(address).unwrap_or_default().to_owned(),
            })
            .unwrap_or_default()
    };
    let mail = MailFacts {
        subject: message.subject().unwrap_or_default().to_owned(),
        from: address(message.from()),
        date: message.date().map(|d| d.to_rfc3339()).unwrap_or_default(),
        message_id: message.message_id().unwrap_or_default().to_owned(),
    };
    let has_text = message.parts.iter().any(|p| matches!(p.body, PartType::Text(_)));
    for (n, part) in message.parts.iter().enumerate() {
        let (mut bytes, mut encoding) = match &part.body {
            PartType::Text(text) => {
                (text.as_bytes().to_vec(), format!("{:?}", part.encoding).to_lowercase())
            }
            PartType::Html(_) if has_text => continue,
            PartType::Html(html) => {
                (mail_parser::decoders::html::html_to_text(html).into_bytes(), "html".to_owned())
            }
            PartType::Binary(b) | PartType::InlineBinary(b) => {
                (b.to_vec(), format!("{:?}", part.encoding).to_lowercase())
            }
            PartType::Message(_) | PartType::Multipart(_) => continue,
        };
        let name = part.attachment_name().map_or_else(|| format!("body {n}"), str::to_owned);
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            let limited = flate2::read::MultiGzDecoder::new(&bytes[..])
                .take(MAX_PART as u64 + 1)
                .read_to_end(&mut plain);
            if limited.is_err() {
                gaps.push(gap(format!(
                    "the attachment '{name}' is damaged: what could be unpacked was read"
                )));
            }
            bytes = plain;
            encoding.push_str("+gzip");
        }
        let is_text = !bytes.iter().take(4096).any(|&b| b == 0);
        if !is_text {
            gaps.push(gap(format!("the attachment '{name}' is not text and was not read")));
            continue;
        }
        if bytes.len() > MAX_PART {
            gaps.push(gap(format!(
                "the part '{name}' is longer than {MAX_PART} bytes; the rest was not read"
            )));
            bytes.truncate(MAX_PART);
        }
        let facts = InputPart { name, encoding, len: bytes.len() as u64, mail: Some(mail.clone()) };
        if !sink(Part { facts, bytes }) {
            return;
        }
    }
}
