//! The inbound listener of a sidecar: 15006 takes every connection to the pod, and decides by port, TLS and ALPN.

use std::time::Duration;

use meshd_model::Protocol;
use meshd_model::select::security;
use policies_api::names::ports;
use policies_api::peer_authentication::MtlsMode;
use policies_xds::core::{TrafficDirection, TransportSocket};
use policies_xds::listener::{Filter, FilterChain, FilterChainMatch, Listener};
use policies_xds::route::route_action::ClusterSpecifier;
use policies_xds::route::{
    Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost, route,
};

use super::{ANY_ADDRESS, chain, hcm, tcp};
use crate::cluster::{BLACK_HOLE, INBOUND_PASSTHROUGH};
use crate::filter::access_log::Side;
use crate::filter::rbac;
use crate::inbound::{self, InboundPort};
use crate::proto::{duration, flag, number, socket_address};
use crate::route::matches::prefix;
use crate::tls;
use crate::view::View;

/// ALPN that the inbound side accepts inside mutual TLS.
const INNER_HTTP: &[&str] = &["h2", "http/1.1"];

/// What the chains of one port, or of all others, lead to.
struct Target<'a> {
    /// None for all ports that no service has.
    port: Option<u16>,
    name: &'a str,
    cluster: &'a str,
    mode: MtlsMode,
    protocol: Protocol,
    routes: RouteConfiguration,
}

pub(super) fn listener(view: &View<'_>) -> Listener {
    let mut chains = vec![trap(view)];
    let modes = security::peer_modes(view.snapshot, &view.proxy.namespace, &view.proxy.labels);
    for port in inbound::ports(view) {
        let cluster = inbound::name(port.port);
        let name = format!("{ANY_ADDRESS}_{}", port.port);
        let target = Target {
            port: Some(port.port),
            name: &name,
            cluster: &cluster,
            mode: port.mode,
            protocol: port.protocol,
            routes: routes(&cluster, Some(&port)),
        };
        chains.extend(target.chains(view));
        if port.mode == MtlsMode::Strict && modes.default != MtlsMode::Strict {
            chains.push(refused(view, port.port));
        }
    }
    // Ports of no service can have a mode of their own; the rest follow the pod's.
    let own = modes.ports.iter().filter(|(port, _)| inbound::ports(view).iter().all(|it| it.port != **port));
    for (port, mode) in own {
        let name = format!("{ANY_ADDRESS}_{port}");
        chains.extend(rest(&name, Some(*port), *mode).chains(view));
    }
    chains.extend(rest("virtualInbound-catchall", None, modes.default).chains(view));
    Listener {
        name: "virtualInbound".to_owned(),
        address: Some(socket_address(ANY_ADDRESS, ports::INBOUND)),
        filter_chains: chains,
        listener_filters: vec![chain::original_destination(), chain::tls_hello(), chain::http_detection()],
        listener_filters_timeout: Some(duration(view.mesh.protocol_detection_timeout)),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Inbound.into(),
        ..Default::default()
    }
}

fn rest(name: &str, port: Option<u16>, mode: MtlsMode) -> Target<'_> {
    Target {
        port,
        name,
        cluster: INBOUND_PASSTHROUGH,
        mode,
        protocol: Protocol::Unset,
        routes: routes(INBOUND_PASSTHROUGH, None),
    }
}

fn trap(view: &View<'_>) -> FilterChain {
    FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
        // A connection straight to 15006 would go round in circles.
        filter_chain_match: Some(FilterChainMatch {
            destination_port: number(ports::INBOUND.into()),
            ..Default::default()
        }),
        filters: vec![tcp::to_cluster(view, BLACK_HOLE, Side::Server, tcp::Options::default())],
        ..Default::default()
    }
}

/// What is not mutual TLS on a strict port must not fall through to the chains of all other ports, which may take plain text.
fn refused(view: &View<'_>, port: u16) -> FilterChain {
    FilterChain {
        name: format!("{ANY_ADDRESS}_{port}-refused"),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: number(port.into()),
            ..Default::default()
        }),
        filters: vec![tcp::to_cluster(view, BLACK_HOLE, Side::Server, tcp::Options::default())],
        ..Default::default()
    }
}

