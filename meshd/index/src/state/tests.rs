use serde_json::{Value, json};

use super::*;

fn feed(state: &mut State, source: Source, value: Value) {
    state.apply(source, Object::from_json(value));
}

fn pod(name: &str, ip: &str, version: &str, account: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "default", "labels": { "app": "reviews", "version": version, "security.istio.io/tlsMode": "istio", "pod-template-hash": "abc" },
            "ownerReferences": [{ "kind": "ReplicaSet", "name": format!("reviews-{version}-abc"), "controller": true }],
        },
        "spec": { "nodeName": "node1", "serviceAccountName": account, "containers": [{ "ports": [{ "name": "web", "containerPort": 9080 }] }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
    })
}

fn slice(pods: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(name, ip)| json!({ "addresses": [ip], "conditions": { "ready": true }, "targetRef": { "kind": "Pod", "name": name } }))
        .collect();
    json!({
        "metadata": { "name": "reviews-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "reviews" } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 9080 }], "endpoints": endpoints,
    })
}

fn filled() -> State {
    let mut state = State::default();
    feed(
        &mut state,
        Source::Node,
        json!({ "metadata": { "name": "node1", "labels": { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z" } } }),
    );
    feed(
        &mut state,
        Source::Service,
        json!({
            "metadata": { "name": "reviews", "namespace": "default" },
            "spec": { "clusterIP": "10.96.0.5", "selector": { "app": "reviews" }, "ports": [{ "name": "http", "port": 9080, "targetPort": "web" }] },
        }),
    );
    feed(&mut state, Source::Pod, pod("reviews-v1-abc-1", "10.244.1.5", "v1", "reviews"));
    feed(&mut state, Source::EndpointSlice, slice(&[("reviews-v1-abc-1", "10.244.1.5")]));
    state
}

#[test]
fn slices_pods_services_and_nodes_make_endpoints() {
    let (snapshot, change) = filled().publish_now().unwrap();
    assert!(change.everything);
    let service = &snapshot.registry.of_host("reviews.default.svc.cluster.local")[0];
    let endpoint = &snapshot.endpoints_of(service)[0];
    assert_eq!((endpoint.port, endpoint.service_port), (9080, 9080));
    assert_eq!(&*endpoint.workload.workload_name, "reviews-v1");
    assert_eq!(&*endpoint.workload.locality.zone, "z");
    assert!(endpoint.workload.mutual_tls);
    assert_eq!(service.ports[0].target_of(&endpoint.workload), Some(9080));
}

#[test]
fn a_new_pod_of_the_same_account_changes_endpoints_only() {
    let mut state = filled();
    state.publish_now();
    feed(&mut state, Source::Pod, pod("reviews-v2-abc-2", "10.244.1.6", "v2", "reviews"));
    let (_, change) = state.publish_now().unwrap();
    assert!(change.keys.iter().all(|it| it.kind == ChangeKind::Workload));
    feed(
        &mut state,
        Source::EndpointSlice,
        slice(&[("reviews-v1-abc-1", "10.244.1.5"), ("reviews-v2-abc-2", "10.244.1.6")]),
    );
    let (snapshot, change) = state.publish_now().unwrap();
    assert!(change.is_endpoints_only(), "{change:?}");
    assert_eq!(snapshot.version, 3);
    assert!(state.publish_now().is_none());
}

#[test]
fn another_account_changes_the_service_as_well() {
    let mut state = filled();
    state.publish_now();
    feed(&mut state, Source::Pod, pod("reviews-v1-abc-1", "10.244.1.5", "v1", "other"));
    let (_, change) = state.publish_now().unwrap();
    assert!(change.keys.iter().any(|it| it.kind == ChangeKind::Service));
}

#[test]
fn what_a_list_does_not_contain_is_gone() {
    let mut state = filled();
    state.publish_now();
    state.begin(Source::EndpointSlice);
    state.complete(Source::EndpointSlice);
    let (snapshot, change) = state.publish_now().unwrap();
    assert!(snapshot.endpoints.is_empty());
    assert!(change.keys.iter().any(|it| it.kind == ChangeKind::Endpoints));
}

#[test]
fn nothing_is_published_before_everything_was_listed() {
    let mut state = filled();
    let sources: Vec<Source> = Source::all().collect();
    let (last, others) = sources.split_last().unwrap();
    for source in others {
        state.begin(*source);
        state.complete(*source);
        assert!(state.publish().is_none());
    }
    state.begin(*last);
    state.complete(*last);
    assert!(state.publish().is_some());
}

#[test]
fn entries_become_services_and_go_again() {
    let mut state = filled();
    state.publish_now();
    let entry = json!({
        "metadata": { "name": "ext", "namespace": "default", "generation": 1 },
        "spec": { "hosts": ["api.example.com"], "ports": [{ "number": 443, "name": "tls", "protocol": "TLS" }], "resolution": "DNS" },
    });
    feed(&mut state, Source::Policy(Kind::ServiceEntry), entry.clone());
    let (snapshot, _) = state.publish_now().unwrap();
    let service = &snapshot.registry.of_host("api.example.com")[0];
    assert_eq!(snapshot.endpoints_of(service).len(), 1);
    state.delete(Source::Policy(Kind::ServiceEntry), &Object::from_json(entry).meta);
    let (snapshot, _) = state.publish_now().unwrap();
    assert!(snapshot.registry.of_host("api.example.com").is_empty());
    assert_eq!(snapshot.endpoints.len(), 1);
}
