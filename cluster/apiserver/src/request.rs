//! What a request asks for, read from its method and URL: Kubernetes' RequestInfo, and query parameters.

use http::Method;

/// The parsed query string, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestInfo {
    /// The Kubernetes verb (`get`, `list`, `watch`, `create` …), or the method in lower case for other paths.
    pub(crate) verb: &'static str,
    /// Whether the path names a resource.
    pub(crate) is_resource: bool,
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty when cluster-scoped or across all namespaces.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
    /// What follows a `proxy`-like subresource.
    pub(crate) rest: String,
    pub(crate) path: String,
}

// === impl Query ===

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).take(256);
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(key, true), percent_decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value of a parameter; absent when empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether a parameter is `true` or `1`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| matches!(value, "true" | "1" | "t" | "T" | "TRUE" | "True"))
    }
}

/// Decodes `%xx` (and `+` when `form`); invalid escapes stay as they are.
pub(crate) fn percent_decode(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            (b'+', _, _) if form => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

// === impl RequestInfo ===

impl RequestInfo {
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.to_owned(), verb: method_verb(method), ..Self::default() };
        let parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(|part| percent_decode(part, false)).collect();
        let mut parts = parts.as_slice();
        match parts {
            [api, version, rest @ ..] if api == "api" && !rest.is_empty() => {
                info.version.clone_from(version);
                parts = rest;
            }
            [apis, group, version, rest @ ..] if apis == "apis" && !rest.is_empty() => {
                info.group.clone_from(group);
                info.version.clone_from(version);
                parts = rest;
            }
            _ => return info,
        }
        info.is_resource = true;
        let mut forced_watch = false;
        if let [watch, rest @ ..] = parts
            && watch == "watch"
            && !rest.is_empty()
        {
            forced_watch = true;
            parts = rest;
        }
        // `namespaces` is both a scope and a resource with two subresources of its own.
        if let [namespaces, namespace, rest @ ..] = parts
            && namespaces == "namespaces"
        {
            info.namespace.clone_from(namespace);
            if let [first, ..] = rest
                && !matches!(first.as_str(), "status" | "finalize")
            {
                parts = rest;
            }
        }
        if let [resource, rest @ ..] = parts {
            info.resource.clone_from(resource);
            if let [name, rest @ ..] = rest {
                info.name.clone_from(name);
                if let [subresource, rest @ ..] = rest {
                    info.subresource.clone_from(subresource);
                    info.rest = rest.join("/");
                }
            }
        }
        if info.resource == "namespaces" && info.group.is_empty() {
            info.name.clone_from(&info.namespace);
        }
        info.verb = resource_verb(method, &info.name, forced_watch || query.flag("watch"));
        info
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}

fn resource_verb(method: &Method, name: &str, watch: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD if name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, url: &str) -> RequestInfo {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        RequestInfo::parse(method, path, &Query::parse(Some(query)))
    }

    #[test]
    fn urls_become_attributes() {
        let info = parse(&Method::GET, "/api/v1/namespaces/default/pods/web-0/log?container=a");
        assert_eq!((info.verb, &*info.namespace, &*info.resource), ("get", "default", "pods"));
        assert_eq!((&*info.name, &*info.subresource), ("web-0", "log"));
        let info = parse(&Method::GET, "/apis/apps/v1/deployments?watch=1");
        assert_eq!((info.verb, &*info.group, &*info.namespace, &*info.name), ("watch", "apps", "", ""));
        let info = parse(&Method::PUT, "/api/v1/namespaces/blue/finalize");
        assert_eq!(
            (info.verb, &*info.resource, &*info.name, &*info.subresource),
            ("update", "namespaces", "blue", "finalize")
        );
        let info = parse(&Method::DELETE, "/api/v1/namespaces/blue/configmaps");
        assert_eq!(
            (info.verb, &*info.resource, &*info.namespace),
            ("deletecollection", "configmaps", "blue")
        );
        let info = parse(&Method::GET, "/api/v1/watch/namespaces/x/pods");
        assert_eq!((info.verb, &*info.namespace), ("watch", "x"));
        assert!(!parse(&Method::GET, "/apis/apps/v1").is_resource);
        assert!(!parse(&Method::GET, "/healthz").is_resource);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some("labelSelector=app%3Da%2Cb+in+(c)&dryRun=All&x=%zz"));
        assert_eq!(query.get("labelSelector"), Some("app=a,b in (c)"));
        assert_eq!(query.get("x"), Some("%zz"));
        assert!(query.get("y").is_none());
    }
}
