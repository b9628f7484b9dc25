//! A control plane whose streams are played by the test, and an authority that signs.

use crate::DEADLINE;
use base_tls::{CertificateAuthority, ClientAuth, LeafProfile, Material, Rotating, Server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use policies_xds::csr::{
    CertificateRequest, CertificateResponse, CertificateService, CertificateServiceServer,
};
use policies_xds::discovery::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest,
    DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use policies_xds::protobuf::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const QUEUE_MAX: usize = 64;

/// The server's end of one stream of requests `Q` and responses `A`.
#[derive(Debug)]
pub struct Dialogue<Q, A> {
    /// What the client sent as `authorization`.
    pub authorization: String,
    requests: mpsc::Receiver<Q>,
    responses: mpsc::Sender<Result<A, Status>>,
    nonces: u32,
}

/// A stream of changes.
pub type Delta = Dialogue<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
/// A stream of whole states.
pub type Whole = Dialogue<DiscoveryRequest, DiscoveryResponse>;

/// What requests of both kinds have in common.
pub trait Asked {
    /// Type of the resources.
    fn type_url(&self) -> &str;
    /// The response that is answered; empty when none is.
    fn nonce(&self) -> &str;
}

/// What the authority does and has done.
#[derive(Debug)]
pub struct Authority {
    /// Life of what it signs.
    pub life: Duration,
    /// The identity it certifies.
    pub identity: String,
    /// What clients sent as `authorization`.
    pub tokens: Vec<String>,
    /// Nothing is signed.
    pub refuse: bool,
}

#[derive(Clone)]
struct Services {
    deltas: mpsc::Sender<Delta>,
    wholes: mpsc::Sender<Whole>,
    authority: Arc<Mutex<Authority>>,
    ca: Arc<CertificateAuthority>,
}

/// A running server; it ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    /// Port of TLS.
    pub port: u16,
    /// Port of plain HTTP/2.
    pub plain_port: u16,
    /// What is signed.
    pub authority: Arc<Mutex<Authority>>,
    /// Streams of changes, as they are opened.
    pub(crate) deltas: mpsc::Receiver<Delta>,
    /// Streams of whole states, as they are opened.
    pub(crate) wholes: mpsc::Receiver<Whole>,
    _tasks: JoinSet<()>,
}

impl Asked for DeltaDiscoveryRequest {
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn nonce(&self) -> &str {
        &self.response_nonce
    }
}

impl Asked for DiscoveryRequest {
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn nonce(&self) -> &str {
        &self.response_nonce
    }
}

// === impl Dialogue ===

impl<Q: Asked, A> Dialogue<Q, A> {
    /// The next request; `None` when the client has ended the stream.
    pub async fn next(&mut self) -> Option<Q> {
        self.requests.recv().await
    }

    /// The next request.
    ///
    /// # Panics
    /// When none comes.
    pub async fn request(&mut self) -> Q {
        let next = tokio::time::timeout(DEADLINE, self.requests.recv()).await;
        next.expect("a request was expected").expect("the stream has ended")
    }

    /// Skips requests until one for `type_url` that `pick` accepts.
    ///
    /// # Panics
    /// When none comes.
    pub async fn request_where(&mut self, type_url: &str, pick: impl Fn(&Q) -> bool) -> Q {
        loop {
            let request = self.request().await;
            if request.type_url() == type_url && pick(&request) {
                return request;
            }
        }
    }

    /// Sends a response as it is; false when the client has gone.
    pub async fn reply(&mut self, response: A) -> bool {
        self.responses.send(Ok(response)).await.is_ok()
    }

    /// A nonce that this stream has not used.
    pub fn nonce(&mut self, type_url: &str) -> String {
        self.nonces += 1;
        format!("{}-{}", type_url.rsplit('.').next().unwrap_or_default(), self.nonces)
    }
}

impl Delta {
    /// Sends a response and returns its nonce.
    ///
    /// # Panics
    /// When the client has gone.
    pub async fn send(&mut self, type_url: &str, resources: Vec<Resource>, removed: &[&str]) -> String {
        let nonce = self.nonce(type_url);
        let response = DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: nonce.clone(),
            system_version_info: self.nonces.to_string(),
            resources,
            removed_resources: removed.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        assert!(self.reply(response).await, "the stream has ended");
        nonce
    }

    /// Sends a response and returns what the client says to it.
    pub async fn ask(
        &mut self,
        type_url: &str,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> DeltaDiscoveryRequest {
        let nonce = self.send(type_url, resources, removed).await;
        self.request_where(type_url, |request| request.response_nonce == nonce).await
    }
}

impl Whole {
    /// Sends all resources of a type and returns what the client says to them.
    pub async fn ask(&mut self, type_url: &str, version: &str, resources: Vec<Any>) -> DiscoveryRequest {
        let nonce = self.send(type_url, version, resources).await;
        self.request_where(type_url, |request| request.response_nonce == nonce).await
    }

