//! Small constructors for the messages that every compiler writes, and maps whose encoding is deterministic.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use policies_api::matching::{Percent, StringMatch};
use policies_xds::protobuf::{self, Any, BoolValue, Struct, UInt32Value, Value, value};
use policies_xds::{core, matcher, types};
use prost::{Message, Name};

pub(crate) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(crate) fn flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(crate) fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A map that iterates, and so encodes, in the order of its keys.
///
/// The generated messages hold `HashMap`s, whose order is random per map. Maps here have two or three entries, so a map in order is found
/// after a few fresh ones; should the bound ever be reached, the map is still right and only costs a needless push.
pub(crate) fn ordered<V: Clone>(mut entries: Vec<(String, V)>) -> HashMap<String, V> {
    const TRIES_MAX: usize = 256;
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut map: HashMap<String, V> = entries.iter().cloned().collect();
    for _ in 0..TRIES_MAX {
        if map.keys().zip(&entries).all(|(key, (expected, _))| key == expected) {
            break;
        }
        map = entries.iter().cloned().collect();
    }
    map
}

/// A message in which the map field `tag` holds the given entries in their order; the field itself must be empty in `message`.
pub(crate) fn encode_with_map<M: Message, V: Message>(
    message: &M,
    tag: u32,
    entries: &[(String, V)],
) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    for (key, value) in entries {
        let mut entry = Vec::new();
        prost::encoding::string::encode(1, key, &mut entry);
        prost::encoding::message::encode(2, value, &mut entry);
        prost::encoding::bytes::encode(tag, &entry, &mut bytes);
    }
    bytes
}

/// An `Any` of type `M` from bytes that are already encoded.
pub(crate) fn any_of<M: Name>(value: Vec<u8>) -> Any {
    Any { type_url: M::type_url(), value }
}

pub(crate) fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(value::Kind::StringValue(value.into())) }
}

pub(crate) fn structure(fields: Vec<(&str, Value)>) -> Struct {
    Struct { fields: ordered(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()) }
}

pub(crate) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(value::Kind::ListValue(protobuf::ListValue { values })) }
}

pub(crate) fn socket_address(address: impl Into<String>, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
            ..Default::default()
        })),
    }
}

pub(crate) fn cidr(network: &IpNet) -> core::CidrRange {
    core::CidrRange {
        address_prefix: network.network().to_string(),
        prefix_len: number(u32::from(network.prefix_len())),
    }
}

/// A single address, or the network it was written as.
pub(crate) fn is_single(network: &IpNet) -> Option<IpAddr> {
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

/// "From the stream this came on."
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

pub(crate) fn transport_socket(name: &str, config: Any) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(config)),
    }
}

pub(crate) fn regex(regex: impl Into<String>) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: regex.into(), ..Default::default() }
}

pub(crate) fn string_matcher(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// None for [`StringMatch::Any`] and the regex `*`, which Istio treats alike.
pub(crate) fn string_match(written: &StringMatch) -> Option<matcher::StringMatcher> {
    use matcher::string_matcher::MatchPattern;
    Some(string_matcher(match written {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(text) if text == "*" => return None,
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
        StringMatch::Any => return None,
    }))
}

/// Millionths, so that steps of 0.0001 % survive; anything that is not a percentage counts as the nearest bound.
pub(crate) fn fraction(percent: Percent) -> types::FractionalPercent {
    let millionths = (percent.value.clamp(0.0, 100.0) * 10_000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1,000,000, or NaN, which becomes 0"
    )]
    let numerator = millionths as u32;
    types::FractionalPercent {
        numerator,
        denominator: types::fractional_percent::DenominatorType::Million.into(),
    }
}

/// Metadata under one key.
pub(crate) fn metadata(entries: Vec<(&str, Struct)>) -> core::Metadata {
    let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    core::Metadata { filter_metadata: ordered(entries), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_maps_encode_alike() {
        let make = || structure(vec![("z", text("1")), ("a", text("2")), ("m", text("3"))]).encode_to_vec();
        let first = make();
        assert!((0..50).all(|_| make() == first));
    }

    #[test]
    fn appended_entries_decode_as_the_map() {
        let entries: Vec<(String, Value)> =
            (0..20).map(|it| (format!("k{it:02}"), text(it.to_string()))).collect();
        let decoded = Struct::decode(&*encode_with_map(&Struct::default(), 1, &entries)).unwrap();
        assert_eq!(decoded.fields.len(), 20);
        assert_eq!(decoded.fields["k07"], text("7"));
    }

    #[test]
    fn fractions_are_exact_and_bounded() {
        for (value, expected) in
            [(10.0, 100_000), (0.0001, 1), (100.0, 1_000_000), (250.0, 1_000_000), (-1.0, 0), (f64::NAN, 0)]
        {
            assert_eq!(fraction(Percent { value }).numerator, expected);
        }
    }
}
