//! `envoy.config.core.v3.Address` and `CidrRange`.

use super::Address;
use crate::convert::{At, Converted, number, port, refuse, required};
use crate::invalid::Invalid;
use ipnet::IpNet;
use policies_xds::core::address::Address as Specifier;
use policies_xds::core::socket_address::{PortSpecifier, Protocol};
use policies_xds::core::{self, SocketAddress};
use std::net::IpAddr;

/// Longest DNS name in text form.
const NAME_BYTES_MAX: usize = 253;
/// Longest path of a Unix socket that the system takes.
const PIPE_BYTES_MAX: usize = 107;

pub(crate) fn address(message: &core::Address) -> Converted<Address> {
    match required("address", &message.address)? {
        Specifier::SocketAddress(socket) => socket_address(socket).at("socket_address"),
        Specifier::Pipe(pipe) if pipe.path.is_empty() || pipe.path.len() > PIPE_BYTES_MAX => {
            Err(Invalid::new("pipe.path", format!("must have 1 to {PIPE_BYTES_MAX} bytes")))
        }
        Specifier::Pipe(pipe) => Ok(Address::Pipe(pipe.path.as_str().into())),
        Specifier::EnvoyInternalAddress(_) => {
            Err(Invalid::unsupported("envoy_internal_address", "an internal listener"))
        }
    }
}

/// An address that needs no resolution.
pub(crate) fn resolved_address(message: &core::Address) -> Converted<Address> {
    match address(message)? {
        Address::Name(name, _) => {
            Err(Invalid::new("socket_address.address", format!("`{name}` is not an IP address")))
        }
        resolved => Ok(resolved),
    }
}

fn socket_address(message: &SocketAddress) -> Converted<Address> {
    if message.protocol != i32::from(Protocol::Tcp) {
        return Err(Invalid::unsupported("protocol", "UDP"));
    }
    refuse("resolver_name", !message.resolver_name.is_empty())?;
    refuse("network_namespace_filepath", !message.network_namespace_filepath.is_empty())?;
    let port = match required("port_value", &message.port_specifier)? {
        PortSpecifier::PortValue(value) => port("port_value", *value)?,
        PortSpecifier::NamedPort(_) => return Err(Invalid::unsupported("named_port", "a port by name")),
    };
    if let Ok(ip) = message.address.parse::<IpAddr>() {
        return Ok(Address::Socket((ip, port).into()));
    }
    if is_dns_name(&message.address) {
        Ok(Address::Name(message.address.to_ascii_lowercase().into(), port))
    } else {
        Err(Invalid::new("address", format!("`{}` is no address", message.address.escape_debug())))
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= NAME_BYTES_MAX && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

/// The address that connections are made from; its port must be left to the system.
pub(crate) fn source_address(message: &SocketAddress) -> Converted<IpAddr> {
    if !matches!(message.port_specifier, None | Some(PortSpecifier::PortValue(0))) {
        return Err(Invalid::unsupported("port_value", "a fixed source port"));
    }
    let address = &message.address;
    address
        .parse()
        .map_err(|_| Invalid::new("address", format!("`{}` is not an IP address", address.escape_debug())))
}

pub(crate) fn cidr(message: &core::CidrRange) -> Converted<IpNet> {
    let prefix = &message.address_prefix;
    let ip: IpAddr = prefix.parse().map_err(|_| {
        Invalid::new("address_prefix", format!("`{}` is not an IP address", prefix.escape_debug()))
    })?;
    u8::try_from(number(&message.prefix_len).unwrap_or(0))
        .ok()
        .and_then(|length| IpNet::new(ip, length).ok())
        .map(|network| network.trunc())
        .ok_or_else(|| Invalid::new("prefix_len", "is longer than the address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies_xds::core::CidrRange;
    use policies_xds::protobuf::UInt32Value;

    fn socket(text: &str, port: u32) -> core::Address {
        core::Address {
            address: Some(Specifier::SocketAddress(SocketAddress {
                address: text.to_owned(),
                port_specifier: Some(PortSpecifier::PortValue(port)),
                ..Default::default()
            })),
        }
    }

    #[test]
    fn addresses_and_names() {
        assert_eq!(
            address(&socket("10.0.0.1", 80)).unwrap(),
            Address::Socket("10.0.0.1:80".parse().unwrap())
        );
        assert_eq!(address(&socket("::1", 80)).unwrap(), Address::Socket("[::1]:80".parse().unwrap()));
        assert_eq!(address(&socket("Example.ORG", 443)).unwrap(), Address::Name("example.org".into(), 443));
        assert_eq!(address(&socket("1.1.1.1", 65_536)).unwrap_err().field, "socket_address.port_value");
        for bad in ["", "a..b", "a b", "a/b", &"x".repeat(300)] {
            assert_eq!(address(&socket(bad, 1)).unwrap_err().field, "socket_address.address");
        }
        assert!(resolved_address(&socket("example.org", 1)).is_err());
        assert_eq!(address(&core::Address::default()).unwrap_err(), Invalid::missing("address"));
    }

    #[test]
    fn networks_are_truncated_and_bounded() {
        let range = |prefix: &str, length: Option<u32>| CidrRange {
            address_prefix: prefix.to_owned(),
            prefix_len: length.map(|value| UInt32Value { value }),
        };
        assert_eq!(cidr(&range("10.1.2.3", Some(8))).unwrap(), "10.0.0.0/8".parse().unwrap());
        assert_eq!(cidr(&range("10.1.2.3", None)).unwrap(), "0.0.0.0/0".parse().unwrap());
        assert_eq!(cidr(&range("10.1.2.3", Some(33))).unwrap_err().field, "prefix_len");
        assert_eq!(cidr(&range("::", Some(300))).unwrap_err().field, "prefix_len");
        assert_eq!(cidr(&range("x", Some(8))).unwrap_err().field, "address_prefix");
    }
}
