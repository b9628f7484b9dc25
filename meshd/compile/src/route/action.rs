//! What a rule does with a request: forward, redirect, answer.

use std::time::Duration;

use meshd_model::{Service, host};
use policies_api::destination_rule::ConsistentHash;
use policies_api::matching::{Percent, StringMatch};
use policies_api::virtual_service::{Destination, HttpMatch, HttpRoute, Redirect};
use policies_xds::core::{DataSource, RuntimeFractionalPercent, data_source};
use policies_xds::matcher::RegexMatchAndSubstitute;
use policies_xds::route::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use policies_xds::route::route::Action;
use policies_xds::route::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy, hash_policy,
};
use policies_xds::route::weighted_cluster::{ClusterWeight, cluster_weight};
use policies_xds::route::{DirectResponseAction, RedirectAction, RouteAction, WeightedCluster};

use super::headers::Changes;
use super::matches::Place;
use super::retry;
use crate::cluster::effective_of;
use crate::proto::{duration, flag, fraction, number, regex};
use crate::view::{View, outbound_name};

/// The action of a rule.
#[expect(deprecated, reason = "what Istio sends; Envoy and our sidecar read it")]
pub(crate) fn action(
    view: &View<'_>,
    rule: &HttpRoute,
    matched: Option<&HttpMatch>,
    place: Place<'_>,
    changes: &Changes,
) -> Action {
    if let Some(redirect) = &rule.redirect {
        return Action::Redirect(redirect_action(redirect, place.port));
    }
    if let Some(response) = &rule.direct_response {
        return direct_response(response.status, response.body.as_ref().map(body_bytes).unwrap_or_default());
    }
    let mut action = RouteAction {
        timeout: Some(duration(rule.timeout.map_or(Duration::ZERO, |it| it.0))),
        max_grpc_timeout: Some(duration(rule.timeout.map_or(Duration::ZERO, |it| it.0))),
        hash_policy: hash_policies(view, rule, place),
        request_mirror_policies: mirrors(view, rule, place),
        ..Default::default()
    };
    action.retry_policy = retry::policy(rule.retries.as_ref(), !action.hash_policy.is_empty());
    if !destinations(view, rule, place, &mut action) {
        return direct_response(503, Vec::new());
    }
    let authority = changes.authority.clone();
    if let Some(rewrite) = &rule.rewrite {
        if !rewrite.uri.is_empty() {
            rewrite_path(&mut action, matched, &rewrite.uri);
        } else if let Some(by_regex) = &rewrite.uri_regex_rewrite {
            action.regex_rewrite = Some(substitute(&by_regex.pattern, &by_regex.rewrite));
        }
        if !rewrite.authority.is_empty() {
            action.host_rewrite_specifier =
                Some(HostRewriteSpecifier::HostRewriteLiteral(rewrite.authority.clone()));
        }
    }
    if let Some(authority) = authority {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority));
    }
    Action::Route(action)
}

/// The action of a service without rules.
#[expect(deprecated, reason = "what Istio sends; Envoy and our sidecar read it")]
pub(crate) fn default_action(view: &View<'_>, service: &Service, port: u16) -> RouteAction {
    let rule = view.rule(service);
    let effective = effective_of(rule.as_deref(), None, port);
    let hash = effective.load_balancer.and_then(|it| it.consistent_hash.as_ref());
    let hash_policy: Vec<HashPolicy> = hash.and_then(hash_policy_of).into_iter().collect();
    RouteAction {
        timeout: Some(duration(Duration::ZERO)),
        max_grpc_timeout: Some(duration(Duration::ZERO)),
        retry_policy: retry::policy(None, !hash_policy.is_empty()),
        hash_policy,
        cluster_specifier: Some(ClusterSpecifier::Cluster(outbound_name(port, "", &service.host))),
        ..Default::default()
    }
}

/// The cluster of a destination: its port, else the port of this place when the service has it, else the service's only port.
pub(crate) fn cluster_name(view: &View<'_>, destination: &Destination, place: Place<'_>) -> String {
    let host =
        host::resolve(&destination.host, place.namespace, &view.mesh.cluster_domain).to_ascii_lowercase();
    let written = destination.port.and_then(|it| u16::try_from(it.number).ok());
    let port = written.unwrap_or_else(|| match view.service(&host) {
        Some(service) if service.ports.len() == 1 => service.ports[0].port,
        _ => place.port,
    });
    outbound_name(port, &destination.subset, &host)
}

/// Sets where the request goes; false when every weight is zero.
fn destinations(view: &View<'_>, rule: &HttpRoute, place: Place<'_>, action: &mut RouteAction) -> bool {
    let weighty: Vec<_> = rule.route.iter().filter(|it| it.weight > 0 || rule.route.len() == 1).collect();
    if let [single] = weighty.as_slice()
        && (single.headers.is_none() || rule.route.len() == 1)
    {
        action.cluster_specifier =
            Some(ClusterSpecifier::Cluster(cluster_name(view, &single.destination, place)));
        if single.headers.is_none() {
            return true;
        }
    }
    let total: u64 = weighty.iter().map(|it| u64::from(it.weight.max(0).unsigned_abs())).sum();
    // Envoy refuses a sum beyond 32 bits.
    let scale = u32::try_from(total / u64::from(u32::MAX)).unwrap_or(u32::MAX).saturating_add(1);
    let clusters: Vec<ClusterWeight> = weighty
        .iter()
        .map(|it| {
            let changes = Changes::new(it.headers.as_ref());
            ClusterWeight {
                name: cluster_name(view, &it.destination, place),
                weight: number((it.weight.max(0).unsigned_abs() / scale).max(1)),
                request_headers_to_add: changes.request_add,
                request_headers_to_remove: changes.request_remove,
                response_headers_to_add: changes.response_add,
                response_headers_to_remove: changes.response_remove,
                host_rewrite_specifier: changes
                    .authority
                    .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
                ..Default::default()
            }
        })
        .collect();
    if clusters.is_empty() || (total == 0 && clusters.len() > 1) {
        return false;
    }
    action.cluster_specifier =
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() }));
    true
}

