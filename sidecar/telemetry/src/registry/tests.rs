use std::time::Duration;

use super::*;
use crate::flags::{Flag, Flags};
use crate::labels::{GrpcStatus, Reporter, SecurityPolicy, Service, Workload, no_principal};

fn key(host: &str) -> HttpKey {
    HttpKey {
        reporter: Reporter::Source,
        source: Workload::unknown(),
        destination: Arc::new(Workload::from_endpoint([
            "reviews-v1",
            "default",
            "reviews",
            "v1",
            "Kubernetes",
        ])),
        source_principal: no_principal(),
        destination_principal: Arc::from("spiffe://cluster.local/ns/default/sa/bookinfo-reviews"),
        service: Arc::new(Service { host: host.into(), name: "reviews".into(), namespace: "default".into() }),
        protocol: RequestProtocol::Http,
        code: 503,
        grpc: GrpcStatus(None),
        flags: Flags::from(Flag::UpstreamConnectionFailure),
        security: SecurityPolicy::Unknown,
    }
}

#[test]
fn workers_are_added_up_by_labels() {
    let metrics = Metrics::default();
    for _ in 0..2 {
        let worker = metrics.worker();
        let series = worker.http(key("reviews.default.svc.cluster.local"));
        series.record(Duration::from_micros(700), 10, 2000);
        series.record(Duration::from_millis(9), 0, 1);
    }
    let mut text = String::new();
    metrics.render(&mut text);
    let labels = "reporter=\"source\",source_workload=\"unknown\",source_canonical_service=\"unknown\",\
        source_canonical_revision=\"latest\",source_workload_namespace=\"unknown\",source_principal=\"unknown\",\
        source_app=\"unknown\",source_version=\"unknown\",source_cluster=\"unknown\",destination_workload=\"reviews-v1\",\
        destination_canonical_service=\"reviews\",destination_canonical_revision=\"v1\",\
        destination_workload_namespace=\"default\",\
        destination_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-reviews\",destination_app=\"reviews\",\
        destination_version=\"v1\",destination_cluster=\"Kubernetes\",\
        destination_service=\"reviews.default.svc.cluster.local\",destination_service_name=\"reviews\",\
        destination_service_namespace=\"default\",request_protocol=\"http\",response_code=\"503\",\
        grpc_response_status=\"\",response_flags=\"UF\",connection_security_policy=\"unknown\"";
    for line in [
        "# TYPE istio_requests_total counter\n".to_owned(),
        format!("istio_requests_total{{{labels}}} 4\n"),
        format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"0.5\"}} 0\n"),
        format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"1\"}} 2\n"),
        format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"10\"}} 4\n"),
        format!("istio_request_duration_milliseconds_bucket{{{labels},le=\"+Inf\"}} 4\n"),
        format!("istio_request_duration_milliseconds_sum{{{labels}}} 19.4\n"),
        format!("istio_request_duration_milliseconds_count{{{labels}}} 4\n"),
        format!("istio_response_bytes_sum{{{labels}}} 4002\n"),
    ] {
        assert!(text.contains(&line), "{line}\nnot in\n{text}");
    }
}

#[test]
fn series_are_bounded() {
    let metrics = Metrics::default();
    let worker = metrics.worker();
    for host in 0..SERIES_MAX * 3 {
        worker.http(key(&host.to_string())).record(Duration::ZERO, 0, 0);
    }
    assert!(metrics.series() <= SERIES_MAX + 1);
    let mut text = String::new();
    metrics.render(&mut text);
    let overflow = text.lines().find(|line| {
        line.starts_with("istio_requests_total") && line.contains("destination_service=\"overflow\"")
    });
    assert!(overflow.unwrap().ends_with(&format!(" {}", SERIES_MAX * 2)));
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::default();
    metrics.worker().http(key("a\"b\\c\nd")).record(Duration::ZERO, 0, 0);
    let mut text = String::new();
    metrics.render(&mut text);
    assert!(text.contains(r#"destination_service="a\"b\\c\nd""#));
}
