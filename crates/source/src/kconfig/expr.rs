//! The conditions of Kconfig: `A && !B || C = "x"`, with the three values n, m and y.
//!
//! Decides what a condition is worth under a configuration. Where a part of it is a macro that asks
//! a compiler, the answer is not known and the value is none. Main type: [`Expr`].

use std::cmp::{max, min};

/// Deepest nesting that is followed; the tree's own conditions have less than ten.
const DEEPEST: usize = 64;

/// n, m or y.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tristate {
    /// Absent.
    No,
    /// A module.
    Module,
    /// Built in.
    Yes,
}

impl Tristate {
    fn of(text: &str) -> Tristate {
        match text {
            "y" => Tristate::Yes,
            "m" => Tristate::Module,
            _ => Tristate::No,
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A symbol or a constant.
    Term(Term),
    /// `!a`
    Not(Box<Expr>),
    /// All of them.
    And(Vec<Expr>),
    /// One of them.
    Or(Vec<Expr>),
    /// `a = b` and its kin.
    Compare(Term, Comparison, Term),
    /// A macro, or text that is not understood: its value is not known.
    Unknown,
}

/// A word of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// An option.
    Symbol(String),
    /// `y`, `n`, `m`, a number or a quoted text.
    Constant(String),
}

/// How two words are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Term),
    Not,
    And,
    Or,
    Open,
    Close,
    Compare(Comparison),
    Macro,
}

impl Expr {
    /// Reads a condition. Whatever is not understood makes it [`Expr::Unknown`].
    pub fn parse(text: &str) -> Expr {
        let tokens = tokens(text);
        let mut reader = Reader { tokens: &tokens, at: 0 };
        match reader.or(0) {
            Some(expr) if reader.at == tokens.len() => expr,
            _ => Expr::Unknown,
        }
    }

    /// The value under a configuration; `value` gives the value of an option. None where it hangs
    /// on what is not known.
    pub fn value<'c>(&self, value: &dyn Fn(&str) -> Option<&'c str>) -> Option<Tristate> {
        match self {
            Expr::Unknown => None,
            Expr::Term(Term::Symbol(name)) => Some(Tristate::of(value(name).unwrap_or("n"))),
            Expr::Term(Term::Constant(text)) => Some(Tristate::of(text)),
            Expr::Not(inner) => inner.value(value).map(|v| match v {
                Tristate::No => Tristate::Yes,
                Tristate::Module => Tristate::Module,
                Tristate::Yes => Tristate::No,
            }),
            Expr::And(parts) => combined(parts.iter().map(|p| p.value(value)), Tristate::No, min),
            Expr::Or(parts) => combined(parts.iter().map(|p| p.value(value)), Tristate::Yes, max),
            Expr::Compare(a, how, b) => {
                let text = |term: &Term| match term {
                    Term::Symbol(name) => value(name).unwrap_or("n").trim_matches('"').to_owned(),
                    Term::Constant(text) => text.clone(),
                };
                let (a, b) = (text(a), text(b));
                let order = match (number(&a), number(&b)) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    _ => a.cmp(&b),
                };
                let holds = match how {
                    Comparison::Equal => order.is_eq(),
                    Comparison::Unequal => order.is_ne(),
                    Comparison::Less => order.is_lt(),
                    Comparison::LessOrEqual => order.is_le(),
                    Comparison::Greater => order.is_gt(),
                    Comparison::GreaterOrEqual => order.is_ge(),
                };
                Some(if holds { Tristate::Yes } else { Tristate::No })
            }
        }
    }

    /// Calls `seen` with every option that is named.
    pub fn symbols<'e>(&'e self, seen: &mut dyn FnMut(&'e str)) {
        match self {
            Expr::Term(Term::Symbol(name)) => seen(name),
            Expr::Term(Term::Constant(_)) | Expr::Unknown => {}
            Expr::Not(inner) => inner.symbols(seen),
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|p| p.symbols(seen)),
            Expr::Compare(a, _, b) => {
                for term in [a, b] {
                    if let Term::Symbol(name) = term {
                        seen(name);
                    }
                }
            }
        }
    }
}

/// The values put together by `pick`. Beside one that `settles` the whole, it does not matter what is
/// not known.
fn combined(
    values: impl Iterator<Item = Option<Tristate>>,
    settles: Tristate,
    pick: fn(Tristate, Tristate) -> Tristate,
) -> Option<Tristate> {
    let neutral = if settles == Tristate::No { Tristate::Yes } else { Tristate::No };
    let mut known = neutral;
    let mut unknown = false;
    for value in values {
        match value {
            Some(value) => known = pick(known, value),
            None => unknown = true,
        }
    }
    (known == settles || !unknown).then_some(known)
}

