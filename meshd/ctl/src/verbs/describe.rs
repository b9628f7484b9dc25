//! `describe`: an object with what became of it.

use crate::{args::NamespaceOptions, cluster_client::Cluster, failure::Outcome, place::Place};
use k8s_openapi::api::core::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// Kind, or `kind/name`.
    kind: String,
    /// Name.
    // Its own id: `--name`, the cluster's, is everywhere.
    #[arg(id = "object", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs the command.
pub async fn run(place: &Place, describe: Describe) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let (kind, name) = match (describe.kind.split_once('/'), &describe.name) {
        (Some((kind, name)), _) => (kind.to_owned(), name.to_owned()),
        (None, name) => (describe.kind.clone(), name.clone().unwrap_or_default()),
    };
    let kind = cluster.kind_named(&kind).await?;
    let namespace = &describe.namespace.namespace;
    let object = cluster.api(&kind, Some(namespace)).get(&name).await?;
    println!("Name:       {}", object.name_any());
    if let Some(namespace) = object.namespace() {
        println!("Namespace:  {namespace}");
    }
    println!("Kind:       {} ({})", kind.resource.kind, kind.resource.api_version);
    println!("Created:    {}", object.creation_timestamp().map(|t| t.0.to_string()).unwrap_or_default());
    for (key, value) in object.labels() {
        println!("Label:      {key}={value}");
    }
    let mut data = object.data.clone();
    let status = data.as_object_mut().and_then(|o| o.remove("status")).unwrap_or_default();
    println!("\n{}", serde_saphyr::to_string(&data).map_err(|e| anyhow::anyhow!("{e}"))?.trim_end());
    println!("\nConditions:");
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let text = |key: &str| condition[key].as_str().unwrap_or_default();
        println!("  {:<14} {:<6} {:<12} {}", text("type"), text("status"), text("reason"), text("message"));
    }
    events(&cluster, namespace, &object.name_any()).await
}

async fn events(cluster: &Cluster, namespace: &str, name: &str) -> Outcome {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
    let events = api.list(&ListParams::default().fields(&format!("involvedObject.name={name}"))).await?;
    println!("\nEvents:");
    if events.items.is_empty() {
        println!("  <none>");
    }
    for event in events {
        println!(
            "  {:<8} {:<20} {}",
            event.type_.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        );
    }
    Ok(())
}
