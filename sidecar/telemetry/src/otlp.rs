//! Spans as OpenTelemetry's `ExportTraceServiceRequest`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::span::{Span, SpanKind, nanos};
use crate::wire::{put_bytes, put_fixed32, put_fixed64, put_message, put_number, put_text};

/// `SpanKind`
const KIND_SERVER: u64 = 2;
const KIND_CLIENT: u64 = 3;
/// `StatusCode`
const STATUS_ERROR: u64 = 2;

/// The request with `spans` of one producer.
pub fn encode(spans: &[Span], resource: &[(Box<str>, Box<str>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 * spans.len() + 256);
    put_message(&mut out, 1, |resource_spans| {
        put_message(resource_spans, 1, |out| {
            resource.iter().for_each(|(key, value)| attribute(out, 1, key, value));
        });
        put_message(resource_spans, 2, |scope_spans| {
            put_message(scope_spans, 1, |scope| {
                put_text(scope, 1, "mesh-sidecar");
                put_text(scope, 2, env!("CARGO_PKG_VERSION"));
            });
            for one in spans {
                put_message(scope_spans, 2, |out| span(out, one));
            }
        });
    });
    out
}

fn span(out: &mut Vec<u8>, span: &Span) {
    put_bytes(out, 1, &span.context.trace_id);
    put_bytes(out, 2, &span.context.span_id);
    put_text(out, 3, &span.state);
    if let Some(parent) = span.parent {
        put_bytes(out, 4, &parent);
    }
    put_text(out, 5, &span.name);
    put_number(out, 6, if span.kind == SpanKind::Server { KIND_SERVER } else { KIND_CLIENT });
    put_fixed64(out, 7, nanos(span.start));
    put_fixed64(out, 8, nanos(span.start + span.duration));
    for (key, value) in &span.tags {
        attribute(out, 9, key, value);
    }
    if span.failed {
        put_message(out, 15, |status| put_number(status, 3, STATUS_ERROR));
    }
    put_fixed32(out, 16, 1);
}

/// A `KeyValue` with a text.
pub(crate) fn attribute(out: &mut Vec<u8>, field: u8, key: &str, value: &str) {
    put_message(out, field, |pair| {
        put_text(pair, 1, key);
        put_message(pair, 2, |any| put_bytes(any, 1, value.as_bytes()));
    });
}

/// A message as gRPC frames it: not compressed, its length in front.
pub fn grpc_frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}
