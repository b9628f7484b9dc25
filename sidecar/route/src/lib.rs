//! Which route a request takes, which cluster a route chooses, and what path, host and location come of it.
//!
//! Pure: no I/O, no clock; randomness is passed in as numbers. Semantics are Envoy's route matching (`config.route.v3`): virtual host by
//! exact domain, longest `*.suffix`, longest `prefix.*`, `*`; then the first route, top down, whose conditions all hold.

mod hash;
mod matching;
mod redirect;
mod rewrite;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use hash::{HashOutcome, NewCookie, hash};
pub use matching::{header_matches, headers_match, route_matches};
pub use redirect::{location, tls_location};
pub use rewrite::{host_rewrite, path_rewrite};
pub use table::{Found, RouteTable, TableCache, without_port};
pub use view::RequestView;

use sidecar_model::{ClusterChoice, RouteAction, WeightedCluster};
use std::net::IpAddr;
use std::sync::Arc;

/// The cluster that a route chose for a request.
#[derive(Debug, Clone, Copy)]
pub struct ClusterPick<'a> {
    /// Its name; whether it exists is for the caller to see.
    pub name: &'a str,
    /// The weighted entry it came from, for its header changes and filters.
    pub weighted: Option<&'a WeightedCluster>,
    /// The shared name, when the configuration holds it (not when a header named the cluster).
    pub shared: Option<&'a Arc<str>>,
}

/// Chooses the cluster; `None` when a header should name it and is missing.
///
/// `random` decides among weighted clusters, unless a header with an integer or the route's hash policy does. `client` is the
/// client's address, `seed` becomes the value of a cookie that the hash policy makes: the same `seed` must be given to [`hash`] later.
#[must_use]
pub fn pick_cluster<'a>(
    action: &'a RouteAction,
    request: &RequestView<'a>,
    client: IpAddr,
    random: u64,
    seed: u64,
) -> Option<ClusterPick<'a>> {
    match &action.cluster {
        ClusterChoice::Single(name) => Some(ClusterPick { name, weighted: None, shared: Some(name) }),
        ClusterChoice::Weighted(weighted) => {
            let by_header = weighted
                .random_header
                .as_ref()
                .and_then(|h| request.headers.get(h)?.to_str().ok()?.parse().ok());
            let by_hash =
                || weighted.by_hash.then(|| hash(&action.hash_policy, request, client, seed).hash).flatten();
            let picked = weighted.pick(by_header.or_else(by_hash).unwrap_or(random));
            Some(ClusterPick { name: &picked.name, weighted: Some(picked), shared: Some(&picked.name) })
        }
        ClusterChoice::Header(header) => {
            let name = request.headers.get(header)?.to_str().ok()?;
            Some(ClusterPick { name, weighted: None, shared: None })
        }
    }
}
