//! Spans as Zipkin's JSON, version 2.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::span::{Hex, Span, SpanKind, nanos};

/// A list of `spans` of one producer.
pub fn encode(spans: &[Span], service: &str, address: Option<IpAddr>) -> Vec<u8> {
    let all: Vec<Value> = spans.iter().map(|one| span(one, service, address)).collect();
    Value::Array(all).to_string().into_bytes()
}

fn span(span: &Span, service: &str, address: Option<IpAddr>) -> Value {
    let tags: Map<String, Value> =
        span.tags.iter().map(|(key, value)| (key.to_string(), value.as_str().into())).collect();
    let mut endpoint = json!({ "serviceName": service });
    if let Some(address) = address {
        endpoint[if address.is_ipv4() { "ipv4" } else { "ipv6" }] = address.to_string().into();
    }
    let mut json = json!({
        "traceId": Hex(span.context.trace_text()).to_string(),
        "id": Hex(&span.context.span_id).to_string(),
        "kind": if span.kind == SpanKind::Server { "SERVER" } else { "CLIENT" },
        "name": span.name,
        "timestamp": nanos(span.start) / 1000,
        // Zipkin takes 0 for a span without an end.
        "duration": span.duration.as_micros().max(1) as u64,
        "localEndpoint": endpoint,
        "tags": tags,
    });
    if let Some(parent) = span.parent {
        json["parentId"] = Hex(&parent).to_string().into();
    }
    if span.shared {
        json["shared"] = true.into();
    }
    json
}
