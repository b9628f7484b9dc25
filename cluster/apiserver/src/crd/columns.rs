//! `additionalPrinterColumns` of custom resources.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    object::{items, name, text},
    printers::{Printer, age, since},
};

/// The columns of one version.
#[derive(Debug)]
pub(crate) struct CustomColumns {
    columns: Vec<CustomColumn>,
}

#[derive(Debug)]
struct CustomColumn {
    definition: Value,
    date: bool,
    path: Vec<Step>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    /// `[?(@.field=="value")]`
    Where(Vec<String>, String),
}

// === impl CustomColumns ===

impl CustomColumns {
    /// `version` is an entry of `spec.versions`.
    pub(crate) fn read(version: &Value) -> Self {
        let columns = items(version, "/additionalPrinterColumns").iter().map(|column| CustomColumn {
            definition: json!({"name": column["name"], "type": column["type"], "format": text(column, "/format"),
                "description": text(column, "/description"), "priority": column["priority"].as_i64().unwrap_or(0)}),
            date: column["type"] == "date",
            path: parse(text(column, "/jsonPath")),
        });
        Self { columns: columns.collect() }
    }
}

impl Printer for CustomColumns {
    fn columns(&self) -> Value {
        let mut list = vec![json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name of the object."})];
        if self.columns.is_empty() {
            list.push(json!({"name": "Age", "type": "date", "format": "", "priority": 0,
                "description": "Time since the object was created."}));
        }
        list.extend(self.columns.iter().map(|column| column.definition.clone()));
        Value::Array(list)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut row = vec![json!(name(object))];
        if self.columns.is_empty() {
            row.push(age(object, now));
        }
        row.extend(self.columns.iter().map(|column| column.cell(object, now)));
        row
    }
}

// === impl CustomColumn ===

impl CustomColumn {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let mut found = Vec::new();
        follow(object, &self.path, &mut found);
        match found.as_slice() {
            [] => Value::Null,
            [one] if self.date => json!(since(one.as_str().unwrap_or_default(), now)),
            [one] if one.is_array() || one.is_object() => json!(shown(one)),
            [one] => (*one).clone(),
            many => json!(many.iter().map(|value| shown(value)).collect::<Vec<_>>().join(",")),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Parses the part of JSONPath that printer columns use.
fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = after.find(']') else { break };
            let inner = &after[..end];
            rest = &after[end + 1..];
            if let Some(filter) = inner.strip_prefix("?(@.").and_then(|f| f.strip_suffix(')')) {
                let (field, value) = filter.split_once("==").unwrap_or((filter, ""));
                let fields = field.trim().split('.').map(str::to_owned).collect();
                steps.push(Step::Where(fields, value.trim().trim_matches(['"', '\'']).to_owned()));
            } else if inner == "*" {
                steps.push(Step::All);
            } else if let Ok(index) = inner.parse() {
                steps.push(Step::Index(index));
            } else {
                steps.push(Step::Field(inner.trim_matches(['"', '\'']).to_owned()));
            }
            continue;
        }
        rest = rest.trim_start_matches('.');
        let mut name = String::new();
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => name.extend(characters.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        rest = &rest[end..];
        match name.as_str() {
            "" => {}
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
    }
    steps
}

fn follow<'a>(value: &'a Value, path: &[Step], found: &mut Vec<&'a Value>) {
    let Some((step, rest)) = path.split_first() else {
        if !value.is_null() {
            found.push(value);
        }
        return;
    };
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => {
            if let Some(child) = map.get(name) {
                follow(child, rest, found);
            }
        }
        (Step::Index(index), Value::Array(list)) => {
            if let Some(child) = list.get(*index) {
                follow(child, rest, found);
            }
        }
        (Step::All, Value::Array(list)) => list.iter().for_each(|child| follow(child, rest, found)),
        (Step::All, Value::Object(map)) => map.values().for_each(|child| follow(child, rest, found)),
        (Step::Where(fields, wanted), Value::Array(list)) => {
            for child in list {
                let field = fields.iter().try_fold(child, |value, name| value.get(name));
                if field.is_some_and(|f| shown(f) == *wanted) {
                    follow(child, rest, found);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_columns_use() {
        let object = json!({"metadata": {"name": "a", "annotations": {"x.y/z": "1"}}, "spec": {"hosts": ["h1", "h2"], "n": 3},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"}]}});
        let cell = |path: &str| {
            let version =
                json!({"additionalPrinterColumns": [{"name": "c", "type": "string", "jsonPath": path}]});
            CustomColumns::read(&version).cells(&object, Timestamp::now()).remove(1)
        };
        assert_eq!(cell(".spec.n"), json!(3));
        assert_eq!(cell(".spec.hosts"), json!("[\"h1\",\"h2\"]"));
        assert_eq!(cell(".spec.hosts[0]"), json!("h1"));
        assert_eq!(cell(".spec.hosts[*]"), json!("h1,h2"));
        assert_eq!(cell(".status.conditions[?(@.type==\"Ready\")].status"), json!("True"));
        assert_eq!(cell(".metadata.annotations.x\\.y/z"), json!("1"));
        assert_eq!(cell(".nothing.here"), Value::Null);
    }
}
