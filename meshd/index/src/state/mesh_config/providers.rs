//! `extensionProviders` of the mesh configuration: those that authorize requests.

use std::collections::HashSet;

use meshd_model::{AuthzBody, AuthzProtocol, AuthzProvider};
use serde_json::Value;

/// The providers. One that cannot be understood is left out with a warning: what refers to it is refused, as with one that is missing.
pub(super) fn read(written: &Value) -> Vec<AuthzProvider> {
    let all = written.get("extensionProviders").and_then(Value::as_array);
    let mut names = HashSet::new();
    let mut providers = Vec::new();
    for one in all.into_iter().flatten() {
        let grpc = one.get("envoyExtAuthzGrpc").map(|it| (it, AuthzProtocol::Grpc));
        let http = one.get("envoyExtAuthzHttp").map(|it| (it, http(it)));
        let Some((settings, protocol)) = grpc.or(http) else { continue };
        match provider(one, settings, protocol) {
            Ok(provider) if names.insert(provider.name.clone()) => providers.push(provider),
            Ok(provider) => tracing::warn!(provider = provider.name, "Extension provider stands twice"),
            Err(reason) => tracing::warn!(reason, provider = %one, "Extension provider cannot be used"),
        }
    }
    providers
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(of: &Value, key: &str) -> bool {
    of.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn texts(of: &Value, key: &str) -> Vec<String> {
    let list = of.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn provider(
    written: &Value,
    settings: &Value,
    protocol: AuthzProtocol,
) -> Result<AuthzProvider, &'static str> {
    let name = text(written, "name");
    if name.is_empty() {
        return Err("name must not be empty");
    }
    let service = text(settings, "service");
    if service.is_empty() {
        return Err("service must not be empty");
    }
    let port = settings.get("port").and_then(Value::as_u64).and_then(|it| u16::try_from(it).ok());
    let port = port.filter(|it| *it > 0).ok_or("port must be in the range 1..65535")?;
    let status_on_error = match text(settings, "statusOnError") {
        "" => None,
        status => {
            let status = status.parse::<u16>().ok().filter(|it| (200..600).contains(it));
            Some(status.ok_or("statusOnError must be a status of HTTP")?)
        }
    };
    let timeout = match text(settings, "timeout") {
        "" => None,
        written => Some(base_types::duration::parse(written).map_err(|_| "timeout must be a duration")?),
    };
    let body = match settings.get("includeRequestBodyInCheck") {
        None => None,
        Some(body) => {
            let most = body.get("maxRequestBytes").and_then(Value::as_u64).unwrap_or_default();
            let most = u32::try_from(most).ok().filter(|it| *it > 0);
            Some(AuthzBody {
                max_request_bytes: most.ok_or("maxRequestBytes must be above 0")?,
                allow_partial_message: flag(body, "allowPartialMessage"),
                pack_as_bytes: flag(body, "packAsBytes"),
            })
        }
    };
    Ok(AuthzProvider {
        name: name.to_owned(),
        service: service.to_owned(),
        port,
        timeout,
        fail_open: flag(settings, "failOpen"),
        status_on_error,
        clear_route_cache: flag(settings, "clearRouteCache"),
        body,
        protocol,
    })
}

fn http(settings: &Value) -> AuthzProtocol {
    let mut include_request_headers = texts(settings, "includeRequestHeadersInCheck");
    // The older name of the same.
    include_request_headers.extend(texts(settings, "includeHeadersInCheck"));
    let additional = settings.get("includeAdditionalHeadersInCheck").and_then(Value::as_object);
    let additional = additional.into_iter().flatten();
    AuthzProtocol::Http {
        path_prefix: text(settings, "pathPrefix").to_owned(),
        include_request_headers,
        include_additional_headers: additional
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        headers_to_upstream_on_allow: texts(settings, "headersToUpstreamOnAllow"),
        headers_to_downstream_on_allow: texts(settings, "headersToDownstreamOnAllow"),
        headers_to_downstream_on_deny: texts(settings, "headersToDownstreamOnDeny"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn providers_are_read_by_istios_names_and_bad_ones_left_out() {
        let written = json!({ "extensionProviders": [
            { "name": "grpc", "envoyExtAuthzGrpc": { "service": "authz.foo.svc.cluster.local", "port": 9000, "timeout": "1.5s",
              "statusOnError": "503", "failOpen": true, "includeRequestBodyInCheck": { "maxRequestBytes": 100 } } },
            { "name": "http", "envoyExtAuthzHttp": { "service": "foo/authz.example", "port": 8000, "pathPrefix": "/check",
              "includeRequestHeadersInCheck": ["x-*"], "includeHeadersInCheck": ["cookie"] } },
            { "name": "trace", "zipkin": { "service": "zipkin", "port": 9411 } },
            { "name": "http", "envoyExtAuthzHttp": { "service": "other", "port": 1 } },
            { "name": "", "envoyExtAuthzGrpc": { "service": "a", "port": 1 } },
            { "name": "no-port", "envoyExtAuthzGrpc": { "service": "a" } },
            { "name": "status", "envoyExtAuthzGrpc": { "service": "a", "port": 1, "statusOnError": "99" } },
            { "name": "body", "envoyExtAuthzGrpc": { "service": "a", "port": 1, "includeRequestBodyInCheck": {} } },
        ] });
        let providers = read(&written);
        let names: Vec<&str> = providers.iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["grpc", "http"]);
        let grpc = &providers[0];
        assert_eq!((grpc.status_on_error, grpc.fail_open), (Some(503), true));
        assert_eq!(grpc.timeout, Some(std::time::Duration::from_millis(1500)));
        assert_eq!(grpc.body.unwrap().max_request_bytes, 100);
        let AuthzProtocol::Http { path_prefix, include_request_headers, .. } = &providers[1].protocol else {
            panic!("{providers:?}")
        };
        assert_eq!(path_prefix, "/check");
        assert_eq!(include_request_headers, &["x-*", "cookie"]);
        assert_eq!(providers[1].service, "foo/authz.example");
    }
}
