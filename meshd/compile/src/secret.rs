//! Secrets that gateways ask for by `kubernetes://name`: only those in the gateway pod's namespace that its servers name.

use std::collections::BTreeSet;
use std::sync::Arc;

use meshd_model::ProxyKind;
use meshd_model::select::gateway;
use policies_xds::tls::secret::Type;
use policies_xds::tls::{CertificateValidationContext, Secret, TlsCertificate};

use crate::resource::{Resource, ResourceMap};
use crate::tls;
use crate::view::View;

/// The secrets of a router; none for sidecars.
pub(crate) fn compile(view: &View<'_>) -> ResourceMap {
    if view.proxy.kind == ProxyKind::Sidecar {
        return ResourceMap::new();
    }
    let mut resources = ResourceMap::new();
    for name in wanted(view) {
        let Some(secret) = view.snapshot.secrets.get(&(Arc::clone(&view.proxy.namespace), Arc::clone(&name)))
        else {
            continue;
        };
        if !secret.certificate.is_empty() {
            let certificate = Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(tls::inline(&secret.certificate)),
                private_key: Some(tls::inline(&secret.private_key)),
                ..Default::default()
            });
            add(&mut resources, tls::secret_name(&name), certificate);
        }
        if !secret.ca_certificate.is_empty() {
            let roots = Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(tls::inline(&secret.ca_certificate)),
                ..Default::default()
            });
            // A secret of roots alone (`caCertCredentialName`, `<name>-cacert`) goes by its own name.
            if secret.certificate.is_empty() {
                add(&mut resources, tls::secret_name(&name), roots);
            } else {
                add(&mut resources, tls::roots_name(&name), roots);
            }
        }
    }
    resources
}

fn wanted(view: &View<'_>) -> BTreeSet<Arc<str>> {
    let gateways = gateway::gateways(view.snapshot, view.proxy);
    let servers = gateways.iter().flat_map(|it| &it.spec.servers).filter_map(|it| it.tls.as_ref());
    let mut names = BTreeSet::new();
    for server in servers {
        for name in tls::credentials(server) {
            names.insert(Arc::from(format!("{name}-cacert")));
            names.insert(name);
        }
        if !server.ca_cert_credential_name.is_empty() {
            names.insert(server.ca_cert_credential_name.as_str().into());
        }
    }
    names
}

fn add(resources: &mut ResourceMap, name: String, kind: Type) {
    let secret = Secret { name: name.clone(), r#type: Some(kind) };
    let resource = Resource::encode(name, &secret);
    resources.insert(Arc::clone(&resource.name), resource);
}
