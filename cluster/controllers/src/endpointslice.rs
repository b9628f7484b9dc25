//! EndpointSlices: the pods behind each Service that has a selector.

mod slices;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Value, json};

use crate::{
    cache::{Change, Key},
    hub::Caches,
    plan::{Action, Kind, Plan},
    pod,
    queue::Queue,
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Brings the slices of a Service closer to the pods it selects.
pub fn reconcile(caches: &Caches, key: &Key) -> Plan {
    let mine: Vec<_> = caches
        .endpoint_slices
        .in_namespace(&key.namespace)
        .into_iter()
        .filter(|slice| service_of(slice).as_ref() == Some(key))
        .collect();
    let service = caches.services.get(key).filter(|service| service.metadata.deletion_timestamp.is_none());
    let Some(service) = service else {
        let delete = |slice: &Arc<EndpointSlice>| {
            Action::delete(Kind::EndpointSlice, Key::of(&**slice), slice.metadata.uid.clone())
        };
        return Plan::of(mine.iter().map(delete).collect());
    };
    if selector(&service).is_none() {
        return Plan::nothing();
    }
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let families = if families.is_empty() { vec!["IPv4".to_owned()] } else { families };
    let mut actions = Vec::new();
    for family in &families {
        let wanted = wanted(caches, &service, family);
        let existing: Vec<_> = mine.iter().filter(|slice| slice.address_type == *family).cloned().collect();
        actions.extend(slices::plan(&service, family, wanted, &existing));
    }
    let stray = mine.iter().filter(|slice| !families.contains(&slice.address_type));
    actions.extend(
        stray.map(|slice| Action::delete(Kind::EndpointSlice, Key::of(&**slice), slice.metadata.uid.clone())),
    );
    Plan::of(actions)
}

/// The selector of a Service that has one and whose endpoints are pods.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty() && spec.type_.as_deref() != Some("ExternalName"))
}

/// A set of ports, in the order of the Service, and the endpoints that have these ports.
type Wanted = Vec<(Vec<EndpointPort>, Vec<Endpoint>)>;

fn wanted(caches: &Caches, service: &Service, family: &str) -> Wanted {
    let (Some(selector), Some(spec)) = (selector(service), &service.spec) else { return Vec::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut groups: Wanted = Vec::new();
    for pod in caches.pods.in_namespace(namespace) {
        let Some(address) = address(&pod, family) else { continue };
        if pod::is_finished(&pod) || !matches(selector, &pod) {
            continue;
        }
        let ports: Vec<_> = spec.ports.iter().flatten().filter_map(|port| resolve(port, &pod)).collect();
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
            continue;
        }
        let endpoint = endpoint(caches, service, &pod, address);
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    groups
}

fn matches(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    all.into_iter().find(|ip| ip.contains(':') == (family == "IPv6")).cloned()
}

/// The port of a pod that a Service's port stands for; `None` when the pod has no port of that name.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) if *number == 0 => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // Native sidecars have ports too.
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let mut ports =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            ports
                .find(|port| {
                    port.name.as_ref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
                })?
                .container_port
        }
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol.to_owned()),
        app_protocol: port.app_protocol.clone(),
    })
}

fn endpoint(caches: &Caches, service: &Service, pod: &Pod, address: String) -> Endpoint {
    let spec = pod.spec.as_ref();
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let (serving, terminating) = (pod::is_ready(pod), pod::is_terminating(pod));
    let conditions = EndpointConditions {
        ready: Some(publish || (serving && !terminating)),
        serving: Some(serving),
        terminating: Some(terminating),
    };
    let node = spec.and_then(|spec| spec.node_name.clone());
    let zone = node.as_ref().and_then(|node| caches.nodes.get(&Key::new("", node)));
    let zone = zone.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
    let named = spec.is_some_and(|spec| spec.subdomain.is_some() && spec.subdomain == service.metadata.name);
    let reference = json!({"kind": "Pod", "namespace": pod.metadata.namespace, "name": pod.metadata.name, "uid": pod.metadata.uid});
    Endpoint {
        addresses: vec![address],
        conditions: Some(conditions),
        hostname: spec.filter(|_| named).and_then(|spec| spec.hostname.clone()),
        node_name: node,
        target_ref: serde_json::from_value(reference).ok(),
        zone,
        ..Endpoint::default()
    }
}

fn labels(service: &Service) -> Value {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    json!(labels)
}

/// The Service that a slice of ours belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY)? != MANAGER {
        return None;
    }
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), labels.get(SERVICE_NAME)?))
}

/// Wakes the Services that select a pod, or did.
pub fn wake_for_pod(caches: &Caches, change: &Change<Pod>, queue: &Queue<Key>) {
    let Some(pod) = change.current() else { return };
    for service in caches.services.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        if selector(&service).is_some_and(|selector| change.both().any(|pod| matches(selector, pod))) {
            queue.add(Key::of(&*service));
        }
    }
}

#[cfg(test)]
mod tests;
