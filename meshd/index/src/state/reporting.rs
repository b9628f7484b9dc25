//! `extensionProviders` that take spans and logs, and `defaultProviders`, in Istio's names.

use std::time::Duration;

use meshd_model::provider::{Collector, LogFormat, Provider, ProviderKind};
use serde_json::Value;

/// Providers that are read; more are ignored (Istio's own bound).
const PROVIDERS_MAX: usize = 1000;

/// The providers; what has no name or cannot be used is left out, with a warning.
pub(super) fn read(written: &Value) -> Vec<Provider> {
    let all = written.get("extensionProviders").and_then(Value::as_array).into_iter().flatten();
    all.take(PROVIDERS_MAX).filter_map(provider).collect()
}

/// Names under `defaultProviders`.
pub(super) fn defaults(written: &Value, of: &str) -> Vec<String> {
    let all = written.get("defaultProviders").and_then(|all| all.get(of)).and_then(Value::as_array);
    all.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn provider(written: &Value) -> Option<Provider> {
    let name = written.get("name").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    let kind = kind(written).unwrap_or_else(|| {
        tracing::warn!(
            provider = name,
            "Extension provider is of a kind that is not supported, or has no service and port"
        );
        ProviderKind::Other
    });
    Some(Provider { name: name.to_owned(), kind })
}

fn kind(written: &Value) -> Option<ProviderKind> {
    let of = |key: &str| written.get(key).filter(|value| value.is_object());
    if let Some(zipkin) = of("zipkin") {
        return Some(ProviderKind::Zipkin {
            collector: collector(zipkin)?,
            path: text(zipkin, "path"),
            max_tag_length: number(zipkin, "maxTagLength"),
            narrow_trace_id: flag(zipkin, "enable64bitTraceId"),
            with_w3c: text(zipkin, "traceContextOption") == "USE_B3_WITH_W3C_PROPAGATION",
        });
    }
    if let Some(otel) = of("opentelemetry") {
        let http = otel.get("http");
        let transport = http.or_else(|| otel.get("grpc")).unwrap_or(&Value::Null);
        let headers = if http.is_some() { "headers" } else { "initialMetadata" };
        return Some(ProviderKind::OpenTelemetry {
            collector: collector(otel)?,
            max_tag_length: number(otel, "maxTagLength"),
            http_path: http.map(|http| text(http, "path")),
            timeout: duration(transport, "timeout"),
            headers: pairs(transport.get(headers)),
            environment_detector: otel.pointer("/resourceDetectors/environment").is_some(),
        });
    }
    if let Some(file) = of("envoyFileAccessLog") {
        return Some(ProviderKind::FileAccessLog {
            path: text(file, "path"),
            format: format(file.get("logFormat")),
            omit_empty: flag(file, "omitEmptyValues"),
        });
    }
    let authorizes = ["envoyExtAuthzGrpc", "envoyExtAuthzHttp"].into_iter().any(|key| of(key).is_some());
    if authorizes {
        return Some(ProviderKind::Other);
    }
    written.get("prometheus").map(|_| ProviderKind::Prometheus)
}

fn collector(of: &Value) -> Option<Collector> {
    let port = of.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())?;
    Some(Collector { service: text(of, "service"), port }).filter(|it| !it.service.is_empty() && it.port > 0)
}

fn format(of: Option<&Value>) -> LogFormat {
    let Some(of) = of else { return LogFormat::Default };
    if let Some(labels) = of.get("labels").and_then(Value::as_object) {
        return LogFormat::Json(labels.clone().into_iter().collect());
    }
    match text(of, "text") {
        text if text.is_empty() => LogFormat::Default,
        text => LogFormat::Text(text),
    }
}

fn pairs(list: Option<&Value>) -> Vec<(String, String)> {
    let all = list.and_then(Value::as_array).into_iter().flatten();
    all.map(|one| (text(one, "name"), text(one, "value"))).filter(|(name, _)| !name.is_empty()).collect()
}

fn text(of: &Value, key: &str) -> String {
    of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(of: &Value, key: &str) -> u32 {
    of.get(key).and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

fn flag(of: &Value, key: &str) -> bool {
    of.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn duration(of: &Value, key: &str) -> Option<Duration> {
    base_types::duration::parse(of.get(key)?.as_str()?).ok()
}
