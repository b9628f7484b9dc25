//! Route configurations, as `envoy.config.route.v3.RouteConfiguration`.

use serde_json::{Value, json};

use super::{header_ops, message, metadata, seconds, string_match, url};
use crate::matcher::{HeaderKey, HeaderMatch, HeaderValueMatch, QueryMatch};
use crate::retry::RetryPolicy;
use crate::route::{
    Action, PathMatch, Redirect, RedirectPath, Route, RouteConfig, RouteMatch, TlsRequirement, VirtualHost,
};
use crate::route_action::{
    ClusterChoice, HashPolicy, HashSource, HostRewrite, Mirror, PathRewrite, RouteAction,
};

/// The route configuration.
pub fn route_config(config: &RouteConfig) -> Value {
    message(&url("envoy.config.route.v3.RouteConfiguration"), fields(config))
}

/// The same without a type.
pub(super) fn fields(config: &RouteConfig) -> Value {
    let hosts: Vec<Value> = config.virtual_hosts.iter().map(|one| host(one)).collect();
    let mut fields = json!({
        "name": &*config.name,
        "virtual_hosts": hosts,
        "ignore_port_in_host_matching": config.ignore_port_in_host_matching,
        "most_specific_header_mutations_wins": config.most_specific_header_mutations_wins,
        "metadata": metadata(&config.metadata),
    });
    header_ops(&mut fields, "request", &config.request_headers);
    header_ops(&mut fields, "response", &config.response_headers);
    fields
}

fn host(host: &VirtualHost) -> Value {
    let routes: Vec<Value> = host.routes.iter().map(|one| route(one)).collect();
    let mut fields = json!({
        "name": &*host.name,
        "domains": host.domains,
        "routes": routes,
        "require_tls": match host.require_tls {
            TlsRequirement::None => "",
            TlsRequirement::ExternalOnly => "EXTERNAL_ONLY",
            TlsRequirement::All => "ALL",
        },
        "retry_policy": host.retry.as_deref().map(retry),
        "request_mirror_policies": mirrors(&host.mirrors),
        "include_request_attempt_count": host.include_request_attempt_count,
        "include_attempt_count_in_response": host.include_attempt_count_in_response,
        "metadata": metadata(&host.metadata),
    });
    header_ops(&mut fields, "request", &host.request_headers);
    header_ops(&mut fields, "response", &host.response_headers);
    fields
}

fn route(route: &Route) -> Value {
    let mut fields = json!({
        "name": &*route.name,
        "match": matches(&route.matches),
        "metadata": metadata(&route.metadata),
        "decorator": route.decorator.as_ref().map(|operation| json!({ "operation": operation })),
        "stat_prefix": route.stat_prefix,
    });
    match &route.action {
        Action::Forward(action) => fields["route"] = forward(action),
        Action::Redirect(to) => fields["redirect"] = redirect(to),
        Action::DirectResponse(direct) => {
            let body = String::from_utf8_lossy(&direct.body);
            fields["direct_response"] =
                json!({ "status": direct.status.as_u16(), "body": { "inline_string": body } });
        }
        Action::NonForwarding => fields["non_forwarding_action"] = json!({}),
    }
    header_ops(&mut fields, "request", &route.request_headers);
    header_ops(&mut fields, "response", &route.response_headers);
    fields
}

fn matches(of: &RouteMatch) -> Value {
    let headers: Vec<Value> = of.headers.iter().map(header).collect();
    let query: Vec<Value> = of.query.iter().map(parameter).collect();
    let mut fields = json!({
        "headers": headers,
        "query_parameters": query,
        "grpc": of.grpc.then(|| json!({})),
        "case_sensitive": of.case_sensitive,
    });
    match &of.path {
        PathMatch::Exact(path) => fields["path"] = json!(path),
        PathMatch::Prefix(prefix) => fields["prefix"] = json!(prefix),
        PathMatch::PathSeparatedPrefix(prefix) => fields["path_separated_prefix"] = json!(prefix),
        PathMatch::Regex(regex) | PathMatch::Template(regex) => {
            fields["safe_regex"] = json!({ "regex": regex.as_str() });
        }
        PathMatch::Connect => fields["connect_matcher"] = json!({}),
    }
    fields
}

fn header(of: &HeaderMatch) -> Value {
    let name = key_name(&of.key);
    let mut fields = json!({
        "name": name,
        "invert_match": of.invert,
        "treat_missing_header_as_empty": of.treat_missing_as_empty,
    });
    match &of.value {
        HeaderValueMatch::Present => fields["present_match"] = true.into(),
        HeaderValueMatch::String(matcher) => fields["string_match"] = string_match(matcher),
        HeaderValueMatch::Range { start, end } => {
            fields["range_match"] = json!({ "start": start.to_string(), "end": end.to_string() });
        }
    }
    fields
}

fn parameter(of: &QueryMatch) -> Value {
    match &of.value {
        None => json!({ "name": of.name, "present_match": true }),
        Some(matcher) => json!({ "name": of.name, "string_match": string_match(matcher) }),
    }
}

