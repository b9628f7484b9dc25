//! The HTTP connection manager in its three roles.

use std::time::Duration;

use policies_xds::hcm::http_connection_manager::{
    ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
};
use policies_xds::hcm::{HttpConnectionManager, HttpFilter, Rds};
use policies_xds::route::RouteConfiguration;
use policies_xds::{any, listener};

use crate::filter::access_log::{self, Side};
use crate::filter::{self, network, tracing};
use crate::proto::{ads, duration, flag};
use crate::view::View;

const FILTER: &str = "envoy.filters.network.http_connection_manager";
/// How servers of the mesh call themselves.
const SERVER_NAME: &str = "istio-envoy";

/// Requests that leave the pod.
pub(super) fn outbound(view: &View<'_>, route: &str, port: u16) -> listener::Filter {
    let manager = HttpConnectionManager {
        stat_prefix: format!("outbound_0.0.0.0_{port}"),
        access_log: access_log::logs(view, Side::Client),
        http_filters: filter::client_side(),
        route_specifier: Some(RouteSpecifier::Rds(by_name(route))),
        ..base(view, Side::Client)
    };
    network(FILTER, any(&manager))
}

/// Requests that reach the application: authenticated, authorized, then passed on.
pub(super) fn inbound(view: &View<'_>, routes: RouteConfiguration, port: u16) -> listener::Filter {
    let manager = HttpConnectionManager {
        stat_prefix: format!("inbound_0.0.0.0_{port}"),
        server_name: SERVER_NAME.to_owned(),
        access_log: access_log::logs(view, Side::Server),
        http_filters: server_side(view, vec![filter::router()]),
        forward_client_cert_details: ForwardClientCertDetails::AppendForward.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: flag(true),
            dns: true,
            uri: true,
            ..Default::default()
        }),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        ..base(view, Side::Server)
    };
    network(FILTER, any(&manager))
}

/// Requests that enter through a gateway.
pub(super) fn gateway(view: &View<'_>, route: &str, port: u16) -> listener::Filter {
    let manager = HttpConnectionManager {
        stat_prefix: format!("outbound_0.0.0.0_{port}"),
        server_name: SERVER_NAME.to_owned(),
        access_log: access_log::logs(view, Side::Client),
        http_filters: server_side(view, filter::client_side()),
        use_remote_address: flag(true),
        forward_client_cert_details: ForwardClientCertDetails::SanitizeSet.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: flag(true),
            cert: true,
            dns: true,
            uri: true,
            ..Default::default()
        }),
        route_specifier: Some(RouteSpecifier::Rds(by_name(route))),
        ..base(view, Side::Client)
    };
    network(FILTER, any(&manager))
}

fn server_side(view: &View<'_>, then: Vec<HttpFilter>) -> Vec<HttpFilter> {
    // Istio's order: services are asked before tokens are looked at, and policies see both.
    let filters = filter::rbac::custom_filters(view).into_iter().chain(filter::jwt::filter(view));
    filters.chain(filter::rbac::http_filters(view)).chain(then).collect()
}

fn by_name(route: &str) -> Rds {
    Rds { config_source: Some(ads()), route_config_name: route.to_owned() }
}

fn base(view: &View<'_>, side: Side) -> HttpConnectionManager {
    HttpConnectionManager {
        use_remote_address: flag(false),
        generate_request_id: flag(true),
        proxy_100_continue: true,
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        normalize_path: flag(true),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }],
        tracing: tracing::tracing(view, side),
        ..Default::default()
    }
}
