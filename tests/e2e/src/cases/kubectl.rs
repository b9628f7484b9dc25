//! kubectl, unchanged, in the versions that the machine has.

use crate::mesh::{Mesh, eventually};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: e2e\ndata:\n  key: one\n";

pub async fn every_version_reads_and_writes(mesh: &Mesh) -> Result<String> {
    let all = Mesh::kubectls();
    ensure!(!all.is_empty(), "no kubectl.1.30 to kubectl.1.33 on this machine");
    for (version, program) in &all {
        let run = |args: &[&str], input: &str| {
            mesh.kubectl_with(program, args, input).with_context(|| format!("kubectl {version}"))
        };
        let table = run(&["get", "pods", "-o", "wide"], "")?;
        ensure!(
            table.contains("READY") && table.contains("node1") && table.contains("2/2"),
            "kubectl {version} get pods:\n{table}"
        );
        ensure!(run(&["get", "pods", "-o", "yaml"], "")?.contains("istio-proxy"));
        ensure!(run(&["get", "nodes", "-o", "json"], "")?.contains("\"node2\""));
        ensure!(run(&["api-resources"], "")?.contains("virtualservices"));
        ensure!(run(&["version"], "")?.contains("Server Version"));
        ensure!(run(&["describe", "pod", "-l", "app=ratings"], "")?.contains("Started container ratings"));
        ensure!(run(&["apply", "-f", "-"], CONFIG_MAP)?.contains("created"));
        ensure!(run(&["apply", "-f", "-"], CONFIG_MAP)?.contains("unchanged"));
        ensure!(run(&["apply", "-f", "-"], &CONFIG_MAP.replace("one", "two"))?.contains("configured"));
        ensure!(run(&["get", "configmap", "e2e", "-o", "jsonpath={.data.key}"], "")? == "two");
        run(&["label", "configmap", "e2e", "a=b"], "")?;
        ensure!(run(&["get", "configmap", "-l", "a=b", "-o", "name"], "")?.contains("configmap/e2e"));
        ensure!(run(&["delete", "configmap", "e2e"], "")?.contains("deleted"));
        let wrong = run(
            &["apply", "-f", "-"],
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containerz: []\n",
        );
        ensure!(
            wrong.is_err_and(|e| format!("{e:#}").contains("unknown field \"spec.containerz\"")),
            "kubectl {version} let an unknown field pass"
        );
    }
    Ok(all.iter().map(|(version, _)| version.as_str()).collect::<Vec<_>>().join(" "))
}

pub async fn logs_and_exec(mesh: &Mesh) -> Result<String> {
    let logs = mesh.kubectl(&["logs", "deploy/ratings-v1", "-c", "ratings"])?;
    ensure!(logs.contains("Serving"), "logs: {logs}");
    let out =
        mesh.kubectl(&["exec", "deploy/ratings-v1", "-c", "ratings", "--", "/bookinfo", "--version"])?;
    ensure!(out.contains("bookinfo"), "exec: {out}");
    let failed =
        mesh.kubectl(&["exec", "deploy/ratings-v1", "-c", "ratings", "--", "/bookinfo", "--nonsense"]);
    ensure!(
        failed.is_err_and(|e| format!("{e:#}").contains("exit code 2")),
        "the exit code of a command must come back"
    );
    Ok(String::new())
}

pub async fn scale_and_rollout(mesh: &Mesh) -> Result<String> {
    mesh.kubectl(&["scale", "deployment/details-v1", "--replicas=3"])?;
    mesh.kubectl(&["rollout", "status", "deployment/details-v1", "--timeout=60s"])?;
    mesh.kubectl(&["wait", "--for=condition=Ready", "pod", "-l", "app=details", "--timeout=60s"])?;
    mesh.kubectl(&["rollout", "restart", "deployment/details-v1"])?;
    mesh.kubectl(&["rollout", "status", "deployment/details-v1", "--timeout=90s"])?;
    mesh.kubectl(&["scale", "deployment/details-v1", "--replicas=1"])?;
    eventually("one pod is left", Duration::from_secs(60), async || {
        let pods = mesh.get(&["pods", "-l", "app=details"])?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        ensure!(count == 1, "{count} pods");
        Ok(())
    })
    .await?;
    Ok(String::new())
}
