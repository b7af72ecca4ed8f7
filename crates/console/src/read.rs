//! One input of any kind to everything that it says.
//!
//! Decides whether the input is a console, a journal, records of fs/pstore or a mail, packed or not, and hands it to whoever reads that.
//! Memory is bounded for all of them. Main type: [`Reader`]; [`read`] is the short form.

use std::io::Write as _;

use kolumbo_case::{Gap, InputPart, READ_FORMAT_VERSION, ReadResult, Span};

use crate::journal::{JournalReader, is_journal};
use crate::mail::{MAX_MAIL, Wrapping, for_each_part, wrapping};
use crate::pstore::{MAX_RECORDS, is_pstore, join};
use crate::stream::{ConsoleStream, read_text};
use crate::text::{MAX_LINES, split};

/// Bytes that decide what kind of input it is.
const SNIFF: usize = 64 * 1024;

/// What to look for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Only the first crash.
    pub first_only: bool,
}

/// Reads a whole input.
pub fn read(bytes: &[u8]) -> ReadResult {
    let mut reader = Reader::new(ReadOptions::default());
    reader.feed(bytes);
    reader.finish()
}

/// Reads an input piece by piece.
#[derive(Debug)]
pub struct Reader {
    options: ReadOptions,
    /// What is packed inside something packed is not unpacked again.
    may_unpack: bool,
    len: u64,
    gaps: Vec<Gap>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sniffing(Vec<u8>),
    Mail(Vec<u8>, Wrapping),
    Journal(Box<JournalReader>, Box<ConsoleStream>),
    Console(Box<ConsoleStream>),
    Records(Vec<u8>),
    Packed(Box<Packed>),
}

/// A gzip file on the way to the reader of what is in it.
#[derive(Debug)]
struct Packed {
    unpack: flate2::write::MultiGzDecoder<Vec<u8>>,
    inside: Reader,
    /// The data is damaged: what comes behind is lost.
    broken: bool,
}

/// Packed bytes that are unpacked at once: deflate makes at most a thousand bytes of one.
const PACKED_PIECE: usize = 4 * 1024;

impl Packed {
    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PACKED_PIECE) {
            if self.broken {
                return;
            }
            self.broken = self.unpack.write_all(piece).is_err();
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        self.inside.feed(self.unpack.get_ref());
        self.unpack.get_mut().clear();
    }

    fn finish(mut self) -> ReadResult {
        self.broken |= self.unpack.try_finish().is_err();
        self.pass_on();
        let mut result = self.inside.finish();
        if let Some(input) = result.parts.first_mut() {
            "gzip".clone_into(&mut input.encoding);
        }
        if self.broken {
            let what = "the gzip data is damaged or cut off: what could be unpacked was read";
            result.gaps.push(Gap { what: what.into(), span: None });
        }
        result
    }
}

impl Reader {
    /// A reader at the beginning of an input.
    pub fn new(options: ReadOptions) -> Self {
        let kind = Kind::Sniffing(Vec::new());
        Reader { options, may_unpack: true, len: 0, gaps: Vec::new(), kind }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        match &mut self.kind {
            Kind::Sniffing(head) => {
                let taken = bytes.len().min(SNIFF - head.len());
                head.extend_from_slice(&bytes[..taken]);
                if head.len() >= SNIFF {
                    self.decide();
                    self.pass_on(&bytes[taken..]);
                }
            }
            _ => self.pass_on(bytes),
        }
    }

    fn decide(&mut self) {
        let Kind::Sniffing(head) = &mut self.kind else { return };
        let head = std::mem::take(head);
        let first_only = self.options.first_only;
        if let Some((packer, unpack)) = packed_by(&head) {
            let what = format!(
                "the input is packed by {packer} and was read as it is: unpack it first, for example with '{unpack}'"
            );
            self.gaps.push(Gap { what, span: None });
        }
        let stream = Box::new(ConsoleStream::new(0, first_only));
        self.kind = match wrapping(&head) {
            _ if self.may_unpack && head.starts_with(&[0x1f, 0x8b, 8]) => {
                let inside = Reader { may_unpack: false, ..Reader::new(self.options) };
                let unpack = flate2::write::MultiGzDecoder::new(Vec::new());
                Kind::Packed(Box::new(Packed { unpack, inside, broken: false }))
            }
            // What a journal holds may look like a mail, but no mail begins with an object.
            _ if is_journal(&head) => Kind::Journal(Box::default(), stream),
            _ if is_pstore(&head) => Kind::Records(Vec::new()),
            Wrapping::None => Kind::Console(stream),
            kind => Kind::Mail(Vec::new(), kind),
        };
        self.pass_on(&head);
    }

