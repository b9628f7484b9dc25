//! The client side of the certificate service.

use super::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse};
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body, Bytes, StdError, http::uri::PathAndQuery};

/// Calls the certificate service over `T`.
#[derive(Clone, Debug)]
pub struct CertificateServiceClient<T> {
    grpc: Grpc<T>,
}

// === impl CertificateServiceClient ===

impl<T> CertificateServiceClient<T>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// A client of the server at `origin`, reached through `transport`.
    pub fn with_origin(transport: T, origin: tonic::codegen::http::Uri) -> Self {
        Self { grpc: Grpc::with_origin(transport, origin) }
    }

    /// Asks for a certificate.
    pub async fn create_certificate(
        &mut self,
        request: tonic::Request<CertificateRequest>,
    ) -> Result<tonic::Response<CertificateResponse>, tonic::Status> {
        self.grpc.ready().await.map_err(|error| {
            tonic::Status::unavailable(format!("the certificate service is not ready: {}", error.into()))
        })?;
        let codec = tonic_prost::ProstCodec::default();
        self.grpc.unary(request, PathAndQuery::from_static(CREATE_CERTIFICATE_PATH), codec).await
    }
}
