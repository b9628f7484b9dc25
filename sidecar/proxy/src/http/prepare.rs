//! What every request goes through before its route is looked for: path form, who the client is, which headers it may bring.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base_tls::PeerCertificate;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use sidecar_http::Body;
use sidecar_model::HttpConnectionManager;
use sidecar_model::hcm::{ClientCertDetails, ForwardClientCert};
use sidecar_model::listener::Direction;
use sidecar_telemetry::peer::{PEER_METADATA, PEER_METADATA_ID};
use sidecar_telemetry::trace::{REQUEST_ID, new_request_id};

use super::Connection;
use super::failure::Failure;
use super::normalize::{self, Normalized};
use super::record::Record;
use super::reply;

/// `x-forwarded-for`
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-forwarded-client-cert`
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// `x-envoy-external-address`
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
/// `x-envoy-decorator-operation`
pub(super) const DECORATOR: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// What only requests from inside may say. No address counts as inside unless it is configured so, which is not offered here: Envoy's
/// default since 1.33 (`explicit_internal_address_config`).
const INTERNAL_ONLY: [HeaderName; 14] = [
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
];
/// What else no client may say at the edge.
const EDGE_ONLY: [HeaderName; 5] = [
    DECORATOR,
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-original-host"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
];

/// Brings a request into the form that filters and routes see; or answers it at once.
#[expect(clippy::result_large_err, reason = "the answer is passed on, not propagated through layers")]
pub(super) fn prepare(
    connection: &Connection,
    hcm: &HttpConnectionManager,
    parts: &mut Parts,
    record: &mut Record,
) -> Result<(), Response<Body>> {
    if parts.version == Version::HTTP_10 {
        old_version(hcm, &mut parts.headers).map_err(|failure| reply::failed(&failure, record))?;
    }
    match normalize::target(&parts.uri, hcm) {
        Normalized::Same => {}
        Normalized::New(uri) => parts.uri = uri,
        Normalized::Refused => return Err(reply::failed(&Failure::PathNormalization, record)),
        // gRPC knows no redirects.
        Normalized::Redirect(_) if record.grpc => {
            return Err(reply::failed(&Failure::PathNormalization, record));
        }
        Normalized::Redirect(uri) => {
            let mut response = reply::text(StatusCode::TEMPORARY_REDIRECT, "");
            if let Ok(location) = HeaderValue::try_from(uri.to_string()) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            record.details = "path_normalization_redirect".into();
            return Err(response);
        }
    }
    let down = &connection.down;
    let headers = &mut parts.headers;
    host(hcm, headers, record);
    if hcm.use_remote_address {
        edge(hcm, headers, record, down.peer.ip());
    } else if let Some(client) = last_forwarded(headers, hcm.xff_num_trusted_hops as usize) {
        record.remote = SocketAddr::new(client, 0);
    }
    if headers.keys().any(|name| name.as_str().starts_with("x-envoy-")) {
        for name in INTERNAL_ONLY {
            headers.remove(name);
        }
    }
    if !hcm.via.is_empty() {
        append(headers, &header::VIA, ", ", &hcm.via);
    }
    forwarded_proto(hcm, headers, record);
    client_certificate(connection, hcm, headers);
    if hcm.generate_request_id && !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, down.worker.with_rng(new_request_id));
    }
    if down.listener.listener.direction == Direction::Inbound {
        if let Some(metadata) = headers.remove(PEER_METADATA) {
            record.source = Some(connection.peer(&metadata));
        }
        record.wants_metadata = headers.remove(PEER_METADATA_ID).is_some();
    }
    Ok(())
}

/// HTTP/1.0 is served where it is asked for, and then needs no host of its own.
fn old_version(hcm: &HttpConnectionManager, headers: &mut HeaderMap) -> Result<(), Failure> {
    if !hcm.http1.accept_http_10 {
        return Err(Failure::OldVersion);
    }
    if !headers.contains_key(header::HOST) {
        let host = Some(&*hcm.http10_host).filter(|host| !host.is_empty());
        let host = host.and_then(|host| HeaderValue::from_str(host).ok()).ok_or(Failure::MissingHost)?;
        headers.insert(header::HOST, host);
    }
    Ok(())
}

/// The host without what the connection manager takes off it: a dot at the end of its name, its port.
fn host(hcm: &HttpConnectionManager, headers: &mut HeaderMap, record: &mut Record) {
    if !hcm.strip_trailing_host_dot && !hcm.strip_port_from_host {
        return;
    }
    let Some(text) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return };
    let name = sidecar_route::without_port(text);
    let port = if hcm.strip_port_from_host { "" } else { &text[name.len()..] };
    let bare = if hcm.strip_trailing_host_dot { name.strip_suffix('.').unwrap_or(name) } else { name };
    if bare.len() + port.len() == text.len() {
        return;
    }
    if let Ok(host) = HeaderValue::try_from(format!("{bare}{port}")) {
        headers.insert(header::HOST, host.clone());
        record.authority = host;
    }
}

/// At the edge of the mesh nothing that a client says about itself is believed.
fn edge(hcm: &HttpConnectionManager, headers: &mut HeaderMap, record: &mut Record, peer: IpAddr) {
    for name in EDGE_ONLY {
        headers.remove(name);
    }
    if hcm.generate_request_id && !hcm.preserve_external_request_id {
        headers.remove(REQUEST_ID);
    }
    let client = if hcm.xff_num_trusted_hops == 0 {
        peer.to_canonical()
    } else {
        let hops = hcm.xff_num_trusted_hops as usize - 1;
        last_forwarded(headers, hops).unwrap_or_else(|| peer.to_canonical())
    };
    if client != peer.to_canonical() {
        record.remote = SocketAddr::new(client, 0);
    }
    if let Ok(value) = HeaderValue::try_from(client.to_string()) {
        headers.insert(EXTERNAL_ADDRESS, value);
    }
    if !hcm.skip_xff_append {
        append(headers, &FORWARDED_FOR, ",", &peer.to_canonical().to_string());
    }
    if hcm.xff_num_trusted_hops == 0 {
        headers.remove(FORWARDED_PROTO);
    }
}

fn forwarded_proto(hcm: &HttpConnectionManager, headers: &mut HeaderMap, record: &mut Record) {
    match headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") => record.scheme = "https",
        Some(b"http") => record.scheme = "http",
        // It stays as it is, but it is no scheme.
        Some(_) => {}
        None => {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(record.scheme));
        }
    }
    match hcm.scheme_override.as_deref() {
        Some("https") => record.scheme = "https",
        Some("http") => record.scheme = "http",
        _ => {}
    }
}

/// The address `skip` places before the last of `x-forwarded-for`.
fn last_forwarded(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let all = headers.get_all(FORWARDED_FOR);
    let mut addresses: Vec<&str> = Vec::new();
    for value in all {
        addresses.extend(value.to_str().ok()?.split(',').map(str::trim));
    }
    addresses.iter().rev().nth(skip)?.parse().ok()
}

/// Appends to a list in one header; its values are joined.
pub(super) fn append(headers: &mut HeaderMap, name: &HeaderName, separator: &str, text: &str) {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let joined = values.collect::<Vec<_>>().join(separator);
    let whole = if joined.is_empty() { text.to_owned() } else { format!("{joined}{separator}{text}") };
    if let Ok(value) = HeaderValue::try_from(whole) {
        headers.insert(name, value);
    }
}

/// `x-forwarded-client-cert`, as the connection manager wants it.
fn client_certificate(connection: &Connection, hcm: &HttpConnectionManager, headers: &mut HeaderMap) {
    let down = &connection.down;
    let peer = down.tls.as_ref().and_then(|tls| tls.peer.as_ref());
    match (hcm.forward_client_cert, peer) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => return,
        (ForwardClientCert::AppendForward, Some(_)) => {}
        _ => {
            headers.remove(FORWARDED_CLIENT_CERT);
        }
    }
    let appends =
        matches!(hcm.forward_client_cert, ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet);
    let (true, Some(peer)) = (appends, peer) else { return };
    let own = down.worker.own_principal();
    let mut known = connection.client_certificate.borrow_mut();
    if known.as_ref().is_none_or(|(by, _)| !Arc::ptr_eq(by, &own)) {
        let text = element(&own, peer, hcm.client_cert_details);
        *known = Some((own, text));
    }
    let Some((_, element)) = &*known else { return };
    append(headers, &FORWARDED_CLIENT_CERT, ",", element);
}

/// What this hop says of the client's certificate. It is the same for every request of a connection, so it is made once.
fn element(own: &str, peer: &PeerCertificate, wanted: ClientCertDetails) -> String {
    let mut element = String::new();
    if !own.is_empty() {
        element.push_str(&format!("By={own};"));
    }
    element.push_str(&format!("Hash={}", peer.sha256_hex()));
    if wanted.subject {
        element.push_str(&format!(";Subject=\"{}\"", peer.subject.replace('"', "\\\"")));
    }
    if wanted.uri {
        element.push_str(&format!(";URI={}", peer.uris.first().map_or("", |uri| uri)));
    }
    if wanted.dns {
        for name in &peer.dns_names {
            element.push_str(&format!(";DNS={name}"));
        }
    }
    element
}
