//! `envoy.extensions.transport_sockets.tls.v3.Secret`.

use super::{Secret, SecretKind};
use crate::convert::{At, Converted, decode, not_empty, required};
use crate::invalid::Invalid;
use crate::tls::proto::{certificate, validation_context};
use policies_xds::tls::{self as pb, secret::Type};
use std::sync::Arc;

impl Secret {
    /// Reads an encoded `Secret`.
    pub fn decode(message: &[u8]) -> Result<Self, Invalid> {
        secret(&decode(message)?)
    }
}

fn secret(message: &pb::Secret) -> Converted<Secret> {
    let kind = match required("type", &message.r#type)? {
        Type::TlsCertificate(message) => {
            SecretKind::Certificate(Arc::new(certificate(message).at("tls_certificate")?))
        }
        Type::ValidationContext(message) => {
            SecretKind::Validation(Arc::new(validation_context(message).at("validation_context")?))
        }
        Type::SessionTicketKeys(_) => return Err(Invalid::unsupported("session_ticket_keys", "this field")),
        Type::GenericSecret(_) => return Err(Invalid::unsupported("generic_secret", "this field")),
    };
    Ok(Secret { name: not_empty("name", &message.name)?.into(), kind })
}
