//! What a configMap, secret, downwardAPI or projected volume holds. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource,
    SecretProjection, SecretVolumeSource, ServiceAccountTokenProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::atomic::{File, Payload, is_safe};
use crate::field::{self, Addresses};
use crate::objects::{Data, RefKind, Snapshot};
use crate::{pod, resources};

/// Permission bits of files whose volume names none (Kubernetes default).
const MODE_DEFAULT: u32 = 0o644;

/// Where contents come from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) addresses: Addresses,
    pub(crate) allocatable: &'a BTreeMap<String, Quantity>,
    pub(crate) objects: &'a Snapshot,
    /// Tokens by what was asked for.
    pub(crate) tokens: &'a BTreeMap<TokenAsk, String>,
}

/// A service account token a volume wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenAsk {
    /// Empty for the API server's own audience.
    pub(crate) audience: String,
    pub(crate) seconds: i64,
}

/// A volume cannot be filled; shown in a `FailedMount` event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("references non-existent {kind} key: {key}")]
    NoKey { kind: &'static str, key: String },
    #[error("unsupported field reference \"{0}\"")]
    Field(String),
    #[error("invalid path \"{0}\": must be relative and must not contain '..'")]
    Path(String),
    #[error("service account token is not there yet")]
    NoToken,
    #[error("projected source \"{0}\" is not supported")]
    Unsupported(&'static str),
}

// === impl TokenAsk ===

impl TokenAsk {
    /// What the projection asks for, with Kubernetes' default lifetime of an hour and its minimum of ten minutes.
    pub(crate) fn of(source: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(3600).max(600),
        }
    }
}

/// Files of a configMap volume.
pub(crate) fn config_map(
    source: &ConfigMapVolumeSource,
    from: &Sources<'_>,
) -> Result<Payload, PayloadError> {
    let mode = bits(source.default_mode);
    keyed(RefKind::ConfigMap, &source.name, source.items.as_deref(), source.optional, mode, from)
}

/// Files of a secret volume.
pub(crate) fn secret(source: &SecretVolumeSource, from: &Sources<'_>) -> Result<Payload, PayloadError> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    keyed(RefKind::Secret, name, source.items.as_deref(), source.optional, bits(source.default_mode), from)
}

/// Files of a downward API volume.
pub(crate) fn downward(
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    from: &Sources<'_>,
) -> Result<Payload, PayloadError> {
    let mut payload = Payload::new();
    for item in items.unwrap_or_default() {
        let text = if let Some(reference) = &item.field_ref {
            field::value(from.pod, &reference.field_path, from.addresses)
                .ok_or_else(|| PayloadError::Field(reference.field_path.clone()))?
        } else if let Some(reference) = &item.resource_field_ref {
            let named = reference.container_name.as_deref().unwrap_or_default();
            pod::container(from.pod, named)
                .and_then(|(_, container)| {
                    resources::field(
                        container,
                        &reference.resource,
                        reference.divisor.as_ref(),
                        from.allocatable,
                    )
                })
                .ok_or_else(|| PayloadError::Field(reference.resource.clone()))?
        } else {
            String::new()
        };
        let mode = item.mode.map_or_else(|| bits(default_mode), |mode| bits(Some(mode)));
        put(&mut payload, &item.path, text.into_bytes(), mode)?;
    }
    Ok(payload)
}

/// Files of a projected volume: all its sources in one directory.
pub(crate) fn projected(source: &ProjectedVolumeSource, from: &Sources<'_>) -> Result<Payload, PayloadError> {
    let mode = bits(source.default_mode);
    let mut payload = Payload::new();
    for part in source.sources.iter().flatten() {
        if let Some(ConfigMapProjection { name, items, optional }) = &part.config_map {
            payload.append(&mut keyed(RefKind::ConfigMap, name, items.as_deref(), *optional, mode, from)?);
        }
        if let Some(SecretProjection { name, items, optional }) = &part.secret {
            payload.append(&mut keyed(RefKind::Secret, name, items.as_deref(), *optional, mode, from)?);
        }
        if let Some(part) = &part.downward_api {
            payload.append(&mut downward(part.items.as_deref(), source.default_mode, from)?);
        }
        if let Some(token) = &part.service_account_token {
            let text = from.tokens.get(&TokenAsk::of(token)).ok_or(PayloadError::NoToken)?;
            let owner = sole_user(from.pod);
            // As Kubernetes: a token is private to its only user, or to the pod's group; otherwise readable as the volume says.
            let mode = match owner {
                _ if fs_group(from.pod).is_some() => 0o600,
                Some(_) => 0o600,
                None => mode,
            };
            put(&mut payload, &token.path, text.clone().into_bytes(), mode)?;
            if let Some(file) = payload.get_mut(&token.path) {
                file.uid = owner;
            }
        }
        if part.cluster_trust_bundle.is_some() {
            return Err(PayloadError::Unsupported("clusterTrustBundle"));
        }
        if part.pod_certificate.is_some() {
            return Err(PayloadError::Unsupported("podCertificate"));
        }
    }
    Ok(payload)
}

