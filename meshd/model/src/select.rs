//! Which policy concerns which proxy: scopes, selectors, precedence. Pure; every rule here is Istio's unless it says otherwise.

pub mod delegate;
pub mod egress;
pub mod gateway;
pub mod rule;
pub mod security;
pub mod virtual_service;

use policies_api::matching::{StringMap, selects};
use policies_api::{Kind, Sidecar};

use crate::object::{Config, ObjectId};
use crate::proxy::{ProxyKey, ProxyKind};
use crate::snapshot::Snapshot;

pub use egress::EgressScope;
pub use rule::RuleIndex;

/// Whether an object of `owner` with this `exportTo` is seen by clients of `client`.
#[must_use]
pub fn visible(export_to: &[String], default: &[String], owner: &str, client: &str) -> bool {
    let list = if export_to.is_empty() { default } else { export_to };
    list.is_empty()
        || list.iter().any(|entry| match entry.as_str() {
            "*" => true,
            "." => owner == client,
            "~" => false,
            namespace => namespace == client,
        })
}

/// Whether an object of `namespace` with a selector concerns pods: those of its own namespace, all when it is the root namespace.
pub(crate) fn selects_pod(
    root: &str,
    namespace: &str,
    selector: Option<&StringMap>,
    pod_namespace: &str,
    labels: &StringMap,
) -> bool {
    (namespace == pod_namespace || namespace == root)
        && selector.is_none_or(|selector| selects(selector, labels))
}

/// The one `Sidecar` object of a proxy: by selector in its namespace, then the namespace's own, then the root namespace's.
#[must_use]
pub fn sidecar<'a>(snapshot: &'a Snapshot, proxy: &ProxyKey) -> Option<&'a Config<Sidecar>> {
    if proxy.kind == ProxyKind::Router {
        return None;
    }
    let labels_of = |it: &'a Config<Sidecar>| {
        it.spec.workload_selector.as_ref().map(|selector| &selector.labels).filter(|it| !it.is_empty())
    };
    let all = || snapshot.policies.sidecars.iter().map(|it| &**it);
    let own = || all().filter(|it| it.namespace == proxy.namespace);
    own()
        .find(|it| labels_of(it).is_some_and(|selector| selects(selector, &proxy.labels)))
        .or_else(|| own().find(|it| labels_of(it).is_none()))
        .or_else(|| {
            all().find(|it| *it.namespace == *snapshot.mesh.root_namespace && labels_of(it).is_none())
        })
}

/// Whether an object can change what a proxy gets. May say yes too often, never no wrongly.
#[must_use]
pub fn concerns(snapshot: &Snapshot, id: &ObjectId, proxy: &ProxyKey) -> bool {
    let policies = &snapshot.policies;
    let client = &*proxy.namespace;
    let mesh = &snapshot.mesh;
    let own_or_root = *id.namespace == *client || *id.namespace == *mesh.root_namespace;
    match id.kind {
        Kind::VirtualService => find(&policies.virtual_services, id).is_some_and(|it| {
            virtual_service::concerns(snapshot, it, proxy) || virtual_service::is_delegate(it)
        }),
        Kind::DestinationRule => {
            find(&policies.destination_rules, id).is_some_and(|it| rule::visible_to(snapshot, it, proxy))
        }
        Kind::ServiceEntry => find(&policies.service_entries, id).is_some_and(|it| {
            visible(&it.spec.export_to, &mesh.default_service_export_to, &it.namespace, client)
        }),
        Kind::Gateway => {
            proxy.kind == ProxyKind::Router
                && find(&policies.gateways, id).is_some_and(|it| selects(&it.spec.selector, &proxy.labels))
        }
        Kind::Sidecar => proxy.kind == ProxyKind::Sidecar && own_or_root,
        // A peer authentication also decides whether clients elsewhere use mutual TLS.
        Kind::PeerAuthentication => find(&policies.peer_authentications, id).is_some(),
        Kind::RequestAuthentication => find(&policies.request_authentications, id).is_some_and(|it| {
            let selector = it.spec.selector.as_ref().map(|it| &it.match_labels);
            selects_pod(&mesh.root_namespace, &it.namespace, selector, client, &proxy.labels)
        }),
        Kind::AuthorizationPolicy => find(&policies.authorization_policies, id).is_some_and(|it| {
            let selector = it.spec.selector.as_ref().map(|it| &it.match_labels);
            selects_pod(&mesh.root_namespace, &it.namespace, selector, client, &proxy.labels)
        }),
        Kind::Telemetry => own_or_root,
    }
}

fn find<'a, T>(list: &'a [std::sync::Arc<Config<T>>], id: &ObjectId) -> Option<&'a Config<T>> {
    list.iter().find(|it| it.namespace == id.namespace && it.name == id.name).map(|it| &**it)
}
