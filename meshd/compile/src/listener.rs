//! Listeners: outbound and inbound ones of a sidecar, those of a gateway.

mod chain;
mod gateway;
mod hcm;
mod inbound;
mod outbound;
mod tcp;

use std::sync::Arc;

use meshd_model::ProxyKind;

use crate::resource::{Resource, ResourceMap};
use crate::view::View;

/// Every IPv4 address.
const ANY_ADDRESS: &str = "0.0.0.0";

/// All listeners of a proxy.
pub(crate) fn compile(view: &View<'_>) -> ResourceMap {
    let listeners = match view.proxy.kind {
        ProxyKind::Sidecar => {
            let mut listeners = outbound::listeners(view);
            listeners.push(inbound::listener(view));
            listeners
        }
        ProxyKind::Router => gateway::listeners(view),
    };
    let mut resources = ResourceMap::new();
    for mut listener in listeners {
        listener.filter_chains = chain::unique(listener.filter_chains);
        let resource = Resource::encode(listener.name.as_str(), &listener);
        resources.entry(Arc::clone(&resource.name)).or_insert(resource);
    }
    resources
}
