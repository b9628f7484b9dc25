//! The slow things a pod's worker has done for it in tasks of their own: setting up, launching, hooking, stopping, tearing down.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster_containers::{Resources, SandboxSpec};
use cluster_network::{Interception, PodNetRequest};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::container::{LaunchError, Launched};
use crate::field::Addresses;
use crate::node::Node;
use crate::objects::{Hold, Snapshot};
use crate::resources::Limits;
use crate::volumes::token::Tokens;
use crate::volumes::{self, VolumeError, payload};
use crate::{pod, resolv};

/// Kernel parameters a pod may set, for they concern its own namespaces alone (Kubernetes' safe list).
const SYSCTLS_SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// What an operation has come to.
pub(super) enum Done {
    SetUp {
        tokens: Tokens,
        seen: Option<Snapshot>,
        result: Result<IpAddr, SetUpError>,
    },
    /// `seen` is what the volumes were, or would have been, filled with.
    Volumes {
        tokens: Tokens,
        seen: Option<Snapshot>,
        result: Result<(), SetUpError>,
    },
    Launched {
        container: String,
        result: Box<Result<Launched, LaunchError>>,
    },
    Hooked {
        container: String,
        id: String,
        result: Result<(), String>,
    },
    PreStopped {
        container: String,
    },
    Stopped {
        container: String,
    },
    Hurried,
    TornDown(Result<(), String>),
    Finished(Result<(), kube::Error>),
}

/// Why a pod's surroundings could not be made: the event's reason and message.
#[derive(Debug)]
pub(super) struct SetUpError {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

// === impl SetUpError ===

impl From<VolumeError> for SetUpError {
    fn from(error: VolumeError) -> Self {
        let message = match &error {
            // Says its cause itself, as Kubernetes' event does.
            VolumeError::Payload { .. } | VolumeError::Io { .. } => error.to_string(),
            other => base_types::ErrorChain(other).to_string(),
        };
        Self { reason: "FailedMount", message }
    }
}

fn sandbox_error(message: impl std::fmt::Display) -> SetUpError {
    let message = format!("Failed to create pod sandbox: {message}");
    SetUpError { reason: "FailedCreatePodSandBox", message }
}

/// Network and namespaces beside volumes.
pub(super) async fn set_up(node: Arc<Node>, pod: Arc<Pod>, hold: Arc<Hold>, mut tokens: Tokens) -> Done {
    let ((seen, filled), ip) =
        tokio::join!(fill(&node, &pod, &hold, &mut tokens, None), sandbox(&node, &pod));
    let result = ip.and_then(|ip| filled.map(|()| ip).map_err(SetUpError::from));
    Done::SetUp { tokens, seen, result }
}

/// Brings the volumes of a running pod up to date.
pub(super) async fn refresh(
    node: Arc<Node>,
    pod: Arc<Pod>,
    hold: Arc<Hold>,
    mut tokens: Tokens,
    ip: Option<IpAddr>,
) -> Done {
    let (seen, filled) = fill(&node, &pod, &hold, &mut tokens, ip).await;
    Done::Volumes { tokens, seen, result: filled.map_err(SetUpError::from) }
}

/// Fills the volumes; what they refer to is answered even when that fails, so that a change of it can be waited for.
async fn fill(
    node: &Arc<Node>,
    pod: &Arc<Pod>,
    hold: &Hold,
    tokens: &mut Tokens,
    ip: Option<IpAddr>,
) -> (Option<Snapshot>, Result<(), VolumeError>) {
    let asks = volumes::token_asks(pod);
    let (snapshot, texts) = tokio::join!(
        hold.snapshot(pod::namespace(pod)),
        tokens.refresh(&node.client, pod, &asks, Timestamp::now()),
    );
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        Err(error) => return (None, Err(error.into())),
    };
    let texts = match texts {
        Ok(texts) => texts,
        Err(error) => return (Some(snapshot), Err(VolumeError::Token(error))),
    };
    let (node, pod, objects) = (node.clone(), pod.clone(), snapshot.clone());
    let filled = tokio::task::spawn_blocking(move || {
        let sources = payload::Sources {
            pod: &pod,
            addresses: Addresses { pod: ip, host: node.ip },
            allocatable: &node.capacity,
            objects: &objects,
            tokens: &texts,
        };
        volumes::refresh(&node.pod_dir(pod::uid(&pod)), &sources)
    });
    // The task fails only when the process is coming down.
    (Some(snapshot), filled.await.unwrap_or(Ok(())))
}

