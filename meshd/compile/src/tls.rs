//! TLS contexts: mutual TLS between sidecars, TLS towards others, TLS of gateways. Certificates are named, never carried.

use std::sync::Arc;

use meshd_model::MeshConfig;
use policies_api::destination_rule::ClientTls;
use policies_api::gateway::ServerTls;
use policies_xds::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use policies_xds::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsCertificate, TlsParameters, UpstreamTlsContext,
    subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
};
use policies_xds::{any, core, matcher, raw_buffer};

use crate::proto::{ads, flag, string_matcher, transport_socket};

/// Name of the proxy's own certificate.
const OWN_CERTIFICATE: &str = "default";
/// Name of the mesh's roots.
const MESH_ROOTS: &str = "ROOTCA";
/// The bootstrap's cluster behind which the proxy's own secrets are; ours answers them inside.
const SDS_CLUSTER: &str = "sds-grpc";

pub(crate) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// ALPN of a client, by what it speaks inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inner {
    Http1,
    Http2,
    Bytes,
}

impl Inner {
    fn alpn(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
            Self::Http2 => &["istio-h2", "istio", "h2"],
            Self::Bytes => &["istio"],
        };
        names.iter().map(|it| (*it).to_owned()).collect()
    }
}

/// Plain text.
pub(crate) fn plain() -> core::TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", any(&raw_buffer::RawBuffer {}))
}

/// Mutual TLS towards a sidecar that proves one of `accounts` (SPIFFE identities); any of the mesh when the list is empty.
pub(crate) fn mutual_upstream(
    mesh: &MeshConfig,
    sni: &str,
    accounts: &[String],
    inner: Inner,
) -> core::TransportSocket {
    let names = if accounts.is_empty() { mesh_identities(mesh) } else { exact_identities(accounts) };
    let common = CommonTlsContext {
        tls_params: Some(mutual_parameters()),
        alpn_protocols: inner.alpn(),
        tls_certificate_sds_secret_configs: vec![own_secret(OWN_CERTIFICATE)],
        validation_context_type: Some(combined(names, own_secret(MESH_ROOTS))),
        ..Default::default()
    };
    let context =
        UpstreamTlsContext { common_tls_context: Some(common), sni: sni.to_owned(), ..Default::default() };
    transport_socket(TLS_SOCKET, any(&context))
}

/// Mutual TLS from sidecars of the mesh.
pub(crate) fn mutual_downstream(mesh: &MeshConfig, alpn: &[&str]) -> core::TransportSocket {
    let common = CommonTlsContext {
        tls_params: Some(mutual_parameters()),
        alpn_protocols: alpn.iter().map(|it| (*it).to_owned()).collect(),
        tls_certificate_sds_secret_configs: vec![own_secret(OWN_CERTIFICATE)],
        validation_context_type: Some(combined(mesh_identities(mesh), own_secret(MESH_ROOTS))),
        ..Default::default()
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: flag(true),
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// TLS as a destination rule asks for it (`SIMPLE`, `MUTUAL`); none when plain text was asked for.
pub(crate) fn configured_upstream(
    written: &ClientTls,
    host: &str,
    service_names: &[String],
    inner: Inner,
) -> core::TransportSocket {
    let names = if written.subject_alt_names.is_empty() { service_names } else { &written.subject_alt_names };
    let skip = written.insecure_skip_verify == Some(true);
    let mut validation = CertificateValidationContext {
        match_typed_subject_alt_names: names
            .iter()
            .flat_map(|it| [SanType::Dns, SanType::Uri].map(|kind| exact(kind, it)))
            .collect(),
        ..Default::default()
    };
    if skip {
        validation.match_typed_subject_alt_names.clear();
    } else if !written.ca_certificates.is_empty() {
        validation.trusted_ca = Some(file(&written.ca_certificates));
    } else {
        validation.system_root_certs =
            Some(policies_xds::tls::certificate_validation_context::SystemRootCerts {});
    }
    let mut common = CommonTlsContext {
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        alpn_protocols: match inner {
            Inner::Http2 => vec!["h2".to_owned()],
            Inner::Http1 => vec!["http/1.1".to_owned()],
            Inner::Bytes => Vec::new(),
        },
        ..Default::default()
    };
    if written.mode == "MUTUAL" {
        common.tls_certificates.push(TlsCertificate {
            certificate_chain: Some(file(&written.client_certificate)),
            private_key: Some(file(&written.private_key)),
            ..Default::default()
        });
    }
    let sni = if written.sni.is_empty() { host.trim_start_matches("*.") } else { &written.sni };
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: sni.to_owned(),
        // Without names to expect, the server must be who was asked for.
        auto_sni_san_validation: names.is_empty() && !skip,
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// TLS that a gateway's server terminates.
pub(crate) fn gateway_downstream(
    mesh: &MeshConfig,
    written: &ServerTls,
    http: bool,
) -> core::TransportSocket {
    if written.mode == "ISTIO_MUTUAL" {
        return mutual_downstream(mesh, if http { &["h2", "http/1.1"] } else { &[] });
    }
    let mutual = matches!(written.mode.as_str(), "MUTUAL" | "OPTIONAL_MUTUAL");
    let mut common = CommonTlsContext {
        alpn_protocols: if http { vec!["h2".to_owned(), "http/1.1".to_owned()] } else { Vec::new() },
        tls_params: Some(server_parameters(written)),
        ..Default::default()
    };
    let credentials = credentials(written);
    if credentials.is_empty() {
        common.tls_certificates.push(TlsCertificate {
            certificate_chain: Some(file(&written.server_certificate)),
            private_key: Some(file(&written.private_key)),
            ..Default::default()
        });
    } else {
        common.tls_certificate_sds_secret_configs =
            credentials.iter().map(|name| kubernetes_secret(name)).collect();
    }
    if mutual {
        common.validation_context_type =
            Some(client_validation(written, credentials.first().map(|name| &**name)));
    }
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: flag(written.mode == "MUTUAL"),
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// Names of the secrets a server's TLS needs.
pub(crate) fn credentials(written: &ServerTls) -> Vec<Arc<str>> {
    let single = Some(&written.credential_name).filter(|it| !it.is_empty());
    written.credential_names.iter().chain(single).map(|it| it.as_str().into()).collect()
}

/// The xDS name of a Kubernetes secret.
pub(crate) fn secret_name(name: &str) -> String {
    format!("kubernetes://{name}")
}

/// The xDS name of the roots in a Kubernetes secret.
pub(crate) fn roots_name(name: &str) -> String {
    format!("kubernetes://{name}-cacert")
}

/// The SNI by which a sidecar names a cluster to another.
pub(crate) fn cluster_sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

fn client_validation(written: &ServerTls, credential: Option<&str>) -> ValidationContextType {
    let context = CertificateValidationContext {
        match_typed_subject_alt_names: written
            .subject_alt_names
            .iter()
            .flat_map(|it| [SanType::Dns, SanType::Uri].map(|kind| exact(kind, it)))
            .collect(),
        verify_certificate_spki: written.verify_certificate_spki.clone(),
        verify_certificate_hash: written.verify_certificate_hash.clone(),
        ..Default::default()
    };
    let roots = match written.ca_cert_credential_name.as_str() {
        "" => credential.map(roots_name),
        name => Some(secret_name(name)),
    };
    match roots {
        Some(name) => {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(SdsSecretConfig { name, sds_config: Some(ads()) }),
                ..Default::default()
            })
        }
        None => ValidationContextType::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(file(&written.ca_certificates)),
            ..context
        }),
    }
}

