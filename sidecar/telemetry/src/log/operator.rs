//! Envoy's command operators: `%NAME%`, `%NAME(arguments)%`, `%NAME(arguments):length%`.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::HeaderName;

use sidecar_model::tracing::MetadataOf;

use super::entry::{Entry, HeaderLookup};

/// One operator, its arguments parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// A header of the request, else another one.
    Request(Field, Option<Field>),
    /// A header of the response, else another one.
    Response(Field, Option<Field>),
    /// A header of the request without what follows a question mark, else another one.
    RequestWithoutQuery(Field, Option<Field>),
    /// A trailer of the response.
    Trailer(Field),
    /// Metadata of the request, the route or the cluster: namespace, then keys.
    Metadata(MetadataOf, Vec<Box<str>>),
    /// When it began; with a format.
    StartTime(Option<Box<str>>),
    /// A fact of the entry.
    Fact(Fact),
    /// Something this proxy has no value for.
    Nothing,
}

/// A header or pseudo header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:authority` or `host`
    Authority,
    /// `:scheme`
    Scheme,
    /// `:status`
    Status,
    /// A header.
    Name(HeaderName),
}

macro_rules! facts {
    ($($name:ident $($text:literal)|+),+ $(,)?) => {
        /// A fact of an entry.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fact {
            $(
                #[doc = concat!($("`", $text, "` "),+)]
                $name,
            )+
        }

        impl Fact {
            fn parse(name: &str) -> Option<Self> {
                match name {
                    $($($text)|+ => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

facts! {
    Protocol "PROTOCOL",
    ResponseCode "RESPONSE_CODE",
    ResponseFlags "RESPONSE_FLAGS",
    ResponseFlagsLong "RESPONSE_FLAGS_LONG",
    ResponseCodeDetails "RESPONSE_CODE_DETAILS",
    Termination "CONNECTION_TERMINATION_DETAILS",
    TransportFailure "UPSTREAM_TRANSPORT_FAILURE_REASON",
    BytesReceived "BYTES_RECEIVED",
    BytesSent "BYTES_SENT",
    Duration "DURATION" | "COMMON_DURATION",
    RequestDuration "REQUEST_DURATION",
    ResponseDuration "RESPONSE_DURATION",
    ResponseTxDuration "RESPONSE_TX_DURATION",
    UpstreamHost "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS",
    UpstreamHostIp "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    UpstreamHostPort "UPSTREAM_REMOTE_PORT",
    UpstreamCluster "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW",
    UpstreamLocal "UPSTREAM_LOCAL_ADDRESS",
    UpstreamLocalIp "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    UpstreamLocalPort "UPSTREAM_LOCAL_PORT",
    Attempts "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    DownstreamLocal "DOWNSTREAM_LOCAL_ADDRESS",
    DownstreamLocalIp "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    DownstreamLocalPort "DOWNSTREAM_LOCAL_PORT",
    DownstreamRemote "DOWNSTREAM_REMOTE_ADDRESS",
    DownstreamRemoteIp "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamRemotePort "DOWNSTREAM_REMOTE_PORT",
    DownstreamDirect "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DownstreamDirectIp "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    ServerName "REQUESTED_SERVER_NAME",
    Route "ROUTE_NAME",
    VirtualHost "VIRTUAL_HOST_NAME",
    GrpcStatus "GRPC_STATUS",
    GrpcStatusNumber "GRPC_STATUS_NUMBER",
    PeerUri "DOWNSTREAM_PEER_URI_SAN",
    PeerSubject "DOWNSTREAM_PEER_SUBJECT",
    LocalUri "DOWNSTREAM_LOCAL_URI_SAN",
    UpstreamPeerUri "UPSTREAM_PEER_URI_SAN",
    TlsVersion "DOWNSTREAM_TLS_VERSION",
    TraceId "TRACE_ID",
    ConnectionId "CONNECTION_ID",
    Hostname "HOSTNAME",
}

/// Names of gRPC statuses 0 to 16.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl Operator {
    /// Parses a name and the text between its parentheses; none if the name is not an operator.
    pub(crate) fn parse(name: &str, arguments: Option<&str>) -> Option<Self> {
        let fields = |arguments: &str| -> Option<(Field, Option<Field>)> {
            let (main, other) =
                arguments.split_once('?').map_or((arguments, None), |(main, other)| (main, Some(other)));
            Some((Field::parse(main)?, other.map(Field::parse).map_or(Some(None), |field| field.map(Some))?))
        };
        match (name, arguments) {
            ("REQ", Some(arguments)) => fields(arguments).map(|(main, other)| Self::Request(main, other)),
            ("RESP", Some(arguments)) => fields(arguments).map(|(main, other)| Self::Response(main, other)),
            ("REQ_WITHOUT_QUERY", Some(arguments)) => {
                fields(arguments).map(|(main, other)| Self::RequestWithoutQuery(main, other))
            }
            ("DYNAMIC_METADATA", Some(path)) => Some(Self::Metadata(MetadataOf::Request, keys(path))),
            ("CLUSTER_METADATA", Some(path)) => Some(Self::Metadata(MetadataOf::Cluster, keys(path))),
            ("METADATA", Some(arguments)) => match arguments.split_once(':')? {
                ("DYNAMIC", path) => Some(Self::Metadata(MetadataOf::Request, keys(path))),
                ("ROUTE", path) => Some(Self::Metadata(MetadataOf::Route, keys(path))),
                ("CLUSTER", path) => Some(Self::Metadata(MetadataOf::Cluster, keys(path))),
                _ => Some(Self::Nothing),
            },
            ("STREAM_ID" | "UNIQUE_ID", None) => {
                Some(Self::Request(Field::Name(crate::trace::REQUEST_ID), None))
            }
            ("TRAILER", Some(arguments)) => Field::parse(arguments).map(Self::Trailer),
            ("START_TIME", arguments) => Some(Self::StartTime(arguments.map(Into::into))),
            ("GRPC_STATUS", Some("NUMBER")) => Some(Self::Fact(Fact::GrpcStatusNumber)),
            (
                "UPSTREAM_METADATA"
                | "FILTER_STATE"
                | "UPSTREAM_FILTER_STATE"
                | "ENVIRONMENT"
                | "CEL"
                | "VIRTUAL_CLUSTER_NAME"
                | "DOWNSTREAM_TRANSPORT_FAILURE_REASON"
                | "DOWNSTREAM_TLS_CIPHER"
                | "DOWNSTREAM_TLS_SESSION_ID"
                | "DOWNSTREAM_PEER_CERT"
                | "UPSTREAM_TLS_VERSION"
                | "UPSTREAM_PEER_SUBJECT"
                | "UPSTREAM_CONNECTION_ID",
                _,
            ) => Some(Self::Nothing),
            _ => Fact::parse(name).map(Self::Fact),
        }
    }

    /// Appends the value; false when there is none.
    pub(crate) fn write(&self, entry: &Entry<'_>, out: &mut String) -> bool {
        match self {
            Self::Nothing => false,
            Self::StartTime(format) => start_time(entry, format.as_deref(), out),
            Self::Request(main, other) => {
                main.write(entry, entry.request, out)
                    || other.as_ref().is_some_and(|other| other.write(entry, entry.request, out))
            }
            Self::Response(main, other) => {
                main.write(entry, entry.response, out)
                    || other.as_ref().is_some_and(|other| other.write(entry, entry.response, out))
            }
            Self::RequestWithoutQuery(main, other) => {
                let start = out.len();
                let found = main.write(entry, entry.request, out)
                    || other.as_ref().is_some_and(|other| other.write(entry, entry.request, out));
                if let Some(query) = out[start..].find('?') {
                    out.truncate(start + query);
                }
                found
            }
            Self::Metadata(of, path) => metadata(*of, path, entry, out),
            Self::Trailer(field) => field.write(entry, entry.trailers, out),
            Self::Fact(fact) => fact.write(entry, out),
        }
    }

    /// Whether JSON gives the value as a number.
    pub(crate) fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Fact(
                Fact::ResponseCode
                    | Fact::BytesReceived
                    | Fact::BytesSent
                    | Fact::Duration
                    | Fact::RequestDuration
                    | Fact::ResponseDuration
                    | Fact::ResponseTxDuration
                    | Fact::Attempts
                    | Fact::GrpcStatusNumber
                    | Fact::ConnectionId
            )
        )
    }
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            other => Self::Name(HeaderName::try_from(other).ok()?),
        })
    }

    fn write(&self, entry: &Entry<'_>, headers: &dyn HeaderLookup, out: &mut String) -> bool {
        match self {
            Self::Method => text(entry.method, out),
            Self::Path => text(entry.path, out),
            Self::Authority => text(entry.authority, out),
            Self::Scheme => text(entry.scheme, out),
            Self::Status => number(u64::from(entry.code), out),
            Self::Name(name) => match headers.find(name) {
                Some(value) => {
                    out.push_str(&String::from_utf8_lossy(value.as_bytes()));
                    true
                }
                None => false,
            },
        }
    }
}

