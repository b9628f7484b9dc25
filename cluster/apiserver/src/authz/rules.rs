//! Rules of roles, compiled, and what they allow.

use serde_json::Value;

use super::Question;
use crate::object::items;

/// One rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    urls: Vec<String>,
}

fn strings(rule: &Value, field: &str) -> Vec<String> {
    items(rule, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

// === impl Rule ===

impl Rule {
    /// Reads the rules of a role.
    pub(crate) fn read(role: &Value) -> Vec<Self> {
        let read = |rule: &Value| Self {
            verbs: strings(rule, "/verbs"),
            groups: strings(rule, "/apiGroups"),
            resources: strings(rule, "/resources"),
            names: strings(rule, "/resourceNames"),
            urls: strings(rule, "/nonResourceURLs"),
        };
        items(role, "/rules").iter().map(read).collect()
    }

    pub(crate) fn allows(&self, question: &Question<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|item| item == "*" || item == value);
        if !has(&self.verbs, question.verb) {
            return false;
        }
        if let Some(path) = question.path {
            return self.urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            });
        }
        has(&self.groups, question.group)
            && self.resources.iter().any(|resource| covers(resource, question))
            && (self.names.is_empty() || self.names.iter().any(|name| name == question.name))
    }

    /// Whether everything that this rule allows is allowed by others already.
    pub(crate) fn is_covered_by(&self, held: &[Self]) -> bool {
        let allowed = |question: &Question<'_>| held.iter().any(|rule| rule.allows(question));
        let names: Vec<&str> =
            if self.names.is_empty() { vec![""] } else { self.names.iter().map(String::as_str).collect() };
        self.verbs.iter().all(|verb| {
            let paths = self
                .urls
                .iter()
                .all(|url| allowed(&Question { verb, path: Some(url), ..Question::default() }));
            paths
                && self.groups.iter().all(|group| {
                    self.resources.iter().all(|pattern| {
                        let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
                        let base = Question { verb, group, resource, subresource, ..Question::default() };
                        names.iter().all(|name| allowed(&Question { name, ..base.clone() }))
                    })
                })
        })
    }

    /// The rule as `authorization.k8s.io` lists it.
    pub(crate) fn to_value(&self) -> Value {
        if self.urls.is_empty() {
            serde_json::json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources,
                "resourceNames": self.names})
        } else {
            serde_json::json!({"verbs": self.verbs, "nonResourceURLs": self.urls})
        }
    }

    pub(crate) fn is_path_rule(&self) -> bool {
        !self.urls.is_empty()
    }
}

fn covers(resource: &str, question: &Question<'_>) -> bool {
    if resource == "*" {
        return true;
    }
    if question.subresource.is_empty() {
        return resource == question.resource;
    }
    match resource.split_once('/') {
        Some((main, sub)) => (main == question.resource || main == "*") && sub == question.subresource,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn coverage() {
        let read = |rules: Value| Rule::read(&json!({"rules": rules}));
        let held = read(
            json!([{"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods", "pods/log"]}]),
        );
        let covered = |rule: Value| read(json!([rule]))[0].is_covered_by(&held);
        assert!(covered(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]})));
        assert!(covered(
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]})
        ));
        assert!(!covered(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]})));
        assert!(!covered(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]})));
        assert!(!covered(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["*"]})));
        let all = read(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
        assert!(
            read(json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["*/scale"]}]))[0]
                .is_covered_by(&all)
        );
    }

    #[test]
    fn rules_match_like_kubernetes() {
        let role = json!({"rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]},
            {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/openapi/*"]}]});
        let rules = Rule::read(&role);
        let ask = |q: Question<'_>| rules.iter().any(|rule| rule.allows(&q));
        let base = Question { verb: "get", resource: "pods", ..Question::default() };
        assert!(ask(base.clone()));
        assert!(!ask(Question { subresource: "log", ..base.clone() }));
        assert!(ask(Question { resource: "x", subresource: "scale", ..base.clone() }));
        assert!(!ask(Question { group: "apps", ..base.clone() }));
        assert!(ask(Question { resource: "secrets", name: "a", ..base.clone() }));
        assert!(!ask(Question { resource: "secrets", name: "b", ..base.clone() }));
        assert!(ask(Question { verb: "get", path: Some("/openapi/v3"), ..Question::default() }));
        assert!(!ask(Question { verb: "get", path: Some("/metrics"), ..Question::default() }));
    }
}
