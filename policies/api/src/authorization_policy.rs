//! `AuthorizationPolicy` (security.istio.io): who may call what.

use serde::Deserialize;

use crate::matching::{TargetRef, WorkloadSelector};

/// The spec of an `AuthorizationPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    /// Pods of the namespace it is for; all when absent.
    pub selector: Option<WorkloadSelector>,
    /// Single object it is attached to.
    pub target_ref: Option<TargetRef>,
    /// Objects it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// What a match does.
    pub action: Action,
    /// Any rule that matches suffices.
    pub rules: Vec<Rule>,
    /// Provider of the `CUSTOM` action.
    pub provider: Option<ExtensionProvider>,
}

/// What a match does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Let through; everything else is refused.
    #[default]
    Allow,
    /// Refuse.
    Deny,
    /// Mark for audit.
    Audit,
    /// Ask an external provider.
    Custom,
}

/// One rule: `from`, `to` and `when` must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Any of the sources; all when empty.
    pub from: Vec<From>,
    /// Any of the operations; all when empty.
    pub to: Vec<To>,
    /// All conditions.
    pub when: Vec<Condition>,
}

/// One entry of `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct From {
    /// The source.
    pub source: Source,
}

/// One entry of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct To {
    /// The operation.
    pub operation: Operation,
}

/// Who calls: all fields must hold, any value of a field suffices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Source {
    /// Peer identities without `spiffe://`.
    pub principals: Vec<String>,
    /// Excluded peer identities.
    pub not_principals: Vec<String>,
    /// `issuer/subject` of the token.
    pub request_principals: Vec<String>,
    /// Excluded `issuer/subject`.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer.
    pub namespaces: Vec<String>,
    /// Excluded namespaces.
    pub not_namespaces: Vec<String>,
    /// `account` or `namespace/account`.
    pub service_accounts: Vec<String>,
    /// Excluded accounts.
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the peer.
    pub trust_domains: Vec<String>,
    /// Excluded trust domains.
    pub not_trust_domains: Vec<String>,
    /// Addresses of the peer.
    pub ip_blocks: Vec<String>,
    /// Excluded addresses.
    pub not_ip_blocks: Vec<String>,
    /// Addresses of the first client.
    pub remote_ip_blocks: Vec<String>,
    /// Excluded addresses.
    pub not_remote_ip_blocks: Vec<String>,
}

/// What is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Operation {
    /// Host headers.
    pub hosts: Vec<String>,
    /// Excluded host headers.
    pub not_hosts: Vec<String>,
    /// Ports of the pod.
    pub ports: Vec<String>,
    /// Excluded ports.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Excluded methods.
    pub not_methods: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
    /// Excluded paths.
    pub not_paths: Vec<String>,
}

/// A further condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// Attribute.
    pub key: String,
    /// Any of these.
    pub values: Vec<String>,
    /// None of these.
    pub not_values: Vec<String>,
}

/// Provider of the `CUSTOM` action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ExtensionProvider {
    /// Name in the mesh's configuration.
    pub name: String,
}
