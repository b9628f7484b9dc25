//! Matchers of strings, headers, query parameters, metadata and chance.

pub(crate) mod proto;

use crate::invalid::Invalid;
use crate::metadata::Metadata;
use http::HeaderName;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// Bytes a compiled regular expression may take; Envoy's default program size is far below it.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A regular expression that must match the whole text, compiled once, linear in the text's length.
#[derive(Clone, Debug)]
pub struct Regex {
    compiled: regex::Regex,
    source: Arc<str>,
}

/// How a text is compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StringPattern {
    /// Equal.
    Exact(Box<str>),
    /// Starts with.
    Prefix(Box<str>),
    /// Ends with.
    Suffix(Box<str>),
    /// Has it somewhere.
    Contains(Box<str>),
    /// The whole text matches.
    Regex(Regex),
}

/// A comparison of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StringMatch {
    /// How.
    pub pattern: StringPattern,
    /// ASCII case does not matter. Never set with a regular expression.
    pub ignore_case: bool,
}

/// Which part of a request a header matcher looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderKey {
    /// `:method`
    Method,
    /// `:authority`, also asked for as `host`.
    Authority,
    /// `:path`, with its query.
    Path,
    /// `:scheme`
    Scheme,
    /// An ordinary header.
    Name(#[serde(serialize_with = "crate::dump::display")] HeaderName),
}

/// What a header's value must be. Several values of one header are joined with a comma before comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderValueMatch {
    /// The header is there.
    Present,
    /// The text matches.
    String(StringMatch),
    /// A decimal integer in `start..end`.
    Range {
        /// First value that matches.
        start: i64,
        /// First value that no longer matches.
        end: i64,
    },
}

/// A condition on one header.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Which header.
    pub key: HeaderKey,
    /// What it must be.
    pub value: HeaderValueMatch,
    /// The condition holds when the match does not.
    pub invert: bool,
    /// A missing header is compared as an empty text; otherwise a missing header never matches, inverted or not
    /// (except under [`HeaderValueMatch::Present`]).
    pub treat_missing_as_empty: bool,
}

/// A condition on one query parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryMatch {
    /// Name of the parameter.
    pub name: Box<str>,
    /// What its first value must be; `None`: it only has to be there.
    pub value: Option<StringMatch>,
}

/// A chance, in parts of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fraction {
    /// Of a million, how many; never above a million.
    pub per_million: u32,
}

/// A condition on a value in dynamic metadata.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataMatch {
    /// Namespace of the metadata: the name of the filter that wrote it.
    pub filter: Box<str>,
    /// Keys from the namespace's struct down to the value.
    pub path: Vec<Box<str>>,
    /// What the value must be.
    pub value: ValueMatch,
    /// The condition holds when the match does not.
    pub invert: bool,
}

/// What a metadata value must be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// Null.
    Null,
    /// A number in the range `start..end`.
    Range {
        /// First value that matches.
        start: f64,
        /// First value that no longer matches.
        end: f64,
    },
    /// Exactly this number.
    Number(f64),
    /// A text.
    String(StringMatch),
    /// A truth value.
    Bool(bool),
    /// There (`true`) or not there (`false`).
    Present(bool),
    /// A list one of whose items matches.
    OneOf(Box<ValueMatch>),
    /// Any of these.
    Or(Vec<ValueMatch>),
}

/// A search and replacement by regular expression.
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    compiled: regex::Regex,
    source: Arc<str>,
    replacement: Box<str>,
}

// === impl Regex ===

impl Regex {
    /// Compiles `source`, RE2 syntax, to match whole texts only.
    pub fn new(source: &str) -> Result<Self, Invalid> {
        // It must stand on its own: `a)|(b` would end the group and escape the anchors.
        compile(source, source)?;
        let compiled = compile(&format!("^(?:{source})$"), source)?;
        Ok(Self { compiled, source: source.into() })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Serialize for Regex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

// === impl StringMatch ===

impl StringMatch {
    /// A case-sensitive comparison for equality.
    pub fn exact(text: &str) -> Self {
        Self { pattern: StringPattern::Exact(text.into()), ignore_case: false }
    }

    /// Whether `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        match (&self.pattern, self.ignore_case) {
            (StringPattern::Exact(want), false) => text == &**want,
            (StringPattern::Exact(want), true) => text.eq_ignore_ascii_case(want),
            (StringPattern::Prefix(want), false) => text.starts_with(&**want),
            (StringPattern::Prefix(want), true) => text
                .as_bytes()
                .get(..want.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(want.as_bytes())),
            (StringPattern::Suffix(want), false) => text.ends_with(&**want),
            (StringPattern::Suffix(want), true) => text
                .len()
                .checked_sub(want.len())
                .is_some_and(|start| text.as_bytes()[start..].eq_ignore_ascii_case(want.as_bytes())),
            (StringPattern::Contains(want), false) => text.contains(&**want),
            (StringPattern::Contains(want), true) => {
                text.to_ascii_lowercase().contains(&want.to_ascii_lowercase())
            }
            (StringPattern::Regex(regex), _) => regex.is_match(text),
        }
    }
}

