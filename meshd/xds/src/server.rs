//! gRPC streams around sessions: authentication, compilation, sending, tracking.

mod wire;

use crate::{
    metrics::Metrics,
    node::proxy_key,
    publication::{Publication, Publisher, Subscription},
    session::{Protocol, Session},
    tracker::{Tracker, type_name},
};
use futures::{Stream, StreamExt};
use meshd_ca::{Authenticate, Caller, bearer};
use meshd_compile::{Affected, ResourceType, affected, compile, compile_endpoints};
use meshd_model::{ProxyKey, ProxyKind, Snapshot};
use policies_xds::{
    core::Node,
    discovery::{
        AggregatedDiscoveryService, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
        DiscoveryResponse,
    },
};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::{Delta, Incoming, StateOfTheWorld, Wire};

/// Responses that may wait for a slow proxy.
const OUTBOX: usize = 8;
/// How long routes wait for a proxy to ask for the endpoints of new clusters.
const ENDPOINTS_PATIENCE: Duration = Duration::from_millis(500);
/// A proxy must say who it is within this time.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The ADS service. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    publisher: Publisher,
    tracker: Tracker,
    authenticate: Arc<dyn Authenticate>,
    metrics: Metrics,
    /// Compilations at once: as many as there are cores.
    slots: Arc<Semaphore>,
    streams: Arc<AtomicU64>,
}

/// A stream in progress.
struct Connection {
    server: Server,
    caller: Caller,
    node: Node,
    key: ProxyKey,
    snapshot: Arc<Snapshot>,
    session: Session,
    stream: u64,
    /// When the oldest publication came that is not settled yet.
    unsettled_since: Option<Instant>,
}

// === impl Server ===

