//! `envoy.extensions.transport_sockets.tls.v3` and the other transport sockets.
//!
//! Certificates in files become secrets with names of Istio's form (`file-cert:<chain>~<key>`, `file-root:<path>`): reading them
//! is not this crate's business.

mod validation;

pub(crate) use validation::validation_context;

use super::{CertificateSource, DownstreamTls, TlsParameters, TlsVersion, UpstreamTls, Validation};
use crate::convert::{
    At, Converted, aggregated, boxed, data_bytes, data_text, each, enumeration, flag, header_text, not_empty,
    refuse, required, unpack,
};
use crate::invalid::Invalid;
use crate::secret::TlsCertificate;
use policies_xds::core::data_source::Specifier;
use policies_xds::core::{DataSource, TransportSocket, config_source, transport_socket::ConfigType};
use policies_xds::protobuf::Any;
use policies_xds::raw_buffer::RawBuffer;
use policies_xds::tls::tls_parameters::TlsProtocol;
use policies_xds::tls::{self as pb, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext};
use prost::Name;
use std::sync::Arc;

pub(crate) fn typed_config(socket: &TransportSocket) -> Converted<&Any> {
    let ConfigType::TypedConfig(config) = required("typed_config", &socket.config_type)?;
    Ok(config)
}

fn unknown(socket: &TransportSocket, config: &Any) -> Invalid {
    let what = format!("transport socket `{}` of type `{}`", socket.name, config.type_url);
    Invalid::unsupported("typed_config", what)
}

/// TLS at a listener; `None`: plain text.
pub(crate) fn downstream(socket: &TransportSocket) -> Converted<Option<DownstreamTls>> {
    let config = typed_config(socket)?;
    if config.type_url == RawBuffer::type_url() {
        return Ok(None);
    }
    if config.type_url != DownstreamTlsContext::type_url() {
        return Err(unknown(socket, config));
    }
    let message: DownstreamTlsContext = unpack("typed_config", config)?;
    downstream_context(&message).at("typed_config").map(Some)
}

fn downstream_context(message: &DownstreamTlsContext) -> Converted<DownstreamTls> {
    let common = parameters(required("common_tls_context", &message.common_tls_context)?);
    let common = common.at("common_tls_context")?;
    if common.certificates.is_empty() {
        return Err(Invalid::new("common_tls_context", "must have a certificate"));
    }
    let require_client_certificate = flag(&message.require_client_certificate, false);
    if require_client_certificate && common.validation.roots.is_none() {
        return Err(Invalid::new("require_client_certificate", "must come with roots to verify clients by"));
    }
    Ok(DownstreamTls { common, require_client_certificate, require_sni: flag(&message.require_sni, false) })
}

/// TLS towards an upstream; `None`: plain text.
pub(crate) fn upstream(socket: &TransportSocket) -> Converted<Option<UpstreamTls>> {
    let config = typed_config(socket)?;
    if config.type_url == RawBuffer::type_url() {
        return Ok(None);
    }
    if config.type_url != UpstreamTlsContext::type_url() {
        return Err(unknown(socket, config));
    }
    let message: UpstreamTlsContext = unpack("typed_config", config)?;
    upstream_context(&message).at("typed_config").map(Some)
}

fn upstream_context(message: &UpstreamTlsContext) -> Converted<UpstreamTls> {
    let common = message.common_tls_context.as_ref().map(parameters).transpose().at("common_tls_context")?;
    Ok(UpstreamTls {
        common: common.unwrap_or_default(),
        sni: header_text("sni", &message.sni)?.into(),
        auto_sni: message.auto_host_sni,
        auto_san_validation: message.auto_sni_san_validation,
    })
}

