//! Clusters: outbound ones per service, port and subset; inbound ones per port of the pod; passthrough and black hole.

mod inbound;
mod outbound;
mod policy;

use std::sync::Arc;

use policies_xds::cluster::Cluster;
use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};

use crate::proto::duration;
use crate::resource::{Resource, ResourceMap};
use crate::view::View;

pub(crate) use outbound::{Discovery, discovery, effective_of};
pub(crate) use policy::Effective;

/// Takes connections to where they were going.
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
/// Takes connections nowhere.
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
/// Takes inbound connections to ports of no service.
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// All clusters of a proxy.
pub(crate) fn compile(view: &View<'_>) -> ResourceMap {
    let mut resources = ResourceMap::new();
    let mut add = |cluster: Cluster| {
        let resource = Resource::encode(cluster.name.as_str(), &cluster);
        resources.entry(Arc::clone(&resource.name)).or_insert(resource);
    };
    for service in &view.services {
        outbound::clusters(view, service).into_iter().for_each(&mut add);
    }
    add(black_hole(view));
    add(original_dst(view, PASSTHROUGH));
    inbound::clusters(view).into_iter().for_each(&mut add);
    resources
}

fn black_hole(view: &View<'_>) -> Cluster {
    Cluster {
        name: BLACK_HOLE.to_owned(),
        connect_timeout: Some(duration(view.mesh.connect_timeout)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        ..Default::default()
    }
}

/// A cluster whose only endpoint is where the connection was going.
pub(crate) fn original_dst(view: &View<'_>, name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: Some(duration(view.mesh.connect_timeout)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(policy::circuit_breakers(None, None)),
        typed_extension_protocol_options: policy::follow_client(),
        ..Default::default()
    }
}
