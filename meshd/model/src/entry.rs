//! `ServiceEntry` objects as services and endpoints of the registry.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use policies_api::ServiceEntry;
use policies_api::matching::selects;
use policies_api::names::labels;
use policies_api::service_entry::WorkloadEntry;

use crate::object::Config;
use crate::protocol::Protocol;
use crate::proxy::Locality;
use crate::service::{
    Endpoint, EndpointAddress, Health, Resolution, Service, ServicePort, TargetPort, Workload,
};

/// One service for each host of the entry.
#[must_use]
pub fn services(entry: &Config<ServiceEntry>) -> Vec<Service> {
    let spec = &entry.spec;
    spec.hosts
        .iter()
        .map(|host| Service {
            host: host.to_ascii_lowercase().into(),
            namespace: Arc::clone(&entry.namespace),
            name: Arc::clone(&entry.name),
            created: entry.created,
            addresses: spec.addresses.iter().filter_map(|text| network(text)).collect(),
            ports: spec.ports.iter().filter_map(port).collect(),
            resolution: resolution(&spec.resolution),
            external: spec.location != "MESH_INTERNAL",
            from_entry: true,
            export_to: spec.export_to.clone(),
            subject_alt_names: spec.subject_alt_names.clone(),
            ..Service::default()
        })
        .collect()
}

/// The endpoints of the service of one host: those written by hand, or the pods that the selector selects.
#[must_use]
pub fn endpoints<'a>(
    entry: &Config<ServiceEntry>,
    service: &Service,
    workloads: impl Iterator<Item = &'a Arc<Workload>>,
) -> Vec<Endpoint> {
    match &entry.spec.workload_selector {
        Some(selector) => {
            let selected = workloads
                .filter(|it| it.namespace == entry.namespace && selects(&selector.labels, &it.labels));
            selected.flat_map(|it| of_workload(service, it)).collect()
        }
        None if entry.spec.endpoints.is_empty() => of_host(entry, service),
        None => entry.spec.endpoints.iter().flat_map(|written| of_written(entry, service, written)).collect(),
    }
}

/// A single address or a network.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn port(port: &policies_api::gateway::Port) -> Option<ServicePort> {
    let number = u16::try_from(port.number).ok().filter(|it| *it > 0)?;
    let target = port.target_port.and_then(|it| u16::try_from(it).ok()).unwrap_or(number);
    let protocol = Protocol::parse(&port.protocol)
        .unwrap_or_else(|| Protocol::of_service_port(number, &port.name, None, "TCP"));
    Some(ServicePort {
        name: port.name.as_str().into(),
        port: number,
        protocol,
        target: TargetPort::Number(target),
    })
}

fn resolution(text: &str) -> Resolution {
    match text {
        "STATIC" => Resolution::Static,
        "DNS" => Resolution::Dns,
        "DNS_ROUND_ROBIN" => Resolution::DnsRoundRobin,
        _ => Resolution::Passthrough,
    }
}

fn of_workload<'a>(service: &'a Service, workload: &'a Arc<Workload>) -> impl Iterator<Item = Endpoint> + 'a {
    service.ports.iter().filter_map(move |port| {
        Some(Endpoint {
            address: EndpointAddress::Ip(*workload.ips.first()?),
            port: port.target_of(workload)?,
            service_port: port.port,
            workload: Arc::clone(workload),
            health: Health::Ready,
            weight: 1,
        })
    })
}

/// A DNS entry without endpoints resolves its own host.
fn of_host(entry: &Config<ServiceEntry>, service: &Service) -> Vec<Endpoint> {
    let is_dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if !is_dns || service.host.starts_with('*') {
        return Vec::new();
    }
    let written = WorkloadEntry { address: service.host.to_string(), ..WorkloadEntry::default() };
    of_written(entry, service, &written)
}

fn of_written(entry: &Config<ServiceEntry>, service: &Service, written: &WorkloadEntry) -> Vec<Endpoint> {
    let address = match written.address.parse::<IpAddr>() {
        Ok(ip) => EndpointAddress::Ip(ip),
        Err(_) => EndpointAddress::Name(written.address.as_str().into()),
    };
    let ips = match &address {
        EndpointAddress::Ip(ip) => vec![*ip],
        EndpointAddress::Name(_) => Vec::new(),
    };
    let workload = Arc::new(Workload {
        namespace: Arc::clone(&entry.namespace),
        name: Arc::clone(&entry.name),
        workload_name: Arc::clone(&entry.name),
        ips,
        labels: Arc::new(written.labels.clone()),
        service_account: written.service_account.as_str().into(),
        locality: Locality::parse(&written.locality),
        mutual_tls: written.labels.get(labels::TLS_MODE).is_some_and(|mode| mode == "istio"),
        ..Workload::default()
    });
    let ports = service.ports.iter().map(|port| {
        let by_name = written.ports.get(&*port.name).and_then(|it| u16::try_from(*it).ok());
        Endpoint {
            address: address.clone(),
            port: by_name.or_else(|| port.target_of(&workload)).unwrap_or(port.port),
            service_port: port.port,
            workload: Arc::clone(&workload),
            health: Health::Ready,
            weight: written.weight.max(1),
        }
    });
    ports.collect()
}