    fn pass_on(&mut self, bytes: &[u8]) {
        match &mut self.kind {
            Kind::Sniffing(_) => {}
            Kind::Mail(held, _) => {
                if held.len() + bytes.len() > MAX_MAIL {
                    let what = format!(
                        "the mail is longer than {MAX_MAIL} bytes: it was read as plain text, without undoing quoting or MIME"
                    );
                    self.gaps.push(Gap { what, span: None });
                    self.kind = console(self.options, &[held, bytes]);
                    return;
                }
                held.extend_from_slice(bytes);
            }
            Kind::Records(held) => {
                if held.len() + bytes.len() > MAX_RECORDS {
                    let what = format!(
                        "records of pstore with more than {MAX_RECORDS} bytes: they were read as they stand"
                    );
                    self.gaps.push(Gap { what, span: None });
                    self.kind = console(self.options, &[held, bytes]);
                    return;
                }
                held.extend_from_slice(bytes);
            }
            Kind::Journal(journal, stream) => journal.feed(bytes, &mut |line| stream.feed(line)),
            Kind::Console(stream) => stream.feed(bytes),
            Kind::Packed(packed) => packed.feed(bytes),
        }
    }

    /// The input is over.
    pub fn finish(mut self) -> ReadResult {
        if matches!(self.kind, Kind::Sniffing(_)) {
            self.decide();
        }
        let input =
            InputPart { name: "input".into(), encoding: "7bit".into(), len: self.len, mail: None };
        let first_only = self.options.first_only;
        let mut result = match self.kind {
            Kind::Sniffing(_) => ReadResult::default(),
            Kind::Console(stream) => {
                ReadResult { format: "console".into(), parts: vec![input], ..stream.finish() }
            }
            Kind::Journal(mut journal, mut stream) => {
                journal.finish(&mut |line| stream.feed(line));
                let mut result = ReadResult { format: "journal-json".into(), ..stream.finish() };
                if journal.damaged > 0 {
                    let what = format!("{} journal entries could not be read", journal.damaged);
                    result.gaps.push(Gap { what, span: None });
                }
                let lines = InputPart {
                    name: "messages".into(),
                    encoding: "json".into(),
                    ..Default::default()
                };
                result.parts = vec![lines];
                result
            }
            Kind::Records(held) => read_records(&held, input, first_only),
            Kind::Packed(packed) => packed.finish(),
            Kind::Mail(bytes, kind) => read_mail(&bytes, kind, input, first_only),
        };
        result.read_version = READ_FORMAT_VERSION;
        result.gaps.extend(self.gaps);
        result
    }
}

/// The packer of an input that is not unpacked here, and a command that does it.
fn packed_by(head: &[u8]) -> Option<(&'static str, &'static str)> {
    [
        (&[0xfd, b'7', b'z', b'X', b'Z', 0][..], "xz", "xz -dc"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "zstd -dc"),
        (b"BZh", "bzip2", "bzip2 -dc"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4", "lz4 -dc"),
        (b"PK\x03\x04", "zip", "unzip -p"),
    ]
    .into_iter()
    .find(|(magic, ..)| head.starts_with(magic))
    .map(|(_, packer, unpack)| (packer, unpack))
}

/// A console that was held back so far.
fn console(options: ReadOptions, pieces: &[&[u8]]) -> Kind {
    let mut stream = Box::new(ConsoleStream::new(0, options.first_only));
    for piece in pieces {
        stream.feed(piece);
    }
    Kind::Console(stream)
}

/// Places in a log that was put together count there, not in the records.
fn read_records(bytes: &[u8], input: InputPart, first_only: bool) -> ReadResult {
    let mut stream = ConsoleStream::new(0, first_only);
    let Some((log, gaps)) = join(bytes) else {
        stream.feed(bytes);
        return ReadResult { format: "console".into(), parts: vec![input], ..stream.finish() };
    };
    stream.feed(&log);
    let mut result = ReadResult { format: "pstore".into(), ..stream.finish() };
    let (name, encoding) = ("log".into(), "pstore".into());
    result.parts = vec![InputPart { name, encoding, len: log.len() as u64, mail: None }];
    result.gaps.extend(gaps);
    result
}

fn read_mail(bytes: &[u8], kind: Wrapping, input: InputPart, first_only: bool) -> ReadResult {
    let mut result = ReadResult { format: "mail".into(), parts: vec![input], ..Default::default() };
    let add = |result: &mut ReadResult, bytes: &[u8], part: u32| {
        if first_only && !result.reports.is_empty() {
            return;
        }
        let text = split(bytes, 0, part, true);
        if let Some(at) = text.cut_at {
            let what = format!("the text has more than {MAX_LINES} lines; the rest was not read");
            let span = Span { start: at, end: bytes.len() as u64, part };
            result.gaps.push(Gap { what, span: Some(span) });
        }
        let found = read_text(&text, first_only, true);
        result.reports.extend(found.reports);
        result.boots.extend(found.boots);
        result.listings.extend(found.listings);
        result.gaps.extend(found.gaps);
    };
    if kind == Wrapping::Text {
        add(&mut result, bytes, 0);
        return result;
    }
    let mut gaps = Vec::new();
    for_each_part(bytes, kind, &mut gaps, &mut |part| {
        let index = u32::try_from(result.parts.len()).unwrap_or(u32::MAX);
        result.parts.push(part.facts);
        add(&mut result, &part.bytes, index);
    });
    result.gaps.extend(gaps);
    result
}
