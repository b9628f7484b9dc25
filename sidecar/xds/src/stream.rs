//! The stream: connected, answered, connected again.

use crate::config::{Config, Protocol};
use crate::files::FileSecrets;
use crate::saved::Store;
use crate::state::State;
use crate::status::{Status, seconds};
use crate::transport::{Channel, ConnectError, Connected, connect};
use crate::warming::{Decision, Warming};
use crate::whole::Whole;
use base_types::{Backoff, ErrorChain};
use policies_xds::discovery::{
    AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
    DiscoveryResponse,
};
use sidecar_model::{ResourceType, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::metadata::{Ascii, MetadataValue};

/// Bounds of the pause before the next attempt.
const BACK_OFF_BASE: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Longest response read.
const RESPONSE_BYTES_MAX: usize = 128 << 20;
/// The server must take a request, and answer the first one, within this time.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that wait to be sent.
const REQUESTS_MAX: usize = 16;
/// Changes are saved together, this long after the first.
const SAVE_DELAY: Duration = Duration::from_secs(2);
/// How often files that configuration names are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(30);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the control plane refused the stream")]
    Status(#[source] Box<tonic::Status>),
    #[error("the control plane ended the stream")]
    Ended,
    #[error("the connection failed")]
    Connection(#[source] hyper::Error),
    #[error("the control plane did not answer within {PEER_TIMEOUT:?}")]
    Silent,
}

/// Where requests go.
enum Requests {
    Delta(mpsc::Sender<DeltaDiscoveryRequest>),
    Whole(mpsc::Sender<DiscoveryRequest>),
}

/// Where responses come from.
enum Responses {
    Delta(Streaming<DeltaDiscoveryResponse>),
    Whole(Streaming<DiscoveryResponse>),
}

/// A response in the form it came in.
enum Response {
    Delta(DeltaDiscoveryResponse),
    Whole(DiscoveryResponse),
}

impl Responses {
    /// The next response; none at the stream's end. Cancelling it loses nothing.
    async fn next(&mut self) -> Result<Option<Response>, tonic::Status> {
        Ok(match self {
            Self::Delta(stream) => stream.message().await?.map(Response::Delta),
            Self::Whole(stream) => stream.message().await?.map(Response::Whole),
        })
    }
}

type Apply = Box<dyn FnMut(&Arc<Snapshot>) + Send>;

struct Driver {
    config: Arc<Config>,
    state: State,
    status: Arc<Status>,
    apply: Apply,
    snapshots: watch::Sender<Arc<Snapshot>>,
    store: Option<Store>,
    files: FileSecrets,
    whole: Whole,
    warming: Warming,
    /// Version of the state's snapshot that was published last.
    published: u64,
    /// Counts publications.
    version: u64,
    /// When a change that waits for more is put into force anyway.
    publish_at: Option<Instant>,
    save_at: Option<Instant>,
    answered: bool,
}

/// Keeps a stream open until it is dropped.
pub(crate) async fn run(
    config: Arc<Config>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    apply: Apply,
    status: Arc<Status>,
) {
    let store = config.state_dir.as_ref().map(|directory| Store::new(directory, &config.node.id));
    let mut driver = Driver {
        config,
        state: State::new(store.is_some()),
        status,
        apply,
        snapshots,
        store,
        files: FileSecrets::default(),
        whole: Whole::default(),
        warming: Warming::default(),
        published: 0,
        version: 0,
        publish_at: None,
        save_at: None,
        answered: false,
    };
    driver.restore();
    let mut backoff = Backoff::new(BACK_OFF_BASE, BACK_OFF_MAX);
    loop {
        driver.answered = false;
        let error = driver.session().await;
        driver.save_now();
        if driver.answered {
            backoff.reset();
        }
        let delay = backoff.next_delay(rand::random());
        tracing::warn!(error = %ErrorChain(&error), ?delay, "Discovery stream ended, connecting again");
        driver.status.change(|view| {
            view.connected = false;
            view.connect_error = Some(ErrorChain(&error).to_string());
        });
        tokio::time::sleep(delay).await;
    }
}

// === impl Driver ===

impl Driver {
    /// Begins with what an earlier process saved.
    fn restore(&mut self) {
        let Some(store) = &self.store else { return };
        match store.load() {
            Ok(saved) if saved.is_empty() => {}
            Ok(saved) => {
                let total = saved.len();
                let good = self.state.restore(saved.into_iter());
                tracing::info!(resources = good, refused = total - good, "Saved configuration loaded");
                self.files.refresh(self.state.file_secrets(), false);
                self.publish();
                self.status.discovered(&self.state, None);
                self.status.change(|view| (view.configured, view.from_saved) = (true, true));
            }
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "Saved configuration cannot be used"),
        }
    }

    /// One connection from its beginning to its end.
    async fn session(&mut self) -> StreamError {
        let Connected { channel, connection, origin, authorization } = match connect(&self.config).await {
            Ok(connected) => connected,
            Err(error) => return error.into(),
        };
        let mut client = AggregatedDiscoveryServiceClient::<Channel>::with_origin(channel, origin)
            .max_decoding_message_size(RESPONSE_BYTES_MAX);
        let mut first = self.state.open();
        if let Some(request) = first.first_mut() {
            request.node = Some(self.config.node.message());
        }
        let talk = async {
            match self.open(&mut client, first, authorization).await {
                Ok((responses, requests)) => self.talk(responses, requests).await,
                Err(error) => error,
            }
        };
        tokio::select! {
            error = talk => error,
            ended = connection => ended.map_or_else(StreamError::Connection, |()| StreamError::Ended),
        }
    }

    /// Opens the stream with its first requests; there are fewer types than places for them.
    async fn open(
        &mut self,
        client: &mut AggregatedDiscoveryServiceClient<Channel>,
        first: Vec<DeltaDiscoveryRequest>,
        authorization: MetadataValue<Ascii>,
    ) -> Result<(Responses, Requests), StreamError> {
        fn stream<T>(
            first: impl Iterator<Item = T>,
            authorization: MetadataValue<Ascii>,
        ) -> (mpsc::Sender<T>, tonic::Request<ReceiverStream<T>>) {
            let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
            for request in first {
                // The receiver is here, and there is room.
                drop(sender.try_send(request));
            }
            let mut request = tonic::Request::new(ReceiverStream::new(receiver));
            request.metadata_mut().insert("authorization", authorization);
            (sender, request)
        }
        let refused = |status| StreamError::Status(Box::new(status));
        let opened = async {
            match self.config.protocol {
                Protocol::Delta => {
                    let (sender, request) = stream(first.into_iter(), authorization);
                    let opened = client.delta_aggregated_resources(request).await.map_err(refused)?;
                    Ok((Responses::Delta(opened.into_inner()), Requests::Delta(sender)))
                }
                Protocol::Whole => {
                    self.whole.open();
                    let first: Vec<_> = first.into_iter().map(|it| self.whole.request(it)).collect();
                    let (sender, request) = stream(first.into_iter(), authorization);
                    let opened = client.stream_aggregated_resources(request).await.map_err(refused)?;
                    Ok((Responses::Whole(opened.into_inner()), Requests::Whole(sender)))
                }
            }
        };
        tokio::time::timeout(PEER_TIMEOUT, opened).await.map_err(|_| StreamError::Silent)?
    }

    async fn talk(&mut self, mut responses: Responses, requests: Requests) -> StreamError {
        tracing::info!(address = self.config.discovery_address, "Discovery stream opened");
        self.status.change(|view| {
            view.connected = true;
            view.connect_error = None;
            view.streams += 1;
        });
        let mut files = tokio::time::interval(FILES_INTERVAL);
        files.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (publish_at, save_at) = (self.publish_at, self.save_at);
            tokio::select! {
                message = responses.next() => match message {
                    Ok(Some(response)) => {
                        let response = self.changes(response);
                        if let Err(error) = self.respond(response, &requests).await {
                            return error;
                        }
                    }
                    Ok(None) => return StreamError::Ended,
                    Err(status) => return StreamError::Status(Box::new(status)),
                },
                () = at(publish_at) => self.publish_when_complete(),
                () = at(save_at) => self.save_now(),
                _ = files.tick() => if self.files.refresh(self.state.file_secrets(), true) {
                    self.publish();
                },
            }
        }
    }

    /// A response as changes to what is held.
    fn changes(&mut self, response: Response) -> DeltaDiscoveryResponse {
        match response {
            Response::Delta(response) => response,
            Response::Whole(response) => {
                let none = HashMap::new();
                let kind = ResourceType::from_type_url(&response.type_url);
                let held = kind.and_then(|kind| self.state.held(kind)).unwrap_or(&none);
                self.whole.response(response, held)
            }
        }
    }

    /// Takes in a response, puts it into force, asks for what it refers to, and answers it.
    async fn respond(
        &mut self,
        response: DeltaDiscoveryResponse,
        requests: &Requests,
    ) -> Result<(), StreamError> {
        let (resources, removed) = (response.resources.len(), response.removed_resources.len());
        let outcome = self.state.apply(response);
        let mut all = self.state.subscriptions();
        all.push(outcome.reply);
        self.publish_when_complete();
        self.status.discovered(&self.state, if all.len() == 1 { outcome.kind } else { None });
        if self.store.is_some() && resources + removed > 0 {
            self.save_at.get_or_insert(Instant::now() + SAVE_DELAY);
        }
        for request in all {
            if let Some(error) = &request.error_detail {
                tracing::warn!(
                    r#type = request.type_url,
                    refused = outcome.refused,
                    reason = error.message,
                    "Resources refused"
                );
            }
            let sent = async {
                match requests {
                    Requests::Delta(sender) => sender.send(request).await.is_ok(),
                    Requests::Whole(sender) => sender.send(self.whole.request(request)).await.is_ok(),
                }
            };
            let sent = tokio::time::timeout(PEER_TIMEOUT, sent).await.map_err(|_| StreamError::Silent)?;
            if !sent {
                return Err(StreamError::Ended);
            }
        }
        let configured = self.state.is_configured();
        self.answered = true;
        self.status.change(|view| {
            view.last_ack_seconds = Some(seconds(SystemTime::now()));
            view.configured |= configured;
            view.from_saved &= !configured;
        });
        tracing::debug!(kind = ?outcome.kind, resources, removed, refused = outcome.refused, "Response answered");
        Ok(())
    }

    /// Puts what has changed into force, unless it waits for something it refers to.
    fn publish_when_complete(&mut self) {
        self.publish_at = None;
        if self.state.snapshot().version == self.published {
            return;
        }
        match self.warming.decide(self.state.awaited(), Instant::now()) {
            Decision::Now => {
                self.files.refresh(self.state.file_secrets(), false);
                self.publish();
            }
            Decision::Until(until) => self.publish_at = Some(until),
        }
    }

    fn publish(&mut self) {
        let mut snapshot = Snapshot::clone(self.state.snapshot());
        self.published = snapshot.version;
        self.version += 1;
        snapshot.version = self.version;
        self.files.add_to(&mut snapshot);
        let snapshot = Arc::new(snapshot);
        (self.apply)(&snapshot);
        self.snapshots.send_replace(snapshot);
        self.status.change(|view| view.snapshot_version = self.version);
    }

    fn save_now(&mut self) {
        let (Some(store), Some(_)) = (&self.store, self.save_at.take()) else { return };
        let held = self
            .state
            .types()
            .flat_map(|(kind, of_type)| of_type.held.iter().map(move |(name, held)| (kind, name, held)));
        if let Err(error) = store.save(held) {
            tracing::warn!(error = %ErrorChain(&error), "Configuration cannot be saved");
        }
    }
}

/// Waits for a moment, or forever when there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
