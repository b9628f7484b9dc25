//! Spans of requests through two sidecars, at collectors that are not ours: what arrives is read by the messages' own definitions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::listener::Direction;
use sidecar_model::tracing::{CustomTag, Propagation, Provider, SpanProtocol, TagSource};
use sidecar_model::{Fraction, HttpConnectionManager, Tracing};

use super::app::App;
use super::build::{cluster, http_listener, manager, mesh_tls, mutual, route, routes, snapshot};
use super::rig::{Client, Mesh, address, get, sidecar, spiffe, until, with};
use crate::Proxy;

// The parts of OpenTelemetry's messages that the tests look at, by their published numbers.

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|one| one.key == key);
    found.and_then(|one| one.value.as_ref()).map_or("(none)", |value| &value.text)
}

/// Every span that an OTLP collector was sent, with the name of its producer.
fn otlp_spans(collector: &App) -> Vec<(String, Span)> {
    let mut all = Vec::new();
    for (path, headers, body) in collector.requests() {
        let message = if headers["content-type"] == "application/grpc" {
            assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
            assert_eq!((body[0], length), (0, body.len() - 5));
            body.slice(5..)
        } else {
            assert_eq!(
                (path.as_str(), &headers["content-type"]),
                ("/v1/traces", &"application/x-protobuf".parse().unwrap())
            );
            body
        };
        for one in Export::decode(message).unwrap().resource_spans {
            let service = find(&one.resource.unwrap().attributes, "service.name").to_owned();
            let spans = one.scope_spans.into_iter().flat_map(|scope| scope.spans);
            all.extend(spans.map(|span| (service.clone(), span)));
        }
    }
    all
}

fn zipkin_spans(collector: &App) -> Vec<Value> {
    let requests = collector.requests().into_iter().filter(|(path, ..)| path == "/api/v2/spans");
    let lists = requests.map(|(_, _, body)| serde_json::from_slice::<Vec<Value>>(&body).unwrap());
    lists.flatten().collect()
}

fn provider(protocol: SpanProtocol, propagation: Propagation) -> Provider {
    Provider {
        cluster: "collector".into(),
        authority: "collector.obs".into(),
        protocol,
        headers: vec![("x-key".into(), "k".into())],
        timeout: Duration::from_secs(5),
        service_name: "".into(),
        resource: vec![("zone".into(), "a".into())],
        resource_from_environment: false,
        always_on: false,
        propagation,
        queue_max: 4096,
    }
}

fn traced(manager: HttpConnectionManager, provider: &Provider, percent: u32) -> HttpConnectionManager {
    let fraction = |percent: u32| Fraction { per_million: percent * 10_000 };
    let tag = |name: &str, source| CustomTag { name: name.into(), source };
    let tracing = Tracing {
        random_sampling: fraction(percent),
        client_sampling: fraction(100),
        overall_sampling: fraction(100),
        path_tag_bytes_max: 8,
        custom_tags: vec![
            tag("istio.mesh_id", TagSource::Literal("cluster.local".into())),
            tag(
                "user",
                TagSource::Header { name: http::HeaderName::from_static("x-user"), default: "nobody".into() },
            ),
            tag("place", TagSource::Environment { name: "PLACE".into(), default: "".into() }),
            tag("status", TagSource::Format("%RESPONSE_CODE%/%REQ(:METHOD)%".into())),
        ],
        provider: Some(Arc::new(provider.clone())),
    };
    HttpConnectionManager { tracing: Some(tracing), ..manager }
}

/// Both sidecars of a mesh, tracing to `collector`; and a client of the first.
async fn pair(app: &App, collector: &App, provider: &Provider, percent: u32) -> (Proxy, Proxy, Client) {
    let mesh = Mesh::new();
    let mut to = cluster("collector", &[collector.address]);
    if provider.protocol == SpanProtocol::OtlpGrpc {
        to.http.protocol = UpstreamProtocol::Http2;
    }
    let inner = traced(manager(routes(vec![route("local")]), vec![]), provider, percent);
    let inner = http_listener("in", Direction::Inbound, inner, Some(mesh_tls()));
    let clusters = vec![cluster("local", &[app.address]), to.clone()];
    let server = sidecar("reviews", mesh.identity("reviews"), snapshot(vec![inner], clusters));
    let upstream =
        mutual(cluster("c", &[address(&server, "in").await]), &spiffe("reviews"), UpstreamProtocol::Http2);
    let mut named = route("c");
    named.decorator = Some("reviews.default.svc.cluster.local:9080/*".into());
    let outer = traced(manager(routes(vec![named]), vec![]), provider, percent);
    let outer = http_listener("out", Direction::Outbound, outer, None);
    let client =
        sidecar("productpage", mesh.identity("productpage"), snapshot(vec![outer], vec![upstream, to]));
    let user = Client::connect(address(&client, "out").await).await;
    (server, client, user)
}

