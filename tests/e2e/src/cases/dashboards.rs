//! Dashboards and rules against a real Prometheus that scrapes the live mesh with the scrape configuration that we ship.
//!
//! Debian's Prometheus is built without Kubernetes discovery: here the targets come from files that hold the labels which that
//! discovery would give, so that all else, relabelling above all, is as shipped.

use crate::mesh::{Mesh, eventually};
use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Where Prometheus listens, inside the cluster's network.
const LISTEN: &str = "127.0.0.1:19090";
/// Long enough for every figure to have been scraped several times at one scrape a second.
const DEADLINE: Duration = Duration::from_secs(90);
/// What a person would choose in a dashboard's lists.
const VARIABLES: [(&str, &str); 4] = [
    ("service", "reviews.default.svc.cluster.local"),
    ("namespace", "default"),
    ("workload", "productpage-v1"),
    ("__rate_interval", "20s"),
];

/// Failures to count, and connections that are no HTTP to the proxies.
const TRAFFIC: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: dashboards-ratings}
spec:
  hosts: [ratings]
  http:
  - fault: {abort: {percentage: {value: 50}, httpStatus: 503}}
    route: [{destination: {host: ratings}}]
---
apiVersion: v1
kind: Service
metadata: {name: raw}
spec:
  selector: {app: raw}
  ports: [{name: tcp-raw, port: 9100}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: raw-v1}
spec:
  selector: {matchLabels: {app: raw, version: v1}}
  template:
    metadata: {labels: {app: raw, version: v1}}
    spec:
      containers: [{name: raw, image: IMAGE, args: [ratings, --listen, '[::]:9100'], securityContext: {runAsUser: 1000}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: raw-client}
spec:
  selector: {matchLabels: {app: raw-client}}
  template:
    metadata: {labels: {app: raw-client}}
    spec:
      containers: [{name: client, image: IMAGE, args: [traffic, --url, 'http://raw:9100/ratings/0', --rate, '5'], securityContext: {runAsUser: 1000}}]
";

/// A Prometheus inside the cluster's network. It and its files are gone when this is dropped.
struct Prometheus {
    child: Child,
    dir: PathBuf,
    network: String,
}

/// One query of one panel.
struct Query {
    place: String,
    text: String,
}

pub async fn every_panel_has_data_and_rules_evaluate(mesh: &Mesh) -> Result<String> {
    let queries = queries(&folder())?;
    ensure!(queries.len() > 50, "only {} queries found in {}", queries.len(), folder().display());
    let deployment = mesh.get(&["deployment", "ratings-v1"])?;
    let image = deployment
        .pointer("/spec/template/spec/containers/0/image")
        .and_then(Value::as_str)
        .context("ratings-v1 has no image")?;
    let traffic = TRAFFIC.replace("IMAGE", image);
    mesh.apply(&traffic)?;
    let result = watch(mesh, &queries, &traffic).await;
    mesh.delete(&traffic)?;
    result.map(|said| format!("{} queries; {said}", queries.len()))
}

async fn watch(mesh: &Mesh, queries: &[Query], traffic: &str) -> Result<String> {
    let prometheus = Prometheus::start(&mesh.name)?;
    let targets = eventually("all targets are scraped", DEADLINE, async || {
        prometheus.discover(mesh)?;
        prometheus.targets()
    })
    .await
    .with_context(|| prometheus.log())?;
    let mut percent = 50;
    eventually("every query of every panel returns data", DEADLINE, async || {
        // Figures of pushes come from pushes: one in every round.
        percent = 110 - percent;
        mesh.apply(&traffic.replace("value: 50", &format!("value: {percent}")))?;
        let mut empty = Vec::new();
        for query in queries {
            if !prometheus.has_data(&query.text).with_context(|| query.place.clone())? {
                empty.push(format!("{}: {}", query.place, query.text));
            }
        }
        ensure!(empty.is_empty(), "{} of {} are empty:\n{}", empty.len(), queries.len(), empty.join("\n"));
        Ok(())
    })
    .await?;
    let variables = variables(&folder())?;
    for (name, metric, label) in &variables {
        let values = prometheus.get(&format!("label/{label}/values"), &[("match[]", metric)])?;
        let chosen = VARIABLES.iter().find(|(n, _)| n == name).context("a variable that is not known")?.1;
        ensure!(
            values.as_array().is_some_and(|all| all.iter().any(|v| v == chosen)),
            "the list of {name} does not offer {chosen}: {values}"
        );
    }
    let rules =
        eventually("every rule was evaluated without error", DEADLINE, async || prometheus.rules()).await?;
    Ok(format!("{targets} targets, {rules} rules, {} variables", variables.len()))
}

/// Folder of the dashboards.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards")
}

