//! A secret, as `envoy.extensions.transport_sockets.tls.v3.Secret`, private keys redacted as Envoy does.

use serde_json::{Value, json};

use super::{message, url};
use crate::secret::{Secret, SecretKind};
use crate::tls::RootSource;

/// The word that stands for a private key (Envoy's, in base64).
pub const REDACTED: &str = "W3JlZGFjdGVkXQ==";

/// The secret.
pub fn secret(secret: &Secret) -> Value {
    let mut fields = json!({ "name": &*secret.name });
    match &secret.kind {
        SecretKind::Certificate(certificate) => {
            fields["tls_certificate"] = json!({
                "certificate_chain": { "inline_string": certificate.chain_pem },
                "private_key": { "inline_bytes": REDACTED },
            });
        }
        SecretKind::Validation(validation) => {
            if let Some(RootSource::Inline(pem)) = &validation.roots {
                fields["validation_context"] = json!({ "trusted_ca": { "inline_string": &**pem } });
            }
        }
    }
    message(&url("envoy.extensions.transport_sockets.tls.v3.Secret"), fields)
}
