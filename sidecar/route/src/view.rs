//! A request as routing sees it: borrowed, protocol-neutral.

use http::{HeaderMap, HeaderName};
use sidecar_model::{HeaderKey, Metadata};
use std::borrow::Cow;

/// What routing looks at. `authority` and `path` must be what is forwarded: normalised before, not after.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// `:authority` or `Host`, as sent.
    pub authority: &'a str,
    /// Path with its query.
    pub path: &'a str,
    /// `http` or `https`, as the client saw it.
    pub scheme: &'a str,
    /// All other headers.
    pub headers: &'a HeaderMap,
    /// What filters found out about the request, such as the claims of its token.
    pub metadata: Option<&'a Metadata>,
}

impl<'a> RequestView<'a> {
    /// The path without its query.
    #[must_use]
    pub fn path_only(&self) -> &'a str {
        self.path.split_once(['?', '#']).map_or(self.path, |(path, _)| path)
    }

    /// The query, without its question mark; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &'a str {
        let whole = self.path.split_once('#').map_or(self.path, |(path, _)| path);
        whole.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first value of a query parameter; `Some("")` when it has none. Not decoded, as in Envoy.
    #[must_use]
    pub fn query_parameter(&self, name: &str) -> Option<&'a str> {
        self.query().split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    /// What a header condition compares: a pseudo header, or all values of a header joined with a comma.
    ///
    /// A value that is not ASCII is compared with each foreign byte replaced, so it equals nothing that a policy can write.
    #[must_use]
    pub fn header(&self, key: &HeaderKey) -> Option<Cow<'a, str>> {
        match key {
            HeaderKey::Method => Some(self.method.into()),
            HeaderKey::Authority => Some(self.authority.into()),
            HeaderKey::Path => Some(self.path.into()),
            HeaderKey::Scheme => Some(self.scheme.into()),
            HeaderKey::Name(name) => joined(self.headers, name),
        }
    }
}

fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(first) };
    let mut all = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        all.push(',');
        all.push_str(&value);
    }
    Some(all.into())
}