// === impl Target ===

impl Target<'_> {
    /// Mutual TLS chains unless it is off, plain chains unless it is demanded; each as HTTP, bytes, or both where the protocol is sniffed.
    fn chains(&self, view: &View<'_>) -> Vec<FilterChain> {
        let mut chains = Vec::new();
        if self.mode != MtlsMode::Disable {
            let strict = self.mode == MtlsMode::Strict;
            match self.protocol {
                it if it.is_http() => {
                    chains.push(self.mutual(view, true, if strict { &[] } else { chain::MUTUAL_ANY }))
                }
                it if it.is_tcp() => {
                    chains.push(self.mutual(view, false, if strict { &[] } else { chain::MUTUAL_ANY }))
                }
                _ => {
                    chains.push(self.mutual(view, true, chain::MUTUAL_HTTP));
                    chains.push(self.mutual(view, false, if strict { &[] } else { chain::MUTUAL_BYTES }));
                }
            }
        }
        if self.mode != MtlsMode::Strict {
            match self.protocol {
                it if it.is_http() => chains.push(self.plain(view, true, &[])),
                it if it.is_tcp() => chains.push(self.plain(view, false, &[])),
                _ => {
                    chains.push(self.plain(view, true, chain::PLAIN_HTTP));
                    chains.push(self.plain(view, false, &[]));
                }
            }
            // TLS of the application itself passes through.
            chains.push(self.chain("tls", &[], self.bytes(view), None));
        }
        chains
    }

    fn mutual(&self, view: &View<'_>, http: bool, applications: &[&str]) -> FilterChain {
        let socket = tls::mutual_downstream(view.mesh, if http { INNER_HTTP } else { &["istio"] });
        let filters = if http { self.http(view) } else { self.bytes(view) };
        self.chain("tls", applications, filters, Some(socket))
    }

    fn plain(&self, view: &View<'_>, http: bool, applications: &[&str]) -> FilterChain {
        let filters = if http { self.http(view) } else { self.bytes(view) };
        self.chain("raw_buffer", applications, filters, None)
    }

    fn chain(
        &self,
        transport: &str,
        applications: &[&str],
        filters: Vec<Filter>,
        socket: Option<TransportSocket>,
    ) -> FilterChain {
        FilterChain {
            name: self.name.to_owned(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: self.port.and_then(|it| number(it.into())),
                ..chain::transport(transport, applications)
            }),
            filters,
            transport_socket: socket,
            ..Default::default()
        }
    }

    fn http(&self, view: &View<'_>) -> Vec<Filter> {
        vec![hcm::inbound(view, self.routes.clone(), self.port.unwrap_or(ports::INBOUND))]
    }

    fn bytes(&self, view: &View<'_>) -> Vec<Filter> {
        let mut filters = rbac::network_filters(view);
        filters.push(tcp::to_cluster(view, self.cluster, Side::Server, tcp::Options::default()));
        filters
    }
}

/// Everything goes to the application; resets before an answer are tried again, except on gRPC ports, which the client retries.
#[expect(deprecated, reason = "what Istio sends; Envoy and our sidecar read it")]
fn routes(cluster: &str, port: Option<&InboundPort<'_>>) -> RouteConfiguration {
    let is_grpc = port.is_some_and(|it| it.protocol == Protocol::Grpc);
    let retries = RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: number(2),
        ..Default::default()
    };
    let action = RouteAction {
        timeout: Some(duration(Duration::ZERO)),
        max_grpc_timeout: Some(duration(Duration::ZERO)),
        retry_policy: (!is_grpc && port.is_some()).then_some(retries),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    let operation = port
        .map_or_else(|| format!("{cluster}/*"), |it| format!("{}:{}/*", it.service.host, it.service_port));
    let everything = Route {
        name: "default".to_owned(),
        r#match: Some(prefix("/")),
        decorator: Some(Decorator { operation, propagate: None }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    let host = VirtualHost {
        name: format!("inbound|http|{}", port.map_or(0, |it| it.service_port)),
        domains: vec!["*".to_owned()],
        routes: vec![everything],
        ..Default::default()
    };
    RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![host],
        validate_clusters: flag(false),
        ..Default::default()
    }
}