fn rewrite_path(action: &mut RouteAction, matched: Option<&HttpMatch>, uri: &str) {
    match matched.and_then(|it| it.uri.as_ref()) {
        // A prefix that ends in a slash, rewritten to "/", must not leave two slashes behind.
        Some(StringMatch::Prefix(prefix)) if uri == "/" && !prefix.ends_with('/') => {
            let pattern = format!("^{}(/?)(.*)", escape(prefix));
            action.regex_rewrite = Some(substitute(&pattern, r"/\2"));
        }
        _ => action.prefix_rewrite = uri.to_owned(),
    }
}

/// Quotes what is special in RE2.
pub(crate) fn escape(literal: &str) -> String {
    let mut escaped = String::with_capacity(literal.len());
    for c in literal.chars() {
        if matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn substitute(pattern: &str, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: substitution.to_owned() }
}

fn mirrors(view: &View<'_>, rule: &HttpRoute, place: Place<'_>) -> Vec<RequestMirrorPolicy> {
    let older = rule.mirror.as_ref().map(|destination| {
        let whole = rule.mirror_percent.map(|value| Percent { value: f64::from(value) });
        (destination, rule.mirror_percentage.or(whole))
    });
    let listed = rule.mirrors.iter().map(|it| (&it.destination, it.percentage));
    let all = older.into_iter().chain(listed);
    all.filter(|(_, share)| share.is_none_or(|it| it.value > 0.0))
        .map(|(destination, share)| RequestMirrorPolicy {
            cluster: cluster_name(view, destination, place),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(fraction(share.unwrap_or(Percent { value: 100.0 }))),
                ..Default::default()
            }),
            trace_sampled: flag(false),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        })
        .collect()
}

fn hash_policies(view: &View<'_>, rule: &HttpRoute, place: Place<'_>) -> Vec<HashPolicy> {
    let mut policies: Vec<HashPolicy> = Vec::new();
    for target in &rule.route {
        let host = host::resolve(&target.destination.host, place.namespace, &view.mesh.cluster_domain)
            .to_ascii_lowercase();
        let Some(service) = view.service(&host) else { continue };
        let of_host = view.rule(service);
        let subset = of_host
            .as_deref()
            .and_then(|it| it.spec.subsets.iter().find(|it| it.name == target.destination.subset));
        let effective = effective_of(of_host.as_deref(), subset, place.port);
        let hash = effective.load_balancer.and_then(|it| it.consistent_hash.as_ref());
        if let Some(policy) = hash.and_then(hash_policy_of)
            && !policies.contains(&policy)
        {
            policies.push(policy);
        }
    }
    policies
}

fn hash_policy_of(written: &ConsistentHash) -> Option<HashPolicy> {
    use hash_policy::PolicySpecifier;
    let specifier = if !written.http_header_name.is_empty() {
        PolicySpecifier::Header(hash_policy::Header {
            header_name: written.http_header_name.clone(),
            ..Default::default()
        })
    } else if let Some(cookie) = &written.http_cookie {
        PolicySpecifier::Cookie(hash_policy::Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(|it| duration(it.0)),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|it| hash_policy::CookieAttribute { name: it.name.clone(), value: it.value.clone() })
                .collect(),
        })
    } else if written.use_source_ip {
        PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true })
    } else if !written.http_query_parameter_name.is_empty() {
        PolicySpecifier::QueryParameter(hash_policy::QueryParameter {
            name: written.http_query_parameter_name.clone(),
        })
    } else {
        return None;
    };
    Some(HashPolicy { terminal: false, policy_specifier: Some(specifier) })
}

fn redirect_action(written: &Redirect, port: u16) -> RedirectAction {
    let code = match written.redirect_code {
        Some(302) => RedirectResponseCode::Found,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = if !written.prefix_rewrite.is_empty() {
        Some(PathRewriteSpecifier::PrefixRewrite(written.prefix_rewrite.clone()))
    } else if let Some(prefix) = written.uri.strip_prefix("%PREFIX()%") {
        Some(PathRewriteSpecifier::PrefixRewrite(prefix.to_owned()))
    } else {
        (!written.uri.is_empty()).then(|| PathRewriteSpecifier::PathRedirect(written.uri.clone()))
    };
    let default_port = match written.scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => 0,
    };
    let port_redirect = match (written.port, written.derive_port.as_str()) {
        (Some(port), _) => port,
        (None, "FROM_REQUEST_PORT") if u32::from(port) != default_port => u32::from(port),
        _ => 0,
    };
    RedirectAction {
        host_redirect: written.authority.clone(),
        port_redirect: if port_redirect == default_port { 0 } else { port_redirect },
        response_code: code.into(),
        scheme_rewrite_specifier: (!written.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(written.scheme.clone())),
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

/// A fixed answer.
pub(crate) fn direct_response(status: u32, body: Vec<u8>) -> Action {
    let body = (!body.is_empty()).then(|| DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(body)),
        ..Default::default()
    });
    Action::DirectResponse(DirectResponseAction { status, body, ..Default::default() })
}

fn body_bytes(body: &policies_api::virtual_service::HttpBody) -> Vec<u8> {
    match (&body.string, &body.bytes) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(encoded)) => policies_api::validate::base64(encoded).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}
