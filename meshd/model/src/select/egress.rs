//! What part of the registry a sidecar sees: `exportTo` of services, cut down by the egress of its `Sidecar` object.

use std::sync::Arc;

use policies_api::Sidecar;

use super::{sidecar, visible};
use crate::host;
use crate::mesh::OutboundPolicy;
use crate::object::Config;
use crate::proxy::ProxyKey;
use crate::service::Service;
use crate::snapshot::Snapshot;

/// The egress of a proxy.
#[derive(Clone, Debug)]
pub struct EgressScope<'a> {
    client: Arc<str>,
    default_export_to: &'a [String],
    sidecar: Option<&'a Config<Sidecar>>,
    mesh_policy: OutboundPolicy,
}

// === impl EgressScope ===

impl<'a> EgressScope<'a> {
    /// The egress of `proxy`.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, proxy: &ProxyKey) -> Self {
        Self {
            client: Arc::clone(&proxy.namespace),
            default_export_to: &snapshot.mesh.default_service_export_to,
            sidecar: sidecar(snapshot, proxy),
            mesh_policy: snapshot.mesh.outbound_policy,
        }
    }

    /// Services that can be reached, one for each host: the first by precedence, the client's own namespace before others.
    #[must_use]
    pub fn services(&self, snapshot: &'a Snapshot) -> Vec<&'a Arc<Service>> {
        let mut seen = std::collections::HashSet::new();
        let all = snapshot.registry.all().iter().filter(|it| self.sees_service(it));
        let (own, others): (Vec<_>, Vec<_>) = all.partition(|it| it.namespace == self.client);
        let mut chosen: Vec<&Arc<Service>> =
            own.into_iter().chain(others).filter(|it| seen.insert(Arc::clone(&it.host))).collect();
        chosen.sort_by(|a, b| (&a.host, &a.namespace).cmp(&(&b.host, &b.namespace)));
        chosen
    }

    /// Whether the service can be reached.
    #[must_use]
    pub fn sees_service(&self, service: &Service) -> bool {
        visible(&service.export_to, self.default_export_to, &service.namespace, &self.client)
            && self.sees_host(&service.namespace, &service.host)
    }

    /// Whether some egress entry names the host of an object of `namespace`.
    #[must_use]
    pub fn sees_host(&self, namespace: &str, host: &str) -> bool {
        let Some(sidecar) = self.sidecar.filter(|it| !it.spec.egress.is_empty()) else { return true };
        sidecar
            .spec
            .egress
            .iter()
            .flat_map(|it| &it.hosts)
            .any(|entry| self.entry_covers(entry, namespace, host))
    }

    /// What happens to unknown destinations.
    #[must_use]
    pub fn outbound_policy(&self) -> OutboundPolicy {
        match self.sidecar.and_then(|it| it.spec.outbound_traffic_policy.as_ref()).map(|it| it.mode.as_str())
        {
            Some("ALLOW_ANY") => OutboundPolicy::AllowAny,
            // Istio's zero value, so an object without a mode restricts as well.
            Some(_) => OutboundPolicy::RegistryOnly,
            None => self.mesh_policy,
        }
    }

    fn entry_covers(&self, entry: &str, namespace: &str, host: &str) -> bool {
        let Some((of, pattern)) = entry.split_once('/') else { return false };
        let namespace_matches = match of {
            "*" => true,
            "." => *self.client == *namespace,
            "~" => false,
            name => name == namespace,
        };
        namespace_matches && host::overlap(pattern, host)
    }
}
