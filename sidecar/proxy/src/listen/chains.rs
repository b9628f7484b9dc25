//! Which filter chain takes a connection, by Envoy's rules: criterion by criterion, the most specific value that fits, and never back.
//!
//! A chain that names the connection's port hides every chain that names none, even when its other conditions do not hold
//! (source: `FilterChainMatch` in Envoy's listener components).

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sidecar_model::FilterChainMatch;
use sidecar_model::filter_chain::{SourceType, TransportProtocol};

use super::Sniffed;
use crate::config::{ChainPlan, ListenerPlan};

/// What is known of a connection before its chain is chosen.
pub(super) struct Facts<'a> {
    /// Where it is going to.
    pub(super) local: SocketAddr,
    /// Where it comes from.
    pub(super) peer: SocketAddr,
    /// Whose socket it is, whatever a PROXY protocol header said.
    pub(super) direct: SocketAddr,
    pub(super) sniffed: &'a Sniffed,
}

/// How specifically one condition holds: 0 when it is not set, none when it does not hold.
type Criterion = fn(&FilterChainMatch, &Facts<'_>) -> Option<u32>;

/// In Envoy's order.
const CRITERIA: [Criterion; 9] = [
    |matches, facts| {
        exactly(matches.destination_port.is_none(), matches.destination_port == Some(facts.local.port()))
    },
    |matches, facts| longest(&matches.prefix_ranges, facts.local),
    |matches, facts| server_name(&matches.server_names, facts.sniffed.server_name.as_deref()),
    |matches, facts| {
        let detected = if facts.sniffed.tls { TransportProtocol::Tls } else { TransportProtocol::RawBuffer };
        exactly(matches.transport_protocol == TransportProtocol::Any, matches.transport_protocol == detected)
    },
    |matches, facts| application(&matches.application_protocols, &facts.sniffed.protocols),
    |matches, facts| longest(&matches.direct_source_prefix_ranges, facts.direct),
    |matches, facts| {
        let local = facts.peer.ip().is_loopback() || facts.peer.ip() == facts.local.ip();
        let here = if local { SourceType::SameIpOrLoopback } else { SourceType::External };
        exactly(matches.source_type == SourceType::Any, matches.source_type == here)
    },
    |matches, facts| longest(&matches.source_prefix_ranges, facts.peer),
    |matches, facts| {
        exactly(matches.source_ports.is_empty(), matches.source_ports.contains(&facts.peer.port()))
    },
];

/// The chain for a connection.
pub(super) fn choose<'a>(plan: &'a ListenerPlan, facts: &Facts<'_>) -> Option<&'a Arc<ChainPlan>> {
    let matches: Vec<&FilterChainMatch> = plan.chains.iter().map(|chain| &chain.chain.matches).collect();
    most_specific(&matches, facts).map(|index| &plan.chains[index]).or(plan.default.as_ref())
}

/// Index of the match that takes a connection.
fn most_specific(matches: &[&FilterChainMatch], facts: &Facts<'_>) -> Option<usize> {
    let mut left: Vec<usize> = (0..matches.len()).collect();
    for criterion in CRITERIA {
        let best = left.iter().filter_map(|index| criterion(matches[*index], facts)).max()?;
        left.retain(|index| criterion(matches[*index], facts) == Some(best));
    }
    left.first().copied()
}

fn exactly(unset: bool, holds: bool) -> Option<u32> {
    match (unset, holds) {
        (true, _) => Some(0),
        (false, true) => Some(1),
        (false, false) => None,
    }
}

/// The length of the longest range that holds the address. No range at all is the range of every address.
fn longest(ranges: &[IpNet], address: SocketAddr) -> Option<u32> {
    if ranges.is_empty() {
        return Some(0);
    }
    let address = address.ip().to_canonical();
    ranges.iter().filter(|range| range.contains(&address)).map(|range| range.prefix_len().into()).max()
}

/// Protocols count by the client's preference.
fn application(wanted: &[Box<str>], offered: &[Box<str>]) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let place = offered.iter().position(|protocol| wanted.contains(protocol))?;
    u32::try_from(offered.len() - place).ok()
}

/// An exact name beats any suffix, a longer suffix a shorter one.
fn server_name(names: &[Box<str>], asked: Option<&str>) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    let asked = asked?.to_ascii_lowercase();
    let one = |name: &str| match name.strip_prefix('*') {
        None if *name == *asked => Some(u32::MAX),
        Some("") => Some(1),
        Some(suffix) if asked.len() > suffix.len() && asked.ends_with(suffix) => {
            Some(u32::try_from(suffix.len()).unwrap_or(u32::MAX - 2) + 1)
        }
        _ => None,
    };
    names.iter().filter_map(|name| one(name)).max()
}

#[cfg(test)]
mod tests;
