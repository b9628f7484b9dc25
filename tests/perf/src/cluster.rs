//! The whole product: how long it takes to start, what it needs when idle, how fast a change arrives.

use crate::summary::percentile;
use crate::system::{self, Memory};
use anyhow::{Context, Result, bail, ensure};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::process::Command;

const NAME: &str = "bench";
const INGRESS_PORT: u16 = 8080;
/// Longest that a start may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks from outside.
const LOOK: Duration = Duration::from_millis(10);
/// Time for everything to settle before memory is read.
const SETTLE: Duration = Duration::from_secs(15);

/// Everything that was seen.
#[derive(Debug)]
pub struct Report {
    pub starts: Vec<Start>,
    pub memory: Vec<(String, Memory)>,
    /// Milliseconds from `meshctl apply` to the last acknowledgement, sorted.
    pub changes: Vec<f64>,
    /// Milliseconds of the whole command, sorted.
    pub commands: Vec<f64>,
    /// Proxies that each change affected, as the command said.
    pub affected: u64,
}

/// Seconds from the command's start.
#[derive(Debug, Clone, Default)]
pub struct Start {
    pub api: Option<f64>,
    pub nodes: Option<f64>,
    pub pod: Option<f64>,
    pub answering: Option<f64>,
    /// End of the command.
    pub command: f64,
    /// The command's own line of live figures: requests, success, share of mutual TLS.
    pub live: String,
}

struct Bench {
    programs: PathBuf,
    scratch: tempfile::TempDir,
}

/// Starts the cluster `starts` times, afresh each time; measures the last one and removes it.
pub fn measure(programs: &Path, starts: usize, changes: usize) -> Result<Report> {
    ensure!(starts > 0, "at least one start is needed");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = Bench { programs: programs.to_owned(), scratch: tempfile::tempdir()? };
    runtime.block_on(async {
        let report = bench.all(starts, changes).await;
        let down = bench.meshctl(&["down"]).await;
        let report = report?;
        down.context("the cluster cannot be removed")?;
        Ok(report)
    })
}

// === impl Bench ===

impl Bench {
    async fn all(&self, starts: usize, changes: usize) -> Result<Report> {
        let mut seen = Vec::new();
        for number in 1..=starts {
            self.meshctl(&["down"]).await?;
            let start = self.start().await?;
            eprintln!("start {number}: {start:?}");
            seen.push(start);
        }
        tokio::time::sleep(SETTLE).await;
        let memory = memory()?;
        for (name, memory) in &memory {
            eprintln!("{name}: {memory:?}");
        }
        let (mut times, mut commands, mut affected) = (Vec::new(), Vec::new(), 0);
        for number in 0..changes {
            let started = Instant::now();
            let (milliseconds, proxies) = self.change(if number % 2 == 0 { 50 } else { 90 }).await?;
            commands.push(started.elapsed().as_secs_f64() * 1e3);
            times.push(milliseconds);
            affected = proxies;
        }
        times.sort_by(f64::total_cmp);
        commands.sort_by(f64::total_cmp);
        eprintln!("changes: p50 {:.1} ms, p99 {:.1} ms", percentile(&times, 50), percentile(&times, 99));
        Ok(Report { starts: seen, memory, changes: times, commands, affected })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("meshctl"));
        command.args(args).env("MESH_NAME", NAME).env_remove("KUBECONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn meshctl(&self, args: &[&str]) -> Result<String> {
        good(self.command(args).output().await?, &args.join(" "))
    }

    async fn start(&self) -> Result<Start> {
        let started = Instant::now();
        let command = self.command(&["up", "--demo"]).spawn()?;
        let looking = async {
            let mut seen = Start::default();
            let (api, gateway) = (look_at_api(started), look_at_gateway(started));
            let (api, gateway) = tokio::join!(api, gateway);
            (seen.api, seen.nodes, seen.pod) = api?;
            seen.answering = Some(gateway?);
            anyhow::Ok(seen)
        };
        let ended = async {
            let output = command.wait_with_output().await?;
            anyhow::Ok((started.elapsed().as_secs_f64(), good(output, "up --demo")?))
        };
        // Whatever fails first is the cause.
        let (mut seen, (seconds, text)) = tokio::try_join!(looking, ended)?;
        seen.command = seconds;
        let live = text.lines().find(|line| line.contains("mTLS")).unwrap_or_default();
        live.trim().clone_into(&mut seen.live);
        Ok(seen)
    }

