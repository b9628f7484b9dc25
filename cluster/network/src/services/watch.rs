//! Two watches of the API server that fill the catalog.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Service as KubeService;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::watch;

use super::model::{EndpointGroup, Service};
use super::{ServiceCatalog, ServiceKey};

/// Watches until dropped.
pub(super) async fn follow(catalog: Arc<ServiceCatalog>, client: Client) {
    let services = watcher(Api::<KubeService>::all(client.clone()), Config::default()).default_backoff();
    let slices = watcher(Api::<EndpointSlice>::all(client), Config::default()).default_backoff();
    let (services_done, mut services_synced) = watch::channel(false);
    let (slices_done, mut slices_synced) = watch::channel(false);
    let both = async {
        // An error here means that the watch beside it has ended, which it never does.
        let _ended = services_synced.wait_for(|done| *done).await.is_err();
        let _ended = slices_synced.wait_for(|done| *done).await.is_err();
        catalog.mark_synced();
    };
    tokio::join!(
        drive(services, &catalog, &services_done, put_service, remove_service, service_keys),
        drive(slices, &catalog, &slices_done, put_slice, remove_slice, slice_keys),
        both,
    );
}

/// Applies the events of one watch. After a new listing, what it did not contain is removed.
async fn drive<K: Resource>(
    events: impl Stream<Item = Result<Event<K>, Error>>,
    catalog: &ServiceCatalog,
    done: &watch::Sender<bool>,
    put: fn(&ServiceCatalog, &ServiceKey, &K),
    remove: fn(&ServiceCatalog, &ServiceKey),
    keys: fn(&ServiceCatalog) -> Vec<ServiceKey>,
) {
    pin_mut!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                if let Some(key) = key(&object) {
                    put(catalog, &key, &object);
                    listed.insert(key);
                }
            }
            Ok(Event::InitDone) => {
                for gone in keys(catalog).into_iter().filter(|key| !listed.contains(key)) {
                    remove(catalog, &gone);
                }
                listed.clear();
                done.send_replace(true);
            }
            Ok(Event::Apply(object)) => {
                if let Some(key) = key(&object) {
                    put(catalog, &key, &object);
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(key) = key(&object) {
                    remove(catalog, &key);
                }
            }
            Err(error) => tracing::debug!(%error, "Watch of services interrupted"),
        }
    }
}

fn key<K: Resource>(object: &K) -> Option<ServiceKey> {
    let meta = object.meta();
    Some(ServiceKey { namespace: meta.namespace.clone()?, name: meta.name.clone()? })
}

fn put_service(catalog: &ServiceCatalog, key: &ServiceKey, object: &KubeService) {
    match Service::read(object) {
        Some(service) => catalog.put_service(key, service),
        None => catalog.remove_service(key),
    }
}

fn remove_service(catalog: &ServiceCatalog, key: &ServiceKey) {
    catalog.remove_service(key);
}

fn service_keys(catalog: &ServiceCatalog) -> Vec<ServiceKey> {
    catalog.keys()
}

fn put_slice(catalog: &ServiceCatalog, key: &ServiceKey, object: &EndpointSlice) {
    match EndpointGroup::read(object) {
        Some((owner, group)) => catalog.put_slice(key, &owner, group),
        None => catalog.remove_slice(key),
    }
}

fn remove_slice(catalog: &ServiceCatalog, key: &ServiceKey) {
    catalog.remove_slice(key);
}

fn slice_keys(catalog: &ServiceCatalog) -> Vec<ServiceKey> {
    catalog.slice_keys()
}
