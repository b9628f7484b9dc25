//! Which of a pod's traffic goes through its sidecar: read from the pod's annotations, written as one nftables table.
//!
//! The rules are those of Istio's `istio-iptables`, in nftables: outbound TCP of anyone but the sidecar's user goes to 15001, inbound
//! TCP to 15006. They redirect, so traffic fails closed while no sidecar listens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ipnet::Ipv4Net;

/// Ports of the sidecar itself that inbound traffic reaches without redirection: health, merged metrics, tunnel.
const SIDECAR_PORTS: [u16; 4] = [15008, 15020, 15021, 15090];
/// The address from which a sidecar calls its own application, so that the call is not captured again.
const INBOUND_PASSTHROUGH: &str = "127.0.0.6";
/// Injection writes this annotation; its presence is what asks for interception.
const STATUS: &str = "sidecar.istio.io/status";
const MODE: &str = "sidecar.istio.io/interceptionMode";
const PREFIX: &str = "traffic.sidecar.istio.io/";

/// A set of ports, or every port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    All,
    /// These only.
    Only(BTreeSet<u16>),
}

/// A set of destination ranges, or every destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundRanges {
    /// Every destination.
    All,
    /// These only.
    Only(Vec<Ipv4Net>),
}

/// What to capture in one pod, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interception {
    /// Inbound ports that are captured.
    pub include_inbound_ports: Ports,
    /// Inbound ports that are not, when all are included.
    pub exclude_inbound_ports: BTreeSet<u16>,
    /// Outbound ports that are captured whatever the destination.
    pub include_outbound_ports: BTreeSet<u16>,
    /// Outbound ports that are never captured.
    pub exclude_outbound_ports: BTreeSet<u16>,
    /// Destinations that are captured.
    pub include_outbound_cidrs: OutboundRanges,
    /// Destinations that are never captured.
    pub exclude_outbound_cidrs: Vec<Ipv4Net>,
    /// The user whose traffic is the sidecar's own.
    pub proxy_uid: u32,
    /// Where captured inbound connections arrive.
    pub inbound_port: u16,
    /// Where captured outbound connections arrive.
    pub outbound_port: u16,
}

/// An annotation that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation `{name}`: `{value}` {problem}")]
pub struct AnnotationError {
    /// The annotation's name.
    pub name: String,
    /// The part of its value that is wrong.
    pub value: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

// === impl Interception ===

impl Default for Interception {
    fn default() -> Self {
        Self {
            include_inbound_ports: Ports::All,
            exclude_inbound_ports: BTreeSet::new(),
            include_outbound_ports: BTreeSet::new(),
            exclude_outbound_ports: BTreeSet::new(),
            include_outbound_cidrs: OutboundRanges::All,
            exclude_outbound_cidrs: Vec::new(),
            proxy_uid: 1337,
            inbound_port: 15006,
            outbound_port: 15001,
        }
    }
}

impl Interception {
    /// What a pod's annotations ask for: nothing unless the pod was injected (`sidecar.istio.io/status`), nor in mode `NONE`.
    ///
    /// # Errors
    /// When an annotation holds something that is not a list of ports or ranges. Never ignore it: the pod would run uncaptured.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, AnnotationError> {
        if !annotations.contains_key(STATUS) {
            return Ok(None);
        }
        match annotations.get(MODE).map(String::as_str) {
            None | Some("REDIRECT") => {}
            Some("NONE") => return Ok(None),
            Some(other) => return Err(AnnotationError::new(MODE, other, "must be REDIRECT or NONE")),
        }
        let list = |key: &str| Annotation::read(annotations, key);
        let mut wanted = Self::default();
        if let Some(value) = list("includeInboundPorts") {
            wanted.include_inbound_ports =
                if value.is_all() { Ports::All } else { Ports::Only(value.ports()?) };
        }
        if let Some(value) = list("includeOutboundIPRanges") {
            wanted.include_outbound_cidrs =
                if value.is_all() { OutboundRanges::All } else { OutboundRanges::Only(value.ranges()?) };
        }
        let ports = |key: &str| list(key).map_or(Ok(BTreeSet::new()), |value| value.ports());
        wanted.exclude_inbound_ports = ports("excludeInboundPorts")?;
        wanted.include_outbound_ports = ports("includeOutboundPorts")?;
        wanted.exclude_outbound_ports = ports("excludeOutboundPorts")?;
        wanted.exclude_outbound_cidrs =
            list("excludeOutboundIPRanges").map_or(Ok(Vec::new()), |value| value.ranges())?;
        Ok(Some(wanted))
    }

    /// The table as `nft -f` reads it, for the inside of the pod's namespace.
    pub(crate) fn ruleset(&self) -> String {
        let mut inbound = String::new();
        let mut outbound = String::new();
        self.inbound_rules(&mut inbound);
        self.outbound_rules(&mut outbound);
        format!(
            "table ip mesh_interception {{\n\
             chain inbound {{\ntype nat hook prerouting priority dstnat; policy accept;\n{inbound}}}\n\
             chain outbound {{\ntype nat hook output priority -100; policy accept;\n{outbound}}}\n}}\n"
        )
    }

