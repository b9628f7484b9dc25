//! Subsets of a cluster's hosts by their metadata under `envoy.lb`, as Envoy's `lb_subset_config` describes them.

use crate::host::Host;
use crate::set::{Place, Set};
use serde_json::Value;
use sidecar_model::cluster::{LbPolicy, LocalityLb, SubsetFallback, Subsets as Rules};
use sidecar_model::{Cluster, Metadata};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// The namespace of labels that subsets are made by.
const NAMESPACE: &str = "envoy.lb";

/// A cluster's subsets.
#[derive(Debug)]
pub(crate) struct Subsets {
    rules: Rules,
    by_labels: HashMap<String, Set>,
    default: Option<Set>,
}

/// Labels that are asked for.
type Labels<'a> = BTreeMap<&'a str, &'a Value>;

impl Subsets {
    /// The subsets of a cluster; `None` when it has none.
    pub(crate) fn new(cluster: &Cluster, hosts: &[Host], places: &[Place]) -> Option<Self> {
        let rules = cluster.subsets.clone()?;
        let locality = LocalityLb {
            weighted_localities: cluster.locality_lb.weighted_localities && rules.locality_weight_aware,
            ..cluster.locality_lb
        };
        let mut members: HashMap<String, Vec<u32>> = HashMap::new();
        let indexed = || (0u32..).zip(hosts);
        for selector in &rules.selectors {
            for (index, host) in indexed() {
                let labels: Option<Labels<'_>> =
                    selector.keys.iter().map(|key| Some((&**key, label(host, key)?))).collect();
                if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
                    let all = members.entry(name(&labels)).or_default();
                    // Two selectors may have the same keys.
                    if all.last() != Some(&index) {
                        all.push(index);
                    }
                }
            }
        }
        let set = |lb: &LbPolicy, all: Vec<u32>| Set::new(lb, locality, hosts, places, all.into_iter());
        let fits =
            |host: &Host| rules.default_subset.iter().all(|(key, want)| label(host, key) == Some(want));
        let wanted = matches!(rules.fallback, SubsetFallback::DefaultSubset)
            || rules.selectors.iter().any(|it| matches!(it.fallback, Some(SubsetFallback::DefaultSubset)));
        let default = wanted.then(|| {
            let all = indexed().filter(|(_, host)| fits(host)).map(|(index, _)| index).collect();
            set(&cluster.lb, all)
        });
        let by_labels = members.into_iter().map(|(name, all)| (name, set(&cluster.lb, all))).collect();
        Some(Self { rules, by_labels, default })
    }

    /// The set that a request with these wishes is balanced in, out of `all`; the first of two wishes for a label counts.
    pub(crate) fn find<'s>(&'s self, wishes: [Option<&Metadata>; 2], all: &'s Set) -> Option<&'s Set> {
        let mut labels = Labels::new();
        for metadata in wishes.iter().rev().flatten() {
            let object = metadata.namespace(NAMESPACE).and_then(Value::as_object);
            labels.extend(object.into_iter().flatten().map(|(key, value)| (key.as_str(), value)));
        }
        if labels.is_empty() {
            return self.fall_back(&self.rules.fallback, &labels, all);
        }
        if let Some(set) = self.by_labels.get(&name(&labels)) {
            return Some(set);
        }
        let selector = self.rules.selectors.iter().find(|it| {
            it.keys.len() == labels.len() && it.keys.iter().all(|key| labels.contains_key(&**key))
        });
        let fallback = selector.and_then(|it| it.fallback.as_ref()).unwrap_or(&self.rules.fallback);
        self.fall_back(fallback, &labels, all)
    }

    fn fall_back<'s>(
        &'s self,
        fallback: &SubsetFallback,
        labels: &Labels<'_>,
        all: &'s Set,
    ) -> Option<&'s Set> {
        match fallback {
            SubsetFallback::None => None,
            SubsetFallback::AnyEndpoint => Some(all),
            SubsetFallback::DefaultSubset => self.default.as_ref(),
            SubsetFallback::Keys(keys) => {
                let fewer: Labels<'_> = labels
                    .iter()
                    .filter(|(key, _)| keys.iter().any(|kept| **kept == ***key))
                    .map(|(key, value)| (*key, *value))
                    .collect();
                self.by_labels.get(&name(&fewer))
            }
        }
    }
}

fn label<'h>(host: &'h Host, key: &str) -> Option<&'h Value> {
    host.endpoint.metadata.namespace(NAMESPACE)?.get(key)
}

/// Labels as one text; their order does not matter.
fn name(labels: &Labels<'_>) -> String {
    let mut text = String::new();
    for (key, value) in labels {
        // Writing to a String cannot fail. The key is quoted: no two sets of labels have the same text.
        let _ = write!(text, "{key:?}={value};");
    }
    text
}
