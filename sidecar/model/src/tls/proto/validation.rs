//! How a peer's certificate is judged.
//!
//! What would make the judgement stricter than this crate can express is refused, never passed over.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{Validation, secret_name};
use crate::convert::{At, Converted, data_text, each, enumeration, flag, refuse, required};
use crate::invalid::Invalid;
use crate::matcher::proto::string_match;
use crate::secret::SYSTEM_ROOTS;
use crate::tls::{RootSource, SanKind, SanMatch};
use policies_xds::core::DataSource;
use policies_xds::core::data_source::Specifier;
use policies_xds::tls::certificate_validation_context::TrustChainVerification;
use policies_xds::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use policies_xds::tls::subject_alt_name_matcher::SanType;
use policies_xds::tls::{CertificateValidationContext, SubjectAltNameMatcher};

/// Characters of a SHA-256 in base64.
const SPKI_CHARS: usize = 44;
/// Characters of a SHA-256 in hexadecimal.
const HASH_CHARS: usize = 64;

pub(super) fn validation(message: Option<&ValidationContextType>) -> Converted<Validation> {
    let validation = match message {
        None => return Ok(Validation::default()),
        Some(ValidationContextType::ValidationContext(message)) => {
            validation_context(message).at("validation_context")?
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            let name = secret_name(config).at("validation_context_sds_secret_config")?;
            Validation { roots: Some(RootSource::Secret(name)), ..Default::default() }
        }
        Some(ValidationContextType::CombinedValidationContext(message)) => {
            combined(message).at("combined_validation_context")?
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => return Err(Invalid::unsupported("validation_context_type", "a certificate provider")),
    };
    if validation.roots.is_none() && !validation.subject_alt_names.is_empty() {
        let reason = "must have roots: names of a certificate that nobody vouches for prove nothing";
        return Err(Invalid::new("validation_context", reason));
    }
    Ok(validation)
}

fn combined(message: &CombinedCertificateValidationContext) -> Converted<Validation> {
    let default = required("default_validation_context", &message.default_validation_context)?;
    let default = validation_context(default).at("default_validation_context")?;
    let config =
        required("validation_context_sds_secret_config", &message.validation_context_sds_secret_config)?;
    let name = secret_name(config).at("validation_context_sds_secret_config")?;
    Ok(Validation { roots: Some(RootSource::Secret(name)), ..default })
}

pub(crate) fn validation_context(message: &CertificateValidationContext) -> Converted<Validation> {
    refuse("ca_certificate_provider_instance", message.ca_certificate_provider_instance.is_some())?;
    refuse("custom_validator_config", message.custom_validator_config.is_some())?;
    refuse("allow_expired_certificate", message.allow_expired_certificate)?;
    let transparency = flag(&message.require_signed_certificate_timestamp, false);
    refuse("require_signed_certificate_timestamp", transparency)?;
    let mut subject_alt_names =
        each("match_typed_subject_alt_names", &message.match_typed_subject_alt_names, san_match)?;
    subject_alt_names.extend(each("match_subject_alt_names", &message.match_subject_alt_names, |matcher| {
        Ok(SanMatch { kind: SanKind::Any, matcher: string_match(matcher)? })
    })?);
    Ok(Validation {
        roots: roots(message)?,
        subject_alt_names,
        spki_hashes: each("verify_certificate_spki", &message.verify_certificate_spki, |hash| spki(hash))?,
        certificate_hashes: each("verify_certificate_hash", &message.verify_certificate_hash, |hash| {
            certificate_hash(hash)
        })?,
        accept_untrusted: enumeration::<TrustChainVerification>(
            "trust_chain_verification",
            message.trust_chain_verification,
        )? == TrustChainVerification::AcceptUntrusted,
        crl: match &message.crl {
            Some(source) => data_text("crl", source)?.into(),
            None => Box::default(),
        },
    })
}

fn roots(message: &CertificateValidationContext) -> Converted<Option<RootSource>> {
    if let Some(source) = &message.trusted_ca {
        return trusted_ca(source).map(Some);
    }
    Ok(message.system_root_certs.as_ref().map(|_| RootSource::Secret(SYSTEM_ROOTS.into())))
}

fn trusted_ca(source: &DataSource) -> Converted<RootSource> {
    if let Some(Specifier::Filename(path)) = &source.specifier {
        return Ok(RootSource::Secret(format!("file-root:{path}").into()));
    }
    match data_text("trusted_ca", source)? {
        "" => Err(Invalid::missing("trusted_ca")),
        pem => Ok(RootSource::Inline(pem.into())),
    }
}

fn san_match(message: &SubjectAltNameMatcher) -> Converted<SanMatch> {
    let kind = match enumeration("san_type", message.san_type)? {
        SanType::Uri => SanKind::Uri,
        SanType::Dns => SanKind::Dns,
        SanType::IpAddress => SanKind::Ip,
        SanType::Email => SanKind::Email,
        SanType::OtherName => return Err(Invalid::unsupported("san_type", "OTHER_NAME")),
        SanType::Unspecified => return Err(Invalid::missing("san_type")),
    };
    Ok(SanMatch { kind, matcher: string_match(required("matcher", &message.matcher)?).at("matcher")? })
}

fn spki(hash: &str) -> Converted<Box<str>> {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if hash.len() == SPKI_CHARS && hash.bytes().all(is_base64) {
        Ok(hash.into())
    } else {
        Err(Invalid::new("", "must be a SHA-256 in base64"))
    }
}

fn certificate_hash(hash: &str) -> Converted<Box<str>> {
    let plain: String = hash.chars().filter(|char| *char != ':').collect::<String>().to_ascii_lowercase();
    if plain.len() == HASH_CHARS && plain.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(plain.into())
    } else {
        Err(Invalid::new("", "must be a SHA-256 in hexadecimal"))
    }
}