async fn wait_otlp(collector: &App, count: usize) -> Vec<(String, Span)> {
    until("spans", || Some(otlp_spans(collector)).filter(|spans| spans.len() >= count)).await
}

#[tokio::test]
async fn every_sampled_request_leaves_a_span_in_each_sidecar_and_they_link() {
    const REQUESTS: usize = 200;
    for protocol in [SpanProtocol::OtlpGrpc, SpanProtocol::OtlpHttp("/v1/traces".into())] {
        let (app, collector) = (App::start("a").await, App::start("collector").await);
        let provider = provider(protocol, Propagation::W3c);
        let (_server, _client, mut user) = pair(&app, &collector, &provider, 100).await;
        for number in 0..REQUESTS {
            let status = if number == 0 { "503" } else { "200" };
            let request = with(with(get("/a/long/path?q=1"), "x-user", "jason"), "test-status", status);
            assert_eq!(user.text(request).await.0.to_string(), status);
        }
        let spans = wait_otlp(&collector, 2 * REQUESTS).await;
        assert_eq!(spans.len(), 2 * REQUESTS);
        let (clients, servers): (Vec<_>, Vec<_>) = spans.into_iter().partition(|(_, span)| span.kind == 3);
        assert_eq!((clients.len(), servers.len()), (REQUESTS, REQUESTS));
        let known: HashSet<_> =
            clients.iter().map(|(_, span)| (span.trace_id.clone(), span.span_id.clone())).collect();
        assert_eq!(known.len(), REQUESTS, "each request has its own trace");
        for (service, span) in &servers {
            assert!(
                known.contains(&(span.trace_id.clone(), span.parent_span_id.clone())),
                "{span:?} has no parent"
            );
            assert_eq!((service.as_str(), span.name.as_str()), ("reviews.default", "ingress"));
        }
        for (service, span) in &clients {
            assert_eq!((service.as_str(), span.parent_span_id.len()), ("productpage.default", 0));
            assert_eq!(span.name, "reviews.default.svc.cluster.local:9080/*");
            assert!(span.end > span.start, "{span:?}");
            let tag = |key: &str| find(&span.attributes, key);
            let failed = tag("http.status_code") == "503";
            assert_eq!(span.status.as_ref().map_or(0, |status| status.code), if failed { 2 } else { 0 });
            for (key, value) in [
                ("component", "proxy"),
                ("http.method", "GET"),
                ("http.url", "http://reviews:9080/a/long/"),
                ("http.protocol", "HTTP/1.1"),
                ("upstream_cluster", "c"),
                ("upstream_cluster.name", "c"),
                ("response_flags", "-"),
                ("request_size", "0"),
                ("peer.address", "127.0.0.1"),
                ("istio.mesh_id", "cluster.local"),
                ("user", "jason"),
                ("place", "(none)"),
                ("node_id", "sidecar~127.0.0.1~productpage.default~default.svc.cluster.local"),
                ("status", if failed { "503/GET" } else { "200/GET" }),
                ("error", if failed { "true" } else { "(none)" }),
            ] {
                assert_eq!(tag(key), value, "{key} of {span:?}");
            }
            assert_eq!(tag("guid:x-request-id").as_bytes()[14], b'9');
        }
        let (_, headers, _) = &app.requests()[0];
        let last = headers["traceparent"].to_str().unwrap().to_owned();
        assert!(last.starts_with("00-") && last.ends_with("-01"), "{last}");
        let (_, headers, _) = &collector.requests()[0];
        assert_eq!((headers["x-key"].to_str().unwrap(), &headers["content-type"].len() > &0), ("k", true));
    }
}

