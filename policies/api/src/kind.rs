//! The table of kinds: group, versions, names; and a spec parsed according to its kind.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, RequestAuthentication, ServiceEntry,
    Sidecar, Telemetry, VirtualService,
};

/// A kind of policy object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.istio.io`
    VirtualService,
    /// `networking.istio.io`
    DestinationRule,
    /// `networking.istio.io`
    Gateway,
    /// `networking.istio.io`
    ServiceEntry,
    /// `networking.istio.io`
    Sidecar,
    /// `security.istio.io`
    PeerAuthentication,
    /// `security.istio.io`
    RequestAuthentication,
    /// `security.istio.io`
    AuthorizationPolicy,
    /// `telemetry.istio.io`
    Telemetry,
}

/// The spec of an object, by kind.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "built once per object and taken apart at once")]
pub enum Spec {
    /// A `VirtualService`.
    VirtualService(VirtualService),
    /// A `DestinationRule`.
    DestinationRule(DestinationRule),
    /// A `Gateway`.
    Gateway(Gateway),
    /// A `ServiceEntry`.
    ServiceEntry(ServiceEntry),
    /// A `Sidecar`.
    Sidecar(Sidecar),
    /// A `PeerAuthentication`.
    PeerAuthentication(PeerAuthentication),
    /// A `RequestAuthentication`.
    RequestAuthentication(RequestAuthentication),
    /// An `AuthorizationPolicy`.
    AuthorizationPolicy(AuthorizationPolicy),
    /// A `Telemetry`.
    Telemetry(Telemetry),
}

/// A spec that does not have the types of its kind.
#[derive(Debug, thiserror::Error)]
#[error("the spec is not a {kind}", kind = kind.name())]
pub struct SpecError {
    /// The kind that was expected.
    pub kind: Kind,
    /// What serde said.
    #[source]
    pub source: serde_json::Error,
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::VirtualService,
        Self::DestinationRule,
        Self::Gateway,
        Self::ServiceEntry,
        Self::Sidecar,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::AuthorizationPolicy,
        Self::Telemetry,
    ];

    /// The kind's name as in `kind:`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::Gateway => "Gateway",
            Self::ServiceEntry => "ServiceEntry",
            Self::Sidecar => "Sidecar",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::Telemetry => "Telemetry",
        }
    }

    /// The API group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::VirtualService
            | Self::DestinationRule
            | Self::Gateway
            | Self::ServiceEntry
            | Self::Sidecar => "networking.istio.io",
            Self::PeerAuthentication | Self::RequestAuthentication | Self::AuthorizationPolicy => {
                "security.istio.io"
            }
            Self::Telemetry => "telemetry.istio.io",
        }
    }

    /// Versions served, in the order Istio lists them.
    #[must_use]
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::VirtualService
            | Self::DestinationRule
            | Self::Gateway
            | Self::ServiceEntry
            | Self::Sidecar => &["v1", "v1beta1", "v1alpha3"],
            Self::PeerAuthentication | Self::RequestAuthentication | Self::AuthorizationPolicy => {
                &["v1", "v1beta1"]
            }
            Self::Telemetry => &["v1", "v1alpha1"],
        }
    }

    /// The resource's name in URLs.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::VirtualService => "virtualservices",
            Self::DestinationRule => "destinationrules",
            Self::Gateway => "gateways",
            Self::ServiceEntry => "serviceentries",
            Self::Sidecar => "sidecars",
            Self::PeerAuthentication => "peerauthentications",
            Self::RequestAuthentication => "requestauthentications",
            Self::AuthorizationPolicy => "authorizationpolicies",
            Self::Telemetry => "telemetries",
        }
    }

    /// Short names for kubectl.
    #[must_use]
    pub const fn short_names(self) -> &'static [&'static str] {
        match self {
            Self::VirtualService => &["vs"],
            Self::DestinationRule => &["dr"],
            Self::Gateway => &["gw"],
            Self::ServiceEntry => &["se"],
            Self::Sidecar => &[],
            Self::PeerAuthentication => &["pa"],
            Self::RequestAuthentication => &["ra"],
            Self::AuthorizationPolicy => &["ap"],
            Self::Telemetry => &["telemetry"],
        }
    }

    /// The kind of an object by its `apiVersion` and `kind`, if it is one of ours in a version we serve.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/')?;
        Self::ALL
            .into_iter()
            .find(|it| it.name() == kind && it.group() == group && it.versions().contains(&version))
    }

    /// The kind by its name alone.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

// === impl Spec ===

impl Spec {
    /// Parses the `spec` of an object; fields that are null count as absent, an absent spec as empty.
    ///
    /// # Errors
    /// When a field has a type or a value its kind does not know.
    pub fn parse(kind: Kind, spec: Option<&Value>) -> Result<Self, SpecError> {
        let mut value =
            spec.filter(|it| !it.is_null()).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        drop_nulls(&mut value);
        match kind {
            Kind::VirtualService => typed(kind, value, Self::VirtualService),
            Kind::DestinationRule => typed(kind, value, Self::DestinationRule),
            Kind::Gateway => typed(kind, value, Self::Gateway),
            Kind::ServiceEntry => typed(kind, value, Self::ServiceEntry),
            Kind::Sidecar => typed(kind, value, Self::Sidecar),
            Kind::PeerAuthentication => typed(kind, value, Self::PeerAuthentication),
            Kind::RequestAuthentication => typed(kind, value, Self::RequestAuthentication),
            Kind::AuthorizationPolicy => typed(kind, value, Self::AuthorizationPolicy),
            Kind::Telemetry => typed(kind, value, Self::Telemetry),
        }
    }

    /// The kind of the spec.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::VirtualService(_) => Kind::VirtualService,
            Self::DestinationRule(_) => Kind::DestinationRule,
            Self::Gateway(_) => Kind::Gateway,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
            Self::Sidecar(_) => Kind::Sidecar,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::RequestAuthentication(_) => Kind::RequestAuthentication,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::Telemetry(_) => Kind::Telemetry,
        }
    }
}

fn typed<T: DeserializeOwned>(kind: Kind, value: Value, wrap: fn(T) -> Spec) -> Result<Spec, SpecError> {
    serde_json::from_value(value).map(wrap).map_err(|source| SpecError { kind, source })
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
