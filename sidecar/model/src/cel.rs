//! Expressions of the Common Expression Language over Envoy's attributes, as filters of access logs use them.
//!
//! The language is bounded: no macros, no user types, regular expressions are constant and in linear time. An expression that names an
//! attribute or function which is not known here is refused when it is parsed, so none is ever silently false.

mod parse;

use crate::invalid::Invalid;
use http::HeaderName;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// Bytes of an expression.
pub const BYTES_MAX: usize = 4096;
/// Parts of an expression.
pub const NODES_MAX: usize = 256;
/// Nesting of an expression.
pub const DEPTH_MAX: usize = 32;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression {
    source: Arc<str>,
    root: Arc<Node>,
}

/// A part of an expression.
#[derive(Clone, Debug)]
pub enum Node {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    Text(Box<str>),
    /// `duration('1.5s')`, in nanoseconds.
    Duration(i64),
    /// `null`
    Null,
    /// `[a, b]`
    List(Vec<Node>),
    /// A fact of the request.
    Attribute(Attribute),
    /// `!a`
    Not(Box<Node>),
    /// `-a`
    Negative(Box<Node>),
    /// `a && b`
    And(Box<Node>, Box<Node>),
    /// `a || b`
    Or(Box<Node>, Box<Node>),
    /// `a ? b : c`
    Conditional(Box<[Node; 3]>),
    /// `a == b` and its like.
    Compare(Comparison, Box<Node>, Box<Node>),
    /// `a + b` and its like.
    Arithmetic(char, Box<Node>, Box<Node>),
    /// `a in [b, c]`
    In(Box<Node>, Box<Node>),
    /// `has(a)`, and `'x' in request.headers`.
    Has(Attribute),
    /// `a.startsWith(b)` and its like.
    Test(TextTest, Box<Node>, Box<Node>),
    /// `a.matches('b')`
    Matches(Box<Node>, Box<regex::Regex>),
    /// `size(a)`
    Size(Box<Node>),
    /// `string(a)`
    String(Box<Node>),
    /// `int(a)`
    ToInt(Box<Node>),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// What a text may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTest {
    /// `startsWith`
    StartsWith,
    /// `endsWith`
    EndsWith,
    /// `contains`
    Contains,
}

/// A fact of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `request.headers[name]`
    RequestHeader(HeaderName),
    /// `response.headers[name]`
    ResponseHeader(HeaderName),
    /// Another one.
    Fact(Fact),
}

macro_rules! facts {
    ($($name:ident $text:literal),+ $(,)?) => {
        /// Attributes by Envoy's names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fact {
            $(
                #[doc = concat!("`", $text, "`")]
                $name,
            )+
        }

        impl Fact {
            fn named(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

facts! {
    RequestPath "request.path",
    RequestUrlPath "request.url_path",
    RequestQuery "request.query",
    RequestHost "request.host",
    RequestScheme "request.scheme",
    RequestMethod "request.method",
    RequestProtocol "request.protocol",
    RequestSize "request.size",
    RequestTotalSize "request.total_size",
    RequestDuration "request.duration",
    RequestId "request.id",
    RequestUserAgent "request.useragent",
    RequestReferer "request.referer",
    ResponseCode "response.code",
    ResponseCodeDetails "response.code_details",
    ResponseFlags "response.flags",
    ResponseGrpcStatus "response.grpc_status",
    ResponseSize "response.size",
    ResponseTotalSize "response.total_size",
    ConnectionId "connection.id",
    ConnectionMtls "connection.mtls",
    ConnectionServerName "connection.requested_server_name",
    ConnectionTlsVersion "connection.tls_version",
    ConnectionPeerSubject "connection.subject_peer_certificate",
    ConnectionPeerUri "connection.uri_san_peer_certificate",
    ConnectionLocalUri "connection.uri_san_local_certificate",
    ConnectionTermination "connection.termination_details",
    UpstreamAddress "upstream.address",
    UpstreamPort "upstream.port",
    UpstreamLocalAddress "upstream.local_address",
    UpstreamFailure "upstream.transport_failure_reason",
    UpstreamAttempts "upstream.request_attempt_count",
    SourceAddress "source.address",
    SourcePort "source.port",
    DestinationAddress "destination.address",
    DestinationPort "destination.port",
    RouteName "xds.route_name",
    VirtualHostName "xds.virtual_host_name",
    ClusterName "xds.cluster_name",
}

// === impl Expression ===

impl Expression {
    /// Parses `source`.
    ///
    /// # Errors
    /// When it is too long, not an expression, or uses what is not known here.
    pub fn new(source: &str) -> Result<Self, Invalid> {
        let root =
            parse::parse(source).map_err(|reason| Invalid::new("", format!("`{source}`: {reason}")))?;
        Ok(Self { source: source.into(), root: Arc::new(root) })
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// What is evaluated.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Calls `found` with every attribute it names.
    pub fn attributes(&self, found: &mut dyn FnMut(&Attribute)) {
        visit(&self.root, found);
    }
}

fn visit(node: &Node, found: &mut dyn FnMut(&Attribute)) {
    match node {
        Node::Attribute(attribute) | Node::Has(attribute) => found(attribute),
        Node::List(items) => items.iter().for_each(|item| visit(item, found)),
        Node::Conditional(parts) => parts.iter().for_each(|part| visit(part, found)),
        Node::Not(a)
        | Node::Negative(a)
        | Node::Matches(a, _)
        | Node::Size(a)
        | Node::String(a)
        | Node::ToInt(a) => {
            visit(a, found);
        }
        Node::And(a, b)
        | Node::Or(a, b)
        | Node::Compare(_, a, b)
        | Node::Arithmetic(_, a, b)
        | Node::In(a, b)
        | Node::Test(_, a, b) => {
            visit(a, found);
            visit(b, found);
        }
        Node::Bool(_) | Node::Int(_) | Node::Double(_) | Node::Text(_) | Node::Duration(_) | Node::Null => {}
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}
