//! A container's environment: service variables, `envFrom`, `env` with references and `$(VAR)` expansion.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::field::{self, Addresses};
use crate::objects::{RefKind, Snapshot};
use crate::resources;

/// Where values come from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) addresses: Addresses,
    pub(crate) allocatable: &'a BTreeMap<String, Quantity>,
    pub(crate) objects: &'a Snapshot,
    /// Variables of the services the pod may know.
    pub(crate) services: &'a BTreeMap<String, String>,
}

/// The environment refers to something that is not there; shown as `CreateContainerConfigError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error("unsupported field reference \"{0}\"")]
    Field(String),
}

/// The container's variables, in order and each once.
pub(crate) fn build(container: &Container, sources: &Sources<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Environment::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let configs =
            from.config_map_ref.as_ref().map(|source| (RefKind::ConfigMap, &source.name, source.optional));
        let secrets = from.secret_ref.as_ref().map(|source| (RefKind::Secret, &source.name, source.optional));
        for (kind, name, optional) in configs.into_iter().chain(secrets) {
            let Some(data) = sources.objects.get(kind, name) else {
                if optional == Some(true) {
                    continue;
                }
                return Err(missing(kind, name));
            };
            for (key, value) in &data.entries {
                env.set(format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                expand(value, |name| env.get(name).or_else(|| sources.services.get(name).map(String::as_str)))
            }
            (_, Some(source)) => match resolve(container, source, sources)? {
                Some(value) => value,
                None => continue,
            },
            _ => String::new(),
        };
        env.set(variable.name.clone(), value);
    }
    let mut all: Vec<_> = sources
        .services
        .iter()
        .filter(|(name, _)| env.get(name).is_none())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.extend(env.list);
    Ok(all)
}

/// `None` for an optional reference to something absent.
fn resolve(
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources<'_>,
) -> Result<Option<String>, EnvError> {
    if let Some(reference) = &source.field_ref {
        return field::value(sources.pod, &reference.field_path, sources.addresses)
            .map(Some)
            .ok_or_else(|| EnvError::Field(reference.field_path.clone()));
    }
    if let Some(reference) = &source.resource_field_ref {
        let named = reference.container_name.as_deref().filter(|name| !name.is_empty());
        let container = named
            .and_then(|name| crate::pod::container(sources.pod, name))
            .map_or(container, |(_, found)| found);
        return resources::field(
            container,
            &reference.resource,
            reference.divisor.as_ref(),
            sources.allocatable,
        )
        .map(Some)
        .ok_or_else(|| EnvError::Field(reference.resource.clone()));
    }
    let config = source.config_map_key_ref.as_ref();
    let config = config.map(|key| (RefKind::ConfigMap, "ConfigMap", &key.name, &key.key, key.optional));
    let secret = source.secret_key_ref.as_ref();
    let secret = secret.map(|key| (RefKind::Secret, "Secret", &key.name, &key.key, key.optional));
    let Some((kind, word, name, key, optional)) = config.or(secret) else { return Ok(Some(String::new())) };
    let data = sources.objects.get(kind, name);
    match data.map(|data| data.entries.get(key)) {
        Some(Some(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        _ if optional == Some(true) => Ok(None),
        None => Err(missing(kind, name)),
        Some(None) => Err(EnvError::NoKey {
            key: key.clone(),
            kind: word,
            namespace: crate::pod::namespace(sources.pod).to_owned(),
            name: name.clone(),
        }),
    }
}

fn missing(kind: RefKind, name: &str) -> EnvError {
    match kind {
        RefKind::ConfigMap => EnvError::NoConfigMap(name.to_owned()),
        RefKind::Secret => EnvError::NoSecret(name.to_owned()),
    }
}

/// Replaces `$(NAME)` by its value; `$$` is a literal dollar, an unknown name stays as written.
pub(crate) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|tail| tail.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// The variables that announce services, as Docker links did: those of the pod's namespace when `links`, and the API's always.
pub(crate) fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let home = service.metadata.namespace.as_deref().unwrap_or_default();
        let is_api = home == "default" && name == "kubernetes";
        if is_api || links && home == namespace {
            announce(service, name, &mut variables);
        }
    }
    variables
}

