//! Connections of bytes: to a cluster and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use http::HeaderMap;
use sidecar_balance::Outcome;
use sidecar_http::tunnel::{self, Ended};
use sidecar_http::{BoxIo, ByteCount, Prefixed};
use sidecar_model::listener::Direction;
use sidecar_model::tcp::TcpCluster;
use sidecar_telemetry::{
    Entry, Flag, Flags, Reporter, SecurityPolicy, Service, TcpKey, TcpSeries, Workload, labels,
};

use crate::config::{ClusterPlan, TcpPlan};
use crate::listen::{Downstream, RECHECK};
use crate::pool::{ConnectError, UpstreamInfo, open_tcp};
use crate::shared::NodeKind;
use crate::stats::Tunnel;
use crate::target::{self, Pick, Wanted};

/// How often open connections report their bytes (Istio's default), and are held against the configuration.
const REPORT: Duration = RECHECK;

/// What becomes of one connection.
struct Record<'a> {
    down: &'a Downstream,
    plan: &'a TcpPlan,
    begun: Instant,
    wall: SystemTime,
    flags: Flags,
    details: String,
    transport_failure: String,
    cluster: Option<Arc<ClusterPlan>>,
    cluster_name: Arc<str>,
    host: Option<SocketAddr>,
    upstream: Option<UpstreamInfo>,
    sent: ByteCount,
    received: ByteCount,
    reported: (u64, u64),
}

/// Serves a connection to its end.
pub(crate) async fn serve(down: &Downstream, plan: &TcpPlan, io: BoxIo, prefix: BytesMut) {
    let _counted = Tunnel::open(&down.worker.shared);
    let mut record = Record::new(down, plan);
    let client = Prefixed::new(prefix, io);
    let connected = connect(&mut record).await;
    record.series().open();
    if let Some(upstream) = connected {
        let of_cluster = record.cluster.as_ref().and_then(|cluster| cluster.cluster.tcp_idle_timeout);
        let idle = of_cluster.or(plan.tcp.idle_timeout).unwrap_or_default();
        let (sent, received) = (record.sent.clone(), record.received.clone());
        let tunnel = tunnel::join(client, upstream, idle, &sent, &received);
        let ended = run(&mut record, tunnel).await;
        match ended {
            Some(Ended::Upstream(error)) => {
                record.flags.insert(Flag::UpstreamConnectionTermination);
                record.details = error.to_string();
            }
            Some(Ended::Downstream(_)) => record.flags.insert(Flag::DownstreamConnectionTermination),
            Some(Ended::Idle) => record.flags.insert(Flag::StreamIdleTimeout),
            Some(Ended::Closed) | None => {}
        }
    }
    record.finish();
}

/// Reports a connection that authorization refused.
pub(crate) fn denied(down: &Downstream, plan: &TcpPlan, policy: &str) {
    let mut record = Record::new(down, plan);
    record.details = format!("rbac_access_denied_matched_policy[{policy}]");
    record.series().open();
    record.finish();
}