fn number(text: &str) -> Option<i128> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let two = rest.get(..2).unwrap_or("");
        let (token, length) = match (c, two) {
            (_, "&&") => (Token::And, 2),
            (_, "||") => (Token::Or, 2),
            (_, "!=") => (Token::Compare(Comparison::Unequal), 2),
            (_, "<=") => (Token::Compare(Comparison::LessOrEqual), 2),
            (_, ">=") => (Token::Compare(Comparison::GreaterOrEqual), 2),
            ('=', _) => (Token::Compare(Comparison::Equal), 1),
            ('<', _) => (Token::Compare(Comparison::Less), 1),
            ('>', _) => (Token::Compare(Comparison::Greater), 1),
            ('!', _) => (Token::Not, 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            ('$', _) => (Token::Macro, super::macro_length(rest)),
            ('"' | '\'', _) => {
                let inside = &rest[1..];
                let end = inside.find(c).unwrap_or(inside.len());
                let token = match &inside[..end] {
                    text if text.contains("$(") => Token::Macro,
                    text => Token::Word(Term::Constant(text.to_owned())),
                };
                (token, (end + 2).min(rest.len()))
            }
            _ => {
                let end = rest
                    .find(|c: char| {
                        !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-')
                    })
                    .unwrap_or(rest.len());
                if end == 0 {
                    // Nothing that Kconfig knows: the whole condition is unknown.
                    return vec![Token::Close];
                }
                let word = &rest[..end];
                let constant = matches!(word, "y" | "n" | "m") || number(word).is_some();
                let word = word.to_owned();
                let term = if constant { Term::Constant(word) } else { Term::Symbol(word) };
                (Token::Word(term), end)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens
}

struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
}

impl Reader<'_> {
    fn next_is(&mut self, token: &Token) -> bool {
        let is = self.tokens.get(self.at) == Some(token);
        self.at += usize::from(is);
        is
    }

    fn or(&mut self, depth: usize) -> Option<Expr> {
        let mut parts = vec![self.and(depth)?];
        while self.next_is(&Token::Or) {
            parts.push(self.and(depth)?);
        }
        Some(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self, depth: usize) -> Option<Expr> {
        let mut parts = vec![self.not(depth)?];
        while self.next_is(&Token::And) {
            parts.push(self.not(depth)?);
        }
        Some(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self, depth: usize) -> Option<Expr> {
        if depth > DEEPEST {
            return None;
        }
        if self.next_is(&Token::Not) {
            return Some(Expr::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.next_is(&Token::Open) {
            let inner = self.or(depth + 1)?;
            return self.next_is(&Token::Close).then_some(inner);
        }
        let first = match self.tokens.get(self.at)? {
            Token::Word(term) => Some(term.clone()),
            Token::Macro => None,
            _ => return None,
        };
        self.at += 1;
        let Some(&Token::Compare(how)) = self.tokens.get(self.at) else {
            return Some(first.map_or(Expr::Unknown, Expr::Term));
        };
        let second = match self.tokens.get(self.at + 1)? {
            Token::Word(term) => Some(term.clone()),
            Token::Macro => None,
            _ => return None,
        };
        self.at += 2;
        Some(match (first, second) {
            (Some(a), Some(b)) => Expr::Compare(a, how, b),
            _ => Expr::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<Tristate> {
        let options = [("A", "y"), ("M", "m"), ("V", "140006"), ("S", "\"x86\"")];
        Expr::parse(text)
            .value(&|name| options.iter().find(|(n, _)| *n == name).map(|(_, value)| *value))
    }

    #[test]
    fn conditions_are_worth_what_kconfig_says() {
        use Tristate::{Module, No, Yes};
        for (text, expected) in [
            ("A", Some(Yes)),
            ("!A", Some(No)),
            ("!M", Some(Module)),
            ("A && M", Some(Module)),
            ("B || M", Some(Module)),
            ("(A || B) && !(B && A)", Some(Yes)),
            ("M = m", Some(Yes)),
            ("B=n", Some(Yes)),
            ("B!=n", Some(No)),
            ("V >= 130000 && V < 0x30000", Some(Yes)),
            ("S = \"x86\"", Some(Yes)),
            ("$(success,test a = b)", None),
            ("B && $(cc-option,-m$(x))", Some(No)),
            ("A || $(cc-option,-m)", Some(Yes)),
            ("A &&", None),
            ("A B", None),
            ("", None),
            ("A && %", None),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn deep_nesting_ends() {
        assert_eq!(value(&"(".repeat(100_000)), None);
        assert_eq!(value(&"!".repeat(100_000)), None);
    }
}
