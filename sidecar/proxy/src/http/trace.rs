//! A request's place in a trace: whether it is sampled, the context that travels on with it, and its span.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sidecar_model::HttpConnectionManager;
use sidecar_model::listener::Direction;
use sidecar_model::tracing::{MetadataOf, Propagation, Provider, SpanProtocol, TagSource, Tracing};
use sidecar_telemetry::log::Format;
use sidecar_telemetry::span::{SpanContext, TRACESTATE};
use sidecar_telemetry::trace::REQUEST_ID;
use sidecar_telemetry::{Entry, Flags, Span, SpanKind};

use super::record::Record;
use super::{Connection, export};
use crate::config::HcmPlan;
use crate::worker::Worker;

/// A client that wants its requests traced.
const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
/// A service that wants its requests traced.
const FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");
const DOWNSTREAM_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");
/// Where the digit of a request identifier is that says why it is traced.
const REASON_AT: usize = 14;
const NOT_TRACED: u8 = b'4';
const SAMPLED: u8 = b'9';
const FORCED_BY_SERVICE: u8 = b'a';
const FORCED_BY_CLIENT: u8 = b'b';
/// Bytes of a header that a tag shows.
const TAG_BYTES_MAX: usize = 1024;

/// The span of a sampled request while it runs.
pub(super) struct Trace {
    hcm: Arc<HttpConnectionManager>,
    context: SpanContext,
    parent: Option<[u8; 8]>,
    shared: bool,
    state: Box<str>,
    kind: SpanKind,
    start: SystemTime,
    host: Box<str>,
    tags: Vec<(Cow<'static, str>, String)>,
}

/// What is known when the request has ended.
pub(super) struct End<'a> {
    pub(super) record: &'a Record,
    pub(super) duration: Duration,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) flags: Flags,
}

/// Decides whether the request is sampled, and writes its new context into its headers.
pub(super) fn begin(
    connection: &Connection,
    plan: &HcmPlan,
    parts: &mut Parts,
    record: &Record,
) -> Option<Box<Trace>> {
    let tracing = plan.hcm.tracing.as_ref()?;
    let worker = &connection.down.worker;
    let decided = decide(tracing, &mut parts.headers, worker);
    let provider = tracing.provider.as_ref()?;
    let headers = &mut parts.headers;
    let before = match provider.propagation {
        Propagation::W3c => SpanContext::from_w3c(headers),
        Propagation::B3 => SpanContext::from_b3(headers),
        Propagation::B3AndW3c => SpanContext::from_b3(headers).or_else(|| SpanContext::from_w3c(headers)),
    };
    let said = match (&before, provider.propagation) {
        (Some(before), _) => before.sampled,
        (None, Propagation::W3c) => None,
        (None, _) => SpanContext::b3_decision(headers),
    };
    let sampled = provider.always_on || said.unwrap_or(decided);
    let kind = match connection.down.listener.listener.direction {
        Direction::Outbound => SpanKind::Client,
        Direction::Inbound | Direction::Unspecified => SpanKind::Server,
    };
    let (mut context, shared) = next(provider, kind, before, worker);
    context.sampled = Some(sampled);
    let parent = if shared { None } else { before.map(|before| before.span_id) };
    if provider.propagation != Propagation::B3 {
        context.write_w3c(headers);
    }
    if provider.propagation != Propagation::W3c {
        context.write_b3(parent, headers);
    }
    if !sampled {
        return None;
    }
    let state = if provider.propagation == Propagation::W3c { text(headers, &TRACESTATE) } else { None };
    Some(Box::new(Trace {
        hcm: Arc::clone(&plan.hcm),
        context,
        parent,
        shared,
        state: state.unwrap_or_default().into(),
        kind,
        start: SystemTime::now(),
        host: text(headers, &header::HOST).unwrap_or_default().into(),
        tags: tags(connection, tracing, parts, record),
    }))
}

/// The new span's place, and whether that is the client's own span.
fn next(
    provider: &Provider,
    kind: SpanKind,
    before: Option<SpanContext>,
    worker: &Worker,
) -> (SpanContext, bool) {
    let random = || worker.random().max(1).to_be_bytes();
    let Some(before) = before else {
        let mut trace_id = [0; 16];
        trace_id[8..].copy_from_slice(&random());
        if !matches!(provider.protocol, SpanProtocol::Zipkin { wide: false, .. }) {
            trace_id[..8].copy_from_slice(&random());
        }
        return (SpanContext { trace_id, span_id: random(), sampled: None }, false);
    };
    let shared =
        matches!(provider.protocol, SpanProtocol::Zipkin { shared: true, .. }) && kind == SpanKind::Server;
    let span_id = if shared { before.span_id } else { random() };
    (SpanContext { span_id, ..before }, shared)
}

/// Envoy's decision: a digit of the request identifier says it for the whole mesh, the identifier's own number is the chance.
fn decide(tracing: &Tracing, headers: &mut HeaderMap, worker: &Worker) -> bool {
    let Some(id) = headers.get(REQUEST_ID).map(HeaderValue::as_bytes).filter(|id| id.len() == 36) else {
        return false;
    };
    let number = std::str::from_utf8(&id[..8]).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(number) = number else { return false };
    let hits = |fraction: sidecar_model::Fraction| number % 10_000 * 100 < fraction.per_million;
    let before = id[REASON_AT];
    let mut reason = before;
    let traced = |reason| matches!(reason, SAMPLED | FORCED_BY_SERVICE | FORCED_BY_CLIENT);
    if !traced(reason) {
        if headers.contains_key(CLIENT_TRACE_ID) && tracing.client_sampling.hit(worker.random()) {
            reason = FORCED_BY_CLIENT;
        } else if headers.contains_key(FORCE_TRACE) {
            reason = FORCED_BY_SERVICE;
        } else if hits(tracing.random_sampling) {
            reason = SAMPLED;
        }
    }
    if traced(reason) && !hits(tracing.overall_sampling) {
        reason = NOT_TRACED;
    }
    if reason != before {
        let mut id = id.to_vec();
        id[REASON_AT] = reason;
        if let Ok(value) = HeaderValue::from_bytes(&id) {
            headers.insert(REQUEST_ID, value);
        }
    }
    traced(reason)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?;
    text.get(..TAG_BYTES_MAX.min(text.len()))
}

