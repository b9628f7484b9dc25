//! A control plane for sidecars without a cluster: it signs every certificate request, and hands each proxy the listeners and
//! clusters that belong to its name.

use crate::resources::Resources;
use anyhow::{Context, Result};
use base_tls::{CertificateAuthority, ClientAuth, LeafProfile, Material, Rotating, Server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use policies_xds::csr::{
    CertificateRequest, CertificateResponse, CertificateService, CertificateServiceServer,
};
use policies_xds::discovery::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest,
    DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use policies_xds::{any, type_url};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

const LIFETIME: Duration = Duration::from_secs(86_400);
const QUEUE_MAX: usize = 16;

#[derive(Clone)]
struct Services {
    ca: Arc<CertificateAuthority>,
    /// By the name of the pod.
    resources: Arc<BTreeMap<String, Resources>>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until the process ends, on a thread of its own, as `localhost`; the port.
pub fn start(ca: Arc<CertificateAuthority>, resources: BTreeMap<String, Resources>) -> Result<u16> {
    let profile = LeafProfile {
        dns_names: vec!["localhost".into()],
        server: true,
        lifetime: LIFETIME,
        ..LeafProfile::default()
    };
    let issued = ca.issue(&profile)?;
    let identity = Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, None)?);
    let tls = Server::new(&identity, ClientAuth::None, &[b"h2"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let services = Services { ca, resources: Arc::new(resources) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        runtime.block_on(async {
            if let Err(error) = accept(listener, tls, services).await {
                eprintln!("the control plane ended: {error:#}");
            }
        });
    })?;
    Ok(port)
}

async fn accept(listener: std::net::TcpListener, tls: Server, services: Services) -> Result<()> {
    let listener = TcpListener::from_std(listener).context("cannot serve discovery")?;
    let routes = tonic::service::Routes::new(AggregatedDiscoveryServiceServer::new(services.clone()))
        .add_service(CertificateServiceServer::new(services))
        .prepare();
    loop {
        let (tcp, _) = listener.accept().await?;
        let (tls, routes) = (tls.clone(), routes.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
            // The proxy closes as it likes.
            drop(connection.await);
        });
    }
}

// === impl Services ===

impl Services {
    fn of_node(&self, id: &str) -> Resources {
        let pod = id.split('~').nth(2).and_then(|name| name.split('.').next()).unwrap_or_default();
        self.resources.get(pod).cloned().unwrap_or_default()
    }
}

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
        let mut incoming = request.into_inner();
        let (responses, receiver) = mpsc::channel(QUEUE_MAX);
        let services = self.clone();
        tokio::spawn(async move {
            let (mut resources, mut answered) = (Resources::default(), BTreeSet::new());
            while let Ok(Some(request)) = incoming.message().await {
                if let Some(node) = &request.node {
                    resources = services.of_node(&node.id);
                }
                if let Some(refused) = &request.error_detail {
                    eprintln!("a sidecar refuses {}: {}", request.type_url, refused.message);
                }
                if answered.insert(request.type_url.clone())
                    && let Some(response) = response(&request.type_url, &resources)
                    && responses.send(Ok(response)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// All resources of a type; none for a type that is not needed here.
fn response(type_url: &str, all: &Resources) -> Option<DeltaDiscoveryResponse> {
    let resource = |name: &str, message| Resource {
        name: name.to_owned(),
        version: "1".into(),
        resource: Some(message),
        ..Default::default()
    };
    let resources = match type_url {
        type_url::CLUSTER => all.clusters.iter().map(|it| resource(&it.name, any(it))).collect(),
        type_url::LISTENER => all.listeners.iter().map(|it| resource(&it.name, any(it))).collect(),
        _ => return None,
    };
    Some(DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: "1".into(),
        system_version_info: "1".into(),
        resources,
        ..Default::default()
    })
}

#[tonic::async_trait]
impl CertificateService for Services {
    async fn create_certificate(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let id = "spiffe://cluster.local/ns/default/sa/default".parse();
        let profile = LeafProfile {
            spiffe_id: Some(id.map_err(|_| Status::internal("the identity is invalid"))?),
            server: true,
            client: true,
            lifetime: LIFETIME,
            ..LeafProfile::default()
        };
        let signed = self.ca.sign_request(&request.get_ref().csr, &profile);
        let signed = signed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let cert_chain = vec![signed, self.ca.certificate_pem().to_owned()];
        Ok(Response::new(CertificateResponse { cert_chain }))
    }
}