fn announce(service: &Service, name: &str, variables: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let prefix = name.to_uppercase().replace('-', "_");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let port_name = port_name.to_uppercase().replace('-', "_");
            variables.insert(format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{}", host_port(ip, port.port));
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let stem = format!("{prefix}_PORT_{}_{protocol}", port.port);
        variables.insert(stem.clone(), url);
        variables.insert(format!("{stem}_PROTO"), lower);
        variables.insert(format!("{stem}_PORT"), port.port.to_string());
        variables.insert(format!("{stem}_ADDR"), ip.to_owned());
    }
}

fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
}

// === impl Environment ===

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: String, value: String) {
        match self.list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.list.push((name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn built(container: serde_json::Value, objects: &Snapshot) -> Result<BTreeMap<String, String>, EnvError> {
        let container: Container = serde_json::from_value(container).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web"}}, "spec": {"containers": [container]}
        }))
        .unwrap();
        let services = BTreeMap::from([("DB_SERVICE_HOST".to_owned(), "10.96.0.9".to_owned())]);
        let sources = Sources {
            pod: &pod,
            addresses: Addresses { pod: None, host: "172.30.0.11".parse().unwrap() },
            allocatable: &BTreeMap::new(),
            objects,
            services: &services,
        };
        build(&container, &sources).map(|list| list.into_iter().collect())
    }

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then_some("1");
        for (text, expected) in [
            ("$(A)-$(A)", "1-1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    #[test]
    fn values_references_and_order() {
        let objects = Snapshot::default()
            .with(RefKind::ConfigMap, "conf", &[("key", "value"), ("other", "x")])
            .with(RefKind::Secret, "pass", &[("word", "s3cret")]);
        let env = built(
            json!({"name": "c",
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "conf"}}],
                "env": [
                    {"name": "HOST", "value": "$(DB_SERVICE_HOST):$(P_key)"},
                    {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "pass", "key": "word"}}},
                    {"name": "URL", "value": "http://$(PASS)@$(MISSING)"},
                    {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                ]}),
            &objects,
        )
        .unwrap();
        assert_eq!(env["HOST"], "10.96.0.9:value");
        assert_eq!(env["APP"], "web");
        assert_eq!(env["URL"], "http://s3cret@$(MISSING)");
        assert_eq!(env["P_other"], "x");
        assert!(!env.contains_key("GONE"));
    }

    #[test]
    fn absent_objects_and_keys_have_kubernetes_words() {
        let objects = Snapshot::default().with(RefKind::ConfigMap, "conf", &[]);
        let from =
            |source: serde_json::Value| json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]});
        let error = |source| built(from(source), &objects).unwrap_err().to_string();
        assert_eq!(
            error(json!({"configMapKeyRef": {"name": "none", "key": "k"}})),
            "configmap \"none\" not found"
        );
        assert_eq!(
            error(json!({"configMapKeyRef": {"name": "conf", "key": "k"}})),
            "couldn't find key k in ConfigMap ns/conf"
        );
        assert_eq!(error(json!({"secretKeyRef": {"name": "s", "key": "k"}})), "secret \"s\" not found");
    }

    #[test]
    fn services_announce_themselves() {
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"},
             "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
            {"metadata": {"name": "my-db", "namespace": "ns"},
             "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 5432, "protocol": "TCP"}]}},
            {"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        ]))
        .unwrap();
        let with = service_variables(services.iter(), "ns", true);
        assert_eq!(with["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(with["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(with["MY_DB_PORT_5432_TCP"], "tcp://10.96.0.9:5432");
        assert!(!with.contains_key("HEADLESS_SERVICE_HOST"));
        let without = service_variables(services.iter(), "ns", false);
        assert!(
            !without.contains_key("MY_DB_SERVICE_HOST") && without.contains_key("KUBERNETES_SERVICE_HOST")
        );
    }
}
