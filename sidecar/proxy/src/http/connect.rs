//! CONNECT that ends here (RFC 9110, 9.3.6), and what upgrades over HTTP/2 lack on their way to HTTP/1.1.

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use sidecar_balance::Outcome;
use sidecar_http::{Body, Prefixed};

use super::attempt::Forwarding;
use super::failure::Failure;
use super::record::Record;
use super::respond::Shape;
use super::router::Answer;
use crate::config::ClusterPlan;
use crate::pool::open_tcp;
use crate::target::{self, Wanted};
use crate::worker::Worker;

/// `sec-websocket-key`
const WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// Opens a connection of bytes to an endpoint and answers 200: from then on the client speaks with it.
pub(super) async fn terminate(
    cx: &Forwarding<'_>,
    plan: &Arc<ClusterPlan>,
    parts: &Parts,
    hash: Option<u64>,
    record: &mut Record,
) -> Result<Answer, Failure> {
    let down = &cx.connection.down;
    let worker = &down.worker;
    let pick = target::pick(&Wanted {
        worker,
        plan,
        local: down.local,
        client: down.peer,
        headers: Some(&parts.headers),
        hash,
        previous: &[],
        excluded: &[],
        metadata: cx.chosen.endpoint_metadata(),
        high_priority: cx.action.high_priority,
    });
    let Some(pick) = pick else { return Err(Failure::NoHealthyUpstream) };
    record.attempts += 1;
    record.host = Some(pick.target.address);
    record.destination = plan.workload(pick.target.address).map(Arc::clone);
    let opened = match open_tcp(worker, &pick.target).await {
        None => return Err(Failure::Overflow),
        Some(opened) => opened,
    };
    let outcome = if opened.is_ok() { Outcome::Connected } else { Outcome::LocalFailure };
    target::report(worker, plan, pick.host.as_ref(), outcome);
    let connected = opened.map_err(Failure::Connect)?;
    record.upstream = Some(Rc::new(connected.info));
    record.details = "via_upstream".into();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let shape = Shape { connection: cx.connection, plan: cx.plan };
    let response = shape.routed(response, cx.chosen, &parts.headers, record);
    let response = shape.upstream(response, record, cx.afterwards);
    Ok(Answer { upgraded: Some(Prefixed::new(BytesMut::new(), connected.io)), ..response.into() })
}

/// A WebSocket over HTTP/2 has no key (RFC 8441, 5), which a server of HTTP/1.1 insists on.
pub(super) fn complete(parts: &mut Parts, worker: &Worker) {
    let websocket = parts
        .headers
        .get(header::UPGRADE)
        .is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if websocket && !parts.headers.contains_key(WEBSOCKET_KEY) {
        let random = [worker.random().to_be_bytes(), worker.random().to_be_bytes()].concat();
        if let Ok(key) = HeaderValue::try_from(STANDARD.encode(random)) {
            parts.headers.insert(WEBSOCKET_KEY, key);
        }
    }
}
