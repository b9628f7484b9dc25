//! Pure: what the cluster's names stand for.

use std::net::Ipv4Addr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::DNS_ADDRESS;
use crate::services::{Endpoint, Protocol, ServiceCatalog, ServiceKey, ServiceKind, ServiceView};

/// Seconds an answer may be kept; short, because endpoints move.
const TTL: u32 = 5;
/// The version of the specification these names follow.
const SPECIFICATION: &str = "1.1.0";

/// What the server says to one question.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) records: Vec<Record>,
    /// The zone's SOA record when there is no answer, so that the asker knows how long that holds.
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

/// A domain with the services and pods below it.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    origin: Name,
    /// Of the origin, in lower case, outermost first.
    labels: Vec<String>,
}

/// What was found at a name: nothing, or its records, of which a question wants one type.
enum Found {
    NoSuchName,
    Data(Vec<RData>, Vec<(Name, Ipv4Addr)>),
}

// === impl Answer ===

impl Answer {
    /// An answer without records.
    pub(crate) fn code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            records: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }
}

// === impl Found ===

impl Found {
    fn addresses(ips: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self::Data(ips.into_iter().map(|ip| RData::A(A(ip))).collect(), Vec::new())
    }

    /// A name that exists because others are below it.
    fn empty() -> Self {
        Self::Data(Vec::new(), Vec::new())
    }

    fn exists(yes: bool) -> Self {
        if yes { Self::empty() } else { Self::NoSuchName }
    }
}

// === impl Zone ===

impl Zone {
    /// `None` if `domain` is no domain name.
    pub(crate) fn new(domain: &str) -> Option<Self> {
        let mut origin = Name::from_ascii(domain).ok()?.to_lowercase();
        origin.set_fqdn(true);
        let labels = reversed_labels(&origin)?;
        (!labels.is_empty()).then_some(Self { origin, labels })
    }

    /// Answers a question from what the catalog knows now.
    pub(crate) fn answer(&self, catalog: &ServiceCatalog, query: &Query) -> Answer {
        let (name, wanted) = (query.name(), query.query_type());
        let Some(labels) = reversed_labels(name) else { return Answer::code(ResponseCode::NXDomain) };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let found = if let Some(below) = strip(&labels, &self.labels) {
            self.forward(catalog, below)
        } else if let ["arpa", "in-addr", octets @ ..] = labels.as_slice() {
            match self.reverse(catalog, octets) {
                Found::NoSuchName => return Answer::code(ResponseCode::NXDomain),
                found => found,
            }
        } else {
            // There is nobody else to ask.
            return Answer::code(ResponseCode::NXDomain);
        };
        self.say(found, name, wanted)
    }

    fn say(&self, found: Found, name: &Name, wanted: RecordType) -> Answer {
        let mut answer = Answer::code(ResponseCode::NoError);
        answer.authoritative = true;
        match found {
            Found::NoSuchName => answer.code = ResponseCode::NXDomain,
            Found::Data(data, targets) => {
                let matches = |data: &RData| {
                    wanted == RecordType::ANY
                        || data.record_type() == wanted
                        || data.record_type() == RecordType::CNAME
                };
                let records = data.into_iter().filter(matches);
                answer.records = records.map(|data| Record::from_rdata(name.clone(), TTL, data)).collect();
                if !answer.records.is_empty() {
                    let address = |(name, ip)| Record::from_rdata(name, TTL, RData::A(A(ip)));
                    answer.additional = targets.into_iter().map(address).collect();
                }
            }
        }
        if answer.records.is_empty() {
            answer.authority.push(Record::from_rdata(self.origin.clone(), TTL, self.soa()));
        }
        answer
    }

    /// `below` is the name without the zone's labels, outermost first.
    fn forward(&self, catalog: &ServiceCatalog, below: &[&str]) -> Found {
        match below {
            [] => Found::Data(vec![self.soa(), RData::NS(NS(self.child(&["dns", "ns"])))], Vec::new()),
            ["dns-version"] => {
                Found::Data(vec![RData::TXT(TXT::new(vec![SPECIFICATION.into()]))], Vec::new())
            }
            ["dns", "ns"] => Found::addresses([DNS_ADDRESS]),
            ["dns" | "svc" | "pod"] => Found::empty(),
            ["pod", _namespace] => Found::empty(),
            ["pod", _namespace, dashed] => {
                dashed_address(dashed).map_or(Found::NoSuchName, |ip| Found::addresses([ip]))
            }
            ["svc", namespace] => Found::exists(catalog.has_namespace(namespace)),
            ["svc", namespace, name, rest @ ..] => {
                let key = ServiceKey { namespace: (*namespace).into(), name: (*name).into() };
                catalog.view(&key).map_or(Found::NoSuchName, |view| self.service(&key, &view, rest))
            }
            _ => Found::NoSuchName,
        }
    }

