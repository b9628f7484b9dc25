//! Spreading endpoints over slices so that few slices change.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};
use serde_json::{Value, json};

use super::{Wanted, labels};
use crate::{
    cache::Key,
    plan::{Action, Kind},
};

/// Endpoints in one slice.
const MAX: usize = 100;

/// The writes that turn the existing slices of one address family into the wanted ones.
pub(super) fn plan(
    service: &Service,
    family: &str,
    mut wanted: Wanted,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
    if wanted.is_empty() {
        // One empty slice says that the Service has no endpoints, as opposed to not being known.
        wanted.push((existing.first().map(|slice| ports(slice)).unwrap_or_default(), Vec::new()));
    }
    let mut spare: Vec<_> =
        existing.iter().filter(|slice| wanted.iter().all(|(wanted, _)| *wanted != ports(slice))).collect();
    let mut actions = Vec::new();
    for (wanted, endpoints) in wanted {
        let mut slices: Vec<_> = existing.iter().filter(|slice| ports(slice) == wanted).collect();
        if slices.is_empty() {
            // A slice whose ports nobody has any more serves again, with other ports.
            slices.extend(spare.pop());
        }
        actions.extend(fill(service, family, &wanted, endpoints, &slices));
    }
    actions.extend(spare.into_iter().map(delete));
    actions
}

fn fill(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
    slices: &[&Arc<EndpointSlice>],
) -> Vec<Action> {
    let placeholder = endpoints.is_empty();
    let mut left: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let (mut kept, mut actions): (Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)>, _) = (Vec::new(), Vec::new());
    for slice in slices {
        // Endpoints stay in the slice they are in, in their order.
        let stay: Vec<_> =
            slice.endpoints.iter().filter_map(|endpoint| left.remove(&identity(endpoint))).collect();
        kept.push((*slice, stay));
    }
    // New ones go where there is room, into slices that change anyhow first.
    let mut new: Vec<_> = left.into_values().collect();
    kept.sort_by_key(|(slice, stay)| slice.endpoints == *stay);
    for (_, stay) in &mut kept {
        let room = MAX.saturating_sub(stay.len()).min(new.len());
        stay.extend(new.drain(..room));
    }
    let mut any = false;
    for (slice, endpoints) in kept {
        let needed = !endpoints.is_empty() || (placeholder && !any);
        any |= needed;
        if !needed {
            actions.push(delete(slice));
        } else if slice.endpoints != endpoints
            || slice.ports.as_deref().unwrap_or_default() != ports
            || json!(slice.metadata.labels) != labels(service)
        {
            let mut new_labels = labels(service);
            for old in slice.metadata.labels.iter().flatten().map(|(name, _)| name) {
                // A merge patch removes what is null.
                if new_labels.get(old).is_none() {
                    new_labels[old] = Value::Null;
                }
            }
            let patch = json!({
                "metadata": {"resourceVersion": slice.metadata.resource_version, "labels": new_labels},
                "ports": ports, "endpoints": endpoints,
            });
            actions.push(Action::patch(Kind::EndpointSlice, Key::of(&**slice), patch));
        }
    }
    for chunk in new.chunks(MAX) {
        actions.push(create(service, family, ports, chunk));
        any = true;
    }
    if !any {
        actions.push(create(service, family, ports, &[]));
    }
    actions
}

/// What makes an endpoint the same one: its pod, or else its address.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.join(","))
}

fn create(service: &Service, family: &str, ports: &[EndpointPort], endpoints: &[Endpoint]) -> Action {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let object = json!({
        "metadata": {
            "generateName": format!("{}-", service.metadata.name.as_deref().unwrap_or_default()),
            "namespace": namespace, "labels": labels(service), "ownerReferences": [Kind::Service.owner(&service.metadata)],
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    });
    Action::create(Kind::EndpointSlice, namespace, object)
}

fn delete(slice: &Arc<EndpointSlice>) -> Action {
    Action::delete(Kind::EndpointSlice, Key::of(&**slice), slice.metadata.uid.clone())
}
