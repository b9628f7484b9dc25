//! Services whose answers and whose memory the cases of policies look at: what the client got, and what the server saw.

use crate::{
    load::Outside,
    mesh::{INGRESS_PORT, Mesh},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Host that the gateway routes to these services.
pub const HOST: &str = "echo.example.com";
/// The main service, from inside.
pub const URL: &str = "http://echo.echo:9080";

const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: echo\n  labels: {istio-injection: enabled}\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: plain\n---\n";

const HTTP: &str = "{name: http, port: 9080}";
/// Nobody listens on this one's target.
const NOBODY: &str = "{name: http, port: 9080, targetPort: 9999}";

/// One deployment with an account of its own.
pub fn workload(namespace: &str, name: &str, app: &str, replicas: u32, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         replicas: {replicas}\n  selector: {{matchLabels: {{set: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {app}, set: {name}}}}}\n    \
         spec:\n      serviceAccountName: {name}\n      containers:\n      - name: app\n        image: mesh.local/bookinfo:latest\n        \
         imagePullPolicy: IfNotPresent\n        args: [echo, --tcp, '[::]:9000'{more}]\n        \
         env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]\n        \
         readinessProbe: {{httpGet: {{path: /health, port: 9080}}, periodSeconds: 1}}\n---\n"
    )
}

pub fn service(namespace: &str, name: &str, app: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  selector: {{app: {app}}}\n  \
         ports: [{port}]\n---\n"
    )
}

/// The services, and the clients around them.
pub struct Echo<'a> {
    pub mesh: &'a Mesh,
    pub outside: Outside,
}

impl<'a> Echo<'a> {
    /// Makes the services unless they are there, and takes back all policies of earlier cases.
    pub fn new(mesh: &'a Mesh) -> Result<Self> {
        static THERE: AtomicBool = AtomicBool::new(false);
        if !THERE.load(Relaxed) {
            let all = [
                NAMESPACES.to_owned(),
                workload("echo", "echo", "echo", 1, ""),
                workload("echo", "mirror", "mirror", 1, ""),
                workload("echo", "client", "client", 1, ""),
                workload("echo", "trio-good", "trio", 2, ""),
                workload("echo", "trio-bad", "trio", 1, ", --fail, '503'"),
                workload("plain", "plain", "plain", 1, ""),
                service("echo", "echo", "echo", HTTP),
                service("echo", "mirror", "mirror", HTTP),
                service("echo", "echo-tcp", "echo", "{name: tcp, port: 9000}"),
                service("echo", "dead", "mirror", NOBODY),
                service("echo", "trio", "trio", HTTP),
                service("plain", "plain", "plain", HTTP),
                service("plain", "dead", "plain", NOBODY),
            ];
            mesh.kubectl_input(&["apply", "-f", "-"], &all.concat())?;
            for (namespace, name) in [
                ("echo", "echo"),
                ("echo", "mirror"),
                ("echo", "client"),
                ("echo", "trio-good"),
                ("echo", "trio-bad"),
                ("plain", "plain"),
            ] {
                mesh.kubectl(&[
                    "rollout",
                    "status",
                    "-n",
                    namespace,
                    &format!("deploy/{name}"),
                    "--timeout=90s",
                ])?;
            }
            THERE.store(true, Relaxed);
        }
        mesh.kubectl(&[
            "delete",
            "virtualservices,destinationrules,peerauthentications,authorizationpolicies,telemetries",
            "--all",
            "-n",
            "echo",
        ])?;
        let echo = Self { mesh, outside: Outside::new() };
        echo.route("  - route: [{destination: {host: echo}}]\n")?;
        Ok(echo)
    }