    fn service(&self, key: &ServiceKey, view: &ServiceView, rest: &[&str]) -> Found {
        match rest {
            [] => match &view.service.kind {
                ServiceKind::ClusterIp(ip) => Found::addresses([*ip]),
                ServiceKind::Headless => Found::addresses(ready(view).map(|endpoint| endpoint.ip)),
                ServiceKind::ExternalName(target) => match Name::from_utf8(target) {
                    Ok(mut target) => {
                        target.set_fqdn(true);
                        Found::Data(vec![RData::CNAME(CNAME(target))], Vec::new())
                    }
                    Err(_invalid) => Found::empty(),
                },
            },
            [protocol] if protocol.starts_with('_') => {
                Found::exists(view.service.ports.iter().any(|port| protocol[1..] == *port.protocol.name()))
            }
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                self.service_records(key, view, &protocol[1..], &port[1..])
            }
            [host] => {
                let mut ips: Vec<_> =
                    ready(view).filter(|endpoint| endpoint_label(endpoint) == *host).map(|e| e.ip).collect();
                ips.dedup();
                if ips.is_empty() { Found::NoSuchName } else { Found::addresses(ips) }
            }
            _ => Found::NoSuchName,
        }
    }

    /// `_port._protocol.service`: where a named port is. For a headless service, of each endpoint.
    fn service_records(&self, key: &ServiceKey, view: &ServiceView, protocol: &str, port: &str) -> Found {
        let named = |name: &str, of: Protocol| name == port && of.name() == protocol;
        match &view.service.kind {
            ServiceKind::ClusterIp(ip) => {
                let Some(port) = view.service.ports.iter().find(|port| named(&port.name, port.protocol))
                else {
                    return Found::NoSuchName;
                };
                let target = self.service_name(key, None);
                let record = RData::SRV(SRV::new(0, 100, port.port, target.clone()));
                Found::Data(vec![record], vec![(target, *ip)])
            }
            ServiceKind::Headless => {
                let (mut records, mut targets) = (Vec::new(), Vec::new());
                for group in &view.groups {
                    let number = group
                        .ports
                        .iter()
                        .find(|(name, of, _)| named(name, *of))
                        .map(|(_, _, number)| *number);
                    let Some(number) = number else { continue };
                    for endpoint in group.endpoints.iter().filter(|endpoint| endpoint.ready) {
                        let target = self.service_name(key, Some(endpoint));
                        records.push(RData::SRV(SRV::new(0, 100, number, target.clone())));
                        targets.push((target, endpoint.ip));
                    }
                }
                let known = view.service.ports.iter().any(|port| named(&port.name, port.protocol));
                if records.is_empty() { Found::exists(known) } else { Found::Data(records, targets) }
            }
            ServiceKind::ExternalName(_) => Found::NoSuchName,
        }
    }

    /// `octets` is the name below in-addr.arpa, outermost first: an address's octets in order.
    fn reverse(&self, catalog: &ServiceCatalog, octets: &[&str]) -> Found {
        let [a, b, c, d] = octets else { return Found::NoSuchName };
        let Ok(ip) = format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>() else { return Found::NoSuchName };
        if let Some(key) = catalog.by_cluster_ip(ip) {
            return Found::Data(vec![RData::PTR(PTR(self.service_name(&key, None)))], Vec::new());
        }
        let mut names = Vec::new();
        for (key, view) in catalog.by_endpoint_ip(ip) {
            if view.service.kind == ServiceKind::Headless
                && let Some(endpoint) = ready(&view).find(|endpoint| endpoint.ip == ip)
            {
                names.push(RData::PTR(PTR(self.service_name(&key, Some(endpoint)))));
            }
        }
        if names.is_empty() { Found::NoSuchName } else { Found::Data(names, Vec::new()) }
    }

    fn service_name(&self, key: &ServiceKey, endpoint: Option<&Endpoint>) -> Name {
        let service = ["svc", &key.namespace, &key.name];
        match endpoint {
            None => self.child(&service),
            Some(endpoint) => self.child(&[&service[..], &[&endpoint_label(endpoint)]].concat()),
        }
    }

    /// A name below the zone, labels outermost first. Kubernetes' names always fit; one that would not stands for the zone itself.
    fn child(&self, labels: &[&str]) -> Name {
        let grow = |name: Name, label: &&str| name.prepend_label(*label).ok();
        labels.iter().try_fold(self.origin.clone(), grow).unwrap_or_else(|| self.origin.clone())
    }

    fn soa(&self) -> RData {
        let (primary, contact) = (self.child(&["dns", "ns"]), self.child(&["hostmaster"]));
        // Nobody copies this zone, so the serial never needs to move; the last figure is how long "no such name" may be kept.
        RData::SOA(SOA::new(primary, contact, 1, 7200, 1800, 86400, TTL))
    }
}

fn ready(view: &ServiceView) -> impl Iterator<Item = &Endpoint> {
    view.groups.iter().flat_map(|group| &group.endpoints).filter(|endpoint| endpoint.ready)
}

/// The label of one endpoint below its service: its host name, or its address with dashes.
fn endpoint_label(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.ip.to_string().replace('.', "-"))
}

fn dashed_address(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// In lower case, outermost first; `None` for labels that are no text.
fn reversed_labels(name: &Name) -> Option<Vec<String>> {
    let labels: Vec<&[u8]> = name.iter().collect();
    labels.iter().rev().map(|label| Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase())).collect()
}

fn strip<'a, 'b>(labels: &'a [&'b str], zone: &[String]) -> Option<&'a [&'b str]> {
    let (outer, below) = labels.split_at_checked(zone.len())?;
    outer.iter().zip(zone).all(|(label, zone)| label == zone).then_some(below)
}

#[cfg(test)]
mod tests;
