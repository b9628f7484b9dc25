//! What a change means, in a line.

use serde_json::Value;

/// More changes than this are counted.
const NAMED_MAX: usize = 4;

/// The difference between two states of an object: weights by subset, other fields by path.
pub fn change(old: &Value, new: &Value) -> String {
    let mut found = Vec::new();
    compare(&old["spec"], &new["spec"], "spec", &mut found);
    let rest = found.len().saturating_sub(NAMED_MAX);
    let mut text = found.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if rest > 0 {
        text += &format!(", and {rest} more");
    }
    text
}

fn compare(old: &Value, new: &Value, path: &str, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    if path.ends_with(".route")
        && let Some(weights) = weights(old, new)
    {
        found.push(format!(
            "{} weights {weights}",
            path.trim_start_matches("spec.").trim_end_matches(".route")
        ));
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                compare(
                    old.get(key).unwrap_or(&Value::Null),
                    new.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                    found,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                compare(
                    a.get(index).unwrap_or(&Value::Null),
                    b.get(index).unwrap_or(&Value::Null),
                    &format!("{path}[{index}]"),
                    found,
                );
            }
        }
        _ => found.push(format!("{} {} → {}", path.trim_start_matches("spec."), short(old), short(new))),
    }
}

/// `v1 90 → 50, v3 10 → 50`, when routes differ in their weights and destinations only.
fn weights(old: &Value, new: &Value) -> Option<String> {
    let shares = |routes: &Value| -> Option<Vec<(String, u64)>> {
        let routes = routes.as_array()?;
        let only = routes.len() == 1;
        routes
            .iter()
            .map(|route| {
                let destination = &route["destination"];
                let name = destination["subset"].as_str().or(destination["host"].as_str())?.to_owned();
                Some((name, route["weight"].as_u64().unwrap_or(if only { 100 } else { 0 })))
            })
            .collect()
    };
    let (old, new) = (shares(old).unwrap_or_default(), shares(new)?);
    let share = |all: &[(String, u64)], name: &str| {
        all.iter().filter(|(n, _)| n == name).map(|(_, w)| w).sum::<u64>()
    };
    let mut names: Vec<&String> = old.iter().chain(&new).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let changed: Vec<String> = names
        .into_iter()
        .map(|name| (name, share(&old, name), share(&new, name)))
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| format!("{name} {before} → {after}"))
        .collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Object(_) => "{…}".into(),
        Value::Array(items) => format!("[{} items]", items.len()),
        Value::String(text) => text.chars().take(40).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(routes: Value, timeout: &str) -> Value {
        json!({"spec": {"http": [{"route": routes, "timeout": timeout}]}})
    }

    #[test]
    fn weights_are_told_by_subset() {
        let old = spec(
            json!([{"destination": {"host": "r", "subset": "v1"}, "weight": 90}, {"destination": {"host": "r", "subset": "v3"}, "weight": 10}]),
            "1s",
        );
        let new = spec(
            json!([{"destination": {"host": "r", "subset": "v1"}, "weight": 50}, {"destination": {"host": "r", "subset": "v3"}, "weight": 50}]),
            "2s",
        );
        assert_eq!(change(&old, &new), "http[0] weights v1 90 → 50, v3 10 → 50, http[0].timeout 1s → 2s");
        let only = spec(json!([{"destination": {"host": "r", "subset": "v3"}}]), "1s");
        assert_eq!(change(&old, &only), "http[0] weights v1 90 → 0, v3 10 → 100");
        assert_eq!(change(&old, &old), "");
    }
}
