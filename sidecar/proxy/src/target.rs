//! Which endpoint of a cluster is tried.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use sidecar_balance::{Ejection, Host, Outcome, PickContext};
use sidecar_model::cluster::ClusterKind;
use sidecar_model::route_action::HashPolicy;
use sidecar_model::{Address, Metadata, UpstreamTls};

use sidecar_route::RequestView;

use crate::config::ClusterPlan;
use crate::pool::Target;
use crate::usage::Totals;
use crate::worker::Worker;

/// An endpoint to try.
pub(crate) struct Pick {
    pub(crate) target: Target,
    /// The endpoint among the balancer's; none for original destinations.
    pub(crate) host: Option<Host>,
}

/// What a pick depends on.
pub(crate) struct Wanted<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) plan: &'a Arc<ClusterPlan>,
    /// Where the client's connection was going to.
    pub(crate) local: SocketAddr,
    pub(crate) client: SocketAddr,
    /// Headers that may name a destination, and the host that may be the server name.
    pub(crate) headers: Option<&'a HeaderMap>,
    pub(crate) hash: Option<u64>,
    pub(crate) previous: &'a [Address],
    /// Priorities that are not wanted, if others serve.
    pub(crate) excluded: &'a [u32],
    /// Labels that the endpoint must have where the cluster has subsets; the first to name a label counts.
    pub(crate) metadata: [Option<&'a Metadata>; 2],
    pub(crate) high_priority: bool,
}

/// Chooses an endpoint; none when no endpoint serves.
pub(crate) fn pick(wanted: &Wanted<'_>) -> Option<Pick> {
    let plan = wanted.plan;
    let (address, host) = match &plan.cluster.kind {
        ClusterKind::OriginalDst { header, port_override } => {
            let named =
                header.as_ref().and_then(|name| wanted.headers?.get(name)?.to_str().ok()?.parse().ok());
            let mut address: SocketAddr = named.unwrap_or(wanted.local);
            if let Some(port) = port_override {
                address.set_port(*port);
            }
            (address, None)
        }
        _ => {
            let now_ms = wanted.worker.shared.now_ms();
            let context = PickContext {
                hash: wanted.hash,
                previous: wanted.previous,
                excluded: wanted.excluded,
                metadata: wanted.metadata,
                now_ms,
            };
            let host = wanted.worker.with_rng(|rng| plan.balancer.pick(&context, rng).cloned())?;
            (host.endpoint.address.socket()?, Some(host))
        }
    };
    let endpoint = host.as_ref().map(|host| &*host.endpoint);
    let tls = plan.tls_for(endpoint).map(Arc::clone);
    let server_name = tls.as_ref().and_then(|slot| server_name(&slot.tls, wanted.headers));
    let workload = endpoint.and_then(|endpoint| endpoint.metadata.text("istio", "workload")).map(Into::into);
    let target = Target {
        plan: Arc::clone(plan),
        address,
        tls,
        server_name,
        workload,
        client: plan.cluster.proxy_protocol.map(|_| wanted.client),
        high_priority: wanted.high_priority,
    };
    Some(Pick { target, host })
}

/// One endpoint of a cluster as it is; none while its name is not resolved.
pub(crate) fn of_host(plan: &Arc<ClusterPlan>, host: &Host) -> Option<Target> {
    Some(Target {
        plan: Arc::clone(plan),
        address: host.endpoint.address.socket()?,
        tls: plan.tls_for(Some(&host.endpoint)).map(Arc::clone),
        server_name: None,
        workload: None,
        client: None,
        high_priority: false,
    })
}

/// The host of the request, when that is the server name.
fn server_name(tls: &UpstreamTls, headers: Option<&HeaderMap>) -> Option<Box<str>> {
    if !tls.auto_sni {
        return None;
    }
    let host = headers?.get(http::header::HOST)?.to_str().ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    Some(name.trim_matches(['[', ']']).into())
}

/// Tells outlier detection how an attempt ended.
pub(crate) fn report(worker: &Worker, plan: &ClusterPlan, host: Option<&Host>, outcome: Outcome) {
    let (Some(host), true) = (host, plan.cluster.outlier.is_some()) else { return };
    let now_ms = worker.shared.now_ms();
    let ejected = |host: &Host, ejection: Ejection| {
        Totals::inc(&plan.usage.totals.outlier_ejections);
        tracing::info!(
            cluster = %plan.cluster.name,
            endpoint = %host.endpoint.address,
            cause = ejection.cause.as_str(),
            milliseconds = ejection.until_ms.saturating_sub(now_ms),
            "Endpoint put aside"
        );
    };
    worker.with_rng(|rng| plan.balancer.report(&host.state, outcome, now_ms, rng, ejected));
}

/// Tells the balancer how long an endpoint took to answer; `None`: it did not.
pub(crate) fn observe(worker: &Worker, plan: &ClusterPlan, host: Option<&Host>, took: Option<Duration>) {
    if let (Some(host), true) = (host, plan.balancer.wants_latency()) {
        plan.balancer.observe(&host.state, took, worker.shared.now_ms());
    }
}

/// What consistent hashing chooses by for a connection of bytes.
pub(crate) fn connection_hash(policies: &[HashPolicy], client: IpAddr) -> Option<u64> {
    if policies.is_empty() {
        return None;
    }
    let headers = HeaderMap::new();
    let view =
        RequestView { method: "", authority: "", path: "", scheme: "", headers: &headers, metadata: None };
    sidecar_route::hash(policies, &view, client, 0).hash
}