    /// Sends all resources of a type and returns the response's nonce.
    ///
    /// # Panics
    /// When the client has gone.
    pub async fn send(&mut self, type_url: &str, version: &str, resources: Vec<Any>) -> String {
        let nonce = self.nonce(type_url);
        let response = DiscoveryResponse {
            type_url: type_url.into(),
            version_info: version.into(),
            nonce: nonce.clone(),
            resources,
            ..Default::default()
        };
        assert!(self.reply(response).await, "the stream has ended");
        nonce
    }
}

// === impl Services ===

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Services {
    type StreamAggregatedResourcesStream = Replies<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Replies<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        open(request, &self.wholes).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        open(request, &self.deltas).await
    }
}

/// Hands the stream to whoever plays it.
async fn open<Q: Send + 'static, A: Send + 'static>(
    request: Request<Streaming<Q>>,
    streams: &mpsc::Sender<Dialogue<Q, A>>,
) -> Result<Response<Replies<A>>, Status> {
    let authorization = authorization(&request);
    let mut incoming = request.into_inner();
    let (sender, requests) = mpsc::channel(QUEUE_MAX);
    let (responses, receiver) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        while let Ok(Some(request)) = incoming.message().await {
            if sender.send(request).await.is_err() {
                return;
            }
        }
    });
    let dialogue = Dialogue { authorization, requests, responses, nonces: 0 };
    streams.send(dialogue).await.map_err(|_| Status::unavailable("the test has ended"))?;
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

#[tonic::async_trait]
impl CertificateService for Services {
    async fn create_certificate(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let (life, identity) = {
            let mut authority = self.authority.lock();
            authority.tokens.push(authorization(&request));
            if authority.refuse {
                return Err(Status::permission_denied("not today"));
            }
            (authority.life, authority.identity.clone())
        };
        let profile = LeafProfile {
            spiffe_id: Some(identity.parse().expect("a valid identity")),
            server: true,
            client: true,
            lifetime: life,
            ..LeafProfile::default()
        };
        let signed = self.ca.sign_request(&request.get_ref().csr, &profile);
        let signed = signed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let cert_chain = vec![signed, self.ca.certificate_pem().to_owned()];
        Ok(Response::new(CertificateResponse { cert_chain }))
    }
}

fn authorization<T>(request: &Request<T>) -> String {
    let value = request.metadata().get("authorization");
    value.map(|value| value.to_str().expect("ASCII").to_owned()).unwrap_or_default()
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Serves on `port` of the loopback (0: any) with a certificate of `ca` for `name`, and on any port without TLS.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn start(ca: &Arc<CertificateAuthority>, port: u16, name: &str) -> Self {
        let profile = LeafProfile {
            dns_names: vec![name.to_owned()],
            server: true,
            lifetime: Duration::from_secs(86_400),
            ..LeafProfile::default()
        };
        let issued = ca.issue(&profile).unwrap();
        let identity = Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, None).unwrap());
        let tls = Server::new(&identity, ClientAuth::None, &[b"h2"]);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, plain_port) = (listener.local_addr().unwrap().port(), plain.local_addr().unwrap().port());
        let (delta_sender, deltas) = mpsc::channel(16);
        let (whole_sender, wholes) = mpsc::channel(16);
        let authority = Arc::new(Mutex::new(Authority {
            life: Duration::from_secs(3600),
            identity: "spiffe://cluster.local/ns/default/sa/reviews".to_owned(),
            tokens: Vec::new(),
            refuse: false,
        }));
        let services = Services {
            deltas: delta_sender,
            wholes: whole_sender,
            authority: authority.clone(),
            ca: ca.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Some(tls), services.clone()));
        tasks.spawn(accept(plain, None, services));
        Self { port, plain_port, authority, deltas, wholes, _tasks: tasks }
    }

    /// The next stream of changes that a client opens.
    ///
    /// # Panics
    /// When none is opened.
    pub async fn stream(&mut self) -> Delta {
        let next = tokio::time::timeout(DEADLINE, self.deltas.recv()).await;
        next.expect("a stream was expected").expect("the server runs")
    }

    /// The next stream of whole states that a client opens.
    ///
    /// # Panics
    /// When none is opened.
    pub async fn whole_stream(&mut self) -> Whole {
        let next = tokio::time::timeout(DEADLINE, self.wholes.recv()).await;
        next.expect("a stream was expected").expect("the server runs")
    }
}

async fn accept(listener: TcpListener, tls: Option<Server>, services: Services) {
    let routes = tonic::service::Routes::new(AggregatedDiscoveryServiceServer::new(services.clone()))
        .add_service(CertificateServiceServer::new(services))
        .prepare();
    // Connections end with the server.
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, service) = (tls.clone(), TowerToHyperService::new(routes.clone()));
        connections.spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // The client closes as it likes.
            match tls {
                None => drop(builder.serve_connection(TokioIo::new(tcp), service).await),
                Some(tls) => {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                }
            }
        });
    }
}
