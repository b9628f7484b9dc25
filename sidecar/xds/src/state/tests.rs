use super::*;
use policies_xds::cluster::Cluster;
use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use policies_xds::core;
use policies_xds::endpoint::ClusterLoadAssignment;
use policies_xds::protobuf::Any;

use policies_xds::type_url::{CLUSTER, ENDPOINTS};

fn cluster(name: &str) -> Any {
    let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
    policies_xds::any(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(core::ConfigSource { config_source_specifier: Some(ads), ..Default::default() }),
            service_name: String::new(),
        }),
        ..Default::default()
    })
}

fn endpoints(name: &str) -> Any {
    policies_xds::any(&ClusterLoadAssignment { cluster_name: name.to_owned(), ..Default::default() })
}

fn resource(name: &str, version: &str, any: Any) -> Resource {
    Resource { name: name.into(), version: version.into(), resource: Some(any), ..Default::default() }
}

fn response(
    type_url: &str,
    nonce: &str,
    resources: Vec<Resource>,
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.into(),
        nonce: nonce.into(),
        system_version_info: format!("v-{nonce}"),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn configured() -> State {
    let mut state = State::new(true);
    state.open();
    let all = vec![resource("a", "1", cluster("a")), resource("b", "1", cluster("b"))];
    state.apply(response(CLUSTER, "1", all, &[]));
    state.subscriptions();
    state
}

#[test]
fn a_first_stream_asks_for_wildcards_only() {
    let requests = State::new(true).open();
    let types: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(types, [CLUSTER, ResourceType::Listener.type_url()]);
    assert!(requests.iter().all(|request| request.resource_names_subscribe.is_empty()
        && request.initial_resource_versions.is_empty()
        && request.response_nonce.is_empty()));
}

#[test]
fn names_follow_the_snapshot() {
    let mut state = State::new(true);
    state.open();
    let all = vec![resource("a", "1", cluster("a")), resource("b", "1", cluster("b"))];
    let outcome = state.apply(response(CLUSTER, "n1", all, &[]));
    assert_eq!(outcome.reply.response_nonce, "n1");
    assert_eq!(outcome.reply.error_detail, None);
    let requests = state.subscriptions();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].type_url, ENDPOINTS);
    assert_eq!(requests[0].resource_names_subscribe, ["a", "b"]);
    assert_eq!(requests[0].response_nonce, "", "a change of subscriptions answers nothing");
    assert!(state.subscriptions().is_empty(), "asked once");

    state.apply(response(ENDPOINTS, "n2", vec![resource("b", "1", endpoints("b"))], &[]));
    assert!(state.snapshot().endpoints.contains_key("b"));
    state.apply(response(CLUSTER, "n3", vec![], &["b"]));
    let requests = state.subscriptions();
    assert_eq!(requests[0].resource_names_unsubscribe, ["b"]);
    assert!(state.snapshot().endpoints.is_empty(), "nothing refers to them any more");
    // What was on its way is not taken in.
    let late = state.apply(response(ENDPOINTS, "n4", vec![resource("b", "2", endpoints("b"))], &[]));
    assert_eq!((late.refused, late.reply.error_detail), (0, None));
    assert!(state.snapshot().endpoints.is_empty());
}

#[test]
fn a_bad_resource_is_refused_alone_and_its_last_good_version_stays() {
    let mut state = configured();
    let mut bad = cluster("a");
    bad.value.push(0xff);
    let all = vec![resource("a", "2", bad), resource("c", "1", cluster("c"))];
    let outcome = state.apply(response(CLUSTER, "2", all, &[]));
    let detail = outcome.reply.error_detail.unwrap();
    assert_eq!((outcome.refused, detail.code), (1, INVALID_ARGUMENT));
    assert!(detail.message.contains("`a`"), "{}", detail.message);
    assert!(state.snapshot().clusters.contains_key("a") && state.snapshot().clusters.contains_key("c"));
    let (_, clusters) = state.types().next().unwrap();
    assert_eq!(&*clusters.rejected["a"].version, "2");
    assert_eq!(&*clusters.held["a"].version, "1", "the next stream says what is really held");

    state.apply(response(CLUSTER, "3", vec![resource("a", "3", cluster("a"))], &[]));
    assert!(state.types().next().unwrap().1.rejected.is_empty());
}

