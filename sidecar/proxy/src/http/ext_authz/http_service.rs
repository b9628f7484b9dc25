//! An authorization service that is asked over plain HTTP: the request's own head is sent to it, and its status is the verdict.

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use serde_json::{Map, Value};
use sidecar_external::HeaderChange;
use sidecar_external::authz::{Changes, Refusal, Verdict};
use sidecar_model::ext_authz::HttpAuthz;
use sidecar_model::{HeaderAppend, StringMatch};

use super::{Asking, PARTIAL_BODY, Told, any};
use crate::http::callout::Answered;

/// Headers that a yes asks to be removed from the request.
const HEADERS_TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
/// What a refusal's client is told whatever the list of headers says.
const ALWAYS_TOLD: [HeaderName; 3] = [header::CONTENT_LENGTH, header::WWW_AUTHENTICATE, header::LOCATION];

/// Asks; none when there is no answer.
pub(super) async fn ask(
    asking: &Asking<'_>,
    service: &HttpAuthz,
    parts: &Parts,
    told: Option<&Told>,
) -> Option<Verdict> {
    let head = head(service, parts, told)?;
    let body = told.map(|told| told.bytes.clone()).unwrap_or_default();
    let callout = asking.callout(&service.cluster, false, service.timeout);
    match callout.send(&head, &body, |_| true).await {
        Ok(answer) if answer.status().is_server_error() => {
            tracing::debug!(cluster = %service.cluster, status = %answer.status(), "Authorization service fails");
            None
        }
        Ok(answer) if answer.status() == StatusCode::OK => Some(Verdict::Allowed(allowed(service, &answer))),
        Ok(answer) => Some(Verdict::Denied(refused(service, answer))),
        Err(error) => {
            tracing::debug!(cluster = %service.cluster, ?error, "Authorization service gives no answer");
            None
        }
    }
}

fn head(service: &HttpAuthz, parts: &Parts, told: Option<&Told>) -> Option<Parts> {
    let mut head = Request::new(()).into_parts().0;
    head.method = parts.method.clone();
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    head.uri = Uri::from(PathAndQuery::try_from(format!("{}{path}", service.path_prefix)).ok()?);
    let always = |name: &HeaderName| *name == header::HOST || *name == header::AUTHORIZATION;
    for (name, value) in &parts.headers {
        // Its own body has its own length.
        if *name != header::CONTENT_LENGTH && (always(name) || any(&service.allowed_headers, name.as_str())) {
            head.headers.append(name, value.clone());
        }
    }
    let length = told.map_or(0, |told| told.bytes.len());
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(told) = told {
        let partial = if told.partial { "true" } else { "false" };
        head.headers.insert(PARTIAL_BODY, HeaderValue::from_static(partial));
    }
    for (name, value) in &service.headers_to_add {
        head.headers.insert(name, value.clone());
    }
    Some(head)
}

fn allowed(service: &HttpAuthz, answer: &Answered) -> Changes {
    let headers = &answer.parts.headers;
    let mut changes = Changes::default();
    collect(headers, &service.upstream_headers, HeaderAppend::OverwriteOrAdd, &mut changes.headers);
    collect(headers, &service.upstream_headers_to_append, HeaderAppend::AppendOrAdd, &mut changes.headers);
    let success = &service.client_headers_on_success;
    collect(headers, success, HeaderAppend::AppendOrAdd, &mut changes.response_headers);
    for list in headers.get_all(HEADERS_TO_REMOVE) {
        let names = list.to_str().unwrap_or_default().split(',').map(str::trim);
        let names = names.filter_map(|name| name.parse::<HeaderName>().ok());
        changes.headers_to_remove.extend(names.filter(|name| *name != header::HOST));
    }
    let told = headers.iter().filter(|(name, _)| any(&service.metadata_headers, name.as_str()));
    let told: Map<String, Value> = told
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    changes.metadata = (!told.is_empty()).then_some(Value::Object(told));
    changes
}

/// The headers that one of `wanted` names. The first of a name replaces, if that is what happens, the others come beside it.
fn collect(headers: &HeaderMap, wanted: &[StringMatch], append: HeaderAppend, into: &mut Vec<HeaderChange>) {
    for name in headers.keys().filter(|name| **name != header::CONTENT_LENGTH && any(wanted, name.as_str())) {
        for (index, value) in headers.get_all(name).iter().enumerate() {
            let append = if index == 0 { append } else { HeaderAppend::AppendOrAdd };
            into.push(HeaderChange { name: name.clone(), value: value.clone(), append });
        }
    }
}

fn refused(service: &HttpAuthz, answer: Answered) -> Refusal {
    let wanted = &service.client_headers;
    let may = |name: &HeaderName| {
        if wanted.is_empty() {
            *name != header::HOST
        } else {
            ALWAYS_TOLD.contains(name) || any(wanted, name.as_str())
        }
    };
    let mut headers = Vec::new();
    for name in answer.parts.headers.keys().filter(|name| may(name)) {
        for (index, value) in answer.parts.headers.get_all(name).iter().enumerate() {
            let append = if index == 0 { HeaderAppend::OverwriteOrAdd } else { HeaderAppend::AppendOrAdd };
            headers.push(HeaderChange { name: name.clone(), value: value.clone(), append });
        }
    }
    let body: Bytes = answer.body.clone();
    Refusal { status: answer.status(), headers, body, metadata: None }
}
