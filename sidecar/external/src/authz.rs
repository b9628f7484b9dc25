//! `envoy.service.auth.v3.Authorization/Check`.

#![expect(deprecated, reason = "services still answer with the older fields")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use policies_xds::auth_service::attribute_context::{HttpRequest, Peer as PeerMessage, Request};
use policies_xds::auth_service::check_response::HttpResponse;
use policies_xds::auth_service::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use policies_xds::core::header_value_option::HeaderAppendAction;
use policies_xds::core::socket_address::PortSpecifier;
use policies_xds::core::{self, HeaderValueOption, SocketAddress, address};
use policies_xds::protobuf::Timestamp;
use serde_json::Value;
use sidecar_model::HeaderAppend;

use crate::{AnswerError, HeaderChange, grpc, structure};

/// What is called.
pub const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// One end of the client's connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// Its identity; empty: none.
    pub principal: &'a str,
    /// Its certificate, PEM in URL encoding; empty: not told.
    pub certificate: &'a str,
}

/// A request that is asked about.
#[derive(Debug)]
pub struct Check<'a> {
    /// The client.
    pub source: Peer<'a>,
    /// Ourselves.
    pub destination: Peer<'a>,
    /// When the request came.
    pub time: SystemTime,
    /// Its identifier.
    pub id: &'a str,
    /// `GET` and so on.
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// The host.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `HTTP/1.1` and so on.
    pub protocol: &'a str,
    /// Headers, lower case, values of one name joined.
    pub headers: HashMap<String, String>,
    /// Bytes of the body; -1: not known.
    pub size: i64,
    /// What was read of the body.
    pub body: Option<&'a [u8]>,
    /// The body is told as bytes.
    pub body_as_bytes: bool,
    /// What the route tells.
    pub extensions: &'a BTreeMap<Box<str>, Box<str>>,
    /// Metadata that is told, by namespace.
    pub metadata: Vec<(&'a str, &'a Value)>,
}

/// What a service said.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The request may pass, changed so.
    Allowed(Changes),
    /// It may not; this is the answer.
    Denied(Refusal),
}

/// What becomes of a request that may pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Headers of the request that are changed.
    pub headers: Vec<HeaderChange>,
    /// Headers of the request that are removed, after the changes.
    pub headers_to_remove: Vec<HeaderName>,
    /// Headers of the response.
    pub response_headers: Vec<HeaderChange>,
    /// Query parameters that are set.
    pub query_to_set: Vec<(String, String)>,
    /// Query parameters that are removed.
    pub query_to_remove: Vec<String>,
    /// Metadata about the request.
    pub metadata: Option<Value>,
}

/// The answer to a request that may not pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Vec<HeaderChange>,
    /// Its body.
    pub body: Bytes,
    /// Metadata about the request.
    pub metadata: Option<Value>,
}

impl Check<'_> {
    /// The body of the call.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        };
        let raw = self.body.filter(|_| self.body_as_bytes);
        let text = self.body.filter(|_| !self.body_as_bytes);
        let http = HttpRequest {
            id: self.id.to_owned(),
            method: self.method.to_owned(),
            headers: self.headers,
            path: self.path.to_owned(),
            host: self.host.to_owned(),
            scheme: self.scheme.to_owned(),
            protocol: self.protocol.to_owned(),
            size: self.size,
            body: text.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default(),
            raw_body: raw.map(<[u8]>::to_vec).unwrap_or_default(),
            ..Default::default()
        };
        let metadata = core::Metadata {
            filter_metadata: self
                .metadata
                .iter()
                .filter_map(|(name, value)| {
                    Some(((*name).to_owned(), structure::to_struct(value.as_object()?)))
                })
                .collect(),
            ..Default::default()
        };
        let attributes = AttributeContext {
            source: Some(self.source.message()),
            destination: Some(self.destination.message()),
            request: Some(Request { time: Some(time), http: Some(http) }),
            context_extensions: self.extensions.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            metadata_context: Some(metadata),
            ..Default::default()
        };
        grpc::frame(&CheckRequest { attributes: Some(attributes) })
    }
}

impl Peer<'_> {
    fn message(self) -> PeerMessage {
        let socket = SocketAddress {
            address: self.address.ip().to_canonical().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(self.address.port().into())),
            ..Default::default()
        };
        PeerMessage {
            address: Some(core::Address { address: Some(address::Address::SocketAddress(socket)) }),
            principal: self.principal.to_owned(),
            certificate: self.certificate.to_owned(),
            ..Default::default()
        }
    }
}

/// Reads the answer of a call that gRPC calls a success.
///
/// # Errors
/// When it says nothing clear: then there is no verdict at all, and whoever asked must not take it for a yes.
pub fn decode(body: &[u8]) -> Result<Verdict, AnswerError> {
    let message: CheckResponse = grpc::unframe(body)?;
    let status = message.status.as_ref().ok_or(AnswerError::NoVerdict)?;
    let metadata = message.dynamic_metadata.as_ref().map(structure::to_json);
    match (status.code, &message.http_response) {
        (0, Some(HttpResponse::DeniedResponse(_))) => Err(AnswerError::NoVerdict),
        (0, Some(HttpResponse::OkResponse(ok))) => allowed(ok, metadata).map(Verdict::Allowed),
        (0, _) => Ok(Verdict::Allowed(Changes { metadata, ..Changes::default() })),
        (_, Some(HttpResponse::DeniedResponse(denied))) => refused(denied, metadata).map(Verdict::Denied),
        (_, Some(HttpResponse::ErrorResponse(_))) => Err(AnswerError::NoVerdict),
        (_, _) => {
            Ok(Verdict::Denied(Refusal { status: StatusCode::FORBIDDEN, metadata, ..Refusal::default() }))
        }
    }
}

