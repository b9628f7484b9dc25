//! The service table as text for `nft -f`: chains, maps, and the elements of a full load.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::rules::{Front, Key, SPREADS, Spread, Value};
use crate::NetworkError;
use crate::dns::DNS_ADDRESS;
use crate::fabric::{NodeNet, POD_CIDR, SERVICE_CIDR};

/// The table's name.
pub(super) const TABLE: &str = "mesh_services";
/// The maps that lead to a service's chain, by address and by node port.
pub(super) const BY_ADDRESS: &str = "services";
pub(super) const BY_NODE_PORT: &str = "nodeports";

/// The chain, for services' addresses or for node ports, that picks an endpoint this way.
pub(super) fn chain(spread: Spread, front: Front) -> String {
    let node = if matches!(front, Front::NodePort(..)) { "node_" } else { "" };
    match spread {
        Spread::Random(buckets) => format!("{node}random{buckets}"),
        Spread::Sticky => format!("{node}sticky"),
    }
}

/// The map that chain looks into.
pub(super) fn map(spread: Spread, front: Front) -> String {
    format!("{}_endpoints", chain(spread, front))
}

/// Whether the calling thread's namespace has the table.
pub(super) fn is_loaded() -> Result<bool, NetworkError> {
    let status = Command::new("nft")
        .args(["list", "chain", "ip", TABLE, "prerouting"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(NetworkError::io("cannot run `nft`"))?;
    Ok(status.success())
}

/// Replaces the table, if there is one, in one transaction.
pub(super) fn ruleset(node: &NodeNet, elements: &[(Key, Value)]) -> String {
    let mut text = format!("table ip {TABLE} {{ }}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
    dispatch(&mut text);
    for spread in SPREADS {
        endpoint_chains(&mut text, spread);
    }
    source_rules(&mut text, node);
    refusals(&mut text);
    text.push_str("}\n");
    for (key, value) in elements {
        element(&mut text, *key, *value);
    }
    text
}

fn dispatch(text: &mut String) {
    put(
        text,
        format_args!(
            "map {BY_ADDRESS} {{ typeof ip daddr . meta l4proto . th dport : verdict; }}\n\
             map {BY_NODE_PORT} {{ typeof meta l4proto . th dport : verdict; }}\n\
             chain dispatch {{\n\
             ip daddr {SERVICE_CIDR} ip daddr . meta l4proto . th dport vmap @{BY_ADDRESS}\n\
             fib daddr type local ip daddr != {{ 127.0.0.0/8, {DNS_ADDRESS} }} meta l4proto . th dport vmap @{BY_NODE_PORT}\n}}\n\
             chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; goto dispatch; }}\n\
             chain output {{ type nat hook output priority -100; policy accept; goto dispatch; }}"
        ),
    );
}

fn endpoint_chains(text: &mut String, spread: Spread) {
    let buckets = spread.buckets();
    let pick = match spread {
        Spread::Random(_) => format!("numgen random mod {buckets}"),
        Spread::Sticky => format!("jhash ip saddr mod {buckets} seed 0x6d657368"),
    };
    let any = std::net::Ipv4Addr::UNSPECIFIED;
    let protocol = crate::services::Protocol::Tcp;
    for (front, key) in [
        (Front::Address(any, protocol, 0), "ip daddr . meta l4proto . th dport"),
        (Front::NodePort(protocol, 0), "meta l4proto . th dport"),
    ] {
        let (chain, map) = (chain(spread, front), map(spread, front));
        put(
            text,
            format_args!(
                "map {map} {{ typeof {key} . numgen random mod {buckets} : ip daddr . th dport; }}\n\
                 chain {chain} {{\n\
                 meta l4proto tcp dnat ip to {key} . {pick} map @{map}\n\
                 meta l4proto udp dnat ip to {key} . {pick} map @{map}\n}}"
            ),
        );
    }
}

/// Replies must come back through this node: a pod that reaches itself, and callers from elsewhere that are sent elsewhere.
fn source_rules(text: &mut String, node: &NodeNet) {
    let NodeNet { address, pod_cidr, .. } = node;
    let itself: Vec<_> = pod_cidr.hosts().skip(1).map(|pod| format!("{pod} . {pod}")).collect();
    put(
        text,
        format_args!(
            "set itself {{ type ipv4_addr . ipv4_addr; elements = {{ {} }}; }}\n\
             chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;\n\
             ct status dnat ip saddr . ip daddr @itself snat to {address}\n\
             ct status dnat ip saddr != {pod_cidr} ip daddr != {pod_cidr} fib saddr type != local snat to {address}\n}}",
            itself.join(", ")
        ),
    );
}

/// What still has a service's address after translation has no endpoint, or is no service. Addresses without a route are refused here
/// and not by routing, which answers a sender only five times and then once a second.
fn refusals(text: &mut String) {
    put(
        text,
        format_args!(
            "chain refused {{ meta l4proto tcp reject with tcp reset\nreject with icmp port-unreachable\n}}\n\
             chain unroutable {{ type filter hook prerouting priority filter; policy accept;\n\
             ct state new fib daddr type unicast fib daddr oif missing ip daddr {POD_CIDR} reject with icmp host-unreachable\n\
             ct state new fib daddr type unicast fib daddr oif missing reject with icmp net-unreachable\n}}\n\
             chain forward {{ type filter hook forward priority filter; policy accept;\n\
             ip daddr {SERVICE_CIDR} goto refused\n\
             ip daddr != {{ {POD_CIDR}, 172.30.0.0/24 }} reject with icmp net-unreachable\n}}\n\
             chain local {{ type filter hook output priority filter; policy accept;\n\
             ip daddr {SERVICE_CIDR} fib daddr type != local goto refused\n}}"
        ),
    );
}

fn element(text: &mut String, key: Key, value: Value) {
    let (map, key, front) = match key {
        Key::Dispatch(front) => match front {
            Front::Address(..) => (BY_ADDRESS.to_owned(), front_text(front), front),
            Front::NodePort(..) => (BY_NODE_PORT.to_owned(), front_text(front), front),
        },
        Key::Bucket(spread, front, bucket) => {
            (map(spread, front), format!("{} . {bucket}", front_text(front)), front)
        }
    };
    let value = match value {
        Value::Goto(spread) => format!("goto {}", chain(spread, front)),
        Value::Endpoint(ip, port) => format!("{ip} . {port}"),
    };
    put(text, format_args!("add element ip {TABLE} {map} {{ {key} : {value} }}"));
}

fn front_text(front: Front) -> String {
    match front {
        Front::Address(ip, protocol, port) => format!("{ip} . {} . {port}", protocol.name()),
        Front::NodePort(protocol, port) => format!("{} . {port}", protocol.name()),
    }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(text, "{line}");
}
