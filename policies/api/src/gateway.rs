//! `Gateway` (networking.istio.io): ports that gateway pods open, and for which hosts.

use serde::Deserialize;

use crate::matching::StringMap;

/// The spec of a `Gateway`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Ports and their hosts.
    pub servers: Vec<Server>,
    /// Labels of the gateway pods, in any namespace.
    pub selector: StringMap,
}

/// One port of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Server {
    /// The port.
    pub port: Port,
    /// Address to bind to; all when empty.
    pub bind: String,
    /// Hosts, each perhaps with a namespace: `ns/dns`, `*/dns`, `./dns`.
    pub hosts: Vec<String>,
    /// TLS at the gateway.
    pub tls: Option<ServerTls>,
    /// Used by `Sidecar` ingress only.
    pub default_endpoint: String,
    /// Name in logs.
    pub name: String,
}

/// Number, protocol and name of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// 1 to 65535 once validated.
    pub number: u32,
    /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP` or `TLS`.
    pub protocol: String,
    /// Name of the port.
    pub name: String,
    /// Not used by gateways any more.
    pub target_port: Option<u32>,
}

/// TLS of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerTls {
    /// Answer plain requests with 301 to https.
    pub https_redirect: bool,
    /// `PASSTHROUGH`, `SIMPLE`, `MUTUAL`, `AUTO_PASSTHROUGH`, `ISTIO_MUTUAL` or `OPTIONAL_MUTUAL`.
    pub mode: String,
    /// File of the certificate.
    pub server_certificate: String,
    /// File of the key.
    pub private_key: String,
    /// File of the client roots.
    pub ca_certificates: String,
    /// File of the revocation list.
    pub ca_crl: String,
    /// Secret with certificate and key, in the gateway pods' namespace.
    pub credential_name: String,
    /// Two secrets, of different key types.
    pub credential_names: Vec<String>,
    /// Secret with the client roots.
    pub ca_cert_credential_name: String,
    /// Certificates by file.
    pub tls_certificates: Vec<ServerCertificate>,
    /// Names a client certificate must have.
    pub subject_alt_names: Vec<String>,
    /// Accepted key hashes.
    pub verify_certificate_spki: Vec<String>,
    /// Accepted certificate hashes.
    pub verify_certificate_hash: Vec<String>,
    /// `TLS_AUTO`, `TLSV1_0` … `TLSV1_3`.
    pub min_protocol_version: String,
    /// `TLS_AUTO`, `TLSV1_0` … `TLSV1_3`.
    pub max_protocol_version: String,
    /// Accepted cipher suites.
    pub cipher_suites: Vec<String>,
    /// Accepted curves.
    pub ecdh_curves: Vec<String>,
}

/// A certificate by file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerCertificate {
    /// File of the certificate.
    pub server_certificate: String,
    /// File of the key.
    pub private_key: String,
    /// File of the client roots.
    pub ca_certificates: String,
}
