//! Clusters with their balancer, counters and TLS clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base_tls::{Client, Rotating, ServerCheck};
use sidecar_balance::Balancer;
use sidecar_model::cluster::ClusterKind;
use sidecar_model::matcher::StringPattern;
use sidecar_model::tls::{CertificateSource, RootSource, SECRET_DEFAULT, SanMatch};
use sidecar_model::{Cluster, Endpoint, Endpoints, UpstreamTls};
use sidecar_telemetry::{Service, Workload};

use super::SecretStore;
use crate::usage::Usage;

/// A cluster.
#[derive(Debug)]
pub struct ClusterPlan {
    /// Its configuration.
    pub cluster: Arc<Cluster>,
    /// Its endpoints; none when they are not known yet or come with the connection.
    pub endpoints: Option<Arc<Endpoints>>,
    /// Chooses among them.
    pub balancer: Arc<Balancer>,
    /// Its counters and limits, shared by all workers.
    pub usage: Arc<Usage>,
    /// The service behind it, as metrics name it.
    pub service: Arc<Service>,
    tls: Vec<Arc<TlsSlot>>,
    workloads: HashMap<SocketAddr, Arc<Workload>>,
}

/// One way of TLS towards endpoints, with a client for each use.
#[derive(Debug)]
pub struct TlsSlot {
    /// Identifies the slot over pushes: connections are pooled by it.
    pub id: u64,
    /// Its configuration.
    pub tls: Arc<UpstreamTls>,
    /// Whether both sides prove mesh identities.
    pub mutual: bool,
    /// Names that are judged after the handshake, because they are no plain texts.
    pub names: Vec<SanMatch>,
    /// For HTTP/1.1.
    pub http1: Client,
    /// For HTTP/2.
    pub http2: Client,
    /// For bytes.
    pub tcp: Client,
}

impl ClusterPlan {
    /// The plan for `cluster`, with everything of `previous` that still holds.
    pub(crate) fn carry_over(
        previous: Option<&Arc<Self>>,
        cluster: &Arc<Cluster>,
        endpoints: Option<&Arc<Endpoints>>,
        identity: &Rotating,
        secrets: &mut SecretStore,
        now_ms: u64,
    ) -> Arc<Self> {
        let same_cluster = previous.is_some_and(|plan| Arc::ptr_eq(&plan.cluster, cluster));
        let same_endpoints = previous.is_some_and(|plan| match (&plan.endpoints, endpoints) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        });
        if let (true, true, Some(plan)) = (same_cluster, same_endpoints, previous) {
            return Arc::clone(plan);
        }
        let none = Endpoints {
            name: Arc::clone(&cluster.name),
            localities: Vec::new(),
            drop_overloads: Vec::new(),
            overprovisioning_percent: None,
            weighted_priority_health: false,
        };
        let balancer = Balancer::new(
            cluster,
            endpoints.map_or(&none, |some| some),
            previous.map(|plan| &*plan.balancer),
            now_ms,
        );
        let known = previous.map(|plan| &plan.workloads);
        Arc::new(Self {
            tls: if let (true, Some(plan)) = (same_cluster, previous) {
                plan.tls.clone()
            } else {
                slots(cluster, previous.map_or(&[], |plan| &plan.tls), identity, secrets)
            },
            usage: Usage::carry_over(previous.map(|plan| &plan.usage), cluster),
            service: service(cluster, previous.map(|plan| &plan.service)),
            workloads: endpoints.map(|endpoints| workloads(endpoints, known)).unwrap_or_default(),
            balancer: Arc::new(balancer),
            endpoints: endpoints.cloned(),
            cluster: Arc::clone(cluster),
        })
    }

    /// TLS towards `endpoint`; none: plain text.
    pub fn tls_for(&self, endpoint: Option<&Endpoint>) -> Option<&Arc<TlsSlot>> {
        let tls = match endpoint {
            Some(endpoint) => self.cluster.tls_for(&endpoint.metadata),
            None => self.cluster.tls.as_ref(),
        }?;
        self.tls.iter().find(|slot| Arc::ptr_eq(&slot.tls, tls) || slot.tls == *tls)
    }

    /// Whether connections to `address` by the TLS of that id (0: plain text) still lead where this cluster leads.
    pub(crate) fn serves(&self, address: SocketAddr, tls: u64) -> bool {
        let known_tls = tls == 0 || self.tls.iter().any(|slot| slot.id == tls);
        let anywhere = matches!(self.cluster.kind, ClusterKind::OriginalDst { .. });
        let known_address =
            || self.balancer.hosts().iter().any(|host| host.endpoint.address.socket() == Some(address));
        known_tls && (anywhere || known_address())
    }

    /// The workload behind an endpoint.
    pub fn workload(&self, address: SocketAddr) -> Option<&Arc<Workload>> {
        self.workloads.get(&address)
    }
}

