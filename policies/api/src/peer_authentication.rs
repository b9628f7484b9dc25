//! `PeerAuthentication` (security.istio.io): whether inbound connections must be mutual TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::matching::WorkloadSelector;

/// The spec of a `PeerAuthentication`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthentication {
    /// Pods of the namespace it is for; all when absent.
    pub selector: Option<WorkloadSelector>,
    /// Mode of all ports.
    pub mtls: Option<MutualTls>,
    /// Mode of single ports of the pod.
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

/// A mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MutualTls {
    /// The mode.
    pub mode: MtlsMode,
}

/// Whether a connection must, may or must not be mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MtlsMode {
    /// As the next wider policy says.
    #[default]
    Unset,
    /// Plain connections only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
