//! `Telemetry` objects and the mesh's providers, as sidecars understand what comes of them.

use std::sync::Arc;

use sidecar_model::access_log::{LogFilter, LogFormat, LogSink};
use sidecar_model::filter_chain::Terminal;
use sidecar_model::listener::Direction;
use sidecar_model::tracing::{SpanProtocol, TagSource};
use sidecar_model::{HttpConnectionManager, Snapshot};

use crate::World;

const MESH: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: mesh-system}
data:
  mesh: |
    defaultConfig: {meshId: m1}
    extensionProviders:
    - name: otel
      opentelemetry: {service: ratings.default.svc.cluster.local, port: 9080, maxTagLength: 64}
    - name: zip
      zipkin: {service: default/details.default.svc.cluster.local, port: 9080}
    - name: nowhere
      zipkin: {service: nowhere.example, port: 9411}
    - name: lines
      envoyFileAccessLog: {path: /dev/stderr, logFormat: {labels: {code: "%RESPONSE_CODE%"}}, omitEmptyValues: true}
"#;

/// The connection managers of one direction.
fn managers(snapshot: &Snapshot, direction: Direction) -> Vec<Arc<HttpConnectionManager>> {
    let listeners = snapshot.listeners.values().filter(|listener| listener.direction == direction);
    let chains =
        listeners.flat_map(|listener| listener.filter_chains.iter().chain(&listener.default_filter_chain));
    let found: Vec<_> = chains
        .filter_map(|chain| match &chain.terminal {
            Terminal::Http(hcm) => Some(Arc::clone(hcm)),
            Terminal::Tcp(_) => None,
        })
        .collect();
    assert!(!found.is_empty());
    found
}

fn world(telemetry: &str) -> World {
    let mut world = World::bookinfo();
    world.apply(MESH);
    world.apply(&format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: t, namespace: mesh-system}}\nspec:\n{telemetry}"
    ));
    world
}

#[test]
fn tracing_is_compiled_as_istio_does() {
    let mut world = world(
        "  tracing:\n  - providers: [{name: otel}]\n    randomSamplingPercentage: 37.5\n    customTags:\n      \
         team: {literal: {value: blue}}\n      user: {header: {name: x-user, defaultValue: none}}\n",
    );
    let snapshot = world.sidecar("default/reviews-v1");
    for direction in [Direction::Inbound, Direction::Outbound] {
        for hcm in managers(&snapshot, direction) {
            let tracing = hcm.tracing.as_ref().unwrap();
            assert_eq!((tracing.random_sampling.per_million, tracing.path_tag_bytes_max), (375_000, 64));
            let provider = tracing.provider.as_ref().unwrap();
            assert_eq!(provider.protocol, SpanProtocol::OtlpGrpc);
            assert_eq!(&*provider.cluster, "outbound|9080||ratings.default.svc.cluster.local");
            assert_eq!(&*provider.service_name, "reviews.default");
            let names: Vec<&str> = tracing.custom_tags.iter().map(|tag| &*tag.name).collect();
            assert_eq!(
                names,
                [
                    "istio.canonical_revision",
                    "istio.canonical_service",
                    "istio.cluster_id",
                    "istio.mesh_id",
                    "istio.namespace",
                    "team",
                    "user"
                ]
            );
            assert_eq!(tracing.custom_tags[3].source, TagSource::Literal("m1".into()));
        }
    }
}

#[test]
fn sides_and_providers_are_told_apart() {
    let mut world = world(
        "  tracing:\n  - {match: {mode: CLIENT}, providers: [{name: zip}]}\n  \
         - {match: {mode: SERVER}, providers: [{name: nowhere}], enableIstioTags: false}\n",
    );
    let snapshot = world.sidecar("default/reviews-v1");
    for hcm in managers(&snapshot, Direction::Outbound) {
        let provider = hcm.tracing.as_ref().unwrap().provider.clone().unwrap();
        let path = "/api/v2/spans".into();
        assert_eq!(provider.protocol, SpanProtocol::Zipkin { path, wide: true, shared: false });
    }
    for hcm in managers(&snapshot, Direction::Inbound) {
        let tracing = hcm.tracing.as_ref().unwrap();
        assert_eq!(
            (&tracing.provider, tracing.custom_tags.len()),
            (&None, 0),
            "a service that is not there takes no spans"
        );
    }
    let mut off = self::world("  tracing:\n  - {providers: [{name: zip}], disableSpanReporting: true}\n");
    let snapshot = off.sidecar("default/reviews-v1");
    assert!(managers(&snapshot, Direction::Outbound).iter().all(|hcm| hcm.tracing.is_none()));
}

#[test]
fn access_logs_have_providers_formats_and_filters() {
    let mut world = world(
        "  accessLogging:\n  - providers: [{name: lines}, {name: envoy}]\n    filter: {expression: response.code >= 400}\n",
    );
    let snapshot = world.sidecar("default/reviews-v1");
    for hcm in managers(&snapshot, Direction::Outbound) {
        let [lines, envoy] = &hcm.access_log[..] else { panic!("{:?}", hcm.access_log) };
        assert_eq!((&lines.sink, lines.omit_empty_values), (&LogSink::Stderr, true));
        assert!(matches!(&lines.format, LogFormat::Json(fields) if fields["code"] == "%RESPONSE_CODE%"));
        assert!(matches!(&envoy.format, LogFormat::Text(text) if text.contains("%UPSTREAM_CLUSTER_RAW%")));
        for log in [lines, envoy] {
            assert!(
                matches!(&log.filter, Some(LogFilter::Expression(it)) if it.as_str() == "response.code >= 400")
            );
        }
    }
}
