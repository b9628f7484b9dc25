//! Policies are checked here before anything is sent: each alone, then against what the files and the cluster hold.

use super::Source;
use crate::{
    cluster_client::Cluster,
    failure::{Exit, Failure, Outcome},
};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt, api::ListParams};
use policies_api::{
    Kind,
    names::CLUSTER_DOMAIN,
    validate::{Known, KnownService, Problem, Severity, references, validate},
};
use serde_json::{Value, json};

/// What can be seen in each object alone.
pub fn alone(sources: &[Source]) -> Outcome {
    let found = sources.iter().flat_map(|source| {
        validate(&source.document.value).unwrap_or_default().into_iter().map(move |problem| (source, problem))
    });
    judge(found.collect())
}

/// What objects refer to: subsets, hosts, gateways, other objects for the same host.
pub async fn together(cluster: &Cluster, sources: &[Source], namespace: &str) -> Outcome {
    let is_ours = |source: &Source| {
        Kind::of(
            source.document.value["apiVersion"].as_str().unwrap_or_default(),
            source.document.value["kind"].as_str().unwrap_or_default(),
        )
        .is_some()
    };
    if !sources.iter().any(is_ours) {
        return Ok(());
    }
    let known = known(cluster, sources, namespace).await?;
    let found = sources.iter().flat_map(|source| {
        references(&placed(&source.document.value, namespace), &known)
            .into_iter()
            .map(move |problem| (source, problem))
    });
    judge(found.collect())
}

/// Warnings are written, errors refuse the whole.
fn judge(found: Vec<(&Source, Problem)>) -> Outcome {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(_, problem)| problem.severity == Severity::Error);
    for (source, problem) in &warnings {
        eprintln!(
            "warning{}: {}\n  fix: {}",
            code(problem),
            source.place(&problem.path, &problem.reason),
            problem.fix
        );
    }
    let Some((source, first)) = errors.first() else { return Ok(()) };
    let others = errors.iter().skip(1).map(|(source, problem)| {
        format!(
            "\nerror{}: {}\n  fix: {}",
            code(problem),
            source.place(&problem.path, &problem.reason),
            problem.fix
        )
    });
    let fix = format!("{}{}\nnothing was changed", first.fix, others.collect::<String>());
    Err(Failure::new(
        Exit::BadInput,
        format!(
            "{}{}",
            source.place(&first.path, &first.reason),
            first.code.map(|c| format!(" [{c}]")).unwrap_or_default()
        ),
    )
    .fix(fix))
}

fn code(problem: &Problem) -> String {
    problem.code.map(|code| format!("[{code}]")).unwrap_or_default()
}

async fn known(cluster: &Cluster, sources: &[Source], namespace: &str) -> Outcome<Known> {
    let mut known = Known { cluster_domain: CLUSTER_DOMAIN.into(), ..Known::default() };
    let services: Api<Service> = Api::all(cluster.client.clone());
    for service in services.list(&ListParams::default()).await? {
        let host = format!(
            "{}.{}.svc.{CLUSTER_DOMAIN}",
            service.name_any(),
            service.namespace().unwrap_or_default()
        );
        let ports = service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten())
            .filter_map(|port| u16::try_from(port.port).ok());
        known.services.insert(host, KnownService { ports: ports.collect() });
    }
    for source in sources {
        service_in(&placed(&source.document.value, namespace), &mut known);
    }
    let own: Vec<Value> = sources.iter().map(|source| placed(&source.document.value, namespace)).collect();
    for kind in ["virtualservice", "destinationrule", "gateway", "serviceentry"] {
        let kind = cluster.kind_named(kind).await?;
        for object in cluster.api(&kind, None).list(&ListParams::default()).await? {
            let mut value = serde_json::to_value(&object)?;
            // Items of a list do not repeat what the list says.
            value["apiVersion"] = json!(kind.resource.api_version);
            value["kind"] = json!(kind.resource.kind);
            if !own.iter().any(|new| same(new, &value)) {
                known.objects.push(value);
            }
        }
    }
    known.objects.extend(own);
    Ok(known)
}

fn service_in(document: &Value, known: &mut Known) {
    if document["kind"] == "Service" && document["apiVersion"] == "v1" {
        let text = |key: &str| document["metadata"][key].as_str().unwrap_or_default();
        let ports = document["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|port| u16::try_from(port["port"].as_u64()?).ok());
        known.services.insert(
            format!("{}.{}.svc.{CLUSTER_DOMAIN}", text("name"), text("namespace")),
            KnownService { ports: ports.collect() },
        );
    }
}

/// The object with the namespace that it will have.
fn placed(document: &Value, namespace: &str) -> Value {
    let mut document = document.clone();
    if document["metadata"]["namespace"].is_null() {
        document["metadata"]["namespace"] = json!(namespace);
    }
    document
}

fn same(a: &Value, b: &Value) -> bool {
    a["kind"] == b["kind"]
        && a["metadata"]["name"] == b["metadata"]["name"]
        && a["metadata"]["namespace"] == b["metadata"]["namespace"]
}
