//! Reports of spans to their collectors: gathered by each worker, sent in batches through the clusters of the configuration. Nothing
//! waits for it, and what does not fit the queue is dropped and counted.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use sidecar_model::tracing::{Provider, SpanProtocol};
use sidecar_telemetry::{Span, span};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::callout::Callout;
use crate::worker::Worker;

/// Spans are sent when there are so many,
const BATCH: usize = 256;
/// or when the first has waited so long.
const INTERVAL: Duration = Duration::from_secs(1);
/// Answers are short; longer ones are not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// OpenTelemetry's method.
const OTLP_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What became of spans, for statistics.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    /// Spans that a collector took.
    pub(crate) sent: AtomicU64,
    /// Spans that found the queue full.
    pub(crate) dropped: AtomicU64,
    /// Spans of reports that no collector took.
    pub(crate) failed: AtomicU64,
}

/// The queues of one worker, one a collector. A queue that stays empty goes.
#[derive(Debug, Default)]
pub(crate) struct Exporters(RefCell<Vec<Rc<Queue>>>);

#[derive(Debug)]
struct Queue {
    provider: Arc<Provider>,
    spans: RefCell<Vec<Span>>,
    full: Notify,
}

/// Puts a span into the queue of its collector.
pub(super) fn push(worker: &Rc<Worker>, provider: &Arc<Provider>, span: Span) {
    let queue = worker.exporters.queue(worker, provider);
    let mut spans = queue.spans.borrow_mut();
    if spans.len() >= provider.queue_max {
        worker.shared.stats.spans.dropped.fetch_add(1, Relaxed);
        return;
    }
    spans.push(span);
    if spans.len() >= BATCH.min(provider.queue_max) || worker.drain.draining() {
        queue.full.notify_one();
    }
}

impl Exporters {
    fn queue(&self, worker: &Rc<Worker>, provider: &Arc<Provider>) -> Rc<Queue> {
        let mut all = self.0.borrow_mut();
        // Each connection manager has its own copy of the provider.
        let same = |queue: &&Rc<Queue>| Arc::ptr_eq(&queue.provider, provider) || queue.provider == *provider;
        if let Some(queue) = all.iter().find(same) {
            return Rc::clone(queue);
        }
        let queue =
            Rc::new(Queue { provider: Arc::clone(provider), spans: RefCell::default(), full: Notify::new() });
        all.push(Rc::clone(&queue));
        spawn_local(run(Rc::clone(worker), Rc::clone(&queue)));
        queue
    }

    fn forget(&self, queue: &Rc<Queue>) {
        self.0.borrow_mut().retain(|one| !Rc::ptr_eq(one, queue));
    }
}

/// Sends what the queue gathers until nothing comes any more.
async fn run(worker: Rc<Worker>, queue: Rc<Queue>) {
    loop {
        // Both ways lead to the same: whichever comes first.
        let _ = tokio::time::timeout(INTERVAL, queue.full.notified()).await;
        let batch = {
            let mut spans = queue.spans.borrow_mut();
            let count = spans.len().min(BATCH);
            spans.drain(..count).collect::<Vec<_>>()
        };
        if batch.is_empty() {
            worker.exporters.forget(&queue);
            return;
        }
        let count = batch.len() as u64;
        let stats = &worker.shared.stats.spans;
        match send(&worker, &queue.provider, &batch).await {
            Ok(()) => stats.sent.fetch_add(count, Relaxed),
            Err(reason) => {
                tracing::debug!(cluster = %queue.provider.cluster, spans = count, reason, "Spans cannot be reported");
                stats.failed.fetch_add(count, Relaxed)
            }
        };
        if queue.spans.borrow().len() >= BATCH {
            queue.full.notify_one();
        }
    }
}

async fn send(worker: &Worker, provider: &Provider, spans: &[Span]) -> Result<(), String> {
    let node = &worker.shared.node;
    let service = if provider.service_name.is_empty() { &node.cluster } else { &provider.service_name };
    let grpc = provider.protocol == SpanProtocol::OtlpGrpc;
    let (path, kind, body) = match &provider.protocol {
        SpanProtocol::OtlpGrpc => {
            let message = span::encode_otlp(spans, &resource(worker, provider, service));
            (OTLP_PATH, "application/grpc", span::grpc_frame(&message))
        }
        SpanProtocol::OtlpHttp(path) => {
            let message = span::encode_otlp(spans, &resource(worker, provider, service));
            (&**path, "application/x-protobuf", Bytes::from(message))
        }
        SpanProtocol::Zipkin { path, .. } => {
            let message = span::encode_zipkin(spans, service, node.addresses.first().copied());
            (&**path, "application/json", Bytes::from(message))
        }
    };
    let config = worker.shared.config.load_full();
    let callout = Callout {
        worker,
        config: &config,
        cluster: &provider.cluster,
        http2: grpc,
        timeout: provider.timeout,
        body_bytes_max: ANSWER_BYTES_MAX,
        addresses: None,
    };
    let parts = parts(provider, path, kind, body.len()).ok_or("the request cannot be made")?;
    let answer = callout.send(&parts, &body, |_| true).await.map_err(|error| format!("{error:?}"))?;
    if !answer.status().is_success() {
        return Err(format!("status {}", answer.status()));
    }
    match super::grpc::status(&answer.parts.headers) {
        Some(status) if grpc && status != 0 => Err(format!("gRPC status {status}")),
        _ => Ok(()),
    }
}

fn parts(provider: &Provider, path: &str, kind: &'static str, length: usize) -> Option<Parts> {
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::POST;
    parts.uri = path.parse::<Uri>().ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(&provider.authority).ok()?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if provider.protocol == SpanProtocol::OtlpGrpc {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    for (name, value) in &provider.headers {
        headers.append(HeaderName::try_from(&**name).ok()?, HeaderValue::from_str(value).ok()?);
    }
    parts.headers = headers;
    Some(parts)
}

/// What spans say of their producer. Of attributes with one name the first counts.
fn resource(worker: &Worker, provider: &Provider, service: &str) -> Vec<(Box<str>, Box<str>)> {
    let mut all: Vec<(Box<str>, Box<str>)> = vec![("service.name".into(), service.into())];
    let mut add = |key: &str, value: &str| {
        if !all.iter().any(|(known, _)| **known == *key) {
            all.push((key.into(), value.into()));
        }
    };
    provider.resource.iter().for_each(|(key, value)| add(key, value));
    if provider.resource_from_environment {
        let list = worker.shared.node.variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        for (key, value) in list.split(',').filter_map(|pair| pair.split_once('=')) {
            add(key.trim(), value.trim());
        }
    }
    add("telemetry.sdk.name", "mesh-sidecar");
    add("telemetry.sdk.language", "rust");
    add("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    all
}
