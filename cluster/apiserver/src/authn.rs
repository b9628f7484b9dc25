//! Who asks: a client certificate, a service-account token, or nobody.

pub(crate) mod tokens;

use std::sync::Arc;

use base_tls::PeerCertificate;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::{
    api::Api,
    error::{ApiError, ApiResult},
};

/// An authenticated user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: Vec<(String, Vec<String>)>,
}

// === impl User ===

impl User {
    /// The common name is the user, organizations are groups.
    pub(crate) fn from_certificate(peer: &PeerCertificate) -> Self {
        let mut groups = peer.organizations.clone();
        groups.push("system:authenticated".to_owned());
        let fingerprint = vec![format!("X509SHA256={}", peer.sha256_hex())];
        Self {
            name: peer.common_name.clone().unwrap_or_default(),
            uid: String::new(),
            groups,
            extra: vec![("authentication.kubernetes.io/credential-id".to_owned(), fingerprint)],
        }
    }

    fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Namespace and name, when this is a service account.
    pub(crate) fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// `authentication.k8s.io/v1` UserInfo.
    pub(crate) fn to_value(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            let extra: Map<String, Value> = self.extra.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            info["extra"] = Value::Object(extra);
        }
        info
    }
}

/// Finds out who sent a request.
///
/// # Errors
/// 401 for a token that is not valid; nobody at all is `system:anonymous`.
pub(crate) fn authenticate(
    api: &Api,
    certificate: Option<Arc<User>>,
    headers: &HeaderMap,
) -> ApiResult<Arc<User>> {
    if let Some(user) = certificate.filter(|user| !user.name.is_empty()) {
        return Ok(user);
    }
    match bearer(headers) {
        Some(token) => match tokens::authenticate(api, &token, &[]) {
            Ok(user) => Ok(Arc::new(user.user)),
            Err(why) => {
                tracing::debug!(%why, "Token refused");
                Err(ApiError::unauthorized())
            }
        },
        None => Ok(Arc::new(User::anonymous())),
    }
}

/// The bearer token, from the header or, for browsers' WebSockets, a subprotocol.
fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok()) {
        let (scheme, token) = value.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned())
            .filter(|t| !t.is_empty());
    }
    let protocols = headers.get("sec-websocket-protocol").and_then(|v| v.to_str().ok())?;
    let encoded =
        protocols.split(',').find_map(|p| p.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, encoded).ok()?;
    String::from_utf8(bytes).ok()
}
