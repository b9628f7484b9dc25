//! What becomes of one request, gathered while it runs and reported when it ends, however it ends.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use serde_json::{Map, Value};
use sidecar_balance::HostState;
use sidecar_http::{Abort, Body, BodyError, ByteCount, Finish, Outcome, ParseError};
use sidecar_model::listener::Direction;
use sidecar_model::{Metadata, Route, VirtualHost};
use sidecar_telemetry::log::{Captured, Loggers};
use sidecar_telemetry::{
    Entry, Flag, Flags, GrpcStatus, HttpKey, Reporter, RequestProtocol, SecurityPolicy, Service, Workload,
    labels, tap, trace,
};

use super::Connection;
use super::stream::Expired;
use super::timed::TIMEOUT;
use super::trace::{End, Trace};
use crate::config::{ClusterPlan, HcmPlan};
use crate::listen::Downstream;
use crate::pool::UpstreamInfo;
use crate::shared::NodeKind;
use crate::stats::HttpStats;
use crate::usage::Permit;
use crate::worker::Worker;

/// One request.
pub(super) struct Record {
    pub(super) down: Rc<Downstream>,
    stats: HttpStats,
    loggers: Arc<Loggers>,
    pub(super) begun: Instant,
    wall: SystemTime,
    method: Method,
    version: Version,
    pub(super) path: Uri,
    pub(super) authority: HeaderValue,
    pub(super) scheme: &'static str,
    pub(super) remote: SocketAddr,
    pub(super) grpc: bool,
    pub(super) code: u16,
    pub(super) flags: Flags,
    pub(super) details: Cow<'static, str>,
    pub(super) transport_failure: String,
    request: Captured,
    response: Captured,
    trace_id: Option<Box<str>>,
    pub(super) received: Option<ByteCount>,
    pub(super) grpc_status: Rc<Cell<Option<u16>>>,
    pub(super) request_messages: Rc<Cell<u64>>,
    pub(super) response_messages: Rc<Cell<u64>>,
    pub(super) host: Option<SocketAddr>,
    pub(super) upstream: Option<Rc<UpstreamInfo>>,
    pub(super) cluster: Option<Arc<ClusterPlan>>,
    /// Name of a cluster that is not there.
    pub(super) missing_cluster: Option<Arc<str>>,
    pub(super) route: Option<(Arc<VirtualHost>, Arc<Route>)>,
    pub(super) attempts: u32,
    first_byte: Option<Instant>,
    pub(super) source: Option<Arc<Workload>>,
    pub(super) destination: Option<Arc<Workload>>,
    /// The client wants to know who answers.
    pub(super) wants_metadata: bool,
    /// What filters found out, such as the claims of a token.
    pub(super) metadata: Option<Metadata>,
    pub(super) holds: Holds,
    /// Its span, when it is sampled.
    pub(super) trace: Option<Box<Trace>>,
    request_id: RequestId,
    /// Headers of both messages, when somebody watches.
    watched: Option<Box<[Map<String, Value>; 2]>>,
    reported: bool,
}

/// What is counted of a gRPC exchange while its bodies pass.
#[derive(Default, Clone)]
struct Messages {
    status: Rc<Cell<Option<u16>>>,
    request: Rc<Cell<u64>>,
    response: Rc<Cell<u64>>,
}

thread_local! {
    /// Stands in where nothing is counted: only gRPC's bodies write to theirs.
    static UNCOUNTED: Messages = Messages::default();
}

/// What a request holds until it has ended.
#[derive(Default)]
pub(super) struct Holds {
    pub(super) request: Option<Permit>,
    pub(super) retry: Option<Permit>,
    pub(super) host: Option<Busy>,
}

/// An endpoint that is busy with the request.
pub(super) struct Busy(Arc<HostState>);

