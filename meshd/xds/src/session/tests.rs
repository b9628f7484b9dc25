use super::*;
use meshd_compile::ResourceMap;

fn resource(name: &str, hash: u64) -> Resource {
    Resource { name: name.into(), hash, value: Arc::new([]) }
}

fn map(all: &[(&str, u64)]) -> Arc<ResourceMap> {
    Arc::new(all.iter().map(|(name, hash)| ((*name).into(), resource(name, *hash))).collect())
}

fn resources(clusters: &[(&str, u64)], routes: &[(&str, u64)]) -> Resources {
    Resources {
        clusters: map(clusters),
        endpoints: map(clusters),
        listeners: map(&[("l", 1)]),
        routes: map(routes),
        secrets: map(&[]),
    }
}

fn subscribe(names: &[&str]) -> Request {
    Request { subscribe: names.iter().map(ToString::to_string).collect(), ..Request::default() }
}

fn ack(response: &Response) -> Request {
    Request { nonce: response.nonce.clone(), ..Request::default() }
}

fn names(response: &Response) -> Vec<&str> {
    response.resources.iter().map(|r| &*r.name).collect()
}

/// Acknowledges everything until nothing is sent any more; returns all that was sent.
fn settle(session: &mut Session) -> Vec<Response> {
    let mut all = Vec::new();
    loop {
        let responses = session.responses();
        if responses.is_empty() {
            return all;
        }
        for response in &responses {
            assert_eq!(session.request(response.kind, ack(response)), Some(Ok(())));
            if response.kind == ResourceType::Cluster {
                let clusters: Vec<&str> = response.resources.iter().map(|r| &*r.name).collect();
                session.request(ResourceType::Endpoint, subscribe(&clusters));
            }
        }
        all.extend(responses);
    }
}

fn started() -> Session {
    let mut session = Session::new(Protocol::Delta);
    session.configure(resources(&[("a", 1)], &[("9080", 1)]), 1);
    session.request(ResourceType::Cluster, subscribe(&[]));
    session.request(ResourceType::Listener, subscribe(&[]));
    session.request(ResourceType::Route, subscribe(&["9080"]));
    settle(&mut session);
    session
}

#[test]
fn listeners_and_routes_wait_for_clusters_and_endpoints() {
    let mut session = Session::new(Protocol::Delta);
    session.configure(resources(&[("a", 1)], &[("9080", 1)]), 1);
    session.request(ResourceType::Cluster, subscribe(&[]));
    session.request(ResourceType::Listener, subscribe(&[]));
    session.request(ResourceType::Route, subscribe(&["9080"]));
    let kinds: Vec<_> = settle(&mut session).iter().map(|r| r.kind).collect();
    assert_eq!(
        kinds,
        [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route]
    );
    assert_eq!(session.settle(), Some(Settled { version: 1, affected: true, rejected: vec![] }));
}

#[test]
fn a_changed_route_goes_alone_and_at_once() {
    let mut session = started();
    session.settle();
    session.configure(resources(&[("a", 1)], &[("9080", 2)]), 2);
    let responses = session.responses();
    assert_eq!(
        (responses.len(), responses[0].kind, names(&responses[0])),
        (1, ResourceType::Route, vec!["9080"])
    );
    assert_eq!(session.settle(), None, "not acknowledged yet");
    session.request(ResourceType::Route, ack(&responses[0]));
    assert_eq!(session.settle().unwrap().version, 2);
    session.configure(resources(&[("a", 1)], &[("9080", 2)]), 3);
    assert!(session.responses().is_empty());
    assert_eq!(session.settle(), Some(Settled { version: 3, affected: false, rejected: vec![] }));
}

#[test]
fn one_response_of_a_type_is_in_flight() {
    let mut session = started();
    session.configure(resources(&[("a", 1)], &[("9080", 2)]), 2);
    let first = session.responses().remove(0);
    session.configure(resources(&[("a", 1)], &[("9080", 3)]), 3);
    session.configure(resources(&[("a", 1)], &[("9080", 4)]), 4);
    assert!(session.responses().is_empty());
    session.request(ResourceType::Route, ack(&first));
    let second = session.responses().remove(0);
    assert_eq!((second.version, second.resources[0].hash), (4, 4), "what came meanwhile is merged");
}

