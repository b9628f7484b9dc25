//! Authorization: who may do what.

pub(crate) mod proto;

use crate::matcher::{HeaderMatch, MetadataMatch, Regex, StringMatch};
use ipnet::IpNet;
use serde::Serialize;
use std::sync::Arc;

/// What a matching policy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RbacAction {
    /// Requests that match a policy pass, all others are denied.
    Allow,
    /// Requests that match a policy are denied, all others pass.
    Deny,
    /// All pass; matches are noted.
    Log,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Permission>),
    /// Any of these.
    Or(Vec<Permission>),
    /// Not this.
    Not(Box<Permission>),
    /// A header. Never matches on a plain connection.
    Header(HeaderMatch),
    /// The path without its query. Never matches on a plain connection.
    UrlPath(StringMatch),
    /// The path against a template such as `/a/{*}/b/{**}`. Never matches on a plain connection.
    UrlTemplate(Regex),
    /// The local address.
    DestinationIp(IpNet),
    /// The local port.
    DestinationPort(u16),
    /// The local port in `start..end`.
    DestinationPortRange {
        /// First port that matches.
        start: u16,
        /// First port that no longer matches; above 65535 for "to the end".
        end: u32,
    },
    /// Dynamic metadata.
    Metadata(MetadataMatch),
    /// The server name the client asked for.
    RequestedServerName(StringMatch),
}

/// Who does it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of these.
    And(Vec<Principal>),
    /// Any of these.
    Or(Vec<Principal>),
    /// Not this.
    Not(Box<Principal>),
    /// A peer with a verified certificate: its URI name, or DNS name, or subject. `None`: any such peer.
    /// A plain connection never matches.
    Authenticated(Option<StringMatch>),
    /// The peer's address, after any PROXY header or trusted `x-forwarded-for`.
    SourceIp(IpNet),
    /// The peer's own address.
    DirectRemoteIp(IpNet),
    /// The client's address as `x-forwarded-for` or PROXY says.
    RemoteIp(IpNet),
    /// A header. Never matches on a plain connection.
    Header(HeaderMatch),
    /// The path without its query. Never matches on a plain connection.
    UrlPath(StringMatch),
    /// Dynamic metadata, such as the claims of a token.
    Metadata(MetadataMatch),
    /// The text of a filter state object, such as `io.istio.peer_principal`.
    FilterState(Box<str>, StringMatch),
}

/// A policy: it matches when one permission and one principal do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RbacPolicy {
    /// Its name, reported when it decides: `ns[x]-policy[y]-rule[n]`.
    pub name: Arc<str>,
    /// What.
    pub permissions: Vec<Permission>,
    /// Who.
    pub principals: Vec<Principal>,
}

/// Policies under one action, in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RbacRules {
    /// What a match means.
    pub action: RbacAction,
    /// The policies.
    pub policies: Vec<RbacPolicy>,
}

/// An authorization filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rbac {
    /// What is enforced; `None`: everything passes.
    pub rules: Option<RbacRules>,
    /// What is only evaluated and noted.
    pub shadow_rules: Option<RbacRules>,
    /// Prefix of the names under which shadow results are noted.
    pub shadow_prefix: Box<str>,
}

/// An authorization filter of connections.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRbac {
    /// Prefix of its metrics.
    pub stat_prefix: Box<str>,
    /// What is enforced and noted.
    pub rbac: Rbac,
}
