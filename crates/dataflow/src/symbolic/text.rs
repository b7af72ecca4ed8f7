//! Terms as a person would write them.
//!
//! Decides only how a term looks: `[gs:0xa1d8] + 0x15b88`. It may not know symbols; the caller names
//! what it knows through a callback.

use super::bits::mask;
use super::term::{Node, Origin, Segment, Term, Terms};

/// Terms nest no deeper than this in the text; what lies deeper is `...`.
const MAX_DEPTH: u32 = 6;

impl Terms {
    /// `term` in words; `name` may replace any part of it by something better.
    pub fn describe(&self, term: Term, name: &dyn Fn(Term) -> Option<String>) -> String {
        self.text(term, name, 0)
    }

    fn text(&self, term: Term, name: &dyn Fn(Term) -> Option<String>, depth: u32) -> String {
        if let Some(better) = name(term) {
            return better;
        }
        if depth > MAX_DEPTH {
            return "...".to_owned();
        }
        let of = |t: Term| self.text(t, name, depth + 1);
        let paired = |a: Term, sign: &str, b: Term| format!("({} {sign} {})", of(a), of(b));
        match self.node(term) {
            Node::Const(value) => number(value),
            Node::Unknown(_) => self.origin_text(term, name, depth),
            Node::Add(a, b) => match self.as_const(b) {
                Some(c) if (c as i64) < 0 && c != 1 << 63 => {
                    format!("({} - {})", of(a), number(c.wrapping_neg()))
                }
                _ => paired(a, "+", b),
            },
            Node::Sub(a, b) => paired(a, "-", b),
            Node::Mul(a, b) => paired(a, "*", b),
            Node::And(a, b) => match self.as_const(b) {
                Some(c) if c == mask(32) => format!("low32({})", of(a)),
                Some(c) if c == mask(16) => format!("low16({})", of(a)),
                Some(c) if c == mask(8) => format!("low8({})", of(a)),
                _ => paired(a, "&", b),
            },
            Node::Or(a, b) => paired(a, "|", b),
            Node::Xor(a, b) => match self.as_const(b) {
                Some(u64::MAX) => format!("~{}", of(a)),
                _ => paired(a, "^", b),
            },
            Node::Shl(a, by) => format!("({} << {by})", of(a)),
            Node::Shr(a, by) => format!("({} >> {by})", of(a)),
            Node::Sar(a, by) => format!("({} >>signed {by})", of(a)),
            Node::Sext(a, from) => format!("signed{from}({})", of(a)),
            Node::IsZero(a) => format!("({} == 0)", of(a)),
            Node::EvenParity(a) => format!("even_parity({})", of(a)),
            Node::Below(a, b) => paired(a, "<", b),
            Node::Choose(c, a, b) => format!("({} ? {} : {})", of(c), of(a), of(b)),
        }
    }

    fn origin_text(&self, term: Term, name: &dyn Fn(Term) -> Option<String>, depth: u32) -> String {
        let Some(unknown) = self.as_unknown(term) else { return "?".to_owned() };
        match unknown.origin {
            Origin::Initial(register) => format!("old {}", register.name().to_uppercase()),
            Origin::InitialFlag(flag) => format!("old {}", flag.name()),
            Origin::Load { address, segment, bytes } => {
                let prefix = match segment {
                    Segment::Flat => "",
                    Segment::Fs => "fs:",
                    Segment::Gs => "gs:",
                };
                let address = self.text(address, name, depth + 1);
                let address =
                    address.strip_prefix('(').and_then(|a| a.strip_suffix(')')).unwrap_or(&address);
                match bytes {
                    8 => format!("[{prefix}{address}]"),
                    _ => format!("u{}[{prefix}{address}]", u32::from(bytes) * 8),
                }
            }
            Origin::CalleeLeft(register) => {
                format!("{} as the callee left it", register.name().to_uppercase())
            }
            Origin::CodeBase => "code".to_owned(),
            Origin::Opaque => "unknown".to_owned(),
        }
    }
}

fn number(value: u64) -> String {
    if value < 10 { value.to_string() } else { format!("{value:#x}") }
}
