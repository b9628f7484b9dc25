//! The path and host of a forwarded request.

use crate::view::RequestView;
use sidecar_model::{
    PathMatch, RouteAction, RouteMatch,
    route_action::{HostRewrite, PathRewrite},
};
use std::borrow::Cow;

/// The new path with its query, or `None` when it stays.
#[must_use]
pub fn path_rewrite(
    action: &RouteAction,
    conditions: &RouteMatch,
    request: &RequestView<'_>,
) -> Option<String> {
    let rewrite = action.path_rewrite.as_ref()?;
    let (path, rest) = split(request.path);
    let new = match rewrite {
        PathRewrite::Prefix(with) => replace_prefix(conditions, path, with),
        PathRewrite::Regex(rewrite) => rewrite.apply(path),
        PathRewrite::Full(with) => with.to_string(),
    };
    Some(new + rest)
}

/// The new host, or `None` when it stays. `endpoint_host` is the chosen endpoint's name.
#[must_use]
pub fn host_rewrite<'a>(
    action: &'a RouteAction,
    request: &RequestView<'a>,
    endpoint_host: &'a str,
) -> Option<Cow<'a, str>> {
    match action.host_rewrite.as_ref()? {
        HostRewrite::Literal(host) => Some((&**host).into()),
        HostRewrite::Auto => (!endpoint_host.is_empty()).then(|| endpoint_host.into()),
        HostRewrite::Header(name) => {
            request.headers.get(name)?.to_str().ok().filter(|v| !v.is_empty()).map(Into::into)
        }
        HostRewrite::PathRegex(rewrite) => Some(rewrite.apply(request.path_only()).into()),
    }
}

/// Puts `with` in place of what the condition matched: the prefix, or the whole path.
pub(crate) fn replace_prefix(conditions: &RouteMatch, path: &str, with: &str) -> String {
    let rest = match &conditions.path {
        PathMatch::Prefix(prefix) | PathMatch::PathSeparatedPrefix(prefix) => {
            path.get(prefix.len()..).unwrap_or_default()
        }
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Template(_) | PathMatch::Connect => "",
    };
    let new = format!("{with}{rest}");
    if new.is_empty() { "/".into() } else { new }
}

/// The path, and its query with the question mark.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find(['?', '#']).unwrap_or(path.len()))
}
