//! Route configurations: outbound ones per port for sidecars, per server for gateways; the inbound one of a port stands in its listener.

pub(crate) mod action;
pub(crate) mod domains;
pub(crate) mod gateway;
pub(crate) mod headers;
pub(crate) mod matches;
pub(crate) mod outbound;
pub(crate) mod retry;
pub(crate) mod rule;
mod sticky;

use std::sync::Arc;

use meshd_model::ProxyKind;
use policies_xds::route::RouteConfiguration;

use crate::proto::number;
use crate::resource::{Resource, ResourceMap};
use crate::view::View;

/// Istio's bound on the body of a direct response.
const DIRECT_RESPONSE_BYTES_MAX: u32 = 1 << 20;

/// All route configurations that listeners refer to by name.
pub(crate) fn compile(view: &View<'_>) -> ResourceMap {
    let configurations = match view.proxy.kind {
        ProxyKind::Sidecar => outbound::configurations(view),
        ProxyKind::Router => gateway::configurations(view),
    };
    let mut resources = ResourceMap::new();
    for configuration in configurations {
        let resource = Resource::encode(configuration.name.as_str(), &configuration);
        resources.entry(Arc::clone(&resource.name)).or_insert(resource);
    }
    resources
}

/// A route configuration with the options that all of ours share.
pub(crate) fn configuration(
    name: String,
    virtual_hosts: Vec<policies_xds::route::VirtualHost>,
) -> RouteConfiguration {
    RouteConfiguration {
        name,
        virtual_hosts,
        validate_clusters: crate::proto::flag(false),
        max_direct_response_body_size_bytes: number(DIRECT_RESPONSE_BYTES_MAX),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}
