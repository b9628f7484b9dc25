//! kube-rs does what controllers do: watches, patches, tokens, roles, pages, webhooks, streams.

mod access;
mod lifecycle;
mod lists;
mod refusals;
mod webhooks;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

/// A typed object from JSON.
pub fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Creates a ConfigMap with one entry.
pub async fn config_map(client: &Client, name: &str, value: &str) -> ConfigMap {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map =
        typed(json!({"metadata": {"name": name, "labels": {"value": value}}, "data": {"value": value}}));
    api.create(&PostParams::default(), &map).await.unwrap()
}

/// The service account that pods of the default namespace need.
pub async fn default_account(client: &Client) {
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::default_namespaced(client.clone());
    accounts.create(&PostParams::default(), &typed(json!({"metadata": {"name": "default"}}))).await.unwrap();
}

/// A pod as a client writes it.
pub fn pod(name: &str) -> Pod {
    typed(json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}))
}

/// The Status that a call was refused with.
pub fn status(error: kube::Error) -> Box<kube::core::Status> {
    match error {
        kube::Error::Api(status) => status,
        other => panic!("not a refusal of the server: {other}"),
    }
}