    /// Moves the weight of reviews v1; milliseconds to the last acknowledgement, and proxies affected.
    async fn change(&self, weight: u32) -> Result<(f64, u64)> {
        let file = self.scratch.path().join("weights.yaml");
        std::fs::write(&file, weights(weight))?;
        let file = file.display().to_string();
        let text = self.meshctl(&["apply", "-f", &file, "-o", "json"]).await?;
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
        let all = answer.as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice);
        let service = all.iter().find(|it| it["object"].as_str().is_some_and(|it| it.starts_with("virtual")));
        let service = service.with_context(|| format!("nothing said of the object: {text}"))?;
        ensure!(service["acked"] == service["affected"], "not all proxies acknowledged: {text}");
        let milliseconds = service["milliseconds"].as_f64().with_context(|| format!("no time: {text}"))?;
        Ok((milliseconds, service["affected"].as_u64().unwrap_or_default()))
    }
}

fn weights(first: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  host: reviews\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  - {{name: v2, labels: {{version: v2}}}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n  - route:\n    - {{destination: {{host: reviews, subset: v1}}, weight: {first}}}\n    \
         - {{destination: {{host: reviews, subset: v2}}, weight: {}}}\n",
        100 - first
    )
}

fn good(output: Output, what: &str) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    bail!("meshctl {what}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

type Times = (Option<f64>, Option<f64>, Option<f64>);

/// When the API answers, all nodes are ready, and the first pod runs.
async fn look_at_api(started: Instant) -> Result<Times> {
    let seconds = || Some(started.elapsed().as_secs_f64());
    let (mut api, mut nodes, mut pod) = (None, None, None);
    let mut client = None;
    while api.is_none() || nodes.is_none() || pod.is_none() {
        ensure!(started.elapsed() < DEADLINE, "the API: {api:?}, nodes: {nodes:?}, a pod: {pod:?}");
        tokio::time::sleep(LOOK).await;
        if client.is_none() {
            client = connect().await.ok();
        }
        let Some(client) = &client else { continue };
        if api.is_none() && get(client, "/version").await.is_ok() {
            api = seconds();
        }
        if api.is_some()
            && nodes.is_none()
            && get(client, "/api/v1/nodes").await.is_ok_and(|it| all_ready(&it))
        {
            nodes = seconds();
        }
        if api.is_some() && pod.is_none() && get(client, "/api/v1/pods").await.is_ok_and(|it| any_runs(&it)) {
            pod = seconds();
        }
    }
    Ok((api, nodes, pod))
}

async fn connect() -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(format!("/var/lib/{NAME}/kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

async fn get(client: &kube::Client, path: &str) -> Result<Value> {
    let call = client.request::<Value>(Request::get(path).body(Vec::new())?);
    Ok(tokio::time::timeout(Duration::from_secs(2), call).await??)
}

/// Both nodes are there and ready.
fn all_ready(nodes: &Value) -> bool {
    let ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    nodes["items"].as_array().is_some_and(|items| items.len() == 2 && items.iter().all(|node| ready(&node)))
}

fn any_runs(pods: &Value) -> bool {
    pods["items"].as_array().into_iter().flatten().any(|pod| pod["status"]["phase"] == "Running")
}

/// When the application answers 200 through the gateway.
async fn look_at_gateway(started: Instant) -> Result<f64> {
    while started.elapsed() < DEADLINE {
        let answered = tokio::task::spawn_blocking(gateway_answers).await?;
        if answered {
            return Ok(started.elapsed().as_secs_f64());
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("the application does not answer through the gateway")
}

fn gateway_answers() -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], INGRESS_PORT)))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /productpage HTTP/1.1\r\nhost: bookinfo\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(64).read_to_end(&mut answer)?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

/// Memory of each process of the cluster, by what it is.
fn memory() -> Result<Vec<(String, Memory)>> {
    let pid = std::fs::read_to_string(format!("/run/{NAME}/cluster.pid"))?;
    let mut found = vec![("cluster".to_owned(), system::memory(pid.trim().parse()?)?)];
    let mut others = Vec::new();
    for (pid, line) in system::processes()? {
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let shim = words.any(|word| word == "shim");
        let ours = line.contains(&format!("/{NAME}/"))
            || system::cgroups(pid).contains(&format!("/cluster-{NAME}/"));
        let name = match program {
            _ if !ours => continue,
            "meshd" | "sidecar" | "bookinfo" => program,
            _ if shim => "shim",
            _ => continue,
        };
        // A process may have ended since.
        if let Ok(memory) = system::memory(pid) {
            others.push((name.to_owned(), memory));
        }
    }
    others.sort_by(|a, b| a.0.cmp(&b.0));
    found.extend(others);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_ready() {
        let node = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        assert!(all_ready(&json!({"items": [node("True"), node("True")]})));
        assert!(!all_ready(&json!({"items": [node("True")]})));
        assert!(!all_ready(&json!({"items": [node("True"), node("False")]})));
        assert!(any_runs(
            &json!({"items": [{"status": {"phase": "Pending"}}, {"status": {"phase": "Running"}}]})
        ));
        assert!(!any_runs(&json!({"items": []})));
    }
}
