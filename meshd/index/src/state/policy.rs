//! Policy objects: parsed once, kept by precedence, compared by what they say so that status writes change nothing.

use std::sync::Arc;

use meshd_model::{Config, ObjectId, ObjectKey, ObjectVersion, Policies};
use policies_api::authorization_policy::{Action, Rule};
use policies_api::names::annotations;
use policies_api::validate::{Severity, validate};
use policies_api::{AuthorizationPolicy, Kind, ServiceEntry, Spec};

use super::Object;

/// The policy objects so far.
#[derive(Debug, Default)]
pub(super) struct PolicyStore {
    current: Arc<Policies>,
}

// === impl PolicyStore ===

impl PolicyStore {
    pub(super) fn current(&self) -> Arc<Policies> {
        Arc::clone(&self.current)
    }

    /// Takes in an object; false when it says nothing new.
    pub(super) fn put(&mut self, kind: Kind, object: &Object) -> bool {
        let id = id(kind, &object.meta.key());
        let (spec, invalid) = read(kind, object);
        let version = ObjectVersion {
            generation: object.meta.generation,
            resource_version: Arc::clone(&object.meta.resource_version),
            invalid,
        };
        let policies = Arc::make_mut(&mut self.current);
        let same_version = policies
            .versions
            .get(&id)
            .is_some_and(|old| old.generation == version.generation && old.invalid == version.invalid);
        let changed = place(policies, &id, object, spec);
        policies.versions.insert(id, version);
        changed || !same_version
    }

    /// Forgets an object; false when it was not known.
    pub(super) fn remove(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        let id = id(kind, key);
        if !self.current.versions.contains_key(&id) {
            return false;
        }
        let policies = Arc::make_mut(&mut self.current);
        policies.versions.remove(&id);
        place(policies, &id, &Object::default(), None);
        true
    }

    /// Names of the objects of a kind.
    pub(super) fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        let of_kind = self.current.versions.keys().filter(|it| it.kind == kind);
        of_kind.map(|it| (Arc::clone(&it.namespace), Arc::clone(&it.name))).collect()
    }

    /// A service entry.
    pub(super) fn entry(&self, key: &ObjectKey) -> Option<Arc<Config<ServiceEntry>>> {
        self.current.service_entries.iter().find(|it| it.namespace == key.0 && it.name == key.1).cloned()
    }

    /// Whether some service entry takes its endpoints from pods.
    pub(super) fn has_selecting_entries(&self) -> bool {
        self.current.service_entries.iter().any(|it| it.spec.workload_selector.is_some())
    }
}

fn id(kind: Kind, (namespace, name): &ObjectKey) -> ObjectId {
    ObjectId { kind, namespace: Arc::clone(namespace), name: Arc::clone(name) }
}

/// What an object says, and why it says nothing. The webhook refuses what is invalid; whatever gets past it (it was away, or the object is
/// older) must not reach proxies, where it would hold up everything else.
fn read(kind: Kind, object: &Object) -> (Option<Spec>, Option<Arc<str>>) {
    match Spec::parse(kind, object.data.get("spec")) {
        Ok(spec) => match problem(kind, object) {
            None => (Some(spec), None),
            Some(why) => (refusing(spec), Some(why.into())),
        },
        Err(error) => (replacement(kind), Some(base_types::ErrorChain(&error).to_string().into())),
    }
}

fn problem(kind: Kind, object: &Object) -> Option<String> {
    let whole = serde_json::json!({
        "apiVersion": format!("{}/v1", kind.group()),
        "kind": kind.name(),
        "metadata": { "name": &*object.meta.name, "namespace": &*object.meta.namespace },
        "spec": object.data.get("spec"),
    });
    let problems = validate(&whole).unwrap_or_default();
    // A field of a newer version is left alone, as the API server of Kubernetes leaves it.
    let first = problems.into_iter().find(|it| it.severity == Severity::Error && !it.is_unknown_field())?;
    Some(format!("{}: {}", first.path, first.reason))
}

/// What stands for an object that cannot be read: nothing, except that a policy of access then refuses everything in its namespace.
fn replacement(kind: Kind) -> Option<Spec> {
    (kind == Kind::AuthorizationPolicy)
        .then(|| Spec::AuthorizationPolicy(AuthorizationPolicy::default()))
        .and_then(refusing)
}

/// What stands for an object that means nothing: as [`replacement`], for the pods that the policy selects.
fn refusing(spec: Spec) -> Option<Spec> {
    let Spec::AuthorizationPolicy(written) = spec else { return None };
    Some(Spec::AuthorizationPolicy(AuthorizationPolicy {
        action: Action::Deny,
        rules: vec![Rule::default()],
        provider: None,
        ..written
    }))
}

