//! Forwarding: endpoint, connection, response; again when that fails and the route wants it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body as _;
use sidecar_balance::{Host, Outcome};
use sidecar_http::{Body, SendError, buffer};
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::listener::Direction;
use sidecar_model::{Address, RouteAction};
use sidecar_route::{HashOutcome, hash};
use sidecar_telemetry::Flag;
use sidecar_telemetry::peer::{PEER_METADATA, PEER_METADATA_ID};
use tokio::time::Sleep;

use super::failure::Failure;
use super::filters::Afterwards;
use super::grpc;
use super::prepare::FORWARDED_PROTO;
use super::record::{Busy, Record};
use super::replay::Replay;
use super::respond::{ATTEMPT_COUNT, SERVICE_TIME, Shape};
use super::retry::Retries;
use super::rewrite::{Limits, Switch, rewrite, rewrite_host, switch, tell_timeout, timeout};
use super::router::{Answer, Chosen, view};
use super::still::{Lively, Stillness};
use super::stream::Clocks;
use super::timed::Timed;
use super::{Connection, connect, mirror, reply};
use crate::config::{ClusterPlan, Config, HcmPlan};
use crate::pool::{PoolError, Protocol, Ready, Target, UpstreamInfo, thresholds};
use crate::target::{self, Pick, Wanted};
use crate::usage::Totals;
use crate::worker::Worker;

/// Times that a request is sent again because a kept connection turned out closed.
const STALE_MAX: u32 = 3;

/// Everything that forwarding a request depends on.
pub(super) struct Forwarding<'a> {
    pub(super) connection: &'a Connection,
    pub(super) config: &'a Config,
    pub(super) plan: &'a HcmPlan,
    /// What bounds the stream already.
    pub(super) clocks: Option<&'a Clocks>,
    pub(super) chosen: &'a Chosen,
    pub(super) action: &'a RouteAction,
    pub(super) afterwards: &'a Afterwards,
}

/// The route's time, which begins when the request has arrived.
struct Clock {
    timeout: Option<Duration>,
    body: Option<Replay>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timeout) = self.timeout else { return Poll::Pending };
        if self.sleep.is_none() && self.body.as_ref().is_none_or(Replay::is_ended) {
            self.sleep = Some(Box::pin(tokio::time::sleep(timeout)));
        }
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// A response, and the connection it came on.
struct Got {
    response: Response<Body>,
    info: Rc<UpstreamInfo>,
}

/// An attempt without a response.
struct Tried {
    failure: Failure,
    reused: bool,
    info: Option<Rc<UpstreamInfo>>,
}

/// Forwards a request.
pub(super) async fn forward(
    cx: &Forwarding<'_>,
    parts: &mut Parts,
    body: Body,
    record: &mut Record,
) -> Answer {
    let shape = Shape { connection: cx.connection, plan: cx.plan };
    let outcome = begin(cx, parts, body, record).await;
    match outcome {
        Ok(answer) => {
            // Nothing reads the request's headers any more: the next message takes their memory.
            buffer::give_map(std::mem::take(&mut parts.headers));
            answer
        }
        Err(failure) => {
            let mut response = reply::failed(&failure, record);
            record.capture_request(&parts.uri, &parts.headers);
            let tried = !matches!(failure, Failure::NoCluster(_) | Failure::UpgradeDenied);
            response = shape.routed(response, cx.chosen, &parts.headers, record);
            if cx.chosen.host.include_attempt_count_in_response && tried {
                response
                    .headers_mut()
                    .insert(ATTEMPT_COUNT, sidecar_http::headers::number(u64::from(record.attempts.max(1))));
            }
            shape.local(response, record, Some(cx.afterwards)).into()
        }
    }
}

