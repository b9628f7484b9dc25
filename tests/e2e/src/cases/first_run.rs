//! The first minutes of a person with the product.

use crate::{
    load::Outside,
    mesh::{API_PORT, INGRESS_PORT, Mesh},
};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, time::Instant};

pub async fn up_ends_with_an_application_that_answers(mesh: &Mesh) -> Result<String> {
    let started = Instant::now();
    let out = up(mesh)?;
    let seconds = started.elapsed().as_secs_f64();
    let (answer, _) = Outside::new().get("bookinfo", "/productpage", &[]).await?;
    ensure!(answer.status() == 200, "the application answers {}", answer.status());
    ensure!(out.contains("mTLS"), "no figures at the end: {out}");
    Ok(format!("up in {seconds:.1}s; {}", out.lines().next().unwrap_or_default().trim()))
}

fn up(mesh: &Mesh) -> Result<String> {
    let (api, ingress) = (API_PORT.to_string(), INGRESS_PORT.to_string());
    mesh.meshctl(&["up", "--demo", "--api-port", &api, "--ingress-port", &ingress])
}

pub async fn a_second_up_changes_nothing(mesh: &Mesh) -> Result<String> {
    let before = generations(mesh)?;
    up(mesh)?;
    let after = generations(mesh)?;
    ensure!(before == after, "objects changed: {before:?} {after:?}");
    Ok(format!("{} objects", before.len()))
}

/// Generation and age of everything that `up` makes, and the start of every container.
fn generations(mesh: &Mesh) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for kind in [
        "deployments",
        "services",
        "serviceaccounts",
        "virtualservices",
        "destinationrules",
        "gateways",
        "pods",
        "customresourcedefinitions",
    ] {
        let list = mesh.get(&[kind, "-A"])?;
        for item in list["items"].as_array().context("no items")? {
            let metadata = &item["metadata"];
            let name = format!("{kind} {} {}", metadata["namespace"], metadata["name"]);
            all.insert(
                name,
                format!(
                    "{} {} {}",
                    metadata["uid"], metadata["generation"], item["status"]["containerStatuses"][0]["state"]
                ),
            );
        }
    }
    Ok(all)
}

pub async fn status_has_what_scripts_need(mesh: &Mesh) -> Result<String> {
    let status: serde_json::Value = serde_json::from_str(&mesh.meshctl(&["status", "-o", "json"])?)?;
    let kubeconfig = status["kubeconfig"].as_str().context("no kubeconfig")?;
    ensure!(std::path::Path::new(kubeconfig).is_file(), "{kubeconfig} is no file");
    ensure!(mesh.meshctl(&["kubeconfig"])?.trim() == kubeconfig);
    ensure!(
        status["ingress"] == format!("http://127.0.0.1:{INGRESS_PORT}"),
        "ingress is {}",
        status["ingress"]
    );
    ensure!(
        status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2),
        "nodes are {}",
        status["nodes"]
    );
    let (known, in_sync) = (status["proxies"]["known"].as_u64(), status["proxies"]["inSync"].as_u64());
    ensure!(
        known == Some(7) && in_sync == known,
        "6 sidecars and a gateway should be in sync: {}",
        status["proxies"]
    );
    ensure!(status["versions"].is_object());
    Ok(String::new())
}

pub async fn pods_are_injected_and_need_no_privilege(mesh: &Mesh) -> Result<String> {
    let pods = mesh.get(&["pods", "-n", "default"])?;
    let pods = pods["items"].as_array().context("no pods")?;
    ensure!(pods.len() == 6, "{} pods", pods.len());
    for pod in pods {
        let name = &pod["metadata"]["name"];
        let first = &pod["spec"]["initContainers"][0];
        ensure!(
            first["name"] == "istio-proxy" && first["restartPolicy"] == "Always",
            "{name}: the first init container is {}",
            first["name"]
        );
        for container in pod["spec"]["initContainers"]
            .as_array()
            .into_iter()
            .chain(pod["spec"]["containers"].as_array())
            .flatten()
        {
            let security = &container["securityContext"];
            ensure!(
                security["capabilities"]["add"].is_null(),
                "{name}: {} adds capabilities",
                container["name"]
            );
            ensure!(
                security["capabilities"]["drop"][0] == "ALL" && security["allowPrivilegeEscalation"] == false,
                "{name}: {security}"
            );
        }
        ensure!(
            pod["spec"]["hostNetwork"] != true
                && pod["spec"]["volumes"]
                    .as_array()
                    .is_none_or(|v| v.iter().all(|v| v["hostPath"].is_null())),
            "{name}"
        );
    }
    Ok(String::new())
}
