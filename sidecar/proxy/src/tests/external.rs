//! Services that decide about requests, by hyper: clear, wrong, slow, dead or endless.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use policies_xds::auth_service::check_response::HttpResponse;
use policies_xds::auth_service::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use policies_xds::core::{HeaderValue, HeaderValueOption, QueryParameter};
use policies_xds::rpc::Status;
use policies_xds::types::HttpStatus;

use sidecar_external::grpc;
use sidecar_model::ext_authz::{AuthzService, BodyBuffer, CheckSettings, ExtAuthz, GrpcService, HttpAuthz};
use sidecar_model::listener::Direction;
use sidecar_model::matcher::{MetadataMatch, StringPattern, ValueMatch};
use sidecar_model::rbac::{Permission, Principal, RbacAction, RbacPolicy, RbacRules};
use sidecar_model::{Fraction, HttpFilterKind, Rbac, RouteFilter, RouteFilterConfig, StringMatch};
use tokio::net::TcpListener;

use super::app::App;
use super::build::{cluster, http_listener, manager, route, routes, snapshot};
use super::rig::{Client, address, counted, get, plain, post, with};
use crate::Proxy;

/// How a service answers.
#[derive(Clone)]
pub(super) enum Say {
    /// With this message, by gRPC.
    Grpc(Bytes),
    /// gRPC's failure.
    GrpcStatus(u16),
    /// With this status, headers and body, by HTTP.
    Http(u16, HeaderMap, &'static str),
    /// With a head, and bytes without end.
    Endless,
    /// Never.
    Hang,
    /// By closing the connection.
    Close,
}

/// A service.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    pub(super) say: Arc<Mutex<Say>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
}

impl Service {
    pub(super) async fn start(say: Say) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Self { address, say: Arc::new(Mutex::new(say)), asked: Arc::default() };
        let (say, asked) = (Arc::clone(&service.say), Arc::clone(&service.asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (say, asked) = (Arc::clone(&say), Arc::clone(&asked));
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&say), Arc::clone(&asked)));
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // A client that gives up is part of these tests.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        service
    }

    /// What it was asked: path, headers, body.
    pub(super) fn asked(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.asked.lock().clone()
    }

    fn last_check(&self) -> CheckRequest {
        grpc::unframe(&self.asked.lock().last().unwrap().2).unwrap()
    }
}

async fn answer(
    request: Request<Incoming>,
    say: Arc<Mutex<Say>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let path = parts.uri.path_and_query().unwrap().to_string();
    asked.lock().push((path, parts.headers, body));
    let say = say.lock().clone();
    let response = Response::builder();
    Ok(match say {
        Say::Grpc(message) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
            response.header("content-type", "application/grpc").body(body.boxed()).unwrap()
        }
        Say::GrpcStatus(status) => response
            .header("content-type", "application/grpc")
            .header("grpc-status", status)
            .body(Full::default().boxed())
            .unwrap(),
        Say::Http(status, headers, body) => {
            let mut response = response.status(status).body(Full::from(body).boxed()).unwrap();
            response.headers_mut().extend(headers);
            response
        }
        Say::Endless => {
            let piece = || Ok(Frame::data(Bytes::from(vec![0; 256 * 1024])));
            let pieces = futures::stream::repeat_with(piece).take(4096);
            response
                .header("content-type", "application/grpc")
                .body(http_body_util::BodyExt::boxed(StreamBody::new(pieces)))
                .unwrap()
        }
        Say::Hang => futures::future::pending().await,
        Say::Close => return Err(std::io::Error::other("closed on purpose")),
    })
}

fn said(code: i32, response: Option<HttpResponse>) -> Say {
    let status = Some(Status { code, ..Default::default() });
    Say::Grpc(grpc::frame(&CheckResponse { status, http_response: response, ..Default::default() }))
}

fn option(key: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    HeaderValueOption { header: Some(header), append_action: 2, ..Default::default() }
}

fn filter(service: AuthzService) -> ExtAuthz {
    ExtAuthz {
        service,
        failure_mode_allow: false,
        failure_mode_allow_header: true,
        status_on_error: StatusCode::FORBIDDEN,
        body: None,
        clear_route_cache: false,
        enabled: Fraction::ALL,
        enabled_metadata: None,
        allowed_headers: Vec::new(),
        disallowed_headers: Vec::new(),
        metadata_namespaces: Vec::new(),
        include_peer_certificate: false,
        denied_body_bytes_max: None,
    }
}

pub(super) fn grpc_service(cluster: &str, timeout: Duration) -> GrpcService {
    GrpcService { cluster: cluster.into(), authority: cluster.into(), timeout, metadata: Vec::new() }
}

