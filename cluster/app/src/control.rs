//! The control socket: HTTP with JSON for meshctl and scripts, open to root alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base_runtime::http_server::{self, Listener, handler, json};
use base_types::ErrorChain;
use bytes::Bytes;
use cluster_containers::{Image, ImageStore};
use futures::TryStreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyDataStream, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::io::StreamReader;

use crate::KUBERNETES_VERSION;
use crate::run::{Ending, Shared};

/// The socket's name in the run directory.
pub(crate) const SOCKET: &str = "cluster.sock";

/// Listens on the socket. A file left by a process that died is replaced: the cluster's lock says that nobody uses it.
pub(crate) fn listen(run_dir: &Path) -> Result<UnixListener> {
    let path = run_dir.join(SOCKET);
    let _absent = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| {
        format!("cannot listen on {} (a socket's path has at most 107 bytes)", path.display())
    })?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}

/// Answers until the group that serves is ended.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let token = shared.group.token().clone();
    let answer = handler(move |request| respond(shared.clone(), request));
    http_server::serve(Listener::Unix(listener), answer, token).await;
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = match (method, path.as_str()) {
        (Method::GET, "/status") => Ok(status(&shared).await),
        (Method::GET, "/images") => images(&shared).await,
        (Method::POST, "/images") => load(&shared, request.into_body()).await,
        (Method::POST, "/shutdown") => shutdown(&shared, request.uri().query()),
        (_, "/status" | "/images" | "/shutdown") => {
            return problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method");
        }
        _ => {
            return problem(
                StatusCode::NOT_FOUND,
                "try GET /status, GET or POST /images, POST /shutdown?pods=stop",
            );
        }
    };
    match answer {
        Ok(value) => json(StatusCode::OK, value.to_string()),
        Err(error) => problem(StatusCode::BAD_REQUEST, &ErrorChain(error.as_ref()).to_string()),
    }
}

fn problem(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    json(code, json!({"error": text}).to_string())
}

async fn status(shared: &Shared) -> Value {
    let options = &shared.options;
    let parts = shared.board.parts();
    let nodes: Vec<_> = shared
        .nodes
        .iter()
        .map(|(node, ..)| {
            let part = parts.get(&node.name).cloned().unwrap_or_default();
            json!({"name": node.name, "address": node.address, "podCIDR": node.pod_cidr, "ready": part.ready,
                   "seconds": part.seconds, "message": part.message})
        })
        .collect();
    let published: Vec<_> = options
        .publish
        .iter()
        .map(|publish| {
            let ready = is_served(shared, &publish.namespace, &publish.service, publish.service_port);
            json!({"address": format!("127.0.0.1:{}", publish.host_port), "ready": ready,
                   "service": format!("{}/{}:{}", publish.namespace, publish.service, publish.service_port)})
        })
        .collect();
    let images = match store(shared) {
        Some(store) => store.list().await.unwrap_or_default(),
        None => Vec::new(),
    };
    json!({
        "name": options.place.name,
        "pid": std::process::id(),
        "ready": shared.board.is_ready(),
        "ending": shared.ending.borrow().map(|ending| ending.pods()),
        "seconds": shared.board.seconds(),
        "components": parts,
        "nodes": nodes,
        "versions": {"cluster": env!("CARGO_PKG_VERSION"), "kubernetes": KUBERNETES_VERSION},
        "kubeconfig": shared.kubeconfig,
        "api": format!("https://127.0.0.1:{}", options.api_port),
        "ingress": format!("http://127.0.0.1:{}", options.ingress_port),
        "ingressReady": is_served(shared, "mesh-system", "istio-ingressgateway", 80),
        "published": published,
        "dataDir": options.place.data_dir,
        "runDir": options.place.run_dir,
        "images": images.iter().flat_map(|image| image.names.clone()).collect::<Vec<_>>(),
    })
}

fn is_served(shared: &Shared, namespace: &str, service: &str, port: u16) -> bool {
    !shared.catalog.ready_endpoints(namespace, service, port).is_empty()
}

/// All nodes share one directory of images; any node's handle will do.
fn store(shared: &Shared) -> Option<&ImageStore> {
    shared.nodes.first().map(|(_, runtime, _)| runtime.images())
}

async fn images(shared: &Shared) -> Result<Value> {
    let images = store(shared).context("the cluster has no node")?.list().await?;
    Ok(json!({"images": images.iter().map(describe).collect::<Vec<_>>()}))
}

/// The body is the archive itself; it is never held in memory as a whole.
async fn load(shared: &Shared, body: Incoming) -> Result<Value> {
    let stream = BodyDataStream::new(body).map_err(std::io::Error::other);
    let store = store(shared).context("the cluster has no node")?;
    let loaded = store.load(StreamReader::new(Box::pin(stream))).await?;
    Ok(json!({"loaded": loaded.iter().map(describe).collect::<Vec<_>>()}))
}

fn describe(image: &Image) -> Value {
    json!({"id": image.id, "names": image.names, "sizeBytes": image.size_bytes, "loadedAt": image.loaded_at.to_string()})
}

fn shutdown(shared: &Shared, query: Option<&str>) -> Result<Value> {
    let ending = match query {
        None | Some("pods=keep") => Ending::KeepPods,
        Some("pods=stop") => Ending::StopPods,
        Some(other) => bail!("`{other}` must be pods=stop or pods=keep"),
    };
    shared.ending.send_replace(Some(ending));
    Ok(json!({"stopping": true, "pods": ending.pods()}))
}
