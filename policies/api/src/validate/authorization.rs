//! Rules of the security kinds.

use std::net::IpAddr;

use super::texts::url_host;
use super::{Problem, field};
use crate::authorization_policy::{Action, Condition, Operation, Source};
use crate::peer_authentication::MtlsMode;
use crate::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};

pub(super) fn peer(spec: &PeerAuthentication, _namespace: &str, problems: &mut Vec<Problem>) {
    let labels = spec.selector.as_ref().map(|it| &it.match_labels).filter(|it| !it.is_empty());
    if let Some(labels) = labels {
        field::labels(labels, "spec.selector.matchLabels", problems);
    }
    if labels.is_none() && !spec.port_level_mtls.is_empty() {
        let reason = "mesh/namespace peer authentication cannot have port level mTLS";
        problems.push(Problem::error("spec.portLevelMtls", reason, "add a selector with matchLabels"));
    }
    for (port, mtls) in &spec.port_level_mtls {
        if *port == 0 {
            problems.push(Problem::error(
                "spec.portLevelMtls.0",
                "invalid port number 0",
                "use a number from 1 to 65535",
            ));
        }
        if mtls.mode == MtlsMode::Unset {
            let reason = "mode is UNSET: the port follows the pod";
            problems.push(Problem::warning(format!("spec.portLevelMtls.{port}"), reason, "remove the entry"));
        }
    }
}

pub(super) fn request(spec: &RequestAuthentication, problems: &mut Vec<Problem>) {
    attached_once(spec.selector.is_some(), spec.target_ref.is_some(), !spec.target_refs.is_empty(), problems);
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        let path = format!("spec.jwtRules[{index}]");
        if rule.issuer.is_empty() {
            problems.push(Problem::error(
                format!("{path}.issuer"),
                "issuer must be set",
                "add the issuer of the tokens",
            ));
        }
        if !rule.jwks_uri.is_empty() {
            jwks_uri(&rule.jwks_uri, &format!("{path}.jwksUri"), problems);
        }
        if !rule.jwks.is_empty() {
            if !rule.jwks_uri.is_empty() {
                problems.push(Problem::error(
                    &path,
                    "only one of jwks or jwksUri can be set",
                    "keep one of them",
                ));
            }
            let has_keys =
                serde_json::from_str::<serde_json::Value>(&rule.jwks).is_ok_and(|it| it["keys"].is_array());
            if !has_keys {
                problems.push(Problem::error(
                    format!("{path}.jwks"),
                    "is not a JSON web key set",
                    "use {\"keys\": [...]}",
                ));
            }
        }
        field::duration(rule.timeout, &format!("{path}.timeout"), problems);
    }
}

/// Keys come from a service: never from a proxy's own machine, where its admin port and the metadata services of clouds are.
fn jwks_uri(uri: &str, path: &str, problems: &mut Vec<Problem>) {
    let Some((host, _)) = url_host(uri) else {
        let reason = format!("\"{uri}\" is not an http or https URL");
        problems.push(Problem::error(path, reason, "use https://host/path"));
        return;
    };
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    let is_local = match host.parse::<IpAddr>().map(|it| it.to_canonical()) {
        Ok(IpAddr::V4(it)) => it.is_loopback() || it.is_link_local() || it.is_unspecified(),
        Ok(IpAddr::V6(it)) => it.is_loopback() || it.is_unicast_link_local() || it.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    };
    if is_local {
        let reason = format!("\"{uri}\" must not point to the machine itself");
        problems.push(Problem::error(path, reason, "use a service of the mesh or a ServiceEntry"));
    }
}

pub(super) fn policy(spec: &AuthorizationPolicy, problems: &mut Vec<Problem>) {
    attached_once(spec.selector.is_some(), spec.target_ref.is_some(), !spec.target_refs.is_empty(), problems);
    if let Some(selector) = &spec.selector {
        field::labels(&selector.match_labels, "spec.selector.matchLabels", problems);
    }
    match (spec.action, &spec.provider) {
        (Action::Custom, None) => {
            problems.push(Problem::error(
                "spec.provider",
                "provider must be set for CUSTOM",
                "add provider.name",
            ));
        }
        (Action::Custom, Some(provider)) if provider.name.is_empty() => {
            problems.push(Problem::error(
                "spec.provider.name",
                "provider.name must not be empty",
                "name one of the mesh configuration's extensionProviders",
            ));
        }
        (Action::Custom, Some(_)) => custom(spec, problems),
        (Action::Deny, _) if spec.rules.is_empty() => {
            let fix = "add rules, or [{}] to refuse everything";
            problems.push(Problem::warning("spec.rules", "a DENY policy without rules never matches", fix));
        }
        (_, Some(_)) => {
            problems.push(Problem::error(
                "spec.provider",
                "provider must not be set unless the action is CUSTOM",
                "remove it",
            ));
        }
        _ => {}
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        for (at, from) in rule.from.iter().enumerate() {
            source(&from.source, &format!("{path}.from[{at}].source"), problems);
        }
        for (at, to) in rule.to.iter().enumerate() {
            operation(&to.operation, &format!("{path}.to[{at}].operation"), problems);
        }
        for (at, when) in rule.when.iter().enumerate() {
            condition(when, &format!("{path}.when[{at}]"), problems);
        }
    }
}

