//! `status`: what runs, for people and for scripts.

use super::proxy::synchronized;
use crate::{
    args::OutputOptions,
    cluster_client::Cluster,
    control,
    failure::{Exit, Failure, Outcome},
    output::structured,
    place::Place,
};
use serde_json::{Value, json};

/// Runs the command. Scripts rely on `kubeconfig`, `ingress`, `nodes`, `proxies` and `versions`.
pub async fn run(place: &Place, options: OutputOptions) -> Outcome {
    let Some(cluster) = control::status(&place.socket()).await? else {
        return Err(Failure::new(Exit::Unreachable, format!("no cluster named `{}` runs", place.name))
            .fix("meshctl up"));
    };
    let (version, proxies) = match Cluster::open(place).await {
        Ok(client) => synchronized(&client).await.unwrap_or_default(),
        Err(_) => Default::default(),
    };
    let in_sync = proxies.iter().filter(|p| p["version"].as_u64() == Some(version)).count();
    let status = json!({
        "name": place.name,
        "ready": cluster["ready"],
        "kubeconfig": place.own_kubeconfig(),
        "ingress": cluster["ingress"],
        "nodes": cluster["nodes"],
        "proxies": {"known": proxies.len(), "inSync": in_sync},
        "versions": {"meshctl": env!("CARGO_PKG_VERSION"), "cluster": cluster["versions"]},
        "components": cluster["components"],
    });
    if !structured(options.output, &status)? {
        let ready = |value: &Value| if *value == true { "ready" } else { "not ready" };
        println!("cluster     {} ({})", place.name, ready(&cluster["ready"]));
        for (name, component) in cluster["components"].as_object().into_iter().flatten() {
            println!("  {name:<10}{}", ready(&component["ready"]));
        }
        println!("kubeconfig  {}", place.own_kubeconfig().display());
        println!("ingress     {}", cluster["ingress"].as_str().unwrap_or("-"));
        println!("proxies     {in_sync} of {} in sync", proxies.len());
    }
    Ok(())
}
