//! The rtnetlink requests this crate needs: links, addresses and routes.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;

use super::message::Message;

/// `VETH_INFO_PEER` of linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hop {
    /// Straight out of a link: whoever is asked is on it.
    Link { index: u32, source: Option<Ipv4Addr> },
    /// To a gateway on a link.
    Gateway { address: Ipv4Addr, index: u32 },
    /// Nowhere: the sender is told so.
    Unreachable,
}

/// Creates a bridge.
pub(crate) fn add_bridge(name: &str) -> Message {
    link(libc::RTM_NEWLINK, CREATE, 0, 0)
        .text(libc::IFLA_IFNAME, name)
        .nested(libc::IFLA_LINKINFO, |info| info.attribute(libc::IFLA_INFO_KIND, b"bridge"))
}

/// Creates a veth pair: `name` here, `peer` in the namespace `peer_namespace`.
pub(crate) fn add_veth(name: &str, peer: &str, peer_namespace: BorrowedFd<'_>) -> Message {
    let namespace = peer_namespace.as_raw_fd().to_ne_bytes();
    link(libc::RTM_NEWLINK, CREATE, 0, 0).text(libc::IFLA_IFNAME, name).nested(libc::IFLA_LINKINFO, |info| {
        info.attribute(libc::IFLA_INFO_KIND, b"veth").nested(libc::IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |inner| {
                inner.raw(&[0; 16]).text(libc::IFLA_IFNAME, peer).attribute(libc::IFLA_NET_NS_FD, &namespace)
            })
        })
    })
}

/// Brings a link up.
pub(crate) fn set_up(index: u32) -> Message {
    link(libc::RTM_NEWLINK, 0, index, libc::IFF_UP as u32)
}

/// Puts a link under a bridge and brings it up.
pub(crate) fn set_master_and_up(index: u32, bridge: u32) -> Message {
    set_up(index).attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes())
}

/// Deletes a link, and with it a veth's other end.
pub(crate) fn delete_link(name: &str) -> Message {
    link(libc::RTM_DELLINK, 0, 0, 0).text(libc::IFLA_IFNAME, name)
}

/// Gives a link an address. The scope of anything on the loopback link is the host, so that it is never chosen as a source by itself.
pub(crate) fn add_address(index: u32, address: Ipv4Addr, prefix: u8, scope: u8) -> Message {
    let mut fixed = [libc::AF_INET as u8, prefix, 0, scope, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(libc::RTM_NEWADDR, REPLACE, &fixed)
        .attribute(libc::IFA_LOCAL, &address.octets())
        .attribute(libc::IFA_ADDRESS, &address.octets())
}

/// Adds a route, or replaces the one to the same destination.
pub(crate) fn add_route(destination: Ipv4Net, hop: Hop) -> Message {
    let (kind, scope) = match hop {
        Hop::Link { .. } => (libc::RTN_UNICAST, libc::RT_SCOPE_LINK),
        Hop::Gateway { .. } => (libc::RTN_UNICAST, libc::RT_SCOPE_UNIVERSE),
        Hop::Unreachable => (libc::RTN_UNREACHABLE, libc::RT_SCOPE_UNIVERSE),
    };
    let destination = destination.trunc();
    let fixed = [
        libc::AF_INET as u8,
        destination.prefix_len(),
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        scope,
        kind,
        0,
        0,
        0,
        0,
    ];
    let message = Message::new(libc::RTM_NEWROUTE, REPLACE, &fixed)
        .attribute(libc::RTA_DST, &destination.network().octets());
    let out = |message: Message, index: u32| message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
    match hop {
        Hop::Link { index, source } => {
            let message = out(message, index);
            match source {
                Some(source) => message.attribute(libc::RTA_PREFSRC, &source.octets()),
                None => message,
            }
        }
        Hop::Gateway { address, index } => {
            out(message, index).attribute(libc::RTA_GATEWAY, &address.octets())
        }
        Hop::Unreachable => message,
    }
}

/// `struct ifinfomsg` with the given index and flags to set.
fn link(kind: u16, flags: i32, index: u32, set: u32) -> Message {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&set.to_ne_bytes());
    fixed[12..16].copy_from_slice(&set.to_ne_bytes());
    Message::new(kind, flags, &fixed)
}