fn forward(action: &RouteAction) -> Value {
    let mut fields = json!({
        "timeout": seconds(action.timeout.unwrap_or_default()),
        "retry_policy": action.retry.as_deref().map(retry),
        "request_mirror_policies": mirrors(&action.mirrors),
        "hash_policy": action.hash_policy.iter().map(hash).collect::<Vec<_>>(),
        "append_x_forwarded_host": action.append_x_forwarded_host,
        "priority": if action.high_priority { "HIGH" } else { "" },
        "metadata_match": metadata(&action.metadata_match),
    });
    match &action.cluster {
        ClusterChoice::Single(name) => fields["cluster"] = (&**name).into(),
        ClusterChoice::Header(name) => fields["cluster_header"] = name.as_str().into(),
        ClusterChoice::Weighted(weighted) => {
            let one = |cluster: &crate::WeightedCluster| {
                let mut fields = json!({
                    "name": &*cluster.name, "weight": cluster.weight, "host_rewrite_literal": cluster.host_rewrite,
                });
                header_ops(&mut fields, "request", &cluster.request_headers);
                header_ops(&mut fields, "response", &cluster.response_headers);
                fields
            };
            let all: Vec<Value> = weighted.clusters.iter().map(one).collect();
            fields["weighted_clusters"] = json!({ "clusters": all });
        }
    }
    match &action.path_rewrite {
        None => {}
        Some(PathRewrite::Prefix(to)) => fields["prefix_rewrite"] = json!(to),
        Some(PathRewrite::Full(to)) => fields["path_rewrite"] = json!(to),
        Some(PathRewrite::Regex(rewrite)) => fields["regex_rewrite"] = regex_rewrite(rewrite),
    }
    match &action.host_rewrite {
        Some(HostRewrite::Literal(host)) => fields["host_rewrite_literal"] = json!(host),
        Some(HostRewrite::Auto) => fields["auto_host_rewrite"] = true.into(),
        Some(HostRewrite::Header(name)) => fields["host_rewrite_header"] = name.as_str().into(),
        _ => {}
    }
    fields
}

fn regex_rewrite(rewrite: &crate::matcher::RegexRewrite) -> Value {
    let plain = super::to_json(rewrite);
    json!({ "pattern": { "regex": plain["pattern"] }, "substitution": plain["replacement"] })
}

fn mirrors(all: &[Mirror]) -> Vec<Value> {
    let one = |mirror: &Mirror| {
        json!({
            "cluster": &*mirror.cluster,
            "runtime_fraction": { "default_value": {
                "numerator": mirror.fraction.per_million, "denominator": "MILLION"
            } },
        })
    };
    all.iter().map(one).collect()
}

fn hash(policy: &HashPolicy) -> Value {
    let mut fields = json!({ "terminal": policy.terminal });
    match &policy.source {
        HashSource::Header { name, .. } => fields["header"] = json!({ "header_name": key_name(name) }),
        HashSource::Cookie { name, ttl, path, .. } => {
            fields["cookie"] = json!({ "name": name, "ttl": ttl.map(seconds), "path": path });
        }
        HashSource::SourceIp => fields["connection_properties"] = json!({ "source_ip": true }),
        HashSource::Query(name) => fields["query_parameter"] = json!({ "name": name }),
        HashSource::FilterState(key) => fields["filter_state"] = json!({ "key": key }),
    }
    fields
}

fn redirect(to: &Redirect) -> Value {
    let code = match to.status.as_u16() {
        302 => "FOUND",
        303 => "SEE_OTHER",
        307 => "TEMPORARY_REDIRECT",
        308 => "PERMANENT_REDIRECT",
        _ => "",
    };
    let mut fields = json!({
        "response_code": code,
        "scheme_redirect": to.scheme,
        "host_redirect": to.host,
        "port_redirect": to.port,
        "strip_query": to.strip_query,
    });
    match &to.path {
        Some(RedirectPath::Path(path)) => fields["path_redirect"] = json!(path),
        Some(RedirectPath::Prefix(prefix)) => fields["prefix_rewrite"] = json!(prefix),
        _ => {}
    }
    fields
}

fn retry(policy: &RetryPolicy) -> Value {
    json!({
        "retry_on": policy.on.to_string(),
        "num_retries": policy.num_retries,
        "per_try_timeout": policy.per_try_timeout.map(seconds),
        "retry_back_off": {
            "base_interval": seconds(policy.back_off_base), "max_interval": seconds(policy.back_off_max),
        },
        "retriable_status_codes": policy.retriable_status_codes,
        "host_selection_retry_max_attempts": policy.host_selection_attempts_max.to_string(),
    })
}

fn key_name(key: &HeaderKey) -> &str {
    match key {
        HeaderKey::Method => ":method",
        HeaderKey::Authority => ":authority",
        HeaderKey::Path => ":path",
        HeaderKey::Scheme => ":scheme",
        HeaderKey::Name(name) => name.as_str(),
    }
}
