//! Texts with command operators, compiled once.

use http::HeaderName;
use serde_json::Value;

use super::entry::Entry;
use super::operator::{Field, Operator};

/// A text that is not a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` that begins no operator.
    #[error("operator at byte {0} does not end")]
    Unterminated(usize),
    /// An operator that is not known.
    #[error("operator `{0}` is not known")]
    Unknown(Box<str>),
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Box<str>),
    Operator(Operator, Option<usize>),
}

/// A compiled format.
#[derive(Debug, Clone)]
pub struct Format {
    pieces: Vec<Piece>,
}

impl Format {
    /// Compiles a text; `%%` is a percent sign.
    pub fn new(text: &str) -> Result<Self, FormatError> {
        Self::compile(text, Err)
    }

    /// Compiles a text; what is not an operator has no value.
    pub fn lenient(text: &str) -> Self {
        let compiled = Self::compile(text, |_| Ok(Operator::Nothing));
        compiled.unwrap_or_else(|_: FormatError| Self { pieces: vec![Piece::Literal(text.into())] })
    }

    fn compile(
        text: &str,
        unknown: impl Fn(FormatError) -> Result<Operator, FormatError>,
    ) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let end = end_of_operator(rest).ok_or(FormatError::Unterminated(text.len() - rest.len() - 1))?;
            let (operator, length) = operator(&rest[..end]);
            let operator = match operator {
                Some(operator) => operator,
                None => unknown(FormatError::Unknown(rest[..end].into()))?,
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(Piece::Operator(operator, length));
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self { pieces })
    }

    /// The text itself, if it has no operator.
    pub fn literal(&self) -> Option<&str> {
        match &self.pieces[..] {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text with every operator's value in its place; `-` for those without.
    pub fn write(&self, entry: &Entry<'_>, out: &mut String) {
        self.write_or(entry, "-", out);
    }

    /// Appends the text with every operator's value in its place; `missing` for those without.
    pub fn write_or(&self, entry: &Entry<'_>, missing: &str, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Operator(operator, length) => {
                    let start = out.len();
                    if !operator.write(entry, out) {
                        out.push_str(missing);
                    }
                    if let Some(length) = length {
                        truncate(out, start + length);
                    }
                }
            }
        }
    }

    /// The value in a JSON log: one operator alone keeps its type, and is null when it has no value.
    pub(crate) fn json(&self, entry: &Entry<'_>) -> Value {
        let mut text = String::new();
        if let [Piece::Operator(operator, length)] = &self.pieces[..] {
            if !operator.write(entry, &mut text) {
                return Value::Null;
            }
            if operator.is_number()
                && let Ok(number) = text.parse::<u64>()
            {
                return number.into();
            }
            if let Some(length) = length {
                truncate(&mut text, *length);
            }
        } else {
            self.write(entry, &mut text);
        }
        Value::String(text)
    }

    pub(crate) fn headers(&self, request: &mut Vec<HeaderName>, response: &mut Vec<HeaderName>) {
        let add = |field: &Field, to: &mut Vec<HeaderName>| {
            if let Field::Name(name) = field {
                to.push(name.clone());
            }
        };
        for piece in &self.pieces {
            match piece {
                Piece::Operator(
                    Operator::Request(main, other) | Operator::RequestWithoutQuery(main, other),
                    _,
                ) => {
                    add(main, request);
                    other.iter().for_each(|field| add(field, request));
                }
                Piece::Operator(Operator::Response(main, other), _) => {
                    add(main, response);
                    other.iter().for_each(|field| add(field, response));
                }
                _ => {}
            }
        }
    }
}

/// The percent sign that ends an operator: not one within its parentheses.
fn end_of_operator(text: &str) -> Option<usize> {
    let from = match (text.find('('), text.find('%')) {
        (Some(open), Some(percent)) if open < percent => text.find(')')?,
        _ => 0,
    };
    text[from..].find('%').map(|at| from + at)
}

fn operator(text: &str) -> (Option<Operator>, Option<usize>) {
    let (text, length) = match text.rsplit_once(':') {
        Some((before, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (before, digits.parse().ok())
        }
        _ => (text, None),
    };
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')),
        None => (text, None),
    };
    (Operator::parse(name, arguments), length)
}

fn truncate(text: &mut String, length: usize) {
    if text.len() > length {
        let end = (0..=length).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}
