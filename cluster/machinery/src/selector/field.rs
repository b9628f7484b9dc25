//! Field selectors: `metadata.name=x,status.phase!=Running`.

use std::{borrow::Cow, fmt, str::FromStr};

use super::InvalidSelector;

/// A conjunction of conditions on fields. The empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// All must hold.
    pub terms: Vec<FieldTerm>,
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field's path, `status.phase`.
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// Whether it must be equal or must differ.
    pub equal: bool,
}

// === impl FieldSelector ===

impl FieldSelector {
    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object is selected, whose fields a look-up gives; an absent field is the empty string.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or_default() == term.value) == term.equal)
    }

    /// The value that a field must have, if the selector says so: then a list of one object is enough.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

impl FromStr for FieldSelector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut terms = Vec::new();
        for term in split(text) {
            if term.is_empty() {
                continue;
            }
            let invalid =
                || InvalidSelector::Syntax(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let at = term.find(['=', '!']).ok_or_else(invalid)?;
            let (field, rest) = term.split_at(at);
            let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
                (false, value)
            } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
                (true, value)
            } else {
                return Err(invalid());
            };
            let value = unescape(value).ok_or_else(invalid)?;
            terms.push(FieldTerm { field: field.trim().to_owned(), value, equal });
        }
        Ok(Self { terms })
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let sign = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{sign}", term.field)?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// The terms between commas that are not escaped.
fn split(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == ',' && !escaped {
            terms.push(&text[start..at]);
            start = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    terms.push(&text[start..]);
    terms
}

/// `None` when an escape or a bare sign makes no sense.
fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms() {
        let fields = |field: &str| match field {
            "metadata.name" => Some(Cow::Borrowed("x")),
            "status.phase" => Some(Cow::Borrowed("Running")),
            "odd" => Some(Cow::Borrowed("a,b=c\\")),
            _ => None,
        };
        let matches = |text: &str| text.parse::<FieldSelector>().unwrap().matches(fields);
        for yes in [
            "",
            "metadata.name=x",
            "metadata.name==x,status.phase!=Pending",
            "absent=",
            "absent!=y",
            "odd=a\\,b\\=c\\\\",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in
            ["metadata.name=y", "status.phase!=Running", "absent=y", "metadata.name=x,status.phase=Failed"]
        {
            assert!(!matches(no), "{no}");
        }
        for bad in ["metadata.name", "a!b", "a=b=c", "a=\\x"] {
            assert!(bad.parse::<FieldSelector>().is_err(), "{bad}");
        }
        let selector: FieldSelector = "metadata.name=x,spec.nodeName!=n".parse().unwrap();
        assert_eq!(
            (selector.required("metadata.name"), selector.required("spec.nodeName")),
            (Some("x"), None)
        );
    }

    proptest! {
        #[test]
        fn any_value_can_be_written(value in ".{0,12}") {
            let selector = FieldSelector { terms: vec![FieldTerm { field: "a.b".into(), value, equal: true }] };
            prop_assert_eq!(selector.to_string().parse::<FieldSelector>(), Ok(selector));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,24}") {
            let _ = text.parse::<FieldSelector>();
        }
    }
}