#[test]
fn make_before_break() {
    let mut session = started();
    // The route moves from cluster `a` to cluster `b`; `a` is gone.
    session.configure(resources(&[("b", 1)], &[("9080", 2)]), 2);
    let sent = settle(&mut session);
    type Step<'a> = (ResourceType, Vec<&'a str>, Vec<&'a str>);
    let steps: Vec<Step<'_>> = sent
        .iter()
        .map(|r| (r.kind, names(r), r.removed.iter().map(String::as_str).collect::<Vec<_>>()))
        .collect();
    let position = |wanted: &dyn Fn(&Step<'_>) -> bool| steps.iter().position(wanted).unwrap();
    let new_cluster = position(&|(kind, names, _)| *kind == ResourceType::Cluster && names.contains(&"b"));
    let new_endpoints = position(&|(kind, names, _)| *kind == ResourceType::Endpoint && names.contains(&"b"));
    let route = position(&|(kind, names, _)| *kind == ResourceType::Route && names.contains(&"9080"));
    let old_cluster =
        position(&|(kind, _, removed)| *kind == ResourceType::Cluster && removed.contains(&"a"));
    assert!(new_cluster < new_endpoints && new_endpoints < route && route < old_cluster, "{steps:?}");
}

#[test]
fn a_refused_response_is_not_sent_again_until_it_changes() {
    let mut session = started();
    session.configure(resources(&[("a", 1)], &[("9080", 2)]), 2);
    let response = session.responses().remove(0);
    let refusal = Request { nonce: response.nonce, error: Some("bad regex".into()), ..Request::default() };
    assert_eq!(session.request(ResourceType::Route, refusal), Some(Err("bad regex".into())));
    assert!(session.responses().is_empty());
    assert_eq!(session.settle().unwrap().rejected, [(ResourceType::Route, "bad regex".to_owned())]);
    session.configure(resources(&[("a", 1)], &[("9080", 3)]), 3);
    assert_eq!(settle(&mut session).len(), 1);
    assert!(session.settle().unwrap().rejected.is_empty());
}

#[test]
fn a_stale_nonce_means_nothing() {
    let mut session = started();
    session.configure(resources(&[("a", 1)], &[("9080", 2)]), 2);
    session.responses();
    assert_eq!(
        session.request(ResourceType::Route, Request { nonce: "0".into(), ..Request::default() }),
        None
    );
    assert_eq!(session.settle(), None);
}

#[test]
fn a_reconnecting_proxy_gets_only_what_differs() {
    let mut session = Session::new(Protocol::Delta);
    session.configure(resources(&[("a", 1), ("b", 0xff)], &[]), 7);
    let initial_versions = [("a", "1"), ("b", "2"), ("gone", "3")]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    session.request(ResourceType::Cluster, Request { initial_versions, ..Request::default() });
    let response = session.responses().remove(0);
    assert_eq!((names(&response), response.removed.clone()), (vec!["b"], vec!["gone".to_owned()]));
}

#[test]
fn a_reconnecting_proxy_that_has_everything_is_settled_at_once() {
    let mut session = Session::new(Protocol::Delta);
    session.configure(resources(&[("a", 1)], &[]), 7);
    let has = |name: &str, names: &[&str]| Request {
        initial_versions: [(name.to_owned(), "1".to_owned())].into(),
        ..subscribe(names)
    };
    session.request(ResourceType::Cluster, has("a", &[]));
    session.request(ResourceType::Listener, has("l", &[]));
    // What is subscribed to by name is sent again, and that alone is waited for.
    session.request(ResourceType::Endpoint, has("a", &["a"]));
    let sent = settle(&mut session);
    assert!(sent.iter().all(|response| response.kind == ResourceType::Endpoint), "{sent:?}");
    assert_eq!(session.settle().map(|settled| settled.version), Some(7));
}

#[test]
fn a_name_that_is_not_there_is_told_so() {
    let mut session = started();
    session.request(ResourceType::Route, subscribe(&["8000"]));
    let response = session.responses().remove(0);
    assert_eq!((response.resources.len(), response.removed.clone()), (0, vec!["8000".to_owned()]));
    session.request(ResourceType::Route, ack(&response));
    session.configure(resources(&[("a", 1)], &[("9080", 1), ("8000", 5)]), 2);
    assert_eq!(names(&session.responses()[0]), ["8000"], "and sent once it is there");
}

#[test]
fn the_state_of_the_world_is_sent_whole() {
    let mut session = Session::new(Protocol::StateOfTheWorld);
    session.configure(resources(&[("a", 1), ("b", 1)], &[]), 1);
    session.request(ResourceType::Cluster, Request::default());
    let first = session.responses().remove(0);
    session.request(ResourceType::Cluster, ack(&first));
    session.configure(resources(&[("a", 2), ("b", 1)], &[]), 2);
    assert_eq!(names(&session.responses()[0]), ["a", "b"]);
    let (new, gone) = session.names_changed(ResourceType::Endpoint, &["x".into()]);
    assert_eq!((new, gone), (vec!["x".to_owned()], vec![]));
}

#[test]
fn patience_with_a_proxy_that_asks_for_no_endpoints_ends() {
    let mut session = Session::new(Protocol::Delta);
    session.configure(resources(&[("a", 1)], &[]), 1);
    session.request(ResourceType::Cluster, subscribe(&[]));
    session.request(ResourceType::Listener, subscribe(&[]));
    let clusters = session.responses();
    session.request(ResourceType::Cluster, ack(&clusters[0]));
    assert!(session.responses().is_empty() && session.is_waiting_for_endpoints());
    session.lose_patience();
    assert_eq!(session.responses()[0].kind, ResourceType::Listener);
}
