//! Forwarding: which cluster, how long, how the request is changed, what is copied.

pub(crate) mod proto;

use crate::hcm::Upgrade;
use crate::header_ops::HeaderOps;
use crate::http_filter::RouteFilters;
use crate::matcher::{Fraction, HeaderKey, RegexRewrite};
use crate::metadata::Metadata;
use crate::retry::RetryPolicy;
use http::HeaderName;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// A cluster with its share of requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedCluster {
    /// The cluster.
    pub name: Arc<str>,
    /// Its share of the total; 0: never chosen.
    pub weight: u32,
    /// Changes to request headers.
    pub request_headers: HeaderOps,
    /// Changes to response headers.
    pub response_headers: HeaderOps,
    /// Host of forwarded requests.
    pub host_rewrite: Option<Box<str>>,
    /// Only endpoints with this metadata.
    pub metadata_match: Metadata,
    /// What it says about filters.
    pub filters: RouteFilters,
}

/// Clusters chosen among by weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedClusters {
    /// The clusters; never empty.
    pub clusters: Vec<WeightedCluster>,
    /// Sum of the weights; at least 1.
    pub total: u64,
    /// A header with an integer chooses instead of chance.
    #[serde(serialize_with = "crate::dump::display_option")]
    pub random_header: Option<HeaderName>,
    /// The hash of the route's hash policy chooses instead of chance, when the request has what it asks for.
    pub by_hash: bool,
}

/// Which cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterChoice {
    /// This one.
    Single(Arc<str>),
    /// One of these, by weight.
    Weighted(WeightedClusters),
    /// The one this header names.
    Header(#[serde(serialize_with = "crate::dump::display")] HeaderName),
}

/// How long a stream may be still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IdleTimeout {
    /// As the connection manager says.
    #[default]
    Inherit,
    /// Forever.
    Off,
    /// This long.
    After(Duration),
}

/// What the `grpc-timeout` header of a request means for the route's timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum GrpcTimeout {
    /// Nothing.
    #[default]
    Ignore,
    /// It replaces the timeout.
    Unbounded,
    /// It replaces the timeout, up to this.
    UpTo(Duration),
}

/// What is put in place of the path.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// In place of the matched prefix (or exact path).
    Prefix(Box<str>),
    /// By regular expression.
    Regex(RegexRewrite),
    /// In place of the whole path; the query stays.
    Full(Box<str>),
}

/// What is put in place of the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostRewrite {
    /// This host.
    Literal(Box<str>),
    /// The host name of the chosen endpoint.
    Auto,
    /// The value of this header.
    Header(#[serde(serialize_with = "crate::dump::display")] HeaderName),
    /// Computed from the path.
    PathRegex(RegexRewrite),
}

/// Requests are copied to another cluster and the answers dropped.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// The cluster.
    pub cluster: Arc<str>,
    /// How many requests.
    pub fraction: Fraction,
    /// `-shadow` is not appended to the host.
    pub keep_host: bool,
}

/// One ingredient of the hash that chooses an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HashSource {
    /// A header.
    Header {
        /// Its name.
        name: HeaderKey,
        /// A change to its value first.
        rewrite: Option<RegexRewrite>,
    },
    /// A cookie, made here when there is none and `ttl` is set.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// How long one made here lives; zero: for the session.
        ttl: Option<Duration>,
        /// Path of one made here.
        path: Box<str>,
        /// Further attributes of one made here, such as `SameSite`.
        attributes: Vec<(Box<str>, Box<str>)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Box<str>),
    /// The text of a filter state object.
    FilterState(Box<str>),
}

/// One ingredient of the hash, and whether it is the last when it was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HashPolicy {
    /// The ingredient.
    pub source: HashSource,
    /// When found, the rest is not looked at.
    pub terminal: bool,
}

/// How a request is forwarded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteAction {
    /// Which cluster.
    pub cluster: ClusterChoice,
    /// Answer when that cluster does not exist: 503, 404 or 500.
    #[serde(serialize_with = "crate::dump::status")]
    pub cluster_not_found: http::StatusCode,
    /// Only endpoints with this metadata.
    pub metadata_match: Metadata,
    /// How long the whole exchange, retries included, may take until the response is complete; `None`: forever.
    pub timeout: Option<Duration>,
    /// How long a stream may be still.
    pub idle_timeout: IdleTimeout,
    /// What `grpc-timeout` means.
    pub grpc_timeout: GrpcTimeout,
    /// How long a stream may live; `None`: as long as it likes.
    pub max_stream_duration: Option<Duration>,
    /// Retries; `None`: those of the virtual host, or none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// What an endpoint is chosen by under consistent hashing.
    pub hash_policy: Vec<HashPolicy>,
    /// Change of the path.
    pub path_rewrite: Option<PathRewrite>,
    /// Change of the host.
    pub host_rewrite: Option<HostRewrite>,
    /// The original host goes to `x-forwarded-host` when it is changed.
    pub append_x_forwarded_host: bool,
    /// Copies.
    pub mirrors: Vec<Mirror>,
    /// Upgrades that may or may not pass, over what the connection manager says.
    pub upgrades: Vec<Upgrade>,
    /// Requests use the cluster's thresholds of high priority.
    pub high_priority: bool,
}

// === impl RouteAction ===

impl RouteAction {
    /// Names of the clusters it may choose, mirrors included.
    pub fn cluster_names(&self) -> Vec<&Arc<str>> {
        let mut names: Vec<_> = match &self.cluster {
            ClusterChoice::Single(name) => vec![name],
            ClusterChoice::Weighted(weighted) => weighted.clusters.iter().map(|one| &one.name).collect(),
            ClusterChoice::Header(_) => Vec::new(),
        };
        names.extend(self.mirrors.iter().map(|mirror| &mirror.cluster));
        names
    }
}

// === impl WeightedClusters ===

impl WeightedClusters {
    /// The cluster that `random`, evenly spread over all of `u64`, falls on.
    pub fn pick(&self, random: u64) -> &WeightedCluster {
        let mut rest = random % self.total;
        for cluster in &self.clusters {
            let weight = u64::from(cluster.weight);
            if rest < weight {
                return cluster;
            }
            rest -= weight;
        }
        &self.clusters[self.clusters.len() - 1]
    }
}
