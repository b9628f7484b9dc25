//! What readiness and people ask for.

use crate::state::State;
use parking_lot::Mutex;
use serde::Serialize;
use sidecar_model::ResourceType;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The state of discovery and of the certificate.
#[derive(Debug, Default)]
pub struct Status {
    view: Mutex<View>,
}

/// A copy of the state at one moment; times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// A stream is open.
    pub connected: bool,
    /// Why there is none, in the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_error: Option<String>,
    /// Streams opened so far.
    pub streams: u64,
    /// When the last response was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ack_seconds: Option<u64>,
    /// Clusters and listeners have come, from the control plane or from the saved configuration.
    pub configured: bool,
    /// The configuration in force is a saved one; the control plane has not answered yet.
    pub from_saved: bool,
    /// Version of the snapshot in force.
    pub snapshot_version: u64,
    /// By short name of the type (`CDS`).
    pub types: BTreeMap<&'static str, TypeView>,
    /// The workload's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateView>,
    /// Why it could not be renewed, in the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_error: Option<String>,
}

/// The state of one type of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeView {
    /// What the control plane calls the version.
    pub version: String,
    /// Resources accepted.
    pub count: usize,
    /// Resources refused, with the reasons, by name.
    pub rejected: BTreeMap<String, RejectedView>,
}

/// A refused resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedView {
    /// The version that was refused.
    pub version: String,
    /// Why.
    pub reason: String,
}

/// The workload's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// The SPIFFE identity.
    pub identity: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Start of validity.
    pub not_before_seconds: u64,
    /// End of validity.
    pub not_after_seconds: u64,
    /// Certificates issued to this process so far.
    pub issued: u64,
}

// === impl Status ===

impl Status {
    /// A copy of everything.
    pub fn view(&self) -> View {
        self.view.lock().clone()
    }

    /// Whether clusters and listeners have come.
    pub fn is_configured(&self) -> bool {
        self.view.lock().configured
    }

    /// Whether the workload has a certificate that has not expired.
    pub fn has_certificate(&self) -> bool {
        let now = seconds(SystemTime::now());
        self.view.lock().certificate.as_ref().is_some_and(|certificate| now < certificate.not_after_seconds)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock());
    }

    /// Takes over one type's state, or all of them.
    pub(crate) fn discovered(&self, state: &State, only: Option<ResourceType>) {
        let mut view = self.view.lock();
        for (kind, of_type) in state.types().filter(|(kind, _)| only.is_none_or(|only| only == *kind)) {
            let rejected = of_type.rejected.iter().map(|(name, rejection)| {
                let version = rejection.version.to_string();
                (name.to_string(), RejectedView { version, reason: rejection.reason.to_string() })
            });
            let rejected = rejected.collect();
            let count = of_type.held.len();
            let of_type = TypeView { version: of_type.version.clone(), count, rejected };
            view.types.insert(kind.short_name(), of_type);
        }
    }
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