fn by_grpc() -> ExtAuthz {
    filter(AuthzService::Grpc(grpc_service("authz", Duration::from_millis(300))))
}

fn exact(names: &[&str]) -> Vec<StringMatch> {
    names.iter().map(|name| StringMatch::exact(name)).collect()
}

fn by_http() -> ExtAuthz {
    filter(AuthzService::Http(HttpAuthz {
        cluster: "authz".into(),
        timeout: Duration::from_millis(300),
        path_prefix: "/check".into(),
        allowed_headers: exact(&["x-tell"]),
        headers_to_add: Vec::new(),
        upstream_headers: exact(&["x-user"]),
        upstream_headers_to_append: exact(&["x-more"]),
        client_headers: exact(&["x-why"]),
        client_headers_on_success: exact(&["x-seen"]),
        metadata_headers: Vec::new(),
    }))
}

fn guarded(
    app: &App,
    service: SocketAddr,
    filters: Vec<HttpFilterKind>,
    settings: Option<CheckSettings>,
) -> Proxy {
    let mut local = route("local");
    if let Some(settings) = settings {
        let config = Some(RouteFilterConfig::ExtAuthz(Some(Arc::new(settings))));
        local.filters.entries = vec![RouteFilter { name: "f0".into(), disabled: false, config }];
    }
    let listener = http_listener("in", Direction::Inbound, manager(routes(vec![local]), filters), None);
    plain(snapshot(vec![listener], vec![cluster("local", &[app.address]), cluster("authz", &[service])]))
}

fn one(filter: ExtAuthz) -> Vec<HttpFilterKind> {
    vec![HttpFilterKind::ExtAuthz(Arc::new(filter))]
}

#[tokio::test]
async fn a_grpc_service_learns_what_it_needs_and_changes_what_it_says() {
    let app = App::start("a").await;
    let ok = OkHttpResponse {
        headers: vec![option("x-user", "jason"), option("x-forged", "no")],
        headers_to_remove: vec!["x-secret".into(), "host".into()],
        response_headers_to_add: vec![option("x-authz", "seen")],
        query_parameters_to_set: vec![QueryParameter { key: "tenant".into(), value: "a&b=c d".into() }],
        query_parameters_to_remove: vec!["drop".into()],
        ..Default::default()
    };
    let service = Service::start(said(0, Some(HttpResponse::OkResponse(ok)))).await;
    let body = Some(BodyBuffer { bytes_max: 4, allow_partial: true, as_bytes: false });
    let extensions = [("route".into(), "one".into())].into();
    let settings = CheckSettings { context_extensions: extensions, ..CheckSettings::default() };
    let proxy = guarded(&app, service.address, one(ExtAuthz { body, ..by_grpc() }), Some(settings));
    let mut client = Client::connect(address(&proxy, "in").await).await;
    let request = with(with(post("/x?drop=1&keep=2", "hello"), "x-secret", "s"), "x-forged", "yes");
    let (status, text, headers) = client.text(request).await;
    assert_eq!((status, &*text), (200, "a /x?keep=2&tenant=a%26b%3Dc%20d hello"));
    assert_eq!(headers["x-authz"], "seen");
    let (_, forwarded, _) = app.requests().pop().unwrap();
    assert_eq!(
        (&forwarded["x-user"], &forwarded["x-forged"]),
        (&"jason".parse().unwrap(), &"no".parse().unwrap())
    );
    assert!(!forwarded.contains_key("x-secret") && forwarded["host"] == "reviews:9080");

    assert_eq!(service.asked()[0].0, "/envoy.service.auth.v3.Authorization/Check");
    let attributes = service.last_check().attributes.unwrap();
    assert_eq!(attributes.context_extensions["route"], "one");
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!((&*http.method, &*http.path, &*http.host), ("POST", "/x?drop=1&keep=2", "reviews:9080"));
    assert_eq!((&*http.body, http.size, &*http.protocol), ("hell", 5, "HTTP/1.1"));
    assert_eq!((&*http.headers["x-secret"], &*http.headers["x-envoy-auth-partial-body"]), ("s", "true"));
    assert_eq!(http.headers[":path"], "/x?drop=1&keep=2");
}

#[tokio::test]
async fn a_refusal_reaches_the_client_as_the_service_said_it() {
    let app = App::start("a").await;
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![
            option("x-why", "no ticket"),
            option("content-length", "9999"),
            option("transfer-encoding", "chunked"),
        ],
        body: "go away".into(),
    };
    let service = Service::start(said(16, Some(HttpResponse::DeniedResponse(denied)))).await;
    let proxy = guarded(&app, service.address, one(by_grpc()), None);
    let mut client = Client::connect(address(&proxy, "in").await).await;
    let (status, text, headers) = client.text(get("/x")).await;
    assert_eq!((status, &*text, &headers["x-why"]), (401, "go away", &"no ticket".parse().unwrap()));
    assert_eq!(headers["content-length"], "7");
    assert!(app.requests().is_empty());
    counted(&proxy, &["response_flags=\"UAEX\"", "response_code=\"401\""], 1).await;
    *service.say.lock() = said(0, None);
    assert_eq!(client.text(get("/x")).await.0, 200, "every request is asked about");
}

