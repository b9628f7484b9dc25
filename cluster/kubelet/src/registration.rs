//! The node's own objects in the API: the Node with its capacity and conditions, and the Lease that says it lives.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ContainerImage, DaemonEndpoint};
use k8s_openapi::api::core::v1::{
    Node as ApiNode, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
    Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use nix::sys::statvfs::statvfs;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::events::Severity;
use crate::node::Node;

/// Pods a node takes at most (Kubernetes default).
const PODS_MAX: u32 = 110;
const LEASE_RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// How often an unchanged status is written all the same (Kubernetes' nodeStatusReportFrequency).
const STATUS_REPORT: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_millis(200);
/// Below this the node reports pressure (Kubernetes' hard eviction thresholds).
const MEMORY_AVAILABLE_BYTES_MIN: u64 = 100 << 20;
const DISK_AVAILABLE_PERCENT_MIN: u64 = 10;
/// Images listed in the node's status (Kubernetes default).
const IMAGES_LISTED_MAX: usize = 50;
/// Where leases of nodes live.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What the node says of itself that its kubelet cannot find out.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) pod_cidr: String,
    pub(crate) version: String,
    pub(crate) port: u16,
}

/// The machine's capacity, less nothing: nodes of one machine share it.
pub(crate) fn capacity(
    overrides: &BTreeMap<String, Quantity>,
    data_dir: &std::path::Path,
) -> BTreeMap<String, Quantity> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kib =
        meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal").unwrap_or(0);
    let disk = statvfs(data_dir).map_or(0, |stat| stat.blocks().saturating_mul(stat.fragment_size()));
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{memory_kib}Ki"))),
        ("pods".to_owned(), Quantity(PODS_MAX.to_string())),
        ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", disk / 1024))),
    ]);
    capacity.extend(overrides.clone());
    capacity
}

/// A value of `/proc/meminfo` in KiB.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Registers the node, then renews lease and status until `shutdown`.
pub(crate) async fn run(node: Arc<Node>, identity: Identity, shutdown: CancellationToken) {
    let work = async {
        let uid = register(&node, &identity).await;
        node.events.node(&node.name, Severity::Normal, "NodeReady", format!("Node {} is ready", node.name));
        let mut ticks = tokio::time::interval(LEASE_RENEW);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written = None;
        loop {
            ticks.tick().await;
            if let Err(error) = renew(&node, &uid).await {
                tracing::warn!(node = node.name, error = %base_types::ErrorChain(&error), "Lease not renewed");
            }
            report(&node, &identity, &mut written).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// Makes the Node object, or brings it up to date; tries until the API answers. Answers its UID.
async fn register(node: &Node, identity: &Identity) -> String {
    let api: Api<ApiNode> = Api::all(node.client.clone());
    loop {
        match try_register(&api, node, identity).await {
            Ok(uid) => return uid,
            Err(error) => {
                tracing::debug!(node = node.name, error = %base_types::ErrorChain(&error), "Node not registered yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_register(api: &Api<ApiNode>, node: &Node, identity: &Identity) -> Result<String, kube::Error> {
    let now = Timestamp::now();
    let old = api.get_opt(&node.name).await?;
    let images = images(node).await;
    let status = status(node, identity, old.as_ref().and_then(|old| old.status.as_ref()), images, now);
    let metadata = ObjectMeta {
        name: Some(node.name.clone()),
        labels: Some(labels(node, identity)),
        ..ObjectMeta::default()
    };
    let spec = json!({"podCIDR": identity.pod_cidr, "podCIDRs": [identity.pod_cidr]});
    let known = match old {
        Some(_) => {
            let patch = json!({"metadata": {"labels": metadata.labels}, "spec": spec});
            api.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch)).await?
        }
        None => {
            let spec = NodeSpec {
                pod_cidr: Some(identity.pod_cidr.clone()),
                pod_cidrs: Some(vec![identity.pod_cidr.clone()]),
                taints: (!identity.taints.is_empty()).then(|| identity.taints.clone()),
                ..NodeSpec::default()
            };
            let object = ApiNode { metadata, spec: Some(spec), status: Some(status.clone()) };
            api.create(&PostParams::default(), &object).await?
        }
    };
    api.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(known.metadata.uid.unwrap_or_default())
}

async fn renew(node: &Node, uid: &str) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(node.client.clone(), LEASE_NAMESPACE);
    let now = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    match api.patch(&node.name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name.clone(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}

/// Writes the status when it changed, or when it has not been written for a while.
async fn report(node: &Node, identity: &Identity, written: &mut Option<(NodeStatus, Timestamp)>) {
    let now = Timestamp::now();
    let images = images(node).await;
    let previous = written.as_ref().map(|(status, _)| status);
    let status = status(node, identity, previous, images, now);
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    let due = match &*written {
        Some((old, at)) => quiet(old) != quiet(&status) || crate::backoff::until(now, *at) >= STATUS_REPORT,
        None => true,
    };
    if !due {
        return;
    }
    let api: Api<ApiNode> = Api::all(node.client.clone());
    let patch = Patch::Merge(json!({"status": status}));
    match api.patch_status(&node.name, &PatchParams::default(), &patch).await {
        Ok(_) => *written = Some((status, now)),
        Err(kube::Error::Api(refused)) if refused.code == 404 => {
            // Somebody deleted the node; it is still here.
            register(node, identity).await;
        }
        Err(error) => {
            tracing::warn!(node = node.name, error = %base_types::ErrorChain(&error), "Node status not written");
        }
    }
}

fn labels(node: &Node, identity: &Identity) -> BTreeMap<String, String> {
    let mut labels = identity.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", node.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The processor architecture as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn images(node: &Node) -> Vec<ContainerImage> {
    let mut images = node.runtime.images().list().await.unwrap_or_default();
    images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    images
        .into_iter()
        .take(IMAGES_LISTED_MAX)
        .map(|image| ContainerImage {
            names: Some(image.names),
            size_bytes: Some(i64::try_from(image.size_bytes).unwrap_or(i64::MAX)),
        })
        .collect()
}

fn status(
    node: &Node,
    identity: &Identity,
    previous: Option<&NodeStatus>,
    images: Vec<ContainerImage>,
    now: Timestamp,
) -> NodeStatus {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let old = previous.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", node.ip.to_string()),
            address("Hostname", node.name.clone()),
        ]),
        capacity: Some(node.capacity.clone()),
        allocatable: Some(node.capacity.clone()),
        conditions: Some(conditions(&pressures(node), old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(identity.port) }),
        }),
        images: Some(images),
        node_info: Some(info(node.ip, &identity.version)),
        ..NodeStatus::default()
    }
}

/// Which resources are short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pressures {
    memory: bool,
    disk: bool,
}

