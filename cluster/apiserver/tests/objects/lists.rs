//! Lists and watches: pages, revisions, selectors, initial events, 410.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};

use super::{config_map, status};
use crate::harness::Server;

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_of_one_revision() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for n in 0..7 {
        config_map(&client, &format!("m{n}"), if n % 2 == 0 { "even" } else { "odd" }).await;
    }
    let first = api.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (3, Some(4)));
    config_map(&client, "m9", "late").await;
    let token = first.metadata.continue_.clone().unwrap();
    let second = api.list(&ListParams::default().limit(3).continue_token(&token)).await.unwrap();
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.clone().unwrap();
    let third = api.list(&ListParams::default().limit(3).continue_token(&token)).await.unwrap();
    assert_eq!(third.items.len(), 1, "what was created later is not on the page");
    assert_eq!(api.list(&ListParams::default().labels("value in (odd)")).await.unwrap().items.len(), 3);
    assert_eq!(api.list(&ListParams::default().fields("metadata.name=m1")).await.unwrap().items.len(), 1);
    assert_eq!(status(api.list(&ListParams::default().fields("data.x=1")).await.unwrap_err()).code, 400);
    let filtered = api.list(&ListParams::default().labels("value=even").limit(2)).await.unwrap();
    assert_eq!(filtered.items.len(), 2);
    let rest = api
        .list(
            &ListParams::default()
                .labels("value=even")
                .limit(2)
                .continue_token(filtered.metadata.continue_.as_deref().unwrap()),
        )
        .await
        .unwrap();
    assert_eq!(rest.items.len(), 2);
    // After compaction the token has expired, and the answer offers one that goes on.
    let revision = server.store.revision();
    config_map(&client, "m10", "later").await;
    server.store.compact(server.store.revision()).await.unwrap();
    assert!(server.store.compacted() > revision);
    let expired = status(api.list(&ListParams::default().limit(3).continue_token(&token)).await.unwrap_err());
    assert_eq!((expired.code, &*expired.reason), (410, "Expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_see_every_change_in_order() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let first = config_map(&client, "a", "1").await;
    let version = first.resource_version().unwrap();
    let patch = |value: &str| json!({"metadata": {"labels": {"value": value}}});
    api.patch("a", &PatchParams::default(), &Patch::Merge(&patch("2"))).await.unwrap();
    let stream = api.watch(&WatchParams::default().labels("value=2"), &version).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    // From history: it began to match.
    assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Added(o)) if o.name_any() == "a"));
    api.patch("a", &PatchParams::default(), &Patch::Merge(&json!({"data": {"x": "y"}}))).await.unwrap();
    assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Modified(_))));
    let gone = api.patch("a", &PatchParams::default(), &Patch::Merge(&patch("3"))).await.unwrap();
    // It ceased to match: the last state that matched, at the revision that ended it.
    match stream.try_next().await.unwrap() {
        Some(WatchEvent::Deleted(last)) => {
            assert_eq!(last.labels()["value"], "2");
            assert_eq!(last.resource_version(), gone.resource_version());
        }
        other => panic!("{other:?}"),
    }
    server.store.compact(server.store.revision()).await.unwrap();
    let old = api.watch(&WatchParams::default(), "1").await.unwrap();
    let event = std::pin::pin!(old).try_next().await.unwrap();
    assert!(matches!(&event, Some(WatchEvent::Error(error)) if error.code == 410), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streaming_lists_end_with_their_bookmark() {
    let server = Server::start().await;
    let client = server.client().await;
    config_map(&client, "a", "1").await;
    let path = "/api/v1/namespaces/default/configmaps?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
                &resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "ADDED");
    assert_eq!(events[1]["type"], "BOOKMARK");
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let without = path.replace("&resourceVersionMatch=NotOlderThan", "");
    let refused = client.request_text(http::Request::get(without).body(Vec::new()).unwrap()).await;
    assert_eq!(status(refused.unwrap_err()).code, 422);
    // kube-rs's own streaming list, and that it goes on live.
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let stream = watcher(api.clone(), watcher::Config::default().streaming_lists()).applied_objects();
    let mut stream = std::pin::pin!(stream);
    assert_eq!(stream.next().await.unwrap().unwrap().name_any(), "a");
    config_map(&client, "b", "1").await;
    assert_eq!(stream.next().await.unwrap().unwrap().name_any(), "b");
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("value=1")).await.unwrap();
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_forms() {
    let server = Server::start().await;
    let client = server.client().await;
    config_map(&client, "a", "1").await;
    let get = async |path: &str, accept: &str| {
        let request = http::Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
        serde_json::from_str::<Value>(&client.request_text(request).await.unwrap()).unwrap()
    };
    let table =
        get("/api/v1/configmaps?includeObject=Object", "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table["columnDefinitions"][1]["name"], "Data");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["data"]["value"], "1");
    let partial =
        get("/api/v1/configmaps", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
    let aggregated =
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    assert_eq!(get("/apis", aggregated).await["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(get("/apis", "application/json").await["kind"], "APIGroupList");
    let document = get("/openapi/v3/apis/apps/v1", "application/json").await;
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(document["components"]["schemas"].get("io.k8s.api.core.v1.PodSpec").is_some());
}