/// Runs the tunnel, reports its bytes now and then, and bounds its life.
async fn run(record: &mut Record<'_>, tunnel: impl Future<Output = Ended>) -> Option<Ended> {
    let mut tunnel = std::pin::pin!(tunnel);
    let life = record.plan.tcp.max_connection_duration;
    let mut seen = record.down.worker.shared.config.load().version;
    let mut reports = tokio::time::interval(REPORT);
    reports.reset();
    let mut end = std::pin::pin!(async move {
        match life {
            Some(life) => tokio::time::sleep(life).await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            biased;
            ended = &mut tunnel => return Some(ended),
            () = &mut end => {
                record.flags.insert(Flag::DurationTimeout);
                record.details = "max_downstream_connection_duration".to_owned();
                return None;
            }
            _ = reports.tick() => record.bytes(),
        }
        if record.down.is_orphaned(&mut seen, None) {
            record.details = "filter_chain_gone".to_owned();
            return None;
        }
    }
}

/// A connection to an endpoint of the cluster; none with the reason in the record.
async fn connect(record: &mut Record<'_>) -> Option<BoxIo> {
    let down = record.down;
    let worker = &down.worker;
    let tcp = &record.plan.tcp;
    let (name, of_entry) = match &tcp.cluster {
        TcpCluster::Single(name) => (name, None),
        TcpCluster::Weighted { clusters, total } => {
            let mut rest = worker.random() % (*total).max(1);
            let found = clusters.iter().find(|one| {
                let here = rest < u64::from(one.weight);
                rest = rest.saturating_sub(u64::from(one.weight));
                here
            });
            let found = found.or(clusters.last())?;
            (&found.name, Some(&found.metadata_match))
        }
    };
    let metadata = [of_entry, Some(&tcp.metadata_match)].map(|it| it.filter(|one| !one.is_empty()));
    record.cluster_name = Arc::clone(name);
    let config = worker.shared.config.load_full();
    let Some(plan) = config.clusters.get(name) else {
        record.flags.insert(Flag::NoClusterFound);
        return None;
    };
    record.cluster = Some(Arc::clone(plan));
    let mut previous = Vec::new();
    for _ in 0..record.plan.tcp.connect_attempts_max.max(1) {
        let wanted = Wanted {
            worker,
            plan,
            local: down.local,
            client: down.peer,
            headers: None,
            hash: target::connection_hash(&tcp.hash_policy, down.peer.ip()),
            previous: &previous,
            excluded: &[],
            metadata,
            high_priority: false,
        };
        let Some(Pick { target, host }) = target::pick(&wanted) else {
            record.flags.insert(Flag::NoHealthyUpstream);
            return None;
        };
        if is_self(down, target.address) {
            record.details = "the destination is this listener itself".to_owned();
            record.flags.insert(Flag::UpstreamConnectionFailure);
            return None;
        }
        record.host = Some(target.address);
        match open_tcp(worker, &target).await {
            None => {
                record.flags.insert(Flag::UpstreamOverflow);
                return None;
            }
            Some(Ok(connected)) => {
                target::report(worker, plan, host.as_ref(), Outcome::Connected);
                record.flags.remove(Flag::UpstreamConnectionFailure);
                record.upstream = Some(connected.info);
                return Some(connected.io);
            }
            Some(Err(error)) => {
                target::report(worker, plan, host.as_ref(), Outcome::LocalFailure);
                record.flags.insert(Flag::UpstreamConnectionFailure);
                record.transport_failure = match error {
                    ConnectError::Timeout => "connection timeout".to_owned(),
                    ConnectError::Failed(text) => format!("delayed connect error: {text}"),
                    ConnectError::Tls(text) => format!("TLS_error:|{text}:TLS_error_end"),
                };
                previous.extend(host.map(|host| host.endpoint.address.clone()));
            }
        }
    }
    None
}

/// Whether connecting there would come back to the listener: a client that dialled the proxy itself.
fn is_self(down: &Downstream, address: SocketAddr) -> bool {
    let addresses =
        std::iter::once(&down.listener.listener.address).chain(&down.listener.listener.additional_addresses);
    let own = |ip| down.worker.shared.node.addresses.contains(&ip) || ip.is_loopback();
    addresses.filter_map(sidecar_model::Address::socket).any(|one| {
        down.listener.listener.bind_to_port
            && one.port() == address.port()
            && (one.ip() == address.ip() || own(address.ip()))
    })
}

impl<'a> Record<'a> {
    fn new(down: &'a Downstream, plan: &'a TcpPlan) -> Self {
        Self {
            down,
            plan,
            begun: Instant::now(),
            wall: SystemTime::now(),
            flags: Flags::NONE,
            details: String::new(),
            transport_failure: String::new(),
            cluster: None,
            cluster_name: Arc::from(""),
            host: None,
            upstream: None,
            sent: ByteCount::default(),
            received: ByteCount::default(),
            reported: (0, 0),
        }
    }

    fn series(&self) -> Arc<TcpSeries> {
        let down = self.down;
        let worker = &down.worker;
        let node = &worker.shared.node;
        let inbound =
            down.listener.listener.direction == Direction::Inbound && node.kind == NodeKind::Sidecar;
        let service = self.cluster.as_ref().map_or_else(Service::unknown, |plan| Arc::clone(&plan.service));
        let own = Arc::clone(&node.workload);
        let upstream =
            self.upstream.as_ref().map(|info| Arc::clone(&info.principal)).filter(|name| !name.is_empty());
        let mutual = if inbound { down.is_mutual() } else { upstream.is_some() };
        let own_principal = if mutual { worker.own_principal() } else { labels::no_principal() };
        let endpoint =
            self.cluster.as_ref().zip(self.host).and_then(|(plan, host)| plan.workload(host).cloned());
        let (source, destination, source_principal, destination_principal) = if inbound {
            (Workload::unknown(), own, down.principal(), own_principal)
        } else {
            let destination = endpoint.unwrap_or_else(Workload::unknown);
            (own, destination, own_principal, upstream.unwrap_or_else(labels::no_principal))
        };
        let security = match (inbound, mutual) {
            (true, true) => SecurityPolicy::MutualTls,
            (true, false) => SecurityPolicy::None,
            (false, _) => SecurityPolicy::Unknown,
        };
        worker.metrics.tcp(TcpKey {
            reporter: if inbound { Reporter::Destination } else { Reporter::Source },
            source,
            destination,
            source_principal,
            destination_principal,
            service,
            flags: self.flags,
            security,
        })
    }

    /// Reports the bytes since the last report.
    fn bytes(&mut self) {
        let now = (self.sent.total(), self.received.total());
        // Istio names them from the client's side: what the client sent is what was received.
        self.series().bytes(now.1 - self.reported.1, now.0 - self.reported.0);
        self.reported = now;
    }

    fn finish(&mut self) {
        self.bytes();
        self.series().close();
        if self.plan.loggers.is_empty() {
            return;
        }
        let none = HeaderMap::new();
        let mut entry = Entry::new(&none);
        entry.start = self.wall;
        entry.duration = self.begun.elapsed();
        entry.flags = self.flags;
        entry.termination = &self.details;
        entry.transport_failure = &self.transport_failure;
        entry.bytes_received = self.sent.total();
        entry.bytes_sent = self.received.total();
        entry.upstream_host = self.host;
        entry.upstream_local = self.upstream.as_ref().and_then(|info| info.local);
        entry.upstream_cluster = &self.cluster_name;
        entry.downstream_local = Some(self.down.local);
        entry.downstream_remote = Some(self.down.peer);
        entry.downstream_direct = Some(self.down.direct);
        entry.server_name = &self.down.server_name;
        entry.connection_id = self.down.id;
        if let Some(tls) = &self.down.tls {
            entry.tls_version = tls.version;
            entry.peer_uri = &tls.principal;
        }
        let worker = &self.down.worker;
        self.plan.loggers.log(&entry, worker.random(), &worker.shared.log);
    }
}
