//! Prometheus' text format of the standard metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::histogram::{BOUND_LABELS, HistogramValues};
use crate::registry::Shard;

#[derive(Default)]
struct Http {
    grpc: bool,
    requests: u64,
    duration: HistogramValues,
    request_bytes: HistogramValues,
    response_bytes: HistogramValues,
    request_messages: u64,
    response_messages: u64,
}

#[derive(Default)]
struct Tcp {
    opened: u64,
    closed: u64,
    sent: u64,
    received: u64,
}

pub(crate) fn render(shards: &[Arc<Shard>], out: &mut String) {
    http(shards, out);
    tcp(shards, out);
}

fn http(shards: &[Arc<Shard>], out: &mut String) {
    let mut all: BTreeMap<Box<str>, Http> = BTreeMap::new();
    for shard in shards {
        let series: Vec<_> = shard.http.lock().clone();
        for one in series {
            let sum = all.entry(one.labels.clone()).or_default();
            sum.grpc |= one.grpc;
            sum.requests += one.requests.total();
            one.duration.add_to(&mut sum.duration);
            one.request_bytes.add_to(&mut sum.request_bytes);
            one.response_bytes.add_to(&mut sum.response_bytes);
            sum.request_messages += one.request_messages.total();
            sum.response_messages += one.response_messages.total();
        }
    }
    counter(
        out,
        "istio_requests_total",
        "Requests.",
        all.iter().map(|(labels, http)| (&**labels, http.requests)),
    );
    for (name, help, pick) in HISTOGRAMS {
        histogram(out, name, help, all.iter().map(|(labels, http)| (&**labels, pick(http))));
    }
    let grpc = || all.iter().filter(|(_, http)| http.grpc);
    let name = "istio_request_messages_total";
    counter(
        out,
        name,
        "gRPC messages of requests.",
        grpc().map(|(labels, http)| (&**labels, http.request_messages)),
    );
    let name = "istio_response_messages_total";
    counter(
        out,
        name,
        "gRPC messages of responses.",
        grpc().map(|(labels, http)| (&**labels, http.response_messages)),
    );
}

type Pick = fn(&Http) -> &HistogramValues;

const HISTOGRAMS: [(&str, &str, Pick); 3] = [
    ("istio_request_duration_milliseconds", "Duration of requests.", |http| &http.duration),
    ("istio_request_bytes", "Size of request bodies.", |http| &http.request_bytes),
    ("istio_response_bytes", "Size of response bodies.", |http| &http.response_bytes),
];

fn tcp(shards: &[Arc<Shard>], out: &mut String) {
    let mut all: BTreeMap<Box<str>, Tcp> = BTreeMap::new();
    for shard in shards {
        let series: Vec<_> = shard.tcp.lock().clone();
        for one in series {
            let sum = all.entry(one.labels.clone()).or_default();
            sum.opened += one.opened.total();
            sum.closed += one.closed.total();
            sum.sent += one.sent.total();
            sum.received += one.received.total();
        }
    }
    type Pick = fn(&Tcp) -> u64;
    let families: [(&str, &str, Pick); 4] = [
        ("istio_tcp_connections_opened_total", "Connections opened.", |tcp| tcp.opened),
        ("istio_tcp_connections_closed_total", "Connections closed.", |tcp| tcp.closed),
        ("istio_tcp_sent_bytes_total", "Bytes sent to clients.", |tcp| tcp.sent),
        ("istio_tcp_received_bytes_total", "Bytes received from clients.", |tcp| tcp.received),
    ];
    for (name, help, pick) in families {
        counter(out, name, help, all.iter().map(|(labels, tcp)| (&**labels, pick(tcp))));
    }
}

// Writing to a String cannot fail, hence the ignored results below.

fn counter<'a>(out: &mut String, name: &str, help: &str, values: impl Iterator<Item = (&'a str, u64)>) {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
    for (labels, value) in values {
        let _ = writeln!(out, "{name}{{{labels}}} {value}");
    }
}

fn histogram<'a>(
    out: &mut String,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'a str, &'a HistogramValues)>,
) {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (labels, value) in values {
        let mut total = 0;
        for (bound, count) in BOUND_LABELS.iter().zip(value.buckets) {
            total += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        total += value.buckets[BOUND_LABELS.len()];
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
        let (whole, rest) = (value.sum / 1000, value.sum % 1000);
        if rest == 0 {
            let _ = writeln!(out, "{name}_sum{{{labels}}} {whole}");
        } else {
            let _ = writeln!(
                out,
                "{name}_sum{{{labels}}} {}",
                format!("{whole}.{rest:03}").trim_end_matches('0')
            );
        }
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}