/// The group that owns the pod's volumes.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod::spec(pod)?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The user all containers run as, if they name one and the same.
fn sole_user(pod: &Pod) -> Option<u32> {
    let of_pod =
        pod::spec(pod).and_then(|spec| spec.security_context.as_ref()).and_then(|ctx| ctx.run_as_user);
    let mut users = pod::containers(pod).map(|(_, container)| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(u32::try_from(first).ok()?)
}

fn keyed(
    kind: RefKind,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    from: &Sources<'_>,
) -> Result<Payload, PayloadError> {
    let optional = optional == Some(true);
    let Some(data) = from.objects.get(kind, name) else {
        return match kind {
            _ if optional => Ok(Payload::new()),
            RefKind::ConfigMap => Err(PayloadError::NoConfigMap(name.to_owned())),
            RefKind::Secret => Err(PayloadError::NoSecret(name.to_owned())),
        };
    };
    let mut payload = Payload::new();
    match items.filter(|items| !items.is_empty()) {
        Some(items) => pick(kind, data, items, optional, mode, &mut payload)?,
        None => {
            for (key, value) in &data.entries {
                put(&mut payload, key, value.clone(), mode)?;
            }
        }
    }
    Ok(payload)
}

fn pick(
    kind: RefKind,
    data: &Data,
    items: &[KeyToPath],
    optional: bool,
    mode: u32,
    payload: &mut Payload,
) -> Result<(), PayloadError> {
    for item in items {
        match data.entries.get(&item.key) {
            Some(value) => {
                let mode = item.mode.map_or(mode, |mode| bits(Some(mode)));
                put(payload, &item.path, value.clone(), mode)?;
            }
            None if optional => {}
            None => {
                let kind = if kind == RefKind::ConfigMap { "config" } else { "secret" };
                return Err(PayloadError::NoKey { kind, key: item.key.clone() });
            }
        }
    }
    Ok(())
}

fn put(payload: &mut Payload, path: &str, data: Vec<u8>, mode: u32) -> Result<(), PayloadError> {
    if !is_safe(path) {
        return Err(PayloadError::Path(path.to_owned()));
    }
    payload.insert(path.to_owned(), File { data, mode, uid: None });
    Ok(())
}

fn bits(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).map_or(MODE_DEFAULT, |mode| mode & 0o777)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": spec}))
            .unwrap()
    }

    fn with<T>(pod: &Pod, objects: &Snapshot, work: impl FnOnce(&Sources<'_>) -> T) -> T {
        let tokens =
            BTreeMap::from([(TokenAsk { audience: "istio-ca".into(), seconds: 43200 }, "jwt".to_owned())]);
        work(&Sources {
            pod,
            addresses: Addresses { pod: None, host: "172.30.0.11".parse().unwrap() },
            allocatable: &BTreeMap::new(),
            objects,
            tokens: &tokens,
        })
    }

    #[test]
    fn a_projected_volume_joins_its_sources() {
        let pod = pod(json!({"containers": [{"name": "a"}]}));
        let objects = Snapshot::default().with(RefKind::ConfigMap, "root", &[("ca.crt", "PEM"), ("x", "y")]);
        let source: ProjectedVolumeSource = serde_json::from_value(json!({"defaultMode": 0o440, "sources": [
            {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 43200}},
            {"configMap": {"name": "root", "items": [{"key": "ca.crt", "path": "certs/ca.crt", "mode": 0o600}]}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ]}))
        .unwrap();
        let payload = with(&pod, &objects, |from| projected(&source, from)).unwrap();
        let shown: Vec<_> = payload
            .iter()
            .map(|(path, file)| (path.as_str(), String::from_utf8_lossy(&file.data).into_owned(), file.mode))
            .collect();
        assert_eq!(
            shown,
            [
                ("certs/ca.crt", "PEM".to_owned(), 0o600),
                ("labels", "app=\"web\"".to_owned(), 0o440),
                ("token", "jwt".to_owned(), 0o440),
            ]
        );
    }

    #[test]
    fn a_token_is_private_to_the_only_user() {
        let pod = pod(json!({"securityContext": {"runAsUser": 1000}, "containers": [{"name": "a"}]}));
        let source: ProjectedVolumeSource = serde_json::from_value(json!({"sources": [
            {"serviceAccountToken": {"path": "t", "audience": "istio-ca", "expirationSeconds": 43200}}]}))
        .unwrap();
        let payload = with(&pod, &Snapshot::default(), |from| projected(&source, from)).unwrap();
        assert_eq!((payload["t"].mode, payload["t"].uid), (0o600, Some(1000)));
    }

    #[test]
    fn what_is_missing_is_named_unless_optional() {
        let pod = pod(json!({"containers": []}));
        let objects = Snapshot::default().with(RefKind::Secret, "here", &[("a", "1")]);
        let get = |source: serde_json::Value| {
            let source: SecretVolumeSource = serde_json::from_value(source).unwrap();
            with(&pod, &objects, |from| secret(&source, from))
        };
        assert_eq!(get(json!({"secretName": "no"})), Err(PayloadError::NoSecret("no".into())));
        assert_eq!(get(json!({"secretName": "no", "optional": true})), Ok(Payload::new()));
        let items = json!([{"key": "b", "path": "b"}]);
        assert_eq!(
            get(json!({"secretName": "here", "items": items})).unwrap_err().to_string(),
            "references non-existent secret key: b"
        );
        assert_eq!(get(json!({"secretName": "here", "items": items, "optional": true})), Ok(Payload::new()));
        let escape = json!([{"key": "a", "path": "../b"}]);
        assert!(matches!(get(json!({"secretName": "here", "items": escape})), Err(PayloadError::Path(_))));
    }
}
