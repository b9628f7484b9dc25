//! Matches of a rule in Envoy's terms. What depends on the proxy alone (labels, namespace, gateway, port) is decided here and not sent.

use meshd_model::ProxyKey;
use policies_api::matching::{StringMatch, selects};
use policies_api::virtual_service::{HttpMatch, HttpRoute};
use policies_xds::matcher::{
    MetadataMatcher, ValueMatcher, metadata_matcher, string_matcher::MatchPattern, value_matcher,
};
use policies_xds::route::header_matcher::HeaderMatchSpecifier;
use policies_xds::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::route::{HeaderMatcher, QueryParameterMatcher, RouteMatch};

use crate::proto::{flag, regex, string_match, string_matcher};

/// Where a rule is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) proxy: &'a ProxyKey,
    /// Port of the service or of the gateway's server.
    pub(crate) port: u16,
    /// `mesh`, or the gateway as `namespace/name`.
    pub(crate) gateway: &'a str,
    /// Namespace of the virtual service, to read gateways without one.
    pub(crate) namespace: &'a str,
}

/// The alternatives of a rule that can hold in this place; `None` stands for "no match at all": everything.
pub(crate) fn alternatives<'a>(rule: &'a HttpRoute, place: Place<'_>) -> Vec<Option<&'a HttpMatch>> {
    if rule.matches.is_empty() {
        return vec![None];
    }
    rule.matches.iter().filter(|it| can_hold(it, place)).map(Some).collect()
}

fn can_hold(written: &HttpMatch, place: Place<'_>) -> bool {
    if written.port.is_some_and(|port| port != u32::from(place.port)) {
        return false;
    }
    if !written.gateways.is_empty() {
        // With gateways given, labels are not looked at, as in Istio.
        return written.gateways.iter().any(|it| is_gateway(it, place));
    }
    source_matches(&written.source_labels, &written.source_namespace, place.proxy)
}

/// Whether the client's pod has the labels and lives in the namespace.
pub(crate) fn source_matches(
    labels: &policies_api::matching::StringMap,
    namespace: &str,
    proxy: &ProxyKey,
) -> bool {
    selects(labels, &proxy.labels) && (namespace.is_empty() || *namespace == *proxy.namespace)
}

/// Whether a gateway's name, as written in the virtual service, is the one of this place.
pub(crate) fn is_gateway(written: &str, place: Place<'_>) -> bool {
    match place.gateway.split_once('/') {
        None => written == place.gateway,
        Some((namespace, name)) => {
            meshd_model::select::virtual_service::names_gateway(written, place.namespace, namespace, name)
        }
    }
}

/// Whether nothing about the request is asked: such a rule hides all that follow.
pub(crate) fn is_catch_all(written: Option<&HttpMatch>) -> bool {
    let Some(written) = written else { return true };
    let any_uri = match &written.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/",
        Some(StringMatch::Regex(pattern)) => pattern == "*" || pattern == ".*",
        Some(StringMatch::Exact(_) | StringMatch::Any) => false,
    };
    any_uri
        && written.headers.is_empty()
        && written.without_headers.is_empty()
        && written.query_params.is_empty()
        && written.method.is_none()
        && written.scheme.is_none()
        && written.authority.is_none()
}

/// The match in Envoy's terms.
pub(crate) fn route_match(written: Option<&HttpMatch>) -> RouteMatch {
    let Some(written) = written else { return prefix("/") };
    let path = match &written.uri {
        None | Some(StringMatch::Any) => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(path)) => PathSpecifier::Prefix(path.clone()),
        Some(StringMatch::Regex(pattern)) if pattern == "*" => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    let ignores_case = written.ignore_uri_case && !matches!(path, PathSpecifier::SafeRegex(_));
    let mut found =
        RouteMatch { path_specifier: Some(path), case_sensitive: flag(!ignores_case), ..Default::default() };
    for (name, value) in &written.headers {
        match claim_path(name) {
            Some(path) => found.dynamic_metadata.push(claim_matcher(path, value, false)),
            None => found.headers.push(header(name, value)),
        }
    }
    for (name, value) in &written.without_headers {
        match claim_path(name) {
            Some(path) => found.dynamic_metadata.push(claim_matcher(path, value, true)),
            None => {
                let mut inverted = header(name, value);
                inverted.invert_match = true;
                // A missing header does not match, so its inversion must.
                inverted.treat_missing_header_as_empty = string_match(value).is_some();
                found.headers.push(inverted);
            }
        }
    }
    for (name, value) in
        [(":method", &written.method), (":authority", &written.authority), (":scheme", &written.scheme)]
    {
        if let Some(value) = value {
            found.headers.push(header(name, value));
        }
    }
    found.query_parameters = written.query_params.iter().map(|(name, value)| query(name, value)).collect();
    found
}

/// Every path with the prefix.
pub(crate) fn prefix(prefix: &str) -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix(prefix.to_owned())), ..Default::default() }
}

/// A header's match.
pub(crate) fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = match string_match(value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

fn query(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = match string_match(value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

/// The claim that `@request.auth.claims.a.b` or `@request.auth.claims[a][b]` names.
fn claim_path(header: &str) -> Option<Vec<String>> {
    let rest = header.strip_prefix("@request.auth.claims")?;
    if let Some(dotted) = rest.strip_prefix('.') {
        return Some(dotted.split('.').map(str::to_owned).collect());
    }
    let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.split("][").map(str::to_owned).collect())
}

fn claim_matcher(path: Vec<String>, value: &StringMatch, invert: bool) -> MetadataMatcher {
    let wanted = string_match(value).unwrap_or_else(|| string_matcher(MatchPattern::SafeRegex(regex(".+"))));
    let segments = std::iter::once("payload".to_owned()).chain(path);
    let single =
        ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(wanted.clone())) };
    let one_of = policies_xds::matcher::ListMatcher {
        match_pattern: Some(policies_xds::matcher::list_matcher::MatchPattern::OneOf(Box::new(
            single.clone(),
        ))),
    };
    let listed =
        ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(one_of))) };
    MetadataMatcher {
        filter: crate::filter::jwt::FILTER.to_owned(),
        path: segments
            .map(|key| metadata_matcher::PathSegment {
                segment: Some(metadata_matcher::path_segment::Segment::Key(key)),
            })
            .collect(),
        value: Some(ValueMatcher {
            match_pattern: Some(value_matcher::MatchPattern::OrMatch(policies_xds::matcher::OrMatcher {
                value_matchers: vec![single, listed],
            })),
        }),
        invert,
    }
}