impl Fact {
    fn write(self, entry: &Entry<'_>, out: &mut String) -> bool {
        match self {
            Self::Protocol => text(entry.protocol, out),
            Self::ResponseCode => number(u64::from(entry.code), out),
            Self::ResponseFlags => shown(entry.flags, out),
            Self::ResponseFlagsLong => text(&entry.flags.long(), out),
            Self::ResponseCodeDetails => text(entry.details, out),
            Self::Termination => text(entry.termination, out),
            Self::TransportFailure => text(entry.transport_failure, out),
            Self::BytesReceived => number(entry.bytes_received, out),
            Self::BytesSent => number(entry.bytes_sent, out),
            Self::Duration => millis(Some(entry.duration), out),
            Self::RequestDuration => millis(entry.request_duration, out),
            Self::ResponseDuration => millis(entry.response_duration, out),
            Self::ResponseTxDuration => {
                millis(entry.response_duration.map(|first| entry.duration.saturating_sub(first)), out)
            }
            Self::UpstreamHost => address(entry.upstream_host, out),
            Self::UpstreamHostIp => ip(entry.upstream_host, out),
            Self::UpstreamHostPort => port(entry.upstream_host, out),
            Self::UpstreamCluster => text(entry.upstream_cluster, out),
            Self::UpstreamLocal => address(entry.upstream_local, out),
            Self::UpstreamLocalIp => ip(entry.upstream_local, out),
            Self::UpstreamLocalPort => port(entry.upstream_local, out),
            Self::Attempts => number(u64::from(entry.attempts), out),
            Self::DownstreamLocal => address(entry.downstream_local, out),
            Self::DownstreamLocalIp => ip(entry.downstream_local, out),
            Self::DownstreamLocalPort => port(entry.downstream_local, out),
            Self::DownstreamRemote => address(entry.downstream_remote, out),
            Self::DownstreamRemoteIp => ip(entry.downstream_remote, out),
            Self::DownstreamRemotePort => port(entry.downstream_remote, out),
            Self::DownstreamDirect => address(entry.downstream_direct, out),
            Self::DownstreamDirectIp => ip(entry.downstream_direct, out),
            Self::ServerName => text(entry.server_name, out),
            Self::Route => text(entry.route, out),
            Self::VirtualHost => text(entry.virtual_host, out),
            Self::GrpcStatus => match entry.grpc_status {
                Some(status) => match GRPC_NAMES.get(usize::from(status)) {
                    Some(name) => text(name, out),
                    None => number(u64::from(status), out),
                },
                None => false,
            },
            Self::GrpcStatusNumber => entry.grpc_status.is_some_and(|status| number(u64::from(status), out)),
            Self::PeerUri => text(entry.peer_uri, out),
            Self::PeerSubject => text(entry.peer_subject, out),
            Self::LocalUri => text(entry.local_uri, out),
            Self::UpstreamPeerUri => text(entry.upstream_peer_uri, out),
            Self::TlsVersion => text(entry.tls_version, out),
            Self::TraceId => text(entry.trace_id, out),
            Self::ConnectionId => number(entry.connection_id, out),
            Self::Hostname => text(entry.hostname, out),
        }
    }
}

