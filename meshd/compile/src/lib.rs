//! Snapshot × proxy → xDS resources, pure and deterministic: equal input gives equal bytes.
//!
//! What comes out is what Istio sends to Envoy. See `docs/` for the life of a push; acknowledgements and streams belong to `meshd-xds`.

mod affected;
mod cluster;
mod endpoint;
mod filter;
mod listener;
mod resource;
mod route;
mod secret;
mod tls;
mod view;

pub use affected::{Affected, affected};
pub use resource::{Resource, ResourceMap, ResourceType, Resources};

use meshd_model::{ProxyKey, Snapshot};

/// Compiles everything a proxy needs. An object that cannot be compiled loses its own effect only (a policy of access then denies).
#[must_use]
pub fn compile(snapshot: &Snapshot, proxy: &ProxyKey) -> Resources {
    let view = view::View::new(snapshot, proxy);
    let clusters = cluster::compile(&view);
    let endpoints = endpoint::compile(&view, &clusters);
    Resources {
        endpoints: endpoints.into(),
        listeners: listener::compile(&view).into(),
        routes: route::compile(&view).into(),
        secrets: secret::compile(&view).into(),
        clusters: clusters.into(),
    }
}

/// The fast path after [`Affected::Endpoints`]: everything else is taken over from `previous` unchanged.
#[must_use]
pub fn compile_endpoints(snapshot: &Snapshot, proxy: &ProxyKey, previous: &Resources) -> Resources {
    let view = view::View::new(snapshot, proxy);
    Resources { endpoints: endpoint::compile(&view, &previous.clusters).into(), ..previous.clone() }
}
