//! Kubernetes services.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use meshd_model::{ObjectKey, Protocol, Resolution, Service, ServicePort, TargetPort};
use policies_api::names::annotations;
use serde_json::Value;

use super::Object;

/// The host name of a service.
pub(super) fn host((namespace, name): &ObjectKey, cluster_domain: &str) -> String {
    format!("{name}.{namespace}.svc.{cluster_domain}")
}

/// The service of an object.
pub(super) fn read(object: &Object, cluster_domain: &str) -> Service {
    let meta = &object.meta;
    let external_name = match object.text("/spec/type") {
        "ExternalName" => Some(object.text("/spec/externalName")).filter(|it| !it.is_empty()),
        _ => None,
    };
    let headless = object.text("/spec/clusterIP") == "None";
    let resolution = match (external_name, headless) {
        (Some(_), _) => Resolution::Dns,
        (None, true) => Resolution::Passthrough,
        (None, false) => Resolution::Static,
    };
    let selector = object.data.pointer("/spec/selector").and_then(Value::as_object);
    let selector = selector
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    Service {
        host: host(&meta.key(), cluster_domain).into(),
        namespace: Arc::clone(&meta.namespace),
        name: Arc::clone(&meta.name),
        created: meta.created,
        addresses: addresses(object),
        ports: object.list("/spec/ports").iter().filter_map(port).collect(),
        resolution,
        external: external_name.is_some(),
        selector: Arc::new(selector.collect()),
        export_to: names(meta.annotations.get(annotations::EXPORT_TO)),
        route_grants: names(meta.annotations.get(annotations::ROUTE_GRANTS)),
        publish_not_ready: object.data.pointer("/spec/publishNotReadyAddresses").and_then(Value::as_bool)
            == Some(true),
        external_name: external_name.map(Arc::from),
        ..Service::default()
    }
}

fn addresses(object: &Object) -> Vec<IpNet> {
    let listed = object.list("/spec/clusterIPs").iter().filter_map(Value::as_str);
    let single = Some(object.text("/spec/clusterIP"));
    let mut found: Vec<IpNet> =
        listed.chain(single).filter_map(|it| it.parse::<IpAddr>().ok()).map(IpNet::from).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn port(written: &Value) -> Option<ServicePort> {
    let number = written["port"].as_u64().and_then(|it| u16::try_from(it).ok()).filter(|it| *it > 0)?;
    let name = written["name"].as_str().unwrap_or_default();
    let transport = written["protocol"].as_str().unwrap_or("TCP");
    let target = match &written["targetPort"] {
        Value::Number(number) => {
            number.as_u64().and_then(|it| u16::try_from(it).ok()).map(TargetPort::Number)
        }
        Value::String(text) => {
            Some(text.parse().map_or_else(|_| TargetPort::Name(text.as_str().into()), TargetPort::Number))
        }
        _ => None,
    };
    Some(ServicePort {
        name: name.into(),
        port: number,
        protocol: Protocol::of_service_port(number, name, written["appProtocol"].as_str(), transport),
        target: target.unwrap_or(TargetPort::Number(number)),
    })
}

fn names(list: Option<&String>) -> Vec<String> {
    let parts = list.into_iter().flat_map(|it| it.split(','));
    parts.map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}
