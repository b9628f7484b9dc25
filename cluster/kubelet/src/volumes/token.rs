//! Service account tokens of one pod: asked for when a volume needs them, renewed when 80 % of their life is over.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use super::payload::TokenAsk;
use crate::backoff::after;
use crate::pod;

/// Wait before a failed renewal is tried again; the token in use is still valid then.
const RETRY: Duration = Duration::from_secs(30);

/// The tokens of one pod.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    held: BTreeMap<TokenAsk, Token>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

// === impl Tokens ===

impl Tokens {
    /// Fetches what `asks` wants and has not, or not fresh, and answers all texts. A token that still lives survives a failed renewal.
    pub(crate) async fn refresh(
        &mut self,
        client: &Client,
        pod: &Pod,
        asks: &[TokenAsk],
        now: Timestamp,
    ) -> Result<BTreeMap<TokenAsk, String>, kube::Error> {
        for ask in asks {
            if self.held.get(ask).is_some_and(|token| now < token.renew_at) {
                continue;
            }
            match request(client, pod, ask, now).await {
                Ok(token) => {
                    self.held.insert(ask.clone(), token);
                }
                Err(error) => match self.held.get_mut(ask) {
                    Some(token) if now < token.expires_at => {
                        tracing::warn!(pod = pod::name(pod), %error, "Service account token not renewed");
                        token.renew_at = after(now, RETRY);
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(self.held.iter().map(|(ask, token)| (ask.clone(), token.text.clone())).collect())
    }

    /// When the next token is due.
    pub(crate) fn renew_at(&self) -> Option<Timestamp> {
        self.held.values().map(|token| token.renew_at).min()
    }
}

async fn request(client: &Client, pod: &Pod, ask: &TokenAsk, now: Timestamp) -> Result<Token, kube::Error> {
    let account = pod::spec(pod).and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), pod::namespace(pod));
    let audiences = if ask.audience.is_empty() { Vec::new() } else { vec![ask.audience.clone()] };
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences,
            expiration_seconds: Some(ask.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
    let Some(status) = answer.status else {
        return Err(kube::Error::Service("the token request was answered without a token".into()));
    };
    let expires_at = status.expiration_timestamp.0;
    Ok(Token { text: status.token, renew_at: renewal(now, expires_at), expires_at })
}

/// When 80 % of a life from `now` to `expires_at` is over.
fn renewal(now: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at.duration_since(now).max(SignedDuration::ZERO);
    now.checked_add(life / 10 * 8).unwrap_or(expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_four_fifths() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renewal(at(1000), at(2000)), at(1800));
        assert_eq!(renewal(at(1000), at(900)), at(1000));
    }
}
