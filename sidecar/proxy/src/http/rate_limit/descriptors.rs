//! Requests as descriptors: what the limits of routes and hosts make of them.

use std::net::IpAddr;
use std::sync::Arc;

use sidecar_model::http_filter::RouteLimits;
use sidecar_model::rate_limit::{DescriptorEntry, HostLimits, LimitAction, RateLimit};
use sidecar_route::{RequestView, headers_match};

use crate::http::router::Chosen;
use crate::shared::Node;

/// What entries are made from.
pub(super) struct Describe<'a> {
    pub(super) view: &'a RequestView<'a>,
    pub(super) chosen: Option<&'a Chosen>,
    pub(super) node: &'a Node,
    pub(super) remote: IpAddr,
}

/// What an action makes of a request.
enum Made {
    Entry(Arc<str>, Arc<str>),
    /// No entry, and that is fine.
    Nothing,
    /// No descriptor.
    Missing,
}

/// The limits that hold for a request: a filter's own, else those of its route and, as wanted, of its host.
pub(super) fn wanted<'a>(
    own: &'a [RateLimit],
    chosen: Option<&'a Chosen>,
    host_limits: HostLimits,
    stage: u32,
) -> Vec<&'a RateLimit> {
    let of_stage = |limit: &&RateLimit| limit.stage == stage;
    if !own.is_empty() {
        return own.iter().filter(of_stage).collect();
    }
    let Some(chosen) = chosen else { return Vec::new() };
    let (route, host) = (chosen.route.filters.limits(), chosen.host.filters.limits());
    let limits = |of: Option<&'a RouteLimits>| of.map_or(&[][..], |of| &of.limits);
    let with_host = match host_limits {
        _ if route.is_some_and(|route| route.include_host) => true,
        HostLimits::Include => true,
        HostLimits::Ignore => false,
        HostLimits::Override => limits(route).is_empty(),
    };
    let of_host = limits(host).iter().filter(|_| with_host);
    limits(route).iter().chain(of_host).filter(of_stage).collect()
}

impl Describe<'_> {
    /// The descriptor that a limit makes; none when the request lacks something, or nothing is left.
    pub(super) fn entries(&self, limit: &RateLimit) -> Option<Vec<DescriptorEntry>> {
        let mut entries = Vec::with_capacity(limit.actions.len());
        for action in &limit.actions {
            match self.make(action) {
                Made::Entry(key, value) => entries.push(DescriptorEntry { key, value }),
                Made::Nothing => {}
                Made::Missing => return None,
            }
        }
        (!entries.is_empty()).then_some(entries)
    }

    fn make(&self, action: &LimitAction) -> Made {
        let fixed = |entry: &DescriptorEntry, matches: bool| {
            if matches {
                Made::Entry(Arc::clone(&entry.key), Arc::clone(&entry.value))
            } else {
                Made::Missing
            }
        };
        match action {
            LimitAction::SourceCluster => {
                let workload = &self.node.workload;
                let own = format!("{}.{}", workload.canonical_name, workload.namespace);
                Made::Entry("source_cluster".into(), own.into())
            }
            LimitAction::DestinationCluster => match self.chosen.and_then(Chosen::cluster_name) {
                Some(cluster) => Made::Entry("destination_cluster".into(), cluster.into()),
                None => Made::Missing,
            },
            LimitAction::RemoteAddress => {
                Made::Entry("remote_address".into(), self.remote.to_canonical().to_string().into())
            }
            LimitAction::MaskedRemoteAddress { v4_bits, v6_bits } => self.masked(*v4_bits, *v6_bits),
            LimitAction::Header { name, key, skip_if_absent } => {
                let value = self.view.header(&sidecar_model::HeaderKey::Name(name.clone()));
                found(key, value.filter(|value| !value.is_empty()).as_deref(), *skip_if_absent)
            }
            LimitAction::Query { name, key, skip_if_absent } => {
                let value = self.view.query_parameter(name).filter(|value| !value.is_empty());
                found(key, value, *skip_if_absent)
            }
            LimitAction::Fixed(entry) => fixed(entry, true),
            LimitAction::HeaderMatch { entry, expect, headers } => {
                fixed(entry, headers_match(headers, self.view) == *expect)
            }
            LimitAction::QueryMatch { entry, expect, parameters } => {
                let all = parameters.iter().all(|it| it.is_match(self.view.query_parameter(&it.name)));
                fixed(entry, all == *expect)
            }
            LimitAction::Metadata { filter, path, key, default, skip_if_absent } => {
                let value = self
                    .view
                    .metadata
                    .and_then(|metadata| metadata.find(filter, path.iter().map(|key| &**key))?.as_str());
                let value = value.filter(|value| !value.is_empty());
                found(key, value.or(Some(&**default).filter(|it| !it.is_empty())), *skip_if_absent)
            }
        }
    }

    fn masked(&self, v4_bits: u8, v6_bits: u8) -> Made {
        let address = self.remote.to_canonical();
        let bits = if address.is_ipv4() { v4_bits } else { v6_bits };
        match ipnet::IpNet::new(address, bits) {
            Ok(network) => Made::Entry("masked_remote_address".into(), network.trunc().to_string().into()),
            Err(_) => Made::Missing,
        }
    }
}

fn found(key: &Arc<str>, value: Option<&str>, skip_if_absent: bool) -> Made {
    match value {
        Some(value) => Made::Entry(Arc::clone(key), value.into()),
        None if skip_if_absent => Made::Nothing,
        None => Made::Missing,
    }
}
