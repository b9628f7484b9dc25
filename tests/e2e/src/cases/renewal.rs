//! Certificates with a life of seconds, so that renewals are seen.

use super::{
    echo::{Echo, HOST, URL},
    security,
};
use crate::mesh::Mesh;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Istio's way to ask: an environment variable of the proxy, in the pod's own configuration.
const LIFE: Duration = Duration::from_secs(20);
const RENEWALS: usize = 3;
const WORKLOADS: [&str; 2] = ["echo", "client"];

fn configure(mesh: &Mesh, config: &Value) -> Result<()> {
    let patch = serde_json::json!({"spec": {"template": {"metadata": {"annotations": {"proxy.istio.io/config": config}}}}});
    for name in WORKLOADS {
        mesh.kubectl(&[
            "patch",
            "-n",
            "echo",
            "deployment",
            name,
            "--type",
            "merge",
            "-p",
            &patch.to_string(),
        ])?;
    }
    for name in WORKLOADS {
        mesh.kubectl(&["rollout", "status", "-n", "echo", &format!("deployment/{name}"), "--timeout=90s"])?;
    }
    Ok(())
}

/// What the sidecar of a deployment says of its certificate.
fn certificate(mesh: &Mesh, name: &str) -> Result<Value> {
    let target = format!("deploy/{name}");
    let ask =
        ["exec", "-n", "echo", &target, "-c", "istio-proxy", "--", "/sidecar", "request", "GET", "/certs"];
    let all: Value = serde_json::from_str(&mesh.kubectl(&ask)?)?;
    Ok(all["certificates"][0]["cert_chain"][0].clone())
}

/// The certificates that were seen of one workload, in order.
#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    /// Looks at the one in use, which must have the life that was asked for.
    fn look(&mut self, mesh: &Mesh, name: &str) -> Result<()> {
        let certificate = certificate(mesh, name)?;
        let time = |key: &str| -> Result<jiff::Timestamp> {
            Ok(certificate[key].as_str().context("no time")?.parse()?)
        };
        let life = time("expiration_time")?.duration_since(time("valid_from")?);
        // It begins a little before now, for clocks that are late.
        ensure!(
            (LIFE.as_secs()..LIFE.as_secs() + 121).contains(&life.unsigned_abs().as_secs()),
            "{certificate}"
        );
        let serial = certificate["serial_number"].to_string();
        if self.0.last() != Some(&serial) {
            self.0.push(serial);
        }
        Ok(())
    }
}

pub async fn certificates_are_renewed_under_load(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    configure(mesh, &Value::from(format!("proxyMetadata: {{SECRET_TTL: {}s}}", LIFE.as_secs())))?;
    let mut seen: Vec<(&str, Seen)> = WORKLOADS.map(|name| (name, Seen::default())).into();
    seen.iter_mut().try_for_each(|(name, seen)| seen.look(mesh, name))?;
    let load = echo.outside.steady(HOST, "/renewed", 100, |_| String::new());
    let started = Instant::now();
    let mut inside = 0;
    // Calls from pod to pod go on meanwhile, and every one is looked at.
    let took = loop {
        let calls = echo.calls("echo", "client", &[&format!("{URL}/renewed-inside"), "--count", "100"])?;
        let bad: Vec<_> = calls.iter().filter(|call| call["status"] != 200).collect();
        ensure!(bad.is_empty() && calls.len() == 100, "{bad:?}");
        inside += calls.len();
        seen.iter_mut().try_for_each(|(name, seen)| seen.look(mesh, name))?;
        if seen.iter().all(|(_, seen)| seen.0.len() > RENEWALS) {
            break started.elapsed();
        }
        ensure!(
            started.elapsed() < LIFE * 4,
            "after {:?}: {:?}",
            started.elapsed(),
            seen.iter().map(|(_, s)| &s.0).collect::<Vec<_>>()
        );
    };
    // Half a life each, a tenth of that earlier or later; the first was under way, and the last was seen a little late.
    ensure!(took > LIFE * 9 / 10 && took < LIFE * 2, "{RENEWALS} renewals took {took:?}");
    let tally = load.stop().await?;
    ensure!(tally.bad() == 0, "{tally:?}");
    security::keys_of_workloads_are_on_no_disk(mesh).await?;
    configure(mesh, &Value::Null)?;
    Ok(format!(
        "{RENEWALS} renewals in {:.0}s, {} + {inside} requests, none failed",
        took.as_secs_f64(),
        tally.total()
    ))
}
