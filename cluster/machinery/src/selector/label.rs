//! Label selectors: the text form of queries (`a=b,c in (x,y),!d`) and the object form in specs.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde_json::Value;

use super::InvalidSelector;
use crate::name;

/// A conjunction of conditions on labels. The empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of it.
    pub kind: RequirementKind,
}

/// What must hold of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequirementKind {
    /// It is there with one of these values.
    In(BTreeSet<String>),
    /// It is absent, or has none of these values.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is absent.
    Absent,
    /// It is a number above this one.
    Greater(i64),
    /// It is a number below this one.
    Less(i64),
}

// === impl LabelSelector ===

impl LabelSelector {
    /// A selector for these labels with these values.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let equal = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            kind: RequirementKind::In(BTreeSet::from([value.to_owned()])),
        };
        Self { requirements: labels.into_iter().map(equal).collect() }
    }

    /// Reads the object form, `{matchLabels, matchExpressions}`. `None` for null, which selects nothing.
    ///
    /// # Errors
    /// When an operator is unknown, a value list has the wrong length, or a key or value is no label.
    pub fn from_object(object: &Value) -> Result<Option<Self>, InvalidSelector> {
        if object.is_null() {
            return Ok(None);
        }
        let mut requirements = Vec::new();
        for (key, value) in object["matchLabels"].as_object().into_iter().flatten() {
            let value = value
                .as_str()
                .ok_or_else(|| InvalidSelector::Object(format!("matchLabels[{key}] must be a string")))?;
            requirements
                .push(Requirement::new(key, RequirementKind::In(BTreeSet::from([value.to_owned()])))?);
        }
        for expression in object["matchExpressions"].as_array().into_iter().flatten() {
            requirements.push(Requirement::from_object(expression)?);
        }
        Ok(Some(Self { requirements }))
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels, given by a look-up, are selected.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether an object's labels are selected.
    #[must_use]
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.matches(|key| labels?.get(key)?.as_str())
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Parser { text, tokens: tokens(text), at: 0 }.selector()
    }
}

// === impl Requirement ===

impl Requirement {
    fn new(key: &str, kind: RequirementKind) -> Result<Self, InvalidSelector> {
        if let Some(problem) = name::check_label_key(key).into_iter().next() {
            return Err(InvalidSelector::Value { field: "key", value: key.to_owned(), problem });
        }
        if let RequirementKind::In(values) | RequirementKind::NotIn(values) = &kind {
            for value in values {
                if let Some(problem) = name::check_label_value(value).into_iter().next() {
                    return Err(InvalidSelector::Value { field: "values", value: value.clone(), problem });
                }
            }
        }
        Ok(Self { key: key.to_owned(), kind })
    }

    fn from_object(expression: &Value) -> Result<Self, InvalidSelector> {
        let values: BTreeSet<String> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(ToOwned::to_owned)
            .collect();
        let operator = expression["operator"].as_str().unwrap_or_default();
        let kind = match (operator, values.is_empty()) {
            ("In", false) => RequirementKind::In(values),
            ("NotIn", false) => RequirementKind::NotIn(values),
            ("Exists", true) => RequirementKind::Exists,
            ("DoesNotExist", true) => RequirementKind::Absent,
            ("In" | "NotIn", true) => {
                return Err(InvalidSelector::Object(
                    "values: Required value: must be specified when `operator` is 'In' or 'NotIn'".into(),
                ));
            }
            ("Exists" | "DoesNotExist", false) => {
                return Err(InvalidSelector::Object(
                    "values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                        .into(),
                ));
            }
            _ => {
                return Err(InvalidSelector::Object(format!(
                    "operator: Invalid value: {operator:?}: not a valid selector operator"
                )));
            }
        };
        Self::new(expression["key"].as_str().unwrap_or_default(), kind)
    }

