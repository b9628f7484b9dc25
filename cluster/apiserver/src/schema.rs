//! What the server knows of the built-in types: one compact table of facts (field names, types, merge keys, list kinds, protobuf numbers).
//!
//! `schema/facts.txt` holds facts only. A line `# TYPE` begins a type (`=SHAPE` makes it an alias, `atomic` an atomic map); each line after it
//! is a field: protobuf number (`a.b` inside an embedded message, `-` none), name (`!` required), shape, then marks. Shapes: `s` string, `b` boolean,
//! `i` int32, `l` int64, `n` number, `y` base64 bytes, `t` time, `m` time with microseconds, `q` quantity, `x` int or string, `o` any object,
//! `j` any value, `[]` list of, `{}` map of, `>TYPE` reference. Marks: `m=KEYS` list-map, `set`, `atomic`, `p=STRATEGY[:KEY]` strategic merge.
//! OpenAPI, strict decoding, strategic merge, server-side apply and protobuf decoding are all derived from it.

pub(crate) mod decode;
mod gnostic;
pub(crate) mod merge;
pub(crate) mod openapi;
pub(crate) mod parse;
pub(crate) mod protobuf;

use std::{collections::HashMap, sync::LazyLock};

/// The index of a type in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TypeId(u16);

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    String,
    Boolean,
    Int32,
    Int64,
    Number,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Object,
    Any,
    List(Box<Shape>),
    Map(Box<Shape>),
    Ref(TypeId),
}

/// How the elements of a list, or the keys of a map, are owned and merged by server-side apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Nothing is said: lists are atomic, maps granular.
    Default,
    Atomic,
    Set,
    /// A list of objects told apart by these fields.
    ListMap(&'static str),
}

/// One field of a type.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) topology: Topology,
    /// Strategic merge: elements are merged rather than replaced.
    pub(crate) patch_merge: bool,
    /// Strategic merge: only the keys named by the patch are kept.
    pub(crate) patch_retain_keys: bool,
    pub(crate) patch_key: Option<&'static str>,
    /// The protobuf number; 0 when the field is not on the wire.
    pub(crate) number: u16,
    /// The protobuf number inside an embedded message; 0 when it is not embedded.
    pub(crate) inner: u16,
}

/// One type.
#[derive(Debug)]
pub(crate) struct Type {
    pub(crate) name: &'static str,
    pub(crate) alias: Option<Shape>,
    pub(crate) atomic: bool,
    pub(crate) fields: Vec<Field>,
}

/// The whole table.
#[derive(Debug)]
pub(crate) struct Facts {
    types: Vec<Type>,
    index: HashMap<&'static str, TypeId>,
}

static FACTS: LazyLock<Facts> = LazyLock::new(|| Facts::parse(include_str!("schema/facts.txt")));

/// The table of built-in types.
pub(crate) fn facts() -> &'static Facts {
    &FACTS
}

// === impl Facts ===

impl Facts {
    fn parse(text: &'static str) -> Self {
        let names =
            text.lines().filter_map(|line| line.strip_prefix("# ")).filter_map(|l| l.split(' ').next());
        let index: HashMap<_, _> = names
            .enumerate()
            .map(|(at, name)| (name, TypeId(u16::try_from(at).unwrap_or(u16::MAX))))
            .collect();
        let mut types: Vec<Type> = Vec::with_capacity(index.len());
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# ") {
                let mut words = head.split(' ');
                let name = words.next().unwrap_or_default();
                let (mut alias, mut atomic) = (None, false);
                for word in words {
                    match word.strip_prefix('=') {
                        Some(shape) => alias = Some(parse_shape(shape, &index)),
                        None => atomic = word == "atomic",
                    }
                }
                types.push(Type { name, alias, atomic, fields: Vec::new() });
            } else if let (Some(last), Some(field)) = (types.last_mut(), parse_field(line, &index)) {
                last.fields.push(field);
            }
        }
        Self { types, index }
    }

    /// The type of that short name, such as `core.v1.Pod`.
    pub(crate) fn find(&self, name: &str) -> Option<TypeId> {
        self.index.get(name).copied()
    }

    /// The facts of a type.
    pub(crate) fn get(&self, id: TypeId) -> &Type {
        &self.types[usize::from(id.0)]
    }
}

// === impl Type ===

impl Type {
    /// The field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn parse_shape(text: &str, index: &HashMap<&'static str, TypeId>) -> Shape {
    if let Some(item) = text.strip_prefix("[]") {
        return Shape::List(Box::new(parse_shape(item, index)));
    }
    if let Some(item) = text.strip_prefix("{}") {
        return Shape::Map(Box::new(parse_shape(item, index)));
    }
    if let Some(name) = text.strip_prefix('>') {
        return index.get(name).map_or(Shape::Any, |id| Shape::Ref(*id));
    }
    match text {
        "s" => Shape::String,
        "b" => Shape::Boolean,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "n" => Shape::Number,
        "y" => Shape::Bytes,
        "t" => Shape::Time,
        "m" => Shape::MicroTime,
        "q" => Shape::Quantity,
        "x" => Shape::IntOrString,
        "o" => Shape::Object,
        _ => Shape::Any,
    }
}

fn parse_field(line: &'static str, index: &HashMap<&'static str, TypeId>) -> Option<Field> {
    let mut words = line.split(' ');
    let (numbers, name, shape) = (words.next()?, words.next()?, words.next()?);
    let (number, inner) = numbers.split_once('.').unwrap_or((numbers, "0"));
    let mut field = Field {
        name: name.trim_end_matches('!'),
        shape: parse_shape(shape, index),
        required: name.ends_with('!'),
        topology: Topology::Default,
        patch_merge: false,
        patch_retain_keys: false,
        patch_key: None,
        number: number.parse().unwrap_or(0),
        inner: inner.parse().unwrap_or(0),
    };
    for word in words {
        if let Some(keys) = word.strip_prefix("m=") {
            field.topology = Topology::ListMap(keys);
        } else if let Some(patch) = word.strip_prefix("p=") {
            let (strategy, key) = patch.split_once(':').map_or((patch, None), |(s, k)| (s, Some(k)));
            field.patch_merge = strategy.split(',').any(|s| s == "merge");
            field.patch_retain_keys = strategy.split(',').any(|s| s == "retainKeys");
            field.patch_key = key;
        } else if word == "set" {
            field.topology = Topology::Set;
        } else if word == "atomic" {
            field.topology = Topology::Atomic;
        }
    }
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves_and_pods_are_known() {
        let facts = facts();
        for line in include_str!("schema/facts.txt").lines() {
            if let Some((_, name)) = line.split_once('>') {
                let name = name.split(' ').next().unwrap();
                assert!(facts.find(name).is_some(), "{name} in {line}");
            }
        }
        let pod_spec = facts.get(facts.find("core.v1.PodSpec").unwrap());
        let containers = pod_spec.field("containers").unwrap();
        assert_eq!(containers.topology, Topology::ListMap("name"));
        assert_eq!(containers.patch_key, Some("name"));
        assert!(containers.required && containers.patch_merge);
    }
}