async fn sandbox(node: &Node, pod: &Pod) -> Result<IpAddr, SetUpError> {
    let none = BTreeMap::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let interception = Interception::from_annotations(annotations).map_err(sandbox_error)?;
    let request = PodNetRequest {
        uid: pod::uid(pod).to_owned(),
        namespace: pod::namespace(pod).to_owned(),
        name: pod::name(pod).to_owned(),
        interception,
        host_network: pod::host_network(pod),
    };
    let sysctls = sysctls(pod)?;
    let net = node.network.setup(request).await;
    let net = net.map_err(|error| sandbox_error(base_types::ErrorChain(&error)))?;
    let spec = pod::spec(pod);
    let flag = |value: Option<bool>| value == Some(true);
    let shares =
        pod::containers(pod).map(|(_, container)| Limits::of(pod, container, node.memory_bytes).cpu_shares);
    let made = node.runtime.create_sandbox(SandboxSpec {
        uid: pod::uid(pod).to_owned(),
        name: pod::name(pod).to_owned(),
        namespace: pod::namespace(pod).to_owned(),
        hostname: resolv::hostname(pod, &node.name),
        net_ns: net.net_ns,
        sysctls,
        resources: Resources { cpu_shares: Some(shares.sum::<u64>().max(2)), ..Resources::default() },
        share_pid: flag(spec.and_then(|spec| spec.share_process_namespace)),
        host_pid: flag(spec.and_then(|spec| spec.host_pid)),
        host_ipc: flag(spec.and_then(|spec| spec.host_ipc)),
        ..SandboxSpec::default()
    });
    made.await.map_err(|error| sandbox_error(base_types::ErrorChain(&error)))?;
    Ok(IpAddr::V4(net.ip))
}

fn sysctls(pod: &Pod) -> Result<BTreeMap<String, String>, SetUpError> {
    let context = pod::spec(pod).and_then(|spec| spec.security_context.as_ref());
    let wanted = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    wanted
        .iter()
        .map(|sysctl| {
            if SYSCTLS_SAFE.contains(&sysctl.name.as_str()) {
                return Ok((sysctl.name.clone(), sysctl.value.clone()));
            }
            let message = format!("forbidden sysctl: \"{}\" not allowlisted", sysctl.name);
            Err(SetUpError { reason: "SysctlForbidden", message })
        })
        .collect()
}

/// Namespaces with what runs in them, then network, then volumes. Repeating it is harmless.
pub(super) async fn tear_down(node: Arc<Node>, pod: Arc<Pod>) -> Done {
    Done::TornDown(take_apart(&node, pod::uid(&pod)).await)
}

/// Removes everything a pod has on this node but its logs and checkpoint.
pub(crate) async fn take_apart(node: &Node, uid: &str) -> Result<(), String> {
    let removed = node.runtime.remove_sandbox(uid).await;
    removed.map_err(|error| base_types::ErrorChain(&error).to_string())?;
    let removed = node.network.teardown(uid).await;
    removed.map_err(|error| base_types::ErrorChain(&error).to_string())?;
    let directory = node.pod_dir(uid);
    match tokio::task::spawn_blocking(move || volumes::remove(&directory)).await {
        Ok(Err(error)) => Err(format!("cannot remove volumes: {error}")),
        _ => Ok(()),
    }
}

/// Removes the object from the API; one that is gone or has a successor is fine.
pub(super) async fn finish(node: Arc<Node>, pod: Arc<Pod>, flushed: impl Future<Output = ()>) -> Done {
    flushed.await;
    let api: Api<Pod> = Api::namespaced(node.client.clone(), pod::namespace(&pod));
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    Done::Finished(match api.delete(pod::name(&pod), &params).await {
        Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    })
}