impl Busy {
    pub(super) fn new(state: &Arc<HostState>) -> Self {
        state.begin();
        Self(Arc::clone(state))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Record {
    pub(super) fn new(connection: &Connection, plan: &HcmPlan, request: &Request<Body>) -> Box<Self> {
        let down = Rc::clone(&connection.down);
        let grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| super::grpc::is_grpc(kind.as_bytes()));
        let host = request.headers().get(header::HOST).cloned();
        let remote = down.peer;
        let Messages { status: grpc_status, request: request_messages, response: response_messages } =
            if grpc { Messages::default() } else { UNCOUNTED.with(Messages::clone) };
        Box::new(Self {
            stats: connection.stats.clone(),
            loggers: Arc::clone(&plan.loggers),
            begun: Instant::now(),
            wall: if plan.loggers.is_empty() { SystemTime::UNIX_EPOCH } else { SystemTime::now() },
            method: request.method().clone(),
            version: request.version(),
            path: Uri::default(),
            authority: host.unwrap_or_else(|| HeaderValue::from_static("")),
            scheme: if down.tls.is_some() { "https" } else { "http" },
            remote,
            grpc,
            code: 0,
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            transport_failure: String::new(),
            request: Captured::default(),
            response: Captured::default(),
            trace_id: None,
            received: None,
            grpc_status,
            request_messages,
            response_messages,
            host: None,
            upstream: None,
            cluster: None,
            missing_cluster: None,
            route: None,
            attempts: 0,
            first_byte: None,
            source: None,
            destination: None,
            wants_metadata: false,
            metadata: None,
            holds: Holds::default(),
            trace: None,
            request_id: RequestId::NONE,
            watched: None,
            reported: false,
            down,
        })
    }

    /// Reports a message that was no request.
    pub(super) fn refused(connection: &Connection, plan: &HcmPlan, error: ParseError) {
        let mut record = Self::new(connection, plan, &Request::new(Body::empty()));
        record.code = error.status().as_u16();
        record.flags.insert(Flag::DownstreamProtocolError);
        record.details = Cow::Owned(format!("http1.codec_error{{{}}}", error.to_string().replace(' ', "_")));
        record.report(&Outcome::default());
    }

    /// Keeps what logs will ask of the request, as it is forwarded.
    pub(super) fn capture_request(&mut self, path: &Uri, headers: &HeaderMap) {
        self.request_id = RequestId::of(headers);
        let watched = self.down.worker.shared.tap.is_on();
        if watched {
            self.watched = Some(Box::new([tap::shown(headers), Map::new()]));
        }
        // What has failed already is remembered whether or not anybody logs.
        if watched || !self.flags.is_empty() || !self.loggers.is_empty() {
            self.path = path.clone();
        }
        if self.loggers.is_empty() {
            return;
        }
        self.request = Captured::new(&self.loggers.request_headers, headers);
        self.trace_id = trace::trace_id(headers).map(Into::into);
    }

    /// The response's head is there.
    pub(super) fn capture_response(&mut self, code: u16, headers: &HeaderMap) {
        self.code = code;
        if let Some(watched) = &mut self.watched {
            watched[1] = tap::shown(headers);
        }
        if !self.loggers.is_empty() {
            self.first_byte = Some(Instant::now());
            self.response = Captured::new(&self.loggers.response_headers, headers);
        }
    }

    fn report(&mut self, outcome: &Outcome) {
        self.reported = true;
        match &outcome.abort {
            None => {}
            Some(Abort::Downstream) => self.downstream_gone(),
            Some(Abort::Body(BodyError::GivenUp(TIMEOUT))) => {
                self.flags.insert(Flag::UpstreamRequestTimeout);
                self.details = Cow::Borrowed("response_timeout");
            }
            Some(Abort::Body(BodyError::GivenUp(text))) if *text == Expired::Idle.text() => {
                self.flags.insert(Flag::StreamIdleTimeout);
                self.details = Cow::Borrowed("stream_idle_timeout");
            }
            Some(Abort::Body(BodyError::GivenUp(text))) if *text == Expired::Duration.text() => {
                self.details = Cow::Borrowed("max_duration_timeout");
            }
            Some(Abort::Body(BodyError::GivenUp(text))) if *text == Expired::Request.text() => {
                self.details = Cow::Borrowed("request_overall_timeout");
            }
            Some(Abort::Body(_)) => {
                self.flags.insert(Flag::UpstreamConnectionTermination);
                self.details = Cow::Borrowed("upstream_reset_after_response_started{connection_termination}");
            }
        }
        self.stats.ended(self.code);
        let duration = self.begun.elapsed();
        let received = self.received.as_ref().map_or(0, ByteCount::total);
        let series = self.down.worker.metrics.http(self.key());
        series.record(duration, received, outcome.body_bytes);
        if self.grpc {
            series.record_messages(self.request_messages.get(), self.response_messages.get());
        }
        if let Some(trace) = self.trace.take() {
            let (sent, flags) = (outcome.body_bytes, self.flags);
            trace.end(&End { record: self, duration, received, sent, flags });
        }
        if !self.loggers.is_empty() {
            self.log(duration, received, outcome.body_bytes);
        }
        let failed = self.code == 0 || self.code >= 400 || !self.flags.is_empty();
        if failed || self.down.worker.shared.tap.is_on() {
            self.show(duration, received, outcome.body_bytes);
        }
    }

    /// Tells watchers, and remembers failures.
    fn show(&mut self, duration: Duration, received: u64, sent: u64) {
        let watched = self.watched.take().map(|watched| *watched);
        let none = HeaderMap::new();
        let mut entry = Entry::new(&none);
        self.fill(&mut entry);
        entry.start = SystemTime::now() - duration;
        (entry.duration, entry.bytes_received, entry.bytes_sent) = (duration, received, sent);
        self.down.worker.shared.tap.ended(&entry, self.request_id.as_str(), watched);
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.down.worker
    }

    fn downstream_gone(&mut self) {
        self.flags.insert(Flag::DownstreamConnectionTermination);
        self.details = Cow::Borrowed("downstream_remote_disconnect");
    }

    fn key(&self) -> HttpKey {
        let down = &self.down;
        let worker = &down.worker;
        let node = &worker.shared.node;
        let inbound =
            down.listener.listener.direction == Direction::Inbound && node.kind == NodeKind::Sidecar;
        let own = Arc::clone(&node.workload);
        let service = self.cluster.as_ref().map_or_else(Service::unknown, |plan| Arc::clone(&plan.service));
        let upstream =
            self.upstream.as_ref().map(|info| Arc::clone(&info.principal)).filter(|name| !name.is_empty());
        let (source, destination, source_principal, destination_principal, security) = if inbound {
            let mutual = down.is_mutual();
            let principal = if mutual { worker.own_principal() } else { labels::no_principal() };
            let security = if mutual { SecurityPolicy::MutualTls } else { SecurityPolicy::None };
            (
                self.source.clone().unwrap_or_else(Workload::unknown),
                own,
                down.principal(),
                principal,
                security,
            )
        } else {
            let source_principal =
                if upstream.is_some() { worker.own_principal() } else { labels::no_principal() };
            let destination = self.destination.clone().unwrap_or_else(Workload::unknown);
            (
                own,
                destination,
                source_principal,
                upstream.unwrap_or_else(labels::no_principal),
                SecurityPolicy::Unknown,
            )
        };
        HttpKey {
            reporter: if inbound { Reporter::Destination } else { Reporter::Source },
            source,
            destination,
            source_principal,
            destination_principal,
            service,
            protocol: if self.grpc { RequestProtocol::Grpc } else { RequestProtocol::Http },
            code: self.code,
            grpc: GrpcStatus(if self.grpc { self.grpc_status.get() } else { None }),
            flags: self.flags,
            security,
        }
    }

    fn log(&self, duration: Duration, received: u64, sent: u64) {
        let none = HeaderMap::new();
        let mut entry = Entry::new(&none);
        self.fill(&mut entry);
        entry.duration = duration;
        entry.bytes_received = received;
        entry.bytes_sent = sent;
        entry.request = &self.request;
        entry.response = &self.response;
        let worker = &self.down.worker;
        self.loggers.log(&entry, worker.random(), &worker.shared.log);
    }

    /// The version that the client speaks.
    pub(super) fn protocol(&self) -> &'static str {
        protocol(self.version)
    }

