//! Snapshot × proxy → xDS resources, pure and deterministic: equal input gives equal bytes.
//!
//! What comes out is what Istio sends to Envoy; a plain Envoy accepts it. Streams and acknowledgements belong to `meshd-xds`.

mod affected;
mod cluster;
mod endpoint;
mod filter;
mod inbound;
mod listener;
mod proto;
mod resource;
mod route;
mod secret;
mod tls;
mod view;

pub use affected::{Affected, affected};
pub use resource::{Resource, ResourceMap, ResourceType, Resources};

use meshd_model::{Change, ProxyKey, Snapshot};

/// Compiles everything a proxy needs. An object that cannot be compiled loses its own effect only (a policy of access then denies).
#[must_use]
pub fn compile(snapshot: &Snapshot, proxy: &ProxyKey) -> Resources {
    let view = view::View::new(snapshot, proxy);
    Resources {
        clusters: cluster::compile(&view).into(),
        endpoints: endpoint::compile(&view).into(),
        listeners: listener::compile(&view).into(),
        routes: route::compile(&view).into(),
        secrets: secret::compile(&view).into(),
    }
}

/// The fast path after [`Affected::Endpoints`]: only the assignments of hosts that `change` names are compiled again.
#[must_use]
pub fn compile_endpoints(
    snapshot: &Snapshot,
    proxy: &ProxyKey,
    previous: &Resources,
    change: &Change,
) -> Resources {
    let view = view::View::new(snapshot, proxy);
    Resources {
        endpoints: endpoint::recompile(&view, &previous.endpoints, change).into(),
        ..previous.clone()
    }
}
