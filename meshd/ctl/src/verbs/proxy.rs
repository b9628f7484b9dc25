//! `proxy list` and `proxy config`.

use crate::{
    cluster_client::Cluster,
    failure::{Exit, Failure, Outcome},
    output::{Format, structured, table},
    place::Place,
};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{AttachParams, ListParams},
};
use policies_api::names::{CONTROL_PLANE, ROOT_NAMESPACE, SIDECAR_CONTAINER, ports::CONTROL_PLANE_METRICS};
use serde_json::Value;
use tokio::io::AsyncReadExt;

/// What to show of proxies.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Every connected proxy, and whether it has the newest configuration.
    List {
        /// Form of the result.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// The configuration in force in one proxy.
    #[command(
        after_help = "Examples:\n  meshctl proxy config productpage-v1-abc\n  meshctl proxy config deploy/reviews-v1 routes -o yaml"
    )]
    Config {
        /// A pod, or `deploy/<name>` for one of its pods; `<name>.<namespace>` for another namespace.
        pod: String,
        /// Which part.
        #[arg(
            value_parser = [
                "bootstrap", "listeners", "routes", "clusters", "endpoints", "secrets", "stats", "health", "server", "all"
            ],
            default_value = "all"
        )]
        part: String,
        /// Namespace of the pod.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// Form of the result.
        #[arg(short, long, value_enum, default_value_t = Format::Json)]
        output: Format,
    },
}

/// Runs the command.
pub async fn run(place: &Place, command: Command) -> Outcome {
    let cluster = Cluster::open(place).await?;
    match command {
        Command::List { output } => list(&cluster, output).await,
        Command::Config { pod, part, namespace, output } => {
            let (pod, namespace) = find(&cluster, &pod, &namespace).await?;
            let path = dump_path(&part);
            let shown: Value = serde_json::from_str(&admin(&cluster, &namespace, &pod, path).await?)?;
            let format = if matches!(output, Format::Yaml) { Format::Yaml } else { Format::Json };
            structured(format, &shown).map(|_| ())
        }
    }
}

/// Where the admin port shows a part of the configuration.
fn dump_path(part: &str) -> &'static str {
    match part {
        "bootstrap" => "/config_dump?resource=bootstrap",
        "listeners" => "/config_dump?resource=dynamic_listeners",
        "routes" => "/config_dump?resource=dynamic_route_configs",
        "clusters" => "/config_dump?resource=dynamic_active_clusters",
        "endpoints" => "/config_dump?resource=dynamic_endpoint_configs",
        "secrets" => "/config_dump?resource=dynamic_active_secrets",
        "stats" => "/stats?format=json&usedonly",
        "health" => "/clusters?format=json",
        "server" => "/server_info",
        _ => "/config_dump?include_eds",
    }
}

async fn list(cluster: &Cluster, output: Format) -> Outcome {
    let (version, proxies) = synchronized(cluster).await?;
    if structured(output, &Value::from(proxies.clone()))? {
        return Ok(());
    }
    let rows = proxies.iter().map(|proxy| {
        let refused = proxy["rejected"].as_object().filter(|r| !r.is_empty());
        let state = match (refused, proxy["version"].as_u64()) {
            (Some(_), _) => "ERROR",
            (None, Some(0)) => "NOT SENT",
            (None, Some(v)) if v == version => "SYNCED",
            _ => "STALE",
        };
        let count =
            |kind: &str| proxy["resources"][kind].as_u64().map_or_else(|| "-".into(), |n| n.to_string());
        let mut row = vec![
            proxy["proxy"].as_str().unwrap_or_default().to_owned(),
            proxy["kind"].as_str().unwrap_or_default().into(),
            state.into(),
        ];
        row.extend(["CDS", "LDS", "EDS", "RDS"].map(count));
        row
    });
    table(&["NAME", "KIND", "STATE", "CDS", "LDS", "EDS", "RDS"], rows);
    Ok(())
}

/// The newest version and every connected proxy, as the control plane sees them.
pub async fn synchronized(cluster: &Cluster) -> Outcome<(u64, Vec<Value>)> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), ROOT_NAMESPACE);
    let pods = api.list(&ListParams::default().labels(&format!("app={CONTROL_PLANE}"))).await?;
    let ready = |pod: &Pod| {
        pod.status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let (mut version, mut proxies) = (0, Vec::new());
    for pod in pods.items.iter().filter(|pod| ready(pod)) {
        let path = format!(
            "/api/v1/namespaces/{ROOT_NAMESPACE}/pods/{}:{CONTROL_PLANE_METRICS}/proxy/debug/syncz",
            pod.name_any()
        );
        let request =
            Request::get(path).body(Vec::new()).map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        let answer: Value = cluster.client.request(request).await?;
        version = version.max(answer["version"].as_u64().unwrap_or(0));
        proxies.extend(answer["proxies"].as_array().into_iter().flatten().cloned());
    }
    Ok((version, proxies))
}

/// The pod that is meant.
pub async fn find(cluster: &Cluster, words: &str, namespace: &str) -> Outcome<(String, String)> {
    let (kind, name) = words.split_once('/').unwrap_or(("pod", words));
    let (name, namespace) = match name.split_once('.') {
        Some((name, namespace)) => (name, namespace),
        None => (name, namespace),
    };
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    if matches!(kind, "pod" | "pods" | "po") && api.get_opt(name).await?.is_some() {
        return Ok((name.into(), namespace.into()));
    }
    let pods = api.list(&ListParams::default()).await?;
    let own = |pod: &&Pod| {
        pod.name_any().strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
            && crate::figures::has_proxy(pod)
    };
    match pods.items.iter().find(own) {
        Some(pod) => Ok((pod.name_any(), namespace.into())),
        None => Err(Failure::new(
            Exit::Failed,
            format!("no pod with a proxy is named `{name}` in namespace {namespace}"),
        )
        .fix("meshctl proxy list")),
    }
}

/// Asks a proxy's admin port, which listens on the pod's loopback only, by a command in its container.
pub async fn admin(cluster: &Cluster, namespace: &str, pod: &str, path: &str) -> Outcome<String> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let params = AttachParams::default().container(SIDECAR_CONTAINER).stdout(true).stderr(true);
    let mut process = api.exec(pod, ["/sidecar", "request", "GET", path], &params).await?;
    let (mut out, mut err) = (String::new(), String::new());
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let read_out = async {
        if let Some(mut stream) = stdout { stream.read_to_string(&mut out).await.map(|_| ()) } else { Ok(()) }
    };
    let read_err = async {
        if let Some(mut stream) = stderr { stream.read_to_string(&mut err).await.map(|_| ()) } else { Ok(()) }
    };
    let (a, b) = tokio::join!(read_out, read_err);
    a?;
    b?;
    if out.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!("the proxy of {namespace}/{pod} did not answer {path}: {}", err.trim()),
        ));
    }
    Ok(out)
}