#[tokio::test]
async fn what_is_not_sampled_leaves_none_and_says_so_to_the_next() {
    let (app, collector) = (App::start("a").await, App::start("collector").await);
    let provider = provider(SpanProtocol::OtlpGrpc, Propagation::W3c);
    let (_server, _client, mut user) = pair(&app, &collector, &provider, 0).await;
    for _ in 0..50 {
        user.text(get("/")).await;
    }
    let (_, headers, _) = &app.requests()[0];
    assert!(headers["traceparent"].to_str().unwrap().ends_with("-00"));
    assert_eq!(headers["x-request-id"].as_bytes()[14], b'4');
    // The client's own wish counts, and a trace that came sampled goes on: their spans are the only ones.
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    user.text(with(with(get("/"), "traceparent", parent), "tracestate", "a=b")).await;
    user.text(with(get("/"), "x-client-trace-id", "mine")).await;
    let spans = wait_otlp(&collector, 4).await;
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let went_on: Vec<_> = spans.iter().filter(|(_, span)| span.trace_id[0] == 0x0a).collect();
    assert_eq!(went_on.len(), 2);
    let (_, first) = went_on.iter().find(|(_, span)| span.kind == 3).unwrap();
    assert_eq!((first.parent_span_id[0], first.trace_state.as_str()), (0xb7, "a=b"));
    let marked = |(_, span): &&(String, Span)| find(&span.attributes, "guid:x-client-trace-id") == "mine";
    assert_eq!(spans.iter().filter(marked).count(), 2);
}

#[tokio::test]
async fn zipkin_is_told_in_its_json_and_b3_travels_in_the_form_it_came() {
    let (app, collector) = (App::start("a").await, App::start("collector").await);
    let protocol = SpanProtocol::Zipkin { path: "/api/v2/spans".into(), wide: true, shared: false };
    let (_server, _client, mut user) =
        pair(&app, &collector, &provider(protocol, Propagation::B3), 100).await;
    user.text(get("/")).await;
    let single = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1";
    user.text(with(get("/"), "b3", single)).await;
    user.text(with(get("/"), "x-b3-sampled", "0")).await;
    let spans = until("spans", || Some(zipkin_spans(&collector)).filter(|spans| spans.len() >= 4)).await;
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let own: Vec<&Value> = spans.iter().filter(|span| span["traceId"] != single[..32]).collect();
    let side = |kind: &str| *own.iter().find(|span| span["kind"] == kind).unwrap();
    let (client, server) = (side("CLIENT"), side("SERVER"));
    assert_eq!((&client["id"], &client["traceId"]), (&server["parentId"], &server["traceId"]));
    assert_eq!(client["localEndpoint"]["serviceName"], "productpage.default");
    assert_eq!(client["tags"]["http.status_code"], "200");
    assert!(
        client["timestamp"].as_u64().unwrap() > 1_600_000_000_000_000
            && client["duration"].as_u64().unwrap() > 0
    );
    let requests = app.requests();
    assert!(!requests[0].1.contains_key("b3") && requests[0].1.contains_key("x-b3-traceid"));
    let b3 = requests[1].1["b3"].to_str().unwrap();
    assert!(b3.starts_with(&single[..32]) && b3.contains("-1-"), "{b3}");
    assert_eq!(requests[2].1["x-b3-sampled"], "0");
}

#[tokio::test]
async fn a_collector_that_is_gone_holds_nothing_up() {
    let app = App::start("a").await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut collector = App::start("collector").await;
    collector.address = gone;
    let mut provider = provider(SpanProtocol::OtlpGrpc, Propagation::W3c);
    provider.queue_max = 10;
    let (_server, client, mut user) = pair(&app, &collector, &provider, 100).await;
    for _ in 0..100 {
        assert_eq!(user.text(get("/")).await.0, 200);
    }
    let value = |name: &str| {
        let all = crate::stats::list(client.shared());
        all.iter().find(|stat| stat.name == name).unwrap().value
    };
    until("spans given up", || {
        let (sent, lost) =
            (value("tracing.spans_sent"), value("tracing.spans_dropped") + value("tracing.spans_failed"));
        assert_eq!(sent, 0);
        (lost == 100).then_some(())
    })
    .await;
}
