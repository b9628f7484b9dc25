//! Rules of `ServiceEntry`.

use super::texts::is_label;
use super::{Problem, field};
use crate::ServiceEntry;

pub(super) fn check(spec: &ServiceEntry, problems: &mut Vec<Problem>) {
    if spec.hosts.is_empty() {
        problems.push(Problem::error(
            "spec.hosts",
            "service entry must have at least one host",
            "add a host",
        ));
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host == "*" {
            problems.push(Problem::error(
                path,
                format!("invalid host {host}"),
                "name the hosts, or use a wildcard such as *.example.com",
            ));
        } else {
            field::host(host, true, &path, problems);
        }
    }
    let is_open = matches!(spec.resolution.as_str(), "" | "NONE");
    for (index, address) in spec.addresses.iter().enumerate() {
        let path = format!("spec.addresses[{index}]");
        let is_network = address.contains('/');
        if address.parse::<ipnet::IpNet>().is_err() && address.parse::<std::net::IpAddr>().is_err() {
            problems.push(Problem::error(
                path,
                format!("\"{address}\" is not an address or network"),
                "write it as 10.0.0.1",
            ));
        } else if is_network && !(is_open || spec.resolution == "STATIC") {
            let reason = "CIDR addresses are allowed only for NONE/STATIC resolution types";
            problems.push(Problem::error(path, reason, "use single addresses"));
        }
    }
    ports(spec, problems);
    endpoints(spec, problems);
    field::export_to(&spec.export_to, problems);
}

fn ports(spec: &ServiceEntry, problems: &mut Vec<Problem>) {
    for (index, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        field::port(port.number, &format!("{path}.number"), problems);
        if spec.ports[..index].iter().any(|it| it.number == port.number) {
            let reason = format!("service entry port number {} already defined", port.number);
            problems.push(Problem::error(format!("{path}.number"), reason, "remove one of them"));
        }
        if spec.ports[..index].iter().any(|it| it.name == port.name) {
            let reason = format!("service entry port name \"{}\" already defined", port.name);
            problems.push(Problem::error(format!("{path}.name"), reason, "give each port its own name"));
        }
        if !is_label(&port.name, false) {
            problems.push(Problem::error(
                format!("{path}.name"),
                format!("port name \"{}\" is invalid", port.name),
                "use a DNS label",
            ));
        }
    }
    if spec.ports.is_empty() && spec.resolution.starts_with("DNS") {
        problems.push(Problem::error(
            "spec.ports",
            "service entry with DNS resolution must have a port",
            "add the ports",
        ));
    }
}

fn endpoints(spec: &ServiceEntry, problems: &mut Vec<Problem>) {
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        problems.push(Problem::error(
            "spec",
            "only one of WorkloadSelector or Endpoints is allowed in Service Entry",
            "keep one of them",
        ));
    }
    let is_open = matches!(spec.resolution.as_str(), "" | "NONE");
    if is_open && !spec.endpoints.is_empty() {
        let reason = "no endpoints should be provided for resolution type none";
        problems.push(Problem::error("spec.endpoints", reason, "use resolution STATIC or DNS"));
    }
    if spec.resolution == "STATIC" && spec.endpoints.is_empty() && spec.workload_selector.is_none() {
        let reason = "endpoints must be provided if service entry resolution mode is static";
        problems.push(Problem::error("spec.endpoints", reason, "add endpoints with addresses"));
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}].address");
        let is_socket = endpoint.address.starts_with("unix://");
        let is_address = endpoint.address.parse::<std::net::IpAddr>().is_ok();
        if endpoint.address.is_empty() && endpoint.network.is_empty() {
            problems.push(Problem::error(path, "address is required", "add an address"));
        } else if spec.resolution == "STATIC" && !is_socket && !is_address {
            let reason = format!("endpoint address \"{}\" is not an IP address", endpoint.address);
            problems.push(Problem::error(path, reason, "use an IP address, or resolution DNS"));
        }
    }
    let is_wildcard_dns =
        spec.resolution.starts_with("DNS") && spec.endpoints.is_empty() && spec.workload_selector.is_none();
    if is_wildcard_dns && spec.hosts.iter().any(|it| it.starts_with('*')) {
        let reason = "hosts must be FQDN if no endpoints are provided for resolution mode DNS";
        problems.push(Problem::error("spec.hosts", reason, "name each host, or add endpoints"));
    }
}