/// Istio's: a provider is asked before tokens are looked at, so it cannot depend on them.
fn custom(spec: &AuthorizationPolicy, problems: &mut Vec<Problem>) {
    for (index, rule) in spec.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        let by_token = rule.from.iter().any(|it| {
            !it.source.request_principals.is_empty() || !it.source.not_request_principals.is_empty()
        });
        if by_token || rule.when.iter().any(|it| it.key.starts_with("request.auth.")) {
            problems.push(Problem::error(
                path,
                "a rule of a CUSTOM policy must not depend on tokens",
                "use request.headers, or a DENY or ALLOW policy beside it",
            ));
        }
    }
}

fn attached_once(selector: bool, target_ref: bool, target_refs: bool, problems: &mut Vec<Problem>) {
    if [selector, target_ref, target_refs].into_iter().filter(|it| *it).count() > 1 {
        problems.push(Problem::error(
            "spec",
            "only one of targetRefs or selector can be set",
            "keep one of them",
        ));
    }
}

fn source(source: &Source, path: &str, problems: &mut Vec<Problem>) {
    let lists = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    if *source == Source::default() {
        problems.push(Problem::error(
            path,
            "source must not be empty",
            "name principals, namespaces or ipBlocks",
        ));
    }
    lists.into_iter().for_each(|(name, list)| values(list, path, name, problems));
    let blocks = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    blocks.into_iter().for_each(|(name, list)| addresses(list, &format!("{path}.{name}"), problems));
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    if accounts && others.iter().any(|it| !it.is_empty()) {
        problems.push(Problem::error(
            path,
            "Cannot set serviceAccounts with namespaces or principals",
            "keep serviceAccounts",
        ));
    }
}

fn operation(operation: &Operation, path: &str, problems: &mut Vec<Problem>) {
    if *operation == Operation::default() {
        problems.push(Problem::error(
            path,
            "operation must not be empty",
            "name hosts, ports, methods or paths",
        ));
    }
    let lists = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    lists.into_iter().for_each(|(name, list)| values(list, path, name, problems));
    for (name, list) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        ports(list, &format!("{path}.{name}"), problems);
    }
}

fn condition(condition: &Condition, path: &str, problems: &mut Vec<Problem>) {
    const KEYS: [&str; 13] = [
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "request.headers",
    ];
    let key = condition.key.as_str();
    let bracketed = ["request.headers[", "request.auth.claims["]
        .iter()
        .any(|it| key.starts_with(it) && key.ends_with(']'));
    let known = KEYS[..12].contains(&key) || bracketed;
    if key.starts_with("experimental.envoy.filters.") {
        let reason = format!(
            "attribute {key} is not supported: an allowing rule never matches, a refusing one matches more"
        );
        problems.push(Problem::warning(format!("{path}.key"), reason, "use another attribute"));
    } else if !known {
        let fix = crate::schema::nearest(key, KEYS.into_iter()).map_or_else(
            || "use a key such as source.ip or request.headers[name]".to_owned(),
            |it| format!("did you mean {it}?"),
        );
        problems.push(Problem::error(format!("{path}.key"), format!("unknown attribute {key}"), fix));
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        problems.push(Problem::error(path, "at least one of values or not_values must be set", "add values"));
    }
    for (name, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let inner = format!("{path}.{name}");
        match key {
            "source.ip" | "remote.ip" | "destination.ip" => addresses(list, &inner, problems),
            "destination.port" => ports(list, &inner, problems),
            _ => {}
        }
    }
}

fn values(list: &[String], path: &str, name: &str, problems: &mut Vec<Problem>) {
    for (index, _) in list.iter().enumerate().filter(|(_, it)| it.is_empty()) {
        problems.push(Problem::error(
            format!("{path}.{name}[{index}]"),
            "value must not be empty",
            "remove it, or use \"*\" for any",
        ));
    }
}

fn addresses(list: &[String], path: &str, problems: &mut Vec<Problem>) {
    for (index, text) in list.iter().enumerate() {
        if text.parse::<ipnet::IpNet>().is_err() && text.parse::<IpAddr>().is_err() {
            let reason = format!("\"{text}\" is not an address or network");
            problems.push(Problem::error(format!("{path}[{index}]"), reason, "write it as 10.0.0.0/8"));
        }
    }
}

fn ports(list: &[String], path: &str, problems: &mut Vec<Problem>) {
    for (index, text) in list.iter().enumerate() {
        if text.parse::<u16>().is_ok_and(|it| it > 0) {
            continue;
        }
        let reason = format!("\"{text}\" is not a port");
        problems.push(Problem::error(format!("{path}[{index}]"), reason, "use a number from 1 to 65535"));
    }
}
