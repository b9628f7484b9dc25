//! A control plane whose streams are played by the test, and an authority that signs.

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
use sidecar_model::ResourceType;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const DEADLINE: Duration = Duration::from_secs(20);

/// The server's end of one stream.
pub struct Dialogue {
    pub authorization: String,
    requests: mpsc::Receiver<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonces: u32,
}

/// What the authority does and has done.
#[derive(Default)]
pub struct Authority {
    pub life: Duration,
    pub tokens: Vec<String>,
    pub refuse: bool,
}

#[derive(Clone)]
struct Services {
    streams: mpsc::Sender<Dialogue>,
    authority: Arc<Mutex<Authority>>,
    ca: Arc<CertificateAuthority>,
}

/// A running server; it ends, with all its connections, when it is dropped.
pub struct ControlPlane {
    pub port: u16,
    pub authority: Arc<Mutex<Authority>>,
    streams: mpsc::Receiver<Dialogue>,
    _tasks: JoinSet<()>,
}

// === impl Dialogue ===

impl Dialogue {
    /// The next request; panics when none comes.
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        let next = tokio::time::timeout(DEADLINE, self.requests.recv()).await;
        next.expect("a request was expected").expect("the stream has ended")
    }

    /// Skips requests until one of `kind` that `pick` accepts.
    pub async fn request_where(
        &mut self,
        kind: ResourceType,
        pick: impl Fn(&DeltaDiscoveryRequest) -> bool,
    ) -> DeltaDiscoveryRequest {
        loop {
            let request = self.request().await;
            if request.type_url == kind.type_url() && pick(&request) {
                return request;
            }
        }
    }

    /// Sends a response and returns its nonce.
    pub async fn send(&mut self, kind: ResourceType, resources: Vec<Resource>, removed: &[&str]) -> String {
        self.nonces += 1;
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: format!("{kind}-{}", self.nonces),
            system_version_info: self.nonces.to_string(),
            resources,
            removed_resources: removed.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let nonce = response.nonce.clone();
        self.responses.send(Ok(response)).await.expect("the stream has ended");
        nonce
    }

    /// Sends a response and returns what the client says to it.
    pub async fn ask(
        &mut self,
        kind: ResourceType,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> DeltaDiscoveryRequest {
        let nonce = self.send(kind, resources, removed).await;
        self.request_where(kind, |request| request.response_nonce == nonce).await
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
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let authorization = authorization(&request);
        let mut incoming = request.into_inner();
        let (sender, requests) = mpsc::channel(64);
        let (responses, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(request)) = incoming.message().await {
                if sender.send(request).await.is_err() {
                    return;
                }
            }
        });
        let dialogue = Dialogue { authorization, requests, responses, nonces: 0 };
        self.streams.send(dialogue).await.map_err(|_| Status::unavailable("the test has ended"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl CertificateService for Services {
    async fn create_certificate(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let life = {
            let mut authority = self.authority.lock();
            authority.tokens.push(authorization(&request));
            if authority.refuse {
                return Err(Status::permission_denied("not today"));
            }
            authority.life
        };
        let id = "spiffe://cluster.local/ns/default/sa/reviews".parse().expect("a valid identity");
        let profile =
            LeafProfile { spiffe_id: Some(id), server: true, client: true, lifetime: life, ..leaf() };
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

fn leaf() -> LeafProfile {
    LeafProfile {
        common_name: None,
        organization: None,
        dns_names: Vec::new(),
        addresses: Vec::new(),
        spiffe_id: None,
        server: true,
        client: false,
        lifetime: Duration::from_secs(3600),
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Serves on `port` of the loopback (0: any) with a certificate of `ca` for `name`.
    pub async fn start(ca: &Arc<CertificateAuthority>, port: u16, name: &str) -> Self {
        let issued = ca.issue(&LeafProfile { dns_names: vec![name.to_owned()], ..leaf() }).unwrap();
        let identity = Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, None).unwrap());
        let tls = Server::new(&identity, ClientAuth::None, &[b"h2"]);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, streams) = mpsc::channel(16);
        let life = Duration::from_secs(3600);
        let authority = Arc::new(Mutex::new(Authority { life, ..Authority::default() }));
        let services = Services { streams: sender, authority: authority.clone(), ca: ca.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, services));
        Self { port, authority, streams, _tasks: tasks }
    }

    /// The next stream that the client opens.
    pub async fn stream(&mut self) -> Dialogue {
        let next = tokio::time::timeout(DEADLINE, self.streams.recv()).await;
        next.expect("a stream was expected").expect("the server runs")
    }
}

async fn accept(listener: TcpListener, tls: Server, services: Services) {
    let routes = tonic::service::Routes::new(AggregatedDiscoveryServiceServer::new(services.clone()))
        .add_service(CertificateServiceServer::new(services))
        .prepare();
    // Connections end with the server.
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, routes) = (tls.clone(), routes.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let service = TowerToHyperService::new(routes);
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            // The client closes as it likes.
            drop(connection.await);
        });
    }
}
