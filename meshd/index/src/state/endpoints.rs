//! Endpoint slices, joined with the pods behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meshd_model::{Endpoint, EndpointAddress, Health, ObjectKey, Service, Workload, Workloads};
use serde_json::Value;

use super::Object;

/// Label that names the service of a slice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// What is needed of an endpoint slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    pub(super) service: ObjectKey,
    /// Name and number.
    ports: Vec<(Arc<str>, u16)>,
    endpoints: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq)]
struct Member {
    address: EndpointAddress,
    health: Health,
    pod: Option<Arc<str>>,
    node: Arc<str>,
}

// === impl Slice ===

impl Slice {
    /// Whether some endpoint is this pod.
    pub(super) fn refers_to(&self, pod: &str) -> bool {
        self.endpoints.iter().any(|it| it.pod.as_deref() == Some(pod))
    }
}

/// The slice of an object; none when it belongs to no service.
pub(super) fn read(object: &Object) -> Option<Slice> {
    let service = object.meta.labels.get(SERVICE_LABEL)?;
    let is_name = object.text("/addressType") == "FQDN";
    let ports = object.list("/ports").iter().filter_map(|it| {
        let number = it["port"].as_u64().and_then(|it| u16::try_from(it).ok()).filter(|it| *it > 0)?;
        Some((Arc::from(it["name"].as_str().unwrap_or_default()), number))
    });
    let endpoints = object.list("/endpoints").iter().flat_map(|it| members(it, is_name));
    Some(Slice {
        service: (Arc::clone(&object.meta.namespace), service.as_str().into()),
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    })
}

fn members(written: &Value, is_name: bool) -> impl Iterator<Item = Member> {
    let condition = |name: &str| written["conditions"][name].as_bool();
    let health = match (condition("ready"), condition("serving"), condition("terminating")) {
        // Absent means ready, as the API says.
        (None | Some(true), _, _) => Health::Ready,
        (Some(false), Some(true), Some(true)) => Health::Draining,
        (Some(false), _, _) => Health::NotReady,
    };
    let is_pod = written["targetRef"]["kind"] == "Pod";
    let pod = if is_pod { written["targetRef"]["name"].as_str().map(Arc::from) } else { None };
    let node: Arc<str> = written["nodeName"].as_str().unwrap_or_default().into();
    let addresses = written["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
    addresses.filter_map(move |it| {
        let address =
            if is_name { EndpointAddress::Name(it.into()) } else { EndpointAddress::Ip(it.parse().ok()?) };
        Some(Member { address, health, pod: pod.clone(), node: Arc::clone(&node) })
    })
}

/// The endpoints of a service, in the order of slices.
pub(super) fn of_service(
    service: &Service,
    key: &ObjectKey,
    slices: &BTreeMap<ObjectKey, Slice>,
    workloads: &Workloads,
) -> Vec<Endpoint> {
    if let Some(name) = &service.external_name {
        return of_external_name(service, name);
    }
    let own = slices
        .iter()
        .filter(|((namespace, _), slice)| *namespace == key.0 && slice.service == *key)
        .map(|(_, slice)| slice);
    let mut found = Vec::new();
    for slice in own {
        for member in &slice.endpoints {
            let workload = workload(member, &key.0, workloads);
            // The pod says so before its slices do, and every moment counts.
            let leaves = workload.leaving.is_some() && member.health == Health::Ready;
            let health = if leaves { Health::Draining } else { member.health };
            for (name, number) in &slice.ports {
                // A slice's port serves the service's port of the same name.
                let Some(port) = service.ports.iter().find(|it| it.name == *name) else { continue };
                found.push(Endpoint {
                    address: member.address.clone(),
                    port: *number,
                    service_port: port.port,
                    workload: Arc::clone(&workload),
                    health,
                    weight: 1,
                });
            }
        }
    }
    found
}

fn of_external_name(service: &Service, name: &Arc<str>) -> Vec<Endpoint> {
    let workload = Arc::new(Workload { namespace: Arc::clone(&service.namespace), ..Workload::default() });
    let ports = service.ports.iter().map(|port| Endpoint {
        address: EndpointAddress::Name(Arc::clone(name)),
        port: port.target_of(&workload).unwrap_or(port.port),
        service_port: port.port,
        workload: Arc::clone(&workload),
        health: Health::Ready,
        weight: 1,
    });
    ports.collect()
}

fn workload(member: &Member, namespace: &Arc<str>, workloads: &Workloads) -> Arc<Workload> {
    let by_name = member.pod.as_ref().and_then(|pod| workloads.named(namespace, pod));
    let by_address = || match member.address {
        EndpointAddress::Ip(ip) => workloads.at(ip),
        EndpointAddress::Name(_) => None,
    };
    by_name.or_else(by_address).cloned().unwrap_or_else(|| {
        let ips: Vec<IpAddr> = match member.address {
            EndpointAddress::Ip(ip) => vec![ip],
            EndpointAddress::Name(_) => Vec::new(),
        };
        Arc::new(Workload {
            namespace: Arc::clone(namespace),
            node: Arc::clone(&member.node),
            ips,
            ..Workload::default()
        })
    })
}

/// Namespaces and service accounts behind endpoints.
pub(super) fn accounts(endpoints: &[Endpoint]) -> BTreeSet<(&str, &str)> {
    endpoints.iter().map(|it| (&*it.workload.namespace, &*it.workload.service_account)).collect()
}
