//! Map elements as netlink messages: a change of a service costs microseconds where `nft` would cost a process.
//!
//! Numbers are those of linux/netfilter/nf_tables.h. Each part of a key or value is padded to four bytes.

use super::rules::{Front, Key, Value};
use super::shadow::Delta;
use super::skeleton::{BY_ADDRESS, BY_NODE_PORT, TABLE, chain, map};
use crate::netlink::message::{Message, SUBSYSTEM_NFTABLES, generic};
use crate::services::Protocol;

const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_GOTO: i32 = -4;
/// An attribute's length has 16 bits; an element has well under 100 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// The messages of one transaction: removals first, so that a key can get a new value.
pub(super) fn messages(delta: &Delta) -> Vec<Message> {
    let mut messages = Vec::new();
    for (kind, elements) in [(NFT_MSG_DELSETELEM, &delta.remove), (NFT_MSG_NEWSETELEM, &delta.add)] {
        let mut by_map: std::collections::BTreeMap<String, Vec<(Key, Value)>> = Default::default();
        for (key, value) in elements {
            by_map.entry(map_of(*key)).or_default().push((*key, *value));
        }
        for (map, elements) in by_map {
            messages.extend(elements.chunks(ELEMENTS_PER_MESSAGE).map(|chunk| message(kind, &map, chunk)));
        }
    }
    messages
}

fn message(kind: u16, map: &str, elements: &[(Key, Value)]) -> Message {
    let flags = if kind == NFT_MSG_NEWSETELEM { libc::NLM_F_CREATE } else { 0 };
    Message::new(SUBSYSTEM_NFTABLES << 8 | kind, flags, &generic(libc::NFPROTO_IPV4 as u8, 0))
        .text(NFTA_SET_ELEM_LIST_TABLE, TABLE)
        .text(NFTA_SET_ELEM_LIST_SET, map)
        .nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            elements.iter().fold(list, |list, (key, value)| {
                list.nested(NFTA_LIST_ELEM, |element| put_element(element, *key, *value))
            })
        })
}

fn put_element(element: Message, key: Key, value: Value) -> Message {
    let (Key::Dispatch(front) | Key::Bucket(_, front, _)) = key;
    element.nested(NFTA_SET_ELEM_KEY, |data| data.attribute(NFTA_DATA_VALUE, &key_bytes(key))).nested(
        NFTA_SET_ELEM_DATA,
        |data| match value {
            Value::Endpoint(ip, port) => {
                let mut bytes = ip.octets().to_vec();
                bytes.extend_from_slice(&padded_port(port));
                data.attribute(NFTA_DATA_VALUE, &bytes)
            }
            Value::Goto(spread) => data.nested(NFTA_DATA_VERDICT, |verdict| {
                verdict
                    .attribute(NFTA_VERDICT_CODE, &NFT_GOTO.to_be_bytes())
                    .text(NFTA_VERDICT_CHAIN, &chain(spread, front))
            }),
        },
    )
}

fn map_of(key: Key) -> String {
    match key {
        Key::Dispatch(Front::Address(..)) => BY_ADDRESS.to_owned(),
        Key::Dispatch(Front::NodePort(..)) => BY_NODE_PORT.to_owned(),
        Key::Bucket(spread, front, _) => map(spread, front),
    }
}

fn key_bytes(key: Key) -> Vec<u8> {
    let (Key::Dispatch(front) | Key::Bucket(_, front, _)) = key;
    let (protocol, port, mut bytes) = match front {
        Front::Address(ip, protocol, port) => (protocol, port, ip.octets().to_vec()),
        Front::NodePort(protocol, port) => (protocol, port, Vec::new()),
    };
    let number = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    bytes.extend_from_slice(&[number as u8, 0, 0, 0]);
    bytes.extend_from_slice(&padded_port(port));
    if let Key::Bucket(_, _, bucket) = key {
        bytes.extend_from_slice(&bucket.to_ne_bytes());
    }
    bytes
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