fn combined(names: Vec<SubjectAltNameMatcher>, roots: SdsSecretConfig) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: names,
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(roots),
        ..Default::default()
    })
}

fn mesh_identities(mesh: &MeshConfig) -> Vec<SubjectAltNameMatcher> {
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    domains
        .map(|domain| SubjectAltNameMatcher {
            san_type: SanType::Uri.into(),
            matcher: Some(string_matcher(matcher::string_matcher::MatchPattern::Prefix(format!(
                "spiffe://{domain}/"
            )))),
            ..Default::default()
        })
        .collect()
}

fn exact_identities(accounts: &[String]) -> Vec<SubjectAltNameMatcher> {
    accounts.iter().map(|it| exact(SanType::Uri, it)).collect()
}

fn exact(kind: SanType, name: &str) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(string_matcher(matcher::string_matcher::MatchPattern::Exact(name.to_owned()))),
        ..Default::default()
    }
}

/// TLS 1.2 and 1.3 with AEAD suites, as Istio between sidecars.
fn mutual_parameters() -> TlsParameters {
    let suites = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-GCM-SHA256",
    ];
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        cipher_suites: suites.iter().map(|it| (*it).to_owned()).collect(),
        ..Default::default()
    }
}

fn server_parameters(written: &ServerTls) -> TlsParameters {
    let version = |text: &str, default: TlsProtocol| -> i32 {
        match text {
            "TLSV1_0" => TlsProtocol::TlSv10,
            "TLSV1_1" => TlsProtocol::TlSv11,
            "TLSV1_2" => TlsProtocol::TlSv12,
            "TLSV1_3" => TlsProtocol::TlSv13,
            _ => default,
        }
        .into()
    };
    TlsParameters {
        tls_minimum_protocol_version: version(&written.min_protocol_version, TlsProtocol::TlSv12),
        tls_maximum_protocol_version: version(&written.max_protocol_version, TlsProtocol::TlsAuto),
        cipher_suites: written.cipher_suites.clone(),
        ecdh_curves: written.ecdh_curves.clone(),
        ..Default::default()
    }
}

fn own_secret(name: &str) -> SdsSecretConfig {
    let grpc = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
            core::grpc_service::EnvoyGrpc { cluster_name: SDS_CLUSTER.to_owned(), ..Default::default() },
        )),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        set_node_on_first_message_only: true,
        grpc_services: vec![grpc],
        ..Default::default()
    };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3.into(),
            initial_fetch_timeout: Some(crate::proto::duration(std::time::Duration::ZERO)),
            config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(
                source,
            )),
            ..Default::default()
        }),
    }
}

fn kubernetes_secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: secret_name(name), sds_config: Some(ads()) }
}

fn file(path: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..Default::default()
    }
}

/// The certificate and key, or the roots, of a secret.
pub(crate) fn inline(bytes: &[u8]) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(bytes.to_vec())),
        ..Default::default()
    }
}