async fn begin(
    cx: &Forwarding<'_>,
    parts: &mut Parts,
    mut body: Body,
    record: &mut Record,
) -> Result<Answer, Failure> {
    let Some(name) = &cx.chosen.cluster else { return Err(Failure::NoCluster(cx.action.cluster_not_found)) };
    let Some(plan) = cx.config.clusters.get(name) else {
        record.missing_cluster = Some(Arc::clone(name));
        return Err(Failure::NoCluster(cx.action.cluster_not_found));
    };
    record.cluster = Some(Arc::clone(plan));
    let switch = switch(cx, parts);
    if switch == Switch::Denied {
        return Err(Failure::UpgradeDenied);
    }
    if drops(plan, &cx.connection.down.worker) {
        Totals::inc(&plan.usage.totals.upstream_rq_drop_overload);
        return Err(Failure::DropOverload);
    }
    let breakers = &plan.cluster.circuit_breakers;
    let limits = if cx.action.high_priority { &breakers.high } else { &breakers.default };
    let Some(permit) = plan.usage.request(limits.max_requests) else {
        Totals::inc(&plan.usage.totals.upstream_rq_pending_overflow);
        return Err(Failure::Overflow);
    };
    record.holds.request = Some(permit);
    let policy = cx.action.retry.as_ref().or(cx.chosen.host.retry.as_ref());
    let timeout = timeout(cx, parts, record);
    let per_try = policy.and_then(|policy| policy.per_try_timeout).filter(|limit| !limit.is_zero());
    let clocks = match cx.clocks {
        Some(clocks) => {
            clocks.route(cx.action);
            None
        }
        None => Clocks::of_route(cx.action, &mut body),
    };
    rewrite(cx, parts, record, Limits { attempt: per_try, whole: timeout });
    // Whether a request is one to try again is judged by what is sent.
    let retries = Retries::new(policy, &view(parts, record));
    let hashed = cx.chosen.seed.map_or_else(HashOutcome::default, |seed| {
        hash(&cx.action.hash_policy, &view(parts, record), record.remote.ip(), seed)
    });
    if switch == Switch::Terminate {
        record.capture_request(&parts.uri, &parts.headers);
        return connect::terminate(cx, plan, parts, hashed.hash, record).await;
    }
    if parts.version == Version::HTTP_2 && switch == Switch::Forward {
        connect::complete(parts, &cx.connection.down.worker);
    }
    let body = if body.is_end_stream() {
        None
    } else {
        record.received = Some(body.count());
        if record.grpc {
            body = Body::wrap(grpc::Counted::new(body, &record.request_messages, None));
        }
        Some(Replay::new(body, Some(Rc::clone(&cx.connection.down.worker))))
    };
    mirror::start(cx, parts, body.as_ref(), record);
    record.capture_request(&parts.uri, &parts.headers);
    let clock = Clock { timeout, body: body.clone(), sleep: None };
    let exchange = Exchange {
        cx,
        plan,
        parts,
        body,
        retries,
        clock,
        per_try,
        hash: hashed.hash,
        upgrade: switch == Switch::Forward,
    };
    let mut answer = match clocks {
        None => exchange.run(record).await?,
        Some(clocks) => {
            let answer = clocks.within(exchange.run(record)).await??;
            Answer { clocks: Some(clocks), ..answer }
        }
    };
    if let Some(cookie) = hashed.cookie
        && let Ok(value) = HeaderValue::try_from(cookie.set_cookie)
    {
        answer.response.headers_mut().append(header::SET_COOKIE, value);
    }
    Ok(answer)
}

/// Whether chance makes the request one of those that the control plane wants dropped.
fn drops(plan: &ClusterPlan, worker: &Worker) -> bool {
    let shares = plan.endpoints.as_ref().map_or(&[][..], |endpoints| &endpoints.drop_overloads);
    shares.iter().any(|(_, share)| share.hit(worker.random()))
}

/// Where a request was sent in vain.
#[derive(Default)]
struct Tries {
    hosts: Vec<Address>,
    priorities: Vec<u32>,
    /// Priorities that are avoided now.
    excluded: Vec<u32>,
}

impl Tries {
    fn add(&mut self, host: &Host, retries: &Retries) {
        if retries.avoids_previous() {
            self.hosts.push(host.endpoint.address.clone());
        }
        if let Some(frequency) = retries.avoids_priorities() {
            self.priorities.push(host.priority);
            if self.priorities.len().is_multiple_of(frequency as usize) {
                self.excluded.clone_from(&self.priorities);
            }
        }
    }
}

/// One request on its way to a cluster.
struct Exchange<'a> {
    cx: &'a Forwarding<'a>,
    plan: &'a Arc<ClusterPlan>,
    parts: &'a mut Parts,
    body: Option<Replay>,
    retries: Option<Retries>,
    clock: Clock,
    per_try: Option<Duration>,
    hash: Option<u64>,
    upgrade: bool,
}

