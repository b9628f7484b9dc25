//! The rules of a virtual service as routes: one for each alternative, in order, cut off behind the first that takes everything.

use meshd_model::{Config, Service};
use policies_api::VirtualService;
use policies_api::virtual_service::{HttpMatch, HttpRoute};
use policies_xds::route::{Decorator, Route, route};

use super::headers::Changes;
use super::matches::{self, Place};
use super::{action, sticky};
use crate::filter::{cors, fault};
use crate::proto::{metadata, ordered, structure, text};
use crate::view::View;

/// Routes of a virtual service in a place.
pub(crate) fn routes(view: &View<'_>, config: &Config<VirtualService>, place: Place<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for rule in &config.spec.http {
        for matched in matches::alternatives(rule, place) {
            routes.push(route(view, config, rule, matched, place));
            if matches::is_catch_all(matched) {
                return routes;
            }
        }
    }
    routes
}

/// The route of a service without rules.
pub(crate) fn default_route(view: &View<'_>, service: &Service, port: u16) -> Route {
    Route {
        name: "default".to_owned(),
        r#match: Some(matches::prefix("/")),
        decorator: Some(decorator(&service.host, port, "/*")),
        action: Some(route::Action::Route(action::default_action(view, service, port))),
        ..Default::default()
    }
}

/// Whether a route takes everything that reaches it.
pub(crate) fn takes_all(route: &Route) -> bool {
    use policies_xds::route::route_match::PathSpecifier;
    route.r#match.as_ref().is_some_and(|it| {
        matches!(&it.path_specifier, Some(PathSpecifier::Prefix(prefix)) if prefix == "/")
            && it.headers.is_empty()
            && it.query_parameters.is_empty()
            && it.dynamic_metadata.is_empty()
    })
}

fn route(
    view: &View<'_>,
    config: &Config<VirtualService>,
    rule: &HttpRoute,
    matched: Option<&HttpMatch>,
    place: Place<'_>,
) -> Route {
    let changes = Changes::new(rule.headers.as_ref());
    let mut action = action::action(view, rule, matched, place, &changes);
    if config.sticky_split {
        sticky::stick(&mut action);
    }
    let mut filters = Vec::new();
    if let Some(fault) = rule.fault.as_ref().and_then(fault::per_route) {
        filters.push((fault::FILTER.to_owned(), fault));
    }
    if let Some(policy) = &rule.cors_policy {
        filters.push((cors::FILTER.to_owned(), cors::per_route(policy)));
    }
    let path = format!(
        "/apis/networking.istio.io/v1/namespaces/{}/virtual-service/{}",
        config.namespace, config.name
    );
    Route {
        name: name(rule, matched),
        r#match: Some(matches::route_match(matched)),
        metadata: Some(metadata(vec![("istio", structure(vec![("config", text(path))]))])),
        decorator: operation(view, rule, matched, place),
        typed_per_filter_config: ordered(filters),
        request_headers_to_add: changes.request_add,
        request_headers_to_remove: changes.request_remove,
        response_headers_to_add: changes.response_add,
        response_headers_to_remove: changes.response_remove,
        stat_prefix: matched.map(|it| it.stat_prefix.clone()).unwrap_or_default(),
        action: Some(action),
        ..Default::default()
    }
}

fn name(rule: &HttpRoute, matched: Option<&HttpMatch>) -> String {
    match (rule.name.as_str(), matched.map_or("", |it| &it.name)) {
        (rule, "") => rule.to_owned(),
        ("", matched) => matched.to_owned(),
        (rule, matched) => format!("{rule}.{matched}"),
    }
}

fn operation(
    view: &View<'_>,
    rule: &HttpRoute,
    matched: Option<&HttpMatch>,
    place: Place<'_>,
) -> Option<Decorator> {
    let first = rule.route.first()?;
    let cluster = action::cluster_name(view, &first.destination, place);
    let mut parts = cluster.split('|').skip(1);
    let port = parts.next()?.parse().ok()?;
    let host = parts.nth(1)?;
    let path = match matched.and_then(|it| it.uri.as_ref()) {
        Some(policies_api::matching::StringMatch::Exact(path)) => path.clone(),
        Some(policies_api::matching::StringMatch::Prefix(path)) => format!("{path}*"),
        Some(policies_api::matching::StringMatch::Regex(pattern)) => pattern.clone(),
        Some(policies_api::matching::StringMatch::Any) | None => "/*".to_owned(),
    };
    Some(decorator(host, port, &path))
}

/// The name of a span.
pub(crate) fn decorator(host: &str, port: u16, path: &str) -> Decorator {
    Decorator { operation: format!("{host}:{port}{path}"), propagate: None }
}
