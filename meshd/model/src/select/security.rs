//! Peer authentication, request authentication and authorization policies of a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use policies_api::authorization_policy::Action;
use policies_api::matching::StringMap;
use policies_api::peer_authentication::MtlsMode;
use policies_api::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Telemetry};

use super::selects_pod;
use crate::object::Config;
use crate::snapshot::Snapshot;

/// The modes of a pod's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerModes {
    /// Mode of ports without their own.
    pub default: MtlsMode,
    /// Modes of single ports of the pod.
    pub ports: BTreeMap<u16, MtlsMode>,
}

/// Policies of access that concern a pod, by action, each list by precedence.
#[derive(Clone, Debug, Default)]
pub struct AccessPolicies<'a> {
    /// `CUSTOM`.
    pub custom: Vec<&'a Config<AuthorizationPolicy>>,
    /// `DENY`.
    pub deny: Vec<&'a Config<AuthorizationPolicy>>,
    /// `ALLOW`.
    pub allow: Vec<&'a Config<AuthorizationPolicy>>,
    /// `AUDIT`.
    pub audit: Vec<&'a Config<AuthorizationPolicy>>,
}

// === impl PeerModes ===

impl PeerModes {
    /// The mode of a port of the pod.
    #[must_use]
    pub fn of(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

/// The modes of a pod: its own policy, else its namespace's, else the root namespace's, else the mesh's default; oldest first.
#[must_use]
pub fn peer_modes(snapshot: &Snapshot, namespace: &str, labels: &StringMap) -> PeerModes {
    let root = &*snapshot.mesh.root_namespace;
    let list = || snapshot.policies.peer_authentications.iter().map(|it| &**it);
    let wide = |of: &str| {
        list().find(|it| *it.namespace == *of && selector_of(it).is_none()).map_or(MtlsMode::Unset, mode_of)
    };
    // A selector in the root namespace is ignored unless the pod itself lives there.
    let own = list().find(|it| {
        *it.namespace == *namespace
            && selector_of(it).is_some_and(|selector| policies_api::matching::selects(selector, labels))
    });
    let modes =
        [own.map_or(MtlsMode::Unset, mode_of), wide(namespace), wide(root), snapshot.mesh.default_mtls];
    let default = modes.into_iter().find(|mode| *mode != MtlsMode::Unset).unwrap_or(MtlsMode::Permissive);
    let ports = own.into_iter().flat_map(|it| it.spec.port_level_mtls.iter());
    let ports = ports
        .map(|(port, mtls)| (*port, if mtls.mode == MtlsMode::Unset { default } else { mtls.mode }))
        .collect();
    PeerModes { default, ports }
}

fn selector_of(policy: &Config<PeerAuthentication>) -> Option<&StringMap> {
    policy.spec.selector.as_ref().map(|it| &it.match_labels).filter(|it| !it.is_empty())
}

fn mode_of(policy: &Config<PeerAuthentication>) -> MtlsMode {
    policy.spec.mtls.map_or(MtlsMode::Unset, |it| it.mode)
}

/// The policies of access of a pod. Policies attached to other objects (`targetRefs`) do not concern pods.
#[must_use]
pub fn access_policies<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    labels: &StringMap,
) -> AccessPolicies<'a> {
    let mut found = AccessPolicies::default();
    for policy in snapshot.policies.authorization_policies.iter().map(|it| &**it) {
        let spec = &policy.spec;
        let attached = spec.target_ref.is_some() || !spec.target_refs.is_empty();
        let selector = spec.selector.as_ref().map(|it| &it.match_labels);
        if attached
            || !selects_pod(&snapshot.mesh.root_namespace, &policy.namespace, selector, namespace, labels)
        {
            continue;
        }
        match spec.action {
            Action::Custom => found.custom.push(policy),
            Action::Deny => found.deny.push(policy),
            Action::Allow => found.allow.push(policy),
            Action::Audit => found.audit.push(policy),
        }
    }
    found
}

/// The request authentications of a pod.
#[must_use]
pub fn request_authentications<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    labels: &StringMap,
) -> Vec<&'a Config<RequestAuthentication>> {
    let all = snapshot.policies.request_authentications.iter().map(|it| &**it);
    all.filter(|it| {
        let attached = it.spec.target_ref.is_some() || !it.spec.target_refs.is_empty();
        let selector = it.spec.selector.as_ref().map(|it| &it.match_labels);
        !attached && selects_pod(&snapshot.mesh.root_namespace, &it.namespace, selector, namespace, labels)
    })
    .collect()
}

/// The telemetry objects of a pod, widest first: root namespace, namespace, pod.
#[must_use]
pub fn telemetries<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    labels: &StringMap,
) -> Vec<&'a Arc<Config<Telemetry>>> {
    let root = &*snapshot.mesh.root_namespace;
    let all = &snapshot.policies.telemetries;
    let selector = |it: &Arc<Config<Telemetry>>| {
        it.spec.selector.as_ref().map(|it| it.match_labels.clone()).filter(|it| !it.is_empty())
    };
    let wide = |of: &str| all.iter().find(|it| *it.namespace == *of && selector(it).is_none());
    let own = all.iter().find(|it| {
        *it.namespace == *namespace
            && selector(it).is_some_and(|it| policies_api::matching::selects(&it, labels))
    });
    let namespaced = if namespace == root { None } else { wide(namespace) };
    [wide(root), namespaced, own].into_iter().flatten().collect()
}
