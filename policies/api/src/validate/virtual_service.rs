//! Rules of `VirtualService`.

use super::http_route;
use super::{Problem, field};
use crate::VirtualService;
use crate::virtual_service::{RouteDestination, TcpMatch, TlsMatch};

pub(super) fn check(spec: &VirtualService, problems: &mut Vec<Problem>) {
    let is_delegate = spec.hosts.is_empty();
    if is_delegate {
        delegate(spec, problems);
    }
    let uses_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|it| it == "mesh");
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        field::host(host, true, &path, problems);
        if host == "*" && uses_mesh {
            let fix = "name the hosts, or bind the object to a gateway";
            problems.push(Problem::error(
                path,
                "wildcard host * is not allowed for virtual services bound to the mesh gateway",
                fix,
            ));
        } else if spec.hosts[..index].contains(host) {
            problems.push(Problem::error(
                path,
                format!("duplicate host \"{host}\" in virtual service"),
                "remove it",
            ));
        }
    }
    for (index, gateway) in spec.gateways.iter().enumerate() {
        let name = gateway.rsplit('/').next().unwrap_or_default();
        if name.is_empty() || gateway.matches('/').count() > 1 || gateway.contains(char::is_whitespace) {
            let path = format!("spec.gateways[{index}]");
            problems.push(Problem::error(
                path,
                format!("\"{gateway}\" is not a gateway"),
                "use name, or namespace/name",
            ));
        }
    }
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() && !is_delegate {
        problems.push(Problem::error(
            "spec",
            "http, tcp or tls must be provided in virtual service",
            "add at least one rule",
        ));
    }
    for (index, rule) in spec.http.iter().enumerate() {
        http_route::check(rule, &format!("spec.http[{index}]"), is_delegate, problems);
    }
    http_route::shadowed(&spec.http, problems);
    for (index, rule) in spec.tls.iter().enumerate() {
        let path = format!("spec.tls[{index}]");
        if rule.matches.is_empty() {
            problems.push(Problem::error(
                &path,
                "TLS route must have at least one match",
                "add a match with sniHosts",
            ));
        }
        for (at, matched) in rule.matches.iter().enumerate() {
            tls_match(matched, spec, &format!("{path}.match[{at}]"), problems);
        }
        destinations(&rule.route, &path, "TLS", problems);
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        let path = format!("spec.tcp[{index}]");
        for (at, matched) in rule.matches.iter().enumerate() {
            tcp_match(matched, &format!("{path}.match[{at}]"), problems);
        }
        destinations(&rule.route, &path, "TCP", problems);
    }
    field::export_to(&spec.export_to, problems);
}

fn delegate(spec: &VirtualService, problems: &mut Vec<Problem>) {
    if !spec.gateways.is_empty() {
        problems.push(Problem::error(
            "spec.gateways",
            "delegate virtual service must have no gateways specified",
            "remove them",
        ));
    }
    for (name, is_empty) in [("tls", spec.tls.is_empty()), ("tcp", spec.tcp.is_empty())] {
        if !is_empty {
            let reason = format!("delegate virtual service must have no {name} routes");
            problems.push(Problem::error(format!("spec.{name}"), reason, "remove them"));
        }
    }
    if spec.http.is_empty() {
        problems.push(Problem::error(
            "spec.hosts",
            "virtual service must have at least one host",
            "add the hosts the rules are for",
        ));
    }
}

fn tls_match(matched: &TlsMatch, spec: &VirtualService, path: &str, problems: &mut Vec<Problem>) {
    if matched.sni_hosts.is_empty() {
        problems.push(Problem::error(
            format!("{path}.sniHosts"),
            "TLS match must have at least one SNI host",
            "add one",
        ));
    }
    for (index, name) in matched.sni_hosts.iter().enumerate() {
        let inner = format!("{path}.sniHosts[{index}]");
        field::host(name, true, &inner, problems);
        let covered = spec.hosts.iter().any(|host| match host.strip_prefix('*') {
            Some(suffix) => name.trim_start_matches('*').ends_with(suffix),
            None => host == name,
        });
        if !covered {
            let reason =
                format!("SNI host \"{name}\" is not a compatible subset of any of the virtual service hosts");
            problems.push(Problem::error(inner, reason, "add it to spec.hosts"));
        }
    }
    subnets(&matched.destination_subnets, path, problems);
    if let Some(port) = matched.port {
        field::port(port, &format!("{path}.port"), problems);
    }
}

fn tcp_match(matched: &TcpMatch, path: &str, problems: &mut Vec<Problem>) {
    subnets(&matched.destination_subnets, path, problems);
    if let Some(port) = matched.port {
        field::port(port, &format!("{path}.port"), problems);
    }
    if !matched.source_subnet.is_empty() {
        let fix = "match by sourceLabels or sourceNamespace";
        problems.push(Problem::warning(format!("{path}.sourceSubnet"), "sourceSubnet has no effect", fix));
    }
}

fn subnets(list: &[String], path: &str, problems: &mut Vec<Problem>) {
    for (index, subnet) in list.iter().enumerate() {
        if subnet.parse::<ipnet::IpNet>().is_err() && subnet.parse::<std::net::IpAddr>().is_err() {
            let inner = format!("{path}.destinationSubnets[{index}]");
            problems.push(Problem::error(
                inner,
                format!("\"{subnet}\" is not an address or network"),
                "write it as 10.0.0.0/8",
            ));
        }
    }
}

fn destinations(list: &[RouteDestination], path: &str, kind: &str, problems: &mut Vec<Problem>) {
    let path = format!("{path}.route");
    if list.is_empty() {
        problems.push(Problem::error(&path, format!("{kind} route is required"), "add a destination"));
    }
    for (index, target) in list.iter().enumerate() {
        field::destination(&target.destination, &format!("{path}[{index}].destination"), problems);
    }
    field::weights(list.iter().map(|it| it.weight), &path, problems);
}
