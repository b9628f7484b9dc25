//! `/config_dump` and `/certs`: the messages of `envoy.admin.v3`.

use serde_json::{Map, Value, json};
use sidecar_model::dump;
use sidecar_model::snapshot::Resources;
use sidecar_xds::status::View;

use super::Admin;
use super::query::Query;

/// Resources of one dump, as `?resource=` names them.
const SECTIONS: [(&str, &str); 6] = [
    ("BootstrapConfigDump", "bootstrap"),
    ("ClustersConfigDump", "dynamic_active_clusters"),
    ("EndpointsConfigDump", "dynamic_endpoint_configs"),
    ("ListenersConfigDump", "dynamic_listeners"),
    ("RoutesConfigDump", "dynamic_route_configs"),
    ("SecretsConfigDump", "dynamic_active_secrets"),
];

/// `envoy.admin.v3.ConfigDump`.
pub(super) fn config_dump(admin: &Admin, query: &Query) -> Result<Value, String> {
    if query.get("mask").is_some() {
        return Err("`mask` is not supported; use `resource` and `name_regex`".to_owned());
    }
    let wanted = query.get("resource");
    if let Some(resource) = wanted
        && !SECTIONS.iter().any(|(_, section)| *section == resource)
    {
        let known: Vec<_> = SECTIONS.iter().map(|(_, section)| *section).collect();
        return Err(format!("`{resource}` is not a resource; known are {}", known.join(", ")));
    }
    let names = query.regex("name_regex")?;
    let kept = |name: &str| names.as_ref().is_none_or(|regex| regex.is_match(name));
    let endpoints = query.get("include_eds").is_some() || wanted == Some("dynamic_endpoint_configs");
    let mut configs = Vec::new();
    for (kind, section) in SECTIONS {
        let skipped = section == "dynamic_endpoint_configs" && !endpoints;
        if skipped || wanted.is_some_and(|wanted| wanted != section) {
            continue;
        }
        let items = items(admin, section, &kept);
        if wanted.is_some() {
            configs.extend(items);
            continue;
        }
        let mut config = Map::new();
        config.insert("@type".to_owned(), format!("type.googleapis.com/envoy.admin.v3.{kind}").into());
        match section {
            "bootstrap" => drop(config.insert(section.to_owned(), bootstrap(admin))),
            _ => {
                if let Some(version) =
                    version(&admin.life.status.view(), section).filter(|_| kind != "RoutesConfigDump")
                {
                    config.insert("version_info".to_owned(), version.into());
                }
                config.insert(section.to_owned(), items.into());
            }
        }
        configs.push(Value::Object(config));
    }
    Ok(json!({ "configs": configs }))
}

/// What the control plane calls the version of a section, where Envoy's message has a place for it.
fn version(view: &View, section: &str) -> Option<String> {
    let kind = match section {
        "dynamic_active_clusters" => "CDS",
        "dynamic_listeners" => "LDS",
        _ => return None,
    };
    view.types.get(kind).map(|of_type| of_type.version.clone())
}

fn items(admin: &Admin, section: &str, kept: &dyn Fn(&str) -> bool) -> Vec<Value> {
    let config = admin.life.proxy.shared().config.load();
    let snapshot = &config.snapshot;
    let view = admin.life.status.view();
    let version = |kind: &str| view.types.get(kind).map_or("", |of_type| &of_type.version).to_owned();
    match section {
        "bootstrap" => vec![bootstrap(admin)],
        "dynamic_active_clusters" => each(
            &snapshot.clusters,
            kept,
            |_, cluster| json!({ "version_info": version("CDS"), "cluster": dump::cluster(cluster) }),
        ),
        "dynamic_endpoint_configs" => each(
            &snapshot.endpoints,
            kept,
            |_, endpoints| json!({ "version_info": version("EDS"), "endpoint_config": dump::endpoints(endpoints) }),
        ),
        "dynamic_listeners" => each(&snapshot.listeners, kept, |name, listener| {
            let active = json!({ "version_info": version("LDS"), "listener": dump::listener(listener) });
            json!({ "name": name, "active_state": active })
        }),
        "dynamic_route_configs" => each(
            &snapshot.routes,
            kept,
            |_, route| json!({ "version_info": version("RDS"), "route_config": dump::route_config(route) }),
        ),
        _ => {
            let mut all = each(
                &snapshot.secrets,
                kept,
                |name, secret| json!({ "name": name, "version_info": version("SDS"), "secret": dump::secret(secret) }),
            );
            all.extend(own_certificate(&view).filter(|_| kept("default")));
            all
        }
    }
}

fn each<T>(all: &Resources<T>, kept: &dyn Fn(&str) -> bool, one: impl Fn(&str, &T) -> Value) -> Vec<Value> {
    let mut sorted: Vec<_> = all.iter().filter(|(name, _)| kept(name)).collect();
    sorted.sort_by_key(|(name, _)| *name);
    sorted.into_iter().map(|(name, value)| one(name, value)).collect()
}

/// The workload's own certificate, by its validity only: neither key nor chain leaves the process.
fn own_certificate(view: &View) -> Option<Value> {
    let certificate = view.certificate.as_ref()?;
    Some(json!({
        "name": "default",
        "version_info": certificate.serial,
        "last_updated": time(certificate.not_before_seconds),
        "secret": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "default",
            "tls_certificate": { "private_key": { "inline_bytes": dump::REDACTED } },
        },
    }))
}

fn bootstrap(admin: &Admin) -> Value {
    json!({
        "node": node(&admin.node),
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": admin.port } } },
        "dynamic_resources": {
            "lds_config": { "ads": {}, "resource_api_version": "V3" },
            "cds_config": { "ads": {}, "resource_api_version": "V3" },
            "ads_config": { "api_type": "DELTA_GRPC", "transport_api_version": "V3" },
        },
    })
}

/// `envoy.config.core.v3.Node`.
pub(super) fn node(node: &sidecar_xds::Node) -> Value {
    json!({
        "id": node.id,
        "cluster": node.cluster,
        "metadata": node.metadata,
        "user_agent_name": "mesh-sidecar",
    })
}

/// `envoy.admin.v3.Certificates`.
pub(super) fn certs(view: &View) -> Value {
    let certificates: Vec<Value> = view
        .certificate
        .iter()
        .map(|certificate| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let left = certificate.not_after_seconds.saturating_sub(now.as_secs());
            json!({
                "ca_cert": [],
                "cert_chain": [{
                    "path": "<inline>",
                    "serial_number": certificate.serial,
                    "subject_alt_names": [{ "uri": certificate.identity }],
                    "days_until_expiration": (left / 86_400).to_string(),
                    "valid_from": time(certificate.not_before_seconds),
                    "expiration_time": time(certificate.not_after_seconds),
                }],
            })
        })
        .collect();
    json!({ "certificates": certificates })
}

/// RFC 3339, as protobuf's JSON writes times.
fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}