#[test]
fn what_is_not_what_it_should_be_is_refused() {
    let mut state = configured();
    let wrong_type = state.apply(response(CLUSTER, "2", vec![resource("x", "1", endpoints("x"))], &[]));
    assert_eq!(wrong_type.refused, 1);
    let wrong_name = state.apply(response(CLUSTER, "3", vec![resource("x", "1", cluster("y"))], &[]));
    assert!(wrong_name.reply.error_detail.unwrap().message.contains("`x`"));
    let unknown = state.apply(response("type.googleapis.com/other", "4", vec![], &[]));
    assert!(unknown.reply.error_detail.is_some() && unknown.kind.is_none());
    let many = (0..500).map(|n| resource(&format!("{n:0>200}ä"), "1", endpoints("x"))).collect();
    let long = state.apply(response(CLUSTER, "5", many, &[]));
    assert!(long.reply.error_detail.unwrap().message.len() <= DETAIL_BYTES_MAX);
    assert_eq!(state.snapshot().clusters.len(), 2, "nothing of it got in");
}

#[test]
fn a_later_stream_begins_with_what_is_held() {
    let mut state = configured();
    state.apply(response(ENDPOINTS, "2", vec![resource("a", "7", endpoints("a"))], &["b"]));
    let requests = state.open();
    let versions = |type_url: &str| {
        let request = requests.iter().find(|request| request.type_url == type_url).unwrap();
        let mut versions: Vec<_> = request.initial_resource_versions.clone().into_iter().collect();
        versions.sort();
        (request.resource_names_subscribe.clone(), versions)
    };
    let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    assert_eq!(versions(CLUSTER), (vec![], vec![pair("a", "1"), pair("b", "1")]));
    assert_eq!(versions(ENDPOINTS), (vec!["a".into(), "b".into()], vec![pair("a", "7")]));
    assert!(requests.iter().all(|request| request.response_nonce.is_empty()));
}

#[test]
fn awaited_is_what_nobody_has_answered() {
    let mut state = configured();
    let awaited =
        |state: &State| state.awaited().into_iter().map(|(_, name)| name.to_string()).collect::<Vec<_>>();
    assert_eq!(awaited(&state), ["a", "b"]);
    state.apply(response(ENDPOINTS, "2", vec![], &["b"]));
    assert_eq!(awaited(&state), ["a"], "`b` is said not to be there");
    state.apply(response(ENDPOINTS, "3", vec![resource("a", "1", cluster("a"))], &[]));
    assert_eq!(awaited(&state), [""; 0], "a refused one was answered, too");
}

#[test]
fn a_sign_of_life_changes_nothing() {
    let mut state = configured();
    let version = state.snapshot().version;
    let alive = Resource { name: "a".into(), version: "1".into(), ..Default::default() };
    let outcome = state.apply(response(CLUSTER, "2", vec![alive], &[]));
    assert_eq!((outcome.refused, state.snapshot().version), (0, version));
    state.apply(response(CLUSTER, "3", vec![resource("a", "2", cluster("a"))], &[]));
    assert_eq!(state.snapshot().version, version, "an equal resource is no change");
}

#[test]
fn saved_resources_are_judged_again() {
    let held = |any: Any| Held { version: "1".into(), message: any.value.into() };
    let saved = vec![
        (ResourceType::Cluster, "a".into(), held(cluster("a"))),
        (ResourceType::Cluster, "b".into(), held(cluster("other"))),
        (ResourceType::Endpoints, "a".into(), held(endpoints("a"))),
        (ResourceType::Endpoints, "gone".into(), held(endpoints("gone"))),
    ];
    let mut state = State::new(true);
    assert_eq!(state.restore(saved.into_iter()), 3);
    assert!(!state.is_configured(), "that is for the control plane to say");
    assert_eq!(state.snapshot().missing(), References::default());
    let requests = state.open();
    assert_eq!(requests[0].initial_resource_versions.len(), 1);
    assert_eq!(requests[1].type_url, ENDPOINTS);
    assert!(state.awaited().is_empty());
    assert!(!state.snapshot().endpoints.contains_key("gone"), "nothing refers to it");
}

#[test]
fn messages_are_kept_only_where_they_are_saved() {
    let mut state = State::new(false);
    state.open();
    state.apply(response(CLUSTER, "1", vec![resource("a", "1", cluster("a"))], &[]));
    let (_, clusters) = state.types().next().unwrap();
    assert_eq!((&*clusters.held["a"].version, clusters.held["a"].message.len()), ("1", 0));
}

#[test]
fn a_change_of_clusters_that_refers_to_the_same_names_asks_for_nothing() {
    let mut state = configured();
    let changed = policies_xds::any(&Cluster {
        alt_stat_name: "other".to_owned(),
        ..policies_xds::unpack(&cluster("a")).unwrap()
    });
    state.apply(response(CLUSTER, "2", vec![resource("a", "2", changed)], &[]));
    assert_eq!(&*state.snapshot().clusters["a"].alt_stat_name, "other");
    assert!(state.subscriptions().is_empty());
}