#[tokio::test]
async fn an_http_service_gets_the_head_and_its_status_decides() {
    let app = App::start("a").await;
    let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    };
    let yes = headers(&[("x-user", "jason"), ("x-more", "2"), ("x-seen", "1"), ("x-other", "no")]);
    let service = Service::start(Say::Http(200, yes, "")).await;
    let proxy = guarded(&app, service.address, one(by_http()), None);
    let mut client = Client::connect(address(&proxy, "in").await).await;
    let request = with(with(with(post("/x?a=1", "body"), "x-tell", "t"), "x-keep", "k"), "x-more", "1");
    let (status, text, answered) = client.text(with(request, "authorization", "Basic x")).await;
    assert_eq!((status, &*text, answered.get("x-seen").is_some()), (200, "a /x?a=1 body", true));
    let (_, forwarded, _) = app.requests().pop().unwrap();
    assert_eq!(forwarded["x-user"], "jason");
    assert_eq!(forwarded.get_all("x-more").iter().count(), 2);
    assert!(!forwarded.contains_key("x-other"));
    let (path, told, body) = service.asked().pop().unwrap();
    assert_eq!((&*path, body.len()), ("/check/x?a=1", 0));
    assert_eq!(
        (&told["x-tell"], &told["authorization"]),
        (&"t".parse().unwrap(), &"Basic x".parse().unwrap())
    );
    assert!(!told.contains_key("x-keep") && told["host"] == "reviews:9080" && told["content-length"] == "0");

    let no = headers(&[("x-why", "because"), ("x-internal", "hide"), ("location", "/login")]);
    *service.say.lock() = Say::Http(302, no, "first log in");
    let (status, text, answered) = client.text(get("/x")).await;
    assert_eq!((status, &*text), (302, "first log in"));
    assert_eq!(
        (&answered["x-why"], &answered["location"]),
        (&"because".parse().unwrap(), &"/login".parse().unwrap())
    );
    assert!(!answered.contains_key("x-internal"));
    for status in [201, 204, 400, 403, 404, 429] {
        *service.say.lock() = Say::Http(status, HeaderMap::new(), "");
        assert_eq!(client.text(get("/x")).await.0, status, "anything but 200 is a no");
    }
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn without_a_clear_answer_nothing_passes_and_nobody_waits_long() {
    let app = App::start("a").await;
    let garbage = || Say::Grpc(Bytes::from_static(b"\0\0\0\0\x04\xff\xff\xff\xff"));
    let contradiction = || said(0, Some(HttpResponse::DeniedResponse(DeniedHttpResponse::default())));
    let broken = || {
        let ok = OkHttpResponse { headers: vec![option("x", "a\r\nb: c")], ..Default::default() };
        said(0, Some(HttpResponse::OkResponse(ok)))
    };
    let wrong: Vec<(&str, Say)> = vec![
        ("hangs", Say::Hang),
        ("closes", Say::Close),
        ("fails", Say::Http(500, HeaderMap::new(), "")),
        ("is unavailable", Say::Http(503, HeaderMap::new(), "")),
        ("answers without end", Say::Endless),
    ];
    let wrong_grpc: Vec<(&str, Say)> = vec![
        ("has a gRPC failure", Say::GrpcStatus(14)),
        ("says 200 and no message", Say::GrpcStatus(0)),
        ("speaks plain HTTP", Say::Http(200, HeaderMap::new(), "ok")),
        ("answers garbage", garbage()),
        ("contradicts itself", contradiction()),
        ("breaks the request", broken()),
        ("says nothing", Say::Grpc(grpc::frame(&CheckResponse::default()))),
    ];
    for (name, filter) in [("gRPC", by_grpc()), ("HTTP", by_http())] {
        let mut all = wrong.clone();
        if name == "gRPC" {
            all.extend(wrong_grpc.clone());
        }
        let service = Service::start(Say::Hang).await;
        let closed = guarded(&app, service.address, one(filter.clone()), None);
        let open = ExtAuthz { failure_mode_allow: true, ..filter.clone() };
        let open = guarded(&app, service.address, one(open), None);
        let (mut strict, mut lax) = (
            Client::connect(address(&closed, "in").await).await,
            Client::connect(address(&open, "in").await).await,
        );
        for (what, say) in all {
            *service.say.lock() = say;
            let begun = Instant::now();
            let (status, text, _) = strict.text(get("/x")).await;
            assert_eq!((status, &*text), (403, ""), "a service by {name} that {what}");
            assert!(begun.elapsed() < Duration::from_millis(600), "{what}: {:?}", begun.elapsed());
            assert!(app.requests().is_empty(), "{what}");
            assert_eq!(lax.text(get("/x")).await.0, 200, "{what}");
            assert_eq!(app.requests()[0].1["x-envoy-auth-failure-mode-allowed"], "true");
            app.forget();
        }
        let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dead = guarded(&app, refused, one(filter.clone()), None);
        let mut client = Client::connect(address(&dead, "in").await).await;
        assert_eq!(client.text(get("/x")).await.0, 403, "a dead service by {name}");
        let status_on_error = StatusCode::SERVICE_UNAVAILABLE;
        let unknown = ExtAuthz { status_on_error, ..filter };
        let listener = http_listener(
            "in",
            Direction::Inbound,
            manager(routes(vec![route("local")]), one(unknown)),
            None,
        );
        let missing = plain(snapshot(vec![listener], vec![cluster("local", &[app.address])]));
        let mut client = Client::connect(address(&missing, "in").await).await;
        assert_eq!(client.text(get("/x")).await.0, 503, "no such cluster by {name}");
        assert!(app.requests().is_empty());
    }
}