// === impl HeaderMatch ===

impl HeaderMatch {
    /// Whether the condition holds for a header whose joined value is `value`, `None` when it is missing.
    pub fn is_match(&self, value: Option<&str>) -> bool {
        if matches!(self.value, HeaderValueMatch::Present) {
            return (value.is_some() || self.treat_missing_as_empty) != self.invert;
        }
        let Some(value) = value.or(self.treat_missing_as_empty.then_some("")) else { return false };
        let matched = match &self.value {
            HeaderValueMatch::Present => true,
            HeaderValueMatch::String(matcher) => matcher.is_match(value),
            HeaderValueMatch::Range { start, end } => {
                value.parse::<i64>().is_ok_and(|number| (*start..*end).contains(&number))
            }
        };
        matched != self.invert
    }
}

// === impl QueryMatch ===

impl QueryMatch {
    /// Whether the condition holds for a parameter whose first value is `value`, `None` when it is missing.
    pub fn is_match(&self, value: Option<&str>) -> bool {
        match (value, &self.value) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(value), Some(matcher)) => matcher.is_match(value),
        }
    }
}

// === impl Fraction ===

impl Fraction {
    /// Never.
    pub const ZERO: Self = Self { per_million: 0 };
    /// Always.
    pub const ALL: Self = Self { per_million: 1_000_000 };

    /// Whether `random`, evenly spread over all of `u64`, falls into this fraction.
    pub fn hit(self, random: u64) -> bool {
        random % 1_000_000 < u64::from(self.per_million)
    }
}

// === impl MetadataMatch ===

impl MetadataMatch {
    /// Whether the condition holds in `metadata`.
    pub fn is_match(&self, metadata: &Metadata) -> bool {
        let found = metadata.find(&self.filter, self.path.iter().map(|key| &**key));
        self.value.is_match(found) != self.invert
    }
}

// === impl ValueMatch ===

impl ValueMatch {
    /// Whether `value`, `None` when there is none, matches.
    pub fn is_match(&self, value: Option<&serde_json::Value>) -> bool {
        use serde_json::Value;
        match (self, value) {
            (Self::Present(want), value) => value.is_some() == *want,
            (Self::Or(any), value) => any.iter().any(|one| one.is_match(value)),
            (Self::Null, Some(Value::Null)) => true,
            (Self::Bool(want), Some(Value::Bool(is))) => is == want,
            (Self::String(matcher), Some(Value::String(text))) => matcher.is_match(text),
            (Self::Number(want), Some(Value::Number(is))) => is.as_f64() == Some(*want),
            (Self::Range { start, end }, Some(Value::Number(is))) => {
                is.as_f64().is_some_and(|number| (*start..*end).contains(&number))
            }
            (Self::OneOf(matcher), Some(Value::Array(items))) => {
                items.iter().any(|item| matcher.is_match(Some(item)))
            }
            _ => false,
        }
    }
}

// === impl RegexRewrite ===

impl RegexRewrite {
    /// Compiles `source`, and `substitution` in which `\0` to `\9` stand for groups and `\\` for a backslash.
    pub fn new(source: &str, substitution: &str) -> Result<Self, Invalid> {
        let compiled = compile(source, source).map_err(|error| error.within("pattern"))?;
        let replacement = replacement(substitution, compiled.captures_len())?;
        Ok(Self { compiled, source: source.into(), replacement: replacement.into() })
    }

    /// `text` with every match replaced.
    pub fn apply(&self, text: &str) -> String {
        self.compiled.replace_all(text, &*self.replacement).into_owned()
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.replacement == other.replacement
    }
}

impl Serialize for RegexRewrite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("RegexRewrite", 2)?;
        fields.serialize_field("pattern", &*self.source)?;
        fields.serialize_field("replacement", &*self.replacement)?;
        fields.end()
    }
}

fn compile(expression: &str, source: &str) -> Result<regex::Regex, Invalid> {
    regex::RegexBuilder::new(expression).size_limit(REGEX_BYTES_MAX).build().map_err(|error| {
        let reason = match error {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
            _ => format!("`{source}` is not a regular expression"),
        };
        Invalid::new("", reason)
    })
}

/// Turns RE2's substitution syntax into the `regex` crate's.
fn replacement(substitution: &str, groups: usize) -> Result<String, Invalid> {
    let mut out = String::with_capacity(substitution.len());
    let mut chars = substitution.chars();
    while let Some(char) = chars.next() {
        match char {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    let group = usize::from(digit as u8 - b'0');
                    if group >= groups {
                        return Err(Invalid::new("substitution", format!("there is no group {group}")));
                    }
                    out.push_str(&format!("${{{group}}}"));
                }
                _ => {
                    return Err(Invalid::new(
                        "substitution",
                        "a backslash must precede a digit or a backslash",
                    ));
                }
            },
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