    /// Routes of the host, at the gateway and in the mesh; given from `http:` on.
    pub fn route(&self, http: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: echo, namespace: echo}}\nspec:\n  \
             hosts: [{HOST}, echo]\n  gateways: [default/bookinfo-gateway, mesh]\n  http:\n{http}"
        ))
    }

    /// Applies YAML and insists that all proxies took it.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let out = self.mesh.apply(yaml)?;
        ensure!(out.contains("acked"), "apply must say who has it: {out}");
        Ok(())
    }

    /// What all pods of an app saw for a path, by pod: how often, how many at once, and the last.
    pub fn seen(&self, app: &str, path: &str) -> Result<Vec<(String, Value)>> {
        let namespace = if app == "plain" { "plain" } else { "echo" };
        let pods = self.mesh.get(&["pods", "-n", namespace, "-l", &format!("app={app}")])?;
        let names = pods["items"].as_array().context("no pods")?.iter();
        names
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .map(|pod| {
                let url = format!("http://127.0.0.1:9080/seen?path={path}");
                let mut lines = self.run(namespace, pod, &["get", &url])?;
                let line = lines.pop().context("nothing printed")?;
                let body = line["body"].as_str().with_context(|| format!("{pod}: {line}"))?;
                Ok((pod.to_owned(), serde_json::from_str(body)?))
            })
            .collect()
    }

    /// How many requests for a path came to an app.
    pub fn count(&self, app: &str, path: &str) -> Result<u64> {
        Ok(self.seen(app, path)?.iter().map(|(_, seen)| seen["count"].as_u64().unwrap_or(0)).sum())
    }

    /// The last request for a path that came to an app of one pod.
    pub fn last(&self, app: &str, path: &str) -> Result<Value> {
        let (_, seen) = self.seen(app, path)?.pop().context("no pods")?;
        Ok(seen["last"].clone())
    }

    /// One GET from a pod of the deployment.
    pub fn call(&self, namespace: &str, deployment: &str, args: &[&str]) -> Result<Value> {
        let args = [&["get"], args].concat();
        self.run(namespace, &format!("deploy/{deployment}"), &args)?.pop().context("nothing printed")
    }

    /// As [`Echo::call`], for arguments that make several; all answers.
    pub fn calls(&self, namespace: &str, deployment: &str, args: &[&str]) -> Result<Vec<Value>> {
        self.run(namespace, &format!("deploy/{deployment}"), &[&["get"], args].concat())
    }

    /// Bytes from a pod of the deployment, and what came back.
    pub fn send(&self, namespace: &str, deployment: &str, address: &str, text: &str) -> Result<Value> {
        let escaped = text.replace('\r', "\\r").replace('\n', "\\n");
        let args = ["send", address, &escaped, "--silence", "1500"];
        self.run(namespace, &format!("deploy/{deployment}"), &args)?.pop().context("nothing printed")
    }

    /// Runs the sample program in a pod; the JSON lines that it printed.
    fn run(&self, namespace: &str, target: &str, args: &[&str]) -> Result<Vec<Value>> {
        let container = if namespace == "default" {
            target.trim_start_matches("deploy/").trim_end_matches("-v1")
        } else {
            "app"
        };
        let command = ["exec", "-n", namespace, target, "-c", container, "--", "/bookinfo"];
        let out = self.mesh.kubectl(&[&command, args].concat())?;
        out.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// How long each of `count` GETs through the gateway took, `at_once` under way.
    pub async fn times(&self, path: &str, count: usize, at_once: usize) -> Result<Vec<(u16, Duration)>> {
        use futures::{StreamExt, TryStreamExt};
        futures::stream::iter(0..count)
            .map(|_| async {
                let (answer, took) = self.outside.get(HOST, path, &[]).await?;
                anyhow::Ok((answer.status().as_u16(), took))
            })
            .buffer_unordered(at_once)
            .try_collect()
            .await
    }
}

/// Sends bytes to the gateway; all that comes back until it closes or is silent.
pub async fn raw_to_gateway(text: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", INGRESS_PORT)).await?;
    stream.write_all(text.as_bytes()).await?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(Ok(read @ 1..)) =
        tokio::time::timeout(Duration::from_millis(1500), stream.read(&mut buffer)).await
    {
        answer.extend_from_slice(&buffer[..read]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// How far a share may be from what was asked for, in standard deviations. A run has some fifteen shares: with three, one run in
/// twenty-five would fail by chance; with 4.5, one in ten thousand.
pub const DEVIATIONS_MAX: f64 = 4.5;

/// A share of `count` tries is what was asked for.
pub fn ensure_share(what: &str, seen: usize, count: usize, percent: f64) -> Result<()> {
    let (n, p) = (count as f64, percent / 100.0);
    let deviation = (n * p * (1.0 - p)).sqrt();
    let off = (seen as f64 - n * p).abs();
    ensure!(
        off <= DEVIATIONS_MAX * deviation,
        "{what}: {seen} of {count}, not {percent} %: off by {off:.0}, where the standard deviation is {deviation:.1}"
    );
    Ok(())
}
