//! External authorization (Envoy's `ext_authz`): a service is asked whether a request may pass. No answer is a no, unless configured.

mod http_service;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::SystemTime;

use base_tls::PeerCertificate;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use serde_json::Value;
use sidecar_external::authz::{self, Changes, Check, Peer, Refusal, Verdict};
use sidecar_external::{HeaderChange, grpc};
use sidecar_http::{Body, headers::is_upgrade};
use sidecar_model::ext_authz::{AuthzService, BodyBuffer, CheckSettings, ExtAuthz, GrpcService};
use sidecar_model::{HeaderAppend, Metadata, StringMatch};
use sidecar_telemetry::trace::REQUEST_ID;

use super::Connection;
use super::callout::Callout;
use super::failure::Failure;
use super::filters::Afterwards;
use super::gathered::Gathered;
use super::record::Record;
use super::reply;
use super::router::view;
use crate::config::Config;

/// Namespace of what a service says about a request.
const METADATA: &str = "envoy.filters.http.ext_authz";
/// On requests that pass without an answer.
const FAILURE_MODE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// Whether the body that is told is only a part.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
/// Longest answer of a service, beyond which it is none.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A request before a service.
pub(super) struct Asking<'a> {
    pub(super) connection: &'a Connection,
    pub(super) config: &'a Config,
    pub(super) filter: &'a ExtAuthz,
    pub(super) settings: Option<&'a CheckSettings>,
}

/// Both ends of the client's connection.
struct Ends<'a> {
    source: Peer<'a>,
    destination: Peer<'a>,
}

/// What is told of the body.
struct Told {
    bytes: Bytes,
    partial: bool,
    buffer: BodyBuffer,
}

