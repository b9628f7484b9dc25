//! Listeners with their chains compiled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base_tls::{ClientAuth, Rotating, Server};
use http::HeaderValue;
use sidecar_http::{Keepalive, Limits};
use sidecar_model::filter_chain::{ConnectionLimit, NetworkFilter, Terminal};
use sidecar_model::hcm::RouteSource;
use sidecar_model::tls::{RootSource, SECRET_ROOT_CA, SanMatch};
use sidecar_model::{DownstreamTls, FilterChain, HttpConnectionManager, HttpFilterKind, Listener, TcpProxy};
use sidecar_route::RouteTable;
use sidecar_telemetry::log::Loggers;

use super::{Kept, SecretStore};
use crate::jwt::JwtPlan;

/// Istio's in-band metadata exchange, which is not spoken here and so never agreed on.
const PEER_EXCHANGE: &str = "istio-peer-exchange";
/// A closing connection is read over for this long at most.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// A listener.
#[derive(Debug)]
pub struct ListenerPlan {
    /// Its configuration.
    pub listener: Arc<Listener>,
    /// Its chains, in order.
    pub chains: Vec<Arc<ChainPlan>>,
    /// The chain when none matches.
    pub default: Option<Arc<ChainPlan>>,
    /// Logs of connections that found no chain.
    pub loggers: Arc<Loggers>,
}

/// A filter chain.
#[derive(Debug)]
pub struct ChainPlan {
    /// Its configuration.
    pub chain: Arc<FilterChain>,
    /// TLS that is ended here.
    pub tls: Option<ChainTls>,
    /// Bounds of its open connections, with those that are open.
    pub connection_limits: Vec<OpenLimit>,
    /// HTTP, when that ends the chain.
    pub http: Option<Arc<HcmPlan>>,
    /// TCP, when that ends the chain.
    pub tcp: Option<Arc<TcpPlan>>,
}

/// A bound of a chain's open connections, over all workers.
#[derive(Debug)]
pub struct OpenLimit {
    /// Its configuration.
    pub limit: Arc<ConnectionLimit>,
    open: Arc<AtomicU64>,
}

/// A place under an [`OpenLimit`], given back when dropped.
pub(crate) struct Opened(Arc<AtomicU64>);

/// TLS that a chain ends.
#[derive(Debug)]
pub struct ChainTls {
    /// The server's side.
    pub server: Server,
    /// Names of which the client's certificate must have one; empty: any.
    pub names: Vec<SanMatch>,
    /// Clients show certificates that may be revoked while they are connected; those of the mesh live too shortly for that.
    pub revocable: bool,
}

/// An HTTP connection manager.
#[derive(Debug)]
pub struct HcmPlan {
    /// Its configuration.
    pub hcm: Arc<HttpConnectionManager>,
    /// Its routes, when they are inline.
    pub inline_routes: Option<Arc<RouteTable>>,
    /// Its logs.
    pub loggers: Arc<Loggers>,
    /// Limits of its connections.
    pub limits: Limits,
    /// The `server` header.
    pub server: HeaderValue,
    /// Its token filters with their keys parsed, by filter name.
    pub(crate) jwt: Vec<(Arc<str>, JwtPlan)>,
}

/// A TCP proxy.
#[derive(Debug)]
pub struct TcpPlan {
    /// Its configuration.
    pub tcp: Arc<TcpProxy>,
    /// Its logs.
    pub loggers: Arc<Loggers>,
}

impl ListenerPlan {
    pub(crate) fn new(listener: Arc<Listener>, identity: &Rotating, kept: &mut Kept) -> Self {
        let mut chain =
            |chain: &Arc<FilterChain>| Arc::new(ChainPlan::new(Arc::clone(chain), identity, kept));
        Self {
            chains: listener.filter_chains.iter().map(&mut chain).collect(),
            default: listener.default_filter_chain.as_ref().map(&mut chain),
            loggers: Loggers::new(&listener.access_log),
            listener,
        }
    }
}

impl ChainPlan {
    fn new(chain: Arc<FilterChain>, identity: &Rotating, kept: &mut Kept) -> Self {
        let tls = chain.tls.as_ref().map(|tls| ChainTls::new(tls, identity, &mut kept.secrets));
        let (http, tcp) = match &chain.terminal {
            Terminal::Http(hcm) => (Some(Arc::new(HcmPlan::new(Arc::clone(hcm), kept))), None),
            Terminal::Tcp(tcp) => (
                None,
                Some(Arc::new(TcpPlan { tcp: Arc::clone(tcp), loggers: Loggers::new(&tcp.access_log) })),
            ),
        };
        let connection_limits = chain.network_filters.iter().filter_map(|filter| match filter {
            NetworkFilter::ConnectionLimit(limit) => Some(OpenLimit::new(limit)),
            _ => None,
        });
        Self { connection_limits: connection_limits.collect(), chain, tls, http, tcp }
    }
}