/// Puts the spec into the list of its kind; true when the list is another one afterwards.
fn place(policies: &mut Policies, id: &ObjectId, object: &Object, spec: Option<Spec>) -> bool {
    macro_rules! replace {
        ($list:ident, $variant:ident) => {{
            let wanted = match spec {
                Some(Spec::$variant(spec)) => Some(config(id, object, spec)),
                _ => None,
            };
            replace_in(&mut policies.$list, id, wanted)
        }};
    }
    match id.kind {
        Kind::VirtualService => replace!(virtual_services, VirtualService),
        Kind::DestinationRule => replace!(destination_rules, DestinationRule),
        Kind::Gateway => replace!(gateways, Gateway),
        Kind::ServiceEntry => replace!(service_entries, ServiceEntry),
        Kind::Sidecar => replace!(sidecars, Sidecar),
        Kind::PeerAuthentication => replace!(peer_authentications, PeerAuthentication),
        Kind::RequestAuthentication => replace!(request_authentications, RequestAuthentication),
        Kind::AuthorizationPolicy => replace!(authorization_policies, AuthorizationPolicy),
        Kind::Telemetry => replace!(telemetries, Telemetry),
    }
}

fn config<T>(id: &ObjectId, object: &Object, spec: T) -> Config<T> {
    let is_set = |name: &str| object.meta.annotations.get(name).is_some_and(|it| it == "true");
    Config {
        namespace: Arc::clone(&id.namespace),
        name: Arc::clone(&id.name),
        created: object.meta.created,
        dry_run: is_set(annotations::DRY_RUN),
        sticky_split: is_set(annotations::STICKY_SPLIT),
        spec,
    }
}

fn replace_in<T: PartialEq>(
    list: &mut Vec<Arc<Config<T>>>,
    id: &ObjectId,
    wanted: Option<Config<T>>,
) -> bool {
    let index = list.iter().position(|it| it.namespace == id.namespace && it.name == id.name);
    match (index, wanted) {
        (None, None) => false,
        (Some(index), None) => {
            list.remove(index);
            true
        }
        (Some(index), Some(wanted)) if *list[index] == wanted => false,
        (index, Some(wanted)) => {
            if let Some(index) = index {
                list.remove(index);
            }
            let at = list.partition_point(|it| it.precedence(&wanted).is_lt());
            list.insert(at, Arc::new(wanted));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, created: &str, spec: serde_json::Value) -> Object {
        Object::from_json(
            json!({ "metadata": { "name": name, "namespace": "a", "creationTimestamp": created }, "spec": spec }),
        )
    }

    #[test]
    fn lists_stay_in_order_of_precedence() {
        let mut store = PolicyStore::default();
        for (name, created) in
            [("late", "2026-01-02T00:00:00Z"), ("b", "2026-01-01T00:00:00Z"), ("a", "2026-01-01T00:00:00Z")]
        {
            assert!(store.put(
                Kind::VirtualService,
                &object(name, created, json!({ "hosts": [name], "http": [{ "redirect": { "uri": "/" } }] }))
            ));
        }
        let names = |store: &PolicyStore| {
            store.current.virtual_services.iter().map(|it| it.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&store), ["a", "b", "late"]);
        assert!(store.remove(Kind::VirtualService, &("a".into(), "b".into())));
        assert_eq!(names(&store), ["a", "late"]);
    }

    #[test]
    fn a_status_write_says_nothing_new() {
        let mut store = PolicyStore::default();
        let mut it = object(
            "a",
            "2026-01-01T00:00:00Z",
            json!({ "hosts": ["a"], "http": [{ "redirect": { "uri": "/" } }] }),
        );
        assert!(store.put(Kind::VirtualService, &it));
        it.meta.resource_version = "2".into();
        it.data["status"] = json!({ "observedGeneration": 1 });
        assert!(!store.put(Kind::VirtualService, &it));
    }

    #[test]
    fn an_invalid_object_has_no_effect_and_says_why() {
        let mut store = PolicyStore::default();
        let spec = json!({ "hosts": ["a"], "http": [{ "match": [{ "uri": { "regex": "(" } }], "route": [{ "destination": { "host": "a" } }] }] });
        assert!(store.put(Kind::VirtualService, &object("a", "2026-01-01T00:00:00Z", spec)));
        assert!(store.current.virtual_services.is_empty());
        let why = store.current.versions.values().next().and_then(|it| it.invalid.clone()).expect("a reason");
        assert!(why.starts_with("spec.http[0].match[0].uri.regex: "), "{why}");
        let newer = json!({ "hosts": ["a"], "inventedLater": 1, "http": [{ "route": [{ "destination": { "host": "a" } }] }] });
        assert!(store.put(Kind::VirtualService, &object("a", "2026-01-01T00:00:00Z", newer)));
        assert_eq!(store.current.virtual_services.len(), 1);
    }

    #[test]
    fn an_unreadable_policy_of_access_refuses() {
        let mut store = PolicyStore::default();
        assert!(
            store.put(
                Kind::AuthorizationPolicy,
                &object("p", "2026-01-01T00:00:00Z", json!({ "rules": "all" }))
            )
        );
        assert_eq!(store.current.authorization_policies[0].spec.action, Action::Deny);
        assert!(store.current.versions.values().all(|it| it.invalid.is_some()));
    }
}
