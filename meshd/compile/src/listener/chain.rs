//! Listener filters and filter chain matches.

use policies_xds::listener::{FilterChainMatch, ListenerFilter, listener_filter};
use policies_xds::protobuf::Any;
use policies_xds::{any, http_inspector, original_dst, tls_inspector};

/// HTTP as the inspector of plain text names it.
pub(super) const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];
/// HTTP inside mutual TLS.
pub(super) const MUTUAL_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Bytes inside mutual TLS.
pub(super) const MUTUAL_BYTES: &[&str] = &["istio-peer-exchange", "istio"];
/// Everything inside mutual TLS.
pub(super) const MUTUAL_ANY: &[&str] =
    &["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// A match on transport and application protocol.
pub(super) fn transport(protocol: &str, applications: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: protocol.to_owned(),
        application_protocols: applications.iter().map(|it| (*it).to_owned()).collect(),
        ..Default::default()
    }
}

fn filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        filter_disabled: None,
    }
}

/// Reads where a redirected connection was going.
pub(super) fn original_destination() -> ListenerFilter {
    filter("envoy.filters.listener.original_dst", any(&original_dst::OriginalDst {}))
}

/// Reads server name and ALPN of a TLS client.
pub(super) fn tls_hello() -> ListenerFilter {
    filter("envoy.filters.listener.tls_inspector", any(&tls_inspector::TlsInspector::default()))
}

/// Tells HTTP from other plain text.
pub(super) fn http_detection() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", any(&http_inspector::HttpInspector {}))
}
