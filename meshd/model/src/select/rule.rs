//! The destination rule of a host: client's namespace, then the service's, then the root namespace; one level only.

use std::collections::HashMap;
use std::sync::Arc;

use policies_api::DestinationRule;
use policies_api::matching::selects;

use super::visible;
use crate::host;
use crate::object::Config;
use crate::proxy::ProxyKey;
use crate::snapshot::Snapshot;

/// The destination rules a proxy can see, merged per namespace and host.
#[derive(Clone, Debug, Default)]
pub struct RuleIndex {
    namespaces: HashMap<Arc<str>, Level>,
    client: Arc<str>,
    root: Arc<str>,
}

#[derive(Clone, Debug, Default)]
struct Level {
    exact: HashMap<String, Vec<Arc<Config<DestinationRule>>>>,
    /// Longest first.
    wildcards: Vec<(String, Vec<Arc<Config<DestinationRule>>>)>,
}

// === impl RuleIndex ===

impl RuleIndex {
    /// Collects the rules that `proxy` sees.
    #[must_use]
    pub fn new(snapshot: &Snapshot, proxy: &ProxyKey) -> Self {
        let mut this = Self {
            namespaces: HashMap::new(),
            client: Arc::clone(&proxy.namespace),
            root: snapshot.mesh.root_namespace.as_str().into(),
        };
        for rule in snapshot.policies.destination_rules.iter().filter(|it| visible_to(snapshot, it, proxy)) {
            let host = host::resolve(&rule.spec.host, &rule.namespace, &snapshot.mesh.cluster_domain)
                .to_ascii_lowercase();
            this.namespaces.entry(Arc::clone(&rule.namespace)).or_default().add(host, rule);
        }
        for level in this.namespaces.values_mut() {
            level.wildcards.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        }
        this
    }

    /// The rule for a host whose service lives in `service_namespace`.
    #[must_use]
    pub fn of(&self, host: &str, service_namespace: &str) -> Option<Arc<Config<DestinationRule>>> {
        [&*self.client, service_namespace, &*self.root]
            .into_iter()
            .find_map(|namespace| self.namespaces.get(namespace)?.of(host))
            .cloned()
    }
}

// === impl Level ===

impl Level {
    fn add(&mut self, host: String, rule: &Arc<Config<DestinationRule>>) {
        let rules = if host::is_wildcard(&host) {
            match self.wildcards.iter().position(|(pattern, _)| *pattern == host) {
                Some(index) => &mut self.wildcards[index].1,
                None => {
                    self.wildcards.push((host, vec![Arc::clone(rule)]));
                    return;
                }
            }
        } else {
            self.exact.entry(host).or_default()
        };
        let has_selector = |it: &DestinationRule| {
            it.workload_selector.as_ref().is_some_and(|it| !it.match_labels.is_empty())
        };
        match rules.iter_mut().find(|it| mergeable(&it.spec, &rule.spec)) {
            Some(first) => *first = Arc::new(merge(first, rule)),
            // Rules for selected pods go before those for all.
            None if has_selector(&rule.spec) => rules.insert(0, Arc::clone(rule)),
            None => rules.push(Arc::clone(rule)),
        }
    }

    fn of(&self, host: &str) -> Option<&Arc<Config<DestinationRule>>> {
        let exact = self.exact.get(&host.to_ascii_lowercase());
        let found = exact.or_else(|| {
            self.wildcards.iter().find(|(pattern, _)| host::covers(pattern, host)).map(|(_, rules)| rules)
        });
        found.and_then(|rules| rules.first())
    }
}

fn mergeable(first: &DestinationRule, later: &DestinationRule) -> bool {
    first.export_to == later.export_to && first.workload_selector == later.workload_selector
}

/// Subsets are joined, the first of a name wins; the first traffic policy wins.
fn merge(first: &Config<DestinationRule>, later: &Config<DestinationRule>) -> Config<DestinationRule> {
    let mut merged = first.clone();
    for subset in &later.spec.subsets {
        if merged.spec.subsets.iter().all(|it| it.name != subset.name) {
            merged.spec.subsets.push(subset.clone());
        }
    }
    if merged.spec.traffic_policy.is_none() {
        merged.spec.traffic_policy.clone_from(&later.spec.traffic_policy);
    }
    merged
}

/// Whether the proxy sees the rule: by `exportTo`, and by the selector, which is for pods of the rule's namespace only.
pub(crate) fn visible_to(snapshot: &Snapshot, rule: &Config<DestinationRule>, proxy: &ProxyKey) -> bool {
    let selected = rule.spec.workload_selector.as_ref().is_none_or(|selector| {
        selector.match_labels.is_empty()
            || (rule.namespace == proxy.namespace && selects(&selector.match_labels, &proxy.labels))
    });
    selected
        && visible(
            &rule.spec.export_to,
            &snapshot.mesh.default_destination_rule_export_to,
            &rule.namespace,
            &proxy.namespace,
        )
}
