//! `canary`: shifts traffic between versions by writing an ordinary VirtualService.

use super::{apply::programmed, fault};
use crate::{
    args::NamespaceOptions,
    cluster_client::{Applied, Cluster},
    failure::{Exit, Failure, Outcome},
    place::Place,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Canary {
    /// The service.
    service: String,
    /// The subset that traffic moves to.
    subset: String,
    /// Its share in percent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=100))]
    to: u32,
    /// The subset that keeps the rest [default: the one with the largest share now].
    #[arg(long)]
    from: Option<String>,
    #[command(flatten)]
    namespace: NamespaceOptions,
    /// Print the VirtualService instead of applying it.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub async fn run(place: &Place, canary: Canary) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let namespace = &canary.namespace.namespace;
    let subsets = subsets(&cluster, &canary.service, namespace).await?;
    let known = || subsets.join(", ");
    for subset in std::iter::once(&canary.subset).chain(&canary.from) {
        if !subsets.contains(subset) {
            return Err(Failure::new(
                Exit::BadInput,
                format!("{} has no subset `{subset}`; it has {}", canary.service, known()),
            )
            .fix("add the subset to its DestinationRule"));
        }
    }
    let old = virtual_service(&cluster, &canary.service, namespace).await?;
    let from = canary
        .from
        .clone()
        .or_else(|| largest(&old, &canary.subset))
        .or_else(|| subsets.iter().find(|s| **s != canary.subset).cloned());
    let mut route = vec![destination(&canary.service, &canary.subset, canary.to)];
    if canary.to < 100 {
        let from = from.ok_or_else(|| {
            Failure::new(Exit::BadInput, format!("no other subset of {} can keep the rest", canary.service))
        })?;
        route.insert(0, destination(&canary.service, &from, 100 - canary.to));
    }
    let mut object = old;
    let http = &mut object["spec"]["http"];
    // Routes for special requests stay; the last one, which takes all others, is shifted.
    match http.as_array_mut().and_then(|routes| routes.last_mut()).filter(|last| last["match"].is_null()) {
        Some(last) => last["route"] = json!(route),
        None => *http = json!([{"route": route}]),
    }
    if canary.dry_run {
        return crate::output::structured(crate::output::Format::Yaml, &object).map(|_| ());
    }
    store(&cluster, &object, namespace).await
}

/// Stores a VirtualService, waits, and says how it went.
pub async fn store(cluster: &Cluster, object: &Value, namespace: &str) -> Outcome {
    let started = tokio::time::Instant::now();
    let applied = cluster.apply(object, namespace).await?;
    let (verb, stored) = match &applied {
        Applied::Created(stored) => ("created", stored),
        Applied::Configured { new, .. } => ("configured", new),
        Applied::Unchanged(stored) => ("unchanged", stored),
    };
    let reached = programmed(cluster, stored, started, Duration::from_secs(30)).await?;
    println!("virtualservice/{} {verb}", object["metadata"]["name"].as_str().unwrap_or_default());
    for (index, http) in object["spec"]["http"].as_array().into_iter().flatten().enumerate() {
        if !http["fault"].is_null() {
            println!("  http[{index}] {:<12} {}", "fault", fault::words(&http["fault"]));
        }
        for route in http["route"].as_array().into_iter().flatten() {
            let destination = &route["destination"];
            let name = destination["subset"].as_str().or(destination["host"].as_str()).unwrap_or_default();
            println!("  http[{index}] {name:<12} {:>3} %", route["weight"].as_u64().unwrap_or(100));
        }
    }
    println!("  {reached}");
    Ok(())
}

fn destination(service: &str, subset: &str, weight: u32) -> Value {
    json!({"destination": {"host": service, "subset": subset}, "weight": weight})
}

/// The service's VirtualService without what the server added, or a new one.
pub async fn virtual_service(cluster: &Cluster, service: &str, namespace: &str) -> Outcome<Value> {
    let kind = cluster.kind_named("virtualservice").await?;
    let all = cluster.api(&kind, Some(namespace)).list(&Default::default()).await?;
    let own = |object: &&kube::core::DynamicObject| {
        let is_mesh =
            object.data["spec"]["gateways"].as_array().is_none_or(|g| g.iter().any(|name| name == "mesh"));
        let hosts = object.data["spec"]["hosts"].as_array();
        is_mesh
            && hosts.is_some_and(|hosts| {
                hosts
                    .iter()
                    .filter_map(Value::as_str)
                    .any(|host| host == service || host.starts_with(&format!("{service}.{namespace}.")))
            })
    };
    let found = all.items.iter().find(own);
    let name = found.and_then(|object| object.metadata.name.clone()).unwrap_or_else(|| service.to_owned());
    let spec = found.map_or_else(|| json!({"hosts": [service]}), |object| object.data["spec"].clone());
    Ok(
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name, "namespace": namespace}, "spec": spec}),
    )
}

async fn subsets(cluster: &Cluster, service: &str, namespace: &str) -> Outcome<Vec<String>> {
    let kind = cluster.kind_named("destinationrule").await?;
    let rules = cluster.api(&kind, Some(namespace)).list(&Default::default()).await?;
    let own = rules.items.iter().filter(|rule| {
        let host = rule.data["spec"]["host"].as_str().unwrap_or_default();
        host == service || host.starts_with(&format!("{service}.{namespace}."))
    });
    let subsets: Vec<String> = own
        .flat_map(|rule| rule.data["spec"]["subsets"].as_array().cloned().unwrap_or_default())
        .filter_map(|s| s["name"].as_str().map(str::to_owned))
        .collect();
    if subsets.is_empty() {
        return Err(Failure::new(
            Exit::BadInput,
            format!("no DestinationRule in {namespace} gives {service} subsets"),
        )
        .fix("apply a DestinationRule with a subset for each version"));
    }
    Ok(subsets)
}

fn largest(object: &Value, except: &str) -> Option<String> {
    let routes = object["spec"]["http"].as_array()?.last()?["route"].as_array()?;
    let others = routes.iter().filter(|r| r["destination"]["subset"] != except);
    others
        .max_by_key(|r| r["weight"].as_u64().unwrap_or(100))
        .and_then(|r| r["destination"]["subset"].as_str().map(str::to_owned))
}
