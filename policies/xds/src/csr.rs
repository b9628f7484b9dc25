//! Istio's certificate service `istio.v1.auth.IstioCertificateService`, declared by hand.

pub mod client;
pub mod server;

pub use client::CertificateServiceClient;
pub use server::{CertificateService, CertificateServiceServer};

/// Full name of the service.
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";
/// Path of its only method.
pub const CREATE_CERTIFICATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// The certificate signing request, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long the certificate should be valid, in seconds; the authority may shorten it.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Istio's `ImpersonatedIdentity`, `CertSigner` and other hints.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<crate::protobuf::Struct>,
}

/// The certificate that was asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// PEM certificates: leaf first, root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
