//! Filters: HTTP chains in Istio's order, and the configuration of each filter.

pub(crate) mod access_log;
pub(crate) mod cors;
mod ext_authz;
pub(crate) mod fault;
pub(crate) mod jwt;
pub(crate) mod rbac;
pub(crate) mod tracing;

use policies_xds::hcm::{HttpFilter, http_filter};
use policies_xds::protobuf::Any;
use policies_xds::{any, listener, router};

/// An HTTP filter.
pub(crate) fn http(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// A network filter.
pub(crate) fn network(name: &str, config: Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    }
}

/// Faults, cross-origin answers, and the router: what a client's side does.
pub(crate) fn client_side() -> Vec<HttpFilter> {
    vec![fault::filter(), cors::filter(), router()]
}

/// The router, always last.
pub(crate) fn router() -> HttpFilter {
    http("envoy.filters.http.router", any(&router::Router::default()))
}
