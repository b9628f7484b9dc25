//! `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use super::{TcpCluster, TcpProxy, TcpWeightedCluster};
use crate::access_log::proto::access_logs;
use crate::convert::{Converted, bounded, each, not_empty, number, refuse, required, timeout};
use crate::invalid::Invalid;
use crate::metadata::proto::metadata;
use crate::route_action::{HashPolicy, HashSource};
use policies_xds::tcp_proxy::tcp_proxy::ClusterSpecifier;
use policies_xds::tcp_proxy::{self as pb, tcp_proxy};
use policies_xds::types;
use policies_xds::types::hash_policy::PolicySpecifier;
use std::time::Duration;

/// Envoy's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

pub(crate) fn tcp_proxy(message: &pb::TcpProxy) -> Converted<TcpProxy> {
    refuse("tunneling_config", message.tunneling_config.is_some())?;
    refuse("on_demand", message.on_demand.is_some())?;
    refuse("proxy_protocol_tlvs", !message.proxy_protocol_tlvs.is_empty())?;
    let attempts = number(&message.max_connect_attempts).unwrap_or(1);
    Ok(TcpProxy {
        stat_prefix: message.stat_prefix.as_str().into(),
        cluster: match required("cluster_specifier", &message.cluster_specifier)? {
            ClusterSpecifier::Cluster(name) => TcpCluster::Single(not_empty("cluster", name)?.into()),
            ClusterSpecifier::WeightedClusters(clusters) => weighted(clusters)?,
        },
        metadata_match: metadata(&message.metadata_match),
        idle_timeout: timeout("idle_timeout", &message.idle_timeout, Some(IDLE_TIMEOUT))?,
        max_connection_duration: timeout(
            "max_downstream_connection_duration",
            &message.max_downstream_connection_duration,
            None,
        )?,
        connect_attempts_max: bounded("max_connect_attempts", attempts, 1..=u32::MAX)?,
        hash_policy: each("hash_policy", &message.hash_policy, hash_policy)?,
        access_log: access_logs("access_log", &message.access_log)?,
    })
}

fn weighted(message: &tcp_proxy::WeightedCluster) -> Converted<TcpCluster> {
    let clusters = each("weighted_clusters.clusters", &message.clusters, |cluster| {
        Ok(TcpWeightedCluster {
            name: not_empty("name", &cluster.name)?.into(),
            weight: bounded("weight", cluster.weight, 1..=u32::MAX)?,
            metadata_match: metadata(&cluster.metadata_match),
        })
    })?;
    if clusters.is_empty() {
        return Err(Invalid::missing("weighted_clusters.clusters"));
    }
    let total = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    Ok(TcpCluster::Weighted { clusters, total })
}

fn hash_policy(message: &types::HashPolicy) -> Converted<HashPolicy> {
    let source = match required("policy_specifier", &message.policy_specifier)? {
        PolicySpecifier::SourceIp(_) => HashSource::SourceIp,
        PolicySpecifier::FilterState(state) => {
            HashSource::FilterState(not_empty("filter_state.key", &state.key)?.into())
        }
    };
    Ok(HashPolicy { source, terminal: false })
}
