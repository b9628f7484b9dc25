//! Faults, authorization, cross-origin policy: the filters before the router.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use sidecar_model::fault::{AbortStatus, FaultAbort, FaultDelay};
use sidecar_model::listener::Direction;
use sidecar_model::matcher::{HeaderValueMatch, StringPattern};
use sidecar_model::rbac::{Permission, Principal, RbacAction, RbacPolicy, RbacRules};
use sidecar_model::{
    Fault, Fraction, HeaderKey, HeaderMatch, HttpFilterKind, Rbac, RouteFilter, RouteFilterConfig,
    StringMatch,
};

use super::app::App;
use super::build::{cluster, http_listener, manager, mesh_tls, mutual, route, routes, snapshot};
use super::rig::{Client, Mesh, address, counted, get, plain, sidecar, spiffe, with};

fn header(name: &'static str, value: &str) -> HeaderMatch {
    HeaderMatch {
        key: HeaderKey::Name(http::HeaderName::from_static(name)),
        value: HeaderValueMatch::String(StringMatch::exact(value)),
        invert: false,
        treat_missing_as_empty: false,
    }
}

#[tokio::test]
async fn faults_of_a_route_delay_and_abort() {
    let app = App::start("a").await;
    let fault = Fault {
        delay: Some(FaultDelay::Fixed { delay: Duration::from_millis(80), chance: Fraction::ALL }),
        abort: Some(FaultAbort {
            status: AbortStatus::Http(StatusCode::INTERNAL_SERVER_ERROR),
            chance: Fraction { per_million: 500_000 },
        }),
        headers: vec![header("end-user", "jason")],
        ..Fault::default()
    };
    let mut faulty = route("c");
    let config = RouteFilterConfig::Fault(Arc::new(fault));
    faulty.filters.entries = vec![RouteFilter { name: "f0".into(), disabled: false, config: Some(config) }];
    let filters = vec![HttpFilterKind::Fault(Arc::new(Fault::default()))];
    let listener = http_listener("out", Direction::Outbound, manager(routes(vec![faulty]), filters), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]));
    let out = address(&proxy, "out").await;
    let mut tasks = Vec::new();
    let began = Instant::now();
    for _ in 0..60 {
        let mut client = Client::connect(out).await;
        tasks.push(tokio::spawn(async move { client.text(with(get("/"), "end-user", "jason")).await }));
    }
    let mut aborted = 0;
    for task in tasks {
        let (status, body, _) = task.await.unwrap();
        if status == 500 {
            assert_eq!(body, "fault filter abort");
            aborted += 1;
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(80));
    // 60 draws at 50 %: the standard deviation is 3.9.
    assert!((14..=46).contains(&aborted), "{aborted}");
    assert_eq!(app.requests().len(), 60 - aborted);
    let mut client = Client::connect(out).await;
    let began = Instant::now();
    assert_eq!(client.text(get("/")).await.0, 200);
    assert!(began.elapsed() < Duration::from_millis(80), "others are not delayed");
    counted(&proxy, &["response_flags=\"DI,FI\""], aborted as u64).await;
    counted(&proxy, &["response_flags=\"-\""], 1).await;
}

fn rbac(action: RbacAction, permission: Permission, principal: Principal) -> HttpFilterKind {
    let policy = RbacPolicy {
        name: "ns[default]-policy[p]-rule[0]".into(),
        permissions: vec![permission],
        principals: vec![principal],
    };
    HttpFilterKind::Rbac(Arc::new(Rbac {
        rules: Some(RbacRules { action, policies: vec![policy] }),
        ..Rbac::default()
    }))
}

#[tokio::test]
async fn authorization_knows_the_peer_and_holds_for_open_connections() {
    let mesh = Mesh::new();
    let app = App::start("reviews").await;
    let productpage = Principal::Authenticated(Some(StringMatch::exact(&spiffe("productpage"))));
    let reads = Permission::And(vec![
        Permission::UrlPath(StringMatch {
            pattern: StringPattern::Prefix("/reviews".into()),
            ignore_case: false,
        }),
        Permission::Header(HeaderMatch { key: HeaderKey::Method, ..header("x", "GET") }),
    ]);
    let inbound = |filters| {
        let manager = manager(routes(vec![route("local")]), filters);
        snapshot(
            vec![http_listener("in", Direction::Inbound, manager, Some(mesh_tls()))],
            vec![cluster("local", &[app.address])],
        )
    };
    let allow = rbac(RbacAction::Allow, reads, productpage);
    let server = sidecar("reviews", mesh.identity("reviews"), inbound(vec![allow]));
    let upstream = |inbound| {
        mutual(cluster("c", &[inbound]), &spiffe("reviews"), sidecar_model::cluster::UpstreamProtocol::Http1)
    };
    let outbound = |inbound| {
        let manager = manager(routes(vec![route("c")]), vec![]);
        snapshot(vec![http_listener("out", Direction::Outbound, manager, None)], vec![upstream(inbound)])
    };
    let to = address(&server, "in").await;
    let friend = sidecar("productpage", mesh.identity("productpage"), outbound(to));
    let stranger = sidecar("ratings", mesh.identity("ratings"), outbound(to));
    let mut client = Client::connect(address(&friend, "out").await).await;
    assert_eq!(client.text(get("/reviews/1")).await.0, 200);
    for path in ["/private", "/reviews/../private", "/%72eviews/%2e%2e/private", "/x?/reviews"] {
        let (status, body, _) = client.text(get(path)).await;
        assert_eq!((status, &*body), (403, "RBAC: access denied"), "{path}");
    }
    assert_eq!(
        client.text(get("/x/../reviews/2")).await.1,
        "reviews /reviews/2 ",
        "policy and application see one path"
    );
    let mut other = Client::connect(address(&stranger, "out").await).await;
    assert_eq!(other.text(get("/reviews/1")).await.0, 403);
    assert!(app.requests().iter().all(|(path, _, _)| path.starts_with("/reviews/")));
    server.apply(Arc::new(inbound(vec![rbac(RbacAction::Deny, Permission::Any, Principal::Any)])));
    assert_eq!(client.text(get("/reviews/1")).await.0, 403, "the open connection obeys the new policy");
    server.apply(Arc::new(inbound(vec![])));
    assert_eq!(client.text(get("/reviews/1")).await.0, 200);
    assert_eq!(other.text(get("/reviews/1")).await.0, 200);
}