fn pressures(node: &Node) -> Pressures {
    let memory = meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable");
    let disk = statvfs(&node.data_dir).ok();
    Pressures {
        memory: memory.is_some_and(|kib| kib.saturating_mul(1024) < MEMORY_AVAILABLE_BYTES_MIN),
        disk: disk.is_some_and(|stat| {
            stat.blocks_available().saturating_mul(100)
                < stat.blocks().saturating_mul(DISK_AVAILABLE_PERCENT_MIN)
        }),
    }
}

fn conditions(pressures: &Pressures, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let condition = |kind: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        let before = old.iter().find(|before| before.type_ == kind && before.status == status);
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or(Some(Time(now))),
        }
    };
    let memory = if pressures.memory {
        condition(
            "MemoryPressure",
            true,
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
        )
    } else {
        condition(
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        )
    };
    let disk = if pressures.disk {
        condition("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure")
    } else {
        condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
    };
    vec![
        memory,
        disk,
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
    ]
}

fn info(ip: IpAddr, version: &str) -> NodeSystemInfo {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("Linux", |name| name.trim_matches('"'))
        .to_owned();
    let machine = line("/etc/machine-id");
    // Nodes of one machine differ by their address.
    let unique = if machine.is_empty() { ip.to_string() } else { format!("{machine}-{ip}") };
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("mesh://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        kube_proxy_version: version.to_owned(),
        kubelet_version: version.to_owned(),
        machine_id: unique.clone(),
        operating_system: "linux".to_owned(),
        os_image: system,
        system_uuid: unique,
        ..NodeSystemInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_list() {
        let text = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(16384));
        assert_eq!(meminfo(text, "MemAvailable"), Some(2048));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(meminfo("", "MemTotal"), None);
    }

    #[test]
    fn a_condition_keeps_its_transition_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let calm = conditions(&Pressures::default(), &[], at(10));
        let later = conditions(&Pressures { memory: true, disk: false }, &calm, at(20));
        let transition = |list: &[NodeCondition], kind: &str| {
            let found = list.iter().find(|condition| condition.type_ == kind).unwrap();
            (found.status.clone(), found.last_transition_time.clone().unwrap().0)
        };
        assert_eq!(transition(&later, "Ready"), ("True".to_owned(), at(10)));
        assert_eq!(transition(&later, "MemoryPressure"), ("True".to_owned(), at(20)));
    }
}