    fn inbound_rules(&self, rules: &mut String) {
        let redirect = format!("redirect to :{}", self.inbound_port);
        line(rules, format_args!("tcp dport {} accept", set(SIDECAR_PORTS.iter())));
        match &self.include_inbound_ports {
            Ports::All => {
                if !self.exclude_inbound_ports.is_empty() {
                    line(rules, format_args!("tcp dport {} accept", set(self.exclude_inbound_ports.iter())));
                }
                line(rules, format_args!("meta l4proto tcp {redirect}"));
            }
            Ports::Only(ports) if ports.is_empty() => {}
            Ports::Only(ports) => line(rules, format_args!("tcp dport {} {redirect}", set(ports.iter()))),
        }
    }

    fn outbound_rules(&self, rules: &mut String) {
        let Self { proxy_uid, inbound_port, outbound_port, .. } = self;
        line(rules, format_args!("meta l4proto != tcp accept"));
        if !self.exclude_outbound_ports.is_empty() {
            line(rules, format_args!("tcp dport {} accept", set(self.exclude_outbound_ports.iter())));
        }
        // The sidecar calling its own application: from this address, so that it is not captured once more.
        line(rules, format_args!("oif lo ip saddr {INBOUND_PASSTHROUGH} accept"));
        // The sidecar calling its own pod's address as a client of the mesh: loops through inbound, as from another pod.
        line(
            rules,
            format_args!(
                "oif lo ip daddr != 127.0.0.1 meta skuid {proxy_uid} tcp dport != 15008 redirect to :{inbound_port}"
            ),
        );
        line(rules, format_args!("oif lo meta skuid != {proxy_uid} accept"));
        line(rules, format_args!("meta skuid {proxy_uid} accept"));
        line(rules, format_args!("meta skgid {proxy_uid} accept"));
        line(rules, format_args!("ip daddr 127.0.0.1 accept"));
        if !self.exclude_outbound_cidrs.is_empty() {
            line(rules, format_args!("ip daddr {} accept", set(self.exclude_outbound_cidrs.iter())));
        }
        if !self.include_outbound_ports.is_empty() {
            let ports = set(self.include_outbound_ports.iter());
            line(rules, format_args!("tcp dport {ports} redirect to :{outbound_port}"));
        }
        match &self.include_outbound_cidrs {
            OutboundRanges::All => line(rules, format_args!("meta l4proto tcp redirect to :{outbound_port}")),
            OutboundRanges::Only(ranges) => {
                for range in ranges {
                    line(
                        rules,
                        format_args!("ip daddr {range} meta l4proto tcp redirect to :{outbound_port}"),
                    );
                }
            }
        }
    }
}

// === impl AnnotationError ===

impl AnnotationError {
    fn new(name: &str, value: &str, problem: &'static str) -> Self {
        Self { name: name.into(), value: value.into(), problem }
    }
}

/// One `traffic.sidecar.istio.io/…` annotation: a comma-separated list.
struct Annotation<'a> {
    name: String,
    value: &'a str,
}

impl<'a> Annotation<'a> {
    fn read(annotations: &'a BTreeMap<String, String>, key: &str) -> Option<Self> {
        let name = format!("{PREFIX}{key}");
        let value = annotations.get(&name)?.trim();
        Some(Self { name, value })
    }

    fn is_all(&self) -> bool {
        self.value == "*"
    }

    fn items(&self) -> impl Iterator<Item = &'a str> {
        self.value.split(',').map(str::trim).filter(|item| !item.is_empty())
    }

    fn ports(&self) -> Result<BTreeSet<u16>, AnnotationError> {
        self.items()
            .map(|item| {
                item.parse::<std::num::NonZeroU16>().map(std::num::NonZeroU16::get).map_err(|_invalid| {
                    AnnotationError::new(&self.name, item, "must be a port from 1 to 65535")
                })
            })
            .collect()
    }

    /// The ranges, without those of IPv6: pods have no IPv6 address.
    fn ranges(&self) -> Result<Vec<Ipv4Net>, AnnotationError> {
        let invalid = |item: &str| AnnotationError::new(&self.name, item, "must be an address range (CIDR)");
        let mut ranges = Vec::new();
        for item in self.items() {
            match item.parse::<ipnet::IpNet>().map_err(|_invalid| invalid(item))? {
                ipnet::IpNet::V4(range) => ranges.push(range.trunc()),
                ipnet::IpNet::V6(_) => {}
            }
        }
        Ok(Ipv4Net::aggregate(&ranges))
    }
}

fn line(rules: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(rules, "{text}");
}

/// An anonymous nftables set.
fn set<T: ToString>(items: impl Iterator<Item = T>) -> String {
    format!("{{ {} }}", items.map(|item| item.to_string()).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
