//! What a sidecar is told to do, as plain data: listeners, routes, clusters, endpoints and secrets.
//!
//! Each topic is one module of types; its `proto` submodule turns the Envoy v3 message into them and answers
//! with an [`Invalid`] that names the field when the message cannot be honoured. No type here shows protobuf,
//! does I/O or reads a clock. Everything is bounded and every regular expression is compiled on conversion,
//! so the data path never meets a value it must doubt.

pub mod access_log;
pub mod address;
pub mod cel;
pub mod cluster;
pub mod cors;
pub mod dump;
pub mod endpoint;
pub mod ext_authz;
pub mod fault;
pub mod filter_chain;
pub mod hcm;
pub mod header_ops;
pub mod health_check;
pub mod http_filter;
pub mod invalid;
pub mod jwt;
pub mod listener;
pub mod matcher;
pub mod metadata;
pub mod rate_limit;
pub mod rbac;
pub mod resource;
pub mod retry;
pub mod route;
pub mod route_action;
pub mod secret;
pub mod snapshot;
pub mod tcp;
pub mod tls;
pub mod tracing;

mod convert;

pub use access_log::AccessLog;
pub use address::Address;
pub use cluster::Cluster;
pub use cors::CorsPolicy;
pub use endpoint::{Endpoint, Endpoints, Health, Locality, LocalityEndpoints};
pub use ext_authz::ExtAuthz;
pub use fault::Fault;
pub use filter_chain::{FilterChain, FilterChainMatch, NetworkFilter, Terminal};
pub use hcm::HttpConnectionManager;
pub use header_ops::{HeaderAdd, HeaderAppend, HeaderOps};
pub use health_check::HealthCheck;
pub use http_filter::{HttpFilter, HttpFilterKind, RouteFilter, RouteFilterConfig, RouteFilters};
pub use invalid::Invalid;
pub use jwt::JwtAuthn;
pub use listener::Listener;
pub use matcher::{Fraction, HeaderKey, HeaderMatch, HeaderValueMatch, QueryMatch, Regex, StringMatch};
pub use metadata::Metadata;
pub use rate_limit::{GlobalRateLimit, LocalRateLimit};
pub use rbac::Rbac;
pub use resource::ResourceType;
pub use retry::{RetryOn, RetryPolicy};
pub use route::{Action, PathMatch, Route, RouteConfig, RouteMatch, VirtualHost};
pub use route_action::{ClusterChoice, RouteAction, WeightedCluster, WeightedClusters};
pub use secret::Secret;
pub use snapshot::{Rejected, Snapshot, SnapshotBuilder};
pub use tcp::TcpProxy;
pub use tls::{DownstreamTls, UpstreamTls};
pub use tracing::Tracing;

#[cfg(test)]
mod fixtures;