fn allowed(message: &OkHttpResponse, metadata: Option<Value>) -> Result<Changes, AnswerError> {
    let names = message.headers_to_remove.iter();
    // What makes a request is never removed.
    let names = names.filter(|name| !name.starts_with(':') && !name.eq_ignore_ascii_case("host"));
    Ok(Changes {
        headers: changes(&message.headers)?,
        headers_to_remove: names
            .map(|name| name.parse().map_err(|_| AnswerError::Header(name.clone())))
            .collect::<Result<_, _>>()?,
        response_headers: changes(&message.response_headers_to_add)?,
        query_to_set: message
            .query_parameters_to_set
            .iter()
            .map(|parameter| (parameter.key.clone(), parameter.value.clone()))
            .collect(),
        query_to_remove: message.query_parameters_to_remove.clone(),
        metadata: metadata.or_else(|| message.dynamic_metadata.as_ref().map(structure::to_json)),
    })
}

fn refused(message: &DeniedHttpResponse, metadata: Option<Value>) -> Result<Refusal, AnswerError> {
    let status = match message.status.as_ref().map(|status| status.code) {
        None | Some(0) => StatusCode::FORBIDDEN,
        // A refusal is an answer of its own: 1xx cannot be one.
        Some(code) => u16::try_from(code)
            .ok()
            .filter(|code| (200..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(AnswerError::Status(code))?,
    };
    Ok(Refusal {
        status,
        headers: changes(&message.headers)?,
        body: message.body.clone().into_bytes().into(),
        metadata,
    })
}

/// Headers that an answer sets. What would break a message makes the answer unusable.
pub(crate) fn changes(messages: &[HeaderValueOption]) -> Result<Vec<HeaderChange>, AnswerError> {
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        let Some(header) = &message.header else { continue };
        let invalid = || AnswerError::Header(header.key.clone());
        let name = if header.key.eq_ignore_ascii_case(":authority") { "host" } else { &header.key };
        let name: HeaderName = name.parse().map_err(|_| invalid())?;
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        let value = HeaderValue::from_bytes(value).map_err(|_| invalid())?;
        let append = match (&message.append, HeaderAppendAction::try_from(message.append_action)) {
            (Some(append), _) if append.value => HeaderAppend::AppendOrAdd,
            (Some(_), _) => HeaderAppend::OverwriteOrAdd,
            (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => HeaderAppend::AppendOrAdd,
            (None, Ok(HeaderAppendAction::AddIfAbsent)) => HeaderAppend::AddIfAbsent,
            (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => HeaderAppend::OverwriteOrAdd,
            (None, Ok(HeaderAppendAction::OverwriteIfExists)) => HeaderAppend::OverwriteIfExists,
            (None, Err(_)) => return Err(invalid()),
        };
        all.push(HeaderChange { name, value, append });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies_xds::rpc::Status;
    use policies_xds::types::HttpStatus;

    fn answer(code: i32, response: Option<HttpResponse>) -> Bytes {
        let status = Some(Status { code, ..Default::default() });
        grpc::frame(&CheckResponse { status, http_response: response, ..Default::default() })
    }

    fn header(key: &str, value: &str) -> HeaderValueOption {
        let header = core::HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
        HeaderValueOption { header: Some(header), ..Default::default() }
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        assert_eq!(decode(&answer(0, None)), Ok(Verdict::Allowed(Changes::default())));
        let denied = |code| {
            let status = Some(HttpStatus { code });
            Some(HttpResponse::DeniedResponse(DeniedHttpResponse { status, ..Default::default() }))
        };
        let ok = |headers| Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..Default::default() }));
        for (body, error) in [
            (grpc::frame(&CheckResponse::default()), AnswerError::NoVerdict),
            (answer(0, denied(403)), AnswerError::NoVerdict),
            (answer(7, denied(99)), AnswerError::Status(99)),
            (answer(7, denied(100)), AnswerError::Status(100)),
            (answer(0, ok(vec![header("x y", "1")])), AnswerError::Header("x y".into())),
            (answer(0, ok(vec![header("x", "1\r\ny: 2")])), AnswerError::Header("x".into())),
            (answer(0, ok(vec![header(":path", "/admin")])), AnswerError::Header(":path".into())),
        ] {
            assert_eq!(decode(&body), Err(error));
        }
        let status = |body: &Bytes| match decode(body) {
            Ok(Verdict::Denied(refusal)) => refusal.status.as_u16(),
            other => panic!("{other:?}"),
        };
        assert_eq!(status(&answer(7, None)), 403);
        assert_eq!(status(&answer(16, denied(401))), 401);
        assert_eq!(status(&answer(7, ok(vec![]))), 403, "a no stays a no whatever comes with it");
    }

    #[test]
    fn what_makes_a_request_is_never_removed() {
        let remove = ["host", ":path", ":method", "Host", "x-secret"].map(str::to_owned).to_vec();
        let ok = OkHttpResponse { headers_to_remove: remove, ..Default::default() };
        let Ok(Verdict::Allowed(changes)) = decode(&answer(0, Some(HttpResponse::OkResponse(ok)))) else {
            panic!("no")
        };
        assert_eq!(changes.headers_to_remove, ["x-secret"]);
    }
}
