//! The server side of the certificate service.

use super::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse, SERVICE_NAME};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::codegen::{Body, BoxFuture, Bytes, Service, StdError, http};

/// Longest request read: a signing request is a few kilobytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What a certificate authority does.
#[tonic::async_trait]
pub trait CertificateService: Send + Sync + 'static {
    /// Signs the key of the request for the identity of the caller.
    async fn create_certificate(
        &self,
        request: tonic::Request<CertificateRequest>,
    ) -> Result<tonic::Response<CertificateResponse>, tonic::Status>;
}

/// Serves a [`CertificateService`] over gRPC.
#[derive(Debug)]
pub struct CertificateServiceServer<S> {
    service: Arc<S>,
}

struct CreateCertificate<S>(Arc<S>);

// === impl CertificateServiceServer ===

impl<S> CertificateServiceServer<S> {
    /// Serves `service`.
    pub fn new(service: S) -> Self {
        Self { service: Arc::new(service) }
    }
}

impl<S> Clone for CertificateServiceServer<S> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone() }
    }
}

impl<S> tonic::server::NamedService for CertificateServiceServer<S> {
    const NAME: &'static str = SERVICE_NAME;
}

impl<S, B> Service<http::Request<B>> for CertificateServiceServer<S>
where
    S: CertificateService,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.service.clone();
        Box::pin(async move {
            if request.uri().path() != CREATE_CERTIFICATE_PATH {
                return Ok(tonic::Status::unimplemented("there is no such method").into_http());
            }
            let codec = tonic_prost::ProstCodec::default();
            let mut grpc =
                tonic::server::Grpc::new(codec).apply_max_message_size_config(Some(REQUEST_BYTES_MAX), None);
            Ok(grpc.unary(CreateCertificate(service), request).await)
        })
    }
}

impl<S: CertificateService> tonic::server::UnaryService<CertificateRequest> for CreateCertificate<S> {
    type Response = CertificateResponse;
    type Future = BoxFuture<tonic::Response<CertificateResponse>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<CertificateRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.create_certificate(request).await })
    }
}
