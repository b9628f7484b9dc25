//! YAML files as documents whose fields know their line: a field path such as `spec.http[0].route[1].weight` maps to a position.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The object.
    pub value: Value,
    /// Where its fields stand.
    pub positions: Positions,
}

/// Where fields stand in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<String, Position>);

/// A line and a column, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line of the file.
    pub line: u64,
    /// Character in the line.
    pub column: u64,
}

/// A text that is not YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {message}", position.line, position.column)]
pub struct ParseError {
    /// Where.
    pub position: Position,
    /// What is wrong, in the parser's words, on one line.
    pub message: String,
}

/// Levels of lists and objects in one another. No kind of ours comes near it; each level costs stack, and a text may come from anybody.
const DEPTH_MAX: usize = 40;

/// Parses every document of a file; empty documents are left out.
///
/// # Errors
/// When the text is not YAML, nests deeper than 40 levels, has a key twice, or has a key that is not a string.
pub fn parse(text: &str) -> Result<Vec<Document>, ParseError> {
    let options = serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: DEPTH_MAX } };
    let nodes: Vec<Spanned<Node>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| ParseError::new(&error))?;
    let documents = nodes.into_iter().map(|node| {
        let mut positions = Positions::default();
        let place = place(node.referenced);
        let value = flatten(node.value, String::new(), place, &mut positions);
        Document { value, positions }
    });
    Ok(documents.filter(|it| !it.value.is_null()).collect())
}

// === impl Positions ===

impl Positions {
    /// The position of a field, or of the nearest field around it that exists: a missing field is reported where it should be.
    #[must_use]
    pub fn locate(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(position) = self.0.get(path) {
                return Some(*position);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

// === impl ParseError ===

impl ParseError {
    fn new(error: &serde_saphyr::Error) -> Self {
        let position = error.location().map_or_else(Position::default, place);
        let whole = error.to_string();
        let first = whole.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        let prefix = format!("line {} column {}: ", position.line, position.column);
        Self { position, message: first.strip_prefix(&prefix).unwrap_or(first).to_owned() }
    }
}

/// A node of the file; keys keep their own place, because a block's value starts a line later.
#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Fields(Vec<(Spanned<String>, Spanned<Node>)>),
}

fn place(location: serde_saphyr::Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

fn flatten(node: Node, path: String, position: Position, positions: &mut Positions) -> Value {
    let value = match node {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let items = items.into_iter().enumerate().map(|(index, item)| {
                let position = place(item.referenced);
                flatten(item.value, format!("{path}[{index}]"), position, positions)
            });
            Value::Array(items.collect())
        }
        Node::Fields(fields) => {
            let mut object = Map::new();
            for (key, field) in fields {
                let key_place = place(key.referenced);
                let position = if key_place.line == 0 { place(field.referenced) } else { key_place };
                let inner = field_path(&path, &key.value);
                let value = flatten(field.value, inner, position, positions);
                object.insert(key.value, value);
            }
            Value::Object(object)
        }
    };
    positions.0.insert(path, position);
    value
}

/// The path of a field of the object at `path`.
#[must_use]
pub fn field_path(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

// === impl Node ===

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number =
            serde_json::Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::from(value)))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Node>>()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut fields: Vec<(Spanned<String>, Spanned<Node>)> = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Spanned<Node>>()? {
            fields.push((key, value));
        }
        Ok(Node::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# a comment
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
  - route:
    - destination:
        host: reviews
      weight: 90
---
---
kind: Second
ratio: 0.5
text: \"90\"
nothing: ~
";

    #[test]
    fn paths_map_to_lines() {
        let documents = parse(FILE).unwrap();
        assert_eq!(documents.len(), 2);
        let at = |path: &str| documents[0].positions.locate(path).unwrap();
        assert_eq!(at("kind"), Position { line: 3, column: 1 });
        assert_eq!(at("spec"), Position { line: 6, column: 1 });
        assert_eq!(at("spec.http[0].route[0].weight"), Position { line: 12, column: 7 });
        assert_eq!(at("spec.hosts[0]"), Position { line: 7, column: 11 });
        // A missing field is reported at the object it is missing from.
        assert_eq!(at("spec.http[0].route[0].destination.subset"), Position { line: 10, column: 7 });
        assert_eq!(at("spec.gateways"), at("spec"));
        assert_eq!(documents[1].positions.locate("text").unwrap().line, 17);
        assert_eq!(documents[0].value["spec"]["http"][0]["route"][0]["weight"], 90);
        assert_eq!(documents[1].value["text"], "90");
        assert_eq!(documents[1].value["ratio"], 0.5);
        assert!(documents[1].value["nothing"].is_null());
    }

    #[test]
    fn malformed_text_names_its_place() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.position.line >= 2, "{error}");
        let error = parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(error.position.line, 2, "{error}");
        assert!(!error.message.contains('\n'));
        assert!(parse("a:\n\tb: 1\n\tc: 2\n").is_err());
    }
}