    /// What is known so far; for logs, and for header values that ask.
    pub(super) fn fill<'a>(&'a self, entry: &mut Entry<'a>) {
        let down = &*self.down;
        entry.start = self.wall;
        entry.response_duration = self.first_byte.map(|at| at - self.begun);
        entry.protocol = protocol(self.version);
        entry.method = self.method.as_str();
        entry.path = self.path.path_and_query().map_or("", |path| path.as_str());
        entry.authority = self.authority.to_str().unwrap_or_default();
        entry.scheme = self.scheme;
        entry.code = self.code;
        entry.grpc_status = self.grpc_status.get();
        entry.flags = self.flags;
        entry.details = &self.details;
        entry.transport_failure = &self.transport_failure;
        entry.upstream_host = self.host;
        entry.upstream_peer_uri = self.upstream.as_ref().map_or("", |info| &info.principal);
        entry.metadata = self.metadata.as_ref();
        entry.cluster_metadata = self.cluster.as_ref().map(|plan| &plan.cluster.metadata);
        entry.upstream_local = self.upstream.as_ref().and_then(|info| info.local);
        entry.upstream_cluster = match (&self.cluster, &self.missing_cluster) {
            (Some(plan), _) => &plan.cluster.name,
            (None, Some(name)) => name,
            (None, None) => "",
        };
        entry.attempts = self.attempts;
        entry.downstream_local = Some(down.local);
        entry.downstream_remote = Some(self.remote);
        entry.downstream_direct = Some(down.direct);
        entry.server_name = &down.server_name;
        entry.connection_id = down.id;
        entry.hostname = &down.worker.shared.node.hostname;
        entry.trace_id = self.trace_id.as_deref().unwrap_or_default();
        if let Some((host, route)) = &self.route {
            entry.route = &route.name;
            entry.virtual_host = &host.name;
            entry.route_metadata = Some(&route.metadata);
        }
        if let Some(tls) = &down.tls {
            entry.tls_version = tls.version;
            entry.peer_uri = &tls.principal;
            entry.peer_subject = tls.peer.as_ref().map_or("", |peer| &peer.subject);
        }
    }
}

/// A request's identifier, as long as Envoy makes it; kept without an allocation.
struct RequestId {
    bytes: [u8; 36],
    length: usize,
}

impl RequestId {
    const NONE: Self = Self { bytes: [0; 36], length: 0 };

    fn of(headers: &HeaderMap) -> Self {
        let mut id = Self::NONE;
        let fits = |value: &&HeaderValue| value.len() <= id.bytes.len();
        if let Some(value) = headers.get(trace::REQUEST_ID).filter(fits) {
            id.length = value.len();
            id.bytes[..id.length].copy_from_slice(value.as_bytes());
        }
        id
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// The version as logs write it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

impl Finish for Record {
    fn finish(mut self: Box<Self>, outcome: Outcome) {
        self.report(&outcome);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Nobody waited for the response: the client went away while it was made or written.
        if !self.reported {
            self.downstream_gone();
            self.report(&Outcome::default());
        }
    }
}
