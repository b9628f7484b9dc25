//! The protocol of a port: declared by `appProtocol`, by the port's name, or unknown and to be sniffed.

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web, HTTP/1.1 on the wire.
    GrpcWeb,
    /// TLS that is passed through.
    Https,
    /// TLS that is passed through.
    Tls,
    /// Any bytes.
    Tcp,
    /// MongoDB, treated as TCP.
    Mongo,
    /// Redis, treated as TCP.
    Redis,
    /// MySQL, treated as TCP.
    Mysql,
    /// UDP, not handled.
    Udp,
    /// Not declared: sniffed.
    #[default]
    Unset,
}

/// Ports of protocols in which the server speaks first, where sniffing would wait for ever.
const SERVER_FIRST_PORTS: [u16; 4] = [25, 53, 3306, 27017];

// === impl Protocol ===

impl Protocol {
    /// The protocol of a Kubernetes service port.
    #[must_use]
    pub fn of_service_port(port: u16, name: &str, app_protocol: Option<&str>, transport: &str) -> Self {
        if transport.eq_ignore_ascii_case("UDP") || transport.eq_ignore_ascii_case("SCTP") {
            return Self::Udp;
        }
        if let Some(declared) = app_protocol {
            let declared = declared.to_ascii_lowercase();
            match declared.as_str() {
                "kubernetes.io/h2c" => return Self::Http2,
                "kubernetes.io/ws" => return Self::Http,
                "kubernetes.io/wss" => return Self::Https,
                other => {
                    if let Some(protocol) = Self::parse(other) {
                        return protocol;
                    }
                }
            }
        }
        let prefix = if name.starts_with("grpc-web") {
            "grpc-web"
        } else {
            name.split('-').next().unwrap_or_default()
        };
        match Self::parse(prefix) {
            Some(protocol) => protocol,
            None if SERVER_FIRST_PORTS.contains(&port) => Self::Tcp,
            None => Self::Unset,
        }
    }

    /// The protocol by the names that Istio knows, in any case; none when unknown.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::Mysql,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// Whether requests can be routed one by one.
    #[must_use]
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the port speaks HTTP/2 from the first byte.
    #[must_use]
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// Whether the bytes are TLS that is routed by SNI.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Whether the protocol must be found out from the first bytes.
    #[must_use]
    pub const fn is_unset(self) -> bool {
        matches!(self, Self::Unset)
    }

    /// Whether connections are forwarded as bytes.
    #[must_use]
    pub const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Mongo | Self::Redis | Self::Mysql) || self.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_istios_order() {
        for (port, name, app, transport, expected) in [
            (9080, "http", None, "TCP", Protocol::Http),
            (9080, "http-web", None, "TCP", Protocol::Http),
            (9080, "http2-web", None, "TCP", Protocol::Http2),
            (9080, "grpc-web", None, "TCP", Protocol::GrpcWeb),
            (9080, "grpc-api", None, "TCP", Protocol::Grpc),
            (9080, "http", Some("tcp"), "TCP", Protocol::Tcp),
            (9080, "", Some("kubernetes.io/h2c"), "TCP", Protocol::Http2),
            (9080, "http", Some("example.com/own"), "TCP", Protocol::Http),
            (9080, "web", None, "TCP", Protocol::Unset),
            (3306, "", None, "TCP", Protocol::Tcp),
            (53, "dns", None, "UDP", Protocol::Udp),
        ] {
            assert_eq!(
                Protocol::of_service_port(port, name, app, transport),
                expected,
                "{port} {name} {app:?}"
            );
        }
    }
}
