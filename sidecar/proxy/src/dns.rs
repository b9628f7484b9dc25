//! Endpoints that configuration names instead of numbering: resolved again and again, off the path of requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sidecar_model::cluster::{ClusterKind, DnsFamily, DnsOptions};
use sidecar_model::{Address, Cluster, Endpoint, Endpoints};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::proxy::{Command, Control};

/// A name is not asked for more often than this.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// A name that could not be resolved is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// An answer must come within this time.
const LIMIT: Duration = Duration::from_secs(5);

/// Resolved endpoints by cluster.
pub(crate) type Resolved = HashMap<Arc<str>, Arc<Endpoints>>;

/// How a cluster's names are resolved; none if it has no names.
pub(crate) fn options(cluster: &Cluster) -> Option<(DnsOptions, bool)> {
    match &cluster.kind {
        ClusterKind::StrictDns(options) => Some((*options, false)),
        ClusterKind::LogicalDns(options) => Some((*options, true)),
        ClusterKind::Eds { .. } | ClusterKind::Static | ClusterKind::OriginalDst { .. } => None,
    }
}

/// Resolves for as long as the worker lives.
pub(crate) async fn run(control: Arc<Control>, mut commands: watch::Receiver<Command>) {
    let mut due: HashMap<Arc<str>, (Arc<Cluster>, Instant)> = HashMap::new();
    loop {
        let config = control.shared.config.load_full();
        let wanted = || config.snapshot.clusters.iter().filter(|(_, cluster)| options(cluster).is_some());
        due.retain(|name, (cluster, _)| {
            config.snapshot.clusters.get(name).is_some_and(|new| Arc::ptr_eq(new, cluster))
        });
        for (name, cluster) in wanted() {
            due.entry(Arc::clone(name)).or_insert_with(|| (Arc::clone(cluster), Instant::now()));
        }
        let mut changed = false;
        for (name, (cluster, at)) in &mut due {
            if *at > Instant::now() {
                continue;
            }
            let Some((options, logical)) = options(cluster) else { continue };
            let outcome = resolve(cluster, options, logical).await;
            *at = Instant::now() + if outcome.is_some() { options.refresh.max(REFRESH_MIN) } else { RETRY };
            if let Some(endpoints) = outcome {
                changed |= control.resolved(name, endpoints);
            }
        }
        if changed {
            control.reapply();
        }
        let next = due.values().map(|(_, at)| *at).min();
        tokio::select! {
            changed = commands.changed() => if changed.is_err() { return },
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
        }
    }
}

/// The endpoints of a cluster with addresses for names; none if a name could not be resolved and nothing else is there.
async fn resolve(cluster: &Cluster, options: DnsOptions, logical: bool) -> Option<Endpoints> {
    let mut endpoints = cluster.load_assignment.as_deref()?.clone();
    let mut found = false;
    for locality in &mut endpoints.localities {
        let mut addresses: Vec<Arc<Endpoint>> = Vec::new();
        for endpoint in &locality.endpoints {
            let Address::Name(host, port) = &endpoint.address else {
                addresses.push(Arc::clone(endpoint));
                continue;
            };
            let answer = match timeout(LIMIT, lookup_host((&**host, *port))).await {
                Ok(Ok(answer)) => chosen(answer.collect(), options.family),
                Ok(Err(error)) => {
                    tracing::debug!(%error, %host, "Name cannot be resolved");
                    continue;
                }
                Err(_) => {
                    tracing::debug!(%host, "Name was not resolved in time");
                    continue;
                }
            };
            let take = if logical { 1 } else { answer.len() };
            for address in answer.into_iter().take(take) {
                let hostname =
                    if endpoint.hostname.is_empty() { Box::from(&**host) } else { endpoint.hostname.clone() };
                let address = Address::Socket(address);
                addresses.push(Arc::new(Endpoint { address, hostname, ..(**endpoint).clone() }));
            }
        }
        found |= !addresses.is_empty();
        locality.endpoints = addresses;
    }
    found.then_some(endpoints)
}

/// The addresses of the wanted family, in a stable order without repetition.
fn chosen(mut all: Vec<SocketAddr>, family: DnsFamily) -> Vec<SocketAddr> {
    all.sort_unstable();
    all.dedup();
    let of = |v4: bool| all.iter().copied().filter(|address| address.is_ipv4() == v4).collect::<Vec<_>>();
    let (v4, v6) = (of(true), of(false));
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred if v4.is_empty() => v6,
        DnsFamily::V4Preferred => v4,
        DnsFamily::Auto if v6.is_empty() => v4,
        DnsFamily::Auto => v6,
        DnsFamily::All => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_chosen() {
        let all: Vec<SocketAddr> = ["[::1]:80", "10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let texts = |family| {
            chosen(all.clone(), family).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(DnsFamily::V4Only), "10.0.0.1:80 10.0.0.2:80");
        assert_eq!(texts(DnsFamily::V6Only), "[::1]:80");
        assert_eq!(texts(DnsFamily::Auto), "[::1]:80");
        assert_eq!(texts(DnsFamily::V4Preferred), "10.0.0.1:80 10.0.0.2:80");
        assert_eq!(texts(DnsFamily::All), "10.0.0.1:80 10.0.0.2:80 [::1]:80");
    }
}
