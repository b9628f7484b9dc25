//! Which filter chain takes a connection: Envoy's order of criteria, the more specific first.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sidecar_model::FilterChainMatch;
use sidecar_model::filter_chain::{SourceType, TransportProtocol};

use super::Sniffed;
use crate::config::{ChainPlan, ListenerPlan};

/// What is known of a connection before its chain is chosen.
pub(super) struct Facts<'a> {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) sniffed: &'a Sniffed,
}

/// The chain for a connection.
pub(super) fn choose<'a>(plan: &'a ListenerPlan, facts: &Facts<'_>) -> Option<&'a Arc<ChainPlan>> {
    let mut best: Option<([u32; 8], &Arc<ChainPlan>)> = None;
    for chain in &plan.chains {
        if let Some(score) = score(&chain.chain.matches, facts)
            && best.as_ref().is_none_or(|(known, _)| score > *known)
        {
            best = Some((score, chain));
        }
    }
    best.map(|(_, chain)| chain).or(plan.default.as_ref())
}

/// How specifically the conditions hold, criterion by criterion; none if one does not.
fn score(matches: &FilterChainMatch, facts: &Facts<'_>) -> Option<[u32; 8]> {
    let port = match matches.destination_port {
        None => 0,
        Some(port) if port == facts.local.port() => 1,
        Some(_) => return None,
    };
    let transport = match (matches.transport_protocol, facts.sniffed.tls) {
        (TransportProtocol::Any, _) => 0,
        (TransportProtocol::Tls, true) | (TransportProtocol::RawBuffer, false) => 1,
        _ => return None,
    };
    let protocols = &matches.application_protocols;
    let application = match protocols.is_empty() {
        true => 0,
        false if protocols.iter().any(|protocol| facts.sniffed.protocols.contains(protocol)) => 1,
        false => return None,
    };
    let source_type = match matches.source_type {
        SourceType::Any => 0,
        SourceType::SameIpOrLoopback if is_local(facts) => 1,
        SourceType::External if !is_local(facts) => 1,
        _ => return None,
    };
    let source_port = match matches.source_ports.is_empty() {
        true => 0,
        false if matches.source_ports.contains(&facts.peer.port()) => 1,
        false => return None,
    };
    Some([
        port,
        longest(&matches.prefix_ranges, facts.local)?,
        server_name(&matches.server_names, facts.sniffed.server_name.as_deref())?,
        transport,
        application,
        longest(&matches.direct_source_prefix_ranges, facts.peer)? + source_type,
        longest(&matches.source_prefix_ranges, facts.peer)?,
        source_port,
    ])
}

fn is_local(facts: &Facts<'_>) -> bool {
    facts.peer.ip().is_loopback() || facts.peer.ip() == facts.local.ip()
}

/// The longest range that holds the address, as its length and one; 0 when no range is asked for.
fn longest(ranges: &[IpNet], address: SocketAddr) -> Option<u32> {
    if ranges.is_empty() {
        return Some(0);
    }
    let address = address.ip().to_canonical();
    ranges
        .iter()
        .filter(|range| range.contains(&address))
        .map(|range| u32::from(range.prefix_len()) + 1)
        .max()
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
