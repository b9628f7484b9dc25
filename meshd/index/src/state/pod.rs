//! Pods as workloads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meshd_model::{Locality, Workload};
use policies_api::names::labels;
use serde_json::Value;

use super::Object;

/// The workload of a pod. A pod that is over, or that shares its node's address, has no address of its own.
pub(super) fn workload(object: &Object) -> Workload {
    let meta = &object.meta;
    let is_over = matches!(object.text("/status/phase"), "Succeeded" | "Failed");
    let on_host = object.data.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
    let listed = object.list("/status/podIPs").iter().filter_map(|it| it["ip"].as_str());
    let single = Some(object.text("/status/podIP")).filter(|it| !it.is_empty());
    let mut ips: Vec<IpAddr> = listed.chain(single).filter_map(|it| it.parse().ok()).collect();
    ips.dedup();
    if is_over || on_host {
        ips.clear();
    }
    let account = object.text("/spec/serviceAccountName");
    Workload {
        namespace: Arc::clone(&meta.namespace),
        name: Arc::clone(&meta.name),
        workload_name: controller(object).into(),
        ips,
        labels: Arc::new(meta.labels.clone()),
        service_account: if account.is_empty() { "default" } else { account }.into(),
        node: object.text("/spec/nodeName").into(),
        locality: Locality::default(),
        mutual_tls: meta.labels.get(labels::TLS_MODE).is_some_and(|mode| mode == "istio"),
        named_ports: named_ports(object),
        leaving: meta.deleted.clone(),
    }
}

/// Region, zone and subzone by a node's labels.
pub(super) fn locality(labels_of_node: &BTreeMap<String, String>) -> Locality {
    let label = |key: &str| labels_of_node.get(key).map_or("", String::as_str).into();
    Locality { region: label(labels::REGION), zone: label(labels::ZONE), subzone: label(labels::SUBZONE) }
}

/// The deployment behind a replica set, else the controller itself, else the pod.
fn controller(object: &Object) -> String {
    match &object.meta.owner {
        Some((kind, name)) if kind == "ReplicaSet" => {
            let hash = object.meta.labels.get("pod-template-hash");
            let deployment =
                hash.and_then(|hash| name.strip_suffix(hash.as_str())).and_then(|it| it.strip_suffix('-'));
            deployment.unwrap_or(name).to_owned()
        }
        Some((_, name)) => name.clone(),
        None => object.meta.name.to_string(),
    }
}

fn named_ports(object: &Object) -> BTreeMap<Arc<str>, u16> {
    let containers = object.list("/spec/containers").iter().chain(object.list("/spec/initContainers"));
    let ports = containers.flat_map(|it| it["ports"].as_array().into_iter().flatten());
    ports
        .filter_map(|port| {
            let name = port["name"].as_str()?;
            let number = port["containerPort"].as_u64().and_then(|it| u16::try_from(it).ok())?;
            Some((Arc::from(name), number))
        })
        .collect()
}
