//! The TCP proxy: a connection copied to a cluster.

pub(crate) mod proto;

use crate::access_log::AccessLog;
use crate::metadata::Metadata;
use crate::route_action::HashPolicy;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// A cluster with its share of connections.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpWeightedCluster {
    /// The cluster.
    pub name: Arc<str>,
    /// Its share of the total; never 0.
    pub weight: u32,
    /// Only endpoints with this metadata.
    pub metadata_match: Metadata,
}

/// Which cluster a connection goes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TcpCluster {
    /// This one.
    Single(Arc<str>),
    /// One of these, by weight.
    Weighted {
        /// The clusters; never empty.
        clusters: Vec<TcpWeightedCluster>,
        /// Sum of their weights.
        total: u64,
    },
}

/// A connection copied to a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpProxy {
    /// Prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// Which cluster.
    pub cluster: TcpCluster,
    /// Only endpoints with this metadata.
    pub metadata_match: Metadata,
    /// How long a connection may be still; `None`: forever.
    pub idle_timeout: Option<Duration>,
    /// How long a connection is kept at all; `None`: forever.
    pub max_connection_duration: Option<Duration>,
    /// Attempts to connect; at least 1.
    pub connect_attempts_max: u32,
    /// What an endpoint is chosen by under consistent hashing.
    pub hash_policy: Vec<HashPolicy>,
    /// Logs.
    pub access_log: Vec<AccessLog>,
}
