//! Copies of requests, whose answers nobody waits for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, header};
use http_body::Body as _;
use sidecar_http::Body;
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::route_action::Mirror;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::attempt::{self, Forwarding};
use super::record::Record;
use super::replay::Replay;
use crate::pool::Protocol;
use crate::target::{self, Wanted};

/// How long a copy may take when the route does not say.
const TIME: Duration = Duration::from_secs(60);

fn mirrors<'a>(cx: &Forwarding<'a>) -> &'a [Mirror] {
    if cx.action.mirrors.is_empty() { &cx.chosen.host.mirrors } else { &cx.action.mirrors }
}

/// Whether the route has mirrors at all.
pub(super) fn wanted(cx: &Forwarding<'_>) -> bool {
    !mirrors(cx).is_empty()
}

/// Sends the copies that chance chooses.
pub(super) fn start(cx: &Forwarding<'_>, parts: &Parts, body: Option<&Replay>, record: &Record) {
    let mirrors = mirrors(cx);
    let worker = &cx.connection.down.worker;
    for mirror in mirrors {
        if !mirror.fraction.hit(worker.random()) {
            continue;
        }
        let Some(plan) = cx.config.clusters.get(&mirror.cluster) else { continue };
        let mut copy = copy_of(parts);
        if !mirror.keep_host {
            shadow(&mut copy);
        }
        let wanted = Wanted {
            worker,
            plan,
            local: cx.connection.down.local,
            client: record.remote,
            headers: Some(&copy.headers),
            hash: None,
            previous: &[],
            excluded: &[],
            metadata: [None, None],
            high_priority: false,
        };
        let Some(pick) = target::pick(&wanted) else { continue };
        let Some(permit) = attempt::mirror_permit(&pick.target) else { continue };
        let body = body.map_or_else(Body::empty, Replay::copy);
        let protocol = match plan.cluster.http.protocol {
            UpstreamProtocol::Http2 => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let worker = Rc::clone(worker);
        let limit = cx.action.timeout.filter(|limit| !limit.is_zero()).unwrap_or(TIME);
        let name = Arc::clone(&mirror.cluster);
        spawn_local(async move {
            let _permit = permit;
            let exchange = async {
                match attempt::send(&worker, &pick.target, protocol, &copy, body).await {
                    Ok(response) => drain(response.into_body()).await,
                    Err(failure) => tracing::debug!(cluster = %name, ?failure, "Mirrored request failed"),
                }
            };
            if timeout(limit, exchange).await.is_err() {
                tracing::debug!(cluster = %name, "Mirrored request took too long");
            }
        });
    }
}

fn copy_of(parts: &Parts) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method = parts.method.clone();
    copy.uri = parts.uri.clone();
    copy.version = parts.version;
    copy.headers = parts.headers.clone();
    copy.headers.remove(header::UPGRADE);
    copy
}

/// `host:port` → `host-shadow:port`.
fn shadow(parts: &mut Parts) {
    let Some(host) = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return };
    let new = match host.rsplit_once(':') {
        Some((name, port)) => format!("{name}-shadow:{port}"),
        None => format!("{host}-shadow"),
    };
    if let Ok(value) = HeaderValue::try_from(new) {
        parts.headers.insert(header::HOST, value);
    }
}

async fn drain(mut body: Body) {
    while let Some(Ok(_)) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {}
}