impl Server {
    /// Serves what `publisher` publishes to callers that `authenticate` knows.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        tracker: Tracker,
        authenticate: Arc<dyn Authenticate>,
        metrics: Metrics,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            publisher,
            tracker,
            authenticate,
            metrics,
            slots: Arc::new(Semaphore::new(cores)),
            streams: Arc::default(),
        }
    }

    async fn serve<W: Wire>(
        &self,
        request: Request<Streaming<W::Request>>,
    ) -> Result<Response<ReceiverStream<Result<W::Response, Status>>>, Status> {
        let caller = self.authenticate.authenticate(bearer(request.metadata())?).await?;
        let peer = request.remote_addr().map_or_else(String::new, |a| a.to_string());
        let incoming = request.into_inner().map(|message| message.map(W::split));
        let (outbox, responses) = mpsc::channel(OUTBOX);
        let server = self.clone();
        tokio::spawn(async move {
            if let Err(status) = server.drive::<W>(incoming, caller, peer, &outbox).await {
                // The proxy went away: nobody reads the reason.
                drop(outbox.send(Err(status)).await);
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn drive<W: Wire>(
        &self,
        mut incoming: impl Stream<Item = Result<Incoming, Status>> + Unpin,
        caller: Caller,
        peer: String,
        outbox: &mpsc::Sender<Result<W::Response, Status>>,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, incoming.next()).await;
        let Some(mut first) =
            first.map_err(|_| Status::deadline_exceeded("no first request"))?.transpose()?
        else {
            return Ok(());
        };
        let node = first
            .node
            .take()
            .ok_or_else(|| Status::invalid_argument("the first request must name the node"))?;
        let mut publications = self.publisher.subscribe();
        let Some(publication) = publications.first().await else { return Ok(()) };
        let key = proxy_key(&node, &caller, &publication.snapshot)?;
        let stream = self.streams.fetch_add(1, Relaxed) + 1;
        let kind = if key.kind == ProxyKind::Router { "router" } else { "sidecar" };
        self.tracker.connected(&key.id, kind, peer, stream);
        self.metrics.connected.inc();
        tracing::info!(proxy = %key.id, stream, "Proxy connected");
        let id = key.id.clone();
        let session = Session::new(W::PROTOCOL);
        let snapshot = publication.snapshot.clone();
        let mut connection = Connection {
            server: self.clone(),
            caller,
            node,
            key,
            snapshot,
            session,
            stream,
            unsettled_since: None,
        };
        connection.compile(publication).await;
        let result = connection.run::<W>(first, &mut incoming, &mut publications, outbox).await;
        self.tracker.left(&id, stream);
        self.metrics.connected.dec();
        tracing::info!(proxy = %id, stream, reason = ?result.as_ref().err().map(Status::message), "Proxy left");
        result
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Server {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.serve::<StateOfTheWorld>(request).await?.map(|stream| Box::pin(stream) as _))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.serve::<Delta>(request).await?.map(|stream| Box::pin(stream) as _))
    }
}

// === impl Connection ===

impl Connection {
    async fn run<W: Wire>(
        &mut self,
        first: Incoming,
        incoming: &mut (impl Stream<Item = Result<Incoming, Status>> + Unpin),
        publications: &mut Subscription,
        outbox: &mpsc::Sender<Result<W::Response, Status>>,
    ) -> Result<(), Status> {
        self.request(first);
        loop {
            self.send::<W>(outbox).await?;
            let waiting = self.session.is_waiting_for_endpoints();
            tokio::select! {
                message = incoming.next() => match message.transpose()? {
                    Some(message) => self.request(message),
                    None => return Ok(()),
                },
                publication = publications.next() => match publication {
                    Some(publication) => self.compile(publication).await,
                    None => return Ok(()),
                },
                () = tokio::time::sleep(ENDPOINTS_PATIENCE), if waiting => self.session.lose_patience(),
            }
        }
    }

    fn request(&mut self, message: Incoming) {
        let Some(kind) = ResourceType::of_type_url(&message.type_url) else {
            // Types of other control planes (names for DNS, workloads): this one has none to give.
            tracing::debug!(proxy = %self.key.id, type_url = message.type_url, "Unknown type asked for");
            return;
        };
        let mut request = message.request;
        if let Some(names) = message.names {
            (request.subscribe, request.unsubscribe) = self.session.names_changed(kind, &names);
        }
        if let Some(Err(reason)) = self.session.request(kind, request) {
            self.server.metrics.rejects.get_or_create(&Metrics::label(kind)).inc();
            tracing::warn!(proxy = %self.key.id, r#type = type_name(kind), reason, "Proxy refused a configuration");
        }
    }

    /// Compiles what a publication can have changed for this proxy.
    async fn compile(&mut self, publication: Publication) {
        // Only a stopped program closes the semaphore.
        let Ok(_slot) = self.server.slots.clone().acquire_owned().await else { return };
        let started = Instant::now();
        let before = std::mem::replace(&mut self.snapshot, publication.snapshot);
        // The pod's labels may have changed, and a malformed node was refused at the beginning.
        let key = proxy_key(&self.node, &self.caller, &self.snapshot).unwrap_or_else(|_| self.key.clone());
        let reach = if key == self.key {
            affected(&publication.change, &before, &self.snapshot, &key)
        } else {
            Affected::Everything
        };
        self.key = key;
        let resources = match reach {
            Affected::Nothing => self.session.resources().clone(),
            Affected::Endpoints => {
                compile_endpoints(&self.snapshot, &self.key, self.session.resources(), &publication.change)
            }
            Affected::Everything => compile(&self.snapshot, &self.key),
        };
        self.session.configure(resources, self.snapshot.version);
        self.unsettled_since.get_or_insert(started);
        self.server.metrics.push_time.observe(started.elapsed().as_secs_f64());
    }

    /// Sends what may be sent, and tells the tracker when everything is acknowledged.
    async fn send<W: Wire>(
        &mut self,
        outbox: &mpsc::Sender<Result<W::Response, Status>>,
    ) -> Result<(), Status> {
        for response in self.session.responses() {
            let label = Metrics::label(response.kind);
            let bytes: usize = response.resources.iter().map(|r| r.value.len()).sum();
            self.server.metrics.pushes.get_or_create(&label).inc();
            self.server.metrics.config_size.get_or_create(&label).observe(bytes as f64);
            tracing::debug!(proxy = %self.key.id, r#type = type_name(response.kind), version = response.version, resources = response.resources.len(), removed = response.removed.len(), "Push");
            outbox
                .send(Ok(W::encode(response)))
                .await
                .map_err(|_| Status::cancelled("the proxy went away"))?;
        }
        if self.unsettled_since.is_some()
            && let Some(settled) = self.session.settle()
        {
            if let Some(since) = self.unsettled_since.take() {
                self.server.metrics.convergence.observe(since.elapsed().as_secs_f64());
            }
            let resources = self.session.resources();
            let counts: BTreeMap<_, _> = ResourceType::ALL
                .into_iter()
                .map(|kind| (type_name(kind), resources.of(kind).len()))
                .collect();
            self.server.tracker.settled(&self.key.id, self.stream, &settled, counts);
        }
        Ok(())
    }
}