impl Exchange<'_> {
    async fn run(mut self, record: &mut Record) -> Result<Answer, Failure> {
        let worker = Rc::clone(&self.cx.connection.down.worker);
        let totals = &self.plan.usage.totals;
        let mut tried = Tries::default();
        let mut stale = 0;
        loop {
            let Some(pick) = self.pick(&tried) else { return Err(Failure::NoHealthyUpstream) };
            record.attempts += 1;
            record.host = Some(pick.target.address);
            record.holds.host = pick.host.as_ref().map(|host| Busy::new(&host.state));
            self.address(&pick, record);
            Totals::inc(&totals.upstream_rq_total);
            let begun = Instant::now();
            let outcome = self.within_time(&pick.target).await;
            let host = pick.host.as_ref();
            match outcome {
                Ok(got) => {
                    target::observe(&worker, self.plan, host, Some(begun.elapsed()));
                    self.report(host, status_outcome(&got.response));
                    totals.status(got.response.status().as_u16());
                    let wanted = self
                        .retries
                        .as_mut()
                        .is_some_and(|retries| retries.wants_after_response(&got.response));
                    if wanted && self.may_retry(record) {
                        drop(got);
                    } else {
                        return Ok(self.finish(got, begun.elapsed(), record));
                    }
                }
                Err(Tried { failure, reused, info }) => {
                    let begun = info.is_some();
                    if begun {
                        record.upstream = info;
                    }
                    if reused && stale < STALE_MAX && self.is_stale(&failure) {
                        stale += 1;
                        record.attempts -= 1;
                        continue;
                    }
                    if !matches!(failure, Failure::Overflow | Failure::DownstreamBody) {
                        target::observe(&worker, self.plan, host, None);
                        self.report(host, Outcome::LocalFailure);
                        totals.status(503);
                    }
                    match failure {
                        Failure::Timeout => Totals::inc(&totals.upstream_rq_timeout),
                        Failure::PerTryTimeout | Failure::PerTryIdleTimeout => {
                            Totals::inc(&totals.upstream_rq_per_try_timeout)
                        }
                        _ => {}
                    }
                    let wanted = self
                        .retries
                        .as_ref()
                        .is_some_and(|retries| retries.wants_after_failure(&failure, begun, reused));
                    if !wanted || !self.may_retry(record) {
                        return Err(failure);
                    }
                }
            }
            if let (Some(host), Some(retries)) = (host, &self.retries) {
                tried.add(host, retries);
            }
            let random = worker.random() as f64 / u64::MAX as f64;
            let pause = self.retries.as_mut().map_or(Duration::ZERO, |retries| retries.pause(random));
            self.sleep(pause).await?;
        }
    }

    fn pick(&self, tried: &Tries) -> Option<Pick> {
        let down = &self.cx.connection.down;
        target::pick(&Wanted {
            worker: &down.worker,
            plan: self.plan,
            local: down.local,
            client: down.peer,
            headers: Some(&self.parts.headers),
            hash: self.hash,
            previous: &tried.hosts,
            excluded: &tried.excluded,
            metadata: self.cx.chosen.endpoint_metadata(),
            high_priority: self.cx.action.high_priority,
        })
    }

    /// Writes into the request what depends on the attempt and its endpoint.
    fn address(&mut self, pick: &Pick, record: &mut Record) {
        let cx = self.cx;
        let node = &cx.connection.down.worker.shared.node;
        if let Some(host) = pick.host.as_ref().filter(|host| !host.endpoint.hostname.is_empty()) {
            rewrite_host(cx, self.parts, record, &host.endpoint.hostname);
        }
        if cx.chosen.host.include_request_attempt_count && record.attempts > 1 {
            self.parts
                .headers
                .insert(ATTEMPT_COUNT, sidecar_http::headers::number(u64::from(record.attempts)));
        }
        if record.attempts > 1 && !cx.plan.hcm.suppresses_envoy_headers() {
            let limits = Limits { attempt: self.per_try, whole: self.clock.timeout };
            tell_timeout(self.parts, limits, record.begun.elapsed());
        }
        if cx.connection.down.listener.listener.direction == Direction::Inbound {
            return;
        }
        record.destination = self.plan.workload(pick.target.address).map(Arc::clone);
        if pick.target.workload.is_some() || pick.target.tls.as_ref().is_some_and(|slot| slot.mutual) {
            self.parts.headers.insert(PEER_METADATA, node.metadata.clone());
            if record.destination.is_none() {
                // Only then must the answer say who gave it.
                self.parts.headers.insert(PEER_METADATA_ID, node.metadata_id.clone());
            }
        }
    }

    /// One attempt, within its own time and the route's.
    async fn within_time(&mut self, target: &Target) -> Result<Got, Tried> {
        let timed = |failure| Tried { failure, reused: false, info: None };
        let protocol = self.protocol();
        let body = self.body.as_ref().map_or_else(Body::empty, Replay::reader);
        let (worker, parts) = (&self.cx.connection.down.worker, &*self.parts);
        let mut attempt = pin!(attempt(worker, target, protocol, parts, body));
        let mut per_try = self.per_try.map(|limit| Box::pin(tokio::time::sleep(limit)));
        let idle = self.retries.as_ref().and_then(Retries::per_try_idle_timeout);
        let mut stillness = idle.map(|limit| Stillness::new(limit, self.body.clone()));
        let clock = &mut self.clock;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = attempt.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            if clock.poll(cx).is_ready() {
                return Poll::Ready(Err(timed(Failure::Timeout)));
            }
            if stillness.as_mut().is_some_and(|stillness| stillness.poll(cx).is_ready()) {
                return Poll::Ready(Err(timed(Failure::PerTryIdleTimeout)));
            }
            match per_try.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(Err(timed(Failure::PerTryTimeout))),
                _ => Poll::Pending,
            }
        })
        .await
    }

    fn protocol(&self) -> Protocol {
        if self.upgrade {
            return Protocol::Http1;
        }
        match self.plan.cluster.http.protocol {
            UpstreamProtocol::Http2 => Protocol::Http2,
            UpstreamProtocol::UseDownstream if self.parts.version == Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http1,
        }
    }

    /// Whether the failure is that of a kept connection the upstream had closed, and the request may be sent again.
    fn is_stale(&self, failure: &Failure) -> bool {
        let idempotent = matches!(
            self.parts.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
        );
        let unprocessed = matches!(failure, Failure::RefusedStream);
        let closed = matches!(failure, Failure::ConnectionTermination);
        (unprocessed || (closed && idempotent)) && self.body.as_ref().is_none_or(Replay::is_whole)
    }

    /// Takes leave for a retry: one must be left, the body must still be whole, and the cluster must bear it.
    fn may_retry(&mut self, record: &mut Record) -> bool {
        if !self.body.as_ref().is_none_or(Replay::is_whole) {
            return false;
        }
        let Some(retries) = &mut self.retries else { return false };
        if !retries.take() {
            if record.attempts > 1 {
                record.flags.insert(Flag::UpstreamRetryLimitExceeded);
            }
            return false;
        }
        let totals = &self.plan.usage.totals;
        let breakers = &self.plan.cluster.circuit_breakers;
        let limits = if self.cx.action.high_priority { &breakers.high } else { &breakers.default };
        record.holds.retry = None;
        let Some(permit) = self.plan.usage.retry(limits) else {
            Totals::inc(&totals.upstream_rq_retry_overflow);
            record.flags.insert(Flag::UpstreamOverflow);
            return false;
        };
        record.holds.retry = Some(permit);
        Totals::inc(&totals.upstream_rq_retry);
        true
    }

    async fn sleep(&mut self, pause: Duration) -> Result<(), Failure> {
        let clock = &mut self.clock;
        let mut pause = pin!(tokio::time::sleep(pause));
        poll_fn(|cx| {
            if clock.poll(cx).is_ready() {
                return Poll::Ready(Err(Failure::Timeout));
            }
            pause.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    fn report(&self, host: Option<&Host>, outcome: Outcome) {
        target::report(&self.cx.connection.down.worker, self.plan, host, outcome);
    }

    /// The response as the client gets it.
    fn finish(mut self, got: Got, took: Duration, record: &mut Record) -> Answer {
        let Got { mut response, info } = got;
        record.upstream = Some(info);
        record.details = "via_upstream".into();
        if response.status().is_server_error() {
            // Remembered failures say which path it was, also where nobody logs.
            record.path = self.parts.uri.clone();
        }
        if let Some(body) = self.body.as_ref().filter(|_| !mirror::wanted(self.cx)) {
            body.release();
        }
        if record.attempts > 1 && response.status().as_u16() < 500 {
            Totals::inc(&self.plan.usage.totals.upstream_rq_retry_success);
        }
        let upgraded = response.body_mut().take_upgrade();
        if record.grpc {
            record.grpc_status.set(grpc::status(response.headers()));
            let (parts, body) = response.into_parts();
            let counted = grpc::Counted::new(body, &record.response_messages, Some(&record.grpc_status));
            response = Response::from_parts(parts, Body::wrap(counted));
        }
        if let Some(sleep) = self.clock.sleep.take()
            && !response.body().is_end_stream()
            && upgraded.is_none()
        {
            let (parts, body) = response.into_parts();
            response = Response::from_parts(parts, Body::wrap(Timed::new(body, sleep)));
        }
        if let Some(limit) = self.retries.as_ref().and_then(Retries::per_try_idle_timeout)
            && !response.body().is_end_stream()
            && upgraded.is_none()
        {
            let (parts, body) = response.into_parts();
            response = Response::from_parts(parts, Body::wrap(Lively::new(body, limit)));
        }
        let headers = response.headers_mut();
        if !self.cx.plan.hcm.suppresses_envoy_headers() {
            let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            headers.insert(SERVICE_TIME, sidecar_http::headers::number(took));
        }
        let shape = Shape { connection: self.cx.connection, plan: self.cx.plan };
        record.code = response.status().as_u16();
        let mut response = shape.routed(response, self.cx.chosen, &self.parts.headers, record);
        if self.cx.chosen.host.include_attempt_count_in_response {
            response
                .headers_mut()
                .insert(ATTEMPT_COUNT, sidecar_http::headers::number(u64::from(record.attempts)));
        }
        Answer { upgraded, ..shape.upstream(response, record, self.cx.afterwards).into() }
    }
}

/// How outlier detection counts a response; a gRPC status as the HTTP status it stands for.
fn status_outcome(response: &Response<Body>) -> Outcome {
    if response.status() == StatusCode::OK
        && let Some(status) = grpc::status(response.headers())
    {
        return Outcome::Status(match status {
            0 => 200,
            4 => 504,
            8 => 429,
            12 => 501,
            14 => 503,
            2 | 13 | 15 => 500,
            _ => 400,
        });
    }
    Outcome::Status(response.status().as_u16())
}

/// Gets a connection and sends the request on it.
pub(super) async fn send(
    worker: &Worker,
    target: &Target,
    protocol: Protocol,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>, Failure> {
    attempt(worker, target, protocol, parts, body)
        .await
        .map(|got| got.response)
        .map_err(|tried| tried.failure)
}

/// The same for a request of our own, which may be sent again when a kept connection turns out closed.
pub(super) async fn send_fresh(
    worker: &Worker,
    target: &Target,
    protocol: Protocol,
    parts: &Parts,
    body: &Bytes,
) -> Result<Response<Body>, Failure> {
    let mut stale = 0;
    loop {
        match attempt(worker, target, protocol, parts, Body::full(body.clone())).await {
            Ok(got) => return Ok(got.response),
            Err(tried) if tried.reused && stale < STALE_MAX => stale += 1,
            Err(tried) => return Err(tried.failure),
        }
    }
}

async fn attempt(
    worker: &Worker,
    target: &Target,
    protocol: Protocol,
    parts: &Parts,
    body: Body,
) -> Result<Got, Tried> {
    let ready = worker.pools.get(worker, target, protocol).await.map_err(|error| {
        let failure = match error {
            PoolError::Overflow => Failure::Overflow,
            PoolError::Connect(error) => Failure::Connect(error),
        };
        Tried { failure, reused: false, info: None }
    })?;
    let (outcome, info, reused) = match ready {
        Ready::Http1 { connection, info, returner, reused } => {
            (connection.send(parts, body, Some(returner)).await, info, reused)
        }
        Ready::Http2 { client, info, reused } => {
            // What the client sees, as far as it is known.
            let https = match parts.headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes) {
                Some(b"https") => true,
                Some(b"http") => false,
                _ => info.tls,
            };
            (client.send(parts, body, https).await, info, reused)
        }
    };
    outcome.map(|response| Got { response, info: Rc::clone(&info) }).map_err(|error| {
        let reused = reused && error.is_before_response();
        if let SendError::Reset(cause) = &error {
            tracing::debug!(%cause, "Upstream reset a stream");
        }
        Tried { failure: error.into(), reused, info: Some(info) }
    })
}

/// The limits that hold for a target: used by mirrors, which bring no request of their own to count.
pub(super) fn mirror_permit(target: &Target) -> Option<crate::usage::Permit> {
    target.plan.usage.request(thresholds(target).max_requests)
}
