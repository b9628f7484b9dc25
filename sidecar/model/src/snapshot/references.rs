//! Which names a snapshot refers to.

use super::{References, Snapshot};
use crate::filter_chain::{FilterChain, Terminal};
use crate::hcm::RouteSource;
use crate::tls::{SECRET_DEFAULT, SECRET_ROOT_CA, TlsParameters};

pub(super) fn of(snapshot: &Snapshot) -> References {
    let mut references = References::default();
    for cluster in snapshot.clusters.values() {
        references.endpoints.extend(cluster.eds_name().cloned());
        let matches = cluster.transport_socket_matches.iter().filter_map(|one| one.tls.as_ref());
        for tls in cluster.tls.iter().chain(matches) {
            secrets(&mut references, &tls.common);
        }
    }
    for listener in snapshot.listeners.values() {
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            chain_references(&mut references, chain);
        }
    }
    references
}

fn chain_references(references: &mut References, chain: &FilterChain) {
    if let Some(tls) = &chain.tls {
        secrets(references, &tls.common);
    }
    if let Terminal::Http(hcm) = &chain.terminal
        && let RouteSource::Rds(name) = &hcm.route
    {
        references.routes.insert(name.clone());
    }
}

fn secrets(references: &mut References, tls: &TlsParameters) {
    let own = |name: &str| name == SECRET_DEFAULT || name == SECRET_ROOT_CA;
    references.secrets.extend(tls.secret_names().filter(|name| !own(name)).cloned());
}
