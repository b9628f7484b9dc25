use super::*;
use crate::fixtures::{ads, bytes, listener, route, routes};
use crate::snapshot::References;
use policies_xds::cluster as pb;
use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use policies_xds::endpoint::ClusterLoadAssignment;

fn cluster(name: &str) -> pb::Cluster {
    pb::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: String::new() }),
        ..Default::default()
    }
}

fn names(all: &[&str]) -> std::collections::BTreeSet<Arc<str>> {
    all.iter().map(|name| (*name).into()).collect()
}

#[test]
fn a_snapshot_grows_and_says_what_it_lacks() {
    let mut builder = SnapshotBuilder::new(&Snapshot::default());
    builder.upsert(ResourceType::Cluster, "a", &bytes(&cluster("a"))).unwrap();
    builder.upsert(ResourceType::Listener, "", &bytes(&listener())).unwrap();
    let first = builder.build();
    assert_eq!(first.version, 1);
    let missing = References { endpoints: names(&["a"]), routes: names(&["9080"]), ..References::default() };
    assert_eq!(first.missing(), missing);

    let mut builder = SnapshotBuilder::new(&first);
    let endpoints = ClusterLoadAssignment { cluster_name: "a".into(), ..Default::default() };
    builder.upsert(ResourceType::Endpoints, "a", &bytes(&endpoints)).unwrap();
    builder
        .upsert(ResourceType::Route, "9080", &bytes(&routes(vec![route(crate::fixtures::action("a"))])))
        .unwrap();
    let second = builder.build();
    assert!(second.missing().is_empty());
    assert!(second.endpoints_of(&second.clusters["a"]).is_some());
    assert!(Arc::ptr_eq(&first.clusters, &second.clusters), "what did not change is shared");

    let mut builder = SnapshotBuilder::new(&second);
    builder.remove(ResourceType::Route, "9080");
    builder.remove(ResourceType::Route, "nothing");
    assert_eq!(builder.build().missing().routes, names(&["9080"]));
}

#[test]
fn equal_resources_change_nothing() {
    let mut builder = SnapshotBuilder::new(&Snapshot::default());
    builder.upsert(ResourceType::Cluster, "a", &bytes(&cluster("a"))).unwrap();
    let first = builder.build();
    let mut builder = SnapshotBuilder::new(&first);
    builder.upsert(ResourceType::Cluster, "a", &bytes(&cluster("a"))).unwrap();
    builder.remove(ResourceType::Cluster, "b");
    assert!(!builder.is_changed());
    assert_eq!(builder.build().version, first.version);
}

#[test]
fn a_refused_resource_leaves_the_last_good_one() {
    let mut builder = SnapshotBuilder::new(&Snapshot::default());
    builder.upsert(ResourceType::Cluster, "a", &bytes(&cluster("a"))).unwrap();
    let error = builder.upsert(ResourceType::Cluster, "a", b"\xff").unwrap_err();
    assert_eq!((error.kind, &*error.name), (ResourceType::Cluster, "a"));
    let error = builder.upsert(ResourceType::Cluster, "x", &bytes(&cluster("y"))).unwrap_err();
    assert_eq!(error.reason.field, "name");
    let error = builder.upsert(ResourceType::Cluster, "", &bytes(&cluster(""))).unwrap_err();
    assert_eq!(error.reason, Invalid::missing("name"));
    assert_eq!(builder.peek().clusters.len(), 1);
}
