//! A stand-in for the API server that lists and watches Services and EndpointSlices.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cluster_network::ServiceCatalog;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Objects by path, as `services/web`, and everything that ever happened to them.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    events: Vec<(String, Value)>,
}

pub struct Api {
    state: Mutex<State>,
    version: watch::Sender<usize>,
}

impl Api {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), version: watch::Sender::new(0) })
    }

    /// A catalog that follows this server and has seen all of it.
    pub async fn catalog(self: &Arc<Self>) -> Arc<ServiceCatalog> {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = api.respond(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let catalog = ServiceCatalog::new();
        tokio::spawn(catalog.clone().follow(kube::Client::new(service, "default")));
        tokio::time::timeout(crate::world::SOON, catalog.synced()).await.unwrap();
        catalog
    }

    pub fn put_service(&self, name: &str, spec: Value) {
        self.put("services", json!({"metadata": {"name": name}, "spec": spec}));
    }

    /// All endpoints of a service: addresses with their port, on the port named `web`.
    pub fn put_endpoints(&self, service: &str, port: u16, addresses: &[std::net::Ipv4Addr]) {
        let endpoints: Vec<_> =
            addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        let labels = json!({"kubernetes.io/service-name": service});
        self.put(
            "endpointslices",
            json!({"metadata": {"name": format!("{service}-x"), "labels": labels}, "addressType": "IPv4",
                   "ports": [{"name": "web", "port": port}], "endpoints": endpoints}),
        );
    }

    pub fn delete(&self, kind: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let mut object = state.objects.remove(&format!("{kind}/{name}")).unwrap();
        let version = state.events.len() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.events.push((kind.into(), json!({"type": "DELETED", "object": object})));
        self.version.send_replace(version);
    }

    pub fn put(&self, kind: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        let version = state.events.len() + 1;
        object["metadata"]["namespace"] = json!("default");
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let path = format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap());
        let known = state.objects.insert(path, object.clone()).is_some();
        let change = if known { "MODIFIED" } else { "ADDED" };
        state.events.push((kind.into(), json!({"type": change, "object": object})));
        self.version.send_replace(version);
    }

    fn respond(self: &Arc<Self>, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let kind = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let query = request.uri().query().unwrap_or_default();
        if !query.contains("watch=") {
            let state = self.state.lock().unwrap();
            let prefix = format!("{kind}/");
            let items: Vec<_> = state
                .objects
                .iter()
                .filter(|(path, _)| path.starts_with(&prefix))
                .map(|(_, item)| item)
                .collect();
            let version = state.events.len().to_string();
            let list = json!({"metadata": {"resourceVersion": version}, "items": items});
            return Response::new(Full::<Bytes>::from(list.to_string()).boxed_unsync());
        }
        let version = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).unwrap();
        let start = (self.clone(), self.version.subscribe(), kind, version.parse::<usize>().unwrap());
        let lines = futures::stream::unfold(start, |(api, mut news, kind, mut next)| async move {
            loop {
                news.wait_for(|version| *version > next).await.ok()?;
                let (of, event) = api.state.lock().unwrap().events[next].clone();
                next += 1;
                if of == kind {
                    let line = Bytes::from(format!("{event}\n"));
                    return Some((Ok::<_, Infallible>(Frame::data(line)), (api, news, kind, next)));
                }
            }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}