/// All dashboards by file name.
fn dashboards(folder: &Path) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let value = serde_json::from_slice(&fs::read(&path)?).with_context(|| name.clone())?;
            all.insert(name, value);
        }
    }
    Ok(all)
}

/// All queries, with values in the place of variables.
fn queries(folder: &Path) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for (name, dashboard) in dashboards(folder)? {
        for panel in dashboard["panels"].as_array().context("a dashboard without panels")? {
            let title = panel["title"].as_str().unwrap_or_default();
            let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
            ensure!(panel["type"] == "row" || !targets.is_empty(), "{name}, {title}: no query");
            for target in targets {
                let mut text = target["expr"].as_str().context("a target without a query")?.to_owned();
                for (variable, value) in VARIABLES {
                    text = text.replace(&format!("${variable}"), value);
                }
                ensure!(!text.contains('$'), "{name}, {title}: a variable that is not known: {text}");
                queries.push(Query { place: format!("{name}, {title}"), text });
            }
        }
    }
    Ok(queries)
}

/// Name, metric and label of each variable whose values come from Prometheus.
fn variables(folder: &Path) -> Result<Vec<(String, String, String)>> {
    let mut variables = Vec::new();
    for dashboard in dashboards(folder)?.values() {
        let list = dashboard["templating"]["list"].as_array().context("no variables")?;
        for variable in list.iter().filter(|v| v["type"] == "query") {
            let mut text =
                variable["query"]["query"].as_str().context("a variable without a query")?.to_owned();
            for (name, value) in VARIABLES {
                text = text.replace(&format!("${name}"), value);
            }
            let (metric, label) = text
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
                .with_context(|| format!("cannot read {text}"))?;
            let name = variable["name"].as_str().context("a variable without a name")?;
            variables.push((name.to_owned(), metric.to_owned(), label.to_owned()));
        }
    }
    Ok(variables)
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts it with the shipped files, scraping every second.
    fn start(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("mesh-e2e-prometheus-{}", std::process::id()));
        fs::create_dir_all(dir.join("pki"))?;
        fs::create_dir_all(dir.join("rules"))?;
        let text = fs::read_to_string(folder().join("prometheus.yml"))?;
        ensure!(text.matches("_interval: 5s").count() == 2, "prometheus.yml has other intervals");
        let mut text = text.replace("_interval: 5s", "_interval: 1s");
        for role in ["pod", "node"] {
            let discovery = format!(
                "kubernetes_sd_configs:\n      - role: {role}\n        api_server: https://172.30.0.1:6443\n        tls_config: *cluster\n"
            );
            ensure!(text.contains(&discovery), "prometheus.yml finds {role}s in another way");
            text = text.replace(&discovery, &format!("file_sd_configs: [{{files: [{role}.json]}}]\n"));
        }
        fs::write(dir.join("prometheus.yml"), text)?;
        fs::copy(folder().join("rules/mesh.rules.yml"), dir.join("rules/mesh.rules.yml"))?;
        let kubeconfig = fs::read_to_string(format!("/var/lib/{name}/kubeconfig"))?;
        for (key, file) in [
            ("certificate-authority-data:", "ca.crt"),
            ("client-certificate-data:", "client.crt"),
            ("client-key-data:", "client.key"),
        ] {
            let data = kubeconfig
                .lines()
                .find_map(|line| line.trim().strip_prefix(key))
                .with_context(|| format!("the kubeconfig has no {key}"))?;
            fs::write(dir.join("pki").join(file), STANDARD.decode(data.trim().trim_matches('"'))?)?;
        }
        let log = fs::File::create(dir.join("log"))?;
        let network = format!("--net=/run/netns/{name}-fabric");
        let child = inside(&network)
            .arg("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={LISTEN}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start prometheus; tests/setup.sh test installs it")?;
        Ok(Self { child, dir, network })
    }

    /// Writes down what there is to scrape, as Kubernetes discovery would find it.
    fn discover(&self, mesh: &Mesh) -> Result<()> {
        let (pods, nodes) = (mesh.get(&["pods", "-A"])?, mesh.get(&["nodes"])?);
        let pods = pods["items"].as_array().context("no pods")?;
        let nodes = nodes["items"].as_array().context("no nodes")?;
        // A pod on its way out cannot be scraped, and is no fault.
        let living = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let targets: Vec<Value> = living.flat_map(pod_targets).collect();
        fs::write(self.dir.join("pod.json"), json!(targets).to_string())?;
        let targets: Vec<Value> = nodes.iter().map(node_target).collect::<Result<_>>()?;
        fs::write(self.dir.join("node.json"), json!(targets).to_string())?;
        Ok(())
    }

    /// One call of its HTTP API; the answer's data. The API is reachable in the cluster's network only.
    fn get(&self, path: &str, pairs: &[(&str, &str)]) -> Result<Value> {
        let mut curl = inside(&self.network);
        curl.args(["curl", "--silent", "--show-error", "--max-time", "10", "--get"]);
        for (key, value) in pairs {
            curl.arg("--data-urlencode").arg(format!("{key}={value}"));
        }
        let output = curl.arg(format!("http://{LISTEN}/api/v1/{path}")).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{path}: {}", error.trim());
        let mut answer: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(answer["status"] == "success", "{path} {pairs:?}: {}", answer["error"]);
        Ok(answer["data"].take())
    }

    /// Whether a query returns at least one number.
    fn has_data(&self, query: &str) -> Result<bool> {
        let data = self.get("query", &[("query", query)])?;
        let numbers = data["result"].as_array().context("no result")?;
        Ok(numbers.iter().any(|sample| {
            sample["value"][1].as_str().and_then(|v| v.parse::<f64>().ok()).is_some_and(f64::is_finite)
        }))
    }

    /// How many targets there are, when each was scraped without error and every job has one.
    fn targets(&self) -> Result<usize> {
        let data = self.get("targets", &[("state", "active")])?;
        let targets = data["activeTargets"].as_array().context("no targets")?;
        for target in targets {
            ensure!(
                target["health"] == "up",
                "{}: {} {}",
                target["scrapeUrl"],
                target["health"],
                target["lastError"]
            );
        }
        // Six workloads of the sample, two of this test, gateway, control plane; two nodes thrice; the API server.
        ensure!(targets.len() >= 17, "only {} targets", targets.len());
        Ok(targets.len())
    }

    /// How many rules there are, when each was evaluated without error and none fires in a mesh that is well.
    fn rules(&self) -> Result<usize> {
        let data = self.get("rules", &[])?;
        let groups = data["groups"].as_array().context("no groups")?;
        let rules: Vec<&Value> = groups.iter().filter_map(|g| g["rules"].as_array()).flatten().collect();
        ensure!(rules.len() >= 14, "only {} rules", rules.len());
        for rule in &rules {
            if rule["health"] != "ok" || rule["state"] == "firing" {
                bail!("{}: {} {} {}", rule["name"], rule["health"], rule["state"], rule["lastError"]);
            }
        }
        Ok(rules.len())
    }

    /// The end of its log.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> =
            text.lines().filter(|l| l.contains("level=error") || l.contains("level=warn")).collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// A command inside the cluster's network, where pods have addresses.
