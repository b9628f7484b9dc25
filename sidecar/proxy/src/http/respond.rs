//! The last touches on every response, and the tunnel after an upgrade.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Response, header};
use sidecar_http::serve::Upgrade;
use sidecar_http::tunnel::{self, Ended};
use sidecar_http::{Abort, Body, ByteCount, Finish, Outcome, Upgraded};
use sidecar_model::Action;
use sidecar_model::hcm::ServerHeader;
use sidecar_model::listener::Direction;
use sidecar_telemetry::Flag;
use sidecar_telemetry::peer::{PEER_METADATA, PEER_METADATA_ID};
use sidecar_telemetry::trace::REQUEST_ID;

use super::filters::Afterwards;
use super::mutate::{self, Side};
use super::prepare::{DECORATOR, append};
use super::record::Record;
use super::router::Chosen;
use super::{Connection, ext_authz, stream};
use crate::config::HcmPlan;
use crate::stats::Tunnel;

/// `x-envoy-upstream-service-time`
pub(super) const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// `x-envoy-attempt-count`
pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// How responses of one connection manager look.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) connection: &'a Connection,
    pub(super) plan: &'a HcmPlan,
}

impl Shape<'_> {
    /// Finishes a response that was made here.
    pub(super) fn local(
        self,
        mut response: Response<Body>,
        record: &mut Record,
        afterwards: Option<&Afterwards>,
    ) -> Response<Body> {
        if self.plan.hcm.server_header != ServerHeader::PassThrough {
            response.headers_mut().insert(header::SERVER, self.plan.server.clone());
        }
        self.last(&mut response, record, afterwards);
        translated(response, afterwards)
    }

    /// Finishes a response that came from an upstream.
    pub(super) fn upstream(
        self,
        mut response: Response<Body>,
        record: &mut Record,
        afterwards: &Afterwards,
    ) -> Response<Body> {
        let headers = response.headers_mut();
        match self.plan.hcm.server_header {
            ServerHeader::PassThrough => {}
            ServerHeader::AppendIfAbsent if headers.contains_key(header::SERVER) => {}
            ServerHeader::AppendIfAbsent | ServerHeader::Overwrite => {
                headers.insert(header::SERVER, self.plan.server.clone());
            }
        }
        headers.remove(DECORATOR);
        self.last(&mut response, record, Some(afterwards));
        translated(response, Some(afterwards))
    }

    fn last(self, response: &mut Response<Body>, record: &mut Record, afterwards: Option<&Afterwards>) {
        let down = &self.connection.down;
        let node = &down.worker.shared.node;
        let headers = response.headers_mut();
        if let Some(afterwards) = afterwards {
            for (name, value) in &afterwards.headers {
                headers.insert(name.clone(), value.clone());
            }
            ext_authz::change(&afterwards.changes, headers);
            let none = HeaderMap::new();
            for mutation in &afterwards.mutations {
                mutate::apply(&mutation.response, headers, record, &Side::Response(&none));
            }
        }
        if down.listener.listener.direction == Direction::Inbound {
            if record.wants_metadata {
                headers.insert(PEER_METADATA, node.metadata.clone());
                headers.insert(PEER_METADATA_ID, node.metadata_id.clone());
            }
        } else if let Some(metadata) = headers.remove(PEER_METADATA) {
            headers.remove(PEER_METADATA_ID);
            if record.destination.is_none() {
                record.destination = Some(self.connection.peer(&metadata));
            }
        }
        if !self.plan.hcm.via.is_empty() {
            append(headers, &header::VIA, ", ", &self.plan.hcm.via);
        }
    }

    /// An answer given before the route had its turn: a forwarding route changes it as it would change a response.
    pub(super) fn refused(
        self,
        response: Response<Body>,
        chosen: &Chosen,
        request: &HeaderMap,
        record: &Record,
    ) -> Response<Body> {
        match chosen.route.action {
            Action::Forward(_) => self.routed(response, chosen, request, record),
            _ => response,
        }
    }

    /// Applies what routes and hosts change about responses.
    pub(super) fn routed(
        self,
        mut response: Response<Body>,
        chosen: &Chosen,
        request: &HeaderMap,
        record: &Record,
    ) -> Response<Body> {
        let side = Side::Response(request);
        let headers = response.headers_mut();
        for ops in levels(chosen, Which::Response) {
            mutate::apply(ops, headers, record, &side);
        }
        if self.plan.hcm.always_set_request_id_in_response
            && let Some(id) = request.get(REQUEST_ID)
        {
            headers.insert(REQUEST_ID, id.clone());
        }
        response
    }
}

/// The response in the protocol that the client speaks.
fn translated(response: Response<Body>, afterwards: Option<&Afterwards>) -> Response<Body> {
    match afterwards.and_then(|afterwards| afterwards.grpc_web) {
        Some(call) => call.response(response),
        None => response,
    }
}

/// Which headers are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Request,
    Response,
}

/// The header changes of cluster, route, host and configuration, in the order in which they apply.
pub(super) fn levels(chosen: &Chosen, which: Which) -> Vec<&sidecar_model::HeaderOps> {
    let config = chosen.config();
    let request = which == Which::Request;
    let weighted = chosen.weighted();
    let mut levels = Vec::new();
    levels.push(if request { &chosen.route.request_headers } else { &chosen.route.response_headers });
    levels.push(if request { &chosen.host.request_headers } else { &chosen.host.response_headers });
    levels.push(if request { &config.request_headers } else { &config.response_headers });
    levels.retain(|ops| !ops.is_empty());
    if config.most_specific_header_mutations_wins {
        levels.reverse();
    }
    // What a weighted entry changes comes first in any case.
    let entry = weighted.map(|one| if request { &one.request_headers } else { &one.response_headers });
    if let Some(entry) = entry.filter(|ops| !ops.is_empty()) {
        levels.insert(0, entry);
    }
    levels
}

/// Joins both ends of an upgraded connection and reports when it ends: by itself, after being still for `idle` (zero: any time), when
/// the stream's time is over, or when the configuration takes no such connection any more.
pub(super) fn tunnel(
    upstream: Upgraded,
    record: Box<Record>,
    idle: Duration,
    left: Option<Duration>,
) -> Upgrade {
    Box::new(move |client: Upgraded| {
        Box::pin(async move {
            let (sent, received) = (ByteCount::default(), ByteCount::default());
            let mut record = record;
            record.received = Some(sent.clone());
            let down = std::rc::Rc::clone(&record.down);
            let _counted = Tunnel::open(&down.worker.shared);
            let joined = tunnel::join(client, upstream, idle, &sent, &received);
            let ended = tokio::select! {
                biased;
                ended = joined => Some(ended),
                () = down.orphaned() => None,
                () = stream::after(left) => {
                    record.details = "max_duration_timeout".into();
                    None
                }
            };
            if let Some(Ended::Idle) = &ended {
                record.flags.insert(Flag::StreamIdleTimeout);
                record.details = "stream_idle_timeout".into();
            }
            let abort = matches!(ended, Some(Ended::Downstream(_))).then_some(Abort::Downstream);
            record.finish(Outcome { body_bytes: received.total(), abort });
        })
    })
}
