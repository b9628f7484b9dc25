//! Node selectors and node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm,
};

/// What a pod asks of a node's labels and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeAffinity {
    selector: BTreeMap<String, String>,
    /// One of these must hold, if there are any.
    required: Option<Vec<NodeSelectorTerm>>,
    preferred: Vec<PreferredSchedulingTerm>,
}

// === impl NodeAffinity ===

impl NodeAffinity {
    pub(crate) fn of(spec: &PodSpec) -> Self {
        let affinity =
            spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone()).unwrap_or_default();
        Self {
            selector: spec.node_selector.clone().unwrap_or_default(),
            required: affinity
                .required_during_scheduling_ignored_during_execution
                .map(|selector| selector.node_selector_terms),
            preferred: affinity.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
        }
    }

    /// Whether a node will do.
    pub(crate) fn admits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| holds(term, name, labels)))
    }

    /// How much a node is preferred.
    pub(crate) fn weight(&self, name: &str, labels: &BTreeMap<String, String>) -> i64 {
        let holding = self.preferred.iter().filter(|term| holds(&term.preference, name, labels));
        holding.map(|term| i64::from(term.weight)).sum()
    }
}

/// A term without conditions holds nowhere.
fn holds(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| is_met(requirement, labels.get(&requirement.key).map(String::as_str)))
        && fields
            .iter()
            .all(|requirement| is_met(requirement, (requirement.key == "metadata.name").then_some(name)))
}

fn is_met(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let compared = number(value).zip(number(values.first().map(String::as_str)));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared.is_some_and(|(value, bound)| value > bound),
        "Lt" => compared.is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn admits(spec: Value) -> bool {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("n".to_owned(), "5".to_owned())]);
        NodeAffinity::of(&serde_json::from_value(spec).unwrap()).admits("node1", &labels)
    }

    fn required(terms: Value) -> Value {
        json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn selectors_and_terms() {
        let expression = |key: &str, operator: &str, values: Value| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        assert!(admits(json!({"containers": []})));
        assert!(admits(json!({"containers": [], "nodeSelector": {"zone": "a"}})));
        assert!(!admits(json!({"containers": [], "nodeSelector": {"zone": "b"}})));
        for (operator, values, holds) in [
            ("In", json!(["a", "b"]), true),
            ("In", json!(["b"]), false),
            ("NotIn", json!(["b"]), true),
            ("NotIn", json!(["a"]), false),
            ("Exists", json!(null), true),
            ("DoesNotExist", json!(null), false),
            ("Odd", json!(null), false),
        ] {
            assert_eq!(
                admits(required(expression("zone", operator, values.clone()))),
                holds,
                "{operator} {values}"
            );
        }
        assert!(
            admits(required(expression("n", "Gt", json!(["4"]))))
                && !admits(required(expression("n", "Lt", json!(["5"]))))
        );
        assert!(admits(required(
            json!([{"matchExpressions": [{"key": "x", "operator": "Exists"}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}])
        )));
        assert!(!admits(required(json!([{}]))) && !admits(required(json!([]))));
    }
}
