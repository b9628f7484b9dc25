//! Delegation: a rule of a root virtual service that takes its rules from another one. One level, as in Istio.

use std::sync::Arc;

use policies_api::VirtualService;
use policies_api::matching::StringMatch;
use policies_api::virtual_service::{HttpMatch, HttpRoute};

use super::visible;
use crate::object::Config;
use crate::proxy::ProxyKey;
use crate::snapshot::Snapshot;

/// The object itself when nothing is delegated, else a copy whose delegating rules are replaced by those of the delegates.
#[must_use]
pub fn fill_in(
    snapshot: &Snapshot,
    root: &Arc<Config<VirtualService>>,
    proxy: &ProxyKey,
) -> Arc<Config<VirtualService>> {
    if root.spec.http.iter().all(|route| route.delegate.is_none()) {
        return Arc::clone(root);
    }
    let mut filled = (**root).clone();
    filled.spec.http = root.spec.http.iter().flat_map(|route| expand(snapshot, root, route, proxy)).collect();
    Arc::new(filled)
}

fn expand(
    snapshot: &Snapshot,
    root: &Config<VirtualService>,
    route: &HttpRoute,
    proxy: &ProxyKey,
) -> Vec<HttpRoute> {
    let Some(delegate) = &route.delegate else { return vec![route.clone()] };
    let namespace = if delegate.namespace.is_empty() { &*root.namespace } else { &*delegate.namespace };
    let target = snapshot.policies.virtual_services.iter().find(|it| {
        *it.namespace == *namespace
            && *it.name == *delegate.name
            && it.spec.hosts.is_empty()
            && visible(&it.spec.export_to, &snapshot.mesh.default_virtual_service_export_to, &it.namespace, &root.namespace)
            // A delegate must be visible where the root is used as well.
            && visible(&it.spec.export_to, &snapshot.mesh.default_virtual_service_export_to, &it.namespace, &proxy.namespace)
    });
    let Some(target) = target else { return Vec::new() };
    let rules = target.spec.http.iter().filter(|it| it.delegate.is_none());
    rules.filter_map(|rule| join(route, rule)).collect()
}

/// The delegate's rule under the root's matches; the root fills what the delegate leaves open. None when the matches conflict.
fn join(root: &HttpRoute, rule: &HttpRoute) -> Option<HttpRoute> {
    let matches = join_matches(&root.matches, &rule.matches)?;
    let mut joined = rule.clone();
    joined.matches = matches;
    joined.name = match (root.name.as_str(), rule.name.as_str()) {
        ("", name) => name.to_owned(),
        (name, "") => name.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    };
    joined.timeout = joined.timeout.or(root.timeout);
    joined.retries = joined.retries.or_else(|| root.retries.clone());
    joined.fault = joined.fault.or_else(|| root.fault.clone());
    joined.rewrite = joined.rewrite.or_else(|| root.rewrite.clone());
    joined.cors_policy = joined.cors_policy.or_else(|| root.cors_policy.clone());
    joined.headers = joined.headers.or_else(|| root.headers.clone());
    joined.mirror = joined.mirror.or_else(|| root.mirror.clone());
    joined.mirror_percentage = joined.mirror_percentage.or(root.mirror_percentage);
    if joined.mirrors.is_empty() {
        joined.mirrors.clone_from(&root.mirrors);
    }
    Some(joined)
}

fn join_matches(root: &[HttpMatch], rule: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(rule.to_vec());
    }
    if rule.is_empty() {
        return Some(root.to_vec());
    }
    let joined: Vec<HttpMatch> =
        rule.iter().flat_map(|inner| root.iter().filter_map(|outer| join_match(outer, inner))).collect();
    (!joined.is_empty()).then_some(joined)
}

/// Both matches in one; none when they contradict each other.
fn join_match(outer: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    let mut joined = inner.clone();
    joined.uri = narrow(outer.uri.as_ref(), inner.uri.as_ref())?;
    joined.scheme = narrow(outer.scheme.as_ref(), inner.scheme.as_ref())?;
    joined.method = narrow(outer.method.as_ref(), inner.method.as_ref())?;
    joined.authority = narrow(outer.authority.as_ref(), inner.authority.as_ref())?;
    for (from, into) in [
        (&outer.headers, &mut joined.headers),
        (&outer.without_headers, &mut joined.without_headers),
        (&outer.query_params, &mut joined.query_params),
    ] {
        for (key, value) in from {
            let own = into.get(key).cloned();
            into.insert(key.clone(), narrow(Some(value), own.as_ref())?.unwrap_or_default());
        }
    }
    for (key, value) in &outer.source_labels {
        if joined.source_labels.insert(key.clone(), value.clone()).is_some_and(|own| own != *value) {
            return None;
        }
    }
    joined.port = match (outer.port, inner.port) {
        (Some(a), Some(b)) if a != b => return None,
        (a, b) => b.or(a),
    };
    match (outer.source_namespace.as_str(), inner.source_namespace.as_str()) {
        (_, "") => joined.source_namespace.clone_from(&outer.source_namespace),
        ("", _) => {}
        (a, b) if a != b => return None,
        _ => {}
    }
    if joined.gateways.is_empty() {
        joined.gateways.clone_from(&outer.gateways);
    }
    joined.ignore_uri_case |= outer.ignore_uri_case;
    Some(joined)
}

/// The inner match when the outer one covers it; the outer result is none when they contradict each other.
fn narrow(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    let (outer, inner) = match (outer, inner) {
        (None, inner) => return Some(inner.cloned()),
        (outer, None) => return Some(outer.cloned()),
        (Some(outer), Some(inner)) => (outer, inner),
    };
    let compatible = match (outer, inner) {
        (StringMatch::Any, _) => true,
        (StringMatch::Exact(a), StringMatch::Exact(b)) | (StringMatch::Regex(a), StringMatch::Regex(b)) => {
            a == b
        }
        (StringMatch::Prefix(a), StringMatch::Exact(b) | StringMatch::Prefix(b)) => b.starts_with(a.as_str()),
        _ => false,
    };
    compatible.then(|| Some(inner.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegates_match_must_lie_within_the_roots() {
        let prefix = |text: &str| Some(StringMatch::Prefix(text.to_owned()));
        let uri = |uri| HttpMatch { uri, ..HttpMatch::default() };
        let inside = join_match(&uri(prefix("/a")), &uri(prefix("/a/b"))).unwrap();
        assert_eq!(inside.uri, prefix("/a/b"));
        assert!(join_match(&uri(prefix("/a")), &uri(prefix("/b"))).is_none());
        assert_eq!(join_match(&uri(prefix("/a")), &uri(None)).unwrap().uri, prefix("/a"));
    }
}
