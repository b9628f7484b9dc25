//! The mesh's configuration: the ConfigMap's YAML, in Istio's names, of which the mesh reads what it acts on.

mod providers;

use std::time::Duration;

use meshd_model::{HostScope, MeshConfig, OutboundPolicy};
use policies_api::names;
use policies_api::peer_authentication::MtlsMode;
use serde_json::Value;

use super::{Object, reporting};

/// The options of the object; what is absent or cannot be read keeps its default.
pub(super) fn read(object: &Object) -> MeshConfig {
    let text = object
        .data
        .get("data")
        .and_then(|it| it.get(names::MESH_CONFIG_KEY))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let documents = policies_api::document::parse(text).unwrap_or_else(|error| {
        tracing::warn!(%error, "Mesh configuration is not YAML; defaults are used");
        Vec::new()
    });
    documents.first().map(|it| options(&it.value)).unwrap_or_default()
}

fn options(written: &Value) -> MeshConfig {
    let mut mesh = MeshConfig::default();
    let text = |key: &str| written.get(key).and_then(Value::as_str).map(str::to_owned);
    let texts = |key: &str| -> Option<Vec<String>> {
        Some(written.get(key)?.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let duration =
        |key: &str| -> Option<Duration> { base_types::duration::parse(written.get(key)?.as_str()?).ok() };
    let set = |target: &mut String, value: Option<String>| {
        if let Some(value) = value.filter(|it| !it.is_empty()) {
            *target = value;
        }
    };
    set(&mut mesh.trust_domain, text("trustDomain"));
    set(&mut mesh.root_namespace, text("rootNamespace"));
    set(&mut mesh.access_log_file, text("accessLogFile"));
    set(&mut mesh.access_log_format, text("accessLogFormat"));
    mesh.trust_domain_aliases = texts("trustDomainAliases").unwrap_or_default();
    mesh.default_service_export_to = texts("defaultServiceExportTo").unwrap_or_default();
    mesh.default_virtual_service_export_to = texts("defaultVirtualServiceExportTo").unwrap_or_default();
    mesh.default_destination_rule_export_to = texts("defaultDestinationRuleExportTo").unwrap_or_default();
    if written.pointer("/outboundTrafficPolicy/mode").and_then(Value::as_str) == Some("REGISTRY_ONLY") {
        mesh.outbound_policy = OutboundPolicy::RegistryOnly;
    }
    mesh.connect_timeout =
        duration("connectTimeout").filter(|it| !it.is_zero()).unwrap_or(mesh.connect_timeout);
    mesh.protocol_detection_timeout =
        duration("protocolDetectionTimeout").unwrap_or(mesh.protocol_detection_timeout);
    mesh.dns_refresh_rate =
        duration("dnsRefreshRate").filter(|it| !it.is_zero()).unwrap_or(mesh.dns_refresh_rate);
    mesh.auto_mtls = written.get("enableAutoMtls").and_then(Value::as_bool).unwrap_or(mesh.auto_mtls);
    let sampling = written.pointer("/defaultConfig/tracing/sampling").and_then(Value::as_f64);
    mesh.trace_sampling = sampling.unwrap_or(mesh.trace_sampling);
    mesh.authz_providers = providers::read(written);
    mesh.mesh_id =
        written.pointer("/defaultConfig/meshId").and_then(Value::as_str).unwrap_or_default().to_owned();
    mesh.enable_tracing =
        written.get("enableTracing").and_then(Value::as_bool).unwrap_or(mesh.enable_tracing);
    mesh.access_log_json = text("accessLogEncoding").as_deref() == Some("JSON");
    mesh.providers = reporting::read(written);
    mesh.default_tracing = reporting::defaults(written, "tracing");
    mesh.default_access_logging = reporting::defaults(written, "accessLogging");
    // Our two exceptions from Istio's defaults, each with a way back.
    mesh.default_mtls = match text("defaultMtlsMode").as_deref() {
        Some("PERMISSIVE") => MtlsMode::Permissive,
        Some("DISABLE") => MtlsMode::Disable,
        _ => mesh.default_mtls,
    };
    if text("virtualServiceHosts").as_deref() == Some("ANYWHERE") {
        mesh.host_scope = HostScope::Anywhere;
    }
    mesh
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_istios_names_and_keeps_defaults() {
        let yaml = "accessLogFile: /dev/stdout\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\nconnectTimeout: 3s\ndefaultMtlsMode: PERMISSIVE\n";
        let mesh =
            read(&Object::from_json(json!({ "metadata": { "name": "istio" }, "data": { "mesh": yaml } })));
        assert_eq!(mesh.access_log_file, "/dev/stdout");
        assert_eq!(mesh.outbound_policy, OutboundPolicy::RegistryOnly);
        assert_eq!(mesh.connect_timeout, Duration::from_secs(3));
        assert_eq!(mesh.default_mtls, MtlsMode::Permissive);
        assert_eq!(mesh.trust_domain, "cluster.local");
        let broken =
            read(&Object::from_json(json!({ "metadata": { "name": "istio" }, "data": { "mesh": "a: [" } })));
        assert_eq!(broken, MeshConfig::default());
    }
}
