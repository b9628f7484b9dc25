//! Whether a route's conditions hold.

use crate::view::RequestView;
use sidecar_model::{HeaderKey, HeaderMatch, Metadata, PathMatch, RouteMatch};

/// Whether all conditions of a route hold. `random` decides about a runtime fraction.
#[must_use]
pub fn route_matches(conditions: &RouteMatch, request: &RequestView<'_>, random: u64) -> bool {
    path_matches(conditions, request)
        && (!conditions.grpc || is_grpc(request))
        && headers_match(&conditions.headers, request)
        && conditions.query.iter().all(|q| q.is_match(request.query_parameter(&q.name)))
        && metadata_matches(conditions, request)
        && conditions.fraction.is_none_or(|fraction| fraction.hit(random))
}

/// Whether all header conditions hold.
#[must_use]
pub fn headers_match(conditions: &[HeaderMatch], request: &RequestView<'_>) -> bool {
    conditions.iter().all(|condition| header_matches(condition, request))
}

/// Whether a header condition holds. Of several values of one header one is enough, each taken by itself, as in Envoy: a client cannot
/// hide one by sending another.
#[must_use]
pub fn header_matches(condition: &HeaderMatch, request: &RequestView<'_>) -> bool {
    if let HeaderKey::Name(name) = &condition.key {
        let mut values = request.headers.get_all(name).iter();
        if values.next().is_some() && values.next().is_some() {
            let texts = request.headers.get_all(name).iter();
            let mut texts = texts.map(|value| String::from_utf8_lossy(value.as_bytes()));
            // Inverted, no value may fit.
            return if condition.invert {
                texts.all(|text| condition.is_match(Some(&text)))
            } else {
                texts.any(|text| condition.is_match(Some(&text)))
            };
        }
    }
    condition.is_match(request.header(&condition.key).as_deref())
}

fn metadata_matches(conditions: &RouteMatch, request: &RequestView<'_>) -> bool {
    if conditions.metadata.is_empty() {
        return true;
    }
    let none = Metadata::default();
    let metadata = request.metadata.unwrap_or(&none);
    conditions.metadata.iter().all(|condition| condition.is_match(metadata))
}

fn path_matches(conditions: &RouteMatch, request: &RequestView<'_>) -> bool {
    let path = request.path_only();
    let case = conditions.case_sensitive;
    if let PathMatch::Connect = conditions.path {
        return request.method == "CONNECT";
    }
    if request.method == "CONNECT" && path.is_empty() {
        // A CONNECT without a path has nothing that a path condition could hold for.
        return false;
    }
    match &conditions.path {
        PathMatch::Exact(want) => equal(path, want, case),
        PathMatch::Prefix(want) => starts(path, want, case),
        PathMatch::PathSeparatedPrefix(want) => {
            starts(path, want, case) && matches!(path.as_bytes().get(want.len()), None | Some(b'/'))
        }
        PathMatch::Regex(regex) | PathMatch::Template(regex) => regex.is_match(path),
        PathMatch::Connect => false,
    }
}

fn equal(path: &str, want: &str, case: bool) -> bool {
    if case { path == want } else { path.eq_ignore_ascii_case(want) }
}

fn starts(path: &str, want: &str, case: bool) -> bool {
    path.as_bytes().get(..want.len()).is_some_and(|head| {
        if case { head == want.as_bytes() } else { head.eq_ignore_ascii_case(want.as_bytes()) }
    })
}

/// `application/grpc`, with an optional `+suffix` or parameters (gRPC over HTTP/2, "Requests").
fn is_grpc(request: &RequestView<'_>) -> bool {
    let value = request.headers.get(http::header::CONTENT_TYPE).map(|v| v.as_bytes());
    value
        .and_then(|v| v.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