fn inside(network: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(network);
    command
}

/// The labels that Kubernetes discovery gives a pod's ports, a target for each.
fn pod_targets(pod: &Value) -> Vec<Value> {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut labels = serde_json::Map::new();
    for (name, pointer) in [
        ("namespace", "/metadata/namespace"),
        ("pod_name", "/metadata/name"),
        ("pod_ip", "/status/podIP"),
        ("pod_phase", "/status/phase"),
        ("pod_node_name", "/spec/nodeName"),
    ] {
        labels.insert(format!("__meta_kubernetes_{name}"), text(pointer).into());
    }
    for (kind, field) in [("label", "labels"), ("annotation", "annotations")] {
        for (key, value) in pod["metadata"][field].as_object().into_iter().flatten() {
            let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            labels.insert(format!("__meta_kubernetes_pod_{kind}_{key}"), value.clone());
        }
    }
    let containers = ["initContainers", "containers"].map(|field| pod["spec"][field].as_array());
    let ports = containers.into_iter().flatten().flatten().flat_map(|c| {
        let ports = c["ports"].as_array().into_iter().flatten().map(|p| format!(":{}", p["containerPort"]));
        // A container without a port is a target without one.
        ports.chain(c["ports"].is_null().then(String::new))
    });
    ports
        .map(|port| json!({"targets": [format!("{}{port}", text("/status/podIP"))], "labels": labels}))
        .collect()
}

/// The target that Kubernetes discovery makes of a node.
fn node_target(node: &Value) -> Result<Value> {
    let addresses = node["status"]["addresses"].as_array().context("a node without addresses")?;
    let address = addresses
        .iter()
        .find(|a| a["type"] == "InternalIP")
        .and_then(|a| a["address"].as_str())
        .context("a node without InternalIP")?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").context("a node without port")?;
    Ok(json!({
        "targets": [format!("{address}:{port}")],
        "labels": {"__meta_kubernetes_node_name": node["metadata"]["name"]},
    }))
}