/// What the request says before it is changed, under Envoy's names.
fn tags(
    connection: &Connection,
    tracing: &Tracing,
    parts: &Parts,
    record: &Record,
) -> Vec<(Cow<'static, str>, String)> {
    let headers = &parts.headers;
    let node = &connection.down.worker.shared.node;
    let of = |name: &HeaderName| text(headers, name).unwrap_or("-").to_owned();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = path.get(..tracing.path_tag_bytes_max.min(path.len())).unwrap_or_default();
    let url = format!("{}://{}{path}", record.scheme, text(headers, &header::HOST).unwrap_or_default());
    let mut tags: Vec<(Cow<'static, str>, String)> = vec![
        ("component".into(), "proxy".to_owned()),
        ("node_id".into(), node.id().to_owned()),
        ("zone".into(), String::new()),
        ("guid:x-request-id".into(), of(&REQUEST_ID)),
        ("http.url".into(), url),
        ("http.method".into(), parts.method.as_str().to_owned()),
        ("downstream_cluster".into(), of(&DOWNSTREAM_CLUSTER)),
        ("user_agent".into(), of(&header::USER_AGENT)),
        ("http.protocol".into(), record.protocol().to_owned()),
        ("peer.address".into(), connection.down.direct.ip().to_canonical().to_string()),
    ];
    if let Some(id) = text(headers, &CLIENT_TRACE_ID) {
        tags.push(("guid:x-client-trace-id".into(), id.to_owned()));
    }
    if record.grpc {
        tags.push(("grpc.path".into(), path.to_owned()));
        tags.push(("grpc.authority".into(), of(&header::HOST)));
        tags.push(("grpc.content_type".into(), of(&header::CONTENT_TYPE)));
    }
    for tag in &tracing.custom_tags {
        let value = match &tag.source {
            TagSource::Literal(text) => Some(text.to_string()),
            TagSource::Header { name, default } => Some(text(headers, name).unwrap_or(default).to_owned()),
            TagSource::Environment { name, default } => {
                Some(node.variable(name).unwrap_or(default).to_owned())
            }
            TagSource::Metadata { .. } | TagSource::Format(_) => None,
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            tags.push((tag.name.to_string().into(), value));
        }
    }
    tags
}

impl Trace {
    /// Reports the span.
    pub(super) fn end(mut self: Box<Self>, end: &End<'_>) {
        let record = end.record;
        let Some(provider) = self.hcm.tracing.as_ref().and_then(|tracing| tracing.provider.clone()) else {
            return;
        };
        let failed = record.code == 0 || record.code >= 500;
        let cluster = record.cluster.as_ref().map_or("-", |plan| &plan.cluster.name).to_owned();
        let mut add = |name: &'static str, value: String| self.tags.push((name.into(), value));
        add("upstream_cluster", cluster.clone());
        add("upstream_cluster.name", cluster);
        add("http.status_code", record.code.to_string());
        add("request_size", end.received.to_string());
        add("response_size", end.sent.to_string());
        add("response_flags", end.flags.to_string());
        if let Some(status) = record.grpc_status.get() {
            add("grpc.status_code", status.to_string());
        }
        if failed {
            add("error", "true".to_owned());
        }
        self.late_tags(record);
        let name = match record.route.as_ref().and_then(|(_, route)| route.decorator.as_deref()) {
            Some(operation) if !operation.is_empty() => operation.into(),
            _ if self.kind == SpanKind::Client => format!("egress {}", self.host).into(),
            _ => "ingress".into(),
        };
        let span = Span {
            context: self.context,
            parent: self.parent,
            shared: self.shared,
            state: self.state,
            name,
            kind: self.kind,
            start: self.start,
            duration: end.duration,
            tags: self.tags,
            failed,
        };
        export::push(record.worker(), &provider, span);
    }

    /// Tags whose values are known only now.
    fn late_tags(&mut self, record: &Record) {
        let hcm = Arc::clone(&self.hcm);
        for tag in hcm.tracing.iter().flat_map(|tracing| &tracing.custom_tags) {
            let value = match &tag.source {
                TagSource::Metadata { of, namespace, path, default } => {
                    let metadata = match of {
                        MetadataOf::Request => record.metadata.as_ref(),
                        MetadataOf::Route => record.route.as_ref().map(|(_, route)| &route.metadata),
                        MetadataOf::Cluster => record.cluster.as_ref().map(|plan| &plan.cluster.metadata),
                    };
                    let found = metadata.and_then(|all| all.find(namespace, path.iter().map(|key| &**key)));
                    found.map_or_else(
                        || default.to_string(),
                        |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                    )
                }
                TagSource::Format(text) => {
                    let none = HeaderMap::new();
                    let mut entry = Entry::new(&none);
                    record.fill(&mut entry);
                    let mut value = String::new();
                    Format::lenient(text).write_or(&entry, "", &mut value);
                    value
                }
                _ => continue,
            };
            if !value.is_empty() {
                self.tags.push((tag.name.to_string().into(), value));
            }
        }
    }
}
