//! HTTP filters of a connection manager, and what routes override of them.

pub(crate) mod proto;

use crate::cors::CorsPolicy;
use crate::ext_authz::{CheckSettings, ExtAuthz};
use crate::fault::Fault;
use crate::header_ops::HeaderOps;
use crate::jwt::{JwtAuthn, JwtRequirementChoice};
use crate::rate_limit::{GlobalRateLimit, GlobalRateLimitRoute, LocalRateLimit, RateLimit};
use crate::rbac::Rbac;
use serde::Serialize;
use std::sync::Arc;

/// One filter of the chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpFilter {
    /// Its name, by which routes override it.
    pub name: Arc<str>,
    /// It does nothing unless a route enables it.
    pub disabled: bool,
    /// What it does.
    pub kind: HttpFilterKind,
}

/// What a filter does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpFilterKind {
    /// Forwards requests; always the last.
    Router(Router),
    /// Injects delays and aborts; the policy of a route wins.
    Fault(Arc<Fault>),
    /// Answers cross-origin requests by the policy of the route.
    Cors,
    /// Authorization.
    Rbac(Arc<Rbac>),
    /// Authentication by token.
    JwtAuthn(Arc<JwtAuthn>),
    /// Authorization by a service.
    ExtAuthz(Arc<ExtAuthz>),
    /// Rate limits of this process.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Rate limits by a service.
    RateLimit(Arc<GlobalRateLimit>),
    /// Header changes.
    HeaderMutation(Arc<HeaderMutation>),
    /// gRPC-Web requests become gRPC, and their answers gRPC-Web.
    GrpcWeb,
    /// Something every sidecar does by itself: metrics, peer metadata, ALPN, gRPC counters.
    Native(NativeFilter),
}

/// Filters of Istio's that name what the sidecar does anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NativeFilter {
    /// Istio's standard metrics.
    Stats,
    /// Exchange of workload metadata.
    PeerMetadata,
    /// Choice of the upstream's ALPN.
    Alpn,
    /// Counters of gRPC messages.
    GrpcStats,
}

/// Settings of the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Router {
    /// `x-envoy-*` response headers are not added.
    pub suppress_envoy_headers: bool,
}

/// Header changes by filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMutation {
    /// On requests.
    pub request: HeaderOps,
    /// On responses.
    pub response: HeaderOps,
}

/// What a route, virtual host or weighted cluster says about one filter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteFilter {
    /// Name of the filter.
    pub name: Arc<str>,
    /// The filter does nothing here.
    pub disabled: bool,
    /// Its settings here.
    pub config: Option<RouteFilterConfig>,
}

/// Settings of a filter at a route.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteFilterConfig {
    /// Faults.
    Fault(Arc<Fault>),
    /// Cross-origin policy.
    Cors(Arc<CorsPolicy>),
    /// Authorization; `None`: none here.
    Rbac(Option<Arc<Rbac>>),
    /// Which token is needed.
    Jwt(Arc<JwtRequirementChoice>),
    /// Authorization by a service; `None`: none here.
    ExtAuthz(Option<Arc<CheckSettings>>),
    /// Rate limits of this process.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Rate limits by a service.
    RateLimit(Arc<GlobalRateLimitRoute>),
    /// How requests become descriptors for either.
    Limits(Arc<RouteLimits>),
    /// Header changes.
    HeaderMutation(Arc<HeaderMutation>),
}

/// How requests become descriptors, as a route or a virtual host says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteLimits {
    /// The descriptors.
    pub limits: Vec<RateLimit>,
    /// Those of the virtual host hold too.
    pub include_host: bool,
}

/// All that one route, virtual host or weighted cluster says about filters.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RouteFilters {
    /// At most one entry a filter name.
    pub entries: Vec<RouteFilter>,
}

// === impl RouteFilters ===

impl RouteFilters {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is said about the filter called `name`.
    pub fn of(&self, name: &str) -> Option<&RouteFilter> {
        self.entries.iter().find(|entry| &*entry.name == name)
    }

    /// The fault policy, whatever the filter is called.
    pub fn fault(&self) -> Option<&Arc<Fault>> {
        self.entries.iter().find_map(|entry| match &entry.config {
            Some(RouteFilterConfig::Fault(fault)) => Some(fault),
            _ => None,
        })
    }

    /// How requests become descriptors of rate limits.
    pub fn limits(&self) -> Option<&RouteLimits> {
        self.entries.iter().find_map(|entry| match &entry.config {
            Some(RouteFilterConfig::Limits(limits)) => Some(&**limits),
            _ => None,
        })
    }

    /// The cross-origin policy, whatever the filter is called.
    pub fn cors(&self) -> Option<&Arc<CorsPolicy>> {
        self.entries.iter().find_map(|entry| match &entry.config {
            Some(RouteFilterConfig::Cors(cors)) => Some(cors),
            _ => None,
        })
    }
}