impl Asking<'_> {
    /// Judges a request. A yes may change it; a no is the answer to it.
    pub(super) async fn judge(
        &self,
        parts: &mut Parts,
        body: &mut Body,
        record: &mut Record,
        afterwards: &mut Afterwards,
    ) -> Result<(), Response<Body>> {
        let filter = self.filter;
        if !filter.enabled.hit(self.connection.down.worker.random()) {
            return Ok(());
        }
        if let Some(wanted) = &filter.enabled_metadata {
            let none = Metadata::default();
            if !wanted.is_match(record.metadata.as_ref().unwrap_or(&none)) {
                return Ok(());
            }
        }
        let told = self.body(parts, body, record).await?;
        let verdict = match &filter.service {
            AuthzService::Grpc(service) => self.ask_grpc(service, parts, told.as_ref(), record).await,
            AuthzService::Http(service) => http_service::ask(self, service, parts, told.as_ref()).await,
        };
        match verdict {
            Some(Verdict::Allowed(changes)) => {
                afterwards.reroute |= filter.clear_route_cache && !changes.headers.is_empty();
                allow(changes, parts, record, afterwards);
                Ok(())
            }
            Some(Verdict::Denied(refusal)) => Err(self.refuse(refusal, record)),
            None if filter.failure_mode_allow => {
                if filter.failure_mode_allow_header {
                    parts.headers.insert(FAILURE_MODE_ALLOWED, HeaderValue::from_static("true"));
                }
                Ok(())
            }
            None => Err(reply::failed(&Failure::AuthorizationError(filter.status_on_error), record)),
        }
    }

    /// Reads as much of the body as is to be told.
    async fn body(
        &self,
        parts: &Parts,
        body: &mut Body,
        record: &mut Record,
    ) -> Result<Option<Told>, Response<Body>> {
        let settings = self.settings;
        let buffer = settings.and_then(|settings| settings.body).or(self.filter.body);
        let Some(buffer) = buffer.filter(|_| !settings.is_some_and(|settings| settings.without_body)) else {
            return Ok(None);
        };
        if is_upgrade(&parts.headers) {
            return Ok(None);
        }
        let gathered = Gathered::read(body, buffer.bytes_max)
            .await
            .map_err(|_| reply::failed(&Failure::DownstreamBody, record))?;
        let partial = gathered.bytes() > buffer.bytes_max;
        if partial && !buffer.allow_partial {
            return Err(reply::failed(&Failure::BodyTooLong, record));
        }
        Ok(Some(Told { bytes: gathered.first(buffer.bytes_max), partial, buffer }))
    }

    async fn ask_grpc(
        &self,
        service: &GrpcService,
        parts: &Parts,
        told: Option<&Told>,
        record: &Record,
    ) -> Option<Verdict> {
        let down = &self.connection.down;
        let own = down.tls.as_ref().map(|_| down.worker.own_principal());
        let peer = down.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        let certificate = peer.filter(|_| self.filter.include_peer_certificate);
        let certificate = certificate.map(PeerCertificate::url_encoded_pem).unwrap_or_default();
        let ends = Ends {
            source: Peer {
                address: SocketAddr::new(record.remote.ip(), down.peer.port()),
                principal: peer.map_or("", principal),
                certificate: &certificate,
            },
            destination: Peer {
                address: down.local,
                principal: own.as_deref().unwrap_or_default(),
                certificate: "",
            },
        };
        let body = self.check(ends, parts, told, record).encode();
        let callout = self.callout(&service.cluster, true, service.timeout);
        let head = grpc::head(service, authz::METHOD);
        let answer = match callout.send(&head, &body, |_| true).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(cluster = %service.cluster, ?error, "Authorization service gives no answer");
                return None;
            }
        };
        let status = grpc::status(&answer.parts.headers, answer.trailers.as_ref());
        if answer.status() != StatusCode::OK || status != Some(0) {
            tracing::debug!(cluster = %service.cluster, ?status, "Authorization service fails");
            return None;
        }
        match authz::decode(&answer.body) {
            Ok(verdict) => Some(verdict),
            Err(error) => {
                tracing::debug!(cluster = %service.cluster, %error, "Authorization service cannot be understood");
                None
            }
        }
    }

    fn callout<'a>(&'a self, cluster: &'a str, http2: bool, timeout: std::time::Duration) -> Callout<'a> {
        let down = &self.connection.down;
        Callout {
            worker: &down.worker,
            config: self.config,
            cluster,
            http2,
            timeout,
            body_bytes_max: ANSWER_BYTES_MAX,
            addresses: Some((down.local, down.peer)),
        }
    }

    /// What a gRPC service is told.
    fn check<'a>(
        &'a self,
        ends: Ends<'a>,
        parts: &'a Parts,
        told: Option<&'a Told>,
        record: &'a Record,
    ) -> Check<'a> {
        static NONE: BTreeMap<Box<str>, Box<str>> = BTreeMap::new();
        let view = view(parts, record);
        let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let declared = text(&header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let metadata = self
            .filter
            .metadata_namespaces
            .iter()
            .filter_map(|name| Some((&**name, record.metadata.as_ref()?.namespace(name)?)));
        Check {
            source: ends.source,
            destination: ends.destination,
            time: SystemTime::now(),
            id: text(&REQUEST_ID).unwrap_or_default(),
            method: view.method,
            path: view.path,
            host: view.authority,
            scheme: view.scheme,
            protocol: record.protocol(),
            headers: self.told_headers(parts, record, told),
            size: declared
                .or_else(|| told.filter(|told| !told.partial)?.bytes.len().try_into().ok())
                .unwrap_or(-1),
            body: told.map(|told| &*told.bytes),
            body_as_bytes: told.is_some_and(|told| told.buffer.as_bytes),
            extensions: self.settings.map_or(&NONE, |settings| &settings.context_extensions),
            metadata: metadata.collect(),
        }
    }

    /// The headers that may be told, pseudo headers among them, as Envoy has it.
    fn told_headers(&self, parts: &Parts, record: &Record, told: Option<&Told>) -> HashMap<String, String> {
        let view = view(parts, record);
        let (allowed, disallowed) = (&self.filter.allowed_headers, &self.filter.disallowed_headers);
        let may = |name: &str| (allowed.is_empty() || any(allowed, name)) && !any(disallowed, name);
        let mut headers: HashMap<String, String> = [
            (":method", view.method),
            (":path", view.path),
            (":authority", view.authority),
            (":scheme", view.scheme),
        ]
        .into_iter()
        .filter(|(name, _)| may(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        for name in parts.headers.keys().filter(|name| **name != header::HOST && may(name.as_str())) {
            let joined = view.header(&sidecar_model::HeaderKey::Name(name.clone()));
            headers.insert(name.as_str().to_owned(), joined.unwrap_or_default().into_owned());
        }
        if let Some(told) = told {
            headers.insert(PARTIAL_BODY.as_str().to_owned(), told.partial.to_string());
        }
        headers
    }

    fn refuse(&self, mut refusal: Refusal, record: &mut Record) -> Response<Body> {
        if let Some(metadata) = refusal.metadata.take() {
            remember(metadata, record);
        }
        let most = self.filter.denied_body_bytes_max.unwrap_or(usize::MAX);
        refusal.body.truncate(most);
        let mut response = reply::failed(&Failure::AuthorizationDenied(refusal.status), record);
        if !record.grpc {
            *response.body_mut() = Body::full(refusal.body);
        }
        change(&refusal.headers, response.headers_mut());
        for framing in
            [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE]
        {
            response.headers_mut().remove(framing);
        }
        response
    }
}

/// Who a client is: its first URI name, or DNS name, or its subject.
fn principal(peer: &PeerCertificate) -> &str {
    peer.uris.first().or(peer.dns_names.first()).unwrap_or(&peer.subject)
}

fn remember(metadata: Value, record: &mut Record) {
    if let Value::Object(fields) = metadata {
        record.metadata.get_or_insert_default().extend(METADATA, fields);
    }
}

fn any(matchers: &[StringMatch], name: &str) -> bool {
    matchers.iter().any(|matcher| matcher.is_match(name))
}

/// Makes a request what a yes says it is.
fn allow(changes: Changes, parts: &mut Parts, record: &mut Record, afterwards: &mut Afterwards) {
    change(&changes.headers, &mut parts.headers);
    for name in &changes.headers_to_remove {
        parts.headers.remove(name);
    }
    if !changes.query_to_set.is_empty() || !changes.query_to_remove.is_empty() {
        requery(parts, &changes);
    }
    afterwards.changes.extend(changes.response_headers);
    if let Some(metadata) = changes.metadata {
        remember(metadata, record);
    }
}

/// Applies header changes in their order.
pub(super) fn change(changes: &[HeaderChange], headers: &mut HeaderMap) {
    for change in changes {
        let exists = headers.contains_key(&change.name);
        match change.append {
            HeaderAppend::AppendOrAdd if change.name != header::HOST => {
                headers.append(&change.name, change.value.clone());
            }
            HeaderAppend::AddIfAbsent if exists => {}
            HeaderAppend::OverwriteIfExists if !exists => {}
            // A second host would be another request.
            _ => {
                headers.insert(&change.name, change.value.clone());
            }
        }
    }
}

fn requery(parts: &mut Parts, changes: &Changes) {
    let Some(target) = parts.uri.path_and_query() else { return };
    let key = |pair: &str| pair.split_once('=').map_or(pair, |(key, _)| key).to_owned();
    let goes = |pair: &&str| {
        let key = key(pair);
        !changes.query_to_remove.contains(&key) && !changes.query_to_set.iter().any(|(name, _)| *name == key)
    };
    let kept = target.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).filter(goes);
    let mut query: Vec<String> = kept.map(str::to_owned).collect();
    let set = changes.query_to_set.iter();
    query.extend(set.map(|(name, value)| format!("{}={}", escaped(name), escaped(value))));
    let whole = if query.is_empty() {
        target.path().to_owned()
    } else {
        format!("{}?{}", target.path(), query.join("&"))
    };
    if let Ok(target) = PathAndQuery::try_from(whole) {
        parts.uri = Uri::from(target);
    }
}

/// What a service says is data: it may not end a parameter, or the query.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$'()*,;:@/?".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
