//! The Kubernetes API as this command uses it: objects of any kind, by the names people type.

use crate::{
    failure::{Exit, Failure, Outcome},
    place::Place,
};
use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
    discovery::{Discovery, Scope},
};
use serde_json::Value;
use std::time::Duration;

/// A client with what the server can do.
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// What the server can do, as it said when it was last asked.
    discovery: tokio::sync::RwLock<Option<Discovery>>,
}

/// A kind whose definition was just stored is served within this time.
const DEFINITION_SERVED: Duration = Duration::from_secs(5);

/// A kind with its scope.
#[derive(Debug, Clone)]
pub struct Kind {
    /// Names and version.
    pub resource: ApiResource,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

/// What storing an object did.
#[derive(Debug)]
pub enum Applied {
    /// It was not there.
    Created(Box<DynamicObject>),
    /// It is different now.
    Configured {
        /// As it was.
        old: Box<DynamicObject>,
        /// As it is.
        new: Box<DynamicObject>,
    },
    /// It was so already.
    Unchanged(Box<DynamicObject>),
}

impl Cluster {
    /// Reads the kubeconfig; does not connect yet.
    pub async fn open(place: &Place) -> Outcome<Self> {
        let path = place.kubeconfig();
        let unreadable = |reason: String| {
            Failure::new(Exit::Unreachable, format!("cannot use the kubeconfig {}: {reason}", path.display()))
                .fix("meshctl up makes one; --kubeconfig names another")
        };
        let kubeconfig =
            Kubeconfig::read_from(&path).map_err(|e| unreadable(base_types::ErrorChain(&e).to_string()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|e| unreadable(base_types::ErrorChain(&e).to_string()))?;
        config.proxy_url = None;
        Ok(Self { client: Client::try_from(config)?, discovery: tokio::sync::RwLock::new(None) })
    }

    /// Looks something up in what the server can do; asks it once more when it is not there.
    async fn look_up<T>(&self, look: impl Fn(&Discovery) -> Option<T>) -> Outcome<Option<T>> {
        if let Some(found) = self.discovery.read().await.as_ref().and_then(&look) {
            return Ok(Some(found));
        }
        let fresh = Discovery::new(self.client.clone()).run_aggregated().await?;
        let found = look(&fresh);
        *self.discovery.write().await = Some(fresh);
        Ok(found)
    }

    /// The kind of a document.
    pub async fn kind_of(&self, document: &Value) -> Outcome<Kind> {
        let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        let (api, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api.split_once('/').unwrap_or(("", &api));
        let gvk = GroupVersionKind::gvk(group, version, &kind);
        let found = self.look_up(|discovery| discovery.resolve_gvk(&gvk)).await?;
        let Some((resource, capabilities)) = found else {
            return Err(Failure::new(
                Exit::BadInput,
                format!("no matches for kind \"{kind}\" in version \"{api}\""),
            )
            .fix("kubectl api-resources lists what the cluster knows"));
        };
        Ok(Kind { resource, namespaced: capabilities.scope == Scope::Namespaced })
    }

    /// Waits until a kind whose definition was just stored is served.
    pub async fn served(&self, document: &Value) -> Outcome<Kind> {
        let deadline = tokio::time::Instant::now() + DEFINITION_SERVED;
        loop {
            match self.kind_of(document).await {
                Err(failure) if failure.exit == Exit::BadInput && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }

    /// The kind that a person means by `vs`, `virtualservice`, `virtualservices` or `virtualservices.networking.istio.io`.
    pub async fn kind_named(&self, name: &str) -> Outcome<Kind> {
        let wanted = name.to_ascii_lowercase();
        let (plural, group) = wanted.split_once('.').map_or((wanted.as_str(), None), |(p, g)| (p, Some(g)));
        let look = |discovery: &Discovery| {
            let all = discovery.groups().flat_map(|found| found.recommended_resources());
            let mut fits = all.filter(|(resource, _)| {
                let names = [
                    resource.plural.as_str(),
                    &resource.kind.to_ascii_lowercase(),
                    short_name(&resource.kind),
                ];
                names.contains(&plural) && group.is_none_or(|g| g == resource.group)
            });
            fits.next()
        };
        match self.look_up(look).await? {
            Some((resource, capabilities)) => {
                Ok(Kind { resource, namespaced: capabilities.scope == Scope::Namespaced })
            }
            None => {
                Err(Failure::new(Exit::Usage, format!("the server doesn't have a resource type \"{name}\"")))
            }
        }
    }

    /// The objects of a kind, in `namespace` or in all.
    pub fn api(&self, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) if kind.namespaced => {
                Api::namespaced_with(self.client.clone(), namespace, &kind.resource)
            }
            _ => Api::all_with(self.client.clone(), &kind.resource),
        }
    }

    /// Creates the object, or changes what differs.
    pub async fn apply(&self, document: &Value, namespace: &str) -> Outcome<Applied> {
        let kind = self.kind_of(document).await?;
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or(namespace);
        let api = self.api(&kind, Some(namespace));
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        let Some(old) = api.get_opt(name).await? else {
            let object: DynamicObject = serde_json::from_value(document.clone())?;
            return Ok(Applied::Created(Box::new(
                api.create(
                    &PostParams { field_manager: Some("meshctl".into()), ..PostParams::default() },
                    &object,
                )
                .await?,
            )));
        };
        let patch = replacing_patch(&serde_json::to_value(&old)?, document);
        let new = api
            .patch(
                name,
                &PatchParams { field_manager: Some("meshctl".into()), ..PatchParams::default() },
                &Patch::Merge(&patch),
            )
            .await?;
        if new.metadata.resource_version == old.metadata.resource_version {
            return Ok(Applied::Unchanged(Box::new(new)));
        }
        Ok(Applied::Configured { old: Box::new(old), new: Box::new(new) })
    }
}

/// A merge patch that makes `spec` and `data` exactly what the document says, and leaves the rest alone.
fn replacing_patch(old: &Value, document: &Value) -> Value {
    let mut patch = document.clone();
    for key in ["spec", "data"] {
        if let (Some(old), Some(new)) = (old.get(key), patch.get_mut(key)) {
            // Only our own kinds are exact; built-in kinds have defaults in them that a null would take away.
            if document["apiVersion"].as_str().is_some_and(|api| api.contains("istio.io")) {
                forget_missing(old, new);
            }
        }
    }
    if let Some(object) = patch.as_object_mut() {
        object.remove("status");
    }
    patch
}

fn forget_missing(old: &Value, new: &mut Value) {
    if let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) {
        for (key, value) in old {
            match new.get_mut(key) {
                Some(inner) => forget_missing(value, inner),
                None => drop(new.insert(key.clone(), Value::Null)),
            }
        }
    }
}

/// The short names of kinds that people use without thinking.
fn short_name(kind: &str) -> &'static str {
    match kind {
        "VirtualService" => "vs",
        "DestinationRule" => "dr",
        "Gateway" => "gw",
        "ServiceEntry" => "se",
        "PeerAuthentication" => "pa",
        "RequestAuthentication" => "ra",
        "AuthorizationPolicy" => "ap",
        "Pod" => "po",
        "Service" => "svc",
        "Deployment" => "deploy",
        "ReplicaSet" => "rs",
        "Namespace" => "ns",
        "Node" => "no",
        "ConfigMap" => "cm",
        "ServiceAccount" => "sa",
        "Event" => "ev",
        "CustomResourceDefinition" => "crd",
        _ => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_was_taken_out_of_the_file_goes() {
        let old = json!({"apiVersion": "networking.istio.io/v1", "spec": {"hosts": ["a"], "http": [1], "tcp": [2]}, "status": {"x": 1}});
        let new = json!({"apiVersion": "networking.istio.io/v1", "spec": {"hosts": ["a"], "http": [3]}});
        assert_eq!(replacing_patch(&old, &new)["spec"], json!({"hosts": ["a"], "http": [3], "tcp": null}));
    }
}