#[tokio::test]
async fn bodies_are_told_up_to_the_bound_and_forwarded_whole() {
    let app = App::start("a").await;
    let service = Service::start(said(0, None)).await;
    let body = |allow_partial| Some(BodyBuffer { bytes_max: 8, allow_partial, as_bytes: true });
    let strict = guarded(&app, service.address, one(ExtAuthz { body: body(false), ..by_grpc() }), None);
    let mut client = Client::connect(address(&strict, "in").await).await;
    assert_eq!(client.text(post("/x", "12345678")).await.1, "a /x 12345678");
    let http = service.last_check().attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!(http.raw_body, b"12345678");
    assert_eq!(http.headers["x-envoy-auth-partial-body"], "false");
    assert_eq!(client.text(post("/x", "123456789")).await.0, 413);
    assert_eq!(service.asked().len(), 1, "nobody is asked about what is refused");
    let lax = guarded(&app, service.address, one(ExtAuthz { body: body(true), ..by_grpc() }), None);
    let mut client = Client::connect(address(&lax, "in").await).await;
    let long: &'static str = Box::leak("x".repeat(1_000_000).into_boxed_str());
    assert_eq!(client.text(post("/x", long)).await.1.len(), "a /x ".len() + long.len());
    let http = service.last_check().attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!(http.raw_body, b"xxxxxxxx");
}

#[tokio::test]
async fn only_what_a_custom_policy_selects_is_asked_about() {
    let app = App::start("a").await;
    let service = Service::start(said(7, None)).await;
    let path = StringMatch { pattern: StringPattern::Prefix("/admin".into()), ignore_case: false };
    let policy = RbacPolicy {
        name: "istio-ext-authz-opa-ns[default]-policy[p]-rule[0]".into(),
        permissions: vec![Permission::UrlPath(path)],
        principals: vec![Principal::Any],
    };
    let rbac = Rbac {
        rules: None,
        shadow_rules: Some(RbacRules { action: RbacAction::Deny, policies: vec![policy] }),
        shadow_prefix: "istio_ext_authz_".into(),
    };
    let prefix =
        StringMatch { pattern: StringPattern::Prefix("istio-ext-authz-opa-".into()), ignore_case: false };
    let selected = MetadataMatch {
        filter: "envoy.filters.http.rbac".into(),
        path: vec!["istio_ext_authz_shadow_effective_policy_id".into()],
        value: ValueMatch::String(prefix),
        invert: false,
    };
    let filters = vec![
        HttpFilterKind::Rbac(Arc::new(rbac)),
        HttpFilterKind::ExtAuthz(Arc::new(ExtAuthz { enabled_metadata: Some(selected), ..by_grpc() })),
    ];
    let proxy = guarded(&app, service.address, filters, None);
    let mut client = Client::connect(address(&proxy, "in").await).await;
    assert_eq!(client.text(get("/open")).await.0, 200);
    assert_eq!(service.asked().len(), 0);
    for path in ["/admin", "/admin/x", "/x/..%2fadmin", "//admin", "/admin;x"] {
        assert_eq!(client.text(get(path)).await.0, 403, "{path}");
    }
    assert_eq!(service.asked().len(), 5);
    *service.say.lock() = said(0, None);
    assert_eq!(client.text(get("/admin")).await.0, 200);
}
