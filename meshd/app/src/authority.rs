//! The mesh's authority: kept in a Secret, its certificate handed to every namespace.

use crate::config::Config;
use anyhow::Context;
use base_runtime::TaskGroup;
use base_tls::{CertificateAuthority, LeafProfile, Material, Rotating};
use futures::StreamExt;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use policies_api::names::{ROOT_CERT_CONFIG_MAP, ROOT_CERT_KEY};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Istio's name and keys of the Secret.
const SECRET: &str = "istio-ca-secret";
const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
/// Istio's lifetime of a self-signed root.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lifetime of this process's own certificate.
const SERVING_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The authority that is stored, or a new one that is stored first.
pub(crate) async fn load_or_create(client: &Client, config: &Config) -> anyhow::Result<CertificateAuthority> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &config.namespace);
    loop {
        if let Some(secret) = secrets.get_opt(SECRET).await.context("cannot read the authority's Secret")? {
            let data = secret.data.unwrap_or_default();
            let text = |key: &str| {
                data.get(key)
                    .map(|ByteString(bytes)| String::from_utf8_lossy(bytes).into_owned())
                    .unwrap_or_default()
            };
            return CertificateAuthority::from_pem(&text(CERTIFICATE), &text(KEY)).with_context(|| {
                format!("the Secret {}/{SECRET} does not hold an authority", config.namespace)
            });
        }
        let authority = CertificateAuthority::generate(
            &format!("{} root", config.trust_domain),
            &config.trust_domain,
            ROOT_LIFETIME,
        )?;
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let secret = Secret {
            metadata: ObjectMeta { name: Some(SECRET.into()), ..ObjectMeta::default() },
            type_: Some("istio.io/ca-root".into()),
            data: Some(
                [
                    (CERTIFICATE.into(), bytes(authority.certificate_pem())),
                    (KEY.into(), bytes(authority.key_pem())),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!(secret = SECRET, "Made a root certificate");
                return Ok(authority);
            }
            // Another instance was faster: take what it stored.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).context("cannot store the authority's Secret"),
        }
    }
}

/// This process's own certificate, renewed at half its life.
pub(crate) fn serving_identity(
    authority: Arc<CertificateAuthority>,
    config: &Config,
    tasks: &TaskGroup,
) -> anyhow::Result<Rotating> {
    let profile = LeafProfile {
        dns_names: config.dns_names(),
        server: true,
        lifetime: SERVING_LIFETIME,
        ..LeafProfile::default()
    };
    let make = move || {
        let issued = authority.issue(&profile)?;
        Material::from_pem(&issued.chain_pem, &issued.key_pem, None)
    };
    let identity = Rotating::new(make()?);
    let renewed = identity.clone();
    tasks.spawn("serving certificate", async move {
        loop {
            tokio::time::sleep(SERVING_LIFETIME / 2).await;
            match make() {
                Ok(material) => renewed.publish(material),
                Err(error) => tracing::error!(%error, "Cannot renew the serving certificate"),
            }
        }
    });
    Ok(identity)
}

/// Keeps the root certificate in a ConfigMap of every namespace.
pub(crate) async fn distribute(client: Client, certificate: String) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut stream =
        watcher(namespaces, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(event) = stream.next().await {
        let namespace = match event {
            Ok(namespace) if namespace.metadata.deletion_timestamp.is_none() => namespace.name_any(),
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(error = %base_types::ErrorChain(&error), "Watching namespaces failed");
                continue;
            }
        };
        if let Err(error) = put(&client, &namespace, &certificate).await {
            tracing::warn!(namespace, error = %base_types::ErrorChain(&error), "Cannot store the root certificate");
        }
    }
}

async fn put(client: &Client, namespace: &str, certificate: &str) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let data = json!({ROOT_CERT_KEY: certificate});
    match api.get_opt(ROOT_CERT_CONFIG_MAP).await? {
        Some(old)
            if old.data.as_ref().and_then(|d| d.get(ROOT_CERT_KEY)).is_some_and(|old| old == certificate) => {
        }
        Some(_) => drop(
            api.patch(ROOT_CERT_CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&json!({"data": data})))
                .await?,
        ),
        None => {
            let object = json!({"metadata": {"name": ROOT_CERT_CONFIG_MAP, "labels": {"istio.io/config": "true"}}, "data": data});
            let object: ConfigMap = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &object).await?;
        }
    }
    Ok(())
}