impl OpenLimit {
    fn new(limit: &Arc<ConnectionLimit>) -> Self {
        Self { limit: Arc::clone(limit), open: Arc::default() }
    }

    /// A place among the open connections; none when all are taken.
    pub(crate) fn take(&self) -> Option<Opened> {
        let most = self.limit.max_connections;
        let taken = self.open.fetch_update(Relaxed, Relaxed, |open| (open < most).then_some(open + 1));
        taken.ok().map(|_| Opened(Arc::clone(&self.open)))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl ChainTls {
    fn new(tls: &DownstreamTls, identity: &Rotating, secrets: &mut SecretStore) -> Self {
        let material = secrets.material(&tls.common, identity);
        let validation = &tls.common.validation;
        let mesh_roots =
            matches!(&validation.roots, Some(RootSource::Secret(name)) if **name == *SECRET_ROOT_CA);
        let auth = match (tls.require_client_certificate, &validation.roots) {
            (true, _) if mesh_roots => ClientAuth::Spiffe,
            (true, _) => ClientAuth::Required,
            (false, Some(_)) => ClientAuth::Optional,
            (false, None) => ClientAuth::None,
        };
        let alpn: Vec<&[u8]> = tls
            .common
            .alpn
            .iter()
            .filter(|name| ***name != *PEER_EXCHANGE)
            .map(|name| name.as_bytes())
            .collect();
        let server = match super::profile::of(&tls.common) {
            Ok((profile, pins)) => Server::new(&material, auth, &alpn).with(profile, pins),
            Err(error) => {
                // Nobody is let in rather than somebody who should not be.
                tracing::warn!(%error, "TLS of a listener cannot be spoken");
                Server::new(&Rotating::empty(), auth, &alpn)
            }
        };
        let revocable = auth != ClientAuth::None && !mesh_roots;
        Self { server, names: validation.subject_alt_names.clone(), revocable }
    }
}

impl HcmPlan {
    fn new(hcm: Arc<HttpConnectionManager>, kept: &mut Kept) -> Self {
        let inline_routes = match &hcm.route {
            RouteSource::Inline(routes) => Some(Arc::new(RouteTable::new(Arc::clone(routes)))),
            RouteSource::Rds(_) => None,
        };
        let server = if hcm.server_name.is_empty() { "envoy" } else { &*hcm.server_name };
        let jwt = hcm.http_filters.iter().filter_map(|filter| match &filter.kind {
            HttpFilterKind::JwtAuthn(config) => {
                Some((Arc::clone(&filter.name), JwtPlan::new(Arc::clone(config), &mut kept.jwks)))
            }
            _ => None,
        });
        Self {
            jwt: jwt.collect(),
            inline_routes,
            loggers: Loggers::new(&hcm.access_log),
            limits: limits(&hcm),
            server: HeaderValue::from_str(server).unwrap_or_else(|_| HeaderValue::from_static("envoy")),
            hcm,
        }
    }
}

/// The stricter of what is configured and what the codecs bound anyway.
fn limits(hcm: &HttpConnectionManager) -> Limits {
    let default = Limits::default();
    let lower = |configured: usize, bound: usize| if configured == 0 { bound } else { configured.min(bound) };
    let head_timeout = hcm.request_headers_timeout.filter(|timeout| !timeout.is_zero());
    let keepalive = hcm.http2.keepalive_interval.zip(hcm.http2.keepalive_timeout);
    Limits {
        head_bytes: lower(hcm.request_headers_bytes_max, default.head_bytes),
        header_count: lower(hcm.headers_count_max, default.header_count),
        head_timeout: head_timeout.map_or(default.head_timeout, |most| most.min(default.head_timeout)),
        idle_timeout: hcm.idle_timeout,
        max_connection_duration: hcm.max_connection_duration,
        drain_timeout: hcm.drain_timeout,
        max_requests: hcm.max_requests_per_connection,
        linger: hcm.delayed_close_timeout.unwrap_or_default().min(LINGER_MAX),
        h2_keepalive: keepalive.map(|(interval, timeout)| Keepalive { interval, timeout }),
        h2_streams: hcm.http2.max_concurrent_streams.unwrap_or(default.h2_streams).min(default.h2_streams),
        h2_connect_protocol: hcm.http2.allow_connect,
        h2_stream_window: hcm.http2.initial_stream_window_bytes.unwrap_or(default.h2_stream_window),
        h2_connection_window: hcm
            .http2
            .initial_connection_window_bytes
            .unwrap_or(default.h2_connection_window),
        ..default
    }
}