/// A namespace and keys, separated by colons.
fn keys(path: &str) -> Vec<Box<str>> {
    path.split(':').map(Into::into).collect()
}

fn metadata(of: MetadataOf, path: &[Box<str>], entry: &Entry<'_>, out: &mut String) -> bool {
    let all = match of {
        MetadataOf::Request => entry.metadata,
        MetadataOf::Route => entry.route_metadata,
        MetadataOf::Cluster => entry.cluster_metadata,
    };
    let Some((namespace, keys)) = path.split_first() else { return false };
    match all.and_then(|all| all.find(namespace, keys.iter().map(|key| &**key))) {
        Some(serde_json::Value::String(found)) => text(found, out),
        Some(found) => shown(found, out),
        None => false,
    }
}

fn text(value: &str, out: &mut String) -> bool {
    out.push_str(value);
    !value.is_empty()
}

fn shown(value: impl std::fmt::Display, out: &mut String) -> bool {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
    true
}

fn number(value: u64, out: &mut String) -> bool {
    shown(value, out)
}

fn millis(value: Option<std::time::Duration>, out: &mut String) -> bool {
    value.is_some_and(|value| shown(value.as_millis(), out))
}

fn address(value: Option<SocketAddr>, out: &mut String) -> bool {
    value.is_some_and(|value| shown(value, out))
}

fn ip(value: Option<SocketAddr>, out: &mut String) -> bool {
    value.is_some_and(|value| shown(value.ip(), out))
}

fn port(value: Option<SocketAddr>, out: &mut String) -> bool {
    value.is_some_and(|value| shown(value.port(), out))
}

fn start_time(entry: &Entry<'_>, format: Option<&str>, out: &mut String) -> bool {
    let Ok(time) = jiff::Timestamp::try_from(entry.start) else { return false };
    match format {
        None => shown(format_args!("{time:.3}"), out),
        Some(format) => {
            let nanos = time.subsec_nanosecond();
            // Envoy's own specifiers beside strftime's: %s whole seconds, %f or %nf a fraction of n digits.
            let mut text = String::new();
            let mut chars = format.chars().peekable();
            while let Some(char) = chars.next() {
                match (char, chars.peek().copied()) {
                    ('%', Some('f')) => {
                        chars.next();
                        text.push_str(&format!("{nanos:09}"));
                    }
                    ('%', Some(digits @ '1'..='9')) => {
                        chars.next();
                        if chars.next_if_eq(&'f').is_some() {
                            let width = digits as usize - '0' as usize;
                            text.push_str(&format!("{nanos:09}")[..width]);
                        }
                    }
                    (other, _) => text.push(other),
                }
            }
            match jiff::fmt::strtime::format(&text, &time.to_zoned(jiff::tz::TimeZone::UTC)) {
                Ok(formatted) => {
                    out.push_str(&formatted);
                    true
                }
                Err(_) => false,
            }
        }
    }
}