/// The labels of the service behind a cluster: Istio's metadata, else what the cluster's name says.
fn service(cluster: &Cluster, previous: Option<&Arc<Service>>) -> Arc<Service> {
    let text = |key| {
        let services = cluster.metadata.find("istio", ["services"]).and_then(|services| services.get(0));
        services.and_then(|service| service.get(key)).and_then(|value| value.as_str()).unwrap_or_default()
    };
    let host = match text("host") {
        "" => cluster.name.rsplit('|').next().unwrap_or_default(),
        host => host,
    };
    let mut service =
        Service { host: host.into(), name: text("name").into(), namespace: text("namespace").into() };
    if service.name.is_empty() {
        service.name = service.host.clone();
    }
    match previous.filter(|old| ***old == service) {
        Some(old) => Arc::clone(old),
        None => Arc::new(service),
    }
}

fn workloads(
    endpoints: &Endpoints,
    known: Option<&HashMap<SocketAddr, Arc<Workload>>>,
) -> HashMap<SocketAddr, Arc<Workload>> {
    let one = |endpoint: &Arc<Endpoint>| {
        let address = endpoint.address.socket()?;
        let workload = Workload::from_endpoint(endpoint.workload()?);
        let kept = known.and_then(|known| known.get(&address)).filter(|old| ***old == workload);
        Some((address, kept.map_or_else(|| Arc::new(workload), Arc::clone)))
    };
    endpoints.iter().filter_map(one).collect()
}

fn slots(
    cluster: &Cluster,
    known: &[Arc<TlsSlot>],
    identity: &Rotating,
    secrets: &mut SecretStore,
) -> Vec<Arc<TlsSlot>> {
    let matches = cluster.transport_socket_matches.iter().filter_map(|one| one.tls.as_ref());
    let mut slots: Vec<Arc<TlsSlot>> = Vec::new();
    for tls in cluster.tls.iter().chain(matches) {
        if slots.iter().any(|slot| slot.tls == *tls) {
            continue;
        }
        // Secrets rotate inside the material, so an equal configuration is an equal slot.
        let kept = known.iter().find(|slot| slot.tls == *tls);
        slots.push(
            kept.map_or_else(|| Arc::new(TlsSlot::new(Arc::clone(tls), identity, secrets)), Arc::clone),
        );
    }
    slots
}

impl TlsSlot {
    fn new(tls: Arc<UpstreamTls>, identity: &Rotating, secrets: &mut SecretStore) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (material, (profile, pins)) = match super::profile::of(&tls.common) {
            Ok(profile) => (secrets.material(&tls.common, identity), profile),
            Err(error) => {
                // No connection rather than one to somebody else.
                tracing::warn!(%error, "TLS towards an upstream cannot be spoken");
                (Rotating::empty(), Default::default())
            }
        };
        let mutual = matches!(tls.common.certificates.first(), Some(CertificateSource::Secret(name)) if **name == *SECRET_DEFAULT);
        let (check, names) = check(&tls, mutual);
        let client = |alpn: &[&str]| {
            let alpn: Vec<&[u8]> = alpn.iter().map(|name| name.as_bytes()).collect();
            Client::new(&material, check.clone(), &alpn).with(profile.clone(), pins.clone())
        };
        // What Istio's ALPN filter offers: the first names tell the server's sidecar that this is mesh traffic.
        let (http1, http2, tcp): (&[&str], &[&str], &[&str]) = if mutual {
            (&["istio-http/1.1", "istio", "http/1.1"], &["istio-h2", "istio", "h2"], &["istio"])
        } else {
            (&["http/1.1"], &["h2"], &[])
        };
        let configured: Vec<&str> = tls.common.alpn.iter().map(|name| &**name).collect();
        let tcp = if mutual || configured.is_empty() { tcp } else { &configured };
        let (http1, http2, tcp) = (client(http1), client(http2), client(tcp));
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), mutual, names, http1, http2, tcp, tls }
    }
}

/// What the handshake itself can check, and what is left for afterwards.
fn check(tls: &UpstreamTls, mutual: bool) -> (ServerCheck, Vec<SanMatch>) {
    let validation = &tls.common.validation;
    match &validation.roots {
        None => return (ServerCheck::Insecure, Vec::new()),
        Some(RootSource::Secret(_) | RootSource::Inline(_)) => {}
    }
    if validation.subject_alt_names.is_empty() {
        let check = match (mutual, tls.auto_san_validation) {
            (true, _) => ServerCheck::Spiffe(Vec::new()),
            (false, true) => ServerCheck::Name,
            (false, false) => ServerCheck::ChainOnly,
        };
        return (check, Vec::new());
    }
    let exact: Option<Vec<String>> = validation
        .subject_alt_names
        .iter()
        .map(|san| match (&san.matcher.pattern, san.matcher.ignore_case) {
            (StringPattern::Exact(text), false) => Some(text.to_string()),
            _ => None,
        })
        .collect();
    match exact {
        Some(names) if mutual => (ServerCheck::Spiffe(names), Vec::new()),
        Some(names) => (ServerCheck::AnyName(names), Vec::new()),
        None => (ServerCheck::ChainOnly, validation.subject_alt_names.clone()),
    }
}
