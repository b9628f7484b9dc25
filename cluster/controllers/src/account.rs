//! What each namespace gets: the service account `default` and the cluster's root certificate.

use serde_json::json;

use crate::{
    cache::Key,
    hub::Caches,
    plan::{Action, Kind, Plan},
};

/// The ConfigMap with the cluster's root certificate.
pub const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
const DEFAULT: &str = "default";
const FILE: &str = "ca.crt";

/// Gives a namespace, whose name is the key's, what it lacks.
pub fn reconcile(caches: &Caches, key: &Key, cluster_ca_pem: &str) -> Plan {
    let active =
        caches.namespaces.get(key).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none());
    if !active {
        return Plan::nothing();
    }
    let namespace = key.name.as_str();
    let mut actions = Vec::new();
    if caches.service_accounts.get(&Key::new(namespace, DEFAULT)).is_none() {
        actions.push(Action::create(
            Kind::ServiceAccount,
            namespace,
            json!({"metadata": {"name": DEFAULT, "namespace": namespace}}),
        ));
    }
    let place = Key::new(namespace, ROOT_CERTIFICATE);
    match caches.root_certificates.get(&place) {
        None => {
            let object = json!({
                "metadata": {
                    "name": ROOT_CERTIFICATE, "namespace": namespace,
                    "annotations": {"kubernetes.io/description": "The certificates by which the API server of this cluster is known."},
                },
                "data": {FILE: cluster_ca_pem},
            });
            actions.push(Action::create(Kind::ConfigMap, namespace, object));
        }
        Some(map) => {
            let data = map.data.clone().unwrap_or_default();
            if data.len() != 1 || data.get(FILE).map(String::as_str) != Some(cluster_ca_pem) {
                let mut wanted = json!({FILE: cluster_ca_pem});
                for name in data.keys().filter(|name| *name != FILE) {
                    wanted[name] = serde_json::Value::Null;
                }
                actions.push(Action::patch(Kind::ConfigMap, place, json!({"data": wanted})));
            }
        }
    }
    Plan::of(actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Verb;

    #[test]
    fn a_namespace_gets_what_it_lacks() {
        let caches = Caches::default();
        let key = Key::new("", "n");
        assert_eq!(reconcile(&caches, &key, "PEM"), Plan::nothing());
        let namespace = json!({"metadata": {"name": "n", "resourceVersion": "1"}});
        caches.namespaces.told(serde_json::from_value(namespace).unwrap());
        let plan = reconcile(&caches, &key, "PEM");
        assert_eq!(
            plan.actions().map(|action| action.kind).collect::<Vec<_>>(),
            [Kind::ServiceAccount, Kind::ConfigMap]
        );
        let account = json!({"metadata": {"namespace": "n", "name": "default", "resourceVersion": "2"}});
        caches.service_accounts.told(serde_json::from_value(account).unwrap());
        let map = json!({"metadata": {"namespace": "n", "name": ROOT_CERTIFICATE, "resourceVersion": "3"}, "data": {"ca.crt": "OLD", "more": "x"}});
        caches.root_certificates.told(serde_json::from_value(map).unwrap());
        let plan = reconcile(&caches, &key, "PEM");
        let [Action { verb: Verb::Patch { patch, .. }, .. }] = &plan.batches[0][..] else {
            panic!("{plan:?}")
        };
        assert_eq!(*patch, json!({"data": {"ca.crt": "PEM", "more": null}}));
        let map = json!({"metadata": {"namespace": "n", "name": ROOT_CERTIFICATE, "resourceVersion": "4"}, "data": {"ca.crt": "PEM"}});
        caches.root_certificates.told(serde_json::from_value(map).unwrap());
        assert_eq!(reconcile(&caches, &key, "PEM"), Plan::nothing());
    }
}
