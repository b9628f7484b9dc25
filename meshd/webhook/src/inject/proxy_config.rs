//! What a pod says of its own sidecar in the annotation `proxy.istio.io/config` (Istio's `ProxyConfig`, as YAML).

use serde_json::{Value, json};

/// The annotation.
const ANNOTATION: &str = "proxy.istio.io/config";
/// Fields that are heeded.
const FIELDS: [&str; 3] = ["concurrency", "holdApplicationUntilProxyStarts", "proxyMetadata"];

/// The environment that the annotation adds to the sidecar's; nothing without it. A field that would not be heeded is refused by name.
pub(super) fn environment(pod: &Value) -> Result<Vec<Value>, String> {
    let Some(text) = pod["metadata"]["annotations"][ANNOTATION].as_str() else { return Ok(Vec::new()) };
    let wrong = |why: String| format!("the annotation {ANNOTATION} {why}");
    // Read as policies are: bounded in depth, for it comes from whoever may create a pod.
    let documents =
        policies_api::document::parse(text).map_err(|error| wrong(format!("is no YAML: {error}")))?;
    let config = documents.into_iter().next().map_or(Value::Null, |document| document.value);
    let fields = match &config {
        Value::Null => return Ok(Vec::new()),
        Value::Object(fields) => fields,
        _ => return Err(wrong("must be a mapping of fields".to_owned())),
    };
    let mut all = Vec::new();
    for (name, value) in fields {
        match name.as_str() {
            "proxyMetadata" => {
                let map =
                    value.as_object().ok_or_else(|| wrong("`proxyMetadata` must be a mapping".to_owned()))?;
                for (name, value) in map {
                    let value = value
                        .as_str()
                        .ok_or_else(|| wrong(format!("`proxyMetadata.{name}` must be a string")))?;
                    all.push(json!({"name": name, "value": value}));
                }
            }
            "concurrency" => {
                let count = value.as_u64().filter(|count| *count <= 1024);
                let count = count.ok_or_else(|| wrong("`concurrency` must be 0 to 1024".to_owned()))?;
                all.push(json!({"name": "ISTIO_CONCURRENCY", "value": count.to_string()}));
            }
            // A native sidecar always starts first.
            "holdApplicationUntilProxyStarts" if value.is_boolean() => {}
            _ => {
                return Err(wrong(format!(
                    "has the field `{name}`, which is not supported; supported are {}",
                    FIELDS.join(", ")
                )));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Value>, String> {
        environment(&json!({"metadata": {"annotations": {ANNOTATION: text}}}))
    }

    #[test]
    fn metadata_and_concurrency_become_environment() {
        let all =
            of("proxyMetadata:\n  SECRET_TTL: 1m\nconcurrency: 3\nholdApplicationUntilProxyStarts: true\n")
                .unwrap();
        assert_eq!(all.len(), 2);
        assert!(all.contains(&json!({"name": "SECRET_TTL", "value": "1m"})));
        assert!(all.contains(&json!({"name": "ISTIO_CONCURRENCY", "value": "3"})));
        assert!(of("").unwrap().is_empty() && environment(&json!({"metadata": {}})).unwrap().is_empty());
    }

    #[test]
    fn what_would_not_be_heeded_is_refused_by_name() {
        for (text, word) in [
            ("tracing: {}", "`tracing`"),
            ("proxyMetadata: {A: 1}", "`proxyMetadata.A`"),
            ("proxyMetadata: [a]", "`proxyMetadata`"),
            ("concurrency: -1", "`concurrency`"),
            ("[a]", "mapping"),
            ("{", "no YAML"),
        ] {
            let said = of(text).unwrap_err();
            assert!(said.contains(word) && said.contains(ANNOTATION), "{said}");
        }
    }
}
