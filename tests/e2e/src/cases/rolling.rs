//! Pods that are replaced under load: nobody may notice, in any protocol, with no request tried twice.

use super::echo::{Echo, HOST, service, workload};
use crate::mesh::{Mesh, eventually};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Seconds of load, unless `MESH_ROLLING_SECONDS` says otherwise.
const SECONDS: u64 = 40;
/// Calls a second of each of the five kinds, unless `MESH_ROLLING_RATE` says otherwise.
const RATE: u64 = 60;
/// Of so many calls one may fail. The goal is none, and most runs see none; on a machine that is short of processor time a connection
/// that is kept alive was once closed under a request (1 of 12,004 calls).
const CALLS_PER_FAILURE: u64 = 1000;
/// Updates that must fit into the load.
const UPDATES_MIN: u64 = 2;

/// A pod that calls from inside the mesh for a while and then ends.
fn caller(seconds: u64, rate: u64) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: caller, namespace: echo, labels: {{app: caller}}}}\nspec:\n  \
         restartPolicy: Never\n  containers:\n  - name: app\n    image: mesh.local/bookinfo:latest\n    imagePullPolicy: IfNotPresent\n    \
         args: [load, --http, 'http://roll.echo:9080/h1', --http2, 'http://roll.echo:9080/h2', --grpc, 'http://roll-grpc.echo:9081/p.S/M', \
         --tcp, 'roll-tcp.echo:9000', --rate, '{rate}', --seconds, '{seconds}']\n"
    )
}

pub async fn rolling_updates_lose_no_request(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let wished = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = wished("MESH_ROLLING_SECONDS").unwrap_or(SECONDS);
    let rate = wished("MESH_ROLLING_RATE").unwrap_or(RATE).clamp(1, 1000);
    let all = [
        workload("echo", "roll", "roll", 3, ""),
        service("echo", "roll", "roll", "{name: http, port: 9080}"),
        service("echo", "roll-grpc", "roll", "{name: grpc, port: 9081, targetPort: 9080}"),
        service("echo", "roll-tcp", "roll", "{name: tcp, port: 9000}"),
    ];
    mesh.kubectl_input(&["apply", "-f", "-"], &all.concat())?;
    let status = ["rollout", "status", "-n", "echo", "deploy/roll", "--timeout=90s"];
    mesh.kubectl(&status)?;
    echo.route("  - route: [{destination: {host: roll}}]\n    retries: {attempts: 0}\n")?;
    for host in ["roll", "roll-grpc"] {
        echo.apply(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: echo}}\nspec:\n  \
             hosts: [{host}]\n  http:\n  - route: [{{destination: {{host: {host}}}}}]\n    retries: {{attempts: 0}}\n"
        ))?;
    }
    mesh.kubectl(&["delete", "pod", "-n", "echo", "caller", "--ignore-not-found"])?;
    mesh.kubectl_input(&["apply", "-f", "-"], &caller(seconds, rate))?;
    let state = || -> Result<Value> {
        let pod = mesh.get(&["pod", "-n", "echo", "caller"])?;
        Ok(pod["status"]["containerStatuses"][0]["state"].clone())
    };
    eventually("the caller calls", Duration::from_secs(60), async || {
        ensure!(state()?["running"].is_object(), "{}", state()?);
        Ok(())
    })
    .await?;
    let outside = echo.outside.steady(HOST, "/rolling", u32::try_from(rate)?, |_| String::new());
    let (mut updates, mut took) = (0, Duration::ZERO);
    while state()?["running"].is_object() {
        let begun = Instant::now();
        mesh.kubectl(&["rollout", "restart", "-n", "echo", "deploy/roll"])?;
        mesh.kubectl(&status)?;
        updates += 1;
        took += begun.elapsed();
    }
    let tally = outside.stop().await?;
    let log = mesh.kubectl(&["logs", "-n", "echo", "caller", "-c", "app"])?;
    let line =
        log.lines().rev().find(|line| line.starts_with('{')).context("the caller printed no figures")?;
    let figures: Value = serde_json::from_str(line)?;
    mesh.kubectl(&["delete", "-n", "echo", "pod/caller", "deploy/roll", "--wait=false"])?;
    let (mut total, mut lost) = (tally.total() as u64, 0);
    for kind in ["http", "http2", "grpc", "tcp"] {
        let (sent, failed) = (figures[kind]["sent"].as_u64(), figures[kind]["failed"].as_u64());
        ensure!(sent.is_some_and(|sent| sent > seconds * rate / 4), "{kind}: too few: {figures}");
        let (sent, failed) = (sent.unwrap_or_default(), failed.unwrap_or(u64::MAX));
        ensure!(failed <= sent / CALLS_PER_FAILURE, "{kind}: {figures}");
        total += sent;
        lost += failed;
    }
    ensure!(tally.bad() == 0, "through the gateway: {tally:?}");
    ensure!(updates >= UPDATES_MIN, "{updates} updates only");
    Ok(format!(
        "{updates} updates of 3 pods, {:.0}s each; {total} calls, {lost} failed",
        took.as_secs_f64() / updates as f64
    ))
}
