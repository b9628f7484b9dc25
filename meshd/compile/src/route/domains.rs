//! The names by which clients call a service.

use std::collections::HashSet;

use meshd_model::Service;

use crate::proto::is_single;
use crate::view::View;

/// Domains of a virtual host, none of which was used before in the same configuration (`used` remembers).
pub(crate) fn of_service(
    view: &View<'_>,
    service: &Service,
    port: u16,
    used: &mut HashSet<String>,
) -> Vec<String> {
    let mut names = of_host(&service.host, port, used);
    if !service.from_entry {
        for name in short_names(view, service) {
            names.extend(of_host(&name, port, used));
        }
    }
    for ip in service.addresses.iter().filter_map(is_single) {
        names.extend(of_host(&bracketed(&ip.to_string()), port, used));
    }
    names
}

/// A name with and without its port.
pub(crate) fn of_host(host: &str, port: u16, used: &mut HashSet<String>) -> Vec<String> {
    let candidates = match host {
        "*" => vec!["*".to_owned()],
        host => vec![host.to_owned(), format!("{host}:{port}")],
    };
    candidates.into_iter().filter(|it| used.insert(it.clone())).collect()
}

/// What a resolver in the client's pod completes: name, name.namespace, name.namespace.svc, and the absolute form.
fn short_names(view: &View<'_>, service: &Service) -> Vec<String> {
    let qualified = format!("{}.{}", service.name, service.namespace);
    let mut names = vec![format!("{qualified}.svc"), qualified];
    if service.namespace == view.proxy.namespace {
        names.push(service.name.to_string());
    }
    names.push(format!("{}.", service.host));
    names
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}