fn parameters(message: &pb::CommonTlsContext) -> Converted<TlsParameters> {
    refuse("tls_certificate_provider_instance", message.tls_certificate_provider_instance.is_some())?;
    refuse("custom_tls_certificate_selector", message.custom_tls_certificate_selector.is_some())?;
    refuse("custom_handshaker", message.custom_handshaker.is_some())?;
    refuse("key_log", message.key_log.is_some())?;
    let mut certificates = each("tls_certificates", &message.tls_certificates, certificate_source)?;
    certificates.extend(each(
        "tls_certificate_sds_secret_configs",
        &message.tls_certificate_sds_secret_configs,
        |config| secret_name(config).map(CertificateSource::Secret),
    )?);
    let default = pb::TlsParameters::default();
    let parameters = message.tls_params.as_ref().unwrap_or(&default);
    let (version_min, version_max) = versions(parameters).at("tls_params")?;
    Ok(TlsParameters {
        certificates,
        validation: validation::validation(message.validation_context_type.as_ref())?,
        alpn: each("alpn_protocols", &message.alpn_protocols, |protocol| alpn(protocol))?,
        version_min,
        version_max,
        cipher_suites: boxed(&parameters.cipher_suites),
        curves: boxed(&parameters.ecdh_curves),
    })
}

fn alpn(protocol: &str) -> Converted<Box<str>> {
    if (1..=255).contains(&protocol.len()) {
        Ok(protocol.into())
    } else {
        Err(Invalid::new("", "must have 1 to 255 bytes"))
    }
}

/// Versions below 1.2 are never spoken, whatever the lowest is.
fn versions(message: &pb::TlsParameters) -> Converted<(Option<TlsVersion>, Option<TlsVersion>)> {
    let min = match enumeration("tls_minimum_protocol_version", message.tls_minimum_protocol_version)? {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => None,
        TlsProtocol::TlSv12 => Some(TlsVersion::V1_2),
        TlsProtocol::TlSv13 => Some(TlsVersion::V1_3),
    };
    let max = match enumeration("tls_maximum_protocol_version", message.tls_maximum_protocol_version)? {
        TlsProtocol::TlsAuto => None,
        TlsProtocol::TlSv12 => Some(TlsVersion::V1_2),
        TlsProtocol::TlSv13 => Some(TlsVersion::V1_3),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            return Err(Invalid::unsupported("tls_maximum_protocol_version", "TLS below 1.2"));
        }
    };
    if min > max.or(Some(TlsVersion::V1_3)) {
        return Err(Invalid::new("tls_maximum_protocol_version", "must not be below the lowest version"));
    }
    Ok((min, max))
}

fn certificate_source(message: &pb::TlsCertificate) -> Converted<CertificateSource> {
    let file = |source: &Option<DataSource>| match source.as_ref().and_then(|it| it.specifier.as_ref()) {
        Some(Specifier::Filename(path)) => Some(path.clone()),
        _ => None,
    };
    if let (Some(chain), Some(key)) = (file(&message.certificate_chain), file(&message.private_key)) {
        refuse_parts(message)?;
        return Ok(CertificateSource::Secret(format!("file-cert:{chain}~{key}").into()));
    }
    certificate(message).map(|certificate| CertificateSource::Inline(Arc::new(certificate)))
}

pub(crate) fn certificate(message: &pb::TlsCertificate) -> Converted<TlsCertificate> {
    refuse_parts(message)?;
    let chain = required("certificate_chain", &message.certificate_chain)?;
    let key = required("private_key", &message.private_key)?;
    Ok(TlsCertificate {
        chain_pem: data_text("certificate_chain", chain)?.into(),
        key_pem: data_text("private_key", key)?.into(),
        ocsp_staple: match &message.ocsp_staple {
            Some(source) => data_bytes("ocsp_staple", source)?.into(),
            None => Box::default(),
        },
    })
}

fn refuse_parts(message: &pb::TlsCertificate) -> Converted<()> {
    refuse("pkcs12", message.pkcs12.is_some())?;
    refuse("password", message.password.is_some())?;
    refuse("private_key_provider", message.private_key_provider.is_some())
}

/// A secret that comes over the same stream, or from Envoy's point of view from its agent: the sidecar is both.
fn secret_name(message: &SdsSecretConfig) -> Converted<Arc<str>> {
    let source = message.sds_config.as_ref().and_then(|source| source.config_source_specifier.as_ref());
    if !matches!(source, Some(config_source::ConfigSourceSpecifier::ApiConfigSource(_))) {
        aggregated("sds_config", &message.sds_config)?;
    }
    Ok(not_empty("name", &message.name)?.into())
}

#[cfg(test)]
mod tests;
