//! Where a redirect sends the client.

use crate::{
    rewrite::{replace_prefix, split},
    table::without_port,
    view::RequestView,
};
use sidecar_model::{
    RouteMatch,
    route::{Redirect, RedirectPath},
};

/// The value of `location` for a redirect, as Envoy builds it.
#[must_use]
pub fn location(redirect: &Redirect, conditions: &RouteMatch, request: &RequestView<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme);
    let host = match &redirect.host {
        Some(host) => host,
        None if redirect.port.is_some() || loses_default_port(request, scheme) => {
            without_port(request.authority)
        }
        None => request.authority,
    };
    let port = redirect.port.map(|port| format!(":{port}")).unwrap_or_default();
    let (path, query) = split(request.path);
    let query = if redirect.strip_query { "" } else { query };
    let path = match &redirect.path {
        Some(RedirectPath::Path(new)) if new.contains('?') => new.to_string(),
        Some(RedirectPath::Path(new)) => format!("{new}{query}"),
        Some(RedirectPath::Prefix(with)) => replace_prefix(conditions, path, with) + query,
        Some(RedirectPath::Regex(rewrite)) => rewrite.apply(path) + query,
        None => format!("{path}{query}"),
    };
    format!("{scheme}://{host}{port}{path}")
}

/// The value of `location` that sends a plain-text request to HTTPS.
#[must_use]
pub fn tls_location(request: &RequestView<'_>) -> String {
    format!("https://{}{}", request.authority, request.path)
}

/// A port that was the default of the old scheme means nothing under the new one.
fn loses_default_port(request: &RequestView<'_>, scheme: &str) -> bool {
    let port = request.authority.strip_prefix(without_port(request.authority));
    request.scheme != scheme
        && matches!((request.scheme, port), ("http", Some(":80")) | ("https", Some(":443")))
}