    /// Whether the value of the label, or its absence, is what must hold.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.kind {
            RequirementKind::In(values) => value.is_some_and(|value| values.contains(value)),
            RequirementKind::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            RequirementKind::Exists => value.is_some(),
            RequirementKind::Absent => value.is_none(),
            RequirementKind::Greater(bound) => number().is_some_and(|number| number > *bound),
            RequirementKind::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let join = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        match &self.kind {
            RequirementKind::In(values) if values.len() == 1 => write!(f, "{key}={}", join(values)),
            RequirementKind::In(values) => write!(f, "{key} in ({})", join(values)),
            RequirementKind::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", join(values)),
            RequirementKind::NotIn(values) => write!(f, "{key} notin ({})", join(values)),
            RequirementKind::Exists => f.write_str(key),
            RequirementKind::Absent => write!(f, "!{key}"),
            RequirementKind::Greater(bound) => write!(f, "{key}>{bound}"),
            RequirementKind::Less(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

/// The words and signs of a selector's text, without white space.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let sign =
            ["==", "!=", "=", "!", "(", ")", ",", "<", ">"].iter().find(|sign| rest.starts_with(**sign));
        let length = match sign {
            Some(sign) => sign.len(),
            None => rest.find(|c: char| c.is_whitespace() || "=!(),<>".contains(c)).unwrap_or(rest.len()),
        };
        let length = length.max(first.len_utf8());
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<&'a str>,
    at: usize,
}

// === impl Parser ===

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<LabelSelector, InvalidSelector> {
        let mut requirements = Vec::new();
        while self.peek().is_some() {
            requirements.push(self.requirement()?);
            match self.take() {
                None => break,
                // A comma announces a further requirement.
                Some(",") if self.peek().is_some() => {}
                Some(other) => return Err(self.unexpected(other, "',' or the end")),
            }
        }
        requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements })
    }

    fn requirement(&mut self) -> Result<Requirement, InvalidSelector> {
        if self.peek() == Some("!") {
            self.take();
            let key = self.word("a key")?;
            return Requirement::new(key, RequirementKind::Absent);
        }
        let key = self.word("a key")?;
        let kind = match self.peek() {
            None | Some(",") => RequirementKind::Exists,
            Some("=" | "==") => RequirementKind::In(BTreeSet::from([self.value()?])),
            Some("!=") => RequirementKind::NotIn(BTreeSet::from([self.value()?])),
            Some("in") => RequirementKind::In(self.values()?),
            Some("notin") => RequirementKind::NotIn(self.values()?),
            Some(sign @ (">" | "<")) => {
                let value = self.value()?;
                let number = value.parse().map_err(|_| self.unexpected(&value, "an integer"))?;
                if sign == ">" { RequirementKind::Greater(number) } else { RequirementKind::Less(number) }
            }
            Some(other) => return Err(self.unexpected(other, "one of: in, notin, =, ==, !=, >, <")),
        };
        Requirement::new(key, kind)
    }

    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self) -> Option<&'a str> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn word(&mut self, what: &str) -> Result<&'a str, InvalidSelector> {
        match self.take() {
            Some(token) if !token.starts_with(['=', '!', '(', ')', ',', '<', '>']) => Ok(token),
            other => Err(self.unexpected(other.unwrap_or("the end"), what)),
        }
    }

    /// The value after an operator; nothing at all is the empty value.
    fn value(&mut self) -> Result<String, InvalidSelector> {
        self.take();
        match self.peek() {
            None | Some(",") => Ok(String::new()),
            Some(_) => self.word("a value").map(ToOwned::to_owned),
        }
    }

    /// The list after `in` or `notin`.
    fn values(&mut self) -> Result<BTreeSet<String>, InvalidSelector> {
        self.take();
        match self.take() {
            Some("(") => {}
            other => return Err(self.unexpected(other.unwrap_or("the end"), "'('")),
        }
        let mut values = BTreeSet::new();
        loop {
            match self.peek() {
                Some(",") | Some(")") => {
                    values.insert(String::new());
                }
                _ => {
                    values.insert(self.word("a value")?.to_owned());
                }
            }
            match self.take() {
                Some(",") => {}
                Some(")") => return Ok(values),
                other => return Err(self.unexpected(other.unwrap_or("the end"), "',' or ')'")),
            }
        }
    }

    fn unexpected(&self, found: &str, expected: &str) -> InvalidSelector {
        InvalidSelector::Syntax(format!("found '{found}', expected: {expected}, in {:?}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selects(selector: &str, labels: &Value) -> bool {
        selector.parse::<LabelSelector>().unwrap().matches_object(&json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn text_form() {
        let labels = json!({"app": "web", "tier": "front", "n": "5", "e": ""});
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "absent!=x",
            "app in (web,db)",
            "app notin (db)",
            "absent notin (x)",
            "app",
            "!absent",
            "app=web,tier=front",
            " app = web , tier in ( front , back ) ",
            "n>4",
            "n<6",
            "e=",
            "e",
            "app in (web)",
            "e in (,x)",
        ] {
            assert!(selects(yes, &labels), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "absent",
            "!app",
            "app in (db,x)",
            "app notin (web)",
            "n>5",
            "n<5",
            "app>1",
            "app=web,tier=x",
            "app=",
        ] {
            assert!(!selects(no, &labels), "{no}");
        }
        for bad in [
            "=",
            "app=web,",
            ",",
            "app in web",
            "app in (web",
            "a b",
            "!",
            "a=b=c",
            "a in",
            "x>y",
            "-a",
            "a=b c",
            "a=-",
            "!!a",
            "a/b/c=d",
        ] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn object_form() {
        assert_eq!(LabelSelector::from_object(&Value::Null), Ok(None));
        assert!(LabelSelector::from_object(&json!({})).unwrap().unwrap().is_empty());
        let selector = LabelSelector::from_object(&json!({"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "DoesNotExist"}]}));
        assert_eq!(selector.unwrap().unwrap().to_string(), "a=b,c in (x,y),!d");
        for bad in [
            json!({"matchExpressions": [{"key": "c", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "c", "operator": "Exists", "values": ["x"]}]}),
            json!({"matchExpressions": [{"key": "c", "operator": "Gt", "values": ["x"]}]}),
            json!({"matchExpressions": [{"operator": "Exists"}]}),
            json!({"matchLabels": {"a": 1}}),
        ] {
            assert!(LabelSelector::from_object(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z=!(),<> ./-]{0,24}|.{0,16}") {
            if let Ok(selector) = text.parse::<LabelSelector>() {
                // What was read means the same when written and read again.
                prop_assert_eq!(selector.to_string().parse::<LabelSelector>(), Ok(selector));
            }
        }

        #[test]
        fn in_and_notin_are_opposites(values in proptest::collection::btree_set("[a-c]", 1..3), label in proptest::option::of("[a-c]")) {
            let kind = |kind: fn(BTreeSet<String>) -> RequirementKind| Requirement { key: "k".into(), kind: kind(values.clone()) };
            prop_assert_ne!(
                kind(RequirementKind::In).matches(label.as_deref()),
                kind(RequirementKind::NotIn).matches(label.as_deref())
            );
        }
    }
}
